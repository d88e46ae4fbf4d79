"""The report's figures: what is drawn, what is left out and said so, and that files do not change without reason."""

import itertools
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reporting
from matplotlib.figure import Figure
from matplotlib.text import Text

from mtl import figure_training, figures, function, results
from mtl.config import Model
from mtl.figure_parts import PAPER_STYLE, ceiling, mean_of, reach
from mtl.figures import FIGURES, figure2_means, figure3_areas, figure4a_boxes, figure4b_intervals
from mtl.results import Trained
from mtl.statistics import bland_altman, pearson

NAN = float("nan")
RESULTS = ("figure2_means", "figure3_areas", "figure4a_boxes", "figure4b_intervals", "mass")
"""drawn from volumes.csv and slices.csv"""
KINDS = ("png", "pdf")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Trained]:
    """The paper's baseline and its network, ten patients."""
    return results.load([reporting.write_runs(tmp_path_factory.mktemp("runs"))])


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> list[Trained]:
    configs = tuple(replace(reporting.BASE, model=Model(branch=name)) for name in ("up1", "up2", "up3", "none"))
    return results.load([reporting.write_runs(tmp_path_factory.mktemp("branches"), 5, 1, 4, configs)])


def of_patients(one: Trained, count: int) -> Trained:
    """The same with its first patients only."""
    names = sorted(set(one.volumes.patient_V.tolist()))[:count]
    keep_V, keep_S = np.isin(one.volumes.patient_V, names), np.isin(one.areas.patient_S, names)
    metric_V = {name: value_V[keep_V] for name, value_V in one.volumes.metric_V.items()}
    volume_V = {name: value_V[keep_V] for name, value_V in vars(one.volumes).items() if name != "metric_V"}
    area_S = {name: value_S[keep_S] for name, value_S in vars(one.areas).items()}
    return replace(one, volumes=results.Volumes(**volume_V, metric_V=metric_V), areas=results.Areas(**area_S))


def with_areas(one: Trained, **columns: np.ndarray) -> Trained:
    return replace(one, areas=replace(one.areas, **columns))


def with_missed(one: Trained, count: int) -> Trained:
    """The same, but that nothing was predicted of the first volumes."""
    metric_V = {name: value_V.copy() for name, value_V in one.volumes.metric_V.items()}
    for name, value_V in metric_V.items():
        value_V[:count] = 0 if name in ("dice", "jaccard") else NAN
    return replace(one, volumes=replace(one.volumes, metric_V=metric_V))


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def markers(figure: Figure, kind: str) -> int:
    """How many points are drawn with a marker, legends apart."""
    return sum(line.get_marker() == kind for ax in figure.axes for line in ax.lines)


def all_of(trained: Sequence[Trained]) -> dict[str, Figure]:
    return {name: figure for name, figure, _ in figures.drawn(trained)}


# What there is


def test_figures_of_the_two_networks_in_the_reports_order(trained: list[Trained]) -> None:
    found = list(figures.drawn(trained))
    assert [name for name, _, _ in found] == [
        "figure2_means",
        "figure3_areas",
        "figure4a_boxes",
        "figure4b_intervals",
        "contours_0",
        "contours_1",
        "trajectories",
        "learning",
        "mass",
    ]
    assert all(len(caption) > 50 for _, _, caption in found)


def test_nothing_to_draw_is_none(trained: list[Trained]) -> None:
    baseline = trained[0]
    assert not baseline.regresses
    assert FIGURES["trajectories"][0]([baseline]) is None
    assert FIGURES["contours"][0]([replace(baseline, folds=())]) is None  # no kept case
    unknown_V = np.full_like(baseline.volumes.slice_spacing_mm_V, NAN)
    assert (
        FIGURES["mass"][0]([replace(baseline, volumes=replace(baseline.volumes, slice_spacing_mm_V=unknown_V))]) is None
    )
    assert FIGURES["mass"][0]([with_areas(baseline, is_ed_S=np.zeros_like(baseline.areas.is_ed_S))]) is None


@pytest.mark.parametrize("name", ["figure3_areas", "mass"])
def test_a_panel_a_source(name: str, trained: list[Trained], branches: list[Trained]) -> None:
    draw = FIGURES[name][0]
    for some, panels in ((trained[:1], 1), (trained, 3), (branches, 7)):
        figure = draw(some)
        assert figure is not None
        assert len(figure.axes) == panels == sum(len(one.sources) for one in some)


def test_neither_pyplot_nor_torch_is_needed() -> None:
    command = "import sys, mtl.figures; assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True, timeout=60)


# Numbers


