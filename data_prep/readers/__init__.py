"""Readers: a folder of files -> studies. One file per archive's layout.

Each has LAYOUT (a line that says it), find(inventory, options) -> Found, and read(case) -> Study.
"""

import re
from collections import Counter
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


READERS: dict[str, Reader] = {"lvsc": lvsc, "sunnybrook": sunnybrook, "acdc": acdc, "table": table}


def find(inventory: Inventory, name: str, options: Options) -> Found:
    """What the reader `name` finds; with `auto` the one that finds a study: a table first, for it says what is what.

    ValueError where nothing is recognised, with what is there and a table to start from, or where archives of two
    kinds lie side by side.
    """
    if name != "auto":
        chosen = {name: READERS[name].find(inventory, options)}
    else:
        chosen = {known: reader.find(inventory, options) for known, reader in READERS.items()}
    fitting = {known: found for known, found in chosen.items() if found.cases}
    if "table" in fitting:
        fitting = {"table": fitting["table"]}
    elif options.labels:
        raise ValueError("--label is for a table of own masks; this archive's labels are known")
    if len(fitting) > 1:
        raise ValueError(
            f"raw folder {inventory.root}: holds {' and '.join(fitting)}; say which with --reader {next(iter(fitting))}"
        )
    if not fitting:
        raise ValueError(_unrecognised(inventory, [READERS[known].LAYOUT for known in chosen]))
    return next(iter(fitting.values()))


def read(case: Case) -> Study:
    """A case's study, by the reader that found it."""
    return READERS[case.reader].read(case)


def _unrecognised(inventory: Inventory, layouts: list[str]) -> str:
    kinds = Counter(_kind(path.name) for path in inventory.files)
    there = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6)) or "no file"
    return (
        f"raw folder {inventory.root}: no layout recognised; found {there}; wanted {' | '.join(layouts)}. For your own "
        f"data write a CSV and give it as RAW, beginning with: {table.TEMPLATE!r}"
    )


def _kind(name: str) -> str:
    """A file's ending, where it is one and no part of a name."""
    match = re.search(r"(\.nii\.gz|\.[A-Za-z0-9]{1,5})$", name)
    return match[1].lower() if match else "without an ending"
