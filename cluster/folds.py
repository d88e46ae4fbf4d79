"""Run the folds of one configuration side by side; their mean per epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cluster import worker
from data_prep.files import Locked, patiently
from mtl.runfolder import RunFolder
from sweeps import asked, racing
from sweeps.results import mean_sd
from sweeps.search import Report

POLL_S = 0.2


class Place(Protocol):
    """Where folds run. A trial takes it along, so it can be pickled."""

    def start(self, configuration: str, folds: Sequence[worker.FoldJob]) -> Sequence[Any]:
        """Queue the folds of a configuration; something with the `number` of each."""

    def ended(self, started: Sequence[Any], timeout_s: float) -> Sequence[tuple[Any, Exception | None]]:
        """Those that have ended, after at most timeout_s, with what was raised where their process died."""


@dataclass(frozen=True)
class Configuration:
    """One point of a sweep with its folder."""

    name: str
    point: dict[str, Any]
    config: dict[str, Any]
    folder: Path
    save_masks: bool = False
    """the test folds' predicted masks are kept"""
    checkpoint_minutes: float | None = None
    """as in site.checkpoint_minutes"""
    umask: str = "077"
    """as in site.umask"""
    rules: tuple[str, ...] = ()
    """by which folds may be stopped early: asha, racing"""
    metric: str = "dice_val"
    """as in sweep.metric"""
    confidence: float = 0.99
    """as in sweep.confidence"""
    discarded: set[int] = field(default_factory=set, compare=False)
    """folds that count as not begun although they were trained; cluster/renewal.py removes them in time"""

    @property
    def branch(self) -> str:
        return str(self.config["model"]["branch"])

    @property
    def epochs(self) -> int:
        return int(self.config["train"]["epochs"])

    @property
    def runs(self) -> list[RunFolder]:
        return [
            RunFolder(self.folder / f"fold_{k}", discarded=k in self.discarded)
            for k in range(self.config["train"]["folds"])
        ]

    def done(self) -> bool:
        return all(run.outcome() == "DONE" and not run.lost() for run in self.runs)

    def stopped(self) -> bool:
        """Whether it was stopped early, by a rule that still holds."""
        return any(run.outcome() == "STOPPED" and run.facts().get("by") in self.rules for run in self.runs)

    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.done() or (self.stopped() and all(run.outcome() in ("DONE", "STOPPED") for run in self.runs))


def evaluate(configuration: Configuration, store: Path, place: Place, report: Report) -> None:
    """Train every unfinished fold and report the mean over folds as each epoch is complete in all of them.

    Finished folds are not started again; failed ones are. A fold that fails leaves its siblings running. Where the
    configuration is out of the race its other folds are stopped.
    """
    one_by_one = "racing" in configuration.rules
    if configuration.stopped():
        stop(configuration, "stopped before all its folds were told", configuration.rules[0])
    waiting = [] if configuration.stopped() else jobs_of(configuration, store)
    pending: list[Any] = []
    told = 0
    while True:
        if waiting and not (one_by_one and pending):
            if one_by_one and (why := _out_of_race(configuration)):
                return stop(configuration, why, "racing")
            started, waiting = (waiting[:1], waiting[1:]) if one_by_one else (waiting, [])
            pending += place.start(configuration.name, started)
        for fold, error in place.ended(pending, POLL_S) if pending else []:
            pending = [other for other in pending if other.number != fold.number]
            _note_death(configuration.runs[fold.number], error)
        told = _report_means(configuration.runs, told, report)
        if not pending and not waiting:
            return


def _out_of_race(configuration: Configuration) -> str | None:
    """Why the folds that are left need not be trained, if so."""
    folder, folds = configuration.folder, len(configuration.runs)
    others = [folder.parent / one.name for one in asked.read(folder.parent).configurations if one.name != folder.name]
    found = {other.name: racing.read_scores(other, folds, configuration.metric) for other in others}
    scores = {name: of_one for name, of_one in found.items() if of_one}
    mine = racing.read_scores(folder, folds, configuration.metric)
    return racing.out_of_race(mine, list(scores.values()), folds, configuration.confidence, list(scores))


def stop(configuration: Configuration, why: str, rule: str) -> None:
    """Stop the folds that have not ended: those that run end with their epoch, those that wait do not begin."""
    for run in configuration.runs:
        if run.outcome() is None:
            patiently(lambda run=run: run.finish("STOPPED", why, by=rule))  # type: ignore[misc]


def jobs_of(configuration: Configuration, store: Path) -> list[worker.FoldJob]:
    """Of every fold that is not done, or has lost files; that one failed or was stopped is taken back."""
    made = []
    for k, run in enumerate(configuration.runs):
        if run.outcome() != "DONE" or run.lost():
            run.reopen()
            made.append(
                worker.FoldJob(
                    configuration.config,
                    str(store),
                    str(run.path),
                    k,
                    configuration.save_masks,
                    checkpoint_minutes=configuration.checkpoint_minutes,
                    umask=configuration.umask,
                )
            )
    return made


def _note_death(run: RunFolder, error: Exception | None) -> None:
    """A fold whose process died could not say so itself. Locked: somebody else trains there, as the launcher says at
    the end."""
    if error is not None and not isinstance(error, Locked) and run.outcome() is None:
        run.finish("FAILED", str(error))


def _report_means(runs: Sequence[RunFolder], told: int, report: Report) -> int:
    """Report the epochs after `told` that every fold has; the last one reported."""
    for records in list(zip(*(run.epochs() for run in runs), strict=False))[told:]:
        report(mean_over_folds(records))
        told += 1
    return told


def mean_over_folds(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`<name>_mean` and `<name>_sd` (n - 1) over the folds' records of one epoch, and the epoch."""
    made: dict[str, Any] = {"epoch": records[0]["epoch"]}
    for name, value in records[0].items():
        values = [record[name] for record in records]
        if name != "epoch" and all(isinstance(v, int | float) for v in values) and value is not None:
            mean, sd = mean_sd(values)
            made[f"{name}_mean"] = mean
            if sd is not None:
                made[f"{name}_sd"] = sd
    return made
