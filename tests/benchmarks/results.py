"""RESULTS.md: the latest table, and below it the earlier ones, each with its date and its machine."""

import os
import platform
import re
from collections.abc import Iterable, Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster import executors
from data_prep.files import write_text
from tests.benchmarks.rows import Row, spread, wanted

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# What was measured

`make bench` writes the table on top; earlier ones stay below it. A figure is the median of its rounds, smallest and
largest in brackets; everything in a row was measured in turn in one run, and `times` is of each round. Beside a peer,
what a user would pick instead, it says how many times as good ours is (2: half the time, or twice the rate); beside a
floor, which nobody can go below, how many times its cost ours has (1: none on top). `wanted` is what the project
claims.
"""
COLUMNS = "| measured | ours | beside | that | times | wanted | |\n| --- | --- | --- | --- | --- | --- | --- |\n"
SHOWN = (
    *("torch", "numpy", "zarr", "ray", "mlflow", "optuna", "submitit", "SimpleITK", "pydicom", "scipy"),
    *("monai", "pytorch-ignite", "itk", "scikit-image", "dynamic-network-architectures", "opencv-python-headless"),
    "connected-components-3d",
)
"""libraries whose versions decide a row; the peers among them are those of the extra `bench`"""
SECTION = re.compile(r"^## ", re.MULTILINE)


def machine() -> str:
    """What it was measured on, in a line, without its name."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*: (.*)", text)
    memory_GiB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cpu = found[1] if found else platform.processor() or platform.machine()
    return f"{executors.cores()} cores ({cpu}), {memory_GiB:.0f} GiB, {platform.system()} {platform.machine()}"


def versions() -> str:
    return f"CPython {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in SHOWN)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


Cells = tuple[str, str, str, str, str, str, str]
"""one a column"""
HELD = {True: "held", False: "**missed**", None: ""}


def cells(row: Row) -> Iterator[Cells]:
    """The row's lines of the table."""
    ours = f"{spread(row.ours)} {row.unit}" if row.ours else f"not measured: {row.missing}"
    name = f"{row.name} ({len(row.ours)} rounds)" if len(row.ours) > 1 else row.name
    yield name, ours, "", "", "", wanted(row), HELD[row.held()]
    for other in row.beside:
        that = f"{spread(other.values)} {row.unit}" if other.values else f"not measured: {other.missing}"
        times = f"{spread(row.times(other))}" if other.values else ""
        name = f"floor: {other.name}" if other.floor else other.name
        yield "", "", name, that, times, wanted(other), HELD[row.held_beside(other)]
    if row.note:
        yield f"*{row.note}*", "", "", "", "", "", ""


def plain(row: Row) -> str:
    """The row as the terminal shows it."""
    return "\n".join("  " * (not line[0]) + "  ".join(filter(None, line)) for line in cells(row))


def table(rows: Iterable[Row]) -> str:
    return COLUMNS + "".join(f"| {' | '.join(line)} |\n" for row in rows for line in cells(row))


def section(day: date, rows: Iterable[Row], minutes: float, left: Iterable[str]) -> str:
    """A dated table. left: the benchmarks that are still to run."""
    unfinished = f" Ended before: {', '.join(left)}." if (left := [*left]) else ""
    return f"## {day}\n\n{machine()}; {versions()}; {minutes:.0f} minutes.{unfinished}\n\n{table(rows)}"


def earlier(path: Path | None = None) -> str:
    """The sections that are there. path: RESULTS."""
    path = path or RESULTS
    text = path.read_text() if path.exists() else ""
    start = SECTION.search(text)
    return text[start.start() :] if start else ""


def write(made: str, before: str, path: Path | None = None) -> None:
    """The section on top of those `before`."""
    write_text(path or RESULTS, "\n".join(part for part in (HEAD, made, before) if part).rstrip("\n") + "\n")
