"""What runs in a worker process: one fold, or a probe of a few steps. torch is imported here, and only here."""

import os
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import failures
from data_prep.files import keep_for, locked, make_private, patiently
from mtl.config import Config, from_dict
from mtl.runfolder import RunFolder

_ending = False


def end() -> None:
    """Somebody ends this process to start it again: what goes wrong from now on says nothing of the fold."""
    global _ending
    _ending = True


@dataclass(frozen=True)
class FoldJob:
    """All that a worker needs to train one fold."""

    config: dict[str, Any]
    store: str
    folder: str
    number: int
    save_masks: bool = False
    left_over_s: float = 30.0
    """How long a worker of a killed launch may take to notice that its Ray is gone, s."""
    micro_batches: int = 1
    """parts in which a batch is trained to begin with"""
    checkpoint_minutes: float | None = None
    """how often last.pt is written within an epoch; None: at the ends of epochs alone"""
    umask: str = "077"
    """as in site.umask"""


def run_fold(job: FoldJob) -> None:
    """Train a fold under its folder's lock. A failure ends as FAILED with its reason and its kind in the folder.

    Of several ranks the first one holds the lock, and each lets its failure end its process, so that whoever started
    them ends the others, too. One that has only lost another rank writes no outcome: they are started again.
    """
    keep_for(job.umask)
    folder = RunFolder(patiently(lambda: make_private(Path(job.folder))))
    first, alone = (os.environ.get(name, default) == default for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    with locked(folder.path, wait_s=job.left_over_s) if first else nullcontext():
        if folder.outcome() in ("DONE", "STOPPED"):  # stopped while it waited for its turn
            return
        try:
            config = from_dict(Config, job.config)
            _one_thread(config.train.device)
            from mtl import data, train

            slices = data.load(Path(job.store), config.data_digest)
            train.train(
                config,
                slices,
                job.number,
                folder,
                save_masks=job.save_masks,
                micro_batches=job.micro_batches,
                checkpoint_minutes=job.checkpoint_minutes,
            )
        except Exception as error:
            failure = failures.of(error)
            if failure == failures.LOST or _ending:
                raise
            if alone or folder.outcome() is None:  # the first of several to fail is the cause
                _failed(folder, error, failure)
            if not alone:
                raise


def _failed(folder: RunFolder, error: Exception, failure: str) -> None:
    reason, trace = f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))
    patiently(lambda: folder.finish("FAILED", reason, failure=failure, traceback=trace))


def usable_device(asked: str) -> str:
    """What `train.device` means on this machine; ValueError where it is asked for and not usable."""
    from mtl import trainer

    return trainer.resolve_device(asked).type


def run_probe(config: dict[str, Any], store: str) -> tuple[float, float, float]:
    """Seconds per slice of training and of prediction in this process, and its share of the GPU's memory."""
    settings = from_dict(Config, config)
    _one_thread(settings.train.device)
    from mtl import data, train

    cost = train.probe(settings, data.load(Path(store), settings.data_digest))
    return cost.train_s, cost.predict_s, cost.memory_share


def _one_thread(device: str) -> None:
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(1)
