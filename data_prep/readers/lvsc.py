"""The LVSC (STACOM 2011) layout: `DETnnnnnnn_SA<k>_ph<t>.dcm` with a PNG mask of the same stem.

k counts from 1 in the order of acquisition and says nothing about the anatomy; t counts from 0. Long-axis
files (`_LA<k>_`) are not short axis and are passed over. Masks are black and white, one or more channels.
"""

import csv
import io
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from data_prep.files import read_text
from data_prep.inventory import Inventory
from data_prep.keys import is_archive_code
from data_prep.readers import assemble, dicom
from data_prep.readers.found import Found, Options, first_source, unused, without_copies
from data_prep.study import Case, Frame, Notes, Study, StudyError

LAYOUT = "LVSC: DET0000101_SA1_ph0.dcm with its mask DET0000101_SA1_ph0.png"
CLASSES = 2
NAME = re.compile(r"(?P<case>.+)_SA(?P<level>\d+)_ph(?P<phase>\d+)\.(?P<kind>dcm|png)", re.IGNORECASE)
LONG_AXIS = re.compile(r".+_LA\d+_ph\d+\.(dcm|png)", re.IGNORECASE)
PHASES_CSV = re.compile(r"ED.?ES.*\.csv", re.IGNORECASE)
PROPORTION_TOLERANCE = 0.03

Place = tuple[int, int]
"""(slice number, phase number), as a file's name gives them"""


def find(inventory: Inventory, options: Options) -> Found:
    """Short-axis files, by case."""
    found = Found(source="lvsc", classes=CLASSES)
    cases: dict[str, list[tuple[re.Match[str], Path]]] = defaultdict(list)
    for path in inventory.files:
        if match := NAME.fullmatch(path.name):
            cases[match["case"].upper()].append((match, path))
        elif LONG_AXIS.fullmatch(path.name):
            found.ignored[path] = "long axis"
    tables = [path for path in inventory.files if PHASES_CSV.fullmatch(path.name)]
    phases: dict[str, tuple[int, int]] = {}
    if cases:
        for path in tables:
            if rows := _phases(inventory.root / path):
                phases.update(rows)
                found.used.add(path)
    for name, files in sorted(cases.items()):
        if any(match["kind"].lower() == "dcm" for match, _ in files):
            found.cases.append(_case(name, files, inventory.root, phases.get(name), options.keep_names))
        else:
            found.ignored.update({path: "a mask, and its case has no images" for _, path in files})
    found.source = first_source(found.cases, ".dcm") or found.source
    return found


def _phases(path: Path) -> dict[str, tuple[int, int]]:
    """Case -> phase numbers of ED and ES from a table whose header names ED and ES (its contents are not
    documented anywhere); empty where it is no such table."""
    try:
        rows = list(csv.reader(io.StringIO(read_text(path))))
    except (OSError, csv.Error):
        return {}
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    ed, es = (
        next((n for n, cell in enumerate(head) if re.search(rf"(^|[^a-z]){word}([^a-z]|$)|{long}", cell)), None)
        for word, long in (("ed", "diasto"), ("es", "systo"))
    )
    if ed is None or es is None:
        return {}
    made = {}
    for row in rows[1:]:
        code = next((cell.strip().upper() for cell in row if is_archive_code(cell.strip())), None)
        if code and max(ed, es) < len(row) and row[ed].strip().isdecimal() and row[es].strip().isdecimal():
            made[code] = (int(row[ed]), int(row[es]))
    return made


def _case(
    name: str, files: Iterable[tuple[re.Match[str], Path]], root: Path, ed_es: tuple[int, int] | None, shown: bool
) -> Case:
    """Labels are the files' own names where the case is an archive's; others could name a person."""
    labels: dict[str, Path] = {}
    places: dict[str, dict[Place, list[str]]] = {"dcm": defaultdict(list), "png": defaultdict(list)}
    own_names = shown or is_archive_code(name)
    for match, path in files:
        kind, place = match["kind"].lower(), (int(match["level"]), int(match["phase"]))
        public = path.name if own_names else f"SA{place[0]}_ph{place[1]}.{kind}"
        label = unused(labels, public)
        labels[label] = root / path
        places[kind][place].append(label)
    details = {"images": dict(places["dcm"]), "masks": dict(places["png"]), "ed_es": ed_es}
    return Case("lvsc", name, dict(sorted(labels.items())), details)


