"""The one who talks to Slurm for a whole sweep: queues what trials ask for, watches all jobs, mends what broke.

Trials ask by a file (`requests/<configuration>.json` in the sweep's folder) and read the answer from the run folders,
so they need no connection to the driver. Which job runs which fold is kept in `jobs.json`: a driver that takes over
from a dead one goes on with the jobs that still run, and queues none twice.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster import slurm, submission
from cluster.settings import Site
from cluster.slurm import Job
from cluster.worker import FoldJob
from data_prep.files import make_private, write_text
from mtl.runfolder import RunFolder

NODE_FAILED = {"NODE_FAIL", "BOOT_FAIL"}
COMES_BACK = {"TIMEOUT", "PREEMPTED", "DEADLINE", *NODE_FAILED}
"""what Slurm did, not the fold: it is queued again"""
BACK_OFF = 3
"""times site.poll_s, at most, between two questions where nothing happens"""
STARTS_S = 20.0
"""how long a job that was just queued may be unknown to squeue"""


@dataclass
class Watched:
    """A fold's job."""

    fold: dict[str, Any]
    """of FoldJob"""
    configuration: str
    id: str
    queued: int = 1
    """how often it was queued by the broker"""
    state: str = "PENDING"
    reason: str = ""
    nodes: str = ""
    closed: bool = False
    """the fold has said how it ended; what becomes of it now is for another job"""
    past: list[str] = field(default_factory=list)
    """how its earlier jobs ended"""

    @property
    def job(self) -> FoldJob:
        return FoldJob(**self.fold)

    @property
    def run(self) -> RunFolder:
        return RunFolder(Path(self.fold["folder"]))


