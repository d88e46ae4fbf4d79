"""A real Slurm cluster on this machine, for tests: made by a `with` statement, gone after it.

    with Cluster(folder, nodes=2) as cluster:
        cluster.run_client(["sbatch", "--wrap", "hostname"])

Needs root and Debian's Slurm, no systemd. Each node is a set of namespaces (network, processes, host name, IPC, mounts)
on a bridge of the cluster's own, so it has an address, a process table, /dev/shm and /tmp/ray to itself; other files
are shared, as they are on a cluster. The controller runs in this machine's network under a host name of its own.
There are no cgroups: what a job asks for is counted and not enforced. What a node sends to an address outside of the
cluster leads nowhere and is counted.

`/dev/null` stands in for GPUs, MariaDB holds the accounts. All logs lie in `folder/log`.
"""

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.slurm import claims, settings

CONTROLLER = "ctl"
FILLER = "filler"
# The daemons' own, and not the tests': a job gets the environment of whoever submits it.
DAEMON_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# slurmctld listens on the address that its host name resolves to, and srun is called back there.
AS_CONTROLLER = 'mount --bind "$1/hosts" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'

# The first process of a node. It reads a line first: the network card is put in from outside. `wait` also reaps what
# jobs leave behind. What is sent through `out` to `hole` carries the address of neither card, so the kernel drops it.
# IPv6 is off on the two: it sends of its own accord. The last words are munged, one for each node as everywhere.
AS_NODE = """
set -e
read -r _
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp/ray
mount -t tmpfs -o mode=0755 tmpfs "$1/run"
hostname "$2"
ip link set lo up
ip address add "$3/24" dev eth0
ip link set eth0 up
ip link add out arp off type veth peer name hole
for card in out hole; do
    [ ! -d /proc/sys/net/ipv6 ] || echo 1 >/proc/sys/net/ipv6/conf/$card/disable_ipv6
    ip link set $card up
done
ip route add default dev out
shift 3
"$@"
slurmd -D &
wait
"""

Answer = subprocess.CompletedProcess[str]


def checked(answer: Answer) -> Answer:
    if answer.returncode:
        command = " ".join(answer.args)
        raise RuntimeError(f"{command} ended with status {answer.returncode}: {answer.stderr or answer.stdout}")
    return answer


