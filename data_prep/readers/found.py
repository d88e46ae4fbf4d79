"""What a reader finds below RAW, before it reads any of it."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from data_prep.readers import dicom
from data_prep.study import Case, Notes, StudyError


@dataclass(frozen=True)
class Options:
    """What the command line says to readers."""

    labels: Mapping[str, int] = field(default_factory=dict)
    """Class name -> value in a user's own masks."""
    keep_names: bool = False


@dataclass
class Found:
    """A reader's answer to an inventory; without cases it does not recognise what is there."""

    source: str
    classes: int
    """How many of study.CLASSES its masks hold, background included."""
    cases: list[Case] = field(default_factory=list)
    ignored: dict[Path, str] = field(default_factory=dict)
    """Files that belong to no study, relative to RAW, and the rule."""
    used: set[Path] = field(default_factory=set)
    """Files that serve more than one study."""


def unused(labels: Collection[str], name: str) -> str:
    """`name`, or with a number behind it where it is a label already."""
    if name not in labels:
        return name
    return next(label for n in count(2) if (label := f"{name} ({n})") not in labels)


def without_copies(case: Case, notes: Notes) -> list[str]:
    """The case's labels without files that are there again under the same name.

    StudyError where the two differ: they could be two people's.
    """
    kept: dict[str, str] = {}
    for label in sorted(case.files, key=lambda label: case.files[label]):
        name = re.sub(r" \(\d+\)$", "", label)
        first = kept.setdefault(name, label)
        if first == label:
            continue
        if dicom.read_bytes(case.files[label], label) != dicom.read_bytes(case.files[first], first):
            raise StudyError("is there twice, and the two differ: one case must lie in one folder", label)
        notes.ignored[label] = f"a copy of {first}"
    return sorted(kept.values())


def first_source(cases: Iterable[Case], suffix: str) -> str:
    """`phantom` where the first readable DICOM file of the cases is signed by the phantom."""
    for case in cases:
        for label, path in case.files.items():
            if label.lower().endswith(suffix):
                try:
                    return dicom.header(path, label).source
                except StudyError:
                    continue
    return ""


@dataclass(frozen=True)
class Row:
    """One image of a user's own, and what was drawn on it."""

    line: int
    subject: str
    image: Path
    """A NIfTI file, or the folder of one DICOM series."""
    mask: Path | None
    phase: str
    """A number, ED, ES, or empty."""
    stratum: str
