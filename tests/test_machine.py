"""Which GPUs a build of torch has code for, why it sees none, and what a process has taken, held to what is known."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtl import machine, train
from mtl.config import Config
from mtl.machine import Gpu, Sight
from mtl.slices import Slices

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
"""PyTorch 2.13's own builds, for x86."""


def gpu(major: int, minor: int, gfx: str = "") -> Gpu:
    return Gpu("some GPU", 16.0, (major, minor), gfx)


@pytest.mark.parametrize(
    ("what", "capability", "cu126", "cu130"),
    [
        ("Kepler K80", (3, 7), False, False),
        ("Pascal P100", (6, 0), True, False),
        ("Pascal GTX 1080", (6, 1), True, False),
        ("Volta V100", (7, 0), True, False),
        ("Turing T4", (7, 5), True, True),
        ("Ampere A100", (8, 0), True, True),
        ("Ampere A40", (8, 6), True, True),
        ("Ada L40S: no kernels of its own, Ampere's run", (8, 9), True, True),
        ("Hopper H100", (9, 0), True, True),
        ("Blackwell B200", (10, 0), False, True),
        ("Blackwell B300", (10, 3), False, True),
        ("Blackwell RTX 5090", (12, 0), False, True),
        ("one after it, from PTX", (13, 0), False, True),
    ],
)
def test_pytorchs_builds_run_on_the_gpus_they_were_made_for(
    what: str, capability: machine.Capability, cu126: bool, cu130: bool
) -> None:
    assert (machine.has_kernels(gpu(*capability), CU126), machine.has_kernels(gpu(*capability), CU130)) == (
        cu126,
        cu130,
    )


@pytest.mark.parametrize(
    ("arch", "runs_on", "not_on"),
    [
        ("sm_86", [(8, 6), (8, 9)], [(8, 0), (9, 0), (7, 5)]),
        ("compute_70", [(7, 0), (7, 5), (9, 0), (12, 0)], [(6, 1)]),
        ("sm_90a", [(9, 0)], [(9, 1), (10, 0)]),
        ("compute_90a", [(9, 0)], [(9, 1), (12, 0)]),
        ("sm_100f", [(10, 0), (10, 3)], [(12, 0), (9, 0)]),
        ("gfx90a", [], [(9, 0)]),
    ],
)
def test_binaries_run_within_their_major_version_and_ptx_on_all_that_are_newer(
    arch: str, runs_on: list[machine.Capability], not_on: list[machine.Capability]
) -> None:
    assert [machine.has_kernels(gpu(*each), [arch]) for each in runs_on] == [True] * len(runs_on)
    assert [machine.has_kernels(gpu(*each), [arch]) for each in not_on] == [False] * len(not_on)


def test_amds_run_on_the_architecture_they_name_whatever_its_switches() -> None:
    built = ["gfx906", "gfx90a:xnack-", "gfx942"]
    assert machine.has_kernels(gpu(9, 0, "gfx90a:sramecc+:xnack-"), built)
    assert machine.has_kernels(gpu(9, 4, "gfx942:sramecc+:xnack-"), built)
    assert not machine.has_kernels(gpu(9, 0, "gfx900"), built)
    assert "lists gfx900" in machine.wanted_build(gpu(9, 0, "gfx900"), built, "2.13.0+rocm7.1")
    assert str(gpu(9, 4, "gfx942:sramecc+")) == "some GPU (gfx942)"


def test_a_build_that_does_not_say_what_it_is_for_is_not_refused() -> None:
    assert machine.has_kernels(gpu(7, 0), [])


