"""The table of what was measured: ratios, claims, RESULTS.md, and how `make bench` ends. By hand."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as command
from tests.benchmarks import catalogue, results
from tests.benchmarks.rows import Beside, Row, interleaved, spread

ROOT = Path(__file__).parents[1]
COST = Row("conversion", "ms", [2.0, 4.0], [Beside("MONAI", [8.0, 12.0], 3), Beside("bytes", [1.0, 1.0], 2.5, True)])
RATE = Row("epoch", "slices/s", [20.0], [Beside("MONAI", [10.0]), Beside("bare", [25.0], floor=True)], rate=True)


def test_times_are_of_each_round() -> None:
    assert [COST.times(other) for other in COST.beside] == [[4.0, 3.0], [2.0, 4.0]]
    assert [RATE.times(other) for other in RATE.beside] == [[2.0], [1.25]]


def test_claims_are_judged_by_medians() -> None:
    assert [COST.held_beside(other) for other in COST.beside] == [True, False]
    assert COST.missed()
    assert not RATE.missed()
    assert [Row("r", "s", [3.0], wanted=limit).held() for limit in (2.0, 3.0)] == [False, True]
    assert [Row("r", "1/s", [3.0], rate=True, wanted=limit).held() for limit in (3.0, 4.0)] == [True, False]


def test_what_was_not_measured_misses_nothing() -> None:
    row = Row("real files", "ms", (), missing="no folder", wanted=1.0)
    assert not row.missed()
    assert results.plain(row) == "real files  not measured: no folder  <= 1"
    assert RATE.held_beside(Beside("MONAI", missing="monai is not installed", wanted=3)) is None


def test_the_table_by_hand() -> None:
    assert results.table([COST]).splitlines()[2:] == [
        "| conversion (2 rounds) | 3 (2 to 4) ms |  |  |  |  |  |",
        "|  |  | MONAI | 10 (8 to 12) ms | 3.5 (3 to 4) | >= 3 | held |",
        "|  |  | floor: bytes | 1 (1 to 1) ms | 3 (2 to 4) | <= 2.5 | **missed** |",
    ]


def test_rounds_are_interleaved_and_begin_with_another_way() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert interleaved(ways, rounds=2) == {"a": [4, 5], "b": [3, 6]}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_spread_shows_three_digits() -> None:
    assert spread([1234.5]) == "1,234"
    assert spread([0.01234, 0.5, 99.99]) == "0.5 (0.0123 to 100)"


def test_the_latest_table_stands_on_top_of_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    for day in (1, 2):
        before = results.earlier(path)
        results.write(results.section(date(2026, 11, day), [RATE], 1.0, ["metrics"]), before, path)
        results.write(results.section(date(2026, 11, day), [RATE, COST], 3.0, []), before, path)
    text = path.read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# What was measured",
        "## 2026-11-02",
        "## 2026-11-01",
    ]
    assert text.count("conversion") == 2
    assert "Ended before" not in text


def test_a_run_that_was_cut_off_says_what_it_lacks() -> None:
    assert "Ended before: metrics, epoch.\n" in results.section(date(2026, 11, 1), [RATE], 1.0, ["metrics", "epoch"])


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Benchmarks that measure nothing, in this process; one of them misses a claim, one fails."""

    def failing(_: Path) -> Iterator[Row]:
        yield RATE
        raise OSError("no space left")

    made = {"cost": lambda _: iter([COST]), "rate": lambda _: iter([RATE]), "failing": failing}
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(catalogue, "BENCHMARKS", made)
    monkeypatch.setattr(command, "alone", catalogue.shown)


@pytest.mark.usefixtures("three")
def test_a_missed_claim_ends_with_1_and_a_benchmark_by_name_writes_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["cost"]) == 1
    assert "missed: conversion\n" in capsys.readouterr().out
    assert command.main(["rate"]) == 0
    assert not results.RESULTS.exists()


@pytest.mark.usefixtures("three")
def test_one_that_fails_is_a_line_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 1
    table = results.RESULTS.read_text()
    assert table.count("## ") == 1
    assert table.count("| epoch |") == 2
    assert "| failing | not measured: it failed: OSError: no space left |" in table
    assert "failed: failing\n" in capsys.readouterr().out


def test_an_unknown_name_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["conversions"]) == 2
    assert capsys.readouterr().err.startswith("no benchmark conversions; there are conversion, loading, ")


def test_what_the_readme_quotes_stands_in_the_results() -> None:
    quoted = (ROOT / "README.md").read_text().partition("## How fast")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in quoted.splitlines() if line.startswith("| ")][2:]
    table = (ROOT / "tests" / "benchmarks" / "RESULTS.md").read_text()
    day = re.search(r"\d{4}-\d\d-\d\d", quoted)[0]
    of_day = table.partition(f"## {day}")[2].partition("\n## ")[0]
    assert len(rows) == 3
    assert [cell for row in rows for cell in row if cell not in of_day] == []
