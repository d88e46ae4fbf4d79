"""Geometry that can be done by hand."""

import math

import numpy as np
import pytest
import SimpleITK as sitk

from data_prep import geometry
from data_prep.study import Level

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # rows run to +x, columns to +y: the normal is +z


def level(z_mm: float, orientation: tuple[float, ...] = AXIAL) -> Level:
    image = np.zeros((1, 4, 4), np.float32)
    return Level(image, image.astype(np.uint8), np.zeros(1, bool), (1.0, 1.0), (0.0, 0.0, z_mm), orientation)


def ring(n: int, spacing_mm: float, inner_mm: float, outer_mm: float) -> np.ndarray:
    axis = (np.arange(n) - (n - 1) / 2) * spacing_mm
    radius = np.hypot(*np.meshgrid(axis, axis))
    return ((radius > inner_mm) & (radius <= outer_mm)).astype(np.uint8)


def test_normal_is_row_cross_column() -> None:
    assert geometry.slice_normal(AXIAL) == pytest.approx([0, 0, 1])


def test_heights_are_distances_along_the_normal_of_oblique_slices() -> None:
    c, s = math.cos(0.6), math.sin(0.6)
    oblique = (1.0, 0.0, 0.0, 0.0, c, s)  # normal (0, -s, c)
    levels = [
        Level(**{**vars(level(0, oblique)), "position_mm": (7.0, -s * h + 2 * c, c * h + 2 * s)}) for h in (0, 10, 20)
    ]
    assert np.diff(geometry.heights_mm(levels)) == pytest.approx([10, 10])


def test_slices_that_are_not_parallel_are_refused() -> None:
    with pytest.raises(ValueError, match="not parallel"):
        geometry.heights_mm([level(0), level(1, (1.0, 0.0, 0.0, 0.0, 0.0, 1.0))])


def test_the_same_position_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="same position twice"):
        geometry.slice_spacing_mm(np.array([0.0, 10.0, 10.0]))


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]])
def test_base_comes_first_whatever_the_order_of_the_files(numbers: list[int]) -> None:
    area_mm2 = {0: 900.0, 10: 800.0, 20: 500.0, 30: 200.0}  # the apex lies at 30 mm
    levels = [level(10.0 * n) for n in numbers]
    order, rule = geometry.base_to_apex(levels, np.array([area_mm2[10 * n] for n in numbers]))
    assert [levels[n].position_mm[2] for n in order] == [0, 10, 20, 30]
    assert rule.startswith("masks")


def test_the_apex_may_lie_at_either_end() -> None:
    order, _ = geometry.base_to_apex([level(0), level(10), level(20)], np.array([100.0, 300.0, 500.0]))
    assert order == [2, 1, 0]


def test_without_masks_the_apex_points_left_anterior_inferior() -> None:
    order, rule = geometry.base_to_apex([level(0), level(10)], np.zeros(2))  # -z is inferior: z = 0 is the apex
    assert order == [1, 0]
    assert rule.startswith("no masks")


def test_the_centre_of_the_field_of_view_is_kept() -> None:
    """A point at 3 pixels of 2 mm right of the centre lies 6 mm right of it afterwards."""
    image = np.zeros((1, 9, 9), np.float32)
    image[0, 4, 7] = 1
    out = geometry.resample_TYX(image, (2.0, 2.0), (1.0, 1.0), (17, 17), labels=False)
    assert np.unravel_index(out[0].argmax(), out[0].shape) == (8, 14)


def test_rows_and_columns_keep_their_own_spacing() -> None:
    image = np.zeros((1, 5, 5), np.float32)
    image[0, 3, 4] = 1  # one row of 3 mm below, two columns of 1 mm right of the centre
    out = geometry.resample_TYX(image, (3.0, 1.0), (1.0, 1.0), (9, 9), labels=False)
    assert np.unravel_index(out[0].argmax(), out[0].shape) == (7, 6)


def test_same_grid_changes_nothing_and_crop_and_pad_are_central() -> None:
    image = np.random.default_rng(0).normal(size=(2, 6, 6)).astype(np.float32)
    same = geometry.resample_TYX(image, (1.5, 1.5), (1.5, 1.5), (6, 6), labels=False)
    assert same == pytest.approx(image, abs=1e-6)
    crop = geometry.resample_TYX(image, (1.5, 1.5), (1.5, 1.5), (4, 4), labels=False)
    assert crop == pytest.approx(image[:, 1:5, 1:5], abs=1e-6)
    pad = geometry.resample_TYX(image, (1.5, 1.5), (1.5, 1.5), (8, 8), labels=False)
    assert pad == pytest.approx(np.pad(image, ((0, 0), (1, 1), (1, 1))), abs=1e-6)


def test_equals_simpleitk_slice_by_slice() -> None:
    """The whole stack in one call gives what a 2-D resampling of each slice gives."""
    stack = np.random.default_rng(1).integers(0, 1000, (3, 40, 36)).astype(np.float32)
    ours = geometry.resample_TYX(stack, (1.3, 1.1), (1.5625, 1.5625), (32, 32), labels=False)
    for image_YX, our_YX in zip(stack, ours, strict=True):
        image = sitk.GetImageFromArray(image_YX)
        image.SetSpacing((1.1, 1.3))
        image.SetOrigin((-35 / 2 * 1.1, -39 / 2 * 1.3))
        first = -31 / 2 * 1.5625
        theirs = sitk.Resample(
            image,
            (32, 32),
            sitk.Transform(2, sitk.sitkIdentity),
            sitk.sitkLinear,
            (first, first),
            (1.5625, 1.5625),
            (1.0, 0.0, 0.0, 1.0),
            0.0,
            sitk.sitkFloat32,
        )
        assert our_YX == pytest.approx(sitk.GetArrayFromImage(theirs), abs=1e-3)


@pytest.mark.parametrize("spacing_mm", [0.7031, 1.25, 1.5625, 2.0833])
def test_a_ring_keeps_its_area(spacing_mm: float) -> None:
    """25 and 36 mm: 2,108 mm2, within 3 % after two discretisations (the source grid and ours)."""
    n = int(300 / spacing_mm)
    out = geometry.resample_TYX(
        ring(n, spacing_mm, 25, 36)[None], (spacing_mm,) * 2, (1.5625,) * 2, (192,) * 2, labels=True
    )
    assert set(np.unique(out)) == {0, 1}
    assert out.sum() * 1.5625**2 == pytest.approx(math.pi * (36**2 - 25**2), rel=0.03)
