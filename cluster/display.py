"""What is seen while a sweep runs: a bar with the time left at a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cluster.folds import Configuration

PLAIN_EVERY_S = 15.0


class Display:
    """Progress over all epochs of all folds, read from the run folders."""

    def __init__(self, configurations: Sequence[Configuration], selection: str) -> None:
        self._best = "best Dice" if selection == "validation" else "best Dice on the test folds"
        self._configurations = configurations
        self._total = sum(c.epochs * len(c.runs) for c in configurations)
        self._begin, self._begin_epochs = time.monotonic(), -1
        self._plain_due, self._folds_told = 0.0, -1
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("epochs"),
                TimeRemainingColumn(),
                TextColumn("left"),
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._total)

    def update(self) -> None:
        """Look at the run folders and show what has changed."""
        epochs, folds, best, where = 0, 0, -1.0, ""
        for c in self._configurations:
            for run in c.runs:
                records = run.epochs()
                epochs += len(records)
                folds += run.outcome() is not None
                top = max((record["dice_val"] for record in records), default=-1.0)
                if top > best:
                    best, where = top, c.name
        if self._begin_epochs < 0:
            self._begin_epochs = epochs
        text = f"{folds} of {sum(len(c.runs) for c in self._configurations)} folds ended"
        if best >= 0:
            text += f", {self._best} {best:.3f} ({where.rpartition('-')[0]})"
        if self._bar:
            self._bar.update(self._task, completed=epochs, description=text)
        elif time.monotonic() >= self._plain_due or folds != self._folds_told:
            print(f"{epochs} of {self._total} epochs, {text}{self._left(epochs)}", flush=True)
            self._plain_due, self._folds_told = time.monotonic() + PLAIN_EVERY_S, folds

    def _left(self, epochs: int) -> str:
        new = epochs - self._begin_epochs
        if new < 1:
            return ""
        left_s = (time.monotonic() - self._begin) / new * (self._total - epochs)
        return f", about {left_s / 60:.1f} min left"

    def stop(self) -> None:
        if self._bar:
            self._bar.stop()
