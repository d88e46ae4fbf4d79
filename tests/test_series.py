"""Which phase a DICOM file is, by the numbers of its series."""

import math

import pytest

from data_prep.readers import series
from data_prep.readers.dicom import Header
from data_prep.study import StudyError

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def made(
    numbers: dict[str, tuple[int, float]], times: dict[str, float] | None = None
) -> tuple[dict[str, Header], dict[str, int]]:
    """Label -> (number, height)."""
    headers = {
        label: Header("1.2", number, (times or {}).get(label, 0.0), "", (0.0, 0.0, height), AXIAL)
        for label, (number, height) in numbers.items()
    }
    return headers, {label: number for label, (number, _) in numbers.items()}


def slice_major(levels: int, phases: int, begin: int = 1) -> dict[str, tuple[int, float]]:
    """Labels say the truth: `z-t`."""
    return {f"{z}-{t}": (begin + z * phases + t, 10.0 * z) for z in range(levels) for t in range(phases)}


def phase_major(levels: int, phases: int, begin: int = 1) -> dict[str, tuple[int, float]]:
    return {f"{z}-{t}": (begin + t * levels + z, 10.0 * z) for z in range(levels) for t in range(phases)}


def without(numbers: dict[str, tuple[int, float]], *labels: str) -> dict[str, tuple[int, float]]:
    return {label: found for label, found in numbers.items() if label not in labels}


def right(numbers: dict[str, tuple[int, float]]) -> bool:
    """Every file is where its label says, phases that nobody has left out."""
    truth = sorted({int(label.split("-")[1]) for label in numbers})
    found = series.places(*made(numbers))
    return all(label == f"{z}-{truth[t]}" for (z, t), label in found.items()) and len(found) == len(numbers)


@pytest.mark.parametrize("way", [slice_major, phase_major])
@pytest.mark.parametrize("begin", [1, 57])
def test_whole_series(way: object, begin: int) -> None:
    assert right(way(4, 5, begin))  # type: ignore[operator]
    assert right(way(1, 5, begin))  # type: ignore[operator]
    assert right(way(4, 1, begin))  # type: ignore[operator]


@pytest.mark.parametrize("gone", ["0-0", "0-4", "2-0", "2-3", "3-4"])
@pytest.mark.parametrize("way", [slice_major, phase_major])
def test_one_file_is_missing(way: object, gone: str) -> None:
    assert right(without(way(4, 5), gone))  # type: ignore[operator]


def test_every_slice_lacks_another_phase() -> None:
    """All have as many files; ranks would pair one moment with another."""
    assert right(without(slice_major(4, 5), "0-4", "1-3", "2-2", "3-1"))


def test_two_of_twenty_phases_as_an_archive_keeps_them() -> None:
    kept = {f"{z}-{t}": (1 + z * 20 + t, 10.0 * z) for z in range(10) for t in (6, 19)}
    assert right(kept)


def test_numbers_that_begin_anew_at_every_position() -> None:
    anew = {f"{z}-{t}": (t + 1, 10.0 * z) for z in range(3) for t in range(4)}
    assert right(anew)
    assert right(without(anew, "1-2"))


def test_order_of_the_positions_may_be_any() -> None:
    shuffled = {
        label: (number, {0: 20.0, 1: 0.0, 2: 10.0}[int(label[0])]) for label, (number, _) in slice_major(3, 4).items()
    }
    found = series.places(*made(shuffled))
    assert {label.split("-")[1] for (_, t), label in found.items() if t == 2} == {"2"}


def refused(numbers: dict[str, tuple[int, float]], times: dict[str, float] | None = None) -> str:
    with pytest.raises(StudyError) as error:
        series.places(*made(numbers, times))
    return error.value.reason


def test_numbers_at_random_tell_nothing() -> None:
    numbers = [11, 3, 7, 1, 9, 2, 12, 5, 6]
    scrambled = {f"{n // 3}-{n % 3}": (number, 10.0 * (n // 3)) for n, number in enumerate(numbers)}
    assert "does not tell its phase" in refused(scrambled)


def test_a_file_that_is_there_twice() -> None:
    twice = slice_major(3, 3)
    assert "has the number 5 and the position of 1-1" in refused({**twice, "again": twice["1-1"]})


def test_without_numbers_the_times_tell_where_no_file_is_missing() -> None:
    nameless = {label: (0, height) for label, (_, height) in slice_major(3, 4).items()}
    times = {label: 40.0 * ((7 * int(label.split("-")[1])) % 4) for label in nameless}
    found = series.places(*made(nameless, times))
    assert all(times[label] == 40.0 * t for (_, t), label in found.items())
    assert "neither its number nor its trigger time" in refused(nameless)
    assert "neither its number nor its trigger time" in refused(without(nameless, "1-1"), times)


def test_times_that_contradict_the_numbers() -> None:
    numbers = slice_major(3, 4)
    times = {label: 40.0 * int(label.split("-")[1]) for label in numbers}
    assert len(series.places(*made(numbers, times))) == 12
    times |= {"1-1": 80.0, "1-2": 40.0}
    assert "its trigger time contradicts its number" in refused(numbers, times)


def test_a_file_of_another_plane() -> None:
    headers, numbers = made(slice_major(3, 2))
    tilted = (1.0, 0.0, 0.0, 0.0, math.cos(0.5), math.sin(0.5))
    headers["1-1"] = Header("1.2", 4, 0.0, "", (0.0, 0.0, 10.0), tilted)
    with pytest.raises(StudyError, match="is not parallel to the other slices"):
        series.places(headers, numbers)
