"""Fold racing: by hand, and in simulated sweeps whose true best configuration is known.

make test ARGS="tests/test_racing.py -s"                                  # prints what each field of sweeps gave
BRANCHPOINT_SWEEPS=2000 make test ARGS="tests/test_racing.py -s -n0 --timeout 3600"    # all rows, so many sweeps each
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from data_prep.files import write_csv
from mtl import train
from mtl.config import Config, Model
from mtl.evaluate import SLICE_COLUMNS, VOLUME_COLUMNS
from mtl.runfolder import KEPT, RunFolder, best_epoch
from mtl.slices import Slices
from sweeps import racing
from sweeps.racing import Scores, out_of_race
from tests.surface import FOLDS, Decide, Noise, Race, Trainings

# By hand


def folds(*values: float, patients: int = 4, spread: float = 0.0) -> Scores:
    """Fold k has this mean; its patients lie `spread` above and below it in turn."""
    return {k: {f"P{k}{p}": value + spread * (-1) ** p for p in range(patients)} for k, value in enumerate(values)}


GOOD = [folds(0.900 + c, 0.910 - c, 0.905, 0.904 + c, 0.911) for c in (0.001, -0.001, 0.002, -0.002, 0.0)]


def test_one_that_is_clearly_worse_is_out_after_two_folds() -> None:
    why = out_of_race(folds(0.80, 0.81), GOOD, FOLDS, 0.99, names=list("abcde"))
    assert why is not None
    assert why.startswith("after 2 of 5 folds: ")
    assert " is better by 0.1 (at least 0.0" in why
    assert why.endswith(" at a confidence of 99 %)")
    assert why.split(": ")[1][0] in "abcde"
    assert "another configuration is better" in str(out_of_race(folds(0.80, 0.81), GOOD, FOLDS, 0.99))


def test_the_scatter_worked_out_by_hand() -> None:
    """Three rows, two columns, and a gap of 0.03 between the columns in one of the rows alone: what is left of the
    columns' difference is -0.01, -0.01 and 0.02, of which each cell has half."""
    variance, freedom = racing._scatter(np.array([[0.1, 0.1], [0.5, 0.5], [0.5, 0.53]]))
    assert freedom == 2
    assert variance == pytest.approx((0.01**2 + 0.01**2 + 0.02**2) / 2 / 2)


def test_one_fold_alone_puts_nobody_out() -> None:
    assert out_of_race(folds(0.1), GOOD, FOLDS, 0.99) is None
    assert out_of_race({}, GOOD, FOLDS, 0.99) is None
    assert out_of_race(folds(0.1, 0.1), [folds(0.9)] * 9, FOLDS, 0.99) is None


def test_without_others_or_with_few_nobody_is_out() -> None:
    assert out_of_race(folds(0.1, 0.1, 0.1, 0.1), [], FOLDS, 0.99) is None
    assert out_of_race(folds(0.1, 0.1), GOOD[:1], FOLDS, 0.99) is None  # one degree of freedom
    assert out_of_race(folds(0.1, 0.1), [folds(0.9, 0.91), folds(0.91, 0.9)], FOLDS, 0.99) is None  # two


def test_equal_ones_stay() -> None:
    assert out_of_race(folds(0.9, 0.91, 0.9, 0.9), [folds(0.9, 0.91, 0.9, 0.9, 0.9)] * 20, FOLDS, 0.99) is None


def test_the_best_stays_among_worse_ones() -> None:
    for done in (2, 3, 4):
        assert out_of_race(folds(*[0.95] * done), GOOD, FOLDS, 0.99) is None


def test_one_whose_folds_are_all_done_is_left_alone() -> None:
    assert out_of_race(folds(*[0.1] * 5), GOOD, FOLDS, 0.99) is None


def test_one_failed_training_puts_nobody_out() -> None:
    """A good configuration of which one training went wrong: its own scatter says so."""
    assert out_of_race(folds(0.905, 0.805), GOOD, FOLDS, 0.99) is None
    assert out_of_race(folds(0.855, 0.855), GOOD, FOLDS, 0.99) is not None  # the same mean


def test_the_patients_must_agree() -> None:
    """Every other patient is far better, the rest as much worse: so few say nothing, though the folds' means differ."""
    assert out_of_race(folds(0.80, 0.81, spread=0.05), GOOD, FOLDS, 0.99) is not None
    assert out_of_race(folds(0.80, 0.81, spread=0.5), GOOD, FOLDS, 0.99) is None


def test_other_patients_are_not_compared() -> None:
    """As where the seed of the split is searched."""
    assert out_of_race(folds(0.80, 0.81, patients=5), GOOD, FOLDS, 0.99) is None


