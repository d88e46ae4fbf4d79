"""Raw cine studies -> the zarr store.

    python -m data_prep.convert RAW STORE [--reader auto] [--workers 1] [--strict] [--dry-run]

RAW is searched at any depth for one of the layouts that are known. A study that cannot be used is set aside
with its reason and the others go on. Killed at any moment, the same command goes on; run again, it converts
what changed. Exit status: 0 all went in, 3 some studies were set aside, 2 wrong arguments, or with --strict a
study that would be set aside, 130 interrupted.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from data_prep import display, grid, inventory, jobs, keys, making, readers, report, store
from data_prep.ending import WRONG, command
from data_prep.readers.found import Options
from data_prep.study import CLASSES, Case

Track = Callable[[Iterator[jobs.Outcome], int], Iterable[jobs.Outcome]]
KEPT = "finished studies are kept: the same command goes on"


def convert(
    raw: Path,
    path: Path,
    spacing_mm: float = grid.SPACING_MM,
    size: int = grid.SIZE,
    *,
    reader: str = "auto",
    options: Options | None = None,
    workers: int = 1,
    dry_run: bool = False,
    strict: bool = False,
    track: Track = lambda outcomes, _: outcomes,
) -> report.Summary:
    """Convert every study below `raw` into the store `path`, or bring that store up to date.

    dry_run: read and check everything, write nothing. strict: do that first, and write only if nothing would be
    set aside. track: wraps the outcomes to show progress. ValueError where no layout is recognised,
    FileExistsError where `path` is something else, jobs.WriteError where it cannot be written.
    """
    path = path.resolve()  # a link to a store stays a link
    options = options or Options()
    listed = inventory.take(raw)
    found = readers.find(listed, reader, options)
    names = keys.assign(path, [case.person for case in found.cases], options.keep_names)
    cases = _keyed(found.cases, names)
    wanted = grid.Grid((spacing_mm,) * 2, (size,) * 2)
    root = store.root_attributes(found.source, wanted.spacing_mm, wanted.size, CLASSES[: found.classes])

    def all_of(home: Path, folder: Path | None) -> report.Summary:
        todo = [
            jobs.Job(key, names[case.person], case, wanted, found.source, found.classes, folder, home / key)
            for key, case in cases.items()
        ]
        outcomes = track(jobs.run_all(todo, workers), len(todo))
        return report.Summary(sorted(outcomes, key=lambda o: o.key), listed.unreadable, store.root_size(root))

    making.existing(path, root, cases)  # refused before anything is read
    if dry_run or strict:
        tried = all_of(path, None)
        if dry_run or not tried.complete:
            return tried
    with making.making(path, root, cases) as gathered:
        if not options.keep_names:
            keys.write(path, names)
        summary = all_of(gathered.folder, gathered.folder)
        for outcome in summary.set_aside:
            gathered.drop(outcome.key)
        gathered.publish(changed=any(outcome.result == "converted" for outcome in summary.outcomes))
    report.write(path, listed, found, cases, summary)
    return summary


def _keyed(cases: Sequence[Case], names: Mapping[str, str]) -> dict[str, Case]:
    """Key -> case: the person's, and a number behind it where they have several studies."""
    keyed: dict[str, Case] = {}
    taken = {*names.values()}
    seen: Counter[str] = Counter()
    for case in cases:
        key = person = names[case.person]
        seen[person] += 1
        while seen[person] > 1 and (key := f"{person}-{seen[person]}") in taken:
            seen[person] += 1
        taken.add(key)
        keyed[key] = case
    return keyed


def _label(text: str) -> tuple[str, int]:
    """`myocardium=2` -> class name and value."""
    name, _, value = text.partition("=")
    name = name.strip().replace("_", " ").lower()
    if name not in CLASSES[1:] or not value.strip().isdecimal() or not 0 < int(value) < 65536:
        known = ", ".join(c.replace(" ", "_") for c in CLASSES[1:])
        raise argparse.ArgumentTypeError(f"{text!r}: wanted CLASS=VALUE, CLASS one of {known}, VALUE 1 to 65535")
    return name, int(value)


def _once_each(labels: Sequence[tuple[str, int]]) -> dict[str, int]:
    if twice := next((name for name, count in Counter(name for name, _ in labels).items() if count > 1), None):
        raise ValueError(f"--label gives {twice} twice, wanted one value for each class")
    return dict(labels)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m data_prep.convert",
        description=(__doc__ or "").split("\n")[0],
        epilog="Exit status: 0 all went in, 3 studies were set aside, 2 wrong arguments or --strict, 130 interrupted.",
    )
    made.add_argument("raw", type=Path, metavar="RAW", help="folder with the archive, at any depth, or a table")
    made.add_argument("store", type=Path, metavar="STORE", help="the zarr store to make or to bring up to date")
    made.add_argument(
        "--reader", choices=["auto", *readers.READERS], default="auto", help="which layout RAW has (default: look)"
    )
    made.add_argument("--workers", type=int, default=1, metavar="N", help="processes, a study each (default 1)")
    made.add_argument("--strict", action="store_true", help="write nothing if any study would be set aside")
    made.add_argument("--dry-run", action="store_true", help="read and check everything, say what would be written")
    made.add_argument(
        "--label", type=_label, action="append", default=[], metavar="CLASS=VALUE", help="a class's value in own masks"
    )
    made.add_argument("--keep-names", action="store_true", help="own names as keys, instead of P001, P002, ...")
    made.add_argument("--spacing-mm", type=float, default=grid.SPACING_MM, help="pixel size (default %(default)s)")
    made.add_argument("--size", type=int, default=grid.SIZE, help="rows and columns (default %(default)s)")
    return made


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@command("convert", KEPT, mistakes=(OSError, ValueError, RuntimeError), said=_said)
def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    begin = time.monotonic()
    if not 0.1 <= args.spacing_mm <= 20:
        raise ValueError(f"--spacing-mm is {args.spacing_mm}, wanted 0.1 to 20 (mm)")
    store.check_size("--size", args.size)
    if not args.store.resolve().name:
        raise ValueError(f"store {args.store}: is no name for a folder of its own")
    if not 1 <= args.workers <= 1024:
        raise ValueError(f"--workers is {args.workers}, wanted 1 to 1024")
    try:
        summary = convert(
            args.raw,
            args.store,
            args.spacing_mm,
            args.size,
            reader=args.reader,
            options=Options(_once_each(args.label), args.keep_names),
            workers=args.workers,
            dry_run=args.dry_run,
            strict=args.strict,
            track=display.progress,
        )
    except jobs.WriteError as error:
        what = f"{error.strerror}; nothing is half written and {KEPT}"
        raise jobs.WriteError(error.errno, what, str(args.store)) from error
    try:
        _tell(summary, args, time.monotonic() - begin)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody listens any more; what was done is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if summary.complete:
        return 0
    return WRONG if args.strict else 3


def _tell(summary: report.Summary, args: argparse.Namespace, seconds: float) -> None:
    for line in summary.lines():
        print(line)
    if args.dry_run:
        print(f"{summary.totals()}; would write {summary.written()}: nothing was written")
    elif args.strict and not summary.complete:
        print(f"{summary.totals()}; --strict: nothing was written")
    else:
        left = "was left as it is" if args.store.exists() else "was not written"
        what = args.store if summary.used else f"no study can be used, so {args.store} {left}"
        print(f"{summary.totals()}, {summary.written()} written, {seconds:.1f} s: {what}")
        print(f"what became of every file: {report.beside(args.store)}")


if __name__ == "__main__":
    sys.exit(main())
