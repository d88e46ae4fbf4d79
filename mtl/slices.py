"""Slices in memory, folds by subject: what a training takes, wherever it comes from. No store and no torch here.

Legend of shapes: N slice, A area (one per class), B batch, C channel, T phase, Z level, Y row, X column.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SET_NAMES = ("validation", "test")


class Stack:
    """(N, Y, X): slices where they lie in the store's files, copied when they are asked for.

    The files are mapped, so all folds and ranks of a machine share one copy, which is the system's page cache.
    """

    def __init__(self, volumes: Sequence[np.ndarray], places_N3: np.ndarray) -> None:
        """volumes: (T, Z, Y, X) of each patient. places_N3: patient, phase and level of each slice."""
        self._volumes, self._places_N3 = volumes, places_N3
        self.dtype = volumes[0].dtype
        self.shape: tuple[int, int, int] = (len(places_N3), *volumes[0].shape[2:])

    def __len__(self) -> int:
        return len(self._places_N3)

    def __getitem__(self, index_B: np.ndarray) -> np.ndarray:
        """(B, Y, X), a copy."""
        slices_BYX = np.empty((len(index_B), *self.shape[1:]), self.dtype)
        for slice_YX, (patient, phase, level) in zip(slices_BYX, self._places_N3[index_B].tolist(), strict=True):
            slice_YX[...] = self._volumes[patient][phase, level]
        return slices_BYX


@dataclass(frozen=True)
class Slices:
    """Every labelled slice of a store; N runs over patient, then phase, then level."""

    image_NYX: "np.ndarray | Stack"
    """int16 grey levels"""
    mask_NYX: "np.ndarray | Stack"
    """uint8: 0, or the place of a structure in `structures`, counted from 1"""
    patient_N: np.ndarray
    phase_N: np.ndarray
    level_N: np.ndarray
    patients: tuple[str, ...]
    subjects: tuple[str, ...]
    strata: tuple[str, ...]
    ed_es: tuple[tuple[int | None, int | None], ...]
    """ED and ES per patient, as indices of T"""
    shape_TZ: tuple[tuple[int, int], ...]
    """phases and levels per patient, labelled or not"""
    slice_spacing_mm: tuple[float, ...]
    """between neighbouring levels, per patient; NaN where the store does not say"""
    pixel_spacing_mm: tuple[float, float]
    """along rows (Y) and columns (X)"""
    structures: tuple[str, ...] = ("myocardium",)
    """what the labels 1, 2, ... are, A of them; the first is the myocardium"""
    source: str = ""
    """where the store's images come from, by the reader's name; `phantom`: made up"""

    @property
    def pixel_mm2(self) -> float:
        return self.pixel_spacing_mm[0] * self.pixel_spacing_mm[1]

    @cached_property
    def volume_N(self) -> np.ndarray:
        """Which volume (a patient at a phase) a slice belongs to, counted from 0."""
        places = np.stack([self.patient_N, self.phase_N])
        _, volume_N = np.unique(places, axis=1, return_inverse=True)
        return volume_N

    @cached_property
    def volume_intensity_N2(self) -> np.ndarray:
        """Mean and standard deviation of the grey levels of the volume that a slice belongs to, float32."""
        everyone = np.arange(len(self.patient_N))
        images = (self.image_NYX[some].astype(np.float64) for some in _in_parts(everyone))
        moments_N2 = np.concatenate(
            [np.stack([image.sum(axis=(1, 2)), np.square(image).sum(axis=(1, 2))], axis=1) for image in images]
        )
        pixels_V = np.bincount(self.volume_N) * math.prod(self.image_NYX.shape[1:])
        mean_V, square_V = (np.bincount(self.volume_N, moment) / pixels_V for moment in moments_N2.T)
        deviation_V = np.sqrt(np.maximum(square_V - mean_V**2, 0))
        intensity_V2 = np.stack([mean_V, deviation_V], axis=1)
        return np.asarray(intensity_V2[self.volume_N], np.float32)

    def area_mm2_NA(self, index_N: np.ndarray) -> np.ndarray:
        """Area of each structure in these slices, mm2."""
        pixels_NA = [pixels_of(self.mask_NYX[some], len(self.structures)) for some in _in_parts(index_N)]
        return np.asarray(np.concatenate(pixels_NA) * self.pixel_mm2)


def pixels_of(mask_NYX: np.ndarray, structures: int) -> np.ndarray:
    """(N, A): how many pixels carry each of the labels 1, 2, ..., A."""
    return np.stack([(mask_NYX == label).sum(axis=(1, 2)) for label in range(1, structures + 1)], axis=1)


def _in_parts(index_N: np.ndarray, size: int = 256) -> list[np.ndarray]:
    """So that few slices at a time are copied."""
    return np.array_split(index_N, max(1, -(-len(index_N) // size)))


@dataclass(frozen=True)
class Fold:
    """Indices into Slices (axis N). `validation` is empty where the test fold selects, as in the paper."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def selection(self) -> np.ndarray:
        """The slices by which the best epoch is chosen."""
        return self.validation if len(self.validation) else self.test


