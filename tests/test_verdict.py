"""The verdict of a sweep, from run folders with drawn figures."""

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl import figures, report
from mtl.runfolder import RunFolder
from mtl.slices import fold_of_subjects
from mtl.statistics import mean_interval_by_patient
from sweeps import asked, judgement, verdict, verdict_text
from sweeps.verdict_parts import Verdict
from tests.reporting import BASE, write_measured, write_runs, write_sweep

BRANCHES = [{"model.branch": name} for name in ("bottleneck", "up1", "up2", "up3", "up4", "none")]
CLEAR = (0.86, 0.87, 0.90, 0.85, 0.85, 0.84)
CLOSE = (0.86, 0.87, 0.90, 0.897, 0.85, 0.84)
SETTING = "On made-up patients, trained briefly:"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """up2 clearly best, of 45 patients; copied by who changes it."""
    folder = tmp_path_factory.mktemp("runs") / "clear"
    write_sweep(folder, BRANCHES, CLEAR, patients=45, optimism=0.02, setting=SETTING, question="Where?")
    return folder


@pytest.fixture
def clear(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "clear")


def swept(folder: Path, points: Any = BRANCHES, dices: Any = CLEAR, **how: Any) -> Verdict:
    write_sweep(folder, points, dices, **{"patients": 20, **how})
    return verdict.write(folder, plots=False)


def by_label(v: Verdict) -> dict[str, Any]:
    return {row.label: row for row in v.configurations}


def change_done(folder: Path, **facts: Any) -> None:
    path = folder / "DONE"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def json_of(folder: Path) -> dict[str, Any]:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} in verdict.json")

    return dict(json.loads((folder / "verdict.json").read_text(), parse_constant=refuse))


# The answer


def test_a_clear_winner_is_called(made: Path) -> None:
    v = verdict.read(made)
    assert v.answer == f"{SETTING} up2 segments best (Dice 0.921), apart from all others at 99 %."
    assert (v.winner, v.best, v.tied, v.more_patients) == ("branch-up2-0", "branch-up2-0", (), None)
    assert (v.comparisons, v.patients, v.complete, v.level) == (15, 45, True, 0.99)
    rows = by_label(v)
    assert rows["up2"].against_best is None
    assert all(rows[name].against_best.apart for name in ("bottleneck", "up1", "up3", "up4", "none"))
    assert rows["up1"].against_best.difference == pytest.approx(rows["up1"].mean - rows["up2"].mean)
    assert v.pareto == ("branch-up2-0",)


def test_close_ones_are_not_told_apart_and_more_patients_would_settle_it(tmp_path: Path) -> None:
    v = swept(tmp_path, dices=CLOSE)
    assert (v.winner, v.best, v.tied) == (None, "branch-up2-0", ("branch-up3-0",))
    assert v.more_patients is not None
    assert v.more_patients > 20
    assert v.answer.startswith("up2 and up3 (best first; Dice 0.896 to 0.894) cannot be told apart on these data; ")
    assert re.search(
        r"about [\d,]+ more patients would settle it, if the differences are what they look like", v.answer
    )


def test_names_with_commas_are_told_from_each_other_by_semicolons(tmp_path: Path) -> None:
    points = [{"model.branch": "up2", "optim.lr": lr} for lr in (0.01, 0.001, 0.0001)]
    v = swept(tmp_path, points, (0.9, 0.8995, 0.899))
    assert re.match(r"up2, lr [\d.]+; up2, lr [\d.]+ and up2, lr [\d.]+ \(best first; ", v.answer)


def test_equal_configurations_are_never_settled(tmp_path: Path) -> None:
    write_sweep(tmp_path, BRANCHES[:2], CLEAR[:2])
    for k in range(5):
        for name in ("volumes.csv", "slices.csv"):
            shutil.copy(tmp_path / f"branch-up1-0/fold_{k}/{name}", tmp_path / f"branch-bottleneck-0/fold_{k}/{name}")
    v = verdict.write(tmp_path, plots=False)
    assert (v.winner, v.more_patients) == (None, None)
    assert "no number of patients that is to be had would settle it" in v.answer
    assert json_of(tmp_path)["more_patients"] is None


