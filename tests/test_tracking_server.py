"""A real `mlflow server`: killed in the middle and started again, slow, and as `serve` shows it. Loopback only."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.tracking import serve, uris
from cluster.tracking.mirror import Mirror
from cluster.tracking.mirror_writer import Refused
from tests import tracked
from tests.tracked import contents, done, train


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases and locks lie elsewhere than a user's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name, value in uris.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def test_a_server_that_is_killed_and_comes_back_gets_all_of_it(tmp_path: Path) -> None:
    """The second time it is one that `serve` has started, which shows another runs folder, too."""
    folder, file, port = tmp_path / "runs" / "sweep", tracked.database(tmp_path / "db"), free_port()
    uri = f"http://127.0.0.1:{port}"
    (first, second, third), others = tracked.sweep(folder)
    tracked.launch(folder)
    mirror = Mirror(uri, folder)
    with serve.server(file, port) as process:
        uris.check(uri)
        train(first, (1,))
        mirror.sync()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        train(first, (1, 2))
        train(second, (1, 2))
        for _ in range(2):
            with pytest.raises(Refused, match=f"^MLflow at {uri}: "):
                mirror.sync()
        done(first)
    with pytest.raises(ValueError, match="no MLflow server answers there"):
        uris.check(uri)
    tracked.finished(tmp_path / "shown" / "another")
    with serving(tmp_path / "shown", file, port, tmp_path / "here"):
        mirror.sync()
        for run in (second, third):
            train(run, (1, 2))
            done(run)
        mirror.sync()
        for run in others:
            run.finish("STOPPED", "others were better")
        (folder / "results.csv").write_text("configuration\n")
        mirror.finish()
        assert {"sweep", "another"} <= {one["name"] for one in asked(port)["experiments"]}
        with pytest.raises(urllib.error.HTTPError, match="403"):
            asked(port, Host="elsewhere.example")
        with pytest.raises(ValueError, match=f"--port {port}: is taken; "):
            serve.serve(tmp_path / "shown", file, port)
    again = tracked.database(tmp_path / "again")
    Mirror(again, folder).finish()
    assert contents(file) == contents(again)
    assert contents(file)["sweep"]["artifacts"].keys() == {"results.csv"}
    assert len(contents(file, "another")) == 9


@contextmanager
def serving(runs: Path, to: str, port: int, here: Path) -> Iterator[None]:
    """`serve` in a process of its own, once it says where to look. Ended as a scheduler does, it leaves nothing."""
    here.mkdir()
    command = [sys.executable, "-m", "cluster.tracking", "serve", str(runs), "--to", to, "--port", str(port)]
    environment = os.environ | {"SERVED_IN": str(here), "PYTHONPATH": str(Path(__file__).parent.parent)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(command, cwd=here, env=environment, **pipes)
    try:
        assert started.stdout is not None
        lines = [started.stdout.readline() for _ in range(2)]
        assert lines[1] == f"MLflow UI: http://127.0.0.1:{port}   (Ctrl-C ends it)\n", started.communicate(timeout=5)
        assert len(stemming_from(here)) >= 3
        yield
    finally:
        started.send_signal(signal.SIGTERM)
        _, errors = started.communicate(timeout=60)
    assert (started.returncode, errors.strip()) == (130, "tracking: interrupted; the same command goes on")
    assert stemming_from(here) == []
    assert list(here.iterdir()) == []


def stemming_from(here: Path) -> list[int]:
    """Processes that were started there."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SERVED_IN={here}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def asked(port: int, **headers: str) -> Any:
    """What the server says of its experiments."""
    address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"
    body = json.dumps({"max_results": 10}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked.finished(tmp_path / "runs" / "sweep")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Refused, match="timed out"):
            Mirror(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path / "runs" / "sweep").sync()


def test_a_server_that_cannot_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho first line\necho no room >&2\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(ValueError, match=r"^mlflow server ended with 3: no room$"), serve.server("sqlite:///x", 5000):
        pytest.fail("it began")


def test_what_is_kept_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """New sweeps come, what is wrong with one is said once and stops no other."""
    runs, uri = tmp_path / "runs", tracked.database(tmp_path / "db")
    tracked.finished(runs / "first")
    kept = serve.Kept(runs, uri)
    kept.refresh()
    assert len(contents(uri, "first")) == 9
    tracked.finished(runs / "second")
    ((run, *_), _) = tracked.sweep(runs / "third")
    train(run, (1,))
    (runs / "third" / "sweep.json").write_text("{")
    kept.refresh()
    kept.refresh()
    told = capsys.readouterr()
    assert len(contents(uri, "second")) == 9
    assert [line.split()[1:] for line in told.out.splitlines()] == [[f"{n}:", "9", "runs"] for n in ("first", "second")]
    assert told.err.count("\n") == 1
    assert "third is not mirrored for now (ValueError: " in told.err
    shutil.rmtree(runs)
    kept.refresh()
    assert "no such folder" in capsys.readouterr().err


def test_addresses_and_ports_that_do_not_fit(tmp_path: Path) -> None:
    tracked.finished(tmp_path / "runs" / "sweep")
    with pytest.raises(ValueError, match="is a server already; mirror into it"):
        serve.serve(tmp_path / "runs", "http://127.0.0.1:5000", None)
    with pytest.raises(ValueError, match="--port 70000: wanted 1 to 65535"):
        serve.serve(tmp_path / "runs", None, 70000)
