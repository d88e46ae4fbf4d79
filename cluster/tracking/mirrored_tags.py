"""What the mirror reads beside the run folders: who launched what, on which data, in which jobs."""

import hashlib
import json
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import watched
from cluster.tracking.mirrored_folds import Configuration, Fold, naming

DATA_FACTS = ("source", "patients", "volumes", "slices", "size", "pixel_spacing_mm")
"""of a store, in a finished fold's DONE"""
LOOKED_AT = ("launches", "jobs.json", "results.csv", "verdict.json", "verdict.md", "report")
TRAINED_WITH = ("code", "torch", "device", "precision", "branchpoint", "python")
"""of a fold, in its DONE"""
TAKEN_BACK = frozenset({*TRAINED_WITH, "outcome", "reason", "failure"})
"""tags that go when a fold is tried again; others, such as those that somebody gave in the UI, stay"""
LONGEST = 500
"""letters of a tag; the run folder has the rest"""


@dataclass(frozen=True)
class Data:
    """The store that was trained on."""

    name: str
    path: str
    digest: str
    facts: dict[str, Any]
    """how much of what is in it; nothing of a patient"""


@dataclass
class Beside:
    """What lies in a sweep's folder beside its configurations."""

    folder: Path
    launches: list[dict[str, Any]] = field(default_factory=list)
    """the newest first"""
    jobs: dict[tuple[str, str], str] = field(default_factory=dict)
    """names of a configuration's and a fold's folder -> ids of its Slurm jobs, the first first"""
    verdict: str = ""
    """verdict.md, once it is there"""
    seen: tuple[Any, ...] = ()

    def look(self) -> bool:
        """Read what is new; whether anything is."""
        seen = tuple(_when(self.folder / name) for name in LOOKED_AT)
        if seen == self.seen:
            return False
        files = [(-file.stat().st_mtime_ns, file) for file in (self.folder / "launches").glob("*.json")]
        self.launches = []
        for _, file in sorted(files):
            with naming(file):
                self.launches.append(dict(json.loads(file.read_text())))
        self.jobs = {}
        for job in watched.read(self.folder).by_folder.values():
            configuration, fold = Path(job.folder).parts[-2:]
            ids = [*(told.split()[0] for told in job.past), job.id]
            self.jobs[configuration, fold] = " ".join(dict.fromkeys(ids))
        verdict = self.folder / "verdict.md"
        self.verdict = verdict.read_text() if verdict.exists() else ""
        self.seen = seen
        return True

    def common(self, site: str) -> dict[str, str]:
        """Tags of every run."""
        owner = _owner(self.folder)
        made = {"owner": owner, "mlflow.user": owner, "site": site, "mlflow.source.name": f"sweep={self.folder.name}"}
        gits = [git for launch in self.launches if (git := launch.get("git", {})).get("commit")]
        if gits:
            told = [f"{git['commit']}{' with uncommitted changes' if git['uncommitted'] else ''}" for git in gits]
            made |= {"git_commit": ", ".join(dict.fromkeys(told))[:LONGEST]}
            made |= {"mlflow.source.git.commit": gits[0]["commit"]}
        return made

    def data(self, configuration: Configuration) -> Data | None:
        """What it was trained on, once one of its folds is done."""
        facts = next((fold.facts for fold in configuration.folds if fold.outcome == "DONE"), None)
        digest = str(configuration.config.get("data_digest", ""))
        if facts is None or not digest:
            return None
        stores = (launch.get("store", {}) for launch in self.launches)
        path = next((str(store.get("path", "")) for store in stores if store.get("digest") == digest), "")
        return Data(Path(path).name or "store", path, digest, {key: facts[key] for key in DATA_FACTS if key in facts})

    def fold_tags(self, configuration: Configuration, fold: Fold) -> dict[str, str]:
        """Tags of a fold, beside the common ones."""
        made = {"level": "fold", **_ended(fold.outcome, str(fold.facts.get("reason", "")))}
        if configuration.config:
            made |= {"data_digest": configuration.config["data_digest"], "fold_hash": fold_hash(configuration, fold)}
        made |= {key: str(fold.facts[key]) for key in (*TRAINED_WITH, "failure") if key in fold.facts}
        if ids := self.jobs.get((fold.run.path.parent.name, fold.run.path.name)):
            made["slurm_job_ids"] = ids[-LONGEST:]
        return made


def configuration_tags(configuration: Configuration) -> dict[str, str]:
    """Tags of a configuration, beside the common ones. What its folds were trained with: every value there is."""
    made = {"level": "configuration", "label": configuration.proposed.label}
    made |= _ended(configuration.outcome, configuration.reason)
    if configuration.config:
        made["data_digest"] = configuration.config["data_digest"]
    for key in TRAINED_WITH:
        if values := {str(fold.facts[key]) for fold in configuration.folds if key in fold.facts}:
            made[key] = ", ".join(sorted(values))[:LONGEST]
    return made


def fold_hash(configuration: Configuration, fold: Fold) -> str:
    """Of all that decides which patients a fold trains, validates and tests on: equal where these are the same."""
    config: Mapping[str, Any] = configuration.config
    decides = {key: config["protocol"].get(key) for key in ("fold_seed", "selection", "train_fraction")}
    decides |= {"data_digest": config["data_digest"], "folds": config["train"]["folds"], "fold": fold.number}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]


def _ended(outcome: str | None, reason: str) -> dict[str, str]:
    if outcome is None:
        return {}
    line = (reason.splitlines() or [""])[0][:LONGEST]
    return {"outcome": outcome, **({"reason": line} if line else {})}


def _when(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _owner(folder: Path) -> str:
    number = folder.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container's, or of another machine
        return str(number)
