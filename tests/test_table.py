"""A user's own images by a table, and nnU-Net's raw folders."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from data_prep import convert, store
from data_prep.readers.found import Options
from data_prep.report import Summary
from tests.archives import LEFT, MYOCARDIUM, RIGHT, heart_TZYX, image_of, nnunet, write_nifti

GRID_MM = (10.0, 2.0, 2.0)
HEART_TZYX = heart_TZYX(3, 4, 64, 2.0)
RING_TZYX = (HEART_TZYX == MYOCARDIUM).astype(np.uint8)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """anna: a 4-D image, masks of phases 0 and 2; bert: two 3-D phases; carl: a 4-D image and a 4-D mask."""
    root = tmp_path / "raw"
    write_nifti(root / "anna_cine.nii.gz", image_of(HEART_TZYX), GRID_MM)
    for phase in (0, 2):
        write_nifti(root / f"anna_mask{phase}.nii.gz", RING_TZYX[phase], GRID_MM)
    for phase, name in ((0, "ed"), (2, "es")):
        write_nifti(root / f"bert_{name}.nii.gz", image_of(HEART_TZYX[phase]), GRID_MM)
        write_nifti(root / f"bert_{name}_mask.nii.gz", 255 * RING_TZYX[phase], GRID_MM)
    write_nifti(root / "carl.nii", image_of(HEART_TZYX), GRID_MM)
    write_nifti(root / "carl_mask.nii", RING_TZYX, GRID_MM)
    write_table(
        root,
        "anna,anna_cine.nii.gz,anna_mask0.nii.gz,0,healthy",
        "anna,anna_cine.nii.gz,anna_mask2.nii.gz,2,healthy",
        "bert,bert_ed.nii.gz,bert_ed_mask.nii.gz,ED,ill",
        "bert,bert_es.nii.gz,bert_es_mask.nii.gz,ES,ill",
        "carl,carl.nii,carl_mask.nii,,",
    )
    return root


def write_table(root: Path, *rows: str, head: str = "subject,image,mask,phase,stratum") -> Path:
    (root / "table.csv").write_text("\n".join([head, *rows, ""]))
    return root / "table.csv"


def summary_of(raw: Path, store_path: Path | None = None, **labels: int) -> Summary:
    path = store_path or raw.parent / "s.zarr"
    shutil.rmtree(path, ignore_errors=True)
    named = {name.replace("_", " "): value for name, value in labels.items()}
    return convert.convert(raw, path, 2.0, 64, options=Options(named))


def patients_of(raw: Path, **labels: int) -> list[store.Patient]:
    assert summary_of(raw, **labels).complete
    return list(store.open(raw.parent / "s.zarr").patients)


def set_aside(raw: Path, **labels: int) -> str:
    (outcome,) = summary_of(raw, **labels).set_aside
    return f"{outcome.file}: {outcome.reason}"


def test_cines_stills_and_masks_of_all_phases(own: Path) -> None:
    anna, bert, carl = patients_of(own)
    assert [p.key for p in (anna, bert, carl)] == ["P001", "P002", "P003"]
    assert [p.stratum for p in (anna, bert, carl)] == ["healthy", "ill", ""]
    for patient, phases in ((anna, [0, 2]), (bert, [0, 1]), (carl, [0, 1, 2])):
        labelled_TZ = patient.array("labelled_TZ")
        assert np.flatnonzero(labelled_TZ.any(axis=1)).tolist() == phases
        shown = {0: 0, 1: 2} if patient is bert else {t: t for t in phases}
        for t in phases:
            assert (patient.array("mask_TZYX")[t] == RING_TZYX[shown[t]]).all()
    assert (bert.ed_phase, bert.es_phase, bert.attributes["phase_rule"]) == (0, 1, "the table's phases")
    assert (anna.ed_phase, anna.es_phase) == (0, 2)


def test_the_table_may_be_raw_itself_and_lie_among_other_files(own: Path, tmp_path: Path) -> None:
    by_folder = [p.attributes["digest"] for p in patients_of(own)]
    (own / "DET0000001_SA1_ph0.dcm").write_text("of no interest")
    summary = summary_of(own / "table.csv", tmp_path / "t.zarr")
    assert summary.complete
    assert [p.attributes["digest"] for p in store.open(tmp_path / "t.zarr").patients] == by_folder


def test_names_of_subjects_and_files_stay_outside(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (own / "bert_ed_mask.nii.gz").write_text("no mask")
    assert convert.main([str(own), str(own.parent / "s.zarr"), "--spacing-mm", "2", "--size", "64"]) == 3
    printed = "".join(capfd.readouterr())
    stored = b"".join(p.read_bytes() for p in (own.parent / "s.zarr").rglob("*") if p.is_file())
    for secret in ("anna", "bert", "carl"):
        assert secret not in printed
        assert secret.encode() not in stored
    assert "set aside: P002: line 4 mask.nii.gz: not a NIfTI file" in printed


def test_two_visits_are_two_studies_of_one_subject(own: Path) -> None:
    write_table(own, "anna,anna_cine.nii.gz,anna_mask0.nii.gz,0,", "anna,carl.nii,carl_mask.nii,,")
    first, second = patients_of(own)
    assert [first.key, second.key] == ["P001", "P001-2"]
    assert {first.subject, second.subject} == {"P001"}


def test_a_code_of_a_known_archive_is_kept(own: Path) -> None:
    write_table(own, "patient007,carl.nii,carl_mask.nii,,")
    assert [p.key for p in patients_of(own)] == ["patient007"]


def test_labels_say_which_value_is_which_class(own: Path) -> None:
    theirs = np.array([0, 5, 6, 9], np.uint8)[HEART_TZYX]
    write_nifti(own / "carl_mask.nii", theirs, GRID_MM)
    write_table(own, "carl,carl.nii,carl_mask.nii,,")
    assert "holds the values 5, 6, 9: say which is" in set_aside(own)
    (patient,) = patients_of(own, myocardium=5)
    assert (patient.array("mask_TZYX") == (HEART_TZYX == MYOCARDIUM)).all()
    (patient,) = patients_of(own, myocardium=5, left_ventricle=6, right_ventricle=9)
    assert (patient.array("mask_TZYX") == HEART_TZYX).all()
    assert len(store.open(own.parent / "s.zarr").classes) == 4
    with pytest.raises(ValueError, match="--label names no myocardium"):
        summary_of(own, left_ventricle=6)


def test_a_mask_on_another_grid_is_brought_onto_its_images_by_place(own: Path) -> None:
    """The same heart on 128 x 128 pixels of 1 mm: the first pixel's centre lies half a millimetre further out."""
    fine = np.kron(RING_TZYX, np.ones((1, 1, 2, 2), np.uint8))
    write_nifti(own / "carl_mask.nii", fine, (10.0, 1.0, 1.0), origin_mm=(-100.5, -110.5, 40.0))
    write_table(own, "carl,carl.nii,carl_mask.nii,,")
    summary = summary_of(own)
    assert (store.open(own.parent / "s.zarr").patients[0].array("mask_TZYX") == RING_TZYX).all()
    assert summary.used[0].mended["line 2 mask.nii"] == (
        "a mask of 4 x 128 x 128 on an image of 4 x 64 x 64: brought onto it by place"
    )


