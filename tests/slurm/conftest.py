"""One real Slurm cluster for all tests of this folder."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.slurm.sweeping import Numbers, Sweep
from tests.slurm.testbed import DAEMON_PATH, Cluster

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "mariadbd", "munged", "sbatch", "sacct", "ip", "unshare", "nsenter")


def obstacle() -> str | None:
    """Why this machine can have no cluster."""
    if sys.platform != "linux":
        return "a Slurm cluster for tests needs Linux"
    if os.geteuid() != 0:
        return "a Slurm cluster for tests needs root"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=DAEMON_PATH)]
    if missing:
        return f"a Slurm cluster for tests needs {', '.join(missing)}; .ci/run installs the packages on Debian"
    probe = subprocess.run(["unshare", "--net", "--pid", "--mount", "--fork", "true"], capture_output=True, timeout=30)
    return f"no namespaces here: {probe.stderr.decode().strip()}" if probe.returncode else None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes with two fake GPUs each, and accounting. BRANCHPOINT_SLURM=required: to have none is a failure."""
    reason = obstacle()
    if reason:
        (pytest.fail if os.environ.get("BRANCHPOINT_SLURM") == "required" else pytest.skip)(reason)
    with Cluster(tmp_path_factory.mktemp("slurm"), accounting=True) as cluster:
        yield cluster


@pytest.fixture
def restored(cluster: Cluster) -> Iterator[None]:
    """After the test the cluster is as new: no jobs, all nodes up."""
    yield
    cluster.restore()


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster) -> Numbers:
    """Of the tests' sweep on this machine, without Slurm."""
    local = Sweep(cluster, cluster.folder / "local", "site=local", "yes=true")
    done = local.run()
    assert done.returncode == 0, done.stderr
    return local.numbers()
