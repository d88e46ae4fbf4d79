"""The report's figures: the paper's Figs. 2 to 4 and those that it does not have, from run folders.

    for name, figure, caption in drawn(results.load([Path("runs/paper")])):
        save(figure, Path("report"), name)

Each function takes one configuration or several and gives None where there is nothing to draw.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_prep.files import atomic
from mtl.figure_areas import ejection_fractions, figure3_areas, figure4a_boxes, figure4b_intervals, mass
from mtl.figure_parts import DPI, TEXT_PT, Mean, draw_means, grid, mean_legend, mean_of, reach, row_in
from mtl.figure_size import learning_curve
from mtl.figure_training import conflict, contours, learning, trajectories
from mtl.metrics import VOLUME_METRICS
from mtl.paper import IN_PAPER, TABLE1
from mtl.results import Trained
from mtl.structures import key

METRICS = {
    "dice": ("Dice", "dice, no unit"),
    "jaccard": ("Jaccard", "jaccard, no unit"),
    "msd_mm": ("Mean surface distance, 3-D", "msd_mm, mm"),
    "msd_slice_mm": ("Mean surface distance, in plane", "msd_slice_mm, mm"),
    "ahd_mm": ("Average Hausdorff distance", "ahd_mm, mm"),
    "hd_mm": ("Hausdorff distance", "hd_mm, mm"),
}
"""Title of each panel of Fig. 2; name in volumes.csv, unit."""
UNLIKELY = ("msd_mm", "msd_slice_mm")
"""What the paper's mean surface distance cannot be at its Dice: it is drawn beside ahd_mm alone, the nearest."""
Draw = Callable[[Sequence[Trained]], Figure | None]


def figure2_means(trained: Sequence[Trained]) -> Figure | None:
    """Fig. 2: mean and 99 % interval of each metric over all test volumes, by volume as in the paper and by patient.
    Distances in mm; volumes without one (nothing predicted, slice spacing unknown) are left out and counted."""
    panels = [[_metric_mean(one, metric) for one in trained] for metric in VOLUME_METRICS]
    figure, axes = grid(len(panels), 3, 1.0 + row_in(panels[0], 0.55) * len(trained))
    for k, (ax, metric, means) in enumerate(zip(axes, VOLUME_METRICS, panels, strict=True)):
        title, unit = METRICS[metric]
        draw_means(ax, means, reach(means))
        ax.tick_params(labelleft=k % 3 == 0)
        ax.set_title(title, fontsize=TEXT_PT)
        ax.set_xlabel(unit)
    mean_legend(figure, "volume", "Table 1" if any(one.paper_name for one in trained) else None)
    return figure


def _metric_mean(one: Trained, metric: str) -> Mean:
    paper = None if metric in UNLIKELY else TABLE1.get((IN_PAPER[metric], "all", one.paper_name or ""))
    return mean_of(one.label, one.volumes.metric_V[metric], one.volumes.patient_V, paper[0] if paper else None)


