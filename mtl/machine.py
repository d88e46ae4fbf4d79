"""What this machine is to torch: its GPUs, whether torch has code for them, its driver, and what a fold takes here."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mtl import train
from mtl.config import Config
from mtl.slices import Slices
from mtl.trainer import check_compiler, resolve_device

Capability = tuple[int, int]

OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
"""CUDA's major version -> the oldest NVIDIA driver that every minor version of it runs on (NVIDIA's table)."""
OLDEST_GPU_OF_CUDA_13: Capability = (7, 5)
OLDEST_GPU_OF_CUDA_12: Capability = (5, 0)
ANSWERS_S = 10.0
"""How long nvidia-smi may take; it hangs where a GPU is broken."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch sees."""

    name: str
    memory_gb: float
    capability: Capability
    """compute capability; of an AMD GPU what ROCm gives for it"""
    gfx: str = ""
    """an AMD GPU's architecture, such as gfx90a:sramecc+:xnack-; empty else"""

    def __str__(self) -> str:
        return f"{self.name} ({self.gfx.partition(':')[0] or sm(self.capability)})"


def sm(capability: Capability) -> str:
    """CUDA's name for it: sm_86."""
    return "sm_{}{}".format(*capability)


def gpus() -> list[Gpu]:
    """Those that torch sees, in its order; empty where it sees none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [torch.cuda.get_device_properties(n) for n in range(count)]
    hip = bool(torch.version.hip)
    return [Gpu(p.name, p.total_memory / 2**30, (p.major, p.minor), str(p.gcnArchName) if hip else "") for p in found]


def has_kernels(gpu: Gpu, arch_list: Sequence[str]) -> bool:
    """Whether a torch that was built for `arch_list` (torch.cuda.get_arch_list()) runs on this GPU.

    Binaries (sm_80) run within their major version, on the same minor or a newer one; PTX (compute_80) on that
    capability and every newer one; what ends in `a` on this one alone, in `f` within its major version. AMD's run on
    the architecture they name. An empty list says nothing: True. Tegra boards, for which binaries are built apart, are
    not told from other GPUs of their major version.
    """
    if gpu.gfx:
        return not arch_list or gpu.gfx.partition(":")[0] in {arch.partition(":")[0] for arch in arch_list}
    return not arch_list or any(_runs(arch, gpu.capability) for arch in arch_list)


def _runs(arch: str, capability: Capability) -> bool:
    read = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
    if not read:
        return False
    kind, major, minor, only = read.groups()
    built = (int(major), int(minor))
    if only == "a":
        return built == capability
    if kind == "compute" and not only:
        return built <= capability
    return built[0] == capability[0] and built <= capability


def wanted_build(gpu: Gpu, arch_list: Sequence[str], torch_version: str) -> str:
    """Which torch to install, or which GPU to ask for, where has_kernels() is False."""
    version = torch_version.partition("+")[0]
    newest = max((cc for arch in arch_list if (cc := _capability(arch))), default=(0, 0))
    if gpu.gfx:
        return f"install a ROCm build of torch {version} that lists {gpu.gfx.partition(':')[0]}, or ask for other GPUs"
    if gpu.capability < OLDEST_GPU_OF_CUDA_12:
        return f"no build of torch {version} has them: ask for newer GPUs (site.constraint)"
    if gpu.capability < OLDEST_GPU_OF_CUDA_13:
        return f"install a CUDA 12.6 build, torch=={version}+cu126, or ask for newer GPUs (site.constraint)"
    if gpu.capability > newest:
        return f"install a build for a newer CUDA, such as PyPI's torch=={version}, or ask for other GPUs"
    return f"install a build of torch {version} that lists {sm(gpu.capability)}, such as PyPI's, or ask for other GPUs"


def _capability(arch: str) -> Capability | None:
    read = re.fullmatch(r"(?:sm|compute)_(\d+)(\d)[af]?", arch)
    return (int(read[1]), int(read[2])) if read else None


@dataclass(frozen=True)
class Sight:
    """What decides whether torch sees a GPU."""

    torch: str
    """its version, such as 2.13.0+cu126"""
    cuda: str | None
    """the CUDA that it is built for (torch.version.cuda)"""
    hip: str | None
    """the ROCm that it is built for (torch.version.hip)"""
    driver: str
    """the NVIDIA driver's version; empty where there is none"""
    visible: str | None
    """CUDA_VISIBLE_DEVICES"""


