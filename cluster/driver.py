"""The driver on Slurm: what is checked and shown before anything is queued, and the driver as a small job of its own.

The driver is `launch.py ... driver=here` in a job of one or two cores: it runs Ray Tune and the broker, and trains
nothing. All its state lies in the sweep's folder, so that a driver that is queued again, or started by hand after it
died, goes on.
"""

import getpass
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster import slurm, submission
from cluster.broker import Broker, driver_of, keep_driver
from cluster.executors import ENVIRONMENT
from cluster.folds import Configuration
from cluster.settings import Site
from data_prep.files import write_text
from mtl.runfolder import RunFolder

CPUS = 2
SIGNAL_BEFORE_END_S = 120
STEP_S = 1.0


@dataclass(frozen=True)
class Price:
    """What the folds still to train may cost."""

    folds: int
    gpus: int
    """of one fold"""
    low_h: float
    """of all folds together"""
    high_h: float
    source: str

    @property
    def gpu_hours(self) -> float:
        """At most, as far as is known."""
        return self.high_h * max(self.gpus, 1)

    def __str__(self) -> str:
        unit = "GPU hours" if self.gpus else "hours of CPU jobs"
        factor = max(self.gpus, 1)
        low, high = self.low_h * factor, self.high_h * factor
        span = f"at most {high:.1f}" if low == 0 else f"{low:.2f} to {high:.2f}"
        return f"{self.folds} folds to train, {span} {unit} ({self.source})"


def price(configurations: Sequence[Configuration], site: Site) -> Price:
    """From the seconds of earlier epochs of the same shape where there are any, else what the time limit allows."""
    left = [(c, run) for c in configurations for run in c.runs if run.outcome() != "DONE"]
    gpus = site.nodes * site.gpus_per_node
    runs = configurations[0].folder.parent.parent
    seconds = _earlier_epochs(runs)
    if left and all(_kind(c.config) in seconds for c, _ in left):
        epochs = [(c.epochs - len(run.epochs()), seconds[_kind(c.config)]) for c, run in left]
        low_h, high_h = (sum(n * end(s) for n, s in epochs) / 3600 for end in (min, max))
        return Price(len(left), gpus, low_h, high_h, f"from the epochs of earlier runs in {runs}")
    source = f"the time limit of {site.time_min} minutes for each of them"
    return Price(len(left), gpus, 0.0, len(left) * site.time_min / 60, source)


def _earlier_epochs(runs: Path) -> dict[str, list[float]]:
    """Seconds of the epochs that were trained here, by what decides them."""
    found: dict[str, list[float]] = {}
    for path in runs.glob("*/*/fold_*/config.yaml"):
        run = RunFolder(path.parent)
        try:
            kind = _kind(yaml.safe_load(path.read_text()))
        except (OSError, KeyError, TypeError, yaml.YAMLError):  # of another version, or damaged: no help here
            continue
        found.setdefault(kind, []).extend(record["seconds"] for record in run.epochs())
    return {kind: seconds for kind, seconds in found.items() if seconds}


def _kind(config: Mapping[str, Any]) -> str:
    """What decides the seconds of an epoch, on one kind of machine."""
    train = {key: value for key, value in config["train"].items() if key not in ("epochs", "seed")}
    return repr(
        (
            config["data_digest"],
            sorted(config["model"].items()),
            sorted(train.items()),
            config["protocol"]["selection"],
            config["protocol"]["train_fraction"],
        )
    )


def plan(configurations: Sequence[Configuration], site: Site, sweep: str, sweep_folder: Path) -> str:
    """What would be queued, in Slurm's own words where it answers. ValueError says why it never could run."""
    left = [c for c in configurations if not c.done()]
    lines = [str(price(configurations, site))]
    for c in left:
        folds = [k for k, run in enumerate(c.runs) if run.outcome() != "DONE"]
        lines.append(f"  {c.name}: folds {', '.join(map(str, folds))}")
    if left:
        script = _script(left[0], site, sweep, sweep_folder)
        lines += ["", f"sbatch text of {left[0].name} (the others differ in its name):", "", script]
        lines.append(f"Slurm says: {_tested(script, site, sweep_folder)}")
    return "\n".join(lines)


def check(configurations: Sequence[Configuration], site: Site, sweep: str, sweep_folder: Path) -> None:
    """ValueError, before anything is queued, where there is no Slurm or it would never run the folds' jobs."""
    if not slurm.there():
        raise ValueError("site=slurm: no Slurm on this machine (sbatch is not found); use site=local, or a login node")
    if left := [c for c in configurations if not c.done()]:
        _tested(_script(left[0], site, sweep, sweep_folder), site, sweep_folder)


