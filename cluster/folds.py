"""Run the folds of one configuration side by side; their mean per epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import executors, worker
from data_prep.files import Locked, make_private
from mtl.runfolder import RunFolder
from sweeps.search import Report
from sweeps.verdict import mean_sd

POLL_S = 0.2


@dataclass(frozen=True)
class Configuration:
    """One point of a sweep with its folder."""

    name: str
    point: dict[str, Any]
    config: dict[str, Any]
    folder: Path
    save_masks: bool = False
    """the test folds' predicted masks are kept"""

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


def evaluate(configuration: Configuration, store: Path, place: executors.Place, report: Report) -> None:
    """Train every unfinished fold and report the mean over folds as each epoch is complete in all of them.

    Finished folds are not started again; failed ones are. A fold that fails leaves its siblings running.
    """
    pending = {
        place.submit(worker.run_fold, _job(configuration, store, k)): run
        for k, run in enumerate(configuration.runs)
        if run.outcome() != "DONE"
    }
    told = 0
    while True:
        for ended in executors.wait(list(pending), POLL_S) if pending else []:
            _note_death(ended, pending.pop(ended))
        told = _report_means(configuration.runs, told, report)
        if not pending:
            return


def _job(configuration: Configuration, store: Path, number: int) -> worker.FoldJob:
    folder = configuration.runs[number].path
    return worker.FoldJob(configuration.config, str(store), str(folder), number, configuration.save_masks)


def _note_death(ended: Any, run: RunFolder) -> None:
    """A fold whose process died could not say so itself."""
    try:
        executors.outcome(ended)
    except Locked:
        return  # somebody else trains there; the launcher says so at the end
    except Exception as error:
        if run.outcome() is None:
            make_private(run.path)
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
