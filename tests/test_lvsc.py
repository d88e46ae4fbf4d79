"""The LVSC layout with the irregularities of real copies: what is mended, and what sets a study aside."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from data_prep import phantom, store
from data_prep.readers import dicom
from tests.archives import Onto, edit

ONTO = Onto(3.125, 96)
summary_of, converted, set_aside = ONTO.summary_of, ONTO.converted, ONTO.set_aside


@pytest.fixture
def one(raw: Path, tmp_path: Path) -> Path:
    """A copy of one patient's folder, to damage: RAW/DET9000001, 3 slices and 2 phases."""
    shutil.copytree(raw / "DET9000001", tmp_path / "raw" / "DET9000001")
    return tmp_path / "raw" / "DET9000001"


def mended(raw: Path) -> dict[str, str]:
    """What the one study's files were mended for."""
    return dict(summary_of(raw).used[0].mended)


def mask_of(path: Path) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).reshape(*_shape(path), -1)[..., 0])


def _shape(path: Path) -> tuple[int, ...]:
    return sitk.ReadImage(str(path)).GetSize()[::-1]


def write_mask(path: Path, mask_YX: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(mask_YX.astype(np.uint8)), str(path))


# Order and geometry


def test_base_comes_first_and_the_whole_stack_is_labelled(store_path: Path) -> None:
    for patient in store.open(store_path).patients:
        areas_TZ = patient.array("mask_TZYX").sum(axis=(2, 3))
        assert patient.array("labelled_TZ").all()
        assert (areas_TZ[:, 0] > areas_TZ[:, -1]).all()


def test_areas_before_and_after_agree(one: Path) -> None:
    before_mm2 = sum(float((mask_of(p) > 0).sum()) * 1.7708**2 for p in one.glob("*.png"))
    after_mm2 = float(converted(one.parent, spacing_mm=1.5625, size=192).array("mask_TZYX").sum()) * 1.5625**2
    assert after_mm2 == pytest.approx(before_mm2, rel=0.01)


def test_shuffled_slice_numbers_mean_nothing(one: Path) -> None:
    expected = converted(one.parent).attributes["digest"]
    for path in sorted(one.iterdir()):
        path.rename(path.with_name("x" + path.name))
    numbers = {"1": "2", "2": "3", "3": "1"}
    for path in sorted(one.iterdir()):
        path.rename(path.with_name(re.sub(r"_SA(\d)", lambda m: f"_SA{numbers[m[1]]}", path.name[1:])))
    assert converted(one.parent).attributes["digest"] == expected


@pytest.mark.parametrize("location", [None, "0", "misleading"])
def test_slice_location_is_not_looked_at(one: Path, location: str | None) -> None:
    expected = converted(one.parent).attributes["digest"]

    def change(dataset: pydicom.Dataset, path: Path) -> None:
        if location is None:
            dataset.pop("SliceLocation", None)
        else:
            dataset.SliceLocation = "0" if location == "0" else str(-7 * int(path.name.split("_SA")[1][0]) % 11)

    edit(one, change)
    assert converted(one.parent).attributes["digest"] == expected


def test_an_orientation_the_other_way_round_flips_neither_base_nor_apex(one: Path) -> None:
    """Row direction turned about: the normal points the other way, the heights run backwards."""
    before = converted(one.parent).array("mask_TZYX")

    def turn(dataset: pydicom.Dataset, path: Path) -> None:
        run = np.array([float(v) for v in dataset.ImageOrientationPatient[:3]])
        first = np.array([float(v) for v in dataset.ImagePositionPatient])
        last = first + run * (dataset.Columns - 1) * float(dataset.PixelSpacing[1])
        dataset.ImagePositionPatient = [f"{v:.6f}" for v in last]
        dataset.ImageOrientationPatient = [f"{v:.8f}" for v in [*-run, *dataset.ImageOrientationPatient[3:]]]
        dataset.PixelData = dataset.pixel_array[:, ::-1].tobytes()
        write_mask(path.with_suffix(".png"), mask_of(path.with_suffix(".png"))[:, ::-1])

    edit(one, turn)
    assert (converted(one.parent).array("mask_TZYX") == before[..., ::-1]).all()


