"""Slices out of a store, and whether it can be trained on.

Legend of shapes: N slice, T phase, Z level, Y row, X column.
"""

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep import store
from mtl.config import Config
from mtl.slices import Slices, Stack, fold_of_subjects, kept_of

MYOCARDIUM = 1
"""its label in every store"""


@lru_cache(maxsize=1)
def load(path: Path, digest: str) -> Slices:
    """All labelled slices of the store at `path`; ValueError if its digest is not `digest` any more.

    Patients without any myocardium in their labels do not count. Every byte is read once to check it, and stays in
    the page cache.
    """
    opened = store.open(path)
    if opened.digest != digest:
        raise ValueError(f"store {path}: its data are not those the run was made for; use another runs= folder")
    patients: list[store.Patient] = []
    images, masks, places, shapes = [], [], [], []
    for patient in opened.patients:
        image_TZYX, mask_TZYX, labelled_TZ = _whole(opened, patient)
        if not (mask_TZYX[labelled_TZ] == MYOCARDIUM).any():
            continue
        phase, level = np.nonzero(labelled_TZ)
        places.append(np.stack([np.full_like(phase, len(patients)), phase, level]))
        images.append(image_TZYX)
        masks.append(mask_TZYX)
        shapes.append((labelled_TZ.shape[0], labelled_TZ.shape[1]))
        patients.append(patient)
    patient_N, phase_N, level_N = places_3N = np.concatenate(places, axis=1)
    return Slices(
        image_NYX=Stack(images, places_3N.T),
        mask_NYX=Stack(masks, places_3N.T),
        patient_N=patient_N,
        phase_N=phase_N,
        level_N=level_N,
        patients=tuple(p.key for p in patients),
        subjects=tuple(p.subject for p in patients),
        strata=tuple(p.stratum for p in patients),
        ed_es=tuple((p.ed_phase, p.es_phase) for p in patients),
        shape_TZ=tuple(shapes),
        slice_spacing_mm=tuple(float(p.attributes.get("slice_spacing_mm", "nan")) for p in patients),
        pixel_spacing_mm=opened.spacing_mm,
        structures=opened.classes[1:],
        source=opened.source,
    )


def _whole(opened: store.Store, patient: store.Patient) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A patient's three arrays; ValueError unless they are the ones that were written."""
    image_TZYX, mask_TZYX, labelled_TZ = (patient.mapped(name) for name in store.ARRAYS)
    if image_TZYX.shape[2:] != opened.size or mask_TZYX.shape != image_TZYX.shape:
        raise ValueError(f"store {opened.path}: {patient.key}: arrays are not {opened.size}; convert again")
    if store.digest(image_TZYX, mask_TZYX, labelled_TZ) != patient.attributes["digest"]:
        raise ValueError(f"store {opened.path}: {patient.key} is damaged (its digest differs); convert again")
    return image_TZYX, mask_TZYX, labelled_TZ


def labelled_patients(opened: store.Store) -> list[store.Patient]:
    """Those with myocardium in their labels. The others do not count."""
    return [p for p in opened.patients if p.has(MYOCARDIUM)]


def check(opened: store.Store, configs: Iterable[Config], structures: int = 0) -> None:
    """ValueError unless all of these can be trained on the store. structures: that are wanted; 0: any."""
    if len(opened.classes) < 2:
        raise ValueError(f"store {opened.path}: names no structure in its classes; convert again")
    if structures and len(opened.classes) - 1 != structures:
        raise ValueError(
            f"store {opened.path}: labels {', '.join(opened.classes[1:])}, and the sweep asks about {structures} "
            "structures (sweep.structures); name the store of another archive, or ask another sweep"
        )
    rows, columns = opened.size
    if rows != columns:
        raise ValueError(f"store {opened.path}: images of {rows} x {columns}, wanted square ones; convert again")
    store.check_size(f"store {opened.path}: size", rows)
    labelled = labelled_patients(opened)
    for label, structure in enumerate(opened.classes[2:], start=2):
        if not any(patient.has(label) for patient in labelled):
            raise ValueError(
                f"store {opened.path}: names the {structure}, which no mask of it holds; convert again with labels for "
                "what is drawn alone (--label)"
            )
    subjects, strata = [p.subject for p in labelled], [p.stratum for p in labelled]
    for folds, protocol in dict.fromkeys((config.train.folds, config.protocol) for config in configs):
        sizes = Counter(fold_of_subjects(subjects, strata, folds, protocol.fold_seed).values())
        held_out = [sizes[k] + (sizes[(k + 1) % folds] if protocol.selection == "validation" else 0) for k in sizes]
        left = sizes.total() - max(held_out)
        if not kept_of(protocol.train_fraction, left):
            raise ValueError(
                f"protocol.train_fraction is {protocol.train_fraction:g} of {left} training patients in a fold, which "
                f"leaves none; wanted {math.ceil(50 / left) / 100:g} or more"
            )
