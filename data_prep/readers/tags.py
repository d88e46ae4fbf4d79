"""The few DICOM tags that are wanted, as plain values.

pydicom reads any file; a walk over the element headers reads the common kind (explicit VR, little endian, no
elements of undefined length) in a sixth of the time, and gives up on everything else. The two agree wherever
the walk does not give up (tests/test_tags.py, on mutated files too).
"""

import io
import struct
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pydicom
from pydicom.uid import ExplicitVRLittleEndian

Tags = Mapping[str, Any]
"""Name -> value; what a file does not have is not in it. `syntax` is the transfer syntax's UID."""

_FLOATS = {
    0x00181060: "TriggerTime",
    0x00200032: "ImagePositionPatient",
    0x00200037: "ImageOrientationPatient",
    0x00280030: "PixelSpacing",
    0x00281052: "RescaleIntercept",
    0x00281053: "RescaleSlope",
}
_TEXTS = {0x00080070: "Manufacturer", 0x0020000E: "SeriesInstanceUID", 0x00280004: "PhotometricInterpretation"}
_NUMBERS = {0x00200013: "InstanceNumber", 0x00280008: "NumberOfFrames"}  # written as text
_SHORTS = {
    0x00280002: "SamplesPerPixel",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280103: "PixelRepresentation",
}
_PIXELS = {0x7FE00010: "PixelData"}
_NAMES = _FLOATS | _TEXTS | _NUMBERS | _SHORTS | _PIXELS

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = {
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS"),
    *(b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
}
_VRS = {
    0x00080070: b"LO",
    0x0020000E: b"UI",
    **dict.fromkeys(_FLOATS, b"DS"),
    **dict.fromkeys(_NUMBERS, b"IS"),
    **dict.fromkeys(_SHORTS, b"US"),
}
_HEADER = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<I")
_UNDEFINED = 0xFFFFFFFF
_SYNTAX, _LAST_OF_META = 0x00020010, 0x0002FFFF


def read(content: bytes) -> Tags:
    """The wanted tags of a file. Errors of every kind where it is none or is damaged."""
    found = walk(content)
    return with_pydicom(content) if found is None else found


def walk(content: bytes) -> Tags | None:
    """By the element headers; None where the file is not of the common kind or looks odd."""
    if content[128:132] != b"DICM":
        return None
    found: dict[str, Any] = {}
    try:
        for tag, vr, begin, end in _elements(content):
            if tag == _SYNTAX:
                found["syntax"] = content[begin:end].rstrip(b"\0 ").decode("ascii")
            elif tag > _LAST_OF_META and found.get("syntax") != ExplicitVRLittleEndian:
                return None
            elif tag in _NAMES and end > begin:
                found[_NAMES[tag]] = _value(tag, vr, content, begin, end)
        return found if "syntax" in found else None
    except (ValueError, struct.error):
        return None


def _elements(content: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """Tag, VR, and where the value begins and ends; ValueError at whatever is not common."""
    at, before, size = 132, 0, len(content)
    while at < size:
        group, element, vr, length = _HEADER.unpack_from(content, at)
        tag = group << 16 | element
        if vr in _SHORT:
            begin = at + 8
        elif vr in _LONG and length == 0:
            begin, length = at + 12, _LENGTH.unpack_from(content, at + 8)[0]
        else:
            raise ValueError("not explicit VR")
        at = begin + length
        if tag <= before or length == _UNDEFINED or at > size:
            raise ValueError("out of order, of undefined length or cut short")
        before = tag
        yield tag, vr, begin, at


def _value(tag: int, vr: bytes, content: bytes, begin: int, end: int) -> Any:
    if tag in _VRS and vr != _VRS[tag]:
        raise ValueError("another VR than the standard's")
    if tag in _PIXELS:
        return memoryview(content)[begin:end]
    if tag in _SHORTS:
        if end - begin != 2:
            raise ValueError("several values")
        return int.from_bytes(content[begin:end], "little")
    text = content[begin:end].decode("ascii").rstrip("\0 ")
    if tag in _TEXTS:
        if "\\" in text or not text.isprintable():
            raise ValueError("several values, or no text")
        return text.strip("\0 ")
    return int(text) if tag in _NUMBERS else tuple(float(value) for value in text.split("\\"))


def with_pydicom(content: bytes) -> Tags:
    """The same by pydicom."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # real files hold UIDs with leading zeros; and warnings quote the file
        dataset = pydicom.dcmread(io.BytesIO(content), specific_tags=[*_NAMES.values()])  # type: ignore[arg-type]
        found: dict[str, Any] = {"syntax": str(dataset.file_meta.TransferSyntaxUID)}
        for name in _NAMES.values():
            value = dataset.get(name)
            if value is None or value == "":
                continue
            if name in _FLOATS.values():
                several = isinstance(value, pydicom.multival.MultiValue | list | tuple)
                found[name] = tuple(float(v) for v in (value if several else [value]))
            elif name in _TEXTS.values():
                found[name] = str(value).strip("\0 ")
            elif name in _PIXELS.values():
                found[name] = memoryview(value)
            else:
                found[name] = int(value)
    return found
