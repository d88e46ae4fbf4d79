"""torch's RMSprop, without torch's compiler where nothing is compiled.

Every optimiser of torch's imports `torch._dynamo` at its first use, only to tell it to stay away: two seconds of a
fold's start. Here its methods are called as they stand below that; the numbers are the same. Holds for the pinned
torch; where another one has built them otherwise, its own way is taken.
"""

from typing import Any

import torch
from torch.optim import Optimizer


class RMSprop(torch.optim.RMSprop):
    """torch.optim.RMSprop, same arithmetic, without closures."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step. Its own `step` is wrapped in an import of the compiler."""
        assert closure is None
        bare = getattr(torch.optim.RMSprop.step, "__wrapped__", torch.optim.RMSprop.step)
        with torch.no_grad():
            bare(self)


def _spare_the_compiler() -> None:
    """Mark the methods as torch would, had it asked its compiler (torch/_compile.py)."""
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        if bare := getattr(getattr(Optimizer, name), "__wrapped__", None):
            bare.__dict__.setdefault("__dynamo_disable", bare)


_spare_the_compiler()
