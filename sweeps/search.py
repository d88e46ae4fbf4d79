"""Ray Tune proposes, `evaluate` trains, the trial reports. One trial is one configuration with all its folds.

This file knows no cluster: it is handed `evaluate` by cluster/launch.py.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Point = dict[str, Any]
"""The searched fields of one configuration: dotted name -> value."""
Report = Callable[[dict[str, Any]], None]
Evaluate = Callable[[Point, Report], None]

TRIAL_RESOURCES = {"cpu": 0.01}
"""A trial only waits for its folds; these have resources of their own."""


def grid(space: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of the values of a space, the last field varying fastest."""
    empty = [name for name, values in space.items() if not values]
    for name, values in space.items():
        if len({repr(value) for value in values}) < len(values):
            raise ValueError(f"the sweep's space gives {name} a value twice: {list(values)}")
    if not space or empty:
        raise ValueError(f"the sweep's space has no values{f' for {empty[0]}' if empty else ''}")
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


def search(points: Sequence[Point], evaluate: Evaluate, concurrent: int, scratch: Path) -> list[str]:
    """Run `evaluate` on every point, `concurrent` at a time, as trials of Ray Tune.

    Ray has been started by the caller. What a trial leaves is in the run folders; Tune's own state in
    `scratch` is not needed afterwards. A trial that raises leaves the others running; what they
    raised is returned.
    """
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folder and MLflow hold what these would write
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C must reach the launcher
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        evaluate(config["point"], tune.report)

    results = tune.Tuner(
        tune.with_resources(trial, TRIAL_RESOURCES),
        param_space={"point": tune.grid_search(list(points))},
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrent, reuse_actors=True),
        run_config=tune.RunConfig(name="tune", storage_path=str(scratch), verbose=0),
    ).fit()
    return [str(error) for error in results.errors]