class Broker:
    """Of one sweep folder. `step()` does what is due; the driver calls it again and again."""

    def __init__(
        self, site: Site, sweep: str, sweep_folder: Path, code: Path, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.site, self.sweep, self.folder, self.code, self._now = site, sweep, sweep_folder, code, now
        self._requests = make_private(sweep_folder / "requests")
        self._path = sweep_folder / "jobs.json"
        self.watched, self.bad_nodes, self._queuing = read(sweep_folder)
        self._close()  # before trials take back how folds ended, to try them again
        self._asked, self._interval = -1e9, site.poll_s
        self._queued_at: dict[str, float] = {}

    def step(self) -> None:
        """Queue what was asked for; ask Slurm where that is due."""
        if self._queuing:
            self._adopt(*self._queuing)
        for request in sorted(self._requests.glob("*.json")):
            self._queue(request)
        if self._open() and self._now() - self._asked >= self._interval:
            self._look()

    def _open(self) -> list[Watched]:
        """Jobs whose fold has not said how it ended."""
        self._close()
        return [w for w in self.watched.values() if not w.closed]

    def _close(self) -> None:
        for w in self.watched.values():
            w.closed = w.closed or w.run.outcome() is not None

    def _queue(self, request: Path) -> None:
        """One array for the folds of a request that no job runs already, such as one of a driver before this."""
        wanted = [FoldJob(**job) for job in json.loads(request.read_text())]
        known = [self.watched[job.folder] for job in wanted if job.folder in self.watched]
        found = slurm.jobs() if known else {}
        alive = {w.fold["folder"] for w in known if w.id in found and found[w.id].alive}
        missing = [job for job in wanted if job.folder not in alive]
        if missing:
            self._submit(request.stem, missing)
        request.unlink()

    def _submit(self, configuration: str, folds: Sequence[FoldJob]) -> None:
        shape = submission.shape(self.site, self.sweep, self.folder, self.code, configuration, self.bad_nodes)
        self._queuing = (configuration, [asdict(fold) for fold in folds])
        self._write()  # killed between sbatch and the next line, the driver's successor finds them by their name
        try:
            ids = submission.submit(shape, folds)
        except ValueError as error:
            for fold in folds:
                RunFolder(Path(fold.folder)).finish("FAILED", str(error))
            self._queuing = None
            self._write()
            return
        self._take(configuration, folds, ids)

    def _adopt(self, configuration: str, folds: Sequence[dict[str, Any]]) -> None:
        """Jobs that a killed driver queued and did not write down: those of this name that nobody has."""
        shape = submission.shape(self.site, self.sweep, self.folder, self.code, configuration)
        mine = {w.id for w in self.watched.values()}
        found = [j.id for j in slurm.jobs().values() if j.name == shape.name and j.alive and j.id not in mine]
        last = max((job.partition("_")[0] for job in found), key=int, default="")
        ids = {
            place: job for job in found if job.partition("_")[0] == last for place in [int(job.partition("_")[2] or 0)]
        }
        there = [(FoldJob(**fold), ids[place]) for place, fold in enumerate(folds) if place in ids]
        self._take(configuration, [fold for fold, _ in there], {fold.number: job for fold, job in there})

    def _take(self, configuration: str, folds: Sequence[FoldJob], ids: dict[int, str]) -> None:
        """These folds are run by these jobs."""
        for fold in folds:
            before = self.watched.get(fold.folder)
            again = Watched(asdict(fold), configuration, ids[fold.number])
            if before:
                again.queued, again.past = before.queued + 1, [*before.past, f"{before.id} {before.state}"]
            self.watched[fold.folder] = again
            self._queued_at[again.id] = self._now()
        self._queuing = None
        self._write()

    def _look(self) -> None:
        """One question for all jobs; what ended without an outcome is queued again or failed."""
        self._asked = self._now()
        try:
            found = slurm.jobs()
            found |= slurm.ended({w.id for w in self._open()} - found.keys())
        except slurm.Silent:
            return  # the controller is down; jobs run on without it
        changed = [w for w in self._open() if self._note(w, found)]
        self._interval = self.site.poll_s if changed else min(1.5 * self._interval, BACK_OFF * self.site.poll_s)
        broken = [w for w in self._open() if not self._lives(w, found)]
        for configuration in sorted({w.configuration for w in broken}):
            self._mend([w for w in broken if w.configuration == configuration], configuration)
        self._write()

    def _note(self, w: Watched, found: dict[str, Job]) -> bool:
        job = found.get(w.id)
        before = (w.state, w.nodes)
        if job:
            w.state, w.reason, w.nodes = job.state, job.reason, job.nodes or w.nodes
        return bool((w.state, w.nodes) != before)

    def _lives(self, w: Watched, found: dict[str, Job]) -> bool:
        job = found.get(w.id)
        if job is None:
            return self._now() - self._queued_at.get(w.id, -1e9) < STARTS_S
        return job.alive

    def _mend(self, broken: Sequence[Watched], configuration: str) -> None:
        again = []
        for w in broken:
            if w.run.outcome():
                continue  # it ended while we asked
            if w.state in NODE_FAILED:
                self.bad_nodes = sorted({*self.bad_nodes, *filter(None, w.nodes.split(","))})
            # Without accounting nobody says how a job ended that squeue has forgotten: it is tried again.
            unknown = w.state in slurm.WAITING | slurm.RUNNING
            if (w.state in COMES_BACK or unknown) and w.queued <= self.site.requeues:
                again.append(w.job)
            else:
                log = submission.log_of(self.folder / "jobs", w.id)
                times = f" after being queued {w.queued} times" if w.queued > 1 else ""
                w.run.finish("FAILED", f"job {w.id} ended as {w.state}{times}; see {log}")
        if again:
            self._submit(configuration, again)

    def _write(self) -> None:
        jobs = [asdict(w) for w in self.watched.values()]
        kept = {"jobs": jobs, "bad_nodes": self.bad_nodes, "queuing": self._queuing}
        write_text(self._path, json.dumps(kept, indent=1) + "\n")


def driver_of(sweep_folder: Path) -> str | None:
    """The id of the driver's job; None where none was queued."""
    kept = sweep_folder / "driver.json"
    return str(json.loads(kept.read_text())["job"]) if kept.exists() else None


def keep_driver(sweep_folder: Path, job: str) -> None:
    """Write it down."""
    write_text(sweep_folder / "driver.json", json.dumps({"job": job}) + "\n")


Queuing = tuple[str, list[dict[str, Any]]]
"""A configuration and its folds, while they are being queued."""


def read(sweep_folder: Path) -> tuple[dict[str, Watched], list[str], Queuing | None]:
    """Fold's folder -> its job, the nodes that failed, and what was just being queued, as the broker last knew them;
    empty without a broker."""
    path = sweep_folder / "jobs.json"
    if not path.exists():
        return {}, [], None
    kept = json.loads(path.read_text())
    queuing = kept["queuing"]
    return (
        {w["fold"]["folder"]: Watched(**w) for w in kept["jobs"]},
        kept["bad_nodes"],
        (queuing[0], queuing[1]) if queuing else None,
    )


@dataclass(frozen=True)
class Place:
    """Where a trial's folds run: a Slurm cluster, reached by the broker. Picklable."""

    sweep_folder: str

    def start(self, configuration: str, folds: Sequence[FoldJob]) -> list[FoldJob]:
        """Ask for these folds."""
        path = Path(self.sweep_folder) / "requests" / f"{configuration}.json"
        write_text(path, json.dumps([asdict(fold) for fold in folds]))
        return list(folds)

    def ended(self, started: Sequence[FoldJob], timeout_s: float) -> list[tuple[FoldJob, Exception | None]]:
        """Those whose run folder says how it ended, after at most timeout_s."""
        time.sleep(timeout_s)
        return [(fold, None) for fold in started if RunFolder(Path(fold.folder)).outcome()]
