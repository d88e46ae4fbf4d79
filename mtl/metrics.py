"""Overlap of two volumes, and the component that is kept of a prediction."""

import numpy as np
from scipy import ndimage

CONNECTIVITY_26 = np.ones((3, 3, 3), bool)
"""Voxels that share a face, an edge or a corner belong together (the paper does not say)."""


def dice(truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two boolean volumes. An empty prediction gives 0; two empty ones NaN."""
    total = int(truth_ZYX.sum()) + int(prediction_ZYX.sum())
    return 2 * int((truth_ZYX & prediction_ZYX).sum()) / total if total else float("nan")


def largest_component(mask_ZYX: np.ndarray) -> np.ndarray:
    """The largest 26-connected component of a boolean volume (paper, section 3); empty stays empty."""
    labels, count = ndimage.label(mask_ZYX, CONNECTIVITY_26)
    if count < 2:
        return mask_ZYX
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())
