"""What a sweep asks and which configurations it has proposed: `sweep.json` in the sweep's folder.

Written by the launcher; the verdict and the mirror in MLflow read it beside the run folders, and so a search that is
started again goes on where it was.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.files import write_text

NAME = "sweep.json"


@dataclass(frozen=True)
class Proposed:
    """A configuration."""

    name: str
    """of its folder"""
    point: dict[str, Any]
    """the searched fields' values by dotted name"""
    label: str
    """what it is called in tables"""


@dataclass(frozen=True)
class Asked:
    """A sweep, as far as it has come."""

    sweep: str
    question: str = ""
    space: dict[str, Any] = field(default_factory=dict)
    """as in the sweep's file"""
    by: str = "grid"
    """grid, random or optuna"""
    metric: str = "dice_val"
    """what configurations are compared by"""
    selection: str = "validation"
    """what the best epochs are chosen on: validation, or test as in the paper"""
    folds: int = 5
    setting: str = ""
    """for what an answer holds: the beginning of its sentence, such as `On made-up patients, trained briefly:`"""
    site: str = "local"
    configurations: tuple[Proposed, ...] = ()
    """in the order in which they were proposed"""
    complete: bool = True
    """whether all that will be proposed has been"""

    def write(self, sweep_folder: Path) -> None:
        write_text(sweep_folder / NAME, json.dumps(asdict(self), indent=1) + "\n", private=True)


def read(sweep_folder: Path) -> Asked:
    """Of a sweep's folder. Without the file (of an older version) its configurations are the folders that are there.
    ValueError where it is damaged or of another version."""
    path = sweep_folder / NAME
    if not path.exists():
        folders = sorted(folder.name for folder in sweep_folder.glob("*") if (folder / "fold_0").is_dir())
        found = tuple(Proposed(name, {}, name.rpartition("-")[0] or name) for name in folders)
        counts = [len(list((sweep_folder / name).glob("fold_*"))) for name in folders]
        return Asked(sweep_folder.name, folds=max(counts, default=0), configurations=found)
    try:
        told = json.loads(path.read_text())
        told["configurations"] = tuple(Proposed(**one) for one in told["configurations"])
        return Asked(**told)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: damaged, or of another version ({error}); start the sweep again") from None


def label(point: Mapping[str, Any]) -> str:
    """What a point of the sweep is called: its branch as such, other fields with their name."""
    named = {
        key: value if key == "model.branch" else f"{key.rpartition('.')[2]} {short(value)}"
        for key, value in point.items()
    }
    return ", ".join(str(text) for text in named.values())


def short(value: Any) -> str:
    """As it stands in names."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
