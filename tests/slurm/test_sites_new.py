"""A site file that a real Slurm was asked for: it takes what the file says."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.site import Site
from tests.slurm.testbed import Cluster

ROOT = Path(__file__).resolve().parents[2]
SACCTMGR = ["sacctmgr", "--immediate"]


@pytest.fixture
def accounts(cluster: Cluster) -> Iterator[None]:
    """A second account of this user's, with a qos of its own, while the test lasts."""

    def change(*words: str) -> None:
        cluster.run_client([*SACCTMGR, *words])

    change("add", "account", "heart")
    change("add", "qos", "slow")
    change("add", "user", "root", "account=heart")
    change("modify", "user", "root", "where", "account=heart", "set", "qos=normal,slow", "defaultqos=slow")
    change("modify", "user", "root", "set", "defaultaccount=heart")
    yield
    change("modify", "user", "root", "set", "defaultaccount=root")
    # Refused while the account has a job; that the last one ended, the accounting hears later than the queue.
    cluster.wait_until(lambda: cluster.run_client([*SACCTMGR, "delete", "user", "root", "account=heart"]), 60)
    change("delete", "account", "heart")
    change("delete", "qos", "slow")


def new(cluster: Cluster, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**cluster.environment(), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "cluster.sites", "new"]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=90, check=False)


def written(cluster: Cluster, folder: Path) -> tuple[str, dict[str, Any]]:
    """The file's text and its settings."""
    done = new(cluster, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "site=my-site.yaml plan=true" in done.stdout
    text = (folder / "my-site.yaml").read_text()
    return text, yaml.safe_load(text)


def of_a_fold(made: dict[str, Any]) -> list[str]:
    """sbatch's options for a fold's job."""
    site = Site(**made)
    gpus = [f"--gpus-per-node={site.gpus_per_node}"] if site.gpus_per_node else []
    named = [f"--{key}={made[key]}" for key in ("partition", "account", "qos") if key in made]
    cores, memory = f"--cpus-per-task={site.cpus_per_rank}", f"--mem={round(site.mem_gb * 1024)}MB"
    return [*named, "--nodes=1", "--ntasks-per-node=1", *gpus, cores, memory, f"--time={site.time_min}"]


def of_the_driver(made: dict[str, Any]) -> list[str]:
    site = Site(**made)
    named = [f"--{key}={made[key]}" for key in ("partition", "account", "qos") if key in made]
    memory = f"--mem={round(site.driver_mem_gb * 1024)}MB"
    return [*named, "--nodes=1", "--ntasks=1", "--cpus-per-task=2", memory, f"--time={site.driver_time_min}"]


def test_the_file_fits_this_cluster(cluster: Cluster, tmp_path: Path) -> None:
    text, made = written(cluster, tmp_path)
    assert made == {
        "kind": "slurm", "partition": "main", "gpus_per_node": 1, "cpus_per_rank": 2, "mem_gb": 1.7, "time_min": 240,
        "driver_time_min": 1440, "driver_mem_gb": 3.5,
    }  # fmt: skip
    assert "# main (the cluster's default): at most 1440 min; 3 nodes of 4 cores, 3.9 GB, 2 GPUs\n" in text
    assert "#   short: at most 2 min; 3 nodes of 4 cores, 3.9 GB, 2 GPUs\n" in text
    assert "\n# account: root\n" in text
    again = new(cluster, tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("sites: my-site.yaml exists")
    assert (tmp_path / "my-site.yaml").read_text() == text


@pytest.mark.usefixtures("restored")
def test_every_gpu_of_the_cluster_gets_a_fold_at_the_same_time(cluster: Cluster, tmp_path: Path) -> None:
    _, made = written(cluster, tmp_path)
    jobs = [cluster.submit(*of_a_fold(made), "--wrap", "sleep 600") for _ in range(6)]
    cluster.wait_until(lambda: [cluster.job(job)["JobState"] for job in jobs] == ["RUNNING"] * 6, 60)
    assert len({cluster.job(job)["NodeList"] for job in jobs}) == 3


@pytest.mark.usefixtures("restored")
def test_the_drivers_job_runs(cluster: Cluster, tmp_path: Path) -> None:
    _, made = written(cluster, tmp_path)
    job = cluster.submit(*of_the_driver(made), "--wrap", "true")
    cluster.wait_until(lambda: cluster.job(job)["JobState"] == "COMPLETED", 60)


@pytest.mark.usefixtures("accounts", "restored")  # in this order: what is left of the jobs ends before the account
def test_a_default_account_with_its_qos_is_named_and_taken(cluster: Cluster, tmp_path: Path) -> None:
    text, made = written(cluster, tmp_path)
    assert (made["account"], made["qos"]) == ("heart", "slow")
    assert "# your default account; others: root\n" in text
    assert "# the default of this account; others: normal\n" in text
    job = cluster.job(cluster.submit(*of_a_fold(made), "--wrap", "true"))
    assert (job["Account"], job["QOS"], job["Partition"]) == ("heart", "slow", "main")


@pytest.mark.usefixtures("restored")
def test_nodes_that_are_away_are_counted_as_such(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run_client(["scontrol", "update", "nodename=n2", "state=drain", "reason=test"])
    text, made = written(cluster, tmp_path)
    assert "# main (the cluster's default): at most 1440 min; 3 nodes (1 not usable now) of 4 cores, " in text
    assert made["partition"] == "main"


def test_nodes_that_differ_are_told_apart_by_their_features(cluster: Cluster, tmp_path: Path) -> None:
    change = ["scontrol", "update", "nodename=n3"]
    cluster.run_client([*change, "availablefeatures=big,new", "activefeatures=new"])
    try:
        text, made = written(cluster, tmp_path)
        taken = cluster.run_client(["sbatch", "--test-only", *of_a_fold(made), "--constraint=new", "--wrap", "true"])
    finally:
        cluster.run_client([*change, "availablefeatures=", "activefeatures="])
    assert "# in main: big (1 node), new (1 node)\n# constraint: big\n" in text
    assert "3 nodes of 4 cores" in text  # of both lines together
    assert " n3" in taken.stderr


@pytest.mark.usefixtures("restored")
def test_a_partition_that_is_down_is_not_taken(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run_client(["scontrol", "update", "partitionname=main", "state=down"])
    try:
        text, made = written(cluster, tmp_path)
    finally:
        cluster.run_client(["scontrol", "update", "partitionname=main", "state=up"])
    assert made["partition"] == "high"
    assert "#   main (the cluster's default, down): " in text


@pytest.mark.usefixtures("restored")
def test_a_controller_that_is_away_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    cluster.stop_controller()
    done = new(cluster, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sites: sinfo: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_gpus_and_accounting_a_fold_still_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Cluster(tmp_path_factory.mktemp("plain"), nodes=1, gpus=0) as plain:
        folder = tmp_path_factory.mktemp("home")
        text, made = written(plain, folder)
        assert (made["gpus_per_node"], made["ranks_per_node"], made["cpus_per_rank"], made["mem_gb"]) == (0, 1, 4, 3.5)
        assert "# not known, and left to Slurm: sacctmgr: Only 'accounting_storage/slurmdbd' is supported.\n" in text
        for options in (of_a_fold(made), of_the_driver(made)):
            job = plain.submit(*options, "--wrap", "true")
            plain.wait_until(lambda job=job: plain.job(job)["JobState"] == "COMPLETED", 60)
