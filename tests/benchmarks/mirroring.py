"""The mirror of 1,000 fold runs in sqlite, from nothing, against a loop of MLflow's own log_metric.

Wanted: at most 120 s for 1,000 folds x 50 epochs x 15 metrics, runs, params, tags, artifacts and
the means over the folds of 200 configurations included. The loop is measured on a few calls, after warm-up, and
reckoned up for the folds' metrics alone. The floor is a bare sqlite3 that puts as many rows into a table.
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
from tests.benchmarks.rows import Beside, Row, interleaved, seconds

MEASURED = tuple(f"measured_{n}" for n in range(7))
"""beside epoch, Dice, seconds, what is learned of the weights (4) and their ratio"""
METRICS = 15

BEGUN = datetime(2026, 11, 1, tzinfo=UTC)


def rows(configurations: int, few: int, folds: int, epochs: int, sample: int, rounds: int) -> Iterator[Row]:
    """All of `configurations` once; `few` of them in turn with the loop, of which `sample` calls are measured."""
    with tempfile.TemporaryDirectory() as home:
        sweep, uri = make(Path(home) / "runs" / "sweep", configurations, folds, epochs), f"sqlite:///{home}/mlflow.db"
        took_s = seconds(partial(alone, sweep, uri))
        yield Row(_name(configurations * folds, epochs), "s", [took_s], wanted=120 * configurations * folds / 1000)
        mirror = Mirror(uri, sweep)
        mirror.sync()
        assert mirror.runs == 1 + configurations * (1 + folds)
        again_ms = [1000 * seconds(mirror.sync) for _ in range(rounds)]
        yield Row("a look of it where nothing is new", "ms", again_ms)
        yield _in_turn(make(Path(home) / "few" / "sweep", few, folds, epochs), Path(home), sample, rounds)


def _name(folds: int, epochs: int) -> str:
    return f"mirror of {folds} folds x {epochs} epochs x {METRICS} metrics into sqlite, a process of its own"


def _in_turn(sweep: Path, home: Path, sample: int, rounds: int) -> Row:
    """Seconds of the mirror, of the loop, and of sqlite alone; each round into databases of its own."""
    records = [path.read_text().count("\n") for path in sweep.glob("*/fold_*/epochs.jsonl")]
    points, number = sum(records) * METRICS, itertools.count()
    ways = {
        "ours": lambda: seconds(partial(alone, sweep, f"sqlite:///{home}/{next(number)}.db")),
        "loop": lambda: points * _log_metric_s(f"sqlite:///{home}/loop-{next(number)}.db", sample),
        "floor": lambda: seconds(partial(_inserted, home / f"floor-{next(number)}.db", points)),
    }
    took = interleaved(ways, rounds, warm_up=False)
    loop = Beside(f"a loop of log_metric, {sample} calls reckoned up", took["loop"])
    floor = Beside("as many rows put in by sqlite3", took["floor"], floor=True)
    return Row(_name(len(records), records[0]), "s", took["ours"], [loop, floor])


def _inserted(database: Path, points: int) -> None:
    """What a table of metrics holds, by one statement a thousand."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE metrics (run, key, value, timestamp, step, PRIMARY KEY (run, key, step))")
        rows = ((n // 1000, f"metric_{n % METRICS}", float(n), n, n // METRICS) for n in range(points))
        while part := [*itertools.islice(rows, 1000)]:
            with connection:
                connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?)", part)


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
