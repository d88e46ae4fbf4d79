"""Figures of single cases and of the training: contours, learned weights, learning curves."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from mtl.cases import LEVELS, Case
from mtl.figure_parts import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, TEXT_PT, VERMILLION, Style, blank, wrapped
from mtl.paper import LOG_SIGMA2_SEG, LOG_SIGMA_REG, RATIO, SELECTED
from mtl.results import MYOCARDIUM, Trained
from mtl.runfolder import best_epoch
from mtl.structures import key

FOLD_COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
FOLD_STYLES = ("solid", "dashed", "dashdot", "dotted", (0, (5, 1, 1, 1, 1, 1)))
MEAN: Style = {"color": BLACK, "linewidth": 2.2}
BEST: Style = {"marker": "o", "color": BLACK, "markerfacecolor": "white", "markersize": 4.5, "linestyle": "none"}
PAPER: Style = {"color": BLACK, "linestyle": (0, (6, 3)), "linewidth": 1.0}
LEARNING = {
    "loss_seg_train": "training L_seg, nats",
    "loss_area_train": "training L_area, mm²",
    "dice_val": "Dice, no unit",
    "area_mad_mm2": "area error, mm²",
}
"""Key in epochs.jsonl -> name and unit."""
TRUTH: Style = {"colors": ORANGE, "linestyles": "solid", "linewidths": 1.8}
PREDICTION: Style = {"colors": SKY, "linestyles": "dashed", "linewidths": 1.8}
THIRDS = ("basal third", "middle third", "apical third")
MARGIN = 0.3
"""around the heart, in its sizes"""


def contours(trained: Sequence[Trained]) -> Figure | None:
    """The best, a middling and the worst test volume of one configuration (not in the paper): rows; three levels of
    each: columns. True and predicted contour on the image. None without kept cases.

    trained: exactly one.
    """
    (one,) = trained
    rows = chosen(one)
    if not rows:
        return None
    figure = blank(0.75 + 3.05 * len(rows))
    figure.suptitle(wrapped(one.label, 95), fontsize=TEXT_PT, fontweight="bold")
    for part, (title, case) in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=TEXT_PT)
        for level in range(LEVELS):
            ax = part.add_subplot(1, LEVELS, level + 1)
            _draw_level(ax, case, level)
            ax.set_xlabel(THIRDS[level])
    styles = {"true contour": TRUTH, "predicted contour": PREDICTION}
    handles = [
        Line2D([], [], color=style["colors"], linestyle=style["linestyles"], linewidth=2, label=name)
        for name, style in styles.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def chosen(one: Trained) -> list[tuple[str, Case]]:
    """The best of the kept cases, the one nearest to the median of all volumes, the worst; each once, with a title."""
    if not one.cases:
        return []
    median = float(np.median(one.volumes.metric_V["dice"]))
    nearest = min(one.cases, key=lambda case: abs(case.dice - median))
    names: dict[int, list[str]] = {}
    for name, case in (
        ("best", one.cases[-1]),
        (f"of the kept cases nearest to the median ({median:.3f})", nearest),
        ("worst", one.cases[0]),
    ):
        names.setdefault(id(case), []).append(name)
    kept = {id(case): case for case in one.cases}
    return [(_case_title(" and ".join(roles), kept[key]), kept[key]) for key, roles in names.items()]


def _case_title(roles: str, case: Case) -> str:
    missed = "" if case.prediction_LYX.any() else "; nothing predicted at these levels"
    return f"{roles[0].upper()}{roles[1:]}: {case.patient}, phase {case.phase}, Dice {case.dice:.3f}{missed}"


def _draw_level(ax: Axes, case: Case, level: int) -> None:
    ax.imshow(case.image_LYX[level], cmap="gray", vmin=0, vmax=255, interpolation="none")
    for mask_LYX, style in ((case.truth_LYX, TRUTH), (case.prediction_LYX, PREDICTION)):
        if mask_LYX[level].any():
            padded_YX = np.pad(mask_LYX[level], 1).astype(float)  # else contours stay open at the image's edge
            y, x = (np.arange(-1, n - 1) for n in padded_YX.shape)
            ax.contour(x, y, padded_YX, [0.5], **style)
    left, right, bottom, top = window(case)
    ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor="black")


def window(case: Case) -> tuple[float, float, float, float]:
    """A square around truth and prediction at all levels: left, right, bottom, top in pixels, the first row on top."""
    either_YX = (case.truth_LYX | case.prediction_LYX).any(axis=0)
    sides = [np.flatnonzero(either_YX.any(axis=axis)) for axis in (0, 1)]
    (x, y) = ((side[0] + side[-1]) / 2 for side in sides)
    half = max(side[-1] - side[0] + 1 for side in sides) * (0.5 + MARGIN / 2) + 2
    return x - half, x + half, y + half, y - half


def trajectories(trained: Sequence[Trained]) -> Figure | None:
    """log sigma_seg^2, log sigma_reg (of mm2) and the ratio of both weights per epoch (paper, section 3, where only
    the last values stand), a line a fold, a row a configuration and structure. None where no weights were learned."""
    learned = [one for one in trained if one.regresses and one.config.weighting.kind == "learned"]
    if not learned:
        return None
    names = (r"$\log\,\sigma_{seg}^2$", r"$\log\,\sigma_{reg}$  (of mm²)", "weight seg / weight reg, mm²")
    shown = [(one, structure) for one in learned for structure in one.structures]
    titles = [one.label + (f": {structure}" if len(one.structures) > 1 else "") for one, structure in shown]
    figure, rows = _rows(titles, names)
    for (one, structure), axes in zip(shown, rows, strict=True):
        s_seg = series(one, "log_sigma2_seg")
        s_reg = series(one, "log_sigma_reg" if len(one.structures) == 1 else key("log_sigma_reg", structure))
        ratios = [np.exp(reg - seg) for seg, reg in zip(s_seg, s_reg, strict=True)]
        for ax, lines, paper in zip(axes, (s_seg, s_reg, ratios), (LOG_SIGMA2_SEG, LOG_SIGMA_REG, RATIO), strict=True):
            _draw_folds(ax, lines, log=lines is ratios)
            if structure == MYOCARDIUM:
                ax.axhline(paper, **PAPER)
    _legend(figure, learned, [Line2D([], [], **PAPER, label="paper")])
    return figure


def learning(trained: Sequence[Trained]) -> Figure | None:
    """Both losses of training, Dice and area error of the selection set per epoch (not in the paper), a row a
    configuration: thin lines the folds, the thick one their mean, a dot each fold's best epoch."""
    titles = [f"{one.label}; Dice and area error on {SELECTED[one.config.protocol.selection]}" for one in trained]
    figure, rows = _rows(titles, tuple(LEARNING.values()))
    for one, axes in zip(trained, rows, strict=True):
        for ax, name in zip(axes, LEARNING, strict=True):
            _draw_folds(ax, series(one, name), log=name != "dice_val", mean=True)
            if name == "dice_val":
                _draw_best(ax, one)
    _legend(
        figure, trained, [Line2D([], [], **MEAN, label="mean of folds"), Line2D([], [], **BEST, label="best epoch")]
    )
    return figure


