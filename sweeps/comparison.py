"""Which configurations can be told apart: the differences of all pairs at once, paired by patient.

The best of many is chosen by looking at all of them, so that the intervals of all pairs must hold together: with
probability `level` none of them misses its true difference.

Family-wise error: how often any pair was told apart where all true means are equal. It should be 1 %. 5
configurations, which find the same patients hard, 12 to 34 volumes a patient, 2,000 data sets each (standard error
0.2 points), 2026-11-24, numpy 2.4.6:

| what is a configuration's and a patient's own | 97 patients | 45 | 20 | 10 |
| --- | --- | --- | --- | --- |
| normal | 0.9 % | 0.8 % | 0.6 % | 0.4 % |
| gamma, skewed to the left | 0.8 % | 1.1 % | 0.4 % | 0.4 % |
| t with 5 degrees | 0.8 % | 0.6 % | 0.5 % | 0.5 % |
| normal, of one configuration three times as large | 0.9 % | 0.8 % | 1.0 % | 0.4 % |
| normal, of one configuration skewed | 0.9 % | 1.3 % | 0.8 % | 0.9 % |
| each configuration fails on one patient in 25 | 0.0 % | 0.0 % | 0.1 % | 0.3 % |
| only one fails so, and is better on all others | 3.6 % | 18 % | 43 % | 32 % |
| normal, and every training has its own effect | 50 % | 20 % | 4.3 % | 1.0 % |
| normal, 20 configurations (500 data sets) | 1.4 % | 0.8 % | 0.4 % | 0.0 % |

So few patients make it careful, not careless (10 patients: half widths of 6.4 errors), but for what cannot be seen:
rare failures that no patient here shows, and the chance of training. The last row but one gives each fold of each
configuration an effect of its own, sd 0.004 in Dice beside 0.008 of each patient: the intervals tell trained
networks apart, and only other seeds (train.seed) tell whether other trainings would come out alike.

Legend: C configuration, V volume (or slice), P patient, K pair of configurations, R resample.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mtl.statistics import LEVEL, RESAMPLES, UNBOUNDED

CELLS = 2**20
"""of an array at a time"""
POWER = 0.8
"""with which as many patients as are said to be needed would tell a pair apart"""
MOST_PATIENTS = 100_000
"""No study of hearts will have more: UK Biobank's imaging, the largest, has this many people."""


