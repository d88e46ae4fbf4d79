"""The benchmarks run and find what they measure; no threshold of time stands in a test."""

import re

from mtl.data import Slices, folds_of
from tests.benchmarks import epoch


def test_the_epoch_benchmark_runs(slices: Slices) -> None:
    row = epoch.run(slices, folds_of(slices, 5, 0, "validation")[0], width=2, rounds=1)
    assert re.search(r"ours [\d.]+ slices/s, bare loop [\d.]+, ratio [\d.]+", row)
