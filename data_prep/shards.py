"""A whole array of the store, straight from and to its one shard.

A shard is its chunks and, at the end, an index of their offsets and lengths (zarr's codec sharding_indexed,
version 1.0). Not compressed and one after another along the first axis, the chunks are the array itself, and
reading or writing it costs what the file costs. Whatever is laid out otherwise is left to zarr; what is written
is to the byte what zarr writes (tests/test_store.py).
"""

import json
import math
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

PAGE = 4096
"""Bytes."""
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def read(folder: Path) -> np.ndarray | None:
    """The array in `folder`; None where it is not laid out like that. OSError where it cannot be read."""
    found = _found(folder)
    if found is None:
        return None
    path, dtype, shape = found
    size = dtype.itemsize * math.prod(shape)
    whole = _page_aligned(size)
    with open(path, "rb") as handle:
        return whole.view(dtype).reshape(shape) if handle.readinto(whole.data) == size else None


def mapped(folder: Path) -> np.ndarray | None:
    """As `read`, but read-only and mapped: every process of a machine sees the same memory, the system's page cache."""
    found = _found(folder)
    return None if found is None else np.asarray(np.memmap(found[0], found[1], "r", shape=found[2]))


def _found(folder: Path) -> tuple[Path, np.dtype[Any], tuple[int, ...]] | None:
    """The shard that begins with the array, its type and its shape."""
    layout = _layout(json.loads((folder / "zarr.json").read_bytes()))
    if layout is None:
        return None
    dtype, shape = layout
    size, count, path = dtype.itemsize * math.prod(shape), shape[0], _path(folder, shape)
    if path.stat().st_size != size + index_size(count):
        return None
    index = np.fromfile(path, "<u8", 2 * count, offset=size)
    return (path, dtype, shape) if np.array_equal(index, _index(size, count)) else None


def write(folder: Path, array: np.ndarray) -> None:
    """Write the shard of an array that zarr has made in `folder`; C order, little-endian, not empty."""
    path = _path(folder, array.shape)
    path.parent.mkdir(parents=True)
    index = _index(array.nbytes, array.shape[0]).tobytes()
    with open(path, "wb") as handle:
        handle.write(array.data)
        handle.write(index + google_crc32c.value(index).to_bytes(4, "little"))


def index_size(count: int) -> int:
    """Bytes behind so many chunks: where each begins and how long it is, and a checksum."""
    return 16 * count + 4


def _index(size: int, count: int) -> np.ndarray:
    """Offset and length of each chunk, where `count` equal ones make `size` bytes."""
    length = size // count
    return np.stack([np.arange(count, dtype="<u8") * length, np.full(count, length)], axis=1).astype("<u8").ravel()


def _path(folder: Path, shape: tuple[int, ...]) -> Path:
    return folder.joinpath("c", *"0" * len(shape))


def _layout(found: dict[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Type and shape by an array's zarr.json; None where its shard does not begin with the array."""
    shape, dtype = tuple(found["shape"]), np.dtype(found["data_type"]).newbyteorder("<")
    sharding = {
        "chunk_shape": [1, *shape[1:]],
        "codecs": [_LITTLE if dtype.itemsize > 1 else {"name": "bytes"}],
        "index_codecs": [_LITTLE, {"name": "crc32c"}],
        "index_location": "end",
    }
    wanted = {
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    return (dtype, shape) if shape and all(found.get(name) == value for name, value in wanted.items()) else None


def _page_aligned(size: int) -> np.ndarray:
    """Bytes that begin with a page, as the file's do in the page cache.

    NumPy's own begin 16 bytes into a page, and copying to there from the cache takes twice as long.
    """
    room = np.empty(size + PAGE, np.uint8)
    begin = -room.ctypes.data % PAGE
    return room[begin : begin + size]
