"""Figures of the areas: measured against true (paper, Figs. 3 and 4), and the mass that follows from them.

Legend: S test slice, P patient, R region, F phases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mtl.figure_parts import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    TEXT_PT,
    VERMILLION,
    Mean,
    Style,
    arrow,
    blank,
    ceiling,
    draw_means,
    grid,
    mean_legend,
    mean_of,
    note,
    or_none,
    reach,
    row_in,
    wrapped,
)
from mtl.function import VENTRICLES, PerPatient, ejection_fraction
from mtl.function import mass as mass_of
from mtl.paper import CORRELATION, TABLE2
from mtl.results import PHASE_SETS, REGIONS, Trained
from mtl.statistics import best_fit_line, bland_altman, pearson

SOURCE_NAMES = {"Reg": "regression path", "Seg": "segmentation"}
SOURCE_COLOURS = {"Reg": VERMILLION, "Seg": BLUE}
SOURCE_MARKERS = {"Reg": "o", "Seg": "^"}
PHASE_NAMES = dict(zip(PHASE_SETS, ("End-diastole", "End-systole", "All phases"), strict=True))
FIT: Style = {"color": GREEN, "linewidth": 2.4}
IDENTITY: Style = {"color": BLACK, "linewidth": 1.2, "linestyle": (0, (4, 3))}
"""drawn over the fit, so that both are seen where they agree"""


@dataclass(frozen=True)
class Source:
    """A configuration's areas from one source, mm2."""

    trained: Trained
    kind: str
    """Reg or Seg"""
    measured_mm2_S: np.ndarray

    @property
    def label(self) -> str:
        return f"{self.kind}, {self.trained.label}"

    @property
    def title(self) -> str:
        return wrapped(f"{self.trained.label}: {SOURCE_NAMES[self.kind]}", 34)

    @cached_property
    def error_mm2_S(self) -> np.ndarray:
        """|measured - true|, NaN where it was not measured"""
        return np.asarray(np.abs(self.measured_mm2_S - self.trained.areas.true_mm2_S))


def sources(trained: Sequence[Trained]) -> list[Source]:
    """All sources of all configurations: Reg and Seg of one that regresses, Seg alone of a baseline."""
    return [Source(one, kind, mm2_S) for one in trained for kind, mm2_S in one.sources.items()]


def figure3_areas(trained: Sequence[Trained]) -> Figure | None:
    """Fig. 3: measured against true area of every test slice, mm2, a panel a source, with the line of identity, that
    of best fit, and Pearson's r."""
    shown = sources(trained)
    figure, axes = grid(len(shown), 3, 3.5, shared=True)
    top_mm2 = max(float(one.areas.true_mm2_S.max()) for one in trained) * 1.05 or 1.0
    low, high = _measured_reach(shown, top_mm2)
    axes[0].set(xlim=(-0.02 * top_mm2, top_mm2), ylim=(low, high))
    for k, (ax, source) in enumerate(zip(axes, shown, strict=True)):
        _scatter(ax, source)
        ax.set_title(f"{source.title}\n{_fit(ax, source)}", fontsize=TEXT_PT)
        ax.set_xlabel("true area, mm²")
        if k % 3 == 0:
            ax.set_ylabel("measured area, mm²")
    lines = [Line2D([], [], **IDENTITY, label="identity"), Line2D([], [], **FIT, label="best fit")]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _measured_reach(shown: Sequence[Source], top_mm2: float) -> tuple[float, float]:
    """All measured areas, as far as they lie within one largest true area of the range of true ones."""
    measured = np.concatenate([source.measured_mm2_S[np.isfinite(source.measured_mm2_S)] for source in shown])
    low, high = (measured.min(initial=0), measured.max(initial=top_mm2))
    return max(float(low) * 1.05, -top_mm2) - 0.02 * top_mm2, min(float(high) * 1.05, 2 * top_mm2)


def _scatter(ax: Axes, source: Source) -> None:
    """A dot a slice; what is not shown is counted in the corner."""
    known_S = np.isfinite(source.measured_mm2_S)
    true_S, measured_S = source.trained.areas.true_mm2_S[known_S], source.measured_mm2_S[known_S]
    style: Style = {"color": SOURCE_COLOURS[source.kind], "markeredgewidth": 0.0, "rasterized": True}
    few = len(true_S) < 3000
    ax.plot(true_S, measured_S, ".", markersize=5 if few else 3, alpha=0.6 if few else 0.1, **style)
    low, high = ax.get_ylim()
    counts = {"beyond the axis": ((measured_S < low) | (measured_S > high)).sum(), "not measured": (~known_S).sum()}
    if any(counts.values()):
        note(ax, "\n".join(f"{count:,} {what}" for what, count in counts.items() if count))


