"""Every setting of an experiment: frozen dataclasses, checked when made, with a line of meaning per field.

The paper is Dangi, Yaniv, Linte 2018. Defaults are the paper's where it gives a value.
"""

import ast
import dataclasses
import hashlib
import inspect
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

BRANCHES = ("bottleneck", "up1", "up2", "up3", "up4", "none")
"""Where the regression path leaves; `none` is the baseline U-Net without one."""
NORMS = ("batch", "group")
NORMALISATIONS = ("slice", "volume")
STARTS = ("zero", "data")
PRECISIONS = ("auto", "float32", "bf16")
AREA_SCALES = ("fold", "none")
DEVICES = ("auto", "cpu", "cuda", "mps")
WEIGHTINGS = ("learned", "fixed", "equal")
SELECTIONS = ("validation", "test")
SEGMENTATION_LOSSES = ("cross_entropy", "dice_ce")

Section = TypeVar("Section")


def choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, wanted one of: {', '.join(choices)}")


def between(name: str, value: float, low: float, high: float = math.inf, unit: str = "") -> None:
    if not low <= value <= high:  # NaN fails too
        wanted = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        raise ValueError(f"{name} is {value}, wanted {wanted}{' ' + unit if unit else ''}")


@dataclass(frozen=True)
class Model:
    branch: str = "up4"
    """where the regression path leaves: bottleneck, up1, up2, up3 or up4 (the paper's); none: the baseline U-Net"""
    width: int = 16
    """channels of the first level, doubled at each of the four down-samplings"""
    area_scale: str = "fold"
    """fold: the area is predicted in standard deviations about the training fold's mean; none: in raw mm2"""
    norm: str = "batch"
    """batch: BatchNorm (the paper names none); group: GroupNorm, the same at every batch size and on every device"""

    def __post_init__(self) -> None:
        choice("model.branch", self.branch, BRANCHES)
        between("model.width", self.width, 1, 256, "channels")
        choice("model.area_scale", self.area_scale, AREA_SCALES)
        choice("model.norm", self.norm, NORMS)


@dataclass(frozen=True)
class Train:
    epochs: int = 50
    """passes over the training images and their augmented copies"""
    batch_size: int = 16
    """slices per step (the paper gives none)"""
    seed: int = 0
    """of initial weights, order and augmentation"""
    folds: int = 5
    """number of folds; patients are split by subject"""
    augment_copies: int = 2
    """augmented copies per training image and epoch, beside the image itself"""
    rotation_deg: float = 180.0
    """largest rotation of a copy, degrees (the paper gives none)"""
    shift: float = 0.5
    """largest translation of a copy, in image sizes, along rows and columns"""
    normalisation: str = "slice"
    """slice: each slice to mean 0 and deviation 1; volume: by the mean and deviation of its phase's labelled slices"""
    precision: str = "auto"
    """of the network's arithmetic: float32, bf16 (losses in float32), auto: bf16 where the device has units for it"""
    channels_last: bool = True
    """memory layout of the network; true was faster wherever it was measured"""
    compile: bool = False
    """compile the training step with torch.compile: a minute or more at the start, and no gain where it was measured"""
    diagnose: bool = False
    """each epoch, on one batch: the angle between both tasks' gradients on what they share; changes no number"""
    device: str = "auto"
    """auto (CUDA, else the CPU), cpu, cuda or mps; one that is asked for and not usable is an error"""

    def __post_init__(self) -> None:
        between("train.epochs", self.epochs, 1, 100_000)
        between("train.batch_size", self.batch_size, 1, 65_536, "slices")
        between("train.seed", self.seed, 0, 2**31 - 1)
        between("train.folds", self.folds, 2, 1000)
        between("train.augment_copies", self.augment_copies, 0, 100)
        between("train.rotation_deg", self.rotation_deg, 0, 180, "degrees")
        between("train.shift", self.shift, 0, 1, "image sizes")
        choice("train.normalisation", self.normalisation, NORMALISATIONS)
        choice("train.precision", self.precision, PRECISIONS)
        choice("train.device", self.device, DEVICES)


@dataclass(frozen=True)
class Optim:
    lr: float = 0.001
    """RMSprop's learning rate in the first epoch"""
    decay: float = 0.95
    """factor on the learning rate after every epoch"""

    def __post_init__(self) -> None:
        between("optim.lr", self.lr, 1e-8, 10)
        between("optim.decay", self.decay, 0.01, 1)


