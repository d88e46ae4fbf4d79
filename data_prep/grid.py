"""A study -> the arrays of the store: base to apex, one in-plane grid, areas, ED and ES.

Legend: T phase, Z level from base to apex, Y row, X column.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_prep import geometry, phases
from data_prep.study import LEFT_VENTRICLE, MYOCARDIUM, RIGHT_VENTRICLE, Frame, Level, Study, StudyError

SPACING_MM, SIZE = 1.5625, 192  # paper, section 2.1
INT16 = np.iinfo(np.int16)
COARSEST, FINE = 100.0, 1000.0
"""Grey levels with fractions below the first are scaled until they reach the second."""


@dataclass(frozen=True)
class Grid:
    """The common in-plane grid."""

    spacing_mm: tuple[float, float] = (SPACING_MM, SPACING_MM)
    size: tuple[int, int] = (SIZE, SIZE)


@dataclass(frozen=True)
class Arrays:
    """A study on the common grid, ready for the store."""

    image_TZYX: np.ndarray
    mask_TZYX: np.ndarray
    labelled_TZ: np.ndarray
    attributes: dict[str, Any]
    warnings: dict[str, str]
    """File's label -> what the user should know though nothing could be mended: cut-off masks and grey levels."""


def arrays(study: Study, grid: Grid) -> Arrays:
    """A study's levels in order from base to apex, resampled, with everything the store keeps of it.

    Notes open rings in `study.notes`. StudyError where the images are no numbers.
    """
    areas = _areas(study)
    labelled_TZ = np.array([[frame.mask_YX is not None for frame in level.frames] for level in study.levels]).T
    order, z_rule = geometry.base_to_apex(study.levels, areas.filled_mm2_Z())
    ed, es, phase_rule = study.ed_es or phases.ed_es(areas.cavity_TZ, areas.known_TZ & areas.sound_Z())
    levels = _scaled([study.levels[n] for n in order], study)
    image_TZYX = np.zeros((len(study.phases), len(levels), *grid.size), np.int16)
    mask_TZYX = np.zeros(image_TZYX.shape, np.uint8)
    warnings: dict[str, str] = {}
    for z, level in enumerate(levels):
        for t, frame in enumerate(level.frames):
            _put(frame, grid, image_TZYX[t, z], mask_TZYX[t, z], z, warnings)
    height_mm = geometry.heights_mm(levels)
    for n in geometry.gaps(height_mm):
        gap_mm = abs(height_mm[n + 1] - height_mm[n])
        said = f"level {n + 1}: lies {gap_mm:.1f} mm from the one before, the others less: slices are missing"
        warnings.setdefault(levels[n + 1].frames[0].file, said)
    attributes = {
        "slice_spacing_mm": geometry.slice_spacing_mm(height_mm),
        "source_spacing_mm": [list(level.frames[0].spacing_mm) for level in levels],
        "source_phases": list(study.phases),
        "ed_phase": ed,
        "es_phase": es,
        "phase_rule": phase_rule,
        "z_rule": z_rule,
    }
    return Arrays(image_TZYX, mask_TZYX, labelled_TZ[:, order], attributes, warnings)


def _scaled(levels: list[Level], study: Study) -> list[Level]:
    """Grey levels that whole numbers would not tell apart (0 to 1, say) times a power of ten, the same everywhere."""
    frames = [frame for level in levels for frame in level.frames if frame.image_YX.dtype.kind == "f"]
    largest = max((float(np.abs(frame.image_YX).max()) for frame in frames), default=0.0)
    if not 0 < largest < COARSEST or all((frame.image_YX == np.rint(frame.image_YX)).all() for frame in frames):
        return levels
    factor = 10.0 ** math.ceil(math.log10(FINE / largest))
    for frame in frames:
        study.notes.mended[frame.file] = f"grey levels up to {largest:.3g}: stored {factor:g} times as large"
    return [
        Level(tuple(replace(frame, image_YX=frame.image_YX * np.float32(factor)) for frame in level.frames))
        for level in levels
    ]


