"""Our training against what a user would pick instead: MONAI's SupervisedTrainer, CacheDataset and BasicUNet.

    python -m tests.benchmarks trainer

Both segment only. They have the same training slices, batch size, loss (cross-entropy per pixel), optimiser, learning
rate, number of steps and thread, on networks of nearly the same arithmetic (GFLOP of a step, told a slice). Ours is a
Trainer with its defaults; MONAI's is set up as its tutorials do: float32, contiguous, everything cached but the random
transform. The rounds are the epochs of one training of each; loading, caching and scoring are not in the times. Dice
still jumps from epoch to epoch in a training this short, so the median of the last ones is compared.

Wanted: 3 x MONAI's slices/s where the CPU has bf16 units, at a Dice that is at most 0.02 below its.
"""

import math
import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import RandomSampler

from mtl import evaluate, metrics
from mtl.config import Config, Model, Optim, Train
from mtl.network import resolve_precision
from mtl.slices import Fold, Slices
from mtl.trainer import Trainer
from tests.benchmarks.networks import basic_unet, step_gflop
from tests.benchmarks.peers import Peer, beside, library, made
from tests.benchmarks.rows import Beside, Row, interleaved, seconds

CPU = torch.device("cpu")
SETTINGS = Train(batch_size=4, device="cpu")
OPTIM = Optim(lr=0.005)
"""Of profile=demo: there are some hundred steps, too."""
PRECISION = resolve_precision(SETTINGS.precision, CPU)
PEER = "MONAI's SupervisedTrainer"
WANTED = 3
"""x its slices/s, with bf16 units"""
ALLOWED = 0.02
"""of Dice, that ours may be below its"""
LAST = 5
"""Epochs whose median Dice is told."""


class Ours:
    """What the command line runs, without its run folder."""

    def __init__(self, slices: Slices, fold: Fold, width: int) -> None:
        config = Config(model=Model(branch="none", width=width), train=SETTINGS, optim=OPTIM)
        self.trainer = Trainer(config, slices, fold, 0, CPU)
        self.network, self.dices, self.steps = self.trainer.network, [], 0

    def epoch(self) -> float:
        """Slices/s of the next one."""
        number = len(self.dices) + 1
        record = self.trainer.epoch(number)
        self.dices.append(record["dice_val"])
        self.steps += len(self.trainer.batches(number))
        return record["slices_per_s"]


