"""A paragraph for a paper's methods section, made from the configurations that were trained."""

from collections.abc import Callable, Sequence
from typing import Any

from mtl import paper, statistics
from mtl.config import Config
from mtl.results import Trained

REFERENCES = (
    paper.CITATION,
    "Ronneberger O, Fischer P, Brox T. U-Net: Convolutional Networks for Biomedical Image Segmentation. MICCAI 2015",
    "Kendall A, Gal Y, Cipolla R. Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and "
    "Semantics. CVPR 2018",
    "He K, Zhang X, Ren S, Sun J. Delving Deep into Rectifiers. ICCV 2015",
    "Davison AC, Hinkley DV. Bootstrap Methods and their Application. Cambridge University Press 1997",
    "Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of clinical measurement. "
    "Lancet 1986",
)
ADDED_DICE = (
    "Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a self-configuring method for deep "
    "learning-based biomedical image segmentation. Nature Methods 2021"
)
"""cited where loss.segmentation=dice_ce, as the one after REFERENCES"""
SOURCES = {
    "phantom": "made-up patients",
    "lvsc": "cine MRI of the STACOM 2011 LV Segmentation Challenge (LVSC)",
    "sunnybrook": "cine MRI of the Sunnybrook Cardiac Data",
    "acdc": "cine MRI of the Automated Cardiac Diagnosis Challenge (ACDC)",
    "table": "the centre's own cine MRI",
}


def paragraph(trained: Sequence[Trained]) -> str:
    """Markdown: the paragraph, the configurations and the references it cites by number.

    Where configurations differ in a setting every value of it is named.
    """
    sentences = [
        _data(trained[0].facts[0]),
        _network(trained),
        _training(trained),
        _protocol(trained),
        f"The two-dimensional results were stacked and the largest component{_of_each(trained)} (26-connected) was "
        "kept [1].",
        "Dice and Jaccard index, surface distances and Hausdorff distance were computed over the slices of a volume "
        "that carry a gold standard, areas per slice.",
        f"Intervals of means hold 99 % ({statistics.RESAMPLES} bootstrap resamples of whole patients, studentised "
        "[5]); networks were compared by paired differences of the same volumes, and masses by bias and 95 % limits "
        "of agreement [6].",
        _software(trained),
    ]
    cited = [*REFERENCES, *([ADDED_DICE] if any(_adds_dice(one.config) for one in trained) else [])]
    listed = "\n".join(f"{number}. {text}." for number, text in enumerate(cited, start=1))
    names = "\n".join(f"- {one.label}: `{one.folder.name}`" for one in trained)
    return f"# Methods\n\n{' '.join(sentences)}\n\nConfigurations:\n\n{names}\n\n## References\n\n{listed}\n"


def _each(trained: Sequence[Trained], of: Callable[[Config], object]) -> str:
    """Every value that occurs, joined by "or"."""
    values = [of(one.config) for one in trained]
    return " or ".join(dict.fromkeys(f"{v:g}" if isinstance(v, float) else str(v) for v in values))


def _data(facts: dict[str, Any]) -> str:
    mm = " x ".join(f"{value:g}" for value in facts.get("pixel_spacing_mm", ["?"]))
    pixels = " x ".join(str(value) for value in facts.get("size", ["?"]))
    source = SOURCES.get(str(facts.get("source")), str(facts.get("source", "cine MRI")))
    counts = [facts.get(name, "?") for name in ("patients", "volumes", "slices")]
    return (
        f"We used {source}: {counts[0]} patients, {counts[1]} volumes and {counts[2]} labelled short-axis slices, "
        f"resampled to {mm} mm and cropped or padded to {pixels} pixels."
    )


