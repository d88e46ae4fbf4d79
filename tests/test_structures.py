"""Several structures, on made-up ACDC data whose volumes are known: from the archive to the report and to new cases."""

import csv
import itertools
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from data_prep import convert, export, phantom, store
from data_prep.study import CLASSES
from mtl import checkpoint, data, evaluate, figures, function, methods, metrics, predict, results, tables, train
from mtl.config import Config, Model, Train
from mtl.evaluate import Prediction
from mtl.loss import area_loss, joint_loss
from mtl.network import UNet
from mtl.runfolder import RunFolder
from mtl.slices import Slices
from mtl.structures import each, with_each
from mtl.train import fold_of
from mtl.trainer import Trainer
from mtl.weighting import make
from mtl.weighting.learned import Learned

STRUCTURES = CLASSES[1:]
CPU = torch.device("cpu")
PATIENTS, SLICES, PHASES = 5, 4, 4


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("acdc") / "archive"
    phantom.make(folder, PATIENTS, SLICES, PHASES, seed=3, archive="acdc")
    return folder


@pytest.fixture(scope="module")
def acdc(archive: Path) -> store.Store:
    path = archive.with_name("store.zarr")
    convert.convert(archive, path, spacing_mm=3.125, size=64)
    return store.open(path)


@pytest.fixture(scope="module")
def config(acdc: store.Store) -> Config:
    settings = Train(epochs=1, folds=3, batch_size=8, augment_copies=0, device="cpu", diagnose=True)
    return Config(acdc.digest, Model(width=2), settings)


@pytest.fixture(scope="module")
def cine(acdc: store.Store) -> Slices:
    return data.load(acdc.path, acdc.digest)


