"""Several ranks train what one trains: same batches, same losses, same weights; none outlives another."""

import dataclasses
import itertools
import multiprocessing
import os
import signal
import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from cluster import worker
from cluster.worker import FoldJob
from data_prep import store
from mtl import data, train
from mtl.config import Config, Model, Optim, Train
from mtl.ranks import LostRank, Ranks, _gone, ranks
from mtl.runfolder import RunFolder
from mtl.trainer import Trainer

SERVER = multiprocessing.get_context("forkserver")  # imports torch once; each rank is a process of its own
SERVER.set_forkserver_preload(["cluster.worker", "mtl.train", "mtl.data"])
SOON_S = 20
"""by far less than ranks.PATIENCE"""

Fate = tuple[int, int, str]
"""a rank, one of its steps, and what happens to it before it"""


def raised(job: FoldJob, rank: int) -> Path:
    """Holds the name of what a rank raised."""
    return Path(job.folder).with_suffix(f".rank{rank}")


def rank_of(place: dict[str, str], job: FoldJob, fate: Fate | None) -> None:
    """A rank's process: worker.run_fold, up to its fate."""
    os.environ |= place
    step, steps = Trainer.step, itertools.count(1)

    def fatal(self: Trainer, *args: Any) -> Any:
        if fate and (int(place["RANK"]), next(steps)) == fate[:2]:
            if fate[2] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, *args)

    Trainer.step = fatal  # type: ignore[method-assign]
    try:
        worker.run_fold(job)
    except Exception as error:
        raised(job, int(place["RANK"])).write_text(type(error).__name__)
        raise


def start(size: int, job: FoldJob, fate: Fate | None = None) -> list[BaseProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    started = []
    for rank in range(size):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), **where}
        started.append(SERVER.Process(target=rank_of, args=(place, job, fate)))
        started[-1].start()
    return started


def together(size: int, job: FoldJob, fate: Fate | None = None) -> list[int | None]:
    """Train the fold with so many ranks, each a process; their exit codes."""
    started = start(size, job, fate)
    try:
        if fate:  # the others are to notice it by themselves
            started[fate[0]].join(120)
        deadline = time.monotonic() + (SOON_S if fate else 120)
        for process in started:
            process.join(max(0, deadline - time.monotonic()))
        return [process.exitcode for process in started]
    finally:
        for process in started:
            process.kill()


def losses(folder: RunFolder) -> list[list[float]]:
    names = ("loss_train", "loss_seg_train", "loss_area_train", "log_sigma2_seg", "log_sigma_reg", "dice_val")
    return [[record[name] for name in names] for record in folder.epochs()]


def state(folder: RunFolder) -> dict[str, torch.Tensor]:
    found: dict[str, Any] = torch.load(folder.last, weights_only=True)
    return {**found["network"], **found["weighting"]}


@pytest.fixture(scope="module")
def settings(store_path: Path) -> Config:
    """With batches that two do not divide. GroupNorm: BatchNorm is not synchronised on CPUs. A low learning rate:
    RMSprop's first steps have the gradient's sign alone, and blow up the last digit of one that is nearly 0."""
    return Config(
        data_digest=store.open(store_path).digest,
        model=Model(width=2, norm="group"),
        train=Train(epochs=2, batch_size=5, device="cpu"),
        optim=Optim(lr=1e-4),
    )


