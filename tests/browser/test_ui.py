"""What somebody sees who opens MLflow's UI on a finished `branch_location`: the tree of runs, the branches compared,
the sigmas, the answer. Screenshots of each are kept: BRANCHPOINT_SCREENSHOTS=FOLDER make test-browser."""

import csv
from pathlib import Path

import pytest

from sweeps import asked
from tests.browser.ui import Ui, eventually

BRANCHES = ("bottleneck", "up1", "up2", "up3", "up4", "none")
FOLDS, EPOCHS = 3, 4
pytestmark = pytest.mark.timeout(600)  # the first one waits for the training


@pytest.fixture
def names(sweep: Path) -> dict[str, str]:
    """Branch -> its configuration's run."""
    return {one.point["model.branch"]: one.label for one in asked.read(sweep).configurations}


def folds(name: str) -> list[str]:
    return [f"fold {k}, {name}" for k in range(FOLDS)]


def plain(text: str) -> str:
    """Without what Markdown makes letters, headings and lists of, and with single blanks."""
    return " ".join(text.replace("**", "").lstrip("#- ").split())


def test_the_runs_are_a_tree_of_sweep_configurations_and_folds(ui: Ui, names: dict[str, str]) -> None:
    assert set(names) == set(BRANCHES)
    assert all(branch == name for branch, name in names.items())
    ui.open_experiment("branch_location")
    assert eventually(ui.names, ["branch_location"]) == ["branch_location"]
    ui.expand("branch_location", names["up4"])
    shown = {"branch_location", *names.values()}
    assert eventually(lambda: set(ui.names()), shown) == shown
    ui.expand(names["up4"], folds(names["up4"])[0])
    below = [*folds(names["up4"])]
    shown |= set(below)
    assert eventually(lambda: set(ui.names()), shown) == shown
    assert sorted(ui.names()[ui.names().index(names["up4"]) + 1 :][:FOLDS]) == below
    assert ui.cut_names() == []
    ui.picture("1_tree")


def test_the_branches_are_compared(ui: Ui, names: dict[str, str], sweep: Path) -> None:
    ui.open_experiment("branch_location")
    ui.expand("branch_location", names["up4"])
    for name in names.values():
        ui.tick(name)
    ui.main.get_by_role("button", name="Compare", exact=True).click()
    ui.main.get_by_role("heading", name="Comparing 6 Runs from 1 Experiment").wait_for()
    with (sweep / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    for metric, column in (("best_dice_val_mean", "dice_mean"), ("best_area_mad_mm2_mean", "area_mad_mm2_mean")):
        told = {row["branch"]: float(row[column]) for row in rows}
        shown = dict(zip(ui.compared("Run Name:"), ui.compared_metric(metric), strict=True))
        assert shown == pytest.approx(told, rel=1e-4, abs=1e-3)
    assert sorted(ui.compared("model.branch")) == sorted(BRANCHES)
    ui.picture("2_branches_compared")


def test_the_view_that_compares_configurations(ui: Ui) -> None:
    ui.open_experiment("branch_location")
    ui.view("2 Configurations compared")
    assert eventually(ui.names, list(BRANCHES)) == list(BRANCHES)
    for column in ("model.branch", "best_dice_val_mean", "best_area_mad_mm2_mean"):
        ui.grid.get_by_role("columnheader", name=column, exact=True).first.wait_for()
    ui.picture("3_configurations")
    ui.as_charts()
    for metric in ("best_dice_val_mean", "best_area_mad_mm2_mean"):
        assert eventually(lambda metric=metric: len(set(ui.bars(metric))), len(BRANCHES)) == len(BRANCHES)
    for metric in ("dice_val_mean", "area_mad_mm2_mean"):
        points = len(BRANCHES) * EPOCHS
        assert eventually(lambda metric=metric: ui.points(metric), points) == points
        assert ui.legend(metric) == list(BRANCHES)
    ui.picture("4_configurations_as_charts")


def test_the_view_of_the_sigmas(ui: Ui) -> None:
    ui.open_experiment("branch_location")
    ui.view("3 Learned weights of all folds")
    runs = [fold for branch in BRANCHES for fold in folds(branch)]
    assert eventually(ui.names, runs) == runs
    ui.as_charts()
    lines = len(runs) - FOLDS  # none learns no weights
    for metric in ("log_sigma2_seg", "log_sigma_reg", "weight_ratio"):
        assert eventually(lambda metric=metric: ui.points(metric), lines * EPOCHS) == lines * EPOCHS
        assert ui.legend(metric) == runs
        assert len(set(ui.lines(metric))) == lines
    assert ui.cut_names() == []
    ui.picture("5_sigmas_of_folds")
    ui.follow(runs[0])
    ui.tab("Model metrics")
    ui.find_charts("sigma")
    for metric in ("log_sigma2_seg", "log_sigma_reg"):
        assert eventually(lambda metric=metric: ui.points(metric), EPOCHS) == EPOCHS
        assert ui.legend(metric) == runs[:1]
    ui.picture("6_sigmas_of_a_fold")


def test_the_sweep_says_its_answer(ui: Ui, sweep: Path) -> None:
    ui.open_experiment("branch_location")
    ui.follow("branch_location")
    description = plain(ui.description())
    for line in (sweep / "verdict.md").read_text().splitlines():
        if not line.startswith("|"):
            assert plain(line) in description
    ui.picture("7_answer")
    ui.tab("Artifacts")
    for file in ("results.csv", "verdict.json", "verdict.md", "sigmas_by_epoch.png"):
        ui.main.get_by_text(file, exact=True).wait_for()
    ui.main.get_by_text("sigmas_by_epoch.png", exact=True).click()
    figure = ui.main.get_by_role("img", name="sigmas_by_epoch.png")
    assert eventually(lambda: figure.evaluate("(image) => image.naturalWidth > 0"), True)
    ui.picture("8_artifacts")
