"""What the areas say of the heart: volumes of a structure, mass of the myocardium, ejection fraction of a ventricle.

A volume is its areas times the distance between slices, summed over the labelled slices (the rule of discs).

Legend: P patient, S test slice.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mtl.results import DENSITY_G_ML, Trained

VENTRICLES = ("left ventricle", "right ventricle")
"""structures that are cavities, which fill and empty"""


@dataclass(frozen=True)
class PerPatient:
    """A number of each patient whose true one is known, sorted by patient."""

    unit: str
    patients: tuple[str, ...]
    true_P: np.ndarray
    measured_P: dict[str, np.ndarray]
    """by source, as in Trained.sources; NaN where what was measured gives none"""
    unknown: int
    """patients left out: their store does not say how far slices lie apart, or where ED and ES are, or the structure is
    not drawn there"""

    def times(self, factor: float, unit: str) -> "PerPatient":
        measured_P = {name: factor * value_P for name, value_P in self.measured_P.items()}
        return PerPatient(unit, self.patients, factor * self.true_P, measured_P, self.unknown)

    def known(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """True and measured, of the patients of whom both are known."""
        both_P = np.isfinite(self.measured_P[source])
        return self.true_P[both_P], self.measured_P[source][both_P]


def volume(trained: Trained, phase_set: str) -> PerPatient:
    """Of the structure at one set of phases, ml: of each patient the mean over its volumes there."""
    areas, volumes = trained.areas, trained.volumes
    spacing_mm = dict(zip(volumes.keys, volumes.slice_spacing_mm_V.tolist(), strict=True))
    where = np.flatnonzero(areas.among(phase_set))
    keys = [(str(areas.patient_S[s]), int(areas.phase_S[s])) for s in where]
    spacing_S = np.array([spacing_mm.get(key, math.nan) for key in keys])
    patients, patient_of_S = np.unique(areas.patient_S[where], return_inverse=True)
    phases = Counter(patient for patient, _ in set(keys))
    phases_P = np.array([phases[str(patient)] for patient in patients])

    def per_patient(mm2_S: np.ndarray) -> np.ndarray:
        ml_S = mm2_S[where] * spacing_S / 1000
        return np.asarray(np.bincount(patient_of_S, ml_S, minlength=len(patients)) / phases_P)

    true_P = per_patient(areas.true_mm2_S)
    known_P = np.isfinite(true_P)
    measured_P = {name: per_patient(mm2_S)[known_P] for name, mm2_S in trained.sources.items()}
    named = tuple(str(patient) for patient in patients[known_P])
    return PerPatient("ml", named, true_P[known_P], measured_P, int((~known_P).sum()))


def mass(trained: Trained) -> PerPatient:
    """Of the myocardium at end-diastole, g."""
    return volume(trained, "ED").times(DENSITY_G_ML, "g")


def ejection_fraction(trained: Trained) -> PerPatient:
    """(EDV - ESV) / EDV of a ventricle, %, of the patients with both phases."""
    ed, es = volume(trained, "ED"), volume(trained, "ES")
    shared = sorted({*ed.patients} & {*es.patients})
    everyone = {str(patient) for patient in trained.areas.patient_S}

    def fraction(of: Callable[[PerPatient], np.ndarray]) -> np.ndarray:
        edv_P, esv_P = (
            np.array([value for patient, value in zip(one.patients, of(one), strict=True) if patient in {*shared}])
            for one in (ed, es)
        )
        with np.errstate(divide="ignore", invalid="ignore"):  # nothing was measured at ED: there is no fraction
            return np.asarray(np.where(edv_P > 0, 100 * (edv_P - esv_P) / edv_P, np.nan))

    measured_P = {name: fraction(lambda one, name=name: one.measured_P[name]) for name in trained.sources}  # type: ignore[misc]
    true_P = fraction(lambda one: one.true_P)
    known_P = np.isfinite(true_P)
    kept = tuple(patient for patient, known in zip(shared, known_P, strict=True) if known)
    measured_P = {name: value_P[known_P] for name, value_P in measured_P.items()}
    return PerPatient("%", kept, true_P[known_P], measured_P, len(everyone) - len(kept))
