"""The learning curve: what fewer training patients cost (the paper's plan in its section 4)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mtl.config import Config
from mtl.figure_parts import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    TEXT_PT,
    VERMILLION,
    Mean,
    Style,
    arrow,
    blank,
    mean_of,
    reach,
)
from mtl.results import Trained, labels

COLOURS = (BLACK, VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
APART = 0.012
"""of the axis, by which the lines' points stand beside each other so that their intervals are seen"""


def training_patients(one: Trained) -> float:
    """That a fold's network saw, mean over folds."""
    return float(np.mean([facts.get("patients", np.nan) for facts in one.facts])) * one.config.trained_share


def learning_curve(trained: Sequence[Trained]) -> Figure | None:
    """Dice of the test volumes, and the area error of their slices (from the regression path; the baseline's from its
    segmentation), by the number of training patients: means with 99 % intervals by patient. None where no
    configurations differ in protocol.train_fraction alone."""
    lines = curves(trained)
    if not lines:
        return None
    figure = blank(3.6)
    panels = figure.subplots(1, 2)
    for ax, (name, of) in zip(panels, {"Dice, no unit": _dice, "area error, mm²": _area_error}.items(), strict=True):
        means = [[of(one) for one in line] for line in lines]
        limits = reach([mean for line in means for mean in line])
        widest = max(training_patients(one) for line in lines for one in line)
        for k, (line, of_line) in enumerate(zip(lines, means, strict=True)):
            beside = APART * widest * (k - (len(lines) - 1) / 2)
            _draw(ax, [training_patients(one) + beside for one in line], of_line, limits, _style(k))
        ax.set_ylim(*limits)
        ax.set_xlim(0, 1.06 * widest)
        ax.set_xlabel("training patients")
        ax.set_title(name, fontsize=TEXT_PT)
        ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    named = labels([_whole(line[0]) for line in lines])
    handles = [Line2D([], [], **_style(k), label=name) for k, name in enumerate(named)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    return figure


def curves(trained: Sequence[Trained]) -> list[list[Trained]]:
    """Configurations that differ in protocol.train_fraction alone, the fewest patients first; two or more a line."""
    by_config: dict[Config, list[Trained]] = {}
    for one in trained:
        by_config.setdefault(_whole(one).config, []).append(one)
    lines = [sorted(line, key=lambda one: one.config.protocol.train_fraction) for line in by_config.values()]
    return [line for line in lines if len(line) > 1]


def _whole(one: Trained) -> Trained:
    """The same with all training patients."""
    protocol = replace(one.config.protocol, train_fraction=1.0)
    return replace(one, config=replace(one.config, protocol=protocol))


def _dice(one: Trained) -> Mean:
    return mean_of(one.label, one.volumes.metric_V["dice"], one.volumes.patient_V)


def _area_error(one: Trained) -> Mean:
    measured_S = one.sources["Reg" if one.regresses else "Seg"]
    return mean_of(one.label, np.abs(measured_S - one.areas.true_mm2_S), one.areas.patient_S)


def _draw(ax: Axes, at: Sequence[float], means: Sequence[Mean], limits: tuple[float, float], style: Style) -> None:
    known = [(x, mean) for x, mean in zip(at, means, strict=True) if len(mean.value_N)]
    ax.plot([x for x, _ in known], [float(mean.value_N.mean()) for _, mean in known], **style)
    for x, mean in known:
        _, interval = mean.intervals
        if interval is None:
            continue
        low, high = np.clip([interval.low, interval.high], *limits)
        ax.plot([x, x], [low, high], color=style["color"], linewidth=1.6)
        if interval.low < low:
            arrow(ax, x, low, "v", style["color"])
        if interval.high > high:
            arrow(ax, x, high, "^", style["color"])


def _style(k: int) -> Style:
    return {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)], "linewidth": 1.4}