class Monai:
    """What a MONAI user would write. ImportError where it or ignite, on which its engines run, is not installed."""

    def __init__(self, slices: Slices, fold: Fold, width: int) -> None:
        library("ignite")
        engines, handlers = library("monai.engines"), library("monai.handlers")
        torch.manual_seed(SETTINGS.seed)
        self.network = basic_unet(width)
        self.slices, self.fold, self.dices = slices, fold, []
        optimiser = torch.optim.RMSprop(self.network.parameters(), lr=OPTIM.lr)
        decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, OPTIM.decay)
        self.engine = engines.SupervisedTrainer(
            device=CPU,
            max_epochs=1,
            train_data_loader=self._batches(),
            network=self.network,
            optimizer=optimiser,
            loss_function=torch.nn.BCEWithLogitsLoss(),
            train_handlers=[handlers.LrScheduleHandler(decay, print_lr=False)],
        )

    def _batches(self) -> Any:
        """Of an epoch: every slice as often as ours, itself and its copies, moved in copies / (1 + copies) of all."""
        from monai import data, transforms

        size, copies = self.slices.image_NYX.shape[1], SETTINGS.augment_copies
        moved = transforms.RandAffined(
            ("image", "label"),
            prob=copies / (1 + copies),
            rotate_range=math.radians(SETTINGS.rotation_deg),
            translate_range=[SETTINGS.shift * size] * 2,  # pixels
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
        )
        chain = transforms.Compose([transforms.NormalizeIntensityd("image"), moved])
        cached = data.CacheDataset(self._items(self.fold.train), chain, cache_rate=1.0, progress=False)
        often = RandomSampler(cached, num_samples=(1 + copies) * len(cached))
        return data.DataLoader(cached, batch_size=SETTINGS.batch_size, sampler=often)

    def _items(self, index_N: np.ndarray) -> list[dict[str, torch.Tensor]]:
        images, masks = (
            torch.from_numpy(stack[index_N][:, None]).float() for stack in (self.slices.image_NYX, self.slices.mask_NYX)
        )
        return [{"image": image, "label": mask} for image, mask in zip(images, masks, strict=True)]

    def epoch(self) -> float:
        """Slices/s of the next one."""
        self.engine.state.max_epochs = len(self.dices) + 1  # so that it goes on instead of beginning anew
        took_s = seconds(self.engine.run)
        self.dices.append(self._dice(self.fold.selection))
        return (1 + SETTINGS.augment_copies) * len(self.fold.train) / took_s

    @torch.inference_mode()
    def _dice(self, index_N: np.ndarray) -> float:
        """Mean over volumes, each by its largest component, as ours."""
        from monai import transforms

        normalise = transforms.NormalizeIntensityd("image")
        image_B1YX = torch.stack([normalise(item)["image"].as_tensor() for item in self._items(index_N)])
        mask_NYX = (self.network.eval()(image_B1YX).sigmoid() > 0.5)[:, 0].numpy().astype(np.uint8)
        for _, _, where in evaluate.volumes(self.slices, index_N):
            mask_NYX[where] = metrics.largest_component(mask_NYX[where])
        predicted = evaluate.Prediction(index_N, mask_NYX, np.zeros((len(index_N), 1)), regressed=False)
        return evaluate.score(self.slices, predicted)[0][0]

    @property
    def steps(self) -> int:
        return self.engine.state.iteration


def run(slices: Slices, fold: Fold, width: int, rounds: int) -> Iterator[Row]:
    """Slices/s, and the Dice on validation patients that both came to. The first epoch warms up."""
    torch.set_num_threads(1)
    peers = {PEER: Peer(partial(Monai, slices, fold, width), wanted=WANTED if PRECISION == "bf16" else None)}
    trainings, missing = made(peers)
    ours, monai = Ours(slices, fold, width), trainings.get(PEER)
    ways = {"ours": ours.epoch, **({PEER: monai.epoch} if monai else {})}
    rate = interleaved(ways, rounds)
    assert monai is None or ours.steps == monai.steps
    size = slices.image_NYX.shape[1]
    what = f"training against MONAI, {size} x {size}, width {width}, batch {SETTINGS.batch_size}, one thread"
    yield Row(
        what, "slices/s", rate["ours"], beside(peers, rate, missing), rate=True, note=_arithmetic(ours, monai, size)
    )
    yield _dices(f"{what}, after {ours.steps} steps", ours, monai, missing.get(PEER, ""))


def _arithmetic(ours: Ours, monai: Monai | None, size: int) -> str:
    """GFLOP of a step, told a slice; and why nothing is claimed where nothing is."""
    told = [f"ours {PRECISION}, {step_gflop(ours.network, size):.3g} GFLOP a slice"]
    if monai:
        told.append(f"MONAI float32, {step_gflop(monai.network, size):.3g}")
    if PRECISION != "bf16":
        told.append(f"this CPU has no bf16 units: {WANTED} x MONAI is not claimed")
    return "; ".join(told)


def _dices(what: str, ours: Ours, monai: Monai | None, missing: str) -> Row:
    """Medians of the last epochs; ours is to be at most ALLOWED below MONAI's."""
    dice = statistics.median(ours.dices[-LAST:])
    theirs = statistics.median(monai.dices[-LAST:]) if monai else None
    return Row(
        what,
        f"Dice, median of the last {LAST} epochs",
        (dice,),
        (Beside(PEER, () if theirs is None else (theirs,), missing=missing),),
        rate=True,
        wanted=None if theirs is None else round(theirs - ALLOWED, 3),
        note=f"last epoch: ours {ours.dices[-1]:.3f}" + (f", MONAI {monai.dices[-1]:.3f}" if monai else ""),
    )
