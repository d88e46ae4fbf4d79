"""A zip that `python -m cluster.pack` has made, read as the runs folder that it holds.

    with opened(Path("out.zip")) as runs:                    # the sweeps' folders, as they were packed
    with opened(Path("out.zip/branch_location")) as sweep:   # a folder in it; any other path is given back as it is

    metrics.csv                            every epoch's figures of every fold: configuration,fold,epoch,name,value
    .mirror-id                             by which MLflow's mirror knows it again
    <sweep>/                               sweep.json, results.csv, verdict.json, verdict.md, report/, launches/
    <sweep>/<configuration>/               model.json, where its networks were packed
    <sweep>/<configuration>/fold_<k>/      as mtl/runfolder.py says, without pictures; best.pt with --model alone

It is unpacked into a folder of this process's own (0700), which goes again with whoever has opened it, and is used only
if all of it is whole and nothing is in it that the packer does not write. No torch here.
"""

import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_prep.files import LARGEST_FILE, is_full, make_private

METRICS, IDENTITY, MODEL = "metrics.csv", ".mirror-id", "model.json"
OF_SWEEP = ("sweep.json", "results.csv", "verdict.json", "verdict.md")
OF_REPORT = ("report.html", "tables.md", "tables.tex", "methods.md")
OF_FOLD = ("config.yaml", "epochs.jsonl", "usage.jsonl", "volumes.csv", "slices.csv", "DONE", "STOPPED", "FAILED")
NETWORK = "best.pt"
LARGEST, MOST = 2**36, 1_000_000
"""bytes and files that a zip may unpack to: a thousand paper-size sweeps, and not a disk"""

_NAME = r"[^/\\.\s\ud800-\udfff][^/\\\x00-\x1f\ud800-\udfff]*"
_KNOWN = re.compile(
    rf"metrics\.csv|\.mirror-id|{_NAME}/({'|'.join(map(re.escape, OF_SWEEP))}|launches/\d+\.json"
    rf"|report/({'|'.join(map(re.escape, OF_REPORT))})"
    rf"|{_NAME}/(model\.json|fold_\d+/({'|'.join(map(re.escape, (*OF_FOLD, NETWORK)))})))"
)
_FOLDER = re.compile(rf"({_NAME}/){{1,4}}")
"""the packer writes none; who packs anew what was unpacked may"""


def is_known(name: str) -> bool:
    """Whether a file of this name, with slashes, may be in such a zip. None leads out of it, none is a picture's."""
    return _KNOWN.fullmatch(name) is not None


def zip_in(path: Path) -> tuple[Path, Path] | None:
    """The file that a path names or leads into, and the way in it; None where there is no file on the way."""
    return next(((file, path.relative_to(file)) for file in (path, *path.parents) if file.is_file()), None)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The path itself; of a zip, or of a folder in one, where that is unpacked as long as this lasts.

    ValueError where the zip is damaged, is none of the packer's, or has no such folder. What a reader then finds wrong
    is told by the zip's name.
    """
    found = zip_in(path)
    if found is None:
        yield path
        return
    file, inside = found
    with _ended_in_order(), tempfile.TemporaryDirectory(prefix="branchpoint-") as scratch:
        folder = Path(scratch).resolve()
        _unpack(file, folder)
        try:
            yield _inside(folder, file, inside)
        except ValueError as error:
            if str(folder) not in str(error):
                raise
            raise ValueError(str(error).replace(str(folder), str(file))) from None


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM leaves nothing unpacked behind, unless somebody else looks after it already."""
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if free:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def opened_sweep(path: Path) -> Iterator[Path]:
    """As opened(); of a whole zip that holds one sweep, the sweep's folder, in which its verdict lies."""
    with opened(path) as runs:
        is_whole = path.is_file()
        sweeps = [child for child in runs.iterdir() if child.is_dir()] if is_whole else []
        yield sweeps[0] if len(sweeps) == 1 else runs


@contextmanager
def with_networks(path: Path) -> Iterator[Path]:
    """As opened(), for who wants one configuration's networks: of a zip the only one that has them is enough.

    ValueError where it was packed without, or holds several and none is named.
    """
    with opened(path) as run:
        yield run if zip_in(path) is None else _only(run, path)


