"""Run folders -> MLflow, one way: sweep > configuration > fold.

    mirror = Mirror(uri, Path("runs/branch_location"))
    mirror.sync()      # again and again while the sweep runs: what is new
    mirror.close()     # nobody is at work any more: what is not done is KILLED
    mirror.finish()    # as close(), with the artifacts

The run folders are the truth: the mirror can be deleted and made again, and is the same. Each (run, metric, step) is
written once: a run's last `epoch` says how far it has come. MLflow can take nothing back of a run, so one that does not
agree with its folder (a fold that was removed and trained anew) is deleted there and made again. When the server is
away, the next sync() begins by asking it what it has. What several processes mirror is written by one at a time.
"""

import hashlib
import json
import logging
import secrets
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from cluster import mirrored_files, stores, tracking_uris
from cluster.mirrored import Shown, Sweep
from cluster.mirrored_folds import Point, Series
from cluster.mirrored_tags import TAKEN_BACK, Data
from data_prep.files import atomic, locked, make_private, write_text

PATH_TAG, RUNS_TAG = "branchpoint.path", "branchpoint.runs"
"""Where a run's folder lies below runs/, and which runs/ that is: by these the mirror knows it again."""
FILES_TAG = "branchpoint.files"
"""of a run's artifacts, so that they are sent once"""
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}
"""of an experiment: the UI asks otherwise whether it is about language models"""
LARGEST_BATCH = 1000
"""metrics, params and tags that MLflow takes at once"""
WAIT_S = 60.0
"""for another process that is writing the same sweep's mirror"""


class Refused(OSError):
    """MLflow did not answer, or did not take what it was given."""


class Known:
    """A run as MLflow has it."""

    def __init__(self, run: Run) -> None:
        self.id: str = run.info.run_id
        self.start_ms = run.info.start_time
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


