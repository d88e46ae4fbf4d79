"""`python -m cluster.tracking serve RUNS` in a process of its own, from its first word to its end."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType

MARK = "BRANCHPOINT_SERVED"
"""In the environment of what is started here: by it all that stems from it is found again."""
START_S, END_S = 240.0, 30.0


class Served:
    """The mirror of `runs` and MLflow's UI on it. As a user has it: nothing that pytest sets is handed on."""

    def __init__(self, runs: Path, folder: Path) -> None:
        """folder: for what it prints, and instead of the user's own folder for data."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        self._runs = runs
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        self._environment |= {"XDG_DATA_HOME": str(folder), MARK: self._mark.partition("=")[2]}

    def __enter__(self) -> "Served":
        command = [sys.executable, "-m", "cluster.tracking", "serve", str(self._runs), "--port", str(self.port)]
        if tied := shutil.which("setpriv"):  # Linux: it ends with the tests, even where these are killed
            command = [tied, "--pdeathsig", "TERM", *command]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's & ignores it
            )
        try:
            self._wait()
        except BaseException:
            self._kill()
            raise
        return self

    def _wait(self) -> None:
        """Until it says where to look."""
        deadline = time.monotonic() + START_S
        while not re.search(rf"{self.address}\b", self.log.read_text()):
            assert self._process.poll() is None, f"serve has ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"serve is silent:\n{self.log.read_text()}"
            time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As Ctrl-C does; all that it has started ends with it."""
        try:
            self._process.send_signal(signal.SIGINT)
            status = self._process.wait(END_S)
            left = self.processes()
            if error is None:
                assert (status, left) == (130, []), self.log.read_text()
        finally:
            self._kill()

    def processes(self) -> list[int]:
        """What runs of it. Linux only: elsewhere none is found."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self._mark.encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:  # it has ended meanwhile, or is another user's
                continue
        return found

    def _kill(self) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(END_S)
