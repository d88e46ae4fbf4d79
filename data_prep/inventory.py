"""Every file below RAW, each once, so that none is dropped without a word."""

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Inventory:
    """The files below `root`, sorted; paths are relative to it."""

    root: Path
    files: tuple[Path, ...]
    ignored: dict[Path, str] = field(default_factory=dict)
    """What is passed over by rule, and which."""
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Folders that could not be looked into, and why."""


def take(root: Path) -> Inventory:
    """Walk `root`. Links to folders are followed, each folder once, so a loop ends. Of a table, the table alone.

    FileNotFoundError or NotADirectoryError where `root` is neither.
    """
    if not root.exists():
        raise FileNotFoundError(f"raw folder {root}: no such folder; give the folder that holds the archive")
    if root.is_file() and root.suffix.lower() == ".csv":
        return Inventory(root.parent, (Path(root.name),))
    if not root.is_dir():
        raise NotADirectoryError(f"raw folder {root}: is a file; give the archive's folder, or a table (.csv)")
    files: list[Path] = []
    ignored: dict[Path, str] = {}
    unreadable: dict[Path, str] = {}
    visited: set[str] = set()

    def refuse(error: OSError) -> None:
        unreadable[Path(str(error.filename)).relative_to(root)] = error.strerror or "cannot be read"

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        here, real = Path(folder).relative_to(root), os.path.realpath(folder)
        passed_over = _rule(real, names, visited)
        visited.add(real)
        if passed_over:
            subfolders.clear()
            ignored[here] = passed_over
            continue
        for name in [*subfolders, *names]:
            if name.startswith("."):
                ignored[here / name] = "hidden"
            elif name in names:
                files.append(here / name)
        # Links last: the folder itself is read under its own name, whatever points at it.
        visible = [name for name in subfolders if not name.startswith(".")]
        subfolders[:] = sorted(visible, key=lambda name: (os.path.islink(os.path.join(folder, name)), name))
    return Inventory(root, tuple(sorted(files)), ignored, unreadable)


def _rule(real: str, names: list[str], visited: set[str]) -> str:
    """Why a folder is not looked into; empty where it is."""
    if real in visited:
        return "a link to a folder that is read already"
    return "a zarr store" if "zarr.json" in names else ""
