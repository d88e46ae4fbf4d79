"""What `launch.py --help` and `--settings` print."""

import dataclasses
import textwrap
from typing import Any

import yaml

from cluster.settings import GROUPS, SECTIONS, Settings, choices
from mtl.config import meanings

HELP = """Branchpoint: five-fold sweeps of a multi-task U-Net (segmentation and area, Dangi et al. 2018).

  python cluster/launch.py sweep=NAME [key=value ...]     the same command again goes on where it stopped

{sweeps}
  my.yaml           a question of your own: sweep=path/to/my.yaml (grammar: sweeps/README.md)

$APP_CONFIG_GROUPS
== Settings, as in train.epochs=50 (--settings says what each means) ==
{settings}

  data.store=STORE              your own images (python -m data_prep.convert), by the paper's protocol (profile=paper);
                                without one on made-up patients (profile=demo),
                                {demo}
  site=slurm plan=true          what would be queued on a Slurm cluster, and its price (python -m cluster.sites new)
  sweep.by=optuna racing=true   how the space is searched; when folds need not be trained
  --prune                       show, and remove, configurations that do not belong to the sweep any more
  --cfg job                     print the composed settings, run nothing
  -sc install=bash              eval "$$(python cluster/launch.py -sc install=bash)": completion in this shell

While it runs: python -m cluster.status RUNS. Then: python -m mtl.report RUNS; python -m cluster.tracking serve RUNS.
To hand it on, without images and names: python -m cluster.pack RUNS out.zip [--model].
Exit status: 0 done, 1 a fold failed, 2 bad input, 130 interrupted.
"""


def screen() -> str:
    """Hydra's template of --help: one screen."""
    return HELP.format(sweeps=_questions(), settings=_packed(), demo=profile_values("demo"))


def _questions() -> str:
    found = {name: yaml.safe_load((GROUPS["sweep"] / f"{name}.yaml").read_text()) for name in choices("sweep")}
    return "\n".join(f"  {name:<17} {told['question']}" for name, told in found.items())


def _packed() -> str:
    lines = []
    for name, kind in (*_sections(), ("", Settings)):
        values = " ".join(f"{f.name}={_shown(f.default)}" for f in dataclasses.fields(kind) if f.name in meanings(kind))
        lines += textwrap.wrap(values, 118, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12)
    return "\n".join(lines)


def settings() -> str:
    """Every setting with its default and its meaning."""
    return "\n".join(line for name, kind in (*_sections(), ("", Settings)) for line in _told(name, kind))


def _sections() -> list[tuple[str, Any]]:
    return [(f.name, f.type) for f in dataclasses.fields(Settings) if dataclasses.is_dataclass(f.type)]


def _told(section: str, kind: Any) -> list[str]:
    told, prefix = meanings(kind), f"{section}." if section else ""
    fields = [f for f in dataclasses.fields(kind) if f.name in told and f.name != "space"]
    return [f"  {f'{prefix}{f.name}={_shown(f.default)}':<34} {told[f.name]}" for f in fields]


def profile_values(profile: str) -> str:
    """What a profile sets, as it would stand on the command line."""
    values = yaml.safe_load((GROUPS["profile"] / f"{profile}.yaml").read_text())
    named = [f"{section}.{key}={value}" for section in SECTIONS for key, value in values.get(section, {}).items()]
    return " ".join(named)


def _shown(value: Any) -> str:
    if value is None or value is dataclasses.MISSING:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
