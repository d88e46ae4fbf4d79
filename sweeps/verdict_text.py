"""A verdict in words: the answer, the table, what must be known beside it; as Markdown and for a terminal."""

import textwrap
from collections.abc import Sequence

from sweeps import alike
from sweeps.verdict_parts import HIGHER_IS_BETTER, Against, LeftOut, Mean, Row, Verdict

WIDTH = 110
NAMES = {"dice_val": "Dice", "area_mad_mm2": "area error, mm2"}
DIGITS = {"dice_val": 3, "area_mad_mm2": 0}
"""of a mean; a difference has one more"""
SURE = 0.05
"""chance below which ranks are said to be related"""


def answer(v: Verdict) -> str:
    """One sentence; a second where the patients of a single fold decide it."""
    return f"{v.setting} {_first(v)}. {_folds_that_decide(v)}".strip()


def _first(v: Verdict) -> str:
    if v.best is None or not v.complete:
        best = f"; so far {_label(v, v.best)} is best ({_score(v, v.best)})" if v.best else ""
        return f"no answer yet, since {_why_not(v)}{best}"
    others = [row for row in v.configurations if row.status == "done" and row.configuration != v.best]
    if not others:
        stopped = len(v.configurations) - 1
        alone = f"the other {stopped} were stopped early, so that" if stopped else "with one configuration"
        return f"{_label(v, v.best)} reached {_score(v, v.best)}; {alone} there is nothing to compare"
    if v.tied:
        return f"{_together(v)}; {_how_many_more(v)}"
    lead = f"{_leads(v)}, apart from all others at {_level(v)}"
    if v.winner is None:
        return f"{lead}, but folds were trained unlike, so no winner is called; same_code=true trains them again"
    return lead


def _leads(v: Verdict) -> str:
    if v.metric == "dice_val":
        return f"{_label(v, v.best)} segments best ({_score(v, v.best)})"
    return f"{_label(v, v.best)} has the smallest area error ({_value(v, v.best)})"


def _together(v: Verdict) -> str:
    """Those that cannot be told apart."""
    names = [v.best, *v.tied]
    if len(names) > 6:
        them = f"{_label(v, v.best)} ({_score(v, v.best)}) and {len(v.tied)} others"
    else:
        them = (
            f"{_and([_label(v, name) for name in names])} (best first; {_score(v, v.best)} to {_value(v, names[-1])})"
        )
    return f"{them} cannot be told apart on these data"


def _how_many_more(v: Verdict) -> str:
    if any(row.against_best and row.against_best.low is None for row in _rows(v, v.tied)):
        return f"{v.patients} patient{'s' * (v.patients != 1)} say nothing at {_level(v)}"
    if v.more_patients is None:
        return "no number of patients that is to be had would settle it"
    return (
        f"about {_rounded(v.more_patients)} more patients would settle it, if the differences are what they look like"
    )


def _why_not(v: Verdict) -> str:
    missing = [row.label for row in v.configurations if row.status == "failed"]
    begun = [row.label for row in v.configurations if row.status == "incomplete"]
    told = [f"{alike.listed(missing)} failed"] if missing else []
    told += [f"{alike.listed(begun)} {'is' if len(begun) == 1 else 'are'} not done"] if begun else []
    told += ["more configurations are to come"] if v.more_to_come else []
    return _and(told) or "no configuration has all its folds done"


def _folds_that_decide(v: Verdict) -> str:
    """Which fold's patients it hangs on."""
    if not v.complete:
        return ""
    ways: dict[str, list[int]] = {}
    for one in v.leave_one_fold_out:
        if one.changed:
            ways.setdefault(_instead(v, one), []).append(one.fold)
    told = [f"without fold {_and([str(fold) for fold in folds])} {way}" for way, folds in ways.items()]
    if not told:
        return ""
    return f"It hangs on single folds' patients: {'; '.join(told)}."


def _instead(v: Verdict, one: LeftOut) -> str:
    if one.winner is not None:
        return f"{_label(v, one.winner)} would win"
    if one.best != v.best and one.best is not None:
        return f"{_label(v, one.best)} would be best" + (", no winner" if v.winner else "")
    return "no winner would be called"


