"""What runs in a worker process: one fold, or a probe of a few steps. torch is imported here, and only here."""

import os
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.files import locked, make_private
from mtl.config import Config, from_dict
from mtl.runfolder import RunFolder


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


def run_fold(job: FoldJob) -> None:
    """Train a fold under its folder's lock. A failure ends as FAILED with its reason in the folder.

    Of several ranks the first one holds the lock, and each lets its failure end its process, so that whoever started
    them ends the others, too.
    """
    folder = RunFolder(make_private(Path(job.folder)))
    first, alone = (os.environ.get(name, default) == default for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    with locked(folder.path, wait_s=job.left_over_s) if first else nullcontext():
        if folder.outcome() == "DONE":
            return
        try:
            config = from_dict(Config, job.config)
            _one_thread(config.train.device)
            from mtl import data, train

            slices = data.load(Path(job.store), config.data_digest)
            train.train(config, slices, job.number, folder, save_masks=job.save_masks)
        except Exception as error:
            if alone or folder.outcome() is None:  # the first of several to fail is the cause
                folder.finish("FAILED", f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
            if not alone:
                raise


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
