"""Order along the heart's axis, and one in-plane grid for all images.

Convention of centres: an image's centre is the middle of its field of view, (n - 1) / 2 pixels from the
centre of the first pixel. It is kept: the output grid has its centre there too. (A crop about pixel n // 2
lands up to one pixel elsewhere; tests/test_geometry.py holds ours.)
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from data_prep.study import Level, StudyError

LEAST_PARALLEL = 0.99
"""Cosine between the normals of two slices that count as parallel."""
LEAST_TURNED = 0.9
"""Cosine between the rows of two slices that may be shown one above the other."""
SAME_POSITION_MM = 0.1
"""Slices nearer than this lie at one position."""

# Without masks the apex is taken to point left, anterior and inferior: +x, -y, -z in LPS.
APEX_DIRECTION_LPS = np.array([1.0, -1.0, -1.0])


def slice_normal(orientation: Sequence[float]) -> np.ndarray:
    """Unit normal of a slice from its six direction cosines (DICOM IOP), LPS."""
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if not np.isfinite(length) or length < 0.9:
        raise StudyError(f"ImageOrientationPatient {list(orientation)} holds no two perpendicular directions")
    return normal / length


def heights_mm(levels: Sequence[Level]) -> np.ndarray:
    """Position of each level along the common slice normal, mm."""
    first = [level.frames[0] for level in levels]
    return common_heights_mm([(frame.orientation, frame.position_mm, frame.file) for frame in first])


def common_heights_mm(slices: Sequence[tuple[Sequence[float], Sequence[float], str]]) -> np.ndarray:
    """Position along the common normal of slices given as orientation, position and file, mm.

    Neither the file's slice number nor SliceLocation tells this: the first is the order of acquisition, the
    second is no distance (its step is 6.7 mm in real files whose slices lie 10 mm apart). StudyError names the
    slice that is not parallel to most of the others, or whose rows run another way.
    """
    normals = np.array([slice_normal(orientation) for orientation, _, _ in slices])
    rows = np.array([orientation[:3] for orientation, _, _ in slices])
    # One of those that agree with most of the others.
    reference = int(np.argmax(np.median(normals @ normals.T, axis=1) + np.median(rows @ rows.T, axis=1)))
    for cosines, least, what in (
        (normals @ normals[reference], LEAST_PARALLEL, "is not parallel to"),
        (rows @ rows[reference], LEAST_TURNED, "is turned in its plane against"),
    ):
        if cosines.min() < least:
            odd = slices[int(cosines.argmin())][2]
            raise StudyError(f"{what} the other slices (cosine {cosines.min():.3f}, wanted {least})", odd)
    return np.array([float(np.dot(normals[reference], position)) for _, position, _ in slices])


def gaps(height_mm: np.ndarray) -> list[int]:
    """Where a step (of sorted heights) is much larger than most: slices are missing there."""
    steps_mm = np.abs(np.diff(height_mm))
    return [int(n) for n in np.flatnonzero(steps_mm > 1.5 * np.median(steps_mm))] if len(steps_mm) else []


def slice_spacing_mm(height_mm: np.ndarray) -> float:
    """Median distance of neighbouring levels (sorted heights), mm."""
    steps_mm = np.diff(np.sort(height_mm))
    if len(steps_mm) and steps_mm.min() < SAME_POSITION_MM:
        raise StudyError(f"two slices lie {steps_mm.min():.2f} mm apart: the same position twice")
    return float(np.median(steps_mm)) if len(steps_mm) else 0.0


def base_to_apex(levels: Sequence[Level], filled_mm2: np.ndarray) -> tuple[list[int], str]:
    """Order of the levels from base to apex and the rule used.

    filled_mm2: per level the mean area inside the outer contour (0 where no mask tells it).
    """
    points_first = float(np.dot(slice_normal(levels[0].frames[0].orientation), APEX_DIRECTION_LPS)) < 0
    height_mm = heights_mm(levels)
    order = list(np.argsort(height_mm, kind="stable"))
    ends = filled_mm2[order][filled_mm2[order] > 0]
    third = max(1, len(ends) // 3)
    if len(ends) >= 2 and ends[:third].mean() != ends[-third:].mean():
        apex_first = ends[:third].mean() < ends[-third:].mean()
        rule = "masks: the apex is the end with the smaller filled area"
        rule += "" if apex_first == points_first else "; the orientation says the other end"
    else:
        apex_first = points_first
        rule = "no masks: the apex is the end towards left, anterior and inferior"
    return (order[::-1] if apex_first else order), rule


class _Axis(NamedTuple):
    """Where the pixels of one output axis lie on an input axis."""

    inside: slice
    """output pixels within the field of view"""
    below: np.ndarray
    above: np.ndarray
    share: np.ndarray
    """neighbouring input pixels of each, and the share of the one above"""
    nearest: np.ndarray
    exact: bool
    """Output pixels lie on input pixels: nothing is to be interpolated."""


@lru_cache(maxsize=64)
def _axis(n: int, spacing_mm: float, size: int, to_mm: float) -> _Axis:
    """As SimpleITK's resampling has it: the border pixels reach half a pixel outwards, halves are rounded up."""
    place = (np.arange(size) - (size - 1) / 2) * (to_mm / spacing_mm) + (n - 1) / 2
    within = np.flatnonzero((place >= -0.5) & (place < n - 0.5))
    inside = slice(int(within[0]), int(within[-1]) + 1) if len(within) else slice(0, 0)
    place = place[inside]
    floor = np.floor(place)
    return _Axis(
        inside,
        np.clip(floor, 0, n - 1).astype(np.intp),
        np.clip(floor + 1, 0, n - 1).astype(np.intp),
        (place - floor).astype(np.float32),
        np.clip(np.floor(place + 0.5), 0, n - 1).astype(np.intp),
        bool((place == floor).all()),
    )


def resample_YX(
    image_YX: np.ndarray,
    spacing_mm: tuple[float, float],
    to_mm: tuple[float, float],
    size: tuple[int, int],
    *,
    labels: bool,
) -> np.ndarray:
    """Resample an image in plane to `to_mm`, cropped or zero-padded to `size`, centre kept.

    Linear for images, nearest for labels. Returns float32 (images) or the input's type (labels), (Y, X).
    Both interpolations are separable on parallel grids, so rows are gathered first, then columns: ten times
    as fast as SimpleITK's resampling, and equal to it (tests/test_geometry.py).
    """
    y, x = (_axis(*line) for line in zip(image_YX.shape, spacing_mm, size, to_mm, strict=True))
    if labels:
        out = np.zeros(size, image_YX.dtype)
        out[y.inside, x.inside] = image_YX[y.nearest].take(x.nearest, axis=1)
        return out
    out = np.zeros(size, np.float32)
    source = image_YX.astype(np.float32, copy=False)
    if y.exact and x.exact:
        out[y.inside, x.inside] = source[y.below].take(x.below, axis=1)
        return out
    rows = source[y.below]
    rows += (source[y.above] - rows) * y.share[:, None]
    left = rows.take(x.below, axis=1)
    left += (rows.take(x.above, axis=1) - left) * x.share
    out[y.inside, x.inside] = left
    return out
