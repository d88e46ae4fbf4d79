"""Filled areas and cavity volumes of ring masks; end-diastole and end-systole from them.

LVSC's masks are the myocardium ring alone: the cavity is the hole in it.
"""

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

RULE = "ED is the phase of the largest, ES of the smallest cavity volume"


def filled_pixels(mask_YX: np.ndarray) -> int:
    """Pixels inside the outer contour of a ring; an open ring counts as its convex hull."""
    ring = mask_YX > 0
    pixels = int(ring.sum())
    filled = int(ndimage.binary_fill_holes(ring).sum())
    return filled if filled > pixels or pixels < 3 else max(filled, _hull_pixels(ring))


def _hull_pixels(ring_YX: np.ndarray) -> int:
    corners = np.argwhere(ring_YX)[:, None, :] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])[None]
    try:
        return round(float(ConvexHull(corners.reshape(-1, 2)).volume))
    except QhullError:
        return int(ring_YX.sum())


def ed_es(ring_TZ: np.ndarray, filled_TZ: np.ndarray, labelled_TZ: np.ndarray) -> tuple[int | None, int | None, str]:
    """ED and ES as indices of T, and the rule used (the paper gives none).

    ring_TZ, filled_TZ: areas of the ring and inside its outer contour, any unit (levels are equally thick);
    labelled_TZ: bool. Phases are compared on the levels labelled in all of them. With one labelled phase
    ES is unknown: None.
    """
    phases = np.flatnonzero(labelled_TZ.any(axis=1))
    common = labelled_TZ[phases].all(axis=0) if len(phases) else np.zeros(labelled_TZ.shape[1], bool)
    if not len(phases) or not common.any():
        return None, None, "unknown: no level is labelled in all labelled phases"
    cavity_T = (filled_TZ - ring_TZ)[phases][:, common].sum(axis=1)
    ed = int(phases[np.argmax(cavity_T)])
    if len(phases) == 1:
        return ed, None, f"{RULE}; one labelled phase, so ES is unknown"
    if cavity_T.max() == cavity_T.min():
        return None, None, "unknown: the cavity has the same volume in every labelled phase"
    return ed, int(phases[np.argmin(cavity_T)]), RULE
