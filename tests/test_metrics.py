"""Distances by hand, against MONAI and SimpleITK, and what has none."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist

from mtl import metrics

Case = tuple[np.ndarray, np.ndarray, tuple[float, ...]]
SPACING_MM = (3.0, 2.0, 1.0)


def box(*sides: tuple[int, int], shape: tuple[int, ...] = (8, 8, 8)) -> np.ndarray:
    """True from begin to end (left out) along z, y and x."""
    volume = np.zeros(shape, bool)
    volume[tuple(slice(*side) for side in sides)] = True
    return volume


def cases(count: int, seed: int) -> Iterator[Case]:
    """Noise, blobs, single voxels and boxes, many at the volume's edge, in volumes of one slice and more."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        shape = (1 if number % 5 == 0 else int(rng.integers(2, 9)), *(int(n) for n in rng.integers(1, 16, 2)))
        masks = [_mask(rng, ("noise", "blob", "voxel", "box")[rng.integers(4)], shape) for _ in range(2)]
        if number % 3 == 0:
            masks[1] = masks[0] ^ (rng.random(shape) < 0.1)  # much in common, as of a good prediction
        for mask in masks:
            mask[tuple(rng.integers(shape))] = True
        yield masks[0], masks[1], tuple(float(step) for step in rng.uniform(0.3, 9, 3))


