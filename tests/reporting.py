"""Run folders as a training leaves them, with drawn numbers: what the report and the verdict read, in any size,
without training."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.files import write_csv
from mtl import cases
from mtl.config import Config, Model, flat, fold_dict, from_dict
from mtl.evaluate import SLICE_COLUMNS, VOLUME_COLUMNS, regions
from mtl.runfolder import RunFolder
from mtl.slices import fold_of_subjects
from sweeps.asked import Asked, Proposed, label

BASE = Config(data_digest="0" * 64)
PAPERS = (BASE, replace(BASE, model=Model(branch="none")))
"""The paper's two networks."""
FACTS = {
    "source": "phantom",
    "size": [192, 192],
    "pixel_spacing_mm": [1.5625, 1.5625],
    "device": "cpu",
    "precision": "float32",
    "ranks": 1,
    "torch": "2.13.0+cpu",
    "python": "3.11.7",
    "branchpoint": "0.1.0",
    "code": "0123456789ab",
}


def write_runs(
    home: Path,
    patients: int = 10,
    phases: int = 3,
    levels: int = 7,
    configs: tuple[Config, ...] = PAPERS,
    source: str = "phantom",
) -> Path:
    """A sweep folder with a folder per configuration, all folds done. Dice about 0.85, areas off by about 200 mm2."""
    for number, config in enumerate(configs):
        folder = home / f"branch-{config.model.branch}-{config.digest}"
        of_subject = fold_of_subjects(
            [f"P{p:03}" for p in range(patients)], [""] * patients, config.train.folds, config.protocol.fold_seed
        )
        for k in range(config.train.folds):
            run = RunFolder(folder / f"fold_{k}")
            run.prepare(fold_dict(asdict(config), k))
            mine = sorted(subject for subject, fold in of_subject.items() if fold == k)
            _write_fold(run, config, mine, phases, levels, np.random.default_rng([number, k]))
            facts = FACTS | {"source": source, "patients": patients, "volumes": patients * phases}
            run.finish("DONE", "all epochs trained", best_epoch=2, slices=patients * phases * levels, **facts)
    return home


def write_sweep(
    folder: Path,
    points: Sequence[dict[str, Any]],
    dices: Sequence[float],
    *,
    patients: int = 20,
    spread: float = 0.01,
    optimism: float = 0.0,
    area_factors: Sequence[float] | None = None,
    **asked: Any,
) -> Asked:
    """A sweep's folder with sweep.json and one configuration per point, all folds done: only what a verdict reads.

    dices: each configuration's true mean. Patients differ by 0.03 in the same way for all; spread: of what is a
    patient's and a configuration's own. optimism: by how much selection looks better than test. Areas are off by
    2,000 mm2 x (1 - Dice), times area_factors.
    """
    told = Asked(folder.name, configurations=tuple(_proposed(point) for point in points), **asked)
    patient_P = [f"P{p:03}" for p in range(patients)]
    of_subject = fold_of_subjects(patient_P, [""] * patients, told.folds, 0)
    ease = dict(zip(patient_P, np.random.default_rng(0).normal(0, 0.03, patients).tolist(), strict=True))
    for number, (proposed, mean) in enumerate(zip(told.configurations, dices, strict=True)):
        rng = np.random.default_rng([1, number])
        own = {p: mean + ease[p] + rng.normal(0, spread) for p in patient_P}
        for k in range(told.folds):
            by_set = {"validation": (k + 1) % told.folds, "test": k}
            sets = {name: [p for p in patient_P if of_subject[p] == fold] for name, fold in by_set.items()}
            rows = [
                (p, phase, name, own[p] + optimism * (name == "validation") + rng.normal(0, 0.005))
                for name, mine in sets.items()
                if name == "test" or told.selection == "validation"
                for p in mine
                for phase in range(2)
            ]
            set_how = proposed.point | {"protocol.selection": told.selection}
            factor = area_factors[number] if area_factors else 1.0
            write_measured(folder / proposed.name / f"fold_{k}", rows, set_how, k, factor)
    told.write(folder)
    return told


def _proposed(point: dict[str, Any]) -> Proposed:
    name = "_".join(f"{key.rpartition('.')[2]}-{value}" for key, value in point.items())
    return Proposed(f"{name}-0", point, label(point))