class Mirror:
    """The runs of one sweep folder in one MLflow experiment of the same name."""

    def __init__(self, uri: str, sweep_folder: Path) -> None:
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is raised, and told in one line
        self._uri, self._folder = uri, sweep_folder.resolve()
        self.runs_id = tracking_uris.identity(self._folder.parent)
        self._lock = tracking_uris.home() / "locks" / self._key()
        self._token = secrets.token_hex(8)
        self.client = MlflowClient(tracking_uri=uri)
        self._sweep: Sweep | None = None
        self._at_work: bool | None = None
        self._last = ""
        """who has written last, as far as this one knows"""
        self._known: dict[str, Known] = {}
        self.experiment = ""

    def _key(self) -> str:
        named = (self._uri, self.runs_id, self._folder.name)
        return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]

    def sync(self) -> None:
        """Write what is new in the folder."""
        with self._writing() as sweep:
            if sweep.look():
                self._write_all(sweep.runs(), closed=False)

    def close(self) -> None:
        """The last look: what is not done is not shown as running."""
        with self._writing(anew=True) as sweep:
            sweep.look()
            self._write_all(sweep.runs(), closed=True)
        _settle(self._uri)

    def finish(self) -> None:
        """As close(), and the artifacts."""
        with self._writing(anew=True) as sweep:
            sweep.look()
            self._write_all(sweep.runs(), closed=True)
            self._write_files(sweep)
        _settle(self._uri)

    def refresh(self, *, elsewhere: bool) -> bool:
        """For who looks on: what is new, as sync() where somebody is at work, else as finish(); whether anything was.
        elsewhere: as in Sweep.at_work."""
        with self._writing() as sweep:
            new, at_work = sweep.look(), sweep.at_work(elsewhere=elsewhere)
            if new or at_work != self._at_work:
                self._write_all(sweep.runs(), closed=not at_work)
                self._write_files(sweep)
                self._at_work = at_work
        if new:
            _settle(self._uri)
        return new

    @property
    def runs(self) -> int:
        """That MLflow has of the sweep, as of the last time."""
        return len(self._known)

    def run_id(self, path: str) -> str:
        """Of the run of the folder that lies there below runs/. KeyError where there is none."""
        return self._known[path].id

    @contextmanager
    def _writing(self, *, anew: bool = False) -> Iterator[Sweep]:
        """Alone with what MLflow has of the sweep. anew: the folder is read as if it had not been before."""
        token = make_private(self._lock) / "token"
        with locked(self._lock, wait_s=WAIT_S):
            last = token.read_text() if token.exists() else ""
            known, self._last = last == self._last, last
            sweep, self._sweep = self._sweep, None  # should anything fail, it is asked what has arrived
            try:
                if sweep is None or not known:
                    self._ask()
                if sweep is None or not known or anew:
                    sweep = Sweep(self._folder)
                yield sweep
            except MlflowException as error:
                why = (str(error).splitlines() or ["no reason given"])[0]
                raise Refused(tracking_uris.without_password(f"MLflow at {self._uri}: {why}")) from error
            self._sweep = sweep

    @property
    def _writer(self) -> MlflowClient:
        """The client, for what changes something: another process that mirrors the same has to ask anew then."""
        if self._last != self._token:
            write_text(self._lock / "token", self._token)
            self._last = self._token
        return self.client

    # What MLflow has.

    def _ask(self) -> None:
        """The experiment and its runs. Runs that have doubled, since an answer got lost, are deleted."""
        create_database(self._uri)
        self.experiment = self._experiment_id()
        found: dict[str, list[Known]] = {}
        mine = f"tags.`{RUNS_TAG}` = '{self.runs_id}'"
        token: str | None = ""
        while token is not None:
            page = self.client.search_runs([self.experiment], mine, max_results=1000, page_token=token or None)
            for run in map(Known, page):
                path = run.tags.get(PATH_TAG, "")
                if path.partition("/")[0] == self._folder.name:
                    found.setdefault(path, []).append(run)
            token = page.token or None
        self._known = {}
        for path, same in found.items():
            *others, self._known[path] = sorted(same, key=lambda run: (run.latest.get("epoch", (0, 0)), run.id))
            for other in others:
                self._writer.delete_run(other.id)

    def _experiment_id(self) -> str:
        """Of the sweep's name; made if it is not there, brought back if it was deleted."""
        name, place = self._folder.name, _artifacts(self._uri)
        found = self.client.get_experiment_by_name(name)
        if found and found.lifecycle_stage != "active":
            self._writer.restore_experiment(found.experiment_id)
        if found and place and _is_gone(found, place):
            self._writer.rename_experiment(found.experiment_id, f"{name} (its artifacts lay elsewhere, {place})"[:250])
            self._writer.delete_experiment(found.experiment_id)
            found = None
        return str(found.experiment_id if found else self._writer.create_experiment(name, place, KIND_TAG))

    # What is written.

    def _write_all(self, runs: Sequence[Shown], *, closed: bool) -> None:
        """Let MLflow have these runs, and no others."""
        for shown in runs:
            self._write(shown, closed=closed)
        for path in set(self._known) - {shown.path for shown in runs}:
            self._writer.delete_run(self._known.pop(path).id)

    def _write(self, shown: Shown, *, closed: bool) -> None:
        series, known = shown.series() if shown.grown else Series(), self._known.get(shown.path)
        if known and not known.agrees(shown, series):
            self._writer.delete_run(self._known.pop(shown.path).id)
            known, series = None, shown.series()
        tags = {PATH_TAG: shown.path, RUNS_TAG: self.runs_id, **shown.tags}
        if shown.parent:
            tags[MLFLOW_PARENT_RUN_ID] = self._known[shown.parent].id
        if known is None:
            run = self._writer.create_run(self.experiment, shown.start_ms, tags, shown.name)
            known = self._known[shown.path] = Known(run)
        status = shown.status(closed=closed)
        self._log(known, shown, tags, known.missing(series, closed=status != "RUNNING"))
        if shown.data and not known.has_data:
            self._writer.log_inputs(known.id, [_dataset(shown.data)])
            known.has_data = True
        self._set_status(known, status, shown.end_ms)

    def _log(self, known: Known, shown: Shown, tags: dict[str, str], points: Sequence[Point]) -> None:
        """Params, points and tags in as few calls as MLflow allows; the epochs in their order."""
        params = {key: value for key, value in shown.params.items() if key not in known.params}
        new = {key: value for key, value in tags.items() if known.tags.get(key) != value}
        for key in TAKEN_BACK & set(known.tags) - set(tags):
            self._writer.delete_tag(known.id, key)
            del known.tags[key]
        metrics: list[Metric] = []
        room = LARGEST_BATCH - len(params) - len(new)
        for point in points:
            if len(metrics) + len(point.values) > room:
                self._send(known, metrics, params, new)
                metrics, params, new, room = [], {}, {}, LARGEST_BATCH
            metrics += [Metric(key, value, point.time_ms, point.step) for key, value in point.values.items()]
        self._send(known, metrics, params, new)

    def _send(self, known: Known, metrics: list[Metric], params: dict[str, str], tags: dict[str, str]) -> None:
        if metrics or params or tags:
            named = [Param(key, value) for key, value in params.items()]
            newest_first = metrics[::-1]  # MLflow keeps each metric's last value apart: so it is set once a batch
            self._writer.log_batch(known.id, newest_first, named, [RunTag(key, value) for key, value in tags.items()])
        known.latest |= {metric.key: (metric.step, metric.timestamp) for metric in metrics}
        known.params |= params
        known.tags |= tags

    def _set_status(self, known: Known, status: str, end_ms: int) -> None:
        if status == "RUNNING" and known.status != status:
            self._writer.update_run(known.id, status=status)
        elif status != "RUNNING" and (known.status, known.end_ms) != (status, end_ms):
            self._writer.set_terminated(known.id, status=status, end_time=end_ms)
            known.end_ms = end_ms
        known.status = status

    def _write_files(self, sweep: Sweep) -> None:
        """Each run's artifacts, once; those that it has not any more are removed."""
        with tempfile.TemporaryDirectory() as scratch:
            for path, files in mirrored_files.of(sweep, Path(scratch)):
                known, digest = self._known[path], mirrored_files.digest(files)
                if known.tags.get(FILES_TAG, mirrored_files.NONE) == digest:
                    continue
                run = self.client.get_run(known.id)
                there = get_artifact_repository(run.info.artifact_uri, tracking_uri=self._uri)
                if FILES_TAG in known.tags:
                    there.delete_artifacts()
                for name, file in files.items():
                    there.log_artifact(str(file), str(Path(name).parent) if "/" in name else None)
                self._send(known, [], {}, {FILES_TAG: digest})


