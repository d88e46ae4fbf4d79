"""How cost grows with size: conversion, a training epoch, the report and the status, at 0.01, 0.1 and 1 x LVSC's.

    python -m tests.benchmarks scaling

LVSC: 97 patients of 23 phases of 12 slices (26,772 here, 26,664 in the paper's set), of which an epoch trains 4 in 5,
three times. Conversion: one worker, and every patient's files are links to those of one made-up patient, so that all
cost the same. Epoch: the smallest network, on small images in large batches, since every slice costs the network the
same; 1 in 5 is scored. Report: two networks, and never fewer than five patients, for it wants five folds. Status: 10,
100 and 1,000 folds, half of them done.

Cost is this process's processor time, which other processes disturb less than the clock. Measured is p in cost ~
size^p, fitted by least squares to the logarithms, once to all sizes and once to the two larger ones, where a fixed
start weighs less: it makes p smaller. Wanted: at most 1.05, so that no cost grows faster than its size but for noise.
The smallest size warms up. One round of the report, which is nearly all start; three of the others.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from data_prep import phantom
from mtl import report
from mtl.config import Config, Model, Train
from mtl.trainer import Trainer
from tests.benchmarks import conversion, drawn, statusing
from tests.benchmarks.rows import Row, interleaved, spread
from tests.reporting import PAPERS, write_runs

PATIENTS, PHASES, LEVELS = (1, 10, 97), 23, 12
CONFIGURATIONS = (2, 20, 200)
"""of five folds each"""
WANTED = 1.05
EPOCH = Config(model=Model(width=1), train=Train(device="cpu", batch_size=128))
IMAGE = 16
"""pixels along an axis, in the epoch"""
FOLDS = 5
Works = Mapping[int, Callable[[], object]]
"""by size: does it once"""


def cost_s(work: Callable[[], object]) -> float:
    """Of the processors, in this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The p of cost ~ size^p, by least squares in the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def exponents(costs: Mapping[int, Sequence[float]]) -> list[float]:
    """Round by round. costs: by size, a value a round."""
    return [exponent([*costs], of_one) for of_one in zip(*costs.values(), strict=True)]


def grown(name: str, unit: str, works: Works, rounds: int) -> Iterator[Row]:
    """Measure, and the two rows. unit: of the sizes, such as `slices`."""
    sizes = sorted(works)
    works[sizes[0]]()
    measured = interleaved({str(size): partial(cost_s, works[size]) for size in sizes}, rounds, warm_up=False)
    costs = {size: measured[str(size)] for size in sizes}
    larger = {size: costs[size] for size in sizes[-2:]}
    for which, these in ((f"all {len(sizes)} sizes", costs), ("the two larger sizes", larger)):
        note = "; ".join(f"{size:,} {unit} {spread(of_one)} s" for size, of_one in these.items())
        yield Row(f"{name}, growth over {which}", "exponent", exponents(these), wanted=WANTED, note=note)


def conversions(home: Path, patients: Sequence[int], phases: int, levels: int) -> Works:
    raw = home / "raw"
    phantom.make(raw, 1, levels, phases, seed=0)
    made = {conversion.link_copies(raw, home / str(n), n): home / str(n) for n in patients}
    return {slices: partial(conversion.converted, folder) for slices, folder in made.items()}


def epochs(patients: Sequence[int], phases: int, levels: int) -> Works:
    """Sizes in slices, trained and scored."""
    torch.set_num_threads(1)

    def work(n: int) -> None:
        slices = drawn.slices(n, phases, levels, IMAGE)
        Trainer(EPOCH, slices, drawn.fold(slices), 0, torch.device("cpu")).epoch(1)

    return {n * phases * levels: partial(work, n) for n in patients}


def reports(home: Path, patients: Sequence[int], phases: int, levels: int) -> Works:
    """Sizes in slices of each network."""

    def work(runs: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            report.report([runs], home / "out")

    enough = {max(n, PAPERS[0].train.folds) for n in patients}
    return {n * phases * levels: partial(work, write_runs(home / str(n), n, phases, levels)) for n in enough}


def statuses(home: Path, configurations: Sequence[int], epochs: int) -> Works:
    """Sizes in folds."""
    made = {n: statusing.make(home / str(n) / "sweep", n, FOLDS, epochs) for n in configurations}
    return {FOLDS * n: partial(statusing.told, sweep) for n, sweep in made.items()}


def rows(
    patients: Sequence[int] = PATIENTS,
    phases: int = PHASES,
    levels: int = LEVELS,
    configurations: Sequence[int] = CONFIGURATIONS,
    rounds: int = 3,
) -> Iterator[Row]:
    """Two of each kind of work."""
    kinds: dict[tuple[str, str], Callable[[Path], Works]] = {
        ("conversion", "slices"): lambda home: conversions(home, patients, phases, levels),
        ("training epoch", "slices"): lambda _: epochs(patients, phases, levels),
        ("report", "slices"): lambda home: reports(home, patients, phases, levels),
        ("status", "folds"): lambda home: statuses(home, configurations, epochs=50),
    }
    for (name, unit), make in kinds.items():
        with tempfile.TemporaryDirectory() as home:
            yield from grown(name, unit, make(Path(home)), 1 if name == "report" else rounds)
