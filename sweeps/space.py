"""The space of a sweep: which settings are searched, and over which values (the grammar: README.md).

space:
  model.branch: [up3, up4]                                       one of these
  optim.lr: {low: 0.0001, high: 0.01, log: true}                 any number in between, here on a log scale
  optim.lr: {low: 0.0001, high: 0.01, log: true, steps: 5}       these many of them, for a grid
  weighting.ratio: {values: [10, 1556], when: {weighting.kind: fixed}}    only where another field has this value
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.config import Config, flat, from_dict

if TYPE_CHECKING:
    import optuna

Point = dict[str, Any]
"""The searched fields of one configuration: dotted name -> value."""

WAYS = ("grid", "random", "optuna")
KEYS = ("values", "low", "high", "log", "steps", "when")
FIELDS = {name: type(value) for name, value in flat(asdict(Config())).items() if name != "data_digest"}
"""what may be searched, with its type"""


@dataclass(frozen=True)
class Dimension:
    """A searched field: one of its values, or a number from low to high."""

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """earlier fields and the values at which this one exists"""

    def exists(self, point: Mapping[str, Any]) -> bool:
        return all(name in point and point[name] in values for name, values in self.when)

    def random(self, rng: np.random.Generator) -> Any:
        if self.values:
            return self.values[int(rng.integers(len(self.values)))]
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = float(rng.uniform(low, high))
        return self._number(math.exp(drawn) if self.log else drawn)

    def suggest(self, trial: "optuna.Trial") -> Any:
        if self.values:
            return trial.suggest_categorical(self.name, self.values)
        if FIELDS[self.name] is int:
            return trial.suggest_int(self.name, round(self.low), round(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """What suggest() draws from."""
        from optuna import distributions

        if self.values:
            return distributions.CategoricalDistribution(self.values)
        if FIELDS[self.name] is int:
            return distributions.IntDistribution(round(self.low), round(self.high), log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        if self.values:
            return value in self.values
        return isinstance(value, int | float) and self.low <= value <= self.high

    def _number(self, value: float) -> Any:
        return min(max(value, self.low), self.high) if FIELDS[self.name] is float else round(value)


@dataclass(frozen=True)
class Space:
    """The searched fields, in order: a condition names an earlier one."""

    dimensions: tuple[Dimension, ...]

    def grid(self) -> list[Point]:
        """Every combination, the last field varying fastest."""
        points: list[Point] = [{}]
        for one in self.dimensions:
            points = [
                {**point, one.name: value} if one.exists(point) else point
                for point in points
                for value in (one.values if one.exists(point) else [None])
            ]
        return points

    def random(self, rng: np.random.Generator) -> Point:
        """A point drawn evenly (evenly in its logarithm on a log scale)."""
        point: Point = {}
        for one in self.dimensions:
            if one.exists(point):
                point[one.name] = one.random(rng)
        return point

    def suggest(self, trial: "optuna.Trial") -> Point:
        """A point that Optuna proposes, defined by run."""
        point: Point = {}
        for one in self.dimensions:
            if one.exists(point):
                point[one.name] = one.suggest(trial)
        return point

    def distributions(self, point: Point) -> dict[str, "optuna.distributions.BaseDistribution"]:
        """Of the fields that exist at a point."""
        return {one.name: one.distribution() for one in self.dimensions if one.name in point}

    def holds(self, point: Point) -> bool:
        """Whether a point lies in it."""
        wanted = {one.name: one for one in self.dimensions if one.exists(point)}
        return wanted.keys() == point.keys() and all(one.holds(point[name]) for name, one in wanted.items())

    def held(self, given: Mapping[str, Any]) -> "Space":
        """With these fields held at one value."""
        dimensions = (replace(one, values=(given[one.name],)) if one.name in given else one for one in self.dimensions)
        return Space(tuple(dimensions))


def parse(raw: Mapping[str, Any], by: str) -> Space:
    """The space as a sweep's file gives it, for a grid, random or optuna. ValueError says what is wrong with it."""
    if not raw:
        raise ValueError("the sweep's space has no values: wanted at least one field, such as model.branch: [up3, up4]")
    dimensions: list[Dimension] = []
    for name, given in raw.items():
        dimensions.append(_dimension(str(name), given, by, dimensions))
    return Space(tuple(dimensions))


