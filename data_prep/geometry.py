"""Order along the heart's axis, and one in-plane grid for all images.

Convention of centres: an image's centre is the middle of its field of view, (n - 1) / 2 pixels from the
centre of the first pixel. It is kept: the output grid has its centre there too. (A crop about pixel n // 2
lands up to one pixel elsewhere; tests/test_geometry.py holds ours.)
"""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from data_prep.study import Level

# Without masks the apex is taken to point left, anterior and inferior: +x, -y, -z in LPS.
APEX_DIRECTION_LPS = np.array([1.0, -1.0, -1.0])


def slice_normal(orientation: Sequence[float]) -> np.ndarray:
    """Unit normal of a slice from its six direction cosines (DICOM IOP), LPS."""
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if not np.isfinite(length) or length < 0.9:
        raise ValueError(f"ImageOrientationPatient {list(orientation)} holds no two perpendicular directions")
    return normal / length


def heights_mm(levels: Sequence[Level]) -> np.ndarray:
    """Position of each level along the common slice normal, mm.

    Neither the file's slice number nor SliceLocation tells this: the first is the order of acquisition, the
    second is no distance (its step is 6.7 mm in real files whose slices lie 10 mm apart).
    """
    normal = slice_normal(levels[0].orientation)
    tilts = [float(np.dot(normal, slice_normal(level.orientation))) for level in levels]
    if min(tilts) < 0.99:
        raise ValueError(f"slices are not parallel (cosine between normals {min(tilts):.3f}, wanted over 0.99)")
    return np.array([float(np.dot(normal, level.position_mm)) for level in levels])


def slice_spacing_mm(height_mm: np.ndarray) -> float:
    """Median distance of neighbouring levels (sorted heights), mm."""
    steps_mm = np.diff(np.sort(height_mm))
    if len(steps_mm) and steps_mm.min() < 0.1:
        raise ValueError(f"two slices lie {steps_mm.min():.2f} mm apart: the same position twice")
    return float(np.median(steps_mm)) if len(steps_mm) else 0.0


def base_to_apex(levels: Sequence[Level], filled_mm2: np.ndarray) -> tuple[list[int], str]:
    """Order of the levels from base to apex and the rule used.

    filled_mm2: per level the mean area inside the outer contour (0 where no mask was given).
    """
    height_mm = heights_mm(levels)
    order = list(np.argsort(height_mm, kind="stable"))
    ends = filled_mm2[order][filled_mm2[order] > 0]
    third = max(1, len(ends) // 3)
    if len(ends) >= 2 and ends[:third].mean() != ends[-third:].mean():
        apex_first = ends[:third].mean() < ends[-third:].mean()
        rule = "masks: the apex is the end with the smaller filled area"
    else:
        apex_first = float(np.dot(slice_normal(levels[0].orientation), APEX_DIRECTION_LPS)) < 0
        rule = "no masks: the apex is the end towards left, anterior and inferior"
    return (order[::-1] if apex_first else order), rule


def resample_TYX(
    stack_TYX: np.ndarray,
    spacing_mm: tuple[float, float],
    to_mm: tuple[float, float],
    size: tuple[int, int],
    *,
    labels: bool,
) -> np.ndarray:
    """Resample every image of a stack in plane to `to_mm`, cropped or zero-padded to `size`, centre kept.

    Linear for images, nearest for labels. Returns float32 (images) or the input's type (labels), (T, Y, X).
    The whole stack goes through one SimpleITK call: it lies on integer planes, so nothing mixes along T.
    """
    # SimpleITK truncates when it resamples integers (0.44 grey levels low on average): use float32.
    stack = np.ascontiguousarray(stack_TYX if labels else stack_TYX.astype(np.float32))
    image = sitk.GetImageFromArray(stack)
    image.SetSpacing((spacing_mm[1], spacing_mm[0], 1.0))
    image.SetOrigin((*_first_pixel_mm(stack.shape[:0:-1], spacing_mm[::-1]), 0.0))
    interpolator = sitk.sitkNearestNeighbor if labels else sitk.sitkLinear
    out = sitk.Resample(
        image,
        (size[1], size[0], stack.shape[0]),
        sitk.Transform(),
        interpolator,
        (*_first_pixel_mm(size[::-1], to_mm[::-1]), 0.0),
        (to_mm[1], to_mm[0], 1.0),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        0.0,
        image.GetPixelID(),
    )
    return np.asarray(sitk.GetArrayFromImage(out))


def _first_pixel_mm(size_xy: Sequence[int], spacing_xy_mm: Sequence[float]) -> tuple[float, ...]:
    return tuple(-(n - 1) / 2 * step for n, step in zip(size_xy, spacing_xy_mm, strict=True))
