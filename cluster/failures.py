"""What went wrong with a fold, told apart: the words, and what follows from each.

| failure | what follows |
| --- | --- |
| time, preempted | queued again, `site.requeues` times at most |
| node | the same, elsewhere: the node is left out for this sweep |
| killed | queued again once, and further while it makes progress |
| memory | queued again once, in half batches; then the fold fails, with advice |
| diverged | the fold fails, its siblings go on |
| disk | the fold fails, after it has waited for room |
| code | the fold fails and its siblings are stopped: they would fail of the same |
| lost | no outcome: what became of the other rank decides |
| cancelled, refused, stopped | the fold fails: somebody, or Slurm, did not want it |

What the fold itself says stands in its FAILED file as `failure`. No torch here: the driver reads it, too.
"""

from dataclasses import dataclass

from cluster.slurm import RUNNING, WAITING
from data_prep.files import is_full

DIVERGED = "diverged"
"""the loss, or the area's error, is not a number any more"""
MEMORY = "memory"
"""a device or the job had too little of it for a batch"""
DISK = "disk"
"""full, or the quota used up, for longer than a fold waits"""
CODE = "code"
"""any other error in the fold's Python: a mistake in the code, the settings or the data"""
LOST = "lost"
"""another rank of the fold is gone"""

TIME = "time"
"""the job's time was over"""
PREEMPTED = "preempted"
"""another job took its place"""
NODE = "node"
"""its node failed"""
KILLED = "killed"
"""its process ended without a word, whoever did it"""
CANCELLED = "cancelled"
"""somebody took it out of the queue"""
REFUSED = "refused"
"""Slurm did not take it"""
STOPPED = "stopped"
"""a sibling's error, or the sweep's first, would have been its own"""

OF_FOLDS = (DIVERGED, MEMORY, DISK, CODE, LOST)
"""what a fold's process knows"""
OF_SLURM = (TIME, PREEMPTED, NODE, KILLED, CANCELLED, REFUSED, STOPPED)
"""what happened to it from outside"""

TIME_STATES = {"TIMEOUT", "DEADLINE"}
NODE_STATES = {"NODE_FAIL", "BOOT_FAIL"}
MEMORY_STATES = {"OUT_OF_MEMORY"}
CANCELLED_STATES = {"CANCELLED", "REVOKED"}
UNKNOWN_STATES = WAITING | RUNNING
"""of a job that squeue has forgotten: without accounting nobody says how it ended"""


def of(error: BaseException) -> str:
    """Which failure of a fold an error is. mtl's own errors say it in their attribute `failure`."""
    named = getattr(error, "failure", None)
    if named in OF_FOLDS:
        return str(named)
    if is_full(error):
        return DISK
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, by its name
        return MEMORY
    return CODE


def of_state(state: str) -> str:
    """Which failure it is that Slurm's accounting calls `state`, of a job whose fold said nothing."""
    known = [
        (TIME_STATES, TIME),
        ({"PREEMPTED"}, PREEMPTED),
        (NODE_STATES, NODE),
        (MEMORY_STATES, MEMORY),
        (CANCELLED_STATES, CANCELLED),
    ]
    return next((failure for states, failure in known if state in states), KILLED)


@dataclass(frozen=True)
class End:
    """How a job ended whose fold said nothing."""

    state: str
    """Slurm's"""
    queued: int
    """how often the fold was queued"""
    epochs: int
    """that the job finished"""
    micro_batches: int
    """that it began with"""


def verdict(end: End, requeues: int) -> str | None:
    """None where the fold is to be queued again (after too little memory in half batches); else why it is not, as it
    goes on after `job 12`."""
    failure, why = of_state(end.state), f"ended as {end.state}"
    if failure in (TIME, PREEMPTED, NODE) or end.state in UNKNOWN_STATES:
        times = f" after being queued {end.queued} times" if end.queued > 1 else ""
        return None if end.queued <= requeues else why + times
    if failure == KILLED:  # once without progress may be an accident, twice is none
        return None if end.epochs > 0 or end.queued == 1 else why
    if failure == MEMORY:
        advice = " in half batches too: give more site.mem_gb, or a smaller train.batch_size or model.width"
        return None if end.micro_batches == 1 else why + advice
    return why
