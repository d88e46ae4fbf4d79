"""A trained fold's network as it is handed on: the best epoch's weights, nothing else that a checkpoint may hold."""

from pathlib import Path
from typing import Any

from mtl import checkpoint, deploy
from mtl.runfolder import RunFolder


def write_network(run: RunFolder, path: Path) -> dict[str, Any]:
    """best.pt of a finished fold, made anew from its weights; what whoever uses them must know: how slices are
    normalised, their pixel spacing (mm) and size (pixels), the epoch. ValueError where they cannot be handed on."""
    deploy.deployed(run)  # they are this network's own, by name and shape
    config, number, facts = deploy.told(run)
    state = checkpoint.load(run.best, config, number)
    checkpoint.save(path, {"network": state["network"], "epoch": int(state["epoch"])}, config, number)
    return {
        "branch": config.model.branch,
        "normalisation": config.train.normalisation,
        "pixel_spacing_mm": [float(mm) for mm in facts["pixel_spacing_mm"]],
        "size": [int(pixels) for pixels in facts["size"]],
        "best_epoch": int(state["epoch"]),
    }
