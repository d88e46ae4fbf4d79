"""Readers: a folder of files -> studies. One file per archive's layout.

Each has LAYOUT (a line that says it), find(inventory, options) -> Found, and read(case) -> Study.
"""

from collections import Counter
from pathlib import Path
from typing import Protocol

from data_prep.inventory import Inventory
from data_prep.readers import acdc, lvsc, sunnybrook, table
from data_prep.readers.found import Found, Options
from data_prep.study import Case, Study


class Reader(Protocol):
    """What each of the modules offers."""

    LAYOUT: str

    def find(self, inventory: Inventory, options: Options) -> Found: ...

    def read(self, case: Case) -> Study: ...


ENDINGS = (
    *(".nii.gz", ".nii", ".dcm", ".ima", ".png", ".csv", ".txt", ".json", ".mhd", ".mha", ".nrrd", ".hdr", ".img"),
    *(".mat", ".h5", ".npy", ".npz", ".jpg", ".jpeg", ".tif", ".bmp", ".zip", ".tar", ".gz", ".xz", ".xml", ".cfg"),
)
READERS: dict[str, Reader] = {"lvsc": lvsc, "sunnybrook": sunnybrook, "acdc": acdc, "table": table}


def find(inventory: Inventory, name: str, options: Options) -> Found:
    """What the reader `name` finds; with `auto` the one that finds a study.

    ValueError where nothing is recognised, with what is there and a table to start from, or where archives of two
    kinds lie side by side.
    """
    fitting: dict[str, Found] = {}
    for known in READERS if name == "auto" else [name]:
        # A CSV among an archive's files may be anything: a table is looked for where no archive is.
        if known == "table" and fitting:
            break
        found = READERS[known].find(inventory, options)
        if found.cases:
            fitting[known] = found
    if options.labels and fitting and "table" not in fitting:
        raise ValueError("--label is for a table of own masks; this archive's labels are known")
    if len(fitting) > 1:
        raise ValueError(
            f"raw folder {inventory.root}: holds {' and '.join(fitting)}; say which with --reader {next(iter(fitting))}"
        )
    if not fitting:
        raise ValueError(_unrecognised(inventory, [READERS[k].LAYOUT for k in READERS if name in ("auto", k)]))
    return next(iter(fitting.values()))


def read(case: Case) -> Study:
    """A case's study, by the reader that found it."""
    return READERS[case.reader].read(case)


def _unrecognised(inventory: Inventory, layouts: list[str]) -> str:
    kinds = Counter(_kind(path.name) for path in inventory.files)
    there = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6)) or "no file"
    if inventory.unreadable:
        where, why = next(iter(inventory.unreadable.items()))
        there += (
            f", and {len(inventory.unreadable)} folders that cannot be read ({'RAW itself: ' * (where == Path())}{why})"
        )
    return (
        f"raw folder {inventory.root}: no layout recognised; found {there}; wanted {' | '.join(layouts)}. For your own "
        f"data write a CSV and give it as RAW, beginning with: {table.TEMPLATE!r}"
    )


def _kind(name: str) -> str:
    """A file's ending, where it is a common one: others could be part of a name."""
    return next((ending for ending in ENDINGS if name.lower().endswith(ending)), "other")
