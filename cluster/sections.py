"""The launcher's own sections of settings, beside the experiment's, which are mtl/config.py's."""

from dataclasses import dataclass, field
from typing import Any

from data_prep.store import check_size
from data_prep.study import CLASSES
from mtl.config import between, choice
from sweeps.search import METRICS
from sweeps.space import WAYS

ARCHIVES = ("lvsc", "acdc")
"""that data_prep/phantom.py imitates"""


@dataclass(frozen=True)
class Data:
    store: str | None = None
    """the zarr store to train on; without one, made-up patients are used (and made)"""


@dataclass(frozen=True)
class Demo:
    archive: str = "lvsc"
    """whose layout they have: lvsc (the myocardium is drawn) or acdc (both ventricles, too, at ED and ES)"""
    patients: int = 10
    """made-up patients"""
    slices: int = 4
    """of a volume, base to apex"""
    phases: int = 4
    """of a heart beat"""
    seed: int = 0
    """of the made-up patients"""
    spacing_mm: float = 3.125
    """pixel size of their store, mm"""
    size: int = 96
    """rows and columns of their store"""
    folder: str = "data"
    """where they are kept"""

    def __post_init__(self) -> None:
        choice("demo.archive", self.archive, ARCHIVES)
        between("demo.patients", self.patients, 1, 10_000)
        between("demo.slices", self.slices, 1, 100)
        between("demo.phases", self.phases, 1, 100)
        between("demo.seed", self.seed, 0, 2**31 - 1)
        between("demo.spacing_mm", self.spacing_mm, 0.5, 10, "mm")
        check_size("demo.size", self.size)


@dataclass(frozen=True)
class Tracking:
    uri: str | None = None
    """MLflow's store or server; default: sqlite beside the runs, on a local disk"""
    models: bool = True
    """at the end log the winner's networks there as models, one a fold"""


@dataclass(frozen=True)
class Ray:
    address: str | None = None
    """site=ray: of the Ray cluster to run on, host:port; its token is in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"""


@dataclass(frozen=True)
class Predict:
    save_masks: bool = False
    """keep the test fold's predicted masks in each fold's folder (masks.zarr), when it ends"""


@dataclass(frozen=True)
class Sweep:
    question: str = ""
    """what the sweep asks"""
    space: dict[str, Any] = field(default_factory=dict)
    """searched fields and their values (sweeps/README.md)"""
    by: str = "grid"
    """how the space is searched: grid, random or optuna (TPE)"""
    samples: int = 20
    """configurations that random and optuna try"""
    seed: int = 0
    """of random's and optuna's draws"""
    metric: str = "dice_val"
    """what configurations are compared by: dice_val or area_mad_mm2"""
    structures: int = 0
    """that the store must hold (3, as ACDC's: made-up patients then have them); 0: any"""
    confidence: float = 0.99
    """of the race, with which its true best is kept"""
    asha: bool = False
    """stop configurations early, whole, whose mean over folds is not among the best at an epoch"""
    asha_first: int = 0
    """the epoch of its first decision; 0: a fifth of train.epochs"""
    asha_factor: int = 3
    """one in so many goes on at each decision"""

    def __post_init__(self) -> None:
        choice("sweep.by", self.by, WAYS)
        choice("sweep.metric", self.metric, list(METRICS))
        between("sweep.structures", self.structures, 0, len(CLASSES) - 1)
        between("sweep.samples", self.samples, 1, 1_000_000)
        between("sweep.seed", self.seed, 0, 2**31 - 1)
        between("sweep.confidence", self.confidence, 0.5, 0.9999)
        between("sweep.asha_first", self.asha_first, 0)
        between("sweep.asha_factor", self.asha_factor, 2, 100)
