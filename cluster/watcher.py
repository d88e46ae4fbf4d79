"""What goes on beside a search: the progress display, and the mirror in MLflow."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.display import Display
from cluster.roster import Roster
from cluster.tracking import uris

if TYPE_CHECKING:
    from cluster.tracking.mirror import Mirror

WATCH_S, MIRROR_S = 1.0, 3.0
"""How often the run folders are looked at, for the display and for the mirror."""
FIRST_MIRROR_S = 10.0
"""until the mirror's first look, whose import of MLflow would take a core from the processes that start"""
RESTS = 4
"""times as long as the mirror has worked it rests: training has the cores for itself meanwhile"""


class Watcher:
    """Shows the progress and keeps the mirror up to date while the search runs, from the driver alone.

    In two threads: a tracking server that is slow must not stop the display.
    """

    def __init__(self, proposed: Roster, sweep_folder: Path, selection: str, uri: str) -> None:
        """uri: MLflow's address."""
        self._proposed, self._folder, self._selection, self.uri = proposed, sweep_folder, selection, uri
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
                self._try(lambda mirror: mirror.close())
            raise
        finally:
            self._end(threads)

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        self._stop.set()
        for thread in threads:
            thread.join()

    def _show(self) -> None:
        display = Display(lambda: self._proposed.configurations, self._proposed.coming, self._selection)
        try:
            while not self._stop.wait(WATCH_S):
                display.update()
            display.update()
        finally:
            display.stop()

    def _keep_mirror(self) -> None:
        wait_s = FIRST_MIRROR_S
        while not self._stop.wait(wait_s):
            begin = time.monotonic()
            self._try(lambda mirror: mirror.sync())
            wait_s = max(MIRROR_S, RESTS * (time.monotonic() - begin))

    def finish(self) -> bool:
        """The mirror's last look, with the answer; whether it is all there."""
        return self._try(lambda mirror: mirror.finish())

    def _try(self, work: Callable[["Mirror"], None]) -> bool:
        """The mirror is a convenience: what goes wrong with it is said once and stops nothing."""
        try:
            if self._mirror is None:
                from cluster.tracking.mirror import Mirror

                self._mirror = Mirror(self.uri, self._folder)
            work(self._mirror)
            return True
        except Exception as error:
            self._mirror = None
            if not self._warned:
                self._warned = True
                why = (str(error).splitlines() or [""])[0]
                what = f"no mirror in MLflow at {self.uri} for now ({type(error).__name__}: {why})"
                told = uris.without_password(f"launch: {what}; the run folders hold everything")
                print(told, file=sys.stderr)
            return False
