"""What one GPU makes of training and inference: python -m tests.benchmarks.gpu [--tiny] [--seconds 420]

`make bench-gpu PYTHON=...` runs it with an interpreter that has torch and numpy; it installs nothing and reads no data.
Slices are made up, 192 x 192, and lie on the device; augmentation is part of a training step. Until the time is up, in
this order: floors (matrix products, memory), training, inference, the paper's epoch, CUDA graphs, torch.compile. Every
line is told as soon as it is measured: its median, smallest and largest round. Where there is no GPU it runs in a tiny
form, which shows that the command works and says nothing about speed.

Exit status 1: a card of the H200's class has missed a goal. What cannot be measured says why and ends nothing.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from itertools import product

import torch

from mtl.trainer import resolve_device
from tests.benchmarks.gpu_floor import Floor
from tests.benchmarks.gpu_table import Goal, Measured, Table, best, finished, line, of_h200_class, rounds_s, tell
from tests.benchmarks.gpu_ways import COPIES, WAYS, Bare, Forward, Production, Way, Work, cudnn, made_slices, work_in
from tests.benchmarks.rows import Row

PAPERS_EPOCH_S, PAPERS_MS = 540.0, 0.663
"""of an epoch of 3 x 21,331 slices, and of a slice's inference, on a Titan Xp (section 3)"""
PAPERS_WIDTH = 16
"""About: the width at which these times agree with that card. The paper does not say it."""
EPOCH_GOALS_S, INFERENCE_GOALS_MS = {16: 12.0, 64: 30.0}, {16: 0.033}
"""by width; 12 s is 45 x, 0.033 ms 20 x the paper's, and 30 s at width 64 is 44 % of an H200's matrix peak for the
U-Net alone (162 GFLOP a slice and step), 50 % with its regression path"""
DEFAULT = WAYS[0]
"""what the trainer takes by itself on such a card"""
STEP_NEEDS_S, EPOCH_NEEDS_S, COMPILE_NEEDS_S = 5.0, 30.0, 90.0
"""with less time left it is not begun"""
LEGEND = """\
TFLOP/s: by torch's count; the matrix peak is the measured product's in bf16, or for float32 in TF32, which cuDNN's
convolutions take unless told otherwise. Bandwidth: an estimate from feature maps written once and read once,
three times in a training step. cuDNN takes deterministic kernels without trials, as the trainer has it; `cuDNN free`:
the fastest that it finds. `trainer`: the production step, whose losses are read; `bare loop`, `CUDA graph`: a step of
the same parts, whose losses are not.
"""


@dataclass(frozen=True)
class Form:
    """How much is measured."""

    name: str = "full"
    size: int = 192
    """rows and columns"""
    widths: tuple[int, int] = (PAPERS_WIDTH, 64)
    ways: tuple[Way, ...] = WAYS
    batch: int = 16
    """the trainer's default"""
    batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    slices: int = 2048
    """on the device; three times as many are a multiple of every batch"""
    epoch_slices: int = 21_331
    """the paper's training slices, each of them trained on COPIES times"""
    epoch_s: float = 20.0
    """the longest that an epoch is timed; the rest of it is reckoned"""
    matmul: int = 8192
    copied_MB: int = 2048
    rounds: int = 5
    round_s: float = 0.3

    @property
    def is_tiny(self) -> bool:
        return self.name == "tiny"


TINY = Form("tiny", 32, (2, 4), WAYS[::3], 4, (1, 4), 64, 24, 0.3, 256, 16, 2, 0.01)


