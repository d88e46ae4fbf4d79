"""What a verdict consists of. sweeps/verdict.py says what its keys mean in verdict.json."""

import math
from dataclasses import dataclass
from typing import Any

HIGHER_IS_BETTER = {"dice_val": True, "area_mad_mm2": False}
"""by metric"""
POSSIBLE = {"dice_val": (0.0, 1.0), "area_mad_mm2": (0.0, math.inf)}
"""by metric: the lowest and the highest value that there can be; no interval reaches beyond"""


@dataclass(frozen=True)
class Mean:
    """With its interval by patient; None where there is none, as bounds of very few patients."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Against:
    """A configuration minus another, paired by patient; the interval holds together with those of all pairs."""

    difference: float | None
    low: float | None
    high: float | None
    apart: bool
    """the interval leaves out 0"""
    unlike: bool
    """their folds were trained with another code, torch, device or precision"""


@dataclass(frozen=True)
class Row:
    """A configuration."""

    configuration: str
    label: str
    point: dict[str, Any]
    status: str
    reason: str
    """why it was stopped or failed"""
    folds_done: int
    mean: float | None
    """of the metric, as low and high"""
    low: float | None
    high: float | None
    dice_mean: float | None
    dice_low: float | None
    dice_high: float | None
    area_mad_mm2_mean: float | None
    area_mad_mm2_low: float | None
    area_mad_mm2_high: float | None
    against_best: Against | None
    against_paper: Against | None


@dataclass(frozen=True)
class LeftOut:
    """What would be concluded without the patients whose figures come from one fold's networks."""

    fold: int
    best: str | None
    winner: str | None
    changed: bool


@dataclass(frozen=True)
class Figures:
    """Of one configuration."""

    configuration: str
    dice: Mean
    area_mad_mm2: Mean


@dataclass(frozen=True)
class Conflict:
    """Between the gradients of the two tasks, by branch point."""

    cosine: dict[str, float]
    """configuration -> of the angle between them, mean over epochs and folds"""
    correlation: float
    """of ranks, with the metric; above 0: the less conflict, the better"""
    chance: float
    """of one as far from 0 where there is no relation"""


@dataclass(frozen=True)
class Verdict:
    """The answer of a sweep. Its fields are the keys of verdict.json, `text` apart."""

    answer: str
    question: str
    setting: str
    winner: str | None
    best: str | None
    tied: tuple[str, ...]
    more_patients: int | None
    paper_choice: str | None
    metric: str
    selection: str
    level: float
    comparisons: int
    patients: int
    dropped: int
    complete: bool
    more_to_come: bool
    configurations: tuple[Row, ...]
    leave_one_fold_out: tuple[LeftOut, ...]
    test: Figures | None
    optimism: Figures | None
    unlike: tuple[dict[str, str], ...]
    lost: tuple[dict[str, Any], ...]
    halved: tuple[str, ...]
    pareto: tuple[str, ...]
    conflict: Conflict | None = None
    plots: tuple[str, ...] = ()
    text: str = ""
    """all of it for a terminal; not in verdict.json"""