def test_more_confidence_or_more_rivals_put_fewer_out() -> None:
    mine = folds(0.889, 0.899)
    assert out_of_race(mine, GOOD, FOLDS, 0.99) is not None
    assert out_of_race(mine, GOOD, FOLDS, 0.9999) is None
    bad = [folds(0.5, 0.51, 0.505, 0.504, 0.511)] * 1000
    assert out_of_race(mine, GOOD + bad, FOLDS, 0.99) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_scatter_is_that_of_least_squares(seed: int) -> None:
    """Held to numpy's least squares with a column for each row and each fold, on an incomplete table."""
    rng = np.random.default_rng(seed)
    mean_CF = rng.normal(size=(6, 1)) + rng.normal(size=5) + 0.1 * rng.normal(size=(6, 5))
    for c in range(1, 6):
        mean_CF[c, rng.integers(2, 6) :] = math.nan
    rows, columns = np.nonzero(np.isfinite(mean_CF))
    design = np.concatenate([np.eye(6)[rows], np.eye(5)[columns]], axis=1)
    fitted, _, rank, _ = np.linalg.lstsq(design, mean_CF[rows, columns])
    left = ((mean_CF[rows, columns] - design @ fitted) ** 2).sum()
    variance, freedom = racing._scatter(mean_CF)
    assert freedom == len(rows) - rank
    assert variance == pytest.approx(left / freedom)


# Simulated sweeps


@dataclass(frozen=True)
class Field:
    """Configurations of a sweep; the first is the best."""

    loss_C: np.ndarray
    """Dice below the best"""
    times_C: np.ndarray
    """as noisy are its trainings as `training` says"""
    training: float = Noise().training
    """standard deviation between trainings, Dice"""


def alike(count: int, rng: np.random.Generator) -> np.ndarray:
    return np.zeros(count)


def apart(count: int, rng: np.random.Generator) -> np.ndarray:
    """Up to 0.06 below the best."""
    return rng.uniform(0, 0.06, count) * (np.arange(count) > 0)


def one_noisy(which: int, times: float, count: int) -> np.ndarray:
    times_C = np.ones(count)
    times_C[which] = times
    return times_C


Make = Callable[[int, np.random.Generator], Field]
FIELDS: dict[str, Make] = {
    "all equal": lambda c, rng: Field(alike(c, rng), np.ones(c)),
    "all equal, large training noise": lambda c, rng: Field(alike(c, rng), np.ones(c), 0.02),
    "all equal, no training noise": lambda c, rng: Field(alike(c, rng), np.ones(c), 0.0),
    "all equal, unequal noise": lambda c, rng: Field(alike(c, rng), np.exp(0.5 * rng.standard_normal(c))),
    "all equal, a rival 3 times as noisy": lambda c, rng: Field(alike(c, rng), one_noisy(-1, 3, c)),
    "all equal, the best twice as noisy": lambda c, rng: Field(alike(c, rng), one_noisy(0, 2, c)),
    "all equal, the best 3 times as noisy": lambda c, rng: Field(alike(c, rng), one_noisy(0, 3, c)),
    "apart": lambda c, rng: Field(apart(c, rng), np.ones(c)),
    "apart, small training noise": lambda c, rng: Field(apart(c, rng), np.ones(c), 0.001),
    "apart, large training noise": lambda c, rng: Field(apart(c, rng), np.ones(c), 0.02),
    "apart, bad ones noisier": lambda c, rng: Field(loss := apart(c, rng), 1 + loss / 0.02),
}
BEYOND = "all equal, the best 3 times as noisy"
"""where the promise is not kept"""


@dataclass(frozen=True)
class Raced:
    """What became of many sweeps."""

    lost: int
    """sweeps whose true best went out"""
    saved: float
    """share of the fold trainings"""


def raced(name: str, count: int, sweeps: int, decide: Decide = out_of_race, slots: int = 2) -> Raced:
    lost, saved = 0, 0.0
    for seed in range(sweeps):
        rng = np.random.default_rng([seed, 5])
        field = FIELDS[name](count, rng)
        order = rng.permutation(count)
        draws = Trainings(seed, Noise(training=field.training))
        shown = (draws.scores(n, 0.87 - field.loss_C[c], field.times_C[c]) for n, c in enumerate(order))
        race = Race(slots, decide=decide).run(shown, seed)
        lost += int(np.flatnonzero(order == 0)[0]) in race.out
        saved += race.saved / sweeps
    return Raced(lost, saved)


def by_patient_alone(mine: Scores, others: Sequence[Scores], folds: int, confidence: float) -> str | None:
    """What looks right and is not: no more than an interval of the paired differences by patient, with the same share
    of the chance of error."""
    rivals = [one for one in others if len(mine) > 1 and len(one) > 1]
    chance = (1 - confidence) / ((folds - 2) * max(1, len(rivals)))
    return "worse" if any(racing._bound_by_patient(mine, one, chance) > 0 for one in rivals) else None


SWEEPS = int(os.environ.get("BRANCHPOINT_SWEEPS", 500))
ALL = "BRANCHPOINT_SWEEPS" in os.environ
QUICK = [
    (8, "all equal"),
    (8, "all equal, unequal noise"),
    (8, "all equal, a rival 3 times as noisy"),
    (8, "apart, bad ones noisier"),
    (20, "apart"),
]
ROWS = [(count, name) for count in (8, 20) for name in FIELDS] if ALL else QUICK