def write_measured(
    folder: Path,
    rows: Iterable[tuple[str, int, str, float]],
    settings: dict[str, Any],
    k: int,
    area_factor: float = 1.0,
    **facts: Any,
) -> None:
    """A finished fold with these volumes, (patient, phase, set, Dice) each, and two slices of each. settings: by dotted
    name, where they are not the default."""
    run = RunFolder(folder)
    run.prepare(fold_dict(asdict(from_dict(Config, _nested(flat(asdict(BASE)) | settings))), k))
    volumes, slices = [], []
    for patient, phase, set_name, dice in rows:
        row = {"patient": patient, "phase": phase, "set": set_name}
        volumes.append({**dict.fromkeys(VOLUME_COLUMNS), **row, "dice": dice})
        for level in range(2):
            off_mm2 = 2000 * (1 - dice) * area_factor
            areas = {"area_true_mm2": 1000.0, "area_seg_mm2": 1000 + off_mm2}
            regressed = None if settings.get("model.branch") == "none" else 1000 - off_mm2
            slices.append({**dict.fromkeys(SLICE_COLUMNS), **row, "level": level, **areas, "area_reg_mm2": regressed})
    write_csv(run.path / "volumes.csv", volumes, VOLUME_COLUMNS)
    write_csv(run.path / "slices.csv", slices, SLICE_COLUMNS)
    run.write_epochs([{"epoch": 1, "dice_val": 0.8, "area_mad_mm2": 200.0}])
    run.best.touch()
    run.finish("DONE", "all epochs trained", best_epoch=1, **FACTS | facts)


def _nested(flat_values: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in flat_values.items():
        section, _, key = name.rpartition(".")
        (made.setdefault(section, {}) if section else made)[key] = value
    return made


def _write_fold(
    run: RunFolder, config: Config, patients: list[str], phases: int, levels: int, rng: np.random.Generator
) -> None:
    volumes, slices, kept = [], [], []
    regresses = config.model.branch != "none"
    names = regions(np.ones(levels, bool))
    for patient in patients:
        for phase in range(phases):
            dice = float(np.clip(rng.normal(0.85 - 0.02 * (phase == 0), 0.03), 0, 1))
            row = {"patient": patient, "phase": phase, "set": "test"}
            distances = {name: float(rng.gamma(4, mm)) for name, mm in _TYPICAL_MM.items()}
            ends = {"is_ed": int(phase == 0), "is_es": int(phase == phases // 2)}
            volumes.append(
                {**row, **ends, "dice": dice, "jaccard": dice / (2 - dice), **distances, "slice_spacing_mm": 8.0}
            )
            for level in range(levels):
                true_mm2 = float(rng.uniform(600, 2400))
                slices.append(
                    {
                        **row,
                        "level": level,
                        "region": names[level],
                        "area_true_mm2": true_mm2,
                        "area_reg_mm2": true_mm2 + float(rng.normal(0, 250)) if regresses else None,
                        "area_seg_mm2": true_mm2 + float(rng.normal(0, 200)),
                    }
                )
    dices = [row["dice"] for row in volumes]
    for n in cases.chosen(dices):
        volume = volumes[n]
        kept.append(_case(volume["patient"], volume["phase"], dices[n], rng))
    write_csv(run.path / "volumes.csv", volumes, VOLUME_COLUMNS)
    write_csv(run.path / "slices.csv", slices, SLICE_COLUMNS)
    cases.write(run.path / cases.NAME, kept)
    run.write_epochs([_epoch(epoch, config, rng) for epoch in range(1, config.train.epochs + 1)])


_TYPICAL_MM = {"msd_mm": 0.15, "msd_slice_mm": 0.3, "ahd_mm": 0.07, "hd_mm": 3.3}


def _case(patient: str, phase: int, dice: float, rng: np.random.Generator, size: int = 192) -> cases.Case:
    steps = np.arange(size) - size / 2
    radius_YX = np.hypot(steps[:, None], steps)
    truth_ZYX = np.stack([(radius_YX > r - 6) & (radius_YX < r) for r in (28, 24, 20)])
    prediction_ZYX = np.roll(truth_ZYX, round(20 * (1 - dice)), axis=2)
    image_ZYX = (300 * (radius_YX < 22) + rng.normal(200, 40, (3, size, size))).astype(np.int16)
    return cases.case_of(patient, phase, dice, image_ZYX, truth_ZYX, prediction_ZYX)


def _epoch(epoch: int, config: Config, rng: np.random.Generator) -> dict[str, object]:
    learned = config.model.branch != "none"
    s_seg, s_reg = -3.9 * (1 - np.exp(-epoch / 8)), 5.5 - 2 * (1 - np.exp(-epoch / 8))
    return {
        "epoch": epoch,
        "time_utc": "2026-11-24T12:00:00.000+00:00",
        "loss_train": float(3 * np.exp(-epoch / 10) + rng.normal(0, 0.05)),
        "loss_seg_train": float(0.3 * np.exp(-epoch / 10) + 0.01),
        "loss_area_train": float(900 * np.exp(-epoch / 10) + 100) if learned else None,
        "dice_val": float(0.85 * (1 - np.exp(-epoch / 5)) + rng.normal(0, 0.01)),
        "area_mad_mm2": float(900 * np.exp(-epoch / 8) + 200 + rng.normal(0, 20)),
        "log_sigma2_seg": float(s_seg) if learned else None,
        "log_sigma_reg": float(s_reg) if learned else None,
        "weight_seg": float(np.exp(-s_seg)) if learned else 1.0,
        "weight_reg": float(np.exp(-s_reg)) if learned else None,
        "lr": 0.001 * 0.95 ** (epoch - 1),
        "seconds": 60.0,
        "slices_per_s": 1000.0,
    }
