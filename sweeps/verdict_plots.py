"""A verdict's pictures: every configuration's means with intervals, and Dice against area error.

No pyplot, no display; sizes and colours are those of the report's figures (mtl/figure_parts.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from data_prep.files import atomic
from mtl.config import BRANCHES
from mtl.figure_parts import (
    BLACK,
    BLUE,
    DPI,
    GREEN,
    GREY,
    LINE_IN,
    ORANGE,
    PAPER_STYLE,
    PURPLE,
    SKY,
    SMALL_PT,
    VERMILLION,
    Style,
    arrow,
    blank,
    ceiling,
    grid,
    wrapped,
)
from sweeps.verdict_parts import Row, Verdict

AXES = {"dice": "Dice", "area_mad_mm2": "area error, mm2"}
"""fields of a Row begin with it; what an axis is called"""
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS = "osD^vP"
"""one fewer than the colours, so that both together repeat after 42"""
FEW, SHORT, LONG = 12, 26, 58
"""so many rows have room for labels of two lines; letters of a line where they are few and where they are many"""
LEGEND_LETTERS = 140
"""that stand beside each other in small type"""
FRONT: Style = {"color": BLACK, "linestyle": "--", "linewidth": 1.0}
DECADES = 10.0
"""A searched number that spans more than this factor has a logarithmic axis."""


@dataclass(frozen=True)
class Point:
    """A mean with its interval, whose bounds may be infinite."""

    mean: float
    low: float
    high: float


def write(v: Verdict, folder: Path) -> list[str]:
    """Draw what there is to draw; the files' names. The same verdict gives the same bytes."""
    rows = [row for row in v.configurations if row.dice_mean is not None and row.area_mad_mm2_mean is not None]
    if not rows:
        return []
    figures = {"means.png": means(v, rows), "tradeoff.png": tradeoff(v, rows)}
    for name, figure in figures.items():
        FigureCanvasAgg(figure)
        with atomic(folder / name) as temporary:
            temporary.touch(0o600)
            figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    return list(figures)