@pytest.mark.parametrize(
    ("capability", "built", "told"),
    [
        ((6, 0), CU130, "a CUDA 12.6 build, torch==2.13.0+cu126"),
        ((7, 0), CU130, "a CUDA 12.6 build, torch==2.13.0+cu126"),
        ((12, 0), CU126, "a build for a newer CUDA, such as PyPI's torch==2.13.0"),
        ((7, 5), ["sm_80"], "a build of torch 2.13.0 that lists sm_75"),
        ((3, 7), CU126, "no build of torch 2.13.0 has them: ask for newer GPUs"),
    ],
)
def test_the_build_to_install_is_one_that_has_the_kernels(
    capability: machine.Capability, built: list[str], told: str
) -> None:
    assert not machine.has_kernels(gpu(*capability), built)
    assert told in machine.wanted_build(gpu(*capability), built, "2.13.0+cu130")


SEEN = Sight("2.13.0+cu130", "13.0", None, "580.65.06", None)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (
            replace(SEEN, torch="2.13.0+cpu", cuda=None),
            "torch 2.13.0+cpu is built without CUDA; wanted a build with it",
        ),
        (replace(SEEN, driver=""), "torch is built for CUDA 13.0, and the node has no NVIDIA driver; ask for nodes"),
        (
            replace(SEEN, driver="535.104.05"),
            "built for CUDA 13.0, the driver is 535.104.05; wanted driver 580 or newer: install torch==2.13.0+cu126",
        ),
        (replace(SEEN, driver="470.57.02"), "wanted driver 580 or newer: ask for nodes with a newer one"),
        (replace(SEEN, cuda="12.6", driver="535.104.05"), "CUDA_VISIBLE_DEVICES is not set: the job was given no GPU"),
        (replace(SEEN, visible=""), "CUDA_VISIBLE_DEVICES is '': the job was given no GPU"),
        (replace(SEEN, cuda=None, hip="7.1"), "built for ROCm 7.1; wanted an AMD GPU"),
    ],
)
def test_why_no_gpu_is_seen_says_what_to_do(seen: Sight, told: str) -> None:
    assert told in machine.why_none(seen)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\nGCC 12.2.0", "580.65.06"),
        ("550.54\n550.54\n", "550.54"),
        ("No devices were found\n", ""),
    ],
)  # fmt: skip
def test_the_drivers_version_is_read(text: str, version: str) -> None:
    assert machine.driver_in(text) == version


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with a GPU")
def test_without_a_gpu_there_is_one_problem_and_it_says_why() -> None:
    assert machine.gpu_problems(1) == [machine.why_none(machine.sight())]


MEASURES = """
import mmap, sys
import numpy as np
from mtl import machine
start_gb, mapped_before_gb = machine.memory_gb()
some = np.ones(2**27, np.uint8)
del some
with open(sys.argv[1], "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    sum(pages[::4096])
    peak_gb, mapped_gb = machine.memory_gb()
print(start_gb, peak_gb, mapped_gb - mapped_before_gb)
"""


def test_memory_is_this_processs_own_peak_and_files_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    file.write_bytes(bytes(64 * 2**20))
    measured = subprocess.run([sys.executable, "-c", MEASURES, str(file)], capture_output=True, text=True, check=True)
    start, peak, mapped = (float(value) for value in measured.stdout.split())
    assert 0.12 < peak - start < 0.35  # 128 MB were taken and given back, and 64 MB are mapped
    assert 0.06 < mapped < peak


def test_a_probe_says_what_a_fold_takes_here(config: Config, slices: Slices) -> None:
    taken = machine.probe(config, slices)
    assert taken.device == "cpu"
    assert taken.cost.train_s > 0
    assert taken.cost.predict_s > 0
    assert taken.cost.memory_share == 0
    assert 0 < taken.mapped_gb < taken.memory_gb < 20


def test_a_probe_that_the_device_has_no_memory_for_says_so_in_one_line(
    config: Config, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> train.Cost:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee documentation")

    monkeypatch.setattr(train, "probe", full)
    with pytest.raises(train.OutOfMemory, match=r"^CUDA out of memory\. Tried to allocate 2 GiB\.$"):
        machine.probe(config, slices)
