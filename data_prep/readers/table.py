"""A user's own data: a CSV that says what is whose, or an nnU-Net raw folder, which is read as one.

    subject,image,mask,phase,stratum
    anna,anna_cine.nii.gz,anna_ed.nii.gz,0,healthy
    anna,anna_cine.nii.gz,anna_es.nii.gz,8,healthy
    bert,bert/series_12,bert_mask.nii.gz,,ill

Paths are relative to the table. `image` is a 3-D or 4-D NIfTI or the folder of one DICOM series. A 4-D mask
labels all phases; a 3-D mask of a 4-D image says in `phase` which one it labels, counted from 0. Rows of one
subject whose images differ are the phases of one study where each has its `phase` (a number, or ED, ES) and no
image is named twice; else each image is a study of its own, and all of them are the subject's. `mask`, `phase`
and `stratum` may be empty.
"""

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from data_prep.files import read_text
from data_prep.inventory import Inventory
from data_prep.readers import nifti, nnunet, pairs
from data_prep.readers.found import Found, Options, Row, first_source
from data_prep.study import CLASSES as ALL_CLASSES
from data_prep.study import Case, Study

LAYOUT = "table: a CSV with the columns subject,image,mask,phase,stratum; or an nnU-Net folder (imagesTr, labelsTr)"
COLUMNS = ("subject", "image", "mask", "phase", "stratum")
TEMPLATE = "subject,image,mask,phase,stratum\nP001,P001/cine.nii.gz,P001/ed_mask.nii.gz,0,"


def find(inventory: Inventory, options: Options) -> Found:
    """The table's rows, or an nnU-Net folder's. ValueError where the table itself is at fault."""
    found = Found(source="table", classes=2)
    lists = [path for path in inventory.files if path.suffix.lower() == ".csv"]
    tables = [path for path in lists if _is_table(inventory.root / path)]
    if len(tables) > 1:
        raise ValueError(f"raw folder {inventory.root}: {len(tables)} tables; wanted one, give its path as RAW")
    labels = dict(options.labels)
    if tables:
        rows = _rows(inventory.root / tables[0])
        found.used.add(tables[0])
    else:
        rows, own_labels = nnunet.rows(inventory, found, ask=not labels)
        labels = labels or own_labels
    if not rows:
        return found
    if len({*labels.values()}) < len(labels):
        raise ValueError(f"two classes have one value: {labels}; wanted a value of its own for each")
    if labels and ALL_CLASSES[1] not in labels:
        raise ValueError("--label names no myocardium; wanted --label myocardium=VALUE among them")
    found.classes = 1 + max((ALL_CLASSES.index(name) for name in labels), default=1)
    found.cases = _cases(rows, labels)
    found.source = first_source(found.cases, ".dcm") or found.source
    return found


def _is_table(path: Path) -> bool:
    try:
        head = next(csv.reader(read_text(path).splitlines()[:1]), [])
    except (OSError, csv.Error):
        return False
    if {"subject", "image"} <= {cell.strip().lower() for cell in ";".join(head).split(";")} and len(head) == 1:
        raise ValueError(f"{path}: its columns are not separated by commas; save it as CSV with commas")
    return {"subject", "image"} <= {cell.strip().lower() for cell in head}


def _rows(path: Path) -> list[Row]:
    try:
        lines = list(csv.DictReader(io.StringIO(read_text(path))))
    except (OSError, csv.Error) as error:
        raise ValueError(f"{path}: not readable as CSV; save it as UTF-8 with commas") from error
    rows = []
    for number, line in enumerate(lines, start=2):
        cells = {(key or "").strip().lower(): (value or "").strip() for key, value in line.items() if key is not None}
        if unknown := sorted({*cells} - {*COLUMNS}):
            raise ValueError(f"{path}: column {unknown[0]!r}, wanted {','.join(COLUMNS)}")
        if not cells["subject"] or not cells["image"]:
            raise ValueError(f"{path}: line {number} has no subject or no image")
        image, *masks = (
            Path(os.path.normpath(path.parent / cells[name])) for name in ("image", "mask") if cells.get(name)
        )
        mask = masks[0] if masks else None
        rows.append(Row(number, cells["subject"], image, mask, cells.get("phase", ""), cells.get("stratum", "")))
    if not rows:
        raise ValueError(f"{path}: has no rows; wanted at least one image")
    return rows


def _cases(rows: Sequence[Row], labels: dict[str, int]) -> list[Case]:
    owner: dict[Path, Row] = {}
    for row in rows:
        if owner.setdefault(row.image, row).subject != row.subject:
            raise ValueError(f"the table's lines {owner[row.image].line} and {row.line} give two subjects one image")
    by_subject: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_subject[row.subject].append(row)
    values = tuple(sorted((ALL_CLASSES.index(name), value) for name, value in labels.items()))
    made = []
    for subject, mine in sorted(by_subject.items()):
        images = Counter(row.image for row in mine)
        if len(images) == len(mine) and all(row.phase for row in mine):
            made.append(_case(subject, subject, mine, values))
            continue
        for n, image in enumerate(images, start=1):
            name = subject if len(images) == 1 else f"{subject}-{n}"
            made.append(_case(name, subject, [row for row in mine if row.image == image], values))
    return made


def _case(name: str, subject: str, rows: Sequence[Row], values: tuple[tuple[int, int], ...]) -> Case:
    """Labels give the line of the table: the names of a user's files could name a person."""
    files: dict[str, Path] = {}
    images: dict[Path, tuple[str, ...]] = {}
    entries = []
    masks = {row.mask for row in rows}
    for row in rows:
        if row.image not in images:
            parts = _parts(row.image, masks)
            what = [f"line {row.line} image{_suffix(path, n, len(parts))}" for n, path in enumerate(parts, start=1)]
            files.update(zip(what, parts, strict=True))
            images[row.image] = tuple(what)
        mask = None
        if row.mask is not None:
            mask = f"line {row.line} mask{_suffix(row.mask, 1, 1)}"
            files[mask] = row.mask
        entries.append(pairs.Entry(images[row.image], mask, row.phase, _is_folder(row.image)))
    stratum = next((row.stratum for row in rows if row.stratum), "")
    details = {"rows": tuple(entries), "values": values}
    return Case("table", name, files, details, subject=subject, stratum=stratum)


def _parts(image: Path, masks: Collection[Path | None]) -> list[Path]:
    """The file, or the files of a series' folder that may be its images; what cannot be looked at is found out when
    it is read."""
    if not _is_folder(image):
        return [image]
    try:
        there = sorted(path for path in image.iterdir() if path.is_file())
    except OSError:
        return [image]
    other = {path for path in there if path in masks or nifti.is_nifti(path.name) or path.name.upper() == "DICOMDIR"}
    return [path for path in there if path not in other and not path.name.startswith(".")] or [image]


def _is_folder(image: Path) -> bool:
    try:
        return image.is_dir()
    except (OSError, ValueError):
        return False


def _suffix(path: Path, n: int, count: int) -> str:
    if nifti.is_nifti(path.name):
        return ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
    return f" {n}.dcm" if count > 1 or path.suffix.lower() == ".dcm" else ""


def read(case: Case) -> Study:
    """One study of the table."""
    return pairs.read(case)
