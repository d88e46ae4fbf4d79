"""Run folders in MLflow: sweep > configuration > fold, one way, made again from nothing at any time.

    python -m cluster.tracking mirror RUNS [--to URI]             # write what MLflow has not yet
    python -m cluster.tracking serve RUNS [--to URI] [--port N]   # the same again and again, and the UI on this machine
    python -m cluster.tracking models RUNS [--to URI]             # the networks of one sweep's winner, as a launch does

RUNS is runs/ or one sweep's folder, or a zip of them that cluster.pack has made, or a folder in it. URI is MLflow's
store or server: sqlite:///FILE, http://HOST:PORT or a database; default: mlflow.db beside the runs or the zip, or on a
local disk of yours where these lie on a network file system.
Exit status: 0 done, 2 bad input, 130 interrupted.
"""

import argparse
import gc
import os
import signal
from pathlib import Path

from cluster.tracking import uris
from cluster.tracking.folders import processes, sweep_folder, sweep_folders
from data_prep.ending import command, interrupt
from data_prep.files import Locked
from mtl import packed


def mirror(runs: Path, to: str | None) -> None:
    """Let MLflow have every sweep in `runs`, as it stands in its folder now."""
    folders = sweep_folders(runs)
    uri = uris.chosen(to, folders[0].parent)
    from cluster.tracking.mirror import Mirror

    gc.freeze()  # MLflow's million objects need not be looked through again and again
    for folder in folders:
        one = Mirror(uri, folder, processes())
        one.refresh(elsewhere=False)
        print(f"{folder.name}: {one.runs} runs", flush=True)
    print(f"MLflow: {uris.how_to_look(uri)}")


def models(runs: Path, to: str | None) -> None:
    """Let MLflow have the networks of a sweep's winner, and no others of it."""
    folder = sweep_folder(runs)
    uri = uris.chosen(to, folder.parent)
    from cluster.tracking import models as networks

    for path, address in networks.log(folder, uri):
        print(f"{address} ({path})", flush=True)


def serve(runs: Path, to: str | None, port: int | None) -> None:
    from cluster.tracking import serve as ui

    ui.serve(runs, to, port)


def _said(error: Exception) -> str:
    return uris.without_password(str(error))


@command("tracking", "the same command goes on", mistakes=(OSError, ValueError, Locked), said=_said)
def main(argv: list[str] | None = None) -> int:
    os.umask(0o077)
    os.environ |= uris.ENVIRONMENT
    told = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m cluster.tracking",
        description=f"{told[0]}\n\n{told[1]}",
        epilog=told[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("mirror", "serve", "models"))
    parser.add_argument("runs", type=Path, metavar="RUNS", help="runs/, a sweep's folder, or a zip; only read")
    parser.add_argument("--to", metavar="URI", help="MLflow's store or server")
    parser.add_argument("--port", type=int, metavar="N", help="serve: the UI's port (default: 5000, or the next free)")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, interrupt)
    with packed.opened(args.runs) as runs:
        of_zip = packed.zip_in(args.runs)
        to = args.to or (uris.default(of_zip[0].parent) if of_zip else None)  # what is unpacked goes again
        if args.what == "mirror":
            mirror(runs, to)
        elif args.what == "serve":
            serve(runs, to, args.port)
        else:
            models(runs, to)
    return 0
