"""Filled areas, ED and ES."""

import numpy as np

from data_prep import phases


def square_ring(n: int, inner: int) -> np.ndarray:
    """An n x n square with an inner x inner hole, in a 12 x 12 image."""
    mask = np.zeros((12, 12), np.uint8)
    mask[1 : 1 + n, 1 : 1 + n] = 1
    mask[2 : 2 + inner, 2 : 2 + inner] = 0
    return mask


def test_a_closed_ring_is_filled() -> None:
    assert phases.filled_pixels(square_ring(5, 3)) == 25


def test_an_open_ring_counts_as_its_hull() -> None:
    ring = square_ring(5, 3)
    ring[1, 3] = 0
    assert phases.filled_pixels(ring) == 25


def test_empty_and_tiny_masks() -> None:
    assert phases.filled_pixels(np.zeros((4, 4), np.uint8)) == 0
    assert phases.filled_pixels(np.eye(4, dtype=np.uint8)[:1]) == 1


def areas(*cavity_T: float) -> tuple[np.ndarray, np.ndarray]:
    ring = np.full((len(cavity_T), 2), 10.0)
    return ring, ring + np.array(cavity_T)[:, None]


def test_ed_is_the_largest_cavity_and_es_the_smallest() -> None:
    ed, es, rule = phases.ed_es(*areas(50, 20, 40, 70), np.ones((4, 2), bool))
    assert (ed, es) == (3, 1)
    assert rule == phases.RULE


def test_unlabelled_phases_are_not_compared() -> None:
    labelled = np.array([[1, 1], [0, 0], [1, 1]], bool)
    assert phases.ed_es(*areas(50, 0, 70), labelled)[:2] == (2, 0)


def test_levels_missing_in_a_phase_are_left_out_of_the_comparison() -> None:
    labelled = np.array([[1, 1], [1, 0]], bool)
    ring, filled = areas(30, 40)
    filled[1, 1] = ring[1, 1] = 0
    assert phases.ed_es(ring, filled, labelled)[:2] == (1, 0)


def test_one_labelled_phase_gives_ed_only_and_none_gives_neither() -> None:
    ed, es, rule = phases.ed_es(*areas(50, 0), np.array([[1, 1], [0, 0]], bool))
    assert (ed, es) == (0, None)
    assert "one labelled phase" in rule
    assert phases.ed_es(*areas(50, 20), np.zeros((2, 2), bool))[:2] == (None, None)
