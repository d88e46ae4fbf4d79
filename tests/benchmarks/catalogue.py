"""Every benchmark by its name, in the size that `make bench` gives it."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cluster import executors
from data_prep import convert, phantom, store
from mtl import data
from mtl.config import Config, Model, Train
from mtl.slices import folds_of
from tests.benchmarks import (
    augmenting,
    bootstrapping,
    conversion,
    driving,
    epoch,
    fivefolds,
    inferring,
    launching,
    loading,
    makespan,
    metrics,
    mirroring,
    queueing,
    reporting,
    results,
    scaling,
    starting,
    statusing,
    stepping,
    submitting,
    trainer,
    trial,
)
from tests.benchmarks.rows import Row
from tests.slurm.conftest import obstacle
from tests.slurm.testbed import Cluster


def made_store(home: Path) -> tuple[Path, str]:
    """Ten small made-up patients and their digest."""
    raw, path = home / "raw", home / "store.zarr"
    if not path.exists():
        phantom.make(raw, patients=10, slices=4, phases=4, seed=0)
        convert.convert(raw, path, spacing_mm=3.125, size=96)
    return path, store.open(path).digest


def trials(home: Path) -> Iterator[Row]:
    path, digest = made_store(home)
    tiny = Config(digest, Model(width=2), Train(epochs=2, device="cpu", augment_copies=0))
    yield trial.run(tiny, path, few=1, many=5, rounds=5)


def makespans(_: Path) -> Iterator[Row]:
    with executors.local_ray() as scratch:
        yield makespan.run(scratch, configurations=8, slots=4, mean_s=4.0, rounds=5)


def epochs(home: Path) -> Iterator[Row]:
    slices = data.load(*made_store(home))
    fold = folds_of(slices, 5, 0, "validation")[0]
    fold = replace(fold, train=fold.train[::2])
    for width in (8, 16):
        yield epoch.run(slices, fold, width, rounds=5)


def trainers(home: Path) -> Iterator[Row]:
    slices = data.load(*made_store(home))
    yield from trainer.run(slices, folds_of(slices, 5, 0, "validation")[0], width=8, rounds=11)


def starts(home: Path) -> Iterator[Row]:
    yield starting.run(*made_store(home), rounds=7)


def submits(home: Path) -> Iterator[Row]:
    if reason := obstacle():
        yield Row("queueing 20 x 5 folds on the tests' Slurm", "s", (), missing=reason)
        return
    with Cluster(home / "slurm") as cluster:
        yield submitting.run(cluster.environment())


BENCHMARKS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "conversion": lambda _: conversion.rows(),
    "loading": lambda _: loading.rows(),
    "augment": lambda _: augmenting.rows(),
    "step": lambda _: stepping.rows(),
    "epoch": epochs,
    "trainer": trainers,
    "infer": lambda _: inferring.rows(),
    "metrics": lambda _: metrics.rows(),
    "bootstrap": lambda _: bootstrapping.rows(),
    "report": lambda _: reporting.rows(),
    "trial": trials,
    "start": starts,
    "launch": lambda _: iter([launching.run(rounds=5)]),
    "makespan": makespans,
    "mirror": lambda _: mirroring.rows(200, 10, folds=5, epochs=50, sample=300, rounds=5),
    "driver": lambda _: iter([driving.run(trials=1000)]),
    "broker": lambda _: queueing.run(configurations=500, gpus=200),
    "submit": submits,
    "status": lambda _: statusing.rows(),
    "scaling": lambda _: scaling.rows(rounds=2),
    "fivefolds": lambda _: fivefolds.rows(steps=6),
}


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
