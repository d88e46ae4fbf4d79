"""Sunnybrook Cardiac Data: DICOM, and contours as text files of x y pairs in pixels.

A contour's number is its image's in the short-axis series; the number before it says nothing. Inner contours
are drawn at ED and ES, outer ones at ED only, so the myocardium is labelled at ED. Folders nest differently in
every copy: what counts is a case code somewhere above the file (`SC-HF-I-1`, `SC-HF-I-01`, or `SCD0000101`
with the archive's table of both codes).
"""

import csv
import io
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np

from data_prep.files import read_text
from data_prep.inventory import Inventory
from data_prep.readers import assemble, contours, dicom, series
from data_prep.readers.dicom import Header
from data_prep.readers.found import Found, Options, first_source, unused, without_copies
from data_prep.study import MYOCARDIUM, Case, Frame, Notes, Study, StudyError

LAYOUT = "Sunnybrook: SC-HF-I-1/IM-0004-0048.dcm with contours SC-HF-I-01/.../IM-0001-0048-icontour-manual.txt"
CLASSES = 2
CODE = re.compile(r"SC-(?P<group>HF-I|HF-NI|HYP|N)-0*(?P<number>\d{1,2})", re.IGNORECASE)
COPY_CODE = re.compile(r"SCD\d{7}", re.IGNORECASE)
CONTOUR = re.compile(r"IM-\d+-(?P<number>\d+)-(?P<kind>[io])contour-manual\.txt", re.IGNORECASE)
OTHER_CONTOUR = re.compile(r"IM-\d+-\d+-(\w+contour-\w+|[io]contour-auto)\.txt", re.IGNORECASE)
NUMBER = re.compile(r"(?:IM-(?P<series>\d+)-)?(?P<number>\d+)\.dcm", re.IGNORECASE)
ENCLOSED = 0.9
"""Share of an inner contour that lies inside its outer one, at least; displaced ones have 0.4 to 0.8."""


def find(inventory: Inventory, options: Options) -> Found:
    """Images and contours below a case's code."""
    found = Found(source="sunnybrook", classes=CLASSES)
    original = _original_codes(inventory, found)
    images: dict[str, list[Path]] = defaultdict(list)
    drawn: dict[str, list[Path]] = defaultdict(list)
    spelled: dict[str, str] = {}
    for path in inventory.files:
        place = _code(path, original)
        if place is None:
            continue
        code, spelling = place
        if NUMBER.fullmatch(path.name):
            images[code].append(path)
            spelled[code] = spelling
        elif CONTOUR.fullmatch(path.name):
            drawn[code].append(path)
        elif OTHER_CONTOUR.fullmatch(path.name):
            found.ignored[path] = "not a manual contour of the left ventricle's walls"
    if not drawn and not any(CODE.fullmatch(code) for code in images):
        return found
    for code, paths in sorted(images.items()):
        found.cases.append(_case(code, spelled[code], paths, drawn.pop(code, []), inventory.root))
    found.ignored.update({path: "a contour, and its case has no images" for paths in drawn.values() for path in paths})
    found.source = first_source(found.cases, ".dcm") or found.source
    return found


def _original_codes(inventory: Inventory, found: Found) -> dict[str, str]:
    """SCD0000101 -> SC-HF-I-1, from the archive's table of patients."""
    original = {}
    for path in inventory.files:
        if path.suffix.lower() != ".csv":
            continue
        try:
            rows = list(csv.reader(io.StringIO(read_text(inventory.root / path))))
        except (OSError, csv.Error):
            continue
        head = [re.sub(r"[^a-z]", "", cell.lower()) for cell in rows[0]] if rows else []
        if {"patientid", "originalid"} <= set(head):
            mine, theirs = head.index("patientid"), head.index("originalid")
            for row in rows[1:]:
                if max(mine, theirs) < len(row) and (match := CODE.fullmatch(row[theirs].strip())):
                    original[row[mine].strip().upper()] = _plain(match)
            found.used.add(path)
    return original


def _plain(match: re.Match[str]) -> str:
    return f"SC-{match['group'].upper()}-{int(match['number'])}"


def _code(path: PurePath, original: dict[str, str]) -> tuple[str, str] | None:
    """The case that a file lies in, by the innermost folder that is a code, and how that folder spells it."""
    for part in reversed(path.parts[:-1]):
        if match := CODE.fullmatch(part):
            return _plain(match), part
        if COPY_CODE.fullmatch(part):
            return original.get(part.upper(), part.upper()), part
    return None


