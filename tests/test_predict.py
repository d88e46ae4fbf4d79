"""New cases: what is found, where the mask lies, what is written, what goes on, and which slices are to be checked."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from data_prep import export, grid, newcases, phantom
from data_prep.files import write_csv
from data_prep.readers import unlabelled
from data_prep.study import Frame, Level, StudyError
from mtl import checkpoint, predict, reliability
from mtl.config import Config, Model, Train
from mtl.evaluate import SLICE_COLUMNS
from mtl.network import UNet
from mtl.runfolder import RunFolder
from tests import tracked

CONFIG = Config("a" * 64, Model(width=2), Train(folds=3, epochs=2, device="cpu", precision="float32"))
GRID = grid.Grid((6.25, 6.25), (48, 48))
AXES = np.array([[0.8, 0.0, 0.6], [0.6, 0.0, -0.8], [0.0, -1.0, 0.0]])
"""columns: directions of X, Y and Z; against the right hand"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "archive"
    phantom.make(folder, patients=2, slices=4, phases=2, seed=5)
    return folder


def rows(areas: Sequence[tuple[float, float]]) -> list[dict[str, object]]:
    """slices.csv of validation slices of 1,000 mm2, with these regressed and segmented areas."""
    told = {"patient": "P", "phase": 0, "region": "mid", "set": "validation", "area_true_mm2": 1000.0}
    return [{**told, "level": n, "area_reg_mm2": reg, "area_seg_mm2": seg} for n, (reg, seg) in enumerate(areas)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A configuration of three finished folds, their networks drawn at random."""
    folder = tmp_path / "runs" / "sweep" / "branch-up4-x"
    for number in range(3):
        fold = RunFolder(folder / f"fold_{number}")
        tracked.train(fold, (1, 2), config=CONFIG)
        torch.manual_seed(number)
        network = UNet("up4", 2, size=48)
        network.set_area_scale(900.0, 250.0)
        checkpoint.save(fold.best, {"network": network.state_dict(), "epoch": 2}, CONFIG, number)
        write_csv(fold.path / "volumes.csv", [], ["patient"])
        write_csv(fold.path / "slices.csv", rows([(1000, 1000 + n) for n in range(100)]), SLICE_COLUMNS)
        tracked.done(fold)
    return folder


def nifti(path: Path, voxels_TZYX: np.ndarray, spacing_mm: tuple[float, float, float] = (1.5, 2.0, 8.0)) -> Path:
    """spacing_mm: of X, Y and Z."""
    volumes = [sitk.GetImageFromArray(volume) for volume in voxels_TZYX]
    for volume in volumes:
        volume.SetSpacing(spacing_mm)
        volume.SetOrigin((-90.0, 30.0, 55.0))
        volume.SetDirection(AXES.ravel().tolist())
    sitk.WriteImage(sitk.JoinSeries(volumes) if len(volumes) > 1 else volumes[0], str(path))
    return path


# What is found.


def test_of_dicom_every_stack_is_a_case_and_long_axis_views_are_none(archive: Path, tmp_path: Path) -> None:
    exported = tmp_path / "export" / "IMAGES"
    exported.mkdir(parents=True)
    for n, path in enumerate(sorted(archive.rglob("*.dcm"))):
        shutil.copy(path, exported / f"IM{n:04d}")  # as a scanner names them
    for n, path in enumerate(sorted((archive / "DET9000001").glob("*_SA1_*.dcm"))):
        view = pydicom.dcmread(path)
        view.SeriesInstanceUID = "1.2.3"
        view.save_as(exported / f"LAX{n}")
    (exported / "report.txt").write_text("no image")
    cases = unlabelled.find(tmp_path / "export")
    assert [case.name for case in cases] == ["series 1", "series 2"]
    studies = [unlabelled.read_study(case) for case in cases]
    assert [(len(study.levels), len(study.phases)) for study in studies] == [(4, 2), (4, 2)]


def test_an_archives_masks_are_left_out(archive: Path) -> None:
    first, _ = unlabelled.find(archive)
    assert first.name == "DET9000001"
    study = unlabelled.read_study(first)
    assert all(frame.mask_YX is None for level in study.levels for frame in level.frames)


def test_what_is_no_case_is_one_line(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    for path, said in (
        (tmp_path / "a.txt", "wanted a short-axis cine"),
        (tmp_path, "no short-axis stack in it"),
        (tmp_path / "none", "no such folder"),
    ):
        with pytest.raises((ValueError, OSError), match=said):
            unlabelled.find(path)
    two = nifti(tmp_path / "two.nii.gz", np.zeros((1, 2, 40, 40), np.int16))
    (case,) = unlabelled.find(two)
    with pytest.raises(StudyError, match="has 2 slice positions; a short-axis stack has 3 or more"):
        unlabelled.read_study(case)


# Where the mask lies.


@pytest.mark.parametrize("phases", [1, 3])
def test_a_niftis_mask_lies_on_its_own_voxels(phases: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = nifti(tmp_path / "a.nii.gz", rng.integers(0, 900, (phases, 5, 40, 60)).astype(np.int16))
    (case,) = unlabelled.find(path)
    study = unlabelled.read_study(case)
    same = grid.Grid((2.0, 1.5), (40, 60))
    wanted = rng.random((phases, 5, 40, 60)) > 0.5
    made = export.mask_image(study.levels, wanted[None].astype(np.float32), same)
    given = sitk.ReadImage(str(path))
    assert made.GetSize() == given.GetSize()
    for told in ("GetSpacing", "GetOrigin", "GetDirection"):
        mine, theirs = (np.array(getattr(image, told)()) for image in (made, given))
        assert mine == pytest.approx(theirs, abs=1e-4), told
    assert np.array_equal(sitk.GetArrayFromImage(made).reshape(wanted.shape), wanted)


def test_from_a_coarser_grid_it_covers_the_same_place(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz", np.zeros((1, 3, 100, 120), np.int16))
    (case,) = unlabelled.find(path)
    study = unlabelled.read_study(case)
    y, x = np.mgrid[:48, :48]
    disc = np.hypot((y - 23.5) * 6.25, (x - 23.5) * 6.25) < 60
    made = export.mask_image(study.levels, np.broadcast_to(disc, (1, 1, 3, 48, 48)).astype(np.float32), GRID)
    pixels = sitk.GetArrayFromImage(made)[1]
    assert pixels.sum() * 2.0 * 1.5 == pytest.approx(disc.sum() * 6.25**2, rel=0.03)
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    assert (rows[0] + rows[-1], columns[0] + columns[-1]) == (99, 119)  # about the middle


def levels_at(heights_mm: Sequence[float], shift_mm: float = 0.0) -> list[Level]:
    """Axial slices; all but the first shifted along their rows."""
    image_YX = np.zeros((48, 48), np.int16)
    return [
        Level((Frame(image_YX, None, (6.25, 6.25), (shift_mm * (n > 0), 0.0, h), (1, 0, 0, 0, 1, 0), f"f{n}"),))
        for n, h in enumerate(heights_mm)
    ]


def test_missing_slices_stay_empty_and_shifted_ones_are_moved() -> None:
    drawn = np.zeros((1, 1, 3, 48, 48), np.float32)
    drawn[..., 20, 30] = 1
    made = export.mask_image(levels_at([0, 8, 24], shift_mm=12.6), drawn, GRID)
    assert made.GetSpacing() == pytest.approx((6.25, 6.25, 8.0))
    assert [tuple(place) for place in np.argwhere(sitk.GetArrayFromImage(made))] == [
        (0, 20, 30),
        (1, 20, 32),
        (3, 20, 32),
    ]


def test_slices_that_no_nifti_holds_are_refused() -> None:
    drawn = np.zeros((1, 1, 4, 48, 48), np.float32)
    with pytest.raises(StudyError, match=r"its slices lie 8\.0 to 12\.0 mm apart: no NIfTI holds them"):
        export.mask_image(levels_at([0, 8, 16, 28]), drawn, GRID)


# The command.


def test_each_case_gets_its_mask_areas_and_sheet(run: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict.main([str(run), str(archive), str(out), "--device", "cpu"]) == 0
    assert {p.name for p in out.iterdir()} == {"model.json", "DET9000001", "DET9000002"}
    for case in ("DET9000001", "DET9000002"):
        assert {p.name for p in (out / case).iterdir()} == {"mask.nii.gz", "areas.csv", "overlay.png"}
        mask = sitk.ReadImage(str(out / case / "mask.nii.gz"))
        first = pydicom.dcmread(min((archive / case).glob("*.dcm")))
        assert mask.GetSize() == (first.Columns, first.Rows, 4, 2)
        at = [p.ImagePositionPatient for p in map(pydicom.dcmread, (archive / case).glob("*_ph0.dcm"))]
        corners = [mask.TransformIndexToPhysicalPoint((0, 0, z, 0))[:3] for z in range(4)]
        assert sorted(map(tuple, np.round(corners, 2))) == sorted(map(tuple, np.round(np.array(at, float), 2)))
        table = list(csv.DictReader((out / case / "areas.csv").read_text().splitlines()))
        assert [(row["phase"], row["level"]) for row in table] == [(str(t), str(z)) for t in (0, 1) for z in range(4)]
        assert all((row["reliable"] == "1") == (row["why"] == "") for row in table)
        with Image.open(out / case / "overlay.png") as sheet:
            assert min(sheet.size) > 300
    assert all(p.stat().st_mode & 0o077 == 0 for p in [out, *out.rglob("*")])


def test_the_ensemble_is_the_mean_and_one_fold_is_one(run: Path, archive: Path) -> None:
    cpu = torch.device("cpu")
    image_TZYX = newcases.read(unlabelled.find(archive)[0], (6.25, 6.25), (48, 48)).image_TZYX
    whole = predict.load(run, cpu).predict(image_TZYX, cpu)
    alone = [predict.load(run / f"fold_{k}", cpu).predict(image_TZYX, cpu) for k in range(3)]
    assert whole.regressed_mm2_KSA is not None
    assert whole.segmented_mm2_KSA.shape == (3, 8, 1)
    for k, one in enumerate(alone):
        assert one.regressed_mm2_KSA is not None
        np.testing.assert_allclose(whole.regressed_mm2_KSA[k], one.regressed_mm2_KSA[0], rtol=1e-5)
        np.testing.assert_allclose(whole.segmented_mm2_KSA[k], one.segmented_mm2_KSA[0])


def test_a_network_of_whole_volumes_sees_a_phase_at_a_time(tmp_path: Path, archive: Path) -> None:
    fold, cpu = RunFolder(tmp_path / "c" / "fold_0"), torch.device("cpu")
    config = replace(CONFIG, train=replace(CONFIG.train, normalisation="volume"))
    tracked.train(fold, (1, 2), config=config)
    network = UNet("up4", 2, size=48)
    checkpoint.save(fold.best, {"network": network.state_dict(), "epoch": 2}, config, 0)
    write_csv(fold.path / "volumes.csv", [], ["patient"])
    write_csv(fold.path / "slices.csv", rows([(1000, 1000)]), SLICE_COLUMNS)
    tracked.done(fold)
    image_TZYX = newcases.read(unlabelled.find(archive)[0], (6.25, 6.25), (48, 48)).image_TZYX
    found = predict.load(fold.path, cpu).predict(image_TZYX, cpu)
    volume = image_TZYX[1].astype(np.float64)
    normalised = torch.from_numpy(((volume - volume.mean()) / volume.std()).astype(np.float32))[:, None]
    with torch.inference_mode():
        _, area_B1 = network.eval()(normalised)
    assert found.regressed_mm2_KSA is not None
    np.testing.assert_allclose(found.regressed_mm2_KSA[0, 4:], area_B1, rtol=1e-4, atol=1e-4)


def test_started_again_it_goes_on_and_another_models_folder_is_refused(
    run: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [str(run), str(archive), str(out), "--device", "cpu"]
    assert predict.main(command) == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    shutil.rmtree(out / "DET9000002")
    assert predict.main(command) == 0
    assert "DET9000001: is there already" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert predict.main([str(run / "fold_1"), *command[1:]]) == 2
    assert "holds what another model has predicted" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    assert predict.main([*command[:2], str(tmp_path / "full")]) == 2
    assert "holds something else" in capsys.readouterr().err


def test_a_case_that_cannot_be_used_is_set_aside_and_no_name_gets_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, rng = tmp_path / "raw", np.random.default_rng(1)
    raw.mkdir()
    nifti(raw / "Anna Muster.nii.gz", rng.integers(0, 900, (1, 4, 40, 40)).astype(np.int16))
    nifti(raw / "Bert.nii.gz", rng.integers(0, 900, (1, 2, 40, 40)).astype(np.int16))
    assert predict.main([str(run), str(raw), str(tmp_path / "out"), "--device", "cpu"]) == 3
    told = capsys.readouterr()
    assert "P002: set aside: has 2 slice positions" in told.err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model.json", "P001"}
    everything = told.out + told.err + "".join(str(p) for p in (tmp_path / "out").rglob("*"))
    assert "Anna" not in everything
    with (tmp_path / "out.keys.csv").open() as file:
        assert {row["key"]: row["name"] for row in csv.DictReader(file)} == {"P001": "Anna Muster", "P002": "Bert"}


def test_a_run_that_cannot_predict_is_one_line(
    run: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(where: Path) -> str:
        assert predict.main([str(where), str(archive), str(tmp_path / "out"), "--device", "cpu"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "out").exists()
        return line

    assert "no trained fold" in refused(tmp_path)
    (run / "fold_1" / "DONE").rename(run / "fold_1" / "kept")
    assert "fold_1: not done; a model wants a finished fold" in refused(run)
    (run / "fold_1" / "kept").rename(run / "fold_1" / "DONE")
    (run / "fold_2" / "slices.csv").write_text("set,area_reg_mm2\nvalidation,x\n")
    assert "slices.csv: damaged" in refused(run)


# Which slices are to be checked.


def test_limits_are_quantiles_of_slices_that_were_not_trained_on(tmp_path: Path) -> None:
    made = rows([(1000, 1000 + n) for n in range(101)])
    made.append({**made[0], "set": "test", "area_seg_mm2": 9000.0})
    write_csv(tmp_path / "slices.csv", made, SLICE_COLUMNS)
    limits = reliability.limits([tmp_path / "slices.csv"], "myocardium")
    assert (limits.paths_mm2, limits.folds_mm2) == pytest.approx((97.5, 97.5))


def test_a_slice_is_flagged_where_paths_or_folds_disagree() -> None:
    limits = reliability.Limits(paths_mm2=50.0, folds_mm2=30.0)
    regressed = np.array([[1000.0, 1000, 1000], [1000, 1000, 1000]])
    segmented = np.array([[1000.0, 1090, 950], [1020, 1030, 1050]])
    fine, paths, folds = limits.why_not(regressed, segmented)
    assert fine == ""
    assert paths.startswith("the two areas differ by 60 mm2 (usual: up to 50)")
    assert folds == "the folds' areas spread by 71 mm2 (usual: up to 30)"
    assert limits.why_not(None, segmented[:1]) == ["", "", ""]
    assert replace(limits, paths_mm2=None, folds_mm2=None).why_not(regressed, segmented) == ["", "", ""]


def test_model_json_says_which_networks(run: Path, archive: Path, tmp_path: Path) -> None:
    assert predict.main([str(run), str(archive), str(tmp_path / "out"), "--device", "cpu"]) == 0
    told = json.loads((tmp_path / "out" / "model.json").read_text())
    assert told["folds"] == 3
    assert len(told["model"]) == 16
