"""What the paper reports (Dangi, Yaniv, Linte 2018), to stand beside our own, and how its protocol differs from ours.

UNet is its baseline, MTN its multi-task network; means and standard deviations over test volumes or slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mtl.results import PHASE_SETS, REGIONS, Trained

CITATION = (
    "Dangi S, Yaniv Z, Linte CA. Left Ventricle Segmentation and Quantification from Cardiac Cine MR Images via "
    "Multi-task Learning. STACOM 2018, arXiv:1809.10221"
)
PATIENTS, VOLUMES, SLICES = 97, 2191, 26664
"""of its LVSC data"""
LOG_SIGMA2_SEG, LOG_SIGMA_REG, RATIO = -3.9, 3.45, 1556.0
"""learned by its network (section 3); the ratio is exp(3.9 + 3.45)"""
MINUTES_AN_EPOCH, MS_A_SLICE, CARD = 9.0, 0.663, "Nvidia Titan Xp, 12 GB"

IN_PAPER = {
    "dice": "dice",
    "jaccard": "jaccard",
    "msd_mm": "msd",
    "msd_slice_mm": "msd",
    "ahd_mm": "msd",
    "hd_mm": "hd",
}
"""Our name of a metric -> the paper's, whose mean surface distance has no definition and stands beside all three."""

_PAIRS = [(phases, name) for phases in PHASE_SETS for name in ("UNet", "MTN")]
_TABLE1 = {
    "dice": [(0.836, 0.036), (0.837, 0.038), (0.850, 0.033), (0.849, 0.036), (0.847, 0.035), (0.849, 0.036)],
    "jaccard": [(0.719, 0.052), (0.721, 0.054), (0.740, 0.048), (0.739, 0.053), (0.736, 0.050), (0.739, 0.053)],
    "msd": [(0.318, 0.089), (0.286, 0.087), (0.299, 0.095), (0.274, 0.090), (0.305, 0.088), (0.274, 0.083)],
    "hd": [(13.582, 4.337), (13.364, 4.108), (13.083, 3.630), (13.355, 3.861), (13.211, 4.212), (13.233, 3.810)],
}
TABLE1 = {
    (metric, phases, name): value
    for metric, values in _TABLE1.items()
    for (phases, name), value in zip(_PAIRS, values, strict=True)
}
"""(metric, phases, network) -> mean and sd; msd and hd in mm. `msd` has no stated definition."""

_SOURCES = [(phases, *source) for phases in PHASE_SETS for source in (("MTN", "Reg"), ("MTN", "Seg"), ("UNet", "Seg"))]
_TABLE2 = {
    "all": [(201, 199), (174, 209), (203, 221), (211, 209), (173, 203), (187, 204), (206, 198), (170, 199), (193, 208)],
    "apical": [
        (185, 180), (187, 204), (194, 186), (193, 199), (190, 226), (185, 185), (184, 183), (181, 210), (187, 189)
    ],
    "mid": [(190, 172), (141, 132), (179, 142), (228, 194), (160, 151), (174, 135), (212, 178), (149, 132), (176, 141)],
    "basal": [
        (250, 269), (252, 331), (282, 368), (193, 241), (186, 267), (216, 312), (213, 248), (210, 289), (237, 319)
    ],
}  # fmt: skip
TABLE2 = {
    (region, *source): value for region in REGIONS for source, value in zip(_SOURCES, _TABLE2[region], strict=True)
}
"""(region, phases, network, source) -> mean and sd of the absolute difference of the area, mm2"""
CORRELATION = {("MTN", "Reg"): 0.9466, ("MTN", "Seg"): 0.9565, ("UNet", "Seg"): 0.9518}
KS_P = {"dice": 2.156e-4, "jaccard": 2.156e-4, "msd": 6.950e-34}
"""p of its Kolmogorov-Smirnov tests between both networks"""
OTHERS = (
    ("Tran FCN (Caffe / Keras), LVSC validation set", "Dice 0.84 / 0.85, Jaccard 0.74 / 0.75"),
    ("Khened DenseNet 2018, LVSC", "Jaccard 0.74"),
    ("Dangi 2019, U-Net / with distance map, LVSC", "Dice ED 0.831 / 0.836, ES 0.843 / 0.846"),
    ("Xue, direct regression, other data", "area error 223 +- 193 mm2"),
    ("LVQuan18 winner / an LVQuan19 entry, other data", "area error 301 / 111 +- 76 mm2"),
)
"""Figures of others, by what they were measured on."""


