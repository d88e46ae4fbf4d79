"""The paper's weights: both uncertainties are parameters of the network, learned with it (eq. 5)."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from mtl.loss import joint_loss
from mtl.structures import with_each

SMALLEST = 1e-6
"""Loss below which s does not start: a first batch that is met exactly would start at minus infinity."""


class Learned(nn.Module):
    """s_seg = log sigma_seg^2 starts at 0; s_reg = log sigma_reg (sigma in mm2) at one predicted unit, for each area.

    So both weights start at 1 in the units in which the network predicts: with areas in standard deviations
    s_reg starts at the logarithm of that deviation, with raw mm2 at 0. from_data: both start at eq. (5)'s optimum
    for the first batch instead. The paper does not say where it starts.
    """

    def __init__(self, s_reg: Sequence[float], structures: Sequence[str], *, from_data: bool = False) -> None:
        super().__init__()
        self.from_data, self.structures = from_data, structures
        self.s_seg = nn.Parameter(torch.zeros(()))
        self.s_reg = nn.Parameter(torch.tensor(s_reg if len(s_reg) > 1 else s_reg[0], dtype=torch.float32))

    @torch.no_grad()
    def start(self, seg_loss: torch.Tensor, area_loss: torch.Tensor) -> None:
        """sigma_seg^2 = 2 L_seg and sigma_reg = L_area, where both terms of eq. (5) are stationary."""
        if self.from_data:
            self.s_seg.copy_(torch.log((2 * seg_loss).clamp_min(SMALLEST)))
            self.s_reg.copy_(torch.log(area_loss.clamp_min(SMALLEST)).reshape(self.s_reg.shape))

    def total(self, seg_loss: torch.Tensor, area_loss: torch.Tensor) -> torch.Tensor:
        return joint_loss(seg_loss, area_loss, self.s_seg, self.s_reg)

    def weight_reg(self) -> torch.Tensor:
        return torch.exp(-self.s_reg.detach())

    def state(self) -> dict[str, float | None]:
        s_seg, s_reg = self.s_seg.item(), self.s_reg.detach().reshape(-1).tolist()
        return {
            "log_sigma2_seg": s_seg,
            **with_each("log_sigma_reg", s_reg, self.structures),
            "weight_seg": math.exp(-s_seg),
            **with_each("weight_reg", [math.exp(-s) for s in s_reg], self.structures),
        }
