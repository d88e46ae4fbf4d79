"""What a whole sweep asks of Slurm, and what it leaves behind: ten configurations of five folds, counted."""

import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest

from tests.slurm.sweeping import JOBS, LAST_WORDS, Sweep
from tests.slurm.testbed import Cluster

pytestmark = pytest.mark.timeout(600)  # two cores train what a cluster would
CLIENTS = ("sbatch", "squeue", "sinfo", "sacct", "scontrol", "scancel", "srun", "sacctmgr")
MARK = "BRANCHPOINT_COUNTED"
SPACE = """
question: How fast should it learn?
space:
  optim.lr: [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01]
"""
SMALL = ["train.folds=5", "train.epochs=1", "train.augment_copies=0", "site.poll_s=60", "site.driver_mem_gb=3.5"]


class Counted(Sweep):
    """Every client command that it or its jobs call is written down, with the time."""

    def __init__(self, cluster: Cluster, runs: Path) -> None:
        super().__init__(cluster, runs, *JOBS, *SMALL, "site.canary=true", "site.comment=a test")
        self.calls = runs.with_suffix(".calls")
        self.clients = runs.parent / "bin"
        self.clients.mkdir()
        for name in CLIENTS:
            script = f'#!/bin/sh\necho "$(date +%s) {name} $*" >>"{self.calls}"\nexec {shutil.which(name)} "$@"\n'
            (self.clients / name).write_text(script)
            (self.clients / name).chmod(0o755)
        (runs.parent / "rates.yaml").write_text(SPACE)
        self.folder = runs / "rates"

    def command(self, *more: str) -> list[str]:
        words = super().command(*more)
        return [f"sweep={self.runs.parent / 'rates.yaml'}" if word.startswith("sweep=") else word for word in words]

    def _environment(self) -> dict[str, str]:
        inherited = super()._environment()
        return {**inherited, MARK: "1", "PATH": f"{self.clients}:{inherited['PATH']}"}

    def called(self, name: str) -> list[tuple[int, str]]:
        """When, and with what."""
        lines = [line.split(" ", 2) for line in self.calls.read_text().splitlines()]
        return [(int(at), rest) for at, command, rest in lines if command == name]


def here() -> list[str]:
    """Command lines of marked processes of this machine: those of the nodes have a process table of their own."""
    mine, found = os.readlink("/proc/self/ns/pid"), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "ns" / "pid") == mine and MARK.encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def largest_mb(words: str) -> float:
    """Resident memory of its own (anonymous pages) of the largest process whose command line holds these words."""
    sizes = [0.0]
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if words in (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                lines = dict(line.split(":", 1) for line in (path / "status").read_text().splitlines() if ":" in line)
                sizes.append(int(lines["RssAnon"].split()[0]) / 1024)
        except (OSError, KeyError):
            continue
    return max(sizes)


def test_ten_configurations_of_five_folds(cluster: Cluster, tmp_path: Path, restored: None) -> None:
    sweep = Counted(cluster, tmp_path / "runs")
    begin = time.time()
    queued = sweep.run()
    assert queued.returncode == 0, queued.stderr
    assert here() == []  # nothing stays on the login node
    driver = queued.stdout.split("driver: job ")[1].split()[0]
    sweep.log = sweep.folder / "driver.log"
    sweep.until(lambda: len(sweep.ids_of_all()) > 5, 120)
    job = cluster.job(sorted(sweep.ids_of_all())[-1])
    assert job["JobName"].startswith("bp-rates-lr-0.")
    assert job["Comment"] == "branchpoint"  # its first word; the rest in the next line
    comment = cluster.run_client(["scontrol", "show", "job", driver]).stdout
    assert "Comment=branchpoint sweep=rates driver owner=root a test" in comment
    trial_mb = driver_mb = 0.0
    while LAST_WORDS not in sweep.log.read_text():
        trial_mb, driver_mb = max(trial_mb, largest_mb("ray::")), max(driver_mb, largest_mb("cluster/launch.py @"))
        assert time.time() - begin < 400, sweep.log.read_text() + sweep.jobs_text()
        time.sleep(1)
    minutes = (time.time() - begin) / 60
    print(f"trial {trial_mb:.0f} MB, driver {driver_mb:.0f} MB, {minutes:.1f} min")
    assert 10 < trial_mb < 150
    assert 10 < driver_mb < 1000

    submitted = [words for _, words in sweep.called("sbatch") if "--test-only" not in words]
    assert len(submitted) == 12  # the driver, the canary, one for each configuration
    asked = [at for at, _ in sweep.called("squeue")]
    assert len(asked) <= minutes + 4
    assert not [words for name in ("scontrol", "scancel", "sacctmgr") for _, words in sweep.called(name)]
    assert len(sweep.called("sacct")) <= minutes + 1
    assert len(sweep.called("srun")) == 50

    left = {path.name for path in (sweep.folder / "jobs").iterdir()}
    assert left == {"logs.zip"}
    with zipfile.ZipFile(sweep.folder / "jobs" / "logs.zip") as packed:
        assert len(packed.namelist()) == 50
    assert not [path for path in sweep.folder.rglob("*") if path.stat().st_mode & 0o077]
