"""What goes wrong with a fold is told apart, and what follows from it."""

import dataclasses
import errno
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster import failures, worker
from cluster.failures import End
from cluster.worker import FoldJob
from data_prep import files
from mtl import joint, network, train
from mtl.config import Config
from mtl.ranks import LostRank
from mtl.runfolder import RunFolder
from mtl.trainer import Diverged


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (Diverged("loss nan"), failures.DIVERGED),
        (train.OutOfMemory("epoch 1: out of memory"), failures.MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), failures.MEMORY),
        (MemoryError(), failures.MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), failures.DISK),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), failures.DISK),
        (LostRank("another rank is gone"), failures.LOST),
        (OSError(errno.EACCES, "Permission denied"), failures.CODE),
        (ValueError("data: of another digest"), failures.CODE),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), failures.CODE),
    ],
)
def test_every_error_of_a_fold_is_one_failure(error: Exception, failure: str) -> None:
    assert failures.of(error) == failure
    assert failure in failures.OF_FOLDS


def test_numpys_own_error_of_memory_is_one() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(2**62, np.uint8)
    assert failures.of(caught.value) == failures.MEMORY


def test_a_foreign_attribute_is_no_failure() -> None:
    error = ValueError("wrong")
    error.failure = "of another library"  # type: ignore[attr-defined]
    assert failures.of(error) == failures.CODE


def test_every_failure_has_its_row() -> None:
    rows = [line.split("|")[1] for line in (failures.__doc__ or "").splitlines() if line.startswith("| ")][2:]
    told = [name.strip() for row in rows for name in row.split(",")]
    assert sorted(told) == sorted([*failures.OF_FOLDS, *failures.OF_SLURM])


def test_it_needs_no_torch() -> None:
    code = "import sys; from cluster import failures; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Left as it was: a fold's process sets it for all that it makes."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def job_of(config: Config, store_path: Path, folder: Path) -> FoldJob:
    return FoldJob(dataclasses.asdict(config), str(store_path), str(folder), 1)


def failed(job: FoldJob) -> dict[str, Any]:
    """What FAILED says of it."""
    worker.run_fold(job)
    folder = RunFolder(Path(job.folder))
    assert folder.outcome() == "FAILED"
    return folder.facts()


def test_a_fold_that_diverges_says_so(
    config: Config, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "area_loss", lambda area, true: (area - true).mean() * float("inf"))
    facts = failed(job_of(config, store_path, tmp_path / "run"))
    assert facts["failure"] == "diverged"
    assert facts["reason"].startswith("Diverged: epoch 1, batch 1: loss ")
    assert "in epoch" in facts["traceback"]


def test_a_fold_without_memory_says_so(
    config: Config, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(network.UNet, "forward", short)
    facts = failed(job_of(config, store_path, tmp_path / "run"))
    assert facts["failure"] == "memory"
    assert facts["reason"].startswith("OutOfMemory: epoch 1: out of memory in half batches too: give a smaller")


def test_a_fold_without_its_data_says_so(config: Config, tmp_path: Path) -> None:
    facts = failed(job_of(config, tmp_path / "nowhere", tmp_path / "run"))
    assert facts["failure"] == "code"
    assert "nowhere" in facts["reason"]


def test_a_fold_whose_disk_stays_full_says_so(
    config: Config, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"  # large enough for words, too small for a network
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64K", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk to fill it")
    try:
        monkeypatch.setattr(train, "patiently", functools.partial(files.patiently, wait_s=0.1, every_s=0.01))
        facts = failed(job_of(config, store_path, disk / "run"))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert facts["failure"] == "disk"
    assert facts["reason"] == f"OSError: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"


def test_what_a_job_asks_for_reaches_the_training(
    config: Config, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    write = train.checkpoint.save

    def saved(path: Path, state: dict[str, Any], *others: Any) -> None:
        kept.append("within" in state)
        write(path, state, *others)

    monkeypatch.setattr(train.checkpoint, "save", saved)
    short = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1))
    job = dataclasses.replace(job_of(short, store_path, tmp_path / "run"), micro_batches=2, checkpoint_minutes=0.0)
    worker.run_fold(job)
    assert RunFolder(tmp_path / "run").facts()["micro_batches"] == 2
    assert sum(kept) == 14  # after every batch


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        ("TIMEOUT", "time"),
        ("DEADLINE", "time"),
        ("PREEMPTED", "preempted"),
        ("NODE_FAIL", "node"),
        ("BOOT_FAIL", "node"),
        ("OUT_OF_MEMORY", "memory"),
        ("CANCELLED", "cancelled"),
        ("FAILED", "killed"),
        ("COMPLETED", "killed"),
        ("RUNNING", "killed"),
    ],
)
def test_every_state_of_a_silent_job_is_one_failure(state: str, failure: str) -> None:
    assert failures.of_state(state) == failure


@pytest.mark.parametrize("state", ["TIMEOUT", "PREEMPTED", "NODE_FAIL", "RUNNING", "PENDING"])
def test_what_slurm_did_is_tried_again_so_often(state: str) -> None:
    assert failures.verdict(End(state, queued=3, epochs=0, micro_batches=1), requeues=3) is None
    why = failures.verdict(End(state, queued=4, epochs=9, micro_batches=1), requeues=3)
    assert why == f"ended as {state} after being queued 4 times"


def test_a_killed_fold_is_tried_again_once_and_while_it_makes_progress() -> None:
    assert failures.verdict(End("FAILED", queued=1, epochs=0, micro_batches=1), requeues=3) is None
    assert failures.verdict(End("FAILED", queued=9, epochs=1, micro_batches=1), requeues=3) is None
    assert failures.verdict(End("FAILED", queued=2, epochs=0, micro_batches=1), requeues=3) == "ended as FAILED"


def test_too_little_memory_is_tried_again_in_half_batches_and_then_told_what_to_do() -> None:
    assert failures.verdict(End("OUT_OF_MEMORY", queued=1, epochs=0, micro_batches=1), requeues=0) is None
    why = failures.verdict(End("OUT_OF_MEMORY", queued=2, epochs=5, micro_batches=2), requeues=3)
    assert why is not None
    assert why.startswith("ended as OUT_OF_MEMORY in half batches too: give more site.mem_gb")


def test_what_somebody_took_out_of_the_queue_is_not_put_back() -> None:
    assert failures.verdict(End("CANCELLED", queued=1, epochs=5, micro_batches=1), requeues=3) == "ended as CANCELLED"
