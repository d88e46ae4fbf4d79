"""The store's contract, version 1."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from data_prep import files, store


def write(path: Path, **attributes: object) -> None:
    with store.create(
        path, source="test", spacing_mm=(1.5, 1.5), size=(16, 16), classes=("background", "myocardium")
    ) as out:
        image = np.arange(2 * 3 * 16 * 16, dtype=np.int16).reshape(2, 3, 16, 16)
        mask = (image % 7 == 0).astype(np.uint8)
        out.add("DET0000001", image, mask, np.ones((2, 3), bool), {"ed_phase": 0, "es_phase": None, **attributes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr", slice_spacing_mm=8.0)
    opened = store.open(tmp_path / "s.zarr")
    (patient,) = opened.patients
    assert (opened.source, opened.spacing_mm, opened.size) == ("test", (1.5, 1.5), (16, 16))
    assert (patient.key, patient.subject, patient.ed_phase, patient.es_phase) == (
        "DET0000001",
        "DET0000001",
        0,
        None,
    )
    assert patient.array("image_TZYX").dtype == np.int16
    assert patient.array("image_TZYX")[1, 2, 15, 15] == 2 * 3 * 256 - 1


def test_the_arrays_on_disk_are_as_the_contract_says(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr")
    root = json.loads((tmp_path / "s.zarr" / "zarr.json").read_text())
    assert root["zarr_format"] == 3
    expected = {
        "format": "branchpoint-cine",
        "version": 1,
        "source": "test",
        "spacing_mm": [1.5, 1.5],
        "size": [16, 16],
        "classes": ["background", "myocardium"],
    }
    assert root["attributes"] == expected
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")["DET0000001"]
    assert isinstance(group, zarr.Group)
    dtypes = {name: (str(array.dtype), array.shape, array.shards, array.chunks) for name, array in group.arrays()}
    assert dtypes == {
        "image_TZYX": ("int16", (2, 3, 16, 16), (2, 3, 16, 16), (1, 3, 16, 16)),
        "mask_TZYX": ("uint8", (2, 3, 16, 16), (2, 3, 16, 16), (1, 3, 16, 16)),
        "labelled_TZ": ("bool", (2, 3), (2, 3), (1, 3)),
    }
    files = [p for p in (tmp_path / "s.zarr" / "DET0000001").rglob("*") if p.is_file()]
    assert len(files) == 7  # one shard and one zarr.json an array, and the group's


def test_digest_by_hand(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr")
    patient = store.open(tmp_path / "s.zarr").patients[0]
    whole = b"".join(patient.array(name).tobytes() for name in ("image_TZYX", "mask_TZYX", "labelled_TZ"))
    assert patient.attributes["digest"] == hashlib.sha256(whole).hexdigest()


def test_shards_are_to_the_byte_what_zarr_writes(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr")
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")["DET0000001"]
    assert isinstance(group, zarr.Group)
    with zarr.config.set({"array.write_empty_chunks": True}):
        copy = zarr.create_group(tmp_path / "copy", zarr_format=3, attributes=dict(group.attrs))
        for name, array in group.arrays():
            shape = array.shape
            copy.create_array(
                name,
                data=np.asarray(array[...]),
                chunks=(1, *shape[1:]),
                shards=shape,
                compressors=None,
                fill_value=0,
                dimension_names=[*name.rpartition("_")[2]],
            )

    def contents(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert contents(tmp_path / "s.zarr" / "DET0000001") == contents(tmp_path / "copy")
    assert len(contents(tmp_path / "copy")) == 7


def test_a_store_in_the_making_is_not_there_and_an_error_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"

    def fill_the_disk() -> None:
        with store.create(path, source="t", spacing_mm=(1, 1), size=(16, 16), classes=("b", "m")):
            assert not path.exists()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill_the_disk()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".s.zarr.partial" / "DET0000009").mkdir(parents=True)
    write(tmp_path / "s.zarr")
    assert [p.key for p in store.open(tmp_path / "s.zarr").patients] == ["DET0000001"]


def test_two_writers_of_one_store(tmp_path: Path) -> None:
    with files.new_folder(tmp_path / "s.zarr"), pytest.raises(FileExistsError, match="another process"):
        files.new_folder(tmp_path / "s.zarr").__enter__()
    with pytest.raises(FileExistsError, match="exists already"):
        files.new_folder(tmp_path / "s.zarr").__enter__()


def test_the_digest_covers_what_decides_a_training(tmp_path: Path) -> None:
    for n, attributes in enumerate([{}, {"subject": "A"}, {"stratum": "x"}, {"es_phase": 1}, {"note": "ignored"}]):
        write(tmp_path / f"{n}.zarr", **attributes)
    digests = [store.open(tmp_path / f"{n}.zarr").digest for n in range(5)]
    assert len(set(digests[:4])) == 4
    assert digests[4] == digests[0]


def _set(path: Path, **attributes: object) -> None:
    zarr.open_group(path, mode="a").attrs.update(attributes)


def test_wrong_stores_say_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder; make one with: python -m data_prep\.convert"):
        store.open(tmp_path / "none.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="not a zarr v3 group"):
        store.open(tmp_path / "empty")
    write(tmp_path / "v.zarr")
    _set(tmp_path / "v.zarr", version=2)
    with pytest.raises(ValueError, match=r"version is 2, this program reads 1; convert .* again"):
        store.open(tmp_path / "v.zarr")
    _set(tmp_path / "v.zarr", format="other")
    with pytest.raises(ValueError, match="format is 'other', wanted 'branchpoint-cine'"):
        store.open(tmp_path / "v.zarr")
    write(tmp_path / "d.zarr")
    _set(tmp_path / "d.zarr", size="large")
    with pytest.raises(ValueError, match="damaged"):
        store.open(tmp_path / "d.zarr")


@pytest.mark.filterwarnings("ignore:Object at:UserWarning")  # zarr's own word on the folder it does not know
def test_a_patient_that_was_lost_is_missed(tmp_path: Path) -> None:
    with store.create(tmp_path / "l", source="t", spacing_mm=(1, 1), size=(16, 16), classes=("b", "m")) as out:
        for key in ("A", "B"):
            empty = np.zeros((1, 1, 16, 16), np.int16)
            out.add(key, empty, empty.astype(np.uint8), np.ones((1, 1), bool), {})
    assert len(store.open(tmp_path / "l").patients) == 2
    (tmp_path / "l" / "B" / "zarr.json").unlink()
    with pytest.raises(ValueError, match="incomplete at B; convert the raw data again"):
        store.open(tmp_path / "l")
    (tmp_path / "l" / "zarr.json").write_text("[]")
    with pytest.raises(ValueError, match="not a zarr v3 group"):
        store.open(tmp_path / "l")
