"""What leaves of a sweep's folder in a zip (cluster/pack.py): allow-lists of files, of fields, and of what these hold.

What is not named here stays behind, whoever has put it there: a later version's file, a user's note, a path. Reasons of
folds that failed or were stopped stay, too: they are free text, with paths and hosts in it. Patients have new numbers.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from cluster import failures
from data_prep.files import read
from mtl.config import Config, flat, fold_dict, from_dict
from mtl.runfolder import RunFolder, read_settings

PATIENT = "patient"
OF_PATIENTS = ("volumes.csv", "slices.csv")
"""a row per volume or slice, whose patient is renumbered; no other file of a run folder that leaves names one"""
TRUTH = ("phase", "level", "structure", "area_true_mm2")
"""of a slice, whatever has been trained"""
WORDS = {"set", "region", "structure"}
"""columns of these that hold words (a structure several, `left ventricle`); all others must be numbers"""
OF_RESULTS = {"configuration", "branch", "status"}
"""the same of results.csv"""
MEASURED = ("best_epoch", "dice_val", "area_mad_mm2")
DATA = ("source", "patients", "volumes", "slices", "size", "pixel_spacing_mm", "structures")
MADE_WITH = ("device", "precision", "ranks", "micro_batches", "torch", "python", "branchpoint", "code", "by")
FACTS = MEASURED + DATA + MADE_WITH
"""of what DONE, STOPPED and FAILED say"""
FAILURES = (*failures.OF_FOLDS, *failures.OF_SLURM)
REASONS = {"DONE": "all epochs trained", "STOPPED": "stopped early", "FAILED": "failed"}
"""in place of what the fold itself says"""
_TEXT = re.compile(r"[\w .,+:()-]{1,100}")
"""no slash, no @: no path, no address"""
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,60}|")
_HEX = re.compile(r"[0-9a-f]{7,64}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What is damaged is said with its name."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error, yaml.YAMLError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: damaged ({why}); restore it, or remove it and run the sweep again") from None


Patient = tuple[str, str]
"""the digest of a store, and a key in it: another store's P001 is somebody else"""


def renumbered(runs: Iterable[RunFolder]) -> dict[Patient, str]:
    """Patient -> P001, P002, ..., of all whom these folds' tables name. ValueError where one is damaged.

    In the order of a digest of what is measured in them: of their true areas, and where these are equal of the rest of
    their rows. So the same run folders give the same zip, and the order tells nothing that the zip does not say anyway.
    A store's keys are an archive's codes, or P001, ... by the order of the files' names: whoever has the archive or the
    list that leads back, or guesses, could undo any order, or digest, of these.
    """
    truth, rest = defaultdict[Patient, set[str]](set), defaultdict[Patient, Any](hashlib.sha256)
    for store, path, row in _patient_rows(runs):
        patient = store, row.pop(PATIENT)
        if "area_true_mm2" in row:
            truth[patient].add(repr([row.get(column) for column in TRUTH]))
        rest[patient].update(repr([path.parts[-3:], list(row.values())]).encode())
    digests = {patient: hashlib.sha256("".join(sorted(truth[patient])).encode()).hexdigest() for patient in rest}
    ordered = sorted(rest, key=lambda patient: (digests[patient], rest[patient].hexdigest()))
    width = max(3, len(str(len(ordered))))
    return {patient: f"P{number:0{width}}" for number, patient in enumerate(ordered, start=1)}


def _patient_rows(runs: Iterable[RunFolder]) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """Of each row of a patient: the store's digest, the file, the row."""
    for run, path in ((run, run.path / name) for run in runs for name in OF_PATIENTS):
        if path.exists():
            with naming(path):
                rows = _rows(path)[1]
                if any(PATIENT not in row for row in rows):
                    raise ValueError(f"no column {PATIENT!r}")
            store = _store_of(run)
            yield from ((store, path, row) for row in rows)


def _store_of(run: RunFolder) -> str:
    path = run.path / "config.yaml"
    with naming(path):
        return str(read_settings(path).get("data_digest", "")) if path.exists() else ""


def of_fold(run: RunFolder, numbers: Mapping[Patient, str]) -> Iterator[tuple[str, str]]:
    """Names and texts of a fold's files, as they leave. ValueError where one is damaged."""
    store = _store_of(run)
    number_of = {patient: number for (of_store, patient), number in numbers.items() if of_store == store}
    outcome = run.outcome()  # first: of a fold that says so everything else is there
    texts: dict[str, Callable[[Path], str]] = {
        "config.yaml": _settings,
        "epochs.jsonl": lambda path: _lines(run.epochs()),
        "usage.jsonl": lambda path: _lines(run.usage()),
        **{name: lambda path: _of_patients(path, number_of) for name in OF_PATIENTS},
    }
    if outcome:
        texts[outcome] = lambda path: _outcome(outcome, run.facts())
    for name, text in texts.items():
        path = run.path / name
        if path.exists():
            with naming(path):
                made = text(path)
            yield name, made


