"""A sweep on a real Slurm ends with the numbers of an undisturbed one, whatever happens to it on the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.sweeping import JOBS, Numbers, Sweep
from tests.slurm.testbed import Cluster

pytestmark = pytest.mark.timeout(600)  # two cores train what a cluster would


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path, restored: None) -> Iterator[Sweep]:
    """Its driver in the foreground."""
    made = Sweep(cluster, tmp_path / "runs", *JOBS, "driver=here")
    yield made
    made.end()


def test_undisturbed_it_takes_one_sbatch_and_ends_with_the_same_numbers(sweep: Sweep, undisturbed: Numbers) -> None:
    assert sweep.start().wait() == 0, sweep.log.read_text()
    assert sweep.numbers() == undisturbed
    assert len({job.partition("_")[0] for job in sweep.ids().values()}) == 1  # one array
    assert sweep.run("driver=here").returncode == 0  # again: nothing to train
    assert sweep.folder.stat().st_mode & 0o077 == 0


def test_each_fold_with_a_fate_of_its_own(sweep: Sweep, cluster: Cluster, undisturbed: Numbers) -> None:
    """Requeued by somebody and then warned by the signal; at the end of its time, of which it warns; left alone."""
    sweep.start().until(lambda: all(len(fold.epochs()) >= 1 for fold in sweep.folds) and len(sweep.folds) == 3)
    requeued, over, alone = (sweep.ids()[k] for k in range(3))
    cluster.run_client(["scontrol", "requeue", requeued])
    cluster.run_client(["scontrol", "update", f"JobId={over}", "TimeLimit=00:00:50"])
    epochs = len(sweep.folds[0].epochs())
    sweep.until(lambda: len(sweep.folds[0].epochs()) > epochs)
    cluster.run_client(["scancel", "--signal=USR2", requeued])
    assert sweep.wait(240) == 0, sweep.log.read_text()
    assert sweep.numbers() == undisturbed
    # A fold is done before its job is: Slurm takes a moment more.
    cluster.wait_until(lambda: not cluster.run_client(["squeue", "--noheader"]).stdout, 60)
    restarts = [int(cluster.job(job)["Restarts"]) for job in (requeued, over, alone)]
    assert restarts[0] == 2 or (restarts[0] == 1 and cluster.job(requeued)["JobState"] == "COMPLETED")
    # Slurm looks at the time now and then only: on a fast machine the fold may be done before.
    assert restarts[1] >= 1 or cluster.job(over)["JobState"] == "COMPLETED"
    assert restarts[2] == 0  # what was not broken was left alone
    assert sweep.ids() == {0: requeued, 1: over, 2: alone}  # the same jobs, none of them queued anew


def test_a_power_cut_costs_at_most_the_epoch(sweep: Sweep, cluster: Cluster, undisturbed: Numbers) -> None:
    sweep.start().until_epoch(1)
    node = cluster.job(sweep.ids()[0])["NodeList"]
    cluster.kill(node)
    assert sweep.wait(240) == 0, sweep.log.read_text()
    assert sweep.numbers() == undisturbed


def test_a_driver_that_was_killed_takes_up_the_jobs_that_run_and_a_second_one_is_refused(
    sweep: Sweep, cluster: Cluster, undisturbed: Numbers
) -> None:
    sweep.start().until_epoch(1)
    second = sweep.run("driver=here")
    assert second.returncode == 2
    assert "is being written by process" in second.stderr
    before = sweep.ids()
    sweep.kill()
    assert sweep.start().wait() == 0, sweep.log.read_text()
    assert sweep.numbers() == undisturbed
    assert sweep.ids() == before  # none was queued twice


def test_a_controller_that_is_away_for_a_while_stops_nobody(
    sweep: Sweep, cluster: Cluster, undisturbed: Numbers
) -> None:
    sweep.start().until_epoch(1)
    cluster.stop_controller()
    sweep.until_epoch(4)
    cluster.start_controller()
    assert sweep.wait(240) == 0, sweep.log.read_text()
    assert sweep.numbers() == undisturbed


def test_a_cancelled_fold_fails_with_its_reason_and_the_same_command_trains_it(
    sweep: Sweep, cluster: Cluster, undisturbed: Numbers
) -> None:
    sweep.start().until_epoch(1)
    cluster.run_client(["scancel", sweep.ids()[2]])
    assert sweep.wait() == 1
    assert "fold_2: job" in sweep.log.read_text()
    assert "ended as CANCELLED; see" in sweep.log.read_text()
    assert sweep.start().wait() == 0, sweep.log.read_text()
    assert sweep.numbers() == undisturbed


def test_an_error_in_a_fold_is_told_and_not_tried_again(sweep: Sweep, cluster: Cluster) -> None:
    sweep.settings = (*sweep.settings, "train.device=cuda")
    assert sweep.start().wait() == 1
    error = "ValueError: train.device is 'cuda', which is not usable here"
    undone = [line for line in sweep.log.read_text().splitlines() if line.startswith("not done: ")]
    assert sum(error in line for line in undone) == 3
    told = [fold.facts() for fold in sweep.folds]
    assert {facts["failure"] for facts in told} <= {"code", "stopped"}
    assert len({facts["traceback"] for facts in told if facts["failure"] == "stopped"}) <= 1  # the first one's
    assert all(error in facts["traceback"] for facts in told)
    states = cluster.run_client(["sacct", "-X", "-n", "-P", "-o", "State", "-j", sweep.ids()[0]]).stdout.splitlines()
    assert {state.split()[0] for state in states} <= {"FAILED", "CANCELLED"}  # and never COMPLETED
    assert f"code: {error}" in sweep.status()


def test_the_driver_as_a_job_returns_at_once_and_survives_its_nodes_death(
    cluster: Cluster, tmp_path: Path, restored: None, undisturbed: Numbers
) -> None:
    """The node goes while the folds run; nothing that runs on the nodes tries to reach the world outside."""
    before_all = [cluster.attempts(node) for node in cluster.nodes]
    sweep = Sweep(cluster, tmp_path / "runs", *JOBS)
    queued = sweep.run()
    assert queued.returncode == 0, queued.stderr
    assert "driver: job" in queued.stdout
    again = sweep.run()
    assert "is there already" in again.stdout
    sweep.log = sweep.folder / "driver.log"
    sweep.until_epoch(1)
    assert [cluster.attempts(node) for node in cluster.nodes] == before_all
    job = queued.stdout.split("driver: job ")[1].split()[0]
    before = sweep.ids()
    cluster.kill(cluster.job(job)["NodeList"])
    sweep.until(lambda: sweep.log.read_text().count("profile demo") == 2)
    sweep.finishes(200)
    assert sweep.numbers() == undisturbed
    assert sweep.ids().keys() == before.keys()
    assert int(cluster.job(job)["Restarts"]) == 1


def test_plan_queues_nothing_and_says_what_slurm_says(cluster: Cluster, tmp_path: Path, restored: None) -> None:
    sweep = Sweep(cluster, tmp_path / "runs", *JOBS)
    done = sweep.run("plan=true")
    assert done.returncode == 0, done.stderr
    assert "3 folds to train, at most 1.5 hours of CPU jobs" in done.stdout
    assert "#SBATCH --array=0-2%3" in done.stdout
    assert done.stdout.count("Slurm says: Job") == 2  # of the folds and of the driver
    assert cluster.run_client(["squeue", "--noheader"]).stdout == ""
    for setting, told in {
        "site.partition=nowhere": "Invalid partition name specified",
        "site.mem_gb=100": "Requested node configuration is not available",
        "site.gpus_per_node=3": "Requested node configuration is not available",
        "site.partition=short": "Requested time limit is invalid",
    }.items():
        refused = sweep.run(setting)
        assert refused.returncode == 2
        assert refused.stderr.startswith("launch: Slurm would never run the folds' jobs: ")
        assert told in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert cluster.run_client(["squeue", "--noheader"]).stdout == ""
