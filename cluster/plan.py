"""What a sweep will cost, from a probe of a few steps; the question above a limit."""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster import executors, worker
from cluster.folds import Configuration
from data_prep import store as cine
from mtl import data

LONGEST_ANSWER_S = 5
MEMORY_USED = 0.9
"""of a GPU's memory, by the folds on it; the rest is for what a probe of a few steps does not see"""


class Refused(ValueError):
    """The user's yes is needed and was not given."""


@dataclass(frozen=True)
class Estimate:
    """Hours on this machine, and what they are made of."""

    hours: float
    folds: int
    slots: int
    memory_share: float = 0.0
    """of a GPU's memory that a fold takes at most; 0 on CPUs"""

    def __str__(self) -> str:
        minutes = self.hours * 60
        spelled = f"{self.hours:.1f} h" if self.hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else "under 1 min"
        return (
            f"this sweep will take about {self.hours:.3f} hours ({spelled}) on this machine: {self.folds} folds "
            f"to train, {self.slots} at a time"
        )


def estimate(configurations: Sequence[Configuration], opened: cine.Store, place: executors.Place) -> Estimate:
    """Probe each kind of network, all slots busy as in the sweep, and add up the epochs still to train.

    ValueError where not even a probe can be trained.
    """
    kinds = {_kind(c): c for c in configurations}
    copies = -(-place.slots // len(kinds))
    store = str(opened.path.resolve())
    probes = {
        kind: [place.submit(worker.run_probe, c.config, store) for _ in range(copies)] for kind, c in kinds.items()
    }
    cost = {kind: _median(tried) for kind, tried in probes.items()}
    patients = data.labelled_patients(opened)
    images = sum(int(p.array("labelled_TZ").sum()) for p in patients)
    seconds, folds = 0.0, 0
    for c in configurations:
        train_s, predict_s, _ = cost[_kind(c)]
        settings, protocol = c.config["train"], c.config["protocol"]
        held_out = 2 if protocol["selection"] == "validation" else 1
        training = images * (1 - held_out / settings["folds"]) * protocol["train_fraction"]
        trained = training * (1 + settings["augment_copies"])
        left = [c.epochs - len(run.epochs()) for run in c.runs if run.outcome() != "DONE"]
        seconds += sum(left) * (trained * train_s + images / settings["folds"] * predict_s)
        folds += len(left)
    slots = min(place.slots, max(folds, 1))
    return Estimate(seconds / slots / 3600, folds, slots, max(share for _, _, share in cost.values()))


def packed(
    configurations: Sequence[Configuration], opened: cine.Store, place: executors.Place
) -> tuple[Estimate, executors.Place]:
    """As many folds at a time on each GPU as its memory holds, where that is no slower; and what it will take."""
    alone = estimate(configurations, opened, place)
    slots = folds_at_a_time(alone.memory_share, place.slots, executors.cores())
    if slots == place.slots:
        return alone, place
    beside = replace(place, slots=slots)
    together = estimate(configurations, opened, beside)
    return (together, beside) if together.hours <= alone.hours else (alone, place)


def folds_at_a_time(memory_share: float, gpus: int, cores: int) -> int:
    """On all GPUs together: so many that each has memory to spare and each fold a core."""
    if not memory_share:
        return gpus
    return gpus * max(1, min(int(MEMORY_USED / memory_share), cores // gpus))


def _kind(configuration: Configuration) -> str:
    """What decides the time of a step."""
    return repr((configuration.config["model"], configuration.config["train"]["batch_size"]))


def _median(probes: Sequence[Any]) -> tuple[float, float, float]:
    try:
        tried = [executors.outcome(probe) for probe in probes]
    except (ArithmeticError, RuntimeError) as error:
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise ValueError(
            f"a probe of a few steps failed: {reason}; try a smaller train.batch_size, model.width or optim.lr"
        ) from error
    train_s, predict_s, shares = zip(*tried, strict=True)
    return statistics.median(train_s), statistics.median(predict_s), max(shares)


def confirm(estimated: Estimate, limit_hours: float, yes: bool) -> None:
    """Ask before a long sweep; Refused where the answer is no or nobody can answer."""
    if yes or estimated.hours <= limit_hours:
        return
    _ask(
        f"that is more than confirm_above_hours={limit_hours:g}",
        f"give yes=true, or fewer epochs, or a higher confirm_above_hours (now {limit_hours:g})",
    )


def confirm_gpu_hours(hours: float, limit: float, yes: bool) -> None:
    """As confirm(), for what may be charged on a cluster."""
    if not yes and hours > limit:
        _ask(
            f"that is more than confirm_above_gpu_hours={limit:g}",
            f"give yes=true, or a shorter site.time_min, or a higher confirm_above_gpu_hours (now {limit:g})",
        )


def check_login_node(yes: bool) -> None:
    """On a Slurm login node say so, and train only with yes=true."""
    if not on_login_node():
        return
    what = "this looks like a Slurm login node (sinfo answers and no job is ours)"
    if not yes:
        raise Refused(f"{what}, which is no place to train on: start it inside a job, or give yes=true")
    print(f"{what}; training on it because of yes=true", flush=True)


def on_login_node() -> bool:
    """Slurm answers here, and this process is in none of its jobs."""
    if "SLURM_JOB_ID" in os.environ or not shutil.which("sinfo"):
        return False
    try:
        answer = subprocess.run(["sinfo", "--version"], capture_output=True, timeout=LONGEST_ANSWER_S, check=False)
        if answer.returncode == 0:
            answer = subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=LONGEST_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _ask(what: str, advice: str) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused(f"{what}, and there is no terminal to ask at: {advice}")
    try:
        answer = input(f"{what}. Go on? [y/N] ").strip().lower()
    except EOFError:
        answer = ""
    if answer not in ("y", "yes"):
        raise Refused(f"{what}; not started: {advice}")