def test_titles_have_the_statistics_numbers(trained: list[Trained]) -> None:
    areas, mass = figure3_areas(trained), FIGURES["mass"][0](trained)
    assert areas is not None
    assert mass is not None
    for one in trained:
        masses = function.mass(one)
        for kind, measured_S in one.sources.items():
            assert f"r = {pearson(one.areas.true_mm2_S, measured_S):.4f} (paper 0.9" in texts(areas)
            agreement = bland_altman(masses.true_P, masses.measured_P[kind])
            assert f"bias {agreement.bias:+.1f} g (10 patients)" in texts(mass)
            assert f"95 % limits {agreement.low:+.1f} to {agreement.high:+.1f} g" in texts(mass)


def test_the_papers_values_stand_beside_its_own_networks_only(trained: list[Trained], branches: list[Trained]) -> None:
    paper = str(PAPER_STYLE["marker"])
    for some, means, areas in ((trained, 2 * 4, 3 * 12), (branches[1:], 0, 0), (branches, 4, 12)):
        drawn = figure2_means(some), figure4b_intervals(some)
        assert [markers(figure, paper) for figure in drawn if figure] == [means, areas]
        assert all(("paper's mean" in texts(figure.legends[0].figure)) == (means > 0) for figure in drawn if figure)


def test_boxes_are_the_quartiles(trained: list[Trained]) -> None:
    figure = figure4a_boxes(trained[:1])
    assert figure is not None
    areas = trained[0].areas
    error_mm2 = np.abs(areas.seg_mm2_S - areas.true_mm2_S)[areas.among("ES", "mid")]
    (box,) = figure.axes[2 * 3 + 1].patches  # rows all, apical, mid; columns ED, ES
    sides = box.get_path().vertices[:, 0]
    assert (sides.min(), sides.max()) == pytest.approx(tuple(np.quantile(error_mm2, [0.25, 0.75])))


# What cannot be drawn


def test_volumes_left_out_are_counted(trained: list[Trained]) -> None:
    figure = figure2_means([with_missed(trained[0], 3), trained[1]])
    assert figure is not None
    assert ["3 left out" in "".join(text.get_text() for text in ax.texts) for ax in figure.axes] == [False] * 2 + [
        True
    ] * 4


def test_a_constant_regression_has_a_line_and_no_r(trained: list[Trained]) -> None:
    constant_S = np.full_like(trained[1].areas.reg_mm2_S, 1500.0)
    figure = figure3_areas([with_areas(trained[1], reg_mm2_S=constant_S)])
    assert figure is not None
    assert "y = 0.000 x + 1500 mm²" in figure.axes[0].get_title()
    assert "r =" not in figure.axes[0].get_title()
    assert "r =" in figure.axes[1].get_title()


@pytest.mark.parametrize("patients", [1, 2])
def test_few_patients_have_no_interval_or_an_arrow(patients: int, trained: list[Trained]) -> None:
    few = [of_patients(trained[1], patients)]
    drawn = {name: FIGURES[name][0](few) for name in RESULTS}
    for figure in drawn.values():
        assert figure is not None
        figure.draw_without_rendering()
        assert all(np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all() for ax in figure.axes)
    means = drawn["figure2_means"]
    assert means is not None
    assert ("1 patient" in texts(means)) == (patients == 1)
    assert markers(means, ">") == markers(means, "<") == (0 if patients == 1 else 6)
    low, high = means.axes[0].get_xlim()
    assert 0.5 < low < high < 1


def test_without_end_diastole_its_panels_are_empty(trained: list[Trained]) -> None:
    some = [with_areas(one, is_ed_S=np.zeros_like(one.areas.is_ed_S)) for one in trained]
    for figure, said in ((figure4a_boxes(some), "no slices"), (figure4b_intervals(some), "no values")):
        assert figure is not None
        assert [said in "".join(text.get_text() for text in ax.texts) for ax in figure.axes] == [True, False, False] * 4


def test_a_source_that_failed_does_not_hide_the_others(trained: list[Trained]) -> None:
    reg_mm2_S = trained[1].areas.reg_mm2_S * 1000
    some = [trained[0], with_areas(trained[1], reg_mm2_S=reg_mm2_S)]
    drawn = {name: figure for name in RESULTS if (figure := FIGURES[name][0](some))}
    for name in ("figure4a_boxes", "figure4b_intervals"):
        assert drawn[name].axes[0].get_xlim()[1] < 3000
        assert markers(drawn[name], ">") >= 12
    assert drawn["figure3_areas"].axes[1].get_ylim()[1] < 6000
    assert "210 beyond the axis" in texts(drawn["figure3_areas"])
    assert drawn["mass"].axes[0].get_ylim()[1] < 100
    assert "10 beyond the axis" in texts(drawn["mass"])


