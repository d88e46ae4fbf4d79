"""Slices -> predictions -> stacked volumes -> largest component -> volumes.csv, slices.csv."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data_prep import store
from data_prep.files import write_csv
from mtl import augment, cases, metrics
from mtl.config import Train
from mtl.data import SET_NAMES, Fold, Slices
from mtl.network import UNet, arithmetic
from mtl.placed import Placed
from mtl.runfolder import RunFolder

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
    """bool; the largest component of each volume only"""
    area_mm2_N: np.ndarray
    """from the regression path, or without one from the segmentation; float32"""
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
            logits_B1YX, area_B1 = network(image)
        masks.append((logits_B1YX[:, 0] > 0).cpu().numpy())
        if area_B1 is not None:
            areas.append(area_B1[:, 0].float().cpu().numpy())
    mask_NYX = np.concatenate(masks)
    for _, _, where in volumes(slices, index_N):
        mask_NYX[where] = metrics.largest_component(mask_NYX[where])
    seg_mm2 = np.asarray(mask_NYX.sum(axis=(1, 2)) * slices.pixel_mm2, np.float32)
    return Prediction(index_N, mask_NYX, np.concatenate(areas) if areas else seg_mm2, regressed=bool(areas))


def volumes(slices: Slices, index_N: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Patient, phase and the positions in `index_N` of each volume's labelled slices, base to apex."""
    keys = np.stack([slices.patient_N[index_N], slices.phase_N[index_N]], axis=1)
    for patient, phase in np.unique(keys, axis=0):
        where = np.flatnonzero((keys == (patient, phase)).all(axis=1))
        yield int(patient), int(phase), where[np.argsort(slices.level_N[index_N[where]])]


def volume_rows(slices: Slices, predicted: Prediction, set_name: str) -> list[dict[str, Any]]:
    """A row per volume that carries ground truth, of its labelled slices alone.

    Distances take neighbouring labelled slices to be neighbours. They are NaN (empty in the CSV) where nothing was
    predicted: such a volume is missed; and between slices whose distance the store does not say.
    """
    rows = []
    for patient, phase, where in volumes(slices, predicted.index_N):
        truth_ZYX = _truth(slices, predicted, where)
        if truth_ZYX.any():
            ed, es = slices.ed_es[patient]
            rows.append(
                {
                    "patient": slices.patients[patient],
                    "phase": phase,
                    "set": set_name,
                    "is_ed": int(phase == ed),
                    "is_es": int(phase == es),
                    **_measured(truth_ZYX, predicted.mask_NYX[where], slices, patient),
                    "slice_spacing_mm": slices.slice_spacing_mm[patient],
                }
            )
    return rows


def _measured(truth_ZYX: np.ndarray, mask_ZYX: np.ndarray, slices: Slices, patient: int) -> dict[str, float]:
    slice_mm = slices.slice_spacing_mm[patient]
    known = slice_mm > 0  # a single slice has no neighbour, and NaN is unknown
    measured = metrics.volume_metrics(truth_ZYX, mask_ZYX, (slice_mm if known else 1.0, *slices.pixel_spacing_mm))
    if not known and len(truth_ZYX) > 1:
        measured |= dict.fromkeys(("msd_mm", "ahd_mm", "hd_mm"), math.nan)
    return measured


def slice_rows(slices: Slices, predicted: Prediction, set_name: str) -> list[dict[str, Any]]:
    """A row per labelled slice with its area from the masks, the regression path and the segmentation."""
    rows = []
    true_mm2 = slices.area_mm2(predicted.index_N)
    seg_mm2 = predicted.mask_NYX.sum(axis=(1, 2)) * slices.pixel_mm2
    for patient, phase, where in volumes(slices, predicted.index_N):
        for n, region in zip(where, regions(true_mm2[where] > 0), strict=True):
            rows.append(
                {
                    "patient": slices.patients[patient],
                    "phase": phase,
                    "level": int(slices.level_N[predicted.index_N[n]]),
                    "region": region,
                    "set": set_name,
                    "area_true_mm2": float(true_mm2[n]),
                    "area_reg_mm2": float(predicted.area_mm2_N[n]) if predicted.regressed else None,
                    "area_seg_mm2": float(seg_mm2[n]),
                }
            )
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
    """A few of the volumes, worst to best, to be looked at."""
    carrying = [place for place in volumes(slices, predicted.index_N) if (_truth(slices, predicted, place[2])).any()]
    dice_V = [metrics.dice(_truth(slices, predicted, where), predicted.mask_NYX[where]) for *_, where in carrying]
    return [
        cases.case_of(
            slices.patients[patient],
            phase,
            dice_V[n],
            slices.image_NYX[predicted.index_N[where]],
            _truth(slices, predicted, where),
            predicted.mask_NYX[where],
        )
        for n, (patient, phase, where) in ((n, carrying[n]) for n in cases.chosen(dice_V))
    ]


def _truth(slices: Slices, predicted: Prediction, where: np.ndarray) -> np.ndarray:
    return slices.mask_NYX[predicted.index_N[where]] > 0


def score(slices: Slices, predicted: Prediction) -> tuple[float, float]:
    """Mean Dice over volumes; mean absolute difference of the area over slices, mm2, from the regression path (of
    the baseline, which has none, from the segmentation)."""
    truths = [(_truth(slices, predicted, where), where) for _, _, where in volumes(slices, predicted.index_N)]
    dices = [metrics.dice(truth_ZYX, predicted.mask_NYX[where]) for truth_ZYX, where in truths if truth_ZYX.any()]
    true_mm2 = slices.area_mm2(predicted.index_N)
    dice = float(np.mean(dices)) if dices else float("nan")
    return dice, float(np.abs(predicted.area_mm2_N - true_mm2).mean())


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
                store.write_masks(folder.path / "masks.zarr", masks_of(slices, predicted))
    write_csv(folder.path / "volumes.csv", volume_lines, VOLUME_COLUMNS)
    write_csv(folder.path / "slices.csv", slice_lines, SLICE_COLUMNS)
