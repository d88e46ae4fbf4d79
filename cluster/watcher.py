"""What goes on beside a search: the progress display, and the mirror in MLflow."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import tracking_uris
from cluster.display import Display
from cluster.folds import Configuration

if TYPE_CHECKING:
    from cluster.tracking import Mirror

WATCH_S, MIRROR_S = 1.0, 3.0
"""How often the run folders are looked at, for the display and for the mirror."""


class Watcher:
    """Shows the progress and keeps the mirror up to date while the search runs, from the driver alone.

    In two threads: a tracking server that is slow must not stop the display.
    """

    def __init__(
        self, configurations: Sequence[Configuration], selection: str, mirrored: tuple[str, str, str, Path]
    ) -> None:
        """mirrored: MLflow's address, the sweep's name and question, and the runs folder."""
        self._configurations, self._selection, self._mirrored = configurations, selection, mirrored
        self.uri = mirrored[0]
        self._mirror: Mirror | None = None
        self._warned = False
        self._stop = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        threads = [threading.Thread(target=work, daemon=True) for work in (self._show, self._keep_mirror)]
        for thread in threads:
            thread.start()
        try:
            yield
        except KeyboardInterrupt:
            self._end(threads)
            if self._mirror:
                self._try(lambda mirror: mirror.close(self._configurations))
            raise
        finally:
            self._end(threads)

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        self._stop.set()
        for thread in threads:
            thread.join()

    def _show(self) -> None:
        display = Display(self._configurations, self._selection)
        try:
            while not self._stop.wait(WATCH_S):
                display.update()
            display.update()
        finally:
            display.stop()

    def _keep_mirror(self) -> None:
        while not self._stop.wait(MIRROR_S):
            self._try(lambda mirror: mirror.sync(self._configurations))

    def finish(self, table: Path, answer: str) -> None:
        self._try(lambda mirror: mirror.finish(self._configurations, table, answer))

    def _try(self, work: Callable[["Mirror"], None]) -> None:
        """The mirror is a convenience: what goes wrong with it is said once and stops nothing."""
        try:
            if self._mirror is None:
                from cluster.tracking import Mirror

                self._mirror = Mirror(*self._mirrored)
            work(self._mirror)
        except Exception as error:
            self._mirror = None
            if not self._warned:
                self._warned = True
                why = (str(error).splitlines() or [""])[0]
                what = f"no mirror in MLflow at {self.uri} for now ({type(error).__name__}: {why})"
                told = tracking_uris.without_password(f"launch: {what}; the run folders hold everything")
                print(told, file=sys.stderr)
