"""The report of trained configurations: the paper's tables and figures with ours beside them, from run folders alone.

    python -m mtl.report RUNS... [--out DIR]     # e.g. python -m mtl.report runs/paper

RUNS are run folders: a sweep's, a configuration's, or runs/ where all in it were trained on one store; or a zip that
cluster.pack has made of them, or a folder in it (out.zip/paper). DIR (default: report/ in the first of them, of out.zip
out-report/ beside it) gets report.html, tables.md, tables.tex, methods.md and figures/*.png, *.pdf. The same run
folders give the same files. The verdict of a sweep whose folder is named stands first, where there is one (verdict.md,
verdict/). Exit status: 0 done, 2 bad input, 130 interrupted.
"""

import argparse
import base64
import html
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from data_prep.ending import command
from data_prep.files import make_private, write_text
from mtl import figures, methods, packed, paper, results, tables
from mtl.results import Trained
from mtl.table import Table

LARGEST_BYTES = 4_800_000
"""of report.html, which mail and browsers should take easily"""
VERDICT = "verdict.md"
"""that sweeps/verdict.py leaves in a sweep's folder, and pictures in verdict/"""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em }
figure { margin: 2em 0 } figcaption { font-weight: 600; margin-bottom: .5em } img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { padding: 3px 10px; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap }
thead th { border-bottom: 2px solid #444; position: sticky; top: 0; background: #fff }
.wide { overflow-x: auto } .note { color: #555; font-size: 14px; margin: .4em 0 }
.warning { border-left: 4px solid #d55e00; padding: .4em 1em; background: #fff4ec }
"""


def report(runs: Sequence[Path], out: Path) -> Path:
    """Write the report of these run folders into `out`; the path of report.html. ValueError says what is wrong."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file, wanted a folder")
    trained = results.load(runs)
    left_out = [folder.name for run in runs for folder in results.configurations(run) if results.stopped(folder)]
    if left_out:
        print(f"left out, since the search stopped them early: {', '.join(left_out)}", flush=True)
    print(f"{len(trained)} configurations, {sum(len(one.folds) for one in trained)} folds", flush=True)
    others = [results.load(runs, structure) for structure in trained[0].structures[1:]]
    made = tables.all_of(trained, others)
    pictures = make_private(make_private(out) / "figures")
    drawn: list[tuple[Path, str]] = []
    for name, figure, caption in figures.drawn(trained, others):
        png, _ = figures.save(figure, pictures, name)
        drawn.append((png, caption))
        print(f"  {png}", flush=True)
    write_text(out / "tables.md", "\n\n".join(table.markdown() for table in made) + "\n", private=True)
    write_text(out / "tables.tex", "\n\n".join(table.latex() for table in made) + "\n", private=True)
    text = methods.paragraph(trained)
    write_text(out / "methods.md", text, private=True)
    page = out / "report.html"
    write_text(page, _page(trained, others, made, drawn, text, runs), private=True)
    return page


def warnings(trained: Sequence[Trained], others: Sequence[Sequence[Trained]] = ()) -> list[str]:
    """What a reader must know before the first number. others: of the structures after the first."""
    told = []
    facts = [fold for one in trained for fold in one.facts]
    if any(fold.get("source") == "phantom" for fold in facts):
        told.append("Made-up patients: this shows that the machinery works, nothing about hearts.")
    if differing := paper.counts_that_differ(trained):
        told.append(f"The store says that it is LVSC, and has {', '.join(differing)}.")
    told.append(tables.selection_note(trained))
    every = [one for of_one in (trained, *others) for one in of_one]
    if missed := [f"{_whose(one, others)} {one.volumes.missed}" for one in every if one.volumes.missed]:
        told.append(f"Volumes of which nothing was predicted: {', '.join(missed)}.")
    for what in ("device", "precision", "torch", "branchpoint"):
        if len(values := {str(fold.get(what, "unknown")) for fold in facts}) > 1:
            told.append(f"Folds were trained with different {what}: {', '.join(sorted(values))}.")
    return told


def _whose(one: Trained, others: Sequence[Sequence[Trained]]) -> str:
    return f"{one.label}, {one.structure}" if others else one.label


def _page(
    trained: Sequence[Trained],
    others: Sequence[Sequence[Trained]],
    made: Sequence[Table],
    drawn: Sequence[tuple[Path, str]],
    text: str,
    runs: Sequence[Path],
) -> str:
    """report.html, one file with everything in it."""
    names = ", ".join(one.label for one in trained)
    start = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Branchpoint: {html.escape(names)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(names)}</h1>",
        *(f"<p class=warning>{html.escape(line)}</p>" for line in warnings(trained, others)),
        *(part for run in runs for part in _verdict(run)),
    ]
    judged = [(path, f"Verdict: {path.stem}") for run in runs for path in _pictures(run)]
    told = [f"<p>Beside the figures of {html.escape(paper.CITATION)}.</p>", "<h2>Tables</h2>"]
    told += [*(table.html() for table in made), "<h2>Figures</h2>"]
    end = ["<h2>Methods</h2>", f"<pre style='white-space: pre-wrap'>{html.escape(text)}</pre></html>"]
    room = LARGEST_BYTES - sum(len(part.encode()) for part in (*start, *told, *end))
    first, last = list[str](), list[str]()
    for paths, into in ((judged, first), (drawn, last)):
        for path, caption in paths:
            picture = _embedded(path)
            if len(picture) > room:
                picture = f"<p class=note>Too large for this page: see {path.parent.name}/{path.name}.</p>"
            room -= len(picture)
            into.append(f"<figure>{picture}<p class=note>{html.escape(caption)}</p></figure>")
    return "\n".join([*start, *first, *told, *last, *end]) + "\n"


def _pictures(run: Path) -> list[Path]:
    return sorted((run / "verdict").glob("*.png")) if (run / VERDICT).is_file() else []


def _verdict(run: Path) -> list[str]:
    """What a sweep's folder says of its answer, as HTML; empty where it says nothing."""
    path = run / VERDICT
    if not path.is_file():
        return []
    return [_html(block) for block in path.read_text(errors="replace").strip().split("\n\n")]


def _html(block: str) -> str:
    """A block of the Markdown that a verdict is written in: a heading, a table, a list or a paragraph."""
    lines = block.splitlines()
    if block.startswith("# "):
        return f"<h2>{html.escape(block[2:])}</h2>"
    if block.startswith("|"):
        head, _, *rows = (tuple(_cells(line)) for line in lines)
        return Table("Verdict", head, tuple(rows)).html()
    if block.startswith("- "):
        return "<ul class=note>" + "".join(f"<li>{html.escape(line[2:])}</li>" for line in lines) + "</ul>"
    return f"<p><strong>{html.escape(block.strip('*'))}</strong></p>"


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _embedded(path: Path) -> str:
    """The picture as part of the page, in 256 colours: a third of the bytes, and no difference to be seen."""
    out = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'


def _beside(run: Path) -> Path:
    """Where the report of it goes."""
    found = packed.zip_in(run)
    return found[0].with_name(f"{found[0].stem}-report") if found else run / "report"


@command("report", "the same command makes it whole")
def main(argv: list[str] | None = None) -> int:
    os.umask(0o077)  # pictures of patients: for the owner alone
    parser = argparse.ArgumentParser(prog="python -m mtl.report", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUNS", help="run folders, or a zip of them; only read")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the report goes (default: RUNS/report, out-report)"
    )
    args = parser.parse_args(argv)
    with ExitStack() as unpacked:
        runs = [unpacked.enter_context(packed.opened_sweep(run)) for run in args.runs]
        page = report(runs, args.out or _beside(args.runs[0]))
    print(f"{page}: tables.md, tables.tex, methods.md and figures/ beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
