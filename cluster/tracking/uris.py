"""Where the mirror lies and how to look at it. Nothing here imports mlflow, which takes seconds."""

import hashlib
import os
import re
import secrets
import shlex
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from cluster.tracking import mounts, stores
from data_prep.files import make_private, write_text

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")
FILE_STORE = "MLflow's store of files (mlruns, file:) has ended: it raises since MLflow 3.13"
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for each run
    # A server that is down may cost seconds, not the minutes of MLflow's own seven tries.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Of every process that talks to MLflow; to be set before it is imported."""
IDENTITY = ".mirror-id"


def chosen(given: str | None, runs: Path) -> str:
    """The address that was given, else default(runs), checked: ValueError as check() says it."""
    uri = given or default(runs)
    check(uri)
    if not uri.startswith("sqlite:///"):
        return uri
    path = stores.database(uri)  # absolute: MLflow's server and trials work in other folders
    return uri.replace(str(path), str(path.absolute()), 1)


def default(runs: Path) -> str:
    """sqlite beside the runs; where these lie on a network file system, on a local disk of whoever looks."""
    runs = runs.resolve()
    path = runs / "mlflow.db" if mounts.network(runs) is None else home() / f"{identity(runs)}.db"
    if any(mark in str(path) for mark in "?#%"):
        raise ValueError(f"runs folder {runs}: ? # and % cannot stand in a database's address; name another folder")
    return f"sqlite:///{path}"


def home() -> Path:
    """A private folder of this user's on a local disk, for databases and locks."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    if data.is_absolute() and mounts.network(data) is None:
        with suppress(OSError):  # a home that may not be written
            return make_private(data / "branchpoint" / "mlflow")
    folder = make_private(Path(tempfile.gettempdir()) / f"branchpoint-{os.getuid()}" / "mlflow")
    facts = folder.parent.lstat()  # anybody may have made a folder of this name before
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise ValueError(f"{folder.parent}: not this user's own private folder; remove it, or set XDG_DATA_HOME")
    return folder


def identity(runs: Path) -> str:
    """A runs folder's own name in a database that several may share. Kept in the folder, so that a copy of it is known
    again; of one that may not be written, made from its path."""
    path = runs / IDENTITY
    try:
        if not path.exists():
            make_private(runs)
            write_text(path, secrets.token_hex(8) + "\n")
        return path.read_text().strip()
    except OSError:
        return hashlib.sha256(str(runs.resolve()).encode()).hexdigest()[:16]


def check(uri: str) -> None:
    """ValueError in one line for a store that MLflow does not take, that nobody answers for, that is damaged, or that
    is of another MLflow. Costs a moment: nothing is written, mlflow is not imported."""
    scheme = uri.partition(":")[0].partition("+")[0].lower()
    if scheme not in SCHEMES or not uri.partition("://")[2]:
        wanted = f"wanted one that begins with: {', '.join(SCHEMES)}"
        why = f". {FILE_STORE}" if scheme == "file" or ":" not in uri else ""
        raise ValueError(f"tracking.uri is {without_password(uri)!r}, {wanted}{why}")
    try:
        if scheme == "sqlite":
            stores.check_file(stores.database(uri), uri)
        elif scheme.startswith("http"):
            stores.check_http(uri)
        else:
            stores.check_database(uri)
    except ValueError as error:
        raise ValueError(without_password(f"tracking.uri {uri}: {error}")) from None


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
