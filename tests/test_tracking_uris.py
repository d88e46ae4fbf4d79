"""Where the mirror lies, what is said of a store before anything is trained, and the command line's mistakes."""

import http.server
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cluster.tracking import command, folders, mounts, stores, uris
from tests import tracked

MOUNTS = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:40 / /far rw,relatime shared:5 - nfs4 filer:/far rw,vers=4.2
24 23 254:1 / /far/me/scratch rw,relatime - xfs /dev/vdb rw
25 22 0:41 / /work\040space rw - lustre 10.0.0.1@tcp:/fs rw
26 22 0:42 / /data rw - autofs systemd-1 rw
27 22 0:43 / /data rw - ext4 /dev/vdc rw
28 22 0:44 / /remote rw - fuse.sshfs me@there: rw
29 22 0:45 / /layers rw - fuse.fuse-overlayfs fuse-overlayfs rw
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases and locks lie elsewhere than a user's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/runs", None),
        ("/far/me/runs", "nfs4"),
        ("/farther/runs", None),
        ("/far/me/scratch/runs", None),
        ("/work space/runs", "lustre"),
        ("/data/runs", None),
        ("/remote", "fuse.sshfs"),
        ("/layers/x", None),
    ],
)
def test_the_longest_mount_point_decides_and_the_last_of_several(path: str, kind: str | None) -> None:
    assert mounts.network(Path(path), MOUNTS) == kind


def test_this_machine_says_what_a_path_lies_on(tmp_path: Path) -> None:
    assert mounts.kind_of(tmp_path.resolve(), mounts.MOUNTINFO.read_text()) != ""
    assert mounts.network(tmp_path) is None


def network(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """These lie on a network file system."""
    lines = ["1 0 0:1 / / rw - ext4 x rw", *(f"2 1 0:2 / {folder} rw - gpfs x rw" for folder in folders)]
    real = Path.read_text

    def read(path: Path, *args: str | None, **named: str | None) -> str:
        return "\n".join(lines) if path == mounts.MOUNTINFO else real(path, *args, **named)

    monkeypatch.setattr(Path, "read_text", read)


def test_beside_the_runs_on_a_local_disk_and_never_on_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    assert uris.default(runs) == f"sqlite:///{runs}/mlflow.db"
    network(monkeypatch, runs)
    identity = uris.identity(runs)
    assert uris.default(runs) == f"sqlite:///{tmp_path}/data/branchpoint/mlflow/{identity}.db"
    assert (tmp_path / "data" / "branchpoint" / "mlflow").stat().st_mode & 0o077 == 0
    copy = tmp_path / "copy"
    shutil.copytree(runs, copy)
    assert uris.identity(copy) == identity  # as rsync brings it
    network(monkeypatch, runs, tmp_path / "data")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "local"))
    private = tmp_path / "local" / f"branchpoint-{os.getuid()}"
    assert uris.default(runs) == f"sqlite:///{private}/mlflow/{identity}.db"
    private.chmod(0o755)
    with pytest.raises(ValueError, match="not this user's own private folder"):
        uris.default(runs)
    with pytest.raises(ValueError, match=r"on a network file system \(gpfs\), whose locks fail sqlite"):
        uris.check(f"sqlite:///{runs}/mlflow.db")


def test_a_runs_folder_that_may_not_be_written_has_a_name_of_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(uris, "write_text", refuse)
    first, second = (uris.identity(tmp_path / name) for name in ("a", "b"))
    assert first == uris.identity(tmp_path / "a") != second
    assert not (tmp_path / "a" / uris.IDENTITY).exists()


def test_passwords_are_not_printed() -> None:
    assert uris.without_password("postgresql://me:s3cret@db/x") == "postgresql://me:***@db/x"
    assert "s3cret" not in uris.how_to_look("postgresql://me:s3cret@db/x")
    assert "s3cret" not in uris.how_to_look("https://me:s3cret@lab")
    assert uris.without_password("asked https://me:s3cret@lab/api: 403") == "asked https://me:***@lab/api: 403"
    with pytest.raises(ValueError, match=r"tracking\.uri http://me:\*\*\*@127") as told:
        uris.check("http://me:s3cret@127.0.0.1:9")
    assert "s3cret" not in str(told.value)


def test_how_to_look(tmp_path: Path) -> None:
    assert uris.how_to_look("http://lab:5000") == "http://lab:5000"
    assert uris.how_to_look(f"sqlite:///{tmp_path}/x.db").endswith(f"--backend-store-uri sqlite:///{tmp_path}/x.db")
    with pytest.raises(ValueError, match="cannot stand in a database's address"):
        uris.default(tmp_path / "what?")


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("mlruns", r"wanted one that begins with: sqlite, http.*store of files .* has ended"),
        (f"file://{Path('/tmp/mlruns')}", "has ended: it raises since MLflow 3.13"),
        ("databricks://x", "wanted one that begins with: sqlite, http, https, postgresql, mysql, mssql$"),
        ("sqlite://", "wanted one that begins with"),
        ("sqlite:///:memory:", "names no file, wanted sqlite:///PATH"),
        ("http://127.0.0.1:9", "no MLflow server answers there .*start it, or leave tracking.uri out"),
        ("http://[bad", "no MLflow server answers there"),
        ("postgresql://me@127.0.0.1:9/x", "install the database's driver, or mend the address"),
    ],
)
def test_a_wrong_address_is_one_line(uri: str, line: str) -> None:
    with pytest.raises(ValueError, match=line) as told:
        uris.check(uri)
    assert "\n" not in str(told.value)


