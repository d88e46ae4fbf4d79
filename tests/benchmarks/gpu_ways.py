"""Ways of a training step and of a forward pass on a GPU, and how much arithmetic and traffic is in them.

torch, numpy and what mtl trains with, nothing else: a GPU's machine may have no more (tests/test_gpu_benchmark.py).
Legend of shapes: M batch of an epoch, N slice, B batch, T phase, Z level, Y row, X column.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mtl import augment
from mtl.config import Config, Model, Train
from mtl.loss import area_loss, joint_loss, segmentation_loss
from mtl.network import UNet, arithmetic
from mtl.slices import Fold, Slices, Stack
from mtl.trainer import Trainer

COPIES = 3
"""of each training slice in an epoch: itself and two that are moved (paper, section 2.1)"""


@dataclass(frozen=True)
class Way:
    """How the network computes; bf16 in channels_last is what the trainer takes by itself on such a GPU."""

    precision: str = "bf16"
    channels_last: bool = True
    compiled: bool = False

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"{self.precision} {layout}{' + compile' if self.compiled else ''}"


WAYS = (Way(), Way("bf16", False), Way("float32", True), Way("float32", False))


def made_slices(count: int, size: int) -> Slices:
    """Rings in noise, nobody's heart: 64 different slices again and again, since the device's speed does not depend on
    what it is shown."""
    y, x = np.mgrid[:size, :size] - size / 2
    radius_YX = np.hypot(y, x) / size
    ring_ZYX = np.stack([(radius_YX >= 0.1) & (radius_YX < 0.16 + 0.01 * level) for level in range(8)])
    noise_TZYX = np.random.default_rng(0).normal(100, 20, (8, 8, size, size))
    image_TZYX = (noise_TZYX + 300 * ring_ZYX).astype(np.int16)
    mask_TZYX = np.broadcast_to(ring_ZYX, image_TZYX.shape).astype(np.uint8)
    number_N = np.arange(count)
    phase_N, level_N = number_N // 8 % 8, number_N % 8
    places_N3 = np.stack([np.zeros_like(number_N), phase_N, level_N], axis=1)
    return Slices(
        image_NYX=Stack([image_TZYX], places_N3),
        mask_NYX=Stack([mask_TZYX], places_N3),
        patient_N=places_N3[:, 0],
        phase_N=phase_N,
        level_N=level_N,
        patients=("made-up",),
        subjects=("made-up",),
        strata=("",),
        ed_es=((None, None),),
        shape_TZ=((8, 8),),
        slice_spacing_mm=(8.0,),
        pixel_spacing_mm=(1.5625, 1.5625),
        source="phantom",
    )


def all_of(slices: Slices) -> Fold:
    """Every slice is trained on."""
    nobody = np.zeros(0, int)
    return Fold(np.arange(len(slices.patient_N)), nobody, nobody)


class Production:
    """mtl's trainer as it is, on slices that lie on the device; without run folder and scoring."""

    def __init__(self, slices: Slices, width: int, way: Way, batch: int, device: torch.device) -> None:
        settings = Train(
            batch_size=batch,
            precision=way.precision,
            channels_last=way.channels_last,
            compile=way.compiled,
            augment_copies=COPIES - 1,
            device=device.type,
        )
        config = Config(model=Model(width=width), train=settings)
        self.trainer = Trainer(config, slices, all_of(slices), 0, device)
        self.trainer.network.train()
        self._draws, self._epoch = self.trainer.draws(1), self.trainer.batches(1)
        self._batches = itertools.cycle(self._epoch)

    def step(self) -> None:
        """One batch, its inputs made on the device; the trainer reads its losses, as always."""
        self._train(next(self._batches))

    def epoch(self) -> Iterator[int]:
        """The whole epoch, batch by batch; how many slices were in each."""
        for pairs in self._epoch:
            self._train(pairs)
            yield len(pairs)

    def _train(self, pairs: np.ndarray) -> None:
        self.trainer.step(*self.trainer.inputs(pairs, self._draws))


