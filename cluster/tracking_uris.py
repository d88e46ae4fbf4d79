"""Where the mirror lies and how to look at it. Apart from tracking.py, whose import of mlflow takes seconds."""

import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")


def default(runs: Path) -> str:
    """sqlite beside the runs."""
    return f"sqlite:///{runs.resolve() / 'mlflow.db'}"


def check(uri: str) -> None:
    """ValueError for a store that MLflow does not take (its file store has ended)."""
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme not in SCHEMES:
        raise ValueError(f"tracking.uri is {uri!r}, wanted one that begins with: {', '.join(SCHEMES)}")


def how_to_look(uri: str) -> str:
    """The command that opens the MLflow UI on it (loopback only), or the server's own address."""
    if uri.startswith("http"):
        return uri
    command = [str(Path(sys.executable).with_name("mlflow")), "ui", "--backend-store-uri", uri]
    return f"MLFLOW_DISABLE_TELEMETRY=true {shlex.join(command)}"
