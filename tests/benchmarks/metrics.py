"""The metrics of a volume and its largest component, beside those of others. A thread each.

    python -m tests.benchmarks metrics

Metrics: ours is the whole of `volume_metrics`, six values. The others compute four of them: Dice, Jaccard, mean surface
distance and Hausdorff distance; MONAI with its four calls, scipy with distance transforms of the whole volume. The
floor reads both masks twice, for what overlap needs. Component: MONAI (which needs scikit-image), scipy, cc3d and
SimpleITK on the whole volume, at connectivity 26; the floor copies the volume.

Wanted: 5 x as fast as MONAI. AssertionError where values are not ours.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from mtl import metrics
from tests.benchmarks.peers import Peer, Work, assert_close, compared, library, milliseconds, quietly
from tests.benchmarks.rows import Row

SHAPE_ZYX, SPACING_MM = (12, 192, 192), (8.0, 1.5625, 1.5625)
MS = partial(milliseconds, repeats=10)
COMPARED = ("dice", "jaccard", "msd_mm", "hd_mm")
"""What all compute, in this order."""
TOLERANCE = 1e-6
"""of the largest of them"""


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


def by_monai(truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray) -> Work:
    """Its four calls."""
    monai = library("monai.metrics")
    masks = [torch.from_numpy(mask)[None, None] for mask in (prediction_ZYX, truth_ZYX)]

    def four() -> list[float]:
        return [
            monai.compute_dice(*masks).item(),
            monai.compute_iou(*masks).item(),
            monai.compute_average_surface_distance(*masks, symmetric=True, spacing=SPACING_MM).item(),
            monai.compute_hausdorff_distance(*masks, spacing=SPACING_MM).item(),
        ]

    return partial(quietly, four)


def by_scipy(truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray) -> Work:
    """What one writes at first: borders by erosion, and from each to the other by distance transforms."""
    ndimage = library("scipy.ndimage")

    def four() -> list[float]:
        shared, either = (truth_ZYX & prediction_ZYX).sum(), (truth_ZYX | prediction_ZYX).sum()
        a, b = (mask & ~ndimage.binary_erosion(mask) for mask in (truth_ZYX, prediction_ZYX))
        to_a, to_b = (ndimage.distance_transform_edt(~border, SPACING_MM) for border in (a, b))
        surface_mm = np.concatenate([to_b[a], to_a[b]])
        return [2 * shared / (shared + either), shared / either, surface_mm.mean(), surface_mm.max()]

    return four


def reading(truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray) -> Work:
    return lambda: ((truth_ZYX & prediction_ZYX).sum(), (truth_ZYX | prediction_ZYX).sum())


def component_by_monai(mask_ZYX: np.ndarray) -> Work:
    library("skimage")  # without which it finds nothing to call
    keep = library("monai.transforms").KeepLargestConnectedComponent(is_onehot=False)
    return partial(quietly, lambda: keep(torch.from_numpy(mask_ZYX)[None])[0].numpy())


def component_by_scipy(mask_ZYX: np.ndarray) -> Work:
    ndimage = library("scipy.ndimage")

    def largest() -> np.ndarray:
        labels, _ = ndimage.label(mask_ZYX, np.ones((3, 3, 3)))
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        return labels == sizes.argmax()

    return largest


def component_by_cc3d(mask_ZYX: np.ndarray) -> Work:
    cc3d = library("cc3d")
    return lambda: cc3d.largest_k(mask_ZYX, k=1, connectivity=26, binary_image=True) > 0


def component_by_simpleitk(mask_ZYX: np.ndarray) -> Work:
    sitk = library("SimpleITK")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def largest() -> np.ndarray:
        labels = sitk.ConnectedComponent(sitk.GetImageFromArray(mask_ZYX.view(np.uint8)), True)
        return sitk.GetArrayViewFromImage(sitk.RelabelComponent(labels, sortByObjectSize=True)) == 1

    return largest


def metrics_row(rounds: int) -> Row:
    rng = np.random.default_rng(0)
    pair = ventricle(rng, 0.5), ventricle(rng, 2.5)
    peers = {
        "MONAI's four calls": Peer(partial(by_monai, *pair), wanted=5),
        "scipy, whole volume": Peer(partial(by_scipy, *pair)),
        "reading the masks": Peer(partial(reading, *pair), floor=True),
    }
    ours = partial(metrics.volume_metrics, *pair, SPACING_MM)
    values = ours()

    def agree(name: str, given: list[float]) -> None:
        for of, one in zip(COMPARED, given, strict=True):
            assert_close(f"{name}, {of}", [one], [values[of]], TOLERANCE)

    note = f"six values, the others four; Dice {values['dice']:.2f}"
    return compared(partial(_row, "metrics", note=note), ours, peers, MS, rounds, agree)


def component_row(rounds: int) -> Row:
    rng = np.random.default_rng(0)
    mask_ZYX = speckled(ventricle(rng, 2.5), rng)
    peers = {
        "MONAI": Peer(partial(component_by_monai, mask_ZYX), wanted=5),
        "scipy, whole volume": Peer(partial(component_by_scipy, mask_ZYX)),
        "cc3d": Peer(partial(component_by_cc3d, mask_ZYX)),
        "SimpleITK": Peer(partial(component_by_simpleitk, mask_ZYX)),
        "memory copy": Peer(lambda: mask_ZYX.copy, floor=True),
    }
    wanted_ZYX = metrics.largest_component(mask_ZYX)

    def agree(name: str, given: np.ndarray) -> None:
        assert np.array_equal(given, wanted_ZYX), f"{name}: another component than ours"

    ours = partial(metrics.largest_component, mask_ZYX)
    return compared(partial(_row, "largest component"), ours, peers, MS, rounds, agree)


def _row(what: str, **fields: object) -> Row:
    return Row(f"{what}, {' x '.join(map(str, SHAPE_ZYX))}, one thread", "ms a volume", **fields)


def rows(rounds: int = 5) -> Iterator[Row]:
    """Both rows."""
    torch.set_num_threads(1)
    yield metrics_row(rounds)
    yield component_row(rounds)
