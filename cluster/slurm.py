"""What this tool asks of Slurm, and the only place where it asks: each a client command with a time limit.

One query answers for all jobs of a sweep. Client commands hang where the controller does not answer: every one ends
after LONGEST_S, and `Silent` says so.
"""

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST_S = 30.0
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED", "STOPPED"}
RUNNING = {"RUNNING", "COMPLETING", "STAGE_OUT", "RESIZING", "SIGNALING"}


class Silent(RuntimeError):
    """Slurm does not answer now; it may later."""


class Full(ValueError):
    """The queue takes no more of this user's jobs now."""


@dataclass(frozen=True)
class Job:
    """What Slurm says of one job, or of one task of an array."""

    id: str
    """123, or 123_4 for the fifth task of an array"""
    state: str
    """as in Slurm, without what may follow it: RUNNING, TIMEOUT, CANCELLED, ..."""
    reason: str = ""
    """why it waits"""
    nodes: str = ""
    name: str = ""

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def alive(self) -> bool:
        """It runs, or will."""
        return self.state in WAITING | RUNNING


def there() -> bool:
    """Whether this machine has Slurm's client commands."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what a job inherits: an sbatch from inside a job would take its parent's settings. SLURM_CONF stays."""
    return {
        key: value
        for key, value in environment.items()
        if key == "SLURM_CONF" or not key.startswith(("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SACCT_"))
    }


def leave_job() -> str | None:
    """Forget in this process what its own job gave it, so that what it queues does not inherit it; its job's id."""
    own = os.environ.get("SLURM_JOB_ID")
    kept = scrubbed(os.environ)
    for key in [key for key in os.environ if key not in kept]:
        del os.environ[key]
    return own


def ask(*command: str, merged: bool = False) -> str:
    """What a client command prints. ValueError with Slurm's own line where it refuses; Silent where it is down."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LONGEST_S, check=False, env=scrubbed(os.environ)
        )
    except subprocess.TimeoutExpired:
        raise Silent(f"{command[0]}: no answer within {LONGEST_S:g} s") from None
    if done.returncode == 0:
        return done.stdout + (done.stderr if merged else "")
    told = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
    told = told.removeprefix(f"{command[0]}: ").removeprefix("error: ")
    raise failure(command[0], told)


def failure(command: str, told: str) -> Exception:
    """What a failed client command means: Silent where nobody answered, else ValueError, a refusal."""
    away = ("Unable to contact", "Connection refused", "timed out")
    full = ("submit limit", "SubmitJobLimit", "SubmitJobsLimit", "MaxSubmitJob")
    kind = Silent if any(word in told for word in away) else Full if any(word in told for word in full) else ValueError
    return kind(f"{command}: {told}")


def jobs() -> dict[str, Job]:
    """Every job of this user that Slurm still knows, by id: one query, however many there are."""
    text = ask(
        "squeue", "--user", getpass.getuser(), "--array", "--noheader", "--states=all", "--format=%i|%T|%r|%N|%j"
    )
    return {job.id: job for job in map(_read, text.splitlines()) if job}


def ended(ids: Iterable[str]) -> dict[str, Job]:
    """The last state of jobs that squeue has forgotten, from the accounting; empty where there is none."""
    wanted = sorted(ids)
    if not wanted or not shutil.which("sacct"):
        return {}
    try:
        text = ask(
            "sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State,NodeList",
            "--jobs", ",".join(wanted),
        )  # fmt: skip
    except ValueError:  # no accounting on this cluster
        return {}
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 2]
    return {row[0]: Job(row[0], _bare(row[1]), "", row[2]) for row in rows if row[0] in wanted}


def gpu_hours(ids: Iterable[str]) -> float | None:
    """GPU hours that these jobs have used, earlier incarnations included; None without accounting."""
    wanted = sorted({job.partition("_")[0] for job in ids})
    if not wanted or not shutil.which("sacct"):
        return None
    try:
        text = ask(
            "sacct", "--allocations", "--duplicates", "--noheader", "--parsable2", "--format=ElapsedRaw,AllocTRES",
            "--jobs", ",".join(wanted),
        )  # fmt: skip
    except (ValueError, Silent):
        return None
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 1]
    return sum(int(seconds or 0) * _gpus(resources) for seconds, resources in rows) / 3600


def _gpus(resources: str) -> int:
    """Of `cpu=4,gres/gpu=2,mem=16G`."""
    found = [part.partition("=")[2] for part in resources.split(",") if part.startswith("gres/gpu=")]
    return int(found[0]) if found else 0


def down(nodes: str) -> list[str]:
    """Those of a list such as n[1-3] that do not work: down, failing, drained, or without an answer (a * behind it)."""
    text = ask("sinfo", "--Node", "--noheader", f"--nodes={nodes}", "--format=%N|%T")
    rows = [line.strip().split("|") for line in text.splitlines() if "|" in line]
    broken = ("down", "fail", "drain", "unknown", "reboot")
    return sorted({name for name, state in rows if state.endswith("*") or state.startswith(broken)})


def leave_out(ids: Sequence[str], nodes: Sequence[str]) -> None:
    """Jobs that wait shall not run on these nodes."""
    if ids:
        ask("scontrol", "update", f"JobId={','.join(ids)}", f"ExcNodeList={','.join(nodes)}")


def submits_from(partition: str | None) -> str:
    """The hosts from which a partition takes jobs, as Slurm lists them; `all` where it takes them from everywhere."""
    text = ask("sinfo", "--noheader", *([f"--partition={partition}"] if partition else []), "--format=%P|%S")
    rows = [line.strip().split("|") for line in text.splitlines() if "|" in line]
    mine = [hosts for name, hosts in rows if partition or name.endswith("*")]
    return next((hosts for hosts in mine if hosts.lower() != "all"), "all")


def test_only(script: Path) -> str:
    """When and where Slurm would start a script, in its own words; ValueError says why never."""
    return ask("sbatch", "--test-only", str(script), merged=True).strip().removeprefix("sbatch: ")


def queue(script: Path) -> str:
    """Queue a script; its job's id."""
    return ask("sbatch", "--parsable", str(script)).strip().partition(";")[0]


def requeue(job: str) -> None:
    ask("scontrol", "requeue", job)


def cancel(ids: Sequence[str]) -> None:
    if ids:
        ask("scancel", *ids)


def _read(line: str) -> Job | None:
    parts = line.strip().split("|", 4)
    return Job(parts[0], _bare(parts[1]), *parts[2:5]) if len(parts) == 5 else None


def _bare(state: str) -> str:
    """`CANCELLED by 0` is CANCELLED."""
    return state.split()[0].rstrip("+") if state else ""
