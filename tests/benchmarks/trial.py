"""What a trial of Ray Tune costs on top of its folds' own training, after warm-up.

The same fold tasks are run with trials around them and without. A sweep of `many` configurations less one of
`few` leaves out what is paid once; the difference of the two ways is the trials' own. Wanted: at most 0.3 s.
"""

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from cluster import executors, folds, worker
from cluster.folds import Configuration
from mtl.config import Config
from sweeps import search
from tests.benchmarks.rows import Row, spread
from tests.pretended_folds import Listed

HERE = executors.Place("cpu", 2)


def _configurations(config: Config, count: int, home: Path) -> list[Configuration]:
    return [
        Configuration(f"c{n}", {"n": n}, asdict(replace(config, train=replace(config.train, seed=n))), home / f"c{n}")
        for n in range(count)
    ]


def with_trials(config: Config, count: int, store: Path, scratch: Path) -> float:
    """Seconds of a sweep of `count` configurations."""
    with tempfile.TemporaryDirectory() as home:
        made = _configurations(config, count, Path(home))

        def evaluate(tried: Configuration, report: search.Report) -> None:
            folds.evaluate(tried, store, HERE, report)

        begin = time.perf_counter()
        search.search(Listed(made, 2), evaluate, scratch)
        seconds = time.perf_counter() - begin
        assert all(c.done() for c in made)
        return seconds


def without_trials(config: Config, count: int, store: Path) -> float:
    """Seconds of the same folds, queued as bare tasks."""
    with tempfile.TemporaryDirectory() as home:
        made = _configurations(config, count, Path(home))
        begin = time.perf_counter()
        jobs = [job for c in made for job in folds.jobs_of(c, store)]
        pending = [HERE.submit(worker.run_fold, job) for job in jobs]
        while len(executors.wait(pending, 1.0)) < len(pending):
            pass
        seconds = time.perf_counter() - begin
        assert all(c.done() for c in made)
        return seconds


def run(config: Config, store: Path, few: int, many: int, rounds: int) -> Row:
    """Seconds a trial on top of its folds' own."""
    with executors.local_ray() as scratch:
        with_trials(config, few, store, scratch)  # workers and trial processes are warm after this
        costs, own = [], []
        for _ in range(rounds):
            trials = with_trials(config, many, store, scratch) - with_trials(config, few, store, scratch)
            bare = without_trials(config, many, store) - without_trials(config, few, store)
            costs.append((trials - bare) / (many - few))
            own.append(bare / (many - few))
    note = f"on top of its folds' own {spread(own)} s, which are the floor"
    return Row("a trial of Ray Tune, after warm-up", "s", costs, wanted=0.3, note=note)
