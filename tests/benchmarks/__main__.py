"""python -m tests.benchmarks [epoch] [trial]: the claims of speed, each a ratio measured in one run."""

import platform
import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from cluster import executors
from data_prep import convert, phantom, store
from mtl import data
from mtl.config import Config, Model, Train
from tests.benchmarks import epoch, trial


def main(names: list[str]) -> None:
    print(f"{date.today()}, {platform.platform()}, {executors.cores()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as home:
        raw, path = Path(home) / "raw", Path(home) / "store.zarr"
        phantom.make(raw, patients=10, slices=4, phases=4, seed=0)
        convert.convert(raw, path, spacing_mm=3.125, size=96)
        digest = store.open(path).digest
        slices = data.load(path, digest)
        if "trial" in names:
            tiny = Config(digest, Model(width=2), Train(epochs=2, device="cpu", augment_copies=0))
            print(trial.run(tiny, path, few=2, many=8, rounds=5), flush=True)
        if "epoch" in names:
            fold = data.folds_of(slices, 5, 0, "validation")[0]
            fold = replace(fold, train=fold.train[::2])
            for width in (8, 16):
                print(epoch.run(slices, fold, width, rounds=5), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["trial", "epoch"])
