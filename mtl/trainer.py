"""Network, weighting and optimiser of one fold, and what a step and an epoch of theirs are (paper, section 3)."""

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from mtl import augment, diagnose, evaluate, weighting
from mtl.config import Config
from mtl.joint import Coming, Joint
from mtl.network import UNet
from mtl.optimiser import RMSprop
from mtl.placed import Placed
from mtl.ranks import Ranks
from mtl.slices import Fold, Slices
from mtl.structures import with_each
from mtl.version import code_hash

ALONE = Ranks()


class Diverged(ArithmeticError):
    """The loss is not a number any more."""

    failure = "diverged"  # cluster/failures.py


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


@dataclass(frozen=True)
class Progress:
    """How far an epoch has come."""

    epoch: int
    batches: int = 0
    """that are trained, of the epoch's"""
    slices: int = 0
    """in them, the copies included"""
    sums: tuple[float, ...] = ()
    """of the joint loss, L_seg and each structure's L_area (mm2) over these slices"""
    seconds: float = 0.0
    """that it took, without what was lost in interruptions"""

    def after(self, losses: Sequence[float], slices: int, seconds: float) -> "Progress":
        """One batch further, of so many slices and these mean losses."""
        before = self.sums or (0.0,) * len(losses)
        sums = tuple(total + loss * slices for total, loss in zip(before, losses, strict=True))
        return Progress(self.epoch, self.batches + 1, self.slices + slices, sums, seconds)


