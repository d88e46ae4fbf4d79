"""A known response surface: what a configuration is truly worth, and what its five folds would show of it.

`Surface` is the objective in closed form, in Dice, over the space of sweeps/search.yaml. `Trainings` draws what 97
patients in five folds show of a configuration: how hard each heart is (the same for all configurations), how well a
configuration takes to a heart, and how well a fold's network came out. `Race` plays a sweep with fold racing, event by
event, in the order in which cluster/folds.py and cluster/roster.py would. All is decided by seeds.

Legend: P patient, F fold, E epoch.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sweeps import search
from sweeps.racing import Scores, out_of_race

FOLDS = 5
NAMES = tuple(f"P{n:03d}" for n in range(97))
"""of the patients; patient n validates in fold n % 5"""
BRANCH_LOSS = {0: 0.0, 1: 0.004, 2: 0.012, 3: 0.020, 4: 0.030}
"""Dice lost at so many steps from the best branch point"""
BRANCHES = ("bottleneck", "up1", "up2", "up3", "up4")


@dataclass(frozen=True)
class Surface:
    """True Dice of every point. One point is best: this branch, this learning rate, fixed weights of this ratio."""

    branch: str = "up3"
    lr: float = 0.002
    ratio: float = 1556.0
    best: float = 0.87
    """Dice there"""

    def value(self, point: Mapping[str, Any]) -> float:
        decades = math.log10(point["optim.lr"] / self.lr_at(point["model.branch"]))
        rate = 0.03 * decades**2 * (2 if decades > 0 else 1)  # too fast harms more than too slow
        return self.best - BRANCH_LOSS[self._steps(point["model.branch"])] - rate - self._weighting(point)

    def learns_in(self, point: Mapping[str, Any]) -> float:
        """Epochs in which what is still to be learned falls to a third: more where the learning rate is low, so that a
        good configuration may be behind for a while."""
        return float(np.clip(4 * math.sqrt(self.lr_at(point["model.branch"]) / point["optim.lr"]), 2, 16))

    def lr_at(self, branch: str) -> float:
        """The best learning rate of a branch point: lower, the farther it lies from the best."""
        return float(self.lr * 10 ** (-0.1 * self._steps(branch)))

    def _steps(self, branch: str) -> int:
        return abs(BRANCHES.index(branch) - BRANCHES.index(self.branch))

    def _weighting(self, point: Mapping[str, Any]) -> float:
        if point["weighting.kind"] != "fixed":
            return {"learned": 0.005, "equal": 0.025}[point["weighting.kind"]]
        return 0.006 * math.log10(point["weighting.ratio"] / self.ratio) ** 2

    @classmethod
    def drawn(cls, seed: int) -> "Surface":
        """Another one of its kind, so that no grid lies well by luck."""
        rng = np.random.default_rng([seed, 1])
        return cls(str(rng.choice(BRANCHES)), float(10 ** rng.uniform(-3.6, -2.4)), float(10 ** rng.uniform(1, 5)))


@dataclass(frozen=True)
class Noise:
    """Standard deviations, in Dice."""

    patient: float = 0.03
    """between hearts, the same for all configurations"""
    taste: float = 0.012
    """of a heart under one configuration"""
    training: float = 0.006
    """between trainings of the same fold and configuration: all of its patients move together"""
    epoch: float = 0.01
    """of a fold's mean from epoch to epoch"""


@dataclass(frozen=True)
class Trainings:
    """Of one sweep: what the n-th configuration's folds show."""

    seed: int
    noise: Noise = field(default_factory=Noise)

    @cached_property
    def _heart_P(self) -> np.ndarray:
        return self.noise.patient * np.random.default_rng([self.seed, 2]).standard_normal(len(NAMES))

    def scores(self, n: int, value: float, times: float = 1.0) -> Scores:
        """Fold -> patient -> Dice. times: as noisy are its trainings."""
        rng = np.random.default_rng([self.seed, 3, n])
        dice_P = value + self._heart_P + self.noise.taste * rng.standard_normal(len(NAMES))
        training_F = times * self.noise.training * rng.standard_normal(FOLDS)
        return {
            k: dict(zip(NAMES[k::FOLDS], (dice_P[k::FOLDS] + training_F[k]).tolist(), strict=True))
            for k in range(FOLDS)
        }

    def curve_E(self, n: int, final: float, learns_in: float, epochs: int) -> np.ndarray:
        """The mean over folds after each epoch: from 0.3 to what it ends with, give or take an epoch's noise."""
        rng = np.random.default_rng([self.seed, 6, n])
        left_E = np.exp(-np.arange(1, epochs + 1) / learns_in)
        rise_E = (1 - left_E) / (1 - left_E[-1])
        return 0.3 + (final - 0.3) * rise_E + self.noise.epoch / math.sqrt(FOLDS) * rng.standard_normal(epochs)


def mean(scores: Scores) -> float:
    """Over folds, as configurations are compared by."""
    return float(np.mean([np.mean(list(of_fold.values())) for of_fold in scores.values()]))


Decide = Callable[[Scores, Sequence[Scores], int, float], str | None]
"""as out_of_race"""


@dataclass
class Race:
    """A sweep with racing, and how it went."""

    slots: int
    confidence: float = 0.99
    decide: Decide = out_of_race
    all_C: list[Scores] = field(default_factory=list)
    """each configuration's folds, as they would come out"""
    done_C: list[dict[int, Mapping[str, float]]] = field(default_factory=list)
    """as far as they were trained"""
    out: dict[int, str] = field(default_factory=dict)
    """configurations that are out of the race, and why"""

    def run(self, configurations: Iterator[Scores], seed: int) -> "Race":
        """configurations: asked for the next one when a slot would stay free without it."""
        rng, clock, under_way = np.random.default_rng([seed, 4]), 0.0, set[int]()
        waiting, running = deque[int](), list[tuple[float, int]]()
        while True:
            while search.room_for_another([1] * len(under_way), self.slots) and (new := next(configurations, None)):
                under_way.add(len(self.all_C))
                waiting.append(len(self.all_C))
                self.all_C.append(new)
                self.done_C.append({})
            while waiting and len(running) < self.slots:
                heapq.heappush(running, (clock + rng.lognormal(0, 0.1), waiting.popleft()))
            if not running:
                return self
            clock, c = heapq.heappop(running)
            if self._goes_on(c):
                waiting.append(c)
            else:
                under_way.remove(c)

    def _goes_on(self, c: int) -> bool:
        """After a fold's end."""
        done = self.done_C[c]
        done[len(done)] = self.all_C[c][len(done)]
        if len(done) == FOLDS:
            return False
        others = [other for n, other in enumerate(self.done_C) if n != c and other]
        if why := self.decide(done, others, FOLDS, self.confidence):
            self.out[c] = why
        return c not in self.out

    @property
    def saved(self) -> float:
        """Share of the fold trainings that were not needed."""
        return 1 - sum(map(len, self.done_C)) / (FOLDS * len(self.done_C))