@pytest.fixture(scope="module")
def one(settings: Config, store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Fold 0, trained by this process."""
    folder = RunFolder(tmp_path_factory.mktemp("one") / "run")
    train.train(settings, data.load(store_path, settings.data_digest), 0, folder)
    return folder


def job_of(settings: Config, store_path: Path, folder: Path, **more: Any) -> FoldJob:
    return FoldJob(dataclasses.asdict(settings), str(store_path), str(folder), 0, **more)


@pytest.fixture(scope="module")
def two(settings: Config, store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Fold 0, trained by two ranks that nobody disturbs."""
    folder = RunFolder(tmp_path_factory.mktemp("two") / "run")
    assert together(2, job_of(settings, store_path, folder.path)) == [0, 0]
    return folder


def assert_alike(ours: RunFolder, theirs: RunFolder) -> None:
    assert ours.outcome() == "DONE"
    assert np.array(losses(ours)) == pytest.approx(np.array(losses(theirs)), rel=1e-5)
    weights = state(theirs)
    for name, value in state(ours).items():
        assert torch.allclose(value, weights[name], atol=1e-5), name


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_every_sample_is_taken_once_and_the_mean_over_ranks_is_the_batchs(size: int, count: int) -> None:
    batch = np.random.default_rng(0).normal(size=count)
    parts = [Ranks(rank, size).part(batch) for rank in range(size)]
    taken = np.concatenate([part for part, share in parts if share])
    assert sorted(taken) == sorted(batch)
    assert np.mean([share * part.mean() for part, share in parts]) == pytest.approx(batch.mean())
    assert all(len(part) for part, _ in parts)


def test_two_ranks_train_what_one_trains(one: RunFolder, two: RunFolder) -> None:
    assert_alike(two, one)


def mean_gradients(folder: RunFolder) -> list[torch.Tensor]:
    """Of every parameter, their root mean square over the steps so far, as RMSprop keeps it."""
    kept = torch.load(folder.last, weights_only=True)["optimiser"]["state"]
    return [kept[n]["square_avg"].sqrt() for n in sorted(kept)]


def test_two_ranks_in_micro_batches_descend_on_what_one_does(
    settings: Config, store_path: Path, tmp_path: Path
) -> None:
    """In thirds, of which the rank with two samples of a batch has none for one. The weights stay nearly where they
    are: a sample by itself may be pooled by another pixel of the same grey, and RMSprop makes steps of that."""
    still = dataclasses.replace(settings, train=dataclasses.replace(settings.train, epochs=1), optim=Optim(lr=1e-6))
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    train.train(still, data.load(store_path, settings.data_digest), 0, one)
    assert together(2, job_of(still, store_path, two.path, micro_batches=3)) == [0, 0]
    assert np.array(losses(two)) == pytest.approx(np.array(losses(one)), rel=1e-5)
    for ours, theirs in zip(mean_gradients(two), mean_gradients(one), strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()
    assert two.facts()["micro_batches"] == 3


def test_killed_in_the_middle_of_an_epoch_both_end_and_go_on_to_the_same_numbers(
    two: RunFolder, settings: Config, store_path: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    job = job_of(settings, store_path, folder.path, checkpoint_minutes=0.0)
    for killed, step, kept in ((1, 5, (1, 4)), (0, 10, (2, 2))):  # of eleven batches an epoch
        codes = together(2, job, (killed, step, "killed"))
        assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, 1)
        assert raised(job, 1 - killed).read_text() == "LostRank"
        assert folder.outcome() is None
        within = torch.load(folder.last)["within"]
        assert (within["epoch"], within["batches"]) == kept
    assert together(2, job) == [0, 0]
    assert losses(folder) == losses(two)
    weights = state(two)
    assert all(torch.equal(value, weights[name]) for name, value in state(folder).items())


def test_the_failure_of_one_is_told_and_not_that_the_others_lost_it(
    settings: Config, store_path: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    assert together(2, job_of(settings, store_path, folder.path), (1, 3, "out of memory")) == [1, 1]
    assert folder.facts()["failure"] == "memory"
    assert folder.reason().startswith("OutOfMemory: epoch 1: out of memory: give a smaller train.batch_size")


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (dist.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (dist.DistNetworkError("The client socket has timed out after 4000ms"), True),
        (dist.DistStoreError("Timed out after 5 seconds waiting for clients. 1/2 clients joined."), True),
        (RuntimeError("[a/gloo/transport/tcp/pair.cc:537] Read error [::1]:1: Connection reset by peer"), True),
        (RuntimeError("[a/gloo/transport/tcp/unbound_buffer.cc:88] Timed out waiting 4000ms for recv"), True),
        (RuntimeError("[a/gloo/transport/tcp/device.cc:84] Unable to find address for: eth7"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (ConnectionResetError("Connection reset by peer"), False),
    ],
)
def test_only_what_says_so_is_a_lost_rank(error: Exception, gone: bool) -> None:
    assert _gone(error) == gone
    assert LostRank.failure == "lost"


def test_ranks_that_cannot_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE is 2 and RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set"):
        ranks(torch.device("cpu")).__enter__()