def _mask(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "noise":
        return np.asarray(rng.random(shape) < rng.uniform(0.05, 0.95))
    if kind == "blob":
        return np.asarray(ndimage.gaussian_filter(rng.random(shape), 1.5) > 0.5)
    if kind == "voxel":
        return np.zeros(shape, bool)
    ends = [sorted(rng.integers(0, n + 1, 2)) for n in shape]
    return box(*((int(begin), int(end)) for begin, end in ends), shape=shape)


@pytest.fixture(scope="module")
def monai() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries for GPUs that are not installed
        import monai.metrics

        return monai.metrics


def from_the_definition(truth: np.ndarray, prediction: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Every distance between the two borders, both ways."""
    places = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing_mm for mask in (truth, prediction)]
    apart_mm = cdist(*places)
    return np.concatenate([apart_mm.min(axis=0), apart_mm.min(axis=1)])


def test_borders_are_as_far_apart_as_the_definition_says() -> None:
    for truth, prediction, spacing_mm in cases(300, seed=0):
        made = metrics.volume_metrics(truth, prediction, spacing_mm)
        apart_mm = from_the_definition(truth, prediction, spacing_mm)
        assert made["msd_mm"] == pytest.approx(apart_mm.mean(), rel=1e-9)
        assert made["hd_mm"] == pytest.approx(apart_mm.max(), rel=1e-9)
        both = [pair for pair in zip(truth, prediction, strict=True) if pair[0].any() and pair[1].any()]
        slices_mm = [from_the_definition(*pair, spacing_mm[1:]).mean() for pair in both]
        expected_mm = np.mean(slices_mm) if both else math.nan
        assert made["msd_slice_mm"] == pytest.approx(expected_mm, rel=1e-9, nan_ok=True)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI passes it to itself
def test_monai_finds_the_same(monai: Any) -> None:
    for truth, prediction, spacing_mm in cases(200, seed=1):
        made = metrics.volume_metrics(truth, prediction, spacing_mm)
        masks, both_Z = (prediction, truth), truth.any(axis=(1, 2)) & prediction.any(axis=(1, 2))
        pair = [torch.from_numpy(mask)[None, None] for mask in masks]
        both = [torch.from_numpy(mask[both_Z])[:, None] for mask in masks]
        surface, in_plane = {"symmetric": True, "spacing": spacing_mm}, {"symmetric": True, "spacing": spacing_mm[1:]}
        expected = {
            "dice": monai.compute_dice(*pair).item(),
            "jaccard": monai.compute_iou(*pair).item(),
            "msd_mm": monai.compute_average_surface_distance(*pair, **surface).item(),
            "msd_slice_mm": monai.compute_average_surface_distance(*both, **in_plane).mean().item(),
            "hd_mm": monai.compute_hausdorff_distance(*pair, spacing=spacing_mm).item(),
        }
        assert {name: made[name] for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-12, nan_ok=True)


def by_simpleitk(truth: np.ndarray, prediction: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[float, float]:
    """Average and largest distance between masks."""
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (truth, prediction)]
    for image in images:
        image.SetSpacing(spacing_mm[::-1])
    measured = sitk.HausdorffDistanceImageFilter()
    measured.SetNumberOfThreads(1)  # starting more costs more than such small images
    measured.Execute(*images)
    return measured.GetAverageHausdorffDistance(), measured.GetHausdorffDistance()


def test_simpleitk_finds_the_same_between_masks() -> None:
    apart = 0
    for truth, prediction, spacing_mm in cases(200, seed=2):
        made = metrics.volume_metrics(truth, prediction, spacing_mm)
        average_mm, largest_mm = by_simpleitk(truth, prediction, spacing_mm)
        assert made["ahd_mm"] == pytest.approx(average_mm, rel=1e-9, abs=1e-12)
        if not (truth & prediction).any():
            apart += 1
            assert made["hd_mm"] == pytest.approx(largest_mm, rel=1e-9)
    assert apart > 20


def test_two_plates() -> None:
    near, far = box((2, 3), (1, 7), (1, 7)), box((5, 6), (1, 7), (1, 7))
    made = metrics.volume_metrics(near, far, SPACING_MM)
    assert made == pytest.approx(
        {"dice": 0, "jaccard": 0, "msd_mm": 9, "msd_slice_mm": math.nan, "ahd_mm": 9, "hd_mm": 9}, nan_ok=True
    )
    turned = metrics.volume_metrics(near.swapaxes(0, 1), far.swapaxes(0, 1), SPACING_MM)
    assert turned == pytest.approx({"dice": 0, "jaccard": 0, "msd_mm": 6, "msd_slice_mm": 6, "ahd_mm": 6, "hd_mm": 6})


def test_a_cube_shifted_by_a_voxel() -> None:
    """Of 4 x 4 x 4 voxels 56 are border: the 16 left behind are 1 mm away, and 4 that came to lie inside are too."""
    made = metrics.volume_metrics(box((2, 6), (2, 6), (2, 6)), box((2, 6), (2, 6), (3, 7)), SPACING_MM)
    assert made == pytest.approx(
        {"dice": 3 / 4, "jaccard": 3 / 5, "msd_mm": 20 / 56, "msd_slice_mm": 6 / 12, "ahd_mm": 16 / 64, "hd_mm": 1}
    )


def test_a_cube_in_a_cube() -> None:
    """The inner border of 26 is 2 mm from the outer; the outer corner is 2 mm from the inner along each axis."""
    inner, outer = box((2, 5), (2, 5), (2, 5)), box((0, 7), (0, 7), (0, 7))
    made = metrics.volume_metrics(inner, outer, (1, 1, 1))
    steps = np.array([2, 1, 0, 0, 0, 1, 2])
    to_inner = np.sqrt(steps[:, None, None] ** 2 + steps[:, None] ** 2 + steps**2)
    shell = np.ones((7, 7, 7), bool)
    shell[1:-1, 1:-1, 1:-1] = False
    assert made["hd_mm"] == pytest.approx(math.sqrt(12))
    assert made["msd_mm"] == pytest.approx((26 * 2 + to_inner[shell].sum()) / (26 + 218))
    assert made["ahd_mm"] == pytest.approx(to_inner.sum() / 343 / 2)


def test_a_filled_hole_has_the_same_border_but_not_the_same_voxels() -> None:
    """A shell of 5 x 5 x 5 voxels around 27: of these 26 are 1 mm from it and one 2 mm. SimpleITK's maximum sees it."""
    solid = box((1, 6), (1, 6), (1, 6))
    shell = solid & ~box((2, 5), (2, 5), (2, 5))
    made = metrics.volume_metrics(shell, solid, (1, 1, 1))
    assert (made["msd_mm"], made["hd_mm"]) == (0, 0)
    assert made["ahd_mm"] == pytest.approx(28 / 125 / 2)
    assert by_simpleitk(shell, solid, (1, 1, 1)) == pytest.approx((28 / 125 / 2, 2))


def test_single_voxels_in_the_corners() -> None:
    truth, prediction = box((0, 1), (0, 1), (0, 1), shape=(1, 4, 9)), box((0, 1), (3, 4), (8, 9), shape=(1, 4, 9))
    made = metrics.volume_metrics(truth, prediction, SPACING_MM)  # 6 mm and 8 mm
    assert made == {"dice": 0, "jaccard": 0} | dict.fromkeys(metrics.DISTANCES, 10)


def test_a_volume_equals_itself() -> None:
    for truth, _, spacing_mm in cases(20, seed=3):
        assert metrics.volume_metrics(truth, truth, spacing_mm) == {"dice": 1, "jaccard": 1} | dict.fromkeys(
            metrics.DISTANCES, 0
        )


def test_each_slice_counts_once_and_those_of_one_alone_not() -> None:
    truth, prediction = np.zeros((4, 6, 8), bool), np.zeros((4, 6, 8), bool)
    truth[0], prediction[3] = True, True
    truth[1, 0, 0], prediction[1, 0, 5] = True, True  # two border voxels, 5 mm
    truth[2, :, 3], prediction[2, :, 4] = True, True  # twelve, 1 mm
    assert metrics.volume_metrics(truth, prediction, SPACING_MM)["msd_slice_mm"] == (5 + 1) / 2


def test_the_volumes_edge_is_a_border() -> None:
    for truth, prediction, spacing_mm in cases(50, seed=4):
        wider = [np.pad(mask, ((2, 1), (1, 3), (2, 2))) for mask in (truth, prediction)]
        inside = metrics.volume_metrics(truth, prediction, spacing_mm)
        assert metrics.volume_metrics(*wider, spacing_mm) == pytest.approx(inside, rel=1e-12, nan_ok=True)


def test_neither_comes_first_and_millimetres_scale() -> None:
    for truth, prediction, spacing_mm in cases(50, seed=5):
        made = metrics.volume_metrics(truth, prediction, spacing_mm)
        assert metrics.volume_metrics(prediction, truth, spacing_mm) == pytest.approx(made, rel=1e-12, nan_ok=True)
        wide = metrics.volume_metrics(truth, prediction, [10 * step for step in spacing_mm])
        expected = {name: value * (10 if name in metrics.DISTANCES else 1) for name, value in made.items()}
        assert wide == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_overlap_is_that_of_dice_and_numbers_are_plain() -> None:
    for truth, prediction, spacing_mm in cases(20, seed=6):
        before = truth.copy(), prediction.copy()
        made = metrics.volume_metrics(truth.astype(np.uint8), prediction.astype(np.float32), spacing_mm)
        assert made == pytest.approx(metrics.volume_metrics(truth, prediction, spacing_mm), nan_ok=True, abs=0)
        assert made["dice"] == metrics.dice(truth, prediction)
        assert made["jaccard"] == pytest.approx(made["dice"] / (2 - made["dice"]))
        assert (tuple(made), {type(value) for value in made.values()}) == (metrics.VOLUME_METRICS, {float})
        assert np.array_equal(before, (truth, prediction))


def test_an_empty_prediction_has_no_distance() -> None:
    truth = box((0, 1), (0, 2), (0, 2))
    made = metrics.volume_metrics(truth, truth & False, SPACING_MM)
    assert made == pytest.approx({"dice": 0, "jaccard": 0} | dict.fromkeys(metrics.DISTANCES, math.nan), nan_ok=True)


@pytest.mark.parametrize(
    ("truth", "prediction", "spacing_mm", "message"),
    [
        (np.zeros((2, 3, 4)), np.ones((2, 3, 4)), SPACING_MM, "the truth is empty: .* skip it"),
        (np.ones((2, 3, 4)), np.ones((2, 4, 3)), SPACING_MM, r"one shape, got \(2, 3, 4\) and \(2, 4, 3\)"),
        (np.ones((3, 4)), np.ones((3, 4)), SPACING_MM, r"truth must be a volume .* got shape \(3, 4\)"),
        (np.ones((2, 3, 4)), np.full((2, 3, 4), 2), SPACING_MM, "prediction must hold nothing but 0 and 1"),
        (np.ones((2, 3, 4)), np.full((2, 3, 4), 0.4), SPACING_MM, "prediction must hold nothing but 0 and 1"),
        (np.full((2, 3, 4), np.nan), np.ones((2, 3, 4)), SPACING_MM, "truth must hold nothing but 0 and 1"),
        (np.ones((2, 3, 4)), np.ones((2, 3, 4)), (1.0, 1.0), r"three lengths .* got \(1.0, 1.0\)"),
        (np.ones((2, 3, 4)), np.ones((2, 3, 4)), (1.0, 0.0, 1.0), "above 0"),
        (np.ones((2, 3, 4)), np.ones((2, 3, 4)), (math.nan, 1.0, 1.0), "above 0"),
        (np.ones((2, 3, 4)), np.ones((2, 3, 4)), (math.inf, 1.0, 1.0), "above 0"),
    ],
)
def test_what_cannot_be_measured_says_so_in_a_line(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        metrics.volume_metrics(truth, prediction, spacing_mm)
    assert "\n" not in str(raised.value)


def test_the_largest_component_of_the_box_is_that_of_the_volume() -> None:
    for mask, sparse, _ in cases(100, seed=7):
        for volume in (mask, sparse, mask & sparse):
            labels, count = ndimage.label(volume, np.ones((3, 3, 3)))
            sizes = np.bincount(labels.ravel(), minlength=2)[1:]
            kept = metrics.largest_component(volume)
            assert kept.dtype == bool
            assert np.array_equal(kept, labels == 1 + sizes.argmax() if count else volume)
