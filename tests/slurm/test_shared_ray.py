"""site=ray: the same tasks on a Ray cluster that somebody else runs. Here it has two nodes, on this machine."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.executors import ENVIRONMENT
from mtl.runfolder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
RAY = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
QUIET = ["--include-dashboard=false", "--disable-usage-stats"]


class Shared:
    """A head and a worker node, with a token."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        self.environment = kept | ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": "1"}
        small = [f"--object-store-memory={80 * 2**20}", f"--memory={2**30}"]
        port = self.address.rpartition(":")[2]
        self.nodes = [self._start(*RAY, "--head", f"--port={port}", f"--temp-dir={folder / 'r'}", *QUIET, *small)]
        self._until_it_answers()
        self.nodes.append(self._start(*RAY, f"--address={self.address}", *small))

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def _until_it_answers(self) -> None:
        host, _, port = self.address.partition(":")
        for _ in range(300):
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("no Ray head within 30 s")

    def end(self) -> None:
        """`ray stop` would end every Ray of this machine."""
        for node in self.nodes:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait(timeout=30)


@pytest.fixture
def shared() -> Iterator[Shared]:
    with tempfile.TemporaryDirectory(prefix="bpr", dir="/tmp") as folder:  # short: Ray's sockets lie in it
        made = Shared(Path(folder))
        yield made
        made.end()


def launch(shared: Shared, tmp_path: Path, store: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = [
        "sweep=branch_location", "model.branch=up3", "model.width=2", "train.epochs=2", "profile=demo", "train.folds=3",
        "train.device=cpu", f"data.store={store}", f"runs={tmp_path / 'runs'}", "site=ray", "yes=true", *more,
    ]  # fmt: skip
    return subprocess.run(
        [sys.executable, str(ROOT / "cluster" / "launch.py"), *words],
        env=shared.environment, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_a_sweep_on_two_nodes_of_somebody_elses_and_nobody_without_the_token(
    shared: Shared, tmp_path: Path, store_path: Path
) -> None:
    done = launch(shared, tmp_path, store_path, f"ray.address={shared.address}")
    assert done.returncode == 0, done.stdout + done.stderr
    folds = [RunFolder(path) for path in sorted(tmp_path.glob("runs/branch_location/branch-*/fold_*"))]
    assert [fold.outcome() for fold in folds] == ["DONE"] * 3
    assert not (tmp_path / "runs" / "branch_location" / "tune").exists()
    wrong = tmp_path / "wrong"
    wrong.write_text(secrets.token_hex(32))
    shared.environment["RAY_AUTH_TOKEN_PATH"] = str(wrong)
    refused = launch(shared, tmp_path, store_path, f"ray.address={shared.address}", "model.branch=up2")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"launch: ray.address={shared.address}: no Ray cluster can be joined there")
    assert refused.stderr.count("\n") == 1