def fold_of_subjects(subjects: Sequence[str], strata: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Subject -> fold, balanced within each stratum. ValueError when there are fewer subjects than folds."""
    stratum_of = dict(zip(subjects, strata, strict=True))
    if len(stratum_of) < folds:
        advice = f"set train.folds={len(stratum_of)} or use a larger store"
        raise ValueError(
            f"{len(stratum_of)} patients for {folds} folds; wanted at least one per fold: "
            + (advice if len(stratum_of) >= 3 else "use a larger store")
        )
    shuffled = np.random.default_rng(seed).permutation(np.array(sorted(stratum_of), dtype=object))
    by_stratum = sorted(shuffled, key=lambda subject: stratum_of[subject])  # stable: keeps the shuffle
    return {subject: n % folds for n, subject in enumerate(by_stratum)}


def folds_of(slices: Slices, folds: int, seed: int, selection: str, train_fraction: float = 1.0) -> list[Fold]:
    """Fold k tests on its own subjects; with `validation` it selects on those of fold k + 1.

    So every subject validates once and tests once (60 % train, of five folds); with `test`, the paper's
    protocol, 80 % train and the best epoch is chosen on the test fold itself, which is optimistic.
    train_fraction: of the training subjects so many are used; what tests and validates stays. ValueError where that
    leaves none.
    """
    of_subject = fold_of_subjects(slices.subjects, slices.strata, folds, seed)
    fold_N = np.array([of_subject[subject] for subject in slices.subjects])[slices.patient_N]
    made = []
    for k in range(folds):
        test, validation = fold_N == k, (fold_N == (k + 1) % folds) & (selection == "validation")
        train = ~test & ~validation
        if train_fraction < 1:
            kept = _first_of({slices.subjects[p] for p in slices.patient_N[train]}, slices, seed, train_fraction)
            train &= np.array([subject in kept for subject in slices.subjects])[slices.patient_N]
            if not kept:
                raise ValueError(f"fold {k}: protocol.train_fraction={train_fraction:g} leaves no patient to train on")
        made.append(Fold(*(np.flatnonzero(which) for which in (train, validation, test))))
    return made


def _first_of(subjects: Collection[str], slices: Slices, seed: int, fraction: float) -> set[str]:
    """A share of `subjects`, from every stratum alike: the beginning of an order that no fraction changes."""
    stratum_of = dict(zip(slices.subjects, slices.strata, strict=True))
    shuffled = np.random.default_rng([seed, 1]).permutation(np.array(sorted(subjects), dtype=object))
    sizes, seen, place = Counter(stratum_of[s] for s in subjects), Counter[str](), {}
    for subject in shuffled:
        place[subject] = (seen[stratum_of[subject]] + 0.5) / sizes[stratum_of[subject]]
        seen[stratum_of[subject]] += 1
    order = sorted(shuffled, key=lambda subject: place[subject])
    return set(order[: kept_of(fraction, len(order))])


def kept_of(fraction: float, patients: int) -> int:
    """Of so many; half a patient is one where it would else be none."""
    return round(fraction * patients) or int(fraction * patients >= 0.5)
