"""Sweeps on the tests' cluster: started, harmed, waited for, and held to the same sweep on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl.runfolder import RunFolder
from tests.slurm.testbed import Cluster

ROOT = Path(__file__).resolve().parents[2]
TIMES = {"time_utc", "seconds", "slices_per_s"}
SWEEP = [
    "sweep=branch_location",
    "profile=demo",
    "model.branch=up2",
    "model.width=2",
    "model.norm=group",
    "train.folds=3",
    "train.epochs=5",
    "train.augment_copies=9",
    "train.device=cpu",
    "demo.patients=6",
    "demo.slices=3",
    "demo.size=48",
    "demo.spacing_mm=6.25",
]
"""One configuration, three folds of some 5 s each."""
JOBS = [
    "site=slurm",
    "site.gpus_per_node=0",
    "site.cpus_per_rank=1",
    "site.mem_gb=1",
    "site.time_min=30",
    "site.driver_time_min=30",
    "site.driver_mem_gb=2",
    "site.poll_s=2",
    "site.canary=false",
]


Numbers = list[list[dict[str, Any]]]
"""of every fold, of every epoch, what its record says"""

LAST_WORDS = "\nMLflow: "
"""of a launch"""


class Sweep:
    """One launch command on the cluster, or on this machine."""

    def __init__(self, cluster: Cluster, runs: Path, *settings: str) -> None:
        self.cluster, self.runs, self.settings = cluster, runs, settings
        self.folder = runs / "branch_location"
        self.log = cluster.folder / "log" / f"{runs.parent.name}-{runs.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *more: str) -> list[str]:
        places = [f"runs={self.runs}", f"demo.folder={self.cluster.folder / 'data'}"]
        return [sys.executable, str(ROOT / "cluster" / "launch.py"), *SWEEP, *places, *self.settings, *more]

    def run(self, *more: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*more),
            env=self._environment(),
            cwd=self.cluster.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self) -> "Sweep":
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), env=self._environment(), cwd=self.cluster.folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        return self

    def _environment(self) -> dict[str, str]:
        return {**self.cluster.environment(), "OMP_NUM_THREADS": "1"}

    def end(self) -> None:
        """If it still runs."""
        if self.process and self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """The driver and all that it started, at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def wait(self, timeout_s: float = 150) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not within {timeout_s} s:\n{self.log.read_text()}\n{self.jobs_text()}") from None

    def finishes(self, timeout_s: float = 150) -> None:
        """Until the log of a driver that is a job has a launch's last words."""
        self.log = self.folder / "driver.log"
        self.until(lambda: self.log.exists() and LAST_WORDS in self.log.read_text(), timeout_s)

    def status(self) -> str:
        done = self.run_module("cluster.status", str(self.folder))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run_module(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words], env=self._environment(), cwd=ROOT, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def jobs_text(self) -> str:
        return "\n".join(path.read_text() for path in sorted((self.folder / "jobs").glob("*_log.out")))

    @property
    def folds(self) -> list[RunFolder]:
        return [RunFolder(path) for path in sorted(self.folder.glob("branch-*/fold_*"))]

    def ids(self) -> dict[int, str]:
        """Fold number -> job, as the broker has it."""
        kept = json.loads((self.folder / "jobs.json").read_text())
        return {job["fold"]["number"]: job["id"] for job in kept["jobs"]}

    def ids_of_all(self) -> list[str]:
        """Of every fold of every configuration that was queued."""
        path = self.folder / "jobs.json"
        return [job["id"] for job in json.loads(path.read_text())["jobs"]] if path.exists() else []

    def past(self) -> dict[int, list[str]]:
        """Fold number -> how its earlier jobs ended."""
        kept = json.loads((self.folder / "jobs.json").read_text())
        return {job["fold"]["number"]: job["past"] for job in kept["jobs"]}

    def node_of(self, fold: int) -> str:
        """Where it runs now; empty while it waits."""
        return self.cluster.job(self.ids()[fold]).get("NodeList", "").replace("(null)", "")

    def numbers(self) -> Numbers:
        """What every fold's epochs say, without their times."""
        return [[{k: v for k, v in r.items() if k not in TIMES} for r in fold.epochs()] for fold in self.folds]

    def until_epoch(self, epoch: int, fold: int = 0, timeout_s: float = 90) -> None:
        """Until that fold has so many epochs behind it (and is not at its end)."""
        self.until(lambda: len(self.folds) > fold and len(self.folds[fold].epochs()) >= epoch, timeout_s)

    def until(self, predicate: Callable[[], object], timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not predicate():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s} s:\n{self.log.read_text()}\n{self.jobs_text()}")
            time.sleep(0.1)