def means(v: Verdict, rows: Sequence[Row]) -> Figure:
    """Both means of every configuration: over the searched number where it is one, else a line each."""
    field = _searched_number(rows)
    draw = _over_number if field else _by_line
    figure = draw(v, rows, field)
    told = "Dice" if v.metric == "dice_val" else "area error"
    title = f"Means with {100 * v.level:g} % intervals by patient, on {v.selection} patients; told apart by {told}"
    figure.suptitle(title, fontsize=SMALL_PT)
    kinds = dict.fromkeys(_standing(v, row) for row in rows)
    handles = [Line2D([], [], **_style(kind), label=kind) for kind in STANDINGS if kind in kinds]
    if any(row.configuration == v.paper_choice for row in rows):
        handles.append(Line2D([], [], **PAPER_STYLE, label="paper's choice"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


STANDINGS = {"winner": GREEN, "best": GREEN, "cannot be told from it": BLUE, "behind it": GREY, "the only one": BLUE}
"""how a configuration stands to the best -> its colour"""


def _standing(v: Verdict, row: Row) -> str:
    if row.configuration == v.best:
        return "winner" if v.winner else "best" if v.comparisons else "the only one"
    return "cannot be told from it" if row.configuration in v.tied else "behind it"


def _style(standing: str) -> Style:
    return {"color": STANDINGS[standing], "marker": "o", "markersize": 5, "linewidth": 2.2, "solid_capstyle": "butt"}


def _searched_number(rows: Sequence[Row]) -> str | None:
    """The searched field, where it is a single one and a number with three values or more."""
    fields = {tuple(row.point) for row in rows}
    values = {value for row in rows for value in row.point.values()}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    (field, *others) = fields
    return str(field[0]) if not others and len(field) == 1 and numbers and len(values) > 2 else None


def _over_number(v: Verdict, rows: Sequence[Row], field: str | None) -> Figure:
    assert field is not None
    figure, axes = grid(2, 2, 3.6)
    x_of = {row.configuration: float(row.point[field]) for row in rows}
    for ax, of in zip(axes, AXES, strict=True):
        low, high = _limits(rows, of)
        ax.set_ylim(low, high)
        for row in rows:
            _draw(ax, v, row, of, x_of[row.configuration], vertical=True)
        if min(x_of.values()) > 0 and max(x_of.values()) / min(x_of.values()) >= DECADES:
            ax.set_xscale("log")
        ax.set_xlabel(field)
        ax.set_ylabel(AXES[of])
        ax.grid(color="#DDDDDD", linewidth=0.6)
    return figure


def _by_line(v: Verdict, rows: Sequence[Row], field: str | None) -> Figure:
    rows = _ordered(rows)
    labels = [wrapped(row.label, SHORT if len(rows) <= FEW else LONG) for row in rows]
    lines = max(1 + label.count("\n") for label in labels)
    row_in = max(0.36 if len(rows) <= FEW else 0.22, LINE_IN * lines + 0.06)
    figure, axes = grid(2, 2, 1.2 + row_in * len(rows))
    for ax, of in zip(axes, AXES, strict=True):
        ax.set_xlim(*_limits(rows, of))
        ax.set_ylim(len(rows) - 0.5, -0.5)
        for y, row in enumerate(rows):
            _draw(ax, v, row, of, y, vertical=False)
        ax.set_yticks(range(len(rows)), labels if of == "dice" else [""] * len(rows), fontsize=SMALL_PT)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel(AXES[of])
        ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    return figure


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """Branches in the network's order, where they alone are searched; else as they were proposed."""
    if all(tuple(row.point) == ("model.branch",) for row in rows):
        return sorted(rows, key=lambda row: BRANCHES.index(row.point["model.branch"]))
    return list(rows)


def _draw(ax: Axes, v: Verdict, row: Row, of: str, place: float, *, vertical: bool) -> None:
    """A mean and its interval, at a place along the other axis; an arrow where they go on beyond the limits."""
    point, style = _point(row, of), _style(_standing(v, row))
    limits = ax.get_ylim() if vertical else ax.get_xlim()

    def at(value: float) -> tuple[float, float]:
        return (place, value) if vertical else (value, place)

    ends = np.clip([point.low, point.high], *limits)
    ax.plot(*zip(*[at(end) for end in ends], strict=True), **style | {"marker": "none"})
    if limits[0] <= point.mean <= limits[1]:
        ax.plot(*at(point.mean), **style, zorder=4)
        if row.configuration == v.paper_choice:
            ax.plot(*at(point.mean), **PAPER_STYLE | {"markersize": 10}, zorder=5)
    else:
        _note_beyond(ax, point.mean, of, *at(float(np.clip(point.mean, *limits))), vertical=vertical)
    if point.low < limits[0]:
        arrow(ax, *at(limits[0]), "v" if vertical else "<", style["color"])
    if point.high > limits[1]:
        arrow(ax, *at(limits[1]), "^" if vertical else ">", style["color"])


def _note_beyond(ax: Axes, mean: float, of: str, x: float, y: float, *, vertical: bool) -> None:
    """A mean beyond the limits, in numbers beside its arrow."""
    beyond = mean > (ax.get_ylim() if vertical else ax.get_xlim())[1]
    aside = (8, -4) if vertical else (-8 if beyond else 8, -3)
    place: Style = {"ha": "right" if beyond and not vertical else "left", "fontsize": SMALL_PT, "color": GREY}
    text = f"{mean:.3f}" if of == "dice" else f"{mean:,.0f}"
    ax.annotate(text, (x, y), aside, textcoords="offset points", annotation_clip=False, **place)


def _point(row: Row, of: str) -> Point:
    mean, low, high = (getattr(row, f"{of}_{what}") for what in ("mean", "low", "high"))
    return Point(mean, -math.inf if low is None else low, math.inf if high is None else high)


def _limits(rows: Sequence[Row], of: str) -> tuple[float, float]:
    """Of an axis that holds all means but those of configurations that failed altogether, and intervals as far as they
    are not many times longer than the means are apart."""
    points = [_point(row, of) for row in rows]
    misses = [1 - point.mean if of == "dice" else point.mean for point in points]
    shown = [point for point, miss in zip(points, misses, strict=True) if miss <= ceiling(misses)]
    low, high = min(point.mean for point in shown), max(point.mean for point in shown)
    halves = [half for point in shown if math.isfinite(half := (point.high - point.low) / 2)]
    room = max(high - low, 2 * float(np.median(halves)) if halves else 0.0)
    bounds = np.clip([bound for point in shown for bound in (point.low, point.high)], low - room, high + room)
    low, high = max(0.0, min(low, float(bounds.min()))), max(high, float(bounds.max()))
    high = min(1.0, high) if of == "dice" else high  # bounds of few patients lie beyond what can be
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def tradeoff(v: Verdict, rows: Sequence[Row]) -> Figure:
    """Dice against area error with both intervals, and the front of those that none beats in both."""
    unbeaten = [row for row in rows if row.configuration in v.pareto]
    named = list(rows) if len(rows) <= len(COLOURS) else unbeaten
    looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    styles = {row.configuration: look for row, look in zip(named, looks, strict=False)}
    others = [row for row in rows if row.configuration not in styles]
    front = sorted(
        (row.dice_mean or 0.0, row.area_mad_mm2_mean or 0.0) for row in rows if row.configuration in v.pareto
    )
    handles = [_handle(*styles[row.configuration], _named(v, row)) for row in named]
    handles += [_handle(GREY, ".", f"{len(others)} others")] if others else []
    handles += [Line2D([], [], **FRONT, label="front: beaten by none in both")] if len(front) > 1 else []
    columns = _columns([str(handle.get_label()) for handle in handles])
    figure = blank(5.0 + 0.22 * math.ceil(len(handles) / columns))
    ax = figure.add_subplot()
    ax.set_xlim(*_limits(rows, "dice"))
    ax.set_ylim(*_limits(rows, "area_mad_mm2"))
    for row in (*others, *named):
        _cross(ax, row, *styles.get(row.configuration, (GREY, ".")))
    if len(front) > 1:
        ax.plot(*zip(*front, strict=True), drawstyle="steps-pre", zorder=3, **FRONT)
    ax.set_xlabel("Dice (more is better)")
    ax.set_ylabel("area error, mm2 (less is better)")
    ax.grid(color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL_PT)
    return figure


def _columns(labels: Sequence[str]) -> int:
    """Of a legend as wide as the figure: one line where all fit."""
    letters = [len(label) + 8 for label in labels]
    return len(labels) if sum(letters) <= LEGEND_LETTERS else max(1, LEGEND_LETTERS // max(letters))


def _handle(color: str, marker: str, label: str) -> Line2D:
    return Line2D([], [], color=color, marker=marker, linestyle="none", label=label)


def _named(v: Verdict, row: Row) -> str:
    what = ["paper's choice"] if row.configuration == v.paper_choice else []
    what += ["winner" if v.winner else "best"] if row.configuration == v.best and v.comparisons else []
    return f"{row.label} ({', '.join(what)})" if what else row.label


def _cross(ax: Axes, row: Row, color: str, marker: str) -> None:
    dice, area = _point(row, "dice"), _point(row, "area_mad_mm2")
    x, y = np.clip(dice.mean, *ax.get_xlim()), np.clip(area.mean, *ax.get_ylim())
    thin: Style = {"color": color, "linewidth": 1.0, "alpha": 0.35 if marker == "." else 0.8}
    ax.plot(np.clip([dice.low, dice.high], *ax.get_xlim()), [y, y], **thin)
    ax.plot([x, x], np.clip([area.low, area.high], *ax.get_ylim()), **thin)
    if area.mean > y or dice.mean < x:
        arrow(ax, x, y, "^" if area.mean > y else "<", color)
    else:
        ax.plot(x, y, marker, color=color, markersize=7, zorder=4)
