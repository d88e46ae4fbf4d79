"""A site file from what Slurm offers: a first choice that works, and every other choice as a comment beside it."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cluster.site import Site
from cluster.sites import words
from cluster.sites.offers import Association, Nodes, Partition
from mtl.config import meanings

WIDTH = 100
MEMORY_USED = 0.9
"""of a node's memory, by jobs; the rest is for the system"""
TIME_MIN = 240
DRIVER_TIME_MIN = 1440
DRIVER_MEM_GB = 4.0
CPU_CORES = 4
CPU_MEM_GB = 16.0
"""of a fold where there are no GPUs, at most"""
OLD = re.compile(r"v100|p100|p40|gtx[ _-]?10\d\d|titan[ _-]?(v|xp?)(?![a-z])", re.IGNORECASE)
"""Volta and Pascal, as the types of GPUs are named"""


@dataclass(frozen=True)
class Entry:
    """A setting of the file."""

    key: str
    value: Any
    """None: left to Slurm, and the line stands as a comment"""
    notes: Sequence[str] = ()
    """what is to be known when it is chosen; a line that begins with a blank is one of a list"""
    example: str = "NAME"
    """what the comment shows where there is no value"""


def chosen(partitions: Sequence[Partition]) -> Partition:
    """The default partition where it is up and has GPUs, else the first such; where there are no GPUs, likewise.

    ValueError where none is up.
    """
    up = [p for p in partitions if p.up and p.nodes]
    if not up:
        listed = ", ".join(p.name for p in partitions) or "none"
        raise ValueError(f"no partition is up (sinfo lists: {listed}); try again when the cluster is back")
    fit = [p for p in up if p.has_gpus] or up
    return next((p for p in fit if p.default), fit[0])


def entries(partitions: Sequence[Partition], accounts: Sequence[Association] | str) -> list[Entry]:
    """The file's settings, in its order. accounts: a text says why they are not known.

    ValueError where no partition is up.
    """
    place = chosen(partitions)
    others = [f"  {words.described(p)}" for p in partitions if p is not place]
    return [
        Entry("kind", "slurm"),
        Entry("partition", place.name, [words.described(place), *(["others:", *others] if others else ["no others"])]),
        *_who(place, accounts),
        _constraint(place),
        *(_gpu_share(place) if place.has_gpus else _cpu_share(place)),
        *_times(place),
    ]


def _who(place: Partition, accounts: Sequence[Association] | str) -> list[Entry]:
    """Who is charged and how: named only where Slurm's own choice may not do."""
    if isinstance(accounts, str):
        return [Entry(key, None, [f"not known, and left to Slurm: {accounts}"]) for key in ("account", "qos")]
    fit = [a for a in accounts if a.partition in ("", place.name)] or accounts
    fit = sorted(fit, key=lambda a: not a.partition)  # for this partition before for all, as Slurm does
    mine = next((a for a in fit if a.default), fit[0])
    others = [name for name in _unique(a.account for a in accounts) if name != mine.account]
    if others:
        standing = "your default account" if mine.default else "one of your accounts"
        where = f" for {mine.partition}" if mine.partition else ""
        account = Entry("account", mine.account, [f"{standing}{where}; others: {', '.join(others)}"])
    else:
        account = Entry("account", None, ["your only account, which Slurm takes by itself"], mine.account)
    return [account, _qos([a for a in fit if a.account == mine.account])]


def _qos(mine: Sequence[Association]) -> Entry:
    """Of one account."""
    names = _unique(name for a in mine for name in a.qos)
    default = next((a.default_qos for a in mine if a.default_qos), None)
    if len(names) <= 1:
        note = "the only one of this account, which Slurm takes by itself" if names else "the accounting names none"
        return Entry("qos", None, [note], *names)
    others = ", ".join(name for name in names if name != default)
    if default:
        return Entry("qos", default, [f"the default of this account; others: {others}"])
    return Entry("qos", None, [f"Slurm takes its own default; this account may use: {others}"], names[0])


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _used(place: Partition) -> list[Nodes]:
    """Those with GPUs where there are any."""
    return [n for n in place.nodes if n.gpu_count] or list(place.nodes)


def _constraint(place: Partition) -> Entry:
    """The features of the nodes that folds would run on."""
    counts: dict[str, int] = {}
    for nodes in _used(place):
        for feature in nodes.features:
            counts[feature] = counts.get(feature, 0) + nodes.count
    if not counts:
        return Entry("constraint", None, [f"the nodes of {place.name} name none"], "FEATURE")
    listed = ", ".join(f"{feature} ({words.many(count, 'node')})" for feature, count in counts.items())
    return Entry("constraint", None, [f"in {place.name}: {listed}"], next(iter(counts)))


