"""Masks and areas of slices from a trained network, beside the networks of others and of the same size, in one thread.

    python -m tests.benchmarks infer

Ours twice: as an epoch's scoring runs it (mtl/evaluate.py: the network as it was trained, channels_last) and as
mtl.predict runs it (mtl/deploy.py: channels_last, and BatchNorm put into the convolutions); both in bf16 where the CPU
has units for it, with their normalisation, without stacking and largest components. The others are in evaluation and
inference mode, float32 and contiguous, as their users run them; plain PyTorch is our own network run so: the paper's
way. All begin with the same grey levels and give what is likelier than not; plain PyTorch's is checked to be ours. The
floor: matrix products with the arithmetic of our network and its precision; where ours goes below it, the library's
convolutions are faster than its products on that CPU.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import nn

from mtl import augment
from mtl.config import Train
from mtl.deploy import Deployed, quicken
from mtl.evaluate import labels_of
from mtl.network import UNet, arithmetic, resolve_precision
from mtl.placed import Placed
from tests.benchmarks import drawn
from tests.benchmarks.networks import PEERS, forward_gflop, logits_of, matrix_products
from tests.benchmarks.peers import Peer, Work, beside, made, milliseconds
from tests.benchmarks.rows import Row, interleaved
from tests.benchmarks.stepping import CPU

SETTINGS = Train(device="cpu")
PRECISION = resolve_precision(SETTINGS.precision, CPU)
EQUAL = 0.98 if PRECISION == "bf16" else 0.999
"""share of a mask's pixels: untrained, many are as likely as not, and bf16 has three digits"""


def grey_B1YX(placed: Placed) -> torch.Tensor:
    """All of its slices, float32."""
    return torch.from_numpy(placed.slices.image_NYX[np.arange(len(placed.slices.image_NYX))][:, None]).float()


def trained(width: int, placed: Placed) -> UNet:
    """Ours with made-up weights, and BatchNorm's statistics of the slices."""
    torch.manual_seed(0)
    network = UNet(width=width, size=placed.slices.image_NYX.shape[1]).train()
    image_B1YX = augment.images(placed, np.arange(len(placed.slices.image_NYX))[:4], "slice")
    with torch.no_grad():
        for _ in range(20):
            network(image_B1YX)
    return network.eval()


def like_evaluate(network: UNet, placed: Placed) -> Work:
    """The loop of evaluate.predict, whose components come after it; weights in the layout of Trainer's."""
    network, everyone = deepcopy(network), np.arange(len(placed.slices.image_NYX))
    network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def work() -> torch.Tensor:
        image = augment.images(placed, everyone, SETTINGS.normalisation)
        with arithmetic(SETTINGS.precision, CPU):
            logits, _ = network(image)
        return labels_of(logits)

    return work


def like_predict(network: UNet, placed: Placed) -> Work:
    """What mtl.predict calls for each fold."""
    network = deepcopy(network)
    quicken(network)
    module = Deployed(network, placed.slices.pixel_mm2, SETTINGS.precision, placed.slices.structures).eval()

    @torch.inference_mode()
    def work() -> torch.Tensor:
        grey = grey_B1YX(placed)
        return (module(grey).probability_BAYX[:, 0] > 0.5).to(torch.uint8)

    return work


def plain(make: Callable[[], nn.Module], placed: Placed) -> Work:
    """float32, contiguous. ImportError where the network's library is not installed."""
    network = make().eval()

    @torch.inference_mode()
    def work() -> torch.Tensor:
        grey = grey_B1YX(placed)
        mean, deviation = grey.mean(dim=(1, 2, 3), keepdim=True), grey.std(dim=(1, 2, 3), keepdim=True, correction=0)
        return labels_of(logits_of(network, (grey - mean) / deviation))

    return work


def assert_equal(name: str, mask_NYX: torch.Tensor, wanted_NYX: torch.Tensor) -> None:
    equal = (mask_NYX == wanted_NYX).float().mean().item()
    assert equal >= EQUAL, f"{name}: {equal:.4f} of the mask's pixels are ours, wanted {EQUAL}"


def rows(width: int = 16, size: int = 192, batch: int = 16, rounds: int = 5) -> Iterator[Row]:
    """Both ways of ours beside the same peers, all measured in turn."""
    torch.set_num_threads(1)
    placed = Placed(drawn.slices(1, 1, batch, size), CPU)
    network = trained(width, placed)
    gflop = forward_gflop(network, size)
    ours = {
        "as an epoch's scoring": like_evaluate(network, placed),
        "as mtl.predict": like_predict(network, placed),
    }
    peers = {
        **{name: Peer(partial(plain, partial(make, width), placed)) for name, make in PEERS.items()},
        "plain PyTorch": Peer(partial(plain, lambda: network, placed)),
        "matrix products": Peer(partial(matrix_products, batch * gflop, PRECISION), floor=True),
    }
    works, missing = made(peers)
    for name, work in ours.items():
        assert_equal(name, work(), works["plain PyTorch"]())
    ways = {name: partial(milliseconds, work, parts=batch) for name, work in {**ours, **works}.items()}
    ms = interleaved(ways, rounds)
    for name in ours:
        what = f"inference {name}, width {width}, {size} x {size}, batch {batch}, one thread, {PRECISION}"
        yield Row(what, "ms a slice", ms[name], beside(peers, ms, missing), note=f"{gflop:.3g} GFLOP a slice")
