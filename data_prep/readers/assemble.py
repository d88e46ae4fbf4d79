"""Frames in any order -> a study whose levels all have all phases, mended where that loses little.

What DICOM readers share: one file is one slice at one phase, and an archive's numbers are not trusted with
the anatomy.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_prep import geometry
from data_prep.study import Frame, Level, Notes, Study, StudyError

POSITION_TOLERANCE_MM, DIRECTION_TOLERANCE = 0.1, 1e-3
"""How far one slice's geometry may differ between phases: rounding, no movement of the table."""

Frames = Mapping[tuple[int, int], Frame]
"""(level number, phase number) -> frame."""


@dataclass
class _Stack:
    """One slice number's frames by phase."""

    number: int
    frames: dict[int, Frame]
    height_mm: float = 0.0

    @property
    def labelled(self) -> int:
        return sum(frame.mask_YX is not None for frame in self.frames.values())

    @property
    def first(self) -> Frame:
        return self.frames[min(self.frames)]


def study(source: str, frames: Frames, notes: Notes) -> Study:
    """StudyError where the frames are no stack of parallel slices through common phases.

    A slice position that is there twice and a phase that lacks slices are left out and noted.
    """
    stacks: dict[int, _Stack] = {}
    for (number, phase), frame in sorted(frames.items()):
        stacks.setdefault(number, _Stack(number, {})).frames[phase] = frame
    for stack in stacks.values():
        _check_still(stack)
    kept = _one_a_position(_with_heights(list(stacks.values())), notes)
    phases = _complete(kept, notes)
    levels = tuple(Level(tuple(stack.frames[phase] for phase in phases)) for stack in kept)
    return Study(source=source, phases=tuple(phases), levels=levels, notes=notes)


def _check_still(stack: _Stack) -> None:
    """A slice stays where it is through the beat; its matrix may change about the same centre."""
    first = stack.first
    for frame in stack.frames.values():
        if (frame.position_mm, frame.orientation, frame.spacing_mm) == (
            first.position_mm,
            first.orientation,
            first.spacing_mm,
        ) and frame.image_YX.shape == first.image_YX.shape:
            continue
        moved = not np.allclose(frame.centre_mm, first.centre_mm, atol=POSITION_TOLERANCE_MM)
        if moved or not np.allclose(frame.orientation, first.orientation, atol=DIRECTION_TOLERANCE):
            raise StudyError(f"its position or orientation differs from that of {first.file}", frame.file)


def _with_heights(stacks: list[_Stack]) -> list[_Stack]:
    """The stacks sorted along the common normal; StudyError where one is not parallel to the others."""
    first = [stack.first for stack in stacks]
    heights = geometry.common_heights_mm([(frame.orientation, frame.position_mm, frame.file) for frame in first])
    for stack, height in zip(stacks, heights, strict=True):
        stack.height_mm = float(height)
    return sorted(stacks, key=lambda stack: stack.height_mm)


def _one_a_position(stacks: list[_Stack], notes: Notes) -> list[_Stack]:
    """Where a position was taken twice keep the one with more masks, then more phases, then the later one."""
    kept: list[_Stack] = []
    for stack in stacks:
        if kept and stack.height_mm - kept[-1].height_mm < geometry.SAME_POSITION_MM:
            pair = sorted((kept.pop(), stack), key=lambda s: (s.labelled, len(s.frames), s.number))
            _leave_out(pair[0].frames, f"the same slice position as {pair[1].first.file}", notes)
            stack = pair[1]
        kept.append(stack)
    return kept


def _complete(stacks: list[_Stack], notes: Notes) -> list[int]:
    """Phases that every level has. An end level or phases are left out, whichever loses fewer images.

    StudyError where half of the images would be lost. A level in the middle is never left out: it would leave
    a gap in the heart.
    """
    total = sum(len(stack.frames) for stack in stacks)
    lost = 0
    while True:
        everywhere = sorted(set.intersection(*(set(stack.frames) for stack in stacks)))
        anywhere = set.union(*(set(stack.frames) for stack in stacks))
        over = sum(len(stack.frames) - len(everywhere) for stack in stacks)
        ends = [s for s in (stacks[0], stacks[-1]) if set(s.frames) != anywhere] if len(stacks) > 1 else []
        shortest = min(ends, key=lambda s: len(s.frames), default=None)
        if shortest is None or len(shortest.frames) >= over:
            break
        lost += len(shortest.frames)
        stacks.remove(shortest)
        _leave_out(shortest.frames, f"the slice at the end of the stack lacks phases ({len(anywhere)} wanted)", notes)
    if not everywhere or 2 * (lost + over) > total:
        short = min(stacks, key=lambda s: len(s.frames))
        raise StudyError(f"its slice has {len(short.frames)} phases, others have {len(anywhere)}", short.first.file)
    for stack in stacks:
        extra = {phase: frame for phase, frame in stack.frames.items() if phase not in everywhere}
        _leave_out(extra, "other slices have no image at its phase", notes)
    return everywhere


def _leave_out(frames: Mapping[int, Frame], why: str, notes: Notes) -> None:
    for frame in frames.values():
        for file in (frame.file, frame.mask_file):
            if file is not None:
                notes.mended[file] = f"left out: {why}"
