"""A training step beside those that a user would write around MONAI's and nnU-Net's networks, in one thread.

    python -m tests.benchmarks step

Ours is Trainer.step with its defaults: segmentation and area, channels_last, bf16 where the CPU has units for it. The
others segment alone, in the plain loop of their users: float32, contiguous, cross-entropy per pixel, torch's RMSprop.
Every way takes one batch of made-up slices again and again; loading and augmentation are left out. The note tells the
arithmetic, forward and backward. Floors: a bare loop of our own network as Trainer runs it, and matrix products with
the same arithmetic and precision. No claim here: epoch.py has the one beside the bare loop, trainer.py MONAI's.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch

from mtl.config import Config, Model, Train
from mtl.loss import area_loss, joint_loss, segmentation_loss
from mtl.network import UNet, arithmetic, resolve_precision
from mtl.slices import Fold
from mtl.trainer import Trainer
from tests.benchmarks import drawn
from tests.benchmarks.networks import PEERS, logits_of, matrix_products, step_gflop
from tests.benchmarks.peers import Peer, Work, compared, per_second
from tests.benchmarks.rows import Row

CPU = torch.device("cpu")
BATCHES = {8: 16, 16: 8}
"""width -> batch; the wider network takes smaller ones to save minutes"""
PRECISION = resolve_precision("auto", CPU)
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""image_B1YX, mask_B1YX, area_BA (mm2)"""


def made_trainer(width: int, size: int, batch: int) -> Trainer:
    """With its defaults, on one batch of made-up slices."""
    everyone = np.arange(batch)
    config = Config(model=Model(width=width), train=Train(batch_size=batch, augment_copies=0, device="cpu"))
    return Trainer(config, drawn.slices(1, 1, batch, size), Fold(everyone, everyone[:0], everyone), 0, CPU)


def bare(width: int, inputs: Batch) -> Work:
    """A step of our network as Trainer runs it, without its records and checks."""
    image, mask, area_mm2 = inputs
    network = UNet(width=width, size=image.shape[2])
    network.to(memory_format=torch.channels_last)
    s = torch.nn.ParameterList([torch.zeros(()), torch.tensor(6.0)])
    optimiser = torch.optim.RMSprop([*network.parameters(), *s.parameters()], lr=0.001)

    def step() -> None:
        with arithmetic("auto", CPU):
            logits, area = network(image)
        loss = joint_loss(segmentation_loss(logits.float(), mask), area_loss(area, area_mm2), s[0], s[1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def plain(peer: str, width: int, inputs: Batch) -> Work:
    """A step of a peer's network as its users write it. ImportError where its library is not installed."""
    image, mask, _ = inputs
    network = PEERS[peer](width).train()
    optimiser = torch.optim.RMSprop(network.parameters(), lr=0.001)

    def step() -> None:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits_of(network, image), mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def gflops(network: UNet, width: int, size: int) -> str:
    """Of a slice, ours and the peers' that are installed."""
    told = [f"ours {step_gflop(network, size):.3g}"]
    for peer, make in PEERS.items():
        try:
            told.append(f"{peer} {step_gflop(make(width), size):.3g}")
        except ImportError:
            continue
    return f"GFLOP a slice: {', '.join(told)}"


def row(width: int, size: int, batch: int, rounds: int) -> Row:
    trainer = made_trainer(width, size, batch)
    trainer.network.train()
    inputs = trainer.inputs(trainer.batches(1)[0], trainer.draws(1))
    arithmetic_gflop = batch * step_gflop(trainer.network, size)
    peers = {
        **{name: Peer(partial(plain, name, width, inputs)) for name in PEERS},
        "bare loop of our network": Peer(partial(bare, width, inputs), floor=True),
        "matrix products": Peer(partial(matrix_products, arithmetic_gflop, PRECISION), floor=True),
    }
    name = f"training step, width {width}, {size} x {size}, batch {batch}, one thread, ours {PRECISION}"
    made = partial(Row, name, "slices/s", rate=True, note=gflops(trainer.network, width, size))
    return compared(made, partial(trainer.step, *inputs), peers, partial(per_second, parts=batch), rounds)


def rows(batches: Mapping[int, int] = BATCHES, size: int = 192, rounds: int = 5) -> Iterator[Row]:
    """A row a width, a step a round. batches: width -> batch."""
    torch.set_num_threads(1)
    for width, batch in batches.items():
        yield row(width, size, batch, rounds)
