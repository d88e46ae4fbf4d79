"""A sweep's artifacts: settings, tables, the verdict, the report, how the weights went.

What is of single patients (volumes.csv, slices.csv, cases.npz, masks) is left in the run folders, which are for their
owner alone: a tracking server is read by others.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from cluster.tracking.mirrored import Sweep
from cluster.tracking.mirrored_folds import Configuration
from data_prep.files import write_text
from mtl.config import Config, from_dict
from mtl.results import Areas, Trained, Volumes

FILES = ("results.csv", "verdict.json", "verdict.md", "verdict/*.png", "report/report.html", "report/tables.md")
"""of a sweep's folder, where they are there"""
DRAWN = 8
"""configurations whose weights are drawn; of more the best"""


def of(sweep: Sweep, scratch: Path) -> Iterator[tuple[str, dict[str, Path]]]:
    """Path of a run, and its artifacts by name. What is made for them is put into `scratch`."""
    folder, begun = sweep.folder, [c for c in sweep.configurations if c.shown]
    found = {str(file.relative_to(folder)): file for name in FILES for file in sorted(folder.glob(name))}
    if begun:
        yield folder.name, found | dict(_trajectories(begun, scratch))
    for configuration in begun:
        if configuration.config:
            path = scratch / configuration.proposed.name / "config.yaml"
            path.parent.mkdir()
            write_text(path, yaml.safe_dump(configuration.config, sort_keys=False))
            yield f"{folder.name}/{configuration.proposed.name}", {path.name: path}


def digest(files: Mapping[str, Path]) -> str:
    """Of names and contents."""
    told = hashlib.sha256()
    for name, path in sorted(files.items()):
        told.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return told.hexdigest()[:16]


NONE = digest({})


def _trajectories(configurations: Sequence[Configuration], scratch: Path) -> Iterator[tuple[str, Path]]:
    """The learned weights by epoch."""
    learned = [c for c in configurations if _learned(c)]
    if not learned:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second, and memory

    from mtl import figure_training, figures

    if len(learned) > DRAWN:
        learned = sorted(learned, key=_score, reverse=True)[:DRAWN]
    figure = figure_training.trajectories([_trained(c) for c in learned])
    path = scratch / "sigmas_by_epoch.png"
    if figure is not None:
        dpi, metadata = figures.FORMATS["png"]
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=dpi, metadata=metadata)
        yield path.name, path


def _learned(c: Configuration) -> bool:
    """Whether it has weights that were learned, and says so in this version's words."""
    try:
        config = from_dict(Config, c.config)
    except ValueError:
        return False
    learned = config.weighting.kind == "learned" and config.model.branch != "none"
    return learned and any(fold.run.epochs() for fold in c.shown)


def _score(c: Configuration) -> float:
    """Mean over folds of the best Dice so far."""
    best = [max(record["dice_val"] for record in records) for fold in c.shown if (records := fold.run.epochs())]
    return float(sum(best) / len(best))


def _trained(c: Configuration) -> Trained:
    """For a figure of the training alone: without results, which an unfinished fold has not."""
    none = np.empty(0)
    volumes, areas = Volumes(none, none, none, none, none, {}), Areas(*[none] * 9)
    runs = tuple(fold.run for fold in c.folds)
    return Trained(runs[0].path.parent, from_dict(Config, c.config), runs, volumes, areas, c.proposed.label)