@pytest.mark.parametrize(("count", "name"), ROWS)
def test_the_true_best_stays_at_the_stated_confidence(count: int, name: str) -> None:
    """Lost may be 1 %, and as many more as chance alone would exceed once in a thousand times."""
    got = raced(name, count, SWEEPS)
    naive = raced(name, count, SWEEPS, by_patient_alone) if ALL else None
    alone = f", by patient alone {naive.lost / SWEEPS:.1%} ({naive.saved:.1%})" if naive else ""
    print(f"\n{count:2d} {name}: lost {got.lost}/{SWEEPS} ({got.lost / SWEEPS:.2%}), saved {got.saved:.1%}{alone}")
    if name != BEYOND:
        assert got.lost <= stats.binom.ppf(0.999, SWEEPS, 0.01)


def test_racing_saves_trainings_where_configurations_differ() -> None:
    assert raced("apart", 8, 100).saved > 0.12
    assert raced("apart, small training noise", 8, 100).saved > 0.22
    assert raced("all equal", 8, 100).saved < 0.02


def test_an_interval_by_patient_alone_loses_the_best() -> None:
    """Why it is not that simple; and the simulation above can fail."""
    assert raced("all equal", 8, 100, by_patient_alone).lost > 15
    assert raced("all equal, no training noise", 8, 100, by_patient_alone).lost <= 4  # patients are enough there


# From run folders


@pytest.mark.parametrize("branch", ["up4", "none"])
def test_scores_of_a_trained_fold_are_those_of_its_best_epoch(
    config: Config, slices: Slices, tmp_path: Path, branch: str
) -> None:
    """Its patients have as many volumes and slices each, so that the mean over patients is the one over volumes."""
    run = RunFolder(tmp_path / "fold_1")
    train.train(replace(config, model=Model(branch, width=2)), slices, 1, run)
    best = best_epoch(run.epochs())
    for metric, sign in (("dice_val", 1), ("area_mad_mm2", -1)):
        scores = racing.read_scores(tmp_path, 3, metric)
        assert list(scores) == [1]
        assert np.mean(list(scores[1].values())) == pytest.approx(sign * best[metric], rel=1e-5)


def volume(patient: str, dice: float | None, set_name: str = "validation") -> dict[str, object]:
    return dict.fromkeys(VOLUME_COLUMNS, 0) | {"patient": patient, "dice": dice, "set": set_name}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished fold with two patients that validate and one that tests."""
    run = RunFolder(tmp_path / "c" / "fold_0")
    run.prepare({**asdict(Config()), "fold": 0})
    for name in KEPT[1:]:
        (run.path / name).touch()
    rows = [volume("a", 0.7), volume("a", 0.9), volume("b", 0.5), volume("t", 0.1, "test")]
    write_csv(run.path / "volumes.csv", rows, VOLUME_COLUMNS)
    run.finish("DONE", "all epochs trained")
    return run


def read(run: RunFolder, metric: str = "dice_val") -> Scores:
    return racing.read_scores(run.path.parent, 3, metric)


def test_the_selection_set_is_read_by_patient(run: RunFolder) -> None:
    assert read(run) == {0: {"a": pytest.approx(0.8), "b": 0.5}}
    write_csv(run.path / "volumes.csv", [volume("t", 0.25, "test")], VOLUME_COLUMNS)
    assert read(run) == {0: {"t": 0.25}}  # protocol.selection=test; and a file that was written again is read again


def test_the_area_error_counts_against(run: RunFolder) -> None:
    def slice_of(patient: str, measured: float | None) -> dict[str, object]:
        areas = {"area_true_mm2": 1000.0, "area_reg_mm2": measured, "area_seg_mm2": 400.0}
        return dict.fromkeys(SLICE_COLUMNS, 0) | {"patient": patient, "set": "validation"} | areas

    write_csv(run.path / "slices.csv", [slice_of("a", 900), slice_of("a", 1300), slice_of("b", 1000)], SLICE_COLUMNS)
    assert read(run, "area_mad_mm2") == {0: {"a": -200, "b": 0}}
    write_csv(run.path / "slices.csv", [slice_of("a", None)], SLICE_COLUMNS)  # the baseline
    assert read(run, "area_mad_mm2") == {0: {"a": -600}}


def test_only_whole_finished_folds_with_numbers_count(run: RunFolder) -> None:
    run.finish("STOPPED", "out of the race")
    assert read(run) == {}
    run.finish("DONE", "all epochs trained")
    (run.path / "best.pt").unlink()
    assert read(run) == {}
    (run.path / "best.pt").touch()
    write_csv(run.path / "volumes.csv", [volume("a", 0.7), volume("b", math.nan)], VOLUME_COLUMNS)
    assert read(run) == {}
    write_csv(run.path / "volumes.csv", [], VOLUME_COLUMNS)
    assert read(run) == {}


@pytest.mark.parametrize(
    "text", [b"patient,set\na,validation\n", b"\xff\xfe", b"patient,set,dice\na,validation,much\n"]
)
def test_a_damaged_file_is_named(run: RunFolder, text: bytes) -> None:
    (run.path / "volumes.csv").write_bytes(text)
    with pytest.raises(ValueError, match=r"fold_0/volumes\.csv: damaged .*remove the fold's folder") as caught:
        read(run)
    assert "\n" not in str(caught.value)
