"""Train one fold: the same function under every launcher.

It knows no launcher and no tracker. What it has done is in the run folder after every epoch; killed at any
moment and called again it goes on from there, to the same numbers.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from data_prep.files import is_full, patiently
from mtl import checkpoint, evaluate
from mtl.config import Config, fold_dict
from mtl.network import resolve_precision
from mtl.ranks import ranks
from mtl.runfolder import RunFolder, best_epoch
from mtl.slices import Fold, Slices, folds_of
from mtl.trainer import Progress, Trainer, resolve_device
from mtl.usage import Usage

Observer = Callable[[dict[str, Any]], None]
Keep = Callable[[Progress], None]


class OutOfMemory(RuntimeError):
    """The device's memory does not hold a batch, nor half of one."""

    failure = "memory"  # cluster/failures.py


def train(
    config: Config,
    slices: Slices,
    number: int,
    folder: RunFolder,
    observer: Observer | None = None,
    *,
    save_masks: bool = False,
    micro_batches: int = 1,
    checkpoint_minutes: float | None = None,
) -> None:
    """Train fold `number` to its end, from last.pt where there is one; then evaluate the best epoch.

    Every rank calls it (mtl/ranks.py); the first one scores, reads and writes. The caller holds the folder's lock.
    observer: is told each epoch's record once it is on the disk, on the first rank. save_masks: keep the test fold's
    predicted masks. micro_batches: parts in which a batch is trained to begin with (Trainer.build); never fewer than
    last.pt says. checkpoint_minutes: write last.pt within an epoch, too, when so long has gone since the last time;
    None: at the ends of epochs alone. A disk that is full is waited for (data_prep/files.py). Where the folder says
    STOPPED, the fold ends with the epoch that is under way, unevaluated; RunFolder.reopen() lets it go on.

    ranks.LostRank where another rank is gone: start all of them again.
    """
    kind = resolve_device(config.train.device)
    with ranks(kind) as among:
        if config.train.batch_size < among.size:
            raise ValueError(f"train.batch_size is {config.train.batch_size} for {among.size} ranks, wanted one each")
        fold, device = fold_of(config, slices, number), among.device(kind)
        if among.first:
            patiently(lambda: folder.prepare(fold_dict(asdict(config), number)))
        trainer = Trainer(config, slices, fold, number, device, among, micro_batches)
        records = _epochs(trainer, folder, observer, checkpoint_minutes)
        if among.first and len(records) == config.train.epochs:
            _finish(trainer, folder, records, save_masks=save_masks)


def _finish(trainer: Trainer, folder: RunFolder, records: list[dict[str, Any]], *, save_masks: bool) -> None:
    """Evaluate the best epoch's network and write it all."""
    best, settings = checkpoint.load(folder.best, trainer.config, trainer.number), trainer.config.train
    network, placed, fold, record = trainer.network, trainer.placed, trainer.fold, best_epoch(records)
    network.load_state_dict(best["network"])
    scores = {key: record[key] for key in ("dice_val", "area_mad_mm2")}
    patiently(lambda: evaluate.write(network, placed, fold, folder, settings, save_masks=save_masks))
    told = {"best_epoch": record["epoch"], **scores, **facts(trainer)}
    patiently(lambda: folder.finish("DONE", "all epochs trained", **told))


def _epochs(
    trainer: Trainer, folder: RunFolder, observer: Observer | None, checkpoint_minutes: float | None
) -> list[dict[str, Any]]:
    """Train what is left; the records of all epochs, of fewer where somebody has stopped the fold."""
    records, begun = _resume(trainer, folder)
    for epoch in range(len(records) + 1, trainer.config.train.epochs + 1):
        if trainer.ranks.told(folder.outcome() == "STOPPED"):
            break
        keep, used = _keeper(trainer, folder, records, checkpoint_minutes), Usage(trainer.device)
        record = _epoch(trainer, epoch, begun, keep)
        if record is None:
            # From what was kept last, so that nothing of the failed batch is left (BatchNorm's means).
            trainer.build(micro_batches=2)
            _, begun = _resume(trainer, folder)
            record = _epoch(trainer, epoch, begun, keep)
        assert record is not None
        records.append(record)
        begun = None
        if trainer.ranks.first:
            _keep(trainer, folder, records)
            taken = used.read()
            patiently(lambda: folder.write_usage(records[-1]["epoch"], taken))  # noqa: B023  called at once
            if observer:
                observer(records[-1])
    return records


