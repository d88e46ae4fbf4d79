"""Fold racing: when a configuration's remaining folds need not be trained (`racing=true`).

A configuration's folds are trained in the same order, one after another. After each one it is compared with every other
configuration, on the patients of the folds that both have done, and it is out of the race where one of them is better
beyond doubt.

What doubt is. Each validation patient's scores are paired, which takes away what makes one heart harder than another.
But the patients of a fold share the network that was trained for it, and another training would have moved them all
together: that does not average out over patients, and an interval by patient alone throws out true bests (table). So
the folds' mean differences are tested. Two or three of them say little of how much they scatter:

- The scatter is pooled over configurations: it is what is left of the table configuration x fold once each row's and
  each column's effect is taken out, with as many degrees of freedom as there are cells, less rows, less columns, plus
  one. The rows are this configuration, those that did better, and of the others as many, the best first, as it takes
  for PRIOR degrees of freedom: bad configurations, whose folds often scatter more, shall not blur the view.
- Configurations need not scatter alike. As in Smyth's moderated t test the pooled variance counts for PRIOR degrees of
  freedom at most, however many configurations it comes from, and the pair's own is averaged in with those it has. The
  quantile is that of the former alone, since the pair is among those that were pooled.
- The chance of error, 1 - confidence, is shared by all looks (after fold 2, 3, ... and not the last) and all rivals
  (Bonferroni), those that are out of the race themselves among them.
- The interval by patient must agree.

Nobody is out after one fold, nor before there are LEAST degrees of freedom.

Simulated sweeps that lost their true best at a confidence of 99 %, the share of fold trainings that was saved, and the
sweeps that an interval by patient alone would have lost: of 8 and of 20 configurations, 2,000 sweeps a row (2026-11-24;
tests/test_racing.py). Five folds of 97 patients, two slots; standard deviations, Dice: between patients 0.03, of a
patient under a configuration 0.012, between trainings 0.006 (large 0.02, small 0.001, bad ones' up to four times that).

| sweep | lost of 8 | saved | by patient | lost of 20 | saved | by patient |
| --- | --- | --- | --- | --- | --- | --- |
| all configurations equal | 0.20 % | 0.1 % | 32 % | 0.05 % | 0.0 % | 42 % |
| ... large training noise | 0.20 % | 0.1 % | 64 % | 0.10 % | 0.0 % | 76 % |
| ... no training noise | 0.00 % | 0.0 % | 0.8 % | 0.00 % | 0.0 % | 0.7 % |
| ... noise unequal (its log: sd 0.5) | 0.30 % | 0.2 % | 38 % | 0.10 % | 0.1 % | 50 % |
| ... a rival 3 times as noisy | 0.40 % | 0.2 % | 40 % | 0.25 % | 0.1 % | 47 % |
| ... the best twice as noisy | 0.50 % | 0.1 % | 39 % | 0.35 % | 0.0 % | 47 % |
| ... the best 3 times as noisy | **1.55 %** | 0.2 % | 42 % | 0.90 % | 0.1 % | 48 % |
| up to 0.06 below the best | 0.00 % | 18.7 % | 2.5 % | 0.00 % | 21.0 % | 4.0 % |
| ... small training noise | 0.00 % | 29.0 % | 0.0 % | 0.00 % | 36.0 % | 0.0 % |
| ... large training noise | 0.10 % | 1.4 % | 24 % | 0.00 % | 0.6 % | 37 % |
| ... bad ones noisier | 0.00 % | 4.6 % | 3.7 % | 0.00 % | 2.5 % | 6.2 % |

(The last column's lower five rows: 500 sweeps.) With eight slots all eight race side by side: 0.55 % where noise is
unequal, 1.05 % with a rival 3 times as noisy, 1.2 % with the best so. The promise is kept but where a single
configuration's trainings scatter three times as much as those of its equals.

Source: Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray
experiments", Stat. Appl. Genet. Mol. Biol. 3 (2004); for racing, Maron and Moore, "Hoeffding races", NIPS 6 (1993).

Legend: C configuration, the one that is judged first; R rival; F fold; P patient.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np

from mtl.config import SELECTIONS
from mtl.runfolder import RunFolder

FEWEST = 2
"""folds that two configurations must share to be compared"""
PRIOR = 6
"""degrees of freedom that the pooled variance counts for at most, since some configurations scatter more than others"""
LEAST = 4
"""degrees of freedom of the pooled variance below which nobody is out"""

Scores = Mapping[int, Mapping[str, float]]
"""Of one configuration: fold -> patient -> mean score of its volumes (or slices) on the selection set, at the fold's
best epoch; higher is better."""

Row = Mapping[str, str]


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
    lead_R, bound_R = _leads(_fold_means([mine, *(others[n] for n in rivals)], folds), chance)
    for r in np.argsort(-bound_R).tolist():
        if bound_R[r] <= 0:
            return None
        bound = min(float(bound_R[r]), _bound_by_patient(mine, others[rivals[r]], chance))
        if bound > 0:
            who = names[rivals[r]] if names else "another configuration"
            surely = f"at least {bound:.3g} at a confidence of {100 * confidence:.4g} %"
            return f"after {len(mine)} of {folds} folds: {who} is better by {lead_R[r]:.3g} ({surely})"
    return None


def _shared(mine: Scores, other: Scores) -> list[int]:
    """Folds that both have done; none where they were split differently, so that their patients are not the same."""
    shared = [k for k in mine if k in other]
    return shared if all(mine[k].keys() == other[k].keys() for k in shared) else []


def _fold_means(scores_C: Sequence[Scores], folds: int) -> np.ndarray:
    """[C, F], NaN where a fold is not done; without folds that nobody has done."""
    mean_CF = np.array([[fmean(one[k].values()) if k in one else math.nan for k in range(folds)] for one in scores_C])
    return mean_CF[:, np.isfinite(mean_CF).any(axis=0)]


def _leads(mean_CF: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray]:
    """By how much each rival is better than the first row, and at least how much, with this chance of error."""
    count_R, lead_R, off_RF = _centred(mean_CF[1:] - mean_CF[0])
    pooled, freedom = _scatter(mean_CF[_pool(mean_CF, lead_R)])
    if freedom < LEAST:
        return lead_R, np.full(len(lead_R), -math.inf)
    counted = min(PRIOR, freedom)
    variance_R = (counted * 2 * pooled + (off_RF**2).sum(axis=1)) / (counted + count_R - 1)
    return lead_R, lead_R - _student(counted, 1 - chance) * np.sqrt(variance_R / count_R)


def _student(freedom: float, probability: float) -> float:
    """The quantile of Student's t."""
    from scipy.special import stdtrit  # half a second of import, which trials that race nobody need not pay

    return float(stdtrit(freedom, probability))


