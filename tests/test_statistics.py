"""Intervals by volume and by patient, the paired difference, and the agreement of areas."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mtl.statistics import (
    Agreement,
    Interval,
    KolmogorovSmirnov,
    Line,
    best_fit_line,
    bland_altman,
    kolmogorov_smirnov,
    mean_interval_by_patient,
    mean_interval_by_volume,
    paired_difference,
    pearson,
)

PATIENTS = 97
TRUE_DICE = 0.875 - 1.2 * 0.022
NAN, INF = math.nan, math.inf


def dice_of_patients(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and patients: 12 to 34 volumes each, patients skewed to the left (sd 0.024), phases within (sd 0.02)."""
    rng = np.random.default_rng(seed)
    patient_N = np.repeat(np.arange(PATIENTS), rng.integers(12, 35, PATIENTS))
    effect_P = 0.875 - rng.gamma(1.2, 0.022, PATIENTS)
    return effect_P[patient_N] + 0.02 * rng.standard_normal(len(patient_N)), patient_N


def bounds(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


# Coverage


def test_by_patient_holds_99_percent_within_a_point() -> None:
    intervals = [mean_interval_by_patient(*dice_of_patients(seed), seed=seed) for seed in range(1000)]
    assert 0.98 <= np.mean([i.low <= TRUE_DICE <= i.high for i in intervals]) <= 1


def test_by_volume_promises_99_percent_and_holds_far_less() -> None:
    intervals = [mean_interval_by_volume(dice_of_patients(seed)[0], seed=seed) for seed in range(150)]
    assert np.mean([i.low <= TRUE_DICE <= i.high for i in intervals]) < 0.6


# Both intervals


def by_volume(values: Any, patients: Any, **settings: Any) -> Interval:
    return mean_interval_by_volume(values, **settings)


both = pytest.mark.parametrize("interval_of", [by_volume, mean_interval_by_patient])
IntervalOf = Callable[..., Interval]


@both
def test_mean_and_level(interval_of: IntervalOf) -> None:
    interval = interval_of([1.0, 3.0, 8.0], ["a", "a", "b"], level=0.8)
    assert (interval.mean, interval.level) == (4, 0.8)


@both
def test_shift_and_scale_move_the_interval_along(interval_of: IntervalOf) -> None:
    values, patients = dice_of_patients(1)
    mean, low, high = bounds(interval_of(values, patients))
    assert low < mean < high
    assert bounds(interval_of(100 * values + 7, patients)) == pytest.approx(
        (100 * mean + 7, 100 * low + 7, 100 * high + 7)
    )


def test_a_changed_sign_mirrors_the_interval_by_patient() -> None:
    values, patients = dice_of_patients(1)
    mean, low, high = bounds(mean_interval_by_patient(values, patients))
    assert bounds(mean_interval_by_patient(-values, patients)) == pytest.approx((-mean, -high, -low))


@both
def test_the_order_of_rows_is_nothing(interval_of: IntervalOf) -> None:
    values, patients = dice_of_patients(2)
    order = np.random.default_rng(0).permutation(len(values))
    assert interval_of(values[order], patients[order]) == interval_of(values, patients)


@both
def test_a_seed_gives_the_same_interval_again_and_another_seed_another(interval_of: IntervalOf) -> None:
    values, patients = dice_of_patients(3)
    assert interval_of(values, patients, seed=5) == interval_of(values, patients, seed=5)
    assert interval_of(values, patients, seed=5) != interval_of(values, patients, seed=6)


@both
def test_a_higher_level_is_wider(interval_of: IntervalOf) -> None:
    values, patients = dice_of_patients(4)
    narrow, wide = interval_of(values, patients, level=0.9), interval_of(values, patients, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@both
def test_equal_values_give_no_width(interval_of: IntervalOf) -> None:
    mean, low, high = bounds(interval_of([0.1] * 7, list("aabbbcc")))
    assert low == mean == high == pytest.approx(0.1)


@both
@pytest.mark.parametrize("level", [0.0, 1.0, 99.0, NAN])
def test_a_level_is_a_probability(interval_of: IntervalOf, level: float) -> None:
    with pytest.raises(ValueError, match=r"^level: got .*, wanted a probability above 0 and below 1, such as 0.99$"):
        interval_of([1.0, 2.0], ["a", "b"], level=level)


@both
def test_too_few_resamples_for_the_level(interval_of: IntervalOf) -> None:
    values, patients = dice_of_patients(5)
    with pytest.raises(ValueError, match=r"^resamples: got 198, wanted at least 199 at level 0.99$"):
        interval_of(values, patients, resamples=198)
    assert interval_of(values, patients, resamples=199).level == 0.99


@both
@pytest.mark.parametrize("values", [[], [1.0], [[1.0, 2.0]]])
def test_one_value_has_no_interval(interval_of: IntervalOf, values: Any) -> None:
    with pytest.raises(ValueError, match=r"^values: got an array of shape .*, wanted one axis with at least 2 values$"):
        interval_of(values, ["a"] * len(values))


# By volume


def test_by_volume_is_near_normal_theory_for_independent_values() -> None:
    values = np.random.default_rng(0).normal(10, 2, 2191)
    half = stats.norm.ppf(0.995) * values.std() / math.sqrt(2191)
    interval = mean_interval_by_volume(values, resamples=4000)
    assert interval.high - values.mean() == pytest.approx(half, rel=0.1)
    assert values.mean() - interval.low == pytest.approx(half, rel=0.1)


def test_by_volume_agrees_with_scipys_percentile_interval() -> None:
    values = np.random.default_rng(0).gamma(1, 1, 60)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=0.99, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = mean_interval_by_volume(values, resamples=20000)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.05 * (theirs.high - theirs.low))


# By patient


def test_patients_weigh_by_their_volumes() -> None:
    assert mean_interval_by_patient([1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]).mean == 2


def test_by_patient_equals_rows_resampled_one_by_one() -> None:
    """The same draws, without sums: whole patients are put together and their mean and its error taken anew."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(12), rng.integers(1, 6, 12))
    values = rng.gamma(2, 1, len(patients))

    def mean_and_error(rows: list[np.ndarray]) -> tuple[float, float]:
        mean, total = np.concatenate(rows).mean(), sum(len(row) for row in rows)
        return mean, math.sqrt(sum((row - mean).sum() ** 2 for row in rows)) / total

    rows = [values[patients == p] for p in range(12)]
    mean, error = mean_and_error(rows)
    drawn = [mean_and_error([rows[p] for p in draw]) for draw in np.random.default_rng(3).integers(0, 12, (999, 12))]
    t = sorted((m - mean) / e for m, e in drawn)
    interval = mean_interval_by_patient(values, patients, resamples=999, seed=3)  # ranks 5 and 995 of 999
    assert bounds(interval) == pytest.approx((mean, mean - t[994] * error, mean - t[4] * error))


def test_by_patient_agrees_with_scipys_bca_of_patient_means_where_counts_are_equal() -> None:
    rng = np.random.default_rng(0)
    values = (0.85 - rng.gamma(4, 0.01, PATIENTS))[:, None] + 0.02 * rng.standard_normal((PATIENTS, 23))
    theirs = stats.bootstrap(
        (values.mean(axis=1),), np.mean, confidence_level=0.99, n_resamples=20000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = mean_interval_by_patient(values.ravel(), np.repeat(np.arange(PATIENTS), 23), resamples=20000)
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.08 * (theirs.high - theirs.low))


def test_more_volumes_that_say_the_same_make_the_mean_no_surer_by_patient_only() -> None:
    values, patients = dice_of_patients(6)
    once, four_times = (mean_interval_by_patient(np.tile(values, k), np.tile(patients, k)) for k in (1, 4))
    assert bounds(four_times) == pytest.approx(bounds(once))
    once, four_times = (mean_interval_by_volume(np.tile(values, k)) for k in (1, 4))
    assert four_times.high - four_times.low < 0.6 * (once.high - once.low)


def test_patients_with_equal_means_give_no_width() -> None:
    interval = mean_interval_by_patient([0.1, 0.3, 0.2, 0.15, 0.25], ["a", "a", "b", "c", "c"])
    assert bounds(interval) == pytest.approx((0.2, 0.2, 0.2))


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2.0, 3.0]])
def test_so_few_patients_bound_nothing_at_99_percent(values: list[float]) -> None:
    assert bounds(mean_interval_by_patient(values, list("abc")[: len(values)])) == (np.mean(values), -INF, INF)


def test_six_patients_have_a_finite_interval() -> None:
    interval = mean_interval_by_patient([0.80, 0.83, 0.84, 0.86, 0.87, 0.89], list("abcdef"))
    assert -INF < interval.low < 0.80 < 0.89 < interval.high < INF


def test_one_patient_has_no_interval() -> None:
    with pytest.raises(ValueError, match=r"^patients: got 1, wanted at least 2: the spread between patients"):
        mean_interval_by_patient([1.0, 2.0, 3.0], ["a", "a", "a"])


def test_a_patient_for_each_value() -> None:
    with pytest.raises(ValueError, match=r"^patients: got 2 for 3 values, wanted one for each value$"):
        mean_interval_by_patient([1.0, 2.0, 3.0], ["a", "b"])


# Two configurations

KEYS = [("a", 0), ("a", 1), ("b", 0), ("c", 0), ("d", 0), ("e", 0), ("f", 0)]
FIRST = [0.9, 0.8, 0.7, 0.6, 0.8, 0.9, 0.7]
SECOND = [0.8, 0.8, 0.6, 0.7, 0.8, 0.7, 0.6]


def test_paired_difference_is_first_minus_second_by_patient() -> None:
    interval = paired_difference(KEYS, FIRST, KEYS, SECOND)
    differences = [a - b for a, b in zip(FIRST, SECOND, strict=True)]
    assert interval == mean_interval_by_patient(differences, [patient for patient, _ in KEYS])
    assert interval.mean == pytest.approx(0.4 / 7)


def test_pairs_are_found_by_key_in_any_order() -> None:
    assert paired_difference(KEYS[::-1], FIRST[::-1], KEYS, SECOND) == paired_difference(KEYS, FIRST, KEYS, SECOND)


def test_slices_pair_by_patient_phase_and_level() -> None:
    keys = [(*key, level) for key in KEYS for level in (0, 1)]
    interval = paired_difference(keys, np.repeat(FIRST, 2), keys, np.repeat(SECOND, 2))
    assert bounds(interval) == pytest.approx(bounds(paired_difference(KEYS, FIRST, KEYS, SECOND)))


def test_exchanged_configurations_mirror_the_difference() -> None:
    mean, low, high = bounds(paired_difference(KEYS, FIRST, KEYS, SECOND))
    assert bounds(paired_difference(KEYS, SECOND, KEYS, FIRST)) == pytest.approx((-mean, -high, -low))


def test_a_configuration_does_not_differ_from_itself() -> None:
    assert bounds(paired_difference(KEYS, FIRST, KEYS, FIRST)) == (0, 0, 0)


def test_pairing_sees_a_small_difference_that_separate_intervals_do_not() -> None:
    values, patients = dice_of_patients(7)
    better = values + 0.002 + 0.004 * np.random.default_rng(0).standard_normal(len(values))
    keys = [(str(patient), phase) for phase, patient in enumerate(patients)]
    first, second = mean_interval_by_patient(better, patients), mean_interval_by_patient(values, patients)
    assert first.low < second.high
    assert paired_difference(keys, better, keys, values).low > 0


def test_keys_that_do_not_match() -> None:
    message = (
        r"^keys: \('f', 0\) is in the first configuration only \(1 only in the first, 0 only in the second\), "
        r"wanted the same in both: drop these from both and count them$"
    )
    with pytest.raises(ValueError, match=message):
        paired_difference(KEYS, FIRST, KEYS[:-1], SECOND[:-1])
    with pytest.raises(ValueError, match=r"^keys: \('f', 0\) is in the second configuration only \(0 only"):
        paired_difference(KEYS[:-1], FIRST[:-1], KEYS, SECOND)


def test_a_key_that_comes_twice() -> None:
    with pytest.raises(ValueError, match=r"^keys: \('a', 0\) comes twice in the second configuration, wanted once"):
        paired_difference(KEYS, FIRST, [*KEYS, KEYS[0]], [*SECOND, 0.5])


def test_a_key_for_each_value() -> None:
    with pytest.raises(ValueError, match=r"^keys: got 6 for 7 values of the first configuration, wanted as many$"):
        paired_difference(KEYS[:-1], FIRST, KEYS, SECOND)


# Distributions and areas


def test_kolmogorov_smirnov_by_hand() -> None:
    """Of the 20 ways to deal six values to two threes, two set them apart as far as this."""
    outcome = kolmogorov_smirnov([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert (outcome.statistic, outcome.p_value) == pytest.approx((1, 0.1))
    assert kolmogorov_smirnov([1.0], [1.0]) == KolmogorovSmirnov(0, 1)


def test_dice_and_jaccard_have_the_same_p_as_in_the_paper() -> None:
    (first, _), (second, _) = dice_of_patients(8), dice_of_patients(9)
    jaccard = kolmogorov_smirnov(first / (2 - first), second / (2 - second))
    assert kolmogorov_smirnov(first, second) == jaccard


def test_the_papers_p_of_dice_belongs_to_a_distance_of_0_064() -> None:
    outcome = kolmogorov_smirnov(np.arange(2191), np.arange(2191) + 141)
    assert outcome.statistic == pytest.approx(0.064, abs=0.0005)
    assert outcome.p_value == pytest.approx(2.156e-4, rel=0.1)


def test_correlation_and_line_by_hand() -> None:
    assert pearson([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]) == pytest.approx(3 / math.sqrt(2 * 42 / 9))
    line = best_fit_line([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    assert (line.slope, line.intercept) == pytest.approx((1.5, -2 / 3))


def test_correlation_and_line_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    reference = rng.uniform(200, 3000, 500)
    measured = 0.9 * reference + rng.normal(50, 200, 500)
    theirs, line = stats.linregress(reference, measured), best_fit_line(reference, measured)
    expected = (theirs.rvalue, theirs.slope, theirs.intercept)
    assert (pearson(reference, measured), line.slope, line.intercept) == pytest.approx(expected)


def test_values_on_a_line_correlate_by_1_at_most() -> None:
    reference = np.random.default_rng(0).uniform(200, 3000, 99)
    assert 1 - 1e-12 < pearson(reference, 0.1 * reference) <= 1
    assert -1 <= pearson(reference, -0.1 * reference) < -1 + 1e-12


def test_a_constant_measure_has_a_level_line_and_no_correlation() -> None:
    assert best_fit_line([1.0, 2.0], [5.0, 5.0]) == Line(0, 5)
    with pytest.raises(ValueError, match=r"^measured: got 2 equal values, wanted at least 2 that differ$"):
        pearson([1.0, 2.0], [5.0, 5.0])


@pytest.mark.parametrize("function", [pearson, best_fit_line])
def test_a_constant_reference_has_neither(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"^reference: got 3 equal values, wanted at least 2 that differ$"):
        function([0.1] * 3, [1.0, 2.0, 3.0])


def test_bland_altman_by_hand() -> None:
    """Differences 1, -1 and 3: mean 1, standard deviation 2."""
    agreement = bland_altman([10.0, 20.0, 30.0], [11.0, 19.0, 33.0])
    assert (agreement.bias, agreement.low, agreement.high) == pytest.approx((1, 1 - 3.92, 1 + 3.92))
    assert bland_altman([1.0, 2.0], [1.5, 2.5]) == Agreement(0.5, 0.5, 0.5)


@pytest.mark.parametrize("function", [pearson, best_fit_line, bland_altman])
def test_pairs_are_complete_and_more_than_one(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"^measured: got 2 values for 3 of the reference, wanted one for each$"):
        function([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"^reference: got an array of shape \(1,\), wanted one axis with at least 2"):
        function([1.0], [1.0])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (mean_interval_by_volume, "values"),
        (lambda values: mean_interval_by_patient(values, list("abc")), "values"),
        (lambda values: paired_difference(KEYS[:3], values, KEYS[:3], FIRST[:3]), "values of the first configuration"),
        (lambda values: paired_difference(KEYS[:3], FIRST[:3], KEYS[:3], values), "values of the second configuration"),
        (lambda values: kolmogorov_smirnov(values, FIRST), "a"),
        (lambda values: kolmogorov_smirnov(FIRST, values), "b"),
        (lambda values: pearson(values, FIRST[:3]), "reference"),
        (lambda values: pearson(FIRST[:3], values), "measured"),
        (lambda values: best_fit_line(values, FIRST[:3]), "reference"),
        (lambda values: bland_altman(FIRST[:3], values), "measured"),
    ],
)
def test_nan_and_inf_enter_nothing(function: Callable[..., Any], name: str, bad: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name}: got 1 NaN or inf among 3, wanted none: drop and count them first$"
    ):
        function([0.5, bad, 0.7])