def _case(code: str, spelling: str, images: list[Path], drawn: list[Path], root: Path) -> Case:
    """Labels are the archive's own file names, which name nobody."""
    files: dict[str, Path] = {}
    numbers: dict[str, dict[str, int]] = {"image": {}, "i": {}, "o": {}}
    for path in sorted(images + drawn):
        label = unused(files, path.name)
        files[label] = root / path
        if match := CONTOUR.fullmatch(path.name):
            numbers[match["kind"].lower()][label] = int(match["number"])
        elif match := NUMBER.fullmatch(path.name):
            numbers["image"][label] = int(match["number"])
    stratum = match["group"].upper() if (match := CODE.fullmatch(code)) else ""
    return Case("sunnybrook", spelling.upper(), dict(sorted(files.items())), {"numbers": numbers}, stratum=stratum)


def read(case: Case) -> Study:
    """One case: the series that its contours are of, the ring between its contours at ED."""
    notes = Notes()
    kept = {*without_copies(case, notes)}
    numbers = {kind: {k: n for k, n in known.items() if k in kept} for kind, known in case.details["numbers"].items()}
    headers = {label: dicom.header(case.files[label], label) for label in numbers["image"]}
    inner, outer = (_by_number(numbers[kind]) for kind in ("i", "o"))
    chosen = _short_axis(headers, numbers["image"], {*inner, *outer})
    notes.ignored.update({label: "another series of its case" for label in headers if label not in chosen})
    there = {numbers["image"][label] for label in chosen}
    for contour in (inner, outer):
        notes.mended.update({c: "left out: no image has its number" for n, c in contour.items() if n not in there})
    frames: dict[tuple[int, int], Frame] = {}
    sources = set()
    for place, label in series.places(chosen, numbers["image"]).items():
        number = numbers["image"][label]
        if number in outer and number not in inner:
            notes.mended[outer.pop(number)] = "left out: no inner contour goes with it"
        frames[place], source = _frame(case, label, inner.get(number), outer.get(number))
        sources.add(source)
    return assemble.study("phantom" if sources == {"phantom"} else "sunnybrook", frames, notes)


def _by_number(labels: dict[str, int]) -> dict[int, str]:
    """Number -> label; StudyError where a contour is there twice."""
    made: dict[int, str] = {}
    for label, number in labels.items():
        if number in made:
            raise StudyError(f"is a second contour of image {number}", label)
        made[number] = label
    return made


def _short_axis(headers: dict[str, Header], numbers: dict[str, int], contoured: set[int]) -> dict[str, Header]:
    """The one series that is a stack of slices and has every contoured image that the case has.

    StudyError where there is none, or where several would do: contours on the wrong images would be worse.
    """
    by_series: dict[str, dict[str, Header]] = defaultdict(dict)
    for label, header in headers.items():
        match = NUMBER.fullmatch(re.sub(r" \(\d+\)$", "", label))
        by_series[header.series or str(match and match["series"])][label] = header
    wanted = contoured & set(numbers.values())
    fitting = []
    for members in by_series.values():
        mine = [numbers[label] for label in members]
        if not wanted <= {*mine} or len({*mine}) < len(mine):
            continue
        try:
            if len(series.positions(members)) >= min(3, len(members)):
                fitting.append(members)
        except StudyError:
            continue
    if len(fitting) != 1:
        how_many = "no series is a stack of parallel slices with" if not fitting else f"{len(fitting)} series have"
        raise StudyError(f"{how_many} all {len(wanted)} contoured images; leave the short-axis series in its folder")
    return fitting[0]


def _frame(case: Case, label: str, inner_file: str | None, outer_file: str | None) -> tuple[Frame, str]:
    frame, source = dicom.frame(case.files[label], label)
    shape = (frame.image_YX.shape[0], frame.image_YX.shape[1])
    inner_YX, outer_YX = (
        None if file is None else contours.filled(contours.read(case.files[file], file, shape), shape)
        for file in (inner_file, outer_file)
    )
    mask_YX, cavity_mm2 = None, None
    if outer_YX is not None and inner_YX is not None:
        share = (inner_YX & outer_YX).sum() / max(inner_YX.sum(), 1)
        if share < ENCLOSED:
            raise StudyError(f"does not enclose its inner contour ({share:.0%} of it): displaced", outer_file)
        mask_YX = (outer_YX & ~inner_YX).astype(np.uint8) * np.uint8(MYOCARDIUM)
    elif inner_YX is not None:
        cavity_mm2 = float(inner_YX.sum()) * frame.spacing_mm[0] * frame.spacing_mm[1]
    return replace(frame, mask_YX=mask_YX, mask_file=outer_file, cavity_mm2=cavity_mm2), source
