"""A training epoch against a bare PyTorch loop: same network, batches, augmentation, precision and threads.

Wanted: at least 0.97 of the bare loop's rate.
"""

import statistics
import time

import torch

from mtl import augment
from mtl.config import Config, Model, Train
from mtl.loss import area_loss, joint_loss, segmentation_loss
from mtl.network import UNet
from mtl.slices import Fold, Slices
from mtl.trainer import Trainer


def bare_epoch(trainer: Trainer, network: UNet, optimiser: torch.optim.Optimizer, s: torch.nn.ParameterList) -> float:
    """Seconds of the loop that a user would write: no records, no checks."""
    draws, slices = trainer.draws(1), trainer.slices
    batches = trainer.batches(1)
    network.train()
    begin = time.perf_counter()
    for pairs in batches:
        image = augment.images(trainer.placed, pairs[:, 0], "slice")
        mask = torch.from_numpy(slices.mask_NYX[pairs[:, 0]][:, None]).float()
        moved = torch.from_numpy(draws[pairs[:, 0], pairs[:, 1]]).float()
        image, mask = augment.apply(image, mask, moved)
        logits, area = network(image)
        true_mm2 = mask.sum(dim=(2, 3)) * slices.pixel_mm2
        loss = joint_loss(segmentation_loss(logits, mask), area_loss(area, true_mm2), s[0], s[1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return time.perf_counter() - begin


def run(slices: Slices, fold: Fold, width: int, rounds: int) -> str:
    """The row: ours and bare in slices/s, and the ratio's median and spread over interleaved rounds."""
    torch.set_num_threads(1)
    trainer = Trainer(Config(model=Model(width=width), train=Train(batch_size=4)), slices, fold, 0, torch.device("cpu"))
    network = UNet(width=width, size=slices.image_NYX.shape[1])
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    s = torch.nn.ParameterList([torch.zeros(()), torch.tensor(6.0)])
    optimiser = torch.optim.RMSprop([*network.parameters(), *s.parameters()], lr=0.001)
    ours, bare = [], []
    for number in range(rounds + 1):  # the first warms up
        seconds = bare_epoch(trainer, network, optimiser, s)
        rate = trainer.epoch(1)["slices_per_s"]
        if number:
            bare.append(3 * len(fold.train) / seconds)
            ours.append(rate)
    ratios = sorted(o / b for o, b in zip(ours, bare, strict=True))
    return (
        f"training epoch, width {width}: ours {statistics.median(ours):.1f} slices/s, bare loop "
        f"{statistics.median(bare):.1f}, ratio {statistics.median(ratios):.3f} "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f}, {rounds} rounds; wanted 0.97)"
    )
