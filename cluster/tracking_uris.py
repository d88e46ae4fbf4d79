"""Where the mirror lies and how to look at it. Apart from tracking.py, whose import of mlflow takes seconds."""

import re
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")


def default(runs: Path) -> str:
    """sqlite beside the runs."""
    path = runs.resolve() / "mlflow.db"
    if any(mark in str(path) for mark in "?#%"):
        raise ValueError(f"runs folder {runs}: ? # and % cannot stand in a database's address; name another folder")
    return f"sqlite:///{path}"


def check(uri: str) -> None:
    """ValueError for a store that MLflow does not take (its file store has ended)."""
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme not in SCHEMES or not uri.partition("://")[2]:
        raise ValueError(f"tracking.uri is {uri!r}, wanted one that begins with: {', '.join(SCHEMES)}")


def without_password(text: str) -> str:
    """An address, or a text with one in it, as it may be printed."""
    return re.sub(r"(://[^/@:\s]*:)[^@/\s]+@", r"\1***@", text)


def how_to_look(uri: str) -> str:
    """The command that opens the MLflow UI on it (loopback only), or the server's own address."""
    if uri.startswith("http"):
        return without_password(uri)
    if not uri.startswith("sqlite"):
        return f"the database {without_password(uri)}: give its address to mlflow ui"
    command = [str(Path(sys.executable).with_name("mlflow")), "ui", "--backend-store-uri", uri]
    return f"MLFLOW_DISABLE_TELEMETRY=true {shlex.join(command)}"
