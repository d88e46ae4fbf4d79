"""What is found before anything is queued, and what a plan shows; Slurm's client is a script that a test writes."""

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluster import plan, policy
from cluster.folds import Configuration
from cluster.policy import Limit, Policy
from cluster.settings import Settings
from cluster.task import Task
from data_prep import store
from data_prep.files import make_private
from mtl.config import Config
from tests.pretended import SITE


@pytest.fixture
def task(tmp_path: Path, store_path: Path, config: Config) -> Task:
    one = Configuration("branch-up4-1", {}, asdict(config), make_private(tmp_path / "runs" / "s" / "branch-up4-1"))
    return Task(Settings(site=SITE), "s", one.folder.parent, [one], store.open(store_path))


def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    make_private(tmp_path / "bin")
    for name in ("sbatch", "squeue", "srun"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def test_no_slurm_here_is_one_line(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"^site=slurm: no Slurm on this machine \(sbatch is not found\)"):
        plan.check(task)


def test_a_refusal_by_slurm_says_what_was_asked_for(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(tmp_path, monkeypatch, "echo 'sbatch: error: Invalid partition name specified' >&2; exit 1")
    with pytest.raises(ValueError) as caught:
        plan.check(task)
    assert str(caught.value).startswith("Slurm would never run the folds' jobs: sbatch: Invalid partition name")
    assert "(partition=None, account=None, nodes=1, " in str(caught.value)
    assert not (task.folder / ".plan.sh").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_somebody_elses_folder_is_refused(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(tmp_path, monkeypatch, "exit 0")
    os.chown(task.folder, 65534, -1)
    with pytest.raises(ValueError, match=r" belongs to nobody: give runs= with a folder of your own$"):
        plan.check(task)


def test_the_plan_shows_every_script_with_slurms_answer_and_what_limits_cut(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(tmp_path, monkeypatch, "echo 'sbatch: Job 7 to start at noon' >&2")
    limits = Policy({"max_time_min": Limit(60, "/etc/p.yaml")})
    site, cuts = policy.applied(limits, task.site, folds=5)
    told = plan.text(replace(task, settings=replace(task.settings, site=site), policy=limits, cuts=cuts))
    assert told.startswith("5 folds to train, at most 5.0 hours of CPU jobs (the time limit of 60 minutes for each")
    assert "will be written: about 60 files, 3 MB, in " in told
    assert "  branch-up4-1: folds 0, 1, 2, 3, 4" in told
    assert "  max_time_min: 60 (/etc/p.yaml)" in told
    assert "  cut: site.time_min: 60 instead of 240 (max_time_min=60 of /etc/p.yaml)" in told
    for name in ("branch-up4-1 (the others", "the canary, which goes first", "the driver"):
        assert f"sbatch text of {name}" in told or f"sbatch text of the folds of {name}" in told
    assert told.count("Slurm says: Job 7 to start at noon") == 3
    assert "#SBATCH --time=60" in told


def test_a_whole_nodes_plan_is_one_script(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(tmp_path, monkeypatch, "echo 'sbatch: Job 7 to start at noon' >&2")
    told = plan.text(replace(task, settings=replace(task.settings, site=replace(SITE, kind="node"))))
    assert told.count("#!/bin/bash") == 1
    assert "#SBATCH --exclusive" in told
