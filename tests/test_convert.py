"""Raw LVSC-like folders -> store, with the irregularities of real ones."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from data_prep import convert, phantom, store
from data_prep.readers import lvsc
from data_prep.study import StudyError


@pytest.fixture
def one(raw: Path, tmp_path: Path) -> Path:
    """A copy of one patient's folder, to damage: RAW/DET9000001."""
    shutil.copytree(raw / "DET9000001", tmp_path / "raw" / "DET9000001")
    return tmp_path / "raw" / "DET9000001"


def converted(raw: Path, **grid: float) -> store.Patient:
    path = raw.parent / "store.zarr"
    shutil.rmtree(path, ignore_errors=True)
    convert.convert(raw, path, **{"spacing_mm": 3.125, "size": 96, **grid})  # type: ignore[arg-type]
    return store.open(path).patients[0]


def edit(folder: Path, change: Callable[[pydicom.Dataset, Path], None]) -> None:
    for path in sorted(folder.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        change(dataset, path)
        dataset.save_as(path)


def test_attributes_of_a_patient(raw: Path, store_path: Path) -> None:
    opened = store.open(store_path)
    assert (opened.source, opened.spacing_mm, opened.size) == ("phantom", (6.25, 6.25), (48, 48))
    assert [p.key for p in opened.patients] == [f"DET900000{n}" for n in range(1, 6)]
    attributes = opened.patients[0].attributes
    assert set(attributes) >= {
        "subject",
        "stratum",
        "slice_spacing_mm",
        "source_spacing_mm",
        "ed_phase",
        "es_phase",
        "phase_rule",
        "z_rule",
        "digest",
    }
    assert attributes["slice_spacing_mm"] == pytest.approx(10, abs=1e-3)
    assert attributes["source_spacing_mm"] == [[1.7708, 1.7708]] * 3
    assert {attributes["ed_phase"], attributes["es_phase"]} == {0, 1}


def test_base_comes_first_and_the_whole_stack_is_labelled(store_path: Path) -> None:
    for patient in store.open(store_path).patients:
        areas_TZ = patient.array("mask_TZYX").sum(axis=(2, 3))
        assert patient.array("labelled_TZ").all()
        assert (areas_TZ[:, 0] > areas_TZ[:, -1]).all()


def test_ed_is_the_phase_the_phantom_made_it(store_path: Path) -> None:
    for number, patient in enumerate(store.open(store_path).patients, start=1):
        heart = phantom.draw_heart(np.random.default_rng([1, number]), 2)
        assert patient.ed_phase == heart.ed_phase


def test_areas_before_and_after_agree(one: Path) -> None:
    before_mm2 = sum(
        float((sitk.GetArrayFromImage(sitk.ReadImage(str(p))).max(axis=2) > 0).sum()) * 1.7708**2
        for p in one.glob("*.png")
    )
    after_mm2 = float(converted(one.parent, spacing_mm=1.5625, size=192).array("mask_TZYX").sum()) * 1.5625**2
    assert after_mm2 == pytest.approx(before_mm2, rel=0.01)


def test_the_slice_numbers_order_means_nothing(one: Path) -> None:
    expected = converted(one.parent).attributes["digest"]
    for path in sorted(one.iterdir()):
        path.rename(path.with_name("x" + path.name))
    numbers = {"1": "2", "2": "3", "3": "1"}
    for path in sorted(one.iterdir()):
        path.rename(path.with_name(re.sub(r"_SA(\d)", lambda m: f"_SA{numbers[m[1]]}", path.name[1:])))
    assert converted(one.parent).attributes["digest"] == expected


def test_slice_location_is_not_looked_at(one: Path) -> None:
    expected = converted(one.parent).attributes["digest"]
    edit(one, lambda d, p: setattr(d, "SliceLocation", str(hash(p.name) % 1000)))
    assert converted(one.parent).attributes["digest"] == expected


def test_upper_case_suffix_long_axis_other_files_and_depth(one: Path) -> None:
    expected = converted(one.parent).attributes["digest"]
    for path in sorted(one.glob("*_SA1_*.dcm")):
        path.rename(path.with_suffix(".DCM"))
    shutil.copy(next(one.glob("*SA2_ph0.dcm")), one / "DET9000001_LA1_ph0.dcm")
    (one / "notes.txt").write_text("not an image")
    deeper = one.parent / "CAP_challenge_training_set" / "DicomFiles"
    deeper.mkdir(parents=True)
    one.rename(deeper / one.name)
    assert converted(one.parent).attributes["digest"] == expected


def test_missing_masks_are_unlabelled_and_empty_masks_are_labelled(one: Path) -> None:
    masks = sorted(one.glob("*.png"))
    masks[0].unlink()
    empty = np.zeros_like(sitk.GetArrayFromImage(sitk.ReadImage(str(masks[1]))))
    sitk.WriteImage(sitk.GetImageFromArray(empty, isVector=True), str(masks[1]))
    patient = converted(one.parent)
    labelled_TZ, area_TZ = patient.array("labelled_TZ"), patient.array("mask_TZYX").sum(axis=(2, 3))
    assert (~labelled_TZ).sum() == 1
    assert (labelled_TZ & (area_TZ == 0)).sum() == 1


def test_a_mask_of_another_size_covers_the_same_field_of_view(one: Path) -> None:
    expected = converted(one.parent).array("mask_TZYX")
    for path in one.glob("*.png"):
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[..., 0]
        double = np.kron(mask, np.ones((2, 2), np.uint8))
        sitk.WriteImage(sitk.GetImageFromArray(double), str(path))  # one channel instead of three, too
    assert (converted(one.parent).array("mask_TZYX") != expected).mean() < 1e-3


def test_levels_of_another_matrix_and_spacing(one: Path) -> None:
    """One level cropped by 8 pixels all round: its centre stays, so the store's arrays do."""

    def crop(dataset: pydicom.Dataset, path: Path) -> None:
        if "_SA2_" in path.name:
            step = [float(v) * 8 * 1.7708 for v in dataset.ImageOrientationPatient]
            moved = [float(p) + step[n] + step[n + 3] for n, p in enumerate(dataset.ImagePositionPatient)]
            pixels = dataset.pixel_array[8:-8, 8:-8]
            dataset.Rows, dataset.Columns, dataset.PixelData = *pixels.shape, pixels.tobytes()
            dataset.ImagePositionPatient = [f"{v:.6f}" for v in moved]
            mask = sitk.ReadImage(str(path.with_suffix(".png")))
            sitk.WriteImage(mask[8:-8, 8:-8], str(path.with_suffix(".png")))

    before = converted(one.parent).array("mask_TZYX")
    edit(one, crop)
    assert (converted(one.parent).array("mask_TZYX") == before).all()


def test_rescale_slope_is_applied(one: Path) -> None:
    before = converted(one.parent).array("image_TZYX").astype(float)

    def rescale(dataset: pydicom.Dataset, _: Path) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = "2", "0"

    edit(one, rescale)
    assert converted(one.parent).array("image_TZYX") == pytest.approx(2 * before, abs=1)


def test_no_tag_that_identifies_reaches_the_store(one: Path) -> None:
    secrets = {
        "PatientName": "Mustermann^Erika",
        "PatientID": "ID-778899",
        "PatientBirthDate": "19500417",
        "InstitutionName": "Sankt Nirgendwo",
        "StudyDescription": "Geheimbefund",
    }

    def name(dataset: pydicom.Dataset, _: Path) -> None:
        for key, value in secrets.items():
            setattr(dataset, key, value)

    edit(one, name)
    uid = pydicom.dcmread(next(one.glob("*.dcm"))).SOPInstanceUID
    converted(one.parent)
    stored = b"".join(p.read_bytes() for p in (one.parent.parent / "store.zarr").rglob("*") if p.is_file())
    for secret in [*secrets.values(), uid, str(one.parent)]:
        assert secret.encode() not in stored


def test_names_that_are_no_archives_codes_become_pseudonyms() -> None:
    assert lvsc.keys_of(["DET0000101", "ERIKA_MUSTERMANN"]) == ["DET0000101", "P002"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:900]), "not readable as a DICOM image"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1000]), "not readable as a DICOM image"),
        (lambda p: p.write_text("hello"), "not readable as a DICOM image"),
        (lambda p: p.unlink(), "slice 2 has no image at phase 1"),
        (lambda p: p.with_suffix(".png").write_text("no png"), "not readable as a PNG mask"),
    ],
)
def test_a_study_that_cannot_be_used_is_set_aside_and_the_others_go_on(
    raw: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    reason: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for n in (1, 2):
        shutil.copytree(raw / f"DET900000{n}", tmp_path / "raw" / f"DET900000{n}")
    damage(tmp_path / "raw" / "DET9000001" / "DET9000001_SA2_ph1.dcm")
    status = convert.main([str(tmp_path / "raw"), str(tmp_path / "s.zarr"), "--size", "48", "--spacing-mm", "6.25"])
    assert status == 3
    assert reason in capfd.readouterr().out
    assert [p.key for p in store.open(tmp_path / "s.zarr").patients] == ["DET9000002"]


def test_a_case_that_is_there_twice_is_set_aside(raw: Path, tmp_path: Path) -> None:
    """Two people's slices under one name must never become one study."""
    for folder in ("a", "b"):
        shutil.copytree(raw / "DET9000001", tmp_path / "raw" / folder)
    with pytest.raises(StudyError, match="is there twice, in a and b: one case must lie in one folder"):
        lvsc.read("DET9000001", lvsc.find(tmp_path / "raw")["DET9000001"])
    for path in [*(tmp_path / "raw" / "a").glob("*_SA1_*"), *(tmp_path / "raw" / "b").glob("*_SA[23]_*")]:
        path.unlink()
    with pytest.raises(StudyError, match="its files lie in 2 folders"):
        lvsc.read("DET9000001", lvsc.find(tmp_path / "raw")["DET9000001"])


def test_a_slice_that_moves_between_phases_is_no_study(one: Path) -> None:
    def move(dataset: pydicom.Dataset, path: Path) -> None:
        if path.name.endswith("SA2_ph1.dcm"):
            dataset.ImagePositionPatient = [0, 0, 0]

    edit(one, move)
    with pytest.raises(StudyError, match="position or orientation changes from phase to phase"):
        lvsc.read("DET9000001", lvsc.find(one)["DET9000001"])


def test_grey_levels_beyond_int16_are_noted(one: Path) -> None:
    def rescale(dataset: pydicom.Dataset, _: Path) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = "1000", "0"

    edit(one, rescale)
    summary = convert.convert(one.parent, one.parent.parent / "s.zarr", 6.25, 48)
    assert "grey levels beyond int16 are cut off" in summary.notes[0]


def test_a_compressed_file_without_its_codec_is_set_aside(one: Path) -> None:
    def compress(dataset: pydicom.Dataset, _: Path) -> None:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])

    edit(one, compress)
    with pytest.raises(ValueError, match=r"no study can be read; .* not readable as a DICOM image"):
        converted(one.parent)


@pytest.mark.parametrize("tag", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_missing_geometry_is_no_study(one: Path, tag: str) -> None:
    edit(one, lambda dataset, _: delattr(dataset, tag))
    with pytest.raises(StudyError, match="geometry"):
        lvsc.read("DET9000001", lvsc.find(one)["DET9000001"])


def test_bad_arguments_are_one_line_and_status_2(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(*argv: object) -> str:
        assert convert.main([str(a) for a in argv]) == 2
        error = capsys.readouterr().err
        assert error.startswith("convert: ")
        assert error.count("\n") == 1
        return error

    out = tmp_path / "s.zarr"
    assert "no such folder" in failing(tmp_path / "none", out)
    (tmp_path / "empty").mkdir()
    assert "no short-axis image found" in failing(tmp_path / "empty", out)
    assert "--size is 100, wanted a multiple of 16 (four down-samplings)" in failing(raw, out, "--size", 100)
    assert "--spacing-mm is nan" in failing(raw, out, "--spacing-mm", "nan")
    out.mkdir()
    assert "exists already" in failing(raw, out)
    assert not list(tmp_path.glob(".*partial"))
