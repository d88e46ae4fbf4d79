"""ACDC: 4-D images, ground truth at ED and ES, labels in our order, lengths checked."""

import gzip
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from data_prep import store
from tests.archives import INNER_MM, LEFT, MYOCARDIUM, OUTER_MM, RIGHT, RIGHT_MM, Onto, acdc, heart_TZYX, write_nifti

SPACING_MM, N = 2.0, 64
ONTO = Onto(SPACING_MM, N)
summary_of, converted, set_aside = ONTO.summary_of, ONTO.converted, ONTO.set_aside


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return acdc(tmp_path / "raw", patients=1)


def part(archive: Path, name: str) -> Path:
    return archive / "training" / "patient001" / f"patient001_{name}.nii.gz"


def test_the_labels_are_ours_on_ed_and_es_alone(archive: Path) -> None:
    patient = converted(archive)
    opened = store.open(archive.parent / "s.zarr")
    assert (opened.source, opened.classes) == (
        "acdc",
        ("background", "myocardium", "left ventricle", "right ventricle"),
    )
    assert patient.array("labelled_TZ").tolist() == [[True] * 4, [False] * 4, [True] * 4, [False] * 4, [False] * 4]
    mask_TZYX = patient.array("mask_TZYX")
    base_mm2 = [float((mask_TZYX[0, 0] == label).sum()) * SPACING_MM**2 for label in (MYOCARDIUM, LEFT, RIGHT)]
    assert base_mm2 == pytest.approx(
        [math.pi * (OUTER_MM**2 - INNER_MM**2), math.pi * INNER_MM**2, math.pi * RIGHT_MM**2], rel=0.05
    )
    assert (mask_TZYX[[0, 2]] == heart_TZYX(5, 4, N, SPACING_MM)[[0, 2]]).all()


def test_ed_es_and_group_come_from_info_cfg(archive: Path) -> None:
    patient = converted(archive)
    assert (patient.key, patient.stratum, patient.ed_phase, patient.es_phase) == ("patient001", "DCM", 0, 2)
    assert patient.attributes["phase_rule"] == "Info.cfg"
    assert patient.attributes["source_phases"] == [1, 2, 3, 4, 5]
    assert patient.attributes["slice_spacing_mm"] == 10.0


@pytest.mark.parametrize("info", [None, "ED: one\nES: 3\n", "ED: 1\nES: 40\n", ""])
def test_without_a_usable_info_cfg_the_volumes_tell(archive: Path, info: str | None) -> None:
    path = archive / "training" / "patient001" / "Info.cfg"
    path.unlink()
    if info is not None:
        path.write_text(info)
    patient = converted(archive)
    assert (patient.ed_phase, patient.es_phase, patient.stratum) == (0, 2, "")
    assert patient.attributes["phase_rule"] == "ED is the phase of the largest, ES of the smallest cavity volume"


def test_the_apex_is_the_small_end_whichever_way_the_file_runs(archive: Path) -> None:
    before = converted(archive).array("mask_TZYX")
    for path in archive.rglob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        turned = sitk.GetImageFromArray(
            np.ascontiguousarray(np.flip(sitk.GetArrayFromImage(image), -3)), isVector=False
        )
        turned.SetSpacing(image.GetSpacing())
        sitk.WriteImage(turned, str(path))
    after = converted(archive)
    assert (after.array("mask_TZYX") == before).all()
    assert str(after.attributes["z_rule"]).startswith("masks")


def test_frames_stand_for_a_missing_4d_image(archive: Path) -> None:
    whole = converted(archive).array("image_TZYX")
    part(archive, "4d").unlink()
    summary = summary_of(archive)
    patient = store.open(archive.parent / "s.zarr").patients[0]
    assert (patient.array("image_TZYX") == whole[[0, 2]]).all()
    assert (patient.ed_phase, patient.es_phase) == (0, 1)
    assert summary.used[0].mended["patient001_frame01.nii.gz"] == "no 4-D image: the frames stand for it"


def test_frames_beside_a_4d_image_are_ignored(archive: Path) -> None:
    assert summary_of(archive).used[0].ignored == {
        f"patient001_frame{n:02d}.nii.gz": "its image is a phase of the 4-D one" for n in (1, 3)
    }


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(0.7 * len(content))])


def cut_inside(path: Path) -> None:
    """Cut short before it was compressed: the gzip itself is whole."""
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[: int(0.7 * len(content))]))


def set_nan_spacing(path: Path) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[80:84] = np.float32(np.nan).tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


