"""What cluster/pack.py hands on, laid out in a folder as it will be in the zip: all that leaves, and nothing else."""

import contextlib
import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster import leaves
from data_prep.files import make_private, read, remove, write_text
from mtl import packed, report
from mtl.runfolder import RunFolder
from sweeps import asked, verdict
from sweeps.verdict_parts import Verdict

COLUMNS = ("configuration", "fold", "epoch", "name", "value")
"""of metrics.csv"""


@dataclass
class Staged:
    """What leaves, in a folder of its own, and what is to be said of it."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    stays: Counter[str] = field(default_factory=Counter)
    patients: int = 0


def stage(sweeps: Sequence[Path], folder: Path, *, model: bool) -> Staged:
    """Everything that leaves, below `folder`, and nothing else."""
    staged = Staged(folder)
    if next(_folds(sweeps), None) is None:
        raise ValueError(f"{sweeps[0]}: no fold has begun in it; wanted a sweep that was launched")
    number_of = leaves.renumbered(_folds(sweeps))
    staged.patients = len(number_of)
    models = [_stage_sweep(sweep, staged, number_of, model=model) for sweep in sweeps]
    if model and not any(models):
        raise ValueError(f"{sweeps[0]}: --model: no configuration is done yet, so there is no winner; pack it without")
    _write_metrics(sweeps, folder)
    write_text(folder / packed.IDENTITY, _identity(sweeps[0].parent, folder / packed.METRICS) + "\n")
    return staged


def _write_metrics(sweeps: Sequence[Path], folder: Path) -> None:
    """metrics.csv, from the epochs that leave."""
    with open(folder / packed.METRICS, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run in _folds(sweeps):
            sweep, configuration, fold = run.path.parts[-3:]
            name = configuration if len(sweeps) == 1 else f"{sweep}/{configuration}"
            epochs = RunFolder(folder / sweep / configuration / fold).epochs()
            writer.writerows(leaves.long_rows(name, _number(run), epochs))


def _folds(sweeps: Sequence[Path]) -> Iterator[RunFolder]:
    return (run for sweep in sweeps for configuration in _configurations(sweep) for run in _runs(configuration))


def _configurations(sweep: Path) -> list[Path]:
    """In the order in which they were proposed; those after them that are no longer asked for."""
    there = sorted({path.parent for path in sweep.glob("*/fold_*") if path.is_dir() and path.name[5:].isdigit()})
    order = [one.name for one in asked.read(sweep).configurations]
    return sorted(there, key=lambda path: order.index(path.name) if path.name in order else len(order))


def _runs(configuration: Path) -> list[RunFolder]:
    found = (path for path in configuration.glob("fold_*") if path.is_dir() and path.name[5:].isdigit())
    return sorted(map(RunFolder, found), key=_number)


def _number(run: RunFolder) -> int:
    return int(run.path.name.removeprefix("fold_"))


def _identity(runs: Path, metrics: Path) -> str:
    """By which MLflow's mirror knows the zip again: the same in every zip of these runs, and not the runs' own, whose
    mirror it must not change. Of runs that were never mirrored it is the zip's own."""
    path = runs / packed.IDENTITY
    own = read(path if path.is_file() else metrics)
    return hashlib.sha256(b"packed " + own).hexdigest()[:16]


# A sweep.


def _stage_sweep(sweep: Path, staged: Staged, number_of: Mapping[leaves.Patient, str], *, model: bool) -> bool:
    """Whether it has networks in the zip."""
    home = make_private(staged.folder / sweep.name)
    for run in _folds([sweep]):
        folder = make_private(home / run.path.relative_to(sweep))
        for name, text in leaves.of_fold(run, number_of):
            write_text(folder / name, text)
    if (sweep / asked.NAME).exists():
        asked.read(sweep).write(home)  # its fields, and no others
    if (sweep / "results.csv").exists():
        kept = {run.path.parent.name for run in _folds([sweep])}
        write_text(home / "results.csv", leaves.results(sweep / "results.csv", kept))
    _stage_launches(sweep, home)
    staged.notes.append(_how_far(sweep))
    told = _verdict(sweep, staged, needed=model)
    if told and (sweep / verdict.JSON).exists():
        told = verdict.put(told, home)
    _stage_report(sweep.name, home, staged)
    if told and (home / verdict.JSON).exists():
        verdict.put(told, home, plots=False)  # the report holds them; no picture leaves as a file
    remove(home / verdict.PLOTS)
    has_model = bool(model and told and (told.winner or told.best))
    if told and has_model:
        _stage_model(sweep, home, told)
    staged.stays.update(_others(sweep, home))
    for run in _folds([sweep]):
        staged.stays.update(_others(run.path, home / run.path.relative_to(sweep)))
    return has_model


def _how_far(sweep: Path) -> str:
    """Of the list: folds that are not done leave as far as they have come."""
    outcomes = Counter((run.outcome() or "not done").lower() for run in _folds([sweep]))
    ended = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))
    return f"{sweep.name}: {len(_configurations(sweep))} configurations, {outcomes.total()} folds ({ended})"


def _others(folder: Path, kept: Path) -> Counter[str]:
    """What stays of it, by name; folders with a slash."""
    names = (path.name + "/" * path.is_dir() for path in folder.iterdir() if not (kept / path.name).exists())
    return Counter(name for name in names if name[0] != ".")


def _stage_launches(sweep: Path, home: Path) -> None:
    """Called by their order, the newest first, as the mirror wants them: a name was the hash of what stays."""
    newest = sorted((sweep / "launches").glob("*.json"), key=lambda path: (-path.stat().st_mtime_ns, path.name))
    for number, path in enumerate(newest):
        write_text(make_private(home / "launches") / f"{number:04}.json", leaves.launch(path))


def _verdict(sweep: Path, staged: Staged, *, needed: bool) -> Verdict | None:
    """Made again from the run folders, without the folds' own reasons; None where nobody wants it, or it cannot be."""
    if not needed and not (sweep / verdict.JSON).exists():
        return None
    try:
        told = verdict.read(sweep)
    except ValueError as error:
        if needed:
            raise
        staged.notes.append(f"{sweep.name}: no verdict ({error})")
        return None
    return replace(told, configurations=tuple(replace(row, reason="") for row in told.configurations))


def _stage_report(name: str, home: Path, staged: Staged) -> None:
    """From what leaves alone, so that nothing can be in it that does not."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            report.report([home], home / "report")
    except ValueError as error:
        why = str(error).replace(str(home.resolve()), name).replace(str(home), name).partition(";")[0]
        staged.notes.append(f"{name}: no report, since it wants every fold done: {why}")
        remove(home / "report")


def _stage_model(sweep: Path, home: Path, told: Verdict) -> None:
    """The networks of the winner, or of the best where none is called; with what whoever uses them must know."""
    from mtl import handed  # torch: seconds, for who asks for networks alone

    name = str(told.winner or told.best)
    folds = {
        run.path.name: handed.write_network(run, home / name / run.path.name / "best.pt") for run in _runs(sweep / name)
    }
    best_epochs = {fold: about.pop("best_epoch") for fold, about in folds.items()}
    about = {"configuration": name, **next(iter(folds.values())), "best_epoch": best_epochs}
    write_text(home / name / packed.MODEL, json.dumps(about, indent=1) + "\n")
