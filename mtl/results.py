"""Trained configurations as the report reads them: run folders only, no store, no tracker, no torch.

Legend: V test volume, S test slice, K fold.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mtl import cases
from mtl.config import BRANCHES, Config, flat, from_dict
from mtl.metrics import DISTANCES, VOLUME_METRICS
from mtl.runfolder import RunFolder, read_settings
from mtl.structures import COLUMN, structures_of

PHASE_SETS = ("ED", "ES", "all")
"""end-diastole, end-systole, all phases"""
REGIONS = ("all", "apical", "mid", "basal")
DEEPEST = 4
"""levels of folders that are searched below what is named: runs/sweep/configuration/fold"""
DENSITY_G_ML = 1.05
"""of myocardium"""
MYOCARDIUM = "myocardium"
"""the first of a store's structures, and often the only one"""


@dataclass(frozen=True)
class Volumes:
    """A configuration's test volumes, of all folds."""

    patient_V: np.ndarray
    phase_V: np.ndarray
    is_ed_V: np.ndarray
    is_es_V: np.ndarray
    slice_spacing_mm_V: np.ndarray
    metric_V: dict[str, np.ndarray]
    """by name; NaN where a distance is not defined"""

    def among(self, phase_set: str) -> np.ndarray:
        """Which of them belong to ED, ES or all."""
        return {"ED": self.is_ed_V, "ES": self.is_es_V, "all": np.ones(len(self.patient_V), bool)}[phase_set]

    @property
    def keys(self) -> list[tuple[str, int]]:
        return list(zip(self.patient_V.tolist(), self.phase_V.tolist(), strict=True))

    @property
    def missed(self) -> int:
        """Volumes of which nothing was predicted."""
        nowhere = [np.isnan(self.metric_V[name]) for name in DISTANCES]
        return int(((self.metric_V["dice"] == 0) & np.logical_and.reduce(nowhere)).sum())


@dataclass(frozen=True)
class Areas:
    """A configuration's test slices, of all folds: a structure's area from each source, mm2."""

    patient_S: np.ndarray
    phase_S: np.ndarray
    level_S: np.ndarray
    region_S: np.ndarray
    is_ed_S: np.ndarray
    is_es_S: np.ndarray
    true_mm2_S: np.ndarray
    reg_mm2_S: np.ndarray
    """from the regression path; NaN for the baseline, which has none"""
    seg_mm2_S: np.ndarray

    def among(self, phase_set: str, region: str = "all") -> np.ndarray:
        """Which of them belong to a set of phases and a region of the heart."""
        phases = {"ED": self.is_ed_S, "ES": self.is_es_S, "all": np.ones(len(self.patient_S), bool)}[phase_set]
        return np.asarray(phases if region == "all" else phases & (self.region_S == region))


@dataclass(frozen=True)
class Trained:
    """One configuration, all its folds done, as far as it concerns one structure."""

    folder: Path
    config: Config
    folds: tuple[RunFolder, ...]
    volumes: Volumes
    areas: Areas
    label: str = ""
    """what tells it from the others of the same report"""
    structure: str = MYOCARDIUM
    """whose volumes and areas these are"""

    @property
    def regresses(self) -> bool:
        return self.config.model.branch != "none"

    @property
    def paper_name(self) -> str | None:
        """The paper's network that this is: MTN, UNet, or None, as of other structures than its own."""
        if self.structure != MYOCARDIUM:
            return None
        if not self.regresses:
            return "UNet"
        is_mtn = self.config.model.branch == "up4" and self.config.weighting.kind == "learned"
        return "MTN" if is_mtn else None

    @property
    def sources(self) -> dict[str, np.ndarray]:
        """Areas per slice, mm2, by where they come from: `Reg` the regression path, `Seg` the segmentation."""
        regressed = {"Reg": self.areas.reg_mm2_S} if self.regresses else {}
        return {**regressed, "Seg": self.areas.seg_mm2_S}

    @cached_property
    def epochs(self) -> tuple[list[dict[str, Any]], ...]:
        """Each fold's records."""
        return tuple(fold.epochs() for fold in self.folds)

    @cached_property
    def facts(self) -> tuple[dict[str, Any], ...]:
        """What each fold was trained on and with."""
        return tuple(fold.facts() for fold in self.folds)

    @property
    def structures(self) -> tuple[str, ...]:
        """All that it was trained on."""
        return structures_of(self.facts[0])

    @cached_property
    def cases(self) -> list[cases.Case]:
        """The kept test volumes of all folds, from the lowest Dice to the highest."""
        kept = [case for fold in self.folds for case in cases.read(fold.path / cases.NAME)]
        return sorted(kept, key=lambda case: case.dice)


def load(runs: Sequence[Path], structure: str = MYOCARDIUM) -> list[Trained]:
    """Every configuration in these folders, labelled by what differs between them, as far as it concerns a structure.

    In the order baseline, bottleneck, up1 to up4. Those that a search has stopped early are left out (stopped()).
    ValueError where a folder holds none, a fold is missing or not done, a file is damaged, or they were trained on
    different stores.
    """
    folders = list(dict.fromkeys(folder for run in runs for folder in configurations(run)))
    made = [_trained(folder, structure) for folder in folders if not stopped(folder)]
    if not made:
        raise ValueError(f"{runs[0]}: every configuration in it was stopped early; the report wants one that is done")
    digests = {one.config.data_digest: one.folder for one in made}
    if len(digests) > 1:
        (one, a), (other, b), *_ = digests.items()
        raise ValueError(
            f"{a} and {b} were trained on different stores (data {one[:8]} and {other[:8]}): one report holds one "
            "store's; name the folders of one of them"
        )
    made.sort(key=lambda one: (one.regresses, BRANCHES.index(one.config.model.branch)))  # the baseline first
    return [replace(one, label=label) for one, label in zip(made, labels(made), strict=True)]


