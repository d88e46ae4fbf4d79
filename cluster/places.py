"""Where a sweep's folds are trained, by site.kind: opened for the length of a search, closed however it ends."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import broker, confirm, costs, driver, executors
from cluster.folds import Place
from cluster.task import Task

SLURM_SLOTS = 50
"""folds of so many are asked for at a time where site.slots does not say; Slurm queues what it cannot run yet"""


@dataclass(frozen=True)
class Room:
    """What a search needs of a place."""

    place: Place
    slots: int
    """folds at a time"""
    most: int | None
    """configurations at a time, at most"""
    scratch: Path
    """for Ray Tune's own state, which is not needed afterwards"""


def opened(task: Task) -> AbstractContextManager[Room]:
    """Where this task's folds run."""
    kinds: dict[str, Callable[[Task], AbstractContextManager[Room]]] = {
        "local": _local,
        "slurm": _slurm,
        "node": _node,
        "ray": _ray,
    }
    return kinds[task.site.kind](task)


@contextmanager
def _local(task: Task) -> Iterator[Room]:
    """A Ray of this machine alone. First the hours, and the question where they are many."""
    with executors.local_ray() as scratch:
        yield _here(task, scratch)


def _here(task: Task, scratch: Path) -> Room:
    wanted = task.settings
    place = executors.place(wanted.train.device, task.site.slots)
    if task.site.slots is None:
        estimate, place = costs.packed(task.left, task.opened, place)
    else:
        estimate = costs.estimate(task.left, task.opened, place)
    print(estimate, flush=True)
    confirm.confirm(estimate, wanted.confirm_above_hours, wanted.yes)
    return Room(place, place.slots, None, scratch)


@contextmanager
def _node(task: Task) -> Iterator[Room]:
    """A Ray of the node that this job has for itself. Near the job's end it is queued again, and Ray ends in order."""
    if driver.catch_end(in_order=True) is None:
        raise ValueError("site=node driver=here trains inside a job of its own: wanted driver=job, which queues it")
    with executors.local_ray(bounded=True) as scratch:
        yield _here(task, scratch)


@contextmanager
def _slurm(task: Task) -> Iterator[Room]:
    """Jobs; here are only a small Ray for the search, and the broker."""
    site = task.site
    brokering = driver.brokering(task.left, site, task.sweep, task.folder, task.store, task.policy)
    with brokering, executors.local_ray(bounded=True) as scratch:
        yield Room(broker.Place(str(task.folder)), site.slots or SLURM_SLOTS, driver.at_a_time(site), scratch)


@contextmanager
def _ray(task: Task) -> Iterator[Room]:
    """A Ray cluster that somebody else runs, and that sees the store and the run folders under the same paths."""
    address = str(task.settings.ray.address)
    with executors.shared_ray(address, task.folder) as scratch:
        place = executors.shared_place(task.settings.train.device, task.site)
        yield Room(place, place.slots, None, scratch)