def read(case: Case) -> Study:
    """One case. StudyError names the file that cannot be used and why."""
    notes = Notes()
    kept = {*without_copies(case, notes)}
    images, masks = (_once(case, case.details[kind], kept) for kind in ("images", "masks"))
    for place in set(masks) - set(images):
        notes.mended[masks[place]] = "left out: a mask whose image is not there"
    frames: dict[Place, Frame] = {}
    sources = set()
    for place, label in images.items():
        mask_file = masks.get(place)
        mask_YX = None if mask_file is None else read_mask(case.files[mask_file], mask_file)
        frames[place], source = dicom.frame(case.files[label], label, mask_YX, mask_file)
        sources.add(source)
        if mask_YX is not None and mask_YX.shape != frames[place].image_YX.shape:
            assert mask_file is not None
            notes.mended[mask_file] = _other_size(frames[place])
    study = assemble.study("phantom" if sources == {"phantom"} else "lvsc", frames, notes)
    return study if case.details["ed_es"] is None else _with_ed_es(study, case.details["ed_es"])


def _once(case: Case, places: dict[Place, list[str]], kept: set[str]) -> dict[Place, str]:
    """Each place's one file. Two files are a fault, and so is a case in several folders: two people's slices must
    never become one study."""
    once: dict[Place, str] = {}
    homes: dict[Path, str] = {}
    for place, labels in places.items():
        for label in [label for label in labels if label in kept]:
            if place in once:
                raise StudyError(f"is there twice, as {once[place]} and this", label)
            once[place] = label
            homes.setdefault(case.files[label].parent, label)
    if len(homes) > 1:
        second = [*homes.values()][1]
        raise StudyError(f"its files lie in {len(homes)} folders: one case must lie in one folder", second)
    return once


def _with_ed_es(study: Study, wanted: tuple[int, int]) -> Study:
    """ED and ES as the archive's table gives them, by the numbers in the files' names."""
    if not {*wanted} <= {*study.phases} or wanted[0] == wanted[1]:
        study.notes.mended[study.levels[0].frames[0].file] = f"the archive's table of ED and ES has {wanted}: not used"
        return study
    ed, es = (study.phases.index(phase) for phase in wanted)
    return Study(study.source, study.phases, study.levels, study.notes, (ed, es, "the archive's table of ED and ES"))


def read_mask(path: Path, label: str) -> np.ndarray:
    """(Y, X) uint8, 1 where the first channel is not black."""
    try:
        content = dicom.read_bytes(path, label)
        _check_sums(content)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if max(image.size) > dicom.LARGEST_MATRIX:
                raise StudyError(f"is a mask of {image.size}, wanted at most {dicom.LARGEST_MATRIX}", label)
            # Black and white in every channel but a possible alpha: the first one tells.
            channels = (image.convert("RGB") if image.mode == "P" else image).split()
            if len(channels) > 2 and any(
                ImageChops.difference(channels[0], other).getbbox() for other in channels[1:3]
            ):
                raise StudyError("is a picture in colours, wanted a mask in black and white", label)
            values = np.asarray(channels[0])
    except StudyError:
        raise
    except Exception as error:  # PIL raises of every kind on a damaged file
        raise StudyError(f"not readable as a PNG mask ({type(error).__name__})", label) from error
    return (values > 0).view(np.uint8)


def _check_sums(png: bytes) -> None:
    """ValueError unless every chunk has its checksum: PIL does not look at those of the pixels."""
    at = 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if zlib.crc32(png[at + 4 : at + 8 + length]) != int.from_bytes(png[at + 8 + length : at + 12 + length], "big"):
            raise ValueError("checksum")
        at += 12 + length


def _other_size(frame: Frame) -> str:
    """The note on a mask on another matrix; StudyError where it cannot cover its image's field of view."""
    assert frame.mask_YX is not None
    mask, image = frame.mask_YX.shape, frame.image_YX.shape
    said = f"a mask of {mask[0]} x {mask[1]} on an image of {image[0]} x {image[1]}"
    if abs((mask[0] / image[0]) / (mask[1] / image[1]) - 1) > PROPORTION_TOLERANCE:
        raise StudyError(f"{said}: other proportions, so not the same field of view", frame.mask_file)
    return f"{said}: covers the same field of view"
