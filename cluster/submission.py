"""Folds as Slurm jobs, by submitit: one array for the folds of a configuration, one sbatch.

A task of the array is one fold of nodes x ranks, or `site.folds_per_gpu` folds of one rank each, which know nothing of
one another. A job that is preempted, out of time or requeued by anyone runs the same call again, which goes on from the
fold's last.pt.
"""

import dataclasses
import getpass
import os
import shlex
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import failures, slurm, watched, worker
from cluster.executors import ENVIRONMENT
from cluster.site import Site
from cluster.worker import FoldJob, run_fold
from data_prep.files import make_private
from mtl.runfolder import RunFolder

SIGNAL_BEFORE_END_S = 60
"""USR2 reaches a job so long before its time limit: it is then queued again"""


@dataclass(frozen=True)
class SlurmTask:
    """What every rank of a task runs."""

    folds: tuple[FoldJob, ...]
    """one, trained by all ranks together; or several, a rank each"""
    requeues: int
    """how often its job may be queued again"""
    shared: bool = False
    """the ranks have a fold each, even where there is one fold left"""

    def __call__(self) -> None:
        fold = self._mine()
        if fold is None:
            return
        run = RunFolder(Path(fold.folder))
        again = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if again > self.requeues:  # an epoch that is longer than the job's time would begin again for ever
            why = f"queued again {again} times, more than site.requeues={self.requeues}"
            run.finish("FAILED", f"{why}: give more site.time_min, or site.checkpoint_minutes", failure=failures.TIME)
        else:
            run_fold(fold)
        if run.outcome() != "DONE":  # a failed fold must not read as completed in the accounting
            raise RuntimeError(run.reason() or "the fold did not end")

    def _mine(self) -> FoldJob | None:
        """This rank's fold, with the environment that torch.distributed reads; None where there is none left."""
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if not self.shared:
            return self.folds[0]
        rank = int(os.environ["RANK"])
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        return self.folds[rank] if rank < len(self.folds) else None

    def checkpoint(self) -> Any:
        """The job is to end and is queued again: what was done is in the fold's last.pt.

        submitit calls this in the midst of the training, and then lets Slurm requeue the job. Where that fails, since
        Slurm has begun to end it, its error comes out of the training.
        """
        from submitit.helpers import DelayedSubmission

        worker.end()
        return DelayedSubmission(self)