def test_the_smaller_area_error_wins_where_that_is_asked(tmp_path: Path) -> None:
    v = swept(tmp_path, metric="area_mad_mm2", patients=45)
    assert v.best == "branch-up2-0"
    assert re.match(r"up2 has the smallest area error \(\d+ mm2\), apart from all others", v.answer)
    row = by_label(v)["up2"]
    assert (row.mean, row.low, row.high) == (row.area_mad_mm2_mean, row.area_mad_mm2_low, row.area_mad_mm2_high)
    assert by_label(v)["none"].against_best.difference > 0


def test_a_sweep_of_one_has_nothing_to_compare_but_its_figures(tmp_path: Path) -> None:
    v = swept(tmp_path, BRANCHES[:1], CLEAR[:1])
    assert re.match(r"bottleneck reached Dice 0\.\d+; with one configuration there is nothing to compare\.$", v.answer)
    assert (v.winner, v.best, v.comparisons, v.leave_one_fold_out) == (None, "branch-bottleneck-0", 0, ())
    assert v.test is not None
    assert v.test.dice.low is not None


@pytest.mark.parametrize("patients", [1, 3])
def test_very_few_patients_say_nothing_in_words(patients: int, tmp_path: Path) -> None:
    write_sweep(tmp_path, BRANCHES[:2], CLEAR[:2], patients=5)
    names = sorted(f"P{p:03}" for p in range(5))[patients:]
    for path in tmp_path.glob("*/fold_*/*.csv"):
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line for line in lines if line.split(",")[0] not in names) + "\n")
    v = verdict.write(tmp_path)
    assert v.winner is None
    assert f"{patients} patient{'s' * (patients > 1)} say nothing at 99 %" in v.answer
    assert "unbounded" in v.text
    assert by_label(v)["up1"].mean is not None
    bounds = [row["against_best"] and row["against_best"]["low"] for row in json_of(tmp_path)["configurations"]]
    assert bounds == [None, None]


# Its figures


def test_means_are_those_of_the_selection_patients_with_intervals_by_patient(made: Path) -> None:
    rows = [
        (float(cells[5]), cells[0])
        for k in range(5)
        for line in (made / f"branch-up1-0/fold_{k}/volumes.csv").read_text().splitlines()[1:]
        if (cells := line.split(","))[2] == "validation"
    ]
    wanted = mean_interval_by_patient([value for value, _ in rows], [patient for _, patient in rows])
    row = by_label(verdict.read(made))["up1"]
    assert (row.dice_mean, row.dice_low, row.dice_high) == pytest.approx((wanted.mean, wanted.low, wanted.high))
    # Areas are off by 2,000 mm2 x (1 - Dice), of the regression path or, of `none`, of the segmentation.
    for one in verdict.read(made).configurations:
        assert one.area_mad_mm2_mean == pytest.approx(2000 * (1 - one.dice_mean), rel=0.001)


def test_test_figures_stand_apart_with_the_optimism(made: Path) -> None:
    v = verdict.read(made)
    assert v.test is not None
    assert v.optimism is not None
    assert v.test.configuration == v.optimism.configuration == "branch-up2-0"
    assert v.test.dice.mean == pytest.approx(by_label(v)["up2"].mean - v.optimism.dice.mean)
    low, high = v.optimism.dice.low, v.optimism.dice.high
    assert low is not None
    assert high is not None
    assert low < 0.02 < high < 0.03
    assert v.optimism.area_mad_mm2.mean == pytest.approx(-2000 * v.optimism.dice.mean)
    assert "the optimism of having chosen" in v.text


def test_selected_on_test_there_are_no_test_figures(tmp_path: Path) -> None:
    v = swept(tmp_path, selection="test")
    assert (v.test, v.optimism, v.selection) == (None, None, "test")
    assert v.best == "branch-up2-0"
    assert "these figures are optimistic, and there are no others" in " ".join(v.text.split())
    assert json_of(tmp_path)["test"] is None


