"""From the command line to settings: the schema, the named choices, and errors in one line.

Defaults < profile < command line. The experiment's own sections are mtl/config.py's.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cluster.sections import Data, Demo, Predict, Ray, Sweep, Tracking
from cluster.site import Site
from mtl.config import Config, Loss, Model, Optim, Protocol, Train, Weighting, between, choice, from_dict
from sweeps.asked import short

ROOT = Path(__file__).resolve().parent.parent
GROUPS = {
    "sweep": ROOT / "sweeps",
    "site": ROOT / "cluster" / "sites",
    "profile": ROOT / "cluster" / "profiles",
}
DRIVERS = ("job", "here", "none", "answer")
SECTIONS = [section.name for section in dataclasses.fields(Config) if dataclasses.is_dataclass(section.type)]
"""of mtl/config.py, which a fold's configuration consists of"""


@dataclass(frozen=True)
class Settings:
    """Everything a launch needs."""

    data: Data = field(default_factory=Data)
    demo: Demo = field(default_factory=Demo)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    optim: Optim = field(default_factory=Optim)
    weighting: Weighting = field(default_factory=Weighting)
    loss: Loss = field(default_factory=Loss)
    protocol: Protocol = field(default_factory=Protocol)
    predict: Predict = field(default_factory=Predict)
    sweep: Sweep = field(default_factory=Sweep)
    site: Site = field(default_factory=Site)
    ray: Ray = field(default_factory=Ray)
    tracking: Tracking = field(default_factory=Tracking)
    runs: str = "runs"
    """the folder of run folders"""
    driver: str = "job"
    """on Slurm: job, the sweep's driver is queued as a small job of its own; here: it stays in the foreground; none:
    all is queued at once, and a last job prints the table. Anywhere: answer, the table of what there is, no training"""
    racing: bool = False
    """where slots are scarcer than folds: train a configuration's folds one by one, and leave out the others once it is
    worse than the best beyond doubt (sweep.confidence)"""
    same_code: bool = False
    """train folds again that another version of the code or of torch, or another kind of device, has trained"""
    plan: bool = False
    """on Slurm: show what would be queued and what it costs, and queue nothing"""
    probe: bool = False
    """on Slurm: first a job of at most two minutes that measures a few steps; what it costs is reckoned from them"""
    confirm_above_gpu_hours: float = 100.0
    """on Slurm: a sweep that may cost more asks first"""
    confirm_above_hours: float = 2.0
    """a sweep that will take longer asks first"""
    yes: bool = False
    """the answer to that question"""

    def __post_init__(self) -> None:
        choice("driver", self.driver, DRIVERS)
        between("confirm_above_gpu_hours", self.confirm_above_gpu_hours, 0)
        between("confirm_above_hours", self.confirm_above_hours, 0)
        if self.racing and self.sweep.asha:
            raise ValueError(
                "racing=true trains folds one by one, sweep.asha wants them side by side: wanted one of both"
            )
        if self.sweep.asha and self.sweep.asha_first >= self.train.epochs:
            got = f"sweep.asha_first is {self.sweep.asha_first} with train.epochs={self.train.epochs}"
            raise ValueError(f"{got}, wanted a first decision before the last epoch")
        if not self.runs:
            raise ValueError("runs is empty, wanted a folder")
        if (self.site.kind == "ray") != bool(self.ray.address):
            got = f"ray.address is {self.ray.address} with site.kind={self.site.kind}"
            raise ValueError(f"{got}, wanted both or neither: site=ray ray.address=HOST:PORT")


def choices(group: str) -> list[str]:
    """The names that a group offers."""
    return sorted(path.stem for path in GROUPS[group].glob("*.yaml"))


def is_file(key: str, value: str) -> bool:
    """Whether a choice is a file of the user's own, such as site=my-site.yaml."""
    return key in GROUPS and value.endswith((".yaml", ".yml"))


def _chosen(group: str, value: Any) -> str:
    """The name of a choice. A file of the user's own is put beside the shipped ones, under its name."""
    if not is_file(group, str(value)):
        if value not in choices(group):
            wanted = f"{', '.join(choices(group))}, or a file of your own ({group}=X.yaml)"
            raise ValueError(f"unknown {group} {value!r}, wanted one of: {wanted}")
        return str(value)
    path = Path(str(value)).expanduser()
    if not re.fullmatch(r"[A-Za-z][\w-]*", path.stem) or path.stem in choices(group):
        raise ValueError(f"{group}={value}: wanted a name of its own, of letters, digits, - and _ before the .yaml")
    _store(group, path.stem, _checked_file(group, path))
    return path.stem


