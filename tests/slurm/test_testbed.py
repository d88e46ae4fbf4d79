"""The tests' own Slurm cluster does what a cluster does, its failures included."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm import claims
from tests.slurm.testbed import Cluster

pytestmark = pytest.mark.usefixtures("restored")

ROOT = Path(__file__).resolve().parents[2]

# Two processes on two nodes: 1 + 2.
ALL_REDUCE = """
import os
import torch
import torch.distributed as group

rank, size = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
group.init_process_group("gloo", rank=rank, world_size=size)
value = torch.tensor([rank + 1.0])
group.all_reduce(value)
print(f"rank {rank} of {size} on {os.uname().nodename}: {value.item()}", flush=True)
group.destroy_process_group()
"""

# It would say so if it got the signal that it asks for.
WARNED = ["--signal=B:USR1@60", "--time=30", "--open-mode=append"]
WARNED += ["--wrap", "trap 'echo warned' USR1; echo ready; while :; do sleep 0.2; done"]

LEFT_BEHIND = """
import sys, time
from pathlib import Path
from tests.slurm.testbed import Cluster

with Cluster(Path(sys.argv[1]), nodes=1, gpus=0) as cluster:
    cluster.submit("--wrap", "sleep 600")
    print(cluster.claim.number, flush=True)
    time.sleep(600)
