"""What each way to search is worth, on a response surface whose best point is known (tests/surface.py).

    make test ARGS="tests/test_regret.py -s"                                              # prints the table
    BRANCHPOINT_SEEDS=200 make test ARGS="tests/test_regret.py -s -n0 --timeout 3600"     # of as many searches each

Regret: the true value at the best point, less the true value of the configuration that is chosen for its mean over
folds. Every seed has a surface of its own: other best branch, learning rate and ratio, so that no grid lies well by
luck.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sweeps import search
from sweeps.propose import Past, Proposer
from sweeps.racing import Scores
from sweeps.space import Point, parse
from tests.surface import FOLDS, Race, Surface, Trainings, mean

SAMPLES = 40
EPOCHS = 50
GRID = {
    "model.branch": ["bottleneck", "up1", "up2", "up3", "up4"],
    "optim.lr": [0.0003, 0.003],
    "weighting.kind": ["learned", "fixed", "equal"],
    "weighting.ratio": {"values": [30, 30000], "when": {"weighting.kind": "fixed"}},
}
"""as many configurations"""
SEARCH: dict[str, Any] = yaml.safe_load((Path(search.__file__).parent / "search.yaml").read_text())["space"]
SEEDS = int(os.environ.get("BRANCHPOINT_SEEDS", 40))
WAYS = ("grid", "random", "optuna")


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    regret: float
    """Dice"""
    share: float
    """of the epochs that whole configurations would have taken"""


class Searching:
    """One search: proposes, and keeps what came of it."""

    def __init__(self, by: str, seed: int) -> None:
        space = parse(GRID if by == "grid" else SEARCH, by)
        self.proposer = Proposer(space, by, SAMPLES, seed)
        self.surface, self.trainings = Surface.drawn(seed), Trainings(seed)
        self.past: list[Past] = []

    def propose(self) -> tuple[Point, Scores] | None:
        """The next configuration, and what all its folds would show."""
        point = self.proposer.next(self.past)
        if point is None:
            return None
        self.past.append(Past(point))
        return point, self.trainings.scores(len(self.past) - 1, self.surface.value(point))

    def tell(self, n: int, state: str, value: float, epoch: int = EPOCHS) -> None:
        self.past[n] = Past(self.past[n].point, state, value, epoch)

    def found(self, share: float = 1.0) -> Found:
        whole = [one for one in self.past if one.state == "done"]
        chosen = max(whole, key=lambda one: one.value or 0.0)
        return Found(self.surface.best - self.surface.value(chosen.point), share)


def in_full(by: str, seed: int) -> Found:
    """One configuration after another, all folds, all epochs."""
    searching = Searching(by, seed)
    while made := searching.propose():
        searching.tell(len(searching.past) - 1, "done", mean(made[1]))
    return searching.found()


@dataclass
class Trial:
    """Of Ray Tune, as far as its scheduler knows one."""

    number: int
    curve_E: np.ndarray
    final: float
    epoch: int = 0

    @property
    def trial_id(self) -> str:
        return str(self.number)


def with_asha(by: str, seed: int, at_once: int = 2) -> Found:
    """Ray's own scheduler, as sweeps/search.py sets it up for `asha: true`; two configurations side by side."""
    searching, scheduler = Searching(by, seed), search._halving(search.Asha("dice_val", EPOCHS, EPOCHS // 10, 3))
    running, epochs = list[Trial](), 0
    while True:
        while len(running) < at_once and (made := searching.propose()):
            running.append(_trial(searching, *made))
            scheduler.on_trial_add(None, running[-1])
        if not running:
            return searching.found(epochs / (EPOCHS * len(searching.past)))
        for trial in list(running):
            epochs += 1
            if _ends(searching, scheduler, trial):
                running.remove(trial)


def _trial(searching: Searching, point: Point, scores: Scores) -> Trial:
    n, final = len(searching.past) - 1, mean(scores)
    return Trial(n, searching.trainings.curve_E(n, final, searching.surface.learns_in(point), EPOCHS), final)


def _ends(searching: Searching, scheduler: Any, trial: Trial) -> bool:
    """An epoch of it."""
    trial.epoch += 1
    result = {"epoch": trial.epoch, "dice_val_mean": trial.curve_E[trial.epoch - 1]}
    if scheduler.on_trial_result(None, trial, result) == "STOP":
        searching.tell(trial.number, "stopped", float(trial.curve_E[: trial.epoch].max()), trial.epoch)
    elif trial.epoch == EPOCHS:
        scheduler.on_trial_complete(None, trial, result)
        searching.tell(trial.number, "done", trial.final)
    return searching.past[trial.number].state != "running"


def with_racing(by: str, seed: int) -> Found:
    """On two slots."""
    searching, race = Searching(by, seed), Race(slots=2)

    def tell() -> None:
        for n, done in enumerate(race.done_C):
            if n in race.out or len(done) == FOLDS:
                searching.tell(n, "stopped" if n in race.out else "done", mean(done))

    def configurations() -> Iterator[Scores]:
        while made := searching.propose():
            yield made[1]
            tell()

    race.run(configurations(), seed)
    tell()
    return searching.found(1 - race.saved)


HOW = {"": in_full, "ASHA": with_asha, "racing": with_racing}


@cache
def found(by: str, how: str = "") -> tuple[Found, ...]:
    return tuple(HOW[how](by, seed) for seed in range(SEEDS))