@pytest.mark.parametrize(
    ("points", "choice"),
    [
        (BRANCHES, "branch-up4-0"),
        (BRANCHES[:3], None),
        ([{"optim.lr": 0.01}, {"optim.lr": 0.001}], "lr-0.001-0"),
        ([{"weighting.kind": "equal"}, {"weighting.kind": "learned"}], "kind-learned-0"),
        ([{"weighting.kind": "fixed", "weighting.ratio": 1556.0}, {"weighting.kind": "equal"}], None),
        ([{"protocol.train_fraction": share, "model.branch": "up4"} for share in (1.0, 0.5)],
         "train_fraction-1.0_branch-up4-0"),
    ],
)  # fmt: skip
def test_the_papers_choice_is_at_its_defaults_in_all_that_is_searched(
    points: Any, choice: str | None, tmp_path: Path
) -> None:
    v = swept(tmp_path, points, [0.8 + 0.01 * n for n in range(len(points))], patients=6)
    assert v.paper_choice == choice
    for row in v.configurations:
        assert (row.against_paper is None) == (choice is None or row.configuration == choice)


def test_what_is_set_beside_the_search_is_not_the_papers_choice_either(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"optim.lr": 0.001}, {"optim.lr": 0.01}], (0.8, 0.9))
    for path in tmp_path.glob("*/fold_*/config.yaml"):
        path.write_text(path.read_text().replace("kind: learned", "kind: equal"))
    assert verdict.read(tmp_path).paper_choice is None


def test_a_fold_that_decides_is_named(tmp_path: Path) -> None:
    """up1 is ahead only by fold 2's networks, which segment fold 3's patients far better."""
    write_sweep(tmp_path, BRANCHES[1:3], (0.85, 0.85))
    patients = [f"P{p:03}" for p in range(20)]
    of_subject = fold_of_subjects(patients, [""] * 20, 5, 0)
    rng = np.random.default_rng(0)
    for name, gain in (("up1", 0.1), ("up2", 0.0)):
        for k in range(5):
            mine = [p for p in patients if of_subject[p] == (k + 1) % 5]
            base = 0.8 + (gain if k == 2 else -gain / 20)
            rows = [(p, 0, "validation", base + rng.normal(0, 0.001)) for p in mine]
            rows += [(p, 0, "test", 0.8) for p in patients if of_subject[p] == k]
            folder = tmp_path / f"branch-{name}-0" / f"fold_{k}"
            shutil.rmtree(folder)
            write_measured(folder, rows, {"model.branch": name}, k)
    v = verdict.write(tmp_path, plots=False)
    assert v.best == "branch-up1-0"
    assert [one.changed for one in v.leave_one_fold_out] == [False, False, True, False, False]
    assert (v.leave_one_fold_out[2].best, v.leave_one_fold_out[2].winner) == ("branch-up2-0", "branch-up2-0")
    assert v.answer.endswith("It hangs on single folds' patients: without fold 2 up2 would win.")


def test_no_fold_decides_a_clear_case(made: Path) -> None:
    v = verdict.read(made)
    assert [(one.fold, one.winner, one.changed) for one in v.leave_one_fold_out] == [
        (k, "branch-up2-0", False) for k in range(5)
    ]
    assert "Leaving out any one fold's patients changes neither" in v.text


def test_the_order_of_rows_and_of_configurations_changes_nothing(clear: Path) -> None:
    before = verdict.write(clear, plots=False)
    written = json_of(clear)
    for path in clear.glob("*/fold_*/*.csv"):
        head, *lines = path.read_text().splitlines()
        path.write_text("\n".join([head, *reversed(lines)]) + "\n")
    assert verdict.write(clear, plots=False) == before
    told = asked.read(clear)
    replace(told, configurations=told.configurations[::-1]).write(clear)
    after = verdict.write(clear, plots=False)
    again = json_of(clear)
    again["configurations"] = again["configurations"][::-1]
    assert again == written
    assert after.text == before.text


# Like with like, and what is not there


