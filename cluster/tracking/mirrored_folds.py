"""What the mirror reads of run folders: records, usage, outcomes; again only where something has changed."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from cluster.folds import mean_over_folds
from mtl.config import flat
from mtl.runfolder import OUTCOMES, RunFolder, read_settings
from sweeps.asked import Proposed
from sweeps.results import mean_sd

BEST = ("dice_val", "area_mad_mm2")
"""results of the best epoch, by which configurations are compared"""


@dataclass(frozen=True)
class Point:
    """Metrics of one step."""

    step: int
    time_ms: int
    values: dict[str, float]


@dataclass(frozen=True)
class Series:
    """All metrics of a run."""

    epochs: Sequence[Point] = ()
    usage: Sequence[Point] = ()
    """what the epochs took of the machine; each comes a little after its epoch"""
    best: Point | None = None
    """of the best epoch, once all is done; at step 0, where MLflow draws bars and not a line of one point"""


@dataclass
class Fold:
    """A fold's folder, as far as it is kept in memory."""

    run: RunFolder
    number: int
    seen: tuple[Any, ...] = ()
    first: tuple[int, int] | None = None
    """when its first record came, and when that epoch began, ms; of a fold that ended without one, when it ended; None
    where there is nothing to show"""
    last_ms: int = 0
    """when the last of it came"""
    changed_s: float = 0.0
    """when its folder was changed last"""
    epoch_s: float = 0.0
    """that its last epoch took"""
    outcome: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def look(self) -> bool:
        """Read it where anything has changed; whether it has."""
        seen = _signature(self.run)
        if seen == self.seen:
            return False
        with naming(self.run.path):
            self._read()
        self.seen, self.changed_s = seen, (seen[0] or 0) / 1e9
        return True

    def _read(self) -> None:
        records, self.outcome = self.run.epochs(), self.run.outcome()
        facts = self.run.facts() if self.outcome else {}
        self.facts = {key: value for key, value in facts.items() if key != "traceback"}
        self.first = None
        if records:
            came_ms, self.last_ms = _milliseconds(records[0]), _milliseconds(records[-1])
            self.first = came_ms, came_ms - round(1000 * records[0].get("seconds", 0))
            self.epoch_s = records[-1].get("seconds", 0.0)
        elif self.outcome and (self.outcome != "STOPPED" or (self.run.path / "config.yaml").exists()):
            self.last_ms = (self.run.path / self.outcome).stat().st_mtime_ns // 1_000_000
            self.first = self.last_ms, self.last_ms

    def series(self) -> Series:
        epochs = [_point(_with_ratio(record)) for record in self.run.epochs()]
        time_ms = {point.step: point.time_ms for point in epochs}
        usage = [
            Point(used["epoch"], time_ms[used["epoch"]], _numbers({k: v for k, v in used.items() if k != "epoch"}))
            for used in self.run.usage()
            if used["epoch"] in time_ms
        ]
        if self.outcome != "DONE" or "best_epoch" not in self.facts:
            return Series(epochs, usage)
        best = {"best_epoch": self.facts["best_epoch"]} | {f"best_{key}": self.facts.get(key) for key in BEST}
        return Series(epochs, usage, Point(0, self.last_ms, _numbers(best)))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What is damaged in a file or folder is said with its name."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: damaged ({type(error).__name__}: {error}); restore it or remove it") from None


def _signature(run: RunFolder) -> tuple[Any, ...]:
    """Another one whenever a file of the run folder is put in place: each appears there whole, under its name."""
    try:
        names = os.listdir(run.path)
    except FileNotFoundError:
        return (None,)
    stats = [(run.path / name).stat() for name in ("epochs.jsonl", "usage.jsonl") if name in names]
    changing = [(facts.st_ino, facts.st_mtime_ns, facts.st_size) for facts in stats]
    return run.path.stat().st_mtime_ns, tuple(name for name in OUTCOMES if name in names), *changing


@dataclass
class Configuration:
    """A configuration of a sweep and its folds."""

    proposed: Proposed
    folds: list[Fold]
    config: dict[str, Any] = field(default_factory=dict)
    """as in config.yaml, without the fold; empty until a fold has begun"""

    def look(self) -> bool:
        """Read what is new; whether anything is."""
        changed = [fold.look() for fold in self.folds]
        path = next((path for fold in self.folds if (path := fold.run.path / "config.yaml").exists()), None)
        if not self.config and path and any(changed):
            with naming(path):
                self._read_config(path)
        return any(changed)

    def _read_config(self, path: Path) -> None:
        self.config = {key: value for key, value in read_settings(path).items() if key != "fold"}
        count, home = self.config["train"]["folds"], path.parent.parent  # their number may be searched, too
        more = [Fold(RunFolder(home / f"fold_{k}"), k) for k in range(len(self.folds), count)]
        self.folds = [*self.folds[:count], *more]
        for fold in more:
            fold.look()

    @property
    def shown(self) -> list[Fold]:
        """The folds of which there is something to show."""
        return [fold for fold in self.folds if fold.first]

    @property
    def outcome(self) -> str | None:
        """DONE, FAILED or STOPPED once every fold has ended."""
        outcomes = [fold.outcome for fold in self.folds]
        if not all(outcomes):
            return None
        return next((name for name in ("FAILED", "STOPPED") if name in outcomes), "DONE")

    @property
    def reason(self) -> str:
        """Why it failed or was stopped."""
        return next((str(fold.facts.get("reason", "")) for fold in self.folds if fold.outcome == self.outcome), "")

    def params(self) -> dict[str, str]:
        searched = {f"searched.{key}": value for key, value in self.proposed.point.items()}
        return {key: str(value) for key, value in {**flat(self.config), **searched}.items()}

    def series(self) -> Series:
        """Means over folds, as far as every fold has come."""
        by_fold = [[_with_ratio(record) for record in fold.run.epochs()] for fold in self.folds]
        epochs = [_mean(records) for records in zip(*by_fold, strict=False)]
        if self.outcome != "DONE":
            return Series(epochs)
        told = [{key: fold.facts[key] for key in BEST if key in fold.facts} for fold in self.folds]
        values: dict[str, float | None] = {}
        for key in BEST:
            mean, sd = mean_sd([facts[key] for facts in told if key in facts])
            values |= {f"best_{key}_mean": mean, f"best_{key}_sd": sd}
        return Series(epochs, best=Point(0, max(fold.last_ms for fold in self.folds), _numbers(values)))


def _with_ratio(record: Mapping[str, Any]) -> dict[str, Any]:
    """With the ratio of both weights, where there are two."""
    seg, reg = record.get("weight_seg"), record.get("weight_reg")
    return {**record, "weight_ratio": seg / reg} if seg is not None and reg else dict(record)


def _mean(records: Sequence[Mapping[str, Any]]) -> Point:
    shared = set.intersection(*(set(record) for record in records))
    told = mean_over_folds([{key: record[key] for key in record if key in shared} for record in records])
    return Point(told["epoch"], max(map(_milliseconds, records)), _numbers(told))


def _point(record: Mapping[str, Any]) -> Point:
    return Point(record["epoch"], _milliseconds(record), _numbers(record))


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in record.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _milliseconds(record: Mapping[str, Any]) -> int:
    return round(datetime.fromisoformat(record["time_utc"]).timestamp() * 1000)
