"""The pins stand in pyproject.toml; environment.yml says the same; nothing names a machine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from tests.conftest import LONG

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_has_the_same_pins() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert sorted(pip) == sorted([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["sweep"]])


def test_every_dependency_is_pinned_exactly() -> None:
    extras = [pin for pins in PROJECT["optional-dependencies"].values() for pin in pins]
    assert [pin for pin in [*PROJECT["dependencies"], *extras] if not re.fullmatch(r"[\w.\[\]-]+==[\d.]+", pin)] == []


def test_the_whole_environment_is_pinned_and_agrees() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    whole = {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}
    extras = [pin for pins in PROJECT["optional-dependencies"].values() for pin in pins]
    for pin in [*PROJECT["dependencies"], *extras]:
        name, _, version = re.sub(r"\[.*\]", "", pin).partition("==")
        assert whole[name.lower().replace("_", "-")] == version


def test_the_core_imports_nothing_of_the_sweeps() -> None:
    extra = [re.split(r"\[|==", pin)[0] for pin in PROJECT["optional-dependencies"]["sweep"]]
    modules = {"hydra-core": "hydra"}
    ask = "import sys, mtl.predict, mtl.report, mtl.train, data_prep.convert; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {modules.get(name, name) for name in extra} & set(found.split())
    assert "torch" in found.split()


def test_every_package_folder_is_installed() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    floors = ("cluster", "mtl", "sweeps", "data_prep")
    found = {str(p.parent.relative_to(ROOT)).replace("/", ".") for f in floors for p in (ROOT / f).rglob("__init__.py")}
    assert set(packages) == found


def test_the_files_that_take_longest_are_called_as_the_tests_order_has_them() -> None:
    assert {*LONG} <= {path.name for path in (ROOT / "tests").glob("test_*.py")}


def test_no_tracked_file_names_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = [ROOT / name for name in listed.stdout.split()] or [p for p in ROOT.glob("*/*.py")]
    private = re.compile(r"/(?:opt|home|root|work)/\w|file://(?!\{)|find-links")
    assert [str(p) for p in files if p.is_file() and p != Path(__file__) and private.search(p.read_text())] == []
