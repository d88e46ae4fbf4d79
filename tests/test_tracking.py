"""The mirror: one way, exactly once, again from nothing. Real MLflow on sqlite, run folders made by hand."""

import gc
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from cluster import watched
from cluster.folds import mean_over_folds
from cluster.tracking import command
from cluster.tracking import mirror as mirroring
from cluster.tracking.mirror import Mirror
from cluster.tracking.mirror_writer import Part, Refused
from cluster.tracking.mirrored import Sweep
from cluster.tracking.mirrored_tags import fold_hash
from cluster.tracking.stores import database
from cluster.watched import Watched
from data_prep.files import locked
from mtl.config import Model, flat
from mtl.runfolder import RunFolder
from tests import tracked
from tests.benchmarks import mirroring as benchmark
from tests.tracked import CONFIG, contents, done, record, train


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks lie elsewhere than a user's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "sweep"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return tracked.database(tmp_path / "db")


def from_nothing(folder: Path, tmp_path: Path) -> dict[str, Any]:
    """What a mirror that is made now says of the folder."""
    again = tracked.database(tmp_path / f"again-{len(list(tmp_path.iterdir()))}")
    Mirror(again, folder).finish()
    return contents(again, folder.name)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The calls that change something in MLflow."""
    calls: list[str] = []
    with monkeypatch.context() as patched:
        for name in WRITES:
            real = getattr(MlflowClient, name)

            def call(*args: Any, name: str = name, real: Any = real, **named: Any) -> Any:
                calls.append(name)
                return real(*args, **named)

            patched.setattr(MlflowClient, name, call)
        yield calls


WRITES = ("create_run", "log_batch", "set_terminated", "update_run", "delete_run", "delete_tag", "log_inputs")


def test_what_mlflow_shows(folder: Path, uri: str) -> None:
    branches = ("up3", "up4")
    (up3, up4) = tracked.finished(folder, branches, tracked.LEARNED)
    tracked.launch(folder)
    (folder / "verdict.md").write_text("up4 it is.")
    (folder / "results.csv").write_text("configuration\n")
    Mirror(uri, folder).finish()
    told = contents(uri)
    names = [f"sweep/{run[0].path.parent.name}" for run in (up3, up4)]
    assert set(told) == {"sweep", *names, *(f"{name}/fold_{k}" for name in names for k in range(3))}
    sweep, configuration, fold = told["sweep"], told[names[1]], told[f"{names[1]}/fold_1"]
    assert [one["parent"] for one in (sweep, configuration, fold)] == [None, "sweep", names[1]]
    assert [one["name"] for one in (sweep, configuration, fold)] == ["sweep", "up4", "fold 1, up4"]
    assert {one["status"] for one in told.values()} == {"FINISHED"}
    begun, ended = 1767322802000, 1767322820000  # 03:00:10 less 8 s; 03:00:20
    assert {one["times"] for one in told.values()} == {(begun, ended)}

    assert sweep["params"]["question"] == "Where to leave?"
    assert json.loads(sweep["params"]["space.model.branch"]) == list(branches)
    config = replace(CONFIG, model=Model(branch="up4"))
    assert fold["params"]["optim.lr"] == configuration["params"]["optim.lr"] == "0.001"
    assert fold["params"]["fold"] == "1"
    assert fold["params"]["searched.model.branch"] == "up4"
    assert {one["params"].get("data_digest") for one in (configuration, fold)} == {config.data_digest}

    assert fold["metrics"]["dice_val"] == [(1, pytest.approx(0.11), 1767322810000), (2, pytest.approx(0.21), ended)]
    assert [value for _, value, _ in fold["metrics"]["weight_ratio"]] == [1.5, 3.0]
    assert "log_sigma_reg" not in fold["metrics"]
    assert [value for _, value, _ in configuration["metrics"]["dice_val_mean"]] == pytest.approx([0.11, 0.21])
    assert [value for _, value, _ in configuration["metrics"]["dice_val_sd"]] == pytest.approx([0.01, 0.01])
    assert fold["metrics"]["best_dice_val"] == [(0, pytest.approx(0.21), ended)]
    assert fold["metrics"]["best_epoch"] == [(0, 2.0, ended)]
    assert configuration["metrics"]["best_area_mad_mm2_mean"] == [(0, 50.0, ended)]

    assert {one["tags"]["git_commit"] for one in told.values()} == {"abc123"}
    assert fold["tags"]["mlflow.source.git.commit"] == "abc123"
    assert (fold["tags"]["code"], configuration["tags"]["torch"]) == ("c0de", "2.13.0+cpu")
    assert (fold["tags"]["outcome"], fold["tags"]["reason"]) == ("DONE", "all epochs trained")
    assert fold["tags"]["site"] == "local"
    assert fold["tags"]["level"] == "fold"
    assert sweep["tags"]["owner"] == folder.owner()
    assert sweep["tags"]["mlflow.note.content"] == "up4 it is."

    (data,) = configuration["data"]
    assert data[:2] == ("hearts.zarr", "a" * 12)
    assert json.loads(data[2])["patients"] == 5
    assert set(sweep["artifacts"]) == {"results.csv", "verdict.md", "sigmas_by_epoch.png"}
    assert set(configuration["artifacts"]) == {"config.yaml"}
    assert fold["artifacts"] == {}


def test_a_fold_hash_tells_the_same_split_from_another(folder: Path) -> None:
    (up3, up4) = tracked.finished(folder)
    sweep = Sweep(folder)
    sweep.look()
    first, second = sweep.configurations
    hashes = [fold_hash(first, fold) for fold in first.folds]
    assert len(set(hashes)) == len(up3) == len(up4)
    assert hashes == [fold_hash(second, fold) for fold in second.folds]
    first.config["protocol"] = {**first.config["protocol"], "fold_seed": 1}
    assert not {fold_hash(first, fold) for fold in first.folds} & set(hashes)


def test_jobs_and_failures_are_told(folder: Path, uri: str) -> None:
    ((run, other, _), _) = tracked.sweep(folder)
    train(run, (1,))
    other.finish("FAILED", "RuntimeError: no\nmore of it", failure="code", traceback="long")  # it never began
    job = Watched({"folder": f"/elsewhere/{run.path.parent.name}/fold_0"}, "c", "31_0", past=["27_0 TIMEOUT"])
    watched.Kept(folder / "jobs.json", {job.folder: job}).write()
    Mirror(uri, folder).sync()
    told = contents(uri)
    path = f"sweep/{run.path.parent.name}"
    assert told[f"{path}/fold_0"]["tags"]["slurm_job_ids"] == "27_0 31_0"
    failed = told[f"{path}/fold_1"]
    assert (failed["status"], failed["tags"]["failure"]) == ("FAILED", "code")
    assert failed["tags"]["reason"] == "RuntimeError: no"
    assert failed["times"][0] == failed["times"][1] == (other.path / "FAILED").stat().st_mtime_ns // 1_000_000
    assert f"{path}/fold_2" not in told


def live(folder: Path) -> Iterator[None]:
    """A sweep's life, stop by stop: what is done and made undone in it."""
    (up3, up4) = tracked.sweep(folder)
    configs = [replace(CONFIG, model=Model(branch=branch)) for branch in ("up3", "up4")]
    yield  # nothing has begun
    for run in up3:
        train(run, (1,), config=configs[0])
        yield
    tracked.launch(folder)
    for run in up3:
        train(run, (1, 2), config=configs[0])
        run.write_usage(1, {"cores": 1.0, "memory_gb": 0.5})
    yield
    for run in up3:
        run.write_usage(2, {"cores": 1.1, "memory_gb": 0.6})
        done(run)
    yield
    train(up4[0], (1, 2, 3), config=configs[1])
    yield
    train(up4[0], (1, 2), config=configs[1])  # requeued, it goes on from its last.pt
    yield
    up4[0].write_epochs([record(1, 0.1), record(2, 0.2), record(3, 0.3, minute=9)])  # its last epoch came again
    done(up4[0])
    up4[1].finish("FAILED", "out of memory")
    yield
    up4[1].reopen()
    train(up4[1], (1, 2), config=configs[1])
    yield
    up4[2].finish("STOPPED", "others were better", by="asha")
    done(up4[1])
    yield
    shutil.rmtree(up3[1].path)  # somebody wants it anew
    yield
    train(up3[1], (1,), minute=30, config=configs[0])
    yield
    (folder / "results.csv").write_text("configuration\n")


