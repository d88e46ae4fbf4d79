"""What the broker queues, watches and mends, without a cluster (tests/pretended.py). tests/slurm has a real one."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluster import failures, slurm, submission
from cluster.broker import Broker
from cluster.worker import FoldJob
from data_prep.files import make_private
from mtl.config import Config
from tests.pretended import SITE, Killed, Machine, ask, later, run_of


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_private(tmp_path / "sweep")


def folds_of(home: Path, config: Config, name: str = "c", count: int = 3) -> list[FoldJob]:
    return [FoldJob(asdict(config), "store", str(make_private(home / name) / f"fold_{k}"), k) for k in range(count)]


@pytest.fixture
def folds(home: Path, config: Config) -> list[FoldJob]:
    return folds_of(home, config)


@pytest.fixture
def made(machine: Machine, home: Path, folds: list[FoldJob]) -> Broker:
    """A broker that was asked for three folds and has queued them."""
    one = machine.broker(home)
    ask(home, "c", folds)
    one.step()
    assert machine.arrays == [([0, 1, 2], ())]
    return one


def trained(fold: FoldJob, epochs: int) -> None:
    run_of(fold).write_epochs([{"epoch": n + 1, "seconds": 1.0} for n in range(epochs)])


# What Slurm did to a job.


@pytest.mark.parametrize("state", ["TIMEOUT", "PREEMPTED", "NODE_FAIL"])
def test_what_slurm_ended_is_queued_again_alone_and_at_most_so_often(
    state: str, made: Broker, machine: Machine, folds: list[FoldJob]
) -> None:
    for attempt, job in enumerate(("1_1", "2_0", "3_0"), start=1):
        machine.down.add(f"n{attempt}")
        machine.set(job, state, node=f"n{attempt}")
        later(made, machine)
        bad = tuple(f"n{n}" for n in range(1, attempt + 1)) if state == "NODE_FAIL" else ()
        if attempt <= SITE.requeues:
            assert machine.arrays[attempt] == ([1], bad)
    assert len(machine.arrays) == 1 + SITE.requeues
    assert run_of(folds[1]).outcome() == "FAILED"
    assert run_of(folds[1]).reason().startswith(f"job 3_0 ended as {state} after being queued 3 times; see ")
    assert run_of(folds[1]).facts()["failure"] == failures.of_state(state)
    assert run_of(folds[0]).outcome() is None


@pytest.mark.parametrize("state", ["CANCELLED", "OUT_OF_MEMORY"])
def test_what_is_not_queued_again_fails_with_its_log(
    state: str, made: Broker, machine: Machine, folds: list[FoldJob]
) -> None:
    machine.set("1_2", state)
    later(made, machine)
    if state == "OUT_OF_MEMORY":  # once more, in halves
        assert machine.arrays[1:] == [([2], ())]
        assert [fold.micro_batches for fold in machine.folds] == [2]
        machine.set("2_0", state)
        later(made, machine)
    assert run_of(folds[2]).outcome() == "FAILED"
    assert f"ended as {state}" in run_of(folds[2]).reason()
    assert "_0_log.out" in run_of(folds[2]).reason()
    assert ("give more site.mem_gb" in run_of(folds[2]).reason()) == (state == "OUT_OF_MEMORY")
    assert len(machine.arrays) == (2 if state == "OUT_OF_MEMORY" else 1)


@pytest.mark.parametrize("state", ["FAILED", "COMPLETED"])
def test_a_process_that_died_without_a_word_is_tried_once_more_and_then_as_long_as_it_makes_progress(
    state: str, made: Broker, machine: Machine, folds: list[FoldJob]
) -> None:
    machine.set("1_2", state)
    later(made, machine)
    assert machine.arrays[1:] == [([2], ())]
    trained(folds[2], 1)
    machine.set("2_0", state)
    later(made, machine)
    assert machine.arrays[2:] == [([2], ())]
    machine.set("3_0", state)
    later(made, machine)
    assert run_of(folds[2]).outcome() == "FAILED"
    assert run_of(folds[2]).facts()["failure"] == failures.KILLED
    assert len(machine.arrays) == 3


def test_an_outcome_counts_whatever_slurm_says(made: Broker, machine: Machine, folds: list[FoldJob]) -> None:
    run_of(folds[0]).finish("DONE", "all epochs trained")
    machine.set("1_0", "FAILED")
    later(made, machine)
    assert run_of(folds[0]).outcome() == "DONE"
    assert len(machine.arrays) == 1


def test_a_job_that_squeue_forgot_is_queued_again_but_not_at_once(made: Broker, machine: Machine) -> None:
    machine.states.clear()
    made._asked = -1e9
    later(made, machine, seconds=5)  # squeue may not know it yet
    assert len(machine.arrays) == 1
    later(made, machine)
    assert machine.arrays[1:] == [([0, 1, 2], ())]


def test_a_node_that_broke_is_left_out_by_what_waits_and_named_with_evidence(made: Broker, machine: Machine) -> None:
    """Slurm requeues such a job itself: that it waits again is all that is seen. Of its two nodes one works."""
    for job in ("1_0", "1_1"):
        machine.set(job, "RUNNING", "n1,n2")
    later(made, machine)
    machine.down.add("n2")
    machine.set("1_0", "PENDING", "")
    later(made, machine)
    assert machine.left_out == [(["1_0", "1_2"], ["n2"])]
    assert set(made.kept.bad_nodes) == {"n2"}
    assert made.kept.bad_nodes["n2"].startswith("under job 1_0, 20")
    later(made, machine)
    assert len(machine.left_out) == 1  # once


# What a fold says of itself.


def test_an_error_in_the_code_stops_its_siblings_with_the_same_traceback(
    made: Broker, machine: Machine, folds: list[FoldJob]
) -> None:
    run_of(folds[1]).finish("FAILED", "KeyError: 'x'", failure=failures.CODE, traceback="Traceback: here")
    made.step()
    assert machine.cancelled == ["1_0", "1_2"]
    for k in (0, 2):
        facts = run_of(folds[k]).facts()
        assert (facts["failure"], facts["traceback"]) == (failures.STOPPED, "Traceback: here")
        assert facts["reason"] == "stopped: fold_1 of this configuration failed: KeyError: 'x'"
    later(made, machine)
    assert len(machine.arrays) == 1


def test_siblings_are_stopped_later_where_slurm_is_silent_just_then(
    made: Broker, machine: Machine, folds: list[FoldJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(ids: list[str]) -> None:
        raise slurm.Silent("scancel: no answer")

    run_of(folds[1]).finish("FAILED", "KeyError: 'x'", failure=failures.CODE, traceback="Traceback: here")
    with monkeypatch.context() as patch:
        patch.setattr(slurm, "cancel", away)
        with pytest.raises(slurm.Silent):
            made.step()
    assert run_of(folds[0]).outcome() is None
    made.step()
    assert machine.cancelled == ["1_0", "1_2"]
    assert run_of(folds[0]).facts()["failure"] == failures.STOPPED


def test_before_any_epoch_it_stops_the_whole_sweep(
    made: Broker, machine: Machine, folds: list[FoldJob], home: Path, config: Config
) -> None:
    others = folds_of(home, config, "d")
    ask(home, "d", others)
    made.step()
    assert len(machine.arrays) == 1  # waits for the first epoch
    run_of(folds[1]).finish("FAILED", "KeyError: 'x'", failure=failures.CODE, traceback="")
    made.step()
    assert {run_of(fold).reason() for fold in others} == {
        "not started: the sweep's first fold, c/fold_1, failed: KeyError: 'x'"
    }
    assert len(machine.arrays) == 1


@pytest.mark.parametrize("failure", [failures.DIVERGED, failures.MEMORY])
def test_what_concerns_one_fold_alone_leaves_its_siblings_running(
    failure: str, made: Broker, machine: Machine, folds: list[FoldJob]
) -> None:
    run_of(folds[1]).finish("FAILED", "loss nan", failure=failure)
    later(made, machine)
    assert machine.cancelled == []
    assert run_of(folds[0]).outcome() is None


def test_several_ranks_without_memory_are_queued_again_in_halves_once(
    machine: Machine, home: Path, config: Config
) -> None:
    """One rank halves by itself; several wait for one another."""
    one = machine.broker(home, replace(SITE, ranks_per_node=2))
    three = folds_of(home, config)
    ask(home, "c", three)
    one.step()
    for attempt in (1, 2):
        run_of(three[1]).finish("FAILED", "out of memory", failure=failures.MEMORY)
        one.step()
        assert len(machine.arrays) == 2
        assert [fold.micro_batches for fold in machine.folds] == [2]
        assert run_of(three[1]).outcome() == (None if attempt == 1 else "FAILED")


# How much is queued at a time.


def test_the_second_array_waits_for_the_first_folds_first_epoch(
    made: Broker, machine: Machine, folds: list[FoldJob], home: Path, config: Config
) -> None:
    ask(home, "d", folds_of(home, config, "d"))
    for _ in range(3):
        later(made, machine)
    assert len(machine.arrays) == 1
    trained(folds[0], 1)
    made.step()
    assert len(machine.arrays) == 2


def test_a_policys_gpus_are_kept_by_all_arrays_together(machine: Machine, home: Path, config: Config) -> None:
    """Five GPUs, two a fold: two folds at a time. One array after the other, each at most two wide."""
    one = machine.broker(home, replace(SITE, gpus_per_node=2), max_gpus=5)
    first, second = folds_of(home, config, "c"), folds_of(home, config, "d")
    ask(home, "c", first)
    ask(home, "d", second)
    one.step()
    trained(first[0], 1)
    one.step()
    assert [shape.site.at_a_time for shape in machine.shapes] == [2]
    run_of(first[0]).finish("DONE", "")
    one.step()
    assert len(machine.shapes) == 1  # two of the first still run
    run_of(first[1]).finish("DONE", "")
    one.step()
    assert [shape.site.at_a_time for shape in machine.shapes] == [2, 1]  # one runs: one more may


def test_a_policys_jobs_hold_back_what_is_asked_for(machine: Machine, home: Path, config: Config) -> None:
    one = machine.broker(home, max_jobs=5)
    first = folds_of(home, config, "c")
    ask(home, "c", first)
    ask(home, "d", folds_of(home, config, "d"))
    one.step()
    trained(first[0], 1)
    one.step()
    assert len(machine.arrays) == 1
    run_of(first[0]).finish("DONE", "")
    one.step()
    assert len(machine.arrays) == 2


def test_a_full_queue_is_waited_for_and_fails_only_who_has_nothing_in_it(
    machine: Machine, home: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise slurm.failure("sbatch", "error: Batch job submission failed: Job violates accounting/QOS policy "
                            "(job submit limit, user's size and/or time limits)")  # fmt: skip

    one = machine.broker(home)
    first, second = folds_of(home, config, "c"), folds_of(home, config, "d")
    ask(home, "c", first)
    one.step()
    trained(first[0], 1)
    ask(home, "d", second)
    with monkeypatch.context() as patch:
        patch.setattr(submission, "submit", full)
        one.step()
    assert [run_of(fold).outcome() for fold in second] == [None] * 3
    one.step()
    assert len(machine.arrays) == 1  # not at once
    later(one, machine)
    assert len(machine.arrays) == 2
    with monkeypatch.context() as patch:
        patch.setattr(submission, "submit", full)
        other = machine.broker(make_private(home / "other"))
        alone = folds_of(home / "other", config)
        ask(home / "other", "c", alone)
        other.step()
    assert {run_of(fold).facts()["failure"] for fold in alone} == {failures.REFUSED}


def test_folds_that_share_a_job_are_known_by_their_rank(machine: Machine, home: Path, config: Config) -> None:
    one = machine.broker(home, replace(SITE, folds_per_gpu=2))
    five = folds_of(home, config, count=5)
    ask(home, "c", five)
    one.step()
    told = {w.fold["number"]: (w.id, w.rank) for w in one.kept.by_folder.values()}
    assert told == {0: ("1_0", 0), 1: ("1_0", 1), 2: ("1_1", 0), 3: ("1_1", 1), 4: ("1_2", 0)}
    run_of(five[0]).finish("DONE", "")
    machine.set("1_0", "FAILED")  # since its other fold died
    later(one, machine)
    assert machine.arrays[1:] == [([1], ())]


# The driver's death.


def test_while_the_controller_is_away_nothing_is_done(made: Broker, machine: Machine) -> None:
    machine.silent = True
    machine.states.clear()
    for _ in range(5):
        later(made, machine)
    assert len(machine.arrays) == 1


def test_one_question_for_all_jobs_ever_less_often_while_nothing_happens(made: Broker, machine: Machine) -> None:
    machine.questions = 0
    for _ in range(3600):
        machine.time += 1
        made.step()
    assert 3600 / 180 <= machine.questions <= 3600 / 180 + 3  # an hour: backs off to one in three minutes


def test_a_new_broker_knows_the_jobs_of_the_one_before(
    made: Broker, machine: Machine, folds: list[FoldJob], home: Path
) -> None:
    later(made, machine)
    other = machine.broker(home)
    ask(home, "c", folds)
    other.step()
    assert len(machine.arrays) == 1
    assert not list((home / "requests").iterdir())


def test_a_fold_that_failed_before_is_queued_anew(
    made: Broker, machine: Machine, folds: list[FoldJob], home: Path
) -> None:
    run_of(folds[0]).finish("FAILED", "loss nan", failure=failures.DIVERGED)
    other = machine.broker(home)  # knows that it has ended before its trial takes that back
    run_of(folds[0]).reopen()
    ask(home, "c", folds)
    other.step()
    assert machine.arrays[1:] == [([0], ())]
    assert other.kept.by_folder[folds[0].folder].queued == 1


def test_killed_right_after_sbatch_its_successor_finds_the_jobs(
    machine: Machine, folds: list[FoldJob], home: Path
) -> None:
    machine.dies = True
    one = machine.broker(home)
    ask(home, "c", folds)
    with pytest.raises(Killed):
        one.step()
    machine.dies = False
    other = machine.broker(home)
    other.step()
    assert len(machine.arrays) == 1
    assert {Path(folder).name: w.id for folder, w in other.kept.by_folder.items()} == {
        "fold_0": "1_0", "fold_1": "1_1", "fold_2": "1_2"
    }  # fmt: skip


def test_killed_right_before_sbatch_its_successor_queues_them(
    machine: Machine, folds: list[FoldJob], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    one = machine.broker(home)
    ask(home, "c", folds)
    with monkeypatch.context() as patch:
        patch.setattr(submission, "submit", kill)
        with pytest.raises(Killed):
            one.step()
    machine.broker(home).step()
    assert [numbers for numbers, _ in machine.arrays] == [[0, 1, 2]]


def test_a_refused_submission_fails_the_folds_in_slurms_words(
    machine: Machine, folds: list[FoldJob], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("sbatch: Invalid account")

    monkeypatch.setattr(submission, "submit", refuse)
    one = machine.broker(home)
    ask(home, "c", folds)
    one.step()
    assert {run_of(fold).reason() for fold in folds} == {"sbatch: Invalid account"}


def test_while_the_controller_is_away_nothing_fails_and_what_was_asked_for_is_queued_later(
    machine: Machine, folds: list[FoldJob], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = machine.broker(home)
    ask(home, "c", folds)

    def away(*_: object) -> None:
        raise slurm.failure("sbatch", "error: Batch job submission failed: Unable to contact slurm controller")

    with monkeypatch.context() as patch:
        patch.setattr(submission, "submit", away)
        with pytest.raises(slurm.Silent):
            one.step()
    assert [run_of(fold).outcome() for fold in folds] == [None] * 3
    one.step()
    assert [numbers for numbers, _ in machine.arrays] == [[0, 1, 2]]


def test_what_is_kept_of_an_ended_fold_is_small(made: Broker, folds: list[FoldJob], home: Path) -> None:
    for fold in folds:
        run_of(fold).finish("DONE", "")
    made.step()
    made.kept.write()
    assert [set(w["fold"]) for w in json.loads((home / "jobs.json").read_text())["jobs"]] == [{"folder", "number"}] * 3
