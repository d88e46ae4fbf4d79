"""What can be said of an MLflow store without MLflow: whether it is there, whole, and of the installed version."""

import configparser
import importlib.util
import os
import re
import socket
import sqlite3
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cluster.tracking import mounts

WAIT_S = 5.0
"""for a connection"""
ANSWER_S = 15.0
"""for an answer over it"""
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SEARCH = "api/2.0/mlflow/experiments/search"
AGAIN = "python -m cluster.tracking mirror RUNS makes it again"


def database(uri: str) -> Path:
    """The file of a sqlite address. ValueError where it names none."""
    name = uri.removeprefix("sqlite:///").partition("?")[0]
    if not uri.startswith("sqlite:///") or not name or name == ":memory:":
        raise ValueError("names no file, wanted sqlite:///PATH")
    return Path(name)


def check_file(path: Path, uri: str) -> None:
    """ValueError unless the sqlite file is a database of this MLflow's, or can be made."""
    if kind := mounts.network(path):
        raise ValueError(f"on a network file system ({kind}), whose locks fail sqlite; name a local file or a server")
    if path.is_dir():
        raise ValueError("is a folder, wanted a file")
    if not path.exists() or path.stat().st_size == 0:
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise ValueError(f"cannot be made: {above} is no folder that may be written")
        return
    if not os.access(path, os.R_OK | os.W_OK):
        raise ValueError("may not be written; name another file")
    _check_schema(_revision_of_file(path), uri)


def _revision_of_file(path: Path) -> str | None:
    """The schema's name in a sqlite file. ValueError where it is damaged or no database."""
    try:
        reader = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=WAIT_S)
        try:
            (told,) = reader.execute("PRAGMA quick_check(1)").fetchone()
            if told != "ok":
                raise ValueError(f"a damaged database ({told.splitlines()[-1]}); remove it: {AGAIN}")
            names = {name for (name,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = list(reader.execute("SELECT version_num FROM alembic_version")) if "alembic_version" in names else []
        finally:
            reader.close()
    except sqlite3.DatabaseError as error:
        raise ValueError(f"no database, or a damaged one ({error}); name another, or remove it: {AGAIN}") from None
    if "experiments" not in names:
        raise ValueError("a database, but none of MLflow's; name another file")
    return str(rows[0][0]) if rows else None


def check_database(uri: str) -> None:
    """ValueError unless a database server answers, and holds nothing yet or a database of this MLflow's."""
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri)
    except (ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise ValueError(f"{_first_line(error)}; install the database's driver, or mend the address") from None
    if engine.url.host:
        _connect(engine.url.host, engine.url.port or PORTS[engine.url.get_backend_name()])
    try:
        with engine.connect() as connection:
            names = sqlalchemy.inspect(connection).get_table_names()
            if not names:
                return
            if "experiments" not in names:
                raise ValueError("a database, but none of MLflow's; name another")
            found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise ValueError(f"the database does not let us in ({_first_line(error)})") from None
    finally:
        engine.dispose()
    _check_schema(found, uri)


def _connect(host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=WAIT_S).close()
    except OSError as error:
        raise ValueError(f"nobody answers at {host}:{port} ({error}); start it, or name another") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_schema(found: str | None, uri: str) -> None:
    """ValueError where the schema is older or newer than that of the installed MLflow."""
    known = _schemas()
    (newest,) = set(known) - set(known.values())
    if found == newest:
        return
    if found is None or found in known:
        what = f"of an older MLflow (schema {found}, {version('mlflow')} wants {newest})"
        raise ValueError(f"{what}: keep a copy, then: mlflow db upgrade {uri}")
    what = f"of a newer MLflow, or another program's (schema {found} is none of {version('mlflow')}'s)"
    raise ValueError(f"{what}: name another, or install the MLflow that made it")


@cache
def _schemas() -> dict[str, str | None]:
    """The schemas that the installed MLflow knows, and what each follows, read from its migrations."""
    found = importlib.util.find_spec("mlflow")
    assert found
    assert found.origin
    made: dict[str, str | None] = {}
    for path in (Path(found.origin).parent / "store" / "db_migrations" / "versions").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if name := _assigned("revision", text):
            made[name] = _assigned("down_revision", text)
    return made


def _assigned(name: str, text: str) -> str | None:
    """What a module sets a name to."""
    found = re.search(rf'^{name}\b[^=]*= *"(\w+)"', text, re.MULTILINE)
    return found[1] if found else None


def check_http(uri: str) -> None:
    """ValueError unless an MLflow server answers there, and lets us in."""
    import requests

    certificate: bool | str = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    trusting = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    try:
        answer = requests.post(
            f"{uri.rstrip('/')}/{SEARCH}",
            json={"max_results": 1},
            timeout=(WAIT_S, ANSWER_S),
            verify=False if trusting else certificate,
            **_credentials(),
        )
        told = answer.json() if answer.ok else None
    except requests.JSONDecodeError:
        told = None
    except (requests.RequestException, UnicodeError, OSError) as error:
        why = type(error).__name__
        raise ValueError(f"no MLflow server answers there ({why}); start it, or leave tracking.uri out") from None
    if answer.status_code == 401:
        raise ValueError("the server wants to know who asks: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if answer.status_code == 403:
        raise ValueError(
            f"the server refuses us ({answer.text.strip()[:80]}); ask who runs it to allow this host or user"
        )
    if not isinstance(told, dict) or set(told) - {"experiments", "next_page_token"}:
        raise ValueError(f"what answers there is no MLflow server (status {answer.status_code}); mend the address")


def _credentials() -> dict[str, Any]:
    """As MLflow's own client finds them: the environment, else its file."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"headers": {"Authorization": f"Bearer {token}"}}
    kept = configparser.ConfigParser(interpolation=None)
    kept.read(Path.home() / ".mlflow" / "credentials")
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    user, password = (os.environ.get(name) or kept.get("mlflow", name.lower(), fallback=None) for name in names)
    return {"auth": (user, password)} if user and password else {}
