"""A training epoch against a bare PyTorch loop: same network, batches, augmentation, precision and threads.

    python -m tests.benchmarks epoch

Wanted: at most 1.03 of the bare loop's time, that is 0.97 of its rate.
"""

from functools import partial

import torch

from mtl import augment
from mtl.config import Config, Model, Train
from mtl.loss import area_loss, joint_loss, segmentation_loss
from mtl.network import UNet, arithmetic
from mtl.slices import Fold, Slices
from mtl.trainer import Trainer
from tests.benchmarks.rows import Beside, Row, interleaved, seconds

CPU = torch.device("cpu")


def bare_epoch(trainer: Trainer, network: UNet, optimiser: torch.optim.Optimizer, s: torch.nn.ParameterList) -> None:
    """The loop that a user would write: no records, no checks."""
    draws, slices = trainer.draws(1), trainer.slices
    network.train()
    for pairs in trainer.batches(1):
        image = augment.images(trainer.placed, pairs[:, 0], "slice")
        mask = torch.from_numpy(slices.mask_NYX[pairs[:, 0]][:, None]).float()
        moved = torch.from_numpy(draws[pairs[:, 0], pairs[:, 1]]).float()
        image, mask = augment.apply(image, mask, moved)
        with arithmetic(trainer.config.train.precision, CPU):
            logits, area = network(image)
        true_mm2 = mask.sum(dim=(2, 3)) * slices.pixel_mm2
        loss = joint_loss(segmentation_loss(logits.float(), mask), area_loss(area, true_mm2), s[0], s[1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def run(slices: Slices, fold: Fold, width: int, rounds: int) -> Row:
    """Slices/s of both, without the scoring of an epoch."""
    torch.set_num_threads(1)
    trainer = Trainer(Config(model=Model(width=width), train=Train(batch_size=4)), slices, fold, 0, CPU)
    network = UNet(width=width, size=slices.image_NYX.shape[1])
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    s = torch.nn.ParameterList([torch.zeros(()), torch.tensor(6.0)])
    optimiser = torch.optim.RMSprop([*network.parameters(), *s.parameters()], lr=0.001)
    count = sum(map(len, trainer.batches(1)))
    loop = partial(bare_epoch, trainer, network, optimiser, s)
    ways = {"ours": lambda: trainer.epoch(1)["slices_per_s"], "bare": lambda: count / seconds(loop)}
    rate = interleaved(ways, rounds)
    bare = Beside("bare PyTorch loop", rate["bare"], wanted=1.03, floor=True)
    return Row(f"training epoch, width {width}, one thread", "slices/s", rate["ours"], (bare,), rate=True)
