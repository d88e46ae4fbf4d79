"""data_prep.check: sound stores are counted, every damage is named with its patient, nothing ends in a traceback."""

import gc
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from data_prep import check, convert, store

FIRST = "DET9000001"


@pytest.fixture
def copy(store_path: Path, tmp_path: Path) -> Path:
    """A copy of the made-up patients' store, to damage."""
    shutil.copytree(store_path, tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


@pytest.fixture
def faults(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], list[str]]:
    def run(path: Path) -> list[str]:
        assert check.main([str(path)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        lines = said.err.splitlines()
        assert lines
        assert all(line.startswith("check: ") for line in lines)
        return [line.removeprefix("check: ") for line in lines]

    return run


def shard(path: Path, name: str) -> Path:
    (file,) = [file for file in (path / FIRST / name / "c").rglob("*") if file.is_file()]
    return file


def edit(path: Path, **attributes: object) -> None:
    zarr.open_group(path, mode="a").attrs.update(attributes)


def made(path: Path, source: str = "lvsc", **arrays: np.ndarray) -> Path:
    """A store of one patient, two phases, three levels, sound but for the arrays that are given."""
    image_TZYX = np.arange(2 * 3 * 16 * 16, dtype=np.int16).reshape(2, 3, 16, 16)
    whole = {"image_TZYX": image_TZYX, "mask_TZYX": image_TZYX % 2, "labelled_TZ": np.ones((2, 3), bool)} | arrays
    attributes = {
        "subject": "A",
        "phase_rule": "by hand",
        "z_rule": "by hand",
        "ed_phase": 0,
        "es_phase": None,
        "source_phases": [4, 9],
        "source_spacing_mm": [[1.5, 1.5]] * 3,
        "slice_spacing_mm": 8,
    }
    with store.create(path, source=source, spacing_mm=(1.5, 1.5), size=(16, 16), classes=("b", "m")) as out:
        out.add(FIRST, *whole.values(), attributes)
    return path


def test_a_sound_store_is_counted(store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(store_path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    words = [line.split() for line in said.out.splitlines()]
    for counted in (["patients", "5"], ["volumes", "10"], ["slices", "30"], ["labelled", "slices", "30"]):
        assert counted in words
    assert ["patients", "with", "ED", "5"] in words
    assert ["patients", "with", "ES", "5"] in words
    assert "source phantom, 48 x 48 pixels of 6.25 x 6.25 mm" in said.out
    assert "classes: background, myocardium" in said.out
    assert "paper" not in said.out


def test_lvsc_stands_beside_the_papers_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_TZ = np.array([[True, True, False], [False, False, False]])
    mask_TZYX = np.zeros((2, 3, 16, 16), np.uint8)
    assert check.main([str(made(tmp_path / "s", mask_TZYX=mask_TZYX, labelled_TZ=labelled_TZ))]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[2:8] == [
        "patients 1 (paper: 97)",
        "volumes 2 (paper: 2,191)",
        "slices 6 (paper: 26,664)",
        "labelled slices 2",
        "patients with ED 1",
        "patients with ES 0",
    ]


@pytest.mark.parametrize("name", list(store.ARRAYS))
def test_a_flipped_bit_a_lost_and_a_short_shard(name: str, tmp_path: Path, faults: Callable[[Path], list[str]]) -> None:
    path = made(tmp_path / "s")
    whole = shard(path, name).read_bytes()
    for changed in (bytes([whole[0] ^ 1]) + whole[1:], whole[:-1] + bytes([whole[-1] ^ 1]), whole[: len(whole) // 2]):
        shard(path, name).write_bytes(changed)
        assert faults(path)[0].startswith(f"{FIRST}: ")
    shard(path, name).unlink()
    (fault,) = faults(path)
    assert fault.startswith(f"{FIRST}: {name} cannot be read (")
    assert fault.endswith("; convert the raw data again")


def test_zeros_that_zarr_would_make_up_are_found_by_the_digest(
    tmp_path: Path, faults: Callable[[Path], list[str]]
) -> None:
    path = made(tmp_path / "s")
    sealed = store.open(path).patients[0].attributes["digest"]
    group = zarr.open_group(path / FIRST, mode="a")
    group.create_array("image_TZYX", shape=(2, 3, 16, 16), chunks=(1, 3, 16, 16), dtype="<i2", overwrite=True)
    assert not np.asarray(store.open(path).patients[0].array("image_TZYX")).any()
    (fault,) = faults(path)
    assert "the arrays are not those that were written" in fault
    assert f"wanted {sealed}" in fault


def test_what_the_advice_says_mends_the_store(
    raw: Path, copy: Path, faults: Callable[[Path], list[str]], store_path: Path
) -> None:
    shard(copy, "mask_TZYX").write_bytes(b"")
    faults(copy)
    convert.convert(raw, copy, spacing_mm=6.25, size=48)
    assert check.main([str(copy)]) == 0
    assert store.open(copy).digest == store.open(store_path).digest


def test_every_patient_is_looked_at(
    copy: Path, faults: Callable[[Path], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    shard(copy, "image_TZYX").unlink()
    (copy / "DET9000002" / "zarr.json").write_text("{")
    (copy / "DET9000003" / "mask_TZYX" / "zarr.json").unlink()
    shutil.rmtree(copy / "DET9000004" / "labelled_TZ")
    edit(copy / "DET9000005", es_phase=2)
    (copy / "stray").mkdir()
    assert [fault.partition(" (")[0].partition(";")[0] for fault in faults(copy)] == [
        "DET9000001: image_TZYX cannot be read",
        "DET9000002: zarr.json cannot be read",
        "DET9000003: mask_TZYX is missing",
        "DET9000004: labelled_TZ is missing",
        "DET9000005: es_phase is 2, wanted null or a phase below 2",
        "stray: is no patient, or its zarr.json is lost",
    ]
    gc.collect()
    assert caplog.records == []  # asyncio would tell of zarr's tasks that nobody asked how they went


@pytest.mark.parametrize(
    ("attributes", "fault"),
    [
        ({"ed_phase": -1}, "ed_phase is -1, wanted null or a phase below 2"),
        ({"ed_phase": True}, "ed_phase is True, wanted null or a phase below 2"),
        ({"es_phase": 1.0}, "es_phase is 1.0, wanted null or a phase below 2"),
        ({"source_phases": [0]}, "source_phases has 1 entries, wanted 2 whole numbers, one per phase"),
        ({"source_spacing_mm": [[1, 1]] * 2}, "source_spacing_mm has 2 entries, wanted 3 pairs of numbers"),
        ({"source_spacing_mm": [1.5, 1.5, 1.5]}, "source_spacing_mm has 3 entries, wanted 3 pairs of numbers"),
        ({"slice_spacing_mm": -1.0}, "slice_spacing_mm is -1.0, wanted a finite number, 0 or more"),
        ({"slice_spacing_mm": float("nan")}, "slice_spacing_mm is nan, wanted a finite number, 0 or more"),
        ({"slice_spacing_mm": "8"}, "slice_spacing_mm is '8', wanted a finite number, 0 or more"),
        ({"subject": ""}, "subject is '', wanted a text"),
        ({"z_rule": None}, "z_rule is None, wanted a text"),
        ({"digest": "0"}, "the arrays are not those that were written"),
    ],
)
def test_attributes_out_of_range(
    attributes: dict[str, object], fault: str, tmp_path: Path, faults: Callable[[Path], list[str]]
) -> None:
    path = made(tmp_path / "s")
    edit(path / FIRST, **attributes)
    (said,) = faults(path)
    assert said.startswith(f"{FIRST}: {fault}")


def test_missing_attributes(tmp_path: Path, faults: Callable[[Path], list[str]]) -> None:
    path = made(tmp_path / "s")
    zarr.open_group(path / FIRST, mode="a").attrs.put({"digest": store.open(path).patients[0].attributes["digest"]})
    texts, others = ["subject", "phase_rule", "z_rule"], ["source_phases", "source_spacing_mm", "slice_spacing_mm"]
    assert [fault.partition(",")[0] for fault in faults(path)] == [
        f"{FIRST}: {name} is missing" for name in [*texts, "ed_phase", "es_phase", *others]
    ]


def test_labels_beyond_the_classes_and_where_nobody_labelled(
    tmp_path: Path, faults: Callable[[Path], list[str]]
) -> None:
    mask_TZYX = np.zeros((2, 3, 16, 16), np.uint8)
    mask_TZYX[1, 2, 5, 5] = 2
    labelled_TZ = np.ones((2, 3), bool)
    labelled_TZ[1, 2] = False
    beyond, unlabelled = faults(made(tmp_path / "s", mask_TZYX=mask_TZYX, labelled_TZ=labelled_TZ))
    assert "mask_TZYX holds the label 2, wanted labels below 2, the number of classes" in beyond
    assert "mask_TZYX is not empty at 1 unlabelled slices (first: phase 1, level 2), wanted zeros" in unlabelled


def test_shapes_that_disagree(tmp_path: Path, faults: Callable[[Path], list[str]]) -> None:
    empty = np.zeros((2, 4, 16, 32), np.int16)
    path = made(tmp_path / "s", image_TZYX=empty)
    assert [fault.partition(";")[0] for fault in faults(path)] == [
        f"{FIRST}: image_TZYX has the shape (2, 4, 16, 32), wanted phases, levels and the store's size (16, 16)",
        f"{FIRST}: mask_TZYX has the shape (2, 3, 16, 16), wanted image_TZYX's (2, 4, 16, 32)",
        f"{FIRST}: labelled_TZ has the shape (2, 3), wanted image_TZYX's phases and levels (2, 4)",
    ]


def test_another_type(tmp_path: Path, faults: Callable[[Path], list[str]]) -> None:
    path = made(tmp_path / "s")
    group = zarr.open_group(path / FIRST, mode="a")
    group.create_array("image_TZYX", data=np.zeros((2, 3, 16, 16), np.float32), overwrite=True)
    (fault,) = faults(path)
    assert "image_TZYX is of type float32, wanted int16" in fault


def test_stores_that_are_none(copy: Path, tmp_path: Path, faults: Callable[[Path], list[str]]) -> None:
    assert "no such folder" in faults(tmp_path / "none.zarr")[0]
    (tmp_path / "file").write_text("text")
    assert "not a zarr v3 group" in faults(tmp_path / "file")[0]
    edit(copy, size=[48])
    assert "attributes are damaged" in faults(copy)[0]
    edit(copy, size=[48, 48], version=2)
    assert "version is 2, this program reads 1" in faults(copy)[0]
    edit(copy, version=1)
    for patient in store.open(copy).patients:
        shutil.rmtree(patient.folder)
    assert "without any patient" in faults(copy)[0]
    (copy / "zarr.json").write_text("[]")
    assert "not a zarr v3 group" in faults(copy)[0]


def test_nothing_is_written(store_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in store_path.rglob("*")}
    check.main([str(store_path)])
    assert {file: file.stat().st_mtime_ns for file in store_path.rglob("*")} == before
