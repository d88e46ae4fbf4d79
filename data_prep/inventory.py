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
    """Walk `root`. Links to folders are followed, each folder once, so a loop ends.

    FileNotFoundError or NotADirectoryError where `root` is no folder.
    """
    if not root.exists():
        raise FileNotFoundError(f"raw folder {root}: no such folder; give the folder that holds the archive")
    if not root.is_dir():
        raise NotADirectoryError(f"raw folder {root}: is a file; give the folder that holds the archive")
    files: list[Path] = []
    ignored: dict[Path, str] = {}
    unreadable: dict[Path, str] = {}
    visited: set[str] = set()

    def refuse(error: OSError) -> None:
        unreadable[Path(str(error.filename)).relative_to(root)] = error.strerror or "cannot be read"

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        here = Path(folder).relative_to(root)
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            ignored[here] = "a link to a folder that is read already"
            continue
        visited.add(real)
        if "zarr.json" in names:
            subfolders.clear()
            ignored[here] = "a zarr store"
            continue
        for name in [name for name in subfolders if name.startswith(".")]:
            subfolders.remove(name)
            ignored[here / name] = "hidden folder"
        subfolders.sort(key=lambda name: (os.path.islink(os.path.join(folder, name)), name))
        for name in names:
            if name.startswith("."):
                ignored[here / name] = "hidden file"
            else:
                files.append(here / name)
    return Inventory(root, tuple(sorted(files)), ignored, unreadable)
