"""Sunnybrook: contours rasterised, paired by case and number, in the series they are of."""

import math
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Polygon

from data_prep import store
from data_prep.inventory import take
from data_prep.readers import contours, find, read
from data_prep.readers.found import Options
from data_prep.study import StudyError
from tests.archives import Onto, circle, edit, sunnybrook

ONTO = Onto(1.7708, 192)
summary_of, converted, set_aside = ONTO.summary_of, ONTO.converted, ONTO.set_aside

# Polygons by hand


def filled(points: list[tuple[float, float]], n: int = 6) -> np.ndarray:
    return contours.filled(np.array(points, float), (n, n))


def read_text(text: str, tmp_path: Path, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    (tmp_path / "c.txt").write_bytes(text.encode("latin-1"))
    return contours.read(tmp_path / "c.txt", "c.txt", shape)


def test_a_square_holds_the_pixels_whose_centres_it_encloses() -> None:
    inside = filled([(0.5, 1.5), (3.5, 1.5), (3.5, 4.5), (0.5, 4.5)])
    assert np.argwhere(inside).tolist() == [[y, x] for y in (2, 3, 4) for x in (1, 2, 3)]


def test_centres_on_the_edge_are_inside() -> None:
    assert filled([(1, 1), (3, 1), (3, 3), (1, 3)]).sum() == 9
    assert filled([(0, 2), (2, 0), (4, 2), (2, 4)]).sum() == 13


def test_a_contour_may_cross_itself_or_be_thin() -> None:
    assert filled([(1, 1), (3, 3), (3, 1), (1, 3)]).sum() == 7  # two triangles that touch at (2, 2)
    assert filled([(1, 1), (4, 1), (2, 1)]).sum() == 4


@pytest.mark.parametrize("seed", range(5))
def test_inside_is_what_matplotlib_says(seed: int) -> None:
    """Away from edges; on them matplotlib takes either side."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * math.pi, 25))
    points = np.stack(
        [30 + rng.uniform(5, 25, 25) * np.cos(angles), 28 + rng.uniform(5, 25, 25) * np.sin(angles)], axis=1
    )
    y, x = np.mgrid[:60, :60]
    theirs = Polygon(points).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(60, 60)
    assert (contours.filled(points, (60, 60)) == theirs).all()


def test_a_circle_has_its_area(tmp_path: Path) -> None:
    points = read_text(circle(20.3, (31.2, 30.7)), tmp_path)
    assert contours.filled(points, (64, 64)).sum() == pytest.approx(math.pi * 20.3**2, rel=0.02)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "at least 8"),
        ("1 2\n3 4\n", "at least 8"),
        ("1 2\n3\n5 6\n", "no list of x y pairs"),
        ("a b\nc d\ne f\n", "no list of x y pairs"),
        ("1 1\n" * 8 + "nan 3\n", "reaches beyond"),
        ("1 1\n" * 8 + "900 3\n", "reaches beyond its image of 64 x 64"),
        (circle(20, (30, 30)).replace("50.00 30.00", "5.00 30.00"), "jumps 45 pixels"),
        (circle(20, (30, 30))[:300], "damaged or not closed"),
        ("\xff\xfe1 1", "no list of x y pairs"),
    ],
)
def test_what_is_no_contour(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=reason):
        read_text(text, tmp_path)


# The archive


@pytest.fixture
def archive(raw: Path, tmp_path: Path) -> Path:
    return sunnybrook(tmp_path / "raw", raw / "DET9000001")


def one(archive: Path, pattern: str) -> Path:
    return sorted(archive.rglob(pattern))[0]


def test_the_myocardium_lies_between_the_contours_at_ed(archive: Path) -> None:
    patient = converted(archive)
    assert (patient.key, patient.stratum) == ("SC-HF-I-1", "HF-I")
    assert patient.array("labelled_TZ").tolist() == [[True] * 3, [False] * 3]
    mask_TZYX = patient.array("mask_TZYX")
    expected = [math.pi * (20**2 - 12**2) * scale**2 for scale in (1, 0.9, 0.8)]
    assert mask_TZYX[0].sum(axis=(1, 2)) == pytest.approx(expected, rel=0.03)
    assert not mask_TZYX[1].any()


def test_ed_and_es_come_from_the_inner_contours(archive: Path) -> None:
    patient = converted(archive)
    assert (patient.ed_phase, patient.es_phase) == (0, 1)


def test_cases_are_paired_whatever_their_zeros_and_folders(archive: Path) -> None:
    expected = converted(archive).attributes["digest"]
    (archive / "challenge_training" / "SC-HF-I-1").rename(archive / "SC-HF-I-01")
    drawn = archive / "elsewhere" / "SC-HF-I-1" / "i-and-o"
    drawn.parent.mkdir(parents=True)
    one(archive, "IRCCI-expert").rename(drawn)
    assert converted(archive).attributes["digest"] == expected


def test_the_codes_of_another_copy_go_by_the_archives_table(archive: Path) -> None:
    expected = converted(archive).attributes["digest"]
    images = archive / "SCD0000101"
    (archive / "challenge_training" / "SC-HF-I-1").rename(images)
    for path in sorted(images.iterdir()):
        path.rename(images / f"{int(path.stem.split('-')[-1])}.dcm")
    (archive / "link.csv").write_text("patient_id,original_id\nSCD0000101,SC-HF-I-1\n")
    patient = converted(archive)
    assert (patient.key, patient.stratum, patient.attributes["digest"]) == ("SCD0000101", "HF-I", expected)


def test_other_series_of_the_folder_are_passed_over(archive: Path) -> None:
    expected = converted(archive).attributes["digest"]
    folder = archive / "challenge_training" / "SC-HF-I-1"
    for path in sorted(folder.glob("IM-0004-*"))[:4]:
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID = "1.2.3.9"
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1] if path.name.endswith("1.dcm") else [0, 1, 0, 0, 0, -1]
        dataset.save_as(folder / path.name.replace("IM-0004", "IM-0002"))
    summary = summary_of(archive)
    assert store.open(archive.parent / "s.zarr").patients[0].attributes["digest"] == expected
    assert set(summary.used[0].ignored.values()) == {"another series of its case"}
    assert len(summary.used[0].ignored) == 4


def test_two_series_that_would_both_do_are_not_chosen_between(archive: Path) -> None:
    folder = archive / "challenge_training" / "SC-HF-I-1"
    for path in sorted(folder.glob("IM-0004-*")):
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID = "1.2.3.9"
        dataset.save_as(folder / path.name.replace("IM-0004", "IM-0005"))
    assert "2 series have all 6 contoured images; leave the short-axis series in its folder" in set_aside(archive)


def test_a_missing_phase_is_found_by_the_numbers(archive: Path) -> None:
    one(archive, "IM-0004-0004.dcm").unlink()  # the second slice's second phase
    summary = summary_of(archive)
    patient = store.open(archive.parent / "s.zarr").patients[0]
    assert patient.array("image_TZYX").shape[:2] == (1, 3)
    assert summary.used[0].mended["IM-0001-0004-icontour-manual.txt"] == "left out: no image has its number"
    assert summary.used[0].mended["IM-0004-0002.dcm"] == "left out: other slices have no image at its phase"


def test_a_displaced_outer_contour_is_a_fault(archive: Path) -> None:
    path = one(archive, "*-ocontour-manual.txt")
    path.write_text(circle(20, (95.5 + 16, 95.5)))
    assert path.name in set_aside(archive)
    assert "does not enclose its inner contour" in set_aside(archive)


def test_an_outer_contour_alone_is_no_wall(archive: Path) -> None:
    outer = one(archive, "*-ocontour-manual.txt")
    outer.with_name(outer.name.replace("ocontour", "icontour")).unlink()
    summary = summary_of(archive)
    assert summary.used[0].mended[outer.name] == "left out: no inner contour goes with it"
    assert store.open(archive.parent / "s.zarr").patients[0].array("labelled_TZ").sum() == 2


def test_papillary_and_automatic_contours_and_contours_without_images_are_ignored(archive: Path) -> None:
    drawn = one(archive, "IRCCI-expert")
    (drawn / "IM-0001-0001-p1contour-manual.txt").write_text(circle(3, (95, 95)))
    (drawn / "IM-0001-0001-icontour-auto.txt").write_text(circle(3, (95, 95)))
    other = archive / "challenge_training" / "TrainingDataContours" / "SC-N-02"
    other.mkdir()
    (other / "IM-0001-0001-icontour-manual.txt").write_text(circle(3, (95, 95)))
    found = find(take(archive), "auto", Options())
    assert {path.name: why for path, why in found.ignored.items() if "SC-N-02" not in str(path)} == dict.fromkeys(
        ["IM-0001-0001-p1contour-manual.txt", "IM-0001-0001-icontour-auto.txt"],
        "not a manual contour of the left ventricle's walls",
    )
    assert {why for path, why in found.ignored.items() if "SC-N-02" in str(path)} == {
        "a contour, and its case has no images"
    }


def test_a_second_contour_of_one_image_is_a_fault(archive: Path) -> None:
    path = one(archive, "*-icontour-manual.txt")
    shutil.copy(path, path.with_name(path.name.replace("IM-0001", "IM-0002")))
    assert "is a second contour of image 1" in set_aside(archive)


@pytest.mark.parametrize("damage", ["no text", "1 1\n2 2\n"])
def test_a_damaged_contour_sets_the_study_aside(archive: Path, damage: str) -> None:
    path = one(archive, "*-icontour-manual.txt")
    path.write_text(damage)
    assert set_aside(archive).startswith(f"{path.name}: is no list of")


def test_slices_that_are_numbered_phase_by_phase(archive: Path) -> None:
    """Numbers that run through the slices of one phase after another, and one image missing."""
    (case,) = find(take(archive), "auto", Options()).cases
    assert len(read(case).levels) == 3
    folder = archive / "challenge_training" / "SC-HF-I-1"
    for path in archive.rglob("*.txt"):
        path.unlink()
    renamed = {1: 1, 3: 2, 5: 3, 2: 4, 4: 5, 6: 6}
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"x{renamed[int(path.stem[-4:])]}")
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"IM-0004-{int(path.name[1:]):04d}.dcm")
    (folder / "IM-0004-0005.dcm").unlink()
    edit(folder, lambda dataset, _: delattr(dataset, "TriggerTime"))
    assert converted(archive).array("image_TZYX").shape[:2] == (1, 3)
