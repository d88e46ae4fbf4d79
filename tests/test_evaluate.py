"""Volumes, largest component, regions, the two CSVs."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from mtl import evaluate, metrics
from mtl.config import Config
from mtl.data import Fold, Slices
from mtl.evaluate import Prediction
from mtl.network import UNet
from mtl.runfolder import RunFolder


def box(z: slice, y: slice, x: slice) -> np.ndarray:
    volume = np.zeros((4, 10, 10), bool)
    volume[z, y, x] = True
    return volume


def test_dice_of_two_boxes() -> None:
    a, b = box(slice(0, 1), slice(0, 2), slice(0, 4)), box(slice(0, 1), slice(0, 2), slice(2, 6))
    assert metrics.dice(a, b) == 2 * 4 / (8 + 8)
    assert metrics.dice(a, a) == 1
    assert metrics.dice(a, a & False) == 0
    assert np.isnan(metrics.dice(a & False, a & False))


def test_the_largest_component_is_three_dimensional() -> None:
    column = box(slice(0, 4), slice(0, 1), slice(0, 3))  # 12 voxels over four levels
    plate = box(slice(0, 1), slice(5, 8), slice(5, 8))  # 9 voxels: larger than the column in its own level
    assert (metrics.largest_component(column | plate) == column).all()
    assert not metrics.largest_component(column & False).any()


def test_corners_connect() -> None:
    a, b = box(slice(0, 1), slice(0, 1), slice(0, 1)), box(slice(1, 2), slice(1, 2), slice(1, 2))
    assert (metrics.largest_component(a | b) == (a | b)).all()


@pytest.mark.parametrize(
    ("truth", "names"),
    [
        ("1111111", ["basal", "basal", "mid", "mid", "mid", "apical", "apical"]),
        ("0111110", ["none", "basal", "basal", "mid", "apical", "apical", "none"]),
        ("111", ["basal", "mid", "apical"]),
        ("11", ["basal", "apical"]),
        ("1", ["mid"]),
        ("00", ["none", "none"]),
    ],
)
def test_regions_leave_two_slices_at_each_end(truth: str, names: list[str]) -> None:
    assert evaluate.regions(np.array([c == "1" for c in truth])) == names


def two_volumes() -> Slices:
    """One patient, two phases of three levels; phase 1 carries no myocardium."""
    mask = np.zeros((6, 10, 10), np.uint8)
    mask[:3, 2:4, 2:4] = 1
    return Slices(
        np.zeros((6, 10, 10), np.int16),
        mask,
        np.zeros(6, int),
        np.repeat([0, 1], 3),
        np.tile([2, 0, 1], 2),
        ("A",),
        ("A",),
        ("",),
        ((0, 1),),
        (8.0,),
        (1.0, 2.0),
    )


def test_rows_of_volumes_and_slices_by_hand() -> None:
    slices = two_volumes()
    predicted = np.zeros((6, 10, 10), bool)
    predicted[:2, 2:4, 2:4] = True  # two of the three levels
    prediction = Prediction(np.arange(6), predicted, np.array([8, 9, 10, 0, 0, 1], np.float32), regressed=True)
    assert evaluate.volume_rows(slices, prediction, "test") == [
        {"patient": "A", "phase": 0, "set": "test", "is_ed": 1, "is_es": 0, "dice": 2 * 8 / (8 + 12)}
    ]
    rows = evaluate.slice_rows(slices, prediction, "test")
    assert [(row["phase"], row["level"], row["region"]) for row in rows] == [
        (0, 0, "basal"), (0, 1, "mid"), (0, 2, "apical"), (1, 0, "none"), (1, 1, "none"), (1, 2, "none")
    ]  # fmt: skip
    assert [row["area_true_mm2"] for row in rows] == [8, 8, 8, 0, 0, 0]
    assert [row["area_reg_mm2"] for row in rows] == [9, 10, 8, 0, 1, 0]
    assert [row["area_seg_mm2"] for row in rows] == [8, 0, 8, 0, 0, 0]
    assert evaluate.score(slices, prediction) == (
        pytest.approx(0.8),
        pytest.approx((0 + 1 + 2 + 0 + 0 + 1) / 6),
    )


def test_prediction_keeps_one_component_per_volume(slices: Slices, config: Config) -> None:
    torch.manual_seed(0)
    predicted = evaluate.predict(UNet(width=2, size=48), slices, np.arange(12), "slice", torch.device("cpu"))
    for _, _, where in evaluate.volumes(slices, np.arange(12)):
        volume = predicted.mask_NYX[where]
        assert (metrics.largest_component(volume) == volume).all()


def test_both_csvs_hold_both_sets(slices: Slices, tmp_path: Path) -> None:
    fold = Fold(np.arange(12, 30), np.arange(6), np.arange(6, 12))
    evaluate.write(UNet(width=2, size=48), slices, fold, RunFolder(tmp_path), "slice", torch.device("cpu"))
    volumes = list(csv.DictReader((tmp_path / "volumes.csv").read_text().splitlines()))
    lines = list(csv.DictReader((tmp_path / "slices.csv").read_text().splitlines()))
    assert tuple(volumes[0]) == evaluate.VOLUME_COLUMNS
    assert tuple(lines[0]) == evaluate.SLICE_COLUMNS
    assert [row["set"] for row in volumes] == ["validation"] * 2 + ["test"] * 2
    assert len(lines) == 12
    assert {row["patient"] for row in lines if row["set"] == "test"} == {"DET9000002"}
