"""DICOM files in no order that a name tells -> which slice position and which phase each one is.

A phase is not a file's rank at its position: where files are missing, ranks pair one moment of the beat with
another. What is looked for is the one way of counting that explains all numbers of a series.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from data_prep import geometry
from data_prep.readers.dicom import Header
from data_prep.study import StudyError

Places = dict[tuple[int, int], str]
"""(level, phase), both from 0 -> label"""
Groups = list[np.ndarray]
"""Numbers at each position, ascending."""


def positions(headers: Mapping[str, Header]) -> list[list[str]]:
    """Labels grouped by slice position along the common normal; StudyError where slices are not parallel."""
    labels = list(headers)
    heights = geometry.common_heights_mm([(headers[k].orientation, headers[k].position_mm, k) for k in labels])
    groups: list[list[str]] = []
    last = -np.inf
    for n in np.argsort(heights, kind="stable"):
        if heights[n] - last >= geometry.SAME_POSITION_MM:
            groups.append([])
        groups[-1].append(labels[n])
        last = heights[n]
    return groups


def places(headers: Mapping[str, Header], numbers: Mapping[str, int]) -> Places:
    """Level and phase of each file of one series.

    numbers: the order of acquisition. It may run through the phases of one position after another, through the
    positions of one phase after another, or begin anew at every position; files may be missing. Without numbers the
    trigger times tell, if no file is missing. StudyError where nothing tells, or several ways of counting would do.
    """
    groups = positions(headers)
    if len({*numbers.values()}) == 1 and len(numbers) > 1:
        numbers = _by_times(headers, groups)
    groups = [sorted(group, key=lambda label: numbers[label]) for group in groups]
    for first, second in (pair for group in groups for pair in pairwise(group)):
        if numbers[first] == numbers[second]:
            raise StudyError(f"has the number {numbers[second]} and the position of {first}", second)
    phases = _phases([np.array([numbers[label] for label in group]) for group in groups], groups)
    made = {(z, int(phases[z][n])): label for z, group in enumerate(groups) for n, label in enumerate(group)}
    _check_times(headers, made)
    return made


def _by_times(headers: Mapping[str, Header], groups: Sequence[Sequence[str]]) -> dict[str, int]:
    """Each file's rank by trigger time at its position."""
    ranks = {}
    for group in groups:
        times = [headers[label].time_ms for label in group]
        if len({*times}) < len(group) or len(group) != len(groups[0]):
            raise StudyError("neither its number nor its trigger time tells its phase", group[-1])
        ranks.update({group[int(n)]: rank for rank, n in enumerate(np.argsort(times))})
    return ranks


def _phases(numbers: Groups, groups: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Phase of each file, from 0, by the way of counting that leaves the fewest holes."""
    ways: dict[tuple[int, bool], list[list[np.ndarray]]] = defaultdict(list)
    for from_one, phases in _ways(numbers):
        union = np.unique(np.concatenate(phases))
        ranked = [np.searchsorted(union, found) for found in phases]
        ways[len(union) * len(numbers), not from_one].append(ranked)
    if not ways:
        raise StudyError("its number does not tell its phase: files are missing or numbered at random", groups[0][0])
    best = ways[min(ways)]
    if any(not np.array_equal(a, b) for other in best[1:] for a, b in zip(best[0], other, strict=True)):
        raise StudyError("its number tells no phase for certain: too many files are missing", groups[0][0])
    return best[0]


def _ways(numbers: Groups) -> Iterator[tuple[bool, list[np.ndarray]]]:
    """Every way of counting that fits: whether it begins at one, and each file's phase."""
    everything = np.concatenate(numbers)
    if len(np.unique(everything)) < len(everything):
        yield True, numbers  # it begins anew at every position
        return
    first, last, levels = int(everything.min()), int(everything.max()), len(numbers)
    longest = max(len(found) for found in numbers)
    widest = (last - first) // max(levels - 1, 1) + 1 if levels > 1 else last - first + 1
    for block in range(longest, max(widest, longest) + 1):
        for begin in range(first - block + 1, first + 1):
            if _one_each([(found - begin) // block for found in numbers]):
                yield (begin - 1) % block == 0, [(found - begin) % block for found in numbers]
    for begin in range(first - levels + 1, first + 1):
        if levels > 1 and _one_each([(found - begin) % levels for found in numbers]):
            yield (begin - 1) % levels == 0, [(found - begin) // levels for found in numbers]


def _one_each(levels: Groups) -> bool:
    """Every position is one level, and no two are the same."""
    return all((found == found[0]).all() for found in levels) and len({int(f[0]) for f in levels}) == len(levels)


def _check_times(headers: Mapping[str, Header], made: Places) -> None:
    """StudyError where trigger times say that the phases of a position come in another order."""
    for (level, phase), label in made.items():
        before = max((p for z, p in made if z == level and p < phase), default=None)
        if before is not None and headers[label].time_ms < headers[made[level, before]].time_ms:
            raise StudyError("its trigger time contradicts its number", label)
