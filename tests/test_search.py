"""Ray Tune's trials for real: what they report, and what their processes carry."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cluster import executors, folds, worker
from cluster.folds import Configuration
from data_prep.files import locked, make_private
from mtl.config import Config, Train
from mtl.runfolder import RunFolder
from sweeps import search

HERE = executors.Place("cpu", 2)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    before = dict(os.environ)
    with executors.local_ray() as folder:
        yield folder
    os.environ.clear()
    os.environ |= before


def test_grid_is_every_combination() -> None:
    points = search.grid({"a": [1, 2], "b": ["x", "y"]})
    assert points == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    with pytest.raises(ValueError, match="no values for b"):
        search.grid({"a": [1], "b": []})
    with pytest.raises(ValueError, match="no values"):
        search.grid({})


def test_trials_carry_neither_torch_nor_mlflow_and_phone_nobody(scratch: Path, tmp_path: Path) -> None:
    def evaluate(point: search.Point, report: search.Report) -> None:
        import sys

        import cluster.folds  # noqa: F401  what a real trial's evaluate comes from

        facts = {
            "modules": sorted({"torch", "mlflow"} & set(sys.modules)),
            "environment": {key: os.environ.get(key) for key in executors.ENVIRONMENT},
        }
        (tmp_path / f"{point['n']}.json").write_text(json.dumps(facts))
        report({"dice_val_mean": float(point["n"])})

    search.search([{"n": 1}, {"n": 2}, {"n": 3}], evaluate, concurrent=2, scratch=scratch)
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["1", "2", "3"]
    for path in tmp_path.iterdir():
        facts = json.loads(path.read_text())
        assert facts["modules"] == []
        assert facts["environment"] == executors.ENVIRONMENT


def test_ray_asks_for_a_token_and_shows_no_dashboard(scratch: Path) -> None:
    import ray

    assert os.environ["RAY_AUTH_MODE"] == "token"
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent == scratch
    assert scratch.stat().st_mode & 0o077 == 0
    assert not ray.get_runtime_context().gcs_address.startswith("0.0.0.0")
    assert ray._private.worker.global_worker.node.webui_url in (None, "")


@pytest.fixture
def configuration(config: Config, tmp_path: Path) -> Configuration:
    small = replace(config, train=Train(epochs=2, folds=3, batch_size=8, device="cpu"))
    return Configuration("c", {}, asdict(small), make_private(tmp_path / "sweep" / "c"))


def test_a_configuration_reports_the_mean_of_its_folds_each_epoch(
    scratch: Path, configuration: Configuration, store_path: Path
) -> None:
    reports: list[dict[str, Any]] = []
    folds.evaluate(configuration, store_path, HERE, reports.append)
    assert configuration.done()
    assert [r["epoch"] for r in reports] == [1, 2]
    for epoch in (1, 2):
        values = [run.epochs()[epoch - 1]["dice_val"] for run in configuration.runs]
        assert reports[epoch - 1]["dice_val_mean"] == pytest.approx(sum(values) / 3)


def test_a_fold_that_another_process_trains_is_left_alone(
    scratch: Path, configuration: Configuration, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = folds.jobs_of
    monkeypatch.setattr(folds, "jobs_of", lambda *given: [replace(job, left_over_s=0.5) for job in real(*given)])
    mine = make_private(configuration.runs[1].path)
    with locked(mine):
        folds.evaluate(configuration, store_path, HERE, lambda _: None)
    assert [p.name for p in mine.iterdir()] == [".lock"]
    assert [run.outcome() for run in configuration.runs] == ["DONE", None, "DONE"]


def test_a_worker_that_is_killed_is_a_failed_fold_and_its_siblings_go_on(
    scratch: Path, configuration: Configuration, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker.run_fold

    def dying(job: worker.FoldJob) -> None:
        if job.number == 2:
            os.kill(os.getpid(), 9)
        real(job)

    monkeypatch.setattr(worker, "run_fold", dying)
    folds.evaluate(configuration, store_path, HERE, lambda _: None)
    assert [run.outcome() for run in configuration.runs] == ["DONE", "DONE", "FAILED"]
    assert "killed, or out of memory" in RunFolder(configuration.runs[2].path).reason()
