"""The benchmarks run and find what they measure; no threshold of time stands in a test."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep import convert, phantom, store
from mtl.slices import Slices, folds_of
from tests.benchmarks import (
    conversion,
    driving,
    epoch,
    launching,
    loading,
    metrics,
    queueing,
    reporting,
    starting,
    trainer,
)


def test_the_epoch_benchmark_runs(slices: Slices) -> None:
    row = epoch.run(slices, folds_of(slices, 5, 0, "validation")[0], width=2, rounds=1)
    (bare,) = row.beside
    assert row.rate
    assert (bare.floor, bare.wanted) == (True, 1.03)
    assert 0.2 < row.times(bare)[0] < 5


def test_a_peer_that_is_not_installed_says_so(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    row = conversion.against_peers("phantom", raw, rounds=1)
    assert row.name == "conversion, phantom, 30 slices, 30 masks"
    beside = {other.name: other for other in row.beside}
    assert beside["MONAI, PydicomReader"].missing == "monai is not installed"
    assert row.times(beside["SimpleITK per slice"]) == [beside["SimpleITK per slice"].values[0] / row.ours[0]]
    assert beside["reading the bytes"].floor


def test_simpleitk_makes_what_the_store_holds(tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "store.zarr"
    phantom.make(raw, patients=1, slices=1, phases=2, seed=0)
    convert.convert(raw, path)
    patient = store.open(path).patients[0]
    made = [conversion.by_simpleitk(files) for files in conversion.cases_of(raw)[patient.key]]
    assert abs(np.array([image for image, _ in made]) - patient.array("image_TZYX")[:, 0]).max() < 0.501
    assert np.array_equal([mask for _, mask in made], patient.array("mask_TZYX")[:, 0] > 0)


def test_two_workers_are_measured_against_one() -> None:
    row = conversion.two_workers(2, 4, slices=1, phases=2, rounds=1)
    assert row.name == "conversion by two workers, disk, 4 slices beyond their start"
    assert [other.name for other in row.beside] == ["one worker"]


def test_the_conversion_is_measured_as_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "alone", lambda warm, raw: (conversion.converted(raw), conversion.peak_memory_MB()))
    time_of, memory = conversion.linearity(1, 2, slices=1, phases=2, rounds=1)
    assert time_of.name == "conversion of 2 patients, 2 slices each"
    assert memory.ours[0] > 50
    assert re.fullmatch(r"one patient of 32 slices: \d+ MB", memory.note)


def test_a_process_of_its_own_tells_its_time_and_its_memory(raw: Path) -> None:
    took_s, peak_MB = conversion.alone(raw, raw)
    assert 0 < took_s < 60 < peak_MB


def test_real_data_are_measured_on_the_case_with_masks(raw: Path, tmp_path: Path) -> None:
    name = conversion.real_case(raw, tmp_path / "copy")
    assert [*conversion.cases_of(tmp_path / "copy")] == [name]


def test_the_loading_benchmark_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "alone", lambda way, home: conversion.seconds(lambda: loading.WAYS[way](home)))
    warm, cold, *others = loading.rows(patients=2, slices=2, phases=1, rounds=1)
    peers = ["np.load of a file per array", "np.load of one file"]
    assert [other.name for other in warm.beside] == [*peers, "reading the bytes"]
    assert [other.name for other in cold.beside] == peers
    assert [row.unit for row in others] == ["ms a patient", "slices/s", "MB/s"]


def test_every_way_of_loading_gives_the_same_bytes(tmp_path: Path) -> None:
    size = loading.make(tmp_path, patients=2, slices=2, phases=1)
    made = [b"".join(array.tobytes() for array in way(tmp_path)) for way in loading.WAYS.values()]
    assert {len(one) for one in made} == {size}
    assert made[0] == made[2]
    assert loading.alone("ours", tmp_path) > 0


def test_the_metrics_benchmark_finds_equal_values() -> None:
    head, component = metrics.rows(rounds=1)
    assert "Dice 0.85" in head.note
    assert [peer.name for peer in head.beside] == ["MONAI's four calls", "scipy, whole volume", "reading the masks"]
    assert [peer.name for peer in component.beside] == [
        "MONAI",
        "scipy, whole volume",
        "cc3d",
        "SimpleITK",
        "memory copy",
    ]
    for row in (head, component):
        assert row.beside[0].wanted == 5
        assert row.ours[0] > 0
        assert all(bool(peer.values) != bool(peer.missing) for peer in row.beside)


def test_values_that_are_not_ours_stop_the_metrics_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "by_scipy", lambda *_: lambda: [0.5, 0.5, 0.5, 0.5])
    with pytest.raises(AssertionError, match="scipy, whole volume, dice: differs from ours"):
        metrics.metrics_row(rounds=1)


def test_the_trainer_benchmark_takes_as_many_steps_on_networks_of_one_size(slices: Slices) -> None:
    pytest.importorskip("ignite")
    rate, dice = trainer.run(slices, folds_of(slices, 5, 0, "validation")[0], width=2, rounds=1)
    ours, monai = map(float, re.findall(r", ([\d.]+)", rate.note.replace(" GFLOP a slice", ""))[:2])
    assert monai == pytest.approx(ours, rel=0.1)
    assert rate.beside[0].wanted == (3 if trainer.PRECISION == "bf16" else None)
    assert rate.times(rate.beside[0])[0] > 0
    assert dice.name.endswith("after 28 steps")
    assert dice.wanted == round(dice.beside[0].values[0] - 0.02, 3)
    assert 0 <= dice.ours[0] <= 1


def test_the_trainer_benchmark_says_what_is_not_installed(slices: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ignite", None)
    rows = trainer.run(slices, folds_of(slices, 5, 0, "validation")[0], width=2, rounds=1)
    for row in rows:
        assert row.ours
        assert row.wanted is None
        assert [peer.missing for peer in row.beside] == ["ignite is not installed"]


def test_the_report_is_measured_with_its_metrics() -> None:
    whole, page = reporting.rows(patients=5, phases=2, levels=3, rounds=1)
    assert whole.name == "metrics and report of 2 x 10 volumes, 30 slices, one process"
    assert whole.ours[0] > page.ours[0] > page.beside[0].values[0]


def test_a_broker_with_a_made_up_cluster_queues_each_configuration_once() -> None:
    load, memory, questions = queueing.run(configurations=4, gpus=10)
    assert load.name == "broker, 4 x 5 folds on 10 GPUs"
    assert load.ours[0] > 0 <= memory.ours[0]
    assert 0 < questions.ours[0] < 60


def test_a_folds_start_is_measured_to_its_first_step(store_path: Path) -> None:
    row = starting.run(store_path, store.open(store_path).digest, rounds=1, warm_up=False)
    assert [other.floor for other in row.beside] == [True, True]
    assert row.ours[0] > 0


@pytest.mark.timeout(600)
def test_a_launch_is_measured_to_its_first_fold() -> None:
    row = launching.run(rounds=1, warm_up=0)
    assert row.ours[0] > 0 < row.beside[0].values[0]


@pytest.mark.timeout(600)
def test_the_drivers_memory_is_measured() -> None:
    row = driving.run(trials=3)
    assert re.fullmatch(r"its peak \d+ MB, with as many configurations mirrored; bare Ray Tune's \d+ MB", row.note)
