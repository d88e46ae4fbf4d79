"""Where folds run, as a site's file in sites/ or a user's own says it. No site's name stands in Python."""

import re
from dataclasses import dataclass, field
from typing import Any

from mtl.config import between, choice

KINDS = ("local", "slurm", "node", "ray")
OURS = {
    "partition": "site.partition",
    "account": "site.account",
    "qos": "site.qos",
    "constraint": "site.constraint",
    "nodes": "site.nodes",
    "gres": "site.gpus_per_node",
    "gpus": "site.gpus_per_node",
    "gpus-per-node": "site.gpus_per_node",
    "gpus-per-task": "site.gpus_per_node",
    "ntasks": "site.ranks_per_node",
    "ntasks-per-node": "site.ranks_per_node",
    "cpus-per-task": "site.cpus_per_rank",
    "mem": "site.mem_gb",
    "time": "site.time_min",
    "array": "site.at_a_time",
    "comment": "site.comment",
    "mail-user": "site.mail (for the driver's job alone: not a mail per fold)",
    "mail-type": "site.mail (for the driver's job alone: not a mail per fold)",
}
"""Options of sbatch that have a setting here: each is said in one place, where a policy sees it."""


@dataclass(frozen=True)
class Site:
    kind: str = "local"
    """local: this machine, by a private Ray; slurm: jobs of a Slurm cluster; node: one job on a whole node of it, with
    a Ray of its own; ray: a Ray cluster that somebody else runs (ray.address)"""
    slots: int | None = None
    """folds at a time; default: one per core, or as many on each GPU as its memory holds"""

    partition: str | None = None
    """slurm: where jobs are queued; default: the cluster's own default"""
    account: str | None = None
    """slurm: who is charged"""
    qos: str | None = None
    """slurm: quality of service"""
    constraint: str | None = None
    """slurm: features that nodes must have"""
    nodes: int = 1
    """slurm: nodes of one fold's job"""
    gpus_per_node: int = 1
    """slurm: GPUs of one fold on each node, a rank each; 0: CPUs alone. node: of the whole node"""
    folds_per_gpu: int = 1
    """slurm: folds that share one job of one GPU (or of one rank's cores), a process each; mem_gb is for all of them"""
    ranks_per_node: int = 1
    """slurm: ranks of one fold on each node where there are no GPUs"""
    cpus_per_rank: int = 4
    """slurm: cores of each rank"""
    mem_gb: float = 16.0
    """slurm: memory of one fold on each node, GB"""
    time_min: int = 240
    """slurm: time limit of a job, minutes; a fold that needs longer is requeued and goes on"""
    at_a_time: int | None = None
    """slurm: folds of one configuration that may run at a time (the array's throttle); default: all"""
    requeues: int = 10
    """slurm: how often a fold may be queued again, whatever for"""
    canary: bool = True
    """slurm: before the first array, one job of at most two minutes finds out whether folds could run there"""
    checkpoint_minutes: float | None = None
    """a fold writes its state within an epoch after so many minutes, too; default: at the end of an epoch only"""
    setup: list[str] = field(default_factory=list)
    """slurm: shell lines before Python starts, such as module load"""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """slurm: more of sbatch's options, by their long names"""
    comment: str = ""
    """slurm: what else the jobs' comment says to the admin"""
    mail: str | None = None
    """slurm: who gets a mail when the driver's job ends or fails; folds send none"""
    policy: str | None = None
    """slurm: a file of limits (cluster/policy.py); it may only tighten those of the admin's own file"""
    umask: str = "077"
    """of everything that is written for a sweep, as an octal number; 027 lets the group read"""
    driver_time_min: int = 1440
    """slurm: time limit of the driver's job, minutes; it queues itself again before it is reached"""
    driver_mem_gb: float = 4.0
    """slurm: memory of the driver's job, GB: 2 for the driver with its Ray, 0.15 for each configuration at a time"""
    poll_s: float = 60.0
    """slurm: seconds between two questions for all jobs of the sweep; up to three times as many when little happens"""

    def __post_init__(self) -> None:
        choice("site.kind", self.kind, KINDS)
        if self.slots is not None:
            between("site.slots", self.slots, 1, 10_000)
        between("site.nodes", self.nodes, 1, 1000)
        between("site.gpus_per_node", self.gpus_per_node, 0, 64)
        between("site.ranks_per_node", self.ranks_per_node, 1, 256)
        between("site.cpus_per_rank", self.cpus_per_rank, 1, 1024)
        between("site.mem_gb", self.mem_gb, 0.1, 100_000, "GB")
        between("site.time_min", self.time_min, 1, 525_600, "minutes")
        between("site.driver_time_min", self.driver_time_min, 2, 525_600, "minutes")
        between("site.driver_mem_gb", self.driver_mem_gb, 0.5, 10_000, "GB")
        between("site.requeues", self.requeues, 0, 1000)
        between("site.poll_s", self.poll_s, 1, 3600, "s")
        between("site.folds_per_gpu", self.folds_per_gpu, 1, 64)
        if self.at_a_time is not None:
            between("site.at_a_time", self.at_a_time, 1, 10_000)
        if self.checkpoint_minutes is not None:
            between("site.checkpoint_minutes", self.checkpoint_minutes, 0.01, 100_000, "minutes")
        if not re.fullmatch(r"0?[0-7]{3}", self.umask):
            raise ValueError(f"site.umask is {self.umask!r}, wanted three octal digits in quotes, such as '077'")
        if self.folds_per_gpu > 1 and (self.ranks > 1 or self.gpus_per_node > 1):
            raise ValueError(
                f"site.folds_per_gpu is {self.folds_per_gpu} for folds of {self.ranks} ranks, wanted folds of one: "
                "give site.nodes=1 and site.gpus_per_node=1"
            )
        for key in self.sbatch:
            if instead := OURS.get(key.replace("_", "-")):
                raise ValueError(f"site.sbatch gives {key}, wanted {instead} instead")

    @property
    def ranks(self) -> int:
        """Of one fold."""
        return self.nodes * (self.gpus_per_node or self.ranks_per_node)
