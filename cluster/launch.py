"""The entry: one command asks a sweep's question and prints its answer.

    python cluster/launch.py sweep=branch_location [profile=demo] [data.store=STORE] [model.branch=up2] ...

Exit status: 0 done, 1 a fold failed, 2 bad input, 130 interrupted.
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # `python cluster/launch.py` puts cluster/ first, where its files would hide libraries

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cluster import (
    answer,
    confirm,
    costs,
    demo,
    driver,
    executors,
    folds,
    helptext,
    places,
    plan,
    policy,
    probe,
    prune,
    renewal,
    roster,
    settings,
    slurm,
    snapshot,
    submission,
)
from cluster.folds import Configuration
from cluster.roster import Roster
from cluster.settings import Settings
from cluster.task import Task
from cluster.tracking import uris
from cluster.watcher import Watcher
from data_prep import store as cine
from data_prep.ending import command, interrupt
from data_prep.files import Locked, keep_for, locked, make_private
from mtl import data
from mtl.config import Config, fold_dict, from_dict
from sweeps import search

QUEUES = ("slurm", "node")
"""kinds of site whose jobs are queued"""
ONLY_PRINTS = {"--help", "-h", "--hydra-help", "--version"}
PRUNE, SETTINGS = "--prune", "--settings"
"""flags of ours, beside Hydra's"""
COMPLETES = {"-sc", "--shell-completion"}
COMPOSING = (HydraException, OmegaConfBaseException)


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    sweep: str
    profile: str
    why: str
    given: frozenset[str]
    """keys that were given"""
    settings: Settings
    argv: tuple[str, ...] = ()
    """as given, for the driver's job"""
    prune: bool = False
    """nothing is trained: what does not belong to the sweep any more is removed"""

    @property
    def selection(self) -> str:
        """What the best epochs are chosen on."""
        return self.settings.protocol.selection


def _said(error: Exception) -> str:
    return settings.first_line(error) if isinstance(error, COMPOSING) else str(error)


@command(
    "launch",
    "the same command goes on from the last epoch",
    mistakes=(*COMPOSING, ValueError, OSError, Locked),
    said=_said,
)
def main() -> int:
    """Compose the settings, then run."""
    os.umask(0o077)  # patients' data: what we and our workers write is for the owner alone
    os.environ |= executors.ENVIRONMENT
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise: the one line is ours
    signal.signal(signal.SIGTERM, interrupt)
    request = compose(_words(sys.argv[1:]))
    return run(request) if request else 0


def _words(argv: Sequence[str]) -> list[str]:
    """`@FILE` stands for what a file holds (JSON): how a driver's job gets its command line without showing it."""
    if len(argv) == 1 and argv[0].startswith("@"):
        return [str(word) for word in json.loads(Path(argv[0][1:]).read_text(encoding="utf-8"))]
    return list(argv)


def compose(argv: Sequence[str]) -> Request | None:
    """What the command line asks for; None where Hydra printed something and that was all."""
    settings.register(helptext.screen() if ONLY_PRINTS & set(argv) else "")  # it takes a second
    if SETTINGS in argv:
        print(helptext.settings())
        return None
    prune, argv = PRUNE in argv, [word for word in argv if word != PRUNE]
    if COMPLETES & set(argv):
        sys.argv[1:] = list(argv)
        _composed()
        return None
    if any(word in argv for word in ("-m", "--multirun")):
        raise ValueError("-m is not used here: one command runs the whole sweep; its values stand in its file")
    overrides = [word for word in argv if not word.startswith("-") and ("=" in word or word[:1] in ("+", "~"))]
    flags = [word for word in argv if word not in overrides]
    if ONLY_PRINTS & set(flags):
        given: dict[str, Any] = {"sweep": settings.choices("sweep")[0], "profile": "demo"}
        overrides = [f"{key}={value}" for key, value in given.items()]
    else:
        stray = [word for before, word in pairwise(["", *flags]) if not word.startswith("-") and before[:1] != "-"]
        overrides = [settings.quoted(word) for word in overrides]
        given = settings.check_overrides([*overrides, *stray])
        named = {group: f"{group}={given[group]}" for group in settings.GROUPS if group in given}
        overrides = [named.get(word.partition("=")[0], word) for word in overrides]
    has_store = bool(given.get("data.store"))
    profile = str(given.get("profile") or ("paper" if has_store else "demo"))
    why = "given" if "profile" in given else "data.store is given" if has_store else "no data.store given"
    sys.argv[1:] = [*flags, *overrides, *([] if "profile" in given else [f"profile={profile}"])]
    composed = _composed()
    if composed is None:
        return None
    frozen = settings.freeze(composed)
    return Request(str(given["sweep"]), profile, why, frozenset(given), frozen, tuple(argv), prune)


