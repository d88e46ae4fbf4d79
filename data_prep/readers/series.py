"""DICOM files in no order that a name tells -> which slice position and which phase each one is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep import geometry
from data_prep.readers.dicom import Header
from data_prep.study import StudyError

Places = dict[tuple[int, int], str]
"""(level, phase), both from 0 -> label"""


def positions(headers: Mapping[str, Header]) -> list[list[str]]:
    """Labels grouped by slice position along the common normal; StudyError where slices are not parallel."""
    labels = list(headers)
    normals = np.array([geometry.slice_normal(headers[label].orientation) for label in labels])
    parallel = np.abs(normals @ np.median(normals, axis=0)) >= geometry.LEAST_PARALLEL
    if not parallel.all():
        raise StudyError("is not parallel to the other slices of its series", labels[int(np.argmin(parallel))])
    heights = np.array([normals[0] @ np.array(headers[label].position_mm) for label in labels])
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

    numbers: the order of acquisition. Where every position has as many files, a file's phase is its rank there;
    where some are missing, the numbers must show which, running through the phases of one position after another
    or through the positions of one phase after another. StudyError where they do not.
    """
    groups = [sorted(group, key=lambda label: (numbers[label], headers[label].time_ms)) for group in positions(headers)]
    counts = {len(group) for group in groups}
    if len(counts) == 1:
        return {(level, phase): label for level, group in enumerate(groups) for phase, label in enumerate(group)}
    return _by_numbers(groups, numbers)


def _by_numbers(groups: Sequence[Sequence[str]], numbers: Mapping[str, int]) -> Places:
    first = min(numbers[label] for group in groups for label in group)
    longest = max(len(group) for group in groups)
    for block, phase_of in ((longest, np.mod), (len(groups), np.floor_divide)):
        level_of = np.floor_divide if phase_of is np.mod else np.mod
        blocks = [{int(level_of(numbers[label] - first, block)) for label in group} for group in groups]
        if all(len(found) == 1 for found in blocks) and len(set.union(*blocks)) == len(groups):
            made: dict[tuple[int, int], str] = {}
            for level, group in enumerate(groups):
                made |= {(level, int(phase_of(numbers[label] - first, block))): label for label in group}
            return made
    by_count: dict[int, list[str]] = defaultdict(list)
    for group in groups:
        by_count[len(group)].append(group[0])
    odd = min(by_count.items(), key=lambda item: len(item[1]))
    raise StudyError(f"its slice has {odd[0]} phases, others have {longest}, and no number tells which", odd[1][0])
