"""What a sweep answers, with its uncertainty, from run folders and sweep.json alone.

    python -m sweeps.verdict RUNS/SWEEP [--no-plots]     # e.g. python -m sweeps.verdict runs/branch_location

writes verdict.json, verdict.md and verdict/*.png into the sweep's folder and prints the text; the same files give the
same bytes. Exit status: 0 done, 2 bad input, 130 interrupted.

verdict.json, whose numbers have six digits and whose names are those of configurations' folders:

    answer               one sentence, or two, for people; begins with the setting it holds for
    question, setting    as in sweep.json
    winner               the best, where it is apart from all others; else null
    best                 the highest mean Dice, or the lowest mean area error; null where none is done
    tied                 the others that are not behind the best at this level, best first
    more_patients        how many more would tell the best from all of these, with 80 % probability; null where nothing
                         is to be settled, none would, or too few patients are there to say
    paper_choice         branch up4 with learned weights, all else that is searched at its default; null where not done
    metric, selection    as in sweep.json
    level                of all intervals: 0.99
    comparisons          pairs of configurations whose differences' intervals hold together
    patients             on whom they are compared
    dropped              volumes (slices) that some configuration has no figure of: left out of its differences
    complete             all that was asked is done or was stopped; until then nobody wins
    more_to_come         more configurations will be proposed
    configurations       in the order in which they were proposed: configuration, label, point; status (done, stopped,
                         failed, incomplete) and its reason; folds_done; of those that are done the metric's mean, low,
                         high, dice_*, area_mad_mm2_* on the selection set; against_best and against_paper: difference
                         (this minus that), low, high, apart (0 is left out), unlike (trained with another code, torch,
                         device or precision)
    leave_one_fold_out   without the patients whose figures come from a fold's networks: fold, best, winner, changed
    test                 the best's figures on the test set: configuration; dice and area_mad_mm2 with mean, low, high;
                         null where the test set is what selects
    optimism             the same of selection minus test, volume by volume
    unlike, lost         folds that were trained with something else than most; folds some of whose files are gone
    halved               folds that were trained in half micro-batches for want of memory
    pareto               configurations that none beats in Dice and area error at once
    conflict             with train.diagnose=true, where the branch point alone is searched: cosine (of the angle
                         between both tasks' gradients: configuration -> mean over epochs and folds); correlation
                         (Spearman's with the metric; above 0: the less conflict, the better); chance (of one as far
                         from 0)
    plots                files, from the sweep's folder

Bounds are null where so few patients say nothing, and do not reach beyond what a figure can be (Dice 0 to 1).
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data_prep.ending import command
from data_prep.files import make_private, write_text
from sweeps import asked, judgement, measured, verdict_text
from sweeps.verdict_parts import Verdict

JSON, MARKDOWN, PLOTS = "verdict.json", "verdict.md", "verdict"


def write(sweep_folder: Path, *, plots: bool = True) -> Verdict:
    """The verdict of a sweep's folder, written into it. ValueError says what is wrong; then nothing is written."""
    return put(read(sweep_folder), sweep_folder, plots=plots)


def put(told: Verdict, sweep_folder: Path, *, plots: bool = True) -> Verdict:
    """Write what was read elsewhere."""
    told = replace(told, plots=())
    told = replace(told, plots=_draw(told, sweep_folder) if plots else _draw_none(sweep_folder))
    write_text(sweep_folder / MARKDOWN, verdict_text.markdown(told), private=True)
    values = {key: value for key, value in asdict(told).items() if key != "text"}
    write_text(sweep_folder / JSON, json.dumps(_plain(values), indent=1, allow_nan=False) + "\n", private=True)
    return told


def read(sweep_folder: Path) -> Verdict:
    """The same without plots; nothing is written."""
    if not sweep_folder.is_dir():
        raise ValueError(f"{sweep_folder}: no such folder; wanted a sweep's, such as runs/branch_location")
    question = asked.read(sweep_folder)
    if not question.configurations:
        raise ValueError(
            f"{sweep_folder}: no configuration in it; wanted a sweep's folder, such as runs/branch_location"
        )
    made = judgement.judge(question, measured.measured(sweep_folder, question))
    made = replace(made, answer=verdict_text.answer(made))
    return replace(made, text=verdict_text.plain(made))


def _draw(told: Verdict, sweep_folder: Path) -> tuple[str, ...]:
    from sweeps import verdict_plots  # matplotlib takes a second

    folder = make_private(sweep_folder / PLOTS)
    names = verdict_plots.write(told, folder)
    _remove_others(folder, names)
    return tuple(f"{PLOTS}/{name}" for name in names)


def _draw_none(sweep_folder: Path) -> tuple[str, ...]:
    _remove_others(sweep_folder / PLOTS, [])
    return ()


def _remove_others(folder: Path, names: list[str]) -> None:
    """Pictures of an earlier verdict would contradict this one."""
    for path in folder.glob("*.png"):
        if path.name not in names:
            path.unlink()


def _plain(value: Any) -> Any:
    """For JSON: six digits, which no other order of additions changes."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


@command("verdict", "the same command makes it whole")
def main(argv: list[str] | None = None) -> int:
    os.umask(0o077)
    parser = argparse.ArgumentParser(prog="python -m sweeps.verdict", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sweep", type=Path, metavar="RUNS/SWEEP", help="a sweep's folder, such as runs/branch_location")
    parser.add_argument("--no-plots", action="store_true", help="write no pictures: quicker")
    args = parser.parse_args(argv)
    print(write(args.sweep, plots=not args.no_plots).text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