def _dimension(name: str, given: Any, by: str, before: Sequence[Dimension]) -> Dimension:
    if name not in FIELDS:
        raise ValueError(f"the sweep's space names {name!r}, wanted one of: {', '.join(FIELDS)}")
    said = dict(given) if isinstance(given, Mapping) else {"values": given}
    if unknown := [str(key) for key in said if key not in KEYS]:
        raise ValueError(f"the sweep's space, {name}: unknown {unknown[0]!r}, wanted of: {', '.join(KEYS)}")
    when = _when(name, said.pop("when", {}), before)
    if "values" in said:
        if len(said) > 1:
            raise ValueError(f"the sweep's space, {name}: wanted values, or low and high, not both")
        return Dimension(name, _values(name, said["values"]), when=when)
    return replace(_range(name, said, by), when=when)


def _values(name: str, given: Any) -> tuple[Any, ...]:
    values = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not values:
        raise ValueError(f"the sweep's space has no values for {name}")
    made = tuple(_typed(name, value) for value in values)
    if len(set(made)) < len(made):
        raise ValueError(f"the sweep's space gives {name} a value twice: {values}")
    return made


def _range(name: str, said: dict[str, Any], by: str) -> Dimension:
    if FIELDS[name] not in (int, float):
        raise ValueError(f"the sweep's space, {name}: takes no range, since it is no number; wanted a list of values")
    if not {"low", "high"} <= said.keys():
        raise ValueError(
            f"the sweep's space, {name}: got {', '.join(said) or 'nothing'}, wanted values, or low and high"
        )
    low, high, log = _typed(name, said["low"]), _typed(name, said["high"]), bool(said.get("log", False))
    if not low < high or (log and low <= 0):
        wanted = "low below high" + (", both above 0 on a log scale" if log else "")
        raise ValueError(f"the sweep's space, {name}: low {low}, high {high}, wanted {wanted}")
    steps = said.get("steps")
    if by != "grid":
        if steps is not None:
            raise ValueError(
                f"the sweep's space, {name}: steps make a grid, by: {by} draws; leave steps out (or by: grid)"
            )
        return Dimension(name, (), low, high, log)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 2:
        raise ValueError(f"the sweep's space, {name}: a grid wants steps (2 or more) or a list of values, got {steps}")
    spaced = np.geomspace(low, high, steps) if log else np.linspace(low, high, steps)
    kind = FIELDS[name]
    made = [float(f"{value:.6g}") if kind is float else round(value) for value in spaced.tolist()]
    return Dimension(name, tuple(dict.fromkeys(made)))


def _when(name: str, given: Any, before: Sequence[Dimension]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if not isinstance(given, Mapping):
        raise ValueError(f"the sweep's space, {name}: when is {given!r}, wanted field: value")
    made = []
    for other, wanted in given.items():
        above = next((one for one in before if one.name == other), None)
        if above is None:
            raise ValueError(f"the sweep's space, {name}: when names {other!r}, wanted a field that stands above it")
        values = _values(str(other), wanted)
        if above.values and not set(values) & set(above.values):
            raise ValueError(f"the sweep's space, {name}: {other} is never {wanted}, so that it would never be tried")
        made.append((str(other), values))
    return tuple(made)


def _typed(name: str, value: Any) -> Any:
    """The value as its field has it, checked by the field's own rules."""
    if isinstance(value, str) and FIELDS[name] in (int, float):  # YAML takes 1e-4 for a text: it wants 1.0e-4
        try:
            value = FIELDS[name](value)
        except ValueError:
            raise ValueError(f"the sweep's space, {name}: got {value!r}, wanted {FIELDS[name].__name__}") from None
    nested: Any = value
    for part in reversed(name.split(".")):
        nested = {part: nested}
    try:
        made = flat(asdict(from_dict(Config, {**_neutral(name), **nested})))[name]
    except ValueError as error:
        raise ValueError(f"the sweep's space, {name}: {error}") from None
    return made


def _neutral(name: str) -> dict[str, Any]:
    """Settings beside which any value of a field may stand: what goes together is checked where all are known."""
    return {"protocol": {"selection": "test"}} if name == "train.folds" else {}
