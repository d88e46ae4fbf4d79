"""The main job for real: Ray, folds in worker processes, MLflow on sqlite; killed, resumed, repeated."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from data_prep.files import locked
from mtl.runfolder import RunFolder
from tests.one_ray import Launch, launches

pytestmark = pytest.mark.timeout(600)  # whichever test is the first waits for five launches
ROOT = Path(__file__).resolve().parent.parent
TINY = (
    "sweep=branch_location",
    "demo.patients=6",
    "demo.slices=2",
    "demo.phases=2",
    "demo.spacing_mm=6.25",
    "demo.size=32",
    "model.width=2",
    "train.folds=3",
    "train.batch_size=8",
)
BRANCHES = ["bottleneck", "up1", "up2", "up3", "up4", "none"]
TIMES = {"time_utc", "seconds", "slices_per_s"}


def results(sweep_folder: Path) -> dict[str, dict[str, str]]:
    rows = csv.DictReader((sweep_folder / "results.csv").read_text().splitlines())
    return {row["configuration"]: row for row in rows}


def settings(*extra: str) -> list[str]:
    """Later settings win, sweep= too; the winner's models are left out, but for test_privacy.py."""
    return [*{word.partition("=")[0]: word for word in (*TINY, "tracking.models=false", *extra)}.values()]


def command(*extra: str) -> list[str]:
    return [sys.executable, str(ROOT / "cluster" / "launch.py"), *settings(*extra)]


def launch(folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*extra), cwd=folder, capture_output=True, text=True, timeout=200, check=False)


def folds(runs: Path) -> dict[str, RunFolder]:
    """By configuration and fold, whatever the sweep is called."""
    return {f"{p.parent.name}/{p.name}": RunFolder(p) for p in sorted(runs.glob("*/*/fold_*"))}


def numbers(runs: Path) -> dict[str, object]:
    """Everything that was computed, by fold, without times and rates."""
    return {
        name: (
            [{k: v for k, v in record.items() if k not in TIMES} for record in fold.epochs()],
            (fold.path / "volumes.csv").read_text(),
            (fold.path / "slices.csv").read_text(),
        )
        for name, fold in folds(runs).items()
    }


def epochs_so_far(runs: Path) -> int:
    return sum(len(fold.epochs()) for fold in folds(runs).values())


def wait_for_epochs(runs: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while epochs_so_far(runs) < count:
        assert process.poll() is None, "ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    pairs = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pairs.append((int(entry.read_text().rpartition(")")[2].split()[1]), int(entry.parent.name)))
    found = [pid]
    for parent in found:
        found += [child for above, child in pairs if above == parent]
    return found