def test_a_fold_trained_unlike_is_named_and_no_winner_called_on_it(clear: Path) -> None:
    change_done(clear / "branch-up3-0" / "fold_1", code="ffff")
    v = verdict.write(clear, plots=False)
    assert v.winner is None
    assert v.unlike == ({"fold": "branch-up3-0/fold_1", "what": "code ffff instead of 0123456789ab"},)
    assert "no winner is called; same_code=true trains them again" in v.answer
    rows = by_label(v)
    assert [rows[name].against_best.unlike for name in ("up1", "up3", "none")] == [False, True, False]
    assert "unlike" in next(line for line in v.text.splitlines() if line.startswith("up3 "))
    assert "Trained unlike the others, code ffff instead of 0123456789ab: branch-up3-0/fold_1." in v.text
    assert v.leave_one_fold_out[1].winner is None  # as for all other folds: it is compared still


def test_folds_unlike_in_the_same_way_are_compared(clear: Path) -> None:
    """Fold 3 of every configuration ran on another machine: like is paired with like."""
    for folder in clear.glob("*/fold_3"):
        change_done(folder, device="NVIDIA H100")
    v = verdict.write(clear, plots=False)
    assert v.winner == "branch-up2-0"
    assert len(v.unlike) == 6
    assert v.unlike[0]["what"] == "device NVIDIA H100 instead of cpu"


def test_a_searched_precision_makes_nothing_unlike(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"train.precision": "float32"}, {"train.precision": "bf16"}], (0.85, 0.9))
    for folder in tmp_path.glob("precision-bf16*/fold_*"):
        change_done(folder, precision="bf16")
    v = verdict.write(tmp_path, plots=False)
    assert (v.winner, v.unlike) == ("precision-bf16-0", ())


def test_lost_files_are_named_and_the_fold_not_taken_for_done(clear: Path) -> None:
    (clear / "branch-none-0/fold_4/best.pt").unlink()
    v = verdict.write(clear, plots=False)
    assert v.lost == ({"fold": "branch-none-0/fold_4", "files": ["best.pt"]},)
    assert (v.winner, v.complete, by_label(v)["none"].status) == (None, False, "incomplete")
    assert v.answer == f"{SETTING} no answer yet, since none is not done; so far up2 is best (Dice 0.921)."
    assert "Files lost: branch-none-0/fold_4: best.pt" in v.text


def test_no_winner_before_all_is_done_but_figures(clear: Path) -> None:
    run = RunFolder(clear / "branch-up4-0" / "fold_2")
    run.finish("FAILED", "out of memory")
    v = verdict.write(clear, plots=False)
    assert (v.winner, v.best, v.complete, v.paper_choice) == (None, "branch-up2-0", False, None)
    assert v.answer.startswith(f"{SETTING} no answer yet, since up4 failed; so far up2 is best")
    assert by_label(v)["up1"].against_best.apart
    assert (by_label(v)["up4"].mean, by_label(v)["up4"].reason) == (None, "out of memory")
    assert "Not compared: up4, failed, 4 folds done: out of memory." in v.text


def test_what_was_stopped_early_is_listed_and_not_compared(clear: Path) -> None:
    for k in (3, 4):
        RunFolder(clear / f"branch-none-0/fold_{k}").finish("STOPPED", "behind up2", by="racing")
    v = verdict.write(clear, plots=False)
    assert (v.winner, v.complete, v.comparisons) == ("branch-up2-0", True, 10)
    assert (by_label(v)["none"].status, by_label(v)["none"].against_best) == ("stopped", None)
    assert "Stopped early and not compared: none (behind up2)." in v.text
    for name in ("bottleneck", "up1", "up3", "up4"):
        RunFolder(clear / f"branch-{name}-0/fold_0").finish("STOPPED", "behind")
    alone = verdict.write(clear, plots=False)
    assert alone.winner is None
    assert "the other 5 were stopped early, so that there is nothing to compare" in alone.answer


def test_more_configurations_to_come_are_no_answer(clear: Path) -> None:
    replace(asked.read(clear), complete=False).write(clear)
    v = verdict.write(clear, plots=False)
    assert (v.winner, v.complete) == (None, False)
    assert "no answer yet, since more configurations are to come; so far up2 is best" in v.answer