def blocks(v: Verdict) -> list[str]:
    """What stands below the table: test figures, then what must be known."""
    measured = [_of_test(v), _method(v), _stability(v), _pareto(v), _conflict(v)] if v.best else []
    return [line for line in (*measured, *_caveats(v)) if line]


def _of_test(v: Verdict) -> str:
    label = _label(v, v.best)
    if v.test is None or v.optimism is None:
        return (
            "Epochs and configurations were chosen on the test fold itself, as in the paper: these figures are "
            "optimistic, and there are no others."
        )
    dice, area = _mean(v.test.dice, "dice_val"), _mean(v.test.area_mad_mm2, "area_mad_mm2")
    differences = (_difference(v.optimism.dice, "dice_val"), _difference(v.optimism.area_mad_mm2, "area_mad_mm2"))
    return (
        f"Test figures of {label}, where nothing was chosen: Dice {dice}, area error {area} mm2. "
        f"Its figures above are those it was chosen by; they minus these, by patient: {differences[0]} and "
        f"{differences[1]} mm2, the optimism of having chosen epochs and a configuration."
    )


def _method(v: Verdict) -> str:
    where = "validation" if v.selection == "validation" else "test"
    text = f"In brackets: {_level(v)} intervals on {v.patients} {where} patients, who are resampled whole."
    if v.comparisons:
        text += (
            f" Differences are paired by patient; their intervals hold together for all {v.comparisons} pairs, since "
            "the best was chosen by looking at all."
            if v.comparisons > 1
            else " The difference is paired by patient."
        )
        text += " They tell these trained networks apart; whether others would come out alike, other seeds show."
    return text


def _stability(v: Verdict) -> str:
    if not v.leave_one_fold_out or any(one.changed for one in v.leave_one_fold_out):
        return ""
    return "Leaving out any one fold's patients changes neither who is best nor whether there is a winner."


def _pareto(v: Verdict) -> str:
    names = [_label(v, name) for name in v.pareto]
    return f"Beaten by none in Dice and area error at once: {alike.listed(names)}." if len(names) > 1 else ""


def _conflict(v: Verdict) -> str:
    if v.conflict is None:
        return ""
    ordered = sorted(v.conflict.cosine.items(), key=lambda item: -item[1])
    told = alike.listed([f"{_label(v, name)} {cosine:+.2f}" for name, cosine in ordered])
    found, chance = v.conflict.correlation, v.conflict.chance
    if chance >= SURE:
        meaning = "so many points do not show that conflict explains the order"
    elif found > 0:
        meaning = "the less conflict, the better: conflict may explain the order"
    else:
        meaning = "the more conflict, the better: conflict does not explain the order"
    return (
        f"Conflict between the tasks, as the mean cosine of their gradients on what they share: {told}. Its rank "
        f"correlation with the order above is {found:+.2f} over {len(ordered)} branch points (chance {chance:.2g}): "
        f"{meaning}."
    )


def _caveats(v: Verdict) -> list[str]:
    told = []
    by_status = {s: [row for row in v.configurations if row.status == s] for s in ("stopped", "failed", "incomplete")}
    if stopped := by_status["stopped"]:
        why = f" ({stopped[0].reason})" if len({row.reason for row in stopped}) == 1 and stopped[0].reason else ""
        told.append(f"Stopped early and not compared: {alike.listed([row.label for row in stopped])}{why}.")
    for row in by_status["failed"] + by_status["incomplete"]:
        why = f": {row.reason}" if row.reason else ""
        told.append(f"Not compared: {row.label}, {row.status}, {row.folds_done} folds done{why}.")
    unlike = {one["fold"]: one["what"] for one in v.unlike}
    told += [f"Trained unlike the others, {line}." for line in alike.in_words(unlike)]
    if unlike:
        told.append("Differences marked `unlike` may come from that; same_code=true trains such folds again.")
    told += [
        f"Files lost: {one['fold']}: {', '.join(one['files'])}; the same command trains it again." for one in v.lost
    ]
    if v.halved:
        told.append(f"Trained in half micro-batches for want of memory: {alike.listed(v.halved)}.")
    if v.dropped:
        told.append(
            f"{v.dropped} volumes or slices have no figure in some configuration and are left out of its pairs."
        )
    return told


