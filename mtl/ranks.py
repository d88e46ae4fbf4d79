"""The processes that train one fold together: this one alone, or the ranks that torchrun or Slurm has started.

RANK, WORLD_SIZE and LOCAL_RANK say which one this is, MASTER_ADDR and MASTER_PORT where they meet.
"""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others: rank 0 alone scores and writes."""
GONE = re.compile(r"gloo/transport/[\w/]+/(pair|buffer|unbound_buffer)\.cc|Connection (closed|reset) by peer")
"""What stands in the plain RuntimeErrors that gloo raises where a peer does not answer."""


class LostRank(RuntimeError):
    """Another rank is gone, so that this one cannot go on. Why, only the other one could say."""

    failure = "lost"  # cluster/failures.py


@dataclass(frozen=True)
class Ranks:
    """Rank `rank` of `size`; all of them are given the same batches and take their parts."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """among the ranks of this machine"""

    @property
    def first(self) -> bool:
        """Whether this is the one that scores and writes."""
        return self.rank == 0

    def device(self, kind: torch.device) -> torch.device:
        """This rank's own, of the kind that was resolved."""
        return torch.device(kind.type, self.local) if kind.type == "cuda" and self.size > 1 else kind

    def part(self, batch: np.ndarray) -> tuple[np.ndarray, float]:
        """This rank's part of a batch, and the factor on its mean loss by which the mean over ranks is the batch's.

        A rank for which nothing is left takes the batch's first sample with the factor 0: it must take its place in
        the exchange of gradients.
        """
        mine = batch[self.rank :: self.size]
        return (mine, len(mine) * self.size / len(batch)) if len(mine) else (batch[:1], 0.0)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Over all ranks, without gradients."""
        values = values.detach().clone()
        if self.size > 1:
            dist.all_reduce(values)
        return values / self.size

    def told(self, thing: Any) -> Any:
        """What rank 0 has, on every rank; the others wait for it."""
        if self.size > 1:
            box = [thing]
            dist.broadcast_object_list(box, src=0)
            return box[0]
        return thing

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module whose gradients are the means over all ranks. BatchNorm is synchronised on GPUs; PyTorch cannot
        do that on CPUs, where each rank normalises by its own part and model.norm=group is independent of it."""
        if self.size == 1:
            return module
        if device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return nn.parallel.DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)

    def apart(self, module: nn.Module, wanted: bool) -> AbstractContextManager[None]:
        """Forward and backward pass in here, where wanted, add to this rank's own gradients; the next pass outside
        takes the mean over ranks of the sum."""
        if wanted and isinstance(module, nn.parallel.DistributedDataParallel):
            return module.no_sync()
        return nullcontext()


@contextmanager
def ranks(kind: torch.device) -> Iterator[Ranks]:
    """This process's place among the ranks; their process group lasts as long (nccl on GPUs, gloo else).

    ValueError where the environment names a place that cannot be, LostRank where another rank is gone.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    missing = [name for name in (*names, "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE is {size} and {', '.join(missing)} not set; start the ranks with torchrun")
    rank, size, local = (int(os.environ[name]) for name in names)
    if kind.type == "cuda":
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("nccl" if kind.type == "cuda" else "gloo", timeout=PATIENCE)
        yield Ranks(rank, size, local)
        dist.barrier()
    except Exception as error:
        if _gone(error):
            raise LostRank("another rank is gone; its own log says why") from error
        raise  # the group stays until the process ends: who loses its peers first must not hide why this one failed
    dist.destroy_process_group()


def _gone(error: Exception) -> bool:
    """Whether torch.distributed says so: by a type of its own or, gloo's transport, in words alone."""
    plain = type(error) is RuntimeError and GONE.search(str(error)) is not None
    return plain or isinstance(error, dist.DistError)
