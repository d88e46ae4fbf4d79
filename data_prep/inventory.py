"""Every file below RAW, each once, so that none is dropped without a word."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.files import read
from data_prep.store import FORMAT


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
    inventory = Inventory(root, (), {}, {})
    files: list[Path] = []
    visited: set[str] = set()
    pending = [root]
    while pending:  # links after all real folders: a folder is read under its own name, whatever points at it
        start = pending.pop(0)
        if os.path.realpath(start) in visited:
            inventory.ignored[start.relative_to(root)] = "a link to a folder that is read already"
        else:
            pending += _walk(inventory, start, files, visited)
    # As paths compare, but much faster: a large archive's inventory is taken before the workers have anything to do.
    return Inventory(root, tuple(sorted(files, key=lambda path: path.parts)), inventory.ignored, inventory.unreadable)


def _walk(inventory: Inventory, start: Path, files: list[Path], visited: set[str]) -> list[Path]:
    """Take in what lies below one folder; the links to folders that are met."""
    root, links = inventory.root, []

    def refuse(error: OSError) -> None:
        inventory.unreadable[Path(str(error.filename)).relative_to(root)] = error.strerror or "cannot be read"

    passed_over: dict[str, str] = {}
    for folder, subfolders, names in os.walk(start, onerror=refuse):
        visited.add(os.path.realpath(folder))
        rule = passed_over.get(os.path.dirname(folder), "") if folder != str(start) else ""
        rule = rule or ("hidden" if os.path.basename(folder).startswith(".") and folder != str(start) else "")
        rule = rule or ("of a store" if "zarr.json" in names and _is_store(Path(folder)) else "")
        passed_over[folder] = rule
        inside = Path(folder).relative_to(root)
        for name in names:
            path = inside / name
            if why := rule or ("hidden" if name.startswith(".") else ""):
                inventory.ignored[path] = why
            else:
                files.append(path)
        links += [Path(folder, name) for name in sorted(subfolders) if os.path.islink(os.path.join(folder, name))]
        subfolders[:] = sorted(name for name in subfolders if not os.path.islink(os.path.join(folder, name)))
    return links


def _is_store(folder: Path) -> bool:
    """Whether a folder holds one of our stores; those of others may be anything."""
    try:
        return FORMAT.encode() in read(folder / "zarr.json")
    except OSError:
        return False
