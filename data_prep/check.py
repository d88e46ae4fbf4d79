"""Is a store sound? Every patient is held against the contract in store.py; then the counts.

    python -m data_prep.check STORE

Exit status: 0 sound, 2 damaged, of another version or missing (a line per fault on stderr),
130 interrupted.
"""

import argparse
import math
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from data_prep import store
from data_prep.ending import WRONG, command

PAPER = {"patients": 97, "volumes": 2191, "slices": 26664}
"""The paper's data (LVSC), for comparison."""


@dataclass
class Finding:
    """What was seen of one patient."""

    key: str
    faults: list[str] = field(default_factory=list)
    labelled_TZ: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    """Empty where it cannot be read."""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        return {
            "patients": 1,
            "volumes": self.labelled_TZ.shape[0],
            "slices": self.labelled_TZ.size,
            "labelled slices": int(self.labelled_TZ.sum()),
            "patients with ED": self.attributes.get("ed_phase") is not None,
            "patients with ES": self.attributes.get("es_phase") is not None,
        }


@dataclass(frozen=True)
class Report:
    """What was seen of a store."""

    root: store.Store
    findings: tuple[Finding, ...]

    def damaged(self) -> list[str]:
        """A line per fault: the patient, what is wrong, and what to do."""
        return [
            f"{finding.key}: {fault}; convert the raw data again"
            for finding in self.findings
            for fault in finding.faults
        ]

    def lines(self) -> list[str]:
        """The counts, beside the paper's where the data are the same."""
        each = [finding.counts() for finding in self.findings]
        (high, wide), (row_mm, column_mm) = self.root.size, self.root.spacing_mm
        said = [
            f"{self.root.path}: source {self.root.source}, {high} x {wide} pixels of {row_mm:g} x {column_mm:g} mm",
            f"classes: {', '.join(self.root.classes)}",
        ]
        for name in each[0]:
            beside = f"   (paper: {PAPER[name]:,})" if self.root.source == "lvsc" and name in PAPER else ""
            said.append(f"{name:<16}{sum(count[name] for count in each):>10,}{beside}")
        return [*said, "sound: every patient is as the contract says, digests included"]


