"""ACDC 2017: `patient001/{Info.cfg, patient001_4d.nii.gz, patient001_frame01.nii.gz, patient001_frame01_gt.nii.gz}`.

Ground truth at ED and ES only; frames count from 1. Its labels are 1 right ventricle, 2 myocardium, 3 left
ventricle; ours are 1 myocardium, 2 left ventricle, 3 right ventricle.
"""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from data_prep.files import read_text
from data_prep.inventory import Inventory
from data_prep.readers import nifti
from data_prep.readers.dicom import PHANTOM_MANUFACTURER
from data_prep.readers.found import Found, Options, unused, without_copies
from data_prep.study import CLASSES as ALL_CLASSES
from data_prep.study import LEFT_VENTRICLE, MYOCARDIUM, RIGHT_VENTRICLE, Case, Frame, Notes, Study, StudyError

LAYOUT = "ACDC: patient001/Info.cfg, patient001_4d.nii.gz, patient001_frame01.nii.gz, patient001_frame01_gt.nii.gz"
CLASSES = len(ALL_CLASSES)
NAME = re.compile(
    r"(?P<case>patient\d{3})_(?:(?P<whole>4d)|frame(?P<frame>\d+)(?P<mask>_gt)?)\.nii(\.gz)?", re.IGNORECASE
)
GROUPS = {"NOR", "MINF", "DCM", "HCM", "RV"}
LABELS = np.array([0, RIGHT_VENTRICLE, MYOCARDIUM, LEFT_VENTRICLE], np.uint8)
"""Ours, by theirs."""


def find(inventory: Inventory, options: Options) -> Found:
    """Patients by the codes in their files' names; Info.cfg lies beside them."""
    found = Found(source="acdc", classes=CLASSES)
    cases: dict[str, dict[str, Path]] = defaultdict(dict)
    homes: dict[Path, set[str]] = defaultdict(set)
    for path in inventory.files:
        if match := NAME.fullmatch(path.name):
            code = match["case"].lower()
            cases[code][unused(cases[code], path.name)] = inventory.root / path
            homes[path.parent].add(code)
    for path in inventory.files:
        if path.name.lower() == "info.cfg" and len(codes := homes.get(path.parent, set())) == 1:
            (code,) = codes
            cases[code][unused(cases[code], "Info.cfg")] = inventory.root / path
    for code, files in sorted(cases.items()):
        if any((match := NAME.fullmatch(label)) and (match["whole"] or match["mask"]) for label in files):
            info = _info(files.get("Info.cfg"))
            group = info.get("group", "").upper()
            stratum = group if group in GROUPS else ""
            found.cases.append(Case("acdc", code, dict(sorted(files.items())), {"info": info}, stratum=stratum))
            found.source = _source(info)
    return found


def _source(info: dict[str, str]) -> str:
    """`phantom` where the phantom has signed Info.cfg."""
    return "phantom" if info.get("manufacturer") == PHANTOM_MANUFACTURER else "acdc"


def _info(path: Path | None) -> dict[str, str]:
    """`ED: 1` lines, names in lower case; what cannot be read is found missing where it is wanted."""
    try:
        lines = read_text(path).splitlines() if path else []
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if ":" in line)
    wanted = {"ed", "es", "group", "manufacturer"}
    return {k: value.strip()[:32] for key, _, value in pairs if (k := key.strip().lower()) in wanted}


def read(case: Case) -> Study:
    """One patient: the 4-D image, or where that is missing the frames that have an image of their own."""
    notes = Notes()
    whole, stills, truth = _parts(without_copies(case, notes))
    if whole is not None:
        cine = nifti.read(case.files[whole], whole)
        numbers = list(range(1, len(cine.voxels_TZYX) + 1))
        images = {number: (cine, number - 1) for number in numbers}
        notes.ignored.update(dict.fromkeys(stills.values(), "its image is a phase of the 4-D one"))
    elif stills:
        numbers = sorted(stills)
        images = {number: (nifti.read(case.files[stills[number]], stills[number]), 0) for number in numbers}
        notes.mended.update(dict.fromkeys(stills.values(), "no 4-D image: the frames stand for it"))
    else:
        raise StudyError("has ground truth and no images")
    if beyond := sorted(set(truth) - set(numbers)):
        raise StudyError(f"is of frame {beyond[0]}, and the images have {len(numbers)}", truth[beyond[0]])
    phases = [_phase(case, images[number], images[numbers[0]][0], truth.get(number)) for number in numbers]
    return Study(
        source=_source(case.details["info"]),
        phases=tuple(numbers),
        levels=nifti.levels(phases),
        notes=notes,
        ed_es=_ed_es(case.details["info"], sorted(truth) or numbers, numbers),
    )


def _parts(labels: list[str]) -> tuple[str | None, dict[int, str], dict[int, str]]:
    """The 4-D image, images and ground truth by frame. StudyError where one of them is there in two files."""
    parts: dict[tuple[str, int], str] = {}
    for label in labels:
        if match := NAME.fullmatch(label):
            kind = "whole" if match["whole"] else "truth" if match["mask"] else "still"
            first = parts.setdefault((kind, int(match["frame"] or 0)), label)
            if first != label:
                raise StudyError(f"is the same image as {first}, or another under its name: leave one", label)
    stills, truth = ({n: label for (k, n), label in parts.items() if k == kind} for kind in ("still", "truth"))
    return parts.get(("whole", 0)), stills, truth


def _phase(case: Case, image: tuple[nifti.Volume, int], first: nifti.Volume, truth: str | None) -> list[Frame]:
    volume, t = image
    if not volume.same_grid(first, place=True):
        raise StudyError(f"lies on another grid than {first.label}", volume.label)
    if truth is None:
        return list(nifti.frames(volume, t, None, None))
    mask = nifti.read(case.files[truth], truth)
    if len(mask.voxels_TZYX) != 1 or not mask.same_grid(volume, place=False):
        raise StudyError(f"is a mask of {mask.grid}, its image has {volume.grid} or other spacings", truth)
    if not mask.same_axes(volume):
        raise StudyError("its axes run another way than its image's: make the headers agree", truth)
    values = np.unique(mask.voxels_TZYX)
    if not np.isin(values, np.arange(len(LABELS))).all():
        raise StudyError(f"holds the labels {values[:6].tolist()}, wanted 0 to {len(LABELS) - 1}", truth)
    return list(nifti.frames(volume, t, LABELS[mask.voxels_TZYX[0].astype(np.uint8)], truth))


def _ed_es(info: dict[str, str], drawn: list[int], numbers: list[int]) -> tuple[int, int, str] | None:
    """As Info.cfg gives them; None, for the rule by volume, where it does not, or names frames nobody drew on."""
    wanted = [info.get(name, "") for name in ("ed", "es")]
    if not all(value.isdecimal() and int(value) in drawn for value in wanted):
        return None
    ed, es = (numbers.index(int(value)) for value in wanted)
    return ed, es, "Info.cfg"
