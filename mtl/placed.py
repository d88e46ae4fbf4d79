"""The slices as a device sees them: kept in its memory where they fit, else copied batch by batch from the files.

Legend: N slice, B batch, Y row, X column.
"""

import math

import numpy as np
import torch

from mtl.slices import Slices, Stack

LARGEST_SHARE = 0.1
"""of a GPU's memory for the slices: with five folds on it, a process and a copy each, half is left to their work"""
COPIED_AT_A_TIME = 1024


class Placed:
    """`slices` for a device. resident: None decides by the device's memory (never on CPUs, which map the files)."""

    def __init__(self, slices: Slices, device: torch.device, *, resident: bool | None = None) -> None:
        self.slices, self.device = slices, device
        self._image_NYX = self._mask_NYX = None
        if fits(slices, device) if resident is None else resident:
            self._image_NYX = _copied(slices.image_NYX, device)
            self._mask_NYX = _copied(slices.mask_NYX, device)

    @property
    def resident(self) -> bool:
        return self._image_NYX is not None

    def image_B1YX(self, index_B: np.ndarray) -> torch.Tensor:
        """Grey levels, float32, on the device."""
        return self._batch(self._image_NYX, self.slices.image_NYX, index_B)

    def mask_B1YX(self, index_B: np.ndarray) -> torch.Tensor:
        """Class labels, float32, on the device."""
        return self._batch(self._mask_NYX, self.slices.mask_NYX, index_B)

    def _batch(self, there_NYX: torch.Tensor | None, here_NYX: np.ndarray | Stack, index_B: np.ndarray) -> torch.Tensor:
        if there_NYX is None:
            return torch.from_numpy(here_NYX[index_B][:, None]).to(self.device).float()
        return there_NYX[torch.from_numpy(index_B).to(self.device)][:, None].float()


def fits(slices: Slices, device: torch.device) -> bool:
    """Whether the slices may lie in the device's own memory."""
    if device.type != "cuda":
        return False
    bytes_a_pixel = slices.image_NYX.dtype.itemsize + slices.mask_NYX.dtype.itemsize
    total = torch.cuda.get_device_properties(device).total_memory
    return math.prod(slices.image_NYX.shape) * bytes_a_pixel <= LARGEST_SHARE * total


def _copied(here_NYX: np.ndarray | Stack, device: torch.device) -> torch.Tensor:
    """All slices on the device; few at a time are copied in main memory."""
    parts = np.array_split(np.arange(len(here_NYX)), -(-len(here_NYX) // COPIED_AT_A_TIME))
    return torch.cat([torch.from_numpy(here_NYX[part]).to(device) for part in parts])
