"""What became of a sweep: every fold of every configuration, on Slurm or on this machine.

    python -m cluster.status RUNS [--watch]     # RUNS: a sweep's folder, such as runs/branch_location

Read from the run folders; where the sweep runs on Slurm one question (squeue) for all of its jobs says what waits and
why. Exit status: 0 (also where Ctrl-C ends --watch), 2 for bad input, 130 interrupted.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import costs, probe, slurm, submission
from cluster import watched as watched_jobs
from cluster.driver import driver_of, log_of
from cluster.slurm import Job
from cluster.watched import Watched
from data_prep.ending import command
from mtl.runfolder import RunFolder, read_settings

WATCH_S = 60.0
"""between two questions to Slurm; the run folders are read as often"""


@dataclass(frozen=True)
class Fold:
    """One line of the status."""

    configuration: str
    number: int
    state: str
    """done, failed, stopped, runs, waits, lost (begun, and no job has it) or new"""
    told: str
    seconds: float
    """that its epochs took"""


def folds(sweep_folder: Path, watched: Mapping[str, Watched], jobs: Mapping[str, Job]) -> list[Fold]:
    """Every fold that has begun or was queued."""
    begun = {str(path.parent) for path in sweep_folder.glob("*/fold_*/config.yaml")}
    made = []
    for folder in sorted(begun | watched.keys()):
        run = RunFolder(Path(folder))
        made.append(_fold(run, watched.get(folder), jobs))
    return sorted(made, key=lambda fold: (fold.configuration, fold.number))


def _fold(run: RunFolder, watched: Watched | None, jobs: Mapping[str, Job]) -> Fold:
    records = run.epochs()
    state, what = _state(run, records, watched, jobs)
    configuration, number = run.path.parent.name, int(run.path.name.removeprefix("fold_"))
    return Fold(configuration, number, state, what, sum(record["seconds"] for record in records))


def _state(
    run: RunFolder, records: Sequence[Mapping[str, Any]], watched: Watched | None, jobs: Mapping[str, Job]
) -> tuple[str, str]:
    """As in Fold, and what is told of it."""
    outcome = run.outcome()
    if outcome == "DONE":
        facts = run.facts()
        return "done", f"Dice {facts['dice_val']:.3f} in epoch {facts['best_epoch']}"
    if outcome:
        return outcome.lower(), _why(run, watched)
    wanted = _epochs_wanted(run, watched)
    so_far = f"epoch {len(records)} of {wanted}"
    job = jobs.get(watched.id) if watched else None
    queued = f", queued {watched.queued} times" if watched and watched.queued > 1 else ""
    if job and job.waits:
        return "waits", f"job {job.id} ({job.reason}){queued}; {so_far}"
    pace = _pace(records, wanted)
    if job and job.alive:
        return "runs", f"job {job.id} on {job.nodes}{queued}; {so_far}{pace}"
    if watched:
        return "lost", f"job {watched.id} was {watched.state}; {so_far}"
    return "runs" if records else "new", f"{so_far}{pace}"


def _why(run: RunFolder, watched: Watched | None) -> str:
    """What kind of failure, its reason in one line, and where to read more."""
    facts = run.facts()
    kind, reason = facts.get("failure", ""), (run.reason().splitlines() or [""])[0]
    told = f"{kind}: {reason}" if kind else reason
    log = submission.log_of(run.path.parent.parent / "jobs", watched.id, watched.rank) if watched else None
    if log and str(log) not in told and log.exists():
        told += f"; log: {log}"
    return told if log or "traceback" not in facts else f"{told}; traceback: {run.path / 'FAILED'}"


def _epochs_wanted(run: RunFolder, watched: Watched | None) -> int:
    """0 where nobody says."""
    config = watched.fold.get("config") if watched else None
    path = run.path / "config.yaml"
    if config is None and path.exists():
        config = read_settings(path)
    return int(config["train"]["epochs"]) if config else 0


def _pace(records: Sequence[Mapping[str, Any]], wanted: int) -> str:
    if not records:
        return ""
    seconds = statistics.median(record["seconds"] for record in records)
    left = seconds * (wanted - len(records))
    return f", {seconds:.3g} s each, {_spelled(left)} left"


def _spelled(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )


def report(sweep_folder: Path) -> str:
    """The status as text. ValueError where the folder holds no sweep."""
    if not sweep_folder.is_dir():
        raise ValueError(f"{sweep_folder}: no such folder; wanted a sweep's run folder, such as runs/branch_location")
    sweep_folder = sweep_folder.resolve()
    kept, driver = watched_jobs.read(sweep_folder), driver_of(sweep_folder)
    watched = kept.by_folder
    begun = watched or driver or probe.last(sweep_folder) or any(sweep_folder.glob("*/fold_*"))
    if not begun:
        inside = sorted(path.name for path in sweep_folder.iterdir() if any(path.glob("*/fold_*")))
        what = f"name one of the sweeps in it: {', '.join(inside)}" if inside else "no fold has begun"
        raise ValueError(f"{sweep_folder}: not a sweep's folder; {what}")
    jobs, silent = _jobs(watched, driver)
    made = folds(sweep_folder, watched, jobs)
    lines = _lines(made)
    if driver and not silent:
        job = jobs.get(driver)
        state = f"{job.state} {job.nodes or job.reason}".strip() if job else "has ended"
        lines.append(f"driver: job {driver} {state}; log: {log_of(sweep_folder)}")
    lines += [silent] if silent else []
    lines += _canary(sweep_folder)
    lines += [f"node {node} failed and is left out: {told}" for node, told in sorted(kept.bad_nodes.items())]
    return "\n".join([*lines, *_hours(sweep_folder, watched, made)])


def _canary(sweep_folder: Path) -> list[str]:
    """What the canary found wrong."""
    answer = probe.last(sweep_folder)
    log = probe.log_of(sweep_folder)
    return [f"canary on {answer.node} failed: {line}; log: {log}" for line in answer.problems] if answer else []


def _hours(sweep_folder: Path, watched: Mapping[str, Watched], made: Sequence[Fold]) -> list[str]:
    """What was expected, and what was used: by the accounting where there is one, else by the run folders."""
    expected, gpus = costs.kept(sweep_folder)
    used = slurm.gpu_hours(w.id for w in watched.values()) if watched and gpus else None
    lines = [f"expected: {expected}"] if expected else []
    if used is not None:
        return [*lines, f"GPU hours used (sacct): {used:.2f}"]
    hours = sum(fold.seconds for fold in made) / 3600
    unit, factor = ("GPU hours", gpus) if gpus else ("hours of CPU jobs" if watched else "hours", 1)
    return [*lines, f"{unit} used (epochs in the run folders): {hours * factor:.2f}"] if hours else lines


def _jobs(watched: Mapping[str, Watched], driver: str | None) -> tuple[dict[str, Job], str]:
    """What Slurm knows, and what to say where it does not answer. It is asked only where something may be going on."""
    if not driver and not any(RunFolder(Path(folder)).outcome() is None for folder in watched):
        return {}, ""
    try:
        return slurm.jobs(), ""
    except (slurm.Silent, ValueError, OSError) as error:
        return {}, f"Slurm does not answer ({error}): what waits and what runs is not known now"


def _lines(made: Sequence[Fold]) -> list[str]:
    counts = Counter(fold.state for fold in made)
    width = max([len(fold.configuration) for fold in made], default=len("configuration"))
    lines = [f"{fold.configuration:<{width}}  {fold.number:>4}  {fold.state:<7}  {fold.told}" for fold in made]
    head = f"{'configuration':<{width}}  fold  state    what"
    total = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return [head, "-" * len(head), *lines, "", f"{len(made)} folds: {total}"]


@command("status", "nothing was changed")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.status", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path, metavar="RUNS", help="a sweep's run folder, such as runs/branch_location")
    parser.add_argument("--watch", action="store_true", help=f"again every {WATCH_S:g} s, until interrupted")
    args = parser.parse_args(argv)
    print(report(args.runs), flush=True)
    with suppress(KeyboardInterrupt):  # how one ends to watch
        while args.watch:
            time.sleep(WATCH_S)
            print(f"\n{time.strftime('%H:%M:%S')}\n{report(args.runs)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
