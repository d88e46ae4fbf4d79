"""The conversion against what a user would write instead, with two workers, and as it grows.

    BRANCHPOINT_REAL_DATA=FOLDER python -m tests.benchmarks conversion

Ours is the whole of it: find, read, check, resample, write the store to the disk and its report. The others read
and resample slice by slice and write nothing; their masks must lie on their images' matrices. All files are in the
page cache. Wanted: 3 x as fast as SimpleITK per slice (the paper's way), 8 x as fast as MONAI; two workers 1.8 x as
fast as one; 10 and 100 patients within 10 % a slice; below 1 GB in a worker.
"""

import itertools
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from data_prep import convert, grid, inventory, phantom
from data_prep.readers import lvsc
from data_prep.readers.found import Options

ROOT = Path(__file__).resolve().parent.parent.parent
SPACING_MM, SIZE = grid.SPACING_MM, grid.SIZE


class Files(NamedTuple):
    """One slice."""

    image: Path
    mask: Path | None


Peer = Callable[[Files], tuple[np.ndarray, np.ndarray | None]]
"""A slice's files -> image and mask (Y, X) on the store's grid, or wherever the peer's own centre lies"""


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def interleaved(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way measures, in turn, so that a busy minute falls on all. The first round warms up."""
    measured = [{name: way() for name, way in ways.items()} for _ in range(rounds + 1)][1:]
    return {name: [one[name] for one in measured] for name in ways}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, smallest and largest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def slices_of(raw: Path) -> dict[str, list[Files]]:
    """Case -> its slices, as our own reader finds them."""
    cases = {}
    for case in lvsc.find(inventory.take(raw), Options()).cases:
        images, masks = case.details["images"], case.details["masks"]
        cases[case.name] = [
            Files(case.files[image], case.files[masks[place][0]] if place in masks else None)
            for place, (image, *_) in images.items()
        ]
    return cases


def real_case(folder: Path, home: Path) -> Path | None:
    """A copy of the case to measure on: one whose images all have masks, else the one with most; None without any."""
    masked = {name: (all(s.mask for s in case), sum(s.mask is not None for s in case), case)
              for name, case in slices_of(folder).items()}
    name = max(masked, key=lambda name: masked[name][:2], default=None)
    if name is None or not masked[name][1]:
        return None
    raw = home / "real"
    raw.mkdir()
    for path in itertools.chain.from_iterable(masked[name][2]):
        if path is not None:
            shutil.copy(path, raw)
    return raw


def by_simpleitk(files: Files) -> tuple[np.ndarray, np.ndarray | None]:
    """The paper's way. One resampling onto the wanted grid: what a crop or pad of 192 x 192 would keep, and no more."""
    image = sitk.ReadImage(str(files.image), sitk.sitkFloat32)[:, :, 0]  # of int16 it would truncate
    grey_YX = _onto_grid(image, image.GetSpacing(), sitk.sitkLinear)
    if files.mask is None:
        return grey_YX, None
    mask = sitk.ReadImage(str(files.mask))
    mask = sitk.VectorIndexSelectionCast(mask, 0) if mask.GetNumberOfComponentsPerPixel() > 1 else mask
    return grey_YX, _onto_grid(mask, image.GetSpacing(), sitk.sitkNearestNeighbor) > 0


def _onto_grid(image: sitk.Image, spacing_mm: Sequence[float], how: int) -> np.ndarray:
    image.SetSpacing(spacing_mm)
    image.SetDirection((1, 0, 0, 1))
    image.SetOrigin([-(n - 1) / 2 * step for n, step in zip(image.GetSize(), spacing_mm, strict=True)])
    corner_mm = (-(SIZE - 1) / 2 * SPACING_MM,) * 2
    moved = sitk.Resample(image, (SIZE,) * 2, sitk.Transform(), how, corner_mm, (SPACING_MM,) * 2, (1, 0, 0, 1), 0.0)
    return sitk.GetArrayFromImage(moved)


def by_monai(reader: str) -> Peer:
    """MONAI's dictionary transforms. ImportError where it or the reader's library is not installed.

    As a user must write them for one oblique slice a file. PydicomReader gives a plane with a 4 x 4 affine, whose
    first two rows Spacing takes for the plane's (1.77 x 1.08 mm for pixels of 1.77 mm), so the pixel spacing is
    set; ITKReader gives a volume of one slice. A PNG has no affine: the mask takes its image's.
    """
    import torch
    from monai import transforms
    from monai.data import MetaTensor, PILReader

    logging.getLogger("monai").setLevel(logging.ERROR)
    volume = reader == "ITKReader"
    if volume:
        import itk  # noqa: F401

    def placed(slices: dict[str, Any]) -> dict[str, Any]:
        image = slices["image"]
        if not volume:
            row_mm, column_mm = image.meta["00280030"]["Value"]
            image.affine = torch.diag(torch.tensor([column_mm, row_mm, 1.0, 1.0], dtype=torch.float64))
        if "mask" in slices:
            mask = slices["mask"][..., None] if volume else slices["mask"]
            slices = {**slices, "mask": MetaTensor(mask, affine=image.affine)}
        return slices

    both, third = {"keys": ("image", "mask"), "allow_missing_keys": True}, (-1,) * volume
    chain = transforms.Compose(
        [
            transforms.LoadImaged("image", reader=reader),
            transforms.LoadImaged("mask", reader=PILReader(converter=lambda png: png.convert("L")), allow_missing_keys=True),
            transforms.EnsureChannelFirstd(**both, channel_dim="no_channel"),
            placed,
            transforms.Spacingd(**both, pixdim=(SPACING_MM, SPACING_MM, *third), mode=("bilinear", "nearest")),
            transforms.ResizeWithPadOrCropd(**both, spatial_size=(SIZE, SIZE, *third)),
        ]
    )

    def convert_slice(files: Files) -> tuple[np.ndarray, np.ndarray | None]:
        made = chain({"image": files.image} | ({"mask": files.mask} if files.mask else {}))
        grey_YX, *mask_YX = (made[name].numpy().reshape(SIZE, SIZE).T for name in ("image", "mask") if name in made)
        return grey_YX, mask_YX[0] > 0 if mask_YX else None

    return convert_slice


def by_reading(files: Files) -> None:
    """The floor."""
    for path in files:
        if path is not None:
            path.read_bytes()


def against_peers(name: str, raw: Path, rounds: int) -> str:
    """The rows: ms a slice, ours and each peer's, and how many times ours that is."""
    slices = [one for case in slices_of(raw).values() for one in case]
    rows, ways, wanted = [], {}, {"SimpleITK per slice": "; wanted 3", "MONAI": "; wanted 8"}
    ...
