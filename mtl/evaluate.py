"""Slices -> predictions -> stacked volumes -> largest component -> volumes.csv, slices.csv."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data_prep.files import write_csv
from mtl import augment, cases, metrics
from mtl.config import Train
from mtl.network import UNet, arithmetic
from mtl.placed import Placed
from mtl.runfolder import RunFolder
from mtl.slices import SET_NAMES, Fold, Slices, pixels_of
from mtl.structures import COLUMN

VOLUME_COLUMNS = ("patient", "phase", "set", "is_ed", "is_es", *metrics.VOLUME_METRICS, "slice_spacing_mm")
SLICE_COLUMNS = (
    "patient",
    "phase",
    "level",
    "region",
    "set",
    "area_true_mm2",
    "area_reg_mm2",
    "area_seg_mm2",
)
BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What the network says of the slices `index_N`."""

    index_N: np.ndarray
    mask_NYX: np.ndarray
    """uint8 labels, as in Slices; of each structure the largest component of each volume only"""
    area_mm2_NA: np.ndarray
    """of each structure, from the regression path, or without one from the segmentation; float32"""
    regressed: bool
    """whether there is a regression path"""


@torch.inference_mode()
def predict(network: UNet, placed: Placed, index_N: np.ndarray, settings: Train) -> Prediction:
    """Run the network over slices as it was trained, in evaluation mode; keep each volume's largest component."""
    network.eval()
    slices = placed.slices
    masks, areas = [], []
    for begin in range(0, len(index_N), BATCH):
        image = augment.images(placed, index_N[begin : begin + BATCH], settings.normalisation)
        with arithmetic(settings.precision, placed.device):
            logits_BKYX, area_BA = network(image)
        masks.append(labels_of(logits_BKYX).cpu().numpy())
        if area_BA is not None:
            areas.append(area_BA.float().cpu().numpy())
    mask_NYX = np.concatenate(masks)
    for _, _, where in volumes(slices, index_N):
        mask_NYX[where] = metrics.largest_components(mask_NYX[where], len(slices.structures))
    area_mm2_NA = np.concatenate(areas) if areas else np.asarray(_segmented_mm2(slices, mask_NYX), np.float32)
    return Prediction(index_N, mask_NYX, area_mm2_NA, regressed=bool(areas))


def labels_of(logits_BKYX: torch.Tensor) -> torch.Tensor:
    """(B, Y, X) uint8: the likeliest label of each pixel; of one structure (K = 1) where it is likelier than not."""
    found = logits_BKYX[:, 0] > 0 if logits_BKYX.shape[1] == 1 else logits_BKYX.argmax(dim=1)
    return found.to(torch.uint8)


def _segmented_mm2(slices: Slices, mask_NYX: np.ndarray) -> np.ndarray:
    """(N, A)"""
    return pixels_of(mask_NYX, len(slices.structures)) * slices.pixel_mm2


def columns(names: Sequence[str], structures: Sequence[str]) -> tuple[str, ...]:
    """Of volumes.csv or slices.csv: VOLUME_COLUMNS or SLICE_COLUMNS, and which structure a row is of."""
    return (*names, *([COLUMN] if len(structures) > 1 else []))


