"""The run folder, which is the truth about a training: names, atomic writes, its lock.

    runs/<sweep>/<configuration>/fold_<k>/
        config.yaml    the configuration and the fold
        epochs.jsonl   a line per epoch
        last.pt        to go on from; best.pt, the best epoch's network
        volumes.csv  slices.csv
        DONE | STOPPED | FAILED    exactly one of them at the end, JSON with the reason

No torch here: drivers and trackers read run folders too.
"""

import csv
import fcntl
import io
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

OUTCOMES = ("DONE", "STOPPED", "FAILED")


class Locked(RuntimeError):
    """Somebody else is writing here."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a name to write to; the file appears under `path` when it is whole, on the disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Force a folder's entries to the disk: a power cut leaves the old file or the new one."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A CSV with a header; numbers are written with all their digits, None and NaN as empty fields."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if row[key] is None or row[key] != row[key] else row[key] for key in columns})
    write_text(path, out.getvalue())


def make_private(folder: Path) -> Path:
    """Create a folder, and those above it that are missing, for their owner alone; what exists is left as it is."""
    for missing in [f for f in (folder, *folder.parents) if not f.exists()][::-1]:
        missing.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def locked(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a folder's lock; Locked says who has it. It ends with the process, however that ends."""
    with open(folder / ".lock", "a+") as handle:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    handle.seek(0)
                    raise Locked(f"{folder} is being written by {handle.read().strip() or 'somebody'}") from None
                time.sleep(0.1)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {os.uname().nodename}")
        handle.flush()
        yield


class RunFolder:
    """One fold of one configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last, self.best = path / "last.pt", path / "best.pt"

    def check(self, config: Mapping[str, Any]) -> None:
        """ValueError when the folder was made with another configuration or other data."""
        try:
            found = yaml.safe_load((self.path / "config.yaml").read_text())
        except FileNotFoundError:
            return
        except yaml.YAMLError:
            found = None
        if found != dict(config):
            what = [k for k in config if not isinstance(found, dict) or found.get(k) != config[k]]
            detail = "other data" if what == ["data_digest"] else f"another {', '.join(what)}"
            raise ValueError(f"run folder {self.path}: made with {detail}; remove it or use another runs= folder")

    def prepare(self, config: Mapping[str, Any]) -> None:
        """Check or write config.yaml; take back how the fold ended, since it is tried again."""
        make_private(self.path)
        self.check(config)
        for left_over in self.path.glob(".*.tmp"):  # of a killed process: the caller holds the lock
            left_over.unlink()
        write_text(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        for name in ("FAILED", "STOPPED"):
            (self.path / name).unlink(missing_ok=True)

    def epochs(self) -> list[dict[str, Any]]:
        """The records of the epochs so far."""
        try:
            lines = (self.path / "epochs.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def write_epochs(self, records: Sequence[Mapping[str, Any]]) -> None:
        write_text(self.path / "epochs.jsonl", "".join(json.dumps(record) + "\n" for record in records))

    def outcome(self) -> str | None:
        """DONE, STOPPED, FAILED, or None while there is more to do."""
        return next((name for name in OUTCOMES if (self.path / name).exists()), None)

    def reason(self) -> str:
        """The reason that the outcome gives, empty where there is none."""
        name = self.outcome()
        return str(json.loads((self.path / name).read_text()).get("reason", "")) if name else ""

    def finish(self, outcome: str, reason: str, **facts: Any) -> None:
        """Write the one file that says how it ended."""
        assert outcome in OUTCOMES
        write_text(self.path / outcome, json.dumps({"reason": reason, **facts}, indent=1) + "\n")
        for other in OUTCOMES:
            if other != outcome:
                (self.path / other).unlink(missing_ok=True)


def best_epoch(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The record with the highest Dice on the selection set; the first of equals."""
    assert records, "a finished fold has epochs"
    return max(records, key=lambda record: record["dice_val"])