def test_what_was_mirrored_live_is_what_is_mirrored_from_nothing(folder: Path, uri: str, tmp_path: Path) -> None:
    """At every stop of a sweep's life, by a mirror that lives as long, and by ones that begin anew."""
    steady = Mirror(uri, folder)
    anew = tracked.database(tmp_path / "anew")
    for number, _ in enumerate(live(folder)):
        steady.sync()
        Mirror(anew, folder).sync()
        if number == 0:
            assert contents(uri) == contents(anew) == {}
            continue
        assert contents(uri) == contents(anew)
    steady.finish()
    told = contents(uri)
    assert told == from_nothing(folder, tmp_path)
    assert told["sweep"]["status"] == "KILLED"
    steps = {key: [step for step, *_ in history] for run in told.values() for key, history in run["metrics"].items()}
    assert all(len(set(one)) == len(one) for one in steps.values())


def test_a_fold_that_goes_on_continues_its_run_and_means_wait_for_all_folds(folder: Path, uri: str) -> None:
    ((first, second, third), _) = tracked.sweep(folder)
    mirror, path = Mirror(uri, folder), f"sweep/{first.path.parent.name}"
    train(first, (1, 2))
    train(second, (1, 2))
    mirror.sync()
    assert "dice_val_mean" not in contents(uri)[path]["metrics"]
    train(third, (1,))
    mirror.close()  # a launcher ends
    before, stopped = mirror.run_id(f"{path}/fold_2"), contents(uri)
    assert {run["status"] for run in stopped.values()} == {"KILLED"}
    assert [step for step, *_ in stopped[path]["metrics"]["dice_val_mean"]] == [1]
    train(third, (1, 2))
    next_one = Mirror(uri, folder)
    next_one.sync()
    after = contents(uri)
    assert next_one.run_id(f"{path}/fold_2") == before
    assert [step for step, *_ in after[f"{path}/fold_2"]["metrics"]["dice_val"]] == [1, 2]
    assert [step for step, *_ in after[path]["metrics"]["dice_val_mean"]] == [1, 2]
    assert {run["status"] for run in after.values()} == {"RUNNING"}


