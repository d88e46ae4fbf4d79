"""What MLflow is to show of a sweep, from its folder alone: sweep > configuration > fold.

Names, params, tags, metrics and times are functions of what stands in the files: a mirror that was kept while the sweep
ran and one that is made from nothing afterwards are the same. No mlflow here.
"""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.tracking import mirrored_views
from cluster.tracking.mirrored_folds import Configuration, Fold, Series
from cluster.tracking.mirrored_tags import Beside, Data, configuration_tags
from mtl.runfolder import RunFolder
from sweeps import asked
from sweeps.asked import Asked, Proposed

PATH_TAG, RUNS_TAG = "branchpoint.path", "branchpoint.runs"
"""Where a run's folder lies below runs/, and which runs/ that is: by these the mirror knows it again."""
PARENT_TAG = "mlflow.parentRunId"
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}
"""of an experiment: the UI asks otherwise whether it is about language models"""
NOTE, LONGEST_NOTE = "mlflow.note.content", 7900
"""A run's description in the UI, in Markdown; and letters that MLflow takes of a tag."""
STATUS = {"DONE": "FINISHED", "STOPPED": "FINISHED", "FAILED": "FAILED"}
QUIET_S, PATIENCE = 900.0, 10
"""a fold that has written nothing for so long, and for so many of its epochs, is not at work"""


@dataclass(frozen=True)
class Shown:
    """A run as MLflow is to show it."""

    path: str
    """below runs/"""
    name: str
    parent: str | None
    """path of the run that it stands below"""
    start_ms: int
    end_ms: int
    """when the last came that is known of it"""
    outcome: str | None
    """DONE, STOPPED or FAILED; None while there is more to do"""
    params: dict[str, str]
    tags: dict[str, str]
    series: Callable[[], Series] = Series
    grown: bool = True
    """whether the series may have changed since it was shown last"""
    data: Data | None = None

    def status(self, *, closed: bool) -> str:
        """MLflow's word. closed: nobody is at work any more."""
        return STATUS.get(self.outcome or "", "KILLED" if closed else "RUNNING")

    def all_tags(self, runs_id: str, parent_id: str | None) -> dict[str, str]:
        """With those by which it is known again, and the one that puts it below its parent."""
        below = {PARENT_TAG: parent_id} if parent_id else {}
        return {PATH_TAG: self.path, RUNS_TAG: runs_id, **self.tags, **below}


