"""What the report's figures share: sizes, colours, grids of panels, means with both intervals.

No pyplot, no global state, no display. A figure is 9 inches wide, for a page of 900 pixels, on which matplotlib's
default of 10 pt is 14 pixels high.

Legend: N value (of a volume or a slice).
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mtl.statistics import Interval, mean_interval_by_patient, mean_interval_by_volume

T = TypeVar("T")
Style = dict[str, Any]
"""matplotlib's keywords"""
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
)  # fmt: skip
"""Okabe and Ito's, told apart by the colour-blind too; their yellow is too faint for lines on white."""
GREY = "#666666"
WIDTH_IN, DPI = 9.0, 130
TEXT_PT, SMALL_PT = 10.0, 8.5
LINE_IN = 0.17
"""height of a line of text"""
LABEL_LETTERS = 26
"""after which a label goes on in another line"""
BOX: Style = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
"""behind text on a plot"""


def wrapped(label: str, letters: int = LABEL_LETTERS) -> str:
    return textwrap.fill(label, letters, break_on_hyphens=False)


def blank(height_in: float) -> Figure:
    return Figure((WIDTH_IN, height_in), dpi=DPI, layout="constrained")


def grid(panels: int, columns: int, height_in: float, *, shared: bool = False) -> tuple[Figure, list[Axes]]:
    """So many panels, line by line, of this height. shared: one x axis, one y axis for all."""
    columns = min(panels, columns)
    rows = -(-panels // columns)
    figure = blank(rows * height_in)
    axes: list[Axes] = []
    for k in range(panels):
        first = axes[0] if shared and axes else None
        axes.append(figure.add_subplot(rows, columns, k + 1, sharex=first, sharey=first))
        axes[-1].tick_params(labelleft=not shared or k % columns == 0)
    return figure, axes


def note(ax: Axes, text: str, x: float = 0.97, y: float = 0.03) -> None:
    """Small text in a corner of a panel."""
    places: Style = {"ha": "right" if x > 0.5 else "left", "va": "top" if y > 0.5 else "bottom"}
    ax.text(x, y, text, transform=ax.transAxes, fontsize=SMALL_PT, bbox=BOX, **places)


def or_none(function: Callable[..., T], *arguments: object) -> T | None:
    """What a statistic says, or None where it is not defined for these values."""
    try:
        return function(*arguments)
    except ValueError:
        return None


@dataclass(frozen=True)
class Mean:
    """The finite ones of some values, whose mean is drawn with its intervals."""

    label: str
    value_N: np.ndarray
    patient_N: np.ndarray
    dropped: int
    """how many were not finite"""
    paper: float | None = None
    """the mean that the paper gives"""

    @cached_property
    def intervals(self) -> tuple[Interval | None, Interval | None]:
        """By volume (or slice) and by patient; None where there are fewer than two."""
        return (
            or_none(mean_interval_by_volume, self.value_N),
            or_none(mean_interval_by_patient, self.value_N, self.patient_N),
        )

    @property
    def notes(self) -> list[str]:
        """What is not seen in the drawing."""
        if not len(self.value_N):
            return ["no values"]
        missing = [f"{self.dropped} left out"] if self.dropped else []
        return missing + (["1 patient"] if self.intervals[1] is None else [])

    @property
    def ends(self) -> list[float]:
        """What an axis should reach: mean, paper's mean, and bounds, those beyond all values cut off there."""
        if not len(self.value_N):
            return []
        bounds = [bound for interval in self.intervals if interval for bound in (interval.low, interval.high)]
        shown = np.clip(bounds, self.value_N.min(), self.value_N.max()).tolist()
        return [float(self.value_N.mean()), *shown, *([] if self.paper is None else [self.paper])]


def mean_of(label: str, value_N: np.ndarray, patient_N: np.ndarray, paper: float | None = None) -> Mean:
    finite_N = np.isfinite(value_N)
    return Mean(label, value_N[finite_N], patient_N[finite_N], int((~finite_N).sum()), paper)


def ceiling(sizes: Sequence[float]) -> float:
    """What an axis reaches at most: five times the middle one of these sizes (of two the smaller), so that a source
    that failed does not hide all others. What lies beyond is an arrow, or counted."""
    return 5 * sorted(sizes)[(len(sizes) - 1) // 2] if len(sizes) else np.inf


def reach(means: Sequence[Mean]) -> tuple[float, float]:
    """Limits of an axis that holds all of them, but for those beyond the ceiling. Nothing is below 0."""
    ends = [end for mean in means for end in mean.ends] or [0.0, 1.0]
    papers = [mean.paper for mean in means if mean.paper is not None]
    top = ceiling([float(mean.value_N.mean()) for mean in means if len(mean.value_N)])
    low, high = min(ends), min(max(ends), max([top, *papers]))
    margin = 0.07 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


VOLUME_STYLE: Style = {"color": ORANGE, "linewidth": 1.2, "solid_capstyle": "butt"}
PATIENT_STYLE: Style = {"color": BLUE, "linewidth": 3.5, "solid_capstyle": "butt"}
PAPER_STYLE: Style = {"marker": "D", "markersize": 6.0, "markerfacecolor": "none", "color": BLACK, "linestyle": "none"}
CAP: Style = {"marker": "|", "markersize": 8.0}


def draw_means(ax: Axes, means: Sequence[Mean], limits: tuple[float, float]) -> None:
    """A line each, from the top: the interval by volume thin with caps, below it that by patient thick; the mean a
    dot, the paper's a hollow diamond. What lies beyond `limits`, as bounds of few patients do, is an arrow there."""
    ax.set_xlim(*limits)
    ax.set_ylim(len(means) - 0.5, -0.5)
    ax.set_yticks(range(len(means)), [wrapped(mean.label) for mean in means])
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    for row, mean in enumerate(means):
        by_volume, by_patient = mean.intervals
        _interval(ax, row - 0.2, by_volume, limits, VOLUME_STYLE | CAP)
        _interval(ax, row, by_patient, limits, PATIENT_STYLE)
        _mean(ax, row, mean, limits)


def _mean(ax: Axes, row: int, mean: Mean, limits: tuple[float, float]) -> None:
    """The dot, the paper's diamond, and what is to be noted, where the diamond is not."""
    notes = mean.notes
    if len(mean.value_N):
        value = float(mean.value_N.mean())
        ax.plot(value, row, "o", color=BLACK, markersize=4.5, zorder=4)
        notes = [*notes, *([f"mean {value:,.0f}"] if value > limits[1] else [])]
    if mean.paper is not None:
        ax.plot(mean.paper, row + 0.25, zorder=4, **PAPER_STYLE)
    left = mean.paper is not None and mean.paper > sum(limits) / 2
    place: Style = {"ha": "left" if left else "right", "va": "center", "color": GREY, "fontsize": SMALL_PT}
    ax.text(0.01 if left else 0.99, row + 0.34, ", ".join(notes), transform=ax.get_yaxis_transform(), **place)


def _interval(ax: Axes, y: float, interval: Interval | None, limits: tuple[float, float], style: Style) -> None:
    if interval is None:
        return
    low, high = np.clip([interval.low, interval.high], *limits)
    ax.plot([low, high], [y, y], **style)
    if interval.low < low:
        arrow(ax, low, y, "<", style["color"])
    if interval.high > high:
        arrow(ax, high, y, ">", style["color"])


def arrow(ax: Axes, x: float, y: float, marker: str, color: str) -> None:
    """At the edge of a panel: it goes on beyond."""
    ax.plot(x, y, marker, color=color, markersize=7, clip_on=False)


def row_in(means: Sequence[Mean], least_in: float) -> float:
    """Height of a line of a panel whose labels may be several lines long."""
    return max(least_in, max(LINE_IN * (1 + wrapped(mean.label).count("\n")) for mean in means) + 0.05)


def mean_legend(figure: Figure, by_volume: str, paper: str | None) -> None:
    """Below all panels. by_volume: what is resampled on its own; paper: where its values stand, None without them."""
    handles = [
        Line2D([], [], marker="o", color=BLACK, linestyle="none", markersize=4.5, label="mean"),
        Line2D([], [], **PATIENT_STYLE, label="99 % interval by patient"),
        Line2D([], [], **VOLUME_STYLE, **CAP, label=f"99 % interval by {by_volume}"),
        *([Line2D([], [], **PAPER_STYLE, label=f"paper's mean ({paper})")] if paper else []),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
