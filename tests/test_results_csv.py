"""results.csv and the table, from run folders made by hand."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtl.runfolder import RunFolder
from sweeps import alike, results
from sweeps.results import Result

ALIKE = {"code": "0123", "torch": "2.13.0", "device": "cpu", "precision": "float32"}


def fold(
    folder: Path, k: int, dice: list[float], area: list[float], outcome: str | None = "DONE", **facts: Any
) -> RunFolder:
    run = RunFolder(folder / f"fold_{k}")
    run.prepare({"fold": k})
    run.write_epochs(
        [{"epoch": n, "dice_val": d, "area_mad_mm2": a} for n, (d, a) in enumerate(zip(dice, area, strict=True), 1)]
    )
    for name in ("best.pt", "volumes.csv", "slices.csv"):
        (run.path / name).touch()
    if outcome:
        run.finish(outcome, "why", **facts)
    return run


def test_mean_and_sd_over_folds_at_each_ones_best_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "branch-up4-12345678"
    fold(folder, 0, [0.1, 0.8, 0.3], [900, 200, 100])
    fold(folder, 1, [0.6, 0.5, 0.2], [400, 300, 100])
    r = results.result(folder, "up4", folds=2)
    assert (r.configuration, r.branch, r.folds_done, r.status) == (folder.name, "up4", 2, "done")
    assert r.dice_mean == pytest.approx(0.7)
    assert r.dice_sd == pytest.approx(0.2 / 2**0.5)  # n - 1
    assert (r.area_mad_mm2_mean, r.area_mad_mm2_sd) == (300, pytest.approx(200 / 2**0.5))


def test_folds_that_are_not_done_do_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    fold(folder, 0, [0.8], [200])
    fold(folder, 1, [0.1], [900], outcome=None)
    r = results.result(folder, "up1", folds=3)
    assert (r.dice_mean, r.dice_sd, r.folds_done, r.status) == (0.8, None, 1, "incomplete")
    fold(folder, 2, [0.1], [900], outcome="FAILED")
    assert results.result(folder, "up1", folds=3).status == "failed"


@pytest.mark.parametrize(
    ("outcomes", "whole", "status"),
    [
        (["DONE", "DONE"], True, "done"),
        (["DONE", "DONE"], False, "incomplete"),
        (["DONE", "STOPPED"], True, "stopped"),
        (["DONE", "STOPPED"], False, "stopped"),
        (["STOPPED", None], True, "incomplete"),  # it ends with its epoch
        (["STOPPED", "FAILED"], True, "failed"),
        ([None, None], True, "incomplete"),
    ],
)
def test_the_status_follows_from_how_the_folds_ended(outcomes: list[str | None], whole: bool, status: str) -> None:
    assert results.status(outcomes, whole=whole) == status


def test_a_fold_whose_files_are_lost_is_named_and_not_taken_for_done(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    fold(folder, 0, [0.8], [200], **ALIKE)
    (fold(folder, 1, [0.1], [900], **ALIKE).path / "epochs.jsonl").unlink()
    r = results.result(folder, "up1", folds=2)
    assert (r.dice_mean, r.folds_done, r.status) == (0.8, 1, "incomplete")
    assert "Files lost: c/fold_1: epochs.jsonl." in results.table([r], "validation")


def test_folds_that_were_trained_unlike_are_named(tmp_path: Path) -> None:
    rows = []
    for name in ("a", "b"):
        for k in range(3):
            facts = ALIKE | ({"code": "4567", "torch": "2.14.0"} if (name, k) == ("b", 2) else {})
            fold(tmp_path / name, k, [0.8], [200], **facts)
        rows.append(results.result(tmp_path / name, name, folds=3))
    table = results.table(rows, "validation")
    assert [line[-6:] for line in table.splitlines()[2:4]] == ["  done", "done !"]
    assert "! Trained unlike the others, code 4567 instead of 0123, torch 2.14.0 instead of 2.13.0: b/fold_2." in table
    assert "!" not in results.table(rows[:1], "validation")


def test_what_the_sweep_itself_varies_is_not_unlike(tmp_path: Path) -> None:
    rows = []
    for name in ("float32", "bf16"):
        for k in range(3):
            fold(tmp_path / name, k, [0.8], [200], **ALIKE | {"precision": name})
        rows.append(results.result(tmp_path / name, name, folds=3))
    assert "!" in results.table(rows, "validation")
    assert "!" not in results.table(rows, "validation", alike.compared({"train.precision"}))


def row(branch: str, dice: float, sd: float, area: float = 300.0, status: str = "done") -> Result:
    return Result(f"branch-{branch}-0", branch, dice, sd, area, 50.0, 5, status)


def test_results_csv_has_the_contracts_columns(tmp_path: Path) -> None:
    results.write(tmp_path / "results.csv", [row("up4", 0.9, 0.1), row("up1", 0.8, 0.1, status="stopped")])
    first, second = csv.DictReader((tmp_path / "results.csv").read_text().splitlines())
    assert list(first) == [
        "configuration",
        "branch",
        "dice_mean",
        "dice_sd",
        "area_mad_mm2_mean",
        "area_mad_mm2_sd",
        "folds_done",
        "status",
    ]
    assert (first["dice_mean"], first["status"], second["status"]) == ("0.9", "done", "stopped")


def test_the_table_has_a_row_per_branch_point_and_says_on_whom() -> None:
    text = results.table([row("up1", 0.8, 0.01), row("up4", 0.9, 0.02, 250)], "validation")
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["up1", "up4"]
    assert "0.900 +- 0.020" in text
    assert "250 +- 50" in text
    assert "on validation patients" in text
    assert "selected on it as in the paper" in results.table([row("up1", 0.8, 0.01)], "test")


def test_other_fields_are_named() -> None:
    rows = [replace(row("up4", d, 0.01), label=f"lr {d}") for d in (0.6, 0.9)]
    text = results.table(rows, "validation")
    assert text.startswith("configuration ")
    assert [line[:6] for line in text.splitlines()[2:4]] == ["lr 0.6", "lr 0.9"]


def test_half_batches_are_marked(tmp_path: Path) -> None:
    folder = tmp_path / "branch-up4-12345678"
    for k in range(2):
        fold(folder, k, [0.8], [200], micro_batches=1 + k)
    r = results.result(folder, "up4", folds=2)
    assert r.halved == 1
    table = results.table([row("up1", 0.6, 0.1), r], "validation")
    assert [line[-6:] for line in table.splitlines()[2:4]] == ["  done", "done *"]
    assert "BatchNorm saw other batches" in table
    assert "*" not in results.table([row("up1", 0.6, 0.1)], "validation")