def check(path: Path) -> Report:
    """Look at every patient, damaged or not. FileNotFoundError or ValueError where the store itself is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's own word on a folder it does not know: we say it better
        root = _root(path) or store.open(path)
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
        findings = tuple(_look(folder, root) for folder in folders)
        if not any(finding.faults for finding in findings):
            store.open(path)  # its last word; of several damaged patients it would leave zarr's tracebacks behind
    return Report(root, findings)


def _root(path: Path) -> store.Store | None:
    """What a store says of itself, its patients left out; None where store.open will say why it is none."""
    try:
        said: dict[str, Any] = dict(zarr.open_group(path, mode="r", zarr_format=3).attrs)
        high, wide = (int(n) for n in said["size"])
        row_mm, column_mm = (float(step) for step in said["spacing_mm"])
        classes = tuple(str(name) for name in said["classes"])
        found = store.Store(path, str(said["source"]), (row_mm, column_mm), (high, wide), classes, ())
    except Exception:  # whatever zarr and JSON make of a damaged file
        return None
    ours = (said.get("format"), said.get("version")) == (store.FORMAT, store.VERSION)
    return found if ours and min(found.spacing_mm) > 0 else None


def _look(folder: Path, root: store.Store) -> Finding:
    """One folder of the store."""
    finding = Finding(folder.name)
    try:
        patient = store.patient(folder)
        finding.attributes = patient.attributes
        finding.faults += [*_kinds(patient)] or [*_shapes(patient, root.size)]
        if not finding.faults:
            _read(patient, finding, len(root.classes))
    except FileNotFoundError:
        finding.faults.append("is no patient, or its zarr.json is lost")
    except Exception as error:  # whatever zarr and JSON make of a damaged file: the others are still looked at
        finding.faults.append(f"zarr.json cannot be read ({_short(error)})")
    return finding


def _kinds(patient: store.Patient) -> Iterator[str]:
    """Arrays that are lost or of another type."""
    for name, dtype in store.ARRAYS.items():
        try:
            array = patient.group.get(name)
        except Exception as error:
            yield f"{name}/zarr.json cannot be read ({_short(error)})"
            continue
        if not isinstance(array, zarr.Array):
            yield f"{name} is missing"
        elif array.dtype != np.dtype(dtype):
            yield f"{name} is of type {array.dtype}, wanted {np.dtype(dtype)}"


def _shapes(patient: store.Patient, size: tuple[int, int]) -> Iterator[str]:
    image, mask, labelled = (_array(patient, name).shape for name in store.ARRAYS)
    if len(image) != 4 or image[2:] != size:
        yield f"image_TZYX has the shape {image}, wanted phases, levels and the store's size {size}"
    if mask != image:
        yield f"mask_TZYX has the shape {mask}, wanted image_TZYX's {image}"
    if labelled != image[:2]:
        yield f"labelled_TZ has the shape {labelled}, wanted image_TZYX's phases and levels {image[:2]}"


def _read(patient: store.Patient, finding: Finding, classes: int) -> None:
    """Attributes and arrays of a patient whose arrays have the right shapes."""
    phases, levels = _array(patient, "labelled_TZ").shape
    finding.faults += _attributes(patient.attributes, phases, levels)
    arrays: dict[str, np.ndarray] = {}
    for name in store.ARRAYS:
        try:
            arrays[name] = patient.array(name)
            _array(patient, name)[0]  # through zarr as well, which checks the shard's index, as slices are read
        except Exception as error:
            arrays.pop(name, None)
            finding.faults.append(f"{name} cannot be read ({_short(error.__cause__ or error)})")
    finding.labelled_TZ = arrays.get("labelled_TZ", finding.labelled_TZ)
    if len(arrays) == len(store.ARRAYS):
        finding.faults += _contents(arrays, patient.attributes.get("digest"), classes)


def _contents(arrays: Mapping[str, np.ndarray], digest: object, classes: int) -> Iterator[str]:
    image_TZYX, mask_TZYX, labelled_TZ = (arrays[name] for name in store.ARRAYS)
    computed = store.digest(image_TZYX, mask_TZYX, labelled_TZ)
    if computed != digest:
        yield f"the arrays are not those that were written: their digest is {computed}, wanted {digest}"
    if (highest := int(mask_TZYX.max(initial=0))) >= classes:
        yield f"mask_TZYX holds the label {highest}, wanted labels below {classes}, the number of classes"
    if len(places := np.argwhere(mask_TZYX.any(axis=(2, 3)) & ~labelled_TZ)):
        t, z = places[0].tolist()
        yield f"mask_TZYX is not empty at {len(places)} unlabelled slices (first: phase {t}, level {z}), wanted zeros"


def _attributes(attributes: Mapping[str, Any], phases: int, levels: int) -> Iterator[str]:
    """Attributes that are missing or not as the contract says."""
    text: tuple[Callable[[Any], bool], str] = (lambda v: isinstance(v, str) and v != "", "a text")
    phase = (lambda v: v is None or (_is_number(v, int) and 0 <= v < phases), f"null or a phase below {phases}")
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "subject": text,
        "phase_rule": text,
        "z_rule": text,
        "ed_phase": phase,
        "es_phase": phase,
        "source_phases": (lambda v: _is_list(v, phases, int), f"{phases} whole numbers, one per phase"),
        "source_spacing_mm": (
            lambda v: isinstance(v, list) and len(v) == levels and all(_is_list(pair, 2, float) for pair in v),
            f"{levels} pairs of numbers, one per level",
        ),
        "slice_spacing_mm": (lambda v: _is_number(v, float) and v >= 0, "a finite number, 0 or more"),
    }
    for name, (holds, wanted) in rules.items():
        if name not in attributes:
            yield f"{name} is missing, wanted {wanted}"
        elif not holds(value := attributes[name]):
            got = f"has {len(value)} entries" if isinstance(value, list) else f"is {reprlib.repr(value)}"
            yield f"{name} {got}, wanted {wanted}"


def _is_number(value: object, kind: type[int] | type[float]) -> bool:
    """Finite; a float may be written without a point, and true is no number."""
    fits = isinstance(value, int) or (kind is float and isinstance(value, float))
    return fits and not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]


def _is_list(value: object, length: int, kind: type[int] | type[float]) -> bool:
    return isinstance(value, list) and len(value) == length and all(_is_number(v, kind) for v in value)


def _array(patient: store.Patient, name: str) -> "zarr.Array[Any]":
    array = patient.group[name]
    assert isinstance(array, zarr.Array)
    return array


def _short(error: BaseException) -> str:
    """An error in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@command("check", "nothing is known of the rest of the store")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.check",
        description=(__doc__ or "").split("\n")[0],
        epilog="Exit status: 0 sound, 2 damaged, of another version or missing, 130 interrupted.",
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="the zarr store to look at; it is only read")
    path = parser.parse_args(argv).store
    report = check(path)
    if damaged := report.damaged():
        print("\n".join(f"check: {line}" for line in damaged), file=sys.stderr)
        return WRONG
    print("\n".join(report.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
