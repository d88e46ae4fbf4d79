"""last.pt and best.pt: what a fold goes on from, whole or not there, and never another fold's."""

import io
from pathlib import Path
from typing import Any

import torch

from data_prep.files import atomic
from mtl.config import Config


def identity(config: Config, number: int) -> dict[str, Any]:
    """Whose checkpoint it is."""
    return {"config": config.digest, "data_digest": config.data_digest, "fold": number}


def save(path: Path, state: dict[str, Any], config: Config, number: int) -> None:
    """Write it; an earlier one stays until the new one is whole on the disk. OSError where the disk is full."""
    made = io.BytesIO()  # torch's own writer says RuntimeError of a full disk, and not why
    torch.save({**state, **identity(config, number)}, made)
    with atomic(path) as temporary:
        temporary.write_bytes(made.getbuffer())


def load(path: Path, config: Config, number: int) -> dict[str, Any]:
    """A checkpoint of this fold; ValueError when it is damaged or another's."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = {key: state.get(key) for key in identity(config, number)}
    except Exception as error:  # zipfile, pickle, torch and the system each raise their own
        raise ValueError(f"checkpoint {path}: damaged ({error}); remove the fold's folder to train it again") from error
    if found != identity(config, number):
        raise ValueError(f"checkpoint {path}: of another configuration, data or fold; remove the fold's folder")
    return state
