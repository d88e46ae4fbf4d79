"""Rotation and translation of a batch of images and masks, in one thread.

    python -m tests.benchmarks augment

Ours is what a training step does: the draws and one affine grid for the whole batch, both as mtl/augment.py has them.
The others take slice by slice: MONAI's RandAffined, which draws its own, as a user sets it up; MONAI's Affine, scipy
and OpenCV with our draws, whose images and masks are checked to be ours. All work on float32, images bilinear, masks by
the nearest pixel. The floor copies the same arrays.

Wanted: 3 x as fast as MONAI's RandAffined. No claim beside OpenCV, which is faster than ours on one thread.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from mtl import augment
from mtl.config import Train
from tests.benchmarks.peers import Peer, Work, assert_close, compared, library, milliseconds, quietly
from tests.benchmarks.rows import Row

DEFAULT = Train()
TOLERANCE = 0.02
"""of the largest grey level"""
EQUAL = 0.999
"""share of a mask's pixels: one halfway between two may take either"""

Arrays = tuple[np.ndarray, np.ndarray]
"""image and mask of a batch, (B, Y, X) float32"""
One = Callable[[np.ndarray, np.ndarray, tuple[float, float, float]], Arrays]
"""image and mask of a slice, moved by an angle (rad) and a shift along x and y (pixels)"""


def batch(count: int, size: int) -> Arrays:
    """Smooth images, and a ring in each."""
    y, x = (np.mgrid[:size, :size] - size / 2) / size
    phase_B = np.random.default_rng(0).uniform(0, 2 * np.pi, (count, 1, 1))
    image_BYX = np.sin(9 * x + phase_B) + np.cos(7 * y - phase_B)
    radius_YX = np.hypot(y, x + 0.1)
    mask_BYX = np.repeat([(radius_YX < 0.2) & (radius_YX > 0.1)], count, axis=0)
    return image_BYX.astype(np.float32), mask_BYX.astype(np.float32)


def drawn(count: int) -> np.ndarray:
    """Angle (rad) and shift along x and y (image sizes) of each slice: (B, 3)."""
    return augment.draws(0, 1, count, 1, DEFAULT.rotation_deg, DEFAULT.shift)[:, 1]


def ours(arrays: Arrays) -> Arrays:
    image, mask = (torch.from_numpy(array)[:, None] for array in arrays)
    moved = augment.apply(image, mask, torch.from_numpy(drawn(len(image)).astype(np.float32)))
    image, mask = (made[:, 0].numpy() for made in moved)
    return image, mask


def each(one: One, arrays: Arrays) -> Arrays:
    """Slice by slice, by our draws."""
    draws_B3 = drawn(len(arrays[0])) * [1, arrays[0].shape[2], arrays[0].shape[1]]
    images, masks = zip(*map(one, *arrays, draws_B3.tolist()), strict=True)
    return np.stack(images), np.stack(masks)


def sources(move: tuple[float, float, float], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a pixel (y, x) comes from: this matrix times it, plus this offset (pixels)."""
    angle, dx, dy = move
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([size - 1, size - 1]) / 2
    return matrix, centre - matrix @ (centre + np.array([dy, dx]))


def by_monai_at_random(arrays: Arrays) -> Work:
    """RandAffined, always applied."""
    move = library("monai.transforms").RandAffined(
        ("image", "label"),
        prob=1.0,
        rotate_range=math.radians(DEFAULT.rotation_deg),
        translate_range=[DEFAULT.shift * arrays[0].shape[1]] * 2,  # pixels
        mode=("bilinear", "nearest"),
        padding_mode="zeros",
    )
    images, masks = (torch.from_numpy(array)[:, None] for array in arrays)
    items = [{"image": image, "label": mask} for image, mask in zip(images, masks, strict=True)]
    return partial(quietly, lambda: [move(item) for item in items])


def by_monai(arrays: Arrays) -> Work:
    affine = library("monai.transforms").Affine

    def one(image_YX: np.ndarray, mask_YX: np.ndarray, move: tuple[float, float, float]) -> Arrays:
        angle, dx, dy = move
        transform = affine(rotate_params=angle, translate_params=[-dy, -dx], padding_mode="zeros", image_only=True)
        image, mask = (
            transform(torch.from_numpy(array)[None], mode=mode)[0].numpy()
            for array, mode in ((image_YX, "bilinear"), (mask_YX, "nearest"))
        )
        return image, mask

    return partial(quietly, partial(each, one, arrays))


def by_scipy(arrays: Arrays) -> Work:
    transform = library("scipy.ndimage").affine_transform

    def one(image_YX: np.ndarray, mask_YX: np.ndarray, move: tuple[float, float, float]) -> Arrays:
        matrix, offset = sources(move, len(image_YX))
        image = transform(image_YX, matrix, offset, order=1, mode="grid-constant")
        return image, transform(mask_YX, matrix, offset, order=0, mode="grid-constant")

    return partial(each, one, arrays)


def by_opencv(arrays: Arrays) -> Work:
    cv2 = library("cv2")
    cv2.setNumThreads(1)

    def one(image_YX: np.ndarray, mask_YX: np.ndarray, move: tuple[float, float, float]) -> Arrays:
        matrix, offset = sources(move, len(image_YX))
        affine = np.column_stack([matrix[::-1, ::-1], offset[::-1]])  # x before y
        image, mask = (
            cv2.warpAffine(array, affine, array.shape[::-1], flags=how | cv2.WARP_INVERSE_MAP)
            for array, how in ((image_YX, cv2.INTER_LINEAR), (mask_YX, cv2.INTER_NEAREST))
        )
        return image, mask

    return partial(each, one, arrays)


def copying(arrays: Arrays) -> Work:
    image, mask = map(torch.from_numpy, arrays)
    return lambda: (image.clone(), mask.clone())


def agree(wanted: Arrays, name: str, given: Arrays) -> None:
    """AssertionError where images or masks are not ours; RandAffined's have draws of their own."""
    if name == "MONAI's RandAffined":
        return
    assert_close(name, given[0], wanted[0], TOLERANCE)
    equal = (given[1] == wanted[1]).mean()
    assert equal >= EQUAL, f"{name}: {equal:.4f} of the mask's pixels are ours, wanted {EQUAL}"


def rows(size: int = 192, count: int = 16, repeats: int = 5, rounds: int = 5) -> Iterator[Row]:
    """The row. repeats: batches in a round."""
    torch.set_num_threads(1)
    arrays = batch(count, size)
    peers = {
        "MONAI's RandAffined": Peer(partial(by_monai_at_random, arrays), wanted=3),
        "MONAI's Affine": Peer(partial(by_monai, arrays)),
        "scipy's affine_transform": Peer(partial(by_scipy, arrays)),
        "OpenCV's warpAffine": Peer(partial(by_opencv, arrays)),
        "memory copy": Peer(partial(copying, arrays), floor=True),
    }
    name = f"augmentation, {size} x {size}, batch {count}, one thread"
    row = partial(Row, name, "ms a slice", note="no claim beside OpenCV, the fastest of all on one thread")
    yield compared(
        row,
        partial(ours, arrays),
        peers,
        partial(milliseconds, repeats=repeats, parts=count),
        rounds,
        partial(agree, ours(arrays)),
    )
