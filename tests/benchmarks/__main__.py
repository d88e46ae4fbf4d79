"""The claims of speed, each beside what a user would pick instead and beside the floor.

    python -m tests.benchmarks                  # all; writes tests/benchmarks/RESULTS.md
    python -m tests.benchmarks metrics epoch    # these, shown and not written

Ends with status 1 where a claim is missed or a benchmark failed, with 2 where a name is wrong.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks import catalogue, results
from tests.benchmarks.rows import Row


def alone(name: str, home: Path) -> tuple[list[Row], bool]:
    """catalogue.shown in a process of its own: it inherits no other benchmark's memory or threads."""
    with ProcessPoolExecutor(1, get_context("spawn"), catalogue.end_with_parent) as process:
        return process.submit(catalogue.shown, name, home).result()


def measure(names: Sequence[str]) -> Iterator[tuple[list[Row], bool]]:
    """Of each benchmark its rows, and whether it came to its end."""
    with tempfile.TemporaryDirectory() as home:
        for number, name in enumerate(names, start=1):
            begin = time.monotonic()
            yield alone(name, Path(home))
            print(f"[{number}/{len(names)}] {name}: {time.monotonic() - begin:.0f} s\n", flush=True)


def main(asked: list[str]) -> int:
    if unknown := {*asked} - {*catalogue.BENCHMARKS}:
        there = ", ".join(catalogue.BENCHMARKS)
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {there}", file=sys.stderr)
        return 2
    names = asked or [*catalogue.BENCHMARKS]
    day, begin, before = (
        date.today(),
        time.monotonic(),
        results.earlier(),
    )  # of its beginning: it may end after midnight
    rows: list[Row] = []
    failed: list[str] = []
    print(f"{day}: {results.machine()}; {results.versions()}\n", flush=True)
    for number, (measured, ended) in enumerate(measure(names), start=1):
        rows += measured
        failed += [] if ended else [names[number - 1]]
        if not asked:  # after each one, so that what was measured stays when the rest is cut off
            minutes = (time.monotonic() - begin) / 60
            results.write(results.section(day, rows, minutes, names[number:]), before)
    missed = [row.name for row in rows if row.missed()]
    print(*(f"missed: {name}" for name in missed), *(f"failed: {name}" for name in failed), sep="\n")
    return 1 if missed or failed else 0


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("\nbench: interrupted; without a name, RESULTS.md has what was measured", file=sys.stderr)
        status = 130
    sys.exit(status)
