"""Which job runs which fold, and which nodes broke: what the broker knows, in the sweep's folder (`jobs.json`)."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.worker import FoldJob
from data_prep.files import write_text
from mtl.runfolder import RunFolder


@dataclass
class Watched:
    """A fold's job."""

    fold: dict[str, Any]
    """of FoldJob; of a fold that has ended only where it lies"""
    configuration: str
    id: str
    rank: int = 0
    """of those that its job gives a fold each"""
    at_a_time: int = 0
    """its array's throttle; 0: none"""
    queued: int = 1
    """how often it was queued by the broker"""
    epochs: int = 0
    """that it had when it was queued"""
    state: str = "PENDING"
    reason: str = ""
    nodes: str = ""
    closed: bool = False
    """the fold has said how it ended; what becomes of it now is for another job"""
    past: list[str] = field(default_factory=list)
    """how its earlier jobs ended"""

    @property
    def folder(self) -> str:
        return str(self.fold["folder"])

    @property
    def array(self) -> str:
        """The job without its place in the array."""
        return self.id.partition("_")[0]

    @property
    def job(self) -> FoldJob:
        return FoldJob(**self.fold)

    @property
    def run(self) -> RunFolder:
        return RunFolder(Path(self.folder))

    def close(self) -> None:
        """It has ended. Its configuration need not be kept twice: a sweep may have thousands of folds."""
        self.closed = True
        self.fold = {"folder": self.fold["folder"], "number": self.fold["number"]}


Queuing = tuple[str, list[dict[str, Any]]]
"""A configuration and its folds, while they are being queued."""


@dataclass
class Kept:
    """All of it, as on the disk after write()."""

    path: Path
    by_folder: dict[str, Watched] = field(default_factory=dict)
    """a fold's folder -> its job"""
    bad_nodes: dict[str, str] = field(default_factory=dict)
    """that failed under this sweep's jobs -> under which, and when"""
    queuing: Queuing | None = None

    def open(self) -> list[Watched]:
        """Jobs whose fold has not said how it ended."""
        return [w for w in self.by_folder.values() if not w.closed]

    def write(self) -> None:
        jobs = [vars(w) for w in self.by_folder.values()]  # thousands, and often: neither copied nor indented
        kept = {"jobs": jobs, "bad_nodes": self.bad_nodes, "queuing": self.queuing}
        write_text(self.path, json.dumps(kept) + "\n", private=True)


def read(sweep_folder: Path) -> Kept:
    """As the broker last knew it; empty without a broker. ValueError where the file is of another version."""
    path = sweep_folder / "jobs.json"
    if not path.exists():
        return Kept(path)
    try:
        kept = json.loads(path.read_text())
        by_folder = {w["fold"]["folder"]: Watched(**w) for w in kept["jobs"]}
        queuing = kept["queuing"]
        return Kept(path, by_folder, dict(kept["bad_nodes"]), (queuing[0], queuing[1]) if queuing else None)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or of another version ({error}); remove it when no job runs") from None
