"""Which code has trained a fold: a hash over the files that decide its numbers."""

import hashlib
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
DECIDE = (
    "augment",
    "data",
    "diagnose",
    "evaluate",
    "joint",
    "loss",
    "metrics",
    "network",
    "optimiser",
    "placed",
    "ranks",
    "slices",
    "structures",
    "train",
    "trainer",
    "weighting/__init__",
    "weighting/alone",
    "weighting/fixed",
    "weighting/learned",
)
"""modules of this package; tests/test_version.py holds it against what mtl.train and mtl.data import"""


@cache
def code_hash() -> str:
    """Twelve hex digits; the same for every fold of a launch."""
    named = (name.encode() + (HERE / f"{name}.py").read_bytes() for name in DECIDE)
    return hashlib.sha256(b"".join(named)).hexdigest()[:12]
