"""What a cluster takes of the machine: a number; by it a bridge, a subnet, a small disk and a mark on its processes.

The number is held by a socket that the kernel closes with the process that opened it. A bridge, a disk or a marked
process whose number nobody holds was left by a test that was killed, and may be removed; nothing else ever is.
"""

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

MARK = "BRANCHPOINT_TEST_CLUSTER"
NUMBERS = range(1, 255)
DISK_MB = 48


class Claim:
    """The lowest free number, bridge up, disk mounted; `release` kills what carries the mark and removes the two."""

    def __init__(self) -> None:
        held = next(((number, lock) for number in NUMBERS if (lock := hold(number))), None)
        if held is None:
            raise RuntimeError(f"{len(NUMBERS)} test clusters hold all numbers already")
        self.number, self._lock = held
        self.bridge, self.disk = bridge(self.number), disk(self.number)
        # 198.18.0.0/15 is set aside for tests of networks: no real one is hidden by it.
        self.network = f"198.18.{self.number}"
        self.marker = {MARK: str(self.number)}
        try:
            remove(self.number)
            ip("link", "add", self.bridge, "type", "bridge")
            ip("address", "add", f"{self.address(1)}/24", "dev", self.bridge)
            ip("link", "set", self.bridge, "up")
            mount(self.disk, self.bridge)
        except BaseException:
            self.release()
            raise

    def address(self, host: int) -> str:
        return f"{self.network}.{host}"

    def release(self) -> None:
        try:
            remove(self.number)
        finally:
            self._lock.close()


def remove_leftovers() -> None:
    """What clusters left whose test process is dead."""
    links = [re.fullmatch(bridge(r"(\d+)"), name) for _, name in socket.if_nameindex()]
    for number in {int(link[1]) for link in links if link} | set(marked()):
        lock = hold(number)
        if lock is not None:
            with lock:
                remove(number)


def hold(number: int) -> socket.socket | None:
    """A lock without a file, and as far as bridges reach: names like this one belong to the network namespace."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0branchpoint-slurm-{number}")
    except OSError:
        lock.close()
        return None
    return lock


def remove(number: int) -> None:
    deadline = time.monotonic() + 30
    while pids := marked().get(number):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {pids} of the test cluster do not die")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    unmount(disk(number))
    # The links are the last to go: by them leftovers are found.
    for _, name in socket.if_nameindex():
        if re.fullmatch(bridge(number) + r"(n\d+)?", name):
            delete_link(name)


def marked() -> dict[int, list[int]]:
    """Living processes that carry a cluster's mark, by its number. A zombie's environment reads as empty."""
    found: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mark = re.search(rb"(?:^|\0)%s=(\d+)\0" % MARK.encode(), (folder / "environ").read_bytes())
            if mark and int(folder.name) != os.getpid():
                found.setdefault(int(mark[1]), []).append(int(folder.name))
    return found


def bridge(number: int | str) -> str:
    return f"bpslurm{number}"


def disk(number: int) -> Path:
    """Not in a folder of pytest's, which pytest may want to empty before leftovers are removed."""
    return Path("/run") / bridge(number)


def mount(folder: Path, name: str) -> None:
    folder.mkdir(mode=0o700)
    command("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", name, str(folder))


def unmount(folder: Path) -> None:
    """Remove a disk and its folder, if there is one; who still has a file open there keeps that."""
    while folder.is_mount():
        command("umount", "--lazy", str(folder))
    with suppress(FileNotFoundError):
        folder.rmdir()


def delete_link(name: str) -> None:
    """Remove a network card; one that went with its namespace is no error."""
    with suppress(RuntimeError):
        ip("link", "delete", name)


def ip(*words: str) -> None:
    command("ip", *words)


def command(*argv: str) -> None:
    path = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=path)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
