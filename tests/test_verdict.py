"""results.csv, the table and the sentence, from run folders made by hand."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from mtl.runfolder import RunFolder
from sweeps import asked, verdict
from sweeps.verdict import Result


def fold(folder: Path, k: int, dice: list[float], area: list[float], outcome: str | None = "DONE") -> None:
    run = RunFolder(folder / f"fold_{k}")
    run.prepare({"fold": k})
    run.write_epochs(
        [{"epoch": n, "dice_val": d, "area_mad_mm2": a} for n, (d, a) in enumerate(zip(dice, area, strict=True), 1)]
    )
    if outcome:
        run.finish(outcome, "why")


def test_mean_and_sd_over_folds_at_each_ones_best_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "branch-up4-12345678"
    fold(folder, 0, [0.1, 0.8, 0.3], [900, 200, 100])
    fold(folder, 1, [0.6, 0.5, 0.2], [400, 300, 100])
    r = verdict.result(folder, "up4", folds=2)
    assert (r.configuration, r.branch, r.folds_done, r.status) == (folder.name, "up4", 2, "done")
    assert r.dice_mean == pytest.approx(0.7)
    assert r.dice_sd == pytest.approx(0.2 / 2**0.5)  # n - 1
    assert (r.area_mad_mm2_mean, r.area_mad_mm2_sd) == (300, pytest.approx(200 / 2**0.5))


def test_folds_that_are_not_done_do_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    fold(folder, 0, [0.8], [200])
    fold(folder, 1, [0.1], [900], outcome=None)
    r = verdict.result(folder, "up1", folds=3)
    assert (r.dice_mean, r.dice_sd, r.folds_done, r.status) == (0.8, None, 1, "incomplete")
    fold(folder, 2, [0.1], [900], outcome="FAILED")
    assert verdict.result(folder, "up1", folds=3).status == "failed"


def row(branch: str, dice: float, sd: float, area: float = 300.0, status: str = "done") -> Result:
    return Result(f"branch-{branch}-0", branch, dice, sd, area, 50.0, 5, status)


def test_results_csv_has_the_contracts_columns(tmp_path: Path) -> None:
    verdict.write(tmp_path / "results.csv", [row("up4", 0.9, 0.1)])
    (line,) = csv.DictReader((tmp_path / "results.csv").read_text().splitlines())
    assert list(line) == [
        "configuration",
        "branch",
        "dice_mean",
        "dice_sd",
        "area_mad_mm2_mean",
        "area_mad_mm2_sd",
        "folds_done",
        "status",
    ]
    assert (line["dice_mean"], line["status"]) == ("0.9", "done")


def test_the_table_has_a_row_per_branch_point_and_says_on_whom() -> None:
    text = verdict.table([row("up1", 0.8, 0.01), row("up4", 0.9, 0.02, 250)], "validation")
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["up1", "up4"]
    assert "0.900 +- 0.020" in text
    assert "250 +- 50" in text
    assert "on validation patients" in text
    assert "selected on it as in the paper" in verdict.table([row("up1", 0.8, 0.01)], "test")


def test_a_clear_winner_is_called_and_a_close_one_is_not() -> None:
    clear = verdict.sentence([row("up1", 0.6, 0.05), row("up4", 0.9, 0.02, 250)], "On X:")
    assert clear.startswith("On X: up4 segmented best (Dice 0.900), ahead of all others by over one standard deviation")
    assert "smallest at up4 (250 mm2)" in clear
    close = verdict.sentence([row("up1", 0.89, 0.05), row("up2", 0.5, 0.01), row("up4", 0.9, 0.02)], "On X:")
    assert "but up1 lies within one standard deviation of it, so no winner is called" in close
    assert close.count(".") == clear.count(".")  # one sentence


def test_missing_folds_are_no_answer() -> None:
    text = verdict.sentence([row("up1", 0.6, 0.05), row("up4", 0.9, 0.02, status="failed")], "On X:")
    assert text == "On X: no answer yet, since folds are missing at up4."


def test_other_fields_are_named_and_a_branch_alone_is_not() -> None:
    assert asked.label({"model.branch": "up2"}) == "up2"
    assert asked.label({"protocol.train_fraction": 0.5, "model.branch": "none"}) == "train_fraction 0.5, none"
    rows = [replace(row("up4", d, 0.01), label=f"lr {d}") for d in (0.6, 0.9)]
    text = verdict.table(rows, "validation")
    assert text.startswith("configuration ")
    assert [line[:6] for line in text.splitlines()[2:4]] == ["lr 0.6", "lr 0.9"]
    assert verdict.sentence(rows, "On X:").startswith("On X: lr 0.9 segmented best")


def test_half_batches_are_marked_in_the_table_and_the_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "branch-up4-12345678"
    for k in range(2):
        fold(folder, k, [0.8], [200], outcome=None)
        RunFolder(folder / f"fold_{k}").finish("DONE", "all epochs trained", micro_batches=1 + k)
    r = verdict.result(folder, "up4", folds=2)
    assert r.halved == 1
    table = verdict.table([row("up1", 0.6, 0.1), r], "validation")
    assert [line[-6:] for line in table.splitlines()[2:4]] == ["  done", "done *"]
    assert "BatchNorm saw other batches" in table
    assert "up4 ran out of memory and trained in half micro-batches" in verdict.sentence([row("up1", 0.6, 0.1), r], "")
    assert "*" not in verdict.table([row("up1", 0.6, 0.1)], "validation")
