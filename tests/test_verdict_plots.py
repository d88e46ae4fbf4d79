"""The verdict's pictures: what is drawn and in which order; that nothing lies on anything else; the same bytes."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mtl.figure_parts import BLUE, GREEN, GREY
from sweeps import verdict_plots
from sweeps.asked import label
from sweeps.verdict_parts import Against, Row, Verdict

BRANCHES = [{"model.branch": name} for name in ("none", "up4", "up3", "bottleneck", "up1", "up2")]
RATES = [{"optim.lr": 10.0**-n} for n in (4, 3, 2)]
SEARCH = [
    {
        "model.branch": f"up{n % 4 + 1}",
        "optim.lr": 0.0001 * 1.1**n,
        "weighting.kind": "fixed",
        "weighting.ratio": 3.0**n,
    }
    for n in range(40)
]


def judged(points: Any, dices: Any, areas: Any, half: float | None = 0.02, **how: Any) -> Verdict:
    """The best by Dice wins unless `tied` names others."""
    rows = []
    names = [f"c{n}" for n in range(len(points))]
    best = names[dices.index(max(dices))]
    for name, point, dice, area in zip(names, points, dices, areas, strict=True):
        bounds = (None, None) if half is None else (dice - half, dice + half)
        area_bounds = (None, None) if half is None else (area - 1000 * half, area + 1000 * half)
        against = None if name == best else Against(dice - max(dices), None, None, apart=True, unlike=False)
        figures = (dice, *bounds, dice, *bounds, area, *area_bounds)
        rows.append(Row(name, label(point), point, "done", "", 5, *figures, against, None))
    known: dict[str, Any] = {
        "answer": "", "question": "", "setting": "", "winner": best, "best": best, "tied": (), "more_patients": None,
        "paper_choice": None, "metric": "dice_val", "selection": "validation", "level": 0.99,
        "comparisons": len(rows) * (len(rows) - 1) // 2, "patients": 20, "dropped": 0, "complete": True,
        "more_to_come": False, "configurations": tuple(rows), "leave_one_fold_out": (), "test": None, "optimism": None,
        "unlike": (), "lost": (), "halved": (), "pareto": (best,),
    }  # fmt: skip
    return Verdict(**known | how)


def six(**how: Any) -> Verdict:
    return judged(BRANCHES, (0.84, 0.85, 0.89, 0.86, 0.87, 0.90), (340, 250, 260, 300, 280, 300), **how)


def rendered(figure: Figure) -> Any:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def ticks(figure: Figure, panel: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].get_yticklabels()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def colours(figure: Figure) -> list[str]:
    """Of the means of the first panel, in their order."""
    return [to_hex(line.get_color()).upper() for line in figure.axes[0].lines if line.get_marker() == "o"]


def test_branches_stand_in_the_networks_order_and_others_as_proposed() -> None:
    v = six()
    assert ticks(verdict_plots.means(v, v.configurations)) == ["bottleneck", "up1", "up2", "up3", "up4", "none"]
    v = judged(SEARCH, [0.8 + n / 1000 for n in range(40)], [200.0] * 40)
    assert ticks(verdict_plots.means(v, v.configurations))[:2] == [label(SEARCH[0]), label(SEARCH[1])]


def test_colours_say_how_each_stands_to_the_best() -> None:
    v = six(tied=("c2",), winner=None, paper_choice="c1")
    figure = verdict_plots.means(v, v.configurations)
    assert colours(figure) == [GREY, GREY, GREEN.upper(), BLUE.upper(), GREY, GREY]
    assert legend(figure) == ["best", "cannot be told from it", "behind it", "paper's choice"]
    assert [line.get_marker() for line in figure.axes[0].lines].count("D") == 1
    assert legend(verdict_plots.means(six(), six().configurations)) == ["winner", "behind it"]


def test_a_searched_number_is_an_axis_logarithmic_where_it_spans_decades() -> None:
    v = judged(RATES, (0.8, 0.9, 0.7), (300, 200, 400))
    figure = verdict_plots.means(v, v.configurations)
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "log"]
    assert figure.axes[0].get_xlabel() == "optim.lr"
    widths = judged([{"model.width": n} for n in (8, 16, 32)], (0.8, 0.9, 0.7), (300, 200, 400))
    assert verdict_plots.means(widths, widths.configurations).axes[0].get_xscale() == "linear"
    kinds = judged([{"weighting.kind": "learned"}, {"weighting.kind": "equal"}], (0.8, 0.9), (300, 200))
    assert ticks(verdict_plots.means(kinds, kinds.configurations)) == ["kind learned", "kind equal"]


def test_what_failed_altogether_hides_nothing_and_is_told_in_numbers() -> None:
    v = judged(BRANCHES, (0.1, 0.85, 0.89, 0.86, 0.87, 0.90), (180_000, 250, 260, 300, 280, 300))
    figure = verdict_plots.means(v, v.configurations)
    assert figure.axes[0].get_xlim()[0] > 0.8
    assert figure.axes[1].get_xlim()[1] < 400
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["0.100", "180,000"]
    assert verdict_plots.tradeoff(v, v.configurations).axes[0].get_ylim()[1] < 400


def test_the_front_is_a_step_line_through_those_that_none_beats() -> None:
    v = six(pareto=("c5", "c2", "c1"))
    figure = verdict_plots.tradeoff(v, v.configurations)
    (front,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert (list(front.get_xdata()), list(front.get_ydata())) == ([0.85, 0.89, 0.90], [250, 260, 300])
    assert front.get_drawstyle() == "steps-pre"
    assert legend(figure)[-1] == "front: beaten by none in both"
    assert "front" not in " ".join(legend(verdict_plots.tradeoff(six(), six().configurations)))


def test_of_many_only_the_front_has_names() -> None:
    v = judged(SEARCH, [0.8 + n / 1000 for n in range(40)], [200.0 + n for n in range(40)], pareto=("c0", "c39"))
    names = legend(verdict_plots.tradeoff(v, v.configurations))
    assert names == [label(SEARCH[0]), f"{label(SEARCH[39])} (winner)", "38 others", "front: beaten by none in both"]
    lines = verdict_plots.tradeoff(six(), six().configurations).axes[0].lines
    looks = {(line.get_color(), line.get_marker()) for line in lines if line.get_marker() != "None"}
    assert len(looks) == 6


def tick_labels(axis: Any) -> list[Any]:
    """Those within the limits: beyond them matplotlib keeps some that it does not draw."""
    low, high = sorted(axis.get_view_interval())
    ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    return [text for place, text in ticks if low <= place <= high]


@pytest.mark.parametrize("points", [BRANCHES, BRANCHES[:2], BRANCHES[:1], SEARCH, RATES])
def test_no_label_lies_on_another_or_beyond_the_picture(points: Any) -> None:
    count = len(points)
    v = judged(points, [0.85 + 0.001 * n for n in range(count)], [200.0 + n for n in range(count)])
    v = replace(v, pareto=tuple(row.configuration for row in v.configurations))
    for figure in (verdict_plots.means(v, v.configurations), verdict_plots.tradeoff(v, v.configurations)):
        renderer = rendered(figure)
        page = Bbox.from_extents(0, 0, *figure.canvas.get_width_height())
        shown = [text for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for text in tick_labels(axis)]
        shown += [text for one in figure.legends for text in one.get_texts()]
        boxes = [text.get_window_extent(renderer) for text in shown if text.get_text()]
        for a, b in combinations(boxes, 2):
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            assert not (across > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 3)
        for text in figure.legends[0].get_texts():
            box = text.get_window_extent(renderer)
            assert page.x0 <= box.x0
            assert box.x1 <= page.x1


def test_unbounded_intervals_are_arrows() -> None:
    v = six(half=None)
    figure = verdict_plots.means(v, v.configurations)
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert (markers.count("<"), markers.count(">")) == (6, 6)
    rendered(verdict_plots.tradeoff(v, v.configurations))


def test_what_is_not_done_is_not_drawn_and_the_files_are_the_same_again(tmp_path: Path) -> None:
    v = six()
    first, *rest = v.configurations
    v = replace(v, configurations=(replace(first, dice_mean=None, area_mad_mm2_mean=None, status="failed"), *rest))
    assert verdict_plots.write(v, tmp_path) == ["means.png", "tradeoff.png"]
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    verdict_plots.write(v, tmp_path)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600, 0o600]
    assert "none" not in legend(verdict_plots.tradeoff(v, rest))
    assert verdict_plots.write(replace(v, configurations=v.configurations[:1]), tmp_path) == []
