"""The canary: a small job that says, before a sweep's folds are queued, whether they could run on a node of that kind.

    python -m cluster.canary ASKED ANSWER

Both are JSON files: `Asked` is read, `Answer` is written, whatever happens. Exit status: 0 without problems, 1 with.

A child process looks (cluster/canary_checks.py) and this one watches it, so there is an answer, too, where a library
kills the process or a file system hangs. Until Python and its packages have been looked at, both files import the
standard library alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cluster import canary_checks as checks
from data_prep.files import write_text

LONGEST_S = 100.0
"""The job has two minutes, and they begin before Python does."""


@dataclass(frozen=True)
class Asked:
    """What the launcher wants to know."""

    config: dict[str, Any]
    """of mtl.config.Config: the configuration of the sweep that takes most"""
    store: str
    """the zarr store's path"""
    sweep_folder: str
    """where folds will write"""
    code: str
    """the copy of this code that jobs import from"""
    key: str
    """comes back in the answer"""
    mem_gb: float
    """memory of a job on one node, GB of 2**30 bytes, for all folds that share it"""
    cpus: int
    """cores of the canary's job"""
    gpus: int = 0
    """of the canary's job; 0: CPUs alone"""
    gpu_share_folds: int = 1
    """folds that share one GPU, or on CPUs one job's memory"""

    @classmethod
    def read(cls, path: Path) -> Asked:
        """FileNotFoundError where there is none, ValueError where it is something else."""
        return cls(**_fields(path, cls))

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")


@dataclass(frozen=True)
class Answer:
    """What was found on the node; empty or 0 what was not reached."""

    key: str
    """as asked"""
    node: str = ""
    """where it ran"""
    problems: tuple[str, ...] = ()
    """why folds could not run there, a line each"""
    advice: tuple[str, ...] = ()
    """what could be asked for instead, a line each"""
    python: str = ""
    """its version"""
    torch: str = ""
    """its version, with the build"""
    device: str = ""
    """the GPU's name, or cpu"""
    gpu_memory_gb: float = 0.0
    """of one GPU, GB of 2**30 bytes"""
    driver: str = ""
    """the NVIDIA driver's version"""
    memory_gb: float = 0.0
    """the probe's largest resident memory, GB of 2**30 bytes"""
    mapped_gb: float = 0.0
    """of it, pages of files (the store, libraries), which the processes of a node share"""
    gpu_memory_share: float = 0.0
    """of the GPU's memory, by the probe; 0 on CPUs"""
    import_s: float = 0.0
    """to import torch"""
    load_s: float = 0.0
    """to open the store, its images unread"""
    train_s: float = 0.0
    """a slice of a training step"""
    predict_s: float = 0.0
    """a slice of a prediction"""
    seconds: float = 0.0
    """all of it, without Python's own start"""

    @classmethod
    def read(cls, path: Path) -> Answer:
        """FileNotFoundError where there is none yet, ValueError where it is something else."""
        found = _fields(path, cls)
        return cls(**{**found, **{name: tuple(found.get(name, ())) for name in ("problems", "advice")}})

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    def told(self, problems: Iterable[str] = (), advice: Iterable[str] = (), **facts: Any) -> Answer:
        """With these lines and facts beside what it says already."""
        return replace(self, problems=(*self.problems, *problems), advice=(*self.advice, *advice), **facts)


def _fields(path: Path, kind: type[Any]) -> dict[str, Any]:
    """What a JSON file says of a dataclass's fields. Others are left out: another version may have written it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name: found[f.name] for f in fields(kind) if f.name in found}
        kind(**known)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not one of the canary's files ({checks.first_line(error)})") from None
    return known


def look(asked: Asked, tell: Callable[[str, Answer], object]) -> None:
    """Every check that makes sense. `tell` hears what comes next and what is known by then; at the end, no next."""
    answer = Answer(asked.key, os.uname().nodename, python=platform.python_version())
    failed: set[checks.Check] = set()
    for check, doing, needs in checks.CHECKS:
        if failed.intersection(needs):
            continue
        tell(doing, answer)
        before = answer
        try:
            answer = check(asked, answer)
        except Exception as error:
            what = _nameless(f"{type(error).__name__}: {checks.first_line(error)}", asked.store)
            answer = answer.told([f"{doing} on node {answer.node}: {what}; a fold would fail of it, too: see the log"])
            traceback.print_exc()
        if answer.problems != before.problems:
            failed.add(check)
    tell("", answer)


def _nameless(line: str, store: str) -> str:
    """Without the patients' keys, which are the names of the store's folders."""
    try:
        keys = [re.escape(entry.name) for entry in os.scandir(store) if entry.is_dir()]
    except OSError:  # then no message has one
        return line
    known = "|".join(sorted(keys, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{known})(?!\w)", "a patient", line) if keys else line


def watched(asked: Asked, longest_s: float = LONGEST_S) -> Answer:
    """The answer of a process that looks; of this one where that dies, or has not ended after longest_s."""
    begin, context = time.monotonic(), multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(asked, theirs), daemon=True)
    child.start()
    theirs.close()
    doing, answer = "starting", Answer(asked.key, os.uname().nodename)
    try:
        while doing and ours.poll(max(0.0, begin + longest_s - time.monotonic())):
            doing, answer = ours.recv()
        if doing:
            child.kill()
            answer = _late(answer, doing, longest_s)
    except EOFError:
        child.join()
        answer = answer.told([f"{doing} on node {answer.node}: {_death(child.exitcode or 0, asked)}"])
    return replace(answer, seconds=time.monotonic() - begin)


def _child(asked: Asked, theirs: Connection) -> None:
    look(asked, lambda doing, answer: theirs.send((doing, answer)))


def _late(answer: Answer, doing: str, longest_s: float) -> Answer:
    line = f"{doing} on node {answer.node} took longer than {longest_s:g} s"
    if doing == checks.READING:  # a large store on a slow disk: a fold reads it once, and then trains
        return answer.told(advice=[f"{line}: no step was tried"])
    return answer.told([f"{line}, wanted it sooner: see whether the node's file systems and GPUs answer"])


def _death(exitcode: int, asked: Asked) -> str:
    """How the process ended before it was done, and what to do."""
    if exitcode >= 0:
        return f"the process ended with status {exitcode}; see the job's log"
    name = signal.Signals(-exitcode).name
    remedies = {
        "SIGKILL": f"most likely for memory: give more than site.mem_gb={asked.mem_gb:g}",
        "SIGILL": "a library wants a newer processor: ask for other nodes (site.constraint)",
    }
    return f"the process was ended by {name}; {remedies.get(name, 'see the log of this job')}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.canary", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("asked", type=Path, metavar="ASKED", help="the JSON file of what is asked")
    parser.add_argument("answer", type=Path, metavar="ANSWER", help="the JSON file to write")
    args = parser.parse_args(argv)
    try:
        answer = watched(Asked.read(args.asked))
    except (OSError, ValueError) as error:
        node = os.uname().nodename
        answer = Answer("", node, (f"what is asked cannot be read on node {node}: {error}",))
    for line in (*answer.problems, *answer.advice):
        print(line)
    try:
        answer.write(args.answer)
    except OSError as error:
        print(f"canary: {args.answer} cannot be written on node {answer.node}: {error.strerror}", file=sys.stderr)
        return 1
    return 1 if answer.problems else 0


if __name__ == "__main__":
    sys.exit(main())
