"""Readers: a folder of files -> studies. One file per archive's layout.

Each has LAYOUT (a line that says it), find(inventory, options) -> Found, and read(case) -> Study.
"""

from typing import Protocol

from data_prep.inventory import Inventory
from data_prep.readers import lvsc, sunnybrook
from data_prep.readers.found import Found, Options
from data_prep.study import Case, Study


class Reader(Protocol):
    """What each of the modules offers."""

    LAYOUT: str

    def find(self, inventory: Inventory, options: Options) -> Found: ...

    def read(self, case: Case) -> Study: ...


READERS: dict[str, Reader] = {"lvsc": lvsc, "sunnybrook": sunnybrook}


def find(inventory: Inventory, name: str, options: Options) -> Found:
    """What the reader `name` finds, or with `auto` the first one that finds a study.

    ValueError where nothing is recognised, with what is there and a table to start from.
    """
    for reader in READERS.values() if name == "auto" else [READERS[name]]:
        found = reader.find(inventory, options)
        if found.cases:
            return found
    raise ValueError("not recognised")


def read(case: Case) -> Study:
    """A case's study, by the reader that found it."""
    return READERS[case.reader].read(case)
