"""Does conflict between the tasks explain the order of the branch points? Told where folds were trained with
`train.diagnose=true` (mtl/diagnose.py) and the sweep varies the branch point alone.

Each branch point's cosine is the mean over epochs, then folds. Its rank among the others is compared with that of the
metric: Spearman's correlation, whose chance under no relation is exact, over all orders of so few points.
"""

from collections.abc import Sequence
from itertools import permutations
from statistics import fmean

import numpy as np

from sweeps.measured import Measured
from sweeps.verdict_parts import HIGHER_IS_BETTER, Conflict, Row

FEWEST = 3
"""branch points that have an order to be explained"""


def conflict(done: Sequence[Measured], rows: Sequence[Row], metric: str) -> Conflict | None:
    """None where the sweep varies something else, or too few branch points were diagnosed. rows: of the verdict."""
    if any(set(one.proposed.point) != {"model.branch"} for one in done):
        return None
    cosines = {one.name: cosine for one in done if (cosine := mean_cosine(one)) is not None}
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    good = {row.configuration: sign * row.mean for row in rows if row.mean is not None and row.configuration in cosines}
    if len(good) < FEWEST:
        return None
    names = list(good)
    correlation, chance = rank_correlation([cosines[name] for name in names], [good[name] for name in names])
    return Conflict({name: cosines[name] for name in names}, correlation, chance)


def mean_cosine(one: Measured) -> float | None:
    """None where any of its folds has none."""
    of_folds = [[r["grad_cosine"] for r in run.epochs() if r.get("grad_cosine") is not None] for run in one.runs]
    return fmean(map(fmean, of_folds)) if all(of_folds) else None


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Spearman's, and the chance that one at least as far from 0 comes about where there is no relation; 0 and 1 where
    all values of one of them are equal."""
    rank_a, rank_b = (_centred_ranks(values) for values in (a, b))
    scale = float(np.sqrt((rank_a**2).sum() * (rank_b**2).sum()))
    if scale == 0:
        return 0.0, 1.0
    found = float(rank_a @ rank_b) / scale
    orders = np.array(list(permutations(rank_b)))
    as_far = np.abs(orders @ rank_a) >= abs(found) * scale * (1 - 1e-9)
    return found, float(as_far.mean())


def _centred_ranks(values: Sequence[float]) -> np.ndarray:
    """Equal values share the mean of their ranks."""
    array = np.asarray(values)
    below = (array[None] < array[:, None]).sum(axis=1)
    equal = (array[None] == array[:, None]).sum(axis=1)
    rank = below + (equal - 1) / 2
    return np.asarray(rank - rank.mean())
