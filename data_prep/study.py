"""One patient's cine study as a reader hands it over, before any geometry is changed.

Shapes: T phase, Y row, X column. A level is one slice position along the long axis of the heart.
"""

from dataclasses import dataclass

import numpy as np


class StudyError(ValueError):
    """A study that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Level:
    """One slice position through all phases."""

    image_TYX: np.ndarray
    """Grey levels as the scanner gave them (rescaled), float32."""
    mask_TYX: np.ndarray
    """uint8 class labels; 0 wherever no mask was given."""
    labelled_T: np.ndarray
    """bool: a mask was given for this phase (an empty one counts)."""
    spacing_mm: tuple[float, float]
    """Distance between rows and between columns (DICOM PixelSpacing), mm."""
    position_mm: tuple[float, float, float]
    """Centre of the first pixel in the patient's frame, LPS (DICOM IPP), mm."""
    orientation: tuple[float, ...]
    """Direction of a row's run, then of a column's (DICOM IOP), six cosines."""


@dataclass(frozen=True)
class Study:
    """A patient's short-axis cine: levels in whatever order the reader met them."""

    key: str
    """The name under which the patient is stored; never a person's name."""
    source: str
    """Where the study comes from: `lvsc` or `phantom`."""
    phases: tuple[int, ...]
    """The phase numbers of the source, one per T."""
    levels: tuple[Level, ...]
    classes: tuple[str, ...] = ("background", "myocardium")
