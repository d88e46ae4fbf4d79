"""Archives to read in the tests: real files in the layouts of Sunnybrook, ACDC, nnU-Net and users' own tables.

Their hearts are circles, so areas and volumes are known; DICOM files come from the phantom.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk

from data_prep import convert, store
from data_prep.report import Summary

MYOCARDIUM, LEFT, RIGHT = 1, 2, 3  # ours
OUTER_MM, INNER_MM, RIGHT_MM = 36.0, 24.0, 15.0
"""Radii at the base at ED."""


@dataclass(frozen=True)
class Onto:
    """Converts an archive of one study onto a grid, into `s.zarr` beside it, and says what came of it."""

    spacing_mm: float
    size: int

    def summary_of(self, raw: Path, **options: Any) -> Summary:
        path = raw.parent / "s.zarr"
        shutil.rmtree(path, ignore_errors=True)
        return convert.convert(raw, path, **{"spacing_mm": self.spacing_mm, "size": self.size, **options})

    def converted(self, raw: Path, **options: Any) -> store.Patient:
        assert self.summary_of(raw, **options).complete
        return store.open(raw.parent / "s.zarr").patients[0]

    def set_aside(self, raw: Path, **options: Any) -> str:
        """Which file, and why."""
        (outcome,) = self.summary_of(raw, **options).set_aside
        return f"{outcome.file}: {outcome.reason}"


def heart_TZYX(phases: int, levels: int, n: int, spacing_mm: float) -> np.ndarray:
    """Class labels: circles that shrink towards the apex (the last level) and at the middle phase."""
    axis_mm = (np.arange(n) - (n - 1) / 2) * spacing_mm
    y, x = np.meshgrid(axis_mm, axis_mm, indexing="ij")
    out = np.zeros((phases, levels, n, n), np.uint8)
    for t in range(phases):
        for z in range(levels):
            scale = 1 - 0.5 * z / levels
            inner = INNER_MM * scale * (1 - 0.3 * math.sin(math.pi * t / phases))
            radius = np.hypot(y, x)
            out[t, z][np.hypot(y, x + OUTER_MM * scale + RIGHT_MM) <= RIGHT_MM] = RIGHT
            out[t, z][radius <= OUTER_MM * scale] = MYOCARDIUM
            out[t, z][radius <= inner] = LEFT
    return out


def image_of(labels: np.ndarray) -> np.ndarray:
    """Grey levels that go with class labels, int16."""
    noise = np.random.default_rng(0).normal(0, 5, labels.shape)
    return (np.array([40, 80, 200, 190])[labels] + noise).round().astype(np.int16)


def write_nifti(
    path: Path,
    voxels: np.ndarray,
    spacing_mm: Sequence[float],
    origin_mm: Sequence[float] = (-100.0, -110.0, 40.0),
    directions: np.ndarray | None = None,
) -> Path:
    """A (Z, Y, X) or (T, Z, Y, X) array; spacing between slices, rows, columns; origin and directions in LPS."""
    extra = voxels.ndim - 3
    image = sitk.GetImageFromArray(voxels, isVector=False)
    image.SetSpacing([*spacing_mm[::-1], *[1.0] * extra])
    image.SetOrigin([*origin_mm, *[0.0] * extra])
    whole = np.eye(3 + extra)
    whole[:3, :3] = np.eye(3) if directions is None else directions
    image.SetDirection(whole.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


ACDC_LABELS = np.array([0, 2, 3, 1], np.uint8)
"""Theirs, by ours."""


def acdc(root: Path, patients: int = 2, phases: int = 5, levels: int = 4, n: int = 64, spacing_mm: float = 2.0) -> Path:
    """`training/patient001/...`: ED is frame 1, ES frame 3."""
    for number in range(1, patients + 1):
        code = f"patient{number:03d}"
        folder = root / "training" / code
        labels = heart_TZYX(phases, levels, n, spacing_mm)
        grid = ((10.0, spacing_mm, spacing_mm),)
        write_nifti(folder / f"{code}_4d.nii.gz", image_of(labels), *grid)
        for frame in (1, 3):
            write_nifti(folder / f"{code}_frame{frame:02d}.nii.gz", image_of(labels)[frame - 1], *grid)
            write_nifti(folder / f"{code}_frame{frame:02d}_gt.nii.gz", ACDC_LABELS[labels[frame - 1]], *grid)
        info = (
            f"ED: 1\nES: 3\nGroup: {'DCM' if number % 2 else 'NOR'}\nHeight: 180.0\nNbFrame: {phases}\nWeight: 80.0\n"
        )
        (folder / "Info.cfg").write_text(info)
    return root


def nnunet(root: Path, labels: dict[str, int], cases: Sequence[str] = ("heart_001", "heart_002")) -> Path:
    """imagesTr, labelsTr and dataset.json, with our label values."""
    for case in cases:
        heart_ZYX = heart_TZYX(1, 4, 64, 2.0)[0]
        write_nifti(root / "imagesTr" / f"{case}_0000.nii.gz", image_of(heart_ZYX), (10.0, 2.0, 2.0))
        write_nifti(root / "labelsTr" / f"{case}.nii.gz", heart_ZYX, (10.0, 2.0, 2.0))
    listed = {"channel_names": {"0": "cine"}, "labels": {"background": 0, **labels}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(listed))
    return root


def edit(folder: Path, change: Callable[[pydicom.Dataset, Path], None]) -> None:
    """Change every DICOM file of a folder."""
    for path in sorted(folder.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        change(dataset, path)
        dataset.save_as(path)


def circle(radius_px: float, centre_px: tuple[float, float], points: int = 60) -> str:
    """A contour file's text: x y pairs."""
    angles = np.arange(points) * 2 * math.pi / points
    x, y = centre_px[0] + radius_px * np.cos(angles), centre_px[1] + radius_px * np.sin(angles)
    return "".join(f"{a:.2f} {b:.2f}\n" for a, b in zip(x, y, strict=True))


def sunnybrook(root: Path, lvsc_case: Path, code: str = "SC-HF-I-1", padded: str = "SC-HF-I-01") -> Path:
    """A case of the phantom in Sunnybrook's layout: numbers run through the phases of one slice after another.

    Contours: both at phase 0, inner ones alone at phase 1. Radii in pixels: 20 and 12, at phase 1 inner 9, at the
    base; a tenth less a slice towards the apex.
    """
    images = root / "challenge_training" / code
    drawn = root / "challenge_training" / "TrainingDataContours" / padded / "contours-manual" / "IRCCI-expert"
    images.mkdir(parents=True)
    drawn.mkdir(parents=True)
    sources = {path: pydicom.dcmread(path) for path in sorted(lvsc_case.glob("*.dcm"))}
    apical = {
        p: round(float(np.array([1, -1, -1]) @ np.array(d.ImagePositionPatient, float))) for p, d in sources.items()
    }
    for path, dataset in sources.items():
        scale = 1 - 0.1 * sorted({*apical.values()}).index(apical[path])
        number = int(dataset.InstanceNumber)
        shutil.copy(path, images / f"IM-0004-{number:04d}.dcm")
        middle = ((dataset.Columns - 1) / 2, (dataset.Rows - 1) / 2)
        if path.stem.endswith("_ph0"):
            (drawn / f"IM-0001-{number:04d}-ocontour-manual.txt").write_text(circle(20 * scale, middle))
            (drawn / f"IM-0001-{number:04d}-icontour-manual.txt").write_text(circle(12 * scale, middle))
        elif path.stem.endswith("_ph1"):
            (drawn / f"IM-0001-{number:04d}-icontour-manual.txt").write_text(circle(9 * scale, middle))
    return root
