"""What the canary looks at on a node, a function each; cluster/canary.py runs them.

A check takes what is asked and what is known, and returns what is known then. What it raises becomes a problem, too.
The standard library alone is imported here: the rest may not be there, which is what the first check finds out.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.canary import Answer, Asked

    Check = Callable[[Asked, Answer], Answer]

PYTHON = (3, 11)
"""As pyproject.toml wants it."""
IMPORTED = ("submitit", "zarr", "torch", "mtl.train", "cluster.submission")
"""What a fold's job imports; with it comes the rest."""
FROM_COPY = ("cluster", "mtl", "sweeps", "data_prep")
"""Packages of the code that is copied for the jobs."""
GPU_MEMORY_USED = 0.9
"""Of a GPU's memory, by the folds on it; the rest is for what a probe of a few steps does not see."""
READING = "reading the store"
HOME = "site.setup must load the environment, or the environment must lie where nodes see it"
SHARED = "wanted one on a file system that nodes share: give runs="


def interpreter(asked: Asked, answer: Answer) -> Answer:
    """Python is the project's and finds what a fold imports."""
    if sys.version_info[:2] != PYTHON:
        wanted = "{}.{}".format(*PYTHON)
        return answer.told(
            [f"Python on node {answer.node} is {answer.python} ({sys.executable}), wanted {wanted}: {HOME}"]
        )
    lost, import_s = {}, 0.0
    for name in IMPORTED:
        begin = time.perf_counter()
        try:
            importlib.import_module(name)
        except Exception as error:  # beside ImportError: a library that cannot be loaded, or wants a newer processor
            lost[getattr(error, "name", None) or name] = first_line(error)
        if name == "torch":
            import_s = time.perf_counter() - begin
    where = f"wanted it with {sys.executable}: {HOME}"
    return answer.told(
        [f"package {name} on node {answer.node}: {why}; {where}" for name, why in lost.items()],
        import_s=import_s,
        torch=str(getattr(sys.modules.get("torch"), "__version__", "")),
    )


def folders(asked: Asked, answer: Answer) -> Answer:
    """The run folder can be written in, and jobs import from the code that was copied for them."""
    folder, code, seen = Path(asked.sweep_folder), Path(asked.code), f"as seen from node {answer.node}"
    problems = []
    if not folder.is_dir():
        problems.append(f"run folder {folder}, {seen}: no such folder; {SHARED}")
    else:
        try:
            _write_and_read(folder / f".canary-{answer.node}-{os.getpid()}")
        except OSError as error:
            problems.append(f"run folder {folder}, {seen}: cannot be written in ({error.strerror}); {SHARED}")
    if code.is_dir():
        problems += _strangers(code.resolve(), answer.node)
    elif folder.is_dir():  # else the copy is missing for the same reason
        problems.append(f"copy of the code {code}, {seen}: no such folder; {SHARED}")
    return answer.told(problems)


def _write_and_read(path: Path) -> None:
    """OSError where the file system does not keep what is written."""
    try:
        with open(path, "xb") as file:
            file.write(b"canary")
            file.flush()
            os.fsync(file.fileno())
        if path.read_bytes() != b"canary":
            raise OSError(0, "what is read is not what was written")
    finally:
        path.unlink(missing_ok=True)


def _strangers(code: Path, node: str) -> list[str]:
    """What jobs would import from elsewhere than from `code`."""
    places = {name: _place(name) for name in FROM_COPY}
    wrong = {name: place for name, place in places.items() if place != code}
    advice = "PYTHONPATH must name it, and PYTHONSAFEPATH=1 keeps Python from looking in the folder that jobs start in"
    return [
        f"{', '.join(wrong)} on node {node}: imported from {place}, wanted {code}: {advice}"
        for place in list(wrong.values())[:1]
    ]


def _place(package: str) -> Path | None:
    """The folder that it would be imported from."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).resolve().parent.parent if spec and spec.origin else None


def store(asked: Asked, answer: Answer) -> Answer:
    """It is there, opens, and holds what it held where the sweep was launched."""
    from data_prep import store as cine

    seen = f"store {asked.store}, as seen from node {answer.node}"
    if not Path(asked.store).exists():
        return answer.told([f"{seen}: no such folder; wanted it on a file system that nodes share: give data.store="])
    begin = time.perf_counter()
    found, wanted = cine.open(asked.store).digest, asked.config["data_digest"]
    answer = answer.told(load_s=time.perf_counter() - begin)
    if found == wanted:
        return answer
    what = f"holds other data than where it was launched (digest {found[:8]}, wanted {wanted[:8]})"
    return answer.told([f"{seen}: {what}; give data.store= of one that all nodes see"])


def gpu(asked: Asked, answer: Answer) -> Answer:
    """torch sees as many as are wanted and has code for them; nothing to say where none are wanted."""
    if not asked.gpus or asked.config["train"]["device"] not in ("auto", "cuda"):
        return answer
    from mtl import machine

    problems = [f"GPU on node {answer.node}: {line}" for line in machine.gpu_problems(asked.gpus)]
    answer = answer.told(problems, driver=machine.driver())
    for first in machine.gpus()[:1]:
        answer = answer.told(device=first.name, gpu_memory_gb=first.memory_gb)
    return answer


def images(asked: Asked, answer: Answer) -> Answer:
    """The store's images can be read and are whole."""
    from mtl import data

    data.load(Path(asked.store), asked.config["data_digest"])  # it stays loaded, for the probe
    return answer