def _epoch(trainer: Trainer, epoch: int, begun: Progress | None, keep: Keep | None) -> dict[str, Any] | None:
    """The epoch's record; None where the device's memory was too small for it and half batches may be tried."""
    try:
        return trainer.epoch(epoch, begun, keep)
    except torch.OutOfMemoryError as error:
        halved = trainer.micro_batches > 1
        if halved or trainer.ranks.size > 1:  # ranks wait for one another: one of them cannot begin again alone
            raise OutOfMemory(
                f"epoch {epoch}: out of memory{' in half batches too' if halved else ''}: give a smaller "
                f"train.batch_size or model.width, or fewer folds at a time (site.slots) ({_first_line(error)})"
            ) from None
    torch.cuda.empty_cache()
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _keep(trainer: Trainer, folder: RunFolder, records: list[dict[str, Any]]) -> None:
    """Write the last epoch. In this order a kill between any two lines repeats it, to the same numbers: last.pt,
    which says that the epoch is done, comes last."""
    config, number, epoch = trainer.config, trainer.number, records[-1]["epoch"]
    if best_epoch(records)["epoch"] == epoch:
        best = {"network": trainer.network.state_dict(), "epoch": epoch}
        patiently(lambda: checkpoint.save(folder.best, best, config, number))
    patiently(lambda: folder.write_epochs(records))
    patiently(lambda: checkpoint.save(folder.last, {**trainer.state(), "records": records}, config, number))


def _keeper(trainer: Trainer, folder: RunFolder, records: list[dict[str, Any]], minutes: float | None) -> Keep | None:
    """What writes last.pt within the epoch after `records`, every so many minutes; None where nothing is to do."""
    if minutes is None or not trainer.ranks.first:
        return None
    last_s = time.monotonic()

    def keep(so_far: Progress) -> None:
        nonlocal last_s
        if time.monotonic() - last_s < 60 * minutes:
            return
        state = {**trainer.state(), "records": records, "within": asdict(so_far)}
        try:
            checkpoint.save(folder.last, state, trainer.config, trainer.number)
        except OSError as error:
            if not is_full(error):
                raise
            # What was kept before stands; that the end of the epoch finds no room is early enough to wait for some.
        last_s = time.monotonic()

    return keep


def _resume(trainer: Trainer, folder: RunFolder) -> tuple[list[dict[str, Any]], Progress | None]:
    """The records so far, and how far the next epoch had come if it was kept in its middle. One reads for all ranks:
    other nodes may not see yet what stands on the disk."""
    state: dict[str, Any] | None = None
    if trainer.ranks.first and folder.last.exists():
        state = checkpoint.load(folder.last, trainer.config, trainer.number)
        if state["records"] and not folder.best.exists():
            state = None  # a purge took the best epoch's network: only all epochs again make it
    state = trainer.ranks.told(state)
    if state is None:
        return [], None
    trainer.load(state)
    records, within = list(state["records"]), state.get("within")
    if trainer.ranks.first:
        patiently(lambda: folder.write_epochs(records))
    return records, Progress(**within) if within else None


def fold_of(config: Config, slices: Slices, number: int) -> Fold:
    """The slices of fold `number`, by the protocol."""
    protocol = config.protocol
    folds = folds_of(slices, config.train.folds, protocol.fold_seed, protocol.selection, protocol.train_fraction)
    return folds[number]


def facts(trainer: Trainer) -> dict[str, Any]:
    """What a fold is trained on and with, as far as its configuration does not say it."""
    slices, device = trainer.slices, trainer.device
    labelled = slices.area_mm2_NA(np.arange(len(slices.patient_N))).any(axis=1)
    return {
        "source": slices.source,
        "structures": list(slices.structures),
        "patients": len(slices.patients),
        "volumes": len(np.unique(slices.volume_N[labelled])),
        "slices": len(slices.patient_N),
        "size": list(slices.image_NYX.shape[1:]),
        "pixel_spacing_mm": list(slices.pixel_spacing_mm),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": resolve_precision(trainer.config.train.precision, device),
        "ranks": trainer.ranks.size,
        "micro_batches": trainer.micro_batches,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "branchpoint": version("branchpoint"),
        "code": "+".join(sorted(trainer.codes)),
    }


@dataclass(frozen=True)
class Cost:
    """What a fold costs on this machine."""

    train_s: float
    """a slice of a training step"""
    predict_s: float
    """a slice of a prediction"""
    memory_share: float = 0.0
    """of the GPU's memory, this process's part; 0 on CPUs"""


def probe(config: Config, slices: Slices, steps: int = 3) -> Cost:
    """The cost of a fold, from a few steps of training and a prediction after a warm-up."""
    fold = fold_of(config, slices, 0)
    trainer = Trainer(config, slices, fold, 0, resolve_device(config.train.device))
    draws, batches = trainer.draws(1), trainer.batches(1)
    trained = []
    for pairs in (batches * (steps + 2))[: steps + 2]:
        begin = time.perf_counter()
        trainer.step(*trainer.inputs(pairs, draws))  # its losses are numbers: the device has finished
        trained.append((time.perf_counter() - begin) / len(pairs))
    some = fold.selection[: evaluate.BATCH]
    begin = time.perf_counter()
    evaluate.predict(trainer.network, trainer.placed, some, config.train)
    predict_s = (time.perf_counter() - begin) / len(some)
    return Cost(float(np.median(trained[2:])), predict_s, _memory_share(trainer.device))


def _memory_share(device: torch.device) -> float:
    """What this process has taken at most of its GPU's memory, its context included; then what it can is given back."""
    if device.type != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    beside = total - free - torch.cuda.memory_reserved(device)  # the context, and whatever else runs there
    share = (torch.cuda.max_memory_reserved(device) + beside) / total
    torch.cuda.empty_cache()
    return share