@dataclass(frozen=True)
class Shape:
    """How a job of this sweep is asked for."""

    site: Site
    sweep_folder: Path
    code: Path
    """where its Python packages lie"""
    name: str
    """job name"""
    told: str
    """comment: what it is, for the admin"""
    exclude: tuple[str, ...] = ()
    """nodes that failed in this sweep"""
    after: str = ""
    """a job without whose good end it must not start"""

    @property
    def logs(self) -> Path:
        return self.sweep_folder / "jobs"

    def parameters(self) -> dict[str, Any]:
        """In submitit's words."""
        site, packed = self.site, self.site.folds_per_gpu > 1
        options = {key: getattr(site, key) for key in ("partition", "account", "qos", "constraint")}
        made: dict[str, Any] = {key: value for key, value in options.items() if value}
        more: dict[str, Any] = {"requeue": True}
        if site.gpus_per_node:
            made["gpus_per_node"] = site.gpus_per_node
        if self.exclude:
            made["exclude"] = ",".join(self.exclude)
        if self.after:
            more |= {"dependency": f"afterok:{self.after}", "kill-on-invalid-dep": "yes"}
        return made | {
            "job_name": self.name,
            "comment": self.told,
            "nodes": site.nodes,
            "ntasks_per_node": site.folds_per_gpu if packed else site.gpus_per_node or site.ranks_per_node,
            "cpus_per_task": site.cpus_per_rank,
            "mem": f"{round(site.mem_gb * 1024)}MB",
            "time": site.time_min,
            "signal_delay_s": SIGNAL_BEFORE_END_S,
            "array_parallelism": site.at_a_time or 1000,
            "wckey": None,  # submitit's own, which clusters may refuse
            "stderr_to_stdout": True,
            "setup": setup(self.site, self.code),
            # Of several ranks of one fold the others wait for one that died; folds that share a job do not.
            "srun_args": [f"--kill-on-bad-exit={int(not packed)}"],
            "additional_parameters": {**more, **site.sbatch},
        }

    def executor(self) -> Any:
        from submitit import SlurmExecutor

        make_private(self.logs)
        executor = SlurmExecutor(self.logs, max_num_timeout=self.site.requeues)
        executor.update_parameters(**self.parameters())
        return executor

    def script(self, folds: int) -> str:
        """The sbatch text of an array of so many folds."""
        executor = self.executor()
        tasks = -(-folds // self.site.folds_per_gpu)
        if tasks > 1:
            executor.parameters["map_count"] = tasks
        return str(executor._make_submission_file_text(executor._submitit_command_str, "plan"))


def setup(site: Site, code: Path) -> list[str]:
    """Shell lines before Python starts. It imports from the copy of the code, whatever lies where it starts."""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    exports = [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
    return [f"umask {site.umask}", *site.setup, *exports]


def shape(
    site: Site,
    sweep: str,
    sweep_folder: Path,
    code: Path,
    configuration: str,
    exclude: Sequence[str] = (),
    after: str = "",
) -> Shape:
    """Names and comment that say sweep, configuration and owner."""
    told = comment(site, sweep, f"configuration={configuration}")
    return Shape(site, sweep_folder, code, f"bp-{sweep}-{configuration}", told, tuple(exclude), after)


def comment(site: Site, sweep: str, what: str) -> str:
    """Of a job, for whoever looks at the queue."""
    return f"branchpoint sweep={sweep} {what} owner={getpass.getuser()} {site.comment}".strip()


@dataclass(frozen=True)
class Ticket:
    """Where a fold was put."""

    job: str
    """123, or 123_4 for the fifth task of an array"""
    rank: int = 0
    """of those that the fold's job gives a fold each"""


def tasks(folds: Sequence[FoldJob], site: Site) -> list[tuple[FoldJob, ...]]:
    """The folds of each task of the array."""
    n = site.folds_per_gpu
    return [tuple(folds[first : first + n]) for first in range(0, len(folds), n)]


def submit(shape: Shape, folds: Sequence[FoldJob]) -> dict[int, Ticket]:
    """Queue the folds of one configuration with one sbatch; fold number -> where it is. ValueError where Slurm refuses,
    slurm.Full where the queue takes no more now, slurm.Silent where it does not answer."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = shape.executor()
    made = tasks(folds, shape.site)
    shared = shape.site.folds_per_gpu > 1
    try:
        with executor.batch():
            jobs = [executor.submit(SlurmTask(task, shape.site.requeues, shared)) for task in made]
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        raise slurm.failure("sbatch", _last_line(error)) from None
    return tickets(made, [str(job.job_id) for job in jobs])


def tickets(made: Sequence[Sequence[FoldJob]], jobs: Sequence[str]) -> dict[int, Ticket]:
    """Of the folds of each task, whose job is known."""
    return {
        fold.number: Ticket(job, rank) for task, job in zip(made, jobs, strict=True) for rank, fold in enumerate(task)
    }


def throttled(shape: Shape, at_a_time: int) -> Shape:
    """The same, with at most so many tasks at a time."""
    return dataclasses.replace(shape, site=dataclasses.replace(shape.site, at_a_time=at_a_time))


def log_of(logs: Path, job: str, rank: int = 0) -> Path:
    """Where a job's rank writes."""
    return logs / f"{job}_{rank}_log.out"


def _last_line(error: Exception) -> str:
    told = str(getattr(error, "stderr", "") or error)
    return next((line for line in reversed(told.splitlines()) if line.strip()), type(error).__name__)


def tidy(sweep_folder: Path) -> None:
    """At a sweep's end submitit's pickles and scripts go, and the logs of jobs whose folds are all done go into one
    file; the log of a fold that failed stays where its reason says it is."""
    jobs = sweep_folder / "jobs"
    all_of_them = watched.read(sweep_folder).by_folder.values()
    alive = {w.array for w in all_of_them if not w.closed and w.run.outcome() is None}
    kept = {w.array for w in all_of_them if w.run.outcome() != "DONE"}
    for path in [*jobs.glob("*.pkl"), *jobs.glob("*.sh"), *jobs.glob("*.pickle")]:
        if path.name.partition("_")[0] not in alive:
            path.unlink(missing_ok=True)
    logs = [path for path in sorted(jobs.glob("*_log.out")) if path.name.partition("_")[0] not in alive | kept]
    if logs:
        with zipfile.ZipFile(jobs / "logs.zip", "a", zipfile.ZIP_DEFLATED) as packed:
            for path in logs:
                packed.write(path, path.name)
        for path in logs:
            path.unlink(missing_ok=True)
