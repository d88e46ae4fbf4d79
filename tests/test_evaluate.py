"""Volumes, largest component, regions, the two CSVs."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from data_prep import store
from data_prep.files import write_csv
from mtl import evaluate, metrics
from mtl.config import Config, Train
from mtl.evaluate import Prediction
from mtl.network import UNet
from mtl.placed import Placed
from mtl.runfolder import RunFolder
from mtl.slices import Fold, Slices

CPU = torch.device("cpu")


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
        ((2, 3),),
        (8.0,),
        (1.0, 2.0),
    )


def test_rows_of_volumes_and_slices_by_hand() -> None:
    slices = two_volumes()
    predicted = np.zeros((6, 10, 10), bool)
    predicted[:2, 2:4, 2:4] = True  # two of the three levels
    prediction = Prediction(np.arange(6), predicted, np.array([[8, 9, 10, 0, 0, 1]], np.float32).T, regressed=True)
    (row,) = evaluate.volume_rows(slices, prediction, "test")
    told = {"patient": "A", "phase": 0, "set": "test", "is_ed": 1, "is_es": 0, "dice": 2 * 8 / (8 + 12)}
    assert {name: row[name] for name in told} == told
    # Two of three equal plates, 8 mm apart: the third one's four voxels lie 8 mm from the prediction.
    assert (row["jaccard"], row["hd_mm"], row["msd_slice_mm"]) == (2 / 3, 8, 0)
    assert row["msd_mm"] == pytest.approx(8 * 4 / (12 + 8))
    rows = evaluate.slice_rows(slices, prediction, "test")
    assert [(row["phase"], row["level"], row["region"]) for row in rows] == [
        (0, 0, "basal"), (0, 1, "mid"), (0, 2, "apical"), (1, 0, "none"), (1, 1, "none"), (1, 2, "none")
    ]  # fmt: skip
    assert [row["area_true_mm2"] for row in rows] == [8, 8, 8, 0, 0, 0]
    assert [row["area_reg_mm2"] for row in rows] == [9, 10, 8, 0, 1, 0]
    assert [row["area_seg_mm2"] for row in rows] == [8, 0, 8, 0, 0, 0]
    assert evaluate.score(slices, prediction) == (
        [pytest.approx(0.8)],
        [pytest.approx((0 + 1 + 2 + 0 + 0 + 1) / 6)],
    )


def test_prediction_keeps_one_component_per_volume(slices: Slices, config: Config) -> None:
    torch.manual_seed(0)
    predicted = evaluate.predict(UNet(width=2, size=48), Placed(slices, CPU), np.arange(12), Train())
    for _, _, where in evaluate.volumes(slices, np.arange(12)):
        volume = predicted.mask_NYX[where]
        assert (metrics.largest_component(volume) == volume).all()


def test_volumes_are_found_in_any_order_of_the_slices() -> None:
    slices = two_volumes()
    index_N = np.random.default_rng(0).permutation(6)[:5]
    found = [(patient, phase, index_N[where].tolist()) for patient, phase, where in evaluate.volumes(slices, index_N)]
    wanted = {(p, t): [] for p, t in sorted(zip(slices.patient_N[index_N], slices.phase_N[index_N], strict=True))}
    for n in sorted(index_N, key=lambda n: slices.level_N[n]):
        wanted[slices.patient_N[n], slices.phase_N[n]].append(n)
    assert found == [(*volume, of_one) for volume, of_one in wanted.items()]
    assert [*evaluate.volumes(slices, index_N[:0])] == []


def test_a_volume_of_which_nothing_is_predicted_has_no_distances(tmp_path: Path) -> None:
    slices = two_volumes()
    prediction = Prediction(np.arange(6), np.zeros((6, 10, 10), bool), np.zeros((6, 1), np.float32), regressed=True)
    (row,) = evaluate.volume_rows(slices, prediction, "test")
    assert (row["dice"], row["jaccard"]) == (0, 0)
    assert all(np.isnan(row[name]) for name in metrics.DISTANCES)
    write_csv(tmp_path / "v.csv", [row], evaluate.VOLUME_COLUMNS)
    assert (tmp_path / "v.csv").read_text().splitlines()[1] == "A,0,test,1,0,0.0,0.0,,,,,8.0"


def test_distances_between_slices_are_unknown_where_their_spacing_is() -> None:
    slices = dataclasses.replace(two_volumes(), slice_spacing_mm=(float("nan"),))
    predicted = np.zeros((6, 10, 10), bool)
    predicted[:2, 2:4, 2:4] = True
    (row,) = evaluate.volume_rows(slices, Prediction(np.arange(6), predicted, np.zeros(6), regressed=True), "test")
    assert (row["dice"], row["msd_slice_mm"]) == (0.8, 0)
    assert all(np.isnan(row[name]) for name in ("msd_mm", "ahd_mm", "hd_mm"))


def test_masks_lie_in_their_places(tmp_path: Path) -> None:
    slices = two_volumes()
    predicted = np.zeros((6, 10, 10), bool)
    predicted[:, 3, 3], predicted[4, 5, 5] = True, True  # the fifth slice is level 0 of phase 1
    part = np.array([0, 1, 2, 4])
    masks = evaluate.masks_of(slices, Prediction(part, predicted[part], np.zeros(4, np.float32), regressed=True))
    store.write_masks(tmp_path / "masks.zarr", masks)
    store.write_masks(tmp_path / "masks.zarr", masks)  # a fold that ends twice
    group = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    mask_TZYX = np.asarray(group["A"])
    assert (mask_TZYX.shape, mask_TZYX.dtype) == ((2, 3, 10, 10), np.uint8)
    assert mask_TZYX[:, :, 3, 3].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert np.argwhere(mask_TZYX[:, :, 5, 5]).tolist() == [[1, 0]]
    assert [p for p in (tmp_path / "masks.zarr" / "A" / "c").rglob("*") if p.is_file()] == [
        tmp_path / "masks.zarr" / "A" / "c" / "0" / "0" / "0" / "0"
    ]


def test_both_csvs_hold_both_sets(slices: Slices, tmp_path: Path) -> None:
    fold = Fold(np.arange(12, 30), np.arange(6), np.arange(6, 12))
    evaluate.write(UNet(width=2, size=48), Placed(slices, CPU), fold, RunFolder(tmp_path), Train())
    volumes = list(csv.DictReader((tmp_path / "volumes.csv").read_text().splitlines()))
    lines = list(csv.DictReader((tmp_path / "slices.csv").read_text().splitlines()))
    assert tuple(volumes[0]) == evaluate.VOLUME_COLUMNS
    assert tuple(lines[0]) == evaluate.SLICE_COLUMNS
    assert [row["set"] for row in volumes] == ["validation"] * 2 + ["test"] * 2
    assert len(lines) == 12
    assert {row["patient"] for row in lines if row["set"] == "test"} == {"DET9000002"}