def test_limits_hold_means_bounds_and_the_papers_value() -> None:
    values = np.random.default_rng(0).gamma(4, 1, 200)
    mean = mean_of("a", np.append(values, [NAN, NAN]), np.arange(202) // 4, 9.0)
    by_volume, by_patient = mean.intervals
    assert by_volume is not None
    assert by_patient is not None
    low, high = reach([mean])
    assert low < min(by_volume.low, by_patient.low) < max(by_volume.high, by_patient.high) < 9.0 < high
    assert mean.dropped == 2
    assert reach([mean_of("none", np.array([NAN]), np.array(["p"]))])[0] < reach([])[1]
    assert ceiling([1.0, 1e6]) == 5
    assert ceiling([3.0, 1.0, 1e6]) == 15


def stub(*folds: list[dict[str, Any]]) -> tuple[Any, ...]:
    return tuple(SimpleNamespace(epochs=lambda records=records: records) for records in folds)


def test_a_loss_of_zero_and_an_epoch_alone_are_drawn(trained: list[Trained]) -> None:
    record = {"epoch": 1, "loss_seg_train": 0.0, "loss_area_train": None, "dice_val": 0.0, "area_mad_mm2": 20.0}
    figure = FIGURES["learning"][0]([replace(trained[0], folds=stub([record], [record, record]))])
    assert figure is not None
    figure.draw_without_rendering()
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "linear", "linear", "log"]
    assert "none" in texts(figure)


def test_trajectories_end_at_what_was_learned(trained: list[Trained]) -> None:
    figure = FIGURES["trajectories"][0](trained)
    assert figure is not None
    last = trained[1].epochs[0][-1]
    ends = [ax.lines[0].get_ydata()[-1] for ax in figure.axes]
    ratio = last["weight_seg"] / last["weight_reg"]
    assert ends == pytest.approx([last["log_sigma2_seg"], last["log_sigma_reg"], ratio])
    assert [ax.lines[-1].get_ydata()[0] for ax in figure.axes] == [-3.9, 3.45, 1556]


# Cases


def test_best_middling_and_worst_case(trained: list[Trained]) -> None:
    one = trained[0]
    median = np.median(one.volumes.metric_V["dice"])
    (best, best_case), (middling, case), (worst, worst_case) = figure_training.chosen(one)
    assert (best_case.dice, worst_case.dice) == (one.volumes.metric_V["dice"].max(), one.volumes.metric_V["dice"].min())
    assert abs(case.dice - median) == min(abs(kept.dice - median) for kept in one.cases)
    assert best.startswith("Best: P0")
    assert middling.startswith(f"Of the kept cases nearest to the median ({median:.3f}): {case.patient}, phase")
    assert worst.endswith(f"Dice {worst_case.dice:.3f}")


def test_a_case_alone_is_shown_once(trained: list[Trained]) -> None:
    one = replace(trained[0])
    vars(one)["cases"] = trained[0].cases[:1]
    ((title, _),) = figure_training.chosen(one)
    assert title.startswith("Best and of the kept cases nearest to the median")
    assert " and worst: " in title


def test_a_missed_case_has_no_predicted_contour(trained: list[Trained]) -> None:
    one, case = replace(trained[0]), trained[0].cases[0]
    vars(one)["cases"] = [replace(case, prediction_LYX=np.zeros_like(case.prediction_LYX))]
    figure = FIGURES["contours"][0]([one])
    assert figure is not None
    assert "nothing predicted at these levels" in texts(figure)
    assert [len(ax.collections) for ax in figure.axes] == [1, 1, 1]


def test_the_window_is_a_square_around_both_contours(trained: list[Trained]) -> None:
    case = trained[0].cases[0]
    mask_LYX = np.zeros_like(case.truth_LYX)
    truth_LYX, prediction_LYX = mask_LYX.copy(), mask_LYX.copy()
    truth_LYX[0, 100:120, 30:50] = True
    prediction_LYX[2, 110:112, 0:90] = True  # columns 0 to 89, rows 100 to 119
    left, right, bottom, top = figure_training.window(replace(case, truth_LYX=truth_LYX, prediction_LYX=prediction_LYX))
    assert right - left == bottom - top == pytest.approx(1.3 * 90 + 4)
    assert ((left + right) / 2, (top + bottom) / 2) == (44.5, 109.5)


# Files