def probe(asked: Asked, answer: Answer) -> Answer:
    """A few steps of training, and whether what they take is what was asked for."""
    from cluster.executors import cores
    from mtl import data, machine, train
    from mtl.config import Config, from_dict

    config = from_dict(Config, asked.config)
    try:
        taken = machine.probe(config, data.load(Path(asked.store), config.data_digest))
    except train.OutOfMemory as error:
        what = f"a batch of {config.train.batch_size} slices does not fit in the GPU's memory on node {answer.node}"
        advice = "give a smaller train.batch_size or model.width, or ask for larger GPUs (site.constraint)"
        return answer.told([f"{what} ({error}): {advice}"])
    share, own_gb, here = taken.cost.memory_share, taken.memory_gb - taken.mapped_gb, cores()
    problems, advised = memory(asked, own_gb, taken.mapped_gb)
    crowded, room = sharing(asked, share, own_gb)
    fewer = [f"the job has {here} cores of site.cpus_per_rank={asked.cpus}"] if here < asked.cpus else []
    return answer.told(
        problems + crowded,
        advised + room + fewer,
        device=taken.device,
        memory_gb=taken.memory_gb,
        mapped_gb=taken.mapped_gb,
        gpu_memory_share=share,
        train_s=taken.cost.train_s,
        predict_s=taken.cost.predict_s,
    )


def memory(asked: Asked, own_gb: float, mapped_gb: float) -> tuple[list[str], list[str]]:
    """Problems and advice on site.mem_gb, where a fold takes own_gb and all folds together mapped_gb beside it.

    mapped_gb are pages of files: where memory is short the system drops them and reads them again, so they alone are
    no problem.
    """
    folds, given = asked.gpu_share_folds, f"site.mem_gb={asked.mem_gb:g}"
    all_gb, used = folds * own_gb + mapped_gb, f"the probe used {own_gb + mapped_gb:.2g} GB"
    if own_gb > asked.mem_gb:
        return [f"{given} is too little, {used}: give site.mem_gb={_roomy(folds * own_gb)} or more"], []
    if folds * own_gb > asked.mem_gb:
        fits, more = int(asked.mem_gb / own_gb), f"site.mem_gb={_roomy(folds * own_gb)}"
        what = f"{given} is too little for {folds} folds of {own_gb:.2g} GB each"
        return [f"{what}: give site.folds_per_gpu={fits} at most, or {more} or more"], []
    if all_gb > 0.9 * asked.mem_gb:
        return [], [f"site.mem_gb={_roomy(all_gb)}: {used} a fold, and {given} leaves little room"]
    if all_gb < 0.25 * asked.mem_gb and _roomy(all_gb) < asked.mem_gb:
        return [], [f"site.mem_gb={_roomy(all_gb)} is enough: {used} a fold, of {given}"]
    return [], []


def _roomy(gb: float) -> int:
    """With half as much again: a few steps do not see everything."""
    return max(1, math.ceil(1.5 * gb))


def sharing(asked: Asked, share: float, own_gb: float) -> tuple[list[str], list[str]]:
    """Problems and advice on folds that share a GPU, from the share of its memory that one takes (0 on CPUs)."""
    if not share:
        return [], []
    folds, taken = asked.gpu_share_folds, f"a fold takes {share:.0%} of the GPU's memory"
    fits = max(1, int(GPU_MEMORY_USED / share))
    if folds > fits:
        return [f"site.folds_per_gpu={folds} is too many, {taken}: give site.folds_per_gpu={fits} at most"], []
    fits = min(fits, asked.cpus, int(GPU_MEMORY_USED * asked.mem_gb / own_gb))  # a fold wants a core and memory, too
    if share < GPU_MEMORY_USED / 2 and fits > folds:
        return [], [f"site.folds_per_gpu={fits} would fit: {taken}"]
    return [], []


CHECKS: tuple[tuple[Check, str, tuple[Check, ...]], ...] = (
    (interpreter, "importing the packages", ()),
    (folders, "writing in the run folder", ()),
    (store, "opening the store", (interpreter,)),
    (gpu, "starting the GPU", (interpreter,)),
    (images, READING, (interpreter, store)),
    (probe, "training a few steps", (interpreter, store, gpu, images)),
)
"""In their order: the check, what it does, and those without which it makes no sense."""


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
