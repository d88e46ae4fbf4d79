"""A store that is made or brought up to date: what was done stays done, and nobody sees it half done.

Everything is gathered in `.STORE.partial` beside the store and takes its place when it is whole. A run that is
killed leaves that folder behind, and the next one goes on from the patients in it.
"""

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

    def drop(self, key: str) -> None:
        """Take a patient out, if they are there."""
        if (self.folder / key).exists():
            gone = self.folder / f"{store.MAKING}{key}-gone"
            (self.folder / key).rename(gone)
            files.remove(gone)

    def publish(self, *, changed: bool) -> None:
        """Put it in the store's place, unless nothing is `changed` and the store says the same, or nobody is in it."""
        old = self.path.with_name(f".{self.path.name}.old")
        now = {entry.parent.name: _attributes(entry).get("digest") for entry in self.folder.glob("*/zarr.json")}
        if not now or (now == self.before and not changed):
            files.remove(self.folder)
            return
        files.remove(old)
        if self.path.exists():
            self.path.rename(old)
        self.folder.rename(self.path)
        files.remove(old)


@contextmanager
def making(path: Path, root: Mapping[str, Any], wanted: Collection[str]) -> Iterator[Making]:
    """Hold the folder in which the store `path` is gathered, with the patients that are there already.

    Arguments and errors as `existing`'s; FileExistsError too where another process is writing the store.
    """
    before = existing(path, root, wanted)
    with files.partial_of(path) as partial:
        _clear(partial, root, wanted)
        for key in {*before} - {entry.name for entry in partial.iterdir()}:
            shutil.copytree(path / key, partial / f"{store.MAKING}{key}", copy_function=_link)
            (partial / f"{store.MAKING}{key}").rename(partial / key)
        yield Making(path, partial, before)


def existing(path: Path, root: Mapping[str, Any], wanted: Collection[str]) -> dict[str, str]:
    """Key -> digest of the patients of the store that is there already; none where there is no store.

    root: the attributes that the store's root shall have; wanted: every key that may be in it. A patient who is
    damaged may be missing. FileExistsError where `path` is something else; ValueError where it is a store that
    this conversion would damage.
    """
    if not path.exists():
        return {}
    there = _attributes(path / "zarr.json")
    if there.get("format") != store.FORMAT:
        raise FileExistsError(f"store {path}: exists already and is something else; name another")
    for name, value in root.items():
        if there.get(name) != value:
            raise ValueError(f"store {path}: exists with {name} {there.get(name)}, wanted {value}; name another store")
    keys = {folder.name for folder in path.iterdir() if folder.is_dir()}
    if others := sorted(keys - {*wanted}):
        raise ValueError(
            f"store {path}: holds {len(others)} patients that the raw folder has not ({', '.join(others[:3])}, ...); "
            "name another store, or remove this one"
        )
    attributes = {key: _attributes(path / key / "zarr.json") for key in sorted(keys)}
    return {key: str(found["digest"]) for key, found in attributes.items() if "digest" in found}


def _clear(partial: Path, root: Mapping[str, Any], wanted: Collection[str]) -> None:
    """Leave of an earlier run's folder what this conversion can go on from, and write its root."""
    entry = partial / "zarr.json"
    ours = entry.exists() and _attributes(entry) == root
    for left_over in partial.iterdir():
        if ours and (left_over == entry or left_over.name in wanted):
            continue
        files.remove(left_over)
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
