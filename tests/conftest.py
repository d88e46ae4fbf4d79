"""Shared fixtures: small made-up patients as DICOM, their store, a small configuration."""

import os
from pathlib import Path

import pytest

from data_prep import convert, phantom, store
from mtl import data
from mtl.config import Config, Model, Train
from mtl.slices import Slices

LONG = (
    *("test_launch.py", "test_shipped_sweeps.py", "test_train.py", "test_benchmarks.py", "test_search.py"),
    *("test_reliability.py", "test_privacy.py", "test_tracking_server.py", "test_regret.py", "test_report.py"),
)
"""The files that take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In one process the fast files come first. Of two processes one begins with the longest, so that short ones are
    left to share when the end is near."""
    long_first = "PYTEST_XDIST_WORKER" in os.environ

    def place(item: pytest.Item) -> int:
        if item.path.name not in LONG:
            return 0
        number = LONG.index(item.path.name)
        return number - len(LONG) if long_first else len(LONG) - number

    items.sort(key=place)


def pytest_configure() -> None:
    """A thread each: the tests run in two processes, and start others. Before anything imports torch."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five made-up patients, 3 slices and 2 phases each."""
    folder = tmp_path_factory.mktemp("raw") / "archive"
    phantom.make(folder, patients=5, slices=3, phases=2, seed=1)
    return folder


@pytest.fixture(scope="session")
def store_path(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their store: 48 x 48 pixels of 6.25 mm."""
    path = tmp_path_factory.mktemp("store") / "store.zarr"
    convert.convert(raw, path, spacing_mm=6.25, size=48)
    return path


@pytest.fixture
def slices(store_path: Path) -> Slices:
    return data.load(store_path, store.open(store_path).digest)


@pytest.fixture
def config(store_path: Path) -> Config:
    """Width 2, three epochs, on the CPU."""
    return Config(
        data_digest=store.open(store_path).digest,
        model=Model(width=2),
        train=Train(epochs=3, batch_size=4, device="cpu"),
    )