def test_without_masks_the_apex_is_left_anterior_inferior(one: Path) -> None:
    with_masks = converted(one.parent).array("image_TZYX")
    for path in one.glob("*.png"):
        path.unlink()
    patient = converted(one.parent)
    assert str(patient.attributes["z_rule"]).startswith("no masks")
    assert (patient.array("image_TZYX") == with_masks).all()  # the phantom's apex does lie there
    assert not patient.array("labelled_TZ").any()
    assert patient.ed_phase is None


def test_levels_of_another_matrix(one: Path) -> None:
    """One level cropped by 8 pixels all round: its centre stays, so the store's arrays do."""
    before = converted(one.parent).array("mask_TZYX")
    edit(one, lambda dataset, path: crop(dataset, path) if "_SA2_" in path.name else None)
    assert (converted(one.parent).array("mask_TZYX") == before).all()


def test_one_phase_of_another_matrix(one: Path) -> None:
    before = converted(one.parent).array("mask_TZYX")
    edit(one, lambda dataset, path: crop(dataset, path) if path.name.endswith("_SA2_ph1.dcm") else None)
    assert (converted(one.parent).array("mask_TZYX") == before).all()


def crop(dataset: pydicom.Dataset, path: Path, pixels: int = 8) -> None:
    step = [float(v) * pixels * float(dataset.PixelSpacing[0]) for v in dataset.ImageOrientationPatient]
    moved = [float(p) + step[n] + step[n + 3] for n, p in enumerate(dataset.ImagePositionPatient)]
    kept = dataset.pixel_array[pixels:-pixels, pixels:-pixels]
    dataset.Rows, dataset.Columns, dataset.PixelData = *kept.shape, kept.tobytes()
    dataset.ImagePositionPatient = [f"{v:.6f}" for v in moved]
    write_mask(path.with_suffix(".png"), mask_of(path.with_suffix(".png"))[pixels:-pixels, pixels:-pixels])


def test_levels_of_another_spacing(one: Path) -> None:
    """One level with pixels half as large and twice as many: the mask is the same, the pair of its level says so."""

    def double(dataset: pydicom.Dataset, path: Path) -> None:
        if "_SA2_" not in path.name:
            return
        step = float(dataset.PixelSpacing[0]) / 4
        back = [
            -step * (float(dataset.ImageOrientationPatient[n]) + float(dataset.ImageOrientationPatient[n + 3]))
            for n in range(3)
        ]
        dataset.ImagePositionPatient = [
            f"{float(p) + b:.6f}" for p, b in zip(dataset.ImagePositionPatient, back, strict=True)
        ]
        dataset.PixelSpacing = [f"{2 * step:.6f}"] * 2
        pixels = np.kron(dataset.pixel_array, np.ones((2, 2), np.int16))
        dataset.Rows, dataset.Columns, dataset.PixelData = *pixels.shape, pixels.tobytes()
        write_mask(path.with_suffix(".png"), np.kron(mask_of(path.with_suffix(".png")), np.ones((2, 2), np.uint8)))

    before = converted(one.parent).array("mask_TZYX")
    edit(one, double)
    patient = converted(one.parent)
    assert (patient.array("mask_TZYX") != before).mean() < 1e-3
    assert sorted(pair[0] for pair in patient.attributes["source_spacing_mm"]) == [0.8854, 1.7708, 1.7708]


def test_rescale_slope_is_applied(one: Path) -> None:
    before = converted(one.parent).array("image_TZYX").astype(float)

    def rescale(dataset: pydicom.Dataset, _: Path) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = "2", "0"

    edit(one, rescale)
    assert converted(one.parent).array("image_TZYX") == pytest.approx(2 * before, abs=1)


def test_bits_above_the_stored_ones_are_no_grey_levels(one: Path) -> None:
    before = converted(one.parent).array("image_TZYX")

    def overlay(dataset: pydicom.Dataset, _: Path) -> None:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        dataset.PixelData = (dataset.pixel_array.astype(np.uint16) | 0x8000).tobytes()

    edit(one, overlay)
    assert (converted(one.parent).array("image_TZYX") == before).all()


def test_a_mask_that_is_cut_off_is_named(one: Path) -> None:
    outcome = summary_of(one.parent, spacing_mm=1.0, size=64).used[0]
    assert "DET9000001_SA1_ph0.png" in outcome.warnings
    assert "reaches beyond the 64 x 64 grid and is cut off there" in outcome.warnings["DET9000001_SA1_ph0.png"]
    assert not summary_of(one.parent).used[0].warnings


