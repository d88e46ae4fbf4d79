"""The one who talks to Slurm for a whole sweep: queues what trials ask for, watches all jobs, mends what broke.

Trials ask by a file (`requests/<configuration>.json` in the sweep's folder) and read the answer from the run folders,
so they need no connection to the driver. Which job runs which fold is kept in `jobs.json` (cluster/watched.py): a
driver that takes over from a dead one goes on with the jobs that still run, and queues none twice. What follows from
which failure stands in cluster/failures.py.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster import failures, slurm, submission, watched
from cluster.policy import UNLIMITED
from cluster.site import Site
from cluster.slurm import Job
from cluster.submission import Ticket
from cluster.watched import Watched
from cluster.worker import FoldJob
from data_prep.files import make_private, patiently, write_text
from mtl.runfolder import RunFolder

BACK_OFF = 3
"""times site.poll_s, at most, between two questions where nothing happens"""
STARTS_S = 20.0
"""how long a job that was just queued may be unknown to squeue"""
FULL_S = 60.0
"""how long a full queue is left alone"""


class Broker:
    """Of one sweep folder. `step()` does what is due; the driver calls it again and again."""

    def __init__(
        self,
        site: Site,
        sweep: str,
        sweep_folder: Path,
        code: Path,
        *,
        max_jobs: int = UNLIMITED,
        max_gpus: int = UNLIMITED,
        at_once: bool = False,
        after: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """max_jobs, max_gpus: of a policy; at a time, the driver's own job not counted. at_once: nothing waits for the
        sweep's first fold. after: a job whose good end all others wait for."""
        self.site, self.sweep, self.folder, self.code, self._now = site, sweep, sweep_folder, code, now
        gpus = site.nodes * site.gpus_per_node
        self._max_jobs, self._max_tasks = max_jobs, max_gpus // gpus if gpus else UNLIMITED
        self._requests = make_private(sweep_folder / "requests")
        self.kept = watched.read(sweep_folder)
        for w in self.kept.open():  # before trials take back how folds ended, to try them again
            if w.run.outcome():
                w.close()
        self._at_once, self._after = at_once, after
        self._proven = any(RunFolder(path.parent).epochs() for path in sweep_folder.glob("*/fold_*/epochs.jsonl"))
        self._doomed = ""
        self._asked, self._interval, self._full_until = -1e9, site.poll_s, -1e9
        self._queued_at: dict[str, float] = {}

    def step(self) -> None:
        """Queue what was asked for; ask Slurm where that is due."""
        if self.kept.queuing:
            self._adopt(*self.kept.queuing)
        self._close()
        for request in sorted(self._requests.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
            if not self._queue(request):
                break
        if self.kept.open() and self._now() - self._asked >= self._interval:
            self._look()

    # What was asked for.

    def _queue(self, request: Path) -> bool:
        """One array for the folds of a request that no job runs already, such as one of a driver before this; False
        where it has to wait."""
        if self._doomed:
            for fold in _folds(request):
                _fail(fold, self._doomed, failures.STOPPED)
            request.unlink()
            return True
        if not self._room(request):
            return False
        wanted = _folds(request)
        known = [self.kept.by_folder[fold.folder] for fold in wanted if fold.folder in self.kept.by_folder]
        found = slurm.jobs() if any(not w.closed for w in known) else {}
        alive = {w.folder for w in known if not w.closed and w.id in found and found[w.id].alive}
        # A fold of a driver before this one may have ended since it was asked for.
        done = {fold.folder for fold in wanted if RunFolder(Path(fold.folder)).outcome() in ("DONE", "STOPPED")}
        missing = [fold for fold in wanted if fold.folder not in alive | done]
        if missing and not self._submit(request.stem, missing):
            return False
        request.unlink()
        return True

    def _room(self, request: Path) -> bool:
        """Whether a request's array may be queued now. Until a fold has an epoch behind it, one array is enough to
        burn; a policy's numbers hold for all arrays together."""
        waiting = self.kept.open()
        if self._at_once or not waiting:
            return True
        if any(w.configuration == request.stem for w in waiting):  # a driver before this one has queued it
            return True
        if not self._proven or self._now() < self._full_until:
            return False
        tasks = len(submission.tasks(_folds(request), self.site))
        return len({w.id for w in waiting}) + tasks <= self._max_jobs and self._free() >= 1

    def _free(self) -> int:
        """Tasks that may run beside those that are queued already, each array at its throttle."""
        arrays: dict[str, set[str]] = {}
        throttle: dict[str, int] = {}
        for w in self.kept.open():
            arrays.setdefault(w.array, set()).add(w.id)
            throttle[w.array] = w.at_a_time or UNLIMITED
        return self._max_tasks - sum(min(len(ids), throttle[array]) for array, ids in arrays.items())

    def _submit(self, configuration: str, folds: Sequence[FoldJob]) -> bool:
        shape = submission.shape(
            self.site, self.sweep, self.folder, self.code, configuration, sorted(self.kept.bad_nodes), self._after
        )
        tasks = len(submission.tasks(folds, self.site))
        at_a_time = max(1, min(tasks, self.site.at_a_time or tasks, self._free()))
        shape = submission.throttled(shape, at_a_time)
        self.kept.queuing = (configuration, [asdict(fold) for fold in folds])
        self.kept.write()  # killed between sbatch and the next line, the driver's successor finds them by their name
        try:
            tickets = submission.submit(shape, folds)
        except slurm.Full as error:
            self.kept.queuing = None
            self.kept.write()
            if not self.kept.open():
                return self._refuse(folds, str(error))
            self._full_until = self._now() + FULL_S
            return False
        except ValueError as error:
            return self._refuse(folds, str(error))
        self._take(configuration, folds, tickets, at_a_time)
        return True

    def _refuse(self, folds: Sequence[FoldJob], why: str) -> bool:
        for fold in folds:
            _fail(fold, why, failures.REFUSED)
        self.kept.queuing = None
        self.kept.write()
        return True

    def _adopt(self, configuration: str, folds: Sequence[dict[str, object]]) -> None:
        """Jobs that a killed driver queued and did not write down: those of this name that nobody has."""
        shape = submission.shape(self.site, self.sweep, self.folder, self.code, configuration)
        mine = {w.id for w in self.kept.by_folder.values()}
        found = [j.id for j in slurm.jobs().values() if j.name == shape.name and j.alive and j.id not in mine]
        last = max((job.partition("_")[0] for job in found), key=int, default="")
        ids = {
            int(job.partition("_")[2] or 0): job for job in found if job.partition("_")[0] == last
        }  # place in the array -> job
        made = submission.tasks([FoldJob(**fold) for fold in folds], self.site)  # type: ignore[arg-type]
        there = [place for place in range(len(made)) if place in ids]
        tickets = submission.tickets([made[place] for place in there], [ids[place] for place in there])
        self._take(configuration, [fold for place in there for fold in made[place]], tickets, self.site.at_a_time or 0)

    def _take(
        self, configuration: str, folds: Sequence[FoldJob], tickets: dict[int, Ticket], at_a_time: int = 0
    ) -> None:
        """These folds are run by these jobs."""
        for fold in folds:
            ticket = tickets[fold.number]
            again = Watched(asdict(fold), configuration, ticket.job, ticket.rank, at_a_time)
            again.epochs = len(again.run.epochs())
            if before := self.kept.by_folder.get(fold.folder):
                again.queued = 1 if before.closed else before.queued + 1
                again.past = [*before.past, f"{before.id} {before.state}"]
            self.kept.by_folder[fold.folder] = again
            self._queued_at[again.id] = self._now()
        self.kept.queuing = None
        self.kept.write()

    # What became of it.

    def _close(self) -> None:
        """Folds that have said how they ended; one that met an error in the code stops its siblings."""
        halved = []
        self._recall([w for w in self.kept.open() if w.state in slurm.WAITING and w.run.outcome() == "STOPPED"])
        for w in self.kept.open():
            outcome = w.run.outcome()
            self._proven = self._proven or outcome == "DONE" or bool(w.run.epochs())
            if outcome is None:
                continue
            if w.closed:  # stopped just now
                continue
            facts = w.run.facts()
            if facts.get("failure") == failures.MEMORY and self.site.ranks > 1 and w.job.micro_batches == 1:
                halved.append(w)  # one rank begins again in halves by itself, several cannot
                continue
            if facts.get("failure") == failures.CODE:  # before it is closed: where Slurm is silent, it is tried again
                self._stop_siblings(w, str(facts.get("traceback", "")))
            w.close()
        for w in halved:
            if self._submit(w.configuration, [replace(w.job, micro_batches=2)]):
                w.run.reopen()

    def _recall(self, stopped: Sequence[Watched]) -> None:
        """Jobs whose folds were stopped before they began: those that run end with their epoch."""
        if stopped:
            self._try(lambda: slurm.cancel(sorted({w.id for w in stopped})))

    def _stop_siblings(self, failed: Watched, traceback: str) -> None:
        why = f"stopped: {failed.run.path.name} of this configuration failed: {failed.run.reason()}"
        siblings = [w for w in self.kept.open() if w.configuration == failed.configuration and w is not failed]
        with suppress(ValueError):  # a job that has just ended
            slurm.cancel(sorted({w.id for w in siblings}))
        for w in siblings:
            if w.run.outcome() is None:
                w.run.finish("FAILED", why, failure=failures.STOPPED, traceback=traceback)
            w.close()
        if not self._proven:
            where = f"{failed.run.path.parent.name}/{failed.run.path.name}"
            self._doomed = f"not started: the sweep's first fold, {where}, failed: {failed.run.reason()}"
        self.kept.write()

    def _look(self) -> None:
        """One question for all jobs; what ended without an outcome is queued again or failed."""
        self._asked = self._now()
        waiting = self.kept.open()
        try:
            found = slurm.jobs()
            found |= slurm.ended({w.id for w in waiting} - found.keys())
        except slurm.Silent:
            return  # the controller is down; jobs run on without it
        fallen = [w for w in waiting if self._fell_back(w, found)]
        changed = [w for w in waiting if self._note(w, found)]
        self._interval = self.site.poll_s if changed else min(1.5 * self._interval, BACK_OFF * self.site.poll_s)
        broken = [w for w in waiting if not self._lives(w, found)]
        self._leave_out([*fallen, *(w for w in broken if w.state in failures.NODE_STATES)])
        for configuration in sorted({w.configuration for w in broken}):
            self._mend([w for w in broken if w.configuration == configuration], configuration)
        if changed or broken:
            self.kept.write()

    def _fell_back(self, w: Watched, found: dict[str, Job]) -> bool:
        """It ran, and waits again: somebody, or Slurm after a node's failure, has requeued it."""
        job = found.get(w.id)
        return bool(job and job.waits and w.state in slurm.RUNNING and w.nodes)

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

    def _leave_out(self, suspects: Sequence[Watched]) -> None:
        """Nodes that do not work any more, of those that these jobs ran on, are left out from now on, with evidence."""
        for nodes in sorted({w.nodes for w in suspects if w.nodes}):
            jobs = sorted({w.id for w in suspects if w.nodes == nodes})
            when = time.strftime("%Y-%m-%d %H:%M:%S")
            bad = [node for node in slurm.down(nodes) if node not in self.kept.bad_nodes]
            for node in bad:
                self.kept.bad_nodes[node] = f"under job {', '.join(jobs)}, {when}"
            waiting = sorted({w.id for w in self.kept.open() if w.state in slurm.WAITING})
            if bad:
                self._try(lambda ids=waiting: slurm.leave_out(ids, sorted(self.kept.bad_nodes)))  # type: ignore[misc]

    def _try(self, ask: Callable[[], None]) -> None:
        """What would be good to have: without it the sweep goes on."""
        try:
            ask()
        except (ValueError, slurm.Silent) as error:
            print(f"driver: {error}", file=sys.stderr, flush=True)

    def _mend(self, broken: Sequence[Watched], configuration: str) -> None:
        again = []
        for w in broken:
            if w.run.outcome():
                continue  # it ended while we asked
            end = failures.End(w.state, w.queued, len(w.run.epochs()) - w.epochs, w.job.micro_batches)
            why = failures.verdict(end, self.site.requeues)
            if why is None:
                again.append(replace(w.job, micro_batches=2) if w.state in failures.MEMORY_STATES else w.job)
            else:
                log = submission.log_of(self.folder / "jobs", w.id, w.rank)
                w.run.finish("FAILED", f"job {w.id} {why}; see {log}", failure=failures.of_state(w.state))
                w.close()
        if again:
            self._submit(configuration, again)


@dataclass(frozen=True)
class Place:
    """Where a trial's folds run: a Slurm cluster, reached by the broker. Picklable."""

    sweep_folder: str

    def start(self, configuration: str, folds: Sequence[FoldJob]) -> list[FoldJob]:
        """Ask for these folds."""
        path = Path(self.sweep_folder) / "requests" / f"{configuration}.json"
        patiently(lambda: write_text(path, json.dumps([asdict(fold) for fold in folds])))
        return list(folds)

    def ended(self, started: Sequence[FoldJob], timeout_s: float) -> list[tuple[FoldJob, Exception | None]]:
        """Those whose run folder says how it ended, after at most timeout_s."""
        time.sleep(timeout_s)
        return [(fold, None) for fold in started if RunFolder(Path(fold.folder)).outcome()]


def _folds(request: Path) -> list[FoldJob]:
    return [FoldJob(**job) for job in json.loads(request.read_text())]


def _fail(fold: FoldJob, why: str, failure: str) -> None:
    RunFolder(Path(fold.folder)).finish("FAILED", why, failure=failure)
