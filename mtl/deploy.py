"""A trained fold as one module: raw grey levels in, mask probabilities and areas out.

    module = deployed(RunFolder(Path("runs/paper/branch-up4-3fa9c210/fold_0")))
    probability_BAYX, area_mm2_BA = module(grey_B1YX)

This is what cluster/tracking/models.py logs in MLflow, and what mlflow.pytorch.load_model gives back; mlflow.pyfunc
takes and gives arrays, through Predictor. Both want this package installed where they are loaded.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mtl import checkpoint
from mtl.config import Config, from_dict
from mtl.evaluate import labels_of
from mtl.network import UNet, arithmetic
from mtl.runfolder import RunFolder, read_settings
from mtl.structures import structures_of


class Answer(NamedTuple):
    """Of a batch of slices, of each of the store's structures (the first, and often the only one: myocardium)."""

    probability_BAYX: torch.Tensor
    """that a pixel belongs to it; what is missing to 1 is that of none of them"""
    area_mm2_BA: torch.Tensor
    """from the regression path; of the baseline, which has none, from the mask"""


class Deployed(nn.Module):
    """The network of a fold's best epoch with what belongs to it: how images are normalised, how large a pixel is.

    Takes any batch of slices (B, 1, Y, X) of grey levels at the store's pixel spacing, Y and X multiples of 16; each is
    brought to mean 0 and deviation 1 as in training. Slices alone: of a volume the largest component is to be kept by
    whoever stacks them, as mtl/evaluate.py does.

    normalisation: as in train.normalisation. Where it is `volume` a batch is one volume, a patient's slices at a phase.
    """

    def __init__(
        self, network: UNet, pixel_mm2: float, precision: str, structures: Sequence[str], normalisation: str = "slice"
    ) -> None:
        super().__init__()
        self.network, self.pixel_mm2, self.precision = network, pixel_mm2, precision
        self.structures, self.normalisation = tuple(structures), normalisation

    def forward(self, grey_B1YX: torch.Tensor) -> Answer:
        grey_B1YX = grey_B1YX.float()
        over = (1, 2, 3) if self.normalisation == "slice" else (0, 1, 2, 3)
        mean = grey_B1YX.mean(dim=over, keepdim=True)
        deviation = grey_B1YX.std(dim=over, keepdim=True, correction=0)
        with arithmetic(self.precision, grey_B1YX.device):
            logits_BKYX, area_BA = self.network((grey_B1YX - mean) / deviation.clamp_min(1e-6))
        if area_BA is None:
            wanted = torch.arange(1, len(self.structures) + 1, device=grey_B1YX.device).view(1, -1, 1, 1)
            area_BA = (labels_of(logits_BKYX)[:, None] == wanted).sum(dim=(2, 3)) * self.pixel_mm2
        logits_BKYX = logits_BKYX.float()
        probability_BAYX = logits_BKYX.sigmoid() if logits_BKYX.shape[1] == 1 else logits_BKYX.softmax(dim=1)[:, 1:]
        return Answer(probability_BAYX, area_BA.float())


class Predictor:
    """The same for arrays: what mlflow.pyfunc.load_model(...).predict calls."""

    def __init__(self, module: Deployed, device: torch.device) -> None:
        self._module, self._device = module.to(device).eval(), device

    def predict(self, grey_B1YX: np.ndarray, params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """`probability` (B, A, Y, X) and `area_mm2` (B, A), float32. params: MLflow's; there are none."""
        with torch.inference_mode():
            answer = self._module(torch.from_numpy(np.asarray(grey_B1YX, np.float32)).to(self._device))
        return {"probability": answer.probability_BAYX.cpu().numpy(), "area_mm2": answer.area_mm2_BA.cpu().numpy()}


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Predictor:
    """MLflow's entry, by this name. path: of the folder that mlflow.pytorch has written."""
    wanted = (model_config or {}).get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    module = torch.load(Path(path) / "model.pth", map_location="cpu", weights_only=False)  # as mlflow.pytorch does
    return Predictor(module, torch.device(wanted))


def deployed(run: RunFolder, *, of_slices: bool = False) -> Deployed:
    """The best epoch of a finished fold. of_slices: it is to take single slices. ValueError where it is not done, has
    lost files, or cannot do so."""
    config, number, facts = told(run)
    if of_slices and config.train.normalisation != "slice":
        raise ValueError(
            f"{run.path}: trained with train.normalisation={config.train.normalisation}, which normalises a slice with "
            "its whole volume: no model of single slices can be made of it"
        )
    structures = structures_of(facts)
    areas, size = len(structures), int(facts["size"][0])
    network = UNet(
        config.model.branch, config.model.width, classes=areas, areas=areas, size=size, norm=config.model.norm
    )
    try:
        network.load_state_dict(checkpoint.load(run.best, config, number)["network"])
    except RuntimeError:  # whose message has a line for each of its tensors
        raise ValueError(
            f"{run.best}: is not the network of its config.yaml, with {areas} structures ({', '.join(structures)}); "
            "copy the fold's folder again from where it was trained"
        ) from None
    quicken(network.eval())
    row_mm, column_mm = facts["pixel_spacing_mm"]
    return Deployed(network, row_mm * column_mm, config.train.precision, structures, config.train.normalisation).eval()


def quicken(network: nn.Module) -> None:
    """Put each BatchNorm of a network in evaluation mode into the convolution before it, and its weights into the
    layout that convolutions like: the same answers up to rounding, in half the time (tests/benchmarks, `infer`)."""
    for block in [part for part in network.modules() if isinstance(part, nn.Sequential)]:
        for place, (convolution, norm) in enumerate(pairwise([*block])):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                block[place], block[place + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def told(run: RunFolder) -> tuple[Config, int, dict[str, Any]]:
    """A finished fold's configuration, its number, and what its DONE says."""
    if run.outcome() != "DONE" or run.lost():
        why = f"lost {', '.join(run.lost())}" if run.lost() else f"{run.outcome() or 'not done'}"
        raise ValueError(f"{run.path}: {why}; a model wants a finished fold: run the same sweep again")
    values, facts = dict(read_settings(run.path / "config.yaml")), run.facts()
    number = int(values.pop("fold"))
    if missing := [name for name in ("size", "pixel_spacing_mm", "best_epoch") if name not in facts]:
        raise ValueError(f"{run.path}: DONE says no {', '.join(missing)}; train it again with this version")
    return from_dict(Config, values), number, facts


def example(rows: int, columns: int) -> np.ndarray:
    """One slice (1, 1, rows, columns) to try a model with: a bright ring in noise, nobody's heart."""
    y, x = np.mgrid[:rows, :columns]
    radius = np.hypot(y - rows / 2, x - columns / 2) / min(rows, columns)
    ring = 400.0 * (radius < 0.11) + 200.0 * ((radius >= 0.11) & (radius < 0.15))
    noise = np.random.default_rng(0).normal(100, 20, (rows, columns))
    return np.asarray((ring + noise).round()[None, None], np.float32)
