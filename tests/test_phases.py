"""Filled areas, ED and ES."""

import numpy as np
from scipy.spatial import ConvexHull

from data_prep import phases


def square_ring(n: int, inner: int) -> np.ndarray:
    """An n x n square with an inner x inner hole, in a 12 x 12 image."""
    mask = np.zeros((12, 12), np.uint8)
    mask[1 : 1 + n, 1 : 1 + n] = 1
    mask[2 : 2 + inner, 2 : 2 + inner] = 0
    return mask


def test_a_closed_ring_is_filled() -> None:
    assert phases.ring(square_ring(5, 3)) == (16, 25, False)


def test_a_split_ring_counts_as_its_hull_and_a_speck_of_a_hole_does_not_close_it() -> None:
    halves = square_ring(9, 7)
    halves[5] = 0
    assert phases.ring(halves) == (30, 81, True)
    speck = square_ring(9, 7)
    speck[1, 4] = 0
    speck[5:8, 5:8] = 1
    speck[6, 6] = 0
    assert phases.ring(speck).filled == 81
    assert phases.ring(speck).open


def test_the_hull_is_that_of_all_pixels() -> None:
    """Against scipy's, over the corners of every pixel."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        blob = rng.random((9, 11)) < 0.2
        corners = np.argwhere(blob)[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])[None]
        assert phases._hull_pixels(blob) == round(ConvexHull(corners.reshape(-1, 2)).volume)


def test_an_open_ring_counts_as_its_hull() -> None:
    ring = square_ring(5, 3)
    ring[1, 3] = 0
    assert phases.ring(ring) == (15, 25, True)


def test_empty_and_tiny_masks() -> None:
    assert phases.ring(np.zeros((4, 4), np.uint8)) == (0, 0, False)
    assert phases.ring(np.eye(4, dtype=np.uint8)[:1]) == (1, 1, False)


def cavities(*cavity_T: float) -> np.ndarray:
    """Two levels with the same cavity."""
    return np.repeat(np.array(cavity_T)[:, None], 2, axis=1)


def test_ed_is_the_largest_cavity_and_es_the_smallest() -> None:
    ed, es, rule = phases.ed_es(cavities(50, 20, 40, 70), np.ones((4, 2), bool))
    assert (ed, es) == (3, 1)
    assert rule == phases.RULE


def test_unlabelled_phases_are_not_compared() -> None:
    labelled = np.array([[1, 1], [0, 0], [1, 1]], bool)
    assert phases.ed_es(cavities(50, 0, 70), labelled)[:2] == (2, 0)


def test_levels_missing_in_a_phase_are_left_out_of_the_comparison() -> None:
    labelled = np.array([[1, 1], [1, 0]], bool)
    cavity_TZ = cavities(30, 40)
    cavity_TZ[1, 1] = 0
    assert phases.ed_es(cavity_TZ, labelled)[:2] == (1, 0)


def test_one_labelled_phase_gives_ed_only_and_none_gives_neither() -> None:
    ed, es, rule = phases.ed_es(cavities(50, 0), np.array([[1, 1], [0, 0]], bool))
    assert (ed, es) == (0, None)
    assert "one labelled phase" in rule
    assert phases.ed_es(cavities(50, 20), np.zeros((2, 2), bool))[:2] == (None, None)
