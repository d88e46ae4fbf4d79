"""Overlap and distances of two volumes (paper, Table 1), and the component that is kept of a prediction.

The paper says "Dice", "Jaccard" and "mean surface distance" and gives no definition. At the paper's Dice its distance,
0.274 mm, cannot be one in plane, so three are computed, each with its own name.
"""

from collections.abc import Sequence

import numpy as np

CONNECTIVITY_26 = np.ones((3, 3, 3), bool)
"""Voxels that share a face, an edge or a corner belong together (the paper does not say)."""
DISTANCES = ("msd_mm", "msd_slice_mm", "ahd_mm", "hd_mm")
VOLUME_METRICS = ("dice", "jaccard", *DISTANCES)
"""The keys of `volume_metrics`, in order."""
_IN_PLANE, _THROUGH = (1, 2), (0,)


def dice(truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two boolean volumes. An empty prediction gives 0; two empty ones NaN."""
    total = _count(truth_ZYX) + _count(prediction_ZYX)
    return 2 * _count(truth_ZYX & prediction_ZYX) / total if total else float("nan")


def largest_component(mask_ZYX: np.ndarray) -> np.ndarray:
    """The largest component of a boolean volume (paper, section 3), the first of equal ones; empty stays empty.

    Connectivity 26: voxels that share a face, an edge or a corner belong together.
    """
    from scipy import ndimage  # scoring alone: training steps are measured where only torch and numpy are installed

    if not mask_ZYX.any():
        return mask_ZYX
    box = _box(mask_ZYX)
    labels, count = ndimage.label(mask_ZYX[box], CONNECTIVITY_26)
    if count < 2:
        return mask_ZYX
    kept_ZYX = np.zeros(mask_ZYX.shape, bool)
    kept_ZYX[box] = labels == np.bincount(labels[labels > 0]).argmax()
    return kept_ZYX


def largest_components(labels_ZYX: np.ndarray, structures: int) -> np.ndarray:
    """Labels 1, 2, ... of a volume, each reduced to its largest component; the rest becomes 0."""
    kept_ZYX = np.zeros_like(labels_ZYX)
    for label in range(1, structures + 1):
        kept_ZYX[largest_component(labels_ZYX == label)] = label
    return kept_ZYX


def volume_metrics(truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    """How well a predicted volume meets the true one (paper, Table 1).

    Both are boolean, or 0 and 1, of one shape; `spacing_mm` is (z, y, x). A voxel is its centre. A border voxel is one
    of the mask with a face neighbour that is not, and beyond the volume's edge nothing is: in a volume of one slice
    every voxel of the mask is a border voxel in 3-D.

    - `dice`, `jaccard`: 2 |A and B| / (|A| + |B|) and |A and B| / |A or B|.
    - `msd_mm`: the mean over all border voxels of both volumes of the distance to the other's nearest border voxel.
      Pooled: the longer border counts more. MONAI's compute_average_surface_distance(symmetric=True).
    - `msd_slice_mm`: the same slice by slice, with borders and distances in plane, then the mean over slices, each of
      which counts once. A slice where only one has a mask has no such distance and is left out; overlap, `msd_mm`
      and `hd_mm` see it. NaN where no slice has both.
    - `ahd_mm`: the distance of every voxel of a mask, not of its border alone, to the other mask (0 inside it):
      the mean over A and the mean over B, halved together. SimpleITK's GetAverageHausdorffDistance().
    - `hd_mm`: the largest of the distances that `msd_mm` takes the mean of, no percentile. MONAI's
      compute_hausdorff_distance. SimpleITK's GetHausdorffDistance() is between masks, not borders: the same where
      they do not overlap, but inside the other mask it sees no border, and in a hole that was filled it sees voxels.

    An empty prediction: overlap 0, distances NaN, for the caller to count as missed. ValueError where the truth is
    empty (such a volume is not evaluated: skip it), the shapes differ, or a value is not as said here.
    """
    spacing = _spacing_mm(spacing_mm)
    truth_ZYX, prediction_ZYX = _mask(truth_ZYX, "truth"), _mask(prediction_ZYX, "prediction")
    if truth_ZYX.shape != prediction_ZYX.shape:
        raise ValueError(f"truth and prediction must have one shape, got {truth_ZYX.shape} and {prediction_ZYX.shape}")
    if not truth_ZYX.any():
        raise ValueError("the truth is empty: such a volume is not evaluated, skip it")
    box = _box(truth_ZYX | prediction_ZYX)
    a_ZYX, b_ZYX = truth_ZYX[box].copy(), prediction_ZYX[box].copy()  # all that follows is faster on whole memory
    shared, either = _count(a_ZYX & b_ZYX), _count(a_ZYX | b_ZYX)
    overlap = {"dice": 2 * shared / (shared + either), "jaccard": shared / either}
    if not b_ZYX.any():
        return overlap | dict.fromkeys(DISTANCES, float("nan"))
    return overlap | _distances(a_ZYX, b_ZYX, spacing)


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _mask(array_ZYX: np.ndarray, name: str) -> np.ndarray:
    array_ZYX = np.asarray(array_ZYX)
    if array_ZYX.ndim != 3:
        raise ValueError(f"{name} must be a volume (z, y, x), got shape {array_ZYX.shape}")
    mask_ZYX = array_ZYX.astype(bool, copy=False)
    if mask_ZYX is not array_ZYX and (mask_ZYX != array_ZYX).any():
        raise ValueError(f"{name} must hold nothing but 0 and 1, or booleans; make a mask of it first (labels == 1)")
    return mask_ZYX


def _spacing_mm(spacing_mm: Sequence[float]) -> np.ndarray:
    spacing = np.asarray(spacing_mm, float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing_mm must be three lengths (z, y, x) above 0, got {spacing_mm}")
    return spacing


def _box(mask_ZYX: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds a mask which is not empty."""
    plane_YX = np.asarray(mask_ZYX.any(axis=0))  # a quarter of the time of asking the volume twice
    sides = (np.flatnonzero(side) for side in (mask_ZYX.any(axis=(1, 2)), plane_YX.any(axis=1), plane_YX.any(axis=0)))
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)


