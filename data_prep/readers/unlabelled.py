"""New cases, on which nothing was drawn: a NIfTI, a folder of them, an archive's folder, or DICOM series as a scanner
exports them, at any depth.

Of DICOM every series that is a stack of FEWEST_LEVELS or more parallel slices is a case: long-axis views, which have
one position, and localisers, whose slices are not parallel, are passed over. Masks that lie there are not used.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from data_prep import inventory as inventories
from data_prep import readers
from data_prep.files import read
from data_prep.inventory import Inventory
from data_prep.readers import dicom, nifti, series
from data_prep.readers.dicom import Header
from data_prep.readers.found import Options
from data_prep.readers.pairs import Entry
from data_prep.study import Case, Level, Study, StudyError

FEWEST_LEVELS = 3
"""slice positions that are a short-axis stack"""
ARCHIVES = ("lvsc", "sunnybrook", "acdc")
WANTED = "wanted a short-axis cine: a NIfTI (.nii, .nii.gz), or a folder of NIfTIs or DICOM files"


def find(path: Path) -> list[Case]:
    """The cases in `path`, nothing read yet but what orders files. ValueError or OSError where there are none."""
    if path.is_file():
        if not nifti.is_nifti(path.name):
            raise ValueError(f"{path}: {WANTED}")
        return [_nifti(path.parent, Path(path.name))]
    inventory = inventories.take(path)
    for name in ARCHIVES:
        if found := readers.READERS[name].find(inventory, Options()).cases:
            return found
    if volumes := [_nifti(path, file) for file in inventory.files if nifti.is_nifti(file.name)]:
        return volumes
    if stacks := _stacks(inventory):
        return stacks
    raise ValueError(f"{path}: no short-axis stack in it ({FEWEST_LEVELS} or more parallel slices); {WANTED}")


def read_study(case: Case) -> Study:
    """Its study without masks. StudyError where it is no stack."""
    study = readers.read(case)
    levels = tuple(
        Level(tuple(replace(frame, mask_YX=None, mask_file=None, cavity_mm2=None) for frame in level.frames))
        for level in study.levels
    )
    if len(levels) < FEWEST_LEVELS:
        raise StudyError(f"has {len(levels)} slice positions; a short-axis stack has {FEWEST_LEVELS} or more")
    return replace(study, levels=levels, ed_es=None)


def _nifti(root: Path, file: Path) -> Case:
    ending = next(ending for ending in (".nii.gz", ".nii") if file.name.lower().endswith(ending))
    return _case(str(file)[: -len(ending)], {f"image{ending}": root / file}, is_series=False)


def _case(name: str, files: dict[str, Path], *, is_series: bool) -> Case:
    """As a row of a table without a mask would be."""
    rows = (Entry(tuple(files), None, "", is_series),)
    return Case("table", name, files, {"rows": rows, "values": ()}, subject=name)


def _stacks(inventory: Inventory) -> list[Case]:
    """DICOM series that are stacks, in the order of their first files."""
    headers: dict[str, dict[str, Header]] = defaultdict(dict)
    paths: dict[str, Path] = {}
    for number, file in enumerate(inventory.files, start=1):
        label, path = f"image {number}.dcm", inventory.root / file
        try:
            if read(path)[128:132] != b"DICM":
                continue
            found = dicom.header(path, label)
        except (OSError, ValueError, StudyError):
            continue  # a report, a screen shot, a file that cannot be read: no slice with a place
        paths[label] = path
        headers[found.series][label] = found
    return [
        _case(f"series {number}", {label: paths[label] for label in sorted(of_one)}, is_series=True)
        for number, of_one in enumerate(headers.values(), start=1)
        if _is_stack(of_one)
    ]


def _is_stack(of_one: dict[str, Header]) -> bool:
    try:
        return len(series.positions(of_one)) >= FEWEST_LEVELS
    except StudyError:
        return False
