"""The zarr store, version 1: the contract between data_prep, which writes it, and mtl, which reads it.

    STORE                     zarr v3 group: format, version, source, spacing_mm, size, classes
      DET0000101              a group per patient: subject, stratum, slice_spacing_mm, ed_phase, digest, ...
        image_TZYX  int16     Z from base to apex; one shard per array, a chunk per phase
        mask_TZYX   uint8     class labels
        labelled_TZ bool      a mask was given (an empty one counts)

Few files (Lustre and GPFS ask for it): seven a patient, whatever the number of phases. Not compressed: the
shard then begins with the array itself, and reading it costs no more than reading the bytes (decoding would
be the slower part: 0.9 GB/s against 4 on the machine where it was measured, for half of the disk space).
Readers ignore attributes they do not know.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from data_prep import files, shards

FORMAT = "branchpoint-cine"
VERSION = 1
MAKING = ".making-"
"""How the folder of a patient who is being written begins."""
ARRAYS = {"image_TZYX": "<i2", "mask_TZYX": "|u1", "labelled_TZ": "|b1"}


class Cine(NamedTuple):
    """A patient's arrays, as they lie in the store: contiguous and of ARRAYS' types."""

    image_TZYX: np.ndarray
    mask_TZYX: np.ndarray
    labelled_TZ: np.ndarray

    @classmethod
    def of(cls, *arrays: np.ndarray) -> "Cine":
        """Image, mask and labelled, of whatever type."""
        return cls(*(np.ascontiguousarray(a, dtype) for a, dtype in zip(arrays, ARRAYS.values(), strict=True)))


def digest(image_TZYX: np.ndarray, mask_TZYX: np.ndarray, labelled_TZ: np.ndarray) -> str:
    """sha256 over image, mask and labelled, in this order, C order, little-endian."""
    total = hashlib.sha256()
    for array in Cine.of(image_TZYX, mask_TZYX, labelled_TZ):
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


@dataclass(frozen=True)
class Patient:
    """One patient of an opened store; arrays are decoded when asked for."""

    key: str
    group: zarr.Group
    folder: Path

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        return dict(self.group.attrs)

    @property
    def subject(self) -> str:
        """The person. Folds are split by it, so that two visits never straddle train and test."""
        return str(self.attributes.get("subject") or self.key)

    @property
    def stratum(self) -> str:
        """Folds are balanced by it; empty where the source names none."""
        return str(self.attributes.get("stratum") or "")

    @property
    def ed_phase(self) -> int | None:
        return self.attributes.get("ed_phase")

    @property
    def es_phase(self) -> int | None:
        return self.attributes.get("es_phase")

    def array(self, name: str) -> np.ndarray:
        """`image_TZYX`, `mask_TZYX` or `labelled_TZ`, whole; ValueError names the patient where it is damaged."""
        return self._read(name, ...)

    def mapped(self, name: str) -> np.ndarray:
        """As `array`, but read-only and shared by all processes of a machine, where the shard is as this program
        writes it; pages are read when they are looked at. ValueError as `array`."""
        with self._named(name):
            whole = shards.mapped(self.folder / name)
        return self.array(name) if whole is None else whole

    def has(self, label: int) -> bool:
        """Whether any labelled slice carries this label. Reads slices until one does."""
        places = np.argwhere(self.array("labelled_TZ"))
        # From the middle of the heart outwards: end slices are the empty ones.
        places = places[np.argsort(abs(places[:, 1] - np.median(places[:, 1])))] if len(places) else places
        return any((self._read("mask_TZYX", (int(t), int(z))) == label).any() for t, z in places)

    def _read(self, name: str, where: Any) -> np.ndarray:
        with self._named(name):
            whole = shards.read(self.folder / name) if where is ... else None
            if whole is not None:
                return whole
            array = self.group[name]
            assert isinstance(array, zarr.Array)
            return np.asarray(array[where])

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """What goes wrong in here names the patient."""
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            said = getattr(error, "strerror", None) or str(error)
            reason = (said.splitlines() or [type(error).__name__])[0]
            raise ValueError(f"store: {self.key}/{name} is damaged ({reason}); convert the raw data again") from error


@dataclass(frozen=True)
class Store:
    """An opened store that has passed the check of format and version."""

    path: Path
    source: str
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    classes: tuple[str, ...]
    patients: tuple[Patient, ...]

    @cached_property
    def digest(self) -> str:
        """sha256 over spacing, size, classes and every patient's key, subject, stratum, ED, ES and digest."""
        total = hashlib.sha256(repr((self.spacing_mm, self.size, self.classes)).encode())
        for p in self.patients:
            facts = (p.key, p.subject, p.stratum, p.ed_phase, p.es_phase, p.attributes["digest"])
            total.update(repr(facts).encode())
        return total.hexdigest()


