"""Files and folders that are whole or not there, private ones, and a folder's lock."""

import csv
import errno
import fcntl
import io
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

LARGEST_FILE = 2**31
"""Bytes; no cine study's file is larger."""

T = TypeVar("T")


class Locked(RuntimeError):
    """Somebody else is writing here."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a name to write to; the file appears under `path` when it is whole, on the disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_full(error: BaseException) -> bool:
    """Whether it says that the disk is full, or the user's quota used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def patiently(
    write: Callable[[], T],
    wait_s: float = 600,
    every_s: float = 5,
    told: Callable[[str], None] | None = None,
) -> T:
    """What `write` returns; while the disk is full it is called again, for at most wait_s. Others clear up meanwhile.

    told: hears once that it waits; standard error where nobody is given.
    """
    deadline, waits = time.monotonic() + wait_s, False
    while True:
        try:
            return write()
        except OSError as error:
            if not is_full(error) or time.monotonic() >= deadline:
                raise
            if not waits:
                (told or _to_stderr)(f"{error}: waiting for room, {wait_s:.0f} s at most")
            waits = True
        time.sleep(every_s)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def read(path: Path) -> bytes:
    """A regular file's bytes. OSError where it cannot be read, or is a pipe or a device, which might never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > LARGEST_FILE:
            raise OSError(errno.EFBIG, f"larger than {LARGEST_FILE // 2**30} GB", str(path))
        return file.read()


def read_text(path: Path) -> str:
    """A regular file's text; what is no UTF-8 is replaced, a byte order mark is dropped."""
    return read(path).decode("utf-8-sig", errors="replace")


def _sync_folder(folder: Path) -> None:
    """Force a folder's entries to the disk: a power cut leaves the old file or the new one."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """UTF-8; file names that are none keep their bytes. private: for the owner alone (0600), whatever the umask."""
    with atomic(path) as temporary:
        temporary.touch(0o600 if private else 0o666)
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, private: bool = False) -> None:
    """A CSV with a header; numbers are written with all their digits, None and NaN as empty fields."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    picked = ([row[column] for column in columns] for row in rows)
    writer.writerows(["" if value is None or value != value else value for value in values] for values in picked)
    write_text(path, out.getvalue(), private=private)


_folder_mode = 0o700


def keep_for(umask: str) -> None:
    """Who may read what this process makes from now on: an octal number, 077 for the owner alone, 027 for the group."""
    global _folder_mode
    os.umask(int(umask, 8))
    _folder_mode = 0o777 & ~int(umask, 8)


def make_private(folder: Path) -> Path:
    """Create a folder, and those above it that are missing, for their owner alone (or as keep_for() has said); what
    exists is left as it is."""
    for missing in [f for f in (folder, *folder.parents) if not f.exists()][::-1]:
        missing.mkdir(mode=_folder_mode, exist_ok=True)
    return folder


@contextmanager
def locked(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a folder's lock; Locked says who has it. It ends with the process, however that ends."""
    with open(folder / ".lock", "a+") as handle:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    handle.seek(0)
                    raise Locked(f"{folder} is being written by {handle.read().strip() or 'somebody'}") from None
                time.sleep(0.1)
        handle.truncate(0)
        with suppress(OSError):  # on a full disk it holds without saying who
            os.write(handle.fileno(), f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under `path` once it is whole: until then it has another name.

    FileExistsError where `path` exists or another process is making it. What a killed run left is cleared.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path}: exists already; remove it or name another")
    with partial_of(path) as partial:
        try:
            for left_over in partial.iterdir():
                remove(left_over)
            yield partial
            sync(partial)
            partial.rename(path)
        except BaseException:
            remove(partial)
            raise


@contextmanager
def partial_of(path: Path) -> Iterator[Path]:
    """The folder beside `path` in which it is made, for this process alone; what an earlier one left is in it.

    FileExistsError where another process has it; OSError where it cannot be made.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.mkdir(parents=True, mode=0o700, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not partial.exists():  # it has just become `path`
            raise BlockingIOError
        yield partial
    except BlockingIOError:
        raise FileExistsError(f"{path}: another process is writing it; wait for it or name another") from None
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """A file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Force every file to the disk, so that a power cut leaves a whole folder or none."""
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
