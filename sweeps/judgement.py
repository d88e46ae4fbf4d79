"""What a sweep answers, from what its run folders say (sweeps/measured.py). No file is read or written here.

Legend: C configuration with all its folds done, V volume or slice.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mtl.config import Config, flat
from mtl.statistics import LEVEL, mean_interval_by_patient
from sweeps import alike
from sweeps.asked import Asked
from sweeps.comparison import Paired, Simultaneous, paired, simultaneous
from sweeps.conflict import conflict
from sweeps.measured import Key, Measured, Values
from sweeps.verdict_parts import HIGHER_IS_BETTER, POSSIBLE, Against, Figures, LeftOut, Mean, Row, Verdict


@dataclass(frozen=True)
class _Decision:
    ranked: list[int]
    """best first; those without any value are left out"""
    winner: int | None
    tied: list[int]
    """not behind the best at this level, best first"""
    told: Simultaneous

    @property
    def best(self) -> int | None:
        return self.ranked[0] if self.ranked else None


def judge(asked: Asked, found: Sequence[Measured]) -> Verdict:
    """All but the words and the plots."""
    done = [one for one in found if one.status == "done"]
    ended = all(one.status in ("done", "stopped") for one in found)
    complete = asked.complete and ended and bool(done)
    keys, value_CV = _matrix([one.selected[asked.metric] for one in done])
    pairs = paired(value_CV, [key[0] for key in keys])
    facts = alike.compared({name for one in found for name in one.proposed.point})
    decided = _decide(pairs, done, asked.metric, facts, complete)
    best, paper = decided.best, _paper_choice(done)
    unlike = alike.unlike({fold.name: fold.trained_with for one in found for fold in one.done}, facts)
    chosen = done[best] if best is not None else None
    against_all = [_all_against(decided.told, done, asked.metric, facts, other) for other in (best, paper)]
    against = {one.name: (against_all[0][c], against_all[1][c]) for c, one in enumerate(done)}
    rows = tuple(_row(one, asked.metric, *against.get(one.name, (None, None))) for one in found)
    return Verdict(
        answer="",
        question=asked.question,
        setting=asked.setting,
        winner=_name(done, decided.winner),
        best=_name(done, best),
        tied=tuple(done[c].name for c in decided.tied),
        more_patients=_more_patients(decided),
        paper_choice=_name(done, paper),
        metric=asked.metric,
        selection=asked.selection,
        level=LEVEL,
        comparisons=len(done) * (len(done) - 1) // 2,
        patients=len(pairs.patients),
        dropped=int((~np.isfinite(value_CV)).any(axis=0).sum()),
        complete=complete,
        more_to_come=not asked.complete,
        configurations=rows,
        leave_one_fold_out=_leave_one_out(pairs, done, asked.metric, facts, complete, decided),
        test=_figures(chosen.name, chosen.tested) if chosen and chosen.tested else None,
        optimism=_optimism(chosen) if chosen and chosen.tested else None,
        unlike=tuple({"fold": fold, "what": what} for fold, what in unlike.items()),
        lost=tuple({"fold": fold.name, "files": fold.lost} for one in found for fold in one.folds if fold.lost),
        halved=tuple(fold.name for one in found for fold in one.done if fold.halved),
        pareto=_pareto(rows),
        conflict=conflict(done, rows, asked.metric),
    )


def _name(done: Sequence[Measured], c: int | None) -> str | None:
    return None if c is None else done[c].name


def _matrix(values_C: Sequence[Values]) -> tuple[list[Key], np.ndarray]:
    """The volumes that any of them has, and every configuration's figure of each; NaN where it has none."""
    keys = sorted({key for values in values_C for key in values.key_V})
    place = {key: v for v, key in enumerate(keys)}
    value_CV = np.full((len(values_C), len(keys)), np.nan)
    for c, values in enumerate(values_C):
        value_CV[c, [place[key] for key in values.key_V]] = values.value_V
    return keys, value_CV


def _unlike(a: Measured, b: Measured, facts: Sequence[str]) -> bool:
    """Whether a fold of theirs was trained with something else. The patients of a fold are those of the other's fold
    of the same number, so that the figures that are paired are alike where each such pair of folds is."""
    with_a, with_b = ([[fold.trained_with[name] for name in facts] for fold in one.folds] for one in (a, b))
    return with_a != with_b


def _decide(pairs: Paired, done: Sequence[Measured], metric: str, facts: Sequence[str], complete: bool) -> _Decision:
    """complete: a winner may be called."""
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    told = simultaneous(pairs, level=LEVEL)
    mean_C = pairs.mean_C
    some = [c for c in range(len(done)) if math.isfinite(mean_C[c])]
    ranked = sorted(some, key=lambda c: (-sign * mean_C[c], done[c].name))
    if not ranked:
        return _Decision([], None, [], told)
    best, *others = ranked
    tied = [c for c in others if not _ahead(told, best, c, sign)]
    alone = complete and bool(others) and len(ranked) == len(done) and not tied
    called = alone and not any(_unlike(done[best], done[c], facts) for c in others)
    return _Decision(ranked, best if called else None, tied, told)


def _ahead(told: Simultaneous, a: int, b: int, sign: int) -> bool:
    found = told.between(a, b)
    return found.apart and sign * found.difference > 0


