"""The end of a launch: results.csv, the table, the verdict, where to look."""

import subprocess
import sys
from pathlib import Path

from cluster import prune
from cluster.roster import Roster
from cluster.tracking import uris
from cluster.watcher import Watcher
from sweeps import alike, results, verdict
from sweeps.asked import label

MODELS_S = 900
"""how long the winner's models may take"""


def answer(proposed: Roster, selection: str, watcher: Watcher, models: bool) -> int:
    """Write and print it; the exit status. models: as in tracking.models."""
    configurations = proposed.configurations
    found = [results.result(c.folder, c.branch, len(c.runs), label(c.point)) for c in configurations]
    sweep_folder = configurations[0].folder.parent
    results.write(sweep_folder / "results.csv", found)
    told = verdict.write(sweep_folder)
    compared = alike.compared({name for c in configurations for name in c.point})
    print(f"\n{results.table(found, selection, compared)}\n\n{told.text}\n")
    for c in configurations:
        for fold in c.runs:
            if fold.outcome() not in ("DONE", "STOPPED"):
                why = fold.reason() or "somebody else is writing it, or it was interrupted"
                print(f"not done: {shown(fold.path)}: {why}")
    prune.remind(sweep_folder, configurations)
    print(f"sweep folder:  {shown(sweep_folder)}", flush=True)
    whole = proposed.exhausted() and all(c.ended() for c in configurations)
    if watcher.finish() and whole and models:
        _log_models(sweep_folder, watcher.uri)
    if any(c.done() for c in configurations):
        print(f"report:        {sys.executable} -m mtl.report {shown(sweep_folder)}")
    if told.best:
        print(f"new cases:     {sys.executable} -m mtl.predict {shown(sweep_folder / told.best)} INPUT OUT")
    print(f"MLflow:        {uris.how_to_look(watcher.uri)}")
    return 0 if whole else 1


def _log_models(sweep_folder: Path, uri: str) -> None:
    """The winner's models in MLflow, by a process of its own: this one imports no torch."""
    command = [sys.executable, "-m", "cluster.tracking", "models", str(sweep_folder), "--to", uri]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MODELS_S, check=False)
    except subprocess.TimeoutExpired:
        print(f"models:        not logged within {MODELS_S} s; {_again(sweep_folder)}", file=sys.stderr)
        return
    for line in done.stdout.splitlines():
        print(f"model:         {line}")
    if done.returncode:
        why = uris.without_password((done.stderr.strip().splitlines() or ["no reason given"])[-1])
        print(f"models:        not logged: {why}; {_again(sweep_folder)}", file=sys.stderr)


def _again(sweep_folder: Path) -> str:
    return f"python -m cluster.tracking models {shown(sweep_folder)} does it again"


def shown(path: Path) -> str:
    """A path as a user at this place would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