FIGURES: dict[str, tuple[Draw, str]] = {
    "figure2_means": (
        figure2_means,
        "Mean over all test volumes of all phases with its 99 % confidence interval (paper, Fig. 2): by volume, 1,000 "
        "resamples of the volumes as in the paper, which takes a patient's phases for independent and is far too "
        "narrow; and by patient, patients resampled whole. The paper's mean surface distance has no stated definition: "
        "it stands beside the average Hausdorff distance, which comes nearest to it. An arrow: the bound lies beyond "
        "the axis. Left out: volumes without such a distance, since nothing was predicted or their slice spacing is "
        "not known.",
    ),
    "figure3_areas": (
        figure3_areas,
        "Measured against true area of every test slice, all phases (paper, Fig. 3), from the regression "
        "path and from the segmentation. Above each panel the line of best fit and Pearson's r.",
    ),
    "figure4a_boxes": (
        figure4a_boxes,
        "Absolute difference between measured and true area by region and phase (paper, Fig. 4a): median, quartiles, "
        "and whiskers to the last value within 1.5 quartile distances; outliers are not shown. Reg: from the "
        "regression path (hatched), Seg: from the segmentation. An arrow: the whisker goes on beyond the axis.",
    ),
    "figure4b_intervals": (
        figure4b_intervals,
        "Mean of the same with its 99 % confidence interval (paper, Fig. 4b): by slice as in the paper, which is "
        "far too narrow, and by patient, patients resampled whole. An arrow: the bound lies beyond the axis.",
    ),
    "contours": (
        contours,
        "The best test volume, of the kept cases the one nearest to the median Dice of all test volumes, and the "
        "worst, each at the middles of its basal, middle and apical third, cropped to the heart.",
    ),
    "trajectories": (
        trajectories,
        "Learned weights by epoch: log sigma_seg^2, log sigma_reg (sigma in mm2), and the ratio of the weights, "
        "exp(log sigma_reg - log sigma_seg^2); dashed, the paper's -3.9, 3.45 and 1556.",
    ),
    "learning": (
        learning,
        "Training losses, and Dice and area error on the patients on which the best epoch is selected, by epoch: thin "
        "lines the folds, the thick one their mean. A baseline's area is that of its segmentation.",
    ),
    "learning_curve": (
        learning_curve,
        "What fewer training patients cost: mean Dice of all test volumes and mean area error of all test slices (from "
        "the regression path; a baseline's from its segmentation) by the number of patients that a fold's network saw, "
        "with 99 % confidence intervals, patients resampled whole. Smaller training sets lie within the larger ones "
        "and the test patients are the same. An arrow: the bound lies beyond the axis.",
    ),
    "conflict": (
        conflict,
        "Conflict between the tasks, once an epoch on one batch (train.diagnose): the cosine between the gradients of "
        "the two weighted losses on all that both move, below 0 where a step for one undoes the other; the ratio of "
        "their norms; the cosine by level of the network, mean over epochs. Thin lines the folds, thick their mean.",
    ),
    "mass": (
        mass,
        "Myocardial mass of the left ventricle at end-diastole, a dot a patient (Bland and Altman): the difference "
        "over the mean of measured and true mass; the bias (line) and the 95 % limits of agreement (dashed).",
    ),
}
"""name -> function, caption; in the report's order."""
EJECTION = (
    "Ejection fraction of both ventricles, (EDV - ESV) / EDV, a dot a patient with both phases, as of the mass: the "
    "difference over the mean of measured and true; the bias (line) and the 95 % limits of agreement (dashed)."
)
PER_STRUCTURE = ("figure2_means", "figure3_areas", "figure4a_boxes", "figure4b_intervals", "learning_curve")
"""drawn again for each structure after the first: figure2_means_left_ventricle, ..."""
PER_CONFIGURATION = ("contours",)
"""drawn for one configuration at a time: contours_0, contours_1, ... in their order"""
FORMATS = {"png": (DPI, {"Software": None}), "pdf": (200, {"CreationDate": None})}
"""suffix -> resolution, metadata; nothing in a file says when it was made"""


def drawn(trained: Sequence[Trained], others: Sequence[Sequence[Trained]] = ()) -> Iterator[tuple[str, Figure, str]]:
    """Name, figure and caption of all that there is to draw, one at a time. others: the same configurations as of the
    structures after the first."""
    for name, (draw, caption) in FIGURES.items():
        parts: dict[str, Sequence[Trained]] = {name: trained}
        if name in PER_CONFIGURATION:
            parts = {f"{name}_{k}": [one] for k, one in enumerate(trained)}
        elif name in PER_STRUCTURE:
            parts |= {key(name, of_one[0].structure): of_one for of_one in others}
        for full_name, part in parts.items():
            figure = draw(part)
            if figure is not None:
                whose = f"{part[0].structure.capitalize()}. " if others and name in PER_STRUCTURE else ""
                yield full_name, figure, f"{whose}{caption}"
    figure = ejection_fractions(others)
    if figure is not None:
        yield "ejection_fraction", figure, EJECTION


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write name.png and name.pdf, for their owner alone, since cases show patients; the same bytes every time."""
    FigureCanvasAgg(figure)
    paths = folder / f"{name}.png", folder / f"{name}.pdf"
    for path, (kind, (dpi, metadata)) in zip(paths, FORMATS.items(), strict=True):
        with atomic(path) as temporary:
            temporary.touch(0o600)
            figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
        figure.set_layout_engine("none")  # pictures laid out another time differ a little
    return paths
