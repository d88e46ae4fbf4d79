"""What happens to a cluster happens to a sweep: it ends with the numbers of an undisturbed one."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.sweeping import JOBS, Numbers, Sweep
from tests.slurm.testbed import Cluster

pytestmark = pytest.mark.timeout(600)  # two cores train what a cluster would
TWO_NODES = ("site.nodes=2", "train.epochs=4")


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path, restored: None) -> Iterator[Sweep]:
    """Its driver in the foreground."""
    made = Sweep(cluster, tmp_path / "runs", *JOBS, "driver=here")
    yield made
    made.end()


def processes_of(cluster: Cluster, node: str, job: str) -> list[int]:
    """The ranks of a job on a node, by this machine's process numbers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes().split(b"\0")
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        mine = {f"SLURM_JOB_ID={job}".encode(), f"SLURMD_NODENAME={node}".encode()} <= set(environment)
        if mine and b"submitit.core._submit" in command and b"srun" not in command:
            found.append(int(path.parent.name))
    return found


def test_preempted_with_the_signal_and_without(sweep: Sweep, cluster: Cluster, undisturbed: Numbers) -> None:
    """Two sweeps side by side: in `main` jobs get the user signal and ten seconds, in `gone` nothing."""
    warned = sweep
    warned.settings = (*warned.settings, "site.partition=main")
    unwarned = Sweep(cluster, warned.runs.with_name("unwarned"), *JOBS, "driver=here", "site.partition=gone")
    try:
        warned.start()
        unwarned.start()
        warned.until_epoch(1)
        unwarned.until_epoch(1)
        for node in {warned.node_of(0), unwarned.node_of(0)}:
            cluster.preempt(node, hold_s=1)
        assert unwarned.wait(240) == 0, unwarned.log.read_text()
        assert warned.wait(240) == 0, warned.log.read_text()
    finally:
        unwarned.end()
    assert warned.numbers() == unwarned.numbers() == undisturbed
    for one in (warned, unwarned):
        again = [int(cluster.job(job)["Restarts"]) for job in one.ids().values()]
        assert any(again) or any(entry for entry in one.past().values()), "nobody was preempted"


def test_one_of_two_ranks_killed_and_a_cable_cut(sweep: Sweep, cluster: Cluster) -> None:
    """Folds of two nodes. The undisturbed one is a sweep of two nodes, too: other ranks round otherwise."""
    sweep.settings = (*sweep.settings, *TWO_NODES)
    alone = Sweep(cluster, sweep.runs.with_name("alone"), *sweep.settings)
    assert alone.start().wait(240) == 0, alone.log.read_text()
    sweep.start().until_epoch(1)
    job = sweep.ids()[0]
    _, second = cluster.run_client(["scontrol", "show", "hostnames", cluster.job(job)["NodeList"]]).stdout.split()
    sweep.until(lambda: processes_of(cluster, second, cluster.job(job)["JobId"]))
    for process in processes_of(cluster, second, cluster.job(job)["JobId"])[-1:]:
        os.kill(process, signal.SIGKILL)
    sweep.until(lambda: sweep.ids()[0] != job)  # the broker has queued it again
    cluster.cut("n3")
    assert sweep.wait(240) == 0, sweep.log.read_text()
    assert sweep.numbers() == alone.numbers()
    assert sweep.past()[0] == [f"{job} FAILED"]


def test_a_disk_that_is_full_for_a_moment(sweep: Sweep, cluster: Cluster, undisturbed: Numbers) -> None:
    on_disk = Sweep(cluster, cluster.disk / "runs", *sweep.settings)
    try:
        on_disk.start().until_epoch(1)
        cluster.fill_disk()
        so_far = [len(fold.epochs()) for fold in on_disk.folds]
        time.sleep(15)
        assert max(len(f.epochs()) - n for f, n in zip(on_disk.folds, so_far, strict=False)) <= 1
        cluster.free_disk()
        assert on_disk.wait(240) == 0, on_disk.log.read_text()
        assert on_disk.numbers() == undisturbed
    finally:
        on_disk.end()


