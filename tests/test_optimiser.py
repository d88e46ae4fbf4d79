"""torch's RMSprop without its compiler: the same numbers, and two seconds less."""

import subprocess
import sys

import torch

from mtl.optimiser import RMSprop

STEP = """
import sys, torch
from mtl.optimiser import RMSprop
weight = torch.nn.Parameter(torch.ones(2))
made = RMSprop([weight])
weight.grad = torch.ones(2)
made.step()
made.zero_grad()
made.load_state_dict(made.state_dict())
print([name for name in sys.modules if name.startswith("torch._dynamo")])
"""


def test_the_compiler_is_not_imported() -> None:
    told = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, timeout=100, check=True)
    assert told.stdout.strip() == "[]"


def test_steps_and_state_are_torchs_own_to_the_bit() -> None:
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2)]
    ours, theirs = RMSprop([weights[0]], lr=0.01), torch.optim.RMSprop([weights[1]], lr=0.01)
    for _ in range(5):
        for weight, optimiser in zip(weights, (ours, theirs), strict=True):
            optimiser.zero_grad()
            (weight**3).sum().backward()
            optimiser.step()
    assert torch.equal(*weights)
    (mine,), (torchs,) = (list(o.state_dict()["state"].values()) for o in (ours, theirs))
    assert all(torch.equal(mine[key], value) for key, value in torchs.items())
