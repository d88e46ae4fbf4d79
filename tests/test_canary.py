"""The canary for real: the program in a process of its own, on a node that is this machine; its verdicts by hand."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluster import canary, canary_checks, snapshot
from cluster.canary import Answer, Asked
from data_prep import store as cine
from mtl import machine
from mtl.config import Config

ROOT = Path(__file__).resolve().parent.parent
NODE = os.uname().nodename


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy that a sweep makes for its jobs."""
    return snapshot.snapshot(tmp_path_factory.mktemp("sweep"))


@pytest.fixture
def asked(config: Config, store_path: Path, tmp_path: Path, code: Path) -> Asked:
    """A question to which all is well."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return Asked(asdict(config), str(store_path), str(folder), str(code), key="k1", mem_gb=1.0, cpus=1)


def answered(asked: Asked, tmp_path: Path, status: int, first: Path | None = None, cwd: Path | None = None) -> Answer:
    """What the program answers. first: where Python looks before the copy; cwd: where the job starts."""
    asked.write(tmp_path / "asked.json")
    path = os.pathsep.join(str(place) for place in (first, asked.code) if place)
    done = subprocess.run(
        [sys.executable, "-m", "cluster.canary", str(tmp_path / "asked.json"), str(tmp_path / "answer.json")],
        env={**os.environ, "PYTHONPATH": path}, cwd=cwd or tmp_path, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    answer = Answer.read(tmp_path / "answer.json")
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines() == [*answer.problems, *answer.advice]
    assert (answer.key, answer.node) == (asked.key, NODE)
    assert not list(tmp_path.glob(".*"))
    return answer


def test_where_all_is_well_the_answer_says_what_a_fold_takes(asked: Asked, tmp_path: Path) -> None:
    answer = answered(asked, tmp_path, 0)
    assert answer.problems == ()
    assert (answer.python, answer.device, answer.gpu_memory_share) == (platform.python_version(), "cpu", 0)
    assert answer.torch
    assert 0.1 < answer.memory_gb < 10
    assert 0 < answer.mapped_gb < answer.memory_gb
    assert min(answer.import_s, answer.load_s, answer.train_s, answer.predict_s) > 0
    assert answer.import_s + answer.load_s < answer.seconds < 100
    assert list(Path(asked.sweep_folder).iterdir()) == []


def test_what_is_not_there_on_the_node_is_all_told_at_once(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    anywhere = {**asked.config, "train": {**asked.config["train"], "device": "auto"}}
    missing = replace(asked, store=f"{tmp_path}/none.zarr", sweep_folder=f"{tmp_path}/none", config=anywhere, gpus=1)
    answer = answered(missing, tmp_path, 1)
    assert answer.problems == (
        f"run folder {tmp_path}/none, as seen from node {NODE}: no such folder; wanted one on a file system that nodes "
        "share: give runs=",
        f"store {tmp_path}/none.zarr, as seen from node {NODE}: no such folder; wanted it on a file system that nodes "
        "share: give data.store=",
        f"GPU on node {NODE}: {machine.why_none(machine.sight())}",
    )
    assert answer.torch
    assert answer.train_s == 0


def test_a_store_of_other_data_is_found_and_so_is_a_checkout_that_hides_the_copy(asked: Asked, tmp_path: Path) -> None:
    other = replace(asked, config={**asked.config, "data_digest": "0123456789abcdef"})
    answer = answered(other, tmp_path, 1, cwd=ROOT)  # `python -m` looks in the folder that it starts in first
    where, what = answer.problems
    assert where.startswith(
        f"cluster, mtl, sweeps, data_prep on node {NODE}: imported from {ROOT}, wanted {asked.code}: "
    )
    found = cine.open(asked.store).digest[:8]
    assert f"holds other data than where it was launched (digest {found}, wanted 01234567); give data.store=" in what
    assert answer.train_s == 0


def test_more_memory_than_was_asked_for_is_a_problem_and_much_less_is_told(asked: Asked, tmp_path: Path) -> None:
    little = answered(replace(asked, mem_gb=0.05), tmp_path, 1)
    assert len(little.problems) == 1
    assert little.problems[0].startswith("site.mem_gb=0.05 is too little, the probe used 0.")
    assert little.train_s > 0
    much = answered(replace(asked, mem_gb=64, cpus=1000), tmp_path, 0)
    enough, fewer = much.advice
    assert enough.startswith("site.mem_gb=1 is enough: the probe used 0.")
    assert fewer.endswith("cores of site.cpus_per_rank=1000")


def test_a_damaged_store_is_a_problem_that_names_no_patient(asked: Asked, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zarr"
    shutil.copytree(asked.store, damaged)
    patients = [patient.key for patient in cine.open(damaged).patients]
    shard = next(
        path
        for path in (damaged / patients[1] / "image_TZYX").rglob("*")
        if path.is_file() and path.name != "zarr.json"
    )
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    answer = answered(replace(asked, store=str(damaged)), tmp_path, 1)
    assert answer.problems == (
        f"reading the store on node {NODE}: ValueError: store {damaged}: a patient is damaged (its digest differs); "
        "convert again; a fold would fail of it, too: see the log",
    )
    assert not [key for key in patients if key in (tmp_path / "answer.json").read_text()]


def test_a_package_that_is_missing_or_kills_the_process_is_named(asked: Asked, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "submitit.py").write_text("import no_such_library")
    (hidden / "torch.py").write_text(
        "raise ImportError('libcudart.so.13: cannot open shared object file', name='torch')"
    )
    (hidden / "zarr.py").write_text("")
    lost = [line for line in answered(asked, tmp_path, 1, hidden).problems if line.startswith("package ")]
    home = f"wanted it with {sys.executable}: {canary_checks.HOME}"
    assert lost[:2] == [
        f"package no_such_library on node {NODE}: No module named 'no_such_library'; {home}",
        f"package torch on node {NODE}: libcudart.so.13: cannot open shared object file; {home}",
    ]
    (hidden / "submitit.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert answered(asked, tmp_path, 1, hidden).problems == (
        f"importing the packages on node {NODE}: the process was ended by SIGKILL; most likely for memory: give more "
        "than site.mem_gb=1",
    )


def test_what_does_not_end_in_time_is_a_problem_but_for_a_store_that_takes_long_to_read(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(doing: str) -> Answer:
        monkeypatch.setattr(canary_checks, "CHECKS", ((lambda *_: time.sleep(60), doing, ()),))
        return canary.watched(asked, longest_s=0.2)

    assert hangs("opening the store").problems == (
        f"opening the store on node {NODE} took longer than 0.2 s, wanted it sooner: see whether the node's file "
        "systems and GPUs answer",
    )
    slow = hangs(canary_checks.READING)
    assert slow.problems == ()
    assert slow.advice == (f"reading the store on node {NODE} took longer than 0.2 s: no step was tried",)
    assert 0.2 <= slow.seconds < 5


def test_a_question_that_cannot_be_read_is_answered_too(tmp_path: Path) -> None:
    (tmp_path / "asked.json").write_text("{}")
    assert canary.main([str(tmp_path / "asked.json"), str(tmp_path / "answer.json")]) == 1
    assert "not one of the canary's files" in Answer.read(tmp_path / "answer.json").problems[0]
    assert canary.main([str(tmp_path / "none.json"), str(tmp_path / "no" / "answer.json")]) == 1


def test_an_answer_of_another_version_can_be_read_and_another_file_cannot(tmp_path: Path) -> None:
    path, answer = tmp_path / "answer.json", Answer("k", "n1", ("one",), ("two", "three"), train_s=0.5)
    answer.write(path)
    assert Answer.read(path) == answer
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_later": 1}))
    assert Answer.read(path) == answer
    for other in ("", "[]", "null", '{"node": "n1"}'):
        path.write_text(other)
        with pytest.raises(ValueError, match="not one of the canary's files"):
            Answer.read(path)


def test_the_interpreters_version_is_the_projects_and_another_one_is_told(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == "=={}.{}.*".format(*canary_checks.PYTHON)
    monkeypatch.setattr(canary_checks, "PYTHON", (3, 99))
    answer = canary_checks.interpreter(asked, Answer("k", "n1", python="3.11.7"))
    assert answer.problems == (
        f"Python on node n1 is 3.11.7 ({sys.executable}), wanted 3.99: {canary_checks.HOME}",
    )  # fmt: skip


def test_a_run_folder_that_cannot_be_written_in_is_a_problem(asked: Asked) -> None:
    answer = canary_checks.folders(replace(asked, sweep_folder="/proc/self"), Answer("k", "n1"))
    assert answer.problems[0].startswith("run folder /proc/self, as seen from node n1: cannot be written in (")


def test_a_copy_of_the_code_that_is_missing_is_told_once(asked: Asked, tmp_path: Path) -> None:
    gone = replace(asked, code=str(tmp_path / "gone"))
    told = canary_checks.folders(gone, Answer("k", "n1")).problems
    assert told == (f"copy of the code {tmp_path}/gone, as seen from node n1: no such folder; {canary_checks.SHARED}",)
    both = canary_checks.folders(replace(gone, sweep_folder=str(tmp_path / "none")), Answer("k", "n1")).problems
    assert [line.split(",")[0] for line in both] == [f"run folder {tmp_path}/none"]


ASKED = Asked({}, "", "", "", "", mem_gb=8, cpus=4, gpus=1)


@pytest.mark.parametrize(
    ("mem_gb", "folds", "own_gb", "problem", "advice"),
    [
        (8, 1, 4.0, "", ""),
        (8, 1, 9.0, "site.mem_gb=8 is too little, the probe used 10 GB: give site.mem_gb=14 or more", ""),
        (8, 3, 3.0, "too little for 3 folds of 3 GB each: give site.folds_per_gpu=2 at most, or site.mem_gb=14", ""),
        (8, 2, 3.0, "", ""),
        (8, 1, 7.0, "", "site.mem_gb=12: the probe used 8 GB a fold, and site.mem_gb=8 leaves little room"),
        (64, 1, 4.0, "", "site.mem_gb=8 is enough: the probe used 5 GB a fold, of site.mem_gb=64"),
        (64, 4, 4.0, "", ""),
        (20.1, 1, 4.0, "", "site.mem_gb=8 is enough"),
        (19.9, 1, 4.0, "", ""),
    ],
)
def test_memory_is_held_to_what_was_asked_for_all_folds_together(
    mem_gb: float, folds: int, own_gb: float, problem: str, advice: str
) -> None:
    """Beside 1 GB of files that they share."""
    problems, advised = canary_checks.memory(replace(ASKED, mem_gb=mem_gb, gpu_share_folds=folds), own_gb, 1.0)
    assert (len(problems), len(advised)) == (bool(problem), bool(advice))
    assert problem in "".join(problems)
    assert advice in "".join(advised)


def test_files_that_do_not_fit_are_no_problem_the_system_reads_them_again() -> None:
    problems, advised = canary_checks.memory(ASKED, 2.0, 20.0)
    assert problems == []
    assert advised == ["site.mem_gb=33: the probe used 22 GB a fold, and site.mem_gb=8 leaves little room"]


@pytest.mark.parametrize(
    ("folds", "share", "problem", "advice"),
    [
        (1, 0.0, "", ""),  # on a CPU
        (1, 0.5, "", ""),
        (1, 0.95, "", ""),  # alone it fits: the probe has just done it
        (2, 0.45, "", ""),
        (2, 0.46, "folds_per_gpu=2 is too many, a fold takes 46% of the GPU's memory: give site.folds_per_gpu=1", ""),
        (5, 0.2, "give site.folds_per_gpu=4 at most", ""),
        (1, 0.4, "", "site.folds_per_gpu=2 would fit: a fold takes 40% of the GPU's memory"),
        (1, 0.01, "", "site.folds_per_gpu=3 would fit"),  # as many as the job's memory holds
        (3, 0.01, "", ""),
    ],
)  # fmt: skip
def test_folds_share_a_gpu_as_far_as_its_memory_goes(folds: int, share: float, problem: str, advice: str) -> None:
    problems, advised = canary_checks.sharing(replace(ASKED, gpu_share_folds=folds), share, own_gb=2.0)
    assert (len(problems), len(advised)) == (bool(problem), bool(advice))
    assert problem in "".join(problems)
    assert advice in "".join(advised)


def test_a_fold_on_a_shared_gpu_wants_a_core() -> None:
    assert "site.folds_per_gpu=4 would" in canary_checks.sharing(replace(ASKED, mem_gb=100), 0.01, own_gb=2.0)[1][0]
