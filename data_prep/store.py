"""The zarr store, version 1: the contract between data_prep, which writes it, and mtl, which reads it.

    STORE                     zarr v3 group: format, version, source, spacing_mm, size, classes
      DET0000101              a group per patient: subject, stratum, slice_spacing_mm, ed_phase, digest, ...
        image_TZYX  int16     Z from base to apex; one shard per array, a chunk per slice
        mask_TZYX   uint8     class labels
        labelled_TZ bool      a mask was given (an empty one counts)

Few files (Lustre and GPFS ask for it): seven a patient, whatever the number of phases. Readers ignore
attributes they do not know.
"""

import builtins
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

FORMAT = "branchpoint-cine"
VERSION = 1
ARRAYS = {"image_TZYX": "<i2", "mask_TZYX": "|u1", "labelled_TZ": "|b1"}


def digest(image_TZYX: np.ndarray, mask_TZYX: np.ndarray, labelled_TZ: np.ndarray) -> str:
    """sha256 over image, mask and labelled, in this order, C order, little-endian."""
    total = hashlib.sha256()
    for array, dtype in zip((image_TZYX, mask_TZYX, labelled_TZ), ARRAYS.values(), strict=True):
        total.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Patient:
    """One patient of an opened store; arrays are decoded when asked for."""

    key: str
    group: zarr.Group

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

    def has_myocardium(self) -> bool:
        """Whether any labelled slice carries a label. Reads slices until one does."""
        places = np.argwhere(self.array("labelled_TZ"))
        # From the middle of the heart outwards: end slices are the empty ones.
        places = places[np.argsort(abs(places[:, 1] - np.median(places[:, 1])))] if len(places) else places
        return any(self._read("mask_TZYX", (int(t), int(z))).any() for t, z in places)

    def _read(self, name: str, where: Any) -> np.ndarray:
        array = self.group[name]
        assert isinstance(array, zarr.Array)
        try:
            return np.asarray(array[where])
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
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
    try:
        store = Store(
            path=path,
            source=str(attributes["source"]),
            classes=_tuple(attributes["classes"], str),
            spacing_mm=_pair(attributes["spacing_mm"], float),
            size=_pair(attributes["size"], int),
            patients=tuple(Patient(key, patient) for key, patient in sorted(group.groups())),
        )
        if min(store.spacing_mm) <= 0:
            raise ValueError("spacing_mm is not positive")
        lost = {folder.name for folder in path.iterdir() if folder.is_dir()} - {p.key for p in store.patients}
        incomplete = [p.key for p in store.patients if not {*ARRAYS} <= {*p.group.array_keys()}] + sorted(lost)
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

    def __init__(self, group: zarr.Group) -> None:
        self._group = group

    def add(
        self,
        key: str,
        image_TZYX: np.ndarray,
        mask_TZYX: np.ndarray,
        labelled_TZ: np.ndarray,
        attributes: Mapping[str, Any],
    ) -> None:
        """Write one patient: arrays, then attributes with the digest."""
        patient = self._group.create_group(key)
        arrays = zip(ARRAYS.items(), (image_TZYX, mask_TZYX, labelled_TZ), strict=True)
        for (name, dtype), array in arrays:
            chunk = (1, 1, *array.shape[2:]) if array.ndim == 4 else array.shape
            patient.create_array(
                name,
                data=np.ascontiguousarray(array, dtype=dtype),
                chunks=chunk,
                shards=array.shape,
                compressors=ZstdCodec(level=1),
                fill_value=0,
                dimension_names=tuple(name.rpartition("_")[2]),
            )
        patient.attrs.update({**attributes, "digest": digest(image_TZYX, mask_TZYX, labelled_TZ)})


@contextmanager
def create(
    path: Path, *, source: str, spacing_mm: Sequence[float], size: Sequence[int], classes: Sequence[str]
) -> Iterator[Writer]:
    """Write a new store; it appears under `path` when everything is in it, and not before.

    FileExistsError where `path` exists or is being written. What an interrupted run left is cleared away.
    """
    with new_folder(path) as partial:
        group = zarr.open_group(partial, mode="a", zarr_format=3)
        group.attrs.update(
            format=FORMAT,
            version=VERSION,
            source=source,
            spacing_mm=[*spacing_mm],
            size=[*size],
            classes=[*classes],
        )
        yield Writer(group)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under `path` once it is whole: until then it has another name.

    FileExistsError where `path` exists or another process is making it. What a killed run left is cleared.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path}: exists already; remove it or name another")
    partial = path.with_name(f".{path.name}.partial")
    partial.mkdir(parents=True, mode=0o700, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left_over in partial.iterdir():
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        yield partial
        _sync(partial)
        partial.rename(path)
    except BlockingIOError:
        raise FileExistsError(f"{path}: another process is writing it; wait for it or name another") from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def _sync(folder: Path) -> None:
    """Force every file to the disk, so that a power cut leaves a whole folder or none."""
    for file in folder.rglob("*"):
        if file.is_file():
            with builtins.open(file, "rb") as handle:
                os.fsync(handle.fileno())