def _settings(path: Path) -> str:
    """Those that there are; each of them is a number or one of a few words, but for the store's digest."""
    told = read_settings(path)
    fold = int(told.pop("fold"))
    known = flat(asdict(Config()))
    kept = _only(told, known, "")
    from_dict(Config, kept)
    if not re.fullmatch(r"[0-9a-f]*", str(kept.get("data_digest", ""))):
        raise ValueError("data_digest is no digest")
    return yaml.safe_dump(fold_dict(kept, fold), sort_keys=False)


def _only(told: Mapping[str, Any], known: Mapping[str, Any], above: str) -> dict[str, Any]:
    """What an older version did not write is not added: its folder's name says what differed from the default then."""
    made = {}
    for key, value in told.items():
        if isinstance(value, dict):
            if any(name.startswith(f"{above}{key}.") for name in known):
                made[key] = _only(value, known, f"{above}{key}.")
        elif f"{above}{key}" in known:
            made[key] = value
    return made


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    """Records of epochs: numbers, whatever they are called, and when."""
    return "".join(
        json.dumps({key: value for key, value in one.items() if _is_figure(key, value)}) + "\n" for one in records
    )


def _is_figure(key: str, value: Any) -> bool:
    if key == "time_utc":
        datetime.fromisoformat(value)
        return True
    return bool(_WORD.fullmatch(key)) and (value is None or is_number(value))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _outcome(outcome: str, facts: Mapping[str, Any]) -> str:
    failure = facts.get("failure")
    why = {"failure": failure} if failure in FAILURES else {}
    kept = {key: value for key in FACTS if _is_fact(value := facts.get(key))}
    reason = REASONS[outcome] + (f": {failure}" if why else "")
    return json.dumps({"reason": reason, **kept, **why}, indent=1) + "\n"


def _is_fact(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_fact, value))
    return is_number(value) or (isinstance(value, str) and bool(_TEXT.fullmatch(value)))


def _of_patients(path: Path, number_of: Mapping[str, str]) -> str:
    """With the rows of each set in the order of the new numbers: the old order would tell the old ones."""
    columns, rows = _rows(path)
    _check(columns, rows, WORDS | {PATIENT})
    sets = {name: place for place, name in enumerate(dict.fromkeys(row.get("set") for row in rows))}
    if not {row[PATIENT] for row in rows} <= number_of.keys():
        raise OSError(f"{path}: a fold has ended while it was packed; give the same command again")
    rows = [{**row, PATIENT: number_of[row[PATIENT]]} for row in rows]
    return _csv(columns, sorted(rows, key=lambda row: (sets[row.get("set")], row[PATIENT])))


def results(path: Path, configurations: Collection[str]) -> str:
    """results.csv as it leaves: the rows of the configurations that do."""
    with naming(path):
        columns, rows = _rows(path)
        _check(columns, [{**row, **dict.fromkeys(OF_RESULTS, "")} for row in rows], set())
        kept = [row for row in rows if row["configuration"] in configurations]
        told = [row[column] for row in kept for column in ("branch", "status")]
        if odd := next((text for text in told if text and not _TEXT.fullmatch(text)), None):
            raise ValueError(f"{odd!r} is neither a branch nor a status")
        return _csv(columns, kept)


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    text = read(path).decode()
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="")
    rows = list(reader)
    if (text and not text.endswith("\n")) or any("" in row or None in row.values() for row in rows):
        raise ValueError("a row is not whole")
    return list(reader.fieldnames or ()), rows


def _check(columns: Sequence[str], rows: Sequence[Mapping[str, str]], words: set[str]) -> None:
    """ValueError where a column holds what it should not."""
    for column in columns:
        for row in rows:
            text = row[column].replace(" ", "_") if column == "structure" else row[column]
            if column in words and (column == PATIENT or _WORD.fullmatch(text)):
                continue
            try:
                float(row[column] or "nan")
            except ValueError:
                raise ValueError(f"column {column!r} holds text, wanted numbers") from None


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    if columns:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def launch(path: Path) -> str:
    """Which code and which store's digest a launch had; not where these lie, nor who asked for what."""
    with naming(path):
        told = json.loads(read(path))
        git, store = told.get("git") or {}, told.get("store") or {}
        kept: dict[str, Any] = {}
        if _HEX.fullmatch(str(git.get("commit"))):
            kept["git"] = {"commit": git["commit"], "uncommitted": bool(git.get("uncommitted"))}
        if _HEX.fullmatch(str(store.get("digest"))):
            kept["store"] = {"digest": store["digest"]}
        return json.dumps(kept, indent=1) + "\n"


def long_rows(configuration: str, fold: int, records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    """Rows of metrics.csv: configuration, fold, epoch, name, value. What an epoch has no figure of has no row; what is
    not a number (NaN) has an empty value."""
    for record in records:
        for name, value in record.items():
            if name != "epoch" and is_number(value):
                yield configuration, fold, record["epoch"], name, "" if math.isnan(value) else value
