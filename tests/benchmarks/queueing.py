"""The broker with a model of a cluster: 1,000 configurations of five folds on 200 GPUs.

The broker is the real one, with its files; what is made up are Slurm's answers, the trials and the folds' trainings.
The model goes on by five seconds at each of its steps, which the driver makes every second: the processor time of a
step is at most what a second of a real sweep of that size would take. Wanted: less than a second of it, so that one
core does, and memory within the driver's 1 GB.
"""

import random
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest.mock import patch

from cluster import driver, slurm, submission
from cluster.broker import Broker, Place
from cluster.site import Site
from cluster.slurm import Job
from cluster.submission import Ticket
from cluster.worker import FoldJob
from data_prep.files import make_private
from mtl.config import Config
from mtl.runfolder import RunFolder
from tests.benchmarks.rows import Row

FOLDS = 5
STEP_S = 5.0
FOLD_S = (300.0, 900.0)
"""a fold trains so long"""


@dataclass
class Model:
    """A cluster with so many places, first come first served."""

    places: int
    now: float = 0.0
    waiting: list[tuple[str, FoldJob, str]] = field(default_factory=list)
    ends: dict[str, tuple[float, FoldJob, str]] = field(default_factory=dict)
    """job -> when it ends, its fold, its name"""
    arrays: int = 0
    questions: int = 0
    busy_s: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def submit(self, shape: submission.Shape, folds: list[FoldJob]) -> dict[int, Ticket]:
        self.arrays += 1
        jobs = {fold.number: f"{self.arrays}_{place}" for place, fold in enumerate(folds)}
        self.waiting += [(jobs[fold.number], fold, shape.name) for fold in folds]
        return {number: Ticket(job) for number, job in jobs.items()}

    def jobs(self) -> dict[str, Job]:
        self.questions += 1
        runs = {job: Job(job, "RUNNING", "", "g1", name) for job, (_, _, name) in self.ends.items()}
        return runs | {job: Job(job, "PENDING", "Priority", "", name) for job, _, name in self.waiting}

    def goes_on(self) -> None:
        self.now += STEP_S
        self.busy_s += STEP_S * len(self.ends)
        for job in [job for job, (end, _, _) in self.ends.items() if end <= self.now]:
            run = RunFolder(make_private(Path(self.ends.pop(job)[1].folder)))
            run.write_epochs([{"epoch": 1, "seconds": 1.0}])
            run.finish("DONE", "all epochs trained")
        while self.waiting and len(self.ends) < self.places:
            job, fold, name = self.waiting.pop(0)
            self.ends[job] = (self.now + self.chance.uniform(*FOLD_S), fold, name)


@dataclass
class Trials:
    """So many configurations at a time, each asking for its folds and done when they are."""

    home: Path
    config: Config
    left: list[int]
    concurrent: int
    running: dict[int, list[RunFolder]] = field(default_factory=dict)

    def go_on(self) -> None:
        for n, runs in list(self.running.items()):
            if all(run.outcome() for run in runs):
                del self.running[n]
        while self.left and len(self.running) < self.concurrent:
            n = self.left.pop(0)
            folder = make_private(self.home / f"c{n}")
            folds = [FoldJob(asdict(self.config), "store", str(folder / f"fold_{k}"), k) for k in range(FOLDS)]
            self.running[n] = [RunFolder(Path(fold.folder)) for fold in folds]
            Place(str(self.home)).start(f"c{n}", folds)


def run(configurations: int, gpus: int) -> Iterator[Row]:
    """Of a whole sweep that is simulated."""
    with tempfile.TemporaryDirectory() as folder:
        home, model = make_private(Path(folder) / "sweep"), Model(gpus)
        trials = Trials(home, Config("d"), list(range(configurations)), concurrent=gpus // FOLDS + 2)
        with (
            patch.object(submission, "submit", model.submit),
            patch.object(slurm, "jobs", model.jobs),
            patch.object(slurm, "ended", lambda ids: {}),
        ):
            broker = Broker(Site(kind="slurm"), "s", home, home / "code", now=lambda: model.now)
            seconds, steps, before_mb = 0.0, 0, _memory_mb()
            while trials.left or trials.running:
                trials.go_on()
                begin = time.process_time()
                broker.step()
                seconds, steps = seconds + time.process_time() - begin, steps + 1
                model.goes_on()
    assert model.arrays == configurations
    busy = f"simulated, {model.now / 3600:.1f} h; GPUs busy {model.busy_s / model.now / gpus * 100:.0f} %"
    name = f"broker, {configurations} x {FOLDS} folds on {gpus} GPUs"
    yield Row(name, "% of a core", [seconds / steps / driver.STEP_S * 100], wanted=100, note=busy)
    yield Row("its memory", "MB more", [_memory_mb() - before_mb], wanted=1000)
    yield Row("its questions", "squeue a minute", [model.questions / (model.now / 60)], wanted=1)


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