def create_database(uri: str) -> None:
    """A new sqlite database appears when all its tables are in it: killed in between, MLflow could not mend it."""
    path = _own_file(uri)
    if path is None or (path.exists() and path.stat().st_size):
        return
    make_private(path.absolute().parent)
    for left_over in ("-wal", "-shm", "-journal"):  # of one that was deleted: sqlite would mix them into this one
        path.with_name(path.name + left_over).unlink(missing_ok=True)
    with atomic(path) as temporary:
        MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")  # who reads need not wait, and a write waits for the disk once


def _settle(uri: str) -> None:
    """All that was written is in the sqlite file itself, not in the one beside it: somebody may copy or delete it."""
    if path := _own_file(uri):
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _own_file(uri: str) -> Path | None:
    """The file of a sqlite address without options."""
    return stores.database(uri) if uri.startswith("sqlite:///") and "?" not in uri else None


def _artifacts(uri: str) -> str | None:
    """Where artifacts lie: beside a sqlite file; None: where the server wants them."""
    return (stores.database(uri).absolute().parent / "mlartifacts").as_uri() if uri.startswith("sqlite") else None


def _is_gone(experiment: Experiment, place: str) -> bool:
    """Whether the artifacts of a database that was moved here lie on another machine, or nowhere any more."""
    location = str(experiment.artifact_location)
    return (
        location.startswith("file:") and location != place and not Path(url2pathname(urlsplit(location).path)).exists()
    )


def _dataset(data: Data) -> DatasetInput:
    shape, source = json.dumps(data.facts), json.dumps({"uri": data.path})
    made = Dataset(data.name, data.digest[:32], "local", source, profile=shape)
    return DatasetInput(made, [InputTag("mlflow.data.context", "training and evaluation")])