def set_dims(n: int, value: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[40 + 2 * n : 42 + 2 * n] = np.int16(value).tobytes()
        path.write_bytes(gzip.compress(bytes(content)))

    return change


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("4d", cut, "its compressed bytes are damaged or cut short"),
        ("4d", cut_inside, "cut short"),
        ("4d", lambda p: p.write_text("hello"), "not a NIfTI file"),
        ("4d", lambda p: p.write_bytes(b""), "not a NIfTI file"),
        ("4d", set_dims(3, 0), "no slices"),
        ("4d", set_dims(4, 0), "no slices"),
        ("4d", set_dims(1, 30000), "cut short"),
        ("4d", lambda p: (p.unlink(), p.symlink_to(p)), "Too many levels of symbolic links"),
        ("frame01_gt", cut, "patient001_frame01_gt.nii.gz: its compressed bytes"),
        (
            "frame01_gt",
            lambda p: write_nifti(p, np.zeros((4, 32, 64), np.uint8), (10.0, 2.0, 2.0)),
            "is a mask of 4 x 32 x 64, its image has 4 x 64 x 64",
        ),
        (
            "frame01_gt",
            lambda p: write_nifti(p, np.full((4, 64, 64), 7, np.uint8), (10.0, 2.0, 2.0)),
            "holds the labels [7], wanted 0 to 3",
        ),
        ("frame01_gt", lambda p: p.rename(p.with_name("patient001_frame44_gt.nii.gz")), "is of frame 44"),
    ],
)
def test_what_cannot_be_used_sets_the_study_aside(
    archive: Path, name: str, damage: Callable[[Path], object], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(part(archive, name))
    assert reason in set_aside(archive)
    assert capfd.readouterr() == ("", "")


def test_nan_spacing_is_no_geometry(archive: Path) -> None:
    set_nan_spacing(part(archive, "4d"))
    assert set_aside(archive).startswith("patient001_4d.nii.gz: has spacings [nan, ")


def test_voxels_that_are_no_numbers_are_background_as_simpleitk_reads_them(archive: Path) -> None:
    path = part(archive, "4d")
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32)
    voxels[1, 2, 32, 32] = np.nan
    write_nifti(path, voxels, (10.0, 2.0, 2.0))
    image_TZYX = converted(archive).array("image_TZYX")
    assert image_TZYX[1, 2, 32, 32] == 0
    assert image_TZYX[1, 2, 32, 31] != 0


def test_copies_are_passed_over_and_different_files_of_one_patient_are_a_fault(archive: Path) -> None:
    expected = converted(archive).attributes["digest"]
    again = archive / "training" / "again" / "patient001"
    shutil.copytree(archive / "training" / "patient001", again)
    assert converted(archive).attributes["digest"] == expected
    write_nifti(again / "patient001_frame01.nii.gz", np.zeros((4, 64, 64), np.int16), (10.0, 2.0, 2.0))
    assert "is there twice, and the two differ: one case must lie in one folder" in set_aside(archive)


def test_two_files_for_one_image_are_not_chosen_between(archive: Path) -> None:
    write_nifti(part(archive, "4d").with_suffix(""), np.zeros((5, 4, 64, 64), np.int16), (10.0, 2.0, 2.0))
    assert "leave one" in set_aside(archive)


def test_ground_truth_with_axes_that_run_the_other_way(archive: Path) -> None:
    path = part(archive, "frame01_gt")
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(path)), [True, False, False]), str(path))
    assert "its axes run another way than its image's" in set_aside(archive)


def test_one_info_cfg_of_many_patients_is_nobodys(archive: Path) -> None:
    acdc(archive.parent / "more", patients=2)
    flat = archive.parent / "flat"
    flat.mkdir()
    for path in (archive.parent / "more").rglob("*.*"):
        shutil.copy(path, flat / path.name)
    assert summary_of(flat).complete
    assert {p.stratum for p in store.open(archive.parent / "s.zarr").patients} == {""}


def test_a_group_that_is_none_of_the_archives_is_not_stored(archive: Path) -> None:
    (archive / "training" / "patient001" / "Info.cfg").write_text("ED: 1\nES: 3\nGroup: Maier, Anna 1956\n")
    assert converted(archive).stratum == ""


def test_an_orientation_that_is_no_number(archive: Path) -> None:
    for path in archive.rglob("*.nii.gz"):
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[252:256] = np.array([1, 0], np.int16).tobytes()  # by quaternion
        content[256:260] = np.float32(np.nan).tobytes()
        path.write_bytes(gzip.compress(bytes(content)))
    assert "its orientation is given by what is no number" in set_aside(archive)


def test_uncompressed_files_are_read_too(archive: Path) -> None:
    expected = converted(archive).attributes["digest"]
    for path in archive.rglob("*.nii.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert converted(archive).attributes["digest"] == expected
    path = archive / "training" / "patient001" / "patient001_4d.nii"
    path.write_bytes(path.read_bytes()[:-5000])
    assert "its header says" in set_aside(archive)
