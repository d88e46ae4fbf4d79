"""An nnU-Net raw folder (dataset.json, imagesTr, labelsTr) as the rows of a table."""

import json
import re
from pathlib import Path
from typing import Any

from data_prep.files import read_text
from data_prep.inventory import Inventory
from data_prep.readers.found import Found, Row
from data_prep.study import CLASSES

IMAGE = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})(?P<ending>\.nii(\.gz)?)", re.IGNORECASE)
FRAME = re.compile(r"(?P<subject>patient\d{3})_frame(?P<phase>\d+)", re.IGNORECASE)
"""ACDC's cases in nnU-Net's spelling: two phases of one person, who must not straddle folds."""
SPELLINGS = {
    CLASSES[1]: {"myocardium", "myo", "mlv", "lvm", "lv myo", "lvmyo", "lv myocardium", "left ventricular myocardium"},
    CLASSES[2]: {"left ventricle", "lv", "lvc", "lv cavity", "lvbp", "left ventricular cavity", "lv blood pool"},
    CLASSES[3]: {"right ventricle", "rv", "rvc", "rv cavity", "right ventricular cavity", "rv blood pool"},
}


def rows(inventory: Inventory, found: Found, *, ask: bool) -> tuple[list[Row], dict[str, int]]:
    """A row per case of imagesTr, and class -> value by dataset.json; nothing where it is no such folder.

    ask: the values are wanted, ValueError where dataset.json does not tell which is the myocardium.
    """
    homes = [path.parent for path in inventory.files if path.name == "dataset.json"]
    homes = [home for home in homes if any(path.parent == home / "imagesTr" for path in inventory.files)]
    if not homes:
        return [], {}
    if len(homes) > 1:
        raise ValueError(f"raw folder {inventory.root}: {len(homes)} nnU-Net folders; give one of them as RAW")
    home = homes[0]
    found.used.add(home / "dataset.json")
    labels = _labels(inventory.root / home / "dataset.json") if ask else {}
    there = {*inventory.files}
    made: list[Row] = []
    for path in inventory.files:
        match = IMAGE.fullmatch(path.name)
        if path.parent == home / "imagesTs":
            found.ignored[path] = "a test image: nobody labelled it"
        if path.parent != home / "imagesTr" or match is None:
            continue
        if match["channel"] != "0000":
            found.ignored[path] = "not the first channel"
            continue
        mask = home / "labelsTr" / f"{match['case']}{match['ending']}"
        frame = FRAME.fullmatch(match["case"])
        subject, phase = (frame["subject"], frame["phase"]) if frame else (match["case"], "")
        given = inventory.root / mask if mask in there else None
        made.append(Row(len(made) + 1, subject, inventory.root / path, given, phase, ""))
    return made, labels


def _labels(path: Path) -> dict[str, int]:
    """Class -> value. Version 2 of the format has name -> value, version 1 value -> name."""
    advice = "say it with --label myocardium=VALUE"
    try:
        listed: Any = json.loads(read_text(path))["labels"]
        pairs = [(k, v) if isinstance(v, int) else (v, int(k)) for k, v in listed.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name}: its labels cannot be read as name: value; {advice}") from error
    made = {}
    for spelled, value in pairs:
        name = re.sub(r"[\s_-]+", " ", str(spelled)).strip().lower()
        made.update({known: value for known, spellings in SPELLINGS.items() if name in spellings})
    if CLASSES[1] not in made:
        raise ValueError(f"{path.name}: none of its labels is known as the myocardium; {advice}")
    return made
