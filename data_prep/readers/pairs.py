"""Images and the masks that were drawn on them -> a study: NIfTI on NIfTI, or NIfTI on a DICOM series."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from data_prep.readers import assemble, dicom, nifti, series
from data_prep.study import MYOCARDIUM, Case, Frame, Notes, Study, StudyError

BINARY = (1, 255)
"""Values that mean the myocardium where nothing else is said."""
KEPT_VOLUME = (0.5, 1.5)
"""Share of a mask's volume that must be found again on its image's grid."""


class Entry(NamedTuple):
    """A row of the table."""

    images: tuple[str, ...]
    """Labels of the image's files."""
    mask: str | None
    phase: str
    """As the table gives it."""
    series: bool
    """The image is a folder of DICOM files."""


def read(case: Case) -> Study:
    """A study from its rows."""
    rows: Sequence[Entry] = case.details["rows"]
    notes = Notes()
    if len({row.images for row in rows}) > 1:
        return _stills(case, rows, notes)
    return _series(case, rows, notes) if rows[0].series else _cine(case, rows, notes)


def _stills(case: Case, rows: Sequence[Entry], notes: Notes) -> Study:
    """3-D images, a phase each."""
    by_phase: dict[str, Entry] = {}
    for row in rows:
        phase = str(int(row.phase)) if row.phase.isdecimal() else row.phase.upper()
        if phase in by_phase:
            raise StudyError(f"has phase {row.phase} like another row of its subject", row.images[0])
        by_phase[phase] = row
    named = {*by_phase} <= {"ED", "ES"}
    if not named and not all(phase.isdecimal() for phase in by_phase):
        first_file = rows[0].images[0]
        raise StudyError("phase must be a number in every row of its subject, or ED or ES in every row", first_file)
    order = sorted(by_phase, key=lambda phase: phase if named else int(phase))  # type: ignore[return-value,arg-type]
    phases: list[list[Frame]] = []
    first: nifti.Volume | None = None
    for phase in order:
        (image, *_), mask, _, is_series = by_phase[phase]
        if is_series:
            raise StudyError("has a phase of its own, so it must be a 3-D NIfTI", image)
        volume = nifti.read(case.files[image], image)
        first = first or volume
        if len(volume.voxels_TZYX) != 1:
            raise StudyError(f"has {len(volume.voxels_TZYX)} phases; with a phase of its own it must be 3-D", image)
        if not volume.same_grid(first, place=True):
            raise StudyError(f"lies on another grid than {first.label}", image)
        drawn = _mask(case, mask, 1, "", image)
        phases.append(list(nifti.frames(volume, 0, _on_grid(drawn, volume, notes).get(0), mask)))
    known = ("ED" in by_phase or "ES" in by_phase) and named
    found = {name: order.index(name) if name in order else None for name in ("ED", "ES")}
    return Study(
        source="table",
        phases=tuple(range(len(order))) if named else tuple(int(phase) for phase in order),
        levels=nifti.levels(phases),
        notes=notes,
        ed_es=(found["ED"], found["ES"], "the table's phases") if known else None,
    )


def _cine(case: Case, rows: Sequence[Entry], notes: Notes) -> Study:
    """One NIfTI, and a mask of all its phases or a mask for each of some."""
    image = rows[0].images[0]
    volume = nifti.read(case.files[image], image)
    if len(volume.voxels_TZYX) == 1 and len(rows) == 1 and rows[0].phase:
        return _stills(case, rows, notes)
    masks = _masks(case, rows, len(volume.voxels_TZYX))
    by_phase: dict[int, tuple[np.ndarray, str]] = {}
    for drawn in masks:
        by_phase |= {t: (mask_ZYX, drawn.label) for t, mask_ZYX in _on_grid(drawn, volume, notes).items()}
    phases = [list(nifti.frames(volume, t, *by_phase.get(t, (None, None)))) for t in range(len(volume.voxels_TZYX))]
    return Study("table", tuple(range(len(phases))), nifti.levels(phases), notes)


def _series(case: Case, rows: Sequence[Entry], notes: Notes) -> Study:
    """One DICOM series; its masks are brought onto each slice by place."""
    headers = {}
    for label in rows[0].images:
        if dicom.read_bytes(case.files[label], label)[128:132] == b"DICM":
            headers[label] = dicom.header(case.files[label], label)
        else:
            notes.ignored[label] = "no DICOM file, in the folder of a series"
    if not headers:
        raise StudyError("its folder holds no DICOM file", next(iter(rows[0].images), None))
    if len(found := {header.series for header in headers.values()}) > 1:
        raise StudyError(f"its folder holds {len(found)} series; wanted one", next(iter(headers)))
    places = series.places(headers, {label: header.instance for label, header in headers.items()})
    masks = _masks(case, rows, 1 + max(phase for _, phase in places))
    frames: dict[tuple[int, int], Frame] = {}
    sources = set()
    for (level, phase), label in places.items():
        frame, source = dicom.frame(case.files[label], label)
        sources.add(source)
        drawn = next((m for m in masks if phase in m.phases), None)
        mask_YX = None if drawn is None else _on_slice(drawn, phase, frame)
        mask_file = None if mask_YX is None or drawn is None else drawn.label
        frames[level, phase] = replace(frame, mask_YX=mask_YX, mask_file=mask_file)
    for drawn in masks:
        if drawn.volume.voxels_TZYX.any() and not any(
            frame.mask_file == drawn.label and frame.mask_YX is not None and frame.mask_YX.any()
            for frame in frames.values()
        ):
            raise StudyError("does not lie where its image lies", drawn.label)
    return assemble.study("phantom" if sources == {"phantom"} else "table", frames, notes)


