"""The code, the environment and the data that a sweep is pinned to.

`code/<hash>/` in the sweep's folder is a copy of the Python that its jobs run: a checkout may move on while they wait
in the queue. `launches/<hash>.json` says what a launch asked for and with what: settings, git commit, versions of all
packages, the store's digest. The same again writes nothing.
"""

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from data_prep.files import make_private, new_folder, write_text

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cluster", "mtl", "sweeps", "data_prep")
COMMIT = "commit.json"
"""in a copy: the commit that it was made from"""


def code_hash() -> str:
    """Of the files that run."""
    named = (str(file.relative_to(ROOT)).encode() + file.read_bytes() for file in _files())
    return hashlib.sha256(b"".join(named)).hexdigest()[:12]


def snapshot(sweep_folder: Path) -> Path:
    """The copy; named by what is in it, so that the same code is copied once."""
    code = sweep_folder / "code" / code_hash()
    if code.exists():
        return code
    commit, difference = _git()
    with new_folder(code) as partial:
        for file in _files():
            copy = partial / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        write_text(partial / COMMIT, json.dumps(commit, indent=1) + "\n")
        write_text(partial / "uncommitted.diff", difference)
    return code


def record(sweep_folder: Path, settings: Mapping[str, Any], store: Mapping[str, Any]) -> Path:
    """Write down what is launched; where. settings: without secrets; store: where it lies, and its digest."""
    told = {
        "settings": settings,
        "store": store,
        "code": code_hash(),
        "git": _git()[0],
        "python": platform.python_version(),
        "packages": {dist.name: dist.version for dist in sorted(metadata.distributions(), key=lambda d: d.name)},
    }
    text = json.dumps(told, indent=1, default=str) + "\n"
    path = make_private(sweep_folder / "launches") / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    if not path.exists():
        write_text(path, text, private=True)
    return path


def _files() -> list[Path]:
    found = (file for package in PACKAGES for file in (ROOT / package).rglob("*"))
    return sorted(file for file in found if file.suffix in (".py", ".yaml"))


def _git() -> tuple[dict[str, Any], str]:
    """The commit and whether anything differs from it, and the difference; a copy says what it was made from."""
    if (ROOT / COMMIT).exists():
        return json.loads((ROOT / COMMIT).read_text()), (ROOT / "uncommitted.diff").read_text()
    sha = _ask_git("rev-parse", "HEAD")
    if sha is None:
        return {"commit": None, "uncommitted": None}, ""
    difference = _ask_git("diff", "HEAD", "--", *PACKAGES) or ""
    return {"commit": sha.strip(), "uncommitted": bool(difference)}, difference


def _ask_git(*words: str) -> str | None:
    """None where this is no checkout, or no git is at hand."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, timeout=30, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
