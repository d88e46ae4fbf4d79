"""Names under which patients are stored: an archive's own case codes, pseudonyms for everybody else.

STORE.keys.csv    key, name (mode 0600): the list that leads back, beside the store and never in it
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from data_prep import files

ARCHIVE_CODE = re.compile(r"DET\d{7}|SC-(HF-I|HF-NI|HYP|N)-\d{1,2}|SCD\d{7}|patient\d{3}", re.IGNORECASE)
"""LVSC, Sunnybrook (two spellings), ACDC: codes of known archives name nobody."""
LONGEST_KEY = 80


def is_archive_code(name: str) -> bool:
    return ARCHIVE_CODE.fullmatch(name) is not None


def list_beside(store: Path) -> Path:
    """Where the list that leads back lies."""
    return store.with_name(store.name + ".keys.csv")


def assign(store: Path, names: Sequence[str], keep_names: bool) -> dict[str, str]:
    """Name -> key. A name that has a pseudonym in the list keeps it; the list is not written here.

    ValueError where the list is there and is none.
    """
    known = _read(list_beside(store))
    taken = {*known.values()} | {name for name in names if is_archive_code(name)}
    keys: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if is_archive_code(name):
            keys[name] = name
        elif keep_names:
            plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".")[:LONGEST_KEY] or "P"
            keys[name] = _unused("P-" + plain if plain == "zarr.json" else plain, taken)
        else:
            keys[name] = known.get(name) or next(key for n in range(1, 10**9) if (key := f"P{n:03d}") not in taken)
        taken.add(keys[name])
    return keys


def write(store: Path, keys: dict[str, str]) -> None:
    """Write the list (0600) where there are pseudonyms; those of earlier runs stay in it."""
    pseudonyms = {name: key for name, key in keys.items() if not is_archive_code(name)}
    if not pseudonyms:
        return
    path = list_beside(store)
    wanted = _read(path) | pseudonyms
    rows = [{"key": key, "name": name} for name, key in sorted(wanted.items(), key=lambda item: item[1])]
    files.write_csv(path, rows, ["key", "name"], private=True)


def _unused(key: str, taken: set[str]) -> str:
    return next(k for n in range(1, 10**9) if (k := key if n == 1 else f"{key}-{n}") not in taken)


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as handle:
        try:
            return {row["name"]: row["key"] for row in csv.DictReader(handle)}
        except (KeyError, csv.Error) as error:
            raise ValueError(f"{path}: not a list of keys and names; move it away") from error
