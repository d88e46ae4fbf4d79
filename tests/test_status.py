"""`python -m cluster.status` and `python -m cluster.cancel`, on made-up queues."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from cluster import cancel, costs, failures, slurm, status
from cluster.broker import Broker
from cluster.canary import Answer
from cluster.costs import Price
from cluster.worker import FoldJob
from data_prep.files import make_private
from mtl.config import Config
from tests.pretended import Machine, ask, later, run_of


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def folds(tmp_path: Path, config: Config) -> list[FoldJob]:
    folder = make_private(tmp_path / "sweep" / "c")
    return [FoldJob(asdict(config), "store", str(folder / f"fold_{k}"), k) for k in range(3)]


@pytest.fixture
def made(machine: Machine, tmp_path: Path, folds: list[FoldJob]) -> Broker:
    one = machine.broker(tmp_path / "sweep")
    ask(tmp_path / "sweep", "c", folds)
    one.step()
    return one


def test_status_tells_every_fold_and_the_queue(made: Broker, machine: Machine, folds: list[FoldJob]) -> None:
    later(made, machine)
    run_of(folds[0]).prepare({"fold": 0})
    run_of(folds[0]).write_epochs([{"epoch": 1, "seconds": 60.0}])
    run_of(folds[2]).finish("FAILED", "epoch 2\nmore", failure=failures.DIVERGED)
    log = make_private(made.folder / "jobs") / "1_2_0_log.out"
    log.write_text("")
    machine.set("1_0", "RUNNING", "n2")
    made_lines = status.folds(made.folder, made.kept.by_folder, machine.jobs())
    assert [(fold.number, fold.state, fold.told) for fold in made_lines] == [
        (0, "runs", "job 1_0 on n2; epoch 1 of 3, 60 s each, 2 min left"),
        (1, "waits", "job 1_1 (Priority); epoch 0 of 3"),
        (2, "failed", f"diverged: epoch 2; log: {log}"),
    ]
    text = status.report(made.folder)
    assert "3 folds: 1 failed, 1 runs, 1 waits" in text
    (made.folder / "driver.json").write_text(json.dumps({"job": "99"}))
    assert "driver: job 99 has ended; log: " in status.report(made.folder)
    machine.set("99", "RUNNING", "n3")
    assert "driver: job 99 RUNNING n3; log: " in status.report(made.folder)
    machine.silent = True
    assert "Slurm does not answer (squeue: no answer)" in status.report(made.folder)


def test_status_of_no_sweep_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_private(tmp_path / "runs" / "paper" / "c" / "fold_0")
    for folder, told in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "runs", "name one of the sweeps in it: paper"),
    ):
        assert status.main([str(folder)]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1


def test_cancel_ends_the_driver_first_and_what_is_alive(
    made: Broker, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(slurm, "cancel", ended.extend)
    later(made, machine)
    (made.folder / "driver.json").write_text(json.dumps({"job": "99"}))
    machine.set("99", "RUNNING")
    machine.set("1_1", "COMPLETED")
    assert cancel.main([str(made.folder)]) == 0
    assert ended == ["99", "1_0", "1_2"]
    assert "3 jobs ended: 99, 1_0, 1_2" in capsys.readouterr().out
    assert cancel.main([str(made.folder.parent)]) == 2


def test_estimate_and_reality_stand_beside_each_other(
    made: Broker, folds: list[FoldJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    costs.keep(made.folder, Price(3, 2, 1.0, 2.0, "from a probe"))
    costs.keep(made.folder, Price(1, 2, 9.0, 9.0, "later: what was expected first counts"))
    run_of(folds[0]).write_epochs([{"epoch": 1, "seconds": 1800.0}])
    monkeypatch.setattr(slurm, "gpu_hours", lambda ids: None)  # no accounting
    lines = status.report(made.folder).splitlines()
    assert "expected: 3 folds to train, 2.00 to 4.00 GPU hours (from a probe)" in lines
    assert "GPU hours used (epochs in the run folders): 1.00" in lines
    monkeypatch.setattr(slurm, "gpu_hours", lambda ids: 1.25)
    assert "GPU hours used (sacct): 1.25" in status.report(made.folder).splitlines()


def test_what_broke_is_named_for_the_admin(made: Broker, machine: Machine) -> None:
    made.kept.bad_nodes["n2"] = "under job 1_0, 2026-11-24 10:00:00"
    made.kept.write()
    Answer("k", "n1", problems=("no store",)).write(make_private(made.folder / "canary") / "answer.json")
    text = status.report(made.folder)
    assert "node n2 failed and is left out: under job 1_0, 2026-11-24 10:00:00" in text
    assert f"canary on n1 failed: no store; log: {made.folder}/canary/canary.log" in text


def test_a_fold_that_was_never_taken_says_why(made: Broker, folds: list[FoldJob]) -> None:
    run_of(folds[1]).finish("FAILED", "sbatch: Invalid account", failure=failures.REFUSED)
    assert "refused: sbatch: Invalid account" in status.report(made.folder)
