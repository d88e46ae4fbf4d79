"""Folds on one machine: as site=local runs them, against the other ways to do the same work.

    python -m tests.benchmarks fivefolds

The folds of one configuration (five) and of two (ten), each of so many steps on made-up slices, width 8, batch 16. On
CPUs site=local has a process per core with one thread each, which takes the next fold when one is done
(cluster/executors.py). The other ways: one after another in one process with a thread per core; five processes at once
with one thread each. On a GPU: one after another, and five processes at once, without and with MPS. Processes are real,
with the environment and the memory settings of a worker; they have imported all and taken a step before the clock
starts, and wait for their folds on standard input. The floor: the time of one fold alone, with one thread, for each
fold, shared by all cores without a rest.

Wanted: the default no more than 5 % slower than any other way. Five folds on two cores cannot fill the last turn (three
turns for two and a half folds' worth), which the next configuration's folds fill in a sweep: so ten folds, too.
"""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from cluster import executors
from mtl.config import Config, Model, Train
from mtl.trainer import Trainer
from tests.benchmarks import drawn
from tests.benchmarks.rows import Beside, Row, interleaved, seconds, spread

ROOT = Path(__file__).parents[2]
FOLDS = 5
WANTED = 0.95
MPS = "nvidia-cuda-mps-control"


@dataclass(frozen=True)
class Work:
    """What a fold is."""

    steps: int = 10
    size: int = 96
    """pixels along an axis"""
    width: int = 8
    device: str = "cpu"


def train(work: Work, threads: int) -> None:
    """The body of a process: for each line on standard input a fold, and a line when it is done."""
    torch.set_num_threads(threads)
    slices = drawn.slices(patients=5, phases=4, levels=8, size=work.size)
    config = Config(model=Model(width=work.width), train=Train(device=work.device))
    trainer = Trainer(config, slices, drawn.fold(slices), 0, torch.device(work.device))
    batches, draws = trainer.batches(1), trainer.draws(1)
    trainer.step(*trainer.inputs(batches[0], draws))
    print("ready", flush=True)
    for _ in sys.stdin:
        for number in range(work.steps):
            trainer.step(*trainer.inputs(batches[number % len(batches)], draws))  # it waits for the device
        print("done", flush=True)


