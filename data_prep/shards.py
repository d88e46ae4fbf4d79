"""A whole array of the store, straight from its one shard.

A shard is its chunks and, at the end, an index of their offsets and lengths (zarr's codec sharding_indexed,
version 1.0). Not compressed and one after another along the first axis, the chunks are the array itself, and
reading it costs what reading the file costs. Whatever is laid out otherwise is left to zarr.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

PAGE = 4096
"""Bytes."""
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def read(folder: Path) -> np.ndarray | None:
    """The array in `folder`; None where it is not laid out like that. OSError where it cannot be read."""
    layout = _layout(json.loads((folder / "zarr.json").read_bytes()))
    if layout is None:
        return None
    dtype, shape = layout
    size, count = dtype.itemsize * math.prod(shape), shape[0]
    with open(folder.joinpath("c", *"0" * len(shape)), "rb") as handle:
        if os.fstat(handle.fileno()).st_size != size + 16 * count + 4:  # a checksum ends it
            return None
        index = np.fromfile(handle, "<u8", 2 * count, offset=size)
        starts = np.arange(count, dtype="<u8") * np.uint64(size // count)
        if not np.array_equal(index, np.stack([starts, np.full(count, size // count, "<u8")], axis=1).ravel()):
            return None
        handle.seek(0)
        whole = _page_aligned(size)
        return whole.view(dtype).reshape(shape) if handle.readinto(whole.data) == size else None


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
