"""The default data: made-up patients as DICOM, and their store. Made once, where they are missing."""

import dataclasses
import hashlib
import json
from pathlib import Path

from cluster.settings import Demo
from data_prep import convert, phantom
from mtl.runfolder import locked, make_private

WAIT_S = 600.0
VERSION = 1
"""To be raised when the phantom or the conversion of it changes, so that an older store is not taken for ours."""


def ensure(demo: Demo) -> Path:
    """The store of the made-up patients that `demo` describes; made now if it is not there."""
    sizes = {"made_by": VERSION} | {key: value for key, value in dataclasses.asdict(demo).items() if key != "folder"}
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:8]
    folder = Path(demo.folder).expanduser().resolve() / f"demo-{digest}"
    raw, store = folder / "raw", folder / "store.zarr"
    if store.exists():
        return store
    print(f"making {demo.patients} patients: {raw}")
    with locked(make_private(folder), WAIT_S):
        if not raw.exists():
            phantom.make(raw, demo.patients, demo.slices, demo.phases, demo.seed)
        if not store.exists():
            convert.convert(raw, store, demo.spacing_mm, demo.size)
    return store
