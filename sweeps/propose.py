"""Which configuration comes next: a grid, random draws, or Optuna's TPE.

A proposal is a pure function of the space, the seed, and what was proposed before with what came of it, so that a
search whose driver was killed proposes the same next configurations as one that was not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweeps.space import Point, Space

if TYPE_CHECKING:
    import optuna

TRIES = 100
"""draws of a configuration that is not there yet, before the space counts as exhausted"""
STATES = ("running", "done", "stopped", "failed")


@dataclass(frozen=True)
class Past:
    """A configuration that was proposed, and what came of it so far."""

    point: Point
    state: str = "running"
    """of STATES; stopped: by the search, early"""
    value: float | None = None
    """mean over folds of what is searched for; of one that was stopped so far"""
    epoch: int = 0
    """at which it was stopped"""


@dataclass(frozen=True)
class Proposer:
    """Of one sweep."""

    space: Space
    by: str = "grid"
    samples: int = 0
    """configurations in all; a grid has as many as it has"""
    seed: int = 0
    maximise: bool = True

    def next(self, past: Sequence[Past]) -> Point | None:
        """The configuration after these; None where there is no other. past: in the order they were proposed."""
        if self.by != "grid" and len(past) >= self.samples:
            return None
        known = [one.point for one in past]
        return next((point for point in self._candidates(past) if point not in known), None)

    def _candidates(self, past: Sequence[Past]) -> Iterator[Point]:
        if self.by == "grid":
            yield from self.space.grid()
            return
        for attempt in range(TRIES):
            rng = np.random.default_rng([self.seed, len(past), attempt])
            yield self.space.random(rng) if self.by == "random" else self._tpe(past, int(rng.integers(2**31)))

    def _tpe(self, past: Sequence[Past], seed: int) -> Point:
        """Optuna's proposal: its study is made anew from the past every time, and only its seed moves on."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize" if self.maximise else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        )
        for one in past:
            if self.space.holds(one.point):  # the space may have been edited since
                study.add_trial(self._frozen(one))
        return self.space.suggest(study.ask())

    def _frozen(self, one: Past) -> "optuna.trial.FrozenTrial":
        from optuna.trial import TrialState, create_trial

        states = {
            "running": TrialState.RUNNING,
            "done": TrialState.COMPLETE,
            "stopped": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        state = states[one.state] if one.value is not None or one.state == "running" else TrialState.FAIL
        return create_trial(
            state=state,
            value=one.value if state == TrialState.COMPLETE else None,
            params=one.point,
            distributions=self.space.distributions(one.point),
            intermediate_values={one.epoch: one.value}
            if state == TrialState.PRUNED and one.value is not None
            else None,
        )
