"""Like with like: which folds were trained with another code, torch, device or precision than the others."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

FACTS = ("code", "torch", "device", "precision")
"""of a finished fold's DONE"""
With = Mapping[str, str]
"""what a fold was trained with: one of FACTS -> its value"""


def compared(searched: Collection[str]) -> tuple[str, ...]:
    """What folds must have in common to be compared: not what the sweep itself varies. searched: its fields."""
    return tuple(name for name in FACTS if f"train.{name}" not in searched)


def trained_with(facts: Mapping[str, Any]) -> dict[str, str]:
    """Of what a finished fold says; `unknown` where an older version did not say it."""
    return {name: str(facts.get(name, "unknown")) for name in FACTS}


def unlike(folds: Mapping[str, With], facts: Sequence[str] = FACTS) -> dict[str, str]:
    """Fold -> how it differs from most of these folds, such as `code 1f0c instead of 9ab2`; those alone that do."""
    if not folds:
        return {}
    usual = {name: _most([one[name] for one in folds.values()]) for name in facts}
    told = {
        fold: ", ".join(f"{name} {one[name]} instead of {usual[name]}" for name in facts if one[name] != usual[name])
        for fold, one in folds.items()
    }
    return {fold: what for fold, what in told.items() if what}


def _most(values: Sequence[str]) -> str:
    """The most frequent; of equally frequent ones the first in the alphabet, so that no order matters."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def in_words(unlike: Mapping[str, str]) -> list[str]:
    """A line for each way in which folds differ, with the folds."""
    ways = dict.fromkeys(unlike.values())
    return [f"{what}: {listed([fold for fold, told in unlike.items() if told == what])}" for what in ways]


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names with commas, or semicolons where they have commas; of very many the first, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator(names).join(names[:most]) + more


def separator(names: Sequence[str]) -> str:
    return "; " if any(", " in name for name in names) else ", "
