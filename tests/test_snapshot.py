"""The code, the environment and the data that a sweep is pinned to."""

import json
import subprocess
from pathlib import Path

import pytest

from cluster import snapshot
from data_prep.files import make_private


def test_the_snapshot_is_this_code_once_per_content(tmp_path: Path) -> None:
    code = snapshot.snapshot(make_private(tmp_path / "sweep"))
    assert code == snapshot.snapshot(tmp_path / "sweep")
    root = Path(snapshot.__file__).parent.parent
    for package in snapshot.PACKAGES:
        theirs = sorted(p.relative_to(root / package) for p in (root / package).rglob("*.py"))
        assert sorted(p.relative_to(code / package) for p in (code / package).rglob("*.py")) == theirs
    assert (code / "sweeps" / "paper.yaml").is_file()
    assert (code / "cluster" / "sites" / "slurm.yaml").is_file()


def test_the_copy_says_which_commit_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout of its own, with a change that is not committed."""
    for package in snapshot.PACKAGES:
        (tmp_path / "co" / package).mkdir(parents=True)
        (tmp_path / "co" / package / "a.py").write_text("first = 1\n")
    git = ["git", "-C", str(tmp_path / "co"), "-c", "user.name=n", "-c", "user.email=e@x"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    sha = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "co" / "mtl" / "a.py").write_text("second = 2\n")
    monkeypatch.setattr(snapshot, "ROOT", tmp_path / "co")
    sweep = make_private(tmp_path / "sweep")
    code = snapshot.snapshot(sweep)
    assert json.loads((code / "commit.json").read_text()) == {"commit": sha, "uncommitted": True}
    assert "+second = 2" in (code / "uncommitted.diff").read_text()
    told = json.loads(snapshot.record(sweep, {"runs": "r"}, {"digest": "d"}).read_text())
    monkeypatch.setattr(snapshot, "ROOT", code)  # as in a job
    assert json.loads(snapshot.record(sweep, {"runs": "r"}, {"digest": "d"}).read_text()) == told
    assert told["git"]["commit"] == sha
    assert told["store"] == {"digest": "d"}
    assert told["packages"]["torch"]
    assert len(list((sweep / "launches").iterdir())) == 1
