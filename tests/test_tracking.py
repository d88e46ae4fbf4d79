"""The mirror: one way, exactly once, again from nothing. Real MLflow on sqlite, run folders made by hand."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from cluster import tracking_uris
from cluster.folds import Configuration, mean_over_folds
from cluster.tracking import Mirror
from mtl.config import Config, Train, flat


def record(epoch: int, dice: float) -> dict[str, Any]:
    time_utc = f"2026-01-02T03:04:{epoch:02d}.000+00:00"
    return {"epoch": epoch, "time_utc": time_utc, "dice_val": dice, "log_sigma2_seg": None, "lr": 0.001}


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    """Three folds: two finished after two epochs, one in its first."""
    config = asdict(Config("digest", train=Train(folds=3, epochs=2)))
    made = Configuration("branch-up4-0", {"model.branch": "up4"}, config, tmp_path / "runs" / "sweep" / "branch-up4-0")
    for k, run in enumerate(made.runs):
        run.prepare({**config, "fold": k})
        run.write_epochs([record(n, 0.1 * n + k) for n in ((1, 2) if k < 2 else (1,))])
        if k < 2:
            run.finish("DONE", "all epochs trained")
    return made


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def contents(uri: str) -> dict[str, Any]:
    """What a reader of the UI sees, by path: name, parent's path, params, status, every metric's history."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("sweep")
    assert experiment is not None
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    paths = {run_id: run.data.tags["branchpoint.path"] for run_id, run in runs.items()}
    assert len(set(paths.values())) == len(runs)
    return {
        paths[run_id]: (
            run.info.run_name,
            paths.get(run.data.tags.get("mlflow.parentRunId", "")),
            run.data.params,
            run.info.status,
            {
                key: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, key)]
                for key in run.data.metrics
            },
        )
        for run_id, run in runs.items()
    }


def test_mirrored_once_however_often_and_by_whoever(configuration: Configuration, uri: str, tmp_path: Path) -> None:
    mirror = Mirror(uri, "sweep", "why", tmp_path)
    mirror.sync([configuration])
    mirror.sync([configuration])
    first = contents(uri)
    Mirror(uri, "sweep", "why", tmp_path).sync([configuration])  # a launcher started again
    assert contents(uri) == first
    name, parent, params, status, metrics = first["sweep/branch-up4-0/fold_1"]
    assert (name, parent, status) == ("fold_1", "sweep/branch-up4-0", "FINISHED")
    assert params["train.folds"] == "3"
    assert [(step, value) for step, value, _ in metrics["dice_val"]] == [(1, 1.1), (2, 1.2)]
    assert "log_sigma2_seg" not in metrics
    assert first["sweep/branch-up4-0/fold_2"][3] == "RUNNING"


def test_a_fold_that_goes_on_continues_its_run_and_means_wait_for_all_folds(
    configuration: Configuration, uri: str, tmp_path: Path
) -> None:
    mirror = Mirror(uri, "sweep", "why", tmp_path)
    mirror.sync([configuration])
    means = contents(uri)["sweep/branch-up4-0"][4]["dice_val_mean"]
    assert [(step, value) for step, value, _ in means] == [(1, pytest.approx(1.1))]
    last = configuration.runs[2]
    last.write_epochs([record(1, 2.1), record(2, 2.2)])
    last.finish("DONE", "all epochs trained")
    mirror.sync([configuration])
    after = contents(uri)
    assert len(after) == 1 + 1 + 3
    assert [step for step, _, _ in after["sweep/branch-up4-0/fold_2"][4]["dice_val"]] == [1, 2]
    assert [step for step, _, _ in after["sweep/branch-up4-0"][4]["dice_val_sd"]] == [1, 2]
    assert after["sweep/branch-up4-0"][3] == "FINISHED"


def test_made_again_from_nothing_it_is_the_same(configuration: Configuration, uri: str, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text("configuration\n")
    Mirror(uri, "sweep", "why", tmp_path).finish([configuration], table, "the answer")
    before = contents(uri)
    again = f"sqlite:///{tmp_path / 'again.db'}"  # a new database: this process still holds the old one open
    Mirror(again, "sweep", "why", tmp_path).finish([configuration], table, "the answer")
    assert contents(again) == before
    assert before["sweep/branch-up4-0/fold_2"][3] == "KILLED"  # it was not running any more
    assert before["sweep"][3] == "KILLED"


def test_two_runs_folders_in_one_database_stay_apart(configuration: Configuration, uri: str, tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        (tmp_path / name).mkdir()
    mine = Mirror(uri, "sweep", "why", tmp_path / "mine")
    mine.sync([configuration])
    Mirror(uri, "sweep", "why", tmp_path / "yours").close([configuration])
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("sweep")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 10
    assert len({run.data.tags["branchpoint.runs"] for run in runs}) == 2
    assert sum(run.info.status == "KILLED" for run in runs) == 3  # yours: a fold, its configuration, its sweep
    client.delete_experiment(experiment.experiment_id)
    Mirror(uri, "sweep", "why", tmp_path / "mine").sync([configuration])  # brings it back


def test_passwords_are_not_printed() -> None:
    assert tracking_uris.without_password("postgresql://me:s3cret@db/x") == "postgresql://me:***@db/x"
    assert "s3cret" not in tracking_uris.how_to_look("postgresql://me:s3cret@db/x")
    assert "s3cret" not in tracking_uris.how_to_look("https://me:s3cret@lab")
    assert tracking_uris.without_password("asked https://me:s3cret@lab/api: 403") == "asked https://me:***@lab/api: 403"


def test_a_database_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while MLflow makes its tables, the next mirror starts from nothing."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with monkeypatch.context() as patched:
        patched.setattr("data_prep.files.os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Mirror(uri, "sweep", "why", tmp_path)
    assert list(tmp_path.glob("mlflow.db*")) == []
    Mirror(uri, "sweep", "why", tmp_path)


def test_mean_and_sd_by_hand() -> None:
    records = [{"epoch": 3, "dice_val": d, "log_sigma_reg": None, "time_utc": "t"} for d in (0.2, 0.4, 0.9)]
    assert mean_over_folds(records) == {
        "epoch": 3,
        "dice_val_mean": pytest.approx(0.5),
        "dice_val_sd": pytest.approx(0.13**0.5),
    }


def test_names_of_params_and_uris(tmp_path: Path) -> None:
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert tracking_uris.default(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uris.how_to_look("http://lab:5000") == "http://lab:5000"
    for uri in ("sqlite:///x.db", "http://lab:5000", "postgresql+psycopg2://u@h/d"):
        tracking_uris.check(uri)
    with pytest.raises(ValueError, match="wanted one that begins with"):
        tracking_uris.check("mlruns")
