"""Fold racing: when a configuration's remaining folds need not be trained (`racing=true`).

A configuration's folds are trained in the same order, one after another. After each one it is compared with every other
configuration, on the patients of the folds that both have done, and it is out of the race where one of them is better
beyond doubt.

What doubt is. Each validation patient's scores are paired, which takes away what makes one heart harder than another.
But the patients of a fold share the network that was trained for it, and another training would have moved them all
together: this does not average out over patients. An interval by patient alone throws out a true best configuration in
33 of 100 sweeps of eight equal ones, where it promises one. So the folds' mean differences are what is tested, and how
much they scatter, of which two or three folds say little, is pooled over configurations:

- The scatter of fold means is what is left of the table configuration x fold when each row's and each column's effect
  is taken out. Its degrees of freedom are the cells, less the rows, less the columns, plus one. Rows: this
  configuration, those that did better, and of the others the best ones until there are PRIOR degrees of freedom; so bad
  configurations, whose folds often scatter more, do not blur the view of good ones.
- Configurations need not scatter alike. As in Smyth's moderated t test the pooled variance counts as PRIOR degrees of
  freedom at most, and the pair's own is added with those it has.
- The chance of error, 1 - confidence, is shared by all looks (after fold 2, 3, ... but not the last) and all rivals
  (Bonferroni). Rivals that are out of the race themselves are counted, too.
- The interval by patient must agree.

Nobody is out after one fold, nor before LEAST degrees of freedom.

Measured: see tests/test_racing.py.

Source: Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray
experiments", Stat. Appl. Genet. Mol. Biol. 3 (2004), for the moderated t; Maron and Moore, "Hoeffding races", NIPS 1993,
for racing.

Legend: C configuration (the one that is judged first), R rival, F fold.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from mtl.config import SELECTIONS
from mtl.runfolder import RunFolder

FEWEST = 2
"""folds that two configurations must share to be compared"""
PRIOR = 8
"""Degrees of freedom that the pooled variance counts at most: true standard deviations of a pair up to about twice the
pooled one are expected."""
TDF=0
LEAST = 4
"""degrees of freedom of the pooled variance, below which nobody is out"""

Scores = Mapping[int, Mapping[str, float]]
"""Of one configuration: fold -> patient -> mean score of its volumes (or slices) on the selection set, at the fold's
best epoch; higher is better."""


def out_of_race(
    mine: Scores, others: Sequence[Scores], folds: int, confidence: float, names: Sequence[str] = ()
) -> str | None:
    """Why the configuration's remaining folds need not be trained, in a line; None where they must.

    others: all other configurations with at least one finished fold, those that are out of the race among them.
    confidence: with which the true best configuration of a sweep stays in the race to its end. names: of the others.
    """
    rivals = [n for n, other in enumerate(others) if len(_shared(mine, other)) >= FEWEST]
    if not rivals or len(mine) >= folds:
        return None
    chance = (1 - confidence) / ((folds - FEWEST) * len(rivals))
    mean_CF = _fold_means([mine, *(others[n] for n in rivals)], folds)
    lead_R, bound_R = _leads(mean_CF, chance)
    for r in np.argsort(-bound_R):
        if bound_R[r] <= 0:
            break
        bound = min(float(bound_R[r]), _bound_by_patient(mine, others[rivals[r]], chance))
        if bound > 0:
            who = names[rivals[r]] if names else "another configuration"
            shared = len(_shared(mine, others[rivals[r]]))
            return f"{who} is better by {lead_R[r]:.4g} over {shared} of {folds} folds, by {bound:.4g} beyond doubt"
    return None


def _shared(mine: Scores, other: Scores) -> list[int]:
    """Folds that both have done. None where they were not split alike: then their patients are not the same."""
    shared = [k for k in mine if k in other]
    return shared if all(mine[k].keys() == other[k].keys() for k in shared) else []


def _fold_means(scores_C: Sequence[Scores], folds: int) -> np.ndarray:
    """[C, F], NaN where a fold is not done."""
    return np.array(
        [[sum(one[k].values()) / len(one[k]) if k in one else math.nan for k in range(folds)] for one in scores_C]
    )


def _leads(mean_CF: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray]:
    """By how much each rival is better than the first row, and by how much it surely is (at this chance of error)."""
    lead_RF = mean_CF[1:] - mean_CF[0]
    count_R, lead_R, off_RF = _centred(lead_RF)
    pooled, freedom = _scatter(mean_CF[_judges(mean_CF, lead_R)])
    if freedom < LEAST:
        return lead_R, np.full(len(lead_R), -math.inf)
    prior = min(PRIOR, freedom)
    freedom_R = prior + count_R - 1
    variance_R = (prior * 2 * pooled + (off_RF**2).sum(axis=1)) / freedom_R
    return lead_R, lead_R - stdtrit(freedom_R + TDF*(count_R-1), 1 - chance) * np.sqrt(variance_R / count_R)


def _centred(value_CF: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row: how many values it has, their mean, and how far they are off it (0 where there is none)."""
    there_CF = np.isfinite(value_CF)
    count_C = there_CF.sum(axis=1)
    mean_C = np.where(there_CF, value_CF, 0).sum(axis=1) / count_C
    return count_C, mean_C, np.where(there_CF, value_CF - mean_C[:, None], 0)


