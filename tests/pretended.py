"""Slurm as the broker sees it, without one: what it answers is what a test says. tests/slurm has a real one."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster import slurm, submission
from cluster.broker import Broker, Place
from cluster.site import Site
from cluster.slurm import Job
from cluster.submission import Ticket
from cluster.worker import FoldJob
from data_prep.files import make_private
from mtl.runfolder import RunFolder

SITE = Site(kind="slurm", gpus_per_node=0, poll_s=60, requeues=2)


class Killed(BaseException):
    """Stands for kill -9."""


class Machine:
    """Ids that it gives, states that a test sets; and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: dict[str, Job] = {}
        self.arrays: list[tuple[list[int], tuple[str, ...]]] = []
        """fold numbers and excluded nodes of each sbatch"""
        self.shapes: list[submission.Shape] = []
        self.folds: list[FoldJob] = []
        """of the last sbatch"""
        self.cancelled: list[str] = []
        self.left_out: list[tuple[list[str], list[str]]] = []
        self.down: set[str] = set()
        self.time, self.silent, self.dies, self.questions = 0.0, False, False, 0
        monkeypatch.setattr(submission, "submit", self.submit)
        monkeypatch.setattr(slurm, "jobs", self.jobs)
        monkeypatch.setattr(slurm, "ended", lambda ids: {})
        monkeypatch.setattr(slurm, "cancel", self.cancelled.extend)
        monkeypatch.setattr(slurm, "down", lambda nodes: sorted(self.down & set(nodes.split(","))))
        monkeypatch.setattr(slurm, "leave_out", lambda ids, nodes: self.left_out.append((list(ids), list(nodes))))

    def submit(self, shape: submission.Shape, folds: Sequence[FoldJob]) -> dict[int, Ticket]:
        self.arrays.append(([fold.number for fold in folds], shape.exclude))
        self.shapes.append(shape)
        self.folds = list(folds)
        made = submission.tasks(folds, shape.site)
        tickets = submission.tickets(made, [f"{len(self.arrays)}_{place}" for place in range(len(made))])
        self.states |= {t.job: Job(t.job, "PENDING", "Priority", name=shape.name) for t in tickets.values()}
        if self.dies:
            raise Killed
        return tickets

    def jobs(self) -> dict[str, Job]:
        self.questions += 1
        if self.silent:
            raise slurm.Silent("squeue: no answer")
        return dict(self.states)

    def set(self, i: str, state: str, node: str = "n1") -> None:
        self.states[i] = Job(i, state, "", node)

    def broker(self, sweep_folder: Path, site: Site = SITE, **limits: int) -> Broker:
        return Broker(site, "s", sweep_folder, sweep_folder / "code", now=lambda: self.time, **limits)  # type: ignore[arg-type]


def ask(sweep_folder: Path, configuration: str, folds: Sequence[FoldJob]) -> None:
    """As a trial does."""
    Place(str(sweep_folder)).start(configuration, folds)


def run_of(fold: FoldJob) -> RunFolder:
    return RunFolder(make_private(Path(fold.folder)))


def later(made: Broker, machine: Machine, seconds: float = 200) -> None:
    machine.time += seconds
    made.step()