def test_nothing_done_is_said(tmp_path: Path) -> None:
    write_sweep(tmp_path, BRANCHES[:2], CLEAR[:2])
    for path in tmp_path.glob("*/fold_0/DONE"):
        path.unlink()
    v = verdict.write(tmp_path)
    assert v.answer == "no answer yet, since bottleneck, up1 are not done."
    assert (v.best, v.plots, v.patients) == (None, (), 0)


def test_half_micro_batches_are_named(clear: Path) -> None:
    change_done(clear / "branch-up1-0/fold_0", micro_batches=2)
    v = verdict.write(clear, plots=False)
    assert v.halved == ("branch-up1-0/fold_0",)
    assert "Trained in half micro-batches for want of memory: branch-up1-0/fold_0." in v.text


def test_volumes_that_one_lacks_are_dropped_and_counted(clear: Path) -> None:
    table = clear / "branch-up3-0/fold_0/volumes.csv"
    head, first, _, *rest = table.read_text().splitlines()
    cells = first.split(",")
    cells[5] = ""
    table.write_text("\n".join([head, ",".join(cells), *rest]) + "\n")
    v = verdict.write(clear, plots=False)
    assert v.dropped == 2  # one row is gone, another has no Dice
    assert "2 volumes or slices have no figure in some configuration" in v.text
    assert v.winner == "branch-up2-0"


def test_without_sweep_json_the_folders_are_the_sweep(clear: Path) -> None:
    (clear / "sweep.json").unlink()
    v = verdict.write(clear, plots=False)
    assert (v.winner, v.paper_choice, len(v.configurations)) == ("branch-up2-0", "branch-up4-0", 6)


# Files