def test_a_write_per_fold_and_epoch_and_none_where_nothing_is_new(
    folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((first, second, third), _) = tracked.sweep(folder)
    for run in (first, second, third):
        train(run, (1,))
    mirror = Mirror(uri, folder)
    mirror.sync()
    with counted(monkeypatch) as calls:
        mirror.sync()
        assert calls == []
        train(first, (1, 2))
        mirror.sync()
        assert calls == ["log_batch"]
        first.write_usage(2, {"cores": 1.0})  # comes with the next epoch
        mirror.sync()
        assert calls == ["log_batch"]
        train(first, (1, 2, 3))
        mirror.sync()
        assert calls == ["log_batch"] * 2
        train(second, (1, 2))
        train(third, (1, 2))
        mirror.sync()
        assert calls == ["log_batch"] * 5  # two folds and the mean
        with monkeypatch.context() as patched:
            patched.setattr(RunFolder, "epochs", lambda _: pytest.fail("a folder was read again"))
            mirror.sync()


def test_killed_between_any_two_writes_it_ends_the_same(
    folder: Path, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call in turn does not arrive, or its answer is lost."""
    (folds,) = tracked.sweep(folder, ("up4",), tracked.TWO)
    for run in folds:
        train(run, (1, 2), config=tracked.TWO)
        run.write_usage(1, {"cores": 1.0})
        done(run)
    with counted(monkeypatch) as calls:
        Mirror(uri, folder).finish()
    assert len(calls) == 4 * 3 + 2 + 1  # runs, the data of two, artifacts of one
    wanted = told(uri, folder)
    for number in range(len(calls)):
        mine = tmp_path / str(number) / "sweep"
        shutil.copytree(folder, mine)
        with failing(monkeypatch, number, arrives=number % 2 == 0), pytest.raises(Refused, match="gone"):
            Mirror(uri, mine).finish()
        Mirror(uri, mine).finish()
        assert told(uri, mine) == wanted


def told(uri: str, folder: Path) -> dict[str, Any]:
    """What MLflow has of it, whatever the name of the runs folder."""
    made = contents(uri, folder.name, folder.parent)
    for run in made.values():
        del run["tags"]["branchpoint.runs"]
    return made


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, number: int, *, arrives: bool) -> Iterator[None]:
    """MLflow is gone with the call of this number, counted from 0. arrives: the call does something."""
    left = number
    with monkeypatch.context() as patched:
        for name in WRITES:
            real = getattr(MlflowClient, name)

            def call(*args: Any, real: Any = real, **named: Any) -> Any:
                nonlocal left
                left -= 1
                answer = real(*args, **named) if left >= 0 or (arrives and left == -1) else None
                if left < 0:
                    raise MlflowException("gone")
                return answer

            patched.setattr(MlflowClient, name, call)
        yield


def test_two_that_mirror_the_same_folder_double_nothing(folder: Path, uri: str, tmp_path: Path) -> None:
    one, other = Mirror(uri, folder), Mirror(uri, folder)
    for number, _ in enumerate(live(folder)):
        (one if number % 2 else other).sync()
        other.sync()
    one.finish()
    other.finish()
    assert contents(uri) == from_nothing(folder, tmp_path)


class InThisProcess:
    """Instead of a pool of processes, whose start takes seconds."""

    def __init__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[[Part], Any], parts: Sequence[Part]) -> Iterator[Any]:
        for part in parts:
            yield pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(part)))))

    def shutdown(self, *, cancel_futures: bool) -> None:
        assert cancel_futures


def test_a_large_sweep_is_written_side_by_side(
    folder: Path, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked.finished(folder, ("bottleneck", "up1", "up2", "up3"))
    (folder / "results.csv").touch()
    monkeypatch.setattr(mirroring, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(mirroring, "MANY", 3)
    monkeypatch.setattr(mirroring, "A_PART", 2)
    several = Mirror(uri, folder, processes=2)
    several.refresh(elsewhere=False)
    assert contents(uri) == from_nothing(folder, tmp_path)
    with counted(monkeypatch) as calls:
        several.finish()
    assert calls == []


def test_runs_that_doubled_elsewhere_are_deleted(folder: Path, uri: str, tmp_path: Path) -> None:
    tracked.finished(folder)
    Mirror(uri, folder).sync()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("sweep")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id]):
        client.create_run(experiment.experiment_id, 5, dict(run.data.tags), run.info.run_name)
    Mirror(uri, folder).finish()
    assert contents(uri) == from_nothing(folder, tmp_path)


def test_two_runs_folders_in_one_database_stay_apart(folder: Path, uri: str, tmp_path: Path) -> None:
    tracked.finished(folder)
    yours = tmp_path / "yours" / "sweep"
    shutil.copytree(folder, yours)
    Mirror(uri, folder).sync()
    Mirror(uri, yours).sync()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("sweep")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2 * (1 + 2 + 6)
    assert len({run.data.tags["branchpoint.runs"] for run in runs}) == 2
    client.delete_experiment(experiment.experiment_id)
    mirror = Mirror(uri, folder)
    mirror.sync()  # brings it back
    assert mirror.runs == 9


def test_an_edited_sweep_and_what_was_said_in_the_ui(folder: Path, uri: str, tmp_path: Path) -> None:
    """What a configuration was is not shown once it has gone; tags that a person gave stay."""
    ((run, *_), others) = tracked.finished(folder)
    mirror = Mirror(uri, folder)
    mirror.finish()
    client, path = MlflowClient(uri), f"sweep/{run.path.parent.name}"
    client.set_tag(mirror.run_id(path), "mine", "a good one")
    shutil.rmtree(others[0].path.parent)
    asked = json.loads((folder / "sweep.json").read_text())
    asked |= {"question": "Where else?", "configurations": asked["configurations"][:1]}
    (folder / "sweep.json").write_text(json.dumps(asked))
    mirror.finish()
    told = contents(uri)
    assert told[path]["tags"].pop("mine") == "a good one"
    assert told == from_nothing(folder, tmp_path)
    assert told["sweep"]["params"]["question"] == "Where else?"
    assert len(told) == 5


def test_without_sweep_json_the_folders_tell(folder: Path, uri: str) -> None:
    tracked.finished(folder)
    (folder / "sweep.json").unlink()
    Mirror(uri, folder).finish()
    told = contents(uri)
    assert len(told) == 9
    assert {one["status"] for one in told.values()} == {"FINISHED"}


def test_artifacts_follow_the_folder(folder: Path, uri: str, tmp_path: Path) -> None:
    tracked.finished(folder)
    (folder / "verdict").mkdir()
    (folder / "verdict" / "means.png").write_bytes(b"png")
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text("first")
    mirror = Mirror(uri, folder)
    mirror.finish()
    assert {"verdict/means.png", "report/report.html"} == set(contents(uri)["sweep"]["artifacts"])
    (folder / "verdict" / "means.png").unlink()
    (folder / "report" / "report.html").write_text("second")
    mirror.finish()
    told = contents(uri)
    assert set(told["sweep"]["artifacts"]) == {"report/report.html"}
    assert told == from_nothing(folder, tmp_path)
    assert not [path for path in (tmp_path / "db").rglob("*") if path.name in ("volumes.csv", "cases.npz", "best.pt")]


def test_a_database_that_was_moved_gets_its_artifacts_where_it_is(folder: Path, uri: str, tmp_path: Path) -> None:
    tracked.finished(folder)
    (folder / "results.csv").touch()
    Mirror(uri, folder).finish()
    moved = f"sqlite:///{tmp_path / 'moved' / 'mlflow.db'}"
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "db" / "mlflow.db", tmp_path / "moved")
    shutil.rmtree(tmp_path / "db" / "mlartifacts")
    Mirror(moved, folder).finish()
    assert set(contents(moved)["sweep"]["artifacts"]) == {"results.csv"}
    assert (tmp_path / "moved" / "mlartifacts").is_dir()


def test_who_looks_on_sees_whether_somebody_is_at_work(folder: Path, uri: str, tmp_path: Path) -> None:
    ((first, *_), _) = tracked.sweep(folder)
    train(first, (1,))
    mirror = Mirror(uri, folder)

    def status() -> str:
        return str(contents(uri)["sweep"]["status"])

    mirror.refresh(elsewhere=False)
    assert status() == "KILLED"
    with locked(folder):  # a launch on this machine
        mirror.refresh(elsewhere=False)
        assert status() == "RUNNING"
    mirror.refresh(elsewhere=True)  # or one elsewhere: the fold has written just now
    assert status() == "RUNNING"
    os.utime(first.path, (0, 0))
    mirror.refresh(elsewhere=True)
    assert status() == "KILLED"
    assert contents(uri) == from_nothing(folder, tmp_path)


def test_a_database_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while MLflow makes its tables, the next mirror starts from nothing. So it does beside what is left of one
    that somebody has deleted, which sqlite would mix into the new one."""
    left_over = tmp_path / "mlflow.db-wal"
    left_over.touch()

    def make_some(tracking_uri: str) -> None:
        database(tracking_uri).write_bytes(b"some tables")
        raise KeyboardInterrupt

    monkeypatch.setattr(mirroring, "client_of", make_some)
    with pytest.raises(KeyboardInterrupt):
        mirroring.create_database(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert list(tmp_path.glob("*mlflow.db*")) == list(tmp_path.glob(".*mlflow.db*")) == []


def test_all_is_in_the_one_file_at_the_end_without_a_garbage_collection(folder: Path, tmp_path: Path) -> None:
    """A launch ends without one; somebody may copy or delete the database."""
    uri = tracked.database(tmp_path / "new")
    tracked.sweep(folder)
    gc.disable()
    try:
        mirror = Mirror(uri, folder)
        mirror.sync()
        mirror.finish()
        assert [path.name for path in (tmp_path / "new").glob("mlflow.db*")] == ["mlflow.db"]
        mirror.sync()  # and it goes on
    finally:
        gc.enable()


def test_the_tables_are_there_before_mlflows_client(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's client else makes them in the file itself, where a node that dies leaves half of them."""
    order: list[str] = []
    monkeypatch.setattr(mirroring, "create_database", lambda uri: order.append("tables"))
    monkeypatch.setattr(mirroring, "client_of", lambda uri: order.append("client"))
    Mirror(f"sqlite:///{tmp_path / 'new.db'}", folder)
    assert order == ["tables", "client"]


def test_the_mirror_is_measured_against_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(uri: str) -> None:
        shutil.copy(database(tracked.database(database(uri).parent / "made")), database(uri))

    monkeypatch.setattr(mirroring, "create_database", make)
    monkeypatch.setattr(benchmark, "create_database", make)
    monkeypatch.setattr(benchmark, "alone", command.mirror)
    whole, again, in_turn = benchmark.rows(1, 1, folds=3, epochs=2, sample=1, rounds=1)
    assert whole.name.startswith("mirror of 3 folds x 2 epochs x 15 metrics")
    assert again.ours[0] > 0
    assert [other.floor for other in in_turn.beside] == [False, True]


def test_what_is_damaged_is_named(folder: Path, uri: str) -> None:
    ((first, *_), _) = tracked.finished(folder)
    (first.path / "epochs.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match=r"fold_0: damaged \(KeyError: 'time_utc'\)"):
        Mirror(uri, folder).sync()


def test_mean_and_sd_by_hand() -> None:
    records = [{"epoch": 3, "dice_val": d, "log_sigma_reg": None, "time_utc": "t"} for d in (0.2, 0.4, 0.9)]
    assert mean_over_folds(records) == {
        "epoch": 3,
        "dice_val_mean": pytest.approx(0.5),
        "dice_val_sd": pytest.approx(0.13**0.5),
    }


def test_names_of_params() -> None:
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
