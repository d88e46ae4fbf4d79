"""Filled areas and cavity volumes of ring masks; end-diastole and end-systole from them.

LVSC's masks are the myocardium ring alone: the cavity is the hole in it.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

CLEARLY_CLOSED = 1.25
"""A hole of a quarter of the ring's own area is a cavity, without a look at the hull."""
CONVEX = 0.8
"""A closed ring fills this share of its convex hull at least; one that fills less is open or split."""

RULE = "ED is the phase of the largest, ES of the smallest cavity volume"


class Ring(NamedTuple):
    """Areas of one mask, pixels."""

    pixels: int
    filled: int
    """inside the outer contour"""
    open: bool
    """The ring is open or split: its convex hull is what counts as filled."""


def ring(heart_YX: np.ndarray) -> Ring:
    """Areas of a ring, or of a ring with its cavity labelled."""
    rows = np.flatnonzero(heart_YX.any(axis=1))
    if not len(rows):
        return Ring(0, 0, open=False)
    columns = np.flatnonzero(heart_YX[rows[0] : rows[-1] + 1].any(axis=0))
    cropped = heart_YX[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] > 0
    pixels = int(np.count_nonzero(cropped))
    background = np.ones((cropped.shape[0] + 2, cropped.shape[1] + 2), bool)
    np.logical_not(cropped, out=background[1:-1, 1:-1])
    outside, _ = ndimage.label(background)
    filled = cropped.size - int(np.count_nonzero(outside[1:-1, 1:-1] == outside[0, 0]))
    if filled > CLEARLY_CLOSED * pixels or pixels < 3:
        return Ring(pixels, filled, open=False)
    hull = _hull_pixels(cropped)
    gap = filled < CONVEX * hull
    return Ring(pixels, hull if gap else filled, open=gap)


def _hull_pixels(ring_YX: np.ndarray) -> int:
    """Area of the convex hull; each row's outermost pixels are enough for it."""
    rows = np.flatnonzero(ring_YX.any(axis=1))
    first, last = ring_YX[rows].argmax(axis=1), ring_YX.shape[1] - ring_YX[rows, ::-1].argmax(axis=1)
    corners = [np.stack([rows + below, side], axis=1) for below in (0, 1) for side in (first, last)]
    try:
        return round(float(ConvexHull(np.concatenate(corners)).volume))
    except QhullError:
        return int(ring_YX.sum())


def ed_es(cavity_TZ: np.ndarray, known_TZ: np.ndarray) -> tuple[int | None, int | None, str]:
    """ED and ES as indices of T, and the rule used (the paper gives none).

    cavity_TZ: area of the cavity, any unit (levels are equally thick); known_TZ: bool, where it is known.
    Phases are compared on the levels known in all of them. With one such phase ES is unknown: None.
    """
    phases = np.flatnonzero(known_TZ.any(axis=1))
    common = known_TZ[phases].all(axis=0) if len(phases) else np.zeros(known_TZ.shape[1], bool)
    if not len(phases) or not common.any():
        return None, None, "unknown: no level is labelled in all labelled phases"
    cavity_T = cavity_TZ[phases][:, common].sum(axis=1)
    ed = int(phases[np.argmax(cavity_T)])
    if len(phases) == 1:
        return ed, None, f"{RULE}; one labelled phase, so ES is unknown"
    if cavity_T.max() == cavity_T.min():
        return None, None, "unknown: the cavity has the same volume in every labelled phase"
    return ed, int(phases[np.argmin(cavity_T)]), RULE
