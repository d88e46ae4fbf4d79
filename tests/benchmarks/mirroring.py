"""The mirror of 1,000 fold runs in sqlite, from nothing, against a loop of MLflow's own log_metric.

Wanted: at most 120 s for 1,000 folds x 50 epochs x 15 metrics, that is 120 ms a fold, runs, params, tags, artifacts and
the means over the folds of 200 configurations included. The loop is measured on a few calls, after warm-up, and
reckoned up for the folds' metrics alone. The floor is a bare sqlite3 that puts as many rows into MLflow's own table of
metrics.
"""

import contextlib
import itertools
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from mlflow.tracking import MlflowClient

from cluster.tracking.mirror import Mirror, create_database
from mtl.config import Config, Optim, Train, fold_dict
from mtl.runfolder import RunFolder
from sweeps.asked import Asked, Proposed
from tests.benchmarks.rows import Beside, Row, seconds

MEASURED = tuple(f"measured_{n}" for n in range(7))
"""beside epoch, Dice, seconds, what is learned of the weights (4) and their ratio"""
METRICS = 15

BEGUN = datetime(2026, 11, 1, tzinfo=UTC)


def run(configurations: int, folds: int, epochs: int, sample: int, rounds: int) -> Iterator[Row]:
    """sample: calls of log_metric that are measured in a round."""
    count, points = configurations * folds, configurations * folds * epochs * METRICS
    ours, loop, floor, again = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        sweep = make(Path(folder) / "runs" / "sweep", configurations, folds, epochs)
        for number in range(rounds):
            home = Path(folder) / str(number)
            home.mkdir()
            uri = f"sqlite:///{home}/mlflow.db"
            ours.append(1000 * seconds(partial(alone, sweep, uri)) / count)
            loop.append(1000 * points * _log_metric_s(f"sqlite:///{home}/loop.db", sample) / count)
            floor.append(1000 * seconds(partial(_inserted, home / "loop.db", points)) / count)
            mirror = Mirror(uri, sweep)
            mirror.sync()
            assert mirror.runs == 1 + configurations * (1 + folds)
            again.append(1000 * seconds(mirror.sync))
    beside = [
        Beside(f"a loop of log_metric, {sample} calls reckoned up", loop),
        Beside("as many rows put in by sqlite3", floor, floor=True),
    ]
    name = f"mirror of {count} folds x {epochs} epochs x {METRICS} metrics into sqlite, a process of its own"
    yield Row(name, "ms a fold", ours, beside, wanted=120)
    yield Row("a look of the mirror where nothing is new", "ms", again)


def _inserted(database: Path, points: int) -> None:
    """MLflow's rows of metrics, from one statement a thousand."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        run = connection.execute("SELECT run_uuid FROM metrics").fetchone()[0]
        rows = ((f"floor_{n % METRICS}", float(n), n, n // METRICS, run, 0) for n in range(points))
        command = "INSERT INTO metrics (key, value, timestamp, step, run_uuid, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
        while part := [*itertools.islice(rows, 1000)]:
            with connection:
                connection.executemany(command, part)


def alone(sweep: Path, uri: str) -> None:
    """As a user does it."""
    command = [sys.executable, "-m", "cluster.tracking", "mirror", str(sweep), "--to", uri]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make(folder: Path, configurations: int, folds: int, epochs: int) -> Path:
    """A finished sweep's folder with made-up numbers, and no results but these."""
    proposed = []
    for c in range(configurations):
        point = {"optim.lr": 1e-4 * (c + 1)}
        config = replace(Config("0" * 64, train=Train(epochs=epochs, folds=folds)), optim=Optim(lr=point["optim.lr"]))
        proposed.append(Proposed(f"lr-{c}-{config.digest}", point, f"lr {c}"))
        for k in range(folds):
            fold = RunFolder(folder / proposed[-1].name / f"fold_{k}")
            fold.prepare(fold_dict(asdict(config), k))
            begun = BEGUN + timedelta(minutes=c * epochs, milliseconds=k)  # one configuration after the other
            fold.write_epochs([_record(epoch, c + 0.1 * k, begun) for epoch in range(1, epochs + 1)])
            fold.finish("DONE", "all epochs trained", best_epoch=1, dice_val=0.8, area_mad_mm2=300.0, patients=10)
    space = {"optim.lr": [one.point["optim.lr"] for one in proposed]}
    Asked("sweep", "How fast?", space, folds=folds, configurations=tuple(proposed)).write(folder)
    return folder


def _record(epoch: int, value: float, begun: datetime) -> dict[str, object]:
    numbers = {name: value + epoch / (n + 3) for n, name in enumerate(MEASURED)}
    learned = {"weight_seg": 1.0 + epoch, "weight_reg": 2.0, "log_sigma2_seg": -0.1 * epoch, "log_sigma_reg": 5.0}
    time_utc = (begun + timedelta(minutes=epoch)).isoformat(timespec="milliseconds")
    return {"epoch": epoch, "time_utc": time_utc, **numbers, **learned, "dice_val": 0.5, "seconds": 60.0}


def _log_metric_s(uri: str, calls: int) -> float:
    """A call, in a process and a database that are warm: the median."""
    create_database(uri)
    client = MlflowClient(uri)
    run_id = client.create_run(client.create_experiment("loop")).info.run_id
    took = []
    for n in range(calls + 5):
        begin = time.perf_counter()
        client.log_metric(run_id, f"metric_{n % 15}", float(n), step=n // 15)
        took.append(time.perf_counter() - begin)
    return statistics.median(took[5:])