"""


def finished(cluster: Cluster, *options: str, timeout_s: float = 60) -> str:
    """What a job that ends well has written."""
    number = cluster.submit(*options)
    cluster.wait_until(lambda: cluster.job(number)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), timeout_s)
    output = (cluster.folder / "jobs" / f"slurm-{number}.out").read_text()
    assert cluster.job(number)["JobState"] == "COMPLETED", output
    return output


def running(cluster: Cluster, number: str, restarts: int = 0) -> bool:
    job = cluster.job(number)
    return job["JobState"] == "RUNNING" and int(job["Restarts"]) >= restarts


def started(cluster: Cluster, *options: str) -> tuple[str, list[str]]:
    """A job that runs for as long as the test does, and its nodes."""
    number = cluster.submit("--wrap", "sleep 600", *options)
    cluster.wait_until(lambda: running(cluster, number), 30)
    return number, nodes_of(cluster, number)


def nodes_of(cluster: Cluster, number: str) -> list[str]:
    return cluster.run_client(["scontrol", "show", "hostnames", cluster.job(number)["NodeList"]]).stdout.split()


def test_a_job_runs_on_a_node_with_this_environment(cluster: Cluster) -> None:
    output = finished(cluster, "--wrap", f"hostname; {sys.executable} -c 'import data_prep, numpy; print(numpy.pi)'")
    node, number = output.split()
    assert node in cluster.nodes
    assert number.startswith("3.14")


def test_an_array_runs_as_many_at_once_as_it_may(cluster: Cluster) -> None:
    moments = "echo start; date +%s.%N; sleep 1.5; date +%s.%N"
    number = cluster.submit("--array=0-3%2", "--output=throttled-%a.out", "--wrap", moments)
    cluster.wait_until(lambda: not cluster.run_client(["squeue", "--noheader", "--jobs", number]).stdout, 60)
    texts = [(cluster.folder / "jobs" / f"throttled-{index}.out").read_text() for index in range(4)]
    spans = [tuple(float(word) for word in text.split()[1:]) for text in texts]
    for begin, _ in spans:
        assert sum(other <= begin < end for other, end in spans) <= 2


def test_a_job_sees_the_gpu_that_it_asked_for(cluster: Cluster) -> None:
    show = 'echo "[$CUDA_VISIBLE_DEVICES]"'
    assert finished(cluster, "--gres=gpu:1", "--wrap", show).strip() in ("[0]", "[1]")
    assert finished(cluster, "--gres=gpu:2", "--wrap", show).strip() == "[0,1]"
    assert finished(cluster, "--wrap", show).strip() == "[]"


def test_srun_starts_on_both_nodes_of_a_job(cluster: Cluster) -> None:
    names = finished(cluster, "--nodes=2", "--ntasks-per-node=1", "--wrap", "srun hostname").split()
    assert len(set(names)) == 2
    assert set(names) <= set(cluster.nodes)


def test_srun_starts_from_the_controller(cluster: Cluster) -> None:
    names = cluster.inside("ctl", ["srun", "--nodes=3", "hostname"]).stdout.split()
    assert sorted(names) == cluster.nodes


def test_each_node_has_processes_and_shared_memory_of_its_own(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert cluster.inside(node, ["sh", "-c", "touch /dev/shm/$(hostname) && ls /dev/shm"]).stdout.split() == [node]
    with pytest.raises(subprocess.TimeoutExpired):
        cluster.inside("n1", ["sleep", "60"], timeout_s=1)
    assert "sleep" not in cluster.inside("n1", ["ps", "ax"]).stdout


def test_sacct_knows_how_jobs_ended(cluster: Cluster) -> None:
    numbers = [cluster.submit("--wrap", command) for command in ("true", "exit 3", "sleep 600")]
    cluster.wait_until(lambda: running(cluster, numbers[2]), 30)
    cluster.run_client(["scancel", numbers[2]])
    query = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=state,exitcode", "--jobs"]
    wanted = ["COMPLETED|0:0", "FAILED|3:0", "CANCELLED by 0|0:0"]
    cluster.wait_until(lambda: cluster.run_client([*query, ",".join(numbers)]).stdout.splitlines() == wanted, 30)


def test_what_is_over_a_partitions_limit_is_refused(cluster: Cluster) -> None:
    dry = ["sbatch", "--test-only", "--partition=short", "--wrap", "true"]
    assert "to start at" in cluster.run_client([*dry, "--time=2"]).stderr
    for over in ("--time=3", "--gres=gpu:3", "--mem=5000", "--cpus-per-task=5", "--nodes=4"):
        answer = cluster.run_client([*dry, over], check=False)
        assert (answer.returncode, "allocation failure" in answer.stderr) == (1, True), over


def test_a_requeued_job_runs_again_soon(cluster: Cluster) -> None:
    """By default this takes more than two minutes."""
    number, _ = started(cluster)
    cluster.run_client(["scontrol", "requeue", number])
    cluster.wait_until(lambda: running(cluster, number, restarts=1), 60)


def test_high_takes_the_place_of_main_after_a_signal(cluster: Cluster) -> None:
    low = cluster.submit("--exclusive", "--nodes=3", *WARNED)
    cluster.wait_until(lambda: running(cluster, low), 30)
    high = cluster.preempt("n1")
    assert cluster.job(low)["JobState"] == "PENDING"
    assert "warned" in (cluster.folder / "jobs" / f"slurm-{low}.out").read_text()
    cluster.run_client(["scancel", high])
    cluster.wait_until(lambda: running(cluster, low, restarts=1), 60)


def test_gone_makes_place_without_a_signal(cluster: Cluster) -> None:
    low = cluster.submit("--partition=gone", "--nodelist=n1", *WARNED)
    output = cluster.folder / "jobs" / f"slurm-{low}.out"
    cluster.wait_until(lambda: output.exists() and "ready" in output.read_text(), 30)
    high = cluster.preempt("n1")
    assert (cluster.job(high)["JobState"], nodes_of(cluster, high)) == ("RUNNING", ["n1"])
    assert cluster.job(low)["JobState"] == "PENDING"
    assert "warned" not in output.read_text()


def test_nothing_is_submitted_to_closed_from_a_node(cluster: Cluster) -> None:
    dry = ["sbatch", "--test-only", "--partition=closed", "--wrap", "true"]
    assert "to start at" in cluster.run_client(dry).stderr
    assert "to start at" in cluster.inside("ctl", dry).stderr
    for node in cluster.nodes:
        answer = cluster.inside(node, dry, check=False)
        assert (answer.returncode, "Access/permission denied" in answer.stderr) == (1, True), node


def test_a_full_disk_is_full_for_every_node(cluster: Cluster) -> None:
    assert cluster.disk.stat().st_mode & 0o777 == 0o700
    write = ["sh", "-c", f"uname -n >{cluster.disk}/$(uname -n)"]
    cluster.fill_disk()
    for node in cluster.nodes:
        assert "No space left on device" in cluster.inside(node, write, check=False).stderr
    cluster.free_disk()
    for node in cluster.nodes:
        cluster.inside(node, write)
        assert (cluster.disk / node).read_text() == f"{node}\n"
    cluster.restore()
    assert not list(cluster.disk.iterdir())


def test_what_a_job_sends_out_of_the_cluster_is_counted(cluster: Cluster) -> None:
    for statement in (
        "socket.create_connection(('203.0.113.1', 443), 0.5)",
        "socket.getaddrinfo('nowhere.test', 443)",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'?', ('203.0.113.1', 53))",
    ):
        before = cluster.attempts("n1")
        finished(cluster, "--nodelist=n1", "--wrap", f'{sys.executable} -c "import socket; {statement}" || true')
        assert cluster.attempts("n1") > before, statement


def test_talk_within_the_cluster_is_not_counted(cluster: Cluster) -> None:
    """Nor is the usual way to ask for one's own address, which sends nothing."""
    before = [cluster.attempts(node) for node in cluster.nodes]
    for statement in (
        "socket.create_connection(('n2', 6818), 5)",
        "socket.create_connection(('ctl', 6817), 5)",
        "socket.socket(type=socket.SOCK_DGRAM).connect(('203.0.113.1', 53))",
    ):
        finished(cluster, "--nodelist=n1", "--wrap", f'{sys.executable} -c "import socket; {statement}"')
    finished(cluster, "--nodes=3", "--ntasks-per-node=1", "--wrap", "srun hostname && squeue")
    assert [cluster.attempts(node) for node in cluster.nodes] == before


