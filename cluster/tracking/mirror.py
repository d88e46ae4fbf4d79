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
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.entities import Experiment
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from cluster.tracking import mirrored_files, mirrored_views, sqlite_file, uris
from cluster.tracking.mirror_writer import Known, Part, Writer, beside_others, client_of, let_go, told
from cluster.tracking.mirrored import KIND_TAG, PATH_TAG, RUNS_TAG, Shown, Sweep
from data_prep.files import locked, make_private, write_text
from sweeps.asked import Asked

FILES_TAG = "branchpoint.files"
"""of a run's artifacts, so that they are sent once"""
MANY, A_PART = 20, 5
"""new configurations from which on several processes write them, so many at a time"""
WAIT_S = 60.0
"""for another process that is writing the same sweep's mirror"""


class Mirror:
    """The runs of one sweep folder in one MLflow experiment of the same name."""

    def __init__(self, uri: str, sweep_folder: Path, processes: int = 1) -> None:
        """processes: that may write side by side where MLflow has little of a large sweep."""
        self._uri, self._folder = uri, sweep_folder.resolve()
        self.runs_id = uris.identity(self._folder.parent)
        self._lock = uris.home() / "locks" / self._key()
        self._token = secrets.token_hex(8)
        with told(uri):
            create_database(uri)  # first: a client makes the tables in the file itself, and may be killed meanwhile
            self.client = client_of(uri)
        self._processes = processes
        self._sweep: Sweep | None = None
        self._at_work: bool | None = None
        self._last = ""
        """who has written last, as far as this one knows"""
        self._writer = Writer(self.client, "", self.runs_id, self._mark)

    def _key(self) -> str:
        named = (self._uri, self.runs_id, self._folder.name)
        return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]

    def sync(self) -> None:
        """Write what is new in the folder."""
        with self._writing() as sweep:
            if sweep.look():
                self._write_views(sweep.asked)
                self._write_all(sweep.runs(), closed=False)

    def close(self) -> None:
        """The last look: what is not done is not shown as running."""
        with self._writing(anew=True) as sweep:
            sweep.look()
            self._write_views(sweep.asked)
            self._write_all(sweep.runs(), closed=True)
        self._settle()

    def finish(self) -> None:
        """As close(), and the artifacts."""
        with self._writing(anew=True) as sweep:
            sweep.look()
            self._write_views(sweep.asked)
            self._write_all(sweep.runs(), closed=True)
            self._write_files(sweep)
        self._settle()

    def refresh(self, *, elsewhere: bool) -> bool:
        """For who looks on: what is new, as sync() where somebody is at work, else as finish(); whether anything was.
        elsewhere: as in Sweep.at_work."""
        with self._writing() as sweep:
            new, at_work = sweep.look(), sweep.at_work(elsewhere=elsewhere)
            if new or at_work != self._at_work:
                self._write_views(sweep.asked)
                self._write_all(sweep.runs(), closed=not at_work)
                self._write_files(sweep)
                self._at_work = at_work
        if new:
            self._settle()
        return new

    def _settle(self) -> None:
        let_go()
        sqlite_file.settle(self._uri)

    @property
    def runs(self) -> int:
        """That MLflow has of the sweep, as of the last time."""
        return len(self._writer.known)

    @property
    def experiment(self) -> str:
        """Its id, as of the last time."""
        return self._writer.experiment

    def run_id(self, path: str) -> str:
        """Of the run of the folder that lies there below runs/. KeyError where there is none."""
        return self._writer.known[path].id

    @contextmanager
    def _writing(self, *, anew: bool = False) -> Iterator[Sweep]:
        """Alone with what MLflow has of the sweep. anew: the folder is read as if it had not been before."""
        token = make_private(self._lock) / "token"
        with locked(self._lock, wait_s=WAIT_S):
            last = token.read_text() if token.exists() else ""
            known, self._last = last == self._last, last
            sweep, self._sweep = self._sweep, None  # should anything fail, it is asked what has arrived
            with told(self._uri):
                if sweep is None or not known:
                    self._ask()
                if sweep is None or not known or anew:
                    sweep = Sweep(self._folder)
                yield sweep
            self._sweep = sweep

    def _mark(self) -> None:
        """Something is about to change: another process that mirrors the same has to ask anew then."""
        if self._last != self._token:
            write_text(self._lock / "token", self._token)
            self._last = self._token

    # What MLflow has.

    def _ask(self) -> None:
        """The experiment and its runs. Runs that have doubled, since an answer got lost, are deleted."""
        create_database(self._uri)
        self._writer.experiment = self._experiment_id()
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
        self._writer.known = {}
        for path, same in found.items():
            *others, self._writer.known[path] = sorted(same, key=lambda run: (run.latest.get("epoch", (0, 0)), run.id))
            for other in others:
                self._writer.client.delete_run(other.id)

    def _experiment_id(self) -> str:
        """Of the sweep's name; made if it is not there, brought back if it was deleted."""
        name, place = self._folder.name, sqlite_file.artifacts(self._uri)
        found = self.client.get_experiment_by_name(name)
        if found and found.lifecycle_stage != "active":
            self._writer.client.restore_experiment(found.experiment_id)
        if found and place and _is_gone(found, place):
            self._writer.client.rename_experiment(
                found.experiment_id, f"{name} (its artifacts lay elsewhere, {place})"[:250]
            )
            self._writer.client.delete_experiment(found.experiment_id)
            found = None
        return str(found.experiment_id if found else self._writer.client.create_experiment(name, place, KIND_TAG))

    # What is written.

    def _write_views(self, asked: Asked) -> None:
        """What the UI is to show of the experiment, where it is not there or another."""
        there = self.client.get_experiment(self.experiment).tags
        for key, value in mirrored_views.experiment_tags(asked).items():
            if there.get(key) != value:
                self._writer.client.set_experiment_tag(self.experiment, key, value)

    def _write_all(self, runs: Sequence[Shown], *, closed: bool) -> None:
        """Let MLflow have these runs, and no others."""
        written = self._side_by_side(runs, closed=closed)
        for shown in runs:
            is_written = shown.path in written or shown.parent in written
            self._writer.write(replace(shown, grown=False) if is_written else shown, closed=closed)
        for path in set(self._writer.known) - {shown.path for shown in runs}:
            self._writer.client.delete_run(self._writer.known.pop(path).id)

    def _side_by_side(self, runs: Sequence[Shown], *, closed: bool) -> set[str]:
        """Where there are many new configurations, several processes write them; their paths."""
        new = [one.path for one in runs if one.parent == self._folder.name and one.path not in self._writer.known]
        if self._processes < 2 or len(new) < MANY:
            return set()
        self._writer.write(runs[0], closed=closed)
        parent = self.run_id(self._folder.name)
        parts = [frozenset(path.rpartition("/")[2] for path in new[n : n + A_PART]) for n in range(0, len(new), A_PART)]
        common = (self._uri, self._folder, self.experiment, self.runs_id, parent)
        pool = ProcessPoolExecutor(self._processes, get_context("spawn"), beside_others)
        try:
            for known in pool.map(Part.write, [Part(*common, names, closed) for names in parts]):
                self._writer.known |= known
        finally:
            pool.shutdown(cancel_futures=True)
        return set(new)

    def _write_files(self, sweep: Sweep) -> None:
        """Each run's artifacts, once; those that it has not any more are removed."""
        with tempfile.TemporaryDirectory() as scratch:
            for path, files in mirrored_files.of(sweep, Path(scratch)):
                known, digest = self._writer.known[path], mirrored_files.digest(files)
                if known.tags.get(FILES_TAG, mirrored_files.NONE) == digest:
                    continue
                there = get_artifact_repository(known.artifacts, tracking_uri=self._uri)
                if FILES_TAG in known.tags:
                    there.delete_artifacts()
                for name, file in files.items():
                    there.log_artifact(str(file), str(Path(name).parent) if "/" in name else None)
                self._writer.send(known, [], {}, {FILES_TAG: digest})


def create_database(uri: str) -> None:
    """MLflow's tables in a new sqlite file."""
    path = sqlite_file.own(uri)
    if path and sqlite_file.is_missing(path):
        sqlite_file.make(path, _make_tables)


def _make_tables(path: Path) -> None:
    client_of(f"sqlite:///{path}").search_experiments()
    let_go()


def _is_gone(experiment: Experiment, place: str) -> bool:
    """Whether the artifacts of a database that was moved here lie on another machine, or nowhere any more."""
    location = str(experiment.artifact_location)
    return (
        location.startswith("file:") and location != place and not Path(url2pathname(urlsplit(location).path)).exists()
    )
