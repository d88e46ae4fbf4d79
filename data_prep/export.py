"""A mask on the common grid -> a NIfTI where its images came from, so that it lies on them in any viewer; and a sheet.

A NIfTI's slices are equally far apart and share rows and columns. Where a series' slices do not quite, the first one's
plane is taken and the others' masks are moved in it by whole pixels; positions that are missing stay empty.

Legend: A structure, T phase, Z level, Y row, X column.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from data_prep import geometry, phases, preview
from data_prep.grid import Grid
from data_prep.newcases import NewCase
from data_prep.study import CLASSES, MYOCARDIUM, Level, StudyError

UNEVEN = 0.1
"""of the distance between slices, by which one may lie off"""


def labels(probability_A: np.ndarray) -> np.ndarray:
    """uint8, without the first axis: 1, 2, ... where that structure is the likeliest and likelier than none of them; of
    one structure where its probability is above 0.5."""
    none = 1 - probability_A.sum(axis=0, keepdims=True)
    return np.asarray(np.concatenate([none, probability_A]).argmax(axis=0), np.uint8)


def mask_image(levels: Sequence[Level], probability_ATZYX: np.ndarray, grid: Grid) -> sitk.Image:
    """uint8 labels, 4-D where there is more than one phase. levels: in the order of the array's Z, which is that of the
    image. StudyError where the slices lie so unevenly that no NIfTI holds them."""
    first = levels[0].frames[0]
    run, fall = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    centre_mm_Z = np.array([level.frames[0].centre_mm for level in levels])
    normal = geometry.slice_normal(first.orientation)
    if np.dot(normal, centre_mm_Z[-1] - centre_mm_Z[0]) < 0:
        normal = -normal  # a NIfTI's third axis may run against the right hand
    step_mm, place_Z = _places((centre_mm_Z - centre_mm_Z[0]) @ normal)
    count = int(place_Z[-1]) + 1
    mask_TZYX = np.zeros((probability_ATZYX.shape[1], count, *first.image_YX.shape), np.uint8)
    for z, (place, centre_mm) in enumerate(zip(place_Z, centre_mm_Z, strict=True)):
        off_mm = centre_mm - centre_mm_Z[0]
        rows, columns = (
            round(float(off_mm @ axis) / mm) for axis, mm in zip((fall, run), first.spacing_mm, strict=True)
        )
        for t in range(len(mask_TZYX)):
            there_A = [
                geometry.resample_YX(one_YX, grid.spacing_mm, first.spacing_mm, first.image_YX.shape, labels=False)
                for one_YX in probability_ATZYX[:, t, z]
            ]
            mask_TZYX[t, place] = _moved(labels(np.stack(there_A)), rows, columns)
    volumes = [_volume(mask_ZYX, first.spacing_mm, step_mm) for mask_ZYX in mask_TZYX]
    for volume in volumes:
        volume.SetOrigin(first.position_mm)
        volume.SetDirection(np.stack([run, fall, normal], axis=1).ravel().tolist())
    return volumes[0] if len(volumes) == 1 else sitk.JoinSeries(volumes)


def write_mask(case: NewCase, probability_ATZYX: np.ndarray, path: Path) -> None:
    """The case's mask as path, which ends in .nii.gz; for its owner alone. StudyError as of mask_image()."""
    image = mask_image(case.study.levels, np.stack([case.as_it_lay(one) for one in probability_ATZYX]), case.grid)
    path.touch(0o600)
    sitk.WriteImage(image, str(path), useCompression=True)


def write_sheet(
    case: NewCase, key: str, mask_TZYX: np.ndarray, structures: Sequence[str], check_TZ: np.ndarray, path: Path
) -> None:
    """Every level at the phases of the largest and the smallest cavity of the mask, as PNG for its owner alone.
    mask: labels, of which `structures` are the names; the first is the myocardium. check_TZ: slices to be marked."""
    rings = [[phases.ring(mask_YX == MYOCARDIUM) for mask_YX in volume] for volume in mask_TZYX]
    cavity_TZ = np.array([[ring.filled - ring.pixels for ring in volume] for volume in rings])
    ed, es, _ = phases.ed_es(cavity_TZ, np.ones_like(cavity_TZ, dtype=bool))
    shown = [t for t in dict.fromkeys((ed, es)) if t is not None] or [0]
    count, levels = check_TZ.shape
    view = preview.View(
        key=key,
        image_PZYX=case.image_TZYX[shown],
        mask_PZYX=mask_TZYX[shown].astype(np.uint8),
        labelled_PZ=np.ones((len(shown), levels), bool),
        phases=tuple(f"phase {t}" for t in shown),
        title=f"{key}: {count} phases, {levels} levels, {check_TZ.sum()} slices to check",
        check_PZ=check_TZ[shown],
    )
    preview.save(preview.sheet(view, (CLASSES[0], *structures)), path)


def _places(along_mm_Z: np.ndarray) -> tuple[float, np.ndarray]:
    """Distance between slices, and which multiple of it each one lies at."""
    steps_mm = np.diff(along_mm_Z)
    if not len(steps_mm) or steps_mm.min() < geometry.SAME_POSITION_MM:
        raise StudyError("its slices do not follow one another")
    place_Z = np.concatenate([[0], np.cumsum(np.rint(steps_mm / steps_mm.min()).astype(int))])
    step_mm = float(along_mm_Z[-1] / place_Z[-1])
    if np.abs(along_mm_Z - place_Z * step_mm).max() > UNEVEN * step_mm:
        low, high = steps_mm.min(), steps_mm.max()
        raise StudyError(f"its slices lie {low:.1f} to {high:.1f} mm apart: no NIfTI holds them")
    return step_mm, place_Z


def _moved(mask_YX: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """By whole pixels; what leaves the image is gone."""
    out = np.zeros_like(mask_YX)
    height, width = mask_YX.shape
    if abs(rows) < height and abs(columns) < width:
        to_y, to_x = (slice(max(n, 0), size + min(n, 0)) for n, size in ((rows, height), (columns, width)))
        from_y, from_x = (slice(max(-n, 0), size + min(-n, 0)) for n, size in ((rows, height), (columns, width)))
        out[to_y, to_x] = mask_YX[from_y, from_x]
    return out


def _volume(mask_ZYX: np.ndarray, spacing_mm: tuple[float, float], step_mm: float) -> sitk.Image:
    image = sitk.GetImageFromArray(mask_ZYX)
    image.SetSpacing((spacing_mm[1], spacing_mm[0], step_mm))
    return image
