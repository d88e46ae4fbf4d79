"""The launcher in the tests' own process, on a Ray that stays: what a launch costs before its first fold is paid once.

For what a launch does in between; how it begins, ends and is killed is tested on the command itself (test_launch.py).
"""

import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import executors, launch
from data_prep.files import make_private

Launch = Callable[..., subprocess.CompletedProcess[str]]
"""(folder, *settings) -> its exit status and what it said"""


@contextlib.contextmanager
def launches(settings: Callable[..., list[str]]) -> Iterator[Launch]:
    """settings: of what a test adds, the launcher's whole command line."""
    environment, umask = dict(os.environ), os.umask(0o077)
    terminated = signal.getsignal(signal.SIGTERM)
    with executors.local_ray() as scratch, pytest.MonkeyPatch.context() as patched:
        count = itertools.count()

        @contextlib.contextmanager
        def the_same(bounded: bool = False) -> Iterator[Path]:
            yield make_private(scratch / f"launch-{next(count)}")

        patched.setattr(executors, "local_ray", the_same)

        def launched(folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
            said, wrong = io.StringIO(), io.StringIO()
            with pytest.MonkeyPatch.context() as here:
                here.chdir(folder)
                here.setattr(sys, "argv", ["launch.py", *settings(*extra)])
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
                    try:
                        status = launch.main()
                    except SystemExit as ended:
                        status = int(ended.code or 0)
            return subprocess.CompletedProcess(sys.argv, status, said.getvalue(), wrong.getvalue())

        try:
            yield launched
        finally:
            signal.signal(signal.SIGTERM, terminated)
    os.umask(umask)
    os.environ.clear()
    os.environ |= environment
