"""What the run folders of a sweep say, as far as its verdict needs it: how each fold ended, and every volume's figures.

Legend: V a volume (Dice) or a slice (area).
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_prep.files import read
from mtl.config import Config, flat
from mtl.runfolder import RunFolder, read_settings
from mtl.structures import COLUMN
from sweeps import alike
from sweeps.asked import Asked, Proposed
from sweeps.results import status

Key = tuple[str, ...]
"""patient, phase; of a slice its level, too; where there are several structures, whose figure it is"""
Measurement = tuple[Key, int, float]
"""key, fold, value"""
AGAIN = "remove the fold's folder and run the sweep again"


@dataclass(frozen=True)
class Values:
    """A figure of a configuration's volumes or slices in one set, all folds together."""

    key_V: tuple[Key, ...]
    fold_V: np.ndarray
    """whose network they come from"""
    value_V: np.ndarray
    """NaN where there is none"""

    @cached_property
    def patient_V(self) -> np.ndarray:
        return np.array([key[0] for key in self.key_V], dtype=np.str_)

    @cached_property
    def folds_of(self) -> dict[str, set[int]]:
        """Patient -> the folds that its values come from."""
        made: dict[str, set[int]] = {}
        for key, fold in zip(self.key_V, self.fold_V.tolist(), strict=True):
            made.setdefault(key[0], set()).add(fold)
        return made

    def by_key(self) -> dict[Key, float]:
        return dict(zip(self.key_V, self.value_V.tolist(), strict=True))


@dataclass(frozen=True)
class Fold:
    """How a fold ended."""

    name: str
    """configuration/fold_k"""
    outcome: str | None
    reason: str
    lost: list[str]
    """files that are gone; then it counts as not done"""
    trained_with: dict[str, str]
    """code, torch, device, precision; empty where it is not done"""
    halved: bool
    """trained in half micro-batches for want of memory"""

    @property
    def done(self) -> bool:
        return self.outcome == "DONE" and not self.lost


@dataclass(frozen=True)
class Measured:
    """A configuration."""

    proposed: Proposed
    folds: tuple[Fold, ...]
    config: dict[str, Any]
    """its settings by dotted name; those of the point where none of its folds has begun"""
    runs: tuple[RunFolder, ...]
    selection: str
    """validation or test"""

    @cached_property
    def selected(self) -> dict[str, Values]:
        """dice_val and area_mad_mm2 on the set that selects. All folds must be done."""
        return self._values(test=self.selection == "test")

    @cached_property
    def tested(self) -> dict[str, Values]:
        """The same on the test set; empty where that is what selects. All folds must be done."""
        return {} if self.selection == "test" else self._values(test=True)

    def _values(self, *, test: bool) -> dict[str, Values]:
        area = "area_seg_mm2" if self.config.get("model.branch") == "none" else "area_reg_mm2"
        return {"dice_val": _dice(self.runs, test), "area_mad_mm2": _area_errors(self.runs, area, test)}

    @property
    def name(self) -> str:
        return self.proposed.name

    @property
    def label(self) -> str:
        return self.proposed.label

    @property
    def status(self) -> str:
        return status([fold.outcome for fold in self.folds], whole=not any(fold.lost for fold in self.folds))

    @property
    def done(self) -> list[Fold]:
        return [fold for fold in self.folds if fold.done]


def measured(sweep_folder: Path, asked: Asked) -> list[Measured]:
    """Every configuration, in the order in which they were proposed. ValueError names a file that is damaged."""
    return [_measured(sweep_folder / one.name, one, asked) for one in asked.configurations]


def _measured(folder: Path, proposed: Proposed, asked: Asked) -> Measured:
    count = int(proposed.point.get("train.folds", asked.folds))
    runs = tuple(RunFolder(folder / f"fold_{k}") for k in range(count))
    config = {**proposed.point, **_config(runs)}
    selection = str(config.get("protocol.selection", asked.selection))
    return Measured(proposed, tuple(_fold(run) for run in runs), config, runs, selection)


def _fold(run: RunFolder) -> Fold:
    outcome, lost = run.outcome(), run.lost()
    try:
        facts = run.facts()
        name, reason = f"{run.path.parent.name}/{run.path.name}", str(facts.get("reason", ""))
        with_what = alike.trained_with(facts) if outcome == "DONE" and not lost else {}
        return Fold(name, outcome, reason, lost, with_what, facts.get("micro_batches", 1) > 1)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{run.path / str(outcome)}: damaged ({error}); {AGAIN}") from None


def _config(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Settings by dotted name, of the first fold that has begun; empty where none has. What an older version did not
    know is at its default."""
    path = next((path for run in runs if (path := run.path / "config.yaml").exists()), None)
    if path is None:
        return {}
    try:
        return flat(asdict(Config())) | flat(read_settings(path))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: damaged ({str(error).splitlines()[0]}); {AGAIN}") from None


def _dice(runs: Sequence[RunFolder], test: bool) -> Values:
    rows = list[Measurement]()
    for fold, run in enumerate(runs):
        path = run.path / "volumes.csv"
        dice_V, *of_key = _columns(path, ("dice", "patient", "phase"), test)
        rows += zip(zip(*of_key, strict=True), repeat(fold), _numbers(path, dice_V), strict=False)
    return _ordered(rows, runs)


def _area_errors(runs: Sequence[RunFolder], area: str, test: bool) -> Values:
    """|area - true area|, mm2"""
    rows = list[Measurement]()
    for fold, run in enumerate(runs):
        path = run.path / "slices.csv"
        area_V, true_V, *of_key = _columns(path, (area, "area_true_mm2", "patient", "phase", "level"), test)
        error_V = np.abs(np.subtract(_numbers(path, area_V), _numbers(path, true_V))).tolist()
        rows += zip(zip(*of_key, strict=True), repeat(fold), error_V, strict=False)
    return _ordered(rows, runs)


def _columns(path: Path, names: Sequence[str], test: bool) -> list[list[str]]:
    """Of a CSV, as text: the rows of the test set, or all others; after these columns the structure's, if there is."""
    try:
        text = read(path).decode()
        if not text.endswith("\n"):
            raise ValueError("its end is missing")
        head, *rows = csv.reader(io.StringIO(text, newline=""))
        of_set = head.index("set")
        kept = [row for row in rows if (row[of_set] == "test") is test]
        wanted = (*names, *(name for name in (COLUMN,) if name in head))
        return [[row[place] for row in kept] for place in map(head.index, wanted)]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ValueError(f"{path}: damaged ({error}); {AGAIN}") from None


def _numbers(path: Path, texts: Sequence[str]) -> list[float]:
    """NaN where the field is empty."""
    try:
        return [float(text) if text else math.nan for text in texts]
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); {AGAIN}") from None


def _ordered(rows: list[Measurement], runs: Sequence[RunFolder]) -> Values:
    """In the order of their keys: sums must not depend on the files'."""
    rows.sort(key=itemgetter(0))
    keys = tuple(key for key, _, _ in rows)
    if len(set(keys)) < len(keys):
        folder = runs[0].path.parent
        raise ValueError(f"{folder}: a volume comes twice among its folds; remove the folder and run the sweep again")
    return Values(keys, np.array([fold for _, fold, _ in rows]), np.array([value for _, _, value in rows]))
