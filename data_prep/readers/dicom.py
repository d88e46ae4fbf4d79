"""One DICOM file -> one slice: pixels and geometry, and nothing else of what the file says.

Uncompressed pixels are taken from the bytes as they lie, compressed ones are decoded by SimpleITK. What a
message says is ours: a library's own may quote the file.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from data_prep import files
from data_prep.readers import tags
from data_prep.readers.tags import Tags
from data_prep.study import Frame, StudyError

PHANTOM_MANUFACTURER = "Branchpoint phantom"
"""The phantom signs its files with this, so that a store of made-up patients says so wherever it goes."""
LARGEST_MATRIX = 4096
SPACING_RANGE_MM = (0.05, 20.0)
GEOMETRY = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings quote paths


@dataclass(frozen=True)
class Header:
    """What orders a file among others. The series' UID lives no longer than the reading does."""

    series: str
    instance: int
    time_ms: float
    source: str
    position_mm: tuple[float, float, float]
    orientation: tuple[float, ...]


def read_bytes(path: Path, label: str) -> bytes:
    """The file; StudyError says what the system says where it cannot be read."""
    try:
        return files.read(path)
    except OSError as error:
        raise StudyError(error.strerror or "cannot be read", label) from error
    except ValueError as error:
        raise StudyError("has a name that is none", label) from error


def header(path: Path, label: str) -> Header:
    """Series, number, time and place of a file; its pixels are not looked at."""
    found = _tags(read_bytes(path, label), label)
    position_mm, orientation = _place(found, label)
    return Header(
        series=found.get("SeriesInstanceUID", ""),
        instance=found.get("InstanceNumber", 0),
        time_ms=found.get("TriggerTime", (0.0,))[0],
        source=_source(found),
        position_mm=position_mm,
        orientation=orientation,
    )


def frame(path: Path, label: str, mask_YX: np.ndarray | None = None, mask_file: str | None = None) -> tuple[Frame, str]:
    """One slice, and `phantom` where the phantom signed it, else nothing."""
    found = _tags(read_bytes(path, label), label)
    position_mm, orientation = _place(found, label)
    try:
        image_YX, rescaled = _pixels(found, path)
    except StudyError as error:
        raise StudyError(error.reason, label) from error
    except Exception as error:
        raise StudyError(f"its pixels cannot be read ({type(error).__name__})", label) from error
    spacing_mm = found["PixelSpacing"]
    if len(spacing_mm) != 2 or not all(SPACING_RANGE_MM[0] <= v <= SPACING_RANGE_MM[1] for v in spacing_mm):
        low, high = SPACING_RANGE_MM
        raise StudyError(f"PixelSpacing is {list(spacing_mm)}, wanted two numbers from {low:g} to {high:g} mm", label)
    slope, intercept = found.get("RescaleSlope", (1.0,))[0], found.get("RescaleIntercept", (0.0,))[0]
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise StudyError(f"RescaleSlope is {slope}, RescaleIntercept {intercept}: not a scale", label)
    if (slope, intercept) != (1.0, 0.0) and not rescaled:
        image_YX = image_YX.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return Frame(image_YX, mask_YX, spacing_mm, position_mm, orientation, label, mask_file), _source(found)


def _tags(content: bytes, label: str) -> Tags:
    try:
        return tags.read(content)
    except Exception as error:  # pydicom raises of every kind on a damaged file
        raise StudyError(f"not readable as DICOM ({type(error).__name__})", label) from error


def _source(found: Tags) -> str:
    return "phantom" if found.get("Manufacturer") == PHANTOM_MANUFACTURER else ""


def _place(found: Tags, label: str) -> tuple[tuple[float, float, float], tuple[float, ...]]:
    """Position and orientation; StudyError where they are not there or make no sense."""
    missing = [name for name in GEOMETRY if name not in found]
    if missing:
        raise StudyError(f"has no {' and no '.join(missing)}: not an image with geometry", label)
    position_mm, orientation = found["ImagePositionPatient"], found["ImageOrientationPatient"]
    if len(position_mm) != 3 or len(orientation) != 6 or not all(map(math.isfinite, [*position_mm, *orientation])):
        raise StudyError("its position or orientation are not finite: not an image with geometry", label)
    if max(abs(v) for v in position_mm) > 1e5:
        raise StudyError("its position lies more than 100 m away: not an image with geometry", label)
    run, fall = orientation[:3], orientation[3:]
    across = sum(a * b for a, b in zip(run, fall, strict=True))
    if max(abs(math.hypot(*run) - 1), abs(math.hypot(*fall) - 1), abs(across)) > 0.01:
        raise StudyError("ImageOrientationPatient holds no two perpendicular unit directions", label)
    return position_mm, orientation


def _pixels(found: Tags, path: Path) -> tuple[np.ndarray, bool]:
    """(Y, X), and whether they are rescaled; StudyError where it is not one grey slice or bytes are missing."""
    rows, columns = found["Rows"], found["Columns"]
    if found.get("NumberOfFrames", 1) != 1 or found.get("SamplesPerPixel", 1) != 1:
        raise StudyError("holds several frames or colours; wanted one grey slice a file")
    if not (1 < rows <= LARGEST_MATRIX and 1 < columns <= LARGEST_MATRIX):
        raise StudyError(f"has a matrix of {rows} x {columns}, wanted 2 to {LARGEST_MATRIX}")
    allocated = found["BitsAllocated"]
    stored = found.get("BitsStored", allocated)
    common = found.get("PhotometricInterpretation", "MONOCHROME2") == "MONOCHROME2" and allocated in (8, 16)
    if found["syntax"] not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian) or not common:
        return _decoded(path, UID(found["syntax"]), (rows, columns)), True
    if not 1 <= stored <= allocated:
        raise StudyError(f"BitsStored is {stored}, wanted 1 to {allocated}")
    wanted = rows * columns * allocated // 8
    content = found.get("PixelData", b"")
    if not wanted <= len(content) <= wanted + 1:
        raise StudyError(f"has {len(content)} bytes of pixels, wanted {wanted}: cut short, or another matrix")
    kind = "i" if found.get("PixelRepresentation", 0) else "u"
    values = np.frombuffer(content, f"<{kind}{allocated // 8}", rows * columns).reshape(rows, columns)
    spare = allocated - stored  # what lies above the stored bits may be an overlay
    return (values << spare) >> spare if spare else values, False


def _decoded(path: Path, syntax: UID, shape: tuple[int, int]) -> np.ndarray:
    """Compressed or otherwise unusual pixels, by SimpleITK; rescaled by it."""
    try:
        image = sitk.ReadImage(str(path))
        values = np.asarray(sitk.GetArrayFromImage(image))
    except RuntimeError as error:
        raise StudyError(
            f"its transfer syntax ({syntax.name}) cannot be decoded; decompress the files, with gdcmconv --raw say"
        ) from error
    if values.shape != (1, *shape):
        raise StudyError(f"decodes to {values.shape}, wanted one slice of {shape}")
    return np.asarray(values[0])
