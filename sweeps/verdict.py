"""What a sweep answers, read from its run folders: results.csv, the table, one sentence."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data_prep.files import write_csv
from mtl.runfolder import RunFolder, best_epoch


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
    """done, failed (a fold failed) or incomplete"""
    label: str = ""
    """what it is called in the table and the sentence; empty: its branch"""
    halved: int = 0
    """folds that ran out of memory and were trained in half micro-batches"""

    @property
    def name(self) -> str:
        return self.label or self.branch


COLUMNS = [f.name for f in fields(Result) if f.name not in ("label", "halved")]
"""of results.csv; `configuration` names the searched values"""


def result(folder: Path, branch: str, folds: int, label: str = "") -> Result:
    """Read one configuration's folds; means are over the finished ones."""
    runs = [RunFolder(folder / f"fold_{k}") for k in range(folds)]
    outcomes = [run.outcome() for run in runs]
    best = [best_epoch(run.epochs()) for run, outcome in zip(runs, outcomes, strict=True) if outcome == "DONE"]
    status = "done" if len(best) == folds else "failed" if "FAILED" in outcomes else "incomplete"
    dice, area = ([record[key] for record in best] for key in ("dice_val", "area_mad_mm2"))
    halved = sum(run.facts().get("micro_batches", 1) > 1 for run in runs)
    return Result(folder.name, branch, *mean_sd(dice), *mean_sd(area), len(best), status, label, halved)


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation with n - 1; None where there are too few values."""
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def write(path: Path, results: Sequence[Result]) -> None:
    """results.csv"""
    write_csv(path, [asdict(r) for r in results], COLUMNS)


def table(results: Sequence[Result], selection: str) -> str:
    """The table as text: a row per configuration, mean and standard deviation over its folds."""
    where = "validation patients" if selection == "validation" else "the test fold, selected on it as in the paper"
    searched = "branch" if all(r.name == r.branch for r in results) else "configuration"
    width = max(12, *(len(r.name) for r in results))
    head = f"{searched:<{width}} {'Dice':>17} {'area error, mm2':>19} {'folds':>6}  status"
    rows = [
        f"{r.name:<{width}} {_pm(r.dice_mean, r.dice_sd, 3):>17} "
        f"{_pm(r.area_mad_mm2_mean, r.area_mad_mm2_sd, 0):>19} {r.folds_done:>6}  {r.status}{' *' if r.halved else ''}"
        for r in results
    ]
    source = "the regression path (none has none: of its segmentation)"
    source = source if any(r.branch == "none" for r in results) else "the regression path"
    note = f"Mean and standard deviation over folds, on {where}; area error of {source}."
    halved = ["* Trained in half micro-batches for want of memory: BatchNorm saw other batches."]
    return "\n".join([head, "-" * len(head), *rows, note, *(halved if any(r.halved for r in results) else [])])


def _pm(mean: float | None, sd: float | None, digits: int) -> str:
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" + (f" +- {sd:.{digits}f}" if sd is not None else "")


def sentence(results: Sequence[Result], setting: str) -> str:
    """The answer in one sentence, beginning with the setting it holds for.

    Two configurations whose means lie closer than the larger of their standard deviations are not called
    apart; the paired comparison by patient that could is not made here.
    """
    ranked = sorted((r for r in results if r.dice_mean is not None), key=lambda r: -(r.dice_mean or 0))
    if len(ranked) < len(results) or not all(r.status == "done" for r in results):
        missing = ", ".join(r.name for r in results if r.status != "done")
        return f"{setting} no answer yet, since folds are missing at {missing}."
    best = ranked[0]
    score = f"Dice {best.dice_mean:.3f}"
    kind = "branch point" if best.name == best.branch else "configuration"
    if len(ranked) == 1:
        return f"{setting} {best.name} reached {score}; with one {kind} there is nothing to compare."
    close = [r.name for r in ranked[1:] if _close(best, r)]
    smallest = min(results, key=lambda r: r.area_mad_mm2_mean or 0)
    area = f"the area error was smallest at {smallest.name} ({smallest.area_mad_mm2_mean:.0f} mm2)"
    if halved := [r.name for r in results if r.halved]:
        area += f"; {', '.join(halved)} ran out of memory and trained in half micro-batches"
    if close:
        others = f"{', '.join(close)} lie{'s' if len(close) == 1 else ''} within one standard deviation of it"
        return f"{setting} {best.name} segmented best ({score}), but {others}, so no winner is called; {area}."
    lead = "ahead of all others by over one standard deviation"
    return f"{setting} {best.name} segmented best ({score}), {lead}; {area}."


def _close(best: Result, other: Result) -> bool:
    spread = max(best.dice_sd or 0.0, other.dice_sd or 0.0)
    return (best.dice_mean or 0.0) - (other.dice_mean or 0.0) <= spread
