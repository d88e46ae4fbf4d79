"""Which folders are sweeps'."""

from pathlib import Path

from cluster import executors
from sweeps import asked


def sweep_folders(runs: Path) -> list[Path]:
    """The sweeps in it, or itself if it is one's. ValueError where there are none."""
    if not runs.is_dir():
        raise ValueError(f"{runs}: no such folder; wanted runs/ or a sweep's folder, such as runs/branch_location")
    runs = runs.resolve()
    if _is_sweep(runs):
        return [runs]
    found = sorted(folder for folder in runs.iterdir() if folder.is_dir() and _is_sweep(folder))
    if not found:
        above = runs if any(runs.glob("fold_*")) else runs.parent
        advice = f"name the sweep's: {above.parent}" if any(above.glob("fold_*")) else "name runs/ or a sweep's folder"
        raise ValueError(f"{runs}: no sweep's folder, and none in it (*/fold_*/); {advice}")
    return found


def sweep_folder(folder: Path) -> Path:
    """One sweep's folder. ValueError where it is none, or holds several."""
    first, *others = sweep_folders(folder)
    if others:
        names = ", ".join(one.name for one in (first, *others))
        raise ValueError(f"{folder}: holds several sweeps ({names}); name the folder of one")
    return first


def _is_sweep(folder: Path) -> bool:
    return (folder / asked.NAME).is_file() or any(folder.glob("*/fold_*"))


def processes() -> int:
    """That write a large sweep side by side: a database takes one at a time, so more do not help."""
    return min(executors.cores(), 3)
