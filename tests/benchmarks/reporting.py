"""The metrics and the whole report at LVSC's size, for the paper's two networks.

    python -m tests.benchmarks report

Metrics: largest component and six metrics of every volume, 12 x 192 x 192, in one process. Report: `mtl.report` on run
folders of 97 patients with 23 phases of 12 slices: every table, figure and bootstrap. Wanted: together under 60 s. The
floor is the reading of the run folders' tables alone.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from mtl import metrics, report, results
from tests.benchmarks.metrics import SPACING_MM, speckled, ventricle
from tests.benchmarks.rows import Beside, Row, seconds
from tests.reporting import PAPERS, write_runs

PATIENTS, PHASES, LEVELS = 97, 23, 12
DIFFERENT = 24
"""volumes that are drawn; each is measured many times"""
PART = 10


def measured_s(volumes: int) -> float:
    """Seconds of the component and the metrics of so many volumes; reckoned from one in ten, for they are the same few
    again and again."""
    part, rng = -(-volumes // PART), np.random.default_rng(0)
    pairs = [(ventricle(rng, 0.5), speckled(ventricle(rng, 2.5), rng)) for _ in range(min(part, DIFFERENT))]
    return seconds(lambda: measure(pairs, part)) * volumes / part


def measure(pairs: Sequence[tuple[np.ndarray, np.ndarray]], volumes: int) -> None:
    """Component and metrics of so many volumes, the pairs (true, predicted) again and again."""
    for n in range(volumes):
        truth_ZYX, prediction_ZYX = pairs[n % len(pairs)]
        metrics.volume_metrics(truth_ZYX, metrics.largest_component(prediction_ZYX), SPACING_MM)


def rows(patients: int = PATIENTS, phases: int = PHASES, levels: int = LEVELS, rounds: int = 5) -> Iterator[Row]:
    torch.set_num_threads(1)
    volumes = patients * phases * len(PAPERS)
    with tempfile.TemporaryDirectory() as home:
        runs = write_runs(Path(home) / "paper", patients, phases, levels)
        measured, reported, read = [], [], []
        for _ in range(rounds):
            measured.append(measured_s(volumes))
            with contextlib.redirect_stdout(io.StringIO()):
                reported.append(seconds(lambda: report.report([runs], Path(home) / "out")))
            read.append(seconds(lambda: results.load([runs])))
    both = [a + b for a, b in zip(measured, reported, strict=True)]
    size = f"{len(PAPERS)} x {patients * phases} volumes, {patients * phases * levels} slices"
    yield Row(f"metrics and report of {size}, one process", "s", both, wanted=60)
    floor = Beside("reading the run folders' tables", read, floor=True)
    yield Row("of these the report: tables, figures, bootstraps, page", "s", reported, [floor])