def test_grey_levels_beyond_int16_are_named(one: Path) -> None:
    edit(one, lambda dataset, _: setattr(dataset, "RescaleSlope", "1000"))
    assert "grey levels beyond int16 are cut off" in str(summary_of(one.parent).used[0].warnings)


# Files


def test_upper_case_suffix_long_axis_other_files_and_depth(one: Path) -> None:
    expected = converted(one.parent).attributes["digest"]
    for path in sorted(one.glob("*_SA1_*.dcm")):
        path.rename(path.with_suffix(".DCM"))
    shutil.copy(next(one.glob("*SA2_ph0.dcm")), one / "DET9000001_LA1_ph0.dcm")
    shutil.copy(next(one.glob("*SA2_ph0.png")), one / "DET9000001_LA1_ph0.png")
    shutil.copy(next(one.glob("*SA2_ph0.dcm")), one / "._DET9000001_SA9_ph0.dcm")
    (one / "notes.txt").write_text("not an image")
    deeper = one.parent / "CAP_challenge_training_set" / "DicomFiles"
    deeper.mkdir(parents=True)
    one.rename(deeper / one.name)
    assert converted(one.parent).attributes["digest"] == expected


def test_a_root_below_the_expected_one(one: Path) -> None:
    expected = converted(one.parent).attributes["digest"]
    assert converted(one).attributes["digest"] == expected


def test_missing_masks_are_unlabelled_and_empty_masks_are_labelled(one: Path) -> None:
    masks = sorted(one.glob("*.png"))
    masks[0].unlink()
    write_mask(masks[1], np.zeros_like(mask_of(masks[1])))
    patient = converted(one.parent)
    labelled_TZ, area_TZ = patient.array("labelled_TZ"), patient.array("mask_TZYX").sum(axis=(2, 3))
    assert (~labelled_TZ).sum() == 1
    assert (labelled_TZ & (area_TZ == 0)).sum() == 1


def test_a_mask_of_another_size_covers_the_same_field_of_view(one: Path) -> None:
    expected = converted(one.parent).array("mask_TZYX")
    for path in one.glob("*.png"):
        write_mask(path, np.kron(mask_of(path), np.ones((2, 2), np.uint8)))  # one channel instead of three, too
    assert (converted(one.parent).array("mask_TZYX") != expected).mean() < 1e-3
    assert mended(one.parent)["DET9000001_SA1_ph0.png"] == (
        "a mask of 384 x 384 on an image of 192 x 192: covers the same field of view"
    )


def test_a_mask_of_other_proportions_is_of_another_image(one: Path) -> None:
    path = one / "DET9000001_SA2_ph0.png"
    write_mask(path, mask_of(path)[:, :96])
    assert "DET9000001_SA2_ph0.png: a mask of 192 x 96 on an image of 192 x 192: other proportions" in set_aside(
        one.parent
    )


def test_a_mask_in_colours_is_none(one: Path) -> None:
    path = one / "DET9000001_SA2_ph0.png"
    mask = mask_of(path)
    green = np.stack([np.zeros_like(mask), mask, np.zeros_like(mask)], axis=-1)
    sitk.WriteImage(sitk.GetImageFromArray(green, isVector=True), str(path))
    assert "DET9000001_SA2_ph0.png: is a picture in colours, wanted a mask in black and white" in set_aside(one.parent)


def test_a_level_upside_down_is_not_stacked_on_the_others(one: Path) -> None:
    def turn(dataset: pydicom.Dataset, path: Path) -> None:
        if "_SA2_" in path.name:
            dataset.ImageOrientationPatient = [-float(v) for v in dataset.ImageOrientationPatient]

    edit(one, turn)
    assert "DET9000001_SA2_ph0.dcm: is turned in its plane against the other slices" in set_aside(one.parent)


def test_missing_slices_in_the_middle_are_said(tmp_path: Path) -> None:
    phantom.make(tmp_path / "raw", 1, slices=6, phases=2, seed=0)
    for path in (tmp_path / "raw").rglob("*_SA3_*"):
        path.unlink()
    warnings = summary_of(tmp_path / "raw").used[0].warnings
    assert any(
        "lies 20.0 mm from the one before, the others less: slices are missing" in said for said in warnings.values()
    )