def _network(trained: Sequence[Trained]) -> str:
    regressing = [one for one in trained if one.regresses]
    width, norm = _each(trained, lambda c: c.model.width), _each(trained, lambda c: c.model.norm)
    said = (
        f"A U-Net [2] of {width} channels at its first level and {norm} normalisation segmented {_structures(trained)}"
    )
    if not regressing:
        return f"{said}."
    where = _each(regressing, lambda c: c.model.branch)
    baseline = "; the same network without it is the baseline" if len(regressing) < len(trained) else ""
    area = "its area" if len(trained[0].structures) == 1 else "their areas"
    return f"{said} and regressed {area} by a path that leaves the decoder at {where} [1]{baseline}."


def _structures(trained: Sequence[Trained]) -> str:
    *first, last = trained[0].structures
    return f"the {', '.join(first)} and {last}" if first else f"the {last}"


def _of_each(trained: Sequence[Trained]) -> str:
    return " of each structure" if len(trained[0].structures) > 1 else ""


def _training(trained: Sequence[Trained]) -> str:
    epochs, lr = _each(trained, lambda c: c.train.epochs), _each(trained, lambda c: c.optim.lr)
    decay, batch = _each(trained, lambda c: c.optim.decay), _each(trained, lambda c: c.train.batch_size)
    copies = _each(trained, lambda c: c.train.augment_copies)
    angle, shift = _each(trained, lambda c: c.train.rotation_deg), _each(trained, lambda c: c.train.shift)
    regressing = [one for one in trained if one.regresses]
    weighed = "; or ".join(dict.fromkeys(_weighed(one.config) for one in regressing))
    return (
        f"Weights were initialised by Kaiming uniform [4] and trained for {epochs} epochs by RMSprop at a learning "
        f"rate of {lr}, times {decay} after every epoch, in batches of {batch} slices. Each image was seen as it is "
        f"and in {copies} random rotations (up to {angle} degrees) and translations (up to {shift} of the image size). "
        f"Grey levels were normalised by {_each(trained, lambda c: c.train.normalisation)}."
        + (f" For {'the two' if len(trained[0].structures) == 1 else 'all'} tasks {weighed}." if weighed else "")
        + _added_dice(trained)
    )


def _adds_dice(config: Config) -> bool:
    return config.loss.segmentation == "dice_ce"


def _added_dice(trained: Sequence[Trained]) -> str:
    added = [one.label for one in trained if _adds_dice(one.config)]
    if not added:
        return ""
    whose = "" if len(added) == len(trained) else f" of {' and '.join(added)}"
    return (
        f" A soft Dice loss was added to the segmentation's cross-entropy{whose} [{len(REFERENCES) + 1}], which the "
        "likelihoods behind eq. 5 of [1] do not cover."
    )


def _weighed(config: Config) -> str:
    ways = {
        "learned": "the losses were weighed by learned task uncertainties (eq. 5 of [1], after [3])",
        "fixed": f"the losses were weighed {config.weighting.ratio:g}:1",
        "equal": "the losses were added",
    }
    return ways[config.weighting.kind]


def _protocol(trained: Sequence[Trained]) -> str:
    chosen = {
        "test": "the epoch of the highest Dice on the test fold was kept, as in [1], which is optimistic",
        "validation": "the epoch of the highest Dice on the next fold's patients, who were not trained on, was kept",
    }
    fraction = _each(trained, lambda c: 100 * c.protocol.train_fraction)
    share = "" if fraction == "100" else f", with {fraction} % of each fold's training patients"
    how = "; or ".join(dict.fromkeys(chosen[one.config.protocol.selection] for one in trained))
    folds = _each(trained, lambda c: c.train.folds)
    return f"In {folds}-fold cross-validation by patient, balanced by stratum{share}, {how}."


def _software(trained: Sequence[Trained]) -> str:
    facts = [fold for one in trained for fold in one.facts]

    def named(key: str) -> str:
        return " and ".join(dict.fromkeys(str(fold[key]) for fold in facts if key in fold)) or "unknown"

    return (
        f"Training ran with Branchpoint {named('branchpoint')} and PyTorch {named('torch')} (Python {named('python')}) "
        f"on {named('device')} in {named('precision')}."
    )
