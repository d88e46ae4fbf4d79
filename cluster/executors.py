"""Where folds run by Ray: on this machine, or on somebody else's cluster. The only file of cluster/ that knows Ray.

A Place is picklable: a trial takes it along and queues its folds through it. Folds are Ray tasks, not actors: tasks
reuse warm worker processes (0.2 s a configuration), new actors import torch again each time (17 s a configuration).
One thread per fold on CPUs: that is the fastest (cluster/sites/local.yaml has the figures), and beside other busy
processes a two-thread step slowed down seven times.
"""

import os
import secrets
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import snapshot, worker
from cluster.site import Site
from data_prep import files
from sweeps import search

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # Ray's daemons listen on every interface, whatever is set
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a share of a GPU can still say that there is one
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_prestart_worker_first_driver": "0",  # processes that nobody asks for: ours have an environment of their own
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # A tracking server that is down may cost seconds, not the minutes of MLflow's own seven tries.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # The C library gives memory back to the system at every step otherwise: a quarter of a step's time.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Of this process and of every process it starts; nothing phones home."""

TUNES = {"PL_DISABLE_FORK": "1"}
"""What Ray Tune sets in its trials' processes."""
OURS = {"BRANCHPOINT_RUNS": "folds"}
"""What is set in our workers. Ray gives a task a warm process only where environments are equal, to the byte, and what
a trial queues inherits the trial's. With Tune's set for all, the workers that were probed train the folds, too."""
FOLD, FOLD_UNITS = "fold", 1_000_000
"""A Ray resource that the folds share evenly, so that only so many run at a time."""
NOBODY = "http://127.0.0.1:9"
"""a proxy that is not there: loopback's port to discard what comes"""
BOUND_BYTES = 2**30
"""that Ray may hand out to tasks that ask for memory; ours do not"""
OBJECT_STORE_BYTES = 80 * 2**20  # the smallest Ray takes: results lie in run folders, nothing passes here


def cores() -> int:
    """Cores that this process may use: its affinity, and its container's quota (cgroup v2)."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(mine, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return mine


@contextmanager
def local_ray(bounded: bool = False) -> Iterator[Path]:
    """A private Ray on this machine; yields a scratch folder that goes with it.

    bounded: it takes no more of the node's memory for its own than it needs, in a job that shares the node or has it
    for a while; Ray else counts the whole machine's.
    """
    # More processes than cores may wait: Ray else ends warm workers while a trial begins. Not without end: each trial
    # that Tune starts in an earlier one's process leaves one behind.
    os.environ |= {**ENVIRONMENT, "RAY_num_workers_soft_limit": str(cores() + 8)}
    with _scratch() as scratch:
        token = scratch / "token"
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.write(secrets.token_hex(32))
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
        import ray
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

        AuthenticationTokenLoader.instance().reset_cache()  # it keeps the first token that a process has read
        tune = threading.Thread(target=search.prepare, daemon=True)
        tune.start()  # beside ray.init, which only waits for its daemons
        try:
            with _shut_in():
                ray.init(
                    address="local",
                    num_cpus=cores(),
                    resources={FOLD: FOLD_UNITS},
                    runtime_env={"env_vars": TUNES},
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=str(scratch / "r"),  # Ray opens its folder to everybody: ours above it stays shut
                    object_store_memory=OBJECT_STORE_BYTES,
                    **({"_memory": BOUND_BYTES} if bounded else {}),
                )
            yield scratch
        finally:
            tune.join()
            ray.shutdown()


@contextmanager
def shared_ray(address: str, sweep_folder: Path) -> Iterator[Path]:
    """A Ray cluster that runs already; yields a folder for Tune that its nodes see. ValueError where there is none.

    Its workers import this code from the copy in the sweep's folder, which they must see under the same path.
    """
    os.environ |= {key: value for key, value in ENVIRONMENT.items() if key != "RAY_AUTH_MODE"}
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
    code = snapshot.snapshot(sweep_folder)
    scratch = files.make_private(sweep_folder / "tune")
    import ray

    environment = {**ENVIRONMENT, **TUNES, "PYTHONPATH": str(code)}
    del environment["RAY_AUTH_MODE"]  # as that cluster has it
    try:
        with _silent():
            ray.init(address=address, runtime_env={"env_vars": environment}, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # each way of not being there has a type of its own
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        token = "" if "RAY_AUTH_MODE" in os.environ else ", and no token was given"
        raise ValueError(f"ray.address={address}: no Ray cluster can be joined there{token}: {told}") from None
    try:
        yield scratch
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _shut_in() -> Iterator[None]:
    """What is started in here finds no way out over HTTP. With its usage statistics off, too, Ray's daemons ask every
    cloud's address for metadata to find out whether they are there, and may report that they report nothing."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOBODY)
    proxies |= {"no_proxy": "", "NO_PROXY": ""}
    before = {key: os.environ.get(key) for key in proxies}
    os.environ |= proxies
    try:
        yield
    finally:
        for key, value in before.items():
            del os.environ[key]
            if value is not None:
                os.environ[key] = value


