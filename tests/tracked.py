"""Sweep folders as launches leave them, without training, and what MLflow has of them: for the tests of the mirror."""

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.tracking import MlflowClient

from cluster.tracking.mirror import create_database
from cluster.tracking.stores import database as database_file
from cluster.tracking.uris import identity
from mtl.config import Config, Model, Protocol, Train, Weighting, fold_dict
from mtl.runfolder import RunFolder
from sweeps.asked import Asked, Proposed

LEARNED = Config("a" * 64, train=Train(folds=3, epochs=3))
CONFIG = replace(LEARNED, weighting=Weighting(kind="equal"))
"""its weights are not drawn, which takes a second"""
TWO = replace(CONFIG, train=Train(folds=2, epochs=3), protocol=Protocol(selection="test"))
FACTS = {
    "source": "phantom",
    "patients": 5,
    "volumes": 10,
    "slices": 30,
    "size": [48, 48],
    "pixel_spacing_mm": [6.25, 6.25],
}
WITH = {"code": "c0de", "torch": "2.13.0+cpu", "device": "cpu", "precision": "float32"}
_HELD: list[Any] = []


@cache
def _template() -> Path:
    """A database without runs: MLflow takes seconds for its tables."""
    _HELD.append(tempfile.TemporaryDirectory())
    path = Path(_HELD[0].name) / "mlflow.db"
    create_database(f"sqlite:///{path}")
    return path


def database(folder: Path) -> str:
    """A new one's address."""
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{shutil.copy(_template(), folder / 'mlflow.db')}"


def record(epoch: int, dice: float, minute: int = 0) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "time_utc": f"2026-01-02T03:{minute:02d}:{10 * epoch:02d}.000+00:00",
        "dice_val": dice,
        "area_mad_mm2": 100.0 / epoch,
        "log_sigma2_seg": -0.5 * epoch,
        "log_sigma_reg": None,
        "weight_seg": 3.0 * epoch,
        "weight_reg": 2.0,
        "lr": 0.001,
        "seconds": 8.0,
    }


def train(run: RunFolder, epochs: Sequence[int], minute: int = 0, config: Config = CONFIG) -> None:
    """So many epochs of a fold, each begun 8 s before it ends. minute: when they were trained."""
    number = int(run.path.name.removeprefix("fold_"))
    run.prepare(fold_dict(asdict(config), number))
    run.write_epochs([record(epoch, 0.1 * epoch + 0.01 * number, minute) for epoch in epochs])


def done(run: RunFolder, epoch: int = 2) -> None:
    told = {"best_epoch": epoch, "dice_val": run.epochs()[epoch - 1]["dice_val"], "area_mad_mm2": 100.0 / epoch}
    run.finish("DONE", "all epochs trained", **told, **FACTS, **WITH)


def sweep(folder: Path, branches: Sequence[str] = ("up3", "up4"), config: Config = CONFIG) -> list[list[RunFolder]]:
    """A sweep that has been asked, with nothing trained: the folds of each configuration."""
    configs = [replace(config, model=replace(config.model, branch=branch)) for branch in branches]
    names = [f"branch-{branch}-{one.digest}" for branch, one in zip(branches, configs, strict=True)]
    proposed = [Proposed(name, {"model.branch": branch}, branch) for name, branch in zip(names, branches, strict=True)]
    folder.mkdir(parents=True)
    space = {"model.branch": list(branches)}
    Asked(folder.name, "Where to leave?", space, folds=config.train.folds, configurations=tuple(proposed)).write(folder)
    return [[RunFolder(folder / name / f"fold_{k}") for k in range(config.train.folds)] for name in names]


def finished(folder: Path, branches: Sequence[str] = ("up3", "up4"), config: Config = CONFIG) -> list[list[RunFolder]]:
    """A sweep whose folds are all done, after two epochs."""
    made = sweep(folder, branches, config)
    for branch, folds in zip(branches, made, strict=True):
        for run in folds:
            train(run, (1, 2), config=replace(config, model=Model(branch=branch)))
            done(run)
    return made


def contents(uri: str, sweep: str = "sweep", runs: Path | None = None) -> dict[str, Any]:
    """All that a reader of the UI sees, by path; ids left out, which are MLflow's own. uri: of a sqlite file. runs: of
    these alone, where several mirror into it."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        return {}
    found = client.search_runs([experiment.experiment_id])
    if runs:
        found = [run for run in found if run.data.tags["branchpoint.runs"] == identity(runs)]
    paths = {run.info.run_id: run.data.tags["branchpoint.path"] for run in found}
    assert len(set(paths.values())) == len(found)
    points, home = _points(uri), database_file(uri).parent / "mlartifacts"
    return {paths[run.info.run_id]: _told(run, paths, points.get(run.info.run_id, {}), home) for run in found}


def _told(run: Any, paths: dict[str, str], points: dict[str, list[Any]], home: Path) -> dict[str, Any]:
    tags = dict(run.data.tags)
    parent = paths.get(tags.pop("mlflow.parentRunId", ""))
    last = {key: history[-1][1] for key, history in points.items()}
    assert last == {key: None if value != value else value for key, value in run.data.metrics.items()}
    return {
        "name": run.info.run_name,
        "parent": parent,
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "params": run.data.params,
        "tags": tags,
        "metrics": points,
        "data": [(one.dataset.name, one.dataset.digest, one.dataset.profile) for one in run.inputs.dataset_inputs],
        "artifacts": _artifacts(run.info.artifact_uri, home),
    }


def _points(uri: str) -> dict[str, dict[str, list[Any]]]:
    """Run -> metric -> (step, value, time in ms), in their order; None for NaN. From the file: MLflow would have to be
    asked metric by metric."""
    value = "CASE WHEN is_nan THEN NULL ELSE value END"
    made: dict[str, dict[str, list[Any]]] = {}
    with closing(sqlite3.connect(database_file(uri))) as file:
        query = f"SELECT run_uuid, key, step, {value}, timestamp FROM metrics ORDER BY step"
        for run, key, *point in file.execute(query):
            made.setdefault(run, {}).setdefault(key, []).append(tuple(point))
    return made


def _artifacts(uri: str, home: Path) -> dict[str, str]:
    """Their names, and digests of what is in them. Read from the disk, also those of a server, whose `home` is told:
    to ask MLflow for each takes long."""
    place = urlsplit(uri)
    home = Path(url2pathname(place.path)) if place.scheme == "file" else home / place.path.lstrip("/")
    files = [file for file in home.rglob("*") if file.is_file()]
    return {str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest()[:8] for file in files}


def launch(folder: Path, commit: str = "abc123") -> None:
    """What a launch writes down."""
    (folder / "launches").mkdir(exist_ok=True)
    store = {"path": "/data/hearts.zarr", "digest": CONFIG.data_digest}
    told = {"git": {"commit": commit, "uncommitted": False}, "store": store}
    (folder / "launches" / f"{commit}.json").write_text(json.dumps(told))