def volumes(slices: Slices, index_N: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Patient, phase and the positions in `index_N` of each volume's labelled slices, base to apex."""
    patient_N, phase_N = slices.patient_N[index_N], slices.phase_N[index_N]
    order = np.lexsort((slices.level_N[index_N], phase_N, patient_N))
    patient_N, phase_N = patient_N[order], phase_N[order]
    begins = 1 + np.flatnonzero((np.diff(patient_N) != 0) | (np.diff(phase_N) != 0))
    for where in np.split(order, begins) if len(order) else []:
        first = index_N[where[0]]
        yield int(slices.patient_N[first]), int(slices.phase_N[first]), where


def volume_rows(slices: Slices, predicted: Prediction, set_name: str) -> list[dict[str, Any]]:
    """A row per volume and structure that carries ground truth, of the volume's labelled slices alone.

    Distances take neighbouring labelled slices to be neighbours. They are NaN (empty in the CSV) where nothing was
    predicted: such a volume is missed; and between slices whose distance the store does not say.
    """
    rows = []
    for patient, phase, where in volumes(slices, predicted.index_N):
        truth_ZYX, mask_ZYX = _truth(slices, predicted, where), predicted.mask_NYX[where]
        ed, es = slices.ed_es[patient]
        for label, structure in enumerate(slices.structures, start=1):
            if not (truth_ZYX == label).any():
                continue
            row = {
                "patient": slices.patients[patient],
                "phase": phase,
                "set": set_name,
                "is_ed": int(phase == ed),
                "is_es": int(phase == es),
                **_measured(truth_ZYX == label, mask_ZYX == label, slices, patient),
                "slice_spacing_mm": slices.slice_spacing_mm[patient],
                COLUMN: structure,
            }
            rows.append(row)
    return rows


def _measured(truth_ZYX: np.ndarray, mask_ZYX: np.ndarray, slices: Slices, patient: int) -> dict[str, float]:
    slice_mm = slices.slice_spacing_mm[patient]
    known = slice_mm > 0  # a single slice has no neighbour, and NaN is unknown
    measured = metrics.volume_metrics(truth_ZYX, mask_ZYX, (slice_mm if known else 1.0, *slices.pixel_spacing_mm))
    if not known and len(truth_ZYX) > 1:
        measured |= dict.fromkeys(("msd_mm", "ahd_mm", "hd_mm"), math.nan)
    return measured


def slice_rows(slices: Slices, predicted: Prediction, set_name: str) -> list[dict[str, Any]]:
    """A row per labelled slice and structure with its area from the masks, the regression path and the segmentation.
    A slice's region is that of its myocardium."""
    rows = []
    true_mm2_NA = slices.area_mm2_NA(predicted.index_N)
    seg_mm2_NA = _segmented_mm2(slices, predicted.mask_NYX)
    for patient, phase, where in volumes(slices, predicted.index_N):
        for n, region in zip(where, regions(true_mm2_NA[where, 0] > 0), strict=True):
            for a, structure in enumerate(slices.structures):
                row = {
                    "patient": slices.patients[patient],
                    "phase": phase,
                    "level": int(slices.level_N[predicted.index_N[n]]),
                    "region": region,
                    "set": set_name,
                    "area_true_mm2": float(true_mm2_NA[n, a]),
                    "area_reg_mm2": float(predicted.area_mm2_NA[n, a]) if predicted.regressed else None,
                    "area_seg_mm2": float(seg_mm2_NA[n, a]),
                    COLUMN: structure,
                }
                rows.append(row)
    return rows


def regions(has_truth_Z: np.ndarray) -> list[str]:
    """`basal`, `mid` or `apical` per level from base to apex; `none` where the level carries no myocardium.

    Of the slices with ground truth two at each end are basal and apical, the rest mid (paper, section 3);
    with fewer than four, one or none at each end.
    """
    names = np.full(len(has_truth_Z), "none", dtype="<U6")
    carrying = np.flatnonzero(has_truth_Z)
    end = min(2, len(carrying) // 2)
    names[carrying] = "mid"
    names[carrying[:end]] = "basal"
    names[carrying[len(carrying) - end :]] = "apical"
    return [str(name) for name in names]


def masks_of(slices: Slices, predicted: Prediction) -> dict[str, np.ndarray]:
    """Patient -> (T, Z, Y, X) uint8, the predicted slices in their places."""
    made: dict[str, np.ndarray] = {}
    for n, mask_YX in zip(predicted.index_N, predicted.mask_NYX, strict=True):
        patient = slices.patient_N[n]
        shape = (*slices.shape_TZ[patient], *mask_YX.shape)
        made.setdefault(slices.patients[patient], np.zeros(shape, np.uint8))[slices.phase_N[n], slices.level_N[n]] = (
            mask_YX
        )
    return made


def cases_of(slices: Slices, predicted: Prediction) -> list[cases.Case]:
    """A few of the volumes, worst to best by the myocardium, to be looked at."""
    carrying = [
        place for place in volumes(slices, predicted.index_N) if _myocardium(slices, predicted, place[2])[0].any()
    ]
    dice_V = [metrics.dice(*_myocardium(slices, predicted, where)) for *_, where in carrying]
    return [
        cases.case_of(
            slices.patients[patient],
            phase,
            dice_V[n],
            slices.image_NYX[predicted.index_N[where]],
            *_myocardium(slices, predicted, where),
        )
        for n, (patient, phase, where) in ((n, carrying[n]) for n in cases.chosen(dice_V))
    ]


def _truth(slices: Slices, predicted: Prediction, where: np.ndarray) -> np.ndarray:
    """uint8 labels"""
    return slices.mask_NYX[predicted.index_N[where]]


def _myocardium(slices: Slices, predicted: Prediction, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted, bool; the first structure is the myocardium."""
    return _truth(slices, predicted, where) == 1, predicted.mask_NYX[where] == 1


def score(slices: Slices, predicted: Prediction) -> tuple[list[float], list[float]]:
    """Of each structure: mean Dice over the volumes that carry it (NaN where none does); mean absolute difference of
    the area over slices, mm2, from the regression path (of the baseline, which has none, from the segmentation)."""
    pairs = [
        (_truth(slices, predicted, where), predicted.mask_NYX[where])
        for *_, where in volumes(slices, predicted.index_N)
    ]
    dices = []
    for label in range(1, len(slices.structures) + 1):
        of_label = [metrics.dice(truth == label, mask == label) for truth, mask in pairs if (truth == label).any()]
        dices.append(float(np.mean(of_label)) if of_label else math.nan)
    error_mm2_AN = np.abs(predicted.area_mm2_NA - slices.area_mm2_NA(predicted.index_N)).T
    return dices, [float(np.ascontiguousarray(one_N).mean()) for one_N in error_mm2_AN]


def write(
    network: UNet,
    placed: Placed,
    fold: Fold,
    folder: RunFolder,
    settings: Train,
    *,
    save_masks: bool = False,
) -> None:
    """volumes.csv and slices.csv of the validation set (where there is one) and the test set; a few cases of it.

    save_masks: the test set's predicted masks as well, in masks.zarr, so that any number can be checked against its
    picture; slices that are not labelled are not predicted and stay 0.
    """
    slices, volume_lines, slice_lines = placed.slices, [], []
    for set_name in SET_NAMES:
        index_N = getattr(fold, set_name)
        if len(index_N):
            predicted = predict(network, placed, index_N, settings)
            volume_lines += volume_rows(slices, predicted, set_name)
            slice_lines += slice_rows(slices, predicted, set_name)
            if set_name == "test":
                cases.write(folder.path / cases.NAME, cases_of(slices, predicted))
            if save_masks and set_name == "test":
                from data_prep import store  # zarr, which nothing else of a training needs

                store.write_masks(folder.path / "masks.zarr", masks_of(slices, predicted))
    write_csv(folder.path / "volumes.csv", volume_lines, columns(VOLUME_COLUMNS, slices.structures))
    write_csv(folder.path / "slices.csv", slice_lines, columns(SLICE_COLUMNS, slices.structures))
