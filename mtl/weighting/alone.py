"""The baseline's loss: the segmentation's alone, for there is no regression path."""

import torch
from torch import nn


class Alone(nn.Module):
    def start(self, seg_loss: torch.Tensor, area_loss: torch.Tensor) -> None:
        """It starts nowhere."""

    def total(self, seg_loss: torch.Tensor, area_loss: torch.Tensor) -> torch.Tensor:
        return seg_loss

    def weight_reg(self) -> None:
        """There is no such loss."""

    def state(self) -> dict[str, float | None]:
        return {"log_sigma2_seg": None, "log_sigma_reg": None, "weight_seg": 1.0, "weight_reg": None}
