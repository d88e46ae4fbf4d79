"""The mirror's sqlite file: it appears whole, and is whole without the files beside it. No mlflow here."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cluster.tracking import stores, uris
from data_prep.files import atomic, locked, make_private

WAIT_S = 600.0
"""for another process that makes the same file"""


def own(uri: str) -> Path | None:
    """The file of a sqlite address without options; None of any other."""
    return stores.database(uri) if uri.startswith("sqlite:///") and "?" not in uri else None


def is_missing(path: Path) -> bool:
    """Also one that is empty, as a killed process may leave it."""
    return not path.exists() or path.stat().st_size == 0


def artifacts(uri: str) -> str | None:
    """Where artifacts lie: beside the file; None: where a server wants them."""
    return (stores.database(uri).absolute().parent / "mlartifacts").as_uri() if uri.startswith("sqlite") else None


def make(path: Path, write: Callable[[Path], object]) -> None:
    """A new database, unless it is there. It appears as `path` when all that `write` puts into the file of another name
    is in it: killed in between, MLflow could not mend it. Of several processes one makes it, the others wait."""
    make_private(path.absolute().parent)
    named = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    with locked(make_private(uris.home() / "locks" / named), wait_s=WAIT_S):
        if not is_missing(path):
            return
        _clear_beside(path)  # of one that somebody has deleted: sqlite would mix what is left of it into this one
        with atomic(path) as temporary:
            try:
                write(temporary)
                _set_journal(temporary, "DELETE")
            finally:
                _clear_beside(temporary)
        _set_journal(path, "WAL")  # who reads need not wait, and a write waits for the disk once


def settle(uri: str) -> None:
    """All that was written is in the file itself, not in the one beside it: somebody may copy or delete it."""
    if path := own(uri):
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _set_journal(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")


def _clear_beside(path: Path) -> None:
    for end in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + end).unlink(missing_ok=True)