@dataclass(frozen=True)
class Difference:
    """First minus second, in the unit of the values, over the volumes that both have."""

    difference: float
    low: float
    high: float
    """infinite where so few patients say nothing"""

    @property
    def apart(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Paired:
    """Every patient's sums, from which means, differences and resamples follow."""

    patients: tuple[str, ...]
    sum_CP: np.ndarray
    count_CP: np.ndarray
    sum_KP: np.ndarray
    """of first - second, over the volumes that both have"""
    count_KP: np.ndarray

    def without(self, patients: Collection[str]) -> "Paired":
        """The same with these patients left out."""
        keep_P = np.array([name not in patients for name in self.patients], dtype=bool)
        kept = tuple(name for name in self.patients if name not in patients)
        arrays = (self.sum_CP, self.count_CP, self.sum_KP, self.count_KP)
        sum_CP, count_CP, sum_KP, count_KP = (array[:, keep_P] for array in arrays)
        return Paired(kept, sum_CP, count_CP, sum_KP, count_KP)

    @property
    def mean_C(self) -> np.ndarray:
        """Mean over all volumes of each; NaN where it has none."""
        return _ratio(self.sum_CP.sum(axis=1), self.count_CP.sum(axis=1))


def paired(value_CV: np.ndarray, patient_V: Sequence[str] | np.ndarray) -> Paired:
    """value_CV: NaN where a configuration has no such volume. patient_V: whose volume each is.

    Sums of floating-point numbers depend on their order: give the volumes in the same order every time.
    """
    names_P, patient_of_V = np.unique(np.asarray(patient_V), return_inverse=True)
    order = np.argsort(patient_of_V, kind="stable")
    value_CV = np.asarray(value_CV, dtype=float)[:, order]
    begin_P = np.searchsorted(patient_of_V[order], np.arange(len(names_P)))
    first_K, second_K = np.triu_indices(len(value_CV), 1)
    sums, counts = [_empty(begin_P)], [_empty(begin_P)]
    step = max(1, CELLS // max(1, value_CV.shape[1]))
    for k in range(0, len(first_K), step):
        part = slice(k, k + step)
        sum_KP, count_KP = _per_patient(value_CV[first_K[part]] - value_CV[second_K[part]], begin_P)
        sums.append(sum_KP)
        counts.append(count_KP)
    names = tuple(str(name) for name in names_P)
    return Paired(names, *_per_patient(value_CV, begin_P), np.concatenate(sums), np.concatenate(counts))


def _empty(begin_P: np.ndarray) -> np.ndarray:
    return np.zeros((0, len(begin_P)))


def _per_patient(value_XV: np.ndarray, begin_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of each patient's known values."""
    known_XV = np.isfinite(value_XV)
    sum_XP = np.add.reduceat(np.where(known_XV, value_XV, 0.0), begin_P, axis=1)
    return sum_XP, np.add.reduceat(known_XV.astype(float), begin_P, axis=1)


@dataclass(frozen=True)
class Simultaneous:
    """The differences of all pairs, with intervals that hold together."""

    configurations: int
    patients: int
    difference_K: np.ndarray
    error_K: np.ndarray
    """standard error"""
    critical_K: np.ndarray
    """half an interval's width in standard errors"""
    critical_many: float
    """the same where patients are many"""

    def between(self, a: int, b: int) -> Difference:
        """Of configuration a minus b."""
        k = self._pair(a, b)
        half = 0.0 if self.error_K[k] == 0 else float(self.critical_K[k] * self.error_K[k])
        difference = float(self.difference_K[k]) * (1 if a < b else -1)
        return Difference(difference, difference - half, difference + half)

    def patients_needed(self, a: int, b: int) -> int | None:
        """Patients in all with whom the interval of a - b would leave out 0 with a probability of 80 %, if the true
        difference is the one seen; None where no number that is to be had would do, or nothing can be said.

        With n patients now, difference d, standard error e, critical value c (and c_many of many patients), N needs

            |d| >= (c_N + z) e sqrt(n / N),    c_N = c_many + (c - c_many) n / N,    z = 0.842, the 80 % quantile

        since errors shrink with the root of N, and what c has above c_many about with N. Tried with known differences,
        n from 10 to 97 and N from 50 to 408: the pair was told apart in 76 to 83 % of 500 data sets of N patients.
        """
        k = self._pair(a, b)
        size, error, critical = abs(self.difference_K[k]), self.error_K[k], self.critical_K[k]
        if not (size > 0 and math.isfinite(critical)):
            return None
        z = NormalDist().inv_cdf(POWER)

        def enough(patients: int) -> bool:
            share = self.patients / patients
            critical_then = self.critical_many + (critical - self.critical_many) * share
            return bool(size >= (critical_then + z) * error * math.sqrt(share))

        if not enough(MOST_PATIENTS):
            return None
        low, high = self.patients, MOST_PATIENTS
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle + 1, high)
        return low

    def _pair(self, a: int, b: int) -> int:
        first, second = min(a, b), max(a, b)
        return first * self.configurations - first * (first + 1) // 2 + second - first - 1


def simultaneous(pairs: Paired, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Simultaneous:
    """Studentised bootstrap of all differences with the same resamples of whole patients for all pairs.

    As Tukey's for many means, from the largest |t| over the pairs in each resample; but each pair's t is first divided
    by its own quantile, so that a pair whose t has long tails (where one configuration fails now and then) gets a
    wider interval and does not widen those of the others. A difference is the mean over volumes with patients as
    clusters, and its error the ratio estimator's, as in mtl.statistics.mean_interval_by_patient.

    A pair without any spread between its patients has an interval of no width, one with fewer than 2 patients an
    unbounded one; neither counts for the others. With 4 patients or fewer all others are unbounded, too.

    What this holds is in the module's docstring.

    Sources: Romano and Wolf, "Exact and approximate stepdown methods for multiple hypothesis testing", J. Am. Statist.
    Assoc. 100 (2005); Beran, "Balanced simultaneous confidence sets", J. Am. Statist. Assoc. 83 (1988).
    """
    count = len(pairs.sum_CP)
    patients = len(pairs.patients)
    total_K = pairs.count_KP.sum(axis=1)
    difference_K = _ratio(pairs.sum_KP.sum(axis=1), total_K)
    residual_KP = np.nan_to_num(pairs.sum_KP - difference_K[:, None] * pairs.count_KP)
    error_K = _ratio(np.sqrt(np.square(residual_KP).sum(axis=1)), total_K)
    tiny_K = 1e-12 * np.abs(pairs.sum_CP).sum() / max(1.0, pairs.count_CP.sum())
    few_K = (pairs.count_KP > 0).sum(axis=1) < 2
    error_K = np.where(few_K, 1.0, np.where(error_K <= tiny_K, 0.0, error_K))
    critical_K, many = np.full(len(difference_K), np.inf), math.inf
    within_K = (error_K > 0) & ~few_K
    if within_K.any():
        parts = residual_KP[within_K], pairs.count_KP[within_K], error_K[within_K]
        critical_K[within_K], many = _critical(*parts, level, resamples, seed)
    return Simultaneous(count, patients, difference_K, error_K, critical_K, many)


def _critical(
    residual_KP: np.ndarray, count_KP: np.ndarray, error_K: np.ndarray, level: float, resamples: int, seed: int
) -> tuple[np.ndarray, float]:
    """Of each pair; and of all if patients were many, when the errors need no resampling."""
    patients = residual_KP.shape[1]
    rank = math.ceil((resamples + 1) * level - 1e-9) - 1
    if rank >= resamples:
        raise ValueError(f"resamples: got {resamples}, wanted at least {math.ceil(level / (1 - level))} at this level")
    drawn_RP = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), resamples)
    times_RP = drawn_RP.astype(float)
    largest_R, largest_z_R = np.zeros(resamples), np.zeros(resamples)
    own = []
    step = max(1, CELLS // resamples)
    for k in range(0, len(error_K), step):
        part = slice(k, k + step)
        t_RK, z_RK = _studentised(times_RP, residual_KP[part], count_KP[part], error_K[part])
        quantile_K = np.partition(t_RK, rank, axis=0)[rank]
        bounded_K = np.isfinite(quantile_K)
        ratio_RK = t_RK[:, bounded_K] / quantile_K[bounded_K]
        np.maximum(largest_R, ratio_RK.max(axis=1, initial=0), out=largest_R)
        np.maximum(largest_z_R, z_RK.max(axis=1), out=largest_z_R)
        own.append(quantile_K)
    own_K, factor = np.concatenate(own), np.sort(largest_R)[rank]
    critical_K = np.multiply(own_K, factor, out=np.full(len(own_K), np.inf), where=np.isfinite(own_K))
    return critical_K, float(np.sort(largest_z_R)[rank])


def _studentised(
    times_RP: np.ndarray, residual_KP: np.ndarray, count_KP: np.ndarray, error_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """|difference* - difference| of every resample and pair, in errors of the resample, and in those of the sample.

    The factor P / (P - 1) of the variances is left out, since it is the same in both errors.
    """
    residual_PK, count_PK = residual_KP.T, count_KP.T
    total_RK = times_RP @ count_PK
    shift_RK = _ratio(times_RP @ residual_PK, total_RK)
    cross_RK, count2_RK = times_RP @ (residual_PK * count_PK), times_RP @ np.square(count_PK)
    variance_RK = times_RP @ np.square(residual_PK) - 2 * shift_RK * cross_RK + np.square(shift_RK) * count2_RK
    error_RK = _ratio(np.sqrt(np.maximum(variance_RK, 0)), total_RK)
    z_RK = np.abs(shift_RK) / error_K
    t_RK = np.abs(shift_RK) / np.maximum(error_RK, error_K / UNBOUNDED)
    # No spread in the resample, or none of the patients that the pair has: it says nothing.
    nothing_RK = ~(error_RK > 1e-9 * error_K)
    return np.where(nothing_RK, np.inf, t_RK), np.nan_to_num(z_RK)


def _ratio(sum_X: np.ndarray, count_X: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    ratio_X: np.ndarray = np.divide(sum_X, count_X, out=np.full(np.shape(sum_X), np.nan), where=count_X > 0)
    return ratio_X
