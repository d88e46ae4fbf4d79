"""The driver's memory at many finished trials: ours, with the mirror and the display, above bare Ray Tune's.

Wanted: at most 400 MB above, at 1,000 trials. Each is a process of its own, both at once since only
memory is told; their trials do nothing but report.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cluster import executors
from tests.benchmarks.conversion import peak_memory_MB
from tests.benchmarks.rows import Row
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


WAYS = {"ours": ours, "bare": bare}


def run(trials: int) -> Row:
    """The peak of ours, with as many configurations mirrored, less that of bare Ray Tune."""
    command = [sys.executable, "-m", "tests.benchmarks.driving"]
    running = {way: subprocess.Popen([*command, way, str(trials)], stdout=subprocess.PIPE, text=True) for way in WAYS}
    told = {way: process.communicate()[0] for way, process in running.items()}
    assert all(process.returncode == 0 for process in running.values())
    ours_MB, bare_MB = (float(text.split()[-1]) for text in told.values())
    note = f"its peak {ours_MB:.0f} MB, with as many configurations mirrored; bare Ray Tune's {bare_MB:.0f} MB"
    name = f"the driver's memory at {trials} finished trials, above Ray Tune's"
    return Row(name, "MB", [ours_MB - bare_MB], wanted=400, note=note)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        WAYS[sys.argv[1]](int(sys.argv[2]), Path(folder))
        print(peak_memory_MB())
