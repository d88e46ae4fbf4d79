"""What a sweep will cost, from a probe of a few steps on every slot; the question above a limit."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cluster import executors, worker
from cluster.folds import Configuration
from data_prep import store as cine
from mtl.config import Protocol

LONGEST_ANSWER_S = 5


class Refused(ValueError):
    """The user's yes is needed and was not given."""


@dataclass(frozen=True)
class Estimate:
    """Hours on this machine, and what they are made of."""

    hours: float
    folds: int
    slots: int

    def __str__(self) -> str:
        minutes = self.hours * 60
        spelled = (
            f"{self.hours:.1f} h" if self.hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else "under 1 min"
        )
        return (
            f"this sweep will take about {self.hours:.3f} hours ({spelled}) on this machine: {self.folds} folds "
            f"to train, {self.slots} at a time"
        )


def estimate(configurations: Sequence[Configuration], opened: cine.Store, protocol: Protocol) -> Estimate:
    """Probe each kind of network once, all slots busy as in the sweep, and add up the epochs still to train."""
    device = configurations[0].config["train"]["device"]
    kinds = {repr((c.config["model"], c.config["train"]["batch_size"])): c for c in configurations}
    probes = {
        kind: executors.submit(worker.run_probe, c.config, str(opened.path), device=device)
        for kind, c in kinds.items()
    }
    cost = {kind: executors.outcome(probe) for kind, probe in probes.items()}
    images = sum(int(p.array("labelled_TZ").sum()) for p in opened.patients)
    seconds, folds = 0.0, 0
    for kind, c in ((repr((c.config["model"], c.config["train"]["batch_size"])), c) for c in configurations):
        train_s, predict_s = cost[kind]
        settings = c.config["train"]
        held_out = 2 if protocol.selection == "validation" else 1
        trained = images * (1 - held_out / settings["folds"]) * (1 + settings["augment_copies"])
        epoch_s = trained * train_s + images / settings["folds"] * predict_s
        left = [c.epochs - len(run.epochs()) for run in c.runs if run.outcome() != "DONE"]
        seconds += sum(left) * epoch_s
        folds += len(left)
    slots = min(executors.slots(device), max(folds, 1))
    return Estimate(seconds / slots / 3600, folds, slots)


def confirm(estimated: Estimate, limit_hours: float, yes: bool) -> None:
    """Ask before a long sweep; Refused where the answer is no or nobody can answer."""
    if yes or estimated.hours <= limit_hours:
        return
    _ask(
        f"that is more than confirm_above_hours={limit_hours:g}",
        f"give yes=true, or fewer epochs, or a higher confirm_above_hours (now {limit_hours:g})",
    )


def check_login_node(yes: bool) -> None:
    """On a Slurm login node nothing is trained unless the user says so."""
    if not yes and on_login_node():
        _ask(
            "this looks like a Slurm login node (sinfo answers and no job is ours), which is no place to train on",
            "start it inside a job, or give yes=true",
        )


def on_login_node() -> bool:
    """Slurm answers here, and this process is in none of its jobs."""
    if "SLURM_JOB_ID" in os.environ or not shutil.which("sinfo"):
        return False
    try:
        answer = subprocess.run(["sinfo", "--version"], capture_output=True, timeout=LONGEST_ANSWER_S, check=False)
        if answer.returncode == 0:
            answer = subprocess.run(
                ["sinfo", "--noheader"], capture_output=True, timeout=LONGEST_ANSWER_S, check=False
            )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _ask(what: str, advice: str) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused(f"{what}, and there is no terminal to ask at: {advice}")
    if input(f"{what}. Train here? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused(f"{what}; not started: {advice}")