def conflict(trained: Sequence[Trained]) -> Figure | None:
    """The cosine between both tasks' gradients on what they share and the ratio of their norms per epoch, and the
    cosine by level of the network (not in the paper), a row a configuration. None where no fold was diagnosed."""
    diagnosed = [one for one in trained if any("grad_cosine" in r for records in one.epochs for r in records)]
    if not diagnosed:
        return None
    names = ("cosine of both gradients", "norm: area / segmentation", "cosine by level")
    figure, rows = _rows([one.label for one in diagnosed], names)
    for one, (cosine_ax, ratio_ax, level_ax) in zip(diagnosed, rows, strict=True):
        _draw_folds(cosine_ax, series(one, "grad_cosine"), log=False, mean=True)
        _draw_folds(ratio_ax, series(one, "grad_norm_ratio"), log=True, mean=True)
        _draw_levels(level_ax, one)
        for ax in (cosine_ax, level_ax):
            ax.axhline(0, color=GREY, linewidth=0.8)
    _legend(figure, diagnosed, [Line2D([], [], **MEAN, label="mean of folds")])
    return figure


def _draw_levels(ax: Axes, one: Trained) -> None:
    """Mean over epochs, a line a fold and their mean, along the forward pass."""
    prefix = "grad_cosine_"
    named = dict.fromkeys(name for records in one.epochs for record in records for name in record)
    levels = [name.removeprefix(prefix) for name in named if name.startswith(prefix)]
    of_folds = [[_mean(fold) for fold in series(one, prefix + level)] for level in levels]
    for k, line in enumerate(np.array(of_folds).T):
        ax.plot(levels, line, linewidth=0.9, marker=".", **_fold_style(k))
    ax.plot(levels, np.mean(of_folds, axis=1), **MEAN)
    ax.tick_params(axis="x", rotation=60)
    ax.set_xlabel("")


