"""`launch.py ... --prune`: show, and remove, what does not belong to a sweep any more."""

from collections.abc import Sequence
from pathlib import Path

from cluster import confirm
from cluster.folds import Configuration
from cluster.roster import strangers
from data_prep.files import remove
from mtl.runfolder import RunFolder


def prune(sweep_folder: Path, configurations: Sequence[Configuration], yes: bool) -> None:
    """Remove the configurations that the sweep's file does not ask for any more, after a yes. The caller holds the
    sweep's lock. confirm.Refused where nobody says it."""
    found = strangers(sweep_folder, configurations)
    if not found:
        print(f"{sweep_folder}: every configuration in it belongs to the sweep")
        return
    print(f"{sweep_folder}: {len(found)} of its configurations do not belong to the sweep as it is asked now:")
    for folder in found:
        print(f"  {_told(folder)}", flush=True)
    if not yes:
        confirm.ask("they would be removed for good", "give yes=true as well")
    for folder in found:
        remove(folder)
    print(f"removed: {len(found)}")


def _told(folder: Path) -> str:
    runs = [RunFolder(path) for path in sorted(folder.glob("fold_*"))]
    done = sum(run.outcome() == "DONE" for run in runs)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{folder.name}: {done} of {len(runs)} folds done, {size / 1e6:.1f} MB"


def remind(sweep_folder: Path, configurations: Sequence[Configuration]) -> None:
    """One line where there are such."""
    if found := strangers(sweep_folder, configurations):
        names = ", ".join(folder.name for folder in found[:3]) + (" ..." if len(found) > 3 else "")
        what = f"{len(found)} configurations in its folder do not belong to the sweep as it is asked now ({names})"
        print(f"{what}: left alone; --prune shows and removes them")
