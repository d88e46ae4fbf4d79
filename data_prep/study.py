"""One patient's cine study as a reader hands it over, before any geometry is changed.

Shapes: T phase, Z level, Y row, X column. A level is one slice position along the long axis of the heart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

BACKGROUND, MYOCARDIUM, LEFT_VENTRICLE, RIGHT_VENTRICLE = range(4)
CLASSES = ("background", "myocardium", "left ventricle", "right ventricle")
"""The store's class names; a label is its place here."""


class StudyError(ValueError):
    """A study that cannot be used: why, and which of its files (its name in the case) where one is to blame.

    The reason names no path and nothing that a file says of a person: it is printed and stored.
    """

    def __init__(self, reason: str, file: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.file = file


@dataclass(frozen=True)
class Case:
    """The files of one study as a reader found them, nothing read yet."""

    reader: str
    name: str
    """The archive's own code or the user's name for the study; may name a person."""
    files: Mapping[str, Path]
    """Label -> path. A label says what the file is (`SA2_ph1.dcm`) and never names a person; sorted by label."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the reader wants to know again when it reads the files."""
    subject: str = ""
    """The person, where one has several studies."""
    stratum: str = ""

    @property
    def person(self) -> str:
        return self.subject or self.name


@dataclass(frozen=True)
class Frame:
    """One slice at one phase."""

    image_YX: np.ndarray
    """Grey levels as the scanner gave them, rescaled."""
    mask_YX: np.ndarray | None
    """uint8 class labels over the same field of view, perhaps on another matrix; None where nobody labelled."""
    spacing_mm: tuple[float, float]
    """Distance between rows and between columns (DICOM PixelSpacing), mm."""
    position_mm: tuple[float, float, float]
    """Centre of the first pixel in the patient's frame, LPS (DICOM IPP), mm."""
    orientation: tuple[float, ...]
    """Direction of a row's run, then of a column's (DICOM IOP), six cosines."""
    file: str
    """Label of the image's file in its case."""
    mask_file: str | None = None
    cavity_mm2: float | None = None
    """Area inside the inner contour, where that is all that was drawn."""

    @property
    def mask_spacing_mm(self) -> tuple[float, float]:
        """The mask covers the image's field of view, so its pixels are larger or smaller by the ratio."""
        assert self.mask_YX is not None
        rows, columns = (
            spacing * n / m
            for spacing, n, m in zip(self.spacing_mm, self.image_YX.shape, self.mask_YX.shape, strict=True)
        )
        return rows, columns

    @property
    def centre_mm(self) -> np.ndarray:
        """Middle of the field of view, LPS."""
        run, fall = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        half_y, half_x = ((n - 1) / 2 * step for n, step in zip(self.image_YX.shape, self.spacing_mm, strict=True))
        return np.asarray(np.array(self.position_mm) + half_x * run + half_y * fall)


@dataclass(frozen=True)
class Level:
    """One slice position through all phases."""

    frames: tuple[Frame, ...]
    """One per T."""


@dataclass
class Notes:
    """What became of a case's files where that is not simply `used`: label -> reason."""

    mended: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A patient's short-axis cine: levels in whatever order the reader met them."""

    source: str
    """Where the study comes from: a reader's name, or `phantom`."""
    phases: tuple[int, ...]
    """The phase numbers of the source, one per T."""
    levels: tuple[Level, ...]
    notes: Notes = field(default_factory=Notes)
    ed_es: tuple[int | None, int | None, str] | None = None
    """ED and ES as indices of T and where they are from, where the source says it itself."""
