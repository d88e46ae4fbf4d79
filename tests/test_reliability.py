"""The flag on networks that were really trained: it finds corrupted slices, at a stated rate of false alarms."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from data_prep import convert, newcases, phantom, store
from mtl import data, predict, train
from mtl.config import Config, Loss, Model, Optim, Train
from mtl.runfolder import RunFolder

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Tried:
    ensemble: predict.Ensemble
    images: list[np.ndarray]
    """of new patients, (T, Z, Y, X)"""

    def flagged(self, images: list[np.ndarray]) -> np.ndarray:
        """Of every slice of all patients."""
        found = [self.ensemble.predict(image_TZYX, CPU) for image_TZYX in images]
        return np.array(
            [bool(reasons) for one in found for (of_one,) in [self.ensemble.why_not(one)] for reasons in of_one]
        )


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """Two folds, trained for half a minute in all; eight patients whom nobody has seen."""
    home = tmp_path_factory.mktemp("reliability")
    phantom.make(home / "raw", patients=12, slices=4, phases=3, seed=1)
    convert.convert(home / "raw", home / "store.zarr", spacing_mm=6.25, size=48)
    digest = store.open(home / "store.zarr").digest
    settings = Train(epochs=18, folds=3, batch_size=4, augment_copies=1, shift=0.1, device="cpu")
    # The added Dice loss finds so small a ring in a tenth of the steps that the cross-entropy alone takes.
    config = Config(digest, Model(width=4), settings, Optim(lr=0.005, decay=0.9), loss=Loss("dice_ce"))
    slices = data.load(home / "store.zarr", digest)
    for number in (0, 1):
        train.train(config, slices, number, RunFolder(home / "run" / f"fold_{number}"))
    phantom.make(home / "new", patients=8, slices=4, phases=3, seed=99)
    found = newcases.find(home / "new", home / "out", keep_names=False)
    return Tried(
        predict.load(home / "run", CPU),
        [newcases.read(case, (6.25, 6.25), (48, 48)).image_TZYX for case in found.values()],
    )


def corrupted(image_YX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise over all, a signal that is lost in bands, half an image."""
    columns = np.arange(image_YX.shape[1])
    spoilt = (image_YX + rng.normal(0, 120, image_YX.shape), image_YX * (columns % 8 < 3), image_YX * (columns < 24))
    return np.asarray(spoilt[rng.integers(3)], image_YX.dtype)


@pytest.mark.timeout(600)  # two folds are trained, perhaps on a busy machine
def test_few_slices_of_new_patients_are_flagged_and_most_that_are_corrupted(tried: Tried) -> None:
    """Stated: at most 5 % of slices like the validation patients', who are other patients than these. Measured on
    2026-11-28: 2 % of clean slices, 71 % of noisy ones, all that lost bands or a half."""
    rng = np.random.default_rng(0)
    spoilt = [
        np.array([[corrupted(slice_YX, rng) for slice_YX in volume] for volume in image]) for image in tried.images
    ]
    alarms, found = tried.flagged(tried.images).mean(), tried.flagged(spoilt).mean()
    print(f"false alarms {alarms:.1%}, corrupted slices found {found:.1%} of {8 * 12}")
    assert alarms <= 0.08
    assert found >= 0.7
