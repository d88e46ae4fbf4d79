"""What is seen while a sweep runs: a table and a bar with the time left at a terminal, plain lines elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from cluster.folds import Configuration
from mtl.runfolder import best_epoch
from sweeps.asked import label

PLAIN_EVERY_S = 15.0
ROWS = 20
"""of the table, at most; what ended long ago and is not among the best makes room"""


@dataclass(frozen=True)
class Row:
    """How far a configuration has come."""

    label: str
    state: str
    """waits, runs, done, stopped or failed"""
    folds: int
    ended: int
    """of them"""
    epochs: int
    """of all its folds together"""
    wanted: int
    """of these, in all"""
    dice: float | None
    """mean over the folds that have an epoch of their best so far"""

    @property
    def open(self) -> bool:
        return self.state in ("waits", "runs")


def row(c: Configuration) -> Row:
    """Read from its run folders."""
    outcomes = [run.outcome() for run in c.runs]
    records = [found for run in c.runs if (found := run.epochs())]
    best = [float(best_epoch(of_fold)["dice_val"]) for of_fold in records]
    ended = sum(outcome is not None for outcome in outcomes)
    state = "runs" if records else "waits"
    if ended == len(outcomes):
        state = next((name.lower() for name in ("FAILED", "STOPPED") if name in outcomes), "done")
    wanted = c.epochs * len(outcomes) if state in ("waits", "runs") else sum(map(len, records))
    dice = sum(best) / len(best) if best else None
    return Row(label(c.point), state, len(outcomes), ended, sum(map(len, records)), wanted, dice)


class Display:
    """Progress over all epochs of all folds, read from the run folders."""

    def __init__(self, configurations: Callable[[], Sequence[Configuration]], coming: int, selection: str) -> None:
        """configurations: those known by now; coming: how many there will be in all."""
        self._best = "best Dice" if selection == "validation" else "best Dice on the test folds"
        self._configurations, self._coming = configurations, coming
        self._ended: dict[str, Row] = {}
        self._began, self._before = time.monotonic(), -1
        self._plain_due, self._folds_told = 0.0, -1
        self._live: Live | None = None
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("epochs{task.fields[left]}"),
            )
            self._task = self._bar.add_task("starting", total=None, left="")
            self._live = Live(self._bar, transient=False, auto_refresh=False)
            self._live.start()

    def update(self) -> None:
        """Look at the run folders and show what has changed."""
        rows = self._rows()
        epochs, wanted = sum(r.epochs for r in rows), sum(r.wanted for r in rows)
        if rows:  # what is still to be proposed will be like what is there
            wanted += round((self._coming - len(rows)) * wanted / len(rows))
        if self._before < 0:
            self._before = epochs
        folds, ended = self._coming * max((r.folds for r in rows), default=0), sum(r.ended for r in rows)
        text, left = f"{ended} of {folds} folds ended", self._left(epochs, wanted)
        if self._live:
            self._bar.update(self._task, completed=epochs, total=wanted, description=text, left=left)
            self._live.update(Group(self._table(rows), self._bar), refresh=True)
        elif rows and (time.monotonic() >= self._plain_due or ended != self._folds_told):
            print(f"{epochs} of {wanted} epochs, {text}{self._leader(rows)}{left}", flush=True)
            self._plain_due, self._folds_told = time.monotonic() + PLAIN_EVERY_S, ended

    def _rows(self) -> list[Row]:
        """Of all configurations; of those that have ended as they were read then."""
        made = []
        for c in self._configurations():
            if c.name not in self._ended and not (read := row(c)).open:
                self._ended[c.name] = read
            made.append(self._ended.get(c.name) or read)
        return made

    def _table(self, rows: Sequence[Row]) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in ("configuration", "folds", "epoch", self._best, ""):
            table.add_column(name, justify="left" if name in ("configuration", "") else "right")
        for r in shown(rows):
            dice = "-" if r.dice is None else f"{r.dice:.3f}"
            epoch = f"{r.epochs / r.folds:.1f}".removesuffix(".0")
            table.add_row(r.label, f"{r.ended} of {r.folds}", epoch, dice, r.state)
        if len(rows) > ROWS:
            counts = Counter(r.state for r in rows)
            table.add_row(f"{len(rows)} in all: {', '.join(f'{n} {state}' for state, n in counts.items())}")
        return table

    def _leader(self, rows: Sequence[Row]) -> str:
        known = [r for r in rows if r.dice is not None]
        if not known:
            return ""
        best = max(known, key=lambda r: r.dice or 0.0)
        return f", {self._best} {best.dice:.3f} ({best.label})"

    def _left(self, epochs: int, wanted: int) -> str:
        new = epochs - self._before
        if new < 1 or epochs >= wanted:
            return ""
        minutes = (time.monotonic() - self._began) / new * (wanted - epochs) / 60
        return f", about {f'{minutes / 60:.1f} h' if minutes >= 90 else f'{minutes:.1f} min'} left"

    def stop(self) -> None:
        if self._live:
            self._live.stop()


def shown(rows: Sequence[Row]) -> list[Row]:
    """At most ROWS of them, in their order: those that run, then the best of those that ended, then what waits."""
    ranked = sorted(rows, key=lambda r: ({"runs": 0, "waits": 2}.get(r.state, 1), -(r.dice or 0.0)))
    kept = {id(r) for r in ranked[:ROWS]}
    return [r for r in rows if id(r) in kept]