def table(v: Verdict) -> tuple[list[str], list[list[str]]]:
    """Head and rows, the best first, those that are not compared last."""
    head = ["configuration", f"{NAMES[v.metric]} [{_level(v)}]"]
    against_paper = v.paper_choice is not None and v.paper_choice != v.best
    if v.best and v.comparisons:
        head.append(f"minus {_label(v, v.best)}" + (", the paper's choice" if v.best == v.paper_choice else ""))
    if against_paper:
        head.append(f"minus {_label(v, v.paper_choice)}, the paper's choice")
    sign = -1 if HIGHER_IS_BETTER[v.metric] else 1
    ranked = sorted(v.configurations, key=lambda row: (row.mean is None, sign * (row.mean or 0.0)))
    rows = []
    for row in ranked:
        told = [row.label, _mean(Mean(row.mean, row.low, row.high), v.metric) if row.mean is not None else row.status]
        told += [_against(row, row.against_best, v)] if v.best and v.comparisons else []
        told += [_against(row, row.against_paper, v)] if against_paper else []
        rows.append(told)
    return head, rows


def _against(row: Row, found: Against | None, v: Verdict) -> str:
    if found is None:
        return "-" if row.mean is None else ""
    marks = f"{' apart' if found.apart else ''}{' unlike' if found.unlike else ''}"
    return _difference(Mean(found.difference, found.low, found.high), v.metric) + marks


def markdown(v: Verdict) -> str:
    """verdict.md"""
    head, rows = table(v)
    lines = [head, ["---"] * len(head), *rows]
    drawn = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    notes = "\n".join(f"- {line}" for line in blocks(v))
    return "\n\n".join([f"# {v.question or 'Verdict'}", f"**{v.answer}**", drawn, notes]) + "\n"


def plain(v: Verdict) -> str:
    """For a terminal."""
    head, rows = table(v)
    widths = [max(len(line[k]) for line in (head, *rows)) for k in range(len(head))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in (head, *rows)]
    drawn = "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])
    notes = [textwrap.fill(line, WIDTH, break_on_hyphens=False, break_long_words=False) for line in blocks(v)]
    return "\n\n".join([textwrap.fill(v.answer, WIDTH, break_on_hyphens=False), drawn, "\n".join(notes)])


def _mean(m: Mean, metric: str) -> str:
    digits = DIGITS[metric]
    return "-" if m.mean is None else f"{m.mean:.{digits}f}{_interval(m, f'.{digits}f')}"


def _difference(m: Mean, metric: str) -> str:
    spec = f"+.{DIGITS[metric] + 1}f"
    return "-" if m.mean is None else f"{m.mean:{spec}}{_interval(m, spec)}"


def _interval(m: Mean, spec: str) -> str:
    if m.low is None and m.high is None:
        return " [unbounded]"
    low, high = ("unbounded" if bound is None else f"{bound:{spec}}" for bound in (m.low, m.high))
    return f" [{low}, {high}]"


def _rows(v: Verdict, names: Sequence[str | None]) -> list[Row]:
    return [row for row in v.configurations if row.configuration in names]


def _label(v: Verdict, name: str | None) -> str:
    (row,) = _rows(v, [name])
    return row.label or row.configuration


def _score(v: Verdict, name: str | None) -> str:
    return f"{NAMES[v.metric].partition(',')[0]} {_value(v, name)}"


def _value(v: Verdict, name: str | None) -> str:
    (row,) = _rows(v, [name])
    unit = " mm2" if v.metric == "area_mad_mm2" else ""
    return f"{row.mean:.{DIGITS[v.metric]}f}{unit}"


def _level(v: Verdict) -> str:
    return f"{100 * v.level:g} %"


def _rounded(count: int) -> str:
    """To two digits: it is an estimate."""
    return f"{float(f'{count:.2g}'):,.0f}"


def _and(names: Sequence[str]) -> str:
    between = alike.separator(names)
    return " and ".join([between.join(names[:-1]), names[-1]] if len(names) > 1 else names)
