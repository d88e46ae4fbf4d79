"""`python -m cluster.status` on a large sweep, in a warm process: 200 configurations of five folds, half running still.

Beside it a loop that a user would write (the last line of every epochs.jsonl, and which folds are done), and the floor:
a walk over the folders that reads the same files and looks at nothing. No Slurm: the sweep has no jobs. All files are
in the page cache. Nothing is wanted of it.
"""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cluster import status
from mtl.runfolder import RunFolder
from tests.benchmarks import mirroring
from tests.benchmarks.rows import Beside, Row, interleaved, seconds, short

NEEDED = ("config.yaml", "epochs.jsonl", "DONE")
"""files that the status reads"""


def make(folder: Path, configurations: int, folds: int, epochs: int) -> Path:
    """A sweep's folder; every second configuration has come half way."""
    sweep = mirroring.make(folder, configurations, folds, epochs)
    for configuration in sorted(path for path in sweep.iterdir() if path.is_dir())[1::2]:
        for fold in configuration.iterdir():
            run = RunFolder(fold)
            run.reopen()  # it has no best.pt, so it counts as not done
            run.write_epochs(run.epochs()[: epochs // 2])
    return sweep


def told(sweep: Path) -> str:
    """What the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert status.main([str(sweep)]) == 0
    return printed.getvalue()


def by_hand(sweep: Path) -> str:
    """A loop over all epochs.jsonl."""
    lines = []
    for path in sorted(sweep.glob("*/fold_*/epochs.jsonl")):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        state = "done" if (path.parent / "DONE").exists() else "runs"
        lines.append(f"{path.parent} {state} {len(records)} {records[-1]['dice_val']:.3f}")
    return "\n".join(lines)


def read_bytes(folder: Path | str) -> None:
    """Of every file that the status reads, by the cheapest walk."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                read_bytes(entry.path)
            elif entry.name in NEEDED:
                with open(entry.path, "rb", buffering=0) as file:
                    file.read()


def rows(configurations: int = 200, folds: int = 5, epochs: int = 50, rounds: int = 5) -> Iterator[Row]:
    """ms a fold."""
    count = configurations * folds
    with tempfile.TemporaryDirectory() as home:
        sweep = make(Path(home) / "runs" / "sweep", configurations, folds, epochs)
        ways = {"ours": told, "a loop over all epochs.jsonl": by_hand, "reading the bytes": read_bytes}
        timed = {name: partial(seconds, partial(way, sweep)) for name, way in ways.items()}
        took_s = interleaved(timed, rounds)
        last = told(sweep).splitlines()[-2:]
    ours, loop, floor = ([1000 * s / count for s in values] for values in took_s.values())
    yield Row(
        f"status of {configurations} x {folds} folds, {epochs} epochs",
        "ms a fold",
        ours,
        (Beside("a loop over all epochs.jsonl", loop), Beside("reading the bytes", floor, floor=True)),
        note=f"{short(min(took_s['ours']))} s in all; {last[0]}",
    )
