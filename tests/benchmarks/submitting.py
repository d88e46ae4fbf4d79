"""Queueing 20 configurations of five folds on a real Slurm, by the broker. Wanted: 20 sbatch, 10 s."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

from cluster import submission
from cluster.broker import Broker, Place
from cluster.site import Site
from cluster.snapshot import snapshot
from cluster.worker import FoldJob
from data_prep.files import make_private
from mtl.config import Config
from tests.benchmarks.rows import Row


def run(environment: dict[str, str], configurations: int = 20, folds: int = 5) -> Row:
    """The row. environment: of the cluster's client commands."""
    site = Site(kind="slurm", gpus_per_node=1, cpus_per_rank=1, mem_gb=1, sbatch={"begin": "now+1hour"})
    submits, submit = [], submission.submit

    def counted(*arguments: object) -> object:
        submits.append(1)
        return submit(*arguments)  # type: ignore[arg-type]

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict("os.environ", environment),
        patch.object(submission, "submit", counted),
    ):
        home = make_private(Path(folder) / "sweep")
        broker = Broker(site, "bench", home, snapshot(home), at_once=True)
        for n in range(configurations):
            where = make_private(home / f"c{n}")
            jobs = [FoldJob(asdict(Config("d")), "store", str(where / f"fold_{k}"), k) for k in range(folds)]
            Place(str(home)).start(f"c{n}", jobs)
        begin = time.perf_counter()
        broker.step()
        seconds = time.perf_counter() - begin
        queued = len({w.id for w in broker.kept.open()})
    note = f"{len(submits)} sbatch, {queued} jobs"
    assert len(submits) == configurations, note
    return Row(f"queueing {configurations} x {folds} folds on the tests' Slurm", "s", [seconds], wanted=10, note=note)
