"""A sweep to hand on, as one zip: what was trained and how well, without images, names and paths.

    python -m cluster.pack RUNS out.zip [--model]     # e.g. python -m cluster.pack runs/branch_location out.zip

RUNS is a sweep's folder or runs/. What leaves is listed, then written:

    metrics.csv    configuration, fold, epoch, name, value: a row per figure, for R, W&B and TensorBoard; of several
                   sweeps a configuration is called sweep/configuration
    <sweep>/       the run folders: settings, epochs, volumes.csv and slices.csv; the verdict; report/

--model adds the networks of each sweep's winner, one a fold (where none is called, of the best), and model.json: how
slices are normalised, their pixel spacing and size. Patients are renumbered, the same everywhere in the zip, in an
order that does not follow from their names. Who has the images can still find a patient by its areas.

These read the zip as they read RUNS; a folder in it is named as in out.zip/branch_location:

    python -m mtl.report out.zip
    python -m mtl.predict out.zip INPUT OUT
    python -m cluster.tracking mirror out.zip [--to URI]

Exit status: 0 done, 2 bad input, 130 interrupted.
"""

import argparse
import os
import shutil
import signal
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from cluster.staged import Staged, stage
from cluster.tracking.folders import sweep_folders
from data_prep.ending import command, interrupt
from data_prep.files import atomic, make_private, partial_of, remove
from mtl import packed

WHEN = (1980, 1, 1, 0, 0, 0)
"""of every file in the zip: when it was packed is nobody's business"""
ABOUT = {
    "config.yaml": "settings",
    "epochs.jsonl": "figures by epoch, and when",
    "usage.jsonl": "cores and memory by epoch",
    "volumes.csv": "of patients, renumbered: distances and overlaps of each volume",
    "slices.csv": "of patients, renumbered: areas of each slice",
    "DONE": "how a fold ended, on what and with which versions; so STOPPED and FAILED, without the reason's words",
    "best.pt": "networks' weights; networks may remember something of those they were trained on",
    "launch": "commit and the store's digest",
    ".mirror-id": "by which MLflow's mirror knows the zip again",
    "metrics.csv": "all figures by epoch as one long table",
}


def pack(runs: Path, out: Path, *, model: bool) -> None:
    """List what leaves, then write it. ValueError or OSError says what is wrong; then there is no `out`."""
    _check(out)
    sweeps = sweep_folders(runs)
    with partial_of(out) as partial:
        try:
            for left_over in partial.iterdir():  # of a killed one
                remove(left_over)
            staged = stage(sweeps, make_private(partial / "runs"), model=model)
            print("\n".join(listed(staged, runs, out)), flush=True)
            write(staged.folder, partial / "zip")
            _check(out)
            os.replace(partial / "zip", out)
        finally:
            remove(partial)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


def _check(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out}: exists already; remove it or name another")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}; make it or name another")


def entries(folder: Path) -> list[str]:
    """Names of what leaves, in their order in the zip."""
    names = (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in names if packed.is_known(name)]


def listed(staged: Staged, runs: Path, out: Path) -> Iterator[str]:
    """Lines: what leaves, by kind; what stays."""
    yield f"{runs} -> {out}. What leaves:"
    yield from (f"  {note}" for note in staged.notes)
    kinds: dict[str, list[int]] = {}
    for name in entries(staged.folder):
        parent, _, last = name.rpartition("/")
        kind = "launch" if parent.endswith("/launches") else f"report/{last}" if parent.endswith("/report") else last
        kinds.setdefault(kind, []).append((staged.folder / name).stat().st_size)
    for kind, sizes in kinds.items():
        yield f"  {kind:<20} {len(sizes):>6} {_size(sum(sizes)):>9}  {ABOUT.get(kind, '')}".rstrip()
    if staged.patients:
        yield f"  {staged.patients} patients, as P001 and so on in an order that does not follow from their names"
    stays = [f"{name} ({count})" if count > 1 else name for name, count in sorted(staged.stays.items())]
    yield "  no images; of what leaves no paths, people, hosts and jobs, and no words of a fold about its failure"
    yield f"What stays: {', '.join(stays) or 'nothing'}"


def _size(bytes_: int) -> str:
    return f"{bytes_ / 1e6:.1f} MB" if bytes_ >= 1e5 else f"{bytes_ / 1e3:.1f} kB"


def write(folder: Path, path: Path) -> None:
    """The zip, for its owner alone; whole under its name or not there."""
    with atomic(path) as temporary:
        temporary.touch(0o600)
        with zipfile.ZipFile(temporary, "w") as made:
            for name in entries(folder):
                info = zipfile.ZipInfo(name, WHEN)
                info.external_attr = (stat.S_IFREG | 0o600) << 16
                info.compress_type = zipfile.ZIP_STORED if name.endswith(".pt") else zipfile.ZIP_DEFLATED
                with open(folder / name, "rb") as source, made.open(info, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target)


@command("pack", "nothing was written")
def main(argv: list[str] | None = None) -> int:
    os.umask(0o077)
    told = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m cluster.pack",
        description=told[0],
        epilog="\n\n".join(told[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="a sweep's folder, or runs/; only read")
    parser.add_argument("out", type=Path, metavar="out.zip", help="the zip, which is made; never overwritten")
    parser.add_argument("--model", action="store_true", help="with the networks of each sweep's winner")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, interrupt)
    pack(args.runs, args.out, model=args.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