def _composed() -> DictConfig | None:
    """What Hydra makes of sys.argv; None where it printed something and that was all."""
    composed: list[DictConfig] = []

    @hydra.main(config_path=None, config_name="launch", version_base="1.3")  # type: ignore[untyped-decorator]
    def collect(config: DictConfig) -> None:
        composed.append(config)

    collect()
    return composed[0] if composed else None


def run(request: Request) -> int:
    """Check everything, train what is missing, print the answer."""
    wanted = request.settings
    keep_for(wanted.site.umask)
    made_up = not wanted.data.store
    print(f"profile {request.profile} ({request.why}){': made-up patients' if made_up else ''}", flush=True)
    searched = roster.space_of(wanted, request.given)  # a wrong value is found before any data are made
    # Absolute: Tune lets every trial work in a folder of its own.
    runs = Path(wanted.runs).expanduser().resolve()
    uri = uris.chosen(wanted.tracking.uri, runs)
    limits, cuts = policy.Policy({}), list[str]()
    if wanted.site.kind in QUEUES:
        limits = policy.read(wanted.site.policy)
        site, cuts = policy.applied(limits, wanted.site, wanted.train.folds)
        wanted = replace(wanted, site=site)
    trains_here = wanted.site.kind == "local" and wanted.driver != "answer"
    patients = demo.fitting(wanted.demo, wanted.sweep)
    new_patients = made_up and not demo.store(patients).exists()
    if new_patients and trains_here:  # who trains elsewhere makes them here: that takes seconds
        confirm.check_login_node(wanted.yes)
    opened = cine.open(demo.ensure(patients) if made_up else Path(str(wanted.data.store)).expanduser())
    sweep_folder = runs / request.sweep
    make = partial(roster.configuration, wanted, opened.digest, sweep_folder)
    proposed = Roster(wanted, sweep_folder, searched, make, _setting(request, opened))
    sketch = proposed.sketch()
    data.check(opened, [from_dict(Config, c.config) for c in sketch], wanted.sweep.structures)
    task = Task(wanted, request.sweep, make_private(sweep_folder), sketch, opened, limits, cuts)
    if request.prune:
        with locked(sweep_folder):
            prune.prune(sweep_folder, task.configurations, wanted.yes)
        return 0
    if wanted.site.kind in QUEUES and wanted.driver != "answer":
        plan.check(task)
        if wanted.same_code and wanted.driver != "here":  # before it is decided what is left
            renewal.name(task.configurations, same_code=True)
        if wanted.plan or (task.left and wanted.driver != "here"):  # of what is done, the table stands here at once
            return _plan_or_queue(request, task)
    with locked(sweep_folder):
        _check_folders(task.configurations)
        proposed.write()
        watcher = Watcher(proposed, sweep_folder, request.selection, uri)
        if wanted.driver != "answer":
            renewal.name(task.configurations, wanted.same_code)
        if (task.left or not proposed.exhausted()) and wanted.driver != "answer":
            if trains_here and not new_patients:
                confirm.check_login_node(wanted.yes)
            _record(task)
            _train(task, proposed, watcher)
        return answer.answer(proposed, request.selection, watcher, wanted.tracking.models)


def _check_folders(configurations: Sequence[Configuration]) -> None:
    for c in configurations:
        for number, fold in enumerate(c.runs):
            fold.check(fold_dict(c.config, number))


def _record(task: Task) -> None:
    """What is launched, with what, on which data: in the sweep's folder."""
    told = asdict(task.settings)
    told["tracking"]["uri"] = uris.without_password(str(told["tracking"]["uri"] or ""))
    snapshot.record(task.folder, told, {"path": str(task.store), "digest": task.opened.digest})


