"""The LVSC (STACOM 2011) layout: `DETnnnnnnn_SA<k>_ph<t>.dcm` with a PNG mask of the same stem beside it.

k counts from 1 in the order of acquisition and says nothing about the anatomy; t counts from 0. Long-axis
files (`_LA<k>_`) are not short axis and are passed over. Masks are black and white, one or more channels.
"""

import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from data_prep import geometry
from data_prep.study import Level, Study, StudyError

NAME = re.compile(r"(?P<case>.+)_SA(?P<level>\d+)_ph(?P<phase>\d+)\.dcm", re.IGNORECASE)
ARCHIVE_KEY = re.compile(r"DET\d{7}")
POSITION_TOLERANCE_MM, DIRECTION_TOLERANCE = 0.1, 1e-3
"""How far one slice's geometry may differ between phases: rounding, no movement of the table."""
PHANTOM_MANUFACTURER = "Branchpoint phantom"
"""The phantom signs its files with this, so that a store of made-up patients says so wherever it goes."""


@dataclass(frozen=True)
class Frame:
    """One slice at one phase, as read."""

    image_YX: np.ndarray
    mask_YX: np.ndarray | None
    spacing_mm: tuple[float, float]
    position_mm: tuple[float, float, float]
    orientation: tuple[float, ...]
    source: str


Files = dict[tuple[int, int], list[Path]]
"""A case's files by (slice number, phase), as their names give them; more than one is a fault."""


def find(raw: Path) -> dict[str, Files]:
    """Short-axis files below `raw`, by case."""
    cases: dict[str, Files] = {}
    for folder, _, names in sorted(os.walk(raw)):
        for name in sorted(names):
            if match := NAME.fullmatch(name):
                place = (int(match["level"]), int(match["phase"]))
                case = cases.setdefault(match["case"].upper(), {})
                case.setdefault(place, []).append(Path(folder, name))
    return dict(sorted(cases.items()))


def keys_of(cases: list[str]) -> list[str]:
    """The archive's own case codes; any other name could name a person and becomes P001, P002, ..."""
    return [c if ARCHIVE_KEY.fullmatch(c) else f"P{n:03d}" for n, c in enumerate(cases, start=1)]


def read(key: str, found: Files) -> Study:
    """One case. StudyError names the file that cannot be used and why."""
    if twice := [paths for paths in found.values() if len(paths) > 1]:
        folders = " and ".join(sorted({path.parent.name for path in twice[0]}))
        raise StudyError(f"{twice[0][0].name} is there twice, in {folders}: one case must lie in one folder")
    if len(homes := {paths[0].parent for paths in found.values()}) > 1:
        raise StudyError(f"its files lie in {len(homes)} folders: one case must lie in one folder")
    files = {place: paths[0] for place, paths in found.items()}
    numbers = sorted({level for level, _ in files})
    phases = sorted({phase for _, phase in files})
    missing = [(n, p) for n in numbers for p in phases if (n, p) not in files]
    if missing:
        n, p = missing[0]
        raise StudyError(f"slice {n} has no image at phase {p} ({len(missing)} of its images are missing)")
    sources: set[str] = set()
    levels = []
    for number in numbers:
        frames = [read_frame(files[number, phase]) for phase in phases]
        sources.update(frame.source for frame in frames)
        levels.append(_level(frames, files[number, phases[0]].name))
    source = "phantom" if sources == {"phantom"} else "lvsc"
    return Study(key=key, source=source, phases=tuple(phases), levels=tuple(levels))


def _level(frames: list[Frame], name: str) -> Level:
    """Stack one slice's phases; a mask on another grid is brought onto its image's."""
    first = frames[0]
    for frame in frames[1:]:
        if frame.image_YX.shape != first.image_YX.shape or frame.spacing_mm != first.spacing_mm:
            raise StudyError(
                f"{name}: matrix {frame.image_YX.shape} at {frame.spacing_mm} mm in one phase, "
                f"{first.image_YX.shape} at {first.spacing_mm} mm in another"
            )
        if not np.allclose(frame.position_mm, first.position_mm, atol=POSITION_TOLERANCE_MM) or not np.allclose(
            frame.orientation, first.orientation, atol=DIRECTION_TOLERANCE
        ):
            raise StudyError(f"{name}: its position or orientation changes from phase to phase")
    empty = np.zeros(first.image_YX.shape, np.uint8)
    return Level(
        image_TYX=np.stack([frame.image_YX for frame in frames]),
        mask_TYX=np.stack([empty if frame.mask_YX is None else frame.mask_YX for frame in frames]),
        labelled_T=np.array([frame.mask_YX is not None for frame in frames]),
        spacing_mm=first.spacing_mm,
        position_mm=first.position_mm,
        orientation=first.orientation,
    )


def read_frame(path: Path) -> Frame:
    """A DICOM file and, if it lies beside it, its mask."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # real files hold UIDs with leading zeros; we store no UID
            dataset = pydicom.dcmread(path)
            image_YX = dataset.pixel_array.astype(np.float32)
            spacing_mm = tuple(float(v) for v in dataset.PixelSpacing)
            position_mm = tuple(float(v) for v in dataset.ImagePositionPatient)
            orientation = tuple(float(v) for v in dataset.ImageOrientationPatient)
            slope, intercept = (
                float(dataset.get("RescaleSlope", 1)),
                float(dataset.get("RescaleIntercept", 0)),
            )
            made_up = dataset.get("Manufacturer", "") == PHANTOM_MANUFACTURER
    except Exception as error:  # pydicom and its codecs raise of every kind on a damaged or compressed file
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise StudyError(f"{path.name}: not readable as a DICOM image with geometry ({why})") from error
    if image_YX.ndim != 2 or len(spacing_mm) != 2 or len(position_mm) != 3 or len(orientation) != 6:
        raise StudyError(f"{path.name}: not one slice with PixelSpacing, position and orientation")
    if not np.isfinite([*spacing_mm, *position_mm, *orientation]).all() or min(spacing_mm) <= 0:
        raise StudyError(f"{path.name}: PixelSpacing {spacing_mm}, position {position_mm}: not a geometry")
    return Frame(
        image_YX * slope + intercept,
        _read_mask(path, image_YX.shape),
        spacing_mm,
        position_mm,
        orientation,
        "phantom" if made_up else "lvsc",
    )


def _read_mask(image_path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    path = next((p for suffix in (".png", ".PNG") if (p := image_path.with_suffix(suffix)).is_file()), None)
    if path is None:
        return None
    try:
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise StudyError(f"{path.name}: not readable as a PNG mask") from error
    # Black and white in every channel but a possible alpha: the first one tells.
    mask_YX = np.asarray(mask.reshape(*mask.shape[:2], -1)[..., 0] > 0, np.uint8)
    if mask_YX.shape == shape:
        return mask_YX
    # Another size covers the same field of view: its pixels are larger or smaller by the ratio.
    pixel = (shape[0] / mask_YX.shape[0], shape[1] / mask_YX.shape[1])
    stack = geometry.resample_TYX(mask_YX[None], pixel, (1.0, 1.0), (shape[0], shape[1]), labels=True)
    return np.asarray(stack[0])


def studies(raw: Path) -> Iterator[tuple[str, Files]]:
    """Keys and files of every case, in the order of the keys."""
    cases = find(raw)
    yield from zip(keys_of(list(cases)), cases.values(), strict=True)
