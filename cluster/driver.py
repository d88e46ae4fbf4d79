"""The driver on Slurm: the sweep's brain as a small job of its own, and the broker at work beside it.

The driver is `launch.py ... driver=here` in a job of two cores: it runs Ray Tune and the broker, and trains nothing.
All its state lies in the sweep's folder, so that a driver that is queued again, or started by hand after it died, goes
on.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cluster import probe, script, settings, slurm, snapshot
from cluster.broker import Broker, Place
from cluster.canary import Answer
from cluster.folds import Configuration, jobs_of
from cluster.policy import UNLIMITED, Policy
from cluster.site import Site
from data_prep.files import make_private, write_text

CPUS = 2
SIGNAL_BEFORE_END_S = 120
STEP_S = 1.0
RAY_GB, TRIAL_GB = 2.0, 0.15
"""memory of the driver with its Ray, and of each configuration at a time"""


def driver_of(sweep_folder: Path) -> str | None:
    """The id of the driver's job; None where none was queued."""
    kept = sweep_folder / "driver.json"
    return str(json.loads(kept.read_text())["job"]) if kept.exists() else None


def at_a_time(site: Site) -> int:
    """Configurations whose trials the driver's memory holds."""
    return max(1, round((site.driver_mem_gb - RAY_GB) / TRIAL_GB))


# As a job.


def text(site: Site, sweep: str, sweep_folder: Path, code: Path) -> str:
    """The driver's batch script."""
    options = {
        "cpus-per-task": CPUS,
        "mem": f"{round(site.driver_mem_gb * 1024)}MB",
        "time": site.driver_time_min,
        "signal": f"B:USR2@{SIGNAL_BEFORE_END_S}",
        "requeue": True,
        **_mail(site),
    }
    return script.text(site, sweep, "driver", code, log_of(sweep_folder), options, _again(code, sweep_folder))


def node_text(site: Site, sweep: str, sweep_folder: Path, code: Path) -> str:
    """The batch script of a whole node (site=node): driver and folds in one job."""
    options = {
        "exclusive": True,
        "mem": 0,  # all of it
        "time": site.time_min,
        "signal": f"B:USR2@{SIGNAL_BEFORE_END_S}",
        "requeue": True,
        **({"gpus-per-node": site.gpus_per_node} if site.gpus_per_node else {}),
        **({"constraint": site.constraint} if site.constraint else {}),
        **_mail(site),
        **site.sbatch,
    }
    return script.text(site, sweep, "node", code, log_of(sweep_folder), options, _again(code, sweep_folder))


def _table_text(site: Site, sweep: str, sweep_folder: Path, code: Path, after: Sequence[str]) -> str:
    """The batch script of the last job where there is no driver: it prints the table, whatever became of the folds."""
    options = {
        "cpus-per-task": 1,
        "mem": f"{round(RAY_GB * 1024)}MB",
        "time": 30,
        "dependency": f"afterany:{':'.join(after)}",
        **_mail(site),
    }
    return script.text(site, sweep, "table", code, log_of(sweep_folder), options, _again(code, sweep_folder))


def _mail(site: Site) -> dict[str, str]:
    return {"mail-user": site.mail, "mail-type": "END,FAIL"} if site.mail else {}


def _again(code: Path, sweep_folder: Path) -> list[str]:
    return [str(code / "cluster" / "launch.py"), f"@{_words(sweep_folder)}"]


def _words(sweep_folder: Path) -> Path:
    """What the job's command line says, for the owner alone: an address may hold a password."""
    return sweep_folder / "driver.args"


def log_of(sweep_folder: Path) -> Path:
    """Where the driver's job writes."""
    return sweep_folder / "driver.log"


def submit(argv: Sequence[str], site: Site, sweep: str, sweep_folder: Path) -> tuple[str, bool]:
    """Queue the driver's job, or the whole node's; its id, and whether it was there already."""
    if before := _alive(sweep_folder):
        return before, True
    code = snapshot.snapshot(sweep_folder)
    _keep_words([*argv, "driver=here", "yes=true"], sweep_folder)
    made = (node_text if site.kind == "node" else text)(site, sweep, sweep_folder, code)
    try:
        return _queue(made, sweep_folder), False
    except slurm.Full:
        raise
    except ValueError as error:
        asked = {"driver_time_min": site.driver_time_min, "driver_mem_gb": site.driver_mem_gb, "cores": CPUS}
        limit = ", ".join(f"{key} {value}" for key, value in asked.items())
        raise ValueError(f"Slurm refuses the driver's job: {error} ({limit})") from None


def _alive(sweep_folder: Path) -> str | None:
    before = driver_of(sweep_folder)
    there = slurm.jobs().get(before) if before else None
    return before if there and there.alive else None


def _keep_words(argv: Sequence[str], sweep_folder: Path) -> None:
    """Files of the user's own are copied: the job may start after they have changed."""
    kept = []
    for word in argv:
        key, _, value = word.partition("=")
        if settings.is_file(key, value):
            copy = make_private(sweep_folder / "given") / Path(value).name
            if copy.resolve() != Path(value).expanduser().resolve():
                write_text(copy, Path(value).expanduser().read_text(encoding="utf-8"))
            word = f"{key}={copy}"
        kept.append(word)
    write_text(_words(sweep_folder), json.dumps(kept) + "\n", private=True)


