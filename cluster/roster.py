"""The configurations of a sweep: those that were proposed, and the next where a slot is free.

Grid and random draws are known beforehand; Optuna's proposals come one by one. What was proposed is in the sweep's
folder (sweep.json) before it is tried, so that a launch after a killed one goes on with the same.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster import folds, settings
from cluster.folds import Configuration
from cluster.settings import Settings
from data_prep.files import make_private
from mtl.config import flat
from mtl.runfolder import best_epoch
from sweeps import asked, search
from sweeps.asked import Asked, Proposed
from sweeps.propose import Past, Proposer
from sweeps.results import mean_sd
from sweeps.space import Point, Space, parse

TRIED = 100
"""points that are drawn to see whether their values can stand together"""


class Roster:
    """Of one sweep folder. A sweeps.search.Source."""

    def __init__(
        self, wanted: Settings, sweep_folder: Path, space: Space, make: Callable[[Point], Configuration], setting: str
    ) -> None:
        """make: a point's configuration. setting: for what the answer will hold, as in sweep.json."""
        ways = wanted.sweep
        self._folder, self._make, self._space = sweep_folder, make, space
        self._metric, self._racing = ways.metric, wanted.racing
        maximise = search.METRICS[ways.metric] == "max"
        self._proposer = Proposer(space, ways.by, ways.samples, ways.seed, maximise)
        self.configurations: list[Configuration] = []
        """as far as they are known, in the order in which they were proposed"""
        self._asked = Asked(
            sweep=sweep_folder.name,
            question=ways.question,
            space=ways.space,
            by=ways.by,
            metric=ways.metric,
            selection=wanted.protocol.selection,
            folds=wanted.train.folds,
            setting=setting,
            site=wanted.site.kind,
        )
        self._complete = False
        self._know_again() if ways.by == "optuna" else self._know_all()
        self._slots = 1
        # Where nothing is learned from what ends, some more may wait: a trial's process takes seconds to start.
        learns = ways.by == "optuna" or ways.asha or wanted.racing
        self._ahead = 0 if learns else wanted.train.folds
        self._waiting: list[Configuration] = []
        self._under_way: list[Configuration] = []

    def _know_all(self) -> None:
        while (point := self._proposer.next([Past(c.point) for c in self.configurations])) is not None:
            self.configurations.append(self._make(point))
        self._complete = True

    def _know_again(self) -> None:
        """What an earlier launch proposed, as far as it belongs to the space and the settings of this one."""
        for before in asked.read(self._folder).configurations:
            if self._space.holds(before.point) and (c := self._make(before.point)).name == before.name:
                self.configurations.append(c)
        self._complete = len(self.configurations) >= self._proposer.samples

    @property
    def coming(self) -> int:
        """Configurations in all; fewer where the space is exhausted."""
        return len(self.configurations) if self._complete else self._proposer.samples

    def sketch(self) -> list[Configuration]:
        """What there will be, as far as it can be said beforehand: what Optuna has still to propose drawn at random."""
        drawn = replace(self._proposer, by="random") if self._proposer.by == "optuna" else self._proposer
        past = [Past(c.point) for c in self.configurations]
        made = list(self.configurations)
        while not self._complete and (point := drawn.next(past)) is not None:
            past.append(Past(point))
            made.append(self._make(point))
        return made

    def write(self) -> None:
        """sweep.json, as far as the sweep has come."""
        proposed = tuple(Proposed(c.name, c.point, asked.label(c.point)) for c in self.configurations)
        made = replace(self._asked, configurations=proposed, complete=self._complete)
        made.write(make_private(self._folder))

    # A source of the search.

    def open(self, slots: int, again: bool) -> None:
        """Before a search on so many slots. again: what has ended is told once more, for a scheduler's memory."""
        self._slots = slots
        self._waiting = [c for c in self.configurations if again or not c.ended()]
        self._under_way = []

    def next(self) -> Configuration | None:
        """The configuration that is tried next, if a slot would stay free without it."""
        if not search.room_for_another([self._unended(c) for c in self._under_way], self._slots, self._ahead):
            return None
        c = self._waiting.pop(0) if self._waiting else self._propose()
        if c:
            self._under_way.append(c)
            for run in [] if c.stopped() else c.runs:
                run.reopen()  # what failed is tried again: it counts as unended from now on
        return c

    def exhausted(self) -> bool:
        return self._complete and not self._waiting

    def ended(self, tried: Configuration, whole: bool) -> None:
        if whole and "asha" in tried.rules:  # the driver says so: the trial's own process may be gone by now
            common = min(len(run.epochs()) for run in tried.runs)
            why = f"stopped by ASHA: others were better as far as it had come (epoch {common})"
            folds.stop(tried, why, "asha")
        self._under_way = [c for c in self._under_way if c.name != tried.name]

    def _unended(self, c: Configuration) -> int:
        left = sum(run.outcome() is None for run in c.runs)
        return min(left, 1) if self._racing else left

    def _propose(self) -> Configuration | None:
        if self._complete:
            return None
        point = self._proposer.next([self._past(c) for c in self.configurations])
        made = self._make(point) if point is not None else None
        if made:
            self.configurations.append(made)
        self._complete = made is None or len(self.configurations) >= self._proposer.samples
        self.write()
        return made

    def _past(self, c: Configuration) -> Past:
        """What came of a configuration."""
        if c.name in {one.name for one in (*self._waiting, *self._under_way)}:
            return Past(c.point)
        records = [run.epochs() for run in c.runs if run.outcome() in ("DONE", "STOPPED") and run.epochs()]
        value, _ = mean_sd([best_epoch(of_fold)[self._metric] for of_fold in records])
        state = "done" if c.done() else "stopped" if c.stopped() else "failed"
        return Past(c.point, state, value, min(map(len, records), default=0))


def configuration(wanted: Settings, digest: str, sweep_folder: Path, point: dict[str, Any]) -> Configuration:
    """A point's configuration. ValueError where its values cannot stand together."""
    config = settings.config_at(wanted, point, digest)
    name = settings.configuration_name(point, config)
    rules = {"asha": wanted.sweep.asha, "racing": wanted.racing}
    return Configuration(
        name,
        point,
        asdict(config),
        sweep_folder / name,
        wanted.predict.save_masks,
        wanted.site.checkpoint_minutes,
        wanted.site.umask,
        rules=tuple(rule for rule, holds in rules.items() if holds),
        metric=wanted.sweep.metric,
        confidence=wanted.sweep.confidence,
    )


def strangers(sweep_folder: Path, configurations: Sequence[Configuration]) -> list[Path]:
    """Configuration folders that do not belong to the sweep as it is asked now."""
    mine = {c.name for c in configurations}
    return sorted(folder.parent for folder in sweep_folder.glob("*/fold_0") if folder.parent.name not in mine)


def space_of(wanted: Settings, given: Collection[str]) -> Space:
    """The sweep's space; fields that were given on the command line are held at their value. ValueError where values of
    it cannot stand together: a grid's points are all tried, else some."""
    ways = wanted.sweep
    values = flat({name: asdict(getattr(wanted, name)) for name in settings.SECTIONS})
    searched = parse(ways.space, ways.by).held({key: values[key] for key in ways.space if key in given})
    rng = np.random.default_rng(0)
    points = searched.grid() if ways.by == "grid" else [searched.random(rng) for _ in range(TRIED)]
    for point in points:
        settings.config_at(wanted, point, "")
    return searched
