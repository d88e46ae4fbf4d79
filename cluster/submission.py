"""Folds as Slurm jobs, by submitit: one array for the folds of a configuration, one sbatch.

A fold is one job of nodes x ranks; every rank runs `SlurmFold`. A job that is preempted, out of time or requeued by
anyone runs the same call again, which goes on from the fold's last.pt.
"""

import getpass
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import slurm
from cluster.executors import ENVIRONMENT
from cluster.settings import Site
from cluster.worker import FoldJob, run_fold
from data_prep.files import make_private, new_folder
from mtl.runfolder import RunFolder

SIGNAL_BEFORE_END_S = 60
"""USR2 reaches a job so long before its time limit: it is then queued again"""
PACKAGES = ("cluster", "mtl", "sweeps", "data_prep")


@dataclass(frozen=True)
class SlurmFold:
    """What a rank of a fold's job runs."""

    job: FoldJob
    requeues: int
    """how often its job may be queued again"""

    def __call__(self) -> None:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        run = RunFolder(Path(self.job.folder))
        again = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if again > self.requeues:  # an epoch that is longer than the job's time would begin again for ever
            run.finish("FAILED", f"queued again {again} times, more than site.requeues={self.requeues}: give more time")
        else:
            run_fold(self.job)
        if run.outcome() != "DONE":  # a failed fold must not read as completed in the accounting
            raise RuntimeError(run.reason() or "the fold did not end")

    def checkpoint(self) -> Any:
        """The job is to end and is queued again: what was done is in the fold's last.pt."""
        from submitit.helpers import DelayedSubmission

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

    @property
    def logs(self) -> Path:
        return self.sweep_folder / "jobs"

    def parameters(self) -> dict[str, Any]:
        """In submitit's words."""
        site = self.site
        options = {key: getattr(site, key) for key in ("partition", "account", "qos", "constraint")}
        made: dict[str, Any] = {key: value for key, value in options.items() if value}
        if site.gpus_per_node:
            made["gpus_per_node"] = site.gpus_per_node
        if self.exclude:
            made["exclude"] = ",".join(self.exclude)
        return made | {
            "job_name": self.name,
            "comment": self.told,
            "nodes": site.nodes,
            "ntasks_per_node": site.gpus_per_node or site.ranks_per_node,
            "cpus_per_task": site.cpus_per_rank,
            "mem": f"{round(site.mem_gb * 1024)}MB",
            "time": site.time_min,
            "signal_delay_s": SIGNAL_BEFORE_END_S,
            "array_parallelism": site.at_a_time or 1000,
            "wckey": None,  # submitit's own, which clusters may refuse
            "stderr_to_stdout": True,
            "setup": self._setup(),
            "srun_args": ["--kill-on-bad-exit=1"],  # else the other ranks wait for one that died
            "additional_parameters": {"requeue": True, **site.sbatch},
        }

    def _setup(self) -> list[str]:
        exports = [f"export {key}={value}" for key, value in ENVIRONMENT.items()]
        return ["umask 077", *self.site.setup, *exports, f"export PYTHONPATH={_quoted(self.code)}"]

    def executor(self) -> Any:
        from submitit import SlurmExecutor

        make_private(self.logs)
        executor = SlurmExecutor(self.logs, max_num_timeout=self.site.requeues)
        executor.update_parameters(**self.parameters())
        return executor

    def script(self, count: int) -> str:
        """The sbatch text of an array of so many folds."""
        executor = self.executor()
        if count > 1:
            executor.parameters["map_count"] = count
        return str(executor._make_submission_file_text(executor._submitit_command_str, "plan"))


def shape(
    site: Site, sweep: str, sweep_folder: Path, code: Path, configuration: str, exclude: Sequence[str] = ()
) -> Shape:
    """Names and comment that say sweep, configuration and owner."""
    told = f"branchpoint sweep={sweep} configuration={configuration} owner={getpass.getuser()} {site.comment}".strip()
    return Shape(site, sweep_folder, code, f"bp-{sweep}-{configuration}", told, tuple(exclude))


def submit(shape: Shape, folds: Sequence[FoldJob]) -> dict[int, str]:
    """Queue the folds of one configuration with one sbatch; fold number -> job id. ValueError where Slurm refuses,
    slurm.Silent where it does not answer."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = shape.executor()
    try:
        with executor.batch():
            jobs = [executor.submit(SlurmFold(fold, shape.site.requeues)) for fold in folds]
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        raise slurm.failure("sbatch", _last_line(error)) from None
    return {fold.number: str(job.job_id) for fold, job in zip(folds, jobs, strict=True)}


def snapshot(sweep_folder: Path) -> Path:
    """A copy of this code in the sweep's folder, for its jobs: a checkout may move on while they wait in the queue.

    The copy is named by what is in it, so that the same code is copied once.
    """
    root = Path(__file__).resolve().parent.parent
    files = sorted(f for package in PACKAGES for f in (root / package).rglob("*") if f.suffix in (".py", ".yaml"))
    digest = hashlib.sha256(b"".join(str(f.relative_to(root)).encode() + f.read_bytes() for f in files))
    code = sweep_folder / "code" / digest.hexdigest()[:12]
    if not code.exists():
        with new_folder(code) as partial:
            for file in files:
                copy = partial / file.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
    return code


def log_of(shape_logs: Path, job_id: str, rank: int = 0) -> Path:
    """Where a job's rank writes."""
    return shape_logs / f"{job_id}_{rank}_log.out"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _last_line(error: Exception) -> str:
    told = str(getattr(error, "stderr", "") or error)
    return next((line for line in reversed(told.splitlines()) if line.strip()), type(error).__name__)