def _judges(mean_CF: np.ndarray, lead_R: np.ndarray) -> list[int]:
    """Rows that the scatter is pooled over."""
    done_C = np.isfinite(mean_CF).sum(axis=1).tolist()
    rows, freedom, most = [0], 0, done_C[0]
    for r in np.argsort(-lead_R).tolist():
        if lead_R[r] <= 0 and freedom >= PRIOR:
            break
        rows.append(r + 1)
        most = max(most, done_C[r + 1])
        freedom = sum(done_C[c] - 1 for c in rows) - (most - 1)
    return rows


def _scatter(mean_CF: np.ndarray) -> tuple[float, int]:
    """Variance of fold means about the sum of a row's and a column's effect, with its degrees of freedom."""
    mean_CF = mean_CF[:, np.isfinite(mean_CF).any(axis=0)]
    there_CF = np.isfinite(mean_CF).astype(float)
    done_C, _, off_CF = _centred(mean_CF)
    # Least squares for the columns' effects, once the rows' are taken out; only their differences matter, so that any
    # sum may be asked for. Every row shares columns with the first one: all effects are known.
    normal_FF = np.diag(there_CF.sum(axis=0)) - (there_CF.T / done_C) @ there_CF
    sum_F = off_CF.sum(axis=0)
    effect_F = np.linalg.solve(normal_FF + 1, sum_F)
    freedom = int(done_C.sum()) - sum(mean_CF.shape) + 1
    return max(float((off_CF**2).sum() - sum_F @ effect_F), 0.0) / max(freedom, 1), freedom


def _bound_by_patient(mine: Scores, other: Scores, chance: float) -> float:
    """By how much the other is surely better, as far as patients tell."""
    lead_P = np.array([other[k][patient] - mine[k][patient] for k in _shared(mine, other) for patient in mine[k]])
    error = lead_P.std(ddof=1) / math.sqrt(len(lead_P))
    return float(lead_P.mean() - stdtrit(len(lead_P) - 1, 1 - chance) * error)


def read_scores(configuration_folder: Path, folds: int, metric: str) -> Scores:
    """A configuration's finished folds, from their volumes.csv or slices.csv. metric: dice_val, or area_mad_mm2, whose
    sign is turned. ValueError where a file is damaged."""
    runs = {k: RunFolder(configuration_folder / f"fold_{k}") for k in range(folds)}
    name = {"dice_val": "volumes.csv", "area_mad_mm2": "slices.csv"}[metric]
    return {
        k: _by_patient(run.path / name, (run.path / name).stat().st_mtime_ns)
        for k, run in runs.items()
        if run.outcome() == "DONE" and not run.lost()
    }


@lru_cache(maxsize=None)
def _by_patient(path: Path, written_ns: int) -> Mapping[str, float]:
    """Patient -> mean. A finished fold's file is read once in a process, unless it was written again."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        selected = next(({"set": name} for name in SELECTIONS if any(row["set"] == name for row in rows)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    return {}