@contextmanager
def _silent() -> Iterator[None]:
    """Without what Ray's own library writes to standard error: what goes wrong is told in one line."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A short private folder (sockets allow 107 characters); those of killed launches are cleared away."""
    home = files.make_private(Path("/tmp") / f"bp-{os.getuid()}")
    facts = home.lstat()  # a link would lead the clearing below elsewhere
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise OSError(f"{home}: not this user's own private folder; remove it")
    with ExitStack() as held:
        with files.locked(home, wait_s=60):
            _clear(home)
            scratch = Path(tempfile.mkdtemp(dir=home, prefix=""))
            held.enter_context(files.locked(scratch))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _clear(home: Path) -> None:
    """Remove what killed launches left: the folders whose lock nobody holds."""
    for lock in home.glob("*/.lock"):
        try:
            with files.locked(lock.parent):
                shutil.rmtree(lock.parent, ignore_errors=True)
        except (files.Locked, OSError):
            continue  # a launch that runs


@dataclass(frozen=True)
class Place:
    """Where this sweep's folds run: the device that torch found usable, and how many at a time."""

    device: str
    slots: int
    cpus: int = 0
    """cores that a fold asks for, on a Ray of somebody else's; 0: our own Ray counts slots"""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Queue a function for a free slot; the answer is awaited with wait()."""
        needs: dict[str, Any] = {"num_cpus": self.cpus} if self.cpus else {}
        if not self.cpus:
            needs["resources"] = {FOLD: FOLD_UNITS // self.slots}
        if self.device == "cuda":
            needs["num_gpus"] = 1 / -(-self.slots // _gpus())
        return _submit(function, *arguments, **needs)

    def start(self, configuration: str, folds: Sequence[worker.FoldJob]) -> list["Started"]:
        """Queue the folds of a configuration."""
        return [Started(fold.number, self.submit(worker.run_fold, fold)) for fold in folds]

    def ended(self, started: Sequence["Started"], timeout_s: float) -> list[tuple["Started", Exception | None]]:
        """Those that have ended, after at most timeout_s, with what was raised where their process died."""
        done = wait([one.task for one in started], timeout_s)
        return [(one, _error(one.task)) for one in started if one.task in done]


@dataclass(frozen=True)
class Started:
    """A fold that was queued, and Ray's reference to it."""

    number: int
    task: Any


def _error(ended: Any) -> Exception | None:
    try:
        outcome(ended)
    except Exception as error:
        return error
    return None


def place(device: str, slots: int | None) -> Place:
    """Ask a worker, which has torch, what `device` means here; ValueError where it is not usable.

    slots: folds at a time, if the user said so; else one per GPU, or one per core.
    """
    workers = [_submit(worker.usable_device, device) for _ in range(slots or _gpus() or cores())]
    usable, *_ = [outcome(one) for one in workers]  # all have imported torch then, side by side
    if usable == "cuda" and not _gpus():
        raise ValueError("train.device: torch sees a GPU, Ray none (CUDA_VISIBLE_DEVICES?); wanted both or cpu")
    return Place(usable, slots or {"cuda": _gpus(), "mps": 1, "cpu": cores()}[usable])


def shared_place(device: str, site: Site) -> Place:
    """On a Ray of somebody else's: as many folds as its GPUs, or its cores, hold at a time."""
    usable = outcome(_submit(worker.usable_device, device, num_gpus=1 if _gpus() and device != "cpu" else 0))
    import ray

    cores_there = int(ray.cluster_resources().get("CPU", 1))
    most = _gpus() * site.folds_per_gpu if usable == "cuda" else max(1, cores_there // site.cpus_per_rank)
    return Place(usable, min(site.slots or most, most), min(site.cpus_per_rank, cores_there))


def _gpus() -> int:
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def _submit(function: Callable[..., Any], *arguments: Any, **needs: Any) -> Any:
    import ray

    # SPREAD: inside a trial a task would else be captured by the trial's placement group, and refused.
    options = {
        "num_cpus": 0,
        "max_retries": 0,
        "scheduling_strategy": "SPREAD",
        "runtime_env": {"env_vars": OURS},
        **needs,
    }
    return ray.remote(function).options(**options).remote(*arguments)


def wait(pending: Sequence[Any], timeout_s: float) -> list[Any]:
    """Those that have ended, after at most timeout_s."""
    import ray

    done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=timeout_s)
    return list(done)


def outcome(ended: Any) -> Any:
    """What a function returned; raises what it raised, ValueError and the like as they were."""
    import ray

    try:
        return ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"its process ended ({type(error).__name__}): killed, or out of memory") from None
