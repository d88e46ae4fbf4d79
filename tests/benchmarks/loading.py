"""A store opened and read into memory against np.load of the same bytes, uncompressed and in the page cache.

    python -m tests.benchmarks loading

Measured twice: one way after the other in one process, whose memory is warm, and each in a process of its own,
where the system must first find the memory, as it must when a training starts. Wanted: at least half of np.load's
rate. How fast single slices come through zarr alone, and the slices of a training with their digests checked, is
told beside it.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from data_prep import store
from mtl import data
from tests.benchmarks.conversion import ROOT
from tests.benchmarks.rows import Beside, Row, interleaved, seconds

SIZE, SPACING_MM = (192, 192), (1.5625, 1.5625)
STORE, PARTS, WHOLE = "store.zarr", "parts", "whole.npy"


def make(home: Path, patients: int, slices: int, phases: int) -> int:
    """A store of noise, an .npy per array and one of all; how many bytes each way holds."""
    rng, parts = np.random.default_rng(0), []
    (home / PARTS).mkdir()
    with store.create(
        home / STORE, source="noise", spacing_mm=SPACING_MM, size=SIZE, classes=["background", "myocardium"]
    ) as writer:
        for number in range(patients):
            image_TZYX = rng.integers(0, 1000, (phases, slices, *SIZE), np.int16)
            arrays = (image_TZYX, (image_TZYX > 900).astype(np.uint8), np.ones((phases, slices), bool))
            writer.add(f"P{number:03d}", *arrays, {"subject": f"P{number:03d}"})
            for name, array in zip(store.ARRAYS, arrays, strict=True):
                np.save(home / PARTS / f"{number:03d}-{name}.npy", array)
                parts.append(array.view(np.uint8).ravel())
    np.save(home / WHOLE, np.concatenate(parts))
    return sum(len(part) for part in parts)


def from_store(home: Path) -> list[np.ndarray]:
    """Ours."""
    return [patient.array(name) for patient in store.open(home / STORE).patients for name in store.ARRAYS]


def from_parts(home: Path) -> list[np.ndarray]:
    return [np.load(path) for path in sorted((home / PARTS).iterdir())]


def from_whole(home: Path) -> list[np.ndarray]:
    return [np.load(home / WHOLE)]


WAYS: dict[str, Callable[[Path], list[np.ndarray]]] = {
    "ours": from_store,
    "np.load of a file per array": from_parts,
    "np.load of one file": from_whole,
}


FLOOR = "floor"


def alone(way: str, home: Path) -> float:
    """Seconds of a way in a process of its own, imports left out."""
    command = [sys.executable, "-m", "tests.benchmarks.loading", way, str(home)]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def single_slices(home: Path, count: int) -> float:
    """Slices/s at random places through zarr's arrays, which are open already."""
    rng = np.random.default_rng(0)
    arrays = [patient.group["image_TZYX"] for patient in store.open(home / STORE).patients]
    places = [(rng.integers(len(arrays)), *rng.integers(arrays[0].shape[:2])) for _ in range(count)]
    return count / seconds(lambda: [arrays[p][int(t), int(z)] for p, t, z in places])


def _row(name: str, size: int, measured: dict[str, list[float]], floor: list[float]) -> Row:
    """MB/s of each way, from its seconds."""
    rates = {way: [size / 1e6 / s for s in taken] for way, taken in measured.items()}
    beside = [Beside(peer, rates[peer], wanted=0.5) for peer in WAYS if peer != "ours"]
    floors = [Beside("reading the bytes", [size / 1e6 / s for s in floor], floor=True)] if floor else []
    return Row(f"loading {size / 1e6:.0f} MB, {name}", "MB/s", rates["ours"], beside + floors, rate=True)


def _beside(home: Path, patients: int, size: int, rounds: int) -> Iterator[Row]:
    """Rows that nothing is held against."""
    digest = store.open(home / STORE).digest
    ways: dict[str, Callable[[], float]] = {
        "opening": lambda: 1000 * seconds(lambda: store.open(home / STORE)) / patients,
        "slices": lambda: single_slices(home, 200),
        "training": lambda: size / 1e6 / seconds(lambda: data.load.__wrapped__(home / STORE, digest)),
    }
    measured = interleaved(ways, rounds)
    yield Row(f"opening a store of {patients} patients", "ms a patient", measured["opening"])
    yield Row("single slices through zarr alone", "slices/s", measured["slices"], rate=True)
    yield Row("slices of a training, digests checked", "MB/s", measured["training"], rate=True)


def read_bytes(home: Path) -> None:
    """Into one buffer again and again: no memory is found for them."""
    buffer = memoryview(bytearray(max(path.stat().st_size for path in (home / PARTS).iterdir())))
    for path in sorted((home / PARTS).iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def rows(patients: int = 20, slices: int = 12, phases: int = 20, rounds: int = 5) -> Iterator[Row]:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        size = make(home, patients, slices, phases)
        warm = {name: partial(seconds, partial(way, home)) for name, way in {**WAYS, FLOOR: read_bytes}.items()}
        measured = interleaved(warm, rounds)
        yield _row("one process", size, measured, measured.pop(FLOOR))
        cold = {name: partial(alone, name, home) for name in WAYS}
        yield _row("a process each", size, interleaved(cold, rounds, warm_up=False), [])
        yield from _beside(home, patients, size, rounds)


def main(way: str, home: str) -> None:
    print(seconds(lambda: WAYS[way](Path(home))))


if __name__ == "__main__":
    main(*sys.argv[1:])
