"""Network and weighting as one module, and its losses on their way from the device."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from mtl.loss import area_loss, segmentation_loss, soft_dice_loss
from mtl.network import UNet, arithmetic
from mtl.ranks import Ranks
from mtl.weighting import Way

SEGMENTATION = {"cross_entropy": (segmentation_loss,), "dice_ce": (segmentation_loss, soft_dice_loss)}
"""loss.segmentation -> what is added up to L_seg"""


class Joint(nn.Module):
    """Network and weighting as one module: what is averaged over ranks are the gradients of both."""

    weighting: Way

    def __init__(
        self, network: UNet, way: Way, among: Ranks, precision: str, segmentation: str, *, compiled: bool = False
    ) -> None:
        """segmentation: as in loss.segmentation."""
        super().__init__()
        self.weighting, self.ranks, self.precision = way, among, precision
        self.segmentation_losses = SEGMENTATION[segmentation]
        self.network = torch.compile(network, dynamic=False) if compiled else network
        self.started = False

    def forward(
        self, image: torch.Tensor, mask: torch.Tensor, area_mm2: torch.Tensor, share: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The joint loss, L_seg and L_area (mm2, of each structure; NaN without a regression path), whose means over
        ranks are the batch's: eq. (5) is linear in the losses."""
        seg, reg = (share * loss for loss in self.losses(self.network, image, mask, area_mm2))
        if not self.started:
            self.weighting.start(self.ranks.mean(seg), self.ranks.mean(reg))
            self.started = True
        return self.weighting.total(seg, reg), seg, reg

    def losses(
        self, network: Callable[[torch.Tensor], Any], image: torch.Tensor, mask: torch.Tensor, area_mm2: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """L_seg and L_area, (A,) (mm2; NaN without a regression path)."""
        with arithmetic(self.precision, image.device):
            logits, area = network(image)
        seg = torch.stack([loss(logits.float(), mask) for loss in self.segmentation_losses]).sum()
        return seg, seg.new_full(area_mm2.shape[1:], math.nan) if area is None else area_loss(area, area_mm2)


class Coming:
    """Numbers on their way from the device: the processor goes on and queues the backward pass meanwhile."""

    def __init__(self, values: torch.Tensor) -> None:
        if values.device.type != "cuda":
            self._values, self._event = values, None
            return
        self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._values.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def arrived(self) -> np.ndarray:
        if self._event is not None:
            self._event.synchronize()
        return self._values.double().cpu().numpy()
