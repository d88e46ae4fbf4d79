"""Our training against what a user would pick instead: MONAI's SupervisedTrainer, CacheDataset and BasicUNet.

    python -m tests.benchmarks trainer

Both segment only. They have the same training slices, batch size, loss (cross-entropy per pixel), optimiser, learning
rate, number of steps and thread, on networks of nearly the same arithmetic (GFLOP of a step, told a slice). Ours is a
Trainer with its defaults; MONAI's is set up as its tutorials do: float32, contiguous, everything cached but the random
transform. The rounds are the epochs of one training of each; loading, caching and scoring are not in the times. Dice
still jumps from epoch to epoch in a training this short, so the median of the last ones stands beside the last.

Wanted: 3 x MONAI's slices/s where the CPU has bf16 units, at a Dice that is at most 0.02 below its.
"""

import math
import statistics
import warnings
from typing import Any

import numpy as np
import torch
from torch.utils.data import RandomSampler
from torch.utils.flop_counter import FlopCounterMode

from mtl import evaluate, metrics
from mtl.config import Config, Model, Optim, Train
from mtl.network import resolve_precision
from mtl.slices import Fold, Slices
from mtl.trainer import Trainer
from tests.benchmarks.rows import interleaved, ratios, seconds, spread

CPU = torch.device("cpu")
SETTINGS = Train(batch_size=4, device="cpu")
OPTIM = Optim(lr=0.005)
"""Of profile=demo: there are some hundred steps, too."""
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both import parts of torch that it deprecates
            import ignite  # noqa: F401
            from monai import engines, handlers
            from monai.networks.nets import BasicUNet
        torch.manual_seed(SETTINGS.seed)
        features = (width, 2 * width, 4 * width, 8 * width, 16 * width, width)
        self.network = BasicUNet(2, in_channels=1, out_channels=1, features=features, norm="batch", upsample="deconv")
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


def step_gflop(network: torch.nn.Module, size: int) -> float:
    """Of one slice, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        made = network.train()(torch.zeros(1, 1, size, size))
        (made[0] if isinstance(made, tuple) else made).sum().backward()
    return counter.get_total_flops() / 1e9


def told(dices: list[float]) -> str:
    return f"{dices[-1]:.3f} (median of the last {LAST} epochs {statistics.median(dices[-LAST:]):.3f})"


def run(slices: Slices, fold: Fold, width: int, rounds: int) -> str:
    """The rows: slices/s, their ratio round by round, and the Dice of both. The first epoch warms up."""
    torch.set_num_threads(1)
    size = slices.image_NYX.shape[1]
    name = f"training against MONAI, {size} x {size}, width {width}, batch {SETTINGS.batch_size}, one thread"
    try:
        monai = Monai(slices, fold, width)
    except ImportError as error:
        return f"{name}: not measured, {error.name} is not installed"
    ours = Ours(slices, fold, width)
    rate = interleaved({"ours": ours.epoch, "MONAI": monai.epoch}, rounds)
    assert ours.steps == monai.steps
    gflop = [f"{step_gflop(way.network, size):.3g} GFLOP a slice" for way in (ours, monai)]
    return (
        f"{name}: ours ({resolve_precision(SETTINGS.precision, CPU)}) {spread(rate['ours'])} slices/s, {gflop[0]}; "
        f"MONAI (float32) {spread(rate['MONAI'])} slices/s, {gflop[1]}; "
        f"ratio {spread(ratios(rate['ours'], rate['MONAI']))}, {rounds} rounds; wanted 3 where the CPU has bf16 units\n"
        f"  Dice on validation patients after {ours.steps} steps: ours {told(ours.dices)}, MONAI {told(monai.dices)}; "
        "wanted at most 0.02 below MONAI's"
    )
