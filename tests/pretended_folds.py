"""Folds that only pretend to train, in Ray's own workers, and a list of what is tried: the search itself is real."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import executors, worker
from mtl.runfolder import KEPT, RunFolder


@dataclass(frozen=True)
class Pretending(executors.Place):
    """Folds whose epochs take so long (by seed and fold) and end so well (by seed and epoch)."""

    seconds: Callable[[int, int], float] = lambda seed, fold: 0.15
    dice: Callable[[int, int], float] = lambda seed, epoch: 0.9 - 0.1 * seed + 0.01 * epoch

    def start(self, configuration: str, folds: Sequence[worker.FoldJob]) -> list[executors.Started]:
        seconds, dice = self.seconds, self.dice

        def run_fold(job: worker.FoldJob) -> None:
            run, seed = RunFolder(Path(job.folder)), job.config["train"]["seed"]
            begin, records = time.time(), []
            run.prepare({**job.config, "fold": job.number})
            for epoch in range(1, job.config["train"]["epochs"] + 1):
                if run.outcome() == "STOPPED":
                    return
                time.sleep(seconds(seed, job.number))
                records.append({"epoch": epoch, "dice_val": dice(seed, epoch), "area_mad_mm2": 100.0})
                run.write_epochs(records)
            for name in KEPT:
                (run.path / name).touch()
            run.finish("DONE", "all epochs trained", begin=begin, end=time.time())

        return [executors.Started(fold.number, self.submit(run_fold, fold)) for fold in folds]


class Listed:
    """A source that gives what it was given, so many at a time."""

    def __init__(self, tried: Sequence[Any], at_a_time: int = 100) -> None:
        self._left, self._at_a_time, self._running = list(tried), at_a_time, 0

    def next(self) -> Any | None:
        if not self._left or self._running == self._at_a_time:
            return None
        self._running += 1
        return self._left.pop(0)

    def exhausted(self) -> bool:
        return not self._left

    def ended(self, tried: Any, whole: bool) -> None:
        self._running -= 1
