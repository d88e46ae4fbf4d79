"""Differences of all pairs at once: how often they are wrong, what moves them and what must not."""

import math
import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.statistics import paired_difference
from sweeps.comparison import Simultaneous, paired, simultaneous


def drawn(seed: int, configurations: int, patients: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Values [C, V] and patients: hard and easy patients, the same for all; equal true means, but for the first's
    shift."""
    rng = np.random.default_rng([seed, patients])
    patient_V = np.repeat(np.arange(patients), rng.integers(2, 6, patients))
    ease_P = rng.gamma(1.2, 0.022, patients)
    own_CP = 0.008 * rng.standard_normal((configurations, patients))
    value_CV = 0.875 - (ease_P + own_CP)[:, patient_V] + 0.012 * rng.standard_normal((configurations, len(patient_V)))
    value_CV[0] += shift
    return value_CV, np.array([f"P{p:03}" for p in patient_V])


def compared(value_CV: np.ndarray, patient_V: np.ndarray) -> Simultaneous:
    return simultaneous(paired(value_CV, patient_V))


def intervals(told: Simultaneous) -> list[tuple[float, float, float]]:
    pairs = combinations(range(told.configurations), 2)
    return [(d.difference, d.low, d.high) for d in (told.between(a, b) for a, b in pairs)]


# How often they are wrong


def test_in_families_of_equal_configurations_hardly_any_pair_is_called_apart() -> None:
    told = [compared(*drawn(seed, 5, 30)) for seed in range(300)]
    pairs = list(combinations(range(5), 2))
    wrong = [any(one.between(a, b).apart for a, b in pairs) for one in told]
    assert np.mean(wrong) <= 0.025  # promised: 0.01; 300 families, standard error 0.006
    alone = [compared(*drawn(seed, 2, 30)).critical_K[0] for seed in range(50)]
    t_K = [np.abs(one.difference_K / one.error_K).max() for one in told]
    assert np.mean(np.array(t_K) > np.mean(alone)) > 0.04  # each pair by itself at 99 %: too often


def test_as_many_patients_as_are_said_to_be_needed_are_enough() -> None:
    """The difference is known to be 0.008 here; from data it is uncertain itself."""
    needed = []
    for seed in range(20):
        told = compared(*drawn(seed, 4, 20, shift=0.008))
        told.difference_K[:] = 0.008
        needed.append(told.patients_needed(0, 1))
    patients = int(np.median([one for one in needed if one is not None]))
    found = [compared(*drawn(seed, 4, patients, shift=0.008)).between(0, 1).apart for seed in range(120)]
    assert 40 < patients < 200
    assert 0.72 <= np.mean(found) <= 0.97  # promised: 0.8 or a little more


def test_no_number_of_patients_tells_equals_apart() -> None:
    value_CV, patient_V = drawn(0, 2, 20)
    value_CV[1] = value_CV[0]
    assert compared(value_CV, patient_V).patients_needed(0, 1) is None
    told = compared(*drawn(1, 3, 20))
    told.difference_K[:] = 1e-9
    assert told.patients_needed(0, 1) is None


# What they are


def test_a_difference_is_that_of_the_paired_comparison() -> None:
    value_CV, patient_V = drawn(3, 2, 30)
    keys = [(patient, n) for n, patient in enumerate(patient_V.tolist())]
    wanted = paired_difference(keys, value_CV[0], keys, value_CV[1])
    found = compared(value_CV, patient_V).between(0, 1)
    assert found.difference == pytest.approx(wanted.mean)
    assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=0.15)  # symmetric there, not here


def test_a_true_difference_is_found_and_has_its_sign() -> None:
    told = compared(*drawn(4, 4, 60, shift=0.03))
    assert all(told.between(0, other).low > 0 and told.between(other, 0).high < 0 for other in (1, 2, 3))
    assert not told.between(1, 2).apart


def test_a_configuration_that_fails_now_and_then_does_not_widen_the_others() -> None:
    value_CV, patient_V = drawn(5, 4, 60)
    width = compared(value_CV, patient_V).between(1, 2)
    value_CV[0, np.isin(patient_V, ["P007", "P023"])] -= 0.8
    told = compared(value_CV, patient_V)
    failing, beside = told.between(0, 1), told.between(1, 2)
    assert beside.high - beside.low <= 1.15 * (width.high - width.low)
    assert failing.high - failing.low > 5 * (beside.high - beside.low)


def test_few_patients_say_nothing_and_one_neither() -> None:
    for patients in (1, 2, 3):
        told = compared(*drawn(6, 3, patients))
        assert [low == -math.inf for _, low, _ in intervals(told)] == [True] * 3
        assert told.patients_needed(0, 1) is None
    nothing = compared(np.zeros((3, 0)), np.zeros(0, dtype=np.str_))
    assert not any(nothing.between(a, b).apart for a, b in combinations(range(3), 2))
    assert nothing.patients == 0
    assert intervals(compared(*drawn(6, 1, 10))) == []


def test_volumes_that_one_of_a_pair_lacks_are_left_out_of_that_pair_alone() -> None:
    value_CV, patient_V = drawn(7, 3, 30)
    whole = compared(value_CV, patient_V)
    lacking = value_CV.copy()
    lacking[0, :40] = np.nan
    told = compared(lacking, patient_V)
    assert told.between(1, 2).difference == whole.between(1, 2).difference
    assert told.between(0, 1).difference == pytest.approx((value_CV[0] - value_CV[1])[40:].mean())
    lacking[0] = np.nan
    assert not compared(lacking, patient_V).between(0, 1).apart
    assert compared(lacking, patient_V).between(1, 2).low > -1


def test_leaving_patients_out_is_as_if_they_had_never_been() -> None:
    value_CV, patient_V = drawn(8, 3, 20)
    gone = {"P003", "P011"}
    kept_V = ~np.isin(patient_V, list(gone))
    found = intervals(simultaneous(paired(value_CV, patient_V).without(gone)))
    wanted = intervals(compared(value_CV[:, kept_V], patient_V[kept_V]))
    assert np.array(found) == pytest.approx(np.array(wanted))


def test_resamples_must_reach_the_tail() -> None:
    with pytest.raises(ValueError, match="resamples: got 50, wanted at least 99"):
        simultaneous(paired(*drawn(0, 2, 10)), resamples=50)


def test_forty_configurations_take_little_memory() -> None:
    value_CV, patient_V = drawn(9, 40, 97)
    tracemalloc.start()
    told = compared(value_CV, patient_V)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(told.difference_K) == 780
    assert peak < 150 * 2**20


# What moves them, and what must not

some = given(st.integers(0, 10**6), st.integers(2, 5), st.integers(6, 12))
few_examples = settings(max_examples=25, deadline=None)


@some
@few_examples
def test_the_order_of_rows_and_configurations_changes_nothing(seed: int, configurations: int, patients: int) -> None:
    value_CV, patient_V = drawn(seed, configurations, patients)
    rng = np.random.default_rng(seed)
    order_C, order_P = rng.permutation(configurations), rng.permutation(patients)
    names = np.array([f"P{p:03}" for p in range(patients)])
    blocks = np.concatenate([np.flatnonzero(patient_V == names[p]) for p in order_P])
    told = compared(value_CV, patient_V)
    assert intervals(compared(value_CV[:, blocks], patient_V[blocks])) == intervals(told)
    mixed = compared(value_CV[order_C], patient_V)
    for a, b in combinations(range(configurations), 2):
        found, wanted = mixed.between(a, b), told.between(int(order_C[a]), int(order_C[b]))
        assert (found.difference, found.low, found.high) == pytest.approx(
            (wanted.difference, wanted.low, wanted.high), rel=1e-9
        )


@some
@few_examples
def test_a_constant_moves_its_configurations_differences_and_no_other(
    seed: int, configurations: int, patients: int
) -> None:
    value_CV, patient_V = drawn(seed, configurations, patients)
    told = compared(value_CV, patient_V)
    value_CV[0] += 0.25
    moved = compared(value_CV, patient_V)
    for a, b in combinations(range(configurations), 2):
        before, after = told.between(a, b), moved.between(a, b)
        by = 0.25 if a == 0 else 0.0
        assert (after.difference, after.low, after.high) == pytest.approx(
            (before.difference + by, before.low + by, before.high + by), abs=1e-9
        )


@some
@few_examples
def test_the_same_figures_twice_are_never_told_apart(seed: int, configurations: int, patients: int) -> None:
    value_CV, patient_V = drawn(seed, configurations, patients)
    value_CV[-1] = value_CV[0]
    found = compared(value_CV, patient_V).between(0, configurations - 1)
    assert (found.difference, found.low, found.high, found.apart) == (0, 0, 0, False)