def test_inverted_grey_levels_are_read_as_simpleitk_reads_them(one: Path) -> None:
    edit(one, lambda dataset, _: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1"))
    path = one / "DET9000001_SA2_ph0.dcm"
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
    assert (dicom.frame(path, "x")[0].image_YX == theirs).all()


def test_black_and_white_in_a_palette_is_read_by_its_colours(one: Path) -> None:
    from PIL import Image

    expected = converted(one.parent).array("mask_TZYX")
    for path in one.glob("*.png"):
        inverted = Image.fromarray(np.where(mask_of(path) > 0, 0, 1).astype(np.uint8), "P")
        inverted.putpalette([255, 255, 255, 0, 0, 0])
        inverted.save(path)
    assert (converted(one.parent).array("mask_TZYX") == expected).all()


def test_open_and_split_rings_count_as_their_hulls(one: Path) -> None:
    before = converted(one.parent).attributes
    for path in one.glob("*_SA2_*.png"):
        mask = mask_of(path)
        rows = np.flatnonzero(mask.any(axis=1))
        mask[(rows[0] + rows[-1]) // 2] = 0
        write_mask(path, mask)
    after = converted(one.parent).attributes
    assert (after["ed_phase"], after["es_phase"]) == (before["ed_phase"], before["es_phase"])
    assert mended(one.parent)["DET9000001_SA2_ph0.png"].startswith("an open ring: its convex hull counts")


def test_fragments_beyond_the_base_do_not_make_it_the_apex(tmp_path: Path) -> None:
    """As on a real pig: what is drawn on the atria is open and small, and the apex has small closed rings."""
    phantom.make(tmp_path / "raw", 1, slices=6, phases=2, seed=0)
    before = converted(tmp_path / "raw").array("image_TZYX")
    spots = {}
    for path in sorted((tmp_path / "raw").rglob("*.png")):
        spots.setdefault(path.name.split("_ph")[0], []).append(path)
    basal = sorted(spots, key=lambda name: mask_of(spots[name][0]).sum())[-2:]
    for path in [path for name in basal for path in spots[name]]:
        fragment = mask_of(path)
        rows = np.flatnonzero(fragment.any(axis=1))
        fragment[rows[0] + 6 :] = 0
        write_mask(path, fragment)
    patient = converted(tmp_path / "raw")
    assert (patient.array("image_TZYX") == before).all()
    assert patient.attributes["z_rule"] == "masks: the apex is the end with the smaller filled area"


def test_an_orientation_that_contradicts_the_masks_is_said(one: Path) -> None:
    edit(one, lambda dataset, _: setattr(dataset, "ImagePositionPatient", [-v for v in dataset.ImagePositionPatient]))
    assert converted(one.parent).attributes["z_rule"].endswith("; the orientation says the other end")


def test_a_mask_whose_image_is_not_there_is_left_out_and_said(one: Path) -> None:
    shutil.copy(one / "DET9000001_SA1_ph0.png", one / "DET9000001_SA1_ph7.png")
    assert mended(one.parent)["DET9000001_SA1_ph7.png"] == "left out: a mask whose image is not there"


# Stacks that are not whole


def test_a_phase_that_lacks_a_slice_is_left_out(one: Path) -> None:
    (one / "DET9000001_SA2_ph1.dcm").unlink()
    assert mended(one.parent)["DET9000001_SA1_ph1.dcm"] == "left out: other slices have no image at its phase"
    patient = converted(one.parent)
    assert patient.array("image_TZYX").shape[:2] == (1, 3)
    assert patient.attributes["source_phases"] == [0]


def test_an_end_slice_with_fewer_phases_is_left_out_instead_of_the_phases(tmp_path: Path) -> None:
    phantom.make(tmp_path / "raw", 1, slices=4, phases=5, seed=0)
    for phase in range(1, 5):
        (tmp_path / "raw" / "DET9000001" / f"DET9000001_SA1_ph{phase}.dcm").unlink()
    patient = converted(tmp_path / "raw")
    assert patient.array("image_TZYX").shape[:2] == (5, 3)
    said = mended(tmp_path / "raw")
    assert said["DET9000001_SA1_ph0.dcm"].startswith("left out: the slice at the end of the stack lacks phases")


def test_a_study_that_would_lose_half_is_set_aside(tmp_path: Path) -> None:
    phantom.make(tmp_path / "raw", 1, slices=4, phases=5, seed=0)
    for level, phase in ((2, 0), (2, 1), (3, 2), (3, 3)):
        (tmp_path / "raw" / "DET9000001" / f"DET9000001_SA{level}_ph{phase}.dcm").unlink()
    assert re.match(r"DET9000001_SA[23]_ph\d.dcm: its slice has 3 phases, others have 5", set_aside(tmp_path / "raw"))


def test_a_slice_position_that_is_there_twice_is_taken_once(one: Path) -> None:
    expected = converted(one.parent).attributes["digest"]
    for path in sorted(one.glob("*_SA2_*.dcm")):
        shutil.copy(path, path.with_name(path.name.replace("_SA2_", "_SA9_")))  # again, and nobody drew on it
    assert converted(one.parent).attributes["digest"] == expected
    said = mended(one.parent)
    assert said == dict.fromkeys(
        ["DET9000001_SA9_ph0.dcm", "DET9000001_SA9_ph1.dcm"],
        "left out: the same slice position as DET9000001_SA2_ph0.dcm",
    )


def test_copies_of_a_case_are_passed_over_and_different_files_under_one_name_are_a_fault(
    raw: Path, tmp_path: Path
) -> None:
    """Two people's slices under one name must never become one study."""
    for folder in ("a", "b"):
        shutil.copytree(raw / "DET9000001", tmp_path / "raw" / folder)
    summary = summary_of(tmp_path / "raw")
    assert summary.used[0].ignored["DET9000001_SA1_ph0.dcm (2)"] == "a copy of DET9000001_SA1_ph0.dcm"
    assert len(summary.used[0].ignored) == 12
    shutil.copy(raw / "DET9000002" / "DET9000002_SA1_ph0.dcm", tmp_path / "raw" / "b" / "DET9000001_SA1_ph0.dcm")
    assert "is there twice, and the two differ: one case must lie in one folder" in set_aside(tmp_path / "raw")
    for path in [*(tmp_path / "raw" / "a").glob("*_SA1_*"), *(tmp_path / "raw" / "b").glob("*_SA[23]_*")]:
        path.unlink()
    assert "its files lie in 2 folders" in set_aside(tmp_path / "raw")


def test_masks_in_a_folder_of_their_own(one: Path) -> None:
    expected = converted(one.parent).attributes["digest"]
    (one / "masks").mkdir()
    for path in one.glob("*.png"):
        path.rename(one / "masks" / path.name)
    assert converted(one.parent).attributes["digest"] == expected


def test_a_slice_that_moves_between_phases_is_no_study(one: Path) -> None:
    def move(dataset: pydicom.Dataset, path: Path) -> None:
        if path.name.endswith("SA2_ph1.dcm"):
            dataset.ImagePositionPatient = [0, 0, 0]

    edit(one, move)
    assert set_aside(one.parent).startswith("DET9000001_SA2_ph1.dcm: its position or orientation differs from")


def test_a_slice_that_is_not_parallel_to_the_others_is_no_study(one: Path) -> None:
    def turn(dataset: pydicom.Dataset, path: Path) -> None:
        if "_SA2_" in path.name:
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]

    edit(one, turn)
    assert set_aside(one.parent).startswith("DET9000001_SA2_ph0.dcm: is not parallel to the other slices")


# ED and ES


def test_ed_is_the_phase_the_phantom_made_it(store_path: Path) -> None:
    for number, patient in enumerate(store.open(store_path).patients, start=1):
        heart = phantom.draw_heart(np.random.default_rng([1, number]), 2)
        assert patient.ed_phase == heart.ed_phase


def test_the_archives_table_of_phases_wins(one: Path) -> None:
    by_volume = converted(one.parent).attributes
    (one.parent / "EDES_Phases_TrainingDataSets.csv").write_text(
        f"Case,ED phase,ES phase\nDET9000001,{by_volume['es_phase']},{by_volume['ed_phase']}\n"
    )
    patient = converted(one.parent)
    assert (patient.ed_phase, patient.es_phase) == (by_volume["es_phase"], by_volume["ed_phase"])
    assert patient.attributes["phase_rule"] == "the archive's table of ED and ES"
    (one.parent / "EDES_Phases_TrainingDataSets.csv").write_text("Case,ED,ES\nDET9000001,0,77\n")
    assert "the archive's table of ED and ES has (0, 77): not used" in mended(one.parent).values()
    assert converted(one.parent).attributes["phase_rule"] == by_volume["phase_rule"]


# Files that cannot be read


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:900]), "DET9000001_SA2_ph1.dcm: "),
        (lambda p: p.write_bytes(p.read_bytes()[:-1000]), "bytes of pixels, wanted 73728: cut short"),
        (lambda p: p.write_text("hello"), "DET9000001_SA2_ph1.dcm: not readable as DICOM (InvalidDicomError)"),
        (lambda p: p.write_bytes(b""), "DET9000001_SA2_ph1.dcm: not readable as DICOM"),
        (lambda p: p.with_suffix(".png").write_text("no png"), "DET9000001_SA2_ph1.png: not readable as a PNG mask"),
        (
            lambda p: p.with_suffix(".png").write_bytes(p.with_suffix(".png").read_bytes()[:200]),
            "DET9000001_SA2_ph1.png: not readable as a PNG mask",
        ),
        (lambda p: (p.unlink(), p.symlink_to(p)), "DET9000001_SA2_ph1.dcm: Too many levels of symbolic links"),
        (lambda p: (p.unlink(), p.symlink_to("nowhere")), "DET9000001_SA2_ph1.dcm: No such file or directory"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "DET9000001_SA2_ph1.dcm: not a regular file"),
        (lambda p: (p.unlink(), p.symlink_to("/dev/zero")), "DET9000001_SA2_ph1.dcm: not a regular file"),
        (lambda p: (p.unlink(), p.symlink_to("/proc/self/mem")), "DET9000001_SA2_ph1.dcm: Input/output error"),
        (lambda p: (p.unlink(), p.mkdir(), (p / "x").touch()), "its slice has 1 phases"),
    ],
)
def test_a_file_that_cannot_be_read_sets_its_study_aside(
    one: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(one / "DET9000001_SA2_ph1.dcm")
    if "phases" in reason:
        assert summary_of(one.parent).used[0].mended  # a folder of that name is no image: the phase is left out
    else:
        assert reason in set_aside(one.parent)


def test_a_compressed_file_that_simpleitk_reads_is_read(one: Path) -> None:
    before = converted(one.parent).attributes["digest"]
    edit(one, lambda dataset, _: dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False))
    assert converted(one.parent).attributes["digest"] == before


