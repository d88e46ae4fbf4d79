"""Folds that must be trained again although they were done: files of theirs are lost, or another code trained them."""

import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from cluster.folds import Configuration
from data_prep.files import remove
from mtl.runfolder import RunFolder
from mtl.version import code_hash


def name(configurations: Sequence[Configuration], same_code: bool) -> None:
    """Say which finished folds lost files; with same_code also which were trained by something else than would train
    them now. These count as not begun from now on, and are removed by discard()."""
    runs = [run for c in configurations for run in c.runs]
    for run in runs:
        if lost := run.lost():
            print(f"{_shown(run)}: lost {', '.join(lost)} (removed, or purged?): trained again", file=sys.stderr)
    if not same_code:
        return
    unlike = {run.path: what for run, what in _unlike([run for run in runs if run.outcome() == "DONE"])}
    for c in configurations:
        for k, run in enumerate(c.runs):
            if run.path in unlike:
                print(f"{_shown(run)}: trained with {unlike[run.path]}: trained again", flush=True)
                c.discarded.add(k)


def discard(configurations: Sequence[Configuration]) -> None:
    """Remove what name() found, once the user has agreed to train it again."""
    for c in configurations:
        for k in sorted(c.discarded):
            remove(c.runs[k].path)
            c.discarded.discard(k)


def _shown(run: RunFolder) -> str:
    return f"{run.path.parent.name}/{run.path.name}"


def _unlike(done: Sequence[RunFolder]) -> list[tuple[RunFolder, str]]:
    """With another code or torch than this one's, or on another device or in another precision than most."""
    wanted = {"code": code_hash(), "torch": version("torch")}
    facts = {run.path: run.facts() for run in done}
    alike = [told for told in facts.values() if all(told.get(name) == value for name, value in wanted.items())]
    for name in ("device", "precision"):
        if counted := Counter(str(told.get(name)) for told in alike or facts.values()):
            wanted[name] = counted.most_common(1)[0][0]
    made = []
    for run in done:
        what = [
            f"{key} {facts[run.path].get(key)}" for key, value in wanted.items() if facts[run.path].get(key) != value
        ]
        if what:
            made.append((run, ", ".join(what)))
    return made
