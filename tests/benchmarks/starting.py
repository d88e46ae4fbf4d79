"""From a fold's start on its node to its first training step, against importing torch and opening the store in a bare
process. Wanted: at most 1.5 times.

Each is a process of its own, from its very start; the fold's imports what a Slurm job does, and its clock stops when
the batch of the first step is ready. torch.optim imports torch's compiler when an optimiser is first made, whether
anything compiles or not: what that takes is told, too.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from cluster.worker import FoldJob
from mtl.config import Config, Model, Train
from tests.benchmarks.rows import Beside, Row, interleaved

SINCE_START = """
import json, os, sys, time
def since_start():
    ticks = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
"""
BARE = """
import torch
from data_prep import store
store.open(sys.argv[1])
print(since_start())
"""
OPTIMISER = BARE.replace("import torch", "import torch, torch._dynamo")
FOLD = """
import submitit.core._submit
from cluster.submission import SlurmTask
from cluster.worker import FoldJob, run_fold
from mtl import trainer
def first(*arguments):
    print(since_start(), flush=True)
    os._exit(0)
trainer.Trainer.step = first
run_fold(FoldJob(**json.loads(sys.argv[1])))
"""


def _seconds(script: str, argument: str) -> float:
    command = [sys.executable, "-c", SINCE_START + script, argument]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def run(store: Path, digest: str, rounds: int, *, warm_up: bool = True) -> Row:
    """Seconds. The warm-up reads from the disk."""
    config = Config(digest, Model(), Train(device="cpu"))

    def fold() -> float:
        with tempfile.TemporaryDirectory() as folder:
            job = FoldJob(asdict(config), str(store), str(Path(folder) / "fold_0"), 0)
            return _seconds(FOLD, json.dumps(asdict(job)))

    ways = {
        "ours": fold,
        "bare": lambda: _seconds(BARE, str(store)),
        "optimiser": lambda: _seconds(OPTIMISER, str(store)),
    }
    took = interleaved(ways, rounds, warm_up=warm_up)
    floors = [
        Beside("import torch, open the store", took["bare"], wanted=1.5, floor=True),
        Beside("the same, and what torch.optim imports", took["optimiser"], floor=True),
    ]
    return Row("from a fold's start to its first training step", "s", took["ours"], floors)