def patient(folder: Path) -> Patient:
    """One patient of a store or of one in the making."""
    return Patient(folder.name, zarr.open_group(folder, mode="r", zarr_format=3), folder)


def check_size(name: str, size: int) -> None:
    """ValueError unless images of this many rows and columns can be trained on (four down-samplings)."""
    if not 32 <= size <= 1024 or size % 16:
        raise ValueError(f"{name} is {size}, wanted a multiple of 16 (four down-samplings), 32 to 1024")


def open(path: str | os.PathLike[str]) -> Store:
    """Open a store for reading. FileNotFoundError or ValueError say what is wrong and what to do."""
    path = Path(path)
    advice = "make one with: python -m data_prep.convert RAW STORE"
    if not path.exists():
        raise FileNotFoundError(f"store {path}: no such folder; {advice}")
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, NotADirectoryError) as error:
        raise ValueError(f"store {path}: not a zarr v3 group; {advice}") from error
    attributes = dict(group.attrs)
    if attributes.get("format") != FORMAT:
        raise ValueError(f"store {path}: format is {attributes.get('format')!r}, wanted {FORMAT!r}; {advice}")
    if attributes.get("version") != VERSION:
        raise ValueError(
            f"store {path}: version is {attributes.get('version')!r}, this program reads {VERSION}; "
            "convert the raw data again with this program, or use the program that wrote it"
        )
    folders = [folder for folder in path.iterdir() if folder.is_dir()]
    try:
        store = Store(
            path=path,
            source=str(attributes["source"]),
            classes=_tuple(attributes["classes"], str),
            spacing_mm=_pair(attributes["spacing_mm"], float),
            size=_pair(attributes["size"], int),
            patients=tuple(patient(folder) for folder in sorted(folders) if (folder / "zarr.json").exists()),
        )
        if min(store.spacing_mm) <= 0:
            raise ValueError("spacing_mm is not positive")
        lost = {folder.name for folder in folders} - {p.key for p in store.patients}
        there = {p.key: all((p.folder / name / "zarr.json").exists() for name in ARRAYS) for p in store.patients}
        incomplete = [key for key, complete in there.items() if not complete] + sorted(lost)
        unsealed = [p.key for p in store.patients if "digest" not in p.attributes]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"store {path}: attributes are damaged ({error!r}); convert the data again") from error
    if not store.patients or incomplete or unsealed:
        what = f"incomplete at {(incomplete + unsealed)[0]}" if store.patients else "without any patient"
        raise ValueError(f"store {path}: {what}; convert the raw data again")
    return store


def _tuple(values: Any, kind: type) -> tuple[Any, ...]:
    return tuple(kind(v) for v in values)


def _pair(values: Any, kind: type) -> tuple[Any, Any]:
    first, second = _tuple(values, kind)
    return first, second