class Trainer:
    """Network, weighting and optimiser of one fold, and one step of theirs."""

    def __init__(
        self,
        config: Config,
        slices: Slices,
        fold: Fold,
        number: int,
        device: torch.device,
        among: Ranks = ALONE,
        micro_batches: int = 1,
    ) -> None:
        self.config, self.slices, self.fold, self.device, self.ranks = config, slices, fold, device, among
        self.number, self.placed = number, Placed(slices, device)
        self.codes = {code_hash()}
        """versions of the code that have trained it"""
        torch.backends.cudnn.deterministic = True  # a resumed training ends with the same numbers
        self.build(micro_batches)

    def build(self, micro_batches: int) -> None:
        """Everything that is trained, as it is before the first epoch.

        micro_batches: parts of a batch that are on the device one after another. Gradients are those of the whole
        batch, but BatchNorm sees the parts.
        """
        config, slices, fold, device, among = self.config, self.slices, self.fold, self.device, self.ranks
        if config.train.compile:
            check_compiler(device)
        self.micro_batches = micro_batches
        train_mm2_AN = np.ascontiguousarray(slices.area_mm2_NA(fold.train).T, np.float32)
        regresses, areas = config.model.branch != "none", len(slices.structures)
        scaled = regresses and config.model.area_scale == "fold"
        scale_mm2_A = [max(float(one.std()), slices.pixel_mm2) for one in train_mm2_AN] if scaled else [1.0] * areas
        torch.manual_seed(int(np.random.SeedSequence([config.train.seed, self.number]).generate_state(1)[0]))
        self.network = UNet(
            config.model.branch,
            config.model.width,
            classes=areas,
            areas=areas,
            size=slices.image_NYX.shape[1],
            norm=config.model.norm,
        )
        if scaled:
            self.network.set_area_scale([float(one.mean()) for one in train_mm2_AN], scale_mm2_A)
        self.network.to(device)
        if config.train.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weighting = weighting.make(config.weighting, scale_mm2_A if regresses else None, slices.structures)
        self.weighting.to(device)
        self.joint = Joint(
            self.network,
            self.weighting,
            among,
            config.train.precision,
            config.loss.segmentation,
            compiled=config.train.compile,
        )
        self.averaged = among.wrap(self.joint, device)
        self.optimiser = RMSprop([*self.network.parameters(), *self.weighting.parameters()], lr=config.optim.lr)

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
        """image_B1YX, mask_B1YX (labels) and area_BA (mm2, of the transformed mask) of a batch, on the device."""
        image = augment.images(self.placed, pairs[:, 0], self.config.train.normalisation)
        mask = self.placed.mask_B1YX(pairs[:, 0])
        moved = torch.from_numpy(draws[pairs[:, 0], pairs[:, 1]].astype(np.float32)).to(self.device)
        image, mask = augment.apply(image, mask, moved)
        labels = torch.arange(1, len(self.slices.structures) + 1, device=self.device).view(1, -1, 1, 1)
        return image, mask, (mask == labels).sum(dim=(2, 3)).float() * self.slices.pixel_mm2

    def _parts(self, count: int) -> list[tuple[slice, float]]:
        """A batch of `count` samples in micro-batches: which, and their share in its loss. Every rank goes through as
        many; one that has nothing for a part takes a sample without weight, as in Ranks.part()."""
        number = self.micro_batches if self.ranks.size > 1 else min(self.micro_batches, count)
        parts = np.array_split(np.arange(count), number)
        return [(slice(p[0], p[-1] + 1), len(p) / count) if len(p) else (slice(0, 1), 0.0) for p in parts]

    def step(
        self, image: torch.Tensor, mask: torch.Tensor, area_mm2: torch.Tensor, share: float = 1.0
    ) -> tuple[float, ...]:
        """One descent, together with the other ranks. Returns the batch's joint loss, L_seg and each structure's
        L_area (mm2; NaN without a regression path)."""
        self.optimiser.zero_grad()
        told, parts = np.zeros(2 + area_mm2.shape[1]), self._parts(len(image))
        for number, (part, weight) in enumerate(parts, start=1):
            with self.ranks.apart(self.averaged, number < len(parts)):
                losses = self.averaged(image[part], mask[part], area_mm2[part], share)
                there = Coming(self.ranks.mean(weight * torch.cat([loss.reshape(-1) for loss in losses])))
                (weight * losses[0] if weight < 1 else losses[0]).backward()
            told += there.arrived()
        total, seg, *areas = told.tolist()
        if not math.isfinite(total):
            raise Diverged(f"loss {total}: L_seg {seg}, L_area {', '.join(map(str, areas))} mm2")
        self.optimiser.step()
        return total, seg, *areas

    def epoch(
        self, epoch: int, begun: Progress | None = None, keep: Callable[[Progress], None] | None = None
    ) -> dict[str, Any]:
        """Train one epoch, score the selection set; the epoch's record. The other ranks hear it from the first.

        begun: how far it had come where it goes on. keep: is told after every batch how far it has come.
        """
        so_far, lr = begun or Progress(epoch), self.config.optim.lr * self.config.optim.decay ** (epoch - 1)
        begin = time.perf_counter() - so_far.seconds
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.network.train()
        draws = self.draws(epoch)
        for number, pairs in enumerate(self.batches(epoch)[so_far.batches :], start=so_far.batches + 1):
            try:
                mine, share = self.ranks.part(pairs)
                losses = self.step(*self.inputs(mine, draws), share)
            except Diverged as error:
                raise Diverged(f"epoch {epoch}, batch {number}: {error}, {self.weighting.state()}") from None
            so_far = so_far.after(losses, len(pairs), time.perf_counter() - begin)
            if keep:
                keep(so_far)
        diagnosed = self.config.train.diagnose and self.network.branch is not None
        conflict = self._conflict(epoch, draws) if diagnosed else {}
        record = {**self._record(so_far, lr, begin), **conflict} if self.ranks.first else None
        told: dict[str, Any] = self.ranks.told(record)
        return told

    def _conflict(self, epoch: int, draws: np.ndarray) -> dict[str, float | None]:
        """Of both tasks' gradients, on the epoch's first batch, or as much of it as is on the device at once."""
        mine, share = self.ranks.part(self.batches(epoch)[0])
        part, _ = self._parts(len(mine))[0]
        image, mask, area_mm2 = (tensor[part] for tensor in self.inputs(mine, draws))
        return diagnose.conflict(self.joint, self.network, (image, mask, area_mm2), share)

    def _record(self, trained: Progress, lr: float, begin: float) -> dict[str, Any]:
        predicted = evaluate.predict(self.network, self.placed, self.fold.selection, self.config.train)
        dice_A, area_mad_mm2_A = evaluate.score(self.slices, predicted)
        if not all(map(math.isfinite, area_mad_mm2_A)):
            told = ", ".join(map(str, area_mad_mm2_A))
            raise Diverged(f"epoch {trained.epoch}: the area error on the selection set is {told} mm2")
        loss, loss_seg, *loss_area_A = (total / trained.slices for total in trained.sums)
        structures = self.slices.structures
        return {
            "epoch": trained.epoch,
            "time_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "loss_train": loss,
            "loss_seg_train": loss_seg,
            **with_each("loss_area_train", loss_area_A, structures),
            **with_each("dice_val", dice_A, structures),
            **with_each("area_mad_mm2", area_mad_mm2_A, structures),
            **self.weighting.state(),
            "lr": lr,
            "seconds": time.perf_counter() - begin,
            "slices_per_s": trained.slices / trained.seconds,
        }

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "weighting": self.weighting.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "micro_batches": self.micro_batches,
            "codes": sorted(self.codes),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.weighting.load_state_dict(state["weighting"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.micro_batches = max(self.micro_batches, int(state["micro_batches"]))
        self.codes |= set(state.get("codes", []))
        self.joint.started = True
