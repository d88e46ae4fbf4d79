"""New cases: masks where the images came from, areas, and which slices to check.

    python -m mtl.predict RUN INPUT OUT [--device auto] [--keep-names]

RUN is a configuration's run folder, whose folds predict together (their mean), or one fold's; or a zip that
cluster.pack --model has made: out.zip, or out.zip/CONFIGURATION where it has the networks of several. INPUT is a NIfTI,
or a folder of NIfTIs or of DICOM files; masks are not needed. Each case becomes a folder of OUT:

    mask.nii.gz    1: myocardium (of a store like ACDC's 2: left, 3: right ventricle), on the images' own voxels; 4-D
                   where there are several phases
    areas.csv      phase, level (from the base), area_reg_mm2, area_seg_mm2, reliable (1 or 0), and why not; a row a
                   structure where there are several
    overlay.png    every level at the phases of the largest and the smallest cavity

Cases are called P001, P002, ... (OUT.keys.csv beside OUT leads back), but for known archives' own codes; with
--keep-names like their files. A case that cannot be used is set aside with its reason and the others go on; killed and
started again, what is done stays.
Exit status: 0 done, 2 bad input, 3 some cases were set aside, 130 interrupted.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_prep import export, files, newcases
from data_prep.ending import command
from mtl import deploy, metrics, packed, reliability
from mtl.config import DEVICES
from mtl.evaluate import BATCH, columns
from mtl.runfolder import RunFolder
from mtl.slices import pixels_of
from mtl.structures import COLUMN
from mtl.trainer import resolve_device

COLUMNS = ("phase", "level", "area_reg_mm2", "area_seg_mm2", "reliable", "why")
"""of areas.csv; after them the structure, where there are several"""
MODEL = "model.json"
"""in OUT: what predicted all that is in it"""


@dataclass(frozen=True)
class Ensemble:
    """The networks of some folds of one configuration."""

    modules: Sequence[deploy.Deployed]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    """of the images that they take"""
    limits: Sequence[reliability.Limits]
    """of each structure"""
    regresses: bool
    digest: str
    """of their weights"""

    def why_not(self, found: "Prediction") -> list[list[str]]:
        """Of each structure and slice, why its areas are to be checked; empty where they are reliable."""
        regressed = found.regressed_mm2_KSA
        return [
            limits.why_not(None if regressed is None else regressed[..., a], found.segmented_mm2_KSA[..., a])
            for a, limits in enumerate(self.limits)
        ]

    @property
    def structures(self) -> tuple[str, ...]:
        return self.modules[0].structures

    @torch.inference_mode()
    def predict(self, image_TZYX: np.ndarray, device: torch.device) -> "Prediction":
        """image_TZYX: grey levels on the ensemble's grid, base to apex."""
        slice_NYX = image_TZYX.reshape(-1, 1, *image_TZYX.shape[2:])
        probability, regressed, segmented = [], [], []
        for module in self.modules:
            at_once = BATCH if module.normalisation == "slice" else image_TZYX.shape[1]
            answers = [
                module(torch.from_numpy(slice_NYX[begin : begin + at_once].astype(np.float32)).to(device))
                for begin in range(0, len(slice_NYX), at_once)
            ]
            one_NAYX = torch.cat([answer.probability_BAYX for answer in answers]).cpu().numpy()
            one_ATZYX = np.moveaxis(one_NAYX, 1, 0).reshape(-1, *image_TZYX.shape)
            probability.append(one_ATZYX)
            regressed.append(torch.cat([answer.area_mm2_BA for answer in answers]).cpu().numpy())
            mask_TZYX = self._largest(one_ATZYX)
            pixels_SA = pixels_of(mask_TZYX.reshape(-1, *mask_TZYX.shape[2:]), len(self.structures))
            segmented.append(pixels_SA * module.pixel_mm2)
        mean_ATZYX = np.mean(probability, axis=0)
        mask_TZYX = self._largest(mean_ATZYX)
        return Prediction(
            _without(mean_ATZYX, (export.labels(mean_ATZYX) > 0) & (mask_TZYX == 0)),
            mask_TZYX,
            np.array(regressed) if self.regresses else None,
            np.array(segmented),
        )

    def _largest(self, probability_ATZYX: np.ndarray) -> np.ndarray:
        """(T, Z, Y, X) labels; the largest component of each structure in each phase."""
        count = len(self.structures)
        return np.stack([metrics.largest_components(volume, count) for volume in export.labels(probability_ATZYX)])


@dataclass(frozen=True)
class Prediction:
    """Of a study. Legend: K fold, A structure, S slice, that is phase, then level."""

    probability_ATZYX: np.ndarray
    """mean over folds; beside the largest components no structure is likelier than none"""
    mask_TZYX: np.ndarray
    """uint8 labels 1, 2, ..., A; of each structure the largest component of each phase"""
    regressed_mm2_KSA: np.ndarray | None
    """None without a regression path"""
    segmented_mm2_KSA: np.ndarray


def _without(probability_ATZYX: np.ndarray, where_TZYX: np.ndarray) -> np.ndarray:
    """Probabilities of the same pixels, there cut down until none of the structures is the likeliest answer: by more
    than sums round, and not to 0, since they are interpolated on their way to the images' own pixels."""
    none_TZYX = 1 - probability_ATZYX.sum(axis=0)
    most_TZYX = (probability_ATZYX.max(axis=0) + none_TZYX) / 2 - 1e-6
    return np.asarray(np.where(where_TZYX, np.minimum(probability_ATZYX, most_TZYX), probability_ATZYX))


