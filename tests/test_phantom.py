"""Made-up patients are real DICOM in LVSC's layout, with true geometry, the same bytes for the same seed."""

import filecmp
import math
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from data_prep import phantom
from data_prep.keys import is_archive_code
from data_prep.readers import lvsc
from data_prep.study import MYOCARDIUM


def test_the_same_arguments_give_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    phantom.make(tmp_path / "again", patients=5, slices=3, phases=2, seed=1)
    phantom.make(tmp_path / "other", patients=5, slices=3, phases=2, seed=2)
    names = sorted(str(p.relative_to(raw)) for p in raw.rglob("*") if p.is_file())
    assert len(names) == 5 * 3 * 2 * 2
    assert filecmp.cmpfiles(raw, tmp_path / "again", names, shallow=False)[0] == names
    assert len(filecmp.cmpfiles(raw, tmp_path / "other", names, shallow=False)[0]) < len(names)


def test_names_are_lvscs_own(raw: Path) -> None:
    assert all(lvsc.NAME.fullmatch(p.name) for p in raw.rglob("*.dcm"))
    assert {is_archive_code(p.name) for p in raw.iterdir()} == {True}


def test_simpleitk_reads_the_geometry_that_the_tags_say(raw: Path) -> None:
    path = next(raw.rglob("*_SA2_ph1.dcm"))
    tags, image = pydicom.dcmread(path), sitk.ReadImage(str(path))
    assert image.GetSpacing()[:2] == pytest.approx([float(v) for v in tags.PixelSpacing[::-1]])
    assert image.GetOrigin() == pytest.approx([float(v) for v in tags.ImagePositionPatient], abs=1e-4)
    assert sitk.GetArrayFromImage(image)[0] == pytest.approx(tags.pixel_array)
    assert sitk.ReadImage(str(path.with_suffix(".png"))).GetNumberOfComponentsPerPixel() == 3


def test_patients_differ_in_spacing_and_matrix(raw: Path) -> None:
    headers = [pydicom.dcmread(next(folder.glob("*.dcm"))) for folder in raw.iterdir()]
    assert len({(d.Rows, float(d.PixelSpacing[0])) for d in headers}) == len(phantom.GRIDS)


def test_slices_lie_as_far_apart_as_said(raw: Path) -> None:
    heart = [pydicom.dcmread(p) for p in sorted((raw / "DET9000001").glob("*_ph0.dcm"))]
    positions = np.array([[float(v) for v in d.ImagePositionPatient] for d in heart])
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1) == pytest.approx(phantom.SLICE_SPACING_MM, abs=1e-4)


def test_the_cavity_shrinks_and_the_wall_keeps_its_area() -> None:
    heart = phantom.Heart((0, 0), 25.0, 10.0, 0.3, 0.0, 0.0, ed_phase=1, phases=4)
    (inner_ed, outer_ed), (inner_es, outer_es) = heart.radii_mm(0.0, 1), heart.radii_mm(0.0, 3)
    assert (inner_ed, outer_ed) == pytest.approx((25, 35))
    assert inner_es == pytest.approx(25 * 0.7)
    assert math.pi * (outer_es**2 - inner_es**2) == pytest.approx(math.pi * (35**2 - 25**2))


def test_the_mask_has_the_rings_area() -> None:
    heart = phantom.Heart((3.0, -5.0), 25.0, 10.0, 0.3, 0.0, 0.0, ed_phase=0, phases=4)
    _, labels_YX = phantom.render(heart, 0.0, 0, (256, 1.25), np.random.default_rng(0))
    assert (labels_YX == MYOCARDIUM).sum() * 1.25**2 == pytest.approx(math.pi * (35**2 - 25**2), rel=0.02)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--patients", "1", "--slices", "1", "--phases", "1"]
    assert phantom.main([str(tmp_path / "raw"), *small]) == 0
    assert phantom.main([str(tmp_path / "raw"), *small]) == 2
    assert "exists already" in capsys.readouterr().err
    assert phantom.main([str(tmp_path / "new"), "--patients", "0"]) == 2
    assert "--patients is 0, wanted 1 to 9999" in capsys.readouterr().err