def _queue(made: str, sweep_folder: Path) -> str:
    path = sweep_folder / "driver.sh"
    write_text(path, made, private=True)
    job = slurm.queue(path)
    write_text(sweep_folder / "driver.json", json.dumps({"job": job}) + "\n")
    return job


# Without one.


def queue_all(
    argv: Sequence[str],
    configurations: Sequence[Configuration],
    site: Site,
    sweep: str,
    sweep_folder: Path,
    store: Path,
    policy: Policy,
) -> tuple[int, str]:
    """driver=none: every array at once, behind the canary, and one job after them all for the table. How many arrays,
    and the last job. ValueError where a policy's numbers want somebody who counts."""
    folds = sum(-(-len(c.runs) // site.folds_per_gpu) for c in configurations)
    if folds + 2 > policy.cap("max_jobs"):
        raise ValueError(f"driver=none: {folds + 2} jobs at once, over {policy.why('max_jobs')}; wanted driver=job")
    site = _shared_out(site, len(configurations), policy)
    code = snapshot.snapshot(sweep_folder)
    after = ""
    if site.canary and configurations:
        first = probe.costliest(configurations)
        answer = probe.known(sweep_folder, probe.key(first, site, code))
        if answer is None or answer.problems:
            after = probe.queue(first, site, sweep, sweep_folder, code, store)
    broker, place = Broker(site, sweep, sweep_folder, code, at_once=True, after=after), Place(str(sweep_folder))
    before = sorted({w.array for w in broker.kept.open()})
    for c in configurations:
        place.start(c.name, jobs_of(c, store))
        broker.step()
    alive = sorted({w.array for w in broker.kept.open()})
    if not alive:
        raise ValueError(f"driver=none: nothing was queued; python -m cluster.status {sweep_folder} says why")
    if (last := _alive(sweep_folder)) and alive == before:
        return len(alive), last  # it waits for all of them already
    _keep_words([*argv, "driver=answer"], sweep_folder)
    return len(alive), _queue(_table_text(site, sweep, sweep_folder, code, alive), sweep_folder)


def _shared_out(site: Site, arrays: int, policy: Policy) -> Site:
    """Each array's throttle, so that all together keep a policy's number of GPUs."""
    gpus = site.nodes * site.gpus_per_node
    if not gpus or policy.cap("max_gpus") == UNLIMITED:
        return site
    each = policy.cap("max_gpus") // gpus // max(arrays, 1)
    if not each:
        raise ValueError(f"driver=none: {arrays} arrays at once, over {policy.why('max_gpus')}; wanted driver=job")
    return replace(site, at_a_time=min(site.at_a_time or each, each))


# At work.


@contextmanager
def brokering(
    configurations: Sequence[Configuration], site: Site, sweep: str, sweep_folder: Path, store: Path, policy: Policy
) -> Iterator[Broker]:
    """A broker at work beside the search, in a thread of this process. First the canary: ValueError where it found
    that folds could not run."""
    catch_end()
    code = snapshot.snapshot(sweep_folder)
    if site.canary:
        ask_canary(configurations, site, sweep, sweep_folder, code, store)
    broker = Broker(
        site, sweep, sweep_folder, code, max_jobs=policy.cap("max_jobs") - 1, max_gpus=policy.cap("max_gpus")
    )
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(broker, stop), daemon=True)
    thread.start()
    try:
        yield broker
    finally:
        stop.set()
        thread.join(timeout=2 * slurm.LONGEST_S)


def ask_canary(
    configurations: Sequence[Configuration], site: Site, sweep: str, sweep_folder: Path, code: Path, store: Path
) -> Answer:
    """Its answer, waited for. ValueError where folds could not run."""
    first = probe.costliest(configurations)
    wanted = probe.key(first, site, code)
    answer = probe.known(sweep_folder, wanted)
    if answer is None or answer.problems:
        job = probe.queue(first, site, sweep, sweep_folder, code, store)
        answer = probe.wait(job, wanted, site, sweep_folder, lambda line: print(line, flush=True))
    probe.believe(answer, sweep_folder)
    print(f"canary: well on {answer.node} ({answer.device}, torch {answer.torch})", flush=True)
    for line in answer.advice:
        print(f"advice: {line}", flush=True)
    return answer


def catch_end(in_order: bool = False) -> str | None:
    """Leave this process's own job, so that what it queues inherits nothing; near its time limit, it is queued again.
    The job's id; None outside of one.

    in_order: the process then ends as on Ctrl-C, with what it has started; else it ends at once.
    """
    own = slurm.leave_job()
    if own:
        signal.signal(signal.SIGUSR2, lambda *_: _queue_again(own, in_order))
    return own


def _queue_again(own: str, in_order: bool) -> None:
    print("driver: near its time limit, queued again", flush=True)
    slurm.requeue(own)
    if not in_order:
        os._exit(0)
    raise KeyboardInterrupt


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
