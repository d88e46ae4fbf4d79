"""The batch scripts of jobs that run one of our own commands: the driver, the canary, the table, a whole node."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import submission
from cluster.site import Site


def text(
    site: Site, sweep: str, what: str, code: Path, log: Path, options: Mapping[str, object], call: Sequence[str]
) -> str:
    """A job `bp-<sweep>-<what>` that runs Python with `call` from the copy of the code. No setting of the user's stands
    in it: these may be secret, and Slurm shows scripts to others."""
    made: dict[str, object] = {
        "job-name": f"bp-{sweep}-{what}",
        "comment": submission.comment(site, sweep, what),
        "output": log,
        "open-mode": "append",
        "nodes": 1,
        "ntasks": 1,
        "chdir": Path.cwd(),
        **{key: value for key in ("partition", "account", "qos") if (value := getattr(site, key))},
        **options,
    }
    lines = [
        f"#SBATCH --{key}" + ("" if value is True else f"={shlex.quote(str(value))}") for key, value in made.items()
    ]
    command = shlex.join([sys.executable, "-u", *call])
    return "\n".join(["#!/bin/bash", *lines, *submission.setup(site, code), f"exec {command}", ""])