def test_folds_that_share_a_job_die_alone(sweep: Sweep, cluster: Cluster, undisturbed: Numbers) -> None:
    """Two folds on each (made-up) GPU. One is killed: the other goes on, and the killed one is queued again."""
    gpu = ("site.gpus_per_node=1", "site.folds_per_gpu=2", "site.mem_gb=2")
    sweep.settings = tuple(s for s in sweep.settings if not s.startswith(("site.gpus", "site.mem"))) + gpu
    sweep.start().until_epoch(1)
    job = sweep.ids()[0]
    assert job == sweep.ids()[1] != sweep.ids()[2]
    victim = next(
        process
        for process in processes_of(cluster, sweep.node_of(0), cluster.job(job)["JobId"])
        if b"SLURM_PROCID=1" in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    )
    os.kill(victim, signal.SIGKILL)
    assert sweep.wait(240) == 0, sweep.log.read_text()
    assert sweep.numbers() == undisturbed
    assert sweep.ids()[0] == job != sweep.ids()[1]
    assert sweep.past()[1] == [f"{job} FAILED"]


def test_without_a_driver_all_is_queued_at_once_and_the_last_job_prints_the_table(
    cluster: Cluster, tmp_path: Path, restored: None, undisturbed: Numbers
) -> None:
    """The partition takes jobs from the controller's host alone, which is found out; the canary goes first."""
    sweep = Sweep(cluster, tmp_path / "runs", *JOBS, "site.partition=closed", "site.canary=true")
    queued = sweep.run()
    assert queued.returncode == 0, queued.stderr
    assert "the partition takes jobs from ctl alone: driver=none" in queued.stdout
    assert "1 arrays queued" in queued.stdout
    assert "(Dependency)" in sweep.status()
    before = sweep.ids()
    again = sweep.run()
    assert again.returncode == 0, again.stderr
    assert sweep.ids() == before  # none was queued twice
    sweep.finishes()
    assert sweep.numbers() == undisturbed


def test_a_whole_node_trains_all_folds_in_one_job_and_ends_in_order(
    cluster: Cluster, tmp_path: Path, restored: None, undisturbed: Numbers
) -> None:
    """Cancelled in the middle; near its end it queues itself again."""
    jobs = [setting for setting in JOBS if not setting.startswith("site=")]
    sweep = Sweep(cluster, tmp_path / "runs", "site=node", *jobs, "site.slots=2")
    queued = sweep.run()
    assert queued.returncode == 0, queued.stderr
    sweep.log = sweep.folder / "driver.log"
    sweep.until_epoch(1)
    job = queued.stdout.split("driver: job ")[1].split()[0]
    node = cluster.job(job)["NodeList"]
    assert "site=node" not in cluster.run_client(["squeue", "--noheader"]).stdout
    assert cluster.job(job)["NumCPUs"] == "4"  # all of it
    ended = sweep.run_module("cluster.cancel", str(sweep.folder))
    assert f"1 jobs ended: {job}" in ended.stdout
    cluster.wait_until(lambda: cluster.job(job)["JobState"] == "CANCELLED", 60)
    cluster.wait_until(lambda: cluster.inside(node, ["pgrep", "raylet"], check=False).returncode == 1, 30)
    again = sweep.run()
    job = again.stdout.split("driver: job ")[1].split()[0]
    sweep.until(lambda: cluster.job(job)["JobState"] == "RUNNING")
    sweep.until(lambda: sweep.log.read_text().count("this sweep will take") == 2)
    cluster.run_client(["scancel", "--batch", "--signal=USR2", job])  # as near the time limit
    sweep.finishes()
    assert "near its time limit, queued again" in sweep.log.read_text()
    assert sweep.numbers() == undisturbed


def test_the_canary_says_before_anything_is_queued_what_nodes_cannot_see(
    cluster: Cluster, tmp_path: Path, restored: None
) -> None:
    """Each node has a /dev/shm of its own."""
    sweep = Sweep(cluster, tmp_path / "runs", *JOBS, "driver=here", "site.canary=true")
    hidden = Path(f"/dev/shm/{tmp_path.name}-{os.getpid()}")
    try:
        done = sweep.run(f"demo.folder={hidden}")
    finally:
        subprocess.run(["rm", "-rf", str(hidden)], check=True)
    assert done.returncode == 2
    assert done.stderr.startswith("launch: canary on n")
    assert "as seen from node n" in done.stderr
    assert "no such folder" in done.stderr
    assert done.stderr.count("\n") == 1
    assert cluster.run_client(["squeue", "--noheader"]).stdout == ""
    assert not (sweep.folder / "jobs.json").exists()
    assert "canary on n" in sweep.status()