def test_a_mask_that_lies_elsewhere_is_of_another_image(own: Path) -> None:
    write_table(own, "carl,carl.nii,carl_mask.nii,,")
    write_nifti(own / "carl_mask.nii", RING_TZYX, GRID_MM, origin_mm=(-90.0, -110.0, 40.0))
    assert "has its image's size, and its header gives another place: make the headers agree" in set_aside(own)
    write_nifti(own / "carl_mask.nii", RING_TZYX[:, :, :60], GRID_MM, origin_mm=(500.0, -110.0, 40.0))
    assert "does not lie where its image lies (0% of it does)" in set_aside(own)


@pytest.fixture
def dicom_series(raw: Path, tmp_path: Path) -> Path:
    """A phantom case under names that say nothing, and its masks as one 4-D NIfTI in ITK's axes."""
    root = tmp_path / "raw"
    (root / "series").mkdir(parents=True)
    case = raw / "DET9000001"
    slices: dict[int, list[Path]] = {}
    for path in sorted(case.glob("*.dcm")):
        slices.setdefault(int(path.stem.split("_SA")[1][0]), []).append(path)
    heights = {}
    for level, paths in slices.items():
        dataset = pydicom.dcmread(paths[0])
        run, fall = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        heights[level] = float(np.cross(run, fall) @ np.array(dataset.ImagePositionPatient, float))
    order = sorted(heights, key=lambda level: heights[level])
    from tests.test_lvsc import mask_of

    mask_TZYX = np.stack([[mask_of(slices[z][t].with_suffix(".png")) > 0 for z in order] for t in range(2)])
    first = pydicom.dcmread(slices[order[0]][0])
    run, fall = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    write_nifti(
        root / "mask.nii.gz",
        mask_TZYX.astype(np.uint8),
        (10.0, 1.7708, 1.7708),
        [float(v) for v in first.ImagePositionPatient],
        np.stack([run, fall, np.cross(run, fall)], axis=1),
    )
    for n, path in enumerate(sorted(case.glob("*.dcm"))):
        shutil.copy(path, root / "series" / f"I{n:04d}.dcm")
    write_table(root, "dora,series,mask.nii.gz,,")
    return root


