"""What is offered, in words: a partition with its nodes on one line."""

from collections.abc import Sequence

from cluster.sites.offers import Nodes, Partition


def described(partition: Partition) -> str:
    """Its time limit, and its nodes by their GPUs."""
    marks = [mark for mark, so in (("the cluster's default", partition.default), ("down", not partition.up)) if so]
    mark = f" ({', '.join(marks)})" if marks else ""
    alike: dict[str, list[Nodes]] = {}
    for nodes in partition.nodes:
        alike.setdefault(_gpus(nodes), []).append(nodes)
    kinds = [_kind(gpus, group) for gpus, group in alike.items()] or ["no nodes"]
    return f"{partition.name}{mark}: {limit(partition)}; {'; '.join(kinds)}"


def _kind(gpus: str, group: Sequence[Nodes]) -> str:
    """Nodes of the same GPUs, whose cores and memory may differ."""
    away = sum(n.away for n in group)
    not_now = f" ({away} not usable now)" if away else ""
    memory_mb = sorted(n.memory_mb for n in group)
    memory = span([gb(memory_mb[0]), gb(memory_mb[-1])])
    return f"{many(sum(n.count for n in group), 'node')}{not_now} of {cores(group)}, {memory} GB{gpus}"


def _gpus(nodes: Nodes) -> str:
    return "".join(f", {many(n, 'GPU')}{f' ({kind})' if kind else ''}" for kind, n in sorted(nodes.gpus.items()))


def limit(partition: Partition) -> str:
    return "no time limit" if partition.limit_min is None else f"at most {partition.limit_min} min"


def cores(nodes: Sequence[Nodes]) -> str:
    """Of each of these nodes: `64 cores`, `32 to 64 cores`."""
    counts = sorted(n.cores for n in nodes)
    return many(span([str(counts[0]), str(counts[-1])]), "core")


def gb(memory_mb: float) -> str:
    """In Slurm's GB of 1024 MB: 3.9, or 504."""
    return f"{memory_mb / 1024:.{0 if memory_mb >= 10240 else 1}f}"


def many(count: int | str, what: str) -> str:
    return f"{count} {what}{'' if str(count) == '1' else 's'}"


def span(ends: Sequence[str]) -> str:
    """From the first to the last."""
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"