class _Drawn:
    """A mask, its values made classes, and the phases of the image that it labels."""

    def __init__(self, volume: nifti.Volume, phases: Sequence[int]) -> None:
        self.volume = volume
        self.phases = phases
        self.label = volume.label


def _masks(case: Case, rows: Sequence[Entry], count: int) -> list[_Drawn]:
    made: list[_Drawn] = []
    for row in rows:
        drawn = _mask(case, row.mask, count, row.phase, row.images[0])
        if drawn is None:
            continue
        if any({*drawn.phases} & {*other.phases} for other in made):
            raise StudyError("labels a phase that another row labels, too", drawn.label)
        made.append(drawn)
    return made


def _mask(case: Case, label: str | None, count: int, phase: str, image: str) -> _Drawn | None:
    """A row's mask; StudyError where it does not say which of the image's `count` phases it labels."""
    if phase and (not phase.isdecimal() or int(phase) >= count):
        raise StudyError(f"phase is {phase!r}, wanted a number from 0 to {count - 1}", image)
    if label is None:
        return None
    volume = nifti.read(case.files[label], label)
    drawn = len(volume.voxels_TZYX)
    if drawn not in (1, count) or (drawn > 1 and phase):
        raise StudyError(f"has {drawn} phases, its image has {count}", label)
    if drawn == 1 and count > 1 and not phase:
        raise StudyError("is a 3-D mask of a 4-D image: phase must say which one it labels", label)
    classes = nifti.Volume(
        _classes(volume, case.details["values"]), volume.spacing_mm, volume.origin_mm, volume.directions, label
    )
    return _Drawn(classes, [int(phase)] if phase else range(count))


def _classes(volume: nifti.Volume, values: Sequence[tuple[int, int]]) -> np.ndarray:
    """Labels of ours for the values of theirs."""
    theirs = volume.voxels_TZYX
    out = np.zeros(theirs.shape, np.uint8)
    if values:
        for label, value in values:
            out[theirs == value] = label
        if theirs.any() and not out.any():
            shown = ", ".join(f"{value:g}" for value in np.unique(theirs).tolist()[:6])
            raise StudyError(f"holds the values {shown}, and none that --label or dataset.json names", volume.label)
        return out
    there = [value for value in np.unique(theirs).tolist() if value != 0]
    if len(there) > 1 or not {*there} <= {*BINARY}:
        shown = ", ".join(f"{value:g}" for value in there[:6])
        raise StudyError(
            f"holds the values {shown}: say which is the myocardium, --label myocardium=VALUE", volume.label
        )
    out[theirs != 0] = MYOCARDIUM
    return out


def _on_grid(drawn: _Drawn | None, image: nifti.Volume, notes: Notes) -> dict[int, np.ndarray]:
    """Phase -> mask (Z, Y, X) on the image's grid. StudyError where the two do not lie at one place."""
    if drawn is None:
        return {}
    mask = drawn.volume
    at = list(drawn.phases)
    if mask.same_grid(image, place=True):
        return {phase: mask.voxels_TZYX[min(n, len(mask.voxels_TZYX) - 1)] for n, phase in enumerate(at)}
    turned = mask.same_box(image) and not mask.same_axes(image)
    if mask.voxels_TZYX.shape[1:] == image.voxels_TZYX.shape[1:] and not turned:
        raise StudyError("has its image's size, and its header gives another place: make the headers agree", mask.label)
    made = {}
    for n, phase in enumerate(at):
        t = min(n, len(mask.voxels_TZYX) - 1)
        made[phase] = nifti.resampled(mask, t, image)
        before, after = (
            float((voxels != 0).sum() * np.prod(volume.spacing_mm))
            for voxels, volume in ((mask.voxels_TZYX[t], mask), (made[phase], image))
        )
        if not KEPT_VOLUME[0] * before <= after <= KEPT_VOLUME[1] * before:
            raise StudyError(f"does not lie where its image lies ({after / before:.0%} of it does)", mask.label)
    how = "with axes that run another way" if turned else f"of {mask.grid} on an image of {image.grid}"
    notes.mended[mask.label] = f"a mask {how}: brought onto it by place"
    return made


def _on_slice(drawn: _Drawn, phase: int, frame: Frame) -> np.ndarray | None:
    """The mask on one DICOM slice; None where the slice lies beyond the mask's ends."""
    mask = drawn.volume
    t = min([*drawn.phases].index(phase), len(mask.voxels_TZYX) - 1)
    along = float(mask.directions[:, 2] @ (frame.centre_mm - mask.origin_mm)) / mask.spacing_mm[0]
    if not -0.5 <= along <= mask.voxels_TZYX.shape[1] - 0.5:
        return None
    run, fall = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    like = nifti.Volume(
        frame.image_YX[None, None],
        (1.0, *frame.spacing_mm),
        np.array(frame.position_mm),
        np.stack([run, fall, np.cross(run, fall)], axis=1),
        frame.file,
    )
    return np.asarray(nifti.resampled(mask, t, like)[0])
