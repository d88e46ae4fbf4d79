"""NIfTI volumes: read by SimpleITK, and checked for what it lets pass.

SimpleITK 2.5.7 reads a file that was cut short without an error, and a spacing that is no number as 1 mm, so
the header is checked first. Voxels that are no numbers (a common background) it reads as 0.

Legend: T phase, Z slice, Y row, X column.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from data_prep.readers import nifti_header
from data_prep.readers.dicom import LARGEST_MATRIX, SPACING_RANGE_MM
from data_prep.study import Frame, Level, StudyError

SUFFIXES = (".nii", ".nii.gz")
LARGEST_SPACING_MM = 100.0
"""Between slices."""


@dataclass(frozen=True)
class Volume:
    """A volume per phase."""

    voxels_TZYX: np.ndarray
    spacing_mm: tuple[float, float, float]
    """Between slices, rows, columns."""
    origin_mm: np.ndarray
    """Centre of the first voxel, LPS."""
    directions: np.ndarray
    """Columns: unit directions of X, Y and Z, LPS."""
    label: str

    @property
    def grid(self) -> str:
        """For messages."""
        return " x ".join(str(n) for n in self.voxels_TZYX.shape[1:])

    def same_axes(self, other: "Volume") -> bool:
        """Whether rows, columns and slices run the same way."""
        return bool(np.abs(self.directions - other.directions).max() < 0.01)

    def same_box(self, other: "Volume") -> bool:
        """Whether both fill the same part of space, perhaps with axes that run the other way."""
        centres = [
            volume.origin_mm + volume.directions @ ((np.array(volume.voxels_TZYX.shape[:0:-1]) - 1) / 2 * steps)
            for volume in (self, other)
            for steps in [np.array(volume.spacing_mm[::-1])]
        ]
        apart = np.abs(centres[0] - centres[1]).max() < 0.5 * min(self.spacing_mm)
        return bool(apart and np.abs(np.abs(self.directions) - np.abs(other.directions)).max() < 0.01)

    def same_grid(self, other: "Volume", *, place: bool) -> bool:
        """Whether a voxel of one is the voxel of the other; place: also that it lies at the same point."""
        if self.voxels_TZYX.shape[1:] != other.voxels_TZYX.shape[1:]:
            return False
        if not np.allclose(self.spacing_mm, other.spacing_mm, rtol=0.01):
            return False
        apart = np.abs(self.origin_mm - other.origin_mm).max() < 0.5 * min(self.spacing_mm)
        return not place or bool(apart and self.same_axes(other))


def is_nifti(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def read(path: Path, label: str) -> Volume:
    """A 3-D or 4-D file. StudyError where it is none, is cut short, or has no slices."""
    try:
        nifti_header.check(path, label)
        image = sitk.ReadImage(str(path))
        voxels = np.asarray(sitk.GetArrayFromImage(image))
    except OSError as error:
        raise StudyError(error.strerror or "cannot be read", label) from error
    except RuntimeError as error:
        raise StudyError("not readable as NIfTI", label) from error
    dimensions = image.GetDimension()
    if dimensions not in (3, 4) or image.GetNumberOfComponentsPerPixel() != 1 or voxels.ndim != dimensions:
        raise StudyError(f"has {dimensions} dimensions, wanted 3 or 4 and one number a voxel", label)
    if min(voxels.shape[-2:]) < 2 or max(voxels.shape[-2:]) > LARGEST_MATRIX or 0 in voxels.shape:
        raise StudyError(f"has a matrix of {voxels.shape[-2]} x {voxels.shape[-1]} or no slices", label)
    spacing_mm = image.GetSpacing()[2::-1]
    low, high = SPACING_RANGE_MM
    if not all(low <= v <= high for v in spacing_mm[1:]) or not low <= spacing_mm[0] <= LARGEST_SPACING_MM:
        raise StudyError(f"has spacings {[round(v, 4) for v in spacing_mm]} mm: not a geometry", label)
    directions = np.array(image.GetDirection()).reshape(dimensions, dimensions)[:3, :3]
    origin_mm = np.array(image.GetOrigin()[:3])
    if not np.isfinite(origin_mm).all() or not np.allclose(directions.T @ directions, np.eye(3), atol=0.02):
        raise StudyError("its axes are not perpendicular or not finite: not a geometry", label)
    return Volume(voxels.reshape(-1, *voxels.shape[-3:]), spacing_mm, origin_mm, directions, label)


def resampled(mask: Volume, t: int, like: Volume) -> np.ndarray:
    """One phase of a mask on the grid of `like`, by place in the patient's frame, nearest neighbour: (Z, Y, X)."""
    source = sitk.GetImageFromArray(np.ascontiguousarray(mask.voxels_TZYX[t]))
    source.SetSpacing(mask.spacing_mm[::-1])
    source.SetOrigin(mask.origin_mm.tolist())
    source.SetDirection(mask.directions.ravel().tolist())
    out = sitk.Resample(
        source,
        like.voxels_TZYX.shape[:0:-1],
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
        like.origin_mm.tolist(),
        like.spacing_mm[::-1],
        like.directions.ravel().tolist(),
        0.0,
        source.GetPixelID(),
    )
    return np.asarray(sitk.GetArrayFromImage(out))


def frames(image: Volume, t: int, mask_ZYX: np.ndarray | None, mask_file: str | None) -> Iterator[Frame]:
    """The slices of one phase."""
    for z, image_YX in enumerate(image.voxels_TZYX[t]):
        position = image.origin_mm + z * image.spacing_mm[0] * image.directions[:, 2]
        yield Frame(
            image_YX,
            None if mask_ZYX is None else mask_ZYX[z],
            image.spacing_mm[1:],
            (float(position[0]), float(position[1]), float(position[2])),
            tuple(float(v) for v in image.directions[:, :2].T.ravel()),
            image.label,
            mask_file,
        )


def levels(phases: list[list[Frame]]) -> tuple[Level, ...]:
    """Frames by phase, then slice -> levels. StudyError where slices do not run along the third axis."""
    first = phases[0]
    if len(first) > 1:
        step = math.dist(first[0].position_mm, first[1].position_mm)
        if step < 0.99 * max(first[0].spacing_mm):
            raise StudyError(
                f"has slices {step:.2f} mm apart and pixels of {max(first[0].spacing_mm):.2f} mm: "
                "the slices must run along the third axis",
                first[0].file,
            )
    return tuple(Level(tuple(phase[z] for phase in phases)) for z in range(len(first)))