def test_a_compressed_file_that_nobody_can_decode_says_so(one: Path) -> None:
    def compress(dataset: pydicom.Dataset, _: Path) -> None:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])

    edit(one, compress)
    assert "cannot be decoded; decompress the files, with gdcmconv --raw" in set_aside(one.parent)


@pytest.mark.parametrize("syntax", [pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRBigEndian])
def test_other_uncompressed_syntaxes(one: Path, syntax: pydicom.uid.UID) -> None:
    before = converted(one.parent).attributes["digest"]
    for path in one.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = pixels.astype(">i2" if syntax == pydicom.uid.ExplicitVRBigEndian else "<i2").tobytes()
        little = syntax != pydicom.uid.ExplicitVRBigEndian
        pydicom.dcmwrite(
            path,
            dataset,
            implicit_vr=syntax == pydicom.uid.ImplicitVRLittleEndian,
            little_endian=little,
            force_encoding=True,
        )
    assert converted(one.parent).attributes["digest"] == before


@pytest.mark.parametrize("tag", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_missing_geometry_is_no_study(one: Path, tag: str) -> None:
    edit(one, lambda dataset, _: delattr(dataset, tag))
    assert f"has no {tag}: not an image with geometry" in set_aside(one.parent)


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        ("PixelSpacing", ["nan", "nan"], "PixelSpacing is [nan, nan], wanted two numbers from 0.05 to 20 mm"),
        ("PixelSpacing", ["0", "1"], "PixelSpacing is [0.0, 1.0]"),
        ("ImagePositionPatient", ["inf", "0", "0"], "not finite"),
        ("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"], "no two perpendicular unit directions"),
        ("NumberOfFrames", "2", "several frames"),
        ("Rows", 5000, "has a matrix of 5000 x 192"),
        ("RescaleSlope", "0", "not a scale"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's own, of the values that are wrong
def test_geometry_that_makes_no_sense_is_no_study(one: Path, tag: str, value: object, reason: str) -> None:
    edit(one, lambda dataset, _: setattr(dataset, tag, value))
    assert reason in set_aside(one.parent)
