"""A site file for the user's own Slurm, asked of Slurm itself: one sinfo, one sacctmgr.

    python -m cluster.sites new [FILE]     # FILE: my-site.yaml, unless named; then site=my-site.yaml

Exit status: 0, or 2 for bad input, a file that exists, no Slurm or one that does not answer.
"""

import argparse
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cluster import settings, slurm
from cluster.sites import draft, offers
from cluster.sites.draft import Entry
from cluster.sites.offers import Association
from data_prep.ending import WRONG, command
from data_prep.files import write_text

LAUNCH = "python cluster/launch.py sweep=branch_location data.store=STORE site="


def new(path: Path) -> list[Entry]:
    """Write a site file; its settings. ValueError where the file cannot be, or there is no Slurm with a partition that
    is up; slurm.Silent where it does not answer. The file is whole or not there."""
    check(path)
    made = draft.entries(offers.partitions(), accounts())
    try:
        write_text(path, draft.text(made, path.name, time.strftime("%Y-%m-%d")))
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None
    return made


def check(path: Path) -> None:
    """ValueError, before Slurm is asked, where the file cannot be written or site= would not take it."""
    if path.is_symlink() or path.exists():
        raise ValueError(f"{path} exists; give another name, or remove it first")
    if path.suffix not in (".yaml", ".yml") or not re.fullmatch(r"[A-Za-z][\w-]*", path.stem, re.ASCII):
        raise ValueError(f"{path}: wanted a name of letters, digits, - and _ that ends in .yaml, such as my-site.yaml")
    if path.stem in settings.choices("site"):
        raise ValueError(f"{path}: site={path.stem} is there already; give another name, such as my-site.yaml")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no folder {path.parent}; make it first")


def accounts() -> Sequence[Association] | str:
    """Of this user; or why they are not known: a site file does without them."""
    try:
        return offers.associations()
    except (OSError, ValueError, slurm.Silent) as error:
        return str(error)


def told(path: Path, made: Sequence[Entry]) -> str:
    """What was written, and what to do next."""
    set_here = ", ".join(f"{entry.key}={entry.value}" for entry in made if entry.value is not None)
    launch = LAUNCH + shlex.quote(str(path))
    lines = [
        f"{path} written: {set_here}",
        "The other choices stand in it as comments. See what would be queued, then queue it:",
        f"    {launch} plan=true",
        f"    {launch}",
    ]
    return "\n".join(lines)


def _said(error: Exception) -> str:
    return f"{error}; try again when Slurm answers" if isinstance(error, slurm.Silent) else str(error)


@command("sites", "nothing was written", mistakes=(OSError, ValueError, slurm.Silent), said=_said)
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.sites", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", metavar="new")
    of_new = commands.add_parser("new", help="write a site file for the Slurm of this machine")
    of_new.add_argument("file", type=Path, nargs="?", default=Path("my-site.yaml"), metavar="FILE")
    args = parser.parse_args(argv)
    if not args.command:
        parser.print_help(sys.stderr)
        return WRONG
    print(told(args.file, new(args.file)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