def test_a_new_file_is_fine_and_nothing_is_written(tmp_path: Path) -> None:
    uris.check(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    uris.check(f"sqlite:///{tmp_path}/file")  # empty, as a killed process may leave it
    with pytest.raises(ValueError, match="is a folder, wanted a file"):
        uris.check(f"sqlite:///{tmp_path}")
    with pytest.raises(ValueError, match="file is no folder that may be written"):
        uris.check(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_database_of_another_mlflow_or_of_none(tmp_path: Path) -> None:
    uri = tracked.database(tmp_path)
    uris.check(uri)
    path = stores.database(uri)

    def refused(statement: str | None = None) -> str:
        if statement:
            with closing(sqlite3.connect(path)) as database:
                database.execute(statement)
                database.commit()
        with pytest.raises(ValueError, match=r"^tracking\.uri ") as told:
            uris.check(uri)
        return str(told.value)

    assert "of an older MLflow (schema 451aebb31d03, " in refused(
        "UPDATE alembic_version SET version_num='451aebb31d03'"
    )
    assert refused().endswith(f"keep a copy, then: mlflow db upgrade {uri}")
    assert "of a newer MLflow, or another program's (schema f00" in refused(
        "UPDATE alembic_version SET version_num='f00'"
    )
    with pytest.raises(ValueError, match="newer MLflow"):
        stores.check_database(uri)  # as of a database server
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused()
    path.write_text("no database at all" * 100)
    assert "no database, or a damaged one" in refused()
    path.unlink()
    assert "a database, but none of MLflow's" in refused("CREATE TABLE mine (x)")
    with pytest.raises(ValueError, match="none of MLflow's"):
        stores.check_database(uri)


@contextmanager
def answering(status: int, text: str) -> Iterator[str]:
    """A server that says the same to everybody; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "text", "line"),
    [
        (200, "<html>hello</html>", r"no MLflow server \(status 200\)"),
        (200, '{"something": 1}', "what answers there is no MLflow server"),
        (404, "", r"no MLflow server \(status 404\)"),
        (401, "", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "Invalid Host header", r"refuses us \(Invalid Host header\)"),
    ],
)
def test_what_answers_and_is_no_mlflow(status: int, text: str, line: str) -> None:
    with answering(status, text) as uri, pytest.raises(ValueError, match=line):
        uris.check(uri)


def test_what_answers_as_mlflow_does() -> None:
    with answering(200, '{"experiments": []}') as uri:
        uris.check(uri)


def test_a_check_imports_neither_mlflow_nor_torch(tmp_path: Path) -> None:
    uri = tracked.database(tmp_path)
    code = (
        f"import sys; from cluster.tracking import command, uris; uris.check({uri!r}); "
        "print([name for name in ('mlflow', 'torch', 'ray', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert command.main(["mirror", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_mistakes_on_the_command_line_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    ((run, *_), _) = tracked.finished(runs / "sweep")
    assert "no such folder; wanted runs/ or a sweep's folder" in refused(capsys, str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    assert "no sweep's folder, and none in it (*/fold_*/); name runs/" in refused(capsys, str(tmp_path / "empty"))
    configuration = run.path.parent
    assert refused(capsys, str(configuration)).endswith(f"name the sweep's: {runs / 'sweep'}")
    assert refused(capsys, str(run.path)).endswith(f"name the sweep's: {runs / 'sweep'}")
    assert "has ended" in refused(capsys, str(runs), "--to", "./mlruns")
    (runs / "sweep" / "sweep.json").write_text("{")
    assert "sweep.json: damaged" in refused(capsys, str(runs), "--to", tracked.database(tmp_path / "db"))
    shutil.copytree(runs / "sweep", runs / "other")
    with pytest.raises(ValueError, match=r"holds several sweeps \(other, sweep\)"):
        folders.sweep_folder(runs)


def test_the_command_mirrors_every_sweep_or_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, uri = tmp_path / "runs", tracked.database(tmp_path / "db")
    tracked.finished(runs / "sweep")
    tracked.finished(runs / "another")
    assert command.main(["mirror", str(runs), "--to", uri]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == ["another: 9 runs", "sweep: 9 runs"]
    assert told.err == ""
    first = tracked.contents(uri)
    assert command.main(["mirror", str(runs / "sweep"), "--to", uri]) == 0
    assert tracked.contents(uri) == first


def test_help_is_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 120