class Benchmark:
    """The measurements of one device."""

    def __init__(self, form: Form, device: torch.device, table: Table) -> None:
        self.form, self.device, self.table = form, device, table
        self.floor = Floor(device, form.rounds, form.round_s)
        self.epochs: dict[int, dict[str, Row]] = {width: {} for width in form.widths}
        self.inferences: dict[int, dict[str, Row]] = {width: {} for width in form.widths}
        """of what mtl itself does, by name; CUDA graphs and compiled networks are told beside"""
        self._slices = cache(lambda count: made_slices(count, form.size))
        self._work: dict[tuple[int, str, bool], Work] = {}
        """in a slice; by width, precision and whether it is trained on"""

    def run(self) -> None:
        """Everything, the most important first."""
        form = self.form
        self.floor.measure(self.table, form.matmul, form.copied_MB, self._needs_s(STEP_NEEDS_S))
        self.works()
        fastest = {width: self.training(width) for width in form.widths}
        ways = {width: self.inference(width) for width in form.widths}
        for width in form.widths:
            self.epoch(width, DEFAULT, form.batch)
        for width in form.widths:
            if fastest[width] != (DEFAULT, form.batch):
                self.epoch(width, *fastest[width])
        for width in form.widths:
            for batch in form.batches:
                self.infer(width, ways[width], batch, graph=True)
        for width in form.widths:
            self.loops(width)
        for width in form.widths:
            self.train(width, replace(DEFAULT, compiled=True), form.batch)
            self.infer(width, replace(DEFAULT, compiled=True), max(form.batches))

    def works(self) -> None:
        """How much arithmetic and traffic there is in what follows."""
        for width, precision, training in product(self.form.widths, ("bf16", "float32"), (True, False)):

            def count(of: tuple[int, str, bool] = (width, precision, training)) -> Measured:
                self._work[of] = work = work_in(*of, self.form.size, self.device)
                return [work.gflop], f"about {work.moved_MB:.3g} MB read and written"

            name = f"a slice's {'training step' if training else 'forward pass'}, width {width}, {precision}"
            self.table.measure(Row(name, "GFLOP", ()), count, self._needs_s(STEP_NEEDS_S))

    def training(self, width: int) -> tuple[Way, int]:
        """The trainer's step in every way, then the fastest way in every batch; the fastest way and batch."""
        rows = {(way, self.form.batch): self.train(width, way, self.form.batch) for way in self.form.ways}
        way, usual = best(rows) or (DEFAULT, self.form.batch)
        rows |= {(way, batch): self.train(width, way, batch) for batch in self.form.batches if batch != usual}
        return best(rows) or (way, usual)

    def train(self, width: int, way: Way, batch: int) -> Row:
        def work() -> Measured:
            with cudnn(free=False):
                production = Production(self._slices(self.form.slices), width, way, batch, self.device)
                return self._rates(width, way, batch, self._rounds_s(production.step))

        row = Row(f"training, width {width}, batch {batch}: trainer, {way}", "slices/s", (), rate=True)
        return self._measure(row, way, work)

    def loops(self, width: int) -> None:
        """A step of the same parts without the trainer: as a loop, then as a CUDA graph."""
        self.loop(width, self.form.batch, graph=False, free=False)
        self.loop(width, self.form.batch, graph=True, free=False)
        for batch in self.form.batches:
            self.loop(width, batch, graph=True, free=True)

    def loop(self, width: int, batch: int, *, graph: bool, free: bool) -> Row:
        def work() -> Measured:
            with cudnn(free=free):
                loop = Bare(self._slices(self.form.slices), width, DEFAULT, batch, self.device)
                if graph:
                    loop.capture()
                took_s = self._rounds_s(loop.step)
                loop.check()
                return self._rates(width, DEFAULT, batch, took_s)

        kind = ("CUDA graph" if graph else "bare loop") + (", cuDNN free" if free else "")
        row = Row(f"training, width {width}, batch {batch}: {kind}, {DEFAULT}", "slices/s", (), rate=True)
        return self._measure(row, DEFAULT, work, graph=graph)

    def inference(self, width: int) -> Way:
        """The network in every way, then the fastest way in every batch; that way."""
        largest = max(self.form.batches)
        way = best({way: self.infer(width, way, largest) for way in self.form.ways}) or DEFAULT
        for batch in self.form.batches:
            if batch != largest:
                self.infer(width, way, batch)
        return way

    def infer(self, width: int, way: Way, batch: int, *, graph: bool = False) -> Row:
        def work() -> Measured:
            with cudnn(free=graph):
                forward = Forward(width, self.form.size, way, batch, self.device)
                if graph:
                    forward.capture()
                took_s = self._rounds_s(forward.step)
            ms = [1000 * s / batch for s in took_s]
            shares = self._shares(width, way, batch, took_s, training=False)
            return ms, f"{shares}{self._beside_paper(width, PAPERS_MS, statistics.median(ms), 'ms')}"

        kind = "CUDA graph, cuDNN free" if graph else "network"
        row = Row(f"inference, width {width}, batch {batch}: {kind}, {way}", "ms a slice", ())
        row = self._measure(row, way, work, graph=graph)
        if not graph and not way.compiled:
            self.inferences[width][row.name] = row
        return row

    def epoch(self, width: int, way: Way, batch: int) -> None:
        """The trainer's time for as many slices as the paper's epoch has."""
        slices, form = COPIES * self.form.epoch_slices, self.form

        def work() -> Measured:
            with cudnn(free=False):
                took_s, done = self._timed(Production(self._slices(form.epoch_slices), width, way, batch, self.device))
            whole_s, whole = took_s * slices / done, "all of it" if done == slices else f"reckoned from {done:,} slices"
            shares = self._shares(width, way, done, [took_s], training=True)
            return [whole_s], f"{whole}; {shares}{self._beside_paper(width, PAPERS_EPOCH_S, whole_s, 's')}"

        default = ", its defaults" if (way, batch) == (DEFAULT, form.batch) else ""
        name = f"epoch, {slices:,} slices, width {width}, batch {batch}: trainer, {way}{default}"
        row = self.table.measure(Row(name, "s", ()), work, self._needs_s(EPOCH_NEEDS_S))
        self.epochs[width][row.name] = row

    def _timed(self, production: Production) -> tuple[float, int]:
        """Seconds, and for how many slices of the epoch they were enough, after a warm-up."""
        for _ in range(5):
            production.step()
        finished(self.device)
        begin, done = time.perf_counter(), 0
        for count in production.epoch():  # a step reads its losses, so that this clock is at most a step early
            done += count
            if time.perf_counter() - begin > self.form.epoch_s:
                break
        finished(self.device)
        return time.perf_counter() - begin, done

    def _beside_paper(self, width: int, papers: float, ours: float, unit: str) -> str:
        if self.form.is_tiny:
            return "tiny form, nothing of the paper's"
        own = "" if width == PAPERS_WIDTH else ", and not the paper's network, which cannot have been so wide"
        return f"{papers / ours:.3g} x the paper's {papers:g} {unit}{own}"

    def _measure(self, row: Row, way: Way, work: Callable[[], Measured], *, graph: bool = False) -> Row:
        if graph and self.device.type != "cuda":
            row = replace(row, missing="no CUDA")
        elif way.compiled and self.form.is_tiny:
            row = replace(row, missing="the tiny form compiles nothing")
        return self.table.measure(row, work, self._needs_s(COMPILE_NEEDS_S if way.compiled else STEP_NEEDS_S))

    def _needs_s(self, needs_s: float) -> float:
        return 0.0 if self.form.is_tiny else needs_s

    def _rounds_s(self, work: Callable[[], object]) -> list[float]:
        return rounds_s(work, self.device, self.form.rounds, self.form.round_s)

    def _rates(self, width: int, way: Way, batch: int, took_s: Sequence[float]) -> Measured:
        epoch_s = statistics.median(took_s) / batch * COPIES * self.form.epoch_slices
        shares = self._shares(width, way, batch, took_s, training=True)
        return [batch / s for s in took_s], f"{shares}an epoch's slices in {epoch_s:.3g} s"

    def _shares(self, width: int, way: Way, batch: int, took_s: Sequence[float], *, training: bool) -> str:
        work = self._work.get((width, way.precision, training))
        return self.floor.shares(batch / statistics.median(took_s), work, way.precision)


