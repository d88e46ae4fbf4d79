"""What a sweep on Slurm may cost, and what its plan advises."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluster import costs
from cluster.canary import Answer
from cluster.folds import Configuration
from cluster.settings import Settings
from cluster.task import Task
from data_prep import store
from data_prep.files import make_private
from mtl.config import Config, Model, fold_dict
from mtl.network import UNet
from tests.pretended import SITE


def test_the_price_is_the_time_limit_until_there_are_epochs_to_go_by(tmp_path: Path, config: Config) -> None:
    folder = make_private(tmp_path / "runs" / "sweep" / "c")
    one = Configuration("c", {}, asdict(config), folder)
    site = replace(SITE, gpus_per_node=2, nodes=2, time_min=90)
    first = costs.price([one], site, images=100)
    assert first.gpu_hours == 5 * 4 * 1.5
    assert str(first) == "5 folds to train, at most 30.0 GPU hours (the time limit of 90 minutes for each of them)"
    one.runs[0].prepare(fold_dict(one.config, 0))
    one.runs[0].write_epochs([{"epoch": 1, "seconds": 36.0}, {"epoch": 2, "seconds": 72.0}])
    later = costs.price([one], site, images=100)  # 4 folds of 3 epochs and one of 1 left: 13 epochs
    assert (later.low_h, later.high_h) == pytest.approx((13 * 36 / 3600, 13 * 72 / 3600))
    assert str(later).startswith("5 folds to train, 0.52 to 1.04 GPU hours (from the epochs of earlier runs in ")
    other = Configuration("d", {}, asdict(replace(config, model=Model(width=4))), make_private(folder.parent / "d"))
    assert "the time limit" in str(costs.price([one, other], site, images=100))
    one.runs[0].finish("DONE", "all epochs trained")
    assert costs.price([one], site, images=100).folds == 4
    (make_private(folder.parent / "old" / "fold_0") / "config.yaml").write_text("model: {width: 2}\nfold: 0\n")
    assert costs.price([one], site, images=100).folds == 4  # of another version: it is of no help, and no error


def test_without_earlier_epochs_the_canarys_probe_gives_an_interval(tmp_path: Path, config: Config) -> None:
    """5 folds of 3 epochs: of 100 images 60 train, three times each (2 copies), and 20 are predicted."""
    one = Configuration("c", {}, asdict(config), make_private(tmp_path / "runs" / "sweep" / "c"))
    answer = Answer("k", "gpu07", train_s=0.1, predict_s=0.05, import_s=9.0, load_s=1.0)
    alone_s = 5 * 3 * (60 * 3 * 0.1 + 20 * 0.05)
    found = costs.price([one], replace(SITE, nodes=2, gpus_per_node=1), 100, answer)
    assert found.low_h == pytest.approx((0.8 * alone_s / 2 + 50) / 3600)  # as fast as two ranks can be
    assert found.high_h == pytest.approx((1.5 * alone_s + 50) / 3600)
    assert found.source == "from a probe of a few steps on gpu07"
    shared = costs.price([one], replace(SITE, gpus_per_node=1, folds_per_gpu=2), 100, answer)
    assert shared.gpu_hours == pytest.approx(shared.high_h / 2)


@pytest.mark.parametrize("width", [2, 16, 64])
def test_the_bytes_are_those_of_the_largest_network(width: int) -> None:
    """last.pt holds weights and RMSprop's squares, best.pt the weights: three times four bytes each."""
    largest = sum(p.numel() for p in UNet("bottleneck", width, size=96).parameters())
    assert costs.BYTES_PER_WIDTH_SQUARED * width**2 == pytest.approx(12 * largest, rel=0.15)


def test_the_plan_advises_from_the_probe(store_path: Path, tmp_path: Path, config: Config) -> None:
    from cluster import plan

    one = Configuration("c", {}, asdict(config), make_private(tmp_path / "runs" / "sweep" / "c"))
    task = Task(
        Settings(site=replace(SITE, time_min=240, nodes=2, gpus_per_node=2)), "s", one.folder.parent, [one],
        store.open(store_path),
    )  # fmt: skip
    quick = Answer("k", "n1", advice=("site.mem_gb=2: the probe used 1 GB",), train_s=0.01, predict_s=0.01)
    told = plan.advice(task, quick)
    assert told[0] == quick.advice[0]
    assert any(line.startswith("site.time_min=5: a fold takes ") for line in told)
    assert any(line.startswith("site.nodes=1 site.gpus_per_node=1: ") for line in told)
    slow = Answer("k", "n1", train_s=500.0, predict_s=0.0)
    assert "times site.time_min: it is requeued" in " ".join(plan.advice(task, slow))