@dataclass(frozen=True)
class Weighting:
    kind: str = "learned"
    """learned: eq. (5) of the paper; fixed: L_seg + L_area / ratio; equal: L_seg + L_area (mm2)"""
    ratio: float = 1556.0
    """of the two weights where they are fixed (1556:1 is what the paper's network learned)"""
    init: str = "zero"
    """where learned s start (the paper is silent): zero: at 0 in predicted units; data: at the first batch's optimum"""

    def __post_init__(self) -> None:
        choice("weighting.kind", self.kind, WEIGHTINGS)
        between("weighting.ratio", self.ratio, 1e-6, 1e12)
        choice("weighting.init", self.init, STARTS)


@dataclass(frozen=True)
class Loss:
    segmentation: str = "cross_entropy"
    """cross_entropy: the paper's; dice_ce: plus 1 - soft Dice, as nnU-Net's users ask for; eq. (5) does not cover it"""

    def __post_init__(self) -> None:
        choice("loss.segmentation", self.segmentation, SEGMENTATION_LOSSES)


@dataclass(frozen=True)
class Protocol:
    selection: str = "validation"
    """validation: the best epoch is chosen on fold k+1's patients; test: on fold k itself, as in the paper"""
    fold_seed: int = 0
    """of the split into folds, apart from train.seed so that repeats share their folds"""
    train_fraction: float = 1.0
    """share of each fold's training patients that is used; a smaller set lies within every larger one"""

    def __post_init__(self) -> None:
        choice("protocol.selection", self.selection, SELECTIONS)
        between("protocol.fold_seed", self.fold_seed, 0, 2**31 - 1)
        between("protocol.train_fraction", self.train_fraction, 0.001, 1)


@dataclass(frozen=True)
class Config:
    """What decides the numbers of a training. Paths are not part of it."""

    data_digest: str = ""
    """the store's digest"""
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    optim: Optim = field(default_factory=Optim)
    weighting: Weighting = field(default_factory=Weighting)
    loss: Loss = field(default_factory=Loss)
    protocol: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        if self.protocol.selection == "validation" and self.train.folds < 3:
            raise ValueError(
                "train.folds is 2, wanted 3 or more: one fold tests, one validates, the rest train "
                "(or set protocol.selection=test)"
            )

    @property
    def trained_share(self) -> float:
        """Of all patients, those that a fold's network is trained on."""
        held_out = 2 if self.protocol.selection == "validation" else 1
        return self.protocol.train_fraction * (1 - held_out / self.train.folds)

    @property
    def differs(self) -> dict[str, Any]:
        """What differs from the default, by dotted name."""
        mine, default = flat(dataclasses.asdict(self)), flat(dataclasses.asdict(Config()))
        return {name: value for name, value in mine.items() if value != default[name]}

    @property
    def digest(self) -> str:
        """Eight hex digits over what differs from the default: a setting that a later version adds changes no name."""
        text = json.dumps(self.differs, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    made: dict[str, Any] = {}
    for key, value in values.items():
        made |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return made


def fold_dict(config: Mapping[str, Any], fold: int) -> dict[str, Any]:
    """What a fold's config.yaml holds."""
    return {**config, "fold": fold}


def from_dict(kind: type[Section], values: Mapping[str, Any]) -> Section:
    """A (nested) dataclass from plain values; ValueError names an unknown key or a wrong type."""
    assert dataclasses.is_dataclass(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"unknown key {unknown[0]!r}, wanted one of: {', '.join(fields)}")
    made: dict[str, Any] = {}
    for name, value in values.items():
        wanted = fields[name].type
        assert isinstance(wanted, type)
        made[name] = from_dict(wanted, value) if dataclasses.is_dataclass(wanted) else _typed(name, value, wanted)
    return kind(**made)


def _typed(name: str, value: Any, wanted: type) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ValueError(f"{name} is {value!r}, wanted {wanted.__name__}")
    return value


def meanings(kind: type) -> dict[str, str]:
    """Field name -> the line under it, read from the class's own source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    lines: dict[str, str] = {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if is_text and isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            lines[statement.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return lines
