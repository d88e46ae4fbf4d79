"""What a sweep will cost: on this machine by a probe of a few steps; on Slurm by earlier epochs, else by the canary's
probe, else at most what the time limit allows."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cluster import executors, worker
from cluster.canary import Answer
from cluster.canary_checks import GPU_MEMORY_USED
from cluster.folds import Configuration
from cluster.site import Site
from data_prep import store as cine
from data_prep.files import write_text
from mtl import data
from mtl.config import Config, from_dict
from mtl.runfolder import RunFolder, read_settings

PROBE_LOW, PROBE_HIGH = 0.8, 1.5
"""how far an epoch's time may lie from that of a few steps"""
FILES_PER_FOLD = 12
"""in its folder, and its job's log and pickles"""
BYTES_PER_WIDTH_SQUARED = 150_000
"""last.pt and best.pt of a fold, divided by model.width squared: three times the largest network in float32"""


# On this machine.


@dataclass(frozen=True)
class Estimate:
    """Hours on this machine, and what they are made of."""

    hours: float
    folds: int
    slots: int
    memory_share: float = 0.0
    """of a GPU's memory that a fold takes at most; 0 on CPUs"""

    def __str__(self) -> str:
        minutes = self.hours * 60
        spelled = f"{self.hours:.1f} h" if self.hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else "under 1 min"
        return (
            f"this sweep will take about {self.hours:.3f} hours ({spelled}) on this machine: {self.folds} folds "
            f"to train, {self.slots} at a time"
        )


