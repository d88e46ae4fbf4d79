"""Made-up patients: beating hearts in an archive's own layout.

    python -m data_prep.phantom RAW [--archive lvsc] [--patients 10] [--slices 6] [--phases 4] [--seed 0]

lvsc: real DICOM files and PNG masks of the myocardium, at every phase; acdc: NIfTI files, and labels of the myocardium
and both ventricles at end-diastole and end-systole. Each patient has a contracting myocardial ring around a bright
cavity, a right ventricle, lungs, liver and fat, a bias field and Rician noise; an oblique heart axis with true
geometry; a pixel spacing and matrix of its own; slices that run from base to apex or back. ED is not always phase 0.
The same arguments give the same bytes.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.ndimage import gaussian_filter

from data_prep import files
from data_prep.ending import command
from data_prep.readers.dicom import PHANTOM_MANUFACTURER
from data_prep.study import BACKGROUND, LEFT_VENTRICLE, MYOCARDIUM, RIGHT_VENTRICLE

GRIDS = [(256, 1.3672), (192, 1.7708), (208, 1.5625), (256, 1.25), (176, 2.0)]
"""Matrix sizes and pixel spacings (mm) that the patients take in turn."""
SLICE_SPACING_MM = 10.0
ACDC_LABELS = np.array([0, 2, 3, 1], np.uint8)
"""Theirs (1 right ventricle, 2 myocardium, 3 left ventricle), by study.CLASSES."""
GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")


@dataclass(frozen=True)
class Heart:
    """A patient's anatomy. Lengths in mm, angles in rad, in the slice's own plane (x right, y down)."""

    centre_mm: tuple[float, float]
    cavity_mm: float
    wall_mm: float
    contraction: float
    eccentricity: float
    tilt: float
    ed_phase: int
    phases: int

    @property
    def es_phase(self) -> int:
        """Of the smallest cavity."""
        return (self.ed_phase + self.phases // 2) % self.phases

    def cavity_mm2(self, height: float, phase: int) -> float:
        """Area of the left ventricle's cavity: that inside r (1 + e cos 2 phi) = inner radius."""
        inner, _ = self.radii_mm(height, phase)
        return float(np.pi * inner**2 / (1 - self.eccentricity**2) ** 1.5)

    def radii_mm(self, height: float, phase: int) -> tuple[float, float]:
        """Inner and outer radius at `height` (0 base, 1 apex). The wall keeps its area as the cavity shrinks."""
        squeeze = np.sin(np.pi * ((phase - self.ed_phase) % self.phases) / self.phases) ** 2
        relaxed = self.cavity_mm * (1 - 0.6 * height**2)
        wall = self.wall_mm * (1 - 0.25 * height)
        inner = relaxed * (1 - self.contraction * squeeze)
        return float(inner), float(np.sqrt((relaxed + wall) ** 2 - relaxed**2 + inner**2))


def draw_heart(rng: np.random.Generator, phases: int) -> Heart:
    """A heart within the range of real ones."""
    return Heart(
        centre_mm=(float(rng.uniform(-18, 18)), float(rng.uniform(-18, 18))),
        cavity_mm=float(rng.uniform(20, 28)),
        wall_mm=float(rng.uniform(9, 13)),
        contraction=float(rng.uniform(0.2, 0.4)),
        eccentricity=float(rng.uniform(0, 0.1)),
        tilt=float(rng.uniform(0, np.pi)),
        ed_phase=int(rng.integers(phases)),
        phases=phases,
    )


