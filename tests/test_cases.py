"""The test volumes that a fold keeps as pictures."""

from pathlib import Path

import numpy as np
import pytest

from mtl import cases


def test_kept_are_the_quarters_with_the_worst_and_the_best() -> None:
    dice_V = [0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4]
    assert [dice_V[n] for n in cases.chosen(dice_V)] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert [len(cases.chosen(dice_V[:n])) for n in range(6)] == [0, 1, 2, 3, 4, 5]


def test_levels_shown_are_the_middles_of_the_thirds() -> None:
    truth_ZYX = np.zeros((12, 4, 4), bool)
    truth_ZYX[2:11, 1, 1] = True  # nine levels with myocardium
    assert cases.levels_shown(truth_ZYX).tolist() == [3, 6, 9]
    truth_ZYX[3:] = False
    assert cases.levels_shown(truth_ZYX).tolist() == [2, 2, 2]


def volume(rng: np.random.Generator, key: str) -> cases.Case:
    truth_ZYX = rng.random((5, 8, 8)) > 0.5
    return cases.case_of(key, 3, 0.8, rng.integers(-1000, 3000, (5, 8, 8)), truth_ZYX, ~truth_ZYX)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kept = [volume(rng, "P001"), volume(rng, "P2")]
    cases.write(tmp_path / cases.NAME, kept)
    for a, b in zip(cases.read(tmp_path / cases.NAME), kept, strict=True):
        assert (a.patient, a.phase, a.dice) == (b.patient, b.phase, b.dice)
        assert (a.image_LYX == b.image_LYX).all()
        assert a.image_LYX.dtype == np.uint8
        assert (a.image_LYX.min(), a.image_LYX.max()) == (0, 255)
        assert (a.truth_LYX == b.truth_LYX).all()
        assert (a.prediction_LYX == ~b.truth_LYX).all()
    assert cases.read(tmp_path / "missing.npz") == []


def test_none_are_written_and_read(tmp_path: Path) -> None:
    cases.write(tmp_path / cases.NAME, [])
    assert cases.read(tmp_path / cases.NAME) == []


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    cases.write(tmp_path / cases.NAME, [volume(np.random.default_rng(0), "P")])
    whole = (tmp_path / cases.NAME).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 5):
        (tmp_path / cases.NAME).write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"cases\.npz: damaged .*remove the fold's folder"):
            cases.read(tmp_path / cases.NAME)