def _more_patients(decided: _Decision) -> int | None:
    """For the pair of the best and a tied one that needs most."""
    best = decided.best
    if best is None or not decided.tied:
        return None
    needed = [decided.told.patients_needed(best, c) for c in decided.tied]
    known = [patients for patients in needed if patients is not None]
    return max(1, max(known) - decided.told.patients) if len(known) == len(needed) else None


def _paper_choice(done: Sequence[Measured]) -> int | None:
    """The paper's network: branch up4, learned weights, everything else that is searched at its default. None where
    the sweep has none, or (of an older version, without sweep.json) several that might be it."""
    default = flat(asdict(Config()))
    found = [
        c
        for c, one in enumerate(done)
        if all(one.config.get(name) == default[name] for name in ("model.branch", "weighting.kind"))
        and all(value == default.get(name) for name, value in one.proposed.point.items())
    ]
    return found[0] if len(found) == 1 else None


def _all_against(
    told: Simultaneous, done: Sequence[Measured], metric: str, facts: Sequence[str], other: int | None
) -> list[Against | None]:
    """Every configuration minus `other`; None for itself."""
    if other is None:
        return [None] * len(done)
    return [None if c == other else _against(told, done, metric, facts, c, other) for c in range(len(done))]


def _against(
    told: Simultaneous, done: Sequence[Measured], metric: str, facts: Sequence[str], c: int, other: int
) -> Against:
    found = told.between(c, other)
    low, high = (_within(bound, metric, difference=True) for bound in (found.low, found.high))
    return Against(_finite(found.difference), low, high, found.apart, _unlike(done[c], done[other], facts))


def _leave_one_out(
    pairs: Paired, done: Sequence[Measured], metric: str, facts: Sequence[str], complete: bool, whole: _Decision
) -> tuple[LeftOut, ...]:
    if len(done) < 2:
        return ()
    made = []
    for fold in range(max(len(one.folds) for one in done)):
        gone = {name for one in done for name, folds in one.selected[metric].folds_of.items() if fold in folds}
        decided = _decide(pairs.without(gone), done, metric, facts, complete)
        best, winner = _name(done, decided.best), _name(done, decided.winner)
        changed = (decided.best, decided.winner) != (whole.best, whole.winner)
        made.append(LeftOut(fold, best, winner, changed))
    return tuple(made)


def _row(one: Measured, metric: str, against_best: Against | None, against_paper: Against | None) -> Row:
    dice, area = (
        _mean(one.selected[name], name) if one.status == "done" else Mean() for name in ("dice_val", "area_mad_mm2")
    )
    mean = dice if metric == "dice_val" else area
    ending = {"stopped": "STOPPED", "failed": "FAILED"}.get(one.status)
    return Row(
        configuration=one.name,
        label=one.label,
        point=one.proposed.point,
        status=one.status,
        reason=next((fold.reason for fold in one.folds if ending and fold.outcome == ending), ""),
        folds_done=len(one.done),
        mean=mean.mean,
        low=mean.low,
        high=mean.high,
        dice_mean=dice.mean,
        dice_low=dice.low,
        dice_high=dice.high,
        area_mad_mm2_mean=area.mean,
        area_mad_mm2_low=area.low,
        area_mad_mm2_high=area.high,
        against_best=against_best,
        against_paper=against_paper,
    )


def _mean(values: Values, metric: str, *, difference: bool = False) -> Mean:
    """difference: of two such figures."""
    known_V = np.isfinite(values.value_V)
    value_V, patient_V = values.value_V[known_V], values.patient_V[known_V]
    if len(set(patient_V.tolist())) < 2:
        return Mean(float(value_V.mean()) if len(value_V) else None)
    found = mean_interval_by_patient(value_V, patient_V, level=LEVEL)
    low, high = (_within(bound, metric, difference=difference) for bound in (found.low, found.high))
    return Mean(_finite(found.mean), low, high)


def _figures(configuration: str, values: dict[str, Values], *, difference: bool = False) -> Figures:
    return Figures(
        configuration, *(_mean(values[name], name, difference=difference) for name in ("dice_val", "area_mad_mm2"))
    )


def _optimism(one: Measured) -> Figures:
    """Selection minus test, volume by volume: every patient selects in one fold and tests in another."""
    made = {}
    for name, selected in one.selected.items():
        tested = one.tested[name].by_key()
        difference_V = [value - tested.get(key, math.nan) for key, value in selected.by_key().items()]
        made[name] = Values(selected.key_V, selected.fold_V, np.array(difference_V))
    return _figures(one.name, made, difference=True)


def _pareto(rows: Sequence[Row]) -> tuple[str, ...]:
    """Those that no other beats in one of Dice and area error without losing in the other."""
    known = {
        row.configuration: (row.dice_mean, -row.area_mad_mm2_mean)
        for row in rows
        if row.dice_mean is not None and row.area_mad_mm2_mean is not None
    }

    def beaten(mine: tuple[float, float]) -> bool:
        return any(a >= mine[0] and b >= mine[1] and (a, b) != mine for a, b in known.values())

    return tuple(name for name, mine in known.items() if not beaten(mine))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _within(bound: float, metric: str, *, difference: bool) -> float | None:
    """A bound of an interval, cut at what can be; None where it is none. difference: of two figures."""
    least, most = POSSIBLE[metric]
    if difference:
        least, most = least - most, most - least
    return min(max(bound, least), most) if math.isfinite(bound) else None
