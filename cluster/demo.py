"""The default data: made-up patients as DICOM, and their store. Made once, where they are missing."""

import dataclasses
import hashlib
import json
from pathlib import Path

from cluster.sections import Demo, Sweep
from data_prep.files import locked, make_private

WAIT_S = 600.0
VERSION = 2
"""To be raised when the phantom or the conversion of it changes, so that an older store is not taken for ours."""


def fitting(demo: Demo, sweep: Sweep) -> Demo:
    """With the structures that the sweep asks about."""
    return dataclasses.replace(demo, archive="acdc") if sweep.structures > 1 else demo


def store(demo: Demo) -> Path:
    """Where the store of the made-up patients that `demo` describes lies, or will lie."""
    sizes = {"made_by": VERSION} | {key: value for key, value in dataclasses.asdict(demo).items() if key != "folder"}
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:8]
    return Path(demo.folder).expanduser().resolve() / f"demo-{digest}" / "store.zarr"


def ensure(demo: Demo) -> Path:
    """That store; made now if it is not there."""
    path = store(demo)
    if path.exists():
        return path
    from data_prep import convert, phantom  # a second, which no later launch needs

    raw = path.with_name("raw")
    print(f"making {demo.patients} patients: {raw}", flush=True)
    with locked(make_private(path.parent), WAIT_S):
        if not raw.exists():
            phantom.make(raw, demo.patients, demo.slices, demo.phases, demo.seed, demo.archive)
        if not path.exists():
            convert.convert(raw, path, demo.spacing_mm, demo.size)
    return path