@dataclass(frozen=True)
class Item:
    """One point of the protocol."""

    what: str
    paper: str
    here: str

    @property
    def differs(self) -> bool:
        return self.paper != self.here


def protocol(trained: Sequence[Trained]) -> list[Item]:
    """The paper's protocol beside that of these configurations. `here` names every value that occurs."""
    facts = [fold for one in trained for fold in one.facts]
    configs = [one.config for one in trained]

    def here(values: Sequence[object]) -> str:
        return " / ".join(dict.fromkeys(str(value) for value in values))

    def of(what: str, paper: str, *path: str) -> Item:
        values: list[object] = list(configs)
        for name in path:
            values = [getattr(value, name) for value in values]
        return Item(what, paper, here(values))

    counts = [f"{fold.get('patients', '?')}, {fold.get('volumes', '?')}, {fold.get('slices', '?')}" for fold in facts]
    sizes = [" x ".join(map(str, fold.get("size", ["?"]))) for fold in facts]
    spacings = [" x ".join(f"{mm:g}" for mm in fold.get("pixel_spacing_mm", [])) or "?" for fold in facts]
    learned = [config for config in configs if config.weighting.kind == "learned" and config.model.branch != "none"]
    return [
        Item("data", "lvsc", here([fold.get("source", "?") for fold in facts])),
        Item("structures", "myocardium", here([", ".join(one.structures) for one in trained])),
        Item("patients, volumes, slices", f"{PATIENTS}, {VOLUMES}, {SLICES}", here(counts)),
        Item("image size, pixels", "192 x 192", here(sizes)),
        Item("pixel spacing, mm", "1.5625 x 1.5625", here(spacings)),
        of("folds", "5", "train", "folds"),
        Item("best epoch chosen on", "the test fold", here([SELECTED[c.protocol.selection] for c in configs])),
        Item("share of patients that train", "80 %", here([f"{100 * c.trained_share:.3g} %" for c in configs])),
        of("epochs", "50", "train", "epochs"),
        of("learning rate", "0.001", "optim", "lr"),
        of("factor an epoch", "0.95", "optim", "decay"),
        of("augmented copies per image", "2", "train", "augment_copies"),
        of("largest shift, image sizes", "0.5", "train", "shift"),
        of("largest rotation, degrees", "not stated", "train", "rotation_deg"),
        of("batch size", "not stated", "train", "batch_size"),
        of("channels of the first level", "not stated", "model", "width"),
        of("norm", "not stated", "model", "norm"),
        of("grey levels normalised by", "not stated", "train", "normalisation"),
        of("unit of the regressed area", "not stated", "model", "area_scale"),
        Item("connectivity of the component that is kept", "not stated", "26"),
        Item("start of both s", "not stated", here([config.weighting.init for config in learned]) or "-"),
        Item("weighting", "learned", here([c.weighting.kind for c in configs if c.model.branch != "none"]) or "-"),
        of("loss of the segmentation", "cross_entropy", "loss", "segmentation"),
        Item("arithmetic", "float32", here([fold.get("precision", "?") for fold in facts])),
        Item("device", CARD, here([fold.get("device", "?") for fold in facts])),
    ]


SELECTED = {"test": "the test fold", "validation": "validation patients"}


def counts_that_differ(trained: Sequence[Trained]) -> list[str]:
    """Where a store that claims to be LVSC has other counts than the paper's; empty for other stores."""
    facts = [fold for one in trained for fold in one.facts if fold.get("source") == "lvsc"][:1]
    wanted = {"patients": PATIENTS, "volumes": VOLUMES, "slices": SLICES}
    return [
        f"{fold[name]} {name} where the paper has {count}"
        for fold in facts
        for name, count in wanted.items()
        if fold.get(name) != count
    ]
