"""The benchmarks of large sweeps, of growth and of several folds run, in a tiny form; no threshold of time."""

from pathlib import Path

import numpy as np
import pytest

from mtl import evaluate
from tests.benchmarks import drawn, fivefolds, scaling, statusing


def test_the_exponent_of_a_power_law_is_found() -> None:
    sizes = (3, 40, 500)
    assert scaling.exponent(sizes, [2.5 * n**1.3 for n in sizes]) == pytest.approx(1.3)
    assert scaling.exponents({n: [n, n**2] for n in sizes}) == pytest.approx([1, 2])


def test_a_fixed_start_lies_less_in_the_two_larger_sizes() -> None:
    costs = {n: [1.0 + 0.001 * n**2] for n in (10, 100, 1000)}
    (over_all,), (over_larger,) = (scaling.exponents(dict(part)) for part in ([*costs.items()], [*costs.items()][1:]))
    assert over_all < over_larger < 2


def test_growth_is_measured_after_the_smallest_has_warmed_up() -> None:
    done: list[int] = []
    over_all, over_larger = scaling.grown(
        "sum", "numbers", {n: lambda n=n: (done.append(n), sum(range(n)))[1] for n in (10**5, 10**6, 10**4)}, rounds=2
    )
    assert done == [10**4, 10**4, 10**5, 10**6, 10**5, 10**6, 10**4]
    assert [len(row.ours) for row in (over_all, over_larger)] == [2, 2]
    assert over_all.wanted == scaling.WANTED
    assert "10,000 numbers" in over_all.note
    assert "10,000 numbers" not in over_larger.note


def test_each_kind_of_work_is_measured_as_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[list[Path]] = []
    monkeypatch.setattr(scaling.report, "report", lambda runs, out: reported.append(runs))  # tests/test_report.py
    made = [*scaling.rows(patients=(1, 2, 6), phases=2, levels=2, configurations=(1, 2), rounds=1)]
    assert [row.note.partition(" ")[0] for row in made] == ["4", "8", "4", "8", "20", "20", "5", "5"]
    assert all(np.isfinite(row.ours).all() for row in made)
    assert [runs[0].name for runs in reported] == ["5", "5", "6"]


def test_the_status_is_measured_on_finished_and_running_folds() -> None:
    (row,) = statusing.rows(configurations=2, folds=3, epochs=4, rounds=1)
    assert row.note.endswith("6 folds: 3 done, 3 runs")
    assert [len(other.values) for other in row.beside] == [1, 1]


def test_the_loop_beside_the_status_sees_every_fold(tmp_path: Path) -> None:
    sweep = statusing.make(tmp_path / "sweep", configurations=2, folds=3, epochs=4)
    told = [line.split()[1:] for line in statusing.by_hand(sweep).splitlines()]
    assert told == [["done", "4", "0.500"]] * 3 + [["runs", "2", "0.500"]] * 3


def test_drawn_slices_are_a_data_set() -> None:
    slices = drawn.slices(patients=3, phases=2, levels=4, size=16)
    fold = drawn.fold(slices)
    assert slices.image_NYX[fold.train].shape == (19, 16, 16)
    assert (slices.area_mm2_NA(fold.test) > 0).all()
    assert len([*evaluate.volumes(slices, np.arange(24))]) == 6


def test_folds_are_measured_in_processes_of_their_own() -> None:
    row, gpu = fivefolds.rows(counts=(2,), steps=1, size=16, width=1, at_once=2, rounds=1)
    assert len(row.ours) == 1
    assert [other.wanted for other in row.beside] == [0.95, 0.95, None]
    assert gpu.missing == "torch sees no GPU" or gpu.ours


def test_a_process_that_ends_early_is_told() -> None:
    with pytest.raises(RuntimeError, match="a fold's process said '', wanted 'ready'"):
        fivefolds.processes(fivefolds.Work(size=16, width=1, device="nothing"), 1, 1).__enter__()


def test_without_the_daemon_of_mps_its_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="there is no nvidia-cuda-mps-control"), fivefolds.mps(tmp_path):
        pass
