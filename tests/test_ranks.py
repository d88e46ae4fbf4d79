"""Several ranks train what one trains: same batches, same losses, same weights."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_prep import store
from mtl import data, train
from mtl.config import Config, Model, Optim
from mtl.ranks import Ranks, ranks
from mtl.runfolder import RunFolder

CHILD = """
import json
import sys
from pathlib import Path

import torch

from mtl import data, train
from mtl.config import Config, from_dict
from mtl.runfolder import RunFolder

torch.set_num_threads(1)
path, folder, text = sys.argv[1:]
config = from_dict(Config, json.loads(text))
train.train(config, data.load(Path(path), config.data_digest), 0, RunFolder(Path(folder)))
"""


def together(size: int, store_path: Path, folder: Path, config: Config) -> None:
    """Train fold 0 with so many ranks, each a process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-c", CHILD, str(store_path), str(folder), json.dumps(dataclasses.asdict(config))]
    started = []
    for rank in range(size):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        started.append(subprocess.Popen(argv, env={**os.environ, **place, **where}, stderr=subprocess.PIPE, text=True))
    try:
        errors = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * size, errors


def losses(folder: RunFolder) -> list[list[float]]:
    names = ("loss_train", "loss_seg_train", "loss_area_train", "log_sigma2_seg", "log_sigma_reg", "dice_val")
    return [[record[name] for name in names] for record in folder.epochs()]


def state(folder: RunFolder) -> dict[str, torch.Tensor]:
    found: dict[str, Any] = torch.load(folder.last, weights_only=True)
    return {**found["network"], **found["weighting"]}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_every_sample_is_taken_once_and_the_mean_over_ranks_is_the_batchs(size: int, count: int) -> None:
    batch = np.random.default_rng(0).normal(size=count)
    parts = [Ranks(rank, size).part(batch) for rank in range(size)]
    taken = np.concatenate([part for part, share in parts if share])
    assert sorted(taken) == sorted(batch)
    assert np.mean([share * part.mean() for part, share in parts]) == pytest.approx(batch.mean())
    assert all(len(part) for part, _ in parts)


def test_two_ranks_train_what_one_trains(store_path: Path, config: Config, tmp_path: Path) -> None:
    """With batches that two do not divide. GroupNorm: BatchNorm is not synchronised on CPUs. A low learning rate:
    RMSprop's first steps have the gradient's sign alone, and blow up the last digit of one that is nearly 0."""
    settings = dataclasses.replace(
        config,
        model=Model(width=2, norm="group"),
        train=dataclasses.replace(config.train, batch_size=5, epochs=2),
        optim=Optim(lr=1e-4),
    )
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    train.train(settings, data.load(store_path, store.open(store_path).digest), 0, one)
    together(2, store_path, two.path, settings)
    assert two.outcome() == "DONE"
    assert np.array(losses(two)) == pytest.approx(np.array(losses(one)), rel=1e-5)
    theirs = state(two)
    for name, value in state(one).items():
        assert torch.allclose(value, theirs[name], atol=1e-5), name


def test_ranks_that_cannot_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE is 2 and RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set"):
        ranks(torch.device("cpu")).__enter__()
