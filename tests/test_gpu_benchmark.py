"""`make bench-gpu`: runs with torch and numpy alone, keeps to its time, judges where it may."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtl.slices import Stack
from tests.benchmarks import gpu, gpu_ways
from tests.benchmarks.gpu_table import Goal, Table, best, ended_after, of_h200_class
from tests.benchmarks.rows import Row

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
TORCH_AND_NUMPY = """
import runpy, sys
from importlib.machinery import PathFinder
OURS = {"mtl", "data_prep", "tests"}
OF_TORCH = {"torchgen", "functorch", "triton", "nvidia", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"}
OF_TORCH |= {"fsspec", "filelock", "typing_extensions", "setuptools"}
class Installed:
    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        place = str((spec.origin or spec.submodule_search_locations) if spec else "")
        there = name.partition(".")[0] in {"torch", "numpy", *OURS, *OF_TORCH} or "site-packages" not in place
        return spec if there else None
sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
try:
    import zarr
except ModuleNotFoundError:
    sys.argv[0] = "gpu"
    runpy.run_module("tests.benchmarks.gpu", run_name="__main__")
"""


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "-c", TORCH_AND_NUMPY, *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)


def test_it_runs_where_only_torch_and_numpy_are_installed() -> None:
    run = ended("--tiny")
    assert run.returncode == 0, run.stderr
    assert "GFLOP" in run.stdout
    left_out = {"no CUDA", "the tiny form compiles nothing"} if not torch.cuda.is_available() else {None}
    said = [text.partition("not measured: ")[2] for text in run.stdout.splitlines() if "not measured: " in text]
    assert {text for text in said if not text.startswith("not judged")} <= left_out | {"the tiny form compiles nothing"}
    for row in ("floor: matrix product", "floor: copy", "training, width 2", "inference, width 4", "epoch, 72 slices"):
        assert row in run.stdout
    assert run.stdout.splitlines()[-1].startswith("goal, inference, width 16: 0.033 ms a slice; not measured")


def test_without_time_every_row_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny", "--seconds", "0"]) == 0
    head, _, table = capsys.readouterr().out.partition("\n\n")
    rows = list(filter(None, table.splitlines()))
    assert "TINY FORM" in head
    assert len(rows) > 40
    measured = [row for row in rows if "not measured" not in row]
    assert measured == []


def test_what_a_way_dies_of_is_told_and_the_next_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(60)

    def too_large() -> tuple[list[float], str]:
        raise torch.OutOfMemoryError("CUDA out of memory\nand much more")

    assert table.measure(Row("a", "s", ()), too_large).missing == "OutOfMemoryError: CUDA out of memory"
    assert table.measure(Row("b", "s", ()), lambda: ([1.0, 3.0, 2.0], "a note")).ours == [1.0, 3.0, 2.0]
    assert table.measure(Row("c", "s", ()), lambda: ([1.0], ""), needs_s=61).missing == "no time left"
    a, b, _ = capsys.readouterr().out.splitlines()
    assert "not measured: OutOfMemoryError: CUDA out of memory" in a
    assert "2 (1 to 3) s" in b
    assert b.endswith("a note")


def test_what_goes_on_for_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError, match="time is up"), ended_after(0.01):
        time.sleep(10)


def test_goals_are_judged_on_cards_of_the_class_alone() -> None:
    goal, reached, slow = Goal("epoch", "s", 12.0), Row("trainer", "s", [11.0]), Row("trainer", "s", [10.0, 13.0, 14.0])
    assert goal.verdict(reached, True, "") == ("goal, epoch: 12 s; 11 s (trainer): held", False)
    assert goal.verdict(slow, True, "") == ("goal, epoch: 12 s; 13 s (trainer): MISSED", True)
    assert goal.verdict(None, True, "") == ("goal, epoch: 12 s; not measured: MISSED", True)
    assert goal.verdict(slow, False, "small") == ("goal, epoch: 12 s; 13 s (trainer): not judged: small", False)
    assert of_h200_class("NVIDIA H200", 0)
    assert of_h200_class("another", 790)
    assert not of_h200_class("NVIDIA A100-SXM4-80GB", 260)


def test_the_best_is_the_quickest_or_the_one_with_the_highest_rate() -> None:
    assert best({"a": Row("", "s", [3, 1, 2]), "b": Row("", "s", [9, 0.1, 9]), "c": Row("", "s", ())}) == "a"
    assert best({"a": Row("", "slices/s", [3], rate=True), "b": Row("", "slices/s", [9], rate=True)}) == "b"
    assert best({"a": Row("", "s", ())}) is None


def test_made_up_slices_are_those_of_a_store() -> None:
    slices = gpu_ways.made_slices(100, 32)
    assert isinstance(slices.image_NYX, Stack)
    assert slices.image_NYX.shape == slices.mask_NYX.shape == (100, 32, 32)
    assert (slices.image_NYX.dtype, slices.mask_NYX.dtype) == (np.int16, np.uint8)
    assert slices.area_mm2_NA(np.arange(100)).min() > 0
    assert slices.area_mm2_NA(np.arange(100)).std() > 0
    assert len(gpu_ways.all_of(slices).train) == 100
    assert gpu_ways.made_slices(gpu.Form().slices, 16).image_NYX.shape[0] * 3 % max(gpu.Form().batches) == 0


def test_the_work_of_the_network_is_that_of_the_facts() -> None:
    """3.4 GFLOP a forward pass at width 16 and 192 x 192, counted on the U-Net alone; here the regression path, too."""
    path_gflop = 2 * 9 * (32 * 16 + 16 * 16) * 192**2 / 1e9
    step, forward = (gpu_ways.work_in(16, "float32", training, 48, CPU) for training in (True, False))
    assert forward.gflop * 16 == pytest.approx(3.4 + path_gflop, rel=0.02)
    assert step.gflop * 16 == pytest.approx(10.2 + 3 * path_gflop, rel=0.02)
    assert step.moved_MB == pytest.approx(3 * forward.moved_MB)


class Recorded:
    """Instead of a CUDA graph: what is run while it is recorded is run again."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


def without_cuda(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """torch.cuda's names that recording uses, without a GPU."""
    made: list[Recorded] = []

    @contextmanager
    def recording(graph: Recorded) -> Iterator[None]:
        made.append(graph)
        yield

    stream = SimpleNamespace(wait_stream=lambda _other: None)
    for name, value in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda _stream: nullcontext(),
        "CUDAGraph": Recorded,
        "graph": recording,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return made


def test_a_step_is_recorded_after_a_warm_up_and_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the recording itself this says nothing: there is no GPU here."""
    graphs = without_cuda(monkeypatch)
    loop = gpu_ways.Bare(gpu_ways.made_slices(16, 32), 2, gpu_ways.Way("float32"), 4, CPU)
    loop.capture()
    index_B = loop._index_B
    for number in range(3):
        loop.step()
        assert loop._index_B is index_B
        assert torch.equal(index_B, loop._index_MB[number])
    assert [graph.replays for graph in graphs] == [3]
    loop.check()
    forward = gpu_ways.Forward(2, 32, gpu_ways.Way("float32"), 1, CPU)
    with pytest.raises(ArithmeticError, match="off by 1 of the largest"):
        forward.capture()  # nothing was replayed, so that the answer is missing


def test_the_bare_loop_trains() -> None:
    loop, losses = gpu_ways.Bare(gpu_ways.made_slices(16, 32), 2, gpu_ways.Way("float32"), 16, CPU), []
    for _ in range(30):
        loop.step()
        losses.append(float(loop._loss))
    assert losses[-1] < losses[0]
