"""One study after another, or several at a time, from its files into a store."""

import ctypes
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from data_prep import grid, readers, store
from data_prep.readers import dicom
from data_prep.study import Case, StudyError

CONVERTER = 1
"""To be raised when the same files come out otherwise, so that finished studies are converted again."""


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""glibc's malloc.h"""
MOST_UNSEALED = 4
"""Studies that may wait for the disk; they would have to be converted again after a kill."""


class WriteError(OSError):
    """The store cannot be written; the conversion ends."""


@dataclass(frozen=True)
class Job:
    """One study to convert."""

    key: str
    subject: str
    case: Case
    grid: grid.Grid
    source: str
    """What the store's root says; a study of another source is set aside."""
    classes: int
    folder: Path | None = None
    """Where the store is gathered; None tries everything and writes nothing."""
    there: Path | None = None
    """Where the patient lies who was made before, if one was."""


@dataclass(frozen=True)
class Outcome:
    """What became of a study."""

    key: str
    result: str
    """`converted`, `unchanged` or `set_aside`"""
    reason: str = ""
    file: str | None = None
    """Label of the file to blame for a study that is set aside."""
    mended: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)
    volumes: int = 0
    slices: int = 0
    labelled: int = 0
    files: int = 0
    size: int = 0
    """bytes"""
    making: Path | None = None
    """What was written, to be sealed."""


def run(job: Job) -> Outcome:
    """Convert a study unless its files are those it was made from before. WriteError where it cannot be written."""
    try:
        made_from = _digest(job)
        if job.there is not None and job.there.exists() and (same := _unchanged(job.key, job.there, made_from)):
            return same
        study = readers.read(job.case)
        if study.source != job.source:
            raise StudyError(f"comes from {study.source!r}, the store holds {job.source!r}")
        arrays = grid.arrays(study, job.grid)
    except StudyError as error:
        return Outcome(job.key, "set_aside", error.reason, error.file)
    except MemoryError:
        return Outcome(job.key, "set_aside", "does not fit into memory")
    except Exception as error:  # one study must not cost the others; its message could quote the files
        reason = f"cannot be read ({type(error).__name__} in {_place_of(error)}: please report it)"
        return Outcome(job.key, "set_aside", reason)
    attributes = {
        "subject": job.subject,
        "stratum": job.case.stratum or None,
        **arrays.attributes,
        "input_digest": made_from,
        "mended": study.notes.mended,
        "ignored": study.notes.ignored,
        "warnings": arrays.warnings,
    }
    written, size, making = _write(job, arrays, attributes)
    return Outcome(
        key=job.key,
        result="converted",
        mended=study.notes.mended,
        ignored=study.notes.ignored,
        warnings=arrays.warnings,
        volumes=arrays.labelled_TZ.shape[0],
        slices=arrays.labelled_TZ.size,
        labelled=int(arrays.labelled_TZ.sum()),
        files=written,
        size=size,
        making=making,
    )


