"""The walk over DICOM's element headers gives what pydicom gives, or nothing."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.readers import tags
from tests.fuzzing import fuzzing


@pytest.fixture(scope="module")
def content(raw: Path) -> bytes:
    return next((raw / "DET9000001").glob("*.dcm")).read_bytes()


def same(ours: tags.Tags, theirs: tags.Tags) -> bool:
    """Equal, numbers that are none included."""
    return {*ours} == {*theirs} and all(
        np.array_equal(value, theirs[name], equal_nan=True) if isinstance(value, tuple) else value == theirs[name]
        for name, value in ours.items()
    )


def test_the_walk_reads_the_phantoms_files(content: bytes) -> None:
    found = tags.walk(content)
    assert found is not None
    assert same(found, tags.with_pydicom(content))
    assert {*found} >= {"PixelSpacing", "ImagePositionPatient", "Rows", "PixelData", "Manufacturer", "TriggerTime"}
    assert len(found["PixelData"]) == 192 * 192 * 2


@pytest.mark.parametrize("change", [b"", b"DICM"])
def test_the_walk_gives_up_on_what_is_no_dicom(change: bytes, content: bytes) -> None:
    assert tags.walk(change) is None
    assert tags.walk(content[:128] + b"XXXX" + content[132:]) is None
    assert tags.walk(content[:-5]) is None


def test_the_walk_gives_up_on_a_sequence_of_undefined_length(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(content)
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    item = pydicom.Dataset()
    item.Rows = 7
    dataset.ReferencedImageSequence = [item]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.save_as(tmp_path / "x.dcm")
    changed = (tmp_path / "x.dcm").read_bytes()
    assert tags.walk(changed) is None
    assert tags.read(changed)["Rows"] == 192


BYTE = st.one_of(st.integers(0, 255), st.sampled_from(b"\\0123456789.-+eE "))


CUT = st.one_of(st.integers(132, 2000), st.integers(132, 150000))


@given(changes=st.lists(st.tuples(st.integers(128, 2000), BYTE), min_size=1, max_size=4), cut=CUT)
@fuzzing(300)
def test_on_mutated_files_the_walk_agrees_with_pydicom_or_gives_up(
    content: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    header = len(content) - 192 * 192 * 2
    changed = bytearray(content)
    for place, value in changes:
        changed[128 + place % (header - 128)] = value
    del changed[cut:]
    ours = tags.walk(bytes(changed))
    if ours is not None:
        assert same(ours, tags.with_pydicom(bytes(changed)))
