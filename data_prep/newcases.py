"""New cases for a network: found, named, read, ordered from base to apex, on the network's grid. export.py leads back.

Legend: T phase, Z level from base to apex, Y row, X column.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep import geometry, keys
from data_prep import grid as grids
from data_prep.readers import unlabelled
from data_prep.study import Case, Study, StudyError

__all__ = ["Case", "NewCase", "StudyError", "find", "read", "write_names"]


@dataclass(frozen=True)
class NewCase:
    """A study as a network sees it, and how it lay before."""

    study: Study
    order: list[int]
    """places of the levels in the study, from base to apex"""
    grid: grids.Grid
    image_TZYX: np.ndarray
    """int16 grey levels"""

    def as_it_lay(self, array_TZYX: np.ndarray) -> np.ndarray:
        """Levels in the study's own order again."""
        return array_TZYX[:, [self.order.index(place) for place in range(len(self.order))]]


def find(path: Path, out: Path, *, keep_names: bool) -> dict[str, Case]:
    """By key: an archive's own code, else P001, P002, ... (as in the list beside `out`), or what the files are called.
    ValueError or OSError where there is no case."""
    cases = unlabelled.find(path)
    named = keys.assign(out, [case.name for case in cases], keep_names)
    return {named[case.name]: case for case in cases}


def write_names(out: Path, found: dict[str, Case]) -> None:
    """The list that leads from keys back to names, beside `out`."""
    keys.write(out, {case.name: key for key, case in found.items()})


def read(case: Case, spacing_mm: tuple[float, float], size: tuple[int, int]) -> NewCase:
    """StudyError where it cannot be used."""
    study, grid = unlabelled.read_study(case), grids.Grid(spacing_mm, size)
    order, _ = geometry.base_to_apex(study.levels, np.zeros(len(study.levels)))
    return NewCase(study, [int(place) for place in order], grid, grids.arrays(study, grid).image_TZYX)
