"""The end of a launch: results.csv, the table, the verdict, where to look."""

import sys
from pathlib import Path

from cluster import prune, tracking_uris
from cluster.roster import Roster
from cluster.watcher import Watcher
from sweeps import results, verdict
from sweeps.asked import label


def answer(proposed: Roster, selection: str, watcher: Watcher) -> int:
    """Write and print it; the exit status."""
    configurations = proposed.configurations
    found = [results.result(c.folder, c.branch, len(c.runs), label(c.point)) for c in configurations]
    sweep_folder = configurations[0].folder.parent
    results.write(sweep_folder / "results.csv", found)
    told = verdict.write(sweep_folder)
    print(f"\n{results.table(found, selection)}\n\n{told.text}\n")
    for c in configurations:
        for fold in c.runs:
            if fold.outcome() not in ("DONE", "STOPPED"):
                why = fold.reason() or "somebody else is writing it, or it was interrupted"
                print(f"not done: {shown(fold.path)}: {why}")
    prune.remind(sweep_folder, configurations)
    print(f"sweep folder:  {shown(sweep_folder)}", flush=True)
    watcher.finish()
    if any(c.done() for c in configurations):
        print(f"report:        {sys.executable} -m mtl.report {shown(sweep_folder)}")
    print(f"MLflow:        {tracking_uris.how_to_look(watcher.uri)}")
    return 0 if proposed.exhausted() and all(c.ended() for c in configurations) else 1


def shown(path: Path) -> str:
    """A path as a user at this place would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