class Sweep:
    """A sweep's folder, looked at again and again."""

    def __init__(self, folder: Path, names: Collection[str] | None = None) -> None:
        """names: of the configurations that are looked at, the others have not begun; None: all."""
        self.folder, self._names = folder, names
        self.configurations: list[Configuration] = []
        self.asked = Asked(folder.name)
        self._beside = Beside(folder)
        self._seen: Any = None
        self._grown: set[str] = set()

    def look(self) -> bool:
        """Read what is new; whether anything is. ValueError names a file that is damaged."""
        new = [self._read_asked(), self._beside.look()]
        some = [c for c in self.configurations if self._names is None or c.proposed.name in self._names]
        self._grown = {c.proposed.name for c in some if c.look()}
        return any(new) or bool(self._grown)

    def runs(self) -> list[Shown]:
        """All of them, each after the one that it stands below; none where nothing has begun."""
        folds = [fold for c in self.configurations for fold in c.shown]
        if not folds:
            return []
        common = self._beside.common(self.asked.site)
        made = [self._sweep(folds, common)]
        for number, c in enumerate(self.configurations):
            made += list(self._configuration(c, number, common)) if c.shown else []
        return made

    def at_work(self, *, elsewhere: bool) -> bool:
        """Whether somebody trains: a launch on this machine holds the folder; elsewhere: or an unfinished fold has
        written something not long ago, as those of a cluster do."""
        if _is_held(self.folder):
            return True
        folds = [fold for c in self.configurations for fold in c.shown if fold.outcome is None]
        return elsewhere and any(time.time() - fold.changed_s < max(QUIET_S, PATIENCE * fold.epoch_s) for fold in folds)

    def _read_asked(self) -> bool:
        """sweep.json; without one, the configurations whose folders are there. Whether it has changed."""
        try:
            facts = (self.folder / asked.NAME).stat()
            seen: Any = facts.st_ino, facts.st_mtime_ns
        except FileNotFoundError:
            seen = sorted(str(path) for path in self.folder.glob("*/fold_*"))
        if seen == self._seen:
            return False
        self.asked, self._seen = asked.read(self.folder), seen
        known = {(c.proposed.name, len(c.folds)): c for c in self.configurations}
        wanted = self.asked.configurations
        self.configurations = [known.get((one.name, self.asked.folds)) or self._new(one) for one in wanted]
        return True

    def _new(self, proposed: Proposed) -> Configuration:
        folder = self.folder / proposed.name
        return Configuration(proposed, [Fold(RunFolder(folder / f"fold_{k}"), k) for k in range(self.asked.folds)])

    def _sweep(self, folds: list[Fold], common: dict[str, str]) -> Shown:
        outcomes = {c.outcome for c in self.configurations}
        ended = self.asked.complete and None not in outcomes
        outcome = next((name for name in ("FAILED", "STOPPED", "DONE") if name in outcomes), None) if ended else None
        params = {
            "question": self.asked.question,
            "searched_by": self.asked.by,
            "compared_by": self.asked.metric,
            "selection": self.asked.selection,
            "folds": str(self.asked.folds),
            **{f"space.{key}": json.dumps(values) for key, values in self.asked.space.items()},
        }
        datas = (self._beside.data(c) for c in self.configurations)
        data = next((one for one in datas if one), None)
        digests = {c.config["data_digest"] for c in self.configurations if c.config}
        tags = common | {"level": "sweep", "data_digest": ", ".join(sorted(digests))}
        tags |= {"outcome": outcome} if outcome else {}
        # Without the mark of a heading, whose lines MLflow's page sets into each other.
        tags |= {NOTE: (self._beside.verdict.removeprefix("# ") or self.asked.question)[:LONGEST_NOTE]}
        return Shown(
            self.folder.name, self.folder.name, None, *_span(folds), outcome, params, tags, grown=False, data=data
        )

    def _configuration(self, c: Configuration, number: int, common: dict[str, str]) -> Iterator[Shown]:
        """The configuration, and its folds. Called as in the table: what tells runs apart comes first, since MLflow's
        lists cut names after a dozen letters."""
        path, params, grown = f"{self.folder.name}/{c.proposed.name}", c.params(), c.proposed.name in self._grown
        yield Shown(
            path,
            c.proposed.label,
            self.folder.name,
            *_span(c.shown),
            c.outcome,
            params,
            common | configuration_tags(c) | mirrored_views.run_tags(number),
            c.series,
            grown,
            self._beside.data(c),
        )
        for fold in c.shown:
            yield Shown(
                f"{path}/{fold.run.path.name}",
                f"fold {fold.number}, {c.proposed.label}",
                path,
                *_span([fold]),
                fold.outcome,
                {**params, "fold": str(fold.number)},
                common | self._beside.fold_tags(c, fold) | mirrored_views.run_tags(number, fold.number),
                fold.series,
                grown,
            )


def _is_held(folder: Path) -> bool:
    """Whether a process of this machine holds the folder's lock (data_prep/files.py). Only looked at: who tries to
    take it might be in a launch's way."""
    try:
        facts = (folder / ".lock").stat()
        locks = Path("/proc/locks").read_text().split()
    except OSError:
        return False
    return f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}" in locks


def _span(folds: list[Fold]) -> tuple[int, int]:
    """When the fold of which something came first had begun, and when the last thing came, ms.

    The first to be heard of, not the first to begin: a run's start cannot be changed in MLflow, and a live mirror must
    choose the same.
    """
    _, start_ms = min(fold.first for fold in folds if fold.first)
    return start_ms, max(fold.last_ms for fold in folds)
