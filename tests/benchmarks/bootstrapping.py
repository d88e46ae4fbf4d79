"""The report's interval of a mean, 1,000 resamples by patient, at LVSC's size.

    python -m tests.benchmarks bootstrap

Ours is mean_interval_by_patient: patients resampled whole, from sums per patient, studentised. A plain loop over
resamples, which puts the volumes of the patients drawn together, gives the same interval of the same draws: that is
checked. scipy.stats.bootstrap resamples volumes, as if each were a patient of its own, and takes percentiles: another,
narrower interval, and the one that a user would call. The floor draws the patients alone.
"""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from mtl import statistics
from tests.benchmarks.peers import Peer, Work, compared, library, milliseconds
from tests.benchmarks.rows import Row

TOLERANCE = 1e-9
"""of a bound: sums in another order"""


def made_up(patients: int, volumes: int) -> tuple[np.ndarray, np.ndarray]:
    """Dice of so many volumes, and whose each is; the volumes of a patient are alike."""
    rng = np.random.default_rng(0)
    patient_V = np.sort(np.arange(volumes) % patients)
    dice_V = 0.85 + rng.normal(0, 0.024, patients)[patient_V] + rng.normal(0, 0.02, volumes)
    return dice_V, np.array([f"P{patient:03d}" for patient in patient_V])


def _error(groups: list[np.ndarray], mean: float) -> float:
    """Standard error of a mean over clusters: the ratio estimator's, without P / (P - 1), as in mtl/statistics.py."""
    return math.sqrt(sum((group - mean).sum() ** 2 for group in groups)) / sum(map(len, groups))


def by_loop(value_V: np.ndarray, patient_V: np.ndarray, resamples: int) -> Work:
    groups = [value_V[patient_V == patient] for patient in np.unique(patient_V)]

    def interval() -> tuple[float, float]:
        rng, mean = np.random.default_rng(0), value_V.mean()
        error, t_R = _error(groups, mean), []
        for _ in range(resamples):
            drawn = [groups[p] for p in rng.integers(0, len(groups), len(groups))]
            again = np.concatenate(drawn).mean()
            t_R.append((again - mean) / _error(drawn, again))
        t_R.sort()
        rank = math.floor((resamples + 1) * (1 - statistics.LEVEL) / 2 + 1e-9)
        return mean - t_R[-rank] * error, mean - t_R[rank - 1] * error

    return interval


def by_scipy(value_V: np.ndarray, resamples: int) -> Work:
    bootstrap = library("scipy.stats").bootstrap
    settings = {"n_resamples": resamples, "confidence_level": statistics.LEVEL, "method": "percentile"}
    return lambda: bootstrap((value_V,), np.mean, rng=np.random.default_rng(0), **settings).confidence_interval


def drawing(patients: int, resamples: int) -> Work:
    return lambda: np.random.default_rng(0).integers(0, patients, (resamples, patients))


def agree(wanted: statistics.Interval, name: str, given: tuple[float, float]) -> None:
    """AssertionError where the loop's interval is not ours, or scipy's does not lie in it."""
    low, high = given
    if name == "plain loop":
        assert np.allclose([low, high], [wanted.low, wanted.high], rtol=TOLERANCE, atol=0), f"{name}: another interval"
    else:
        assert wanted.low < low < high < wanted.high, f"{name}: not within ours"


def rows(
    patients: int = 97, volumes: int = 2191, resamples: int = statistics.RESAMPLES, rounds: int = 5
) -> Iterator[Row]:
    """The row."""
    value_V, patient_V = made_up(patients, volumes)
    ours = partial(statistics.mean_interval_by_patient, value_V, patient_V, resamples=resamples)
    peers = {
        "scipy.stats.bootstrap": Peer(partial(by_scipy, value_V, resamples)),
        "plain loop": Peer(partial(by_loop, value_V, patient_V, resamples)),
        "drawing the patients": Peer(partial(drawing, patients, resamples), floor=True),
    }
    name = f"bootstrap, {resamples:,} resamples of {patients} patients, {volumes:,} volumes"
    row = partial(Row, name, "ms an interval", note="scipy resamples volumes, not patients, and so another interval")
    yield compared(row, ours, peers, partial(milliseconds, repeats=3), rounds, partial(agree, ours()))
