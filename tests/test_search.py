"""Ray Tune's trials for real: what they report, and what their processes carry."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster import executors, folds, roster, worker
from cluster.folds import Configuration
from cluster.sections import Sweep
from cluster.settings import Settings
from data_prep.files import locked, make_private
from mtl.config import Config, Train
from mtl.runfolder import RunFolder
from sweeps import search
from tests.benchmarks import makespan, trial
from tests.pretended_folds import Listed, Pretending

HERE = executors.Place("cpu", 2)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    before = dict(os.environ)
    with executors.local_ray() as folder:
        yield folder
    os.environ.clear()
    os.environ |= before


def test_trials_carry_neither_torch_nor_mlflow_and_phone_nobody(scratch: Path, tmp_path: Path) -> None:
    def evaluate(point: dict[str, int], report: search.Report) -> None:
        import sys

        import cluster.folds  # noqa: F401  what a real trial's evaluate comes from

        facts = {
            "modules": sorted({"torch", "mlflow"} & set(sys.modules)),
            "environment": {key: os.environ.get(key) for key in executors.ENVIRONMENT},
        }
        (tmp_path / f"{point['n']}.json").write_text(json.dumps(facts))
        report({"dice_val_mean": float(point["n"])})

    assert search.search(Listed([{"n": 1}, {"n": 2}, {"n": 3}], 2), evaluate, scratch) == []
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["1", "2", "3"]
    for path in tmp_path.iterdir():
        facts = json.loads(path.read_text())
        assert facts["modules"] == []
        assert facts["environment"] == executors.ENVIRONMENT


def test_what_a_trial_queues_runs_in_the_processes_that_are_warm(scratch: Path, tmp_path: Path) -> None:
    def here() -> int:
        return os.getpid()

    def evaluate(tried: int, report: search.Report) -> None:
        (tmp_path / "pid").write_text(str(executors.outcome(HERE.submit(here))))
        report({"dice_val_mean": 0.5})

    warm = {executors.outcome(one) for one in [HERE.submit(here) for _ in range(2)]}
    assert search.search(Listed([1]), evaluate, scratch) == []
    assert int((tmp_path / "pid").read_text()) in warm


def test_a_trial_that_reports_nothing_is_not_told_of(scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert search.search(Listed([1]), lambda tried, report: None, scratch) == []
    assert capfd.readouterr().out == ""


def test_a_device_that_is_not_there_is_refused(scratch: Path) -> None:
    with pytest.raises(ValueError, match=r"^train.device is 'mps', which is not usable here; usable: .*cpu"):
        executors.place("mps", 1)


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


# Folds that only pretend to train: what the search does with them is real.


def seeds(home: Path, count: int, sweep: Sweep, epochs: int = 1) -> roster.Roster:
    """A sweep over seeds, in three folds."""
    wanted = Settings(sweep=replace(sweep, space={"train.seed": [*range(count)]}), train=Train(epochs=epochs, folds=3))
    make = partial(roster.configuration, wanted, "digest", make_private(home))
    return roster.Roster(wanted, home, roster.space_of(wanted, []), make, "")


def searched(
    source: roster.Roster, place: executors.Place, scratch: Path, asha: search.Asha | None = None
) -> list[Configuration]:
    def evaluate(tried: Configuration, report: search.Report) -> None:
        folds.evaluate(tried, Path("no-store"), place, report)

    source.open(place.slots, again=asha is not None)
    assert search.search(source, evaluate, scratch, most=1 if asha else None, asha=asha) == []
    return source.configurations


@pytest.mark.timeout(600)  # a busy machine starts many workers slowly
def test_asha_stops_a_configuration_whole_and_its_running_folds_within_an_epoch(scratch: Path, tmp_path: Path) -> None:
    epoch_s = 0.3

    def seconds(seed: int, fold: int) -> float:
        until = time.monotonic() + 60  # a worker that has to begin takes longer than a sibling's whole training
        while len(list(tmp_path.glob(f"seed-{seed}-*/fold_*/config.yaml"))) < 3:
            assert time.monotonic() < until, "three folds do not run at once"
            time.sleep(0.05)
        return epoch_s

    asha, place = search.Asha("dice_val", epochs=16, first=2, factor=2), Pretending("cpu", 3, seconds=seconds)
    best, *others = searched(seeds(tmp_path, 5, Sweep(asha=True), 16), place, scratch, asha)
    assert best.done()  # it came first
    for c in others:
        assert c.stopped()
        assert c.ended()
        assert {run.outcome() for run in c.runs} == {"STOPPED"}
        assert c.runs[0].reason().startswith("stopped by ASHA: others were better as far as it had come (epoch ")
    time.sleep(1)
    for run in (run for c in others for run in c.runs):
        last, told = ((run.path / name).stat().st_mtime for name in ("epochs.jsonl", "STOPPED"))
        assert last <= told + epoch_s + 0.5  # the epoch that was under way, on a busy machine
        assert len(run.epochs()) < 16
    before = [len(run.epochs()) for c in others for run in c.runs]
    again = searched(seeds(tmp_path, 6, Sweep(asha=True), 16), place, scratch, asha)
    assert [len(run.epochs()) for c in again[1:5] for run in c.runs] == before  # they stay as they were,
    assert again[5].stopped()  # and a scheduler that was made anew knows what there was


def test_two_slow_folds_hold_nobody_up_but_themselves(scratch: Path, tmp_path: Path) -> None:
    """The first two end only when all the others have, which all run in the third slot meanwhile. A search that waited
    for a configuration's slowest fold would wait here for ever. Makespans: test_roster.py and the benchmarks."""
    slow, count = {(0, 0), (0, 1)}, 6

    def seconds(seed: int, fold: int) -> float:
        until = time.monotonic() + 120
        while (seed, fold) in slow and len(list(tmp_path.glob("*/fold_*/DONE"))) < 3 * count - len(slow):
            assert time.monotonic() < until, "folds wait for slots that are free"
            time.sleep(0.1)
        return 0.05

    configurations = searched(seeds(tmp_path, count, Sweep()), Pretending("cpu", 3, seconds=seconds), scratch)
    assert all(c.done() for c in configurations)
    ends = {(c.point["train.seed"], k): run.facts()["end"] for c in configurations for k, run in enumerate(c.runs)}
    assert set(sorted(ends, key=lambda of: ends[of])[-2:]) == slow


def test_the_benchmark_of_trials_trains_the_same_folds_with_trials_and_without(
    scratch: Path, config: Config, store_path: Path
) -> None:
    tiny = replace(config, train=Train(epochs=1, folds=3, batch_size=8, augment_copies=0, device="cpu"))
    assert trial.with_trials(tiny, 1, store_path, scratch) > 0
    assert trial.without_trials(tiny, 1, store_path) > 0


def test_the_makespan_is_measured_beside_list_scheduling(scratch: Path) -> None:
    row = makespan.run(scratch, configurations=2, slots=3, mean_s=0.2, rounds=1)
    assert row.ours[0] >= row.beside[0].values[0] > 0
