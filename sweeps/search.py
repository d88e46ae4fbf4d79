"""Ray Tune runs the trials. One trial is one configuration with all its folds; it reports their mean.

This file knows no cluster: what is tried comes from a `Source`, and `evaluate` trains it; cluster/launch.py hands in
both.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Report = Callable[[dict[str, Any]], None]
Evaluate = Callable[[Any, Report], None]

TRIAL_RESOURCES = {"cpu": 0.01}
"""A trial only waits for its folds; these have resources of their own."""
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folder and MLflow hold what these would write
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C must reach the launcher
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}
METRICS = {"dice_val": "max", "area_mad_mm2": "min"}
"""what configurations may be compared by, and which end is the good one"""


class Source(Protocol):
    """Where the configurations come from. Called in the process that searches, never by two at once."""

    def next(self) -> Any | None:
        """What is tried next, picklable; None where nothing is (now, or at all: exhausted())."""

    def exhausted(self) -> bool:
        """Whether nothing will come any more."""

    def ended(self, tried: Any, whole: bool) -> None:
        """It has ended; whole: not by an error. Where folds of it have not, it was stopped early."""


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving on the mean over folds: of the configurations that have come to an epoch, the
    best 1 / factor go on. Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020."""

    metric: str
    epochs: int
    first: int
    """the epoch of the first decision; the next are at first * factor, first * factor^2 and so on"""
    factor: int


def prepare() -> None:
    """Import Ray Tune. That takes two seconds, so it may be done beforehand where a process has to wait anyway."""
    os.environ |= ENVIRONMENT
    import ray.tune  # noqa: F401


def room_for_another(unended: Sequence[int], slots: int, ahead: int = 0) -> bool:
    """Whether a free slot would find no fold waiting, or fewer than `ahead`: then the next configuration is due, and
    not before, so that it is proposed with as much known as can be. unended: folds of each one under way."""
    return sum(unended) <= slots + ahead


def search(
    source: Source, evaluate: Evaluate, scratch: Path, *, most: int | None = None, asha: Asha | None = None
) -> list[str]:
    """Run `evaluate` on everything that `source` gives, as trials of Ray Tune.

    Ray has been started by the caller. most: trials at a time, since each is a process. What a trial leaves is in the
    run folders; Tune's own state in `scratch` is not needed afterwards. A trial that raises leaves the others running;
    what they raised is returned. A trial that asha stops is ended in its report.
    """
    prepare()
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        evaluate(config["tried"], tune.report)

    results = tune.Tuner(
        tune.with_resources(trial, TRIAL_RESOURCES),
        tune_config=tune.TuneConfig(
            search_alg=_asking(source),
            scheduler=_halving(asha) if asha else None,
            num_samples=-1,  # the source says when it is exhausted
            max_concurrent_trials=most,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(scratch), verbose=0, callbacks=[_saying_nothing()]),
    ).fit()
    return [str(error) for error in results.errors]


def _asking(source: Source) -> Any:
    """A searcher of Ray Tune that asks the source."""
    from ray.tune.search import Searcher

    class Asking(Searcher):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._tried: dict[str, Any] = {}

        def suggest(self, trial_id: str) -> Any:
            tried = source.next()
            if tried is None:
                return Searcher.FINISHED if source.exhausted() else None
            self._tried[trial_id] = tried
            return {"tried": tried}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            if trial_id in self._tried:
                source.ended(self._tried.pop(trial_id), not error)

        def save(self, checkpoint_path: str) -> None:
            """What was proposed is kept by the source."""

        def restore(self, checkpoint_path: str) -> None:
            """As save()."""

    return Asking()


def _saying_nothing() -> Any:
    """Instead of Tune's own, which prints a line for each trial that ended without a report, whatever `verbose` is."""
    from ray.tune.progress_reporter import TrialProgressCallback

    class Silent(TrialProgressCallback):  # type: ignore[misc]
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            """The display says how folds end."""

    return Silent()


def _halving(asha: Asha) -> Any:
    from ray.tune.schedulers import AsyncHyperBandScheduler

    return AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=f"{asha.metric}_mean",
        mode=METRICS[asha.metric],
        max_t=asha.epochs,
        grace_period=asha.first,
        reduction_factor=asha.factor,
        stop_last_trials=False,  # the last epoch is followed by the evaluation
    )
