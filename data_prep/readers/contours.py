"""Contours as text: a line per point, x and y in pixels, (0, 0) the centre of the first pixel."""

from pathlib import Path

import numpy as np

from data_prep.readers import dicom
from data_prep.study import StudyError

FEWEST_POINTS, MOST_UNEVEN, SHORT_STEP = 8, 6.0, 1.5
"""A step over so many times the median step, if it is no short one (pixels), is a jump: a contour that was cut
short does not close. The archive's contours have 57 points or more, and no step over 1.5 times the median."""


def read(path: Path, label: str, shape: tuple[int, int]) -> np.ndarray:
    """Points (N, 2), x then y. StudyError where it is no contour on an image of `shape` (rows, columns)."""
    try:
        lines = dicom.read_bytes(path, label).decode("ascii").split("\n")
        points = np.array([[float(v) for v in line.split()] for line in lines if line.strip()])
    except (UnicodeDecodeError, ValueError) as error:
        raise StudyError("is no list of x y pairs", label) from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < FEWEST_POINTS:
        raise StudyError(f"is no list of at least {FEWEST_POINTS} x y pairs", label)
    rows, columns = shape
    if not np.isfinite(points).all() or (points < -0.5).any() or (points >= [columns - 0.5, rows - 0.5]).any():
        raise StudyError(f"reaches beyond its image of {rows} x {columns} pixels", label)
    steps = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
    if steps.max() > max(SHORT_STEP, MOST_UNEVEN * float(np.median(steps))):
        raise StudyError(f"jumps {steps.max():.0f} pixels from one point to the next: damaged or not closed", label)
    return points


def filled(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(Y, X) bool: pixels whose centre lies inside the polygon (even-odd rule) or on its edge."""
    out = np.zeros(shape, bool)
    low = np.maximum(np.ceil(points.min(axis=0)).astype(int), 0)
    high = np.minimum(np.floor(points.max(axis=0)).astype(int), [shape[1] - 1, shape[0] - 1])
    x = np.arange(low[0], high[0] + 1, dtype=float)[None, :, None]
    y = np.arange(low[1], high[1] + 1, dtype=float)[:, None, None]
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    # Sign of the cross product: on which side of the edge's line the pixel lies.
    side = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
    crosses = ((y0 > y) != (y1 > y)) & ((side > 0) == (y1 > y0)) & (side != 0)
    beside = (x >= np.minimum(x0, x1)) & (x <= np.maximum(x0, x1))
    level = (y >= np.minimum(y0, y1)) & (y <= np.maximum(y0, y1))
    on_edge = ((side == 0) & beside & level).any(axis=2)
    out[low[1] : high[1] + 1, low[0] : high[0] + 1] = (crosses.sum(axis=2) % 2 == 1) | on_edge
    return out
