"""Slices in memory with a ring each, in any number: what a training needs, without a store."""

import numpy as np

from mtl.slices import Fold, Slices, Stack

RINGS = 16
"""that are drawn; the slices take them in turn"""


def slices(patients: int, phases: int, levels: int, size: int) -> Slices:
    """Of so many pixels a side."""
    shape_PTZ = patients, phases, levels
    ring_PTZ = np.arange(np.prod(shape_PTZ)).reshape(shape_PTZ) % RINGS
    image_RYX, mask_RYX = _rings(size)
    places_N3 = np.argwhere(np.ones(shape_PTZ, bool))
    patient_N, phase_N, level_N = places_N3.T
    names = tuple(f"P{p:04}" for p in range(patients))
    return Slices(
        image_NYX=Stack(image_RYX[ring_PTZ], places_N3),
        mask_NYX=Stack(mask_RYX[ring_PTZ], places_N3),
        patient_N=patient_N,
        phase_N=phase_N,
        level_N=level_N,
        patients=names,
        subjects=names,
        strata=("",) * patients,
        ed_es=((0, phases // 2),) * patients,
        shape_TZ=((phases, levels),) * patients,
        slice_spacing_mm=(8.0,) * patients,
        pixel_spacing_mm=(300 / size, 300 / size),
        source="phantom",
    )


def fold(of: Slices, share: float = 0.8) -> Fold:
    """Trained on the first slices, tested on the others, with none to validate: as in the paper."""
    order = np.arange(len(of.patient_N))
    train, test = np.split(order, [round(share * len(order))])
    return Fold(train, order[:0], test)


def _rings(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    steps = np.arange(size) - size / 2
    radius_YX = np.hypot(steps[:, None], steps)
    outer_R = rng.uniform(0.2, 0.35, (RINGS, 1, 1)) * size
    mask_RYX = (radius_YX < outer_R) & (radius_YX > 0.6 * outer_R)
    image_RYX = rng.normal(200, 40, mask_RYX.shape) + 150 * mask_RYX
    return image_RYX.astype(np.int16), mask_RYX.astype(np.uint8)
