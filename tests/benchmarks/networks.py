"""The networks that a user would train instead of ours, of its size, and what such a size costs at least."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mtl.network import LEVELS
from tests.benchmarks.peers import Work, library

LARGEST = 2048
"""rows of a square matrix; beyond it nothing gets faster"""


def basic_unet(width: int) -> nn.Module:
    """MONAI's, with BatchNorm and transposed convolutions as ours. ImportError where MONAI is not installed."""
    features = (*(width * 2**level for level in range(LEVELS + 1)), width)
    made: nn.Module = library("monai.networks.nets").BasicUNet(
        2, in_channels=1, out_channels=1, features=features, norm="batch", upsample="deconv"
    )
    return made


def plain_conv_unet(width: int) -> nn.Module:
    """nnU-Net's, as wide and deep as ours, with BatchNorm. ImportError where its library is not installed."""
    unet = library("dynamic_network_architectures.architectures.unet")
    made: nn.Module = unet.PlainConvUNet(
        input_channels=1,
        n_stages=LEVELS + 1,
        features_per_stage=[width * 2**level for level in range(LEVELS + 1)],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[1, *[2] * LEVELS],
        n_conv_per_stage=2,
        num_classes=1,
        n_conv_per_stage_decoder=2,
        conv_bias=False,
        norm_op=nn.BatchNorm2d,
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return made


PEERS: dict[str, Callable[[int], nn.Module]] = {
    "MONAI's BasicUNet": basic_unet,
    "nnU-Net's PlainConvUNet": plain_conv_unet,
}


def logits_of(network: nn.Module, image_B1YX: torch.Tensor) -> torch.Tensor:
    """Of the segmentation; ours gives areas, too."""
    made = network(image_B1YX)
    return made[0] if isinstance(made, tuple) else made


def _gflop(work: Work) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def step_gflop(network: nn.Module, size: int) -> float:
    """Of one slice, forward and backward."""

    def step() -> None:
        made = network.train()(torch.zeros(1, 1, size, size))
        answers = made if isinstance(made, tuple) else (made,)
        sum(one.sum() for one in answers if one is not None).backward()
        network.zero_grad()

    return _gflop(step)


@torch.inference_mode()
def forward_gflop(network: nn.Module, size: int) -> float:
    """Of one slice, in evaluation mode."""
    return _gflop(partial(network.eval(), torch.zeros(1, 1, size, size)))


def matrix_products(gflop: float, precision: str) -> Work:
    """Products of square matrices with so much arithmetic in all: what the processor can do at its best.

    precision: float32 or bf16.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    products = max(1, round(gflop * 1e9 / (2 * LARGEST**3)))
    rows = max(1, round((gflop * 1e9 / (2 * products)) ** (1 / 3)))
    a, b, out = (torch.ones(rows, rows, dtype=dtype) for _ in range(3))

    def work() -> None:
        for _ in range(products):
            torch.mm(a, b, out=out)

    return work
