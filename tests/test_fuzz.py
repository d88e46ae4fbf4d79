"""Mutated files: no traceback, no hang, and no wrong study accepted.

A study is wrong when its geometry, its order or its masks differ from the sound one's; grey levels may differ in
the mutated file's own frames, for pixels carry no checksum.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import grid, inventory, jobs, readers, store
from data_prep.readers.found import Found, Options
from tests.archives import acdc, heart_TZYX, image_of, sunnybrook, write_nifti
from tests.fuzzing import fuzzing

GRID = grid.Grid((3.125, 3.125), (64, 64))
PER_READER = fuzzing(60)


@dataclass
class Archive:
    """One study of a reader, sound, and what comes of it."""

    root: Path
    found: Found
    folder: Path

    def convert(self) -> jobs.Outcome:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        (case,) = self.found.cases
        job = jobs.Job("A", "A", case, GRID, self.found.source, self.found.classes, self.folder)
        (outcome,) = jobs.run_all([job], workers=1)
        return outcome

    def made(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        patient = store.patient(self.folder / "A")
        return dict(patient.attributes), {name: patient.array(name) for name in store.ARRAYS}


@pytest.fixture(scope="module")
def make(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Archive]:
    def build(reader: str) -> Archive:
        home = tmp_path_factory.mktemp(reader)
        root = home / "raw"
        if reader == "lvsc":
            shutil.copytree(raw / "DET9000001", root / "DET9000001")
        elif reader == "sunnybrook":
            sunnybrook(root, raw / "DET9000001")
        elif reader == "acdc":
            acdc(root, patients=1, phases=3, levels=3, n=32, spacing_mm=4.0)
        else:
            heart = heart_TZYX(2, 3, 32, 4.0)
            write_nifti(root / "image.nii", image_of(heart), (10.0, 4.0, 4.0))
            write_nifti(root / "mask.nii.gz", (heart == 1).astype(np.uint8), (10.0, 4.0, 4.0))
            (root / "t.csv").write_text("subject,image,mask,phase,stratum\nx,image.nii,mask.nii.gz,,\n")
        return Archive(root, readers.find(inventory.take(root), reader, Options()), home / "made")

    return build


def mutate(content: bytes, data: st.DataObject) -> bytes:
    """Bytes changed, cut off, doubled, taken out or put in; most often near the beginning, where headers are."""
    changed = bytearray(content)
    reach = len(changed) if data.draw(st.booleans()) else min(len(changed), 1600)
    at = data.draw(st.integers(0, max(reach - 1, 0)))
    kind = data.draw(st.sampled_from(["set", "set", "set", "digit", "cut", "double", "take", "put", "empty"]))
    if kind == "set":
        for place in range(at, min(at + data.draw(st.integers(1, 4)), len(changed))):
            changed[place] = data.draw(st.integers(0, 255))
    elif kind == "digit":
        digits = [n for n in range(at, len(changed)) if chr(changed[n]).isdigit()]
        if digits:
            changed[digits[0]] = data.draw(st.sampled_from(b"0123456789-.e"))
    elif kind == "cut":
        del changed[at:]
    elif kind == "double":
        changed[at:at] = changed[at : at + data.draw(st.integers(1, 600))]
    elif kind == "take":
        del changed[at : at + data.draw(st.integers(1, 600))]
    elif kind == "put":
        changed[at:at] = data.draw(st.binary(min_size=1, max_size=40))
    else:
        changed.clear()
    return bytes(changed)


@pytest.mark.parametrize("reader", ["lvsc", "sunnybrook", "acdc", "table"])
@pytest.mark.filterwarnings("ignore")
def test_a_mutated_file_never_makes_a_wrong_study(reader: str, make: Callable[[str], Archive]) -> None:
    archive = make(reader)
    assert archive.convert().result == "converted"
    attributes, arrays = archive.made()
    (case,) = archive.found.cases
    files = list(case.files.items())

    @PER_READER
    @given(data=st.data())
    def hold(data: st.DataObject) -> None:
        label, path = data.draw(st.sampled_from(files))
        sound = path.read_bytes()
        try:
            path.write_bytes(mutate(sound, data))
            outcome = archive.convert()
        finally:
            path.write_bytes(sound)
        if outcome.result == "set_aside":
            assert "please report it" not in outcome.reason, outcome
            return
        _assert_not_wrong(archive, label, outcome, attributes, arrays)

    hold()


def _assert_not_wrong(
    archive: Archive, label: str, outcome: jobs.Outcome, attributes: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    now, made = archive.made()
    kept = [attributes["source_phases"].index(phase) for phase in now["source_phases"]]
    if len(kept) < len(attributes["source_phases"]):
        assert outcome.mended  # a phase that was left out was said
    assert np.allclose(now["source_spacing_mm"], attributes["source_spacing_mm"], rtol=0.01)
    assert now["slice_spacing_mm"] == pytest.approx(attributes["slice_spacing_mm"], rel=0.01)
    different = (made["mask_TZYX"] != arrays["mask_TZYX"][kept]).sum()
    assert different <= 0.02 * arrays["mask_TZYX"].astype(bool).sum(), (label, int(different))
    if label.endswith("txt"):
        assert (made["image_TZYX"] == arrays["image_TZYX"][kept]).all()
