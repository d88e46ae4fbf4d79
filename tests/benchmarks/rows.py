"""What a benchmark tells: ours, what a user would pick instead, and the floor, measured in turn in one run."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Beside:
    """What ours is held against: a peer that a user would pick instead, or a floor that nobody can go below."""

    name: str
    values: Sequence[float] = ()
    """a value a round, in the row's unit; empty where it was not measured"""
    wanted: float | None = None
    """a peer: ours is to be so many times as good, or more; a floor: ours may be so many times its cost, or less"""
    floor: bool = False
    missing: str = ""
    """why it was not measured"""


@dataclass(frozen=True)
class Row:
    """A line of the table, and one below it for everything that ours was held against."""

    name: str
    """what is measured, and of what size: `training epoch, width 8`"""
    unit: str
    """`ms a slice`, or with `rate` `slices/s`"""
    ours: Sequence[float]
    """a value a round; empty where it was not measured"""
    beside: Sequence[Beside] = ()
    rate: bool = False
    """more is better"""
    wanted: float | None = None
    """ours itself is to be this or less, with `rate` this or more"""
    note: str = ""
    missing: str = ""
    """why it was not measured"""

    def times(self, other: Beside) -> list[float]:
        """Round by round: how many times as good as a peer ours was, how many times a floor's cost it took."""
        pairs = zip(self.ours, other.values, strict=True)
        if self.rate == other.floor:
            return [theirs / mine for mine, theirs in pairs]
        return [mine / theirs for mine, theirs in pairs]

    def held(self) -> bool | None:
        """Whether its own claim holds, by its median; None without a claim or a measurement."""
        if self.wanted is None or not self.ours:
            return None
        median = statistics.median(self.ours)
        return median >= self.wanted if self.rate else median <= self.wanted

    def held_beside(self, other: Beside) -> bool | None:
        """The same of what is claimed about `other`."""
        if other.wanted is None or not other.values:
            return None
        median = statistics.median(self.times(other))
        return median <= other.wanted if other.floor else median >= other.wanted

    def missed(self) -> bool:
        """Whether any claim of the row does not hold."""
        return False in (self.held(), *map(self.held_beside, self.beside))


def wanted(what: Row | Beside) -> str:
    """The claim, as the table says it; empty without one."""
    if what.wanted is None:
        return ""
    more = what.rate if isinstance(what, Row) else not what.floor
    return f"{'>=' if more else '<='} {what.wanted:g}"


def short(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Median, smallest and largest; of a single round its value."""
    median, low, high = (short(v) for v in (statistics.median(values), min(values), max(values)))
    return median if len(values) == 1 else f"{median} ({low} to {high})"


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def interleaved(
    ways: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """What each way measures, in turn, so that a busy minute falls on all; each round begins with another one."""
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + warm_up):
        first = number % len(ways)
        for name in [*ways][first:] + [*ways][:first]:
            measured[name].append(ways[name]())
    return {name: values[warm_up:] for name, values in measured.items()}