@pytest.fixture(scope="module")
def runs(config: Config, cine: Slices, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two configurations, trained for an epoch."""
    home = tmp_path_factory.mktemp("runs")
    for branch in ("up4", "none"):
        one = replace(config, model=replace(config.model, branch=branch))
        for number in range(3):
            train.train(one, cine, number, RunFolder(home / f"branch-{branch}" / f"fold_{number}"))
    return home


def hearts() -> list[phantom.Heart]:
    """As the archive's patients were drawn."""
    return [phantom.draw_heart(np.random.default_rng([3, n]), PHASES) for n in range(1, PATIENTS + 1)]


# The archive.


def test_the_reader_knows_the_made_up_archive_and_what_it_labels(acdc: store.Store) -> None:
    assert (acdc.source, acdc.classes) == ("phantom", CLASSES)
    assert [(p.ed_phase, p.es_phase) for p in acdc.patients] == [(h.ed_phase, h.es_phase) for h in hearts()]
    for patient in acdc.patients:
        assert patient.array("labelled_TZ").any(axis=1).sum() == 2
        assert set(np.unique(patient.array("mask_TZYX"))) == {0, 1, 2, 3}


def test_the_stores_volumes_are_the_closed_form(acdc: store.Store) -> None:
    for patient, heart in zip(acdc.patients, hearts(), strict=True):
        for t in (heart.ed_phase, heart.es_phase):
            wanted_ml = sum(heart.cavity_mm2((z + 0.5) / SLICES, t) for z in range(SLICES)) * 10 / 1000
            pixels = (patient.array("mask_TZYX")[t] == CLASSES.index("left ventricle")).sum()
            assert pixels * 3.125**2 * 10 / 1000 == pytest.approx(wanted_ml, rel=0.05)


def test_a_layout_without_place_for_them_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert phantom.main([str(tmp_path / "raw"), "--archive", "acdc", "--phases", "1"]) == 2
    assert "wanted up to 999 patients, and 2 or more slices and phases" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# Eq. (5) with an s for each task.


def test_the_joint_loss_by_hand_and_its_optimum() -> None:
    s_seg, s_reg = torch.tensor(-3.9), torch.log(torch.tensor([200.0, 90.0, 150.0])).requires_grad_()
    losses = torch.tensor([200.0, 90.0, 150.0])
    total = joint_loss(torch.tensor(0.01), losses, s_seg, s_reg)
    assert total.item() == pytest.approx(0.01 * math.exp(3.9) + 3 - 3.9 / 2 + math.log(200 * 90 * 150), rel=1e-5)
    total.backward()
    assert s_reg.grad is not None
    assert s_reg.grad.abs().max() < 1e-6  # sigma = L of each task


def test_each_area_is_a_loss_of_its_own() -> None:
    area, true = torch.tensor([[10.0, 4.0], [30.0, 8.0]]), torch.tensor([[12.0, 4.0], [24.0, 7.0]])
    assert area_loss(area, true).tolist() == [4.0, 0.5]


def test_learned_weights_start_from_each_areas_scale_and_are_told_by_name() -> None:
    way = make(Config().weighting, [400.0, 300.0, 200.0], STRUCTURES)
    assert isinstance(way, Learned)
    state = way.state()
    assert [state[f"log_sigma_reg_{name}"] for name in ("myocardium", "left_ventricle", "right_ventricle")] == (
        pytest.approx([math.log(400), math.log(300), math.log(200)])
    )
    assert state["log_sigma_reg"] == pytest.approx(math.log(400 * 300 * 200) / 3)
    assert state["weight_reg"] == pytest.approx((1 / 400 + 1 / 300 + 1 / 200) / 3)
    way.from_data = True
    way.start(torch.tensor(0.02), torch.tensor([50.0, 60.0, 70.0]))
    assert way.s_reg.tolist() == pytest.approx([math.log(50), math.log(60), math.log(70)])


def test_names_of_several_and_of_one() -> None:
    assert with_each("dice_val", [0.5], ["myocardium"]) == {"dice_val": 0.5}
    several = with_each("dice_val", [0.5, 0.7, math.nan], STRUCTURES)
    assert several.pop("dice_val") == pytest.approx(0.6)  # of those that are known
    assert several == {"dice_val_myocardium": 0.5, "dice_val_left_ventricle": 0.7, "dice_val_right_ventricle": None}
    assert each({"weight_reg": 0.1}, "weight_reg", STRUCTURES) == [0.1, 0.1, 0.1]


# Training.


def test_a_trained_fold_says_everything_of_each_structure(runs: Path) -> None:
    run = RunFolder(runs / "branch-up4" / "fold_0")
    (record,) = run.epochs()
    for name in ("dice_val", "area_mad_mm2", "loss_area_train", "log_sigma_reg", "weight_reg"):
        of_each = [record[f"{name}_{s.replace(' ', '_')}"] for s in STRUCTURES]
        assert record[name] == pytest.approx(sum(of_each) / 3), name
    assert -1 <= record["grad_cosine"] <= 1
    assert run.facts()["structures"] == list(STRUCTURES)
    for name, key in (("volumes.csv", ("patient", "phase")), ("slices.csv", ("patient", "phase", "level"))):
        rows = list(csv.DictReader((run.path / name).read_text().splitlines()))
        assert list(rows[0])[-1] == "structure"
        of = {tuple(row[k] for k in key): set() for row in rows}
        for row in rows:
            of[tuple(row[k] for k in key)].add(row["structure"])
        assert all(found == set(STRUCTURES) for found in of.values())


def test_killed_in_an_epoch_it_ends_with_the_same_numbers(
    config: Config, cine: Slices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = replace(config, train=replace(config.train, epochs=2, batch_size=2))
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    train.train(two, cine, 0, whole)
    real, steps = Trainer.step, itertools.count()

    def step(trainer: Trainer, *batch: Any) -> tuple[float, ...]:
        if next(steps) == 5:  # the second batch of the second epoch, of four
            raise KeyboardInterrupt
        return real(trainer, *batch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train.train(two, cine, 0, killed, checkpoint_minutes=0.0)
    within = checkpoint.load(killed.last, two, 0)["within"]
    assert (within["epoch"], within["batches"], len(within["sums"])) == (2, 1, 2 + 3)
    train.train(two, cine, 0, killed)
    for name in ("volumes.csv", "slices.csv"):
        assert (whole.path / name).read_text() == (killed.path / name).read_text()
    mine, theirs = ([one["loss_area_train_left_ventricle"] for one in run.epochs()] for run in (killed, whole))
    assert mine == theirs


def test_areas_follow_the_transformed_mask(config: Config, cine: Slices) -> None:
    trainer = Trainer(config, cine, fold_of(config, cine, 0), 0, CPU)
    pairs = np.stack([np.arange(8), np.zeros(8, int)], axis=1)
    _, mask_B1YX, area_mm2_BA = trainer.inputs(pairs, trainer.draws(1))
    for a in range(3):
        pixels = (mask_B1YX == a + 1).sum(dim=(1, 2, 3))
        torch.testing.assert_close(area_mm2_BA[:, a], pixels.float() * 3.125**2)
    np.testing.assert_allclose(area_mm2_BA, cine.area_mm2_NA(np.arange(8)))


# Evaluation.


def test_rows_of_each_structure_by_hand(cine: Slices) -> None:
    index_N = np.arange(SLICES)
    predicted = cine.mask_NYX[index_N].copy()
    predicted[predicted == 3] = 0  # the right ventricle is missed
    areas_NA = np.tile(np.array([1.0, 2.0, 3.0], np.float32), (SLICES, 1))
    prediction = Prediction(index_N, predicted, areas_NA, regressed=True)
    rows = evaluate.volume_rows(cine, prediction, "test")
    assert [(row["structure"], row["dice"]) for row in rows] == list(zip(STRUCTURES, (1.0, 1.0, 0.0), strict=True))
    assert math.isnan(rows[2]["hd_mm"])
    slice_rows = evaluate.slice_rows(cine, prediction, "test")
    assert [row["area_reg_mm2"] for row in slice_rows[:3]] == [1.0, 2.0, 3.0]
    assert slice_rows[1]["area_seg_mm2"] == slice_rows[1]["area_true_mm2"] == cine.area_mm2_NA(index_N)[0, 1]
    assert slice_rows[2]["area_seg_mm2"] == 0 < slice_rows[2]["area_true_mm2"]
    dices, _ = evaluate.score(cine, prediction)
    assert dices == [1.0, 1.0, 0.0]


def test_each_structure_keeps_its_own_largest_component() -> None:
    labels = np.zeros((1, 1, 8), np.uint8)
    labels[0, 0] = [1, 1, 0, 1, 0, 2, 0, 2]
    assert metrics.largest_components(labels, 2)[0, 0].tolist() == [1, 1, 0, 0, 0, 2, 0, 0]


def test_the_likeliest_label_of_a_softmax_and_of_a_sigmoid() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 1.5]]).reshape(2, 3, 1, 1)
    assert evaluate.labels_of(logits).flatten().tolist() == [1, 0]
    assert evaluate.labels_of(logits[:, 1:2] - 2).flatten().tolist() == [1, 0]


