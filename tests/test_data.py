"""Slices in memory and folds by subject."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep import store
from mtl import data
from mtl.config import Config, Protocol, Train
from mtl.slices import Slices, Stack, fold_of_subjects, folds_of


def made(subjects: list[str], strata: list[str] | None = None, per_patient: int = 2) -> Slices:
    n = len(subjects) * per_patient
    patient_N = np.repeat(np.arange(len(subjects)), per_patient)
    return Slices(
        np.zeros((n, 4, 4), np.int16),
        np.ones((n, 4, 4), np.uint8),
        patient_N,
        np.zeros(n, int),
        np.tile(np.arange(per_patient), len(subjects)),
        tuple(f"P{k}" for k in range(len(subjects))),
        tuple(subjects),
        tuple(strata or [""] * len(subjects)),
        ((None, None),) * len(subjects),
        ((1, per_patient),) * len(subjects),
        (8.0,) * len(subjects),
        (1.0, 2.0),
    )


def subjects_in(slices: Slices, index_N: np.ndarray) -> set[str]:
    return {slices.subjects[p] for p in slices.patient_N[index_N]}


def test_each_subject_tests_once_and_validates_once() -> None:
    slices = made([f"S{k}" for k in range(11)])
    folds = folds_of(slices, 5, 0, "validation")
    for name in ("test", "validation"):
        everyone = np.concatenate([getattr(fold, name) for fold in folds])
        assert sorted(everyone) == list(range(22))
    for k, fold in enumerate(folds):
        sets = [subjects_in(slices, getattr(fold, name)) for name in ("train", "validation", "test")]
        assert sum(len(s) for s in sets) == 11
        assert set.union(*sets) == set(slices.subjects)
        assert sets[1] == subjects_in(slices, folds[(k + 1) % 5].test)
        assert fold.selection is fold.validation


def test_the_papers_protocol_trains_on_all_others_and_selects_on_the_test_fold() -> None:
    slices = made([f"S{k}" for k in range(10)])
    for fold in folds_of(slices, 5, 0, "test"):
        assert (len(fold.train), len(fold.validation), len(fold.test)) == (16, 0, 4)
        assert fold.selection is fold.test


def test_smaller_training_sets_lie_within_larger_ones_and_the_others_stay() -> None:
    strata = ["ill"] * 8 + ["well"] * 16
    slices = made([f"S{k}" for k in range(24)], strata)
    fractions = (0.05, 0.25, 0.5, 0.75, 1.0)
    for k in range(4):
        folds = [folds_of(slices, 4, 0, "validation", fraction)[k] for fraction in fractions]
        sets = [subjects_in(slices, fold.train) for fold in folds]
        assert [len(s) for s in sets] == [1, 3, 6, 9, 12]
        assert all(small < large for small, large in itertools.pairwise(sets))
        assert [sum(strata[int(s[1:])] == "ill" for s in some) for some in sets[1:]] == [1, 2, 3, 4]
        for name in ("validation", "test"):
            assert all(np.array_equal(getattr(fold, name), getattr(folds[-1], name)) for fold in folds)


def test_two_visits_of_a_person_never_straddle() -> None:
    slices = made(["A", "B", "C", "A", "D", "E", "B", "F"])
    for fold in folds_of(slices, 3, 7, "validation"):
        assert not subjects_in(slices, fold.test) & subjects_in(slices, fold.train)
        assert not subjects_in(slices, fold.test) & subjects_in(slices, fold.validation)


def test_folds_are_balanced_by_stratum() -> None:
    strata = ["ill"] * 5 + ["well"] * 10
    of_subject = fold_of_subjects([f"S{k}" for k in range(15)], strata, 5, 3)
    for k in range(5):
        here = [s for s, fold in of_subject.items() if fold == k]
        assert sorted(strata[int(s[1:])] for s in here) == ["ill", "well", "well"]


def test_the_split_depends_on_its_seed_alone() -> None:
    subjects = [f"S{k}" for k in range(20)]
    first = fold_of_subjects(subjects, [""] * 20, 5, 0)
    assert fold_of_subjects(subjects[::-1], [""] * 20, 5, 0) == first
    assert fold_of_subjects(subjects, [""] * 20, 5, 1) != first


def test_fewer_patients_than_folds() -> None:
    with pytest.raises(ValueError, match=r"4 patients for 5 folds.*train\.folds=4 or use"):
        fold_of_subjects(list("ABCD"), [""] * 4, 5, 0)


def test_areas_are_pixels_times_their_size() -> None:
    assert made(["A"]).area_mm2_NA(np.arange(2))[:, 0] == pytest.approx([32, 32])


def test_only_labelled_slices_are_loaded(tmp_path: Path) -> None:
    image = np.arange(2 * 2 * 16 * 16, dtype=np.int16).reshape(2, 2, 16, 16)
    labelled = np.array([[True, False], [False, True]])
    with store.create(tmp_path / "s", source="t", spacing_mm=(2, 2), size=(16, 16), classes=("b", "m")) as out:
        spacing = {"slice_spacing_mm": 8.0}
        out.add("A", image, (image % 2).astype(np.uint8), labelled, {"ed_phase": 1, "es_phase": 0, **spacing})
        out.add("B", image, (image % 2).astype(np.uint8), labelled & False, spacing)
    opened = store.open(tmp_path / "s")
    slices = data.load(opened.path, opened.digest)
    assert slices.patients == ("A",)  # nobody labelled B
    assert [(int(p), int(z)) for p, z in zip(slices.phase_N, slices.level_N, strict=True)] == [(0, 0), (1, 1)]
    assert (slices.image_NYX[np.arange(2)] == image[[0, 1], [0, 1]]).all()
    assert slices.ed_es == ((1, 0),)
    with pytest.raises(ValueError, match="its data are not those"):
        data.load(opened.path, "another digest")
    with pytest.raises(ValueError, match=r"size is 16, wanted a multiple of 16"):
        data.check(opened, [Config(train=Train(folds=3))])


def test_slices_are_mapped_where_they_lie_and_nothing_can_change_them(store_path: Path) -> None:
    opened = store.open(store_path)
    slices = data.load(store_path, opened.digest)
    order = np.array([29, 3, 3, 17])
    for stack, name in ((slices.image_NYX, "image_TZYX"), (slices.mask_NYX, "mask_TZYX")):
        assert isinstance(stack, Stack)
        whole = [p.array(name) for p in opened.patients]
        places = zip(slices.patient_N[order], slices.phase_N[order], slices.level_N[order], strict=True)
        assert np.array_equal(stack[order], [whole[p][t, z] for p, t, z in places])
        assert (stack.shape, len(stack)) == ((30, 48, 48), 30)
    mapped_TZYX = opened.patients[0].mapped("image_TZYX")
    assert isinstance(mapped_TZYX.base, np.memmap)
    assert not mapped_TZYX.flags.writeable
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(store_path / "DET9000001" / "image_TZYX") in maps.read_text()


def test_a_store_that_lost_a_file_is_not_taken_for_background(store_path: Path, tmp_path: Path) -> None:
    shutil.copytree(store_path, tmp_path / "s")
    opened = store.open(tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "DET9000002" / "mask_TZYX" / "c")
    with pytest.raises(ValueError, match=r"DET9000002/mask_TZYX is damaged \(No such file or directory\); convert"):
        data.load(opened.path, opened.digest)
    assert len(data.labelled_patients(opened)) == 4
    chunk = next(p for p in (tmp_path / "s" / "DET9000003" / "labelled_TZ").rglob("c/*/*"))
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"DET9000003/labelled_TZ is damaged .*convert the raw data again"):
        data.check(opened, [Config(train=Train(folds=3))])


def test_a_fraction_that_leaves_no_patient_is_refused_beforehand(store_path: Path, slices: Slices) -> None:
    """Of five patients in five folds three train; of a tenth of them nobody would."""
    opened = store.open(store_path)
    data.check(opened, [Config(protocol=Protocol(train_fraction=0.17))])
    with pytest.raises(ValueError, match=r"train_fraction is 0.1 of 3 training patients .* none; wanted 0.17 or more"):
        data.check(opened, [Config(), Config(protocol=Protocol(train_fraction=0.1))])
    with pytest.raises(ValueError, match="leaves no patient to train on"):
        folds_of(slices, 5, 0, "validation", 0.1)