class Writer:
    """Adds patients to a store in the making."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        key: str,
        image_TZYX: np.ndarray,
        mask_TZYX: np.ndarray,
        labelled_TZ: np.ndarray,
        attributes: Mapping[str, Any],
    ) -> None:
        """Write one patient, in place of an older one; there when everything is on the disk, and not before."""
        self.seal(key, self.write(key, Cine.of(image_TZYX, mask_TZYX, labelled_TZ), attributes))

    def write(self, key: str, cine: Cine, attributes: Mapping[str, Any]) -> Path:
        """The first half of `add`: the folder that is to be sealed."""
        making = self.folder / f"{MAKING}{key}-{secrets.token_hex(4)}"
        try:
            write_patient(making, cine, attributes)
        except BaseException:
            files.remove(making)
            raise
        return making

    def seal(self, key: str, making: Path) -> None:
        """The second half of `add`, which waits for the disk."""
        gone = making.with_name(making.name + "-gone")
        try:
            files.sync(making)
            if (self.folder / key).exists():
                (self.folder / key).rename(gone)
            making.rename(self.folder / key)
        finally:
            for left_over in (making, gone):
                files.remove(left_over)


def write_patient(folder: Path, cine: Cine, attributes: Mapping[str, Any]) -> None:
    """A patient's group, with its digest."""
    _create(folder, cine, attributes)
    for name, array in cine._asdict().items():
        shards.write(folder / name, array)


def size_of(cine: Cine, attributes: Mapping[str, Any]) -> tuple[int, int]:
    """Files and bytes that write_patient would write."""
    memory: dict[str, Any] = {}
    _create(zarr.storage.MemoryStore(memory), cine, attributes)
    size = sum(len(content) for content in memory.values())
    size += sum(array.nbytes + shards.index_size(array.shape[0]) for array in cine)
    return len(memory) + len(cine), size


def _create(where: Any, cine: Cine, attributes: Mapping[str, Any]) -> None:
    """The group and its arrays, still without their shards, in a folder or another of zarr's stores."""
    sealed = {**attributes, "digest": digest(*cine)}
    patient = zarr.create_group(where, zarr_format=3, attributes=sealed)
    for name, array in cine._asdict().items():
        _create_array(patient, name, array, axes=name.rpartition("_")[2])


def _create_array(group: zarr.Group, name: str, array: np.ndarray, axes: str) -> None:
    """An array of one shard, still without it, and a chunk per step of the first axis."""
    group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(1, *array.shape[1:]),
        shards=array.shape,
        compressors=None,
        fill_value=0,
        dimension_names=tuple(axes),
    )


def write_masks(path: Path, masks: Mapping[str, np.ndarray]) -> None:
    """A zarr group of predicted masks, a (T, Z, Y, X) uint8 array of class labels per patient, in one piece.

    It takes the place of an older one. Laid out as the store's own masks.
    """
    making = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        group = zarr.create_group(making, zarr_format=3)
        for key, mask_TZYX in masks.items():
            whole = np.ascontiguousarray(mask_TZYX, np.uint8)
            _create_array(group, key, whole, axes="TZYX")
            shards.write(making / key, whole)
        files.sync(making)
        files.remove(path)
        making.rename(path)
    finally:
        files.remove(making)


def root_attributes(
    source: str, spacing_mm: Sequence[float], size: Sequence[int], classes: Sequence[str]
) -> dict[str, Any]:
    """What the store's root says."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": source,
        "spacing_mm": [*spacing_mm],
        "size": [*size],
        "classes": [*classes],
    }


def root_size(attributes: Mapping[str, Any]) -> int:
    """Bytes of the root's one file."""
    memory: dict[str, Any] = {}
    zarr.create_group(zarr.storage.MemoryStore(memory), zarr_format=3, attributes=dict(attributes))
    return sum(len(content) for content in memory.values())


@contextmanager
def create(
    path: Path, *, source: str, spacing_mm: Sequence[float], size: Sequence[int], classes: Sequence[str]
) -> Iterator[Writer]:
    """Write a new store; it appears under `path` when everything is in it, and not before.

    FileExistsError where `path` exists or is being written. What an interrupted run left is cleared away.
    """
    with files.new_folder(path) as partial:
        zarr.create_group(partial, zarr_format=3, attributes=root_attributes(source, spacing_mm, size, classes))
        yield Writer(partial)
