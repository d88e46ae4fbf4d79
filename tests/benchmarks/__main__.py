"""The claims of speed: python -m tests.benchmarks [conversion] [loading] [metrics] [report] [epoch] [trainer] ..."""

import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from cluster import executors
from data_prep import convert, phantom, store
from mtl import data
from mtl.config import Config, Model, Train
from tests.benchmarks import (
    conversion,
    driving,
    epoch,
    launching,
    loading,
    makespan,
    metrics,
    mirroring,
    queueing,
    reporting,
    starting,
    submitting,
    trainer,
    trial,
)
from tests.slurm.conftest import obstacle
from tests.slurm.testbed import Cluster


def made_store(home: Path) -> tuple[Path, str]:
    """Ten small made-up patients and their digest."""
    raw, path = home / "raw", home / "store.zarr"
    if not path.exists():
        phantom.make(raw, patients=10, slices=4, phases=4, seed=0)
        convert.convert(raw, path, spacing_mm=3.125, size=96)
    return path, store.open(path).digest


def trials(home: Path) -> Iterator[str]:
    path, digest = made_store(home)
    tiny = Config(digest, Model(width=2), Train(epochs=2, device="cpu", augment_copies=0))
    yield trial.run(tiny, path, few=2, many=8, rounds=5)


def makespans(_: Path) -> Iterator[str]:
    with executors.local_ray() as scratch:
        yield makespan.run(scratch, configurations=8, slots=4, mean_s=25.0)


def epochs(home: Path) -> Iterator[str]:
    slices = data.load(*made_store(home))
    fold = data.folds_of(slices, 5, 0, "validation")[0]
    fold = replace(fold, train=fold.train[::2])
    for width in (8, 16):
        yield epoch.run(slices, fold, width, rounds=5)


def trainers(home: Path) -> Iterator[str]:
    slices = data.load(*made_store(home))
    yield trainer.run(slices, data.folds_of(slices, 5, 0, "validation")[0], width=8, rounds=11)


def starts(home: Path) -> Iterator[str]:
    yield starting.run(*made_store(home), rounds=7)


def submits(home: Path) -> Iterator[str]:
    if reason := obstacle():
        yield f"queueing 20 x 5 folds: not measured, {reason}"
        return
    with Cluster(home / "slurm") as cluster:
        yield submitting.run(cluster.environment())


BENCHMARKS: dict[str, Callable[[Path], Iterator[str]]] = {
    "conversion": lambda _: conversion.rows(),
    "loading": lambda _: loading.rows(),
    "metrics": lambda _: metrics.rows(),
    "report": lambda _: reporting.rows(),
    "trial": trials,
    "launch": lambda _: iter([launching.run(rounds=5)]),
    "driver": lambda _: iter([driving.run(trials=1000)]),
    "makespan": makespans,
    "mirror": lambda _: iter([mirroring.run(configurations=200, folds=5, epochs=50, sample=300)]),
    "epoch": epochs,
    "trainer": trainers,
    "start": starts,
    "broker": lambda _: iter([queueing.run(configurations=1000, gpus=200)]),
    "submit": submits,
}


def main(names: list[str]) -> None:
    if unknown := {*names} - {*BENCHMARKS}:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    print(f"{date.today()}, {platform.platform()}, {executors.cores()} cores, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as home:
        for name in names:
            for row in BENCHMARKS[name](Path(home)):
                print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [*BENCHMARKS])
