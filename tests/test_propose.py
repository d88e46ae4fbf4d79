"""Proposals are a pure function of the past: whoever goes on after a kill proposes the same."""

from collections.abc import Callable
from math import log10

import pytest

from sweeps import space
from sweeps.propose import Past, Proposer
from sweeps.space import Point
from tests.test_space import SEARCH


def value(point: Point) -> float:
    """Best at up4, a learning rate of 0.001, and learned weights."""
    off = (
        (log10(point["optim.lr"]) + 3) ** 2 + (point["model.branch"] != "up4") + (point["weighting.kind"] != "learned")
    )
    return -off


def run(proposer: Proposer, past: list[Past], until: int = 1000, of: Callable[[Point], float] = value) -> list[Past]:
    """One configuration after another, each told before the next."""
    past = list(past)
    while len(past) < until and (point := proposer.next(past)) is not None:
        past.append(Past(point, "done", of(point)))
    return past


@pytest.mark.parametrize("by", ["random", "optuna"])
def test_killed_after_any_configuration_it_proposes_the_same(by: str) -> None:
    proposer = Proposer(space.parse(SEARCH, by), by, samples=24, seed=3)
    whole = run(proposer, [])
    assert len(whole) == 24
    for after in (0, 5, 11, 23):
        again = Proposer(space.parse(SEARCH, by), by, samples=24, seed=3)
        assert run(again, whole[:after]) == whole


@pytest.mark.parametrize("by", ["random", "optuna"])
def test_another_seed_proposes_others(by: str) -> None:
    first, second = (run(Proposer(space.parse(SEARCH, by), by, samples=3, seed=seed), []) for seed in (0, 1))
    assert first != second


def test_what_came_of_the_past_decides_what_optuna_proposes() -> None:
    proposer = Proposer(space.parse(SEARCH, "optuna"), "optuna", samples=60, seed=0)
    up4 = [one.point["model.branch"] for one in run(proposer, [])[20:]]
    up3 = [one.point["model.branch"] for one in run(proposer, [], of=lambda p: float(p["model.branch"] == "up3"))[20:]]
    assert up4.count("up4") > 25
    assert up3.count("up3") > 25
    lower = Proposer(space.parse(SEARCH, "optuna"), "optuna", samples=60, seed=0, maximise=False)
    worst = [one.point["model.branch"] for one in run(lower, [], of=lambda p: float(p["model.branch"] == "up3"))[20:]]
    assert worst.count("up4") > 25


def test_no_configuration_comes_twice_and_a_small_space_is_exhausted() -> None:
    for by in ("random", "optuna"):
        proposer = Proposer(space.parse({"model.branch": ["up1", "up2", "up3"]}, by), by, samples=50)
        made = [one.point["model.branch"] for one in run(proposer, [], of=lambda p: 0.0)]
        assert sorted(made) == ["up1", "up2", "up3"]


def test_running_stopped_and_failed_ones_are_known_to_optuna_and_those_outside_the_space_are_not() -> None:
    searched = space.parse(SEARCH, "optuna")
    proposer = Proposer(searched, "optuna", samples=99)
    done = run(proposer, [], until=15)
    outside = Past({"model.branch": "bottleneck"}, "done", 0.9)
    states = [
        Past(done[0].point, "running"),
        Past(done[1].point, "stopped", 0.1, 3),
        Past(done[2].point, "failed"),
        outside,
    ]
    point = proposer.next([*states, *done[3:]])
    assert point is not None
    assert searched.holds(point)


def test_an_edited_grid_adds_what_is_new() -> None:
    past = [Past({"model.branch": "up4"}, "done", 0.9), Past({"model.branch": "up1"}, "done", 0.8)]
    proposer = Proposer(space.parse({"model.branch": ["up4", "up3", "none"]}, "grid"))
    assert proposer.next(past) == {"model.branch": "up3"}
    assert proposer.next([*past, Past({"model.branch": "up3"})]) == {"model.branch": "none"}
