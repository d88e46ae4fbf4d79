"""Run the folds of one configuration side by side; their mean per epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cluster import worker
from data_prep.files import Locked
from mtl.runfolder import RunFolder
from sweeps.search import Report
from sweeps.verdict import mean_sd

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

    @property
    def branch(self) -> str:
        return str(self.config["model"]["branch"])

    @property
    def epochs(self) -> int:
        return int(self.config["train"]["epochs"])

    @property
    def runs(self) -> list[RunFolder]:
        return [RunFolder(self.folder / f"fold_{k}") for k in range(self.config["train"]["folds"])]

    def done(self) -> bool:
        return all(run.outcome() == "DONE" for run in self.runs)


def evaluate(configuration: Configuration, store: Path, place: Place, report: Report) -> None:
    """Train every unfinished fold and report the mean over folds as each epoch is complete in all of them.

    Finished folds are not started again; failed ones are. A fold that fails leaves its siblings running.
    """
    pending = place.start(configuration.name, jobs_of(configuration, store))
    told = 0
    while True:
        for fold, error in place.ended(pending, POLL_S) if pending else []:
            pending = [other for other in pending if other.number != fold.number]
            _note_death(configuration.runs[fold.number], error)
        told = _report_means(configuration.runs, told, report)
        if not pending:
            return


def jobs_of(configuration: Configuration, store: Path) -> list[worker.FoldJob]:
    """Of every fold that is not done; that one failed is taken back."""
    made = []
    for k, run in enumerate(configuration.runs):
        if run.outcome() != "DONE":
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
