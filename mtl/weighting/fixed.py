"""Fixed weights: L_seg + L_area / ratio. Equal weights are the ratio 1."""

import torch
from torch import nn


class Fixed(nn.Module):
    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def start(self, seg_loss: torch.Tensor, area_loss: torch.Tensor) -> None:
        """It starts at its ratio."""

    def total(self, seg_loss: torch.Tensor, area_loss: torch.Tensor) -> torch.Tensor:
        return seg_loss + (area_loss / self.ratio).sum()

    def weight_reg(self) -> torch.Tensor:
        return torch.tensor(1 / self.ratio)

    def state(self) -> dict[str, float | None]:
        return {
            "log_sigma2_seg": None,
            "log_sigma_reg": None,
            "weight_seg": 1.0,
            "weight_reg": 1 / self.ratio,
        }
