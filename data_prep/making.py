"""A store that is made or brought up to date: what was done stays done, and nobody sees it half done.

Everything is gathered in `.STORE.partial` beside the store and takes its place when it is whole. A run that is
killed leaves that folder behind, and the next one goes on from the patients in it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from data_prep import files, store


@dataclass
class Making:
    """The folder in which patients are gathered."""

    path: Path
    folder: Path
    before: Mapping[str, str]
    """Digests of the patients of the store that is there already, by key."""

    def patients(self) -> dict[str, Mapping[str, Any]]:
        """Attributes of the patients gathered so far, by key."""
        return {entry.parent.name: _attributes(entry) for entry in self.folder.glob("*/zarr.json")}

    def drop(self, key: str) -> None:
        """Take a patient out, if they are there."""
        if (self.folder / key).exists():
            gone = self.folder / f"{store.MAKING}{key}-gone"
            (self.folder / key).rename(gone)
            shutil.rmtree(gone)

    def publish(self, *, changed: bool) -> None:
        """Put it in the store's place, unless nothing is `changed` and the store says the same, or nobody is in it."""
        old = self.path.with_name(f".{self.path.name}.old")
        now = {key: attributes["digest"] for key, attributes in self.patients().items()}
        if not now or (now == self.before and not changed):
            shutil.rmtree(self.folder)
            return
        if self.path.exists():
            shutil.rmtree(old, ignore_errors=True)
            self.path.rename(old)
        self.folder.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def making(path: Path, root: Mapping[str, Any], wanted: Collection[str]) -> Iterator[Making]:
    """Hold the folder in which the store `path` is gathered, with the patients that are there already.

    root: the attributes of the store's root; wanted: every key that may be in it. FileExistsError where `path`
    is something else or is being written; ValueError where it is a store that this conversion would damage.
    """
    before = _existing(path, root, wanted)
    partial = path.with_name(f".{path.name}.partial")
    partial.mkdir(parents=True, mode=0o700, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clear(partial, root, wanted)
        for key in {*before} - {entry.name for entry in partial.iterdir()}:
            shutil.copytree(path / key, partial / f"{store.MAKING}{key}", copy_function=_link)
            (partial / f"{store.MAKING}{key}").rename(partial / key)
        yield Making(path, partial, before)
    except BlockingIOError:
        raise FileExistsError(f"store {path}: another process is writing it; wait for it or name another") from None
    finally:
        os.close(handle)


def _existing(path: Path, root: Mapping[str, Any], wanted: Collection[str]) -> dict[str, str]:
    """Key -> digest of the store that is there already, if one is."""
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        found = store.open(path)
    except (ValueError, OSError) as error:
        if _attributes(path / "zarr.json").get("format") == store.FORMAT:
            raise FileExistsError(f"{error}; remove it first, or name another") from error
        raise FileExistsError(f"store {path}: exists already and is something else; name another") from error
    there = store.root_attributes(found.source, found.spacing_mm, found.size, found.classes)
    for name, value in root.items():
        if there[name] != value:
            raise ValueError(f"store {path}: exists with {name} {there[name]}, wanted {value}; name another store")
    others = sorted({patient.key for patient in found.patients} - {*wanted})
    if others:
        raise ValueError(
            f"store {path}: holds {len(others)} patients that the raw folder has not ({', '.join(others[:3])}, ...); "
            "name another store, or remove this one"
        )
    return {patient.key: patient.attributes["digest"] for patient in found.patients}


def _clear(partial: Path, root: Mapping[str, Any], wanted: Collection[str]) -> None:
    """Leave of an earlier run's folder what this conversion can go on from, and write its root."""
    entry = partial / "zarr.json"
    ours = entry.exists() and _attributes(entry) == root
    for left_over in partial.iterdir():
        if ours and (left_over == entry or left_over.name in wanted):
            continue
        shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
    if not ours:
        zarr.create_group(partial, zarr_format=3, attributes=dict(root))
        files.sync(partial)


def _attributes(entry: Path) -> Mapping[str, Any]:
    """Of a group's zarr.json; empty where it cannot be read."""
    try:
        found = json.loads(entry.read_text())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _link(source: str, target: str) -> None:
    """The same file under a second name, where the file system has that; patients' files are never changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