def _place_of(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _digest(job: Job) -> str:
    """sha256 over what decides a study's arrays: how it is converted, and its files' labels and contents."""
    case = job.case
    how = (CONVERTER, case.reader, sorted(case.details.items(), key=repr), case.stratum, job.subject, job.grid)
    total = hashlib.sha256(repr((how, job.classes)).encode())
    for label, path in case.files.items():
        content = dicom.read_bytes(path, label)
        total.update(f"{label} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def _unchanged(key: str, there: Path, made_from: str) -> Outcome | None:
    """The outcome for a patient who was made from the same files; None where another was, or they are damaged."""
    try:
        patient = store.patient(there)
        attributes = patient.attributes
        if attributes["input_digest"] != made_from:
            return None
        image_TZYX, mask_TZYX, labelled_TZ = (patient.array(name) for name in store.ARRAYS)
        if store.digest(image_TZYX, mask_TZYX, labelled_TZ) != attributes["digest"]:
            return None
        return Outcome(
            key=key,
            result="unchanged",
            mended=attributes["mended"],
            ignored=attributes["ignored"],
            warnings=attributes["warnings"],
            volumes=labelled_TZ.shape[0],
            slices=labelled_TZ.size,
            labelled=int(labelled_TZ.sum()),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(job: Job, arrays: grid.Arrays, attributes: Mapping[str, Any]) -> tuple[int, int, Path | None]:
    """Files and bytes written, or that would be; and where they are to be sealed."""
    cine = store.Cine.of(arrays.image_TZYX, arrays.mask_TZYX, arrays.labelled_TZ)
    if job.folder is None:
        return *store.size_of(cine, attributes), None
    try:
        making = store.Writer(job.folder).write(job.key, cine, attributes)
        written = [path for path in making.rglob("*") if path.is_file()]
        return len(written), sum(path.stat().st_size for path in written), making
    except OSError as error:
        raise WriteError(error.errno, error.strerror or "cannot be written") from error


def run_all(todo: Sequence[Job], workers: int) -> Iterator[Outcome]:
    """The outcomes as they come; at the end all patients are sealed. With more than one worker each is a process.

    RuntimeError where a worker was killed, and which studies it may have been at. WriteError where the store cannot
    be written.
    """
    folder = {job.key: job.folder for job in todo}
    _keep_memory()
    with Sealer() as sealer:
        for outcome in _run_all(todo, workers):
            home = folder[outcome.key]
            if outcome.making is not None and home is not None:
                sealer.seal(store.Writer(home), outcome.key, outcome.making)
            yield outcome
        sealer.finish()


class Sealer:
    """Waits for the disk beside the work: a study is converted while the one before is made safe."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []
        self._failed = False

    def __enter__(self) -> "Sealer":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def seal(self, writer: store.Writer, key: str, making: Path) -> None:
        """Soon. What went wrong with earlier ones is raised here."""
        self._pending.append(self._thread.submit(self._seal, writer, key, making))
        self.finish(left=MOST_UNSEALED)

    def finish(self, left: int = 0) -> None:
        """Wait until no more than `left` are to be sealed. WriteError where one cannot be."""
        while self._pending and (len(self._pending) > left or self._pending[0].done()):
            try:
                self._pending.pop(0).result()
            except OSError as error:
                raise WriteError(error.errno, error.strerror or "cannot be written") from error

    def _seal(self, writer: store.Writer, key: str, making: Path) -> None:
        if self._failed:
            return
        try:
            writer.seal(key, making)
        except BaseException:
            self._failed = True
            raise


def _run_all(todo: Sequence[Job], workers: int) -> Iterator[Outcome]:
    if workers == 1 or len(todo) < 2:
        yield from map(run, todo)
        return
    others = {*multiprocessing.active_children()}
    pending: dict[Future[Outcome], str] = {}
    largest_first = sorted(todo, key=lambda job: -len(job.case.files))  # the last ones to end are then short
    pool = ProcessPoolExecutor(min(workers, len(todo)), multiprocessing.get_context("spawn"), initializer=_start)
    try:
        with _broken_if_closed():
            pending.update({pool.submit(run, job): job.key for job in largest_first})
        for future in as_completed(list(pending)):
            yield future.result()
            del pending[future]
    except BrokenProcessPool:
        # The pool waits for ever for a worker that it started while another one died.
        for worker in {*multiprocessing.active_children()} - others:
            worker.kill()
        at = ", ".join([*pending.values(), *(job.key for job in largest_first if not pending)][:workers])
        raise RuntimeError(
            f"a worker was killed, perhaps for want of memory, at one of these studies: {at}; finished ones are kept: "
            "the same command goes on, with --workers 1 it needs less memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _keep_memory() -> None:
    """Keep what one slice has freed for the next: the C library gives it back to the system otherwise, page by page."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            for setting, size in ((M_TRIM_THRESHOLD, 2**28), (M_MMAP_THRESHOLD, 2**25), (M_TOP_PAD, 2**26)):
                ctypes.CDLL(None).mallopt(setting, size)


@contextmanager
def _broken_if_closed() -> Iterator[None]:
    """A pool that breaks while it is handed work may say so by a pipe that is closed."""
    try:
        yield
    except OSError as error:
        raise BrokenProcessPool from error


def _start() -> None:
    """A worker leaves Ctrl-C to its parent, and ends with it however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_memory()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
