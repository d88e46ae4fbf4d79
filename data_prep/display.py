"""Progress of a conversion: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import Progress

from data_prep.jobs import Outcome

LINE_EVERY_S = 10.0


def progress(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    """The outcomes as they come, told to the user on stderr."""
    if sys.stderr.isatty():
        yield from _bar(outcomes, total)
        return
    last = time.monotonic()
    for done, outcome in enumerate(outcomes, start=1):
        yield outcome
        if time.monotonic() - last > LINE_EVERY_S:
            last = time.monotonic()
            print(f"{done} of {total} studies", file=sys.stderr, flush=True)


def _bar(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("converting", total=total)
        for outcome in outcomes:
            yield outcome
            bar.advance(task)
