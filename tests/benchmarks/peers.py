"""Ours beside its peers: those whose library is missing say so, the others are checked and measured in turn with it."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from tests.benchmarks.rows import Beside, Row, interleaved, seconds

Work = Callable[[], Any]
"""what is measured"""


@dataclass(frozen=True)
class Peer:
    """What is held against ours, before it is measured: fields as in Beside."""

    make: Callable[[], Any]
    """gives the work, outside the time; ImportError where its library is not installed"""
    wanted: float | None = None
    floor: bool = False


def library(name: str) -> ModuleType:
    """The module of this name, without the warnings of what it imports itself. ImportError where it is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(name.partition(".")[0])
        return importlib.import_module(name)


def quietly(work: Work) -> Any:
    """What it gives, without its warnings: MONAI 1.6 passes itself arguments that it deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work()


def made(peers: Mapping[str, Peer]) -> tuple[dict[str, Work], dict[str, str]]:
    """The work of each that can be made; why the others cannot."""
    works, missing = {}, {}
    for name, peer in peers.items():
        try:
            works[name] = peer.make()
        except ImportError as error:
            missing[name] = f"{error.name} is not installed"
    return works, missing


def milliseconds(work: Work, repeats: int = 1, parts: int = 1) -> float:
    """Of one of the `parts` that the work is done on, mean of its repeats."""
    return 1000 * seconds(lambda: [work() for _ in range(repeats)]) / repeats / parts


def per_second(work: Work, parts: int) -> float:
    """How many of its `parts` the work does in a second."""
    return parts / seconds(work)


def beside(
    peers: Mapping[str, Peer], measured: Mapping[str, list[float]], missing: Mapping[str, str]
) -> tuple[Beside, ...]:
    """In the order of `peers`."""
    return tuple(
        Beside(name, measured.get(name, ()), peer.wanted, peer.floor, missing.get(name, ""))
        for name, peer in peers.items()
    )


def compared(
    row: Callable[..., Row],
    ours: Work,
    peers: Mapping[str, Peer],
    measure: Callable[[Work], float],
    rounds: int,
    agree: Callable[[str, Any], None] | None = None,
) -> Row:
    """The row, all ways measured in turn.

    row: Row with its name, unit, and what else does not come from here. measure: what a way's round is worth, in the
    row's unit. agree: AssertionError where what a peer (no floor) of this name gives is not what ours gives.
    """
    works, missing = made(peers)
    for name, work in works.items():
        if agree and not peers[name].floor:
            agree(name, work())
    ways = {name: partial(measure, work) for name, work in {"ours": ours, **works}.items()}
    measured = interleaved(ways, rounds)
    return row(ours=measured["ours"], beside=beside(peers, measured, missing))


def assert_close(name: str, given: Any, wanted: Any, tolerance: float) -> None:
    """AssertionError where any number differs by more than this share of the largest."""
    given, wanted = np.asarray(given, float), np.asarray(wanted, float)
    largest = abs(given - wanted).max() / abs(wanted).max()
    assert largest <= tolerance, f"{name}: differs from ours by {largest:.2g} of the largest, wanted {tolerance:g}"
