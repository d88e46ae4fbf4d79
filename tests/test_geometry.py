"""Geometry that can be done by hand."""

import math

import numpy as np
import pytest
import SimpleITK as sitk

from data_prep import geometry
from data_prep.study import Frame, Level

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # rows run to +x, columns to +y: the normal is +z


def level(z_mm: float, orientation: tuple[float, ...] = AXIAL) -> Level:
    return at((0.0, 0.0, z_mm), orientation)


def at(position_mm: tuple[float, float, float], orientation: tuple[float, ...] = AXIAL) -> Level:
    return Level((Frame(np.zeros((4, 4), np.float32), None, (1.0, 1.0), position_mm, orientation, "file"),))


def ring(n: int, spacing_mm: float, inner_mm: float, outer_mm: float) -> np.ndarray:
    axis = (np.arange(n) - (n - 1) / 2) * spacing_mm
    radius = np.hypot(*np.meshgrid(axis, axis))
    return ((radius > inner_mm) & (radius <= outer_mm)).astype(np.uint8)


def test_normal_is_row_cross_column() -> None:
    assert geometry.slice_normal(AXIAL) == pytest.approx([0, 0, 1])


def test_heights_are_distances_along_the_normal_of_oblique_slices() -> None:
    c, s = math.cos(0.6), math.sin(0.6)
    oblique = (1.0, 0.0, 0.0, 0.0, c, s)  # normal (0, -s, c)
    levels = [at((7.0, -s * h + 2 * c, c * h + 2 * s), oblique) for h in (0, 10, 20)]
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
    assert [levels[n].frames[0].position_mm[2] for n in order] == [0, 10, 20, 30]
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
    image = np.zeros((9, 9), np.float32)
    image[4, 7] = 1
    out = geometry.resample_YX(image, (2.0, 2.0), (1.0, 1.0), (17, 17), labels=False)
    assert np.unravel_index(out.argmax(), out.shape) == (8, 14)


def test_rows_and_columns_keep_their_own_spacing() -> None:
    image = np.zeros((5, 5), np.float32)
    image[3, 4] = 1  # one row of 3 mm below, two columns of 1 mm right of the centre
    out = geometry.resample_YX(image, (3.0, 1.0), (1.0, 1.0), (9, 9), labels=False)
    assert np.unravel_index(out.argmax(), out.shape) == (7, 6)


def test_same_grid_changes_nothing_and_crop_and_pad_are_central() -> None:
    image = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    same = geometry.resample_YX(image, (1.5, 1.5), (1.5, 1.5), (6, 6), labels=False)
    assert (same == image).all()
    crop = geometry.resample_YX(image, (1.5, 1.5), (1.5, 1.5), (4, 4), labels=False)
    assert (crop == image[1:5, 1:5]).all()
    pad = geometry.resample_YX(image, (1.5, 1.5), (1.5, 1.5), (8, 8), labels=False)
    assert (pad == np.pad(image, 1)).all()


def simpleitk(
    image_YX: np.ndarray, spacing_mm: tuple[float, float], to_mm: float, size: tuple[int, int], *, labels: bool
) -> np.ndarray:
    """SimpleITK's own resampling about the centre of the field of view."""
    image = sitk.GetImageFromArray(image_YX)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin([-(n - 1) / 2 * step for n, step in zip(image_YX.shape[::-1], spacing_mm[::-1], strict=True)])
    out = sitk.Resample(
        image,
        size[::-1],
        sitk.Transform(2, sitk.sitkIdentity),
        sitk.sitkNearestNeighbor if labels else sitk.sitkLinear,
        [-(n - 1) / 2 * to_mm for n in size[::-1]],
        (to_mm, to_mm),
        (1.0, 0.0, 0.0, 1.0),
        0.0,
        image.GetPixelID(),
    )
    return np.asarray(sitk.GetArrayFromImage(out))


SPACINGS_MM = [0.78125, 3.125, 1.5625, 0.7031, 2.0833, 1.367188, 1.25, 1.1]
"""The first three put pixel centres exactly between others."""


@pytest.mark.parametrize("seed", range(40))
def test_equals_simpleitk(seed: int) -> None:
    """Any matrix and spacing, halves between two pixels among them: grey levels, and masks to the pixel."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(20, 300)), int(rng.integers(20, 300)))
    spacing_mm = (float(rng.choice(SPACINGS_MM)), float(rng.choice(SPACINGS_MM)))
    size, to_mm = (int(rng.choice([32, 96, 192])), 96), float(rng.choice([1.5625, 3.125]))
    image = rng.integers(0, 2000, shape).astype(np.float32)
    ours = geometry.resample_YX(image, spacing_mm, (to_mm, to_mm), size, labels=False)
    assert np.abs(ours - simpleitk(image, spacing_mm, to_mm, size, labels=False)).max() < 0.01
    mask = (image > 1000).astype(np.uint8)
    ours = geometry.resample_YX(mask, spacing_mm, (to_mm, to_mm), size, labels=True)
    assert (ours == simpleitk(mask, spacing_mm, to_mm, size, labels=True)).all()


@pytest.mark.parametrize("spacing_mm", [0.7031, 0.9, 1.25, 1.5625, 1.8, 2.0833, 2.1])
def test_a_ring_keeps_its_area(spacing_mm: float) -> None:
    """25 and 36 mm: 2,108 mm2. The error of counting pixels falls on a rim of about sqrt(length / pixel) pixels
    each way, well under half a pixel on average: 3 % holds it after two discretisations, ours and the source's."""
    n = int(300 / spacing_mm)
    source = ring(n, spacing_mm, 25, 36)
    out = geometry.resample_YX(source, (spacing_mm,) * 2, (1.5625,) * 2, (192,) * 2, labels=True)
    assert set(np.unique(out)) == {0, 1}
    assert out.sum() * 1.5625**2 == pytest.approx(source.sum() * spacing_mm**2, rel=0.03)
    assert out.sum() * 1.5625**2 == pytest.approx(math.pi * (36**2 - 25**2), rel=0.03)
