"""Every sweep file that is shipped, run small: real folds, Ray, MLflow. branch_location is in test_launch.py."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import settings
from sweeps import asked
from tests.one_ray import Launch, launches
from tests.test_launch import settings as tiny

CONFIGURATIONS = {"acdc": 3, "learning_rate": 5, "paper": 2, "search": 3, "training_size": 6, "weighting": 8}
SMALLER = {"search": ["train.epochs=2", "sweep.samples=3"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    with launches(tiny) as launched:
        yield launched


def test_each_is_run_by_a_test() -> None:
    assert {*settings.choices("sweep")} == {*CONFIGURATIONS, "branch_location"}


@pytest.mark.parametrize("sweep", CONFIGURATIONS)
def test_it_runs_and_answers(sweep: str, home: Path, launch: Launch) -> None:
    done = launch(home, f"sweep={sweep}", *SMALLER.get(sweep, ["train.epochs=1"]))
    assert done.returncode == 0, done.stdout + done.stderr
    folder = home / "runs" / sweep
    told = asked.read(folder)
    assert len(told.configurations) == CONFIGURATIONS[sweep]
    assert told.question
    assert told.complete
    verdict = json.loads((folder / "verdict.json").read_text())
    assert {one["status"] for one in verdict["configurations"]} <= {"done", "stopped"}
    assert verdict["best"] in {one.name for one in told.configurations}
    assert verdict["answer"] in done.stdout.replace("\n", " ")
    assert "Traceback" not in done.stdout + done.stderr