def estimate(configurations: Sequence[Configuration], opened: cine.Store, place: executors.Place) -> Estimate:
    """Probe each kind of network, all slots busy as in the sweep, and add up the epochs still to train.

    ValueError where not even a probe can be trained.
    """
    kinds = {_step(c): c for c in configurations}
    copies = -(-place.slots // len(kinds))
    store = str(opened.path.resolve())
    probes = {
        kind: [place.submit(worker.run_probe, c.config, store) for _ in range(copies)] for kind, c in kinds.items()
    }
    cost = {kind: _median(tried) for kind, tried in probes.items()}
    images = labelled_images(opened)
    seconds = sum(seconds_left(c, images, *cost[_step(c)][:2]) for c in configurations)
    folds = sum(len(left(c)) for c in configurations)
    slots = min(place.slots, max(folds, 1))
    return Estimate(seconds / slots / 3600, folds, slots, max(share for _, _, share in cost.values()))


def labelled_images(opened: cine.Store) -> int:
    """Slices with a mask."""
    return sum(int(p.array("labelled_TZ").sum()) for p in data.labelled_patients(opened))


def left(configuration: Configuration) -> list[RunFolder]:
    """The folds that are not done."""
    return [] if configuration.ended() else [run for run in configuration.runs if run.outcome() != "DONE"]


def seconds_left(configuration: Configuration, images: int, train_s: float, predict_s: float) -> float:
    """Of all its folds one after another; train_s, predict_s: of a slice."""
    settings = configuration.config["train"]
    training = images * from_dict(Config, configuration.config).trained_share
    trained = training * (1 + settings["augment_copies"])
    epochs = sum(configuration.epochs - len(run.epochs()) for run in left(configuration))
    return float(epochs * (trained * train_s + images / settings["folds"] * predict_s))


def packed(
    configurations: Sequence[Configuration], opened: cine.Store, place: executors.Place
) -> tuple[Estimate, executors.Place]:
    """As many folds at a time on each GPU as its memory holds, where that is no slower; and what it will take."""
    alone = estimate(configurations, opened, place)
    slots = folds_at_a_time(alone.memory_share, place.slots, executors.cores())
    if slots == place.slots:
        return alone, place
    beside = replace(place, slots=slots)
    together = estimate(configurations, opened, beside)
    return (together, beside) if together.hours <= alone.hours else (alone, place)


def folds_at_a_time(memory_share: float, gpus: int, cores: int) -> int:
    """On all GPUs together: so many that each has memory to spare and each fold a core."""
    if not memory_share:
        return gpus
    return gpus * max(1, min(int(GPU_MEMORY_USED / memory_share), cores // gpus))


def _step(configuration: Configuration) -> str:
    """What decides the time of a step."""
    return repr((configuration.config["model"], configuration.config["train"]["batch_size"]))


def _median(probes: Sequence[Any]) -> tuple[float, float, float]:
    try:
        tried = [executors.outcome(probe) for probe in probes]
    except (ArithmeticError, RuntimeError) as error:
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise ValueError(
            f"a probe of a few steps failed: {reason}; try a smaller train.batch_size, model.width or optim.lr"
        ) from error
    train_s, predict_s, shares = zip(*tried, strict=True)
    return statistics.median(train_s), statistics.median(predict_s), max(shares)


# On Slurm.


@dataclass(frozen=True)
class Price:
    """What the folds still to train may cost."""

    folds: int
    gpus: float
    """of one fold; a share where several folds share one"""
    low_h: float
    """of all folds together"""
    high_h: float
    source: str
    megabytes: float = 0.0
    """that will be written"""

    @property
    def gpu_hours(self) -> float:
        """At most, as far as is known."""
        return self.high_h * (self.gpus or 1)

    def __str__(self) -> str:
        unit = "GPU hours" if self.gpus else "hours of CPU jobs"
        low, high = (hours * (self.gpus or 1) for hours in (self.low_h, self.high_h))
        span = f"at most {high:.1f}" if low == 0 else f"{low:.2f} to {high:.2f}"
        return f"{self.folds} folds to train, {span} {unit} ({self.source})"

    @property
    def written(self) -> str:
        """Files and bytes."""
        return f"about {self.folds * FILES_PER_FOLD} files, {self.megabytes:.0f} MB"


def price(configurations: Sequence[Configuration], site: Site, images: int, answer: Answer | None = None) -> Price:
    """images: with a mask, in the store; answer: of the canary, if it has been there."""
    folds = [(c, run) for c in configurations for run in left(c)]
    gpus = site.nodes * site.gpus_per_node / site.folds_per_gpu
    runs = configurations[0].folder.parent.parent
    megabytes = sum(BYTES_PER_WIDTH_SQUARED * c.config["model"]["width"] ** 2 for c, _ in folds) / 1e6
    seconds = _earlier_epochs(runs)
    if folds and all(_kind(c.config) in seconds for c, _ in folds):
        epochs = [(c.epochs - len(run.epochs()), seconds[_kind(c.config)]) for c, run in folds]
        low_h, high_h = (sum(n * end(s) for n, s in epochs) / 3600 for end in (min, max))
        return Price(len(folds), gpus, low_h, high_h, f"from the epochs of earlier runs in {runs}", megabytes)
    if folds and answer and answer.train_s:
        alone_h = sum(seconds_left(c, images, answer.train_s, answer.predict_s or 0.0) for c in configurations) / 3600
        start_h = len(folds) * ((answer.import_s or 0.0) + (answer.load_s or 0.0)) / 3600
        low_h, high_h = PROBE_LOW * alone_h / site.ranks + start_h, PROBE_HIGH * alone_h + start_h
        return Price(len(folds), gpus, low_h, high_h, f"from a probe of a few steps on {answer.node}", megabytes)
    source = f"the time limit of {site.time_min} minutes for each of them"
    return Price(len(folds), gpus, 0.0, len(folds) * site.time_min / 60, source, megabytes)


def keep(sweep_folder: Path, price: Price) -> None:
    """For `status`, which sets it beside what was used."""
    if price.folds and not (sweep_folder / "price.json").exists():
        write_text(sweep_folder / "price.json", json.dumps({"text": str(price), "gpus": price.gpus}) + "\n")


def kept(sweep_folder: Path) -> tuple[str, float]:
    """What was expected at the first launch, and the GPUs of a fold; nothing where nobody said."""
    path = sweep_folder / "price.json"
    if not path.exists():
        return "", 0.0
    found = json.loads(path.read_text())
    return str(found["text"]), float(found["gpus"])


def _earlier_epochs(runs: Path) -> dict[str, list[float]]:
    """Seconds of the epochs that were trained here, by what decides them."""
    found: dict[str, list[float]] = {}
    for path in runs.glob("*/*/fold_*/config.yaml"):
        run = RunFolder(path.parent)
        try:
            kind = _kind(read_settings(path))
        except (OSError, KeyError, TypeError, yaml.YAMLError):  # of another version, or damaged: no help here
            continue
        found.setdefault(kind, []).extend(record["seconds"] for record in run.epochs())
    return {kind: seconds for kind, seconds in found.items() if seconds}


def _kind(config: Mapping[str, Any]) -> str:
    """What decides the seconds of an epoch, on one kind of machine."""
    train = {key: value for key, value in config["train"].items() if key not in ("epochs", "seed")}
    return repr(
        (
            config["data_digest"],
            sorted(config["model"].items()),
            sorted(train.items()),
            config["protocol"]["selection"],
            config["protocol"]["train_fraction"],
        )
    )