class Fold:
    """A process that trains folds, one after another."""

    def __init__(self, work: Work, threads: int, environment: Mapping[str, str]) -> None:
        told = [str(value) for value in (threads, work.steps, work.size, work.width, work.device)]
        command = [sys.executable, "-m", "tests.benchmarks.fivefolds", *told]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        settings = {**os.environ, **executors.ENVIRONMENT, **environment}
        self._process = subprocess.Popen(command, cwd=ROOT, env=settings, text=True, **pipes)  # type: ignore[call-overload]

    def hears(self, wanted: str) -> None:
        """Wait for a line."""
        line = self._process.stdout.readline().strip()
        if line != wanted:
            raise RuntimeError(f"a fold's process said {line!r}, wanted {wanted!r}")

    def train(self) -> None:
        """One fold, from the go to its end."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.hears("done")

    def close(self) -> None:
        with self._process:  # closes the pipes, so that it ends, and waits for it
            pass


@contextmanager
def processes(
    work: Work, count: int, threads: int, environment: Mapping[str, str] | None = None
) -> Iterator[list[Fold]]:
    """So many, warm."""
    with ExitStack() as opened:
        folds = []
        for _ in range(count):
            folds.append(Fold(work, threads, environment or {}))
            opened.callback(folds[-1].close)
        for fold in folds:
            fold.hears("ready")
        yield folds


def taken(folds: Sequence[Fold], count: int) -> float:
    """Seconds for so many folds; a process takes the next one when it is free."""
    waiting: queue.SimpleQueue[None] = queue.SimpleQueue()
    for _ in range(count):
        waiting.put(None)
    failed: list[Exception] = []

    def serve(fold: Fold) -> None:
        try:
            while True:
                waiting.get_nowait()
                fold.train()
        except queue.Empty:
            return
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=serve, args=(fold,)) for fold in folds]

    def together() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    took_s = seconds(together)
    if failed:
        raise failed[0]
    return took_s


def on_cpus(counts: Sequence[int], work: Work, most: int, rounds: int) -> Iterator[Row]:
    """A row for so many folds each. most: processes at once."""
    cores = executors.cores()
    one_after, per_core, at_once = f"one process, {cores} threads", "a process per core", f"{most} processes at once"
    with processes(work, 1, cores) as whole, processes(work, max(most, cores), 1) as single:
        for count in counts:
            ways = {
                per_core: partial(taken, single[:cores], count),
                one_after: partial(taken, whole, count),
                at_once: partial(taken, single[:most], count),
                "alone": partial(taken, single[:1], 1),
            }
            measured = interleaved(ways, rounds)
            floor = [alone_s * count / cores for alone_s in measured["alone"]]
            beside = [Beside(name, measured[name], WANTED) for name in (one_after, at_once)]
            yield Row(
                f"{count} folds on {cores} cores, width {work.width}, {work.size} x {work.size}, {work.steps} steps",
                "s",
                measured[per_core],
                (*beside, Beside("processor time of the folds over the cores", floor, floor=True)),
                note=f"ours: site=local's default, {per_core}, one thread; a fold alone {spread(measured['alone'])} s",
            )


@contextmanager
def mps(folder: Path) -> Iterator[dict[str, str]]:
    """A daemon of CUDA's Multi-Process Service; yields its clients' environment. ValueError where none can be had."""
    if shutil.which(MPS) is None:
        raise ValueError(f"there is no {MPS}")
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(folder / "pipe"), "CUDA_MPS_LOG_DIRECTORY": str(folder / "log")}
    settings = {"env": os.environ | environment, "capture_output": True, "text": True, "timeout": 60}
    started = subprocess.run([MPS, "-d"], **settings)
    if started.returncode:
        raise ValueError(f"{MPS}: {(started.stderr or started.stdout).strip()}")
    try:
        yield environment
    finally:
        subprocess.run([MPS], input="quit\n", **settings)


def on_a_gpu(work: Work, rounds: int) -> Iterator[Row]:
    """Ours: five processes at once, which site=local takes where the GPU's memory and the cores hold them and a probe
    is no slower."""
    if not torch.cuda.is_available():
        yield Row(f"{FOLDS} folds on one GPU", "s", (), missing="torch sees no GPU")
        return
    one_after, at_once, with_mps = "one after another", f"{FOLDS} processes at once", f"{FOLDS} processes with MPS"
    with ExitStack() as opened:
        single = opened.enter_context(processes(work, FOLDS, 1))
        ways = {at_once: partial(taken, single, FOLDS), one_after: partial(taken, single[:1], FOLDS)}
        why_not = ""
        try:
            environment = opened.enter_context(mps(Path(opened.enter_context(tempfile.TemporaryDirectory()))))
            shared = opened.enter_context(processes(work, FOLDS, 1, environment))
            ways[with_mps] = partial(taken, shared, FOLDS)
        except (ValueError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            why_not = str(error)
        measured = interleaved(ways, rounds)
    beside = [Beside(name, measured[name], WANTED) for name in ways if name != at_once]
    beside += [Beside(with_mps, missing=why_not)] if why_not else []
    name = f"{FOLDS} folds on one GPU, width {work.width}, {work.size} x {work.size}, {work.steps} steps"
    yield Row(name, "s", measured[at_once], tuple(beside), note=torch.cuda.get_device_name())


def rows(
    counts: Sequence[int] = (FOLDS, 2 * FOLDS),
    steps: int = 10,
    size: int = 96,
    width: int = 8,
    at_once: int = FOLDS,
    rounds: int = 5,
) -> Iterator[Row]:
    """Of CPUs, and of the GPU if there is one, with a hundred times as many steps on 192 x 192."""
    yield from on_cpus(counts, Work(steps, size, width), at_once, rounds)
    yield from on_a_gpu(Work(100 * steps, 2 * size, width, "cuda"), rounds)


if __name__ == "__main__":
    threads, steps, size, width = map(int, sys.argv[1:5])
    train(Work(steps, size, width, sys.argv[5]), threads)