def sight() -> Sight:
    """As it is in this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Sight(torch.__version__, torch.version.cuda, torch.version.hip, driver(), visible)


def why_none(seen: Sight) -> str:
    """Why torch sees no GPU, as `got, wanted, what to do`."""
    version = seen.torch.partition("+")[0]
    older = f"torch=={version}+cu126 (CUDA 12.6, driver {OLDEST_DRIVER[12]} or newer)"
    if seen.hip:
        return f"torch is built for ROCm {seen.hip}; wanted an AMD GPU with its driver, which this job was not given"
    if not seen.cuda:
        return (
            f"torch {seen.torch} is built without CUDA; wanted a build with it: install PyPI's torch=={version} "
            f"(CUDA 13, driver {OLDEST_DRIVER[13]} or newer) or {older}"
        )
    cuda, wanted = f"torch is built for CUDA {seen.cuda}", OLDEST_DRIVER.get(_major(seen.cuda), 0)
    if not seen.driver:
        return f"{cuda}, and the node has no NVIDIA driver; ask for nodes with GPUs (site.partition, site.constraint)"
    if _major(seen.driver) < wanted:
        remedy = f"install {older}" if OLDEST_DRIVER[12] <= _major(seen.driver) else "ask for nodes with a newer one"
        return f"{cuda}, the driver is {seen.driver}; wanted driver {wanted} or newer: {remedy}"
    visible = "not set" if seen.visible is None else repr(seen.visible)
    return (
        f"{cuda}, the driver is {seen.driver}, CUDA_VISIBLE_DEVICES is {visible}: the job was given no GPU; "
        "see how this cluster's jobs ask for one (site.gpus_per_node, site.sbatch)"
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def driver() -> str:
    """The NVIDIA driver's version; empty where there is none."""
    try:
        return driver_in(Path("/proc/driver/nvidia/version").read_text())
    except OSError:  # containers may hide it
        pass
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return driver_in(subprocess.run(command, capture_output=True, text=True, timeout=ANSWERS_S, check=True).stdout)
    except (OSError, subprocess.SubprocessError):
        return ""


def driver_in(text: str) -> str:
    """The first version number of a driver in it, such as 580.65.06; empty without one."""
    found = re.search(r"\b\d{3,}\.\d+(?:\.\d+)?\b", text)
    return found[0] if found else ""


def gpu_problems(wanted: int) -> list[str]:
    """Why a fold could not run on this process's GPUs, of which it wants so many; empty where it could."""
    found, archs = gpus(), torch.cuda.get_arch_list()
    if not found:
        return [why_none(sight())]
    problems = [] if len(found) >= wanted else [f"torch sees {len(found)}, wanted {wanted} (site.gpus_per_node)"]
    strangers = {str(gpu): gpu for gpu in found[:wanted] if not has_kernels(gpu, archs)}
    return problems + [
        f"torch {torch.__version__} has no kernels for {name}, it is built for {' '.join(archs)}; "
        + wanted_build(gpu, archs, torch.__version__)
        for name, gpu in strangers.items()
    ]


def memory_gb() -> tuple[float, float]:
    """This process's largest resident memory, and what of the present one are pages of files (the store, libraries),
    which all processes of a machine share. GB of 2**30 bytes, as Slurm counts."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # no Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if sys.platform == "darwin" else 2**20), 0.0
    # Not getrusage's: that begins with the peak of the process that started this one.
    kb = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value}
    return kb["VmHWM"] / 2**20, kb.get("RssFile", 0) / 2**20


@dataclass(frozen=True)
class Taken:
    """What a fold takes on this machine, from a few steps."""

    cost: train.Cost
    device: str
    """cpu, mps, or the GPU's name"""
    memory_gb: float
    """this process's largest resident memory"""
    mapped_gb: float
    """of it, pages of files, which folds on the same machine share"""


def probe(config: Config, slices: Slices) -> Taken:
    """Train a few steps: one on CPUs, where a step may take many seconds, three else.

    ValueError where the device is not usable, train.OutOfMemory where it does not hold a batch.
    """
    device = resolve_device(config.train.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # as a fold
    if config.train.compile:
        check_compiler(device)
    plain = replace(config, train=replace(config.train, compile=False))  # compiling takes a minute or more
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    try:
        cost = train.probe(plain, slices, steps=1 if device.type == "cpu" else 3)
    except torch.OutOfMemoryError as error:
        raise train.OutOfMemory((str(error).splitlines() or [name])[0]) from None
    return Taken(cost, name, *memory_gb())