def _mean(values: np.ndarray) -> float:
    """Of those that were measured."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def series(one: Trained, key: str) -> list[np.ndarray]:
    """A quantity of each fold by epoch; NaN where it was not measured."""
    return [np.array([record.get(key) for record in records], float) for records in one.epochs]


def _rows(titles: Sequence[str], names: Sequence[str]) -> tuple[Figure, np.ndarray]:
    """A row of panels below each title, one a quantity, which has one scale in all rows."""
    figure = blank(0.5 + 2.6 * len(titles))
    axes = figure.subplots(len(titles), len(names), sharey="col", squeeze=False)
    above: Style = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", "in_layout": False}
    for row, title in zip(axes, (wrapped(title, 95) for title in titles), strict=True):
        for ax, name in zip(row, names, strict=True):
            ax.set_title("\n" * (1 + title.count("\n")) + name, fontsize=TEXT_PT)  # room for the row's title
            ax.set_xlabel("epoch")
        row[0].annotate(title, (0, 1), (0, 16), fontsize=TEXT_PT, fontweight="bold", **above)
    return figure, np.asarray(axes)


def _draw_folds(ax: Axes, lines: Sequence[np.ndarray], *, log: bool, mean: bool = False) -> None:
    """A line a fold, and their mean over the epochs that all have."""
    known = np.concatenate([line[np.isfinite(line)] for line in lines])
    if not len(known):
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", va="center", color=GREY)
        ax.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False, which="both")
        return
    marker = "." if max(map(len, lines)) < 10 else ""
    for k, line in enumerate(lines):
        style = _fold_style(k)
        ax.plot(np.arange(1, len(line) + 1), line, linewidth=0.9 if mean else 1.4, marker=marker, **style)
    if mean:
        shared = min(map(len, lines))
        ax.plot(np.arange(1, shared + 1), np.mean([line[:shared] for line in lines], axis=0), **MEAN)
    if log and known.min() > 0:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _draw_best(ax: Axes, one: Trained) -> None:
    for record in (best_epoch(records) for records in one.epochs if records):
        ax.plot(record["epoch"], record["dice_val"], zorder=5, **BEST)


def _fold_style(k: int) -> Style:
    return {"color": FOLD_COLOURS[k % len(FOLD_COLOURS)], "linestyle": FOLD_STYLES[k % len(FOLD_STYLES)]}


def _legend(figure: Figure, trained: Sequence[Trained], others: Sequence[Line2D]) -> None:
    folds = max(len(one.folds) for one in trained)
    handles = [*(Line2D([], [], **_fold_style(k), label=f"fold {k}") for k in range(folds)), *others]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7), frameon=False)
