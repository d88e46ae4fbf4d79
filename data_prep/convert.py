"""Raw cine studies -> the zarr store.

    python -m data_prep.convert RAW STORE [--spacing-mm 1.5625] [--size 192]

RAW is searched at any depth for the LVSC layout (DICOM and PNG). A study that cannot be used is set aside
with its reason and the others go on. Exit status: 0 all went in, 3 some were set aside, 2 wrong arguments
or nothing to convert.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from data_prep import geometry, phases, store
from data_prep.readers import lvsc
from data_prep.study import Study, StudyError

SPACING_MM, SIZE = 1.5625, 192  # paper, section 2.1

INT16 = np.iinfo(np.int16)

Track = Callable[[list[Any]], Iterable[Any]]


@dataclass
class Summary:
    """What a conversion did."""

    studies: int = 0
    volumes: int = 0
    slices: int = 0
    labelled: int = 0
    set_aside: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Arrays:
    """A study on the common grid, ready for the store."""

    image_TZYX: np.ndarray
    mask_TZYX: np.ndarray
    labelled_TZ: np.ndarray
    attributes: dict[str, Any]
    notes: list[str]


def convert(raw: Path, path: Path, spacing_mm: float = SPACING_MM, size: int = SIZE, track: Track = iter) -> Summary:
    """Convert every study below `raw`; ValueError when there is none that can be used.

    track: wraps the list of studies to show progress.
    """
    if path.exists():
        raise FileExistsError(f"store {path}: exists already; remove it or name another")
    if not raw.is_dir():
        raise FileNotFoundError(f"raw folder {raw}: no such folder; give the folder that holds the archive")
    found = list(lvsc.studies(raw))
    if not found:
        raise ValueError(
            f"raw folder {raw}: no short-axis image found; wanted files named like DET0000101_SA1_ph0.dcm at any depth"
        )
    summary = Summary()
    grid = ((spacing_mm, spacing_mm), (size, size))
    first, rest = _first_usable(found, summary)
    with store.create(path, source=first.source, spacing_mm=grid[0], size=grid[1], classes=first.classes) as out:
        for key, files in track([(first.key, None), *rest]):
            try:
                study = first if files is None else lvsc.read(key, files)
                if study.source != first.source:
                    raise StudyError(f"comes from {study.source!r}, the store holds {first.source!r}")
                arrays = on_grid(study, *grid)
            except (StudyError, ValueError, RuntimeError, MemoryError) as error:
                summary.set_aside.append(f"{key}: {error}")
                continue
            out.add(key, arrays.image_TZYX, arrays.mask_TZYX, arrays.labelled_TZ, arrays.attributes)
            summary.studies += 1
            summary.volumes += arrays.labelled_TZ.shape[0]
            summary.slices += arrays.labelled_TZ.size
            summary.labelled += int(arrays.labelled_TZ.sum())
            summary.notes += arrays.notes
        if not summary.studies:
            raise ValueError(f"raw folder {raw}: no study can be used; the first: {summary.set_aside[0]}")
    return summary


def _first_usable(found: list[Any], summary: Summary) -> tuple[Study, list[Any]]:
    """The first study that can be read (it says what the store's source is) and the files of the others."""
    for n, (key, files) in enumerate(found):
        try:
            return lvsc.read(key, files), found[n + 1 :]
        except StudyError as error:
            summary.set_aside.append(f"{key}: {error}")
    raise ValueError(f"no study can be read; the first: {summary.set_aside[0]}")


def on_grid(study: Study, spacing_mm: tuple[float, float], size: tuple[int, int]) -> Arrays:
    """A study's levels in order from base to apex, resampled, with everything the store keeps of it."""
    areas = [_areas(level.mask_TYX, level.labelled_T, level.spacing_mm) for level in study.levels]
    ring_TZ, filled_TZ = (np.stack(values, axis=1) for values in zip(*areas, strict=True))
    labelled_TZ = np.stack([level.labelled_T for level in study.levels], axis=1)
    filled_mm2 = filled_TZ.sum(axis=0) / np.maximum(labelled_TZ.sum(axis=0), 1)
    order, z_rule = geometry.base_to_apex(study.levels, filled_mm2)
    ed, es, phase_rule = phases.ed_es(ring_TZ, filled_TZ, labelled_TZ)
    levels = [study.levels[n] for n in order]
    images, masks = [], []
    notes: list[str] = []
    for z, level in enumerate(levels):
        image = geometry.resample_TYX(level.image_TYX, level.spacing_mm, spacing_mm, size, labels=False)
        if image.max() > INT16.max or image.min() < INT16.min:
            notes.append(f"{study.key}: level {z}: grey levels beyond int16 are cut off")
        images.append(np.clip(np.rint(image), INT16.min, INT16.max).astype(np.int16))
        masks.append(geometry.resample_TYX(level.mask_TYX, level.spacing_mm, spacing_mm, size, labels=True))
        if _cut_off(level, masks[-1], spacing_mm):
            notes.append(f"{study.key}: level {z}: the mask reaches beyond the {size[0]} x {size[1]} grid")
    attributes = {
        "subject": study.key,
        "stratum": None,
        "slice_spacing_mm": geometry.slice_spacing_mm(geometry.heights_mm(levels)),
        "source_spacing_mm": [list(level.spacing_mm) for level in levels],
        "source_phases": list(study.phases),
        "ed_phase": ed,
        "es_phase": es,
        "phase_rule": phase_rule,
        "z_rule": z_rule,
    }
    return Arrays(np.stack(images, axis=1), np.stack(masks, axis=1), labelled_TZ[:, order], attributes, notes)


def _areas(
    mask_TYX: np.ndarray, labelled_T: np.ndarray, spacing_mm: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Area of the ring and inside its outer contour per phase, mm2."""
    pixel_mm2 = spacing_mm[0] * spacing_mm[1]
    filled = [phases.filled_pixels(m) if seen else 0 for m, seen in zip(mask_TYX, labelled_T, strict=True)]
    return (mask_TYX > 0).sum(axis=(1, 2)) * pixel_mm2, np.array(filled) * pixel_mm2


def _cut_off(level: Any, mask_TYX: np.ndarray, spacing_mm: tuple[float, float]) -> bool:
    """Whether the mask lost area at the grid's border: it touches the border and the field of view is larger."""
    edge = mask_TYX[:, [0, -1], :].any() or mask_TYX[:, :, [0, -1]].any()
    extent_mm = np.multiply(level.image_TYX.shape[1:], level.spacing_mm)
    return bool(edge and (extent_mm > np.multiply(mask_TYX.shape[1:], spacing_mm)).any())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data_prep.convert", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("raw", type=Path, metavar="RAW", help="folder with the archive, searched at any depth")
    parser.add_argument("store", type=Path, metavar="STORE", help="the zarr store to make")
    parser.add_argument("--spacing-mm", type=float, default=SPACING_MM, help="pixel size (default %(default)s)")
    parser.add_argument("--size", type=int, default=SIZE, help="rows and columns (default %(default)s)")
    args = parser.parse_args(argv)
    begin = time.monotonic()
    try:
        if not 0.1 <= args.spacing_mm <= 20:
            raise ValueError(f"--spacing-mm is {args.spacing_mm}, wanted 0.1 to 20 (mm)")
        store.check_size("--size", args.size)
        summary = convert(
            args.raw,
            args.store,
            args.spacing_mm,
            args.size,
            track=lambda found: track(found, description="converting", transient=True),
        )
    except (OSError, ValueError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("convert: interrupted; nothing was written", file=sys.stderr)
        return 130
    for line in [*summary.notes, *(f"set aside: {line}" for line in summary.set_aside)]:
        print(line)
    print(
        f"{summary.studies} studies, {summary.volumes} volumes, {summary.slices} slices ({summary.labelled} "
        f"labelled), {len(summary.set_aside)} set aside, {time.monotonic() - begin:.1f} s: {args.store}"
    )
    return 3 if summary.set_aside else 0


if __name__ == "__main__":
    sys.exit(main())
