"""Rotation and translation of a batch."""

import math

import numpy as np
import pytest
import torch

from mtl import augment
from mtl.placed import Placed
from mtl.slices import Slices

CPU = torch.device("cpu")


def image(n: int = 8) -> torch.Tensor:
    return torch.arange(float(n * n)).reshape(1, 1, n, n)


def apply(x: torch.Tensor, angle: float = 0, dx: float = 0, dy: float = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return augment.apply(x, x, torch.tensor([[angle, dx, dy]]))


def test_no_movement_changes_nothing() -> None:
    moved, mask = apply(image())
    assert torch.allclose(moved, image(), atol=1e-4)
    assert torch.equal(mask, image())


def test_a_quarter_turn_is_rot90_clockwise_on_the_screen() -> None:
    """Positive angles turn x (right) towards y (down)."""
    moved, mask = apply(image(), math.pi / 2)
    assert torch.allclose(moved, torch.rot90(image(), -1, (2, 3)), atol=1e-3)
    assert torch.equal(mask, torch.rot90(image(), -1, (2, 3)))


def test_shifts_are_in_image_sizes_right_and_down() -> None:
    moved, mask = apply(image(), dx=0.25)
    expected = torch.zeros(1, 1, 8, 8)
    expected[..., 2:] = image()[..., :-2]
    assert torch.equal(mask, expected)
    assert torch.allclose(moved, expected, atol=1e-3)
    expected = torch.zeros(1, 1, 8, 8)
    expected[..., 4:, :] = image()[..., :-4, :]
    assert torch.equal(apply(image(), dy=0.5)[1], expected)


def test_rotation_comes_before_the_shift() -> None:
    """A point right of the centre, turned a quarter, lies below it; then it moves right."""
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 6] = 1
    _, mask = apply(x, math.pi / 2, dx=0.25)
    assert mask.nonzero()[0, 2:].tolist() == [6, 5]


def test_a_ring_keeps_its_area_under_rotation_of_a_non_square_image() -> None:
    y, x = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(96.0) - 47.5, indexing="ij")
    ring = ((x.hypot(y) <= 20) & (x.hypot(y) > 12)).float()[None, None]
    _, turned = apply(ring, 0.7)
    assert turned.sum().item() == pytest.approx(ring.sum().item(), rel=0.02)
    assert (turned != ring).float().mean() < 0.05


def test_the_mask_follows_the_image_and_stays_binary() -> None:
    binary = (image(32) % 5 < 2).float()
    _, mask = apply(binary, 1.1, 0.2, -0.1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_draws_depend_on_seed_epoch_slice_and_copy_alone() -> None:
    first = augment.draws(3, 5, 10, 2, 180, 0.5)
    assert first.shape == (10, 3, 3)
    assert (first[:, 0] == 0).all()  # the image itself
    assert np.array_equal(augment.draws(3, 5, 7, 2, 180, 0.5), first[:7])
    assert not np.array_equal(augment.draws(3, 6, 10, 2, 180, 0.5), first)
    assert not np.array_equal(augment.draws(4, 5, 10, 2, 180, 0.5), first)
    assert len(np.unique(first[:, 1:])) == 60


def test_draws_fill_their_range_and_no_more() -> None:
    drawn = augment.draws(0, 1, 4000, 2, 90, 0.5)[:, 1:]
    assert np.abs(drawn[..., 0]).max() == pytest.approx(math.pi / 2, rel=0.01)
    assert np.abs(drawn[..., 1:]).max() == pytest.approx(0.5, rel=0.01)
    assert (np.abs(drawn).max(axis=(0, 1)) <= [math.pi / 2, 0.5, 0.5]).all()
    assert abs(drawn.mean()) < 0.02


def of(images: list[torch.Tensor], phases: list[int]) -> Slices:
    """Slices of one patient, each at its phase."""
    image_NYX = torch.cat(images).to(torch.int16).numpy()
    count = len(image_NYX)
    return Slices(
        image_NYX,
        np.zeros(image_NYX.shape, np.uint8),
        np.zeros(count, int),
        np.array(phases),
        np.arange(count),
        ("A",),
        ("A",),
        ("",),
        ((None, None),),
        ((8, count),),
        (8.0,),
        (1.0, 1.0),
    )


def test_normalised_by_slice_every_slice_is_alike_and_a_constant_one_is_zero() -> None:
    slices = of([image()[0], 5 * image()[0] + 100, torch.full((1, 8, 8), 7.0)], [0, 0, 0])
    y = augment.images(Placed(slices, CPU), np.array([0, 1, 2]), "slice")
    assert torch.allclose(y[0], y[1], atol=1e-5)
    assert y[0].mean().item() == pytest.approx(0, abs=1e-6)
    assert y[0].std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert (y[2] == 0).all()


def test_normalised_by_volume_its_slices_keep_their_contrast() -> None:
    slices = of([image()[0], 3 * image()[0], image()[0] + 500], [4, 4, 7])
    y = augment.images(Placed(slices, CPU), np.array([2, 0, 1]), "volume")
    assert y[1:].mean().item() == pytest.approx(0, abs=1e-5)
    assert y[1:].std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert (y[2].std() / y[1].std()).item() == pytest.approx(3, rel=1e-5)
    assert y[0].mean().item() == pytest.approx(0, abs=1e-4)
    alone = augment.images(Placed(slices, CPU), np.array([1]), "volume")
    assert torch.equal(alone[0], y[2])  # whatever else is in the batch