def test_a_dicom_series_with_a_nifti_mask_is_what_the_lvsc_reader_makes_of_it(
    dicom_series: Path, raw: Path, tmp_path: Path
) -> None:
    (patient,) = patients_of(dicom_series)
    convert.convert(raw, tmp_path / "l.zarr", 2.0, 64)
    theirs = store.open(tmp_path / "l.zarr").patients[0]
    for name in store.ARRAYS:
        assert (patient.array(name) == theirs.array(name)).all()
    assert store.open(tmp_path / "s.zarr").source == "phantom"


def test_a_mask_of_fewer_slices_leaves_the_others_unlabelled(dicom_series: Path) -> None:
    import SimpleITK as sitk

    path = dicom_series / "mask.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path))[:, :, 1:, :], str(path))
    (patient,) = patients_of(dicom_series)
    assert patient.array("labelled_TZ").sum(axis=1).tolist() == [2, 2]


def test_a_folder_of_two_series_is_not_guessed_about(dicom_series: Path) -> None:
    path = dicom_series / "series" / "I0000.dcm"
    dataset = pydicom.dcmread(path)
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.save_as(path)
    assert "its folder holds 2 series; wanted one" in set_aside(dicom_series)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["x,carl.nii,anna_mask0.nii.gz,,"], "is a 3-D mask of a 4-D image: phase must say which one"),
        (["x,carl.nii,anna_mask0.nii.gz,7,"], "phase is '7', wanted a number from 0 to 2"),
        (["x,carl.nii,carl_mask.nii,1,"], "line 2 mask.nii: has 3 phases, its image has 3"),
        (["x,carl.nii,anna_mask0.nii.gz,1,", "x,carl.nii,anna_mask2.nii.gz,1,"], "that another row labels, too"),
        (["x,bert_ed.nii.gz,,ED,", "x,bert_es.nii.gz,,ED,"], "has phase ED like another row of its subject"),
        (["x,bert_ed.nii.gz,,0,", "x,bert_es.nii.gz,,ES,"], "phase must be a number in every row of its subject"),
        (["x,bert_ed.nii.gz,,0,", "x,carl.nii,,1,"], "with a phase of its own it must be 3-D"),
        (["x,nowhere.nii,,,"], "line 2 image.nii: No such file or directory"),
        (["x,carl.nii,nowhere.nii,,"], "line 2 mask.nii: No such file or directory"),
        (["x,table.csv,,,"], "line 2 image: not a NIfTI file"),
    ],
)
def test_rows_that_cannot_be_used(own: Path, rows: list[str], reason: str) -> None:
    write_table(own, *rows)
    assert reason in set_aside(own)


