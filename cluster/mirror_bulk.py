"""Many runs into an sqlite file that is not there yet, at once.

Run by run MLflow's own calls take a tenth of a second each. For a new file it has a shorter way: its command
migrate-filestore makes a database of a folder in the layout of its earlier store of files. That folder is written here.
Afterwards the mirror looks at every run as ever (cluster/mirror.py) and adds what is missing: nothing rests on this.
"""

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cluster import sqlite_file, tracking_uris
from cluster.mirrored import KIND_TAG, Shown, Sweep
from cluster.mirrored_folds import Series

MANY = 200
"""runs; fewer are written in the usual way in the time that the other one takes to begin"""


def fill(uri: str, folders: Sequence[Path]) -> None:
    """Make the database with the runs of these sweeps, if it is a new sqlite file and they are many."""
    path = sqlite_file.own(uri)
    if path is None or not sqlite_file.is_missing(path):
        return
    sweeps = {folder: _runs(folder) for folder in folders}
    if sum(map(len, sweeps.values())) < MANY:
        return

    def write(temporary: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for number, (folder, runs) in enumerate(sweeps.items(), start=1):
                place, runs_id = sqlite_file.artifacts(uri), tracking_uris.identity(folder.parent)
                _write_experiment(Path(scratch) / "mlruns" / str(number), folder.name, runs, place, runs_id)
            command = [sys.executable, "-m", "mlflow", "migrate-filestore", "--no-progress", "--source", scratch]
            subprocess.run([*command, "--target", f"sqlite:///{temporary}"], check=True, capture_output=True)

    with suppress(subprocess.CalledProcessError):  # another MLflow may not have it
        sqlite_file.make(path, write)


def _runs(folder: Path) -> list[Shown]:
    sweep = Sweep(folder)
    sweep.look()
    return sweep.runs()


def _write_experiment(folder: Path, name: str, runs: Sequence[Shown], artifacts: str | None, runs_id: str) -> None:
    """As MLflow's store of files had it."""
    now_ms = int(time.time() * 1000)
    times = {"creation_time": now_ms, "last_update_time": now_ms}
    _write(folder, {"name": name, "artifact_location": artifacts, "lifecycle_stage": "active", **times}, tags=KIND_TAG)
    ids = {shown.path: uuid.uuid4().hex for shown in runs}
    for shown in runs:
        meta = {
            "run_uuid": ids[shown.path],
            "run_name": shown.name,
            "user_id": shown.tags["owner"],
            "status": shown.status(closed=True),
            "start_time": shown.start_ms,
            "end_time": shown.end_ms,
            "lifecycle_stage": "active",
            "artifact_uri": f"{artifacts}/{ids[shown.path]}/artifacts",
        }
        tags = {"mlflow.runName": shown.name, **shown.all_tags(runs_id, ids.get(shown.parent or ""))}
        _write(folder / ids[shown.path], meta, tags=tags, params=shown.params, metrics=_lines(shown.series()))


def _lines(series: Series) -> dict[str, str]:
    """Metric -> a line per point: time in ms, value, step."""
    lines: dict[str, list[str]] = {}
    for point in (*series.epochs, *series.usage, *([series.best] if series.best else [])):
        for key, value in point.values.items():
            lines.setdefault(key, []).append(f"{point.time_ms} {value!r} {point.step}\n")
    return {key: "".join(some) for key, some in lines.items()}


def _write(folder: Path, meta: Mapping[str, object], **groups: Mapping[str, str]) -> None:
    """meta.yaml, and a file for each entry of each group."""
    folder.mkdir(parents=True)
    (folder / "meta.yaml").write_text(json.dumps(meta))
    for group, entries in groups.items():
        (folder / group).mkdir()
        for key, value in entries.items():
            (folder / group / key).write_text(value, encoding="utf-8")