def stopped(folder: Path) -> bool:
    """Whether a search has stopped this configuration before all its folds were trained."""
    return any(RunFolder(path.parent).outcome() == "STOPPED" for path in folder.glob("fold_*/STOPPED"))


def configurations(run: Path) -> list[Path]:
    """The configuration folders at or below `run`, sorted. `run` may be runs/, a sweep's, a configuration's, a
    fold's folder (which stands for its configuration)."""
    if not run.is_dir():
        raise ValueError(f"{run}: no such folder; wanted a run folder, such as runs/paper")
    run = run.resolve()
    if (run / "config.yaml").is_file() and run.name.startswith("fold_"):
        return [run.parent]
    found = sorted(folder for folder in _below(run, DEEPEST) if any(folder.glob("fold_*/config.yaml")))
    if not found:
        raise ValueError(f"{run}: no trained configuration in it (fold_*/config.yaml); name a sweep's run folder")
    return found


def _below(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for child in folder.iterdir():
            if child.is_dir() and not child.is_symlink() and child.name[0] != ".":
                yield from _below(child, depth - 1)


def labels(trained: Sequence[Trained]) -> list[str]:
    """MTN or U-Net, with the branch point and whatever else differs between these configurations."""
    fields = [flat(asdict(one.config)) for one in trained]
    differing = [name for name in fields[0] if len({repr(values[name]) for values in fields}) > 1]
    others = [name for name in differing if name not in ("model.branch", "data_digest")]
    made = []
    for one, values in zip(trained, fields, strict=True):
        name = f"MTN {one.config.model.branch}" if one.regresses else "U-Net"
        made.append(", ".join([name, *(f"{key.rpartition('.')[2]} {values[key]}" for key in others)]))
    return made


def _trained(folder: Path, structure: str) -> Trained:
    config = _config(next(iter(sorted(folder.glob("fold_*/config.yaml")))))
    folds = tuple(RunFolder(folder / f"fold_{k}") for k in range(config.train.folds))
    for fold in folds:
        if fold.outcome() != "DONE":
            why = f"{fold.outcome() or 'not finished'}" if fold.path.is_dir() else "missing"
            raise ValueError(f"{fold.path}: {why}; the report wants all {len(folds)} folds: run the same sweep again")
        if _config(fold.path / "config.yaml") != config:
            raise ValueError(
                f"{fold.path}: another configuration than its siblings'; remove it and run the sweep again"
            )
    return Trained(folder, config, folds, *_measured(folds, structure), structure=structure)


def _config(path: Path) -> Config:
    try:
        values = dict(read_settings(path))
        values.pop("fold")
        return from_dict(Config, values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({str(error).splitlines()[0]}); remove the fold's folder") from None
    except ValueError as error:
        raise ValueError(f"{path}: of another version ({error}); train it again with this one") from None


def _measured(folds: Sequence[RunFolder], structure: str) -> tuple[Volumes, Areas]:
    volume_rows = [row for fold in folds for row in _rows(fold.path / "volumes.csv", "dice", structure)]
    slice_rows = [row for fold in folds for row in _rows(fold.path / "slices.csv", "area_true_mm2", structure)]
    where = folds[0].path.parent
    if not volume_rows or not slice_rows:
        raise ValueError(f"{where}: no test volume with {structure} in volumes.csv; the report has nothing to show")
    volume, areas = _columns(volume_rows, where), _columns(slice_rows, where)
    ends = {name: volume(name, int).astype(bool) for name in ("is_ed", "is_es")}
    keys = list(zip(volume("patient", str), volume("phase", int), strict=True))
    is_end = {name: {key for key, is_it in zip(keys, flags, strict=True) if is_it} for name, flags in ends.items()}
    slice_keys = list(zip(areas("patient", str), areas("phase", int), strict=True))
    return Volumes(
        volume("patient", str),
        volume("phase", int),
        ends["is_ed"],
        ends["is_es"],
        volume("slice_spacing_mm", _number),
        {name: volume(name, _number) for name in VOLUME_METRICS},
    ), Areas(
        areas("patient", str),
        areas("phase", int),
        areas("level", int),
        areas("region", str),
        *(np.array([key in is_end[name] for key in slice_keys]) for name in ("is_ed", "is_es")),
        *(areas(f"area_{name}_mm2", _number) for name in ("true", "reg", "seg")),
    )


def _rows(path: Path, needed: str, structure: str) -> list[dict[str, str]]:
    """The rows of the test set, of one structure; without such a column they are all of the myocardium."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise csv.Error("its end is missing")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); remove the fold's folder and run the sweep again"
        ) from None
    if rows and (needed not in rows[0] or "set" not in rows[0]):
        raise ValueError(f"{path}: column {needed!r} or 'set' is missing; train the fold again with this version")
    return [row for row in rows if row["set"] == "test" and row.get(COLUMN, MYOCARDIUM) == structure]


def _columns(rows: Sequence[dict[str, str]], where: Path) -> Callable[[str, Callable[[str], Any]], np.ndarray]:
    def column(name: str, kind: Callable[[str], Any]) -> np.ndarray:
        try:
            return np.array([kind(row[name]) for row in rows])
        except KeyError:
            raise ValueError(
                f"{where}: no column {name!r} in a fold's table; train it again with this version"
            ) from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: column {name!r} of a fold's table is damaged ({error})") from None

    return column


def _number(text: str) -> float:
    return float(text) if text != "" else math.nan
