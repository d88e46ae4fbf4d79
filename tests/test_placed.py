"""Slices on a device: kept there or copied batch by batch, the same numbers."""

import numpy as np
import pytest
import torch

from mtl import augment, placed
from mtl.config import Config
from mtl.placed import Placed
from mtl.slices import Slices, folds_of
from mtl.trainer import Trainer

CPU = torch.device("cpu")


def test_kept_there_or_copied_they_are_the_same(slices: Slices) -> None:
    there, here = Placed(slices, CPU, resident=True), Placed(slices, CPU)
    assert there.resident
    assert not here.resident
    index = np.array([7, 0, 7, 29])
    for name in ("image_B1YX", "mask_B1YX"):
        a, b = getattr(there, name)(index), getattr(here, name)(index)
        assert a.shape == (4, 1, 48, 48)
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a, b)
    for normalisation in ("slice", "volume"):
        assert torch.equal(augment.images(there, index, normalisation), augment.images(here, index, normalisation))


def test_an_epoch_is_the_same_with_the_data_kept_there(slices: Slices, config: Config) -> None:
    records = []
    for resident in (True, False):
        trainer = Trainer(config, slices, folds_of(slices, 5, 0, "validation")[0], 0, CPU)
        trainer.placed = Placed(slices, CPU, resident=resident)
        record = trainer.epoch(1)
        records.append({k: v for k, v in record.items() if k not in ("time_utc", "seconds", "slices_per_s")})
    assert records[0] == records[1]


def test_few_slices_at_a_time_are_copied(slices: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "COPIED_AT_A_TIME", 7)
    index = np.arange(30)
    assert torch.equal(Placed(slices, CPU, resident=True).image_B1YX(index), Placed(slices, CPU).image_B1YX(index))


def test_a_cpu_keeps_no_copy(slices: Slices) -> None:
    assert not placed.fits(slices, CPU)
