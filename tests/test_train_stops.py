"""A fold that is stopped by the search, that lost files, that another code went on with."""

import json
from pathlib import Path
from typing import Any

import pytest

from mtl import train, trainer
from mtl.config import Config
from mtl.runfolder import KEPT, RunFolder
from mtl.slices import Slices


def dice(folder: RunFolder) -> list[float]:
    return [record["dice_val"] for record in folder.epochs()]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "fold_1")


def test_stopped_while_it_runs_it_ends_with_the_epoch_and_reopened_goes_on_to_the_same_numbers(
    config: Config, slices: Slices, folder: RunFolder, tmp_path: Path
) -> None:
    whole = RunFolder(tmp_path / "whole")
    train.train(config, slices, 1, whole)

    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            folder.finish("STOPPED", "others were better", by="asha")

    train.train(config, slices, 1, folder, stop)
    assert (len(folder.epochs()), folder.outcome()) == (2, "STOPPED")
    assert not (folder.path / "volumes.csv").exists()
    train.train(config, slices, 1, folder)  # a job that was queued before it was stopped
    assert (len(folder.epochs()), folder.outcome()) == (2, "STOPPED")
    folder.reopen()
    train.train(config, slices, 1, folder)
    assert folder.outcome() == "DONE"
    assert dice(folder) == dice(whole)
    assert (folder.path / "volumes.csv").read_text() == (whole.path / "volumes.csv").read_text()


@pytest.mark.parametrize("gone", [["volumes.csv"], ["best.pt"], [*KEPT, "last.pt"]])
def test_files_lost_to_a_purge_are_named_and_made_again(
    gone: list[str], config: Config, slices: Slices, folder: RunFolder
) -> None:
    train.train(config, slices, 1, folder)
    assert folder.lost() == []
    before, told = dice(folder), (folder.path / "volumes.csv").read_text()
    for name in gone:
        (folder.path / name).unlink()
    assert folder.lost() == [name for name in KEPT if name in gone]
    folder.reopen()
    assert folder.outcome() is None
    train.train(config, slices, 1, folder)
    assert (folder.outcome(), folder.lost()) == ("DONE", [])
    assert dice(folder) == before
    assert (folder.path / "volumes.csv").read_text() == told


def test_a_fold_that_another_code_went_on_with_says_both(
    config: Config, slices: Slices, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(record: dict[str, Any]) -> None:
        folder.finish("STOPPED", "for now", by="asha")

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "code_hash", lambda: "an-older-one")
        train.train(config, slices, 1, folder, stop)
    folder.reopen()
    train.train(config, slices, 1, folder)
    told = json.loads((folder.path / "DONE").read_text())["code"].split("+")
    assert told == sorted(["an-older-one", trainer.code_hash()])


def test_what_each_epoch_took_of_the_machine_is_noted(config: Config, slices: Slices, folder: RunFolder) -> None:
    train.train(config, slices, 1, folder)
    used = folder.usage()
    assert [record["epoch"] for record in used] == [1, 2, 3]
    assert all(0 < record["cores"] < 64 and 0.05 < record["memory_gb"] < 64 for record in used)
    folder.write_usage(2, {"cores": 1.0})  # an epoch that is trained again
    assert [record["epoch"] for record in folder.usage()] == [1, 2]
