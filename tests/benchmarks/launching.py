"""From `launch.py` to its first fold's training, against a bare ray.init and an import of torch.

Wanted: at most 1.3 times. The command is the user's own, on made-up patients that are there already; the clock stops
when a fold has its data and says in its folder what it is trained with, a twentieth of a second before its first step.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.rows import Beside, Row

ROOT = Path(__file__).parents[2]
BARE = """
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
import torch
print("ready", flush=True)
"""
TINY = (
    *("sweep=branch_location", "model.branch=up1", "demo.patients=6", "demo.slices=2", "demo.phases=2"),
    *("demo.spacing_mm=6.25", "demo.size=32", "model.width=2", "train.folds=3", "train.epochs=200"),
)
LIMIT_S = 120.0


def launched_s(home: Path, runs: str) -> float:
    """Seconds until the first fold trains; the launch is ended then."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "cluster" / "launch.py"), *TINY, f"runs={runs}"],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any((home / runs).glob("*/*/fold_*/config.yaml")):
        assert process.poll() is None, "ended before it trained"
        assert time.perf_counter() - begin < LIMIT_S
        time.sleep(0.01)
    took_s = time.perf_counter() - begin
    process.terminate()  # as Ctrl-C, which is ignored where the measurement runs behind a shell's &
    process.wait()
    return took_s


def bare_s() -> float:
    begin = time.perf_counter()
    quiet = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", BARE],
        env=quiet,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.readline()  # what it takes to end is left out
    took_s = time.perf_counter() - begin
    process.wait()
    process.stdout.close()
    return took_s


def run(rounds: int, warm_up: int = 1) -> Row:
    """Seconds; the two in turn."""
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as home:
        for number in range(warm_up + rounds):
            pair = launched_s(Path(home), f"runs-{number}"), bare_s()
            if number >= warm_up:  # the first one reads from the disk and makes the patients
                ours.append(pair[0])
                bare.append(pair[1])
    floor = Beside("ray.init and an import of torch", bare, wanted=1.3, floor=True)
    return Row("from launch.py to its first fold's training", "s", ours, [floor])
