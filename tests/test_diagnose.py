"""The angle between both tasks' gradients: by hand, against the joint loss's gradient, and that it changes nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl import diagnose, train
from mtl.config import BRANCHES, Config
from mtl.network import UNet
from mtl.runfolder import RunFolder
from mtl.slices import Slices, folds_of
from mtl.trainer import Trainer
from tests.test_train import TIMES, weights

CPU = torch.device("cpu")


def test_by_hand() -> None:
    seg, reg = torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0])
    against = torch.tensor([0.0, -2.0])
    made = diagnose.told({"down1": (seg, reg), "up1": (seg[:1], torch.zeros(1)), "up2": (reg, against)})
    assert made["grad_cosine_down1"] == pytest.approx(3 / 5)
    assert made["grad_norm_ratio_down1"] == pytest.approx(5 / 3)
    assert (made["grad_cosine_up1"], made["grad_norm_ratio_up1"]) == (None, 0)
    assert made["grad_cosine_up2"] == pytest.approx(-4 / 5)
    assert made["grad_cosine"] == pytest.approx((9 - 8) / (43**0.5 * 29**0.5))
    assert made["grad_norm_ratio"] == pytest.approx((29 / 43) ** 0.5)
    assert list(made)[:2] == ["grad_cosine", "grad_norm_ratio"]


@pytest.mark.parametrize("branch", BRANCHES)
def test_what_is_shared_is_what_both_losses_move(branch: str) -> None:
    network = UNet(branch, 2, size=32)
    logits, area = network(torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    told = {id(parameter) for level in network.shared().values() for parameter in level}
    parameters = list(network.parameters())
    by_seg = torch.autograd.grad(logits.sum(), parameters, retain_graph=True, allow_unused=True)
    by_area = [None] * len(parameters)
    if area is not None:
        by_area = list(torch.autograd.grad(area.sum(), parameters, allow_unused=True))
    both = {id(p) for p, s, a in zip(parameters, by_seg, by_area, strict=True) if s is not None and a is not None}
    assert told == both
    assert bool(told) == (branch != "none")


def trainer_of(config: Config, slices: Slices) -> Trainer:
    return Trainer(config, slices, folds_of(slices, 5, 0, "validation")[1], 1, CPU)


def test_both_gradients_add_up_to_the_joint_losss_and_nothing_moves(config: Config, slices: Slices) -> None:
    trainer = trainer_of(config, slices)
    batch = trainer.inputs(trainer.batches(1)[0], trainer.draws(1))
    trainer.step(*batch)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    gradients = diagnose._gradients(trainer.joint, trainer.network, batch, 1.0)
    trainer.network.load_state_dict(before)
    trainer.optimiser.zero_grad()
    trainer.joint(*batch, 1.0)[0].backward()
    trainer.network.load_state_dict(before)
    for level, (seg, reg) in gradients.items():
        whole = torch.cat([parameter.grad.reshape(-1) for parameter in trainer.network.shared()[level]])  # type: ignore[union-attr]
        assert (seg + reg - whole).norm() < 1e-5 * max(seg.norm(), reg.norm()), level
    trainer.optimiser.zero_grad()
    diagnose.conflict(trainer.joint, trainer.network, batch)
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_a_training_that_is_diagnosed_ends_with_the_same_numbers(
    config: Config, slices: Slices, tmp_path: Path
) -> None:
    plain, diagnosed = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "diagnosed")
    train.train(config, slices, 1, plain)
    train.train(replace(config, train=replace(config.train, diagnose=True)), slices, 1, diagnosed)

    def numbers(run: RunFolder) -> list[dict[str, Any]]:
        left_out = ("grad_cosine", "grad_norm_ratio")
        return [{k: v for k, v in r.items() if k not in TIMES and not k.startswith(left_out)} for r in run.epochs()]

    assert numbers(diagnosed) == numbers(plain)
    theirs = weights(plain, "last.pt")
    assert all(torch.equal(value, theirs[name]) for name, value in weights(diagnosed, "last.pt").items())
    for record in diagnosed.epochs():
        assert -1 <= record["grad_cosine"] <= 1
        assert record["grad_norm_ratio"] > 0
        levels = {name.removeprefix("grad_cosine_") for name in record if name.startswith("grad_cosine_")}
        assert levels == {"down1", "down2", "down3", "down4", "bottleneck", "up1", "up2", "up3", "up4"}


def test_the_baseline_has_no_two_tasks(config: Config, slices: Slices, tmp_path: Path) -> None:
    alone = replace(config, model=replace(config.model, branch="none"), train=replace(config.train, diagnose=True))
    record = trainer_of(alone, slices).epoch(1)
    assert not [name for name in record if name.startswith("grad_")]
