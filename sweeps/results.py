"""A row per configuration, read from its run folders: results.csv and the table."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from data_prep.files import write_csv
from mtl.runfolder import RunFolder, best_epoch
from sweeps import alike


@dataclass(frozen=True)
class Result:
    """A row of results.csv. A fold's figures are those of its best epoch on its selection set."""

    configuration: str
    branch: str
    dice_mean: float | None
    dice_sd: float | None
    """over folds, with n - 1"""
    area_mad_mm2_mean: float | None
    area_mad_mm2_sd: float | None
    folds_done: int
    status: str
    """done, failed (a fold failed), stopped (early, as a whole) or incomplete"""
    label: str = ""
    """what it is called in the table; empty: its branch"""
    halved: int = 0
    """folds that ran out of memory and were trained in half micro-batches"""
    trained_with: dict[str, alike.With] = field(default_factory=dict)
    """finished fold -> code, torch, device and precision"""
    lost: dict[str, list[str]] = field(default_factory=dict)
    """fold that was finished -> files that are gone"""

    @property
    def name(self) -> str:
        return self.label or self.branch


COLUMNS = [f.name for f in fields(Result) if f.name not in ("label", "halved", "trained_with", "lost")]
"""of results.csv; `configuration` names the searched values"""


def result(folder: Path, branch: str, folds: int, label: str = "") -> Result:
    """Read one configuration's folds; means are over the finished ones."""
    runs = {f"{folder.name}/fold_{k}": RunFolder(folder / f"fold_{k}") for k in range(folds)}
    lost = {name: files for name, run in runs.items() if (files := run.lost())}
    done = {name: run for name, run in runs.items() if run.outcome() == "DONE" and name not in lost}
    best = [best_epoch(run.epochs()) for run in done.values()]
    dice, area = ([record[key] for record in best] for key in ("dice_val", "area_mad_mm2"))
    facts = {name: run.facts() for name, run in done.items()}
    return Result(
        folder.name,
        branch,
        *mean_sd(dice),
        *mean_sd(area),
        len(best),
        status([run.outcome() for run in runs.values()], whole=not lost),
        label,
        sum(one.get("micro_batches", 1) > 1 for one in facts.values()),
        {name: alike.trained_with(one) for name, one in facts.items()},
        lost,
    )


def status(outcomes: Sequence[str | None], *, whole: bool) -> str:
    """Of a configuration by its folds' outcomes. whole: no file of a finished fold is lost."""
    if "FAILED" in outcomes:
        return "failed"
    if "STOPPED" in outcomes and None not in outcomes:
        return "stopped"
    return "done" if whole and set(outcomes) == {"DONE"} else "incomplete"


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation with n - 1; None where there are too few values."""
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def write(path: Path, results: Sequence[Result]) -> None:
    """results.csv"""
    write_csv(path, [asdict(r) for r in results], COLUMNS)


def table(results: Sequence[Result], selection: str, compared: Sequence[str] = alike.FACTS) -> str:
    """The table as text: a row per configuration, mean and standard deviation over its folds. compared: what folds must
    have in common."""
    where = "validation patients" if selection == "validation" else "the test fold, selected on it as in the paper"
    searched = "branch" if all(r.name == r.branch for r in results) else "configuration"
    width = max(12, *(len(r.name) for r in results))
    head = f"{searched:<{width}} {'Dice':>17} {'area error, mm2':>19} {'folds':>6}  status"
    unlike = alike.unlike({fold: one for r in results for fold, one in r.trained_with.items()}, compared)
    rows = [
        f"{r.name:<{width}} {_pm(r.dice_mean, r.dice_sd, 3):>17} "
        f"{_pm(r.area_mad_mm2_mean, r.area_mad_mm2_sd, 0):>19} {r.folds_done:>6}  {r.status}"
        f"{' *' if r.halved else ''}{' !' if unlike.keys() & r.trained_with.keys() else ''}"
        for r in results
    ]
    source = "the regression path (none has none: of its segmentation)"
    source = source if any(r.branch == "none" for r in results) else "the regression path"
    note = f"Mean and standard deviation over folds, on {where}; area error of {source}."
    halved = ["* Trained in half micro-batches for want of memory: BatchNorm saw other batches."]
    notes = halved if any(r.halved for r in results) else []
    notes += [f"! Trained unlike the others, {line}." for line in alike.in_words(unlike)]
    notes += [f"Files lost: {fold}: {', '.join(files)}." for r in results for fold, files in r.lost.items()]
    return "\n".join([head, "-" * len(head), *rows, note, *notes])


def _pm(mean: float | None, sd: float | None, digits: int) -> str:
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" + (f" +- {sd:.{digits}f}" if sd is not None else "")