@pytest.mark.parametrize(
    ("head", "rows", "reason"),
    [
        ("subject,image,maks", ["a,b,c"], "column 'maks', wanted subject,image,mask,phase,stratum"),
        ("subject,image", [], "has no rows"),
        ("subject,image", [",carl.nii"], "line 2 has no subject or no image"),
    ],
)
def test_a_table_that_is_none_is_refused_before_anything(own: Path, head: str, rows: list[str], reason: str) -> None:
    write_table(own, *rows, head=head)
    with pytest.raises(ValueError, match=reason):
        summary_of(own)


def test_slices_along_another_axis_are_refused(own: Path) -> None:
    write_table(own, "carl,carl.nii,,,")
    for axes, spacing_mm in (
        ((2, 1, 0), (2.0, 2.0, 10.0)),
        ((1, 0, 2), (2.0, 10.0, 2.0)),
        ((1, 2, 0), (1.9, 2.0, 10.0)),
    ):
        write_nifti(own / "carl.nii", image_of(HEART_TZYX[0]).transpose(axes), spacing_mm)
        assert "the slices must run along the third axis" in set_aside(own)
    write_nifti(own / "carl.nii", image_of(HEART_TZYX[0]), (2.0, 2.0, 2.0))
    assert len(patients_of(own)) == 1


def test_a_mask_among_the_files_of_a_series_is_no_image(dicom_series: Path) -> None:
    expected = patients_of(dicom_series)[0].attributes["digest"]
    (dicom_series / "mask.nii.gz").rename(dicom_series / "series" / "A_mask.nii.gz")
    (dicom_series / "series" / "README.txt").write_text("not an image")
    write_table(dicom_series, "dora,series,series/A_mask.nii.gz,,")
    summary = summary_of(dicom_series)
    assert store.open(dicom_series.parent / "s.zarr").patients[0].attributes["digest"] == expected
    assert [*summary.used[0].ignored.values()] == ["no DICOM file, in the folder of a series"]


def test_grey_levels_from_0_to_1_are_stored_larger(own: Path) -> None:
    write_nifti(own / "carl.nii", (image_of(HEART_TZYX) / 255).astype(np.float32), GRID_MM)
    write_table(own, "carl,carl.nii,carl_mask.nii,,")
    summary = summary_of(own)
    image_TZYX = store.open(own.parent / "s.zarr").patients[0].array("image_TZYX")
    assert image_TZYX == pytest.approx(image_of(HEART_TZYX) / 255 * 10000, abs=1)
    assert summary.used[0].mended["line 2 image.nii"].endswith("stored 10000 times as large")


def test_labels_that_contradict_each_other_or_name_nothing(own: Path) -> None:
    write_table(own, "carl,carl.nii,carl_mask.nii,,")
    with pytest.raises(ValueError, match="two classes have one value"):
        summary_of(own, myocardium=1, left_ventricle=1)
    assert "holds the values 0, 1, and none that --label or dataset.json names" in set_aside(own, myocardium=7)
    twice = ["--label", "myocardium=1", "--label", "myocardium=2"]
    assert convert.main([str(own), str(own.parent / "x.zarr"), *twice]) == 2


def test_a_mask_whose_axes_run_the_other_way_is_brought_onto_its_image_by_place(own: Path) -> None:
    turned = np.diag([-1.0, 1.0, 1.0])
    flipped = np.ascontiguousarray(RING_TZYX[..., ::-1])
    write_nifti(own / "carl_mask.nii", flipped, GRID_MM, (-100.0 + 63 * 2.0, -110.0, 40.0), turned)
    write_table(own, "carl,carl.nii,carl_mask.nii,,")
    summary = summary_of(own)
    assert (store.open(own.parent / "s.zarr").patients[0].array("mask_TZYX") == RING_TZYX).all()
    assert "with axes that run another way" in summary.used[0].mended["line 2 mask.nii"]