def _put(frame: Frame, grid: Grid, image_YX: np.ndarray, mask_YX: np.ndarray, z: int, warnings: dict[str, str]) -> None:
    """One frame into its place of the arrays."""
    grey_YX = geometry.resample_YX(frame.image_YX, frame.spacing_mm, grid.spacing_mm, grid.size, labels=False)
    np.rint(grey_YX, out=grey_YX)
    if not np.can_cast(frame.image_YX.dtype, np.int16):
        if not np.isfinite(grey_YX).all():
            raise StudyError("its grey levels are not all finite numbers", frame.file)
        if grey_YX.max() > INT16.max or grey_YX.min() < INT16.min:
            warnings[frame.file] = f"level {z}: grey levels beyond int16 are cut off"
            np.clip(grey_YX, INT16.min, INT16.max, out=grey_YX)
    image_YX[:] = grey_YX
    if frame.mask_YX is None or not frame.mask_YX.any():
        return
    label_YX = geometry.resample_YX(frame.mask_YX, frame.mask_spacing_mm, grid.spacing_mm, grid.size, labels=True)
    if _cut_off(frame, grid):
        said = f"level {z}: the mask reaches beyond the {grid.size[0]} x {grid.size[1]} grid and is cut off there"
        warnings[frame.mask_file or frame.file] = said
    mask_YX[:] = label_YX


def _cut_off(frame: Frame, grid: Grid) -> bool:
    """Whether a mask pixel's centre lies outside the grid's field of view."""
    assert frame.mask_YX is not None
    for axis, (step_mm, to_mm, size) in enumerate(zip(frame.mask_spacing_mm, grid.spacing_mm, grid.size, strict=True)):
        n = frame.mask_YX.shape[axis]
        if n * step_mm <= size * to_mm:
            continue
        seen = np.flatnonzero(frame.mask_YX.any(axis=1 - axis))
        reach_mm = max(abs(float(k) - (n - 1) / 2) for k in (seen[0], seen[-1])) * step_mm if len(seen) else 0.0
        if reach_mm > size * to_mm / 2:
            return True
    return False


class _Areas:
    """What the masks tell of every slice, mm2 (T, Z)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.filled_TZ = np.zeros(shape)
        """inside the outer contour"""
        self.closed_TZ = np.zeros(shape, bool)
        """a closed ring around a cavity"""
        self.cavity_TZ = np.zeros(shape)
        self.known_TZ = np.zeros(shape, bool)
        """the cavity is known"""

    def sound_Z(self) -> np.ndarray:
        """Levels where most rings that were drawn are closed; all levels, where not even two are like that.

        What is drawn beyond the ventricle's end is often a fragment, and says nothing of the heart's size.
        """
        drawn_TZ = self.filled_TZ > 0
        sound_Z = drawn_TZ.any(axis=0) & (2 * self.closed_TZ.sum(axis=0) >= drawn_TZ.sum(axis=0))
        return np.asarray(sound_Z if sound_Z.sum() >= 2 else np.ones_like(sound_Z))

    def filled_mm2_Z(self) -> np.ndarray:
        """Mean area inside the outer contour of each sound level, 0 where it is not known."""
        used_TZ = (self.filled_TZ > 0) & self.sound_Z()
        return np.asarray((self.filled_TZ * used_TZ).sum(axis=0) / np.maximum(used_TZ.sum(axis=0), 1))


def _areas(study: Study) -> _Areas:
    areas = _Areas((len(study.phases), len(study.levels)))
    for z, level in enumerate(study.levels):
        for t, frame in enumerate(level.frames):
            if frame.mask_YX is not None:
                areas.filled_TZ[t, z], areas.cavity_TZ[t, z], areas.closed_TZ[t, z] = _frame_areas(study, frame)
                areas.known_TZ[t, z] = True
            elif frame.cavity_mm2 is not None:
                areas.cavity_TZ[t, z], areas.known_TZ[t, z] = frame.cavity_mm2, True
    return areas


def _frame_areas(study: Study, frame: Frame) -> tuple[float, float, bool]:
    """Inside the outer contour, of the cavity, and whether the ring is closed."""
    assert frame.mask_YX is not None
    pixel_mm2 = frame.mask_spacing_mm[0] * frame.mask_spacing_mm[1]
    mask_YX = frame.mask_YX
    cavity = int((mask_YX == LEFT_VENTRICLE).sum()) if mask_YX.max(initial=0) > MYOCARDIUM else 0
    heart_YX = mask_YX * (mask_YX != RIGHT_VENTRICLE) if cavity else mask_YX == MYOCARDIUM
    ring = phases.ring(heart_YX)
    if ring.open and not cavity:
        noted = frame.mask_file or frame.file
        study.notes.mended.setdefault(noted, "an open ring: its convex hull counts for the cavity's volume")
    closed = bool(cavity) or (ring.filled > ring.pixels and not ring.open)
    return ring.filled * pixel_mm2, (cavity or ring.filled - ring.pixels) * pixel_mm2, closed
