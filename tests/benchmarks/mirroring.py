"""The mirror of 1,000 fold runs in sqlite, from nothing, against a loop of MLflow's own log_metric.

Wanted: at most 120 s for 1,000 folds x 50 epochs x 15 metrics, runs, params, tags, artifacts and the means over the
folds of 200 configurations included. The loop is measured on a few calls, after warm-up, and reckoned up for the folds'
metrics alone.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlflow.tracking import MlflowClient

from cluster.tracking.mirror import Mirror, create_database
from mtl.config import Config, Optim, Train, fold_dict
from mtl.runfolder import RunFolder
from sweeps.asked import Asked, Proposed

MEASURED = tuple(f"measured_{n}" for n in range(7))
"""beside epoch, Dice, seconds, what is learned of the weights (4) and their ratio: 15 metrics"""

BEGUN = datetime(2026, 11, 1, tzinfo=UTC)


def run(configurations: int, folds: int, epochs: int, sample: int) -> str:
    """The row. sample: calls of log_metric that are measured."""
    with tempfile.TemporaryDirectory() as home:
        sweep = make(Path(home) / "runs" / "sweep", configurations, folds, epochs)
        uri = f"sqlite:///{home}/mlflow.db"
        begin = time.perf_counter()
        alone(sweep, uri)
        whole_s = time.perf_counter() - begin
        mirror = Mirror(uri, sweep)
        mirror.sync()
        assert mirror.runs == 1 + configurations * (1 + folds)
        begin = time.perf_counter()
        mirror.sync()
        nothing_s = time.perf_counter() - begin
        call_s = _log_metric_s(f"sqlite:///{home}/loop.db", sample)
    points = configurations * folds * epochs * 15
    return (
        f"mirroring {configurations} x {folds} folds x {epochs} epochs x 15 metrics into sqlite, a process of its own: "
        f"{whole_s:.1f} s (wanted 120 for 1,000 folds of 50 epochs); ratio {points * call_s / whole_s:.1f} to a loop "
        f"of log_metric ({call_s * 1000:.1f} ms a call, median of {sample}, reckoned up); a look where nothing is new "
        f"{nothing_s * 1000:.0f} ms"
    )


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
