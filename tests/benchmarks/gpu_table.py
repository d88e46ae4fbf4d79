"""The table of a GPU's measurements: told line by line, within a limit of time, and whether the goals are held."""

import gc
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import TypeVar

import torch

from tests.benchmarks.rows import Row, seconds, short, spread

OVERTIME_S = 30.0
"""by which whatever is still going on after the time is up is ended"""
H200_CLASS = ("H100", "H200", "H800", "GH200", "B100", "B200", "B300", "GB200", "GB300")
H200_CLASS_TFLOPS = 600.0
"""of a bf16 matrix product: a card that reaches it is of that class whatever its name"""

Key = TypeVar("Key")
Measured = tuple[Sequence[float], str]
"""a value a round, and a note"""


class Table:
    """What is measured, one after another; nothing is begun for which no time is left."""

    def __init__(self, budget_s: float) -> None:
        self._deadline_s = time.monotonic() + budget_s
        self.rows: list[Row] = []

    @property
    def left_s(self) -> float:
        return self._deadline_s - time.monotonic()

    def measure(self, row: Row, work: Callable[[], Measured], needs_s: float = 0.0) -> Row:
        """The row with what `work` measures, or with why that was not measured. needs_s: about so long it takes."""
        if row.missing:
            measured = row
        elif self.left_s <= needs_s:
            measured = replace(row, missing="no time left")
        else:
            measured = self._measured(row, work)
        self.rows.append(measured)
        tell(line(measured))
        return measured

    def _measured(self, row: Row, work: Callable[[], Measured]) -> Row:
        try:
            with ended_after(self.left_s + OVERTIME_S):
                values, note = work()
            return replace(row, ours=values, note=note)
        except Exception as error:  # whatever one way dies of, the others are measured
            what = (str(error).splitlines() or [""])[0]
            return replace(row, missing=f"{type(error).__name__}: {what[:160]}")
        finally:
            tidy()


def tidy() -> None:
    """Give back what a measurement has taken; go on in the stream that a failed recording may have left."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.set_stream(torch.cuda.default_stream())
        torch.cuda.empty_cache()


@contextmanager
def ended_after(limit_s: float) -> Iterator[None]:
    """TimeoutError in what goes on for longer, such as a compiler."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError("ended, since the time is up")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(limit_s, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def rounds_s(work: Callable[[], object], device: torch.device, rounds: int, round_s: float) -> list[float]:
    """Seconds of one `work()`, a value a round; in a round it goes on for about round_s, and then the device is waited
    for. Before them it warms up: cuDNN plans, the allocator grows, compilers compile."""
    for _ in range(3):
        work()
    finished(device)
    once_s = seconds(lambda: (work(), work(), finished(device))) / 2
    times = max(1, min(2000, math.ceil(round_s / max(once_s, 1e-6))))
    return [seconds(lambda: ([work() for _ in range(times)], finished(device))) / times for _ in range(rounds)]


def finished(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def line(row: Row) -> str:
    measured = f"{spread(row.ours)} {row.unit}" if row.ours else f"not measured: {row.missing}"
    return f"{row.name:<80}  {measured:<34}  {row.note}".rstrip()


def tell(text: str) -> None:
    """At once: who is cut off has told what was measured."""
    print(text, flush=True)


@dataclass(frozen=True)
class Goal:
    """A time that is wanted of an H200 class card."""

    name: str
    unit: str
    limit: float

    def verdict(self, reached: Row | None, judged: bool, why_not: str) -> tuple[str, bool]:
        """What to tell, and whether it is missed: where it is judged, what was not measured is missed, too."""
        told = "not measured"
        if reached is not None:
            told = f"{short(statistics.median(reached.ours))} {self.unit} ({reached.name})"
        held = reached is not None and statistics.median(reached.ours) <= self.limit
        outcome = ("held" if held else "MISSED") if judged else f"not judged: {why_not}"
        return f"goal, {self.name}: {self.limit:g} {self.unit}; {told}: {outcome}", judged and not held


def best(rows: Mapping[Key, Row]) -> Key | None:
    """Which of those that were measured is the fastest, by medians."""
    medians = {key: statistics.median(row.ours) * (-1 if row.rate else 1) for key, row in rows.items() if row.ours}
    return min(medians, key=lambda key: medians[key], default=None)


def of_h200_class(name: str, bf16_tflops: float) -> bool:
    """By the card's name, or by what its matrix units reach; 0 where that was not measured."""
    return any(word in name for word in H200_CLASS) or bf16_tflops > H200_CLASS_TFLOPS
