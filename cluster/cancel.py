"""End a sweep's jobs on Slurm: its driver first, so that nothing is queued again, then its folds.

    python -m cluster.cancel RUNS     # a sweep's folder, such as runs/branch_location

What was done stays; the launch command goes on from there. Exit status: 0, 2 for bad input, 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

from cluster import driver, probe, slurm, watched
from data_prep.ending import command


def cancel(sweep_folder: Path) -> list[str]:
    """The ids of the jobs that were ended. ValueError where the folder holds no sweep that ran on Slurm."""
    sweep_folder = sweep_folder.resolve()
    found = watched.read(sweep_folder).by_folder.values()
    mine = [*filter(None, [driver.driver_of(sweep_folder), probe.job_of(sweep_folder)])]
    if not found and not mine:
        raise ValueError(
            f"{sweep_folder}: no sweep on Slurm in it; wanted a sweep's folder, such as runs/branch_location"
        )
    jobs = slurm.jobs()
    mine += dict.fromkeys(w.id for w in found)  # folds may share a job
    alive = [job for job in mine if job in jobs and jobs[job].alive]
    slurm.cancel(alive)
    return alive


@command(
    "cancel", "some jobs may have ended; the same command ends the others", mistakes=(OSError, ValueError, slurm.Silent)
)
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.cancel", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path, metavar="RUNS", help="a sweep's run folder, such as runs/branch_location")
    args = parser.parse_args(argv)
    ended = cancel(args.runs)
    print(f"{len(ended)} jobs ended{': ' + ', '.join(ended) if ended else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