def test_a_row_that_cannot_even_be_looked_at_costs_its_study_alone(
    own: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_table(own, "carl,carl.nii,carl_mask.nii,,", f"mueller,{'mueller' * 60}.nii,,,")
    argv = [str(own), str(own.parent / "s.zarr"), "--spacing-mm", "2", "--size", "64"]
    assert convert.main(argv) == 3
    assert "mueller" not in "".join(capfd.readouterr())


def test_one_image_of_two_subjects_is_a_mistake(own: Path) -> None:
    write_table(own, "carl,carl.nii,,,", "cora,./carl.nii,,,")
    with pytest.raises(ValueError, match="the table's lines 2 and 3 give two subjects one image"):
        summary_of(own)


def test_a_table_with_semicolons_is_told_so_and_an_archive_comes_before_a_table(own: Path, raw: Path) -> None:
    (own / "table.csv").write_text("subject;image\ncarl;carl.nii\n")
    with pytest.raises(ValueError, match="its columns are not separated by commas"):
        summary_of(own)
    shutil.copytree(raw / "DET9000001", own / "DET9000001")
    summary_of(own)
    assert store.open(own.parent / "s.zarr").source == "phantom"


def test_a_subject_called_like_a_pseudonym_keeps_it(own: Path) -> None:
    write_table(own, "P001,carl.nii,carl_mask.nii,,")
    patients_of(own)
    write_table(own, "P001,carl.nii,carl_mask.nii,,", "Anna,anna_cine.nii.gz,anna_mask0.nii.gz,0,")
    patients_of(own)
    assert (own.parent / "s.zarr.keys.csv").read_text() == "key,name\nP001,P001\nP002,Anna\n"


def test_kept_names_never_meet(own: Path) -> None:
    write_table(own, "anna,anna_cine.nii.gz,anna_mask0.nii.gz,0,", "anna,carl.nii,,,", "anna-2,bert_ed.nii.gz,,,")
    path = own.parent / "k.zarr"
    assert convert.convert(own, path, 2.0, 64, options=Options(keep_names=True)).complete
    assert [p.key for p in store.open(path).patients] == ["anna", "anna-2", "anna-3"]


# nnU-Net


def test_an_nnunet_folder_is_read_by_the_names_of_its_labels(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "raw", {"LVC": LEFT, "MLV": MYOCARDIUM, "RV": RIGHT})
    first, second = patients_of(root)
    assert (first.array("mask_TZYX") == heart_TZYX(1, 4, 64, 2.0)).all()
    assert first.subject != second.subject
    assert store.open(tmp_path / "s.zarr").source == "table"


def test_two_frames_of_an_acdc_patient_in_an_nnunet_folder_are_one_study(tmp_path: Path) -> None:
    cases = ["patient001_frame01", "patient001_frame12", "patient002_frame01"]
    root = nnunet(tmp_path / "raw", {"RV": RIGHT, "MLV": MYOCARDIUM, "LVC": LEFT}, cases)
    first, second = patients_of(root)
    assert (first.key, first.attributes["source_phases"]) == ("patient001", [1, 12])
    assert (second.key, second.attributes["source_phases"]) == ("patient002", [1])


def test_unknown_names_of_labels_are_asked_for(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "raw", {"wall": MYOCARDIUM})
    with pytest.raises(ValueError, match=r"none of its labels is known as the myocardium; say it with --label"):
        summary_of(root)
    assert len(patients_of(root, myocardium=1)) == 2


def test_test_images_and_other_channels_are_ignored(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "raw", {"myocardium": MYOCARDIUM, "lv": LEFT, "rv": RIGHT})
    (root / "imagesTs").mkdir()
    shutil.copy(root / "imagesTr" / "heart_001_0000.nii.gz", root / "imagesTs" / "heart_003_0000.nii.gz")
    shutil.copy(root / "imagesTr" / "heart_001_0000.nii.gz", root / "imagesTr" / "heart_001_0001.nii.gz")
    (root / "labelsTr" / "heart_002.nii.gz").unlink()
    first, second = patients_of(root)
    assert first.array("labelled_TZ").all()
    assert not second.array("labelled_TZ").any()
