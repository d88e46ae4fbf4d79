"""Every benchmark by its name, in the size that `make bench` gives it."""

import importlib
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from cluster import executors
from data_prep import convert, phantom, store
from mtl.config import Config, Model, Train
from tests.benchmarks import results
from tests.benchmarks.rows import Row


def of(module: str) -> Any:
    """A module beside this one, imported where it is measured: torch, Ray, MLflow and MONAI take seconds each."""
    return importlib.import_module(f"tests.benchmarks.{module}")


def made_store(home: Path) -> tuple[Path, str]:
    """Ten small made-up patients and their digest."""
    raw, path = home / "raw", home / "store.zarr"
    if not path.exists():
        phantom.make(raw, patients=10, slices=4, phases=4, seed=0)
        convert.convert(raw, path, spacing_mm=3.125, size=96)
    return path, store.open(path).digest


def made_fold(home: Path) -> tuple[Any, Any]:
    """Its slices and the first of five folds."""
    from mtl import data
    from mtl.slices import folds_of

    slices = data.load(*made_store(home))
    return slices, folds_of(slices, 5, 0, "validation")[0]


def trials(home: Path) -> Iterator[Row]:
    """Folds of some seconds: behind shorter ones the start of a trial's process would not be hidden."""
    path, digest = made_store(home)
    tiny = Config(digest, Model(width=2), Train(epochs=1, device="cpu", augment_copies=0))
    yield of("trial").run(tiny, path, few=1, many=5, rounds=5)


def makespans(_: Path) -> Iterator[Row]:
    with executors.local_ray() as scratch:
        yield of("makespan").run(scratch, configurations=8, slots=4, mean_s=3.0, rounds=5)


def epochs(home: Path) -> Iterator[Row]:
    slices, fold = made_fold(home)
    fold = replace(fold, train=fold.train[::4])
    for width in (8, 16):
        yield of("epoch").run(slices, fold, width, rounds=5)


def trainers(home: Path) -> Iterator[Row]:
    yield from of("trainer").run(*made_fold(home), width=8, rounds=8)


def starts(home: Path) -> Iterator[Row]:
    yield of("starting").run(*made_store(home), rounds=5)


def submits(home: Path) -> Iterator[Row]:
    from tests.slurm.conftest import obstacle
    from tests.slurm.testbed import Cluster

    if reason := obstacle():
        yield Row("queueing 20 x 5 folds on the tests' Slurm", "s", (), missing=reason)
        return
    with Cluster(home / "slurm") as cluster:
        yield of("submitting").run(cluster.environment())


BENCHMARKS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "conversion": lambda _: of("conversion").rows(),
    "loading": lambda _: of("loading").rows(patients=10),
    "augment": lambda _: of("augmenting").rows(),
    "step": lambda _: of("stepping").rows({8: 8, 16: 4}),
    "epoch": epochs,
    "trainer": trainers,
    "infer": lambda _: of("inferring").rows(batch=8),
    "metrics": lambda _: of("metrics").rows(),
    "bootstrap": lambda _: of("bootstrapping").rows(),
    "report": lambda _: of("reporting").rows(),
    "trial": trials,
    "start": starts,
    "launch": lambda _: iter([of("launching").run(rounds=5)]),
    "makespan": makespans,
    "mirror": lambda _: of("mirroring").rows(200, 6, folds=5, epochs=50, sample=300, rounds=5),
    "driver": lambda _: iter([of("driving").run(trials=1000)]),
    "broker": lambda _: of("queueing").run(configurations=300, gpus=200),
    "submit": submits,
    "status": lambda _: of("statusing").rows(),
    "scaling": lambda _: of("scaling").rows(rounds=2),
    "fivefolds": lambda _: of("fivefolds").rows(steps=3),
}


def end_with_parent() -> None:
    """A killed `make bench` leaves nothing behind that takes a core from whatever is measured next."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def shown(name: str, home: Path) -> tuple[list[Row], bool]:
    """The rows of one benchmark, each printed when it is there, and whether it came to its end."""
    rows = []
    try:
        for row in BENCHMARKS[name](home):
            rows.append(row)
            print(results.plain(row), flush=True)
    except Exception as error:  # the others are still worth an hour
        traceback.print_exc()
        return [*rows, Row(name, "", (), missing=f"it failed: {type(error).__name__}: {error}")], False
    return rows, True