def _only(run: Path, path: Path) -> Path:
    """The configuration at or below `run` that has networks; `run` itself where it is a fold that has one."""
    if (run / NETWORK).is_file():
        return run
    found = sorted({network.parent.parent for network in run.glob(f"**/fold_*/{NETWORK}")})
    if not found:
        raise ValueError(
            f"{path}: packed without --model, so there is no network in it; pack it again with --model (which adds the "
            "winner's), or name the run folder"
        )
    if len(found) > 1:
        names = ", ".join(str(path / one.relative_to(run)) for one in found)
        raise ValueError(f"{path}: has the networks of {len(found)} configurations; name one of: {names}")
    return found[0]


def _inside(folder: Path, file: Path, inside: Path) -> Path:
    """The folder that was named: from the top, or from the folder of one sweep."""
    above = [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]
    found = [one / inside for one in above if (one / inside).is_dir() and ".." not in inside.parts]
    if len(found) == 1 or (found and found[0] == folder / inside):
        return found[0]
    if found:
        raise ValueError(f"{file}: has {inside} in several sweeps; name one: {', '.join(map(str, found))}")
    there = ", ".join(one.name for one in above[1:])
    raise ValueError(f"{file}: has no folder {inside}; name the zip, or a folder in it ({there})")


def _unpack(file: Path, folder: Path) -> None:
    """All of it, checked, as old as the zip is."""
    again = "get it again, or pack it again: python -m cluster.pack RUNS out.zip"
    try:
        with zipfile.ZipFile(file) as packed:
            entries = packed.infolist()
    except Exception as error:
        raise _damaged(file, error, again) from None
    if not entries or min(entry.header_offset for entry in entries):  # of half a zip a network's own end is found
        raise _damaged(file, ValueError("its end is missing"), again)
    if wrong := _wrong(entries):
        raise ValueError(f"{file}: {wrong}; {again}")
    if full := _no_room(entries, folder):
        raise ValueError(f"{file}: {full}; make room, or set TMPDIR to elsewhere")
    try:
        with zipfile.ZipFile(file) as packed:
            for entry in entries:
                if not entry.is_dir():
                    target = folder / entry.filename
                    make_private(target.parent)
                    with packed.open(entry) as source, open(target, "xb") as copy:
                        shutil.copyfileobj(source, copy)  # which compares the checksum at its end
    except Exception as error:
        raise _damaged(file, error, again) from None
    when_ns = file.stat().st_mtime_ns  # else what is unpacked looks as if somebody trained there now
    for path in folder.rglob("*"):
        os.utime(path, ns=(when_ns, when_ns))


def _damaged(file: Path, error: Exception, again: str) -> Exception:
    """zipfile, zlib and struct each raise their own; what is the system's stays as it is."""
    if is_full(error) or isinstance(error, PermissionError):
        return error
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"{file}: damaged, or no zip of a sweep ({why}); {again}")


def _wrong(entries: Sequence[zipfile.ZipInfo]) -> str | None:
    """What the packer would not have written."""
    names = [entry.filename for entry in entries]
    if len(names) > MOST or len(set(names)) < len(names):
        return "has too many files, or a file twice"
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
            return f"holds {entry.filename!r}, which is a link or a device"
        if not (_FOLDER.fullmatch(entry.filename) if entry.is_dir() else is_known(entry.filename)):
            return f"holds {entry.filename!r}, which no packed sweep has"
        if entry.file_size > LARGEST_FILE:
            return f"holds {entry.filename!r} of {entry.file_size / 1e9:.1f} GB, more than any packed file"
    return None if sum(entry.file_size for entry in entries) <= LARGEST else f"unpacks to more than {LARGEST >> 30} GB"


def _no_room(entries: Sequence[zipfile.ZipInfo], folder: Path) -> str | None:
    wanted, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
    return (
        f"unpacks to {wanted / 1e9:.2f} GB, and {folder.parent} has {free / 1e9:.2f} GB free" if wanted > free else None
    )
