"""Network, weighting and optimiser of one fold, and what a step and an epoch of theirs are (paper, section 3)."""

import math
import os
import shutil
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import nn

from mtl import augment, evaluate, weighting
from mtl.config import Config
from mtl.data import Fold, Slices
from mtl.loss import area_loss, segmentation_loss
from mtl.network import UNet, arithmetic
from mtl.placed import Placed
from mtl.ranks import Ranks
from mtl.weighting import Way

ALONE = Ranks()


class Diverged(ArithmeticError):
    """The loss is not a number any more."""


def resolve_device(asked: str) -> torch.device:
    """`auto` takes CUDA where there is one, else the CPU; mps only when asked for, since nobody has measured it.

    A device that is asked for and not usable is an error, never a silent run on the CPU.
    """
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device("cuda" if usable["cuda"] else "cpu")
    if not usable[asked]:
        there = ", ".join(name for name, is_there in usable.items() if is_there)
        raise ValueError(f"train.device is {asked!r}, which is not usable here; usable: {there}, auto")
    return torch.device(asked)


def check_compiler(device: torch.device) -> None:
    """ValueError where torch.compile would find no compiler: on CPUs it writes C++."""
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    if device.type == "cpu" and not any(shutil.which(name) for name in compilers):
        raise ValueError(f"train.compile wants a C++ compiler ({', '.join(compilers)}): install one, or leave it false")