def test_the_command_writes_its_files_for_the_owner_alone_and_the_same_again(
    clear: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clear / "verdict").mkdir()
    (clear / "verdict" / "old.png").touch()
    assert verdict.main([str(clear)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(SETTING)
    paths = [clear / name for name in ("verdict.json", "verdict.md", "verdict/means.png", "verdict/tradeoff.png")]
    assert sorted((clear / "verdict").iterdir()) == paths[2:]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    before = [path.read_bytes() for path in paths]
    told = verdict.write(clear)
    assert [path.read_bytes() for path in paths] == before
    assert printed.out == told.text + "\n"
    assert told.plots == ("verdict/means.png", "verdict/tradeoff.png")
    assert verdict.write(clear, plots=False).plots == ()
    assert list((clear / "verdict").iterdir()) == []


def test_verdict_json_has_the_contracts_keys(clear: Path) -> None:
    verdict.write(clear, plots=False)
    told = json_of(clear)
    keys = re.findall(r"^    ([a-z_]+(?:, [a-z_]+)*)  +\S", verdict.__doc__ or "", re.MULTILINE)
    assert set(told) == {name for key in keys for name in key.split(", ")}
    row = told["configurations"][0]
    assert set(row) == {
        "configuration", "label", "point", "status", "reason", "folds_done", "mean", "low", "high",
        "dice_mean", "dice_low", "dice_high", "area_mad_mm2_mean", "area_mad_mm2_low", "area_mad_mm2_high",
        "against_best", "against_paper",
    }  # fmt: skip
    assert set(row["against_best"]) == {"difference", "low", "high", "apart", "unlike"}
    assert set(told["leave_one_fold_out"][0]) == {"fold", "best", "winner", "changed"}
    assert set(told["test"]["dice"]) == {"mean", "low", "high"}
    assert told["answer"].startswith(told["setting"])
    assert math.isfinite(row["mean"])


def test_the_markdown_has_the_answer_first_then_a_table(clear: Path) -> None:
    v = verdict.write(clear, plots=False)
    blocks = (clear / "verdict.md").read_text().split("\n\n")
    assert blocks[0] == "# Where?"
    assert blocks[1] == f"**{v.answer}**"
    head, rule, *rows = blocks[2].splitlines()
    assert head == "| configuration | Dice [99 %] | minus up2 | minus up4, the paper's choice |"
    assert {line.count("|") for line in (head, rule, *rows)} == {5}
    assert rows[0].startswith("| up2 |")
    assert blocks[3].startswith("- Test figures of up2")
    assert "P0" not in (clear / "verdict.md").read_text() + (clear / "verdict.json").read_text()  # no patient's name


def test_no_heavy_library_is_imported_where_nothing_is_drawn(clear: Path) -> None:
    code = (
        "import sys; from sweeps import verdict; assert verdict.main([sys.argv[1], '--no-plots']) == 0;"
        "print({'torch', 'ray', 'mlflow', 'matplotlib', 'optuna', 'zarr'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(clear)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nset()\n")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: f.with_name("nowhere"), r"nowhere: no such folder; wanted a sweep's"),
        (lambda f: f / "branch-up1-0/fold_0", r"fold_0: no configuration in it; wanted a sweep's folder"),
        (lambda f: (f / "sweep.json").write_text("{"), r"sweep.json: damaged, or of another version"),
        (lambda f: (f / "branch-up1-0/fold_1/DONE").write_text("{"), r"fold_1/DONE: damaged .*run the sweep again"),
        (lambda f: (f / "branch-up1-0/fold_0/config.yaml").write_text("a: ["), r"config.yaml: damaged .*remove"),
        (lambda f: (f / "branch-up1-0/fold_1/volumes.csv").write_text("a\n"), r"volumes.csv: damaged .'set' is not in"),
        (lambda f: cut(f / "branch-up1-0/fold_1/slices.csv"), r"slices.csv: damaged .its end is missing.; remove"),
        (lambda f: twice(f / "branch-up1-0/fold_1/volumes.csv"), r"branch-up1-0: a volume comes twice among its folds"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(
    harm: Any, message: str, clear: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = harm(clear)
    assert verdict.main([str(named if isinstance(named, Path) else clear)]) == 2
    told = capsys.readouterr()
    assert re.search(message, told.err)
    assert (told.err.count("\n"), told.out) == (1, "")
    assert not list(clear.parent.rglob("verdict*"))


def cut(table: Path) -> None:
    table.write_text(table.read_text()[:-8])


def twice(table: Path) -> None:
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")


# In the report


def test_the_report_shows_a_named_sweeps_verdict_first(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "drawn", lambda trained, others: iter(()))
    runs = write_runs(tmp_path / "sweep", patients=5, phases=1, levels=4, configs=(BASE,))
    report.report([runs], tmp_path / "without")
    assert "erdict" not in (tmp_path / "without" / "report.html").read_text()
    v = verdict.read(made)
    (runs / "verdict.md").write_text(verdict_text.markdown(replace(v, question="Where <b>?")))
    (runs / "verdict").mkdir()
    Image.new("RGB", (4, 3)).save(runs / "verdict" / "means.png")
    page = report.report([runs], tmp_path / "with").read_text()
    places = [
        page.index(text)
        for text in (
            "<h2>Where &lt;b&gt;?</h2>",
            f"<p><strong>{v.answer}</strong></p>",
            "<th>Dice [99 %]</th><th>minus up2</th>",
            "<li>Test figures of up2",
            "data:image/png;base64,",
            "<h2>Tables</h2>",
        )
    ]
    assert places == sorted(places)
    assert page.count("data:image/png;base64,") == 1
    report.report([next(runs.glob("branch-up4-*"))], tmp_path / "one")  # a configuration is no sweep
    assert "erdict" not in (tmp_path / "one" / "report.html").read_text()


@pytest.mark.parametrize(
    ("bound", "metric", "difference", "told"),
    [
        (-0.04, "dice_val", False, 0.0),
        (1.2, "dice_val", False, 1.0),
        (0.8, "dice_val", False, 0.8),
        (77.6, "dice_val", True, 1.0),
        (-77.6, "dice_val", True, -1.0),
        (-5.0, "area_mad_mm2", False, 0.0),
        (-5.0, "area_mad_mm2", True, -5.0),
        (math.inf, "dice_val", False, None),
    ],
)
def test_no_interval_reaches_beyond_what_can_be(
    bound: float, metric: str, difference: bool, told: float | None
) -> None:
    assert judgement._within(bound, metric, difference=difference) == told
