"""MLflow's UI on this machine, on a mirror that is kept up to date: python -m cluster.tracking serve RUNS."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cluster.tracking import folders, mirrored_views, stores, uris

if TYPE_CHECKING:
    from cluster.tracking.mirror import Mirror

HOST, PORT, PORTS = "127.0.0.1", 5000, 100
"""loopback alone; the first port that is tried, and how many"""
REFRESH_S = 10.0
"""between two looks at the run folders"""
START_S, END_S = 180.0, 15.0
"""that a server may take to begin and to end"""


def serve(runs: Path, to: str | None, port: int | None) -> None:
    """Mirror every sweep in `runs`, show them, and go on until interrupted. ValueError says what is wrong."""
    found = folders.sweep_folders(runs)
    if to and to.startswith("http"):
        raise ValueError(f"--to {to}: is a server already; mirror into it: python -m cluster.tracking mirror")
    uri = uris.chosen(to, found[0].parent)
    free = _port(port)
    kept = Kept(runs, uri)
    kept.refresh()
    with server(uri, free) as process:
        print(f"MLflow UI: http://{HOST}:{free}   (Ctrl-C ends it)")
        print("\n".join(kept.addresses(f"http://{HOST}:{free}")), flush=True)
        while not _has_ended(process, REFRESH_S):
            kept.refresh()
        raise ValueError(f"mlflow server has ended by itself ({process.returncode}); start it again")


class Kept:
    """The mirrors of a runs folder, whose sweeps come and go."""

    def __init__(self, runs: Path, uri: str) -> None:
        self._runs, self._uri = runs, uri
        self._mirrors: dict[Path, Mirror] = {}
        self._told: set[str] = set()

    def refresh(self) -> None:
        """Mirror what is new. What goes wrong is said once: the run folders may be in the middle of something."""
        from cluster.tracking.mirror import Mirror

        try:
            found = folders.sweep_folders(self._runs)
        except ValueError as error:
            return self._tell(str(error))
        for folder in found:
            try:
                mirror = self._mirrors.get(folder) or Mirror(self._uri, folder, folders.processes())
                self._mirrors[folder] = mirror
                if mirror.refresh(elsewhere=True):
                    print(f"{time.strftime('%H:%M:%S')} {folder.name}: {mirror.runs} runs", flush=True)
            except Exception as error:
                why = (str(error).splitlines() or [""])[0]
                self._tell(f"{folder.name} is not mirrored for now ({type(error).__name__}: {why})")

    def addresses(self, server: str) -> Iterator[str]:
        """Of each sweep's configurations beside each other; from there `Views` leads on."""
        for folder, mirror in self._mirrors.items():
            if mirror.experiment:
                yield f"{folder.name}: {mirrored_views.address(server, mirror.experiment, mirrored_views.COMPARED)}"

    def _tell(self, line: str) -> None:
        if line not in self._told:
            print(f"tracking: {uris.without_password(line)}", file=sys.stderr, flush=True)
        self._told.add(line)


def _port(wanted: int | None) -> int:
    """The port that was asked for, or the first free one. ValueError where it is taken."""
    if wanted is not None and not 1 <= wanted <= 65535:
        raise ValueError(f"--port {wanted}: wanted 1 to 65535")
    first = wanted or PORT
    free = next((port for port in range(first, min(first + PORTS, 65536)) if _is_free(port)), None)
    if free is None or (wanted and free != wanted):
        raise ValueError(f"--port {first}: is taken; {f'{free} is free' if free else 'leave it out, or name another'}")
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just ended may be taken again
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
    return True


@contextmanager
def server(uri: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server, once it answers; ended with all that it has started, however this ends."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--allowed-hosts", f"{HOST}:{port},localhost:{port}"]
    if uri.startswith("sqlite"):
        command += ["--artifacts-destination", str(stores.database(uri).parent / "mlartifacts")]
    environment = {
        **os.environ,
        **uris.ENVIRONMENT,
        "MLFLOW_BACKEND_STORE_URI": uri,  # not on the command line, which anybody sees: it may hold a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with tempfile.TemporaryDirectory() as scratch, open(Path(scratch) / "log", "w+") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=scratch, stdout=log, stderr=log, start_new_session=True
        )  # a session of its own: Ctrl-C is for us to pass on
        try:
            _wait_for(process, port, log)
            yield process
        finally:
            _end(process)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    deadline = time.monotonic() + START_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            last = [line.strip() for line in log.read().splitlines() if line.strip()][-1:]
            ended = f"ended with {process.returncode}" if process.returncode else f"was silent for {START_S:g} s"
            raise ValueError(f"mlflow server {ended}: {''.join(last) or 'it gave no reason'}")
        time.sleep(0.2)


def _has_ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _answers(port: int) -> bool:
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{HOST}:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server and what it has started."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
            process.wait(END_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait(END_S)