# What it says of the heart.


def test_volumes_mass_and_ejection_fraction_are_those_of_the_made_up_hearts(runs: Path) -> None:
    (baseline, _) = results.load([runs], "left ventricle")
    found = function.ejection_fraction(baseline)
    assert (found.unit, found.unknown, len(found.patients)) == ("%", 0, PATIENTS)

    def ml(heart: phantom.Heart, t: int) -> float:
        return sum(heart.cavity_mm2((z + 0.5) / SLICES, t) for z in range(SLICES)) * 10 / 1000

    edv, esv = ([ml(heart, getattr(heart, f"{end}_phase")) for heart in hearts()] for end in ("ed", "es"))
    assert function.volume(baseline, "ED").true_P == pytest.approx(edv, rel=0.05)
    assert function.volume(baseline, "ES").true_P == pytest.approx(esv, rel=0.05)
    assert found.true_P == pytest.approx([100 * (a - b) / a for a, b in zip(edv, esv, strict=True)], abs=3)


def test_an_ejection_fraction_by_hand(runs: Path) -> None:
    _, one = results.load([runs], "right ventricle")
    areas = one.areas
    areas.true_mm2_S[:] = np.where(areas.is_ed_S, 1000.0, 400.0)
    areas.seg_mm2_S[:] = np.where(areas.is_ed_S, 1000.0, 500.0)
    areas.reg_mm2_S[:] = 0.0
    found = function.ejection_fraction(one)
    assert found.true_P.tolist() == [60.0] * PATIENTS
    assert found.measured_P["Seg"].tolist() == [50.0] * PATIENTS
    assert np.isnan(found.measured_P["Reg"]).all()  # of an empty ventricle there is none
    assert len(found.known("Reg")[0]) == 0


