"""The run folder, which is the truth about a training: its names and what stands in it.

    runs/<sweep>/<configuration>/fold_<k>/
        config.yaml    the configuration and the fold
        epochs.jsonl   a line per epoch; usage.jsonl, what it took of the machine
        last.pt        to go on from; best.pt, the best epoch's network
        volumes.csv  slices.csv  cases.npz
        masks.zarr     the test fold's predicted masks, where they were asked for (predict.save_masks=true)
        DONE | STOPPED | FAILED    exactly one of them at the end, JSON with the reason

No torch here: drivers and trackers read run folders too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_prep.files import make_private, read, remove, write_text
from mtl.config import Config, flat

OUTCOMES = ("DONE", "STOPPED", "FAILED")
KEPT = ("config.yaml", "epochs.jsonl", "best.pt", "volumes.csv", "slices.csv")
"""files that what a finished fold says is read from"""


def read_settings(path: Path) -> Any:
    """What a fold's config.yaml holds; yaml.YAMLError where it is damaged. By libyaml, where it is there: nine times as
    fast, and a sweep has a thousand of them."""
    import yaml  # who asks for a training's steps alone (tests/benchmarks/gpu.py) may have torch and numpy only

    return yaml.load(read(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class RunFolder:
    """One fold of one configuration."""

    def __init__(self, path: Path, discarded: bool = False) -> None:
        """discarded: it will be removed before anything is trained in it, and counts as empty until then."""
        self.path, self._discarded = path, discarded
        self.last, self.best = path / "last.pt", path / "best.pt"

    def check(self, config: Mapping[str, Any]) -> None:
        """ValueError when the folder was made with another configuration or other data."""
        import yaml  # as in read_settings()

        try:
            found = read_settings(self.path / "config.yaml")
        except FileNotFoundError:
            return
        except yaml.YAMLError:
            found = None
        if not isinstance(found, dict) or _known(found) != _known(config):
            what = [k for k in config if not isinstance(found, dict) or found.get(k) != config[k]]
            detail = "other data" if what == ["data_digest"] else f"another {', '.join(what)}"
            raise ValueError(f"run folder {self.path}: made with {detail}; remove it or use another runs= folder")

    def prepare(self, config: Mapping[str, Any]) -> None:
        """Check or write config.yaml; take back that the fold failed, since it is tried again."""
        import yaml  # as in read_settings()

        make_private(self.path)
        self.check(config)
        for left_over in self.path.glob(".*.tmp"):  # of a killed process: the caller holds the lock
            remove(left_over)
        write_text(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        (self.path / "FAILED").unlink(missing_ok=True)

    def reopen(self) -> None:
        """Take back that it failed or was stopped: it is tried again. Where files of a finished fold are lost, that it
        was done, too."""
        gone = ("FAILED", "STOPPED", "DONE") if self.lost() else ("FAILED", "STOPPED")
        for name in gone:
            (self.path / name).unlink(missing_ok=True)

    def epochs(self) -> list[dict[str, Any]]:
        """The records of the epochs so far."""
        return self._lines("epochs.jsonl")

    def usage(self) -> list[dict[str, Any]]:
        """What each epoch took of the machine, as far as that was noted: its number, cores, memory_gb and more."""
        return self._lines("usage.jsonl")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        if self._discarded:
            return []
        try:
            lines = (self.path / name).read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def write_epochs(self, records: Sequence[Mapping[str, Any]]) -> None:
        write_text(self.path / "epochs.jsonl", "".join(json.dumps(record) + "\n" for record in records))

    def write_usage(self, epoch: int, used: Mapping[str, float]) -> None:
        """Of an epoch, after those before it."""
        records = [record for record in self.usage() if record["epoch"] < epoch]
        lines = (json.dumps(record) + "\n" for record in (*records, {"epoch": epoch, **used}))
        write_text(self.path / "usage.jsonl", "".join(lines))

    def outcome(self) -> str | None:
        """DONE, STOPPED, FAILED, or None while there is more to do."""
        return None if self._discarded else next((name for name in OUTCOMES if (self.path / name).exists()), None)

    def lost(self) -> list[str]:
        """Files that a finished fold must have and has not any more: a purge of old files may have taken them."""
        return [name for name in KEPT if self.outcome() == "DONE" and not (self.path / name).exists()]

    def reason(self) -> str:
        """The reason that the outcome gives, empty where there is none."""
        return str(self.facts().get("reason", ""))

    def facts(self) -> dict[str, Any]:
        """What the outcome says: its reason; of DONE, the best epoch and what the fold was trained on and with."""
        name = self.outcome()
        found: dict[str, Any] = json.loads((self.path / name).read_text()) if name else {}
        return found

    def finish(self, outcome: str, reason: str, **facts: Any) -> None:
        """Write the one file that says how it ended."""
        assert outcome in OUTCOMES
        make_private(self.path)  # it may never have begun
        write_text(self.path / outcome, json.dumps({"reason": reason, **facts}, indent=1) + "\n")
        for other in OUTCOMES:
            if other != outcome:
                (self.path / other).unlink(missing_ok=True)


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the default: a version with more settings still knows what an older one made."""
    default = flat({**asdict(Config()), "fold": None})
    return {name: value for name, value in flat(config).items() if value != default.get(name)}


def best_epoch(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The record with the highest Dice on the selection set; the first of equals."""
    assert records, "a finished fold has epochs"
    return max(records, key=lambda record: record["dice_val"])