def load(run: Path, device: torch.device) -> Ensemble:
    """The fold, or the folds of the configuration. ValueError where there are none, or one is not done."""
    folders = [run] if run.name.startswith("fold_") else sorted(run.glob("fold_*"), key=lambda path: int(path.name[5:]))
    if not folders or not (folders[0] / "config.yaml").is_file():
        raise ValueError(
            f"{run}: no trained fold; wanted a configuration's run folder, such as runs/SWEEP/branch-up4-..."
        )
    folds = [RunFolder(folder) for folder in folders]
    modules = [deploy.deployed(fold).to(device) for fold in folds]
    config, _, facts = deploy.told(folds[0])
    row_mm, column_mm = map(float, facts["pixel_spacing_mm"])
    rows, columns = map(int, facts["size"])
    told = hashlib.sha256(b"".join(hashlib.sha256(fold.best.read_bytes()).digest() for fold in folds)).hexdigest()[:16]
    structures = modules[0].structures
    if other := next(
        (fold.path for fold, one in zip(folds, modules, strict=True) if one.structures != structures), None
    ):
        raise ValueError(
            f"{other}: trained on other structures than {folds[0].path.name}; train the folds on one store"
        )
    tables = [fold.path / "slices.csv" for fold in folds]
    limits = [reliability.limits(tables, structure) for structure in structures]
    return Ensemble(modules, (row_mm, column_mm), (rows, columns), limits, config.model.branch != "none", told)


def case_into(case: newcases.Case, key: str, ensemble: Ensemble, device: torch.device, folder: Path) -> str:
    """Write a case's files into `folder`; a line about them. StudyError where it cannot be used."""
    new = newcases.read(case, ensemble.spacing_mm, ensemble.size)
    found = ensemble.predict(new.image_TZYX, device)
    count, levels = new.image_TZYX.shape[:2]
    export.write_mask(new, found.probability_ATZYX, folder / "mask.nii.gz")
    structures, why_AS = ensemble.structures, ensemble.why_not(found)
    rows = _rows(new.study.phases, levels, found, why_AS, structures)
    files.write_csv(folder / "areas.csv", rows, columns(COLUMNS, structures), private=True)
    check_TZ = np.array([any(reasons) for reasons in zip(*why_AS, strict=True)]).reshape(count, levels)
    export.write_sheet(new, key, found.mask_TZYX, structures, check_TZ, folder / "overlay.png")
    return f"{count} phases, {levels} levels, {check_TZ.sum()} of {check_TZ.size} slices to check"


def _rows(
    source_phases: Sequence[int],
    levels: int,
    found: Prediction,
    why_AS: Sequence[Sequence[str]],
    structures: Sequence[str],
) -> list[dict[str, object]]:
    segmented_SA = found.segmented_mm2_KSA.mean(axis=0)
    regressed_SA = None if found.regressed_mm2_KSA is None else found.regressed_mm2_KSA.mean(axis=0)
    return [
        {
            "phase": source_phases[s // levels],
            "level": s % levels,
            "area_reg_mm2": None if regressed_SA is None else round(float(regressed_SA[s, a]), 1),
            "area_seg_mm2": round(float(segmented_SA[s, a]), 1),
            "reliable": int(not why_AS[a][s]),
            "why": why_AS[a][s],
            COLUMN: structure,
        }
        for s in range(len(segmented_SA))
        for a, structure in enumerate(structures)
    ]


def predict(run: Path, source: Path, out: Path, device: str, *, keep_names: bool) -> int:
    """All cases; how many were set aside. ValueError or OSError before anything is written."""
    where = resolve_device(device)
    ensemble = load(run, where)
    found = newcases.find(source, out, keep_names=keep_names)
    _claim(out, ensemble)
    newcases.write_names(out, found)
    set_aside = 0
    for key, case in found.items():
        if (out / key).exists():
            print(f"{key}: is there already", flush=True)
            continue
        try:
            with files.new_folder(out / key) as folder:
                told = case_into(case, key, ensemble, where, folder)
            print(f"{key}: {told}", flush=True)
        except newcases.StudyError as error:
            set_aside += 1
            of_file = f"{error.file}: " if error.file else ""
            print(f"{key}: set aside: {of_file}{error.reason}", file=sys.stderr, flush=True)
    print(f"{out}: {len(found) - set_aside} of {len(found)} cases")
    return set_aside


def _claim(out: Path, ensemble: Ensemble) -> None:
    """Make OUT, or go on in it. ValueError where it holds anything else, or another model's."""
    told = {"model": ensemble.digest, "folds": len(ensemble.modules)}
    path = out / MODEL
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; wanted a folder")
    if out.is_dir() and any(out.iterdir()):
        try:
            there = json.loads(path.read_text())
        except (OSError, ValueError):
            raise ValueError(f"{out}: holds something else; name another folder") from None
        if there != told:
            raise ValueError(f"{out}: holds what another model has predicted; name another folder")
        return
    files.make_private(out)
    files.write_text(path, json.dumps(told) + "\n", private=True)


@command("predict", "the same command goes on")
def main(argv: list[str] | None = None) -> int:
    os.umask(0o077)
    told = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m mtl.predict",
        description=told[0],
        epilog="\n\n".join(told[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a configuration's run folder, one fold's, or a zip; only read"
    )
    parser.add_argument("input", type=Path, metavar="INPUT", help="a NIfTI, or a folder of NIfTIs or DICOM; only read")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder, which is made")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto (default): CUDA, else the CPU")
    parser.add_argument("--keep-names", action="store_true", help="cases are called like their files")
    args = parser.parse_args(argv)
    with packed.with_networks(args.run) as run:
        set_aside = predict(run, args.input, args.out, args.device, keep_names=args.keep_names)
    return 3 if set_aside else 0


if __name__ == "__main__":
    sys.exit(main())