def _fit(ax: Axes, source: Source) -> str:
    """Draw identity and best fit; the fit's equation and Pearson's r, as far as they are defined."""
    known_S = np.isfinite(source.measured_mm2_S)
    pair = source.trained.areas.true_mm2_S[known_S], source.measured_mm2_S[known_S]
    line, r = or_none(best_fit_line, *pair), or_none(pearson, *pair)
    said = ["no line of best fit"]
    if line is not None:
        ax.axline((0, line.intercept), slope=line.slope, **FIT)
        said = [f"y = {line.slope:.3f} x {'-' if line.intercept < 0 else '+'} {abs(line.intercept):.0f} mm²"]
    ax.axline((0, 0), slope=1, **IDENTITY)
    if r is not None:
        paper = CORRELATION.get((source.trained.paper_name or "", source.kind))
        said.append(f"r = {r:.4f}" + (f" (paper {paper:.4f})" if paper else ""))
    return "\n".join(said)


def figure4a_boxes(trained: Sequence[Trained]) -> Figure | None:
    """Fig. 4a: box plots of |measured - true| area, mm2, without outliers: rows regions, columns phases, a box a
    source; whiskers reach to the last value within 1.5 times the box's length."""
    shown = sources(trained)
    cells = _cells(shown)
    boxes = {
        place: [boxplot_stats(mean.value_N)[0] if len(mean.value_N) else None for mean in means]
        for place, means in cells.items()
    }
    known = [box for row in boxes.values() for box in row if box]
    top_mm2 = min(1.05 * max(box["whishi"] for box in known), ceiling([box["q3"] for box in known])) or 1.0
    figure, axes_RF = _regions_by_phases(row_in(cells["all", "all"], 0.3) * len(shown))
    for place, ax in axes_RF.items():
        ax.set(xlim=(0, top_mm2), ylim=(len(shown) - 0.5, -0.5))
        ax.set_yticks(range(len(shown)), [wrapped(source.label) for source in shown])
        for row, (source, box) in enumerate(zip(shown, boxes[place], strict=True)):
            _box(ax, row, source.kind, box)
    return figure


def _box(ax: Axes, row: int, kind: str, box: dict[str, Any] | None) -> None:
    """One box, hatched for Reg; an arrow where its whisker goes on beyond the axis."""
    if box is None:
        ax.text(0.5, row, "no slices", transform=ax.get_yaxis_transform(), ha="center", va="center", color=GREY)
        return
    line: Style = {"linewidth": 1.0, "color": BLACK}
    artists = ax.bxp(
        [box], positions=[row], orientation="horizontal", showfliers=False, widths=0.6, manage_ticks=False,
        patch_artist=True, medianprops=line | {"linewidth": 2.0}, whiskerprops=line, capprops=line,
    )  # fmt: skip
    artists["boxes"][0].set(facecolor=SOURCE_COLOURS[kind], alpha=0.55, hatch="//" if kind == "Reg" else "")
    if box["whishi"] > (right := ax.get_xlim()[1]):
        arrow(ax, right, row, ">", BLACK)


def figure4b_intervals(trained: Sequence[Trained]) -> Figure | None:
    """Fig. 4b: mean of |measured - true| area, mm2, with its 99 % intervals by slice, as in the paper, and by patient;
    rows regions, columns phases."""
    shown = sources(trained)
    cells = _cells(shown)
    figure, axes_RF = _regions_by_phases(row_in(cells["all", "all"], 0.42) * len(shown))
    limits = reach([mean for means in cells.values() for mean in means])
    for place, means in cells.items():
        draw_means(axes_RF[place], means, limits)
    mean_legend(figure, "slice", "Table 2" if any(one.paper_name for one in trained) else None)
    return figure


def _cells(shown: Sequence[Source]) -> dict[tuple[str, str], list[Mean]]:
    """The absolute differences of each region and set of phases, by source."""
    places = [(region, phases) for region in REGIONS for phases in PHASE_SETS]
    return {(region, phases): [_of_source(source, phases, region) for source in shown] for region, phases in places}


def _of_source(source: Source, phases: str, region: str) -> Mean:
    areas = source.trained.areas
    among_S = areas.among(phases, region)
    paper = TABLE2.get((region, phases, source.trained.paper_name or "", source.kind))
    return mean_of(source.label, source.error_mm2_S[among_S], areas.patient_S[among_S], paper[0] if paper else None)


