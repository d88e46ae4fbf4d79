"""The grammar of a sweep's space: what it means, and one line for every mistake."""

from typing import Any

import numpy as np
import pytest

from sweeps import space

SEARCH: dict[str, Any] = {
    "model.branch": ["up3", "up4"],
    "optim.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "weighting.kind": ["learned", "fixed"],
    "weighting.ratio": {"low": 1.0, "high": 1e6, "log": True, "when": {"weighting.kind": "fixed"}},
}


def test_a_grid_is_every_combination_the_last_varying_fastest() -> None:
    made = space.parse({"model.branch": ["up1", "up2"], "train.seed": [0, 1]}, "grid").grid()
    assert made == [
        {"model.branch": "up1", "train.seed": 0},
        {"model.branch": "up1", "train.seed": 1},
        {"model.branch": "up2", "train.seed": 0},
        {"model.branch": "up2", "train.seed": 1},
    ]


def test_a_field_exists_only_where_its_condition_holds() -> None:
    raw = {
        "weighting.kind": ["learned", "fixed"],
        "weighting.ratio": {"values": [10, 1556], "when": {"weighting.kind": "fixed"}},
    }
    assert space.parse(raw, "grid").grid() == [
        {"weighting.kind": "learned"},
        {"weighting.kind": "fixed", "weighting.ratio": 10.0},
        {"weighting.kind": "fixed", "weighting.ratio": 1556.0},
    ]
    drawn = [space.parse(SEARCH, "random").random(np.random.default_rng(seed)) for seed in range(200)]
    for point in drawn:
        assert ("weighting.ratio" in point) == (point["weighting.kind"] == "fixed")


def test_steps_on_a_log_scale_have_equal_ratios_and_whole_numbers_stay_whole() -> None:
    (lr,) = space.parse({"optim.lr": {"low": 1e-4, "high": 1e-2, "log": True, "steps": 5}}, "grid").dimensions
    assert lr.values == (0.0001, 0.000316228, 0.001, 0.00316228, 0.01)
    (width,) = space.parse({"model.width": {"low": 4, "high": 16, "steps": 4}}, "grid").dimensions
    assert width.values == (4, 8, 12, 16)
    assert all(type(value) is int for value in width.values)


def test_draws_lie_within_and_evenly_in_the_logarithm() -> None:
    searched = space.parse(SEARCH, "random")
    drawn = [searched.random(np.random.default_rng(seed)) for seed in range(2000)]
    rates = np.log10([point["optim.lr"] for point in drawn])
    assert -4 <= rates.min() < -3.9
    assert -2.1 < rates.max() <= -2
    assert abs(rates.mean() + 3) < 0.05  # standard error 0.013
    assert all(searched.holds(point) for point in drawn)
    whole = space.parse({"train.batch_size": {"low": 1, "high": 3}}, "random")
    assert {whole.random(np.random.default_rng(seed))["train.batch_size"] for seed in range(50)} == {1, 2, 3}


def test_a_held_field_has_one_value_and_keeps_its_condition() -> None:
    held = space.parse(SEARCH, "random").held({"weighting.kind": "learned", "optim.lr": 0.5})
    for seed in range(10):
        point = held.random(np.random.default_rng(seed))
        assert (point["weighting.kind"], point["optim.lr"], "weighting.ratio" in point) == ("learned", 0.5, False)


def test_what_an_edited_space_does_not_hold_any_more_is_seen() -> None:
    searched = space.parse(SEARCH, "random")
    inside = {"model.branch": "up3", "optim.lr": 0.001, "weighting.kind": "learned"}
    assert searched.holds(inside)
    assert not searched.holds(inside | {"model.branch": "up1"})
    assert not searched.holds(inside | {"optim.lr": 0.1})
    assert not searched.holds(inside | {"weighting.ratio": 10.0})
    assert not searched.holds({"model.branch": "up3"})


@pytest.mark.parametrize(
    ("raw", "by", "message"),
    [
        ({}, "grid", "the sweep's space has no values: wanted at least one field"),
        (
            {"model.depth": [1]},
            "grid",
            "the sweep's space names 'model.depth', wanted one of: model.branch, model.width",
        ),
        ({"optim.lr": []}, "grid", "the sweep's space has no values for optim.lr"),
        ({"optim.lr": ["fast"]}, "grid", "optim.lr: got 'fast', wanted float"),
        ({"train.epochs": [1.5]}, "grid", "train.epochs: epochs is 1.5, wanted int"),
        ({"train.compile": [1]}, "grid", "train.compile: compile is 1, wanted bool"),
        ({"model.branch": ["up7"]}, "grid", "model.branch is 'up7', wanted one of: bottleneck"),
        ({"optim.lr": [1, 1.0]}, "grid", "gives optim.lr a value twice: [1, 1.0]"),
        ({"optim.lr": {"low": 1e-4, "high": 1e-2}}, "grid", "optim.lr: a grid wants steps (2 or more) or a list"),
        (
            {"optim.lr": {"low": 1e-4, "high": 1e-2, "steps": 3}},
            "optuna",
            "optim.lr: steps make a grid, by: optuna draws",
        ),
        ({"optim.lr": {"low": 1e-2, "high": 1e-4}}, "random", "optim.lr: low 0.01, high 0.0001, wanted low below high"),
        ({"train.shift": {"low": 0, "high": 1, "log": True}}, "random", "wanted low below high, both above 0 on a log"),
        ({"optim.lr": {"low": 1e-4}}, "random", "optim.lr: got low, wanted values, or low and high"),
        ({"optim.lr": {"min": 1e-4}}, "random", "optim.lr: unknown 'min', wanted of: values, low, high"),
        ({"optim.lr": {"low": 1e-4, "high": 1e9}}, "random", "optim.lr: optim.lr is 1000000000.0, wanted 1e-08 to 10"),
        ({"model.branch": {"low": 1, "high": 2}}, "random", "model.branch: takes no range, since it is no number"),
        ({"optim.lr": {"values": [1], "low": 1}}, "grid", "optim.lr: wanted values, or low and high, not both"),
        (
            {"weighting.ratio": {"values": [1], "when": {"weighting.kind": "fixed"}}},
            "grid",
            "weighting.ratio: when names 'weighting.kind', wanted a field that stands above it",
        ),
        (
            {"weighting.kind": ["equal"], "weighting.ratio": {"values": [1], "when": {"weighting.kind": "fixed"}}},
            "grid",
            "weighting.ratio: weighting.kind is never fixed, so that it would never be tried",
        ),
        ({"optim.lr": {"values": [1], "when": "always"}}, "grid", "optim.lr: when is 'always', wanted field: value"),
    ],
)
def test_a_mistake_is_one_line(raw: dict[str, Any], by: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        space.parse(raw, by)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_yaml_takes_1e_4_for_a_text_and_it_is_meant_as_a_number() -> None:
    assert space.parse({"optim.lr": ["1e-4"]}, "grid").grid() == [{"optim.lr": 0.0001}]