def test_the_job_of_a_killed_node_runs_again_elsewhere(cluster: Cluster) -> None:
    number, before = started(cluster)
    cluster.kill(before[0])
    (cluster.disk / "meanwhile").touch()
    cluster.wait_until(lambda: running(cluster, number, restarts=1), 90)
    assert nodes_of(cluster, number) != before
    cluster.boot(before[0])
    assert cluster.node_state(before[0]) == "idle"
    assert cluster.inside(before[0], ["ls", str(cluster.disk)]).stdout.split() == ["meanwhile"]
    assert cluster.attempts(before[0]) == 0


def test_a_cut_cable_is_noticed(cluster: Cluster) -> None:
    number, before = started(cluster, "--nodes=2")
    cluster.cut(before[0])
    assert "sleep 600" in cluster.inside(before[0], ["ps", "ax"]).stdout
    cluster.wait_until(lambda: running(cluster, number, restarts=1), 90)
    assert before[0] not in nodes_of(cluster, number)
    assert cluster.node_state(before[0]) == "down*"
    cluster.join(before[0])


@pytest.mark.parametrize("at_once", [False, True])
def test_no_job_is_lost_while_the_controller_is_away(cluster: Cluster, at_once: bool) -> None:
    """Killed at once it forgets what it has not yet saved, which are jobs of the last five seconds."""
    running_on, _ = started(cluster, "--exclusive", "--nodes=3")
    waiting = cluster.submit("--wrap", "sleep 600")
    ends = cluster.submit("--wrap", "echo done", "--partition=high", "--hold")
    submitted = time.time()
    if at_once:
        cluster.wait_until(lambda: (cluster.folder / "state" / "job_state").stat().st_mtime > submitted + 1, 30)
    cluster.stop_controller(at_once)
    with pytest.raises((subprocess.TimeoutExpired, RuntimeError)):
        cluster.run_client(["squeue"], timeout_s=3)
    cluster.start_controller()
    states = [cluster.job(number)["JobState"] for number in (running_on, waiting, ends)]
    assert states == ["RUNNING", "PENDING", "PENDING"]
    assert cluster.job(running_on)["Restarts"] == "0"
    cluster.run_client(["scancel", running_on])
    cluster.wait_until(lambda: running(cluster, waiting), 60)


def test_torch_reduces_over_two_nodes(cluster: Cluster) -> None:
    script = cluster.folder / "jobs" / "all_reduce.py"
    script.write_text(ALL_REDUCE)
    batch = cluster.folder / "jobs" / "all_reduce.sh"
    batch.write_text(
        "#!/bin/sh\n"
        'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) MASTER_PORT=29500\n'
        f"srun --kill-on-bad-exit=1 {sys.executable} {script}\n"
    )
    before = [cluster.attempts(node) for node in cluster.nodes]
    output = finished(cluster, "--nodes=2", "--ntasks-per-node=1", str(batch), timeout_s=180)
    assert [cluster.attempts(node) for node in cluster.nodes] == before, output
    lines = re.findall(r"rank (\d) of 2 on (n\d): 3\.0\n", output)
    assert sorted(rank for rank, _ in lines) == ["0", "1"], output
    assert len({node for _, node in lines}) == 2


def test_a_second_cluster_beside_it_leaves_nothing_when_its_test_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", LEFT_BEHIND, str(tmp_path / "second")]
    with subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            number = int(other.stdout.readline())
            assert number in claims.marked()
            assert claims.disk(number).is_mount()
        finally:
            other.send_signal(signal.SIGKILL)
    claims.remove_leftovers()
    assert number not in claims.marked()
    assert not claims.disk(number).exists()
    assert claims.bridge(number) not in [name for _, name in socket.if_nameindex()]
    assert all(cluster.node_state(node) == "idle" for node in cluster.nodes)
