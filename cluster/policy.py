"""An admin's limits on what a sweep may ask of Slurm, and a user's own, which may only tighten them.

    # /etc/branchpoint/policy.yaml, or the file that site.policy names; every line may be left out
    max_jobs: 200           # jobs of one sweep in the queue at a time, its driver's included
    max_gpus: 16            # GPUs of one sweep at a time
    max_time_min: 1440      # time limit of any job, minutes
    max_array_width: 8      # tasks of one array that may run at a time
    partitions: [gpu, short]

Where both files give a line, the tighter one counts. What a limit cuts is said by `plan=true` and by every launch; what
cannot be cut, such as a partition that is not allowed, is refused.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.site import Site
from mtl.config import between

ADMINS = Path("/etc/branchpoint/policy.yaml")
UNLIMITED = 10**9
CAPS = {
    "max_jobs": "jobs of one sweep in the queue at a time",
    "max_gpus": "GPUs of one sweep at a time",
    "max_time_min": "minutes of a job",
    "max_array_width": "tasks of one array at a time",
}


@dataclass(frozen=True)
class Limit:
    """One line of a policy, and where it comes from."""

    value: Any
    source: str

    def __str__(self) -> str:
        return f"{self.value} ({self.source})"


@dataclass(frozen=True)
class Policy:
    """What is allowed, by name."""

    limits: dict[str, Limit]
    told: tuple[str, ...] = ()
    """lines of the user's file that were looser than the admin's, and do not count"""

    def cap(self, name: str) -> int:
        return int(self.limits[name].value) if name in self.limits else UNLIMITED

    def why(self, name: str) -> str:
        """`max_gpus=16 of /etc/branchpoint/policy.yaml`"""
        return f"{name}={self.limits[name].value} of {self.limits[name].source}"


def read(users: str | None, admins: Path = ADMINS) -> Policy:
    """The admin's limits where there are any, tightened by the user's. ValueError names a line that cannot be."""
    files = [admins] if admins.exists() else []
    files += [Path(users).expanduser()] if users else []
    limits: dict[str, Limit] = {}
    told: list[str] = []
    for file in files:
        for name, value in _lines(file).items():
            mine, before = Limit(value, str(file)), limits.get(name)
            limits[name] = _tighter(before, mine) if before else mine
            if before and _is_looser(before.value, value):
                told.append(f"{name}={value} of {file} does not count: {before} is tighter")
    return Policy(limits, tuple(told))


def _lines(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ValueError(f"policy {file}: cannot be read: {str(error).splitlines()[0]}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"policy {file}: wanted lines of key: value, such as max_gpus: 16")
    for name, value in found.items():
        _check(file, str(name), value)
    return found


def _check(file: Path, name: str, value: Any) -> None:
    if name == "partitions":
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            raise ValueError(f"policy {file}: partitions is {value!r}, wanted a list of names")
        return
    if name not in CAPS:
        raise ValueError(f"policy {file}: unknown key {name!r}, wanted one of: {', '.join([*CAPS, 'partitions'])}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"policy {file}: {name} is {value!r}, wanted a whole number: {CAPS[name]}")
    between(f"policy {file}: {name}", value, 0 if name == "max_gpus" else 1, UNLIMITED)


def _tighter(before: Limit, after: Limit) -> Limit:
    if isinstance(before.value, list):
        both = [name for name in before.value if name in after.value]
        if not both:
            raise ValueError(f"the policies {before.source} and {after.source} have no partition in common")
        return Limit(both, after.source if len(both) < len(before.value) else before.source)
    return after if after.value < before.value else before


def _is_looser(before: Any, value: Any) -> bool:
    return bool(set(value) - set(before)) if isinstance(before, list) else value > before


def applied(policy: Policy, site: Site, folds: int) -> tuple[Site, list[str]]:
    """The site as it may be, and a line for everything that was cut. ValueError for what cannot be cut.

    folds: of one configuration, which are queued together.
    """
    cuts: list[str] = []
    site = _partition(policy, site, cuts)
    _check_fold(policy, site, folds)
    most = policy.cap("max_time_min")
    for name in ("time_min", "driver_time_min"):
        site = _cut(site, name, most, policy, "max_time_min", cuts)
    width = policy.cap("max_array_width")
    if width < -(-folds // site.folds_per_gpu):
        site = _cut(site, "at_a_time", width, policy, "max_array_width", cuts)
    return site, cuts


def _partition(policy: Policy, site: Site, cuts: list[str]) -> Site:
    if "partitions" not in policy.limits:
        return site
    allowed = policy.limits["partitions"].value
    if site.partition is None:
        cuts.append(f"site.partition: {allowed[0]}, the first of {policy.why('partitions')}")
        return dataclasses.replace(site, partition=allowed[0])
    if wrong := [name for name in site.partition.split(",") if name not in allowed]:
        raise ValueError(f"site.partition is {wrong[0]}, wanted one of {policy.why('partitions')}")
    return site


def _check_fold(policy: Policy, site: Site, folds: int) -> None:
    """Where not even one configuration may be queued, or one fold run."""
    gpus = site.nodes * site.gpus_per_node
    if gpus > policy.cap("max_gpus"):
        raise ValueError(f"a fold asks for {gpus} GPUs (nodes x gpus_per_node), over {policy.why('max_gpus')}")
    jobs = -(-folds // site.folds_per_gpu) + 1
    if jobs > policy.cap("max_jobs"):
        raise ValueError(f"a configuration's folds and the driver are {jobs} jobs, over {policy.why('max_jobs')}")


def _cut(site: Site, name: str, most: int, policy: Policy, limit: str, cuts: list[str]) -> Site:
    asked = getattr(site, name)
    if asked is not None and asked <= most:
        return site
    cuts.append(f"site.{name}: {most} instead of {'all' if asked is None else asked} ({policy.why(limit)})")
    changed: dict[str, Any] = {name: most}
    return dataclasses.replace(site, **changed)


def table(policy: Policy, cuts: Sequence[str]) -> list[str]:
    """For plan=true: every limit with the file it comes from, what does not count, what is cut."""
    lines = [f"  {name}: {limit}" for name, limit in policy.limits.items()]
    lines += [*(f"  {line}" for line in policy.told), *(f"  cut: {line}" for line in cuts)]
    return ["limits:", *lines] if lines else []