@contextmanager
def disturbed(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A launch in a session of its own, once it has an epoch more than there were."""
    runs = home / "runs"
    before = epochs_so_far(runs)
    process = subprocess.Popen(
        command("train.epochs=2"),
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's & ignores it
    )
    try:
        wait_for_epochs(runs, before + 1, process)
        yield process
    finally:
        process.kill()
        process.communicate()


def ends_as_asked(process: subprocess.Popen[str], ask: Callable[[], None]) -> None:
    """It says how to go on, with exit status 130, and leaves no process."""
    children = descendants(process.pid)
    assert len(children) > 3
    ask()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().endswith("interrupted; the same command goes on from the last epoch")
    deadline = time.monotonic() + 30
    while (left := [pid for pid in children if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def here() -> Iterator[Launch]:
    """The launcher in this process."""
    with launches(settings) as launched:
        yield launched


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For other runs folders than the one in `home`, which `finished` is held to."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def undisturbed(home: Path, elsewhere: Path, here: Launch) -> Path:
    """The runs of a sweep of two epochs that nobody disturbed."""
    runs = elsewhere / "undisturbed"
    done = here(home, "train.epochs=2", f"runs={runs}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"will take about [\d.]+ hours .* 18 folds to train", done.stdout)
    return runs


@pytest.fixture(scope="module")
def other_mirror(undisturbed: Path) -> str:
    """For runs of few folds: MLflow takes three seconds to make a database."""
    return f"tracking.uri=sqlite:///{undisturbed}/mlflow.db"


@pytest.fixture(scope="module")
def finished(home: Path) -> subprocess.CompletedProcess[str]:
    """The same sweep in `home`, by the command, which was ended four times before it was let run to its end.

    By Ctrl-C, which all of a terminal's processes get; SIGTERM; kill -9 of the launcher alone; of all it started.
    """
    with disturbed(home) as process:
        ends_as_asked(process, lambda: os.killpg(process.pid, signal.SIGINT))
    with disturbed(home) as process:
        ends_as_asked(process, lambda: process.send_signal(signal.SIGTERM))
    with disturbed(home) as process:
        process.kill()
        process.wait()
    with disturbed(home) as process:
        for pid in descendants(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert sum(fold.outcome() == "DONE" for fold in folds(home / "runs").values()) < 18
    return launch(home, "train.epochs=2")


def test_it_prints_profile_price_progress_table_answer_and_where_to_look(
    finished: subprocess.CompletedProcess[str], home: Path
) -> None:
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[0] == "profile demo (no data.store given): made-up patients"
    assert re.search(r"will take about [\d.]+ hours .* \d+ folds to train", finished.stdout)
    assert re.search(r"\d+ of 36 epochs, \d+ of 18 folds ended", finished.stdout)
    table = [line.split()[0] for line in lines if re.search(r"\+- .* done$", line)]
    assert table == BRANCHES
    assert sum(line.startswith("On made-up patients, trained briefly:") for line in lines) == 1
    assert "sweep folder:  runs/branch_location" in finished.stdout
    assert "-m mtl.report runs/branch_location" in finished.stdout
    assert re.search(
        r"-m mtl\.predict runs/branch_location/branch-\w+-[0-9a-f]{8} INPUT OUT$", finished.stdout, re.MULTILINE
    )
    assert re.search(r"mlflow ui --backend-store-uri sqlite:///+\S+/runs/mlflow\.db$", finished.stdout, re.MULTILINE)
    assert "Traceback" not in finished.stdout + finished.stderr


@pytest.mark.usefixtures("finished")
def test_however_it_was_ended_and_started_again_it_ends_with_the_numbers_of_an_undisturbed_one(
    home: Path, undisturbed: Path
) -> None:
    assert numbers(home / "runs") == numbers(undisturbed)
    assert results(home / "runs" / "branch_location") == results(undisturbed / "branch_location")


@pytest.mark.usefixtures("finished")
def test_run_folders_and_results_are_as_the_contract_says(home: Path) -> None:
    rows = list(csv.DictReader((home / "runs" / "branch_location" / "results.csv").read_text().splitlines()))
    assert [row["branch"] for row in rows] == BRANCHES
    assert {(row["folds_done"], row["status"]) for row in rows} == {("3", "done")}
    for row in rows:
        assert re.fullmatch(rf"branch-{row['branch']}-[0-9a-f]{{8}}", row["configuration"])
        best = [
            max(RunFolder(fold).epochs(), key=lambda r: r["dice_val"])["dice_val"]
            for fold in (home / "runs" / "branch_location" / row["configuration"]).glob("fold_*")
        ]
        assert float(row["dice_mean"]) == pytest.approx(sum(best) / 3, abs=1e-12)
    assert len(folds(home / "runs")) == 18
    for fold in folds(home / "runs").values():
        assert fold.outcome() == "DONE"
        assert {"config.yaml", "epochs.jsonl", "last.pt", "best.pt", "volumes.csv", "slices.csv"} <= {
            p.name for p in fold.path.iterdir()
        }
        assert json.loads((fold.path / "DONE").read_text())["reason"]


@pytest.mark.usefixtures("finished")
def test_nothing_is_left_behind_and_folders_are_private(home: Path) -> None:
    assert {p.name for p in home.iterdir()} == {"runs", "data"}
    assert {p.name for p in (home / "runs").iterdir()} == {
        "branch_location",
        "mlflow.db",
        "mlartifacts",
        ".mirror-id",
    }
    for folder in [home / "runs", *(p for p in (home / "runs" / "branch_location").rglob("*") if p.is_dir())]:
        assert os.stat(folder).st_mode & 0o077 == 0
    assert not list((home / "runs").rglob("*.tmp"))


@pytest.mark.usefixtures("finished")
def test_mlflow_shows_sweep_configurations_and_folds(home: Path) -> None:
    client = MlflowClient(f"sqlite:///{home}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("branch_location")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    by_parent: dict[str | None, list[str]] = {}
    for run in runs:
        by_parent.setdefault(run.data.tags.get("mlflow.parentRunId"), []).append(run.info.run_id)
    (sweep,) = by_parent[None]
    assert len(by_parent[sweep]) == 6
    assert all(len(by_parent[configuration]) == 3 for configuration in by_parent[sweep])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {"results.csv", "verdict.md", "verdict.json"} <= {a.path for a in client.list_artifacts(sweep)}
    configuration = client.get_run(by_parent[sweep][0])
    fold = client.get_run(by_parent[configuration.info.run_id][0])
    assert fold.data.params["model.width"] == "2"
    path = home / "runs" / fold.data.tags["branchpoint.path"]
    record = RunFolder(path).epochs()[-1]
    for key in {key for key, value in record.items() if isinstance(value, int | float)}:
        history = client.get_metric_history(fold.info.run_id, key)
        assert [m.step for m in history] == [1, 2]
        assert history[-1].value == pytest.approx(record[key])
    last = [RunFolder(p).epochs()[-1]["dice_val"] for p in path.parent.glob("fold_*")]
    assert configuration.data.metrics["dice_val_mean"] == pytest.approx(sum(last) / 3)
    assert "dice_val_sd" in configuration.data.metrics


@pytest.mark.usefixtures("finished")
def test_the_same_command_again_trains_nothing_and_prints_the_same_table(
    finished: subprocess.CompletedProcess[str], home: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (home / "runs").rglob("*.pt")}
    again = launch(home, "train.epochs=2")
    assert again.returncode == 0
    assert finished.stdout.endswith(again.stdout.partition("\n\n")[2])
    assert {p: p.stat().st_mtime_ns for p in (home / "runs").rglob("*.pt")} == before
    assert "this sweep will take" not in again.stdout


@pytest.mark.usefixtures("finished")
def test_a_failed_fold_is_said_and_tried_again_and_the_papers_selection_is_labelled(
    home: Path, elsewhere: Path, other_mirror: str, here: Launch
) -> None:
    extra = ("train.epochs=1", "model.branch=up3", "protocol.selection=test", f"runs={elsewhere}/failing", other_mirror)
    name = next(p.name for p in (home / "runs" / "branch_location").glob("branch-up3-*"))
    done = here(home, *extra)
    assert done.returncode == 0
    assert "On made-up patients, trained briefly, best epoch chosen on the test fold as in the paper:" in done.stdout
    assert "best Dice on the test folds" in done.stdout
    assert "on the test fold, selected on it as in the paper" in done.stdout
    (configuration,) = (elsewhere / "failing" / "branch_location").glob("branch-up3-*")
    assert configuration.name != name  # other epochs, other folder
    fold = RunFolder(configuration / "fold_1")
    (fold.path / "DONE").unlink()
    whole = fold.last.read_bytes()
    fold.last.write_bytes(whole[:500])
    failed = here(home, *extra)
    assert failed.returncode == 1
    assert fold.outcome() == "FAILED"
    assert "last.pt: damaged" in failed.stdout
    assert "up3" in failed.stdout
    fold.last.write_bytes(whole)
    mended = here(home, *extra)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert fold.outcome() == "DONE"


@pytest.mark.usefixtures("finished")
def test_a_sweep_that_another_launcher_writes_is_left_alone(home: Path) -> None:
    with locked(home / "runs" / "branch_location"):
        second = launch(home, "train.epochs=2")
    assert second.returncode == 2
    assert "is being written by process" in second.stderr


@pytest.mark.usefixtures("finished")
def test_a_tracking_server_that_is_not_there_is_one_line_before_anything_is_trained(
    home: Path, elsewhere: Path
) -> None:
    runs = elsewhere / "down"
    refused = launch(home, "train.epochs=1", "model.branch=up1", f"runs={runs}", "tracking.uri=http://127.0.0.1:9")
    assert refused.returncode == 2
    assert refused.stderr.startswith("launch: tracking.uri http://127.0.0.1:9: no MLflow server answers there")
    assert refused.stderr.count("\n") == 1
    assert folds(runs) == {}


@pytest.mark.usefixtures("finished")
def test_above_the_limit_it_asks_and_without_a_yes_what_there_was_stays(home: Path, here: Launch) -> None:
    fold = folds(home / "runs")[f"{next((home / 'runs' / 'branch_location').glob('branch-up1-*')).name}/fold_1"]
    done = (fold.path / "DONE").read_text()
    (fold.path / "DONE").write_text(json.dumps({**json.loads(done), "code": "older"}))
    try:
        refused = here(home, "train.epochs=2", "same_code=true", "confirm_above_hours=0")
        assert refused.returncode == 2
        assert f"{fold.path.parent.name}/fold_1: trained with code older: trained again" in refused.stdout
        assert re.search(r"this sweep will take about .* 1 folds to train", refused.stdout)
        assert "there is no terminal to ask at" in refused.stderr
        assert fold.outcome() == "DONE"
        assert len(fold.epochs()) == 2
    finally:
        (fold.path / "DONE").write_text(done)
