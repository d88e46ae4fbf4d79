"""A few test volumes of a fold, kept as pictures: image, true and predicted contour of the report.

cases.npz holds the volumes at the quarters of the fold's Dice, from the worst to the best, three levels each. So the
best and the worst of all folds are among them, and one close to the median. Grey levels and masks, nothing else.

Legend: C case, L level shown (base to apex), Y row, X column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.files import atomic

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
LEVELS = 3
NAME = "cases.npz"


@dataclass(frozen=True)
class Case:
    """A volume with its Dice, at a few of its levels."""

    patient: str
    phase: int
    dice: float
    image_LYX: np.ndarray
    """uint8, from the volume's 1st to its 99th percentile"""
    truth_LYX: np.ndarray
    prediction_LYX: np.ndarray


def chosen(dice_V: Sequence[float] | np.ndarray) -> list[int]:
    """Positions of the volumes to keep, from the lowest Dice to the highest; fewer where there are not so many."""
    order = np.argsort(dice_V, kind="stable")
    ranks = [round(q * (len(order) - 1)) for q in QUANTILES] if len(order) else []
    return [int(order[rank]) for rank in dict.fromkeys(ranks)]


def levels_shown(truth_ZYX: np.ndarray) -> np.ndarray:
    """Three levels with myocardium: the middles of the thirds from base to apex (with fewer levels some come twice)."""
    carrying = np.flatnonzero(truth_ZYX.any(axis=(1, 2)))
    return carrying[[int((third + 0.5) / LEVELS * len(carrying)) for third in range(LEVELS)]]


def case_of(
    patient: str, phase: int, dice: float, image_ZYX: np.ndarray, truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray
) -> Case:
    """The case of one volume. truth_ZYX must not be empty."""
    shown = levels_shown(truth_ZYX)
    dark, light = np.percentile(image_ZYX, [1, 99])
    grey_LYX = np.clip((image_ZYX[shown] - dark) / max(light - dark, 1) * 255, 0, 255).astype(np.uint8)
    return Case(patient, phase, dice, grey_LYX, truth_ZYX[shown].astype(bool), prediction_ZYX[shown].astype(bool))


def write(path: Path, cases: Sequence[Case]) -> None:
    """All cases of a fold in one compressed file."""
    fields = {name: np.array([getattr(case, name) for case in cases]) for name in Case.__dataclass_fields__}
    with atomic(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **fields)  # type: ignore[arg-type]


def read(path: Path) -> list[Case]:
    """The cases of a fold; none where the file is missing (a fold of an earlier version). ValueError if damaged."""
    if not path.exists():
        return []
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            columns = [file[name] for name in Case.__dataclass_fields__]
        return [Case(str(p), int(t), float(d), *arrays) for p, t, d, *arrays in zip(*columns, strict=True)]
    except Exception as error:  # numpy, zipfile and zlib each raise their own
        raise ValueError(f"{path}: damaged ({error}); remove the fold's folder and run the sweep again") from None
