"""Random rotation and translation of a whole batch: one affine grid for images and masks together.

The draws depend on (seed, epoch, slice, copy) and on the number of copies, so that a resumed training sees the same
images as an uninterrupted one. Paper, section 2.1: two transformations per image, translation by at most
half the image size; the range of the rotation is not stated.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from mtl.placed import Placed


def draws(seed: int, epoch: int, slices: int, copies: int, rotation_deg: float, shift: float) -> np.ndarray:
    """Angle (rad) and shift along x and y (image sizes): (slices, 1 + copies, 3). Copy 0 is the image itself."""
    uniform = np.random.default_rng([seed, epoch]).uniform(-1, 1, (slices, copies, 3))
    moved = uniform * [math.radians(rotation_deg), shift, shift]
    return np.concatenate([np.zeros((slices, 1, 3)), moved], axis=1)


def apply(
    image_B1YX: torch.Tensor, mask_B1YX: torch.Tensor, draws_B3: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate about the centre, then shift, image (bilinear) and mask (nearest) alike; zero comes in.

    image: float; mask: float class labels; draws: angle in rad, shift in image sizes. Non-square images are
    rotated in pixels, so that a ring stays a ring.
    """
    angle, dx, dy = draws_B3.unbind(1)
    cos, sin = angle.cos(), angle.sin()
    aspect = image_B1YX.shape[2] / image_B1YX.shape[3]
    # grid_sample asks where each output pixel comes from: shift back, then rotate back. Its unit is half an
    # image size along each axis.
    tx, ty = -2 * dx, -2 * dy
    theta_B23 = torch.stack(
        [
            torch.stack([cos, sin * aspect, cos * tx + sin * aspect * ty], dim=1),
            torch.stack([-sin / aspect, cos, -sin / aspect * tx + cos * ty], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta_B23, list(image_B1YX.shape), align_corners=False)
    return (
        F.grid_sample(image_B1YX, grid, mode="bilinear", align_corners=False),
        F.grid_sample(mask_B1YX, grid, mode="nearest", align_corners=False),
    )


def images(placed: Placed, index_N: np.ndarray, normalisation: str) -> torch.Tensor:
    """(B, 1, Y, X) float: the slices' grey levels, normalised (the paper does not say how it does that).

    normalisation: `slice`, each to mean 0 and standard deviation 1; `volume`, by the mean and standard deviation of
    all the labelled slices of its patient and phase, so that levels of one volume keep their contrast.
    """
    image_B1YX = placed.image_B1YX(index_N)
    if normalisation == "volume":
        intensity_B2 = torch.from_numpy(placed.slices.volume_intensity_N2[index_N]).to(placed.device)
        mean, deviation = intensity_B2[:, 0].reshape(-1, 1, 1, 1), intensity_B2[:, 1].reshape(-1, 1, 1, 1)
    else:
        mean = image_B1YX.mean(dim=(1, 2, 3), keepdim=True)
        deviation = image_B1YX.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (image_B1YX - mean) / deviation.clamp_min(1e-6)
