"""mtl/PAPER.md names what exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "mtl" / "PAPER.md").read_text()
NAMES = sorted(set(re.findall(r"`((?:mtl|data_prep)\.[\w.]+)`", TEXT)))
FILES = sorted(set(re.findall(r"`(tests/\w+\.py)`", TEXT)))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return
    pytest.fail(f"no module of {name}")


@pytest.mark.parametrize("name", FILES)
def test_every_test_file_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_the_map_is_a_map() -> None:
    assert len(NAMES) > 25
    assert len(FILES) > 10
