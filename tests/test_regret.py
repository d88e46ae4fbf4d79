"""What each way to search is worth, on a response surface whose best point is known (tests/surface.py).

    make test ARGS="tests/test_regret.py -s"                                              # prints the table
    BRANCHPOINT_SEEDS=200 make test ARGS="tests/test_regret.py -s -n0 --timeout 3600"     # of as many searches each

Regret: the true value at the best point, less the true value of the configuration that is chosen for its mean over
folds. Every seed has a surface of its own: other best branch, learning rate and ratio, so that no grid lies well by
luck.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
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
SEEDS, ALL = int(os.environ.get("BRANCHPOINT_SEEDS", 40)), "BRANCHPOINT_SEEDS" in os.environ
WAYS = ("grid", "random", "optuna")


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    regret: float
    """Dice"""
    share: float
    """of the epochs, or of the fold trainings, that all configurations in full would have taken"""


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


def with_asha(by: str, seed: int, first: int) -> Found:
    """Ray's own scheduler, as sweeps/search.py sets it up for `asha: true`; two configurations side by side."""
    searching, scheduler = Searching(by, seed), search._halving(search.Asha("dice_val", EPOCHS, first, 3))
    running, epochs = list[Trial](), 0
    while True:
        while len(running) < 2 and (made := searching.propose()):
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


HOW: dict[str, Callable[[str, int], Found]] = {
    "in full": in_full,
    "ASHA from epoch 5": partial(with_asha, first=5),
    "ASHA from epoch 10": partial(with_asha, first=10),
    "racing": with_racing,
}


@cache
def found(by: str, how: str) -> tuple[Found, ...]:
    return tuple(HOW[how](by, seed) for seed in range(SEEDS))


def regret(by: str, how: str = "in full") -> float:
    return float(np.mean([one.regret for one in found(by, how)]))


def share(by: str, how: str) -> float:
    return float(np.mean([one.share for one in found(by, how)]))


def test_the_surface_has_one_best_point() -> None:
    surface = Surface.drawn(3)
    best = {
        "model.branch": surface.branch,
        "optim.lr": surface.lr,
        "weighting.kind": "fixed",
        "weighting.ratio": surface.ratio,
    }
    assert surface.value(best) == surface.best
    space, rng = parse(SEARCH, "random"), np.random.default_rng(0)
    assert space.holds(best)
    assert all(surface.value(space.random(rng)) < surface.best for _ in range(1000))


def test_the_same_seed_gives_the_same_search() -> None:
    for one in HOW.values():
        assert one("random", 1) == one("random", 1)


def test_optuna_comes_closer_than_random_draws_and_the_grid() -> None:
    assert regret("optuna") < regret("random") - 0.0005
    assert regret("optuna") < regret("grid") - 0.0005


def test_asha_comes_close_with_half_the_epochs_where_its_first_decision_is_not_too_early() -> None:
    assert regret("random", "ASHA from epoch 10") < regret("random") + 0.002
    assert share("random", "ASHA from epoch 10") < 0.5
    assert regret("random", "ASHA from epoch 5") > regret("random", "ASHA from epoch 10")


def test_racing_comes_as_close_with_fewer_folds() -> None:
    assert regret("random", "racing") < regret("random") + 0.0005
    assert share("random", "racing") < 0.8


def test_table() -> None:
    """Of what the tests above have searched; with BRANCHPOINT_SEEDS of everything."""
    ways = [(how, by) for how in HOW for by in WAYS if ALL or by == "random" or how == "in full"]
    print(f"\n{SAMPLES} configurations, {SEEDS} searches each; regret +- its standard error, Dice; share of the work")
    for how, by in ways:
        regrets = [one.regret for one in found(by, how)]
        error = np.std(regrets, ddof=1) / np.sqrt(SEEDS)
        print(f"{by:7} {how:20} {np.mean(regrets):.4f} +- {error:.4f} {share(by, how):5.0%}")
        assert min(regrets) >= 0
