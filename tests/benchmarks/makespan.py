"""How long a sweep of uneven folds takes beside list scheduling of the same lengths, with real trials of Ray Tune.

The folds only sleep, so that two cores can stand for any number of slots. List scheduling (a free slot takes the next
fold at once, all being known from the beginning) is the floor that no search can go below by more than chance.
Wanted: at most 1.05. What a trial's process costs to start (seconds) is hidden where the folds take longer.
"""

import heapq
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cluster import folds, roster
from cluster.folds import Configuration
from cluster.sections import Sweep
from cluster.settings import Settings
from data_prep.files import make_private
from mtl.config import Train
from sweeps import search
from tests.benchmarks.rows import Beside, Row
from tests.pretended_folds import Pretending

FOLDS = 5


def list_scheduling(lengths: Sequence[float], slots: int) -> float:
    """The makespan where every fold is known from the beginning and a free slot takes the next."""
    free = [0.0] * slots
    for length in lengths:
        heapq.heappush(free, heapq.heappop(free) + length)
    return max(free)


def run(scratch: Path, configurations: int, slots: int, mean_s: float, rounds: int) -> Row:
    """Folds of about mean_s seconds, some three times as long; others in each round. scratch: executors.local_ray's."""
    took = [_once(scratch, configurations, slots, mean_s, number) for number in range(rounds)]
    floor = Beside("list scheduling of the same lengths", [bound for _, bound in took], wanted=1.05, floor=True)
    name = f"makespan of {configurations * FOLDS} uneven folds of about {mean_s:g} s on {slots} slots of Ray Tune"
    return Row(name, "s", [whole for whole, _ in took], [floor])


def _once(scratch: Path, configurations: int, slots: int, mean_s: float, number: int) -> tuple[float, float]:
    """Seconds that it took, and list scheduling's."""

    def seconds(seed: int, fold: int) -> float:
        rng = random.Random(f"{number} {seed} {fold}")
        return mean_s * (rng.uniform(0.5, 1.0) if rng.random() < 0.8 else rng.uniform(1.5, 3.0))

    with tempfile.TemporaryDirectory() as home:
        space = {"train.seed": [*range(configurations)]}
        wanted = Settings(sweep=replace(Sweep(), space=space), train=Train(epochs=1, folds=FOLDS))
        make = partial(roster.configuration, wanted, "digest", make_private(Path(home) / "sweep"))
        source = roster.Roster(wanted, Path(home) / "sweep", roster.space_of(wanted, []), make, "")
        place = Pretending("cpu", slots, seconds=seconds)

        def evaluate(tried: Configuration, report: search.Report) -> None:
            folds.evaluate(tried, Path("no-store"), place, report)

        source.open(slots, again=False)
        assert search.search(source, evaluate, scratch) == []
        facts = [run.facts() for c in source.configurations for run in c.runs]
    begins, ends = ([told[name] for told in facts] for name in ("begin", "end"))
    lengths = [end - begin for begin, end in zip(begins, ends, strict=True)]
    return max(ends) - min(begins), list_scheduling(lengths, slots)
