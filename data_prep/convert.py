"""Raw cine studies -> the zarr store.

    python -m data_prep.convert RAW STORE [--reader auto] [--workers 1] [--strict] [--dry-run]

RAW is searched at any depth for one of the layouts that are known. A study that cannot be used is set aside
with its reason and the others go on. Killed at any moment, the same command goes on; run again, it converts
what changed. Exit status: 0 all went in, 3 some studies were set aside, 2 wrong arguments, or with --strict a
study that would be set aside, 130 interrupted.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep import display, grid, inventory, jobs, keys, making, readers, report, store
from data_prep.readers.found import Options
from data_prep.study import CLASSES, Case

Track = Callable[[Iterator[jobs.Outcome], int], Iterable[jobs.Outcome]]


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
    options = options or Options()
    listed = inventory.take(raw)
    found = readers.find(listed, reader, options)
    names = keys.assign(path, [case.person for case in found.cases], options.keep_names)
    cases = _keyed(found.cases, names)
    root = store.root_attributes(found.source, (spacing_mm,) * 2, (size,) * 2, CLASSES[: found.classes])
    wanted = grid.Grid((spacing_mm,) * 2, (size,) * 2)

    def all_of(folder: Path | None, done: Mapping[str, Any]) -> report.Summary:
        todo = [
            jobs.Job(key, names[case.person], case, wanted, found.source, found.classes, folder, done.get(key))
            for key, case in cases.items()
        ]
        outcomes = track(jobs.run_all(todo, workers), len(todo))
        return report.Summary(sorted(outcomes, key=lambda o: o.key), listed.unreadable, store.root_size(root))

    if dry_run or strict:
        tried = all_of(None, {})
        if dry_run or not tried.complete:
            return tried
    path.parent.mkdir(parents=True, exist_ok=True)
    with making.making(path, root, cases) as gathered:
        keys.write(path, names)
        done = {key: attributes.get("input_digest") for key, attributes in gathered.patients().items()}
        summary = all_of(gathered.folder, done)
        for outcome in summary.set_aside:
            gathered.drop(outcome.key)
        gathered.publish(changed=any(outcome.result == "converted" for outcome in summary.outcomes))
    report.write(path, listed, found, cases, summary)
    return summary


def _keyed(cases: Sequence[Case], names: Mapping[str, str]) -> dict[str, Case]:
    """Key -> case: the person's, and a number behind it where they have several studies."""
    keyed: dict[str, Case] = {}
    seen: Counter[str] = Counter()
    for case in cases:
        person = names[case.person]
        seen[person] += 1
        keyed[person if seen[person] == 1 else f"{person}-{seen[person]}"] = case
    return keyed


def _label(text: str) -> tuple[str, int]:
    """`myocardium=2` -> class name and value."""
    name, _, value = text.partition("=")
    name = name.strip().replace("_", " ").lower()
    if name not in CLASSES[1:] or not value.strip().isdecimal() or not 0 < int(value) < 65536:
        known = ", ".join(c.replace(" ", "_") for c in CLASSES[1:])
        raise argparse.ArgumentTypeError(f"{text!r}: wanted CLASS=VALUE, CLASS one of {known}, VALUE 1 to 65535")
    return name, int(value)


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


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    begin = time.monotonic()
    try:
        if not 0.1 <= args.spacing_mm <= 20:
            raise ValueError(f"--spacing-mm is {args.spacing_mm}, wanted 0.1 to 20 (mm)")
        store.check_size("--size", args.size)
        if not 1 <= args.workers <= 1024:
            raise ValueError(f"--workers is {args.workers}, wanted 1 to 1024")
        summary = convert(
            args.raw,
            args.store,
            args.spacing_mm,
            args.size,
            reader=args.reader,
            options=Options(dict(args.label), args.keep_names),
            workers=args.workers,
            dry_run=args.dry_run,
            strict=args.strict,
            track=display.progress,
        )
    except jobs.WriteError as error:
        print(
            f"convert: {args.store}: {error.strerror}; nothing is half written and finished studies are kept: "
            "the same command goes on",
            file=sys.stderr,
        )
        return 2
    except (OSError, ValueError, RuntimeError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("convert: interrupted; finished studies are kept: the same command goes on", file=sys.stderr)
        return 130
    return _tell(summary, args, time.monotonic() - begin)


def _tell(summary: report.Summary, args: argparse.Namespace, seconds: float) -> int:
    """Print the summary; the exit status."""
    for line in summary.lines():
        print(line)
    if args.dry_run:
        print(f"{summary.totals()}; would write {summary.written()}: nothing was written")
    elif args.strict and not summary.complete:
        print(f"{summary.totals()}; --strict: nothing was written")
    else:
        what = args.store if summary.used else f"no study can be used, so {args.store} was not written"
        print(f"{summary.totals()}, {summary.written()} written, {seconds:.1f} s: {what}")
        print(f"what became of every file: {report.beside(args.store)}")
    if summary.complete:
        return 0
    return 2 if args.strict else 3


if __name__ == "__main__":
    sys.exit(main())