class Bare:
    """The same step as a loop of mtl's parts that never waits for the device, so that it can be a CUDA graph.

    The slices and all draws of an epoch lie on the device; a step reads two small tensors that say which it takes.
    Nobody looks at its losses meanwhile, and its learning rate is a constant.
    """

    def __init__(self, slices: Slices, width: int, way: Way, batch: int, device: torch.device) -> None:
        everyone = np.arange(len(slices.patient_N))
        self._image_NYX = torch.from_numpy(slices.image_NYX[everyone]).to(device)
        self._mask_NYX = torch.from_numpy(slices.mask_NYX[everyone]).to(device)
        self._pixel_mm2, self._precision, self._device = slices.pixel_mm2, way.precision, device
        self._order(len(everyone), batch)
        torch.manual_seed(0)
        self._network = placed_network(width, slices.image_NYX.shape[1], way, device).train()
        area_mm2_N = slices.area_mm2_NA(everyone)[:, 0]
        self._network.set_area_scale(float(area_mm2_N.mean()), float(area_mm2_N.std()))
        s_reg = torch.full((1,), math.log(area_mm2_N.std()), device=device)
        self._s = torch.nn.ParameterList([torch.zeros((), device=device), s_reg])
        self._optimiser = torch.optim.RMSprop(
            [*self._network.parameters(), *self._s.parameters()], lr=0.001, capturable=device.type == "cuda"
        )
        self._loss = torch.zeros((), device=device)
        self._run: Callable[[], None] = self._step

    def _order(self, slices: int, batch: int) -> None:
        """Which slice, rotation and shift each sample of the epoch has."""
        batches = slices * COPIES // batch
        order = np.random.default_rng(0).permutation(slices * COPIES)[: batches * batch]
        index, copy = np.divmod(order, COPIES)
        draws = augment.draws(0, 1, slices, COPIES - 1, 180.0, 0.5)[index, copy].astype(np.float32)
        self._index_MB = torch.from_numpy(index.reshape(batches, batch)).to(self._device)
        self._draws_MB3 = torch.from_numpy(draws.reshape(batches, batch, 3)).to(self._device)
        self._index_B, self._draws_B3 = self._index_MB[0].clone(), self._draws_MB3[0].clone()
        self._numbers = itertools.cycle(range(batches))

    def capture(self) -> None:
        """From now on a step is a CUDA graph: inputs, augmentation, both passes and the optimiser."""
        self._run = captured(self._step)

    def step(self) -> None:
        number = next(self._numbers)
        self._index_B.copy_(self._index_MB[number])
        self._draws_B3.copy_(self._draws_MB3[number])
        self._run()

    def _step(self) -> None:
        image_B1YX, mask_B1YX = self._inputs()
        with arithmetic(self._precision, self._device):
            logits_BKYX, area_BA = self._network(image_B1YX)
        true_mm2_BA = mask_B1YX.sum(dim=(2, 3)) * self._pixel_mm2
        seg, area = segmentation_loss(logits_BKYX.float(), mask_B1YX), area_loss(area_BA, true_mm2_BA)
        loss = joint_loss(seg, area, self._s[0], self._s[1])
        loss.backward()
        self._optimiser.step()
        # Between steps there are no gradients, so that those of a graph lie in the graph's own memory.
        self._optimiser.zero_grad(set_to_none=True)
        self._loss.copy_(loss.detach())

    def _inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        image_B1YX = self._image_NYX[self._index_B][:, None].float()
        mask_B1YX = self._mask_NYX[self._index_B][:, None].float()
        mean = image_B1YX.mean(dim=(1, 2, 3), keepdim=True)
        deviation = image_B1YX.std(dim=(1, 2, 3), keepdim=True, correction=0)
        return augment.apply((image_B1YX - mean) / deviation.clamp_min(1e-6), mask_B1YX, self._draws_B3)

    def check(self) -> None:
        """ArithmeticError where it has not trained but made nonsense."""
        if not math.isfinite(loss := float(self._loss)) or not loss:
            raise ArithmeticError(f"the last loss is {loss}")


class Forward:
    """The network in evaluation mode on images that lie on the device; its answers stay there."""

    def __init__(self, width: int, size: int, way: Way, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        network = placed_network(width, size, way, device).eval()
        self._network = torch.compile(network, dynamic=False) if way.compiled else network
        self._image_B1YX = torch.randn(batch, 1, size, size, device=device)
        self._precision, self._device = way.precision, device
        self._logits_BKYX = self._area_BA = torch.zeros(0)
        self._run: Callable[[], None] = self._pass

    def step(self) -> None:
        self._run()

    @torch.inference_mode()
    def _pass(self) -> None:
        with arithmetic(self._precision, self._device):
            self._logits_BKYX, self._area_BA = self._network(self._image_B1YX)

    @torch.inference_mode()
    def capture(self) -> None:
        """From now on it is a CUDA graph. ArithmeticError where that does not give what it gave before."""
        self._pass()
        expected = self._logits_BKYX.float().clone()
        self._run = captured(self._pass)
        self._logits_BKYX.zero_()
        self._run()
        off = float((self._logits_BKYX.float() - expected).abs().max() / expected.abs().max())
        if not off < 0.05:
            raise ArithmeticError(f"the graph's logits are off by {off:.2g} of the largest one")


def placed_network(width: int, size: int, way: Way, device: torch.device) -> UNet:
    """Of branch up4, the paper's place."""
    network = UNet("up4", width, size=size).to(device)
    return network.to(memory_format=torch.channels_last) if way.channels_last else network


def captured(work: Callable[[], None]) -> Callable[[], None]:
    """`work` as a CUDA graph: recorded once, launched as a whole. It reads and writes the same tensors each time."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):  # what a first use makes (cuDNN's plans, the optimiser's state) is not recorded
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


@contextmanager
def cudnn(*, free: bool) -> Iterator[None]:
    """free: cuDNN tries its kernels and takes the fastest. Else as the trainer has it: deterministic, no trials."""
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = free, not free
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True


@dataclass(frozen=True)
class Work:
    """What is in a slice's training step or forward pass."""

    gflop: float
    moved_MB: float
    """an estimate: every feature map that a layer makes is read once and written once; three times that in a step"""


def work_in(width: int, precision: str, training: bool, size: int, device: torch.device) -> Work:
    network = placed_network(width, size, Way(), device).train(training)
    image_B1YX = torch.randn(1, 1, size, size, device=device)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits_BKYX, area_BA = network(image_B1YX)
        if training:
            (logits_BKYX.sum() + area_BA.sum()).backward()
    moved_bytes = 2 * _feature_bytes(network.eval(), image_B1YX, precision) * (3 if training else 1)
    return Work(counter.get_total_flops() / 1e9, moved_bytes / 1e6)


@torch.no_grad()
def _feature_bytes(network: UNet, image_B1YX: torch.Tensor, precision: str) -> int:
    """Of what the layers put out, in the types in which they do so."""
    sizes: list[int] = []

    def count(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        sizes.append(output.numel() * output.element_size())

    layers = [module for module in network.modules() if not [*module.children()]]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with arithmetic(precision, image_B1YX.device):
        network(image_B1YX)
    for handle in handles:
        handle.remove()
    return sum(sizes)
