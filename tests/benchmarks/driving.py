"""The driver's memory at many finished trials: ours, with the mirror and the display, above bare Ray Tune's.

Wanted: at most 400 MB above, at 1,000 trials. Each is a process of its own; its trials do nothing but report.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cluster import executors
from tests.benchmarks.conversion import peak_memory_MB
from tests.pretended_folds import Listed


def ours(trials: int, home: Path) -> None:
    """The search, then a mirror of as many configurations of three folds."""
    from cluster.tracking.mirror import Mirror
    from sweeps import search
    from tests.benchmarks.mirroring import make

    def evaluate(tried: int, report: search.Report) -> None:
        report({"epoch": 1, "dice_val_mean": 0.5})

    with executors.local_ray() as scratch:
        assert search.search(Listed(list(range(trials)), 1), evaluate, scratch) == []
        Mirror(f"sqlite:///{home}/mlflow.db", make(home / "runs" / "sweep", trials, 3, 2)).sync()


def bare(trials: int, home: Path) -> None:
    with executors.local_ray() as scratch:  # Ray takes its token as it is imported
        from ray import tune

        def trial(config: dict[str, Any]) -> None:
            tune.report({"epoch": 1, "dice_val_mean": 0.5})

        tune.Tuner(
            tune.with_resources(trial, {"cpu": 0.01}),
            param_space={"n": tune.grid_search(list(range(trials)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
            run_config=tune.RunConfig(name="tune", storage_path=str(scratch), verbose=0),
        ).fit()


def run(trials: int) -> str:
    """The row."""
    peaks = {}
    for way in ("ours", "bare"):
        command = [sys.executable, "-m", "tests.benchmarks.driving", way, str(trials)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[way] = float(told.split()[-1])
    return (
        f"the driver's peak memory at {trials} finished trials: {peaks['ours']:.0f} MB, with as many mirrored; bare "
        f"Ray Tune {peaks['bare']:.0f} MB; {peaks['ours'] - peaks['bare']:.0f} MB above it (wanted 400)"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        {"ours": ours, "bare": bare}[sys.argv[1]](int(sys.argv[2]), Path(folder))
        print(peak_memory_MB())
