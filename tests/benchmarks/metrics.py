"""The metrics of a volume against MONAI's, and its largest component.

    python -m tests.benchmarks metrics

Ours is the whole of `volume_metrics`, six values; MONAI's are four calls: Dice, Jaccard, mean surface distance and
Hausdorff distance. A thread each. Wanted: at most a fifth of MONAI's time, at equal values.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from mtl import metrics
from tests.benchmarks.rows import interleaved, ratios, seconds, spread

SHAPE_ZYX, SPACING_MM = (12, 192, 192), (8.0, 1.5625, 1.5625)
REPEATS = 10
COMPARED = ("dice", "jaccard", "msd_mm", "hd_mm")
"""What both compute, in the order of MONAI's calls."""


def ventricle(rng: np.random.Generator, noise_mm: float) -> np.ndarray:
    """A hollow ventricle, narrower from base to apex, whose two walls waver by about `noise_mm`."""
    steps_Y, steps_X = ((np.arange(n) - n / 2) * SPACING_MM[1] for n in SHAPE_ZYX[1:])
    radius_mm_YX, angle_YX = np.hypot(steps_Y[:, None], steps_X), np.arctan2(steps_Y[:, None], steps_X)
    mask_ZYX = np.zeros(SHAPE_ZYX, bool)
    for z, outer_mm in enumerate(np.linspace(40, 20, SHAPE_ZYX[0] - 2), start=1):
        waves = rng.normal(0, noise_mm / 2, (2, 4))
        turns = angle_YX[..., None] * np.arange(1, 5) + rng.uniform(0, 2 * np.pi, 4)
        outer_YX, inner_YX = (outer_mm - wall + np.sin(turns) @ wave for wall, wave in zip((0, 10), waves, strict=True))
        mask_ZYX[z] = (radius_mm_YX < outer_YX) & (radius_mm_YX > inner_YX)
    return mask_ZYX


def speckled(mask_ZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask with 20 small blobs, which the largest component leaves out."""
    mask_ZYX = mask_ZYX.copy()
    for z, y, x in rng.integers((0, 40, 40), (12, 150, 150), (20, 3)):
        mask_ZYX[z, y : y + 3, x : x + 3] = True
    return mask_ZYX


def by_monai() -> Callable[[np.ndarray, np.ndarray], list[float]]:
    """MONAI's four calls. ImportError where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries for GPUs that are not installed
        from monai.metrics import (
            compute_average_surface_distance,
            compute_dice,
            compute_hausdorff_distance,
            compute_iou,
        )

    def four(truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray) -> list[float]:
        masks = torch.from_numpy(prediction_ZYX)[None, None], torch.from_numpy(truth_ZYX)[None, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI 1.6 passes itself an argument that it deprecates
            return [
                compute_dice(*masks).item(),
                compute_iou(*masks).item(),
                compute_average_surface_distance(*masks, symmetric=True, spacing=SPACING_MM).item(),
                compute_hausdorff_distance(*masks, spacing=SPACING_MM).item(),
            ]

    return four


def component_by_monai() -> Callable[[np.ndarray], np.ndarray]:
    """KeepLargestConnectedComponent. ImportError where MONAI or scikit-image, which it needs, is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import skimage  # noqa: F401
        from monai.transforms import KeepLargestConnectedComponent
    keep = KeepLargestConnectedComponent(is_onehot=False)
    return lambda mask_ZYX: keep(torch.from_numpy(mask_ZYX)[None])[0].numpy()


def _row(name: str, ways: dict[str, Callable[[], object]], same: Callable[[], bool], rounds: int) -> str:
    """ms of ours and of MONAI's, and MONAI's over ours round by round."""

    def ms(way: Callable[[], object]) -> float:
        return 1000 * seconds(lambda: [way() for _ in range(REPEATS)]) / REPEATS

    took = interleaved({way: partial(ms, work) for way, work in ways.items()}, rounds)
    return (
        f"{name}: ours {spread(took['ours'])} ms, MONAI {spread(took['MONAI'])} ms, "
        f"{spread(ratios(took['MONAI'], took['ours']))} times ours, {rounds} rounds; wanted 5; "
        f"values {'equal' if same() else 'DIFFER'}"
    )


def _metrics_row(truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray, rounds: int) -> str:
    monai = partial(by_monai(), truth_ZYX, prediction_ZYX)
    ours = partial(metrics.volume_metrics, truth_ZYX, prediction_ZYX, SPACING_MM)

    def same() -> bool:
        return np.allclose([ours()[name] for name in COMPARED], monai(), rtol=1e-6, atol=0)

    shape = " x ".join(map(str, SHAPE_ZYX))
    return _row(f"metrics, {shape}, Dice {ours()['dice']:.2f}", {"ours": ours, "MONAI": monai}, same, rounds)


def _component_row(mask_ZYX: np.ndarray, rounds: int) -> str:
    ours, monai = partial(metrics.largest_component, mask_ZYX), partial(component_by_monai(), mask_ZYX)
    return _row("largest component", {"ours": ours, "MONAI": monai}, lambda: bool((ours() == monai()).all()), rounds)


def rows(rounds: int = 5) -> Iterator[str]:
    """Both rows."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    truth_ZYX, prediction_ZYX = ventricle(rng, 0.5), ventricle(rng, 2.5)
    for name, row in {
        "metrics": lambda: _metrics_row(truth_ZYX, prediction_ZYX, rounds),
        "largest component": lambda: _component_row(speckled(prediction_ZYX, rng), rounds),
    }.items():
        try:
            yield row()
        except ImportError as error:
            yield f"{name}: not measured, {error.name} is not installed"
