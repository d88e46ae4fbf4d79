"""Eq. (5) and the weightings."""

import math

import pytest
import torch

from mtl.config import Weighting
from mtl.loss import area_loss, joint_loss, segmentation_loss, soft_dice_loss
from mtl.weighting import make
from mtl.weighting.learned import Learned


def t(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def test_the_optimum_of_eq_5_is_sigma_reg_equal_l1_and_sigma_seg_squared_equal_2_l2() -> None:
    l2, l1 = 0.0101, 206.0
    s_seg, s_reg = t(math.log(2 * l2)), t(math.log(l1))
    joint_loss(t(l2), t(l1), s_seg, s_reg).backward()
    assert s_seg.grad is not None
    assert s_reg.grad is not None
    assert s_seg.grad.item() == pytest.approx(0, abs=1e-12)
    assert s_reg.grad.item() == pytest.approx(0, abs=1e-12)


def test_the_papers_figures_follow_from_it() -> None:
    assert math.log(2 * 0.0101) == pytest.approx(-3.9, abs=0.005)
    ratio = torch.exp(-t(-3.9)) / torch.exp(-t(3.45))
    assert ratio.item() == pytest.approx(1556, abs=1)


def test_gradients_of_both_s() -> None:
    s_seg, s_reg = t(-1.0), t(2.0)
    joint_loss(t(0.3), t(50.0), s_seg, s_reg).backward()
    assert s_seg.grad is not None
    assert s_reg.grad is not None
    assert s_seg.grad.item() == pytest.approx(-math.exp(1.0) * 0.3 + 0.5)
    assert s_reg.grad.item() == pytest.approx(-math.exp(-2.0) * 50 + 1)


def test_descent_on_s_finds_the_optimum() -> None:
    weighting = Learned([0.0], ["myocardium"])
    optimiser = torch.optim.Adam(weighting.parameters(), lr=0.05)
    for _ in range(2000):
        optimiser.zero_grad()
        weighting.total(torch.tensor(0.0101), torch.tensor(206.0)).backward()
        optimiser.step()
    state = weighting.state()
    assert state["log_sigma2_seg"] == pytest.approx(math.log(2 * 0.0101), abs=0.01)
    assert state["log_sigma_reg"] == pytest.approx(math.log(206.0), abs=0.01)


def test_learned_weights_start_at_one_in_predicted_units() -> None:
    state = make(Weighting(), area_scale_mm2=[400.0]).state()
    assert (state["log_sigma2_seg"], state["weight_seg"]) == (0, 1)
    assert state["log_sigma_reg"] == pytest.approx(math.log(400))
    assert state["weight_reg"] == pytest.approx(1 / 400)


def test_learned_weights_may_start_at_the_first_batchs_optimum() -> None:
    weighting = make(Weighting(init="data"), area_scale_mm2=[400.0])
    seg, reg = torch.tensor(0.0101), torch.tensor(206.0)
    weighting.start(seg, reg)
    weighting.total(seg, reg).backward()
    assert all(p.grad is not None and abs(p.grad.item()) < 1e-6 for p in weighting.parameters())
    assert weighting.state()["log_sigma2_seg"] == pytest.approx(-3.9, abs=0.005)
    stays = make(Weighting(init="zero"), area_scale_mm2=[400.0])
    stays.start(seg, reg)
    assert stays.state()["log_sigma2_seg"] == 0


def test_the_baseline_descends_on_the_segmentation_alone() -> None:
    weighting = make(Weighting(), area_scale_mm2=None)
    assert weighting.total(torch.tensor(0.5), torch.tensor(math.nan)).item() == 0.5
    assert weighting.state() == {
        "log_sigma2_seg": None, "log_sigma_reg": None, "weight_seg": 1.0, "weight_reg": None
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "total"), [("fixed", 0.5 + 300 / 1556), ("equal", 300.5)])
def test_fixed_and_equal_weights(kind: str, total: float) -> None:
    weighting = make(Weighting(kind=kind), area_scale_mm2=[400.0])
    assert weighting.total(torch.tensor(0.5), torch.tensor(300.0)).item() == pytest.approx(total)
    assert list(weighting.parameters()) == []
    state = weighting.state()
    assert (state["log_sigma2_seg"], state["log_sigma_reg"], state["weight_seg"]) == (None, None, 1)
    assert state["weight_reg"] == pytest.approx(1 / 1556 if kind == "fixed" else 1)


def test_segmentation_loss_by_hand() -> None:
    logits = torch.tensor([[[[0.0, math.log(3)]]]])
    expected = (math.log(2) + math.log(4)) / 2  # p = 1/2 and 3/4 of a pixel that is background
    assert segmentation_loss(logits, torch.zeros(1, 1, 1, 2)).item() == pytest.approx(expected)


def test_with_several_classes_it_is_a_softmax() -> None:
    logits = torch.tensor([0.0, math.log(2), math.log(5)]).reshape(1, 3, 1, 1).expand(1, 3, 1, 3)
    mask = torch.tensor([[[[0.0, 1.0, 2.0]]]])
    expected = sum(math.log(8 / odds) for odds in (1, 2, 5)) / 3
    assert segmentation_loss(logits, mask).item() == pytest.approx(expected)


def test_for_one_structure_softmax_and_sigmoid_are_the_same_likelihood() -> None:
    logits, mask = torch.randn(2, 1, 5, 5), (torch.rand(2, 1, 5, 5) > 0.5).float()
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    assert segmentation_loss(both, mask).item() == pytest.approx(segmentation_loss(logits, mask).item(), rel=1e-5)


def test_area_loss_by_hand() -> None:
    assert area_loss(torch.tensor([[100.0], [50.0]]), torch.tensor([[90.0], [80.0]])).item() == 20


# The soft Dice loss, which is outside eq. (5).


def logits_of(probability: torch.Tensor) -> torch.Tensor:
    return torch.log(probability / (1 - probability))


def test_the_soft_dice_loss_by_hand() -> None:
    probability = torch.tensor([[[[0.8, 0.6], [0.2, 0.4]]]], dtype=torch.float64)
    mask = torch.tensor([[[[1, 1], [0, 0]]]])
    assert soft_dice_loss(logits_of(probability), mask).item() == pytest.approx(1 - (2 * 1.4 + 1) / (2 + 2 + 1))
    empty = torch.full((1, 1, 2, 2), -50.0)
    assert soft_dice_loss(empty, torch.zeros(1, 1, 2, 2)).item() == pytest.approx(0, abs=1e-12)


def test_of_several_structures_it_is_the_mean_and_background_counts_for_nothing() -> None:
    mask = torch.tensor([[[[0, 1], [2, 1]]]])
    sure = 50.0 * torch.nn.functional.one_hot(mask[:, 0], 3).permute(0, 3, 1, 2).double()
    assert soft_dice_loss(sure, mask).item() == pytest.approx(0, abs=1e-12)
    as_one = 50.0 * torch.nn.functional.one_hot(torch.ones_like(mask[:, 0]), 3).permute(0, 3, 1, 2).double()
    assert soft_dice_loss(as_one, mask).item() == pytest.approx(((1 - 5 / 7) + (1 - 1 / 2)) / 2)


def test_a_batchs_soft_dice_loss_is_the_mean_of_its_slices() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 1, 4, 4, generator=generator)
    mask = torch.randint(0, 2, (5, 1, 4, 4), generator=generator)
    each = [soft_dice_loss(logits[k : k + 1], mask[k : k + 1]) for k in range(5)]
    torch.testing.assert_close(soft_dice_loss(logits, mask), torch.stack(each).mean())