def _gpu_share(place: Partition) -> list[Entry]:
    """One GPU and its share of a node: so little that it fits on every node with GPUs."""
    nodes = _used(place)
    cores = max(1, min(n.cores // n.gpu_count for n in nodes))
    memory_mb = min(n.memory_mb / n.gpu_count for n in nodes)
    kinds = _unique(kind for n in nodes for kind in n.gpus)
    notes = [f"at most {max(n.gpu_count for n in nodes)} on a node of {place.name}"]
    if len(kinds) > 1:
        listed = ", ".join(kind or "of no type" for kind in kinds)
        notes.append(f"several types ({listed}): a fold gets any of them, unless constraint says which")
    return [
        Entry("gpus_per_node", 1, [*notes, *_too_old(kinds)]),
        Entry("cpus_per_rank", cores, ["a GPU's share of a node; with more, some of its GPUs could not be used"]),
        Entry("mem_gb", _share_gb(memory_mb), [f"90 % of a GPU's share of a node, which is {words.gb(memory_mb)} GB"]),
    ]


def _too_old(kinds: Sequence[str]) -> list[str]:
    old = ", ".join(kind for kind in kinds if OLD.search(kind))
    what = "PyPI's torch is built with CUDA 13 and has no kernels for it; a cu126 build of torch is needed"
    return [f"{old} (Volta or Pascal): {what}"] if old else []


def _cpu_share(place: Partition) -> list[Entry]:
    """A few cores, and their share of a node's memory."""
    cores = max(1, min(CPU_CORES, *(n.cores for n in place.nodes)))
    memory_mb = min(n.memory_mb * min(1, cores / max(n.cores, 1)) for n in place.nodes)
    return [
        Entry("gpus_per_node", 0, ["no partition that is up has GPUs"]),
        Entry("ranks_per_node", 1),
        Entry("cpus_per_rank", cores, [f"a modest share of a node of {words.cores(place.nodes)}"]),
        Entry("mem_gb", min(CPU_MEM_GB, _share_gb(memory_mb)), ["these cores' share of a node, or less"]),
    ]


def _share_gb(memory_mb: float) -> float:
    """What a job may ask for, down to a tenth of a GB."""
    return max(0.1, int(memory_mb * MEMORY_USED / 1024 * 10) / 10)


def _times(place: Partition) -> list[Entry]:
    """Of folds and of the driver, which goes to the same partition."""
    longest = max(TIME_MIN, DRIVER_TIME_MIN) if place.limit_min is None else place.limit_min
    whole_gb = _share_gb(min(n.memory_mb for n in place.nodes))
    limit = words.limit(place)
    return [
        Entry("time_min", max(1, min(TIME_MIN, longest)), [f"{place.name}: {limit}"]),
        Entry("driver_time_min", max(2, min(DRIVER_TIME_MIN, longest)), [f"it goes to {place.name}, too: {limit}"]),
        Entry("driver_mem_gb", max(0.5, min(DRIVER_MEM_GB, whole_gb))),
    ]


def text(made: Sequence[Entry], name: str, date: str) -> str:
    """The file: each setting with its meaning, what there is to choose from, and the choice."""
    told = meanings(Site)
    head = (
        f"Used as site={name}. Written on {date} by python -m cluster.sites new, from what sinfo and sacctmgr said. "
        "It is yours to change; a setting that is not here has its default (python cluster/launch.py --help). "
        "Other limits, such as those of a qos: plan=true asks Slurm about the jobs themselves."
    )
    blocks = [_comment([head])]
    for entry in made:
        value = entry.example if entry.value is None else entry.value
        line = yaml.safe_dump({entry.key: value}, width=1000).strip()
        comment = _comment([told[entry.key].removeprefix("slurm: "), *entry.notes])
        blocks.append(f"{comment}{'# ' if entry.value is None else ''}{line}\n")
    return "\n".join(blocks)


def _comment(lines: Sequence[str]) -> str:
    """Wrapped, and without control characters, which YAML refuses."""
    made = []
    for line in lines:
        clean = "".join(c if c.isprintable() else "?" for c in line)
        start = "#   " if clean.startswith(" ") else "# "
        more = start + "  " if clean.startswith(" ") else start
        made += textwrap.wrap(
            clean.strip(), WIDTH, initial_indent=start, subsequent_indent=more, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
    return "".join(f"{line}\n" for line in made)
