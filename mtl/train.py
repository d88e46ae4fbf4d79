"""Train one fold: the same function under every launcher.

It knows no launcher and no tracker. What it has done is in the run folder after every epoch; killed at any
moment and called again it goes on from there, to the same numbers.
"""

import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

from data_prep.files import atomic
from mtl import augment, evaluate, weighting
from mtl.config import Config, fold_dict
from mtl.data import Fold, Slices, folds_of
from mtl.loss import area_loss, segmentation_loss
from mtl.network import UNet, arithmetic, resolve_precision
from mtl.ranks import Ranks, ranks
from mtl.runfolder import RunFolder, best_epoch
from mtl.weighting import Way

Observer = Callable[[dict[str, Any]], None]
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


class Joint(nn.Module):
    """Network and weighting as one module: what is averaged over ranks are the gradients of both."""

    weighting: Way

    def __init__(self, network: UNet, way: Way, among: Ranks, precision: str) -> None:
        super().__init__()
        self.network, self.weighting, self.ranks, self.precision = network, way, among, precision
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


class Trainer:
    """Network, weighting and optimiser of one fold, and one step of theirs."""

    def __init__(
        self, config: Config, slices: Slices, fold: Fold, number: int, device: torch.device, among: Ranks = ALONE
    ) -> None:
        self.config, self.slices, self.fold, self.device, self.ranks = config, slices, fold, device, among
        train_mm2 = slices.area_mm2(fold.train).astype(np.float32)
        torch.backends.cudnn.deterministic = True  # a resumed training ends with the same numbers
        regresses = config.model.branch != "none"
        scaled = regresses and config.model.area_scale == "fold"
        scale_mm2 = max(float(train_mm2.std()), slices.pixel_mm2) if scaled else 1.0
        torch.manual_seed(int(np.random.SeedSequence([config.train.seed, number]).generate_state(1)[0]))
        self.network = UNet(
            config.model.branch, config.model.width, size=slices.image_NYX.shape[1], norm=config.model.norm
        )
        if scaled:
            self.network.set_area_scale(float(train_mm2.mean()), scale_mm2)
        self.network.to(device)
        if config.train.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weighting = weighting.make(config.weighting, scale_mm2 if regresses else None).to(device)
        self.joint = Joint(self.network, self.weighting, among, config.train.precision)
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
        image = augment.images(self.slices, pairs[:, 0], self.config.train.normalisation, self.device)
        mask = torch.from_numpy(self.slices.mask_NYX[pairs[:, 0]][:, None]).to(self.device).float()
        moved = torch.from_numpy(draws[pairs[:, 0], pairs[:, 1]].astype(np.float32)).to(self.device)
        image, mask = augment.apply(image, mask, moved)
        return image, mask, mask.sum(dim=(2, 3)) * self.slices.pixel_mm2

    def step(
        self, image: torch.Tensor, mask: torch.Tensor, area_mm2: torch.Tensor, share: float = 1.0
    ) -> tuple[float, float, float]:
        """One descent, together with the other ranks. Returns the batch's joint loss, L_seg and L_area (mm2; NaN
        without a regression path)."""
        losses = self.averaged(image, mask, area_mm2, share)
        total, seg, reg = self.ranks.mean(torch.stack(losses)).tolist()
        if not math.isfinite(total):
            raise Diverged(f"loss {total}: L_seg {seg}, L_area {reg} mm2")
        self.optimiser.zero_grad()
        losses[0].backward()
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
        predicted = evaluate.predict(self.network, self.slices, self.fold.selection, self.config.train, self.device)
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
        }

    def load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.weighting.load_state_dict(state["weighting"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.joint.started = True


def train(
    config: Config,
    slices: Slices,
    number: int,
    folder: RunFolder,
    observer: Observer | None = None,
    *,
    save_masks: bool = False,
) -> None:
    """Train fold `number` to its end, from last.pt where there is one; then evaluate the best epoch.

    Every rank calls it (mtl/ranks.py); the first one scores and writes. The caller holds the folder's lock.
    observer: is told each epoch's record once it is on the disk, on the first rank. save_masks: keep the test fold's
    predicted masks.
    """
    kind = resolve_device(config.train.device)
    with ranks(kind) as among:
        if config.train.batch_size < among.size:
            raise ValueError(f"train.batch_size is {config.train.batch_size} for {among.size} ranks, wanted one each")
        fold, device = fold_of(config, slices, number), among.device(kind)
        if among.first:
            folder.prepare(fold_dict(asdict(config), number))
        among.told(None)  # nobody reads before the folder is prepared
        trainer = Trainer(config, slices, fold, number, device, among)
        records = _epochs(trainer, number, folder, observer)
        if not among.first:
            return
        best = load_checkpoint(folder.best, config, number)
        trainer.network.load_state_dict(best["network"])
        evaluate.write(trainer.network, slices, fold, folder, config.train, device, save_masks=save_masks)
        record = best_epoch(records)
        folder.finish(
            "DONE",
            "all epochs trained",
            best_epoch=record["epoch"],
            dice_val=record["dice_val"],
            area_mad_mm2=record["area_mad_mm2"],
            **facts(config, slices, device, among),
        )


def facts(config: Config, slices: Slices, device: torch.device, among: Ranks = ALONE) -> dict[str, Any]:
    """What a fold is trained on and with, as far as its configuration does not say it."""
    everyone = np.arange(len(slices.patient_N))
    with_myocardium = slices.area_mm2(everyone) > 0
    return {
        "source": slices.source,
        "patients": len(slices.patients),
        "volumes": len(np.unique(slices.volume_N[with_myocardium])),
        "slices": len(everyone),
        "size": list(slices.image_NYX.shape[1:]),
        "pixel_spacing_mm": list(slices.pixel_spacing_mm),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": resolve_precision(config.train.precision, device),
        "ranks": among.size,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "branchpoint": version("branchpoint"),
    }


def _epochs(trainer: Trainer, number: int, folder: RunFolder, observer: Observer | None) -> list[dict[str, Any]]:
    """Train what is left; the records of all epochs."""
    config = trainer.config
    records = _resume(trainer, folder, config, number)
    for epoch in range(len(records) + 1, config.train.epochs + 1):
        records.append(trainer.epoch(epoch))
        if trainer.ranks.first:
            _keep(trainer, folder, records, _identity(config, number))
            if observer:
                observer(records[-1])
    return records


def _keep(trainer: Trainer, folder: RunFolder, records: list[dict[str, Any]], identity: dict[str, Any]) -> None:
    """Write the last epoch. In this order a kill between any two lines repeats it, to the same numbers: last.pt,
    which says that the epoch is done, comes last."""
    epoch = records[-1]["epoch"]
    if best_epoch(records)["epoch"] == epoch:
        _save({"network": trainer.network.state_dict(), "epoch": epoch, **identity}, folder.best)
    folder.write_epochs(records)
    _save({**trainer.state(), "records": records, **identity}, folder.last)


def fold_of(config: Config, slices: Slices, number: int) -> Fold:
    """The slices of fold `number`, by the protocol."""
    protocol = config.protocol
    folds = folds_of(slices, config.train.folds, protocol.fold_seed, protocol.selection, protocol.train_fraction)
    return folds[number]


def _resume(trainer: Trainer, folder: RunFolder, config: Config, number: int) -> list[dict[str, Any]]:
    if not folder.last.exists():
        return []
    state = load_checkpoint(folder.last, config, number)
    trainer.load(state)
    if trainer.ranks.first:
        folder.write_epochs(state["records"])
    return list(state["records"])


def _identity(config: Config, number: int) -> dict[str, Any]:
    return {"config": config.digest, "data_digest": config.data_digest, "fold": number}


def _save(state: dict[str, Any], path: Any) -> None:
    with atomic(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Any, config: Config, number: int) -> dict[str, Any]:
    """A checkpoint of this fold; ValueError when it is damaged or another's."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint {path}: damaged ({error}); remove the fold's folder to train it again") from error
    if {key: state.get(key) for key in _identity(config, number)} != _identity(config, number):
        raise ValueError(f"checkpoint {path}: of another configuration, data or fold; remove the fold's folder")
    return state


def probe(config: Config, slices: Slices, steps: int = 3) -> tuple[float, float]:
    """Seconds per slice of a training step and of a prediction, from a few of each after a warm-up."""
    fold = fold_of(config, slices, 0)
    device = resolve_device(config.train.device)
    trainer = Trainer(config, slices, fold, 0, device)
    draws, batches = trainer.draws(1), trainer.batches(1)
    trained = []
    for pairs in (batches * (steps + 2))[: steps + 2]:
        begin = time.perf_counter()
        trainer.step(*trainer.inputs(pairs, draws))  # its losses are numbers: the device has finished
        trained.append((time.perf_counter() - begin) / len(pairs))
    some = fold.selection[: evaluate.BATCH]
    begin = time.perf_counter()
    evaluate.predict(trainer.network, slices, some, config.train, device)
    return float(np.median(trained[2:])), (time.perf_counter() - begin) / len(some)
