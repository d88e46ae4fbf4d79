"""Questions before something is spent: hours on this machine, hours of GPUs, training on a login node."""

import os
import shutil
import subprocess
import sys

from cluster.costs import Estimate

LONGEST_ANSWER_S = 5


class Refused(ValueError):
    """The user's yes is needed and was not given."""


def confirm(estimated: Estimate, limit_hours: float, yes: bool) -> None:
    """Ask before a long sweep; Refused where the answer is no or nobody can answer."""
    if yes or estimated.hours <= limit_hours:
        return
    ask(
        f"that is more than confirm_above_hours={limit_hours:g}",
        f"give yes=true, or fewer epochs, or a higher confirm_above_hours (now {limit_hours:g})",
    )


def confirm_gpu_hours(hours: float, limit: float, yes: bool) -> None:
    """As confirm(), for what may be charged on a cluster."""
    if not yes and hours > limit:
        ask(
            f"that is more than confirm_above_gpu_hours={limit:g}",
            f"give yes=true, or a shorter site.time_min, or a higher confirm_above_gpu_hours (now {limit:g})",
        )


def check_login_node(yes: bool) -> None:
    """On a Slurm login node say so, and train only with yes=true."""
    if not on_login_node():
        return
    what = "this looks like a Slurm login node (sinfo answers and no job is ours)"
    if not yes:
        raise Refused(f"{what}, which is no place to train on: start it inside a job, or give yes=true")
    print(f"{what}; training on it because of yes=true", flush=True)


def on_login_node() -> bool:
    """Slurm answers here, and this process is in none of its jobs."""
    if "SLURM_JOB_ID" in os.environ or not shutil.which("sinfo"):
        return False
    try:
        answer = subprocess.run(["sinfo", "--version"], capture_output=True, timeout=LONGEST_ANSWER_S, check=False)
        if answer.returncode == 0:
            answer = subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=LONGEST_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def ask(what: str, advice: str) -> None:
    """Refused unless the answer is yes."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused(f"{what}, and there is no terminal to ask at: {advice}")
    try:
        answer = input(f"{what}. Go on? [y/N] ").strip().lower()
    except EOFError:
        answer = ""
    if answer not in ("y", "yes"):
        raise Refused(f"{what}; not started: {advice}")
