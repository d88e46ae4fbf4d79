"""One run of the mirror: what MLflow has of it, and the calls that bring it to what its folder says."""

import gc
import json
import logging
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import Connection, Engine, event

from cluster.tracking import uris
from cluster.tracking.mirrored import Shown, Sweep
from cluster.tracking.mirrored_folds import Point, Series
from cluster.tracking.mirrored_tags import TAKEN_BACK, Data

LARGEST_BATCH = 1000
"""metrics, params and tags that MLflow takes at once"""


class Refused(OSError):
    """MLflow did not answer, or did not take what it was given."""


@contextmanager
def told(uri: str) -> Iterator[None]:
    """What MLflow says goes on as one line."""
    try:
        yield
    except MlflowException as error:
        why = (str(error).splitlines() or ["no reason given"])[0]
        raise Refused(uris.without_password(f"MLflow at {uri}: {why}")) from error


_ENGINES: WeakSet[Engine] = WeakSet()
"""that MLflow has made"""


def client_of(uri: str) -> MlflowClient:
    """MLflow's, which says nothing by itself: what goes wrong is raised."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not event.contains(Engine, "connect", _wait_less):
        event.listen(Engine, "connect", _wait_less)
        event.listen(Engine, "engine_connect", _remember)
    return MlflowClient(tracking_uri=uri)


def let_go() -> None:
    """Close this process's idle connections to databases, which MLflow keeps open: sqlite puts everything into the one
    file when the last is closed. The next use opens them again."""
    for engine in list(_ENGINES):
        engine.dispose()


def _remember(connection: Connection) -> None:
    _ENGINES.add(connection.engine)


def _wait_less(connection: Any, _: object) -> None:
    """A sqlite file that this project has made (WAL) stays whole without waiting for the disk at every write; what a
    power cut takes of the last ones is written again. Of a large one 64 MB are kept in memory."""
    if isinstance(connection, sqlite3.Connection):
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA cache_size=-65536")
            connection.execute("PRAGMA wal_autocheckpoint=20000")


class Known:
    """A run as MLflow has it."""

    def __init__(self, run: Run) -> None:
        self.id: str = run.info.run_id
        self.start_ms, self.artifacts = run.info.start_time, run.info.artifact_uri
        self.status, self.end_ms = run.info.status, run.info.end_time
        self.params, self.tags = dict(run.data.params), dict(run.data.tags)
        self.latest = {metric.key: (metric.step, metric.timestamp) for metric in run.to_proto().data.metrics}
        """metric -> its last step, and when it came, ms"""
        self.has_data = bool(run.inputs and run.inputs.dataset_inputs)

    def agrees(self, shown: Shown, series: Series) -> bool:
        """Whether what MLflow has of it stands in the run folder; there may be more in the folder."""
        params = all(shown.params.get(key) == value for key, value in self.params.items())
        came = {point.step: point.time_ms for point in series.epochs}
        step, time_ms = self.latest.get("epoch", (0, 0))
        epochs = not shown.grown or step == 0 or came.get(step) == time_ms
        best = next((point for key, point in self.latest.items() if key.startswith("best_")), None)
        ended = series.best
        ends = not shown.grown or best is None or (ended is not None and best == (ended.step, ended.time_ms))
        return self.start_ms == shown.start_ms and params and epochs and ends

    def missing(self, series: Series, *, closed: bool) -> list[Point]:
        """Points that MLflow has not. What an epoch took of the machine goes with the next one, or at the end."""
        step, _ = self.latest.get("epoch", (0, 0))
        made = [point for point in series.epochs if point.step > step]
        if made or closed:
            used = max((self.latest.get(key, (0, 0))[0] for point in series.usage for key in point.values), default=0)
            made += [point for point in series.usage if point.step > used]
        best = series.best
        return [*made, best] if best and not any(key in self.latest for key in best.values) else made


@dataclass
class Writer:
    """Brings the runs of one sweep to what their folders say."""

    calls: MlflowClient
    experiment: str
    runs_id: str
    """of the runs folder"""
    before: Callable[[], None]
    """called before each call that changes something"""
    known: dict[str, Known] = field(default_factory=dict)
    """path below runs/ -> run"""

    @property
    def client(self) -> MlflowClient:
        self.before()
        return self.calls

    def write(self, shown: Shown, *, closed: bool) -> None:
        series, known = shown.series() if shown.grown else Series(), self.known.get(shown.path)
        if known and not known.agrees(shown, series):
            self.client.delete_run(self.known.pop(shown.path).id)
            known, series = None, shown.series()
        tags = shown.all_tags(self.runs_id, self.known[shown.parent].id if shown.parent else None)
        if known is None:
            run = self.client.create_run(self.experiment, shown.start_ms, tags, shown.name)
            known = self.known[shown.path] = Known(run)
        status = shown.status(closed=closed)
        self._log(known, shown, tags, known.missing(series, closed=status != "RUNNING"))
        if shown.data and not known.has_data:
            self.client.log_inputs(known.id, [_dataset(shown.data)])
            known.has_data = True
        self._set_status(known, status, shown.end_ms)

    def _log(self, known: Known, shown: Shown, tags: dict[str, str], points: Sequence[Point]) -> None:
        """Params, points and tags in as few calls as MLflow allows; the epochs in their order."""
        params = {key: value for key, value in shown.params.items() if key not in known.params}
        new = {key: value for key, value in tags.items() if known.tags.get(key) != value}
        for key in TAKEN_BACK & set(known.tags) - set(tags):
            self.client.delete_tag(known.id, key)
            del known.tags[key]
        metrics: list[Metric] = []
        room = LARGEST_BATCH - len(params) - len(new)
        for point in points:
            if len(metrics) + len(point.values) > room:
                self.send(known, metrics, params, new)
                metrics, params, new, room = [], {}, {}, LARGEST_BATCH
            metrics += [Metric(key, value, point.time_ms, point.step) for key, value in point.values.items()]
        self.send(known, metrics, params, new)

    def send(self, known: Known, metrics: list[Metric], params: dict[str, str], tags: dict[str, str]) -> None:
        if metrics or params or tags:
            named = [Param(key, value) for key, value in params.items()]
            newest_first = metrics[::-1]  # MLflow keeps each metric's last value apart: so it is set once a batch
            self.client.log_batch(known.id, newest_first, named, [RunTag(key, value) for key, value in tags.items()])
        known.latest |= {metric.key: (metric.step, metric.timestamp) for metric in metrics}
        known.params |= params
        known.tags |= tags

    def _set_status(self, known: Known, status: str, end_ms: int) -> None:
        if status == "RUNNING" and known.status != status:
            self.client.update_run(known.id, status=status)
        elif status != "RUNNING" and (known.status, known.end_ms) != (status, end_ms):
            self.client.set_terminated(known.id, status=status, end_time=end_ms)
            known.end_ms = end_ms
        known.status = status


@dataclass(frozen=True)
class Part:
    """Configurations that a process of its own writes, none of which MLflow has yet."""

    uri: str
    folder: Path
    experiment: str
    runs_id: str
    sweep_run: str
    """id of the run that they stand below"""
    names: frozenset[str]
    closed: bool

    def write(self) -> dict[str, Known]:
        """Let MLflow have them; what it has then, the sweep's run included."""
        client, sweep = client_of(self.uri), Sweep(self.folder, self.names)
        sweep.look()
        with told(self.uri):
            known = {self.folder.name: Known(client.get_run(self.sweep_run))}
            writer = Writer(client, self.experiment, self.runs_id, lambda: None, known)
            for shown in sweep.runs()[1:]:
                writer.write(shown, closed=self.closed)
        return known


def beside_others() -> None:
    """A process that writes parts: who started it says when it ends."""
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _dataset(data: Data) -> DatasetInput:
    shape, source = json.dumps(data.facts), json.dumps({"uri": data.path})
    made = Dataset(data.name, data.digest[:12], "local", source, profile=shape)
    return DatasetInput(made, [InputTag("mlflow.data.context", "training and evaluation")])
