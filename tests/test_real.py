"""Real files, where they are at hand: BRANCHPOINT_REAL_DATA names a folder with cases in LVSC's layout.

With `contourfiles/` (Sunnybrook's contours) and MANIFEST.csv (case, sa, ph, origin) in it, the humans are read by
the Sunnybrook reader, too.
"""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from data_prep import convert, inventory, readers, store
from data_prep.readers.found import Options
from tests.test_geometry import simpleitk

HOME = os.environ.get("BRANCHPOINT_REAL_DATA", "")
pytestmark = pytest.mark.skipif(not HOME, reason="BRANCHPOINT_REAL_DATA names no folder with real cases")


@pytest.fixture(scope="module")
def lvsc(tmp_path_factory: pytest.TempPathFactory) -> store.Store:
    path = tmp_path_factory.mktemp("real") / "lvsc.zarr"
    assert convert.convert(Path(HOME), path, reader="lvsc", workers=2).complete
    return store.open(path)


def test_every_slice_is_what_simpleitk_reads_and_resamples(lvsc: store.Store) -> None:
    """To one grey level, and to the mask pixel."""
    found = readers.find(inventory.take(Path(HOME)), "lvsc", Options())
    by_key = {patient.key: patient for patient in lvsc.patients}
    compared = 0
    for case in found.cases:
        image_TZYX, mask_TZYX, labelled_TZ = (by_key[case.name].array(name) for name in store.ARRAYS)
        places = {p: label for p, (label,) in case.details["images"].items()}
        masks = {p: label for p, (label,) in case.details["masks"].items()}
        phases = by_key[case.name].attributes["source_phases"]
        for (level, phase), label in places.items():
            image = sitk.ReadImage(str(case.files[label]), sitk.sitkFloat32)
            spacing_mm = image.GetSpacing()[1::-1]
            theirs = simpleitk(sitk.GetArrayFromImage(image)[0], spacing_mm, 1.5625, (192, 192), labels=False)
            t = phases.index(phase)
            ours_ZYX = image_TZYX[t].astype(float)
            z = int(np.abs(ours_ZYX - theirs).max(axis=(1, 2)).argmin())
            assert np.abs(ours_ZYX[z] - theirs).max() <= 1, label
            assert labelled_TZ[t, z] == ((level, phase) in masks)
            if (level, phase) in masks:
                mask = sitk.GetArrayFromImage(sitk.ReadImage(str(case.files[masks[level, phase]])))
                mask_YX = (mask.reshape(*mask.shape[:2], -1)[..., 0] > 0).astype(np.uint8)
                theirs = simpleitk(mask_YX, spacing_mm, 1.5625, (192, 192), labels=True)
                assert (mask_TZYX[t, z] == theirs).all(), label
            compared += 1
    assert compared == sum(patient.array("labelled_TZ").size for patient in lvsc.patients)


def test_both_readers_make_the_same_of_the_humans(lvsc: store.Store, tmp_path: Path) -> None:
    manifest, drawn = Path(HOME) / "MANIFEST.csv", Path(HOME) / "contourfiles"
    if not manifest.exists() or not drawn.exists():
        pytest.skip("no contourfiles/ and MANIFEST.csv there")
    links = {
        row["patient_id"]: row["original_id"]
        for row in csv.DictReader((Path(HOME) / "link.csv").read_text().splitlines())
    }
    case_of = {}
    for row in csv.DictReader(manifest.read_text().splitlines()):
        copy, _, number = row["origin"].partition("/")
        source = Path(HOME) / row["case"] / f"{row['case']}_SA{row['sa']}_ph{row['ph']}.dcm"
        if copy in links and source.exists():
            case_of[links[copy]] = row["case"]
            target = tmp_path / "raw" / "challenge_training" / links[copy] / f"IM-0004-{int(Path(number).stem):04d}.dcm"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    shutil.copytree(drawn, tmp_path / "raw" / "contours")
    assert convert.convert(tmp_path / "raw", tmp_path / "s.zarr").complete
    theirs = {patient.key: patient for patient in lvsc.patients}
    read = store.open(tmp_path / "s.zarr")
    assert read.source == "sunnybrook"
    assert len(read.patients) == len(case_of) == 4
    for patient in read.patients:
        for name in store.ARRAYS:
            assert (patient.array(name) == theirs[case_of[patient.key]].array(name)).all(), (patient.key, name)
        assert patient.ed_phase == theirs[case_of[patient.key]].ed_phase
        assert patient.es_phase is not None


def test_the_pig_has_400_masks_and_one_is_empty(lvsc: store.Store) -> None:
    (pig,) = [patient for patient in lvsc.patients if patient.key == "DET9001701"]
    assert pig.array("labelled_TZ").sum() == 400
    assert (~pig.array("mask_TZYX").any(axis=(2, 3))).sum() == 1