def test_the_report_holds_every_structure(runs: Path) -> None:
    first, *others = (results.load([runs], structure) for structure in STRUCTURES)
    text = "\n\n".join(table.markdown() for table in tables.all_of(first, others))
    for structure in ("left ventricle", "right ventricle"):
        assert f"**Table 1. Segmentation against the gold standard: {structure}**" in text
        assert f"**Table 2. Absolute difference of the {structure}'s area**" in text
        assert f"| {structure} | EF, % | Seg, MTN up4 |" in text
    assert "log sigma, reg (mm²; myocardium / left ventricle / right ventricle)" in text
    assert "| structures | myocardium | myocardium, left ventricle, right ventricle |" in text
    found = {name: caption for name, _, caption in figures.drawn(first, others)}
    assert found["figure3_areas_left_ventricle"].startswith("Left ventricle. ")
    assert {"figure2_means", "figure2_means_right_ventricle", "ejection_fraction", "conflict"} <= {*found}
    told = methods.paragraph(first)
    assert "segmented the myocardium, left ventricle and right ventricle and regressed their areas" in told
    assert "For all tasks the losses were weighed" in told


# New cases.


def test_labels_are_the_likeliest_and_none_where_none_is_likelier() -> None:
    probability_A = np.array([[0.6, 0.3, 0.2, 0.4], [0.3, 0.35, 0.2, 0.3], [0.1, 0.25, 0.1, 0.29]])
    assert export.labels(probability_A).tolist() == [1, 2, 0, 1]
    assert export.labels(np.array([[0.5, 0.51]])).tolist() == [0, 1]


@pytest.mark.parametrize("structures", [1, 3])
def test_pixels_beside_the_largest_components_are_none_of_them_afterwards(structures: int) -> None:
    """In float32, whose sums round, as networks answer."""
    rng = np.random.default_rng(structures)
    drawn = rng.dirichlet([1.0] * (structures + 1), (2, 3, 192, 192)).astype(np.float32)
    probability_ATZYX = np.moveaxis(drawn, -1, 0)[:structures]
    labels_TZYX = export.labels(probability_ATZYX)
    kept_TZYX = np.stack([metrics.largest_components(volume, structures) for volume in labels_TZYX])
    beside = (labels_TZYX > 0) & (kept_TZYX == 0)
    assert beside.any()
    assert np.array_equal(export.labels(predict._without(probability_ATZYX, beside)), kept_TZYX)


def test_new_cases_get_masks_and_areas_of_each_structure(runs: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict.main([str(runs / "branch-up4"), str(archive), str(out), "--device", "cpu"]) == 0
    assert len(list(out.glob("*/mask.nii.gz"))) == PATIENTS
    mask = sitk.ReadImage(str(out / "patient001" / "mask.nii.gz"))
    image = sitk.ReadImage(str(archive / "patient001" / "patient001_4d.nii.gz"))
    assert mask.GetSize() == image.GetSize()
    assert mask.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-3)
    assert set(np.unique(sitk.GetArrayFromImage(mask))) <= {0, 1, 2, 3}
    rows = list(csv.DictReader((out / "patient001" / "areas.csv").read_text().splitlines()))
    assert len(rows) == PHASES * SLICES * 3
    assert [row["structure"] for row in rows[:3]] == list(STRUCTURES)


def test_a_network_of_other_structures_is_one_line(
    runs: Path, config: Config, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = Path(shutil.copytree(runs / "branch-up4", tmp_path / "copied"))
    first = RunFolder(copied / "fold_0")
    network = UNet("up4", 2, size=64)  # of the myocardium alone
    checkpoint.save(first.best, {"network": network.state_dict(), "epoch": 1}, config, 0)
    assert predict.main([str(copied), str(archive), str(tmp_path / "out"), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "is not the network of its config.yaml, with 3 structures" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
