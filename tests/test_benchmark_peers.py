"""The benchmarks beside what a user would pick instead hold every peer, check it, and say which are missing."""

import sys

import numpy as np
import pytest
import torch

from mtl.network import UNet
from tests.benchmarks import augmenting, bootstrapping, inferring, networks, stepping
from tests.benchmarks.peers import Peer, assert_close, compared, milliseconds
from tests.benchmarks.rows import Row


def assert_measured(row: Row, peers: list[str], floors: list[str]) -> None:
    """All are there, in this order, each measured or missing."""
    assert [other.name for other in row.beside] == [*peers, *floors]
    assert [other.name for other in row.beside if other.floor] == floors
    assert all(bool(other.values) != bool(other.missing) for other in row.beside)
    assert all(value > 0 for other in row.beside for value in (*row.ours, *other.values))


def test_augmentation_is_measured_beside_peers_that_move_alike() -> None:
    (row,) = augmenting.rows(size=32, count=2, repeats=1, rounds=1)
    monai = ["MONAI's RandAffined", "MONAI's Affine"]
    assert_measured(row, [*monai, "scipy's affine_transform", "OpenCV's warpAffine"], ["memory copy"])
    assert row.beside[0].wanted == 3


def test_another_movement_stops_the_augmentation_benchmark() -> None:
    arrays = augmenting.batch(2, 32)
    with pytest.raises(AssertionError, match="OpenCV's warpAffine: differs from ours"):
        augmenting.agree(augmenting.ours(arrays), "OpenCV's warpAffine", arrays)


def test_a_step_is_measured_beside_networks_of_its_size() -> None:
    (row,) = stepping.rows({2: 2}, size=32, rounds=1)
    assert_measured(row, [*networks.PEERS], ["bare loop of our network", "matrix products"])
    assert row.rate
    assert "ours 0.00" in row.note


def test_inference_is_measured_both_ways() -> None:
    scored, predicted = inferring.rows(width=2, size=32, batch=2, rounds=1)
    for row in (scored, predicted):
        assert_measured(row, [*networks.PEERS, "plain PyTorch"], ["matrix products"])
    assert scored.beside == predicted.beside


def test_a_plain_loop_over_resamples_gives_the_reports_interval() -> None:
    (row,) = bootstrapping.rows(patients=20, volumes=200, resamples=199, rounds=1)
    assert_measured(row, ["scipy.stats.bootstrap", "plain loop"], ["drawing the patients"])


def test_peers_that_are_not_installed_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("monai", "dynamic_network_architectures"):
        monkeypatch.setitem(sys.modules, name, None)
    (row,) = stepping.rows({2: 2}, size=32, rounds=1)
    told = ["monai is not installed", "dynamic_network_architectures is not installed", "", ""]
    assert [other.missing for other in row.beside] == told
    assert "UNet" not in row.note


def test_the_networks_of_others_are_of_our_size() -> None:
    pytest.importorskip("monai")
    pytest.importorskip("dynamic_network_architectures")
    ours = networks.step_gflop(UNet("none", width=4, size=32), 32)
    theirs = [networks.step_gflop(make(4), 32) for make in networks.PEERS.values()]
    assert theirs == pytest.approx([ours] * 2, rel=0.1)


def test_matrix_products_have_the_arithmetic_that_was_asked_for() -> None:
    work = networks.matrix_products(0.01, "float32")
    assert networks._gflop(work) == pytest.approx(0.01, rel=0.02)


def test_a_floor_is_not_checked_and_a_peer_is() -> None:
    def agree(name: str, given: int) -> None:
        assert given == 1, name

    peers = {"right": Peer(lambda: lambda: 1), "floor": Peer(lambda: lambda: 2, floor=True)}
    assert compared(lambda **of: Row("row", "ms", **of), lambda: 1, peers, milliseconds, 2, agree).beside[1].floor
    with pytest.raises(AssertionError, match="wrong"):
        compared(Row, lambda: 1, {"wrong": Peer(lambda: lambda: 2)}, milliseconds, 1, agree)


def test_numbers_are_close_by_their_largest() -> None:
    assert_close("peer", np.array([0.0, 100.5]), torch.tensor([0.0, 100.0]), 0.01)
    with pytest.raises(AssertionError, match=r"peer: differs from ours by 0\.02 of the largest, wanted 0\.01"):
        assert_close("peer", [0.0, 102.0], [0.0, 100.0], 0.01)