def head(form: Form, device: torch.device) -> str:
    """What it is measured on, without the machine's name."""
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        name = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, "
        name += f"cuDNN {torch.backends.cudnn.version()}"
    else:
        name = f"no GPU: {platform.machine()}, {torch.get_num_threads()} threads"
    tiny = ", TINY FORM: it shows that the command works, its times mean nothing" if form.is_tiny else ""
    return f"{date.today()}, {name}, torch {torch.__version__}, CPython {platform.python_version()}{tiny}"


def ending(done: Benchmark, card: str) -> Iterator[tuple[str, bool]]:
    """The epochs once more and the goals: what to tell, and whether a goal is missed."""
    for rows in done.epochs.values():
        for row in rows.values():
            yield line(row), False
    judged = not done.form.is_tiny and of_h200_class(card, done.floor.tflops.get("bf16", 0.0))
    why_not = "the tiny form" if done.form.is_tiny else "no card of the H200's class"
    for what, unit, goals, found in (
        ("the paper's epoch", "s", EPOCH_GOALS_S, done.epochs),
        ("inference", "ms a slice", INFERENCE_GOALS_MS, done.inferences),
    ):
        for width, limit in goals.items():
            rows = found.get(width, {})
            name = best(rows)
            reached = None if name is None else rows[name]
            yield Goal(f"{what}, width {width}", unit, limit).verdict(reached, judged, why_not)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few small steps, to see that the command works")
    parser.add_argument("--seconds", type=float, default=420.0, help="after which nothing more is begun (420)")
    asked = parser.parse_args(arguments)
    device = resolve_device("auto")
    form = TINY if asked.tiny or device.type != "cuda" else Form()
    if form.is_tiny and device.type == "cpu":
        torch.set_num_threads(1)  # where other processes run, two wait for one another
    tell(f"{head(form, device)}\n{LEGEND}")
    done = Benchmark(form, device, Table(asked.seconds))
    done.run()
    tell("")
    endings = [*ending(done, torch.cuda.get_device_name(device) if device.type == "cuda" else "")]
    for text, _ in endings:
        tell(text)
    return int(any(missed for _, missed in endings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