def _distances(a_ZYX: np.ndarray, b_ZYX: np.ndarray, spacing_mm: np.ndarray) -> dict[str, float]:
    """The four of two masks in their common box, neither of them empty."""
    rim_a_ZYX, rim_b_ZYX = _border(a_ZYX, _IN_PLANE), _border(b_ZYX, _IN_PLANE)
    edge_a_ZYX, edge_b_ZYX = rim_a_ZYX | _border(a_ZYX, _THROUGH), rim_b_ZYX | _border(b_ZYX, _THROUGH)
    # A mask's voxel nearest to a voxel outside it is on its border, so one search answers for borders and masks.
    only_a_ZYX, only_b_ZYX = a_ZYX & ~b_ZYX, b_ZYX & ~a_ZYX
    to_b_mm_ZYX = _nearest(edge_a_ZYX | only_a_ZYX, edge_b_ZYX, spacing_mm)
    to_a_mm_ZYX = _nearest(edge_b_ZYX | only_b_ZYX, edge_a_ZYX, spacing_mm)
    surface_mm = np.concatenate([to_b_mm_ZYX[edge_a_ZYX], to_a_mm_ZYX[edge_b_ZYX]])
    a_to_b_mm = to_b_mm_ZYX[only_a_ZYX].sum() / _count(a_ZYX)
    b_to_a_mm = to_a_mm_ZYX[only_b_ZYX].sum() / _count(b_ZYX)
    return {
        "msd_mm": float(surface_mm.mean()),
        "msd_slice_mm": _in_plane(rim_a_ZYX, rim_b_ZYX, spacing_mm),
        "ahd_mm": float(a_to_b_mm + b_to_a_mm) / 2,
        "hd_mm": float(surface_mm.max()),
    }


def _in_plane(rim_a_ZYX: np.ndarray, rim_b_ZYX: np.ndarray, spacing_mm: np.ndarray) -> float:
    """Mean over the slices that both have of the mean distance between their borders, mm."""
    both_Z = rim_a_ZYX.any(axis=(1, 2)) & rim_b_ZYX.any(axis=(1, 2))
    if not both_Z.any():
        return float("nan")
    rim_a_ZYX, rim_b_ZYX = rim_a_ZYX[both_Z], rim_b_ZYX[both_Z]
    # Slices further apart than the plane is wide: the nearest is then in the same slice, and one search serves all.
    apart_mm = 2 * (spacing_mm[1:] * rim_a_ZYX.shape[1:]).sum()
    step_mm = np.array([apart_mm, *spacing_mm[1:]])
    sums_Z = _nearest(rim_a_ZYX, rim_b_ZYX, step_mm).sum(axis=(1, 2))
    sums_Z += _nearest(rim_b_ZYX, rim_a_ZYX, step_mm).sum(axis=(1, 2))
    return float((sums_Z / (rim_a_ZYX.sum(axis=(1, 2)) + rim_b_ZYX.sum(axis=(1, 2)))).mean())


def _border(mask_ZYX: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Voxels of the mask with a neighbour along one of `axes` that is not; beyond the array nothing is."""
    inside_ZYX = mask_ZYX.copy()
    for axis in axes:
        mask, inside = np.moveaxis(mask_ZYX, axis, 0), np.moveaxis(inside_ZYX, axis, 0)
        inside[1:] &= mask[:-1]
        inside[:-1] &= mask[1:]
        inside[[0, -1]] = False
    return np.asarray(mask_ZYX & ~inside_ZYX)


def _nearest(asked_ZYX: np.ndarray, border_ZYX: np.ndarray, step_mm: np.ndarray) -> np.ndarray:
    """Distance of the asked voxels to the nearest of `border_ZYX`, mm; 0 at all others."""
    from scipy.spatial import KDTree  # as in largest_component()

    # Most of a good prediction's border is the truth's own, and needs no search. A tree serves one: it is built fast.
    asked_ZYX = asked_ZYX & ~border_ZYX
    distance_ZYX = np.zeros(asked_ZYX.shape)
    tree = KDTree(np.argwhere(border_ZYX) * step_mm, leafsize=32, balanced_tree=False, compact_nodes=False)
    distance_ZYX[asked_ZYX] = tree.query(np.argwhere(asked_ZYX) * step_mm)[0]
    return distance_ZYX