def _train(task: Task, proposed: Roster, watcher: Watcher) -> None:
    """Search: the configurations that are not done yet, and those that are still to be proposed."""
    store, ways = task.store, task.settings.sweep
    epochs = task.settings.train.epochs
    first = ways.asha_first or max(1, epochs // 5)
    asha = search.Asha(ways.metric, epochs, first, ways.asha_factor) if ways.asha else None
    with places.opened(task) as room:  # the price was asked
        renewal.discard(task.configurations)
        signal.signal(signal.SIGTERM, interrupt)  # Ray has put its own in its place, which dies with a stack trace
        place = room.place
        proposed.open(room.slots, again=asha is not None)

        def evaluate(tried: Configuration, report: search.Report) -> None:
            folds.evaluate(tried, store, place, report)

        with watcher.watching():
            errors = search.search(proposed, evaluate, room.scratch, most=room.most, asha=asha)
    for error in errors:
        print(f"launch: a trial ended early: {error.strip().splitlines()[-1]}", file=sys.stderr)
    submission.tidy(task.folder)


def _plan_or_queue(request: Request, task: Task) -> int:
    """Slurm: show what would be queued; unless plan=true, queue it and return."""
    wanted, site = task.settings, task.site
    argv = [word for word in request.argv if not word.startswith("same_code=")]  # done here, and once
    _check_folders(task.configurations)
    known = None
    if site.kind == "slurm" and task.left:
        code = snapshot.snapshot(task.folder) if wanted.probe else plan.code(task)
        if wanted.probe:
            known = driver.ask_canary(task.left, site, task.sweep, task.folder, code, task.store)
        else:
            first = probe.costliest(task.left)
            known = probe.known(task.folder, probe.key(first, site, code))
    if wanted.plan:
        print(plan.text(task, known))
        return 0
    cost = task.price(known)
    print(cost, flush=True)
    for line in task.cuts:
        print(f"cut: {line}", flush=True)
    confirm.confirm_gpu_hours(cost.gpu_hours, wanted.confirm_above_gpu_hours, wanted.yes)
    if wanted.same_code:
        with locked(task.folder):
            renewal.discard(task.configurations)
    _record(task)
    costs.keep(task.folder, cost)
    if wanted.driver == "none" or not _driver_may_submit(task):
        _check_driverless(wanted)
        with locked(task.folder):
            arrays, job = driver.queue_all(argv, task.left, site, task.sweep, task.folder, task.store, task.policy)
        print(f"{arrays} arrays queued, and job {job} after them for the table: {driver.log_of(task.folder)}")
    else:
        job, was_there = driver.submit(argv, site, task.sweep, task.folder)
        log = driver.log_of(task.folder)
        print(f"driver: job {job} {'is there already' if was_there else 'queued'}; its log: {log}")
    print(f"follow it:     {sys.executable} -m cluster.status {answer.shown(task.folder)}")
    return 0


def _check_driverless(wanted: Settings) -> None:
    """Without a driver nobody looks on: ValueError where somebody has to."""
    needs = {"sweep.by=optuna": wanted.sweep.by == "optuna", "sweep.asha": wanted.sweep.asha, "racing": wanted.racing}
    if asks := [name for name, holds in needs.items() if holds]:
        raise ValueError(f"driver=none queues all at once, {asks[0]} wants a driver that looks on: wanted driver=job")


def _driver_may_submit(task: Task) -> bool:
    """Whether Slurm takes jobs from the nodes that the driver would run on."""
    if task.site.kind != "slurm":
        return True
    hosts = slurm.submits_from(task.site.partition)
    if hosts != "all":
        print(f"the partition takes jobs from {hosts} alone: driver=none", flush=True)
    return hosts == "all"


def _setting(request: Request, opened: cine.Store) -> str:
    """For what the answer holds: the beginning of its sentence."""
    brief = ", trained briefly" if request.profile == "demo" else ""
    if (structures := len(opened.classes) - 1) > 1:
        brief += f", means over {structures} structures"
    chosen = ", best epoch chosen on the test fold as in the paper" * (request.selection == "test")
    if opened.source == "phantom":
        return f"On made-up patients{brief}{chosen}:"
    patients = len(data.labelled_patients(opened))
    return f"On {patients} patients ({opened.source}), {request.settings.train.epochs} epochs{brief}{chosen}:"


if __name__ == "__main__":
    status = main()
    gc.freeze()  # else Python looks through a million objects before it ends: two seconds
    sys.exit(status)