def _checked_file(group: str, path: Path) -> dict[str, Any]:
    """What a user's file says. ValueError where it is none, or names a setting that is none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        what = getattr(error, "strerror", None) or first_line(error)
        raise ValueError(f"{group}={path}: cannot be read as YAML: {what}") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{group}={path}: holds no settings, wanted lines of key: value as in {GROUPS[group]}")
    for key in found:
        try:
            _check_key(str(key) if group == "profile" else f"{group}.{key}", sections=group == "profile")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return found


TEXTS = ("runs", "data.store", "tracking.uri", "demo.folder", "ray.address", "site.umask", "site.policy", "site.mail")
"""Settings whose value is text whatever it looks like: Hydra would read 2026_11_23 as a number."""


def quoted(override: str) -> str:
    """A path or an address as a quoted string of Hydra's grammar."""
    key, _, value = override.partition("=")
    if not (key in TEXTS or is_file(key, value)) or value in ("", "null") or value[0] in "'\"":
        return override
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def check_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Key -> value of what was given on the command line; ValueError for an unknown key or choice."""
    given: dict[str, Any] = {}
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise ValueError(f"{text!r} is not of the form key=value ({first_line(error)})") from None
        if override.is_sweep_override():
            raise ValueError(f"{text!r} gives several values; a sweep's values stand in its file in sweeps/")
        key = override.key_or_group
        if override.is_delete() or override.is_add():
            raise ValueError(f"{text!r}: settings can be given, not added or deleted; write it without + and ~")
        if key in GROUPS:
            given[key] = _chosen(key, override.value())
            continue
        if key.split(".")[0] != "hydra":
            _check_key(key)
        given[key] = override.value()
    if "sweep" not in given:
        raise ValueError(f"no sweep given; give sweep= with one of: {', '.join(choices('sweep'))}")
    return given


def _check_key(key: str, sections: bool = False) -> None:
    kind: Any = Settings
    for depth, part in enumerate(key.split(".")):
        names = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
        if part not in names:
            section = ".".join(key.split(".")[:depth])
            wanted = [f"{section}.{name}" if section else name for name in names] or [section]
            if not section:
                wanted += [name for name in GROUPS if name not in wanted]
            raise ValueError(f"unknown key {key!r}, wanted one of: {', '.join(wanted)}")
        kind = next(f.type for f in dataclasses.fields(kind) if f.name == part)
    if dataclasses.is_dataclass(kind) and not sections:
        wanted = [f"{key}.{f.name}" for f in dataclasses.fields(kind)]
        raise ValueError(f"{key!r} is a section; give its settings one by one: {', '.join(wanted)}")


def register(help_text: str) -> None:
    """Put the schema and the named choices where Hydra finds them."""
    store = ConfigStore.instance()
    store.store(name="schema", node=_unlocked(OmegaConf.structured(Settings)))
    hydra = {
        "run": {"dir": "."},
        "output_subdir": None,  # no outputs/ folder: the run folder holds what is kept
        "job": {"chdir": False},
        "help": {"app_name": "launch.py", "template": help_text},
    }
    defaults = [
        "schema",
        "_self_",
        {"sweep": "???"},
        {"site": "local"},
        {"profile": "paper"},
        {"override hydra/job_logging": "disabled"},
        {"override hydra/hydra_logging": "disabled"},
    ]
    store.store(name="launch", node={"defaults": defaults, "hydra": hydra})
    for group, folder in GROUPS.items():
        for path in folder.glob("*.yaml"):
            _store(group, path.stem, yaml.safe_load(path.read_text()))


def _store(group: str, name: str, node: Any) -> None:
    package = "_global_" if group == "profile" else group
    ConfigStore.instance().store(name=name, group=group, node=node, package=package)


def _unlocked(node: Any) -> Any:
    """A frozen dataclass's node refuses overrides (omegaconf #1102): it is unlocked here, frozen again after."""
    if isinstance(node, DictConfig):
        node._set_flag("readonly", None)
        if node._metadata.object_type is dict:  # such as site.sbatch: keys of the user's own
            node._set_flag("struct", False)
        for key in node:
            _unlocked(node._get_node(key))
    return node


def freeze(composed: DictConfig) -> Settings:
    """Hydra's composed config as frozen, checked settings."""
    values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    sections = {f.name: f.type for f in dataclasses.fields(Settings) if dataclasses.is_dataclass(f.type)}
    made: dict[str, Any] = {name: kind(**values.pop(name)) for name, kind in sections.items()}  # type: ignore[operator]
    return Settings(**made, **{str(key): value for key, value in values.items()})


def config_at(settings: Settings, point: dict[str, Any], data_digest: str) -> Config:
    """The experiment's config with a point's values in place; ValueError names a field that is none."""
    sections = {name: dataclasses.asdict(getattr(settings, name)) for name in SECTIONS}
    for key, value in point.items():
        section, _, name = key.partition(".")
        if name not in sections.get(section, {}):
            known = [f"{s}.{n}" for s, values in sections.items() for n in values]
            raise ValueError(f"a point of the sweep names {key!r}, wanted one of: {', '.join(known)}")
        sections[section][name] = value
    return from_dict(Config, {"data_digest": data_digest, **sections})


def configuration_name(point: dict[str, Any], config: Config) -> str:
    """`<field>-<value>[_...]-<8 hex>`, as in `branch-up4-3fa9c210`."""
    parts = [f"{key.rpartition('.')[2]}-{short(value)}" for key, value in point.items()]
    return "_".join(parts).replace("/", "-") + f"-{config.digest}"


def first_line(error: BaseException) -> str:
    """The innermost cause's message, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    keys = [line.removeprefix("full_key:").strip() for line in lines[1:] if line.startswith("full_key:")]
    return " ".join([*(lines[:1] or [repr(error)]), *(f"({key})" for key in keys)])