def _centred(value_CF: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row: how many values there are, their mean, and how far each is off it (0 where there is none)."""
    there_CF = np.isfinite(value_CF)
    count_C = there_CF.sum(axis=1)
    mean_C = np.where(there_CF, value_CF, 0).sum(axis=1) / count_C
    return count_C, mean_C, np.where(there_CF, value_CF - mean_C[:, None], 0)


def _pool(mean_CF: np.ndarray, lead_R: np.ndarray) -> list[int]:
    """Rows that the scatter is pooled over."""
    done_C = np.isfinite(mean_CF).sum(axis=1).tolist()
    rows, cells, most = [0], done_C[0], done_C[0]
    for r in np.argsort(-lead_R, kind="stable").tolist():
        if lead_R[r] <= 0 and cells - len(rows) - most + 1 >= PRIOR:
            break
        rows.append(r + 1)
        cells, most = cells + done_C[r + 1], max(most, done_C[r + 1])
    return rows


def _scatter(mean_CF: np.ndarray) -> tuple[float, int]:
    """Variance of fold means about the sum of a row's and a column's effect, with its degrees of freedom."""
    mean_CF = mean_CF[:, np.isfinite(mean_CF).any(axis=0)]
    there_CF = np.isfinite(mean_CF).astype(float)
    count_C, _, off_CF = _centred(mean_CF)
    # Least squares for the columns' effects, once the rows' are taken out. Every row shares columns with the first, so
    # that all their differences are known; their sum, which is free, is asked to be 0 by the added ones.
    normal_FF = np.diag(there_CF.sum(axis=0)) - (there_CF.T / count_C) @ there_CF
    sum_F = off_CF.sum(axis=0)
    effect_F = np.linalg.solve(normal_FF + 1, sum_F)
    freedom = int(count_C.sum()) - sum(mean_CF.shape) + 1
    left = float((off_CF**2).sum() - sum_F @ effect_F)
    return max(left, 0.0) / max(freedom, 1), freedom


def _bound_by_patient(mine: Scores, other: Scores, chance: float) -> float:
    """At least how much the other is better, as far as patients tell."""
    lead_P = np.array([other[k][patient] - mine[k][patient] for k in _shared(mine, other) for patient in mine[k]])
    error = lead_P.std(ddof=1) / math.sqrt(len(lead_P))
    return float(lead_P.mean() - _student(len(lead_P) - 1, 1 - chance) * error)


def read_scores(configuration_folder: Path, folds: int, metric: str) -> Scores:
    """Of a configuration's finished folds, from volumes.csv (dice_val) or slices.csv (area_mad_mm2, its sign turned).

    A fold in which a patient's score is not a number is left out. ValueError where a file is damaged.
    """
    name = {"dice_val": "volumes.csv", "area_mad_mm2": "slices.csv"}[metric]
    made = {}
    for k in range(folds):
        run = RunFolder(configuration_folder / f"fold_{k}")
        if run.outcome() == "DONE" and not run.lost():
            path = run.path / name
            score_P = _by_patient(path, metric, path.stat().st_mtime_ns)
            if score_P and all(map(math.isfinite, score_P.values())):
                made[k] = score_P
    return made


@cache
def _by_patient(path: Path, metric: str, written_ns: int) -> dict[str, float]:
    """Patient -> mean of its rows. Read once in a process, unless it was written again: a race looks at all folds after
    each one."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        sets = {row["set"] for row in rows}
        selected = next((name for name in SELECTIONS if name in sets), "")  # with protocol.selection=test: the test set
        score_of = _dice if metric == "dice_val" else _area_of(rows)
        scores: dict[str, list[float]] = {}
        for row in rows:
            if row["set"] == selected:
                scores.setdefault(row["patient"], []).append(score_of(row))
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove the fold's folder and run the sweep again") from None
    return {patient: fmean(values) for patient, values in scores.items()}


def _dice(row: Row) -> float:
    return _number(row["dice"])


def _area_of(rows: Sequence[Row]) -> Callable[[Row], float]:
    """What a slice scores; the baseline has no regression path, and its area is that of its segmentation."""
    name = "area_reg_mm2" if any(row["area_reg_mm2"] for row in rows) else "area_seg_mm2"
    return lambda row: -abs(_number(row[name]) - _number(row["area_true_mm2"]))


def _number(text: str) -> float:
    return float(text) if text else math.nan
