"""What SimpleITK lets pass in a NIfTI file and we do not: a length that is not the header's, a header that
contradicts itself, numbers that are none.

Offsets and types are those of the NIfTI-1 and NIfTI-2 standards.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_prep.study import StudyError

LARGEST_VOLUME = 2**29
"""Voxels."""
PIECE = 1 << 20
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
"""Bits a voxel, by the code of a type that is one real number."""
_FIELDS = {
    348: {"dims": ("8h", 40), "type": ("2h", 70), "pixdim": ("8f", 76), "offset": ("f", 108), "scale": ("2f", 112)}
    | {"qform": ("h", 252), "quatern": ("6f", 256), "sform": ("h", 254), "rows": ("12f", 280), "magic": ("4s", 344)},
    540: {"dims": ("8q", 16), "type": ("2h", 12), "pixdim": ("8d", 104), "offset": ("q", 168), "scale": ("2d", 176)}
    | {"qform": ("i", 344), "quatern": ("6d", 352), "sform": ("i", 348), "rows": ("12d", 400), "magic": ("4s", 4)},
}
"""Format and offset, by the header's size: NIfTI-1, NIfTI-2."""
_MAGIC = {348: b"n+1\0", 540: b"n+2\0"}


@dataclass(frozen=True)
class _Header:
    size: int
    dims: tuple[int, ...]
    type: tuple[int, ...]
    pixdim: tuple[float, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    qform: tuple[int, ...]
    quatern: tuple[float, ...]
    sform: tuple[int, ...]
    rows: tuple[float, ...]
    magic: tuple[bytes, ...]


def check(path: Path, label: str) -> None:
    """StudyError unless the file is NIfTI, whole, and at one with its header. OSError where it cannot be read."""
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            if packed:
                with gzip.open(raw) as handle:
                    fault = _fault(handle)  # type: ignore[arg-type]
            else:
                fault = _fault(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            fault = "its compressed bytes are damaged or cut short"
        except (struct.error, ValueError, OverflowError):
            fault = "not a NIfTI file"
    if fault:
        raise StudyError(fault, label)


def _fault(handle: BinaryIO) -> str:
    """What is wrong; empty where nothing is. struct.error or ValueError where it is no NIfTI at all."""
    head = handle.read(544)
    header = _parse(head)
    wanted = _wanted_bytes(header)
    length = len(head)
    while length <= wanted + PIECE and (piece := handle.read(PIECE)):
        length += len(piece)
    if fault := _contradiction(header):
        return fault
    if length < wanted:
        return f"has {length} bytes, its header says {wanted}: cut short"
    return f"has more than the {wanted} bytes that its header says: another matrix" if length > wanted else ""


def _parse(head: bytes) -> _Header:
    for order in "<>":
        size = struct.unpack_from(f"{order}i", head)[0]
        if size in _FIELDS:
            found = {name: struct.unpack_from(order + how, head, at) for name, (how, at) in _FIELDS[size].items()}
            return _Header(size, **found)
    raise ValueError("no header")


def _wanted_bytes(header: _Header) -> int:
    """Of the whole file. ValueError where the header is none."""
    count, offset = header.dims[0], header.offset[0]
    if header.magic[0] != _MAGIC[header.size] or not 1 <= count <= 7 or not header.size <= offset < 2**40:
        raise ValueError("no header")
    voxels = math.prod(max(n, 0) for n in header.dims[1 : count + 1])
    if voxels > LARGEST_VOLUME:
        raise ValueError("too large")
    return int(offset) + voxels * header.type[1] // 8


def _contradiction(header: _Header) -> str:
    count = header.dims[0]
    if min(header.dims[1 : count + 1]) < 1:
        return "has a dimension of no extent: no slices"
    if _BITS.get(header.type[0]) != header.type[1]:
        return f"its voxels are of type {header.type[0]} with {header.type[1]} bits: not one real number each"
    spacing = header.pixdim[1 : min(count, 3) + 1]
    if not all(math.isfinite(step) and step > 0 for step in spacing):
        return f"has spacings {[round(step, 4) for step in spacing]} mm: not a geometry"
    if not all(math.isfinite(value) for value in header.scale):
        return "its grey levels are scaled by what is no number"
    if header.qform[0] > 0 and not all(math.isfinite(value) for value in header.quatern):
        return "its orientation is given by what is no number"
    if header.sform[0] > 0:
        steps = [math.hypot(*header.rows[column::4]) for column in range(len(spacing))]
        if not all(abs(step - said) <= 0.01 * said for step, said in zip(steps, spacing, strict=True)):
            return f"has spacings {[round(s, 4) for s in spacing]} mm and axes of {[round(s, 4) for s in steps]} mm"
    return ""