def test_png_and_pdf_are_written_for_their_owner_with_the_same_bytes_twice(
    trained: list[Trained], tmp_path: Path
) -> None:
    first, second = (FIGURES["contours"][0](trained[1:]) for _ in range(2))
    assert first is not None
    assert second is not None
    for name, figure in (("first", first), ("again", first), ("second", second)):
        paths = figures.save(figure, tmp_path, name)
        assert paths == (tmp_path / f"{name}.png", tmp_path / f"{name}.pdf")
        assert [path.read_bytes() for path in paths] == [(tmp_path / f"first.{kind}").read_bytes() for kind in KINDS]
    png, pdf = ((tmp_path / f"first.{kind}").read_bytes() for kind in KINDS)
    assert png.startswith(b"\x89PNG")
    assert b"Software" not in png
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    assert len(list(tmp_path.iterdir())) == 6  # nothing else is left
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_a_scatter_of_lvscs_size_stays_small(trained: list[Trained], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true_mm2_S = rng.uniform(200, 3000, 26664)
    columns = {name: np.resize(value_S, 26664) for name, value_S in vars(trained[1].areas).items()}
    areas = {name: true_mm2_S + rng.normal(0, 200, 26664) for name in ("reg_mm2_S", "seg_mm2_S")}
    figure = figure3_areas([with_areas(trained[1], **columns | areas | {"true_mm2_S": true_mm2_S})])
    assert figure is not None
    png, pdf = figures.save(figure, tmp_path, "areas")
    assert png.stat().st_size < 1e6
    assert pdf.stat().st_size < 3e5  # 0.7 MB were its points not rasterized


def test_text_of_long_labels_stays_within_the_figure_and_apart(trained: list[Trained]) -> None:
    label = "MTN bottleneck, normalisation volume, train_fraction 0.25, width 32"
    some = [replace(trained[0], label=f"{label}, seed 1"), replace(trained[1], label=label)]
    for name, figure in all_of(some).items():
        figure.draw_without_rendering()
        ticks = {id(tick) for ax in figure.axes for tick in (*ax.get_xticklabels(), *ax.get_yticklabels())}
        boxes = [text.get_window_extent() for text in figure.findobj(is_written) if id(text) not in ticks]
        page = figure.bbox
        assert all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes), name
        titles = [ax.title.get_window_extent() for ax in figure.axes]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2)), name
        if name in ("figure2_means", "figure4a_boxes", "figure4b_intervals"):
            labels = [tick.get_window_extent() for tick in figure.axes[0].get_yticklabels()]
            assert not any(a.overlaps(b) for a, b in itertools.combinations(labels, 2)), name


def is_written(artist: Any) -> bool:
    return isinstance(artist, Text) and bool(artist.get_text().strip()) and artist.get_visible()


def test_conflict_is_drawn_of_what_was_diagnosed(trained: list[Trained]) -> None:
    cosines = {"grad_cosine": 0.2, "grad_cosine_down1": 0.4, "grad_cosine_bottleneck": -0.1, "grad_norm_ratio": 3.0}
    records = [{"epoch": 1, **cosines}, {"epoch": 2, **cosines, "grad_cosine": None, "grad_cosine_down1": None}]
    assert FIGURES["conflict"][0](trained) is None
    figure = FIGURES["conflict"][0]([trained[0], replace(trained[1], folds=stub(records, records[1:]))])
    assert figure is not None
    figure.draw_without_rendering()
    whole, ratio, by_level = figure.axes
    assert whole.lines[0].get_ydata() == pytest.approx([0.2, NAN], nan_ok=True)
    assert ratio.get_yscale() == "log"
    assert by_level.lines[0].get_ydata() == pytest.approx([0.4, -0.1])
    assert [label.get_text() for label in by_level.get_xticklabels()] == ["down1", "bottleneck"]


def test_the_learning_curve_has_a_line_for_each_network(tmp_path: Path) -> None:
    configs = tuple(
        replace(reporting.BASE, model=Model(branch=branch), protocol=replace(reporting.BASE.protocol, train_fraction=f))
        for branch in ("up4", "none")
        for f in (1.0, 0.25, 0.5)
    )
    made = results.load([reporting.write_runs(tmp_path, 10, 1, 4, configs)])
    figure = FIGURES["learning_curve"][0](made)
    assert figure is not None
    figure.draw_without_rendering()
    patients = 10 * (1 - 2 / reporting.BASE.train.folds)
    for ax in figure.axes:
        lines = [line for line in ax.lines if len(line.get_xdata()) == 3]
        assert len(lines) == 2
        for line in lines:
            assert line.get_xdata() == pytest.approx([patients * f for f in (0.25, 0.5, 1)], abs=0.05 * patients)
    dices = [made[k].volumes.metric_V["dice"].mean() for k in (0, 1, 2)]  # the baseline's
    by_fraction = sorted(range(3), key=lambda k: made[k].config.protocol.train_fraction)
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([dices[k] for k in by_fraction])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["U-Net", "MTN up4"]
    assert FIGURES["learning_curve"][0](made[:1] + made[3:4]) is None