class Joint(nn.Module):
    """Network and weighting as one module: what is averaged over ranks are the gradients of both."""

    weighting: Way

    def __init__(self, network: UNet, way: Way, among: Ranks, precision: str, *, compiled: bool = False) -> None:
        super().__init__()
        self.weighting, self.ranks, self.precision = way, among, precision
        self.network = torch.compile(network, dynamic=False) if compiled else network
        self.started = False

    def forward(
        self, image: torch.Tensor, mask: torch.Tensor, area_mm2: torch.Tensor, share: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The joint loss, L_seg and L_area (mm2; NaN without a regression path), whose means over ranks are the
        batch's: eq. (5) is linear in the two losses."""
        with arithmetic(self.precision, image.device):
            logits, area = self.network(image)
        seg = share * segmentation_loss(logits.float(), mask)
        reg = seg.new_full((), math.nan) if area is None else share * area_loss(area, area_mm2)
        if not self.started:
            self.weighting.start(self.ranks.mean(seg), self.ranks.mean(reg))
            self.started = True
        return self.weighting.total(seg, reg), seg, reg


class _Coming:
    """Numbers on their way from the device: the processor goes on and queues the backward pass meanwhile."""

    def __init__(self, values: torch.Tensor) -> None:
        if values.device.type != "cuda":
            self._values, self._event = values, None
            return
        self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._values.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def arrived(self) -> np.ndarray:
        if self._event is not None:
            self._event.synchronize()
        return self._values.double().cpu().numpy()


class Trainer:
    """Network, weighting and optimiser of one fold, and one step of theirs."""

    def __init__(
        self, config: Config, slices: Slices, fold: Fold, number: int, device: torch.device, among: Ranks = ALONE
    ) -> None:
        self.config, self.slices, self.fold, self.device, self.ranks = config, slices, fold, device, among
        self.number, self.placed = number, Placed(slices, device)
        torch.backends.cudnn.deterministic = True  # a resumed training ends with the same numbers
        self.build(micro_batches=1)

    def build(self, micro_batches: int) -> None:
        """Everything that is trained, as it is before the first epoch.

        micro_batches: parts of a batch that are on the device one after another. Gradients are those of the whole
        batch, but BatchNorm sees the parts.
        """
        config, slices, fold, device, among = self.config, self.slices, self.fold, self.device, self.ranks
        if config.train.compile:
            check_compiler(device)
        self.micro_batches = micro_batches
        train_mm2 = slices.area_mm2(fold.train).astype(np.float32)
        regresses = config.model.branch != "none"
        scaled = regresses and config.model.area_scale == "fold"
        scale_mm2 = max(float(train_mm2.std()), slices.pixel_mm2) if scaled else 1.0
        torch.manual_seed(int(np.random.SeedSequence([config.train.seed, self.number]).generate_state(1)[0]))
        self.network = UNet(
            config.model.branch, config.model.width, size=slices.image_NYX.shape[1], norm=config.model.norm
        )
        if scaled:
            self.network.set_area_scale(float(train_mm2.mean()), scale_mm2)
        self.network.to(device)
        if config.train.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weighting = weighting.make(config.weighting, scale_mm2 if regresses else None).to(device)
        self.joint = Joint(self.network, self.weighting, among, config.train.precision, compiled=config.train.compile)
        self.averaged = among.wrap(self.joint, device)
        self.optimiser = torch.optim.RMSprop(
            [*self.network.parameters(), *self.weighting.parameters()], lr=config.optim.lr
        )

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The epoch's (slice, copy) pairs in random order, cut into batches: each image and copy once."""
        settings = self.config.train
        copies = 1 + settings.augment_copies
        pairs = np.stack(np.divmod(np.arange(len(self.fold.train) * copies), copies), axis=1)
        pairs[:, 0] = self.fold.train[pairs[:, 0]]
        order = np.random.default_rng([settings.seed, epoch, 1]).permutation(len(pairs))
        return np.array_split(pairs[order], math.ceil(len(pairs) / settings.batch_size))

    def draws(self, epoch: int) -> np.ndarray:
        """Rotation and shift of every slice's copies in this epoch: (N, 1 + copies, 3)."""
        settings = self.config.train
        return augment.draws(
            settings.seed,
            epoch,
            len(self.slices.image_NYX),
            settings.augment_copies,
            settings.rotation_deg,
            settings.shift,
        )

    def inputs(self, pairs: np.ndarray, draws: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """image_B1YX, mask_B1YX and area_B1 (mm2, of the transformed mask) of a batch, on the device."""
        image = augment.images(self.placed, pairs[:, 0], self.config.train.normalisation)
        mask = self.placed.mask_B1YX(pairs[:, 0])
        moved = torch.from_numpy(draws[pairs[:, 0], pairs[:, 1]].astype(np.float32)).to(self.device)
        image, mask = augment.apply(image, mask, moved)
        return image, mask, mask.sum(dim=(2, 3)) * self.slices.pixel_mm2

    def step(
        self, image: torch.Tensor, mask: torch.Tensor, area_mm2: torch.Tensor, share: float = 1.0
    ) -> tuple[float, float, float]:
        """One descent, together with the other ranks. Returns the batch's joint loss, L_seg and L_area (mm2; NaN
        without a regression path)."""
        self.optimiser.zero_grad()
        told = np.zeros(3)
        for some in np.array_split(np.arange(len(image)), min(self.micro_batches, len(image))):
            part, weight = slice(some[0], some[-1] + 1), len(some) / len(image)
            losses = self.averaged(image[part], mask[part], area_mm2[part], share)
            there = _Coming(self.ranks.mean(torch.stack(losses)))
            (weight * losses[0] if weight < 1 else losses[0]).backward()
            told += weight * there.arrived()
        total, seg, reg = told.tolist()
        if not math.isfinite(total):
            raise Diverged(f"loss {total}: L_seg {seg}, L_area {reg} mm2")
        self.optimiser.step()
        return total, seg, reg

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch, score the selection set; the epoch's record. The other ranks hear it from the first."""
        begin = time.perf_counter()
        lr = self.config.optim.lr * self.config.optim.decay ** (epoch - 1)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.network.train()
        draws, sums, count = self.draws(epoch), np.zeros(3), 0
        for number, pairs in enumerate(self.batches(epoch), start=1):
            try:
                mine, share = self.ranks.part(pairs)
                losses = self.step(*self.inputs(mine, draws), share)
            except Diverged as error:
                raise Diverged(f"epoch {epoch}, batch {number}: {error}, {self.weighting.state()}") from None
            sums += np.multiply(losses, len(pairs))
            count += len(pairs)
        trained_s = time.perf_counter() - begin
        record = self._record(epoch, lr, sums / count, count / trained_s, begin) if self.ranks.first else None
        told: dict[str, Any] = self.ranks.told(record)
        return told

    def _record(self, epoch: int, lr: float, losses: np.ndarray, slices_per_s: float, begin: float) -> dict[str, Any]:
        predicted = evaluate.predict(self.network, self.placed, self.fold.selection, self.config.train)
        dice_val, area_mad_mm2 = evaluate.score(self.slices, predicted)
        if not math.isfinite(area_mad_mm2):
            raise Diverged(f"epoch {epoch}: the area error on the selection set is {area_mad_mm2} mm2")
        loss, loss_seg, loss_area = losses.tolist()
        return {
            "epoch": epoch,
            "time_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "loss_train": loss,
            "loss_seg_train": loss_seg,
            "loss_area_train": None if math.isnan(loss_area) else loss_area,
            "dice_val": dice_val,
            "area_mad_mm2": area_mad_mm2,
            **self.weighting.state(),
            "lr": lr,
            "seconds": time.perf_counter() - begin,
            "slices_per_s": slices_per_s,
        }

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "weighting": self.weighting.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "micro_batches": self.micro_batches,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.weighting.load_state_dict(state["weighting"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.micro_batches = int(state["micro_batches"])
        self.joint.started = True