class Cluster:
    """munged, slurmctld and nodes n1, n2, ...; with `accounting` also mariadbd and slurmdbd."""

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        gpus: int = 2,
        cpus: int = 4,
        memory_mb: int = 4000,
        accounting: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        if len(str(self.folder)) > 80:
            raise ValueError(f"{self.folder} is too long for the sockets in it; want at most 80 characters")
        self.nodes = [f"n{index}" for index in range(1, nodes + 1)]
        self._hardware = settings.Hardware(gpus, cpus, memory_mb)
        self._accounting = accounting
        self.claim: claims.Claim | None = None  # while it is up
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Cluster":
        claims.remove_leftovers()
        self.claim = claims.Claim()
        try:
            self._up()
        except BaseException as error:
            error.add_note(self._log_tails())
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything; the logs stay."""
        for node in self.nodes:
            self.kill(node)
        if self.claim is not None:
            self.claim.release()
            self.claim = None
        for process in self._running.values():
            process.wait(timeout=30)
        self._running.clear()
        shutil.rmtree(self.folder / "mysql", ignore_errors=True)

    # What a test does with the cluster.

    def environment(self) -> dict[str, str]:
        """This process's environment for the client commands: SLURM_CONF, and nothing of a job around the tests."""
        prefixes = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_", "SCONTROL_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
        return {**kept, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def run_client(self, argv: Sequence[str], timeout_s: float = 30, check: bool = True) -> Answer:
        """sbatch, squeue, scontrol, ... on this machine; with `check` a status other than 0 is a RuntimeError.

        Clients wait for ever for a controller that is gone, hence the limit (subprocess.TimeoutExpired). srun and
        salloc must run `inside` a node or the controller: the nodes call them back by their host name.
        """
        return self._run(argv, timeout_s, check)

    def inside(self, node: str, argv: Sequence[str], timeout_s: float = 30, check: bool = True) -> Answer:
        """A command on a node, or on the controller's host ("ctl")."""
        # The limit counts inside: what nsenter starts outlives it when only nsenter is killed.
        limited = ["timeout", "--signal=KILL", str(timeout_s), *argv]
        where = self._as_controller() if node == CONTROLLER else ["nsenter", "--all", f"--target={self._init(node)}"]
        answer = self._run([*where, *limited], timeout_s + 10, check=False)
        if answer.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
            raise subprocess.TimeoutExpired(argv, timeout_s, answer.stdout, answer.stderr)
        return checked(answer) if check else answer

    def submit(self, *options: str) -> str:
        """sbatch with these options; the job's number. The output lies in `folder/jobs` unless an option moves it."""
        chdir = f"--chdir={self.folder / 'jobs'}"
        return self.run_client(["sbatch", "--parsable", chdir, *options]).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows of a job: JobState, NodeList, Restarts, ..."""
        words = self.run_client(["scontrol", "show", "job", "--oneliner", number]).stdout.splitlines()[0].split()
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def node_state(self, node: str) -> str:
        """Short, as sinfo has it: idle, mix, alloc, comp, down; with a * if it does not answer."""
        return self.run_client(["sinfo", "--noheader", f"--nodes={node}", "--format=%t"]).stdout.split()[0]

    def kill(self, node: str) -> None:
        """A power cut: every process on the node dies at once."""
        process = self._running.pop(node, None)
        if process is None:
            return
        # unshare ends after its child, and that one only when the whole process table is empty.
        for pid in self._children(process) or [process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=30)
        claims.delete_link(self._card(node))

    def boot(self, node: str) -> None:
        """Power on, until the controller takes it for usable."""
        self._power_on(node)
        self._welcome(node)

    def cut(self, node: str) -> None:
        """Pull the network cable; the node's processes live on."""
        claims.ip("link", "set", self._card(node), "down")

    def join(self, node: str) -> None:
        """Put the cable back, until the controller takes the node for usable."""
        claims.ip("link", "set", self._card(node), "up")
        self._welcome(node)

    def stop_controller(self, at_once: bool = False) -> None:
        """End slurmctld, in good order or at once (SIGKILL)."""
        process = self._running.pop("slurmctld")
        process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)
        process.wait(timeout=30)

    def start_controller(self) -> None:
        self._spawn("slurmctld", [*self._as_controller(), "slurmctld", "-D"])
        self._wait_for_answer("slurmctld", ["scontrol", "ping"])

    def restore(self) -> None:
        """Fit for the next test: no job, every node usable, every cable in, the controller running, the disk empty."""
        if self._is_off("slurmctld"):
            self.start_controller()
        self.run_client(["scancel", "--user=root"])
        for node in self.nodes:
            if self._is_off(node):
                self.kill(node)
                self._power_on(node)
            claims.ip("link", "set", self._card(node), "up")
            self._welcome(node)
        self.wait_until(lambda: not self.run_client(["squeue", "--noheader"]).stdout, 60)
        # mix: cores of jobs that ended while the controller was away count as taken for a minute more.
        self.wait_until(lambda: all(self.node_state(node) in ("idle", "mix") for node in self.nodes), 60)
        self._run(["find", str(self.disk), "-mindepth", "1", "-delete"], 30)

    def wait_until(self, predicate: Callable[[], object], timeout_s: float) -> None:
        """Ask again until it holds; TimeoutError, with queue and nodes, if it does not in time.

        A client command that fails counts as no: jobs come and go, and a controller may be starting.
        """
        deadline, failure = time.monotonic() + timeout_s, None
        while time.monotonic() < deadline:
            try:
                if predicate():
                    return
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failure = error
            time.sleep(0.2)
        raise TimeoutError(f"not within {timeout_s} s; last failure of a client: {failure}\n{self._picture()}")

    # The disk, the way out, the queue.

    @property
    def disk(self) -> Path:
        """A small file system (claims.DISK_MB) that this machine and all nodes share; `restore` empties it."""
        assert self.claim is not None
        return self.claim.disk

    def fill_disk(self) -> None:
        """Until not one byte more fits. Empty files and folders can still be made, as on many a full disk."""
        with (self.disk / FILLER).open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free_disk(self) -> None:
        """Take away what `fill_disk` has put there."""
        (self.disk / FILLER).unlink(missing_ok=True)

    def attempts(self, node: str) -> int:
        """How many packets (IPv4) the node has tried to send out of the cluster since it was booted."""
        show = ["env", f"PATH={DAEMON_PATH}", "ip", "-json", "-statistics", "link", "show", "out"]
        return int(json.loads(self.inside(node, show).stdout)[0]["stats64"]["tx"]["packets"])

    def preempt(self, node: str, partition: str = "high", hold_s: int = 600) -> str:
        """Take all of a node for so long by a job that goes first; its number, once it runs.

        Jobs of `gone` make place at once, those of the other partitions after their signal and 10 seconds.
        """
        number = self.submit("--exclusive", f"--partition={partition}", f"--nodelist={node}", f"--wrap=sleep {hold_s}")
        self.wait_until(lambda: self.job(number)["JobState"] != "PENDING", 60)
        return number

    # How it comes up.

    def _up(self) -> None:
        assert self.claim is not None
        for name in ("log", "run", "spool", "state", "dev", "jobs"):
            (self.folder / name).mkdir(parents=True)
        os.makedirs("/tmp/ray", exist_ok=True)
        os.chmod("/tmp/ray", 0o1777)
        settings.write(self.folder, self.claim.network, self.nodes, self._hardware, self._accounting)
        for index in range(self._hardware.gpus):
            # A plain file would do for counting, but slurmd sets CUDA_VISIBLE_DEVICES for device nodes alone.
            os.mknod(self.folder / "dev" / f"gpu{index}", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        self._start_munge()
        if self._accounting:
            self._start_accounting()
        self.start_controller()
        for node in self.nodes:
            self._power_on(node)
        self.wait_until(lambda: all(self.node_state(node) == "idle" for node in self.nodes), 60)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        # As the controller: a munged vouches for the address that its host's name has when it starts.
        self._spawn("munged", [*self._as_controller(), *self._munged(CONTROLLER), "--foreground"])
        self._wait_for_answer("munged", ["munge", "--no-input", f"--socket={self.folder / 'run' / 'munge'}"])

    def _munged(self, host: str) -> list[str]:
        run = self.folder / "run"
        files = {"socket": run / "munge", "pid-file": run / "munged.pid", "seed-file": run / "seed"}
        files |= {"key-file": self.folder / "munge.key", "log-file": self.folder / "log" / f"munged-{host}.log"}
        # --force: a folder of pytest's under /tmp is not where munge wants its socket.
        return ["munged", "--force", *(f"--{name}={path}" for name, path in files.items())]

    def _start_accounting(self) -> None:
        data, sock = self.folder / "mysql", self.folder / "run" / "mysql"
        start = ["--no-defaults", "--user=root", f"--datadir={data}"]
        self._run(["mariadb-install-db", *start, "--skip-test-db", "--auth-root-authentication-method=socket"], 120)
        small = ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"]
        pid_file = f"--pid-file={self.folder / 'run' / 'mysql.pid'}"
        self._spawn("mariadbd", ["mariadbd", *start, "--skip-networking", f"--socket={sock}", pid_file, *small])
        sql = "create database if not exists slurm"
        self._wait_for_answer("mariadbd", ["mariadb", "--no-defaults", f"--socket={sock}", f"--execute={sql}"])
        self._spawn("slurmdbd", [*self._as_controller(), "slurmdbd", "-D"], MYSQL_UNIX_PORT=str(sock))
        self._wait_for_answer("slurmdbd", ["sacctmgr", "--immediate", "add", "cluster", settings.NAME])

    def _power_on(self, node: str) -> None:
        assert self.claim is not None
        address = self.claim.address(settings.host_number(node))
        namespaces = ["--net", "--pid", "--uts", "--ipc", "--mount", "--mount-proc", "--fork", "--kill-child"]
        script = ["sh", "-c", AS_NODE, "node", str(self.folder), node, address, *self._munged(node)]
        process = self._spawn(node, ["unshare", *namespaces, *script], stdin=subprocess.PIPE)
        # unshare's child exists once the namespaces do.
        self.wait_until(lambda: self._children(process), 10)
        card = ["link", "add", self._card(node), "master", self.claim.bridge, "type", "veth"]
        claims.ip(*card, "peer", "name", "eth0", "netns", str(self._first_child(process)))
        claims.ip("link", "set", self._card(node), "up")
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()

    def _spawn(
        self, name: str, argv: Sequence[str], stdin: int = subprocess.DEVNULL, **environment: str
    ) -> subprocess.Popen[bytes]:
        assert self.claim is not None
        conf = {"PATH": DAEMON_PATH, "LANG": "C.UTF-8", "SLURM_CONF": str(self.folder / "slurm.conf")}
        environment = {**conf, **self.claim.marker, **environment}
        # A session of its own: Ctrl-C is for pytest, which then takes the cluster down.
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                argv, stdin=stdin, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )
        self._running[name] = process
        return process

    def _wait_for_answer(self, daemon: str, argv: Sequence[str]) -> None:
        def answers() -> bool:
            if self._running[daemon].poll() is not None:
                raise ChildProcessError(f"{daemon} ended with status {self._running[daemon].returncode}")
            self._run(argv, 10)
            return True

        self.wait_until(answers, 60)

    # Small things.

    def _run(self, argv: Sequence[str], timeout_s: float, check: bool = True) -> Answer:
        answer = subprocess.run(
            argv, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
        return checked(answer) if check else answer

    def _as_controller(self) -> list[str]:
        return ["unshare", "--mount", "--uts", "sh", "-c", AS_CONTROLLER, "ctl", str(self.folder), CONTROLLER]

    def _card(self, node: str) -> str:
        """This machine's end of the node's network cable."""
        assert self.claim is not None
        return f"{self.claim.bridge}{node}"

    def _init(self, node: str) -> int:
        if node not in self._running:
            raise ValueError(f"node {node} is not running; running: {', '.join(sorted(self._running))}")
        return self._first_child(self._running[node])

    def _children(self, process: subprocess.Popen[bytes]) -> list[int]:
        with suppress(OSError):
            return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        return []

    def _first_child(self, process: subprocess.Popen[bytes]) -> int:
        return self._children(process)[0]

    def _welcome(self, node: str) -> None:
        """Wait until the controller takes the node for usable."""
        # It looks at lost nodes every half a minute, unless told to. It refuses where there is nothing to resume.
        self.run_client(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
        self.wait_until(lambda: self.node_state(node) in ("idle", "mix", "alloc", "comp"), 60)

    def _is_off(self, name: str) -> bool:
        return name not in self._running or self._running[name].poll() is not None

    def _picture(self) -> str:
        """Queue and nodes, if the controller still answers."""
        with suppress(subprocess.TimeoutExpired):
            queries = (["squeue", "--all"], ["sinfo", "--Node", "--long"])
            return "".join(self._run(query, 5, check=False).stdout for query in queries)
        return "the controller does not answer"

    def _log_tails(self) -> str:
        logs = sorted((self.folder / "log").glob("*"))
        return "\n".join(f"{log.name}: ...{log.read_text(errors='replace')[-600:]}" for log in logs)
