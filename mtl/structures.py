"""Figures of several structures: one name for their mean, and one for each.

Of one structure (the paper's myocardium) a figure stands under its plain name: `dice_val`. Of several the plain name is
the mean over them, and each one's stands beside it: `dice_val_left_ventricle`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

COLUMN = "structure"
"""of volumes.csv and slices.csv where there are several: whose row it is, as the store names it"""


def with_each(name: str, values: Sequence[float], structures: Sequence[str]) -> dict[str, float | None]:
    """values: of each structure; NaN (what is not known) becomes None and is left out of the mean."""
    known = [value for value in values if not math.isnan(value)]
    told: dict[str, float | None] = {name: sum(known) / len(known) if known else None}
    if len(structures) > 1:
        each = zip(structures, values, strict=True)
        told |= {key(name, structure): None if math.isnan(value) else value for structure, value in each}
    return told


def key(name: str, structure: str) -> str:
    """structure: as the store names it, such as `left ventricle`."""
    return f"{name}_{structure.replace(' ', '_')}"


def structures_of(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """That a fold was trained on, by its DONE; earlier versions trained on the myocardium alone and do not say so."""
    return tuple(map(str, facts.get("structures", ["myocardium"])))


def each(record: Mapping[str, Any], name: str, structures: Sequence[str]) -> list[Any]:
    """Of an epoch's record what with_each() wrote, one of each structure. What is the same for all (a fixed weight)
    stands there once."""
    return [record.get(key(name, structure), record.get(name)) for structure in structures]