def _script(first: Configuration, site: Site, sweep: str, sweep_folder: Path) -> str:
    """As all folds of one configuration would be queued."""
    shape = submission.shape(site, sweep, sweep_folder, sweep_folder / "code", first.name)
    return shape.script(len(first.runs))


def _tested(script: str, site: Site, sweep_folder: Path) -> str:
    path = sweep_folder / ".plan.sh"
    write_text(path, script)
    try:
        return slurm.test_only(path)
    except ValueError as error:
        names = ("partition", "nodes", "gpus_per_node", "cpus_per_rank", "mem_gb", "time_min")
        asked = ", ".join(f"{name}={getattr(site, name)}" for name in names)
        raise ValueError(f"Slurm would never run the folds' jobs: {error} ({asked})") from None
    finally:
        path.unlink(missing_ok=True)


def submit(argv: Sequence[str], site: Site, sweep: str, sweep_folder: Path) -> tuple[str, bool]:
    """Queue the driver's job; its id, and whether it was there already."""
    if before := driver_of(sweep_folder):
        known = slurm.jobs().get(before)
        if known and known.alive:
            return before, True
    code = submission.snapshot(sweep_folder)
    script = sweep_folder / "driver.sh"
    write_text(script, script_text(argv, site, sweep, sweep_folder, code), private=True)
    try:
        job = slurm.queue(script)
    except ValueError as error:
        asked = {"driver_time_min": site.driver_time_min, "driver_mem_gb": site.driver_mem_gb, "cores": CPUS}
        limit = ", ".join(f"{key} {value}" for key, value in asked.items())
        raise ValueError(f"Slurm refuses the driver's job: {error} ({limit})") from None
    keep_driver(sweep_folder, job)
    return job, False


def script_text(argv: Sequence[str], site: Site, sweep: str, sweep_folder: Path, code: Path) -> str:
    """The driver's sbatch script."""
    options = {
        "job-name": f"bp-{sweep}-driver",
        "comment": f"branchpoint sweep={sweep} driver owner={getpass.getuser()} {site.comment}".strip(),
        "output": str(sweep_folder / "driver.log"),
        "open-mode": "append",
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(CPUS),
        "mem": f"{round(site.driver_mem_gb * 1024)}MB",
        "time": str(site.driver_time_min),
        "signal": f"B:USR2@{SIGNAL_BEFORE_END_S}",
        "chdir": str(Path.cwd()),
    }
    options |= {key: str(value) for key in ("partition", "account", "qos") if (value := getattr(site, key))}
    lines = [f"#SBATCH --{key}={shlex.quote(value)}" for key, value in options.items()]
    exports = [f"export {key}={shlex.quote(value)}" for key, value in ENVIRONMENT.items()]
    call = [sys.executable, "-u", str(code / "cluster" / "launch.py"), *argv, "driver=here", "yes=true"]
    setup = ["umask 077", *site.setup, *exports, f"export PYTHONPATH={shlex.quote(str(code))}"]
    return "\n".join(["#!/bin/bash", *lines, "#SBATCH --requeue", *setup, f"exec {shlex.join(call)}", ""])


@contextmanager
def brokering(site: Site, sweep: str, sweep_folder: Path) -> Iterator[Broker]:
    """A broker at work beside the search, in a thread of this process."""
    own = slurm.leave_job()
    if own:
        signal.signal(signal.SIGUSR2, lambda *_: _again(own))
    broker = Broker(site, sweep, sweep_folder, submission.snapshot(sweep_folder))
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(broker, stop), daemon=True)
    thread.start()
    try:
        yield broker
    finally:
        stop.set()
        thread.join(timeout=2 * slurm.LONGEST_S)


def _work(broker: Broker, stop: threading.Event) -> None:
    while not stop.wait(STEP_S):
        try:
            broker.step()
        except slurm.Silent as error:
            print(f"driver: {error}; asking again later", file=sys.stderr, flush=True)
            time.sleep(STEP_S)
        except Exception as error:  # a full disk, for a moment; what is due is tried again
            print(f"driver: {type(error).__name__}: {error}; trying again", file=sys.stderr, flush=True)
            time.sleep(10 * STEP_S)


def _again(own: str) -> None:
    """The driver's time limit is near: queue it again, and end."""
    print("driver: near its time limit, queued again", flush=True)
    slurm.requeue(own)
    os._exit(0)