def render(
    heart: Heart, height: float, phase: int, grid: tuple[int, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One slice: grey levels (Y, X) int16 and labels (Y, X) uint8, by study.CLASSES."""
    n, spacing_mm = grid
    axis_mm = (np.arange(n) - (n - 1) / 2) * spacing_mm
    y, x = np.meshgrid(axis_mm, axis_mm, indexing="ij")
    dx, dy = x - heart.centre_mm[0], y - heart.centre_mm[1]
    angle = np.arctan2(dy, dx)
    radius = np.hypot(dx, dy) * (1 + heart.eccentricity * np.cos(2 * (angle - heart.tilt)))
    inner, outer = heart.radii_mm(height, phase)
    ring, cavity = (radius <= outer) & (radius > inner), radius <= inner

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)

    image = np.full((n, n), 4.0)
    image[ellipse(0, 0, 165, 125)] = 230  # fat under the skin
    image[ellipse(0, 0, 152, 112)] = 105  # muscle and the rest
    image[ellipse(75, -5, 62, 88) | ellipse(-85, -10, 55, 85)] = 18  # lungs
    image[ellipse(-60, 85, 80, 40)] = 95  # liver
    image[ellipse(30, 95, 18, 18)] = 190  # aorta
    right = ellipse(heart.centre_mm[0] - 0.9 * outer, heart.centre_mm[1] + 4, 0.95 * outer, 0.8 * outer)
    image[radius <= outer + 7] = 60  # pericardial fat seen dark at its edge
    image[right] = 175
    image[ring] = 72
    image[cavity] = 195
    papillary = np.hypot(dx - 0.5 * inner, dy - 0.35 * inner) <= 0.16 * inner
    image[papillary & cavity] = 80
    image *= 1 + 0.08 * gaussian_filter(rng.standard_normal((n, n)), 6 / spacing_mm) * 12 / spacing_mm
    bias = 1 + 0.25 * (x * np.cos(heart.tilt) + y * np.sin(heart.tilt)) / 150
    image = gaussian_filter(image * bias, 0.8 / spacing_mm)
    noise = rng.normal(0, 7, (2, n, n))
    labels = np.select([ring, cavity, right], [MYOCARDIUM, LEFT_VENTRICLE, RIGHT_VENTRICLE], BACKGROUND)
    return np.rint(np.hypot(image + noise[0], noise[1])).astype(np.int16), labels.astype(np.uint8)


def heart_axis(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row direction, column direction and the axis from base to apex, orthonormal, LPS."""
    axis = np.array([0.65, -0.5, -0.55]) + rng.uniform(-0.1, 0.1, 3)
    axis /= np.linalg.norm(axis)
    row = np.cross([0.0, 0.0, 1.0], axis)
    row /= np.linalg.norm(row)
    return row, np.cross(axis, row), axis


def write_lvsc(folder: Path, number: int, slices: int, phases: int, rng: np.random.Generator, seed: int) -> None:
    """One patient's DICOM files and masks."""
    case, grid = f"DET9{number:06d}", GRIDS[number % len(GRIDS)]
    heart, (row, column, axis) = draw_heart(rng, phases), heart_axis(rng)
    centre_mm = np.array([30.0, -20.0, 40.0]) + rng.uniform(-10, 10, 3)
    apex_first = bool(rng.integers(2))
    (folder / case).mkdir()
    for z in range(slices):
        half_mm = (grid[0] - 1) / 2 * grid[1]
        position_mm = centre_mm + z * SLICE_SPACING_MM * axis - half_mm * (row + column)
        level = slices - z if apex_first else z + 1
        for phase in range(phases):
            image_YX, labels_YX = render(heart, (z + 0.5) / slices, phase, grid, rng)
            stem = folder / case / f"{case}_SA{level}_ph{phase}"
            place = (level, phase, phases)
            dataset = _dataset(image_YX, case, place, grid[1], position_mm, (row, column), seed)
            dataset.save_as(stem.with_suffix(".dcm"), enforce_file_format=True)
            rgb = np.repeat(np.where(labels_YX == MYOCARDIUM, np.uint8(255), np.uint8(0))[..., None], 3, axis=2)
            png = sitk.GetImageFromArray(rgb, isVector=True)
            sitk.WriteImage(png, str(stem.with_suffix(".png")))


def _dataset(
    image_YX: np.ndarray,
    case: str,
    place: tuple[int, int, int],
    spacing_mm: float,
    position_mm: np.ndarray,
    directions: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> Dataset:
    """A DICOM MR image with the tags that a scanner writes for geometry and timing."""
    level, phase, phases = place

    def uid(*parts: object) -> UID:
        return UID(generate_uid(entropy_srcs=[str(p) for p in ("branchpoint", seed, case, *parts)]))

    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = MRImageStorage
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = uid(level, phase)
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = uid("study"), uid("series"), uid("frame")
    d.Modality, d.Manufacturer, d.PatientName, d.PatientID = "MR", PHANTOM_MANUFACTURER, case, case
    d.SeriesNumber, d.InstanceNumber = 1, (level - 1) * phases + phase + 1
    d.SliceThickness, d.TriggerTime = "8", f"{phase * 800 / phases:.3f}"
    d.PixelSpacing = [f"{spacing_mm:.6f}"] * 2
    d.ImagePositionPatient = [f"{v:.6f}" for v in position_mm]
    d.ImageOrientationPatient = [f"{v:.8f}" for v in np.concatenate(directions)]
    d.Rows, d.Columns = image_YX.shape
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
    d.PixelData = image_YX.astype("<i2").tobytes()
    return d


def write_acdc(folder: Path, number: int, slices: int, phases: int, rng: np.random.Generator, seed: int) -> None:
    """One patient's NIfTI files and Info.cfg. The seed is in rng."""
    code, (n, spacing_mm) = f"patient{number:03d}", GRIDS[number % len(GRIDS)]
    heart, (row, column, axis) = draw_heart(rng, phases), heart_axis(rng)
    base_mm = np.array([30.0, -20.0, 40.0]) + rng.uniform(-10, 10, 3)
    drawn = [[render(heart, (z + 0.5) / slices, t, (n, spacing_mm), rng) for z in range(slices)] for t in range(phases)]
    image_TZYX, labels_TZYX = (np.array([[pair[which] for pair in of_phase] for of_phase in drawn]) for which in (0, 1))
    if rng.integers(2):  # from the apex upwards
        image_TZYX, labels_TZYX = image_TZYX[:, ::-1], labels_TZYX[:, ::-1]
        base_mm, axis = base_mm + (slices - 1) * SLICE_SPACING_MM * axis, -axis
    origin_mm = base_mm - (n - 1) / 2 * spacing_mm * (row + column)

    def write(name: str, array_TZYX: np.ndarray) -> None:
        volumes = [sitk.GetImageFromArray(np.ascontiguousarray(array_ZYX)) for array_ZYX in array_TZYX]
        for volume in volumes:
            volume.SetSpacing((spacing_mm, spacing_mm, SLICE_SPACING_MM))
            volume.SetOrigin(origin_mm.tolist())
            volume.SetDirection(np.stack([row, column, axis], axis=1).ravel().tolist())
        whole = sitk.JoinSeries(volumes) if len(volumes) > 1 else volumes[0]
        sitk.WriteImage(whole, str(folder / code / f"{code}_{name}.nii.gz"))

    (folder / code).mkdir()
    write("4d", image_TZYX)
    frames = {"ED": heart.ed_phase, "ES": heart.es_phase}
    for t in frames.values():
        write(f"frame{t + 1:02d}", image_TZYX[t : t + 1])
        write(f"frame{t + 1:02d}_gt", ACDC_LABELS[labels_TZYX[t : t + 1]])
    said = {name: t + 1 for name, t in frames.items()} | {"Group": GROUPS[number % len(GROUPS)], "NbFrame": phases}
    said["Manufacturer"] = PHANTOM_MANUFACTURER
    (folder / code / "Info.cfg").write_text("".join(f"{name}: {value}\n" for name, value in said.items()))


ARCHIVES = {"lvsc": write_lvsc, "acdc": write_acdc}


def make(raw: Path, patients: int, slices: int, phases: int, seed: int, archive: str = "lvsc") -> None:
    """Write `patients` made-up patients under `raw`, which appears when all are there. ValueError where the archive's
    layout has no place for them."""
    if archive == "acdc" and (phases < 2 or slices < 2 or patients > 999):
        raise ValueError(
            f"acdc with {patients} patients of {slices} slices and {phases} phases: wanted up to 999 patients, "
            "and 2 or more slices and phases (ED and ES are labelled)"
        )
    with files.new_folder(raw) as folder:
        for number in range(1, patients + 1):
            ARCHIVES[archive](folder, number, slices, phases, np.random.default_rng([seed, number]), seed)


@command("phantom", "nothing was written")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data_prep.phantom", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("raw", type=Path, metavar="RAW", help="folder to make")
    parser.add_argument("--archive", choices=list(ARCHIVES), default="lvsc", help="whose layout (default lvsc)")
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--slices", type=int, default=6, help="slices a volume, base to apex")
    parser.add_argument("--phases", type=int, default=4, help="phases a heart beat")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    for name in ("patients", "slices", "phases"):
        if not 1 <= getattr(args, name) <= 9999:
            raise ValueError(f"--{name} is {getattr(args, name)}, wanted 1 to 9999")
    if args.seed < 0:
        raise ValueError(f"--seed is {args.seed}, wanted 0 or more")
    make(args.raw, args.patients, args.slices, args.phases, args.seed, args.archive)
    print(f"{args.patients} made-up patients: {args.raw}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
