"""How far a slice's areas can be trusted. The paper's thought: the segmentation tells how far to trust the index.

A slice is to be checked where its two areas disagree (regression path and segmentation), or where the folds' networks
disagree (the standard deviation of their segmentations' areas). What is too much was measured when the folds were
trained, on patients that they had not seen: of the validation slices in their slices.csv (with
protocol.selection=test, of the test slices), the quantiles of

    | regressed - segmented |     against which the disagreement of the paths is held
    | segmented - true |          against which that of the folds is held: networks that err by no more than they used
                                  to do not differ by more, either

beyond which FALSE_ALARMS / 2 of these slices lie, so that both together flag at most FALSE_ALARMS of slices as good as
those. Without a regression path, or of one fold alone, the other test is all there is.

Legend: K fold, S slice.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtl.structures import COLUMN

FALSE_ALARMS = 0.05
"""share of slices like the validation patients' that may be flagged"""


@dataclass(frozen=True)
class Limits:
    """Disagreements up to which a slice counts as reliable, mm2; None: not known."""

    paths_mm2: float | None
    folds_mm2: float | None

    def why_not(self, regressed_mm2_KS: np.ndarray | None, segmented_mm2_KS: np.ndarray) -> list[str]:
        """Of each slice, why it is to be checked; empty where it is reliable. regressed: None without such a path."""
        told: list[list[str]] = [[] for _ in range(segmented_mm2_KS.shape[1])]
        if regressed_mm2_KS is not None and self.paths_mm2 is not None:
            apart_S = np.abs(regressed_mm2_KS.mean(axis=0) - segmented_mm2_KS.mean(axis=0))
            for s in np.flatnonzero(apart_S > self.paths_mm2):
                told[s].append(f"the two areas differ by {apart_S[s]:.0f} mm2 (usual: up to {self.paths_mm2:.0f})")
        if len(segmented_mm2_KS) > 1 and self.folds_mm2 is not None:
            spread_S = segmented_mm2_KS.std(axis=0, ddof=1)
            for s in np.flatnonzero(spread_S > self.folds_mm2):
                told[s].append(f"the folds' areas spread by {spread_S[s]:.0f} mm2 (usual: up to {self.folds_mm2:.0f})")
        return ["; ".join(reasons) for reasons in told]


def limits(tables: Sequence[Path], structure: str) -> Limits:
    """Of a structure's areas, from the folds' slices.csv. ValueError where one is damaged."""
    rows = [row for path in tables for row in _held_out(path, structure)]
    paths = [abs(reg - seg) for reg, seg, _ in rows if reg is not None]
    folds = [abs(seg - true) for _, seg, true in rows]
    return Limits(*(float(np.quantile(of, 1 - FALSE_ALARMS / 2)) if of else None for of in (paths, folds)))


def _held_out(path: Path, structure: str) -> list[tuple[float | None, float, float]]:
    """Regressed, segmented and true area of a structure in the slices that the fold was not trained on."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get(COLUMN, structure) == structure]
        sets = {row["set"] for row in rows}
        chosen = [row for row in rows if row["set"] == ("validation" if "validation" in sets else "test")]
        return [
            (
                float(row["area_reg_mm2"]) if row["area_reg_mm2"] else None,
                float(row["area_seg_mm2"]),
                float(row["area_true_mm2"]),
            )
            for row in chosen
        ]
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}); train the fold again") from None
