"""What the user's own Slurm offers, from two questions: one sinfo, one sacctmgr."""

import getpass
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster import slurm

SINFO = ("sinfo", "--exact", "--noconvert", "--noheader", "--format=%P|%a|%l|%F|%c|%m|%G|%f")
"""--exact: nodes that differ get lines of their own, instead of the least of them and a +."""
SACCTMGR = ("sacctmgr", "--noheader", "--parsable2", "show", "user")
ASSOCIATIONS = ("withassoc", "format=defaultaccount,cluster,account,partition,qos,defaultqos")
ENDLESS = ("infinite", "unlimited", "n/a")


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike."""

    count: int
    away: int
    """how many of them are down, drained or the like now"""
    cores: int
    """of each, as Slurm counts them"""
    memory_mb: int
    """of each"""
    gpus: Mapping[str, int]
    """of each, by their type; the type is empty where Slurm names none"""
    features: tuple[str, ...]
    """what constraint= may ask for"""

    @property
    def gpu_count(self) -> int:
        """GPUs of each, of any type."""
        return sum(self.gpus.values())


@dataclass(frozen=True)
class Partition:
    name: str
    default: bool
    """it is where jobs go that name none"""
    up: bool
    limit_min: int | None
    """longest time of a job, minutes; None: no limit"""
    nodes: tuple[Nodes, ...]

    @property
    def has_gpus(self) -> bool:
        return any(nodes.gpu_count for nodes in self.nodes)


@dataclass(frozen=True)
class Association:
    """An account that the user's jobs may be charged to, and how."""

    account: str
    default: bool
    """it is charged where a job names none"""
    partition: str
    """the only partition that it is for; empty: all"""
    qos: tuple[str, ...]
    default_qos: str
    """what a job gets that names none; empty: Slurm's own choice"""


def partitions() -> list[Partition]:
    """In sinfo's order. ValueError where there is no Slurm or it refuses, slurm.Silent where it does not answer."""
    if not shutil.which("sinfo"):
        raise ValueError("no Slurm on this machine (sinfo is not found); run this on a login node")
    found: dict[str, Partition] = {}
    for line in slurm.ask(*SINFO).splitlines():
        if line.count("|") >= 7:  # others are not of this format: a wrapper's greeting, a cluster's name
            read = partition(line)
            before = found.get(read.name, replace(read, nodes=()))
            found[read.name] = replace(before, nodes=before.nodes + read.nodes)
    return list(found.values())


def partition(line: str) -> Partition:
    """A line of sinfo's: a partition with one of its kinds of nodes. ValueError where it cannot be read."""
    name, available, limit, counts, cores, memory, gres, features = line.strip().split("|", 7)
    _, _, away, count = map(_number, counts.split("/"))  # allocated, idle, other, total
    nodes = Nodes(count, away, _number(cores), _number(memory), gpus(gres), _words(features))
    return Partition(
        name.removesuffix("*"), name.endswith("*"), available == "up", minutes(limit), (nodes,) if count else ()
    )


def minutes(text: str) -> int | None:
    """Of Slurm's times: 30:00 is half an hour, 4:00:00 four, 1-00:00:00 a day, 2-12 two days and a half.

    None where there is no limit; ValueError where it is none of these.
    """
    if text.lower() in ENDLESS:
        return None
    read = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not read:
        raise ValueError(f"sinfo gives the time limit {text!r}, wanted one such as 30:00, 1-00:00:00 or infinite")
    days, first, second = (int(part or 0) for part in read.groups()[:3])
    if read[1] or read[4]:  # of days, or of three numbers, hours come first
        return days * 1440 + first * 60 + second
    return first


def gpus(gres: str) -> dict[str, int]:
    """Type -> number, of `gpu:a100:4(S:0-1),nvme:1`; the type is empty in `gpu:2`. Slices of a GPU are GPUs."""
    found: dict[str, int] = {}
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *parts = entry.strip().split(":")
        if name == "gpu":
            count = int(parts.pop()) if parts and parts[-1].isdigit() else 1
            kind = parts[0] if parts else ""
            found[kind] = found.get(kind, 0) + count
    return {kind: count for kind, count in found.items() if count}


def _number(text: str) -> int:
    """Of 64 or 64+."""
    digits = text.strip().removesuffix("+")
    if not digits.isdigit():
        raise ValueError(f"sinfo gives {text!r}, wanted a number")
    return int(digits)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word and word != "(null)")


def associations() -> list[Association]:
    """Of this user, whatever the partition. ValueError or slurm.Silent says why they are not known."""
    if not shutil.which("sacctmgr"):
        raise ValueError("sacctmgr is not on this machine")
    user = getpass.getuser()
    rows = [line.split("|") for line in slurm.ask(*SACCTMGR, user, *ASSOCIATIONS).splitlines()]
    clusters: dict[str, list[Association]] = {}
    for default, cluster, account, place, qos, default_qos in (row for row in rows if len(row) == 6 and row[2]):
        made = Association(account, account == default, place, _words(qos), default_qos)
        clusters.setdefault(cluster, []).append(made)
    if not clusters:
        raise ValueError(f"the accounting knows no account of {user}")
    first, *others = clusters.values()
    if any(set(other) != set(first) for other in others):  # sinfo does not say which of them this is
        told = "; ".join(f"{name}: {', '.join(sorted({a.account for a in of}))}" for name, of in clusters.items())
        raise ValueError(f"the accounting serves several clusters ({told}) and does not say which of them this is")
    return first