def _regions_by_phases(height_in: float) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """Panels as in Table 2, all on the same scale: (region, phases) -> panel of this height."""
    figure = blank(1.0 + len(REGIONS) * (height_in + 0.12))
    axes = figure.subplots(len(REGIONS), len(PHASE_SETS), sharex=True, sharey=True)
    for ax, phases in zip(axes[0], PHASE_SETS, strict=True):
        ax.set_title(PHASE_NAMES[phases], fontsize=TEXT_PT)
    for ax, region in zip(axes[:, 0], REGIONS, strict=True):
        ax.set_ylabel("whole heart" if region == "all" else region)
    for ax in axes[-1]:
        ax.set_xlabel("|measured - true| area, mm²")
    return figure, {
        (region, phases): axes[r, f] for r, region in enumerate(REGIONS) for f, phases in enumerate(PHASE_SETS)
    }


def mass(trained: Sequence[Trained]) -> Figure | None:
    """Bland and Altman's plot of the LV's myocardial mass at end-diastole, g, a dot a patient, a panel a source: the
    difference measured - true over the mean of both. Not in the paper. None where no mass is known."""
    return _agreement([(source.title, source, mass_of(source.trained)) for source in sources(trained)], "mass")


def ejection_fractions(others: Sequence[Sequence[Trained]]) -> Figure | None:
    """The same of the ejection fractions of both ventricles, %. others: of the structures after the first."""
    shown = [source for of_one in others if of_one[0].structure in VENTRICLES for source in sources(of_one)]
    found = [(f"{s.trained.structure}\n{s.title}", s, ejection_fraction(s.trained)) for s in shown]
    return _agreement(found, "EF")


def _agreement(found: Sequence[tuple[str, Source, PerPatient]], what: str) -> Figure | None:
    """A panel a source with its title. None where no true value is known."""
    if not any(len(of_one.true_P) for _, _, of_one in found):
        return None
    figure, axes = grid(len(found), 3, 3.2, shared=True)
    unit, pairs = found[0][2].unit, [of_one.known(source.kind) for _, source, of_one in found]
    for k, (ax, (title, source, of_one), pair) in enumerate(zip(axes, found, pairs, strict=True)):
        said = _bland_altman(ax, *pair, source.kind, unit)
        if of_one.unknown:
            said += f"\n{of_one.unknown} left out"
        if missed := len(of_one.true_P) - len(pair[0]):
            said += f"\n{missed} without a measured one"
        ax.set_title(f"{title}\n{said}", fontsize=TEXT_PT)
        ax.set_xlabel(f"mean of measured and true {what}, {unit}")
        if k % 3 == 0:
            ax.set_ylabel(f"measured - true {what}, {unit}")
    _limit(axes, pairs)
    return figure


def _bland_altman(ax: Axes, true_P: np.ndarray, measured_P: np.ndarray, kind: str, unit: str) -> str:
    """Draw the patients, the bias and its limits; their numbers."""
    style: Style = {"color": SOURCE_COLOURS[kind], "alpha": 0.7, "markeredgewidth": 0.0, "markersize": 5}
    ax.plot((true_P + measured_P) / 2, measured_P - true_P, SOURCE_MARKERS[kind], **style)
    ax.axhline(0, color=GREY, linewidth=0.8)
    agreement = or_none(bland_altman, true_P, measured_P)
    if agreement is None:
        return f"patients: {len(true_P)}"
    ax.axhline(agreement.bias, color=BLACK, linewidth=1.6)
    for limit in (agreement.low, agreement.high):
        ax.axhline(limit, color=BLACK, linestyle="dashed", linewidth=1)
    bias = f"bias {agreement.bias:+.1f} {unit} ({len(true_P)} patients)"
    return f"{bias}\n95 % limits {agreement.low:+.1f} to {agreement.high:+.1f} {unit}"


def _limit(axes: Sequence[Axes], pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Cut the common axes where a source failed, and say how many patients that hides."""
    differences = [np.abs(measured_P - true_P) for true_P, measured_P in pairs]
    top = ceiling([float(difference_P.max(initial=0)) for difference_P in differences])
    if not any((difference_P > top).any() for difference_P in differences):
        return
    means = [(true_P + measured_P) / 2 for true_P, measured_P in pairs]
    shown = np.concatenate([mean_P[d_P <= top] for mean_P, d_P in zip(means, differences, strict=True)])
    margin = 0.05 * (shown.max() - shown.min()) or 1.0
    axes[0].set(xlim=(shown.min() - margin, shown.max() + margin), ylim=(-1.05 * top, 1.05 * top))
    for ax, difference_P in zip(axes, differences, strict=True):
        if beyond := int((difference_P > top).sum()):
            note(ax, f"{beyond} beyond the axis")
