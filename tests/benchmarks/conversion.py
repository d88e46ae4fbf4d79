"""The conversion against what a user would write instead, with two workers, and as it grows.

    BRANCHPOINT_REAL_DATA=FOLDER python -m tests.benchmarks conversion

Ours is the whole of it: find, read, check, resample, write the store to the disk and its report. The others read
and resample slice by slice, with one thread as ours, and write nothing; a mask must have its image's matrix. All
files are in the page cache. FOLDER holds cases in LVSC's layout, to measure on one of them too. Wanted: 3 x as fast
as SimpleITK per slice (the paper's way), 8 x as fast as MONAI; two workers 1.8 x as fast as one; 5 and 50 patients
within 10 % a slice; a worker below 1 GB.
"""

import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from data_prep import convert, grid, inventory, phantom
from data_prep.readers import lvsc
from data_prep.readers.found import Options
from tests.benchmarks.rows import Beside, Row, interleaved, seconds

ROOT = Path(__file__).resolve().parent.parent.parent
SPACING_MM, SIZE = grid.SPACING_MM, grid.SIZE


class Files(NamedTuple):
    """One slice."""

    image: Path
    mask: Path | None


Arrays = tuple[np.ndarray, np.ndarray | None]
"""image and mask (Y, X) on the store's grid; MONAI's centre lies up to a pixel elsewhere"""

MEMORY = "/dev/shm"
"""Linux's file system in memory. A virtual machine's disk takes part of the processors that it is measured on."""
WANTED_TAGS = [
    *("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns", "PixelData"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("PhotometricInterpretation", "NumberOfFrames", "RescaleSlope", "RescaleIntercept"),
]
MONAI: dict[str, dict[str, Any]] = {
    "MONAI, PydicomReader": {"reader": "PydicomReader"},
    "MONAI, PydicomReader told its tags": {"reader": "PydicomReader", "specific_tags": WANTED_TAGS},
    "MONAI, ITKReader": {"reader": "ITKReader"},
}
"""How a user may set it up; the second is for those who know that private tags cost most of the time."""
SIMPLEITK, BYTES = "SimpleITK per slice", "reading the bytes"
WANTED: dict[str, float] = {SIMPLEITK: 3, "MONAI, PydicomReader": 8, "MONAI, ITKReader": 8}


def cases_of(raw: Path, phases: int | None = None) -> dict[str, list[Files]]:
    """Case -> its slices, as our own reader finds them. phases: the first so many alone."""
    cases = {}
    for case in lvsc.find(inventory.take(raw), Options()).cases:
        masks = {place: case.files[label] for place, (label, *_) in case.details["masks"].items()}
        images = {place: case.files[label] for place, (label, *_) in case.details["images"].items()}
        wanted = sorted({phase for _, phase in images})[:phases]
        cases[case.name] = [Files(file, masks.get(place)) for place, file in images.items() if place[1] in wanted]
    return cases


def real_case(folder: Path, copy: Path, phases: int | None = None) -> str:
    """Copy the case with most masks, preferring one whose images all have theirs; its name. phases: the first so many
    alone."""
    cases = cases_of(folder, phases)
    masked = {name: [slice_.mask is not None for slice_ in slices] for name, slices in cases.items()}
    name = max(masked, key=lambda name: (all(masked[name]), sum(masked[name])))
    copy.mkdir()
    for path in itertools.chain.from_iterable(cases[name]):
        if path is not None:
            shutil.copy(path, copy)
    return name


def by_simpleitk(files: Files) -> Arrays:
    """The paper's way. One resampling onto the wanted grid makes what is left after a crop or pad, and no more."""
    image = sitk.ReadImage(str(files.image), sitk.sitkFloat32)[:, :, 0]  # resampling int16 truncates
    grey_YX = _onto_grid(image, image.GetSpacing(), sitk.sitkLinear)
    if files.mask is None:
        return grey_YX, None
    mask = sitk.ReadImage(str(files.mask))
    if mask.GetNumberOfComponentsPerPixel() > 1:
        mask = sitk.VectorIndexSelectionCast(mask, 0)
    return grey_YX, _onto_grid(mask, image.GetSpacing(), sitk.sitkNearestNeighbor) > 0


def _onto_grid(image: sitk.Image, spacing_mm: Sequence[float], interpolator: int) -> np.ndarray:
    flat, corner_mm = (1, 0, 0, 1), -(SIZE - 1) / 2 * SPACING_MM
    image.SetSpacing(spacing_mm)
    image.SetDirection(flat)
    image.SetOrigin([-(n - 1) / 2 * step for n, step in zip(image.GetSize(), spacing_mm, strict=True)])
    output = ((SIZE,) * 2, sitk.Transform(), interpolator, (corner_mm,) * 2, (SPACING_MM,) * 2, flat)
    return sitk.GetArrayFromImage(sitk.Resample(image, *output))


def by_monai(reader: str, **options: Any) -> Callable[[Files], Arrays]:
    """MONAI's dictionary transforms. ImportError where it or the reader's library is not installed."""
    logging.getLogger("monai").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both speak of libraries for GPUs that are not installed
        chain = _monai_chain(reader, options)

    def convert_slice(files: Files) -> Arrays:
        made = chain({"image": files.image} if files.mask is None else files._asdict())
        image_YX, *masks = (made[name].numpy().reshape(SIZE, SIZE).T for name in ("image", "mask") if name in made)
        return image_YX, masks[0] > 0 if masks else None

    return convert_slice


def _monai_chain(reader: str, options: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """As a user must write it for one oblique slice a file.

    ITKReader gives a volume of one slice. PydicomReader gives a plane with the volume's affine, of which Spacing
    takes the first rows (1.77 x 1.08 mm for pixels of 1.77 mm), so the affine is set from PixelSpacing. A PNG has
    no affine and takes its image's.
    """
    import torch
    from monai import data, transforms

    torch.set_num_threads(1)
    if reader == "ITKReader":
        import itk  # noqa: F401
    third = [-1] if reader == "ITKReader" else []

    def placed(made: dict[str, Any]) -> dict[str, Any]:
        image = made["image"]
        if not third:
            row_mm, column_mm = image.meta["00280030"]["Value"]
            image.affine = torch.diag(torch.tensor([column_mm, row_mm, 1.0, 1.0], dtype=torch.float64))
        if "mask" in made:
            made["mask"] = made["mask"].reshape(image.shape)
            made["mask"].affine = image.affine
        return made

    one_channel = data.PILReader(converter=lambda png: png.convert("L"))
    both = {"keys": ("image", "mask"), "allow_missing_keys": True}
    return transforms.Compose(
        [
            transforms.LoadImaged("image", reader=reader, **options),
            transforms.LoadImaged("mask", reader=one_channel, allow_missing_keys=True),
            transforms.EnsureChannelFirstd(**both, channel_dim="no_channel"),
            placed,
            transforms.Spacingd(**both, pixdim=[SPACING_MM] * 2 + third, mode=("bilinear", "nearest")),
            transforms.ResizeWithPadOrCropd(**both, spatial_size=[SIZE] * 2 + third),
        ]
    )


def read_bytes(files: Files) -> None:
    for path in files:
        if path is not None:
            path.read_bytes()


def against_peers(name: str, raw: Path, rounds: int) -> Row:
    """ms a slice."""
    slices = [files for case in cases_of(raw).values() for files in case]
    masks = sum(files.mask is not None for files in slices)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # as ours; no slower on such small images
    peers, missing = _peers()

    def each(peer: Callable[[Files], object]) -> None:
        for files in slices:
            peer(files)

    with tempfile.TemporaryDirectory() as home:
        stores = (Path(home) / f"{n}.zarr" for n in itertools.count())
        ways = {"ours": lambda: seconds(lambda: convert.convert(raw, next(stores)))}
        ways |= {peer: partial(seconds, partial(each, work)) for peer, work in peers.items()}
        ms = {way: [1000 * s / len(slices) for s in measured] for way, measured in interleaved(ways, rounds).items()}
    beside = [Beside(peer, ms[peer], WANTED.get(peer), floor=peer == BYTES) for peer in peers]
    return Row(f"conversion, {name}, {len(slices)} slices, {masks} masks", "ms a slice", ms["ours"], beside + missing)


def _peers() -> tuple[dict[str, Callable[[Files], object]], list[Beside]]:
    """Those that are installed, and those that are not."""
    peers: dict[str, Callable[[Files], object]] = {SIMPLEITK: by_simpleitk}
    missing = []
    for peer, setting in MONAI.items():
        try:
            peers[peer] = by_monai(**setting)
        except ImportError as error:
            missing.append(Beside(peer, missing=f"{error.name} is not installed"))
    return peers | {BYTES: read_bytes}, missing


def link_copies(raw: Path, folder: Path, patients: int) -> int:
    """That many cases in `folder`, linked to those of `raw` in turn under codes of their own; how many slices."""
    cases, slices = list(cases_of(raw).values()), 0
    for number in range(patients):
        code = f"DET8{number:06d}"
        (folder / code).mkdir(parents=True)
        for path in itertools.chain.from_iterable(cases[number % len(cases)]):
            if path is not None:
                _, _, place = path.name.partition("_")
                os.link(path, folder / code / f"{code}_{place}")
        slices += len(cases[number % len(cases)])
    return slices


def converted(raw: Path, workers: int = 1, on: str | None = None) -> float:
    """Seconds of a conversion into a store that is thrown away, in the folder `on` for temporary files."""
    with tempfile.TemporaryDirectory(dir=on) as home:
        return seconds(lambda: convert.convert(raw, Path(home) / "store.zarr", workers=workers))


def two_workers(few: int, many: int, slices: int, phases: int, rounds: int, on: str | None = None) -> Row:
    """slices/s of one and of two, from what `many` patients take longer than `few`: no start is in it."""
    with tempfile.TemporaryDirectory(dir=on) as home:
        raw, small, large = (Path(home) / name for name in ("raw", "few", "many"))
        phantom.make(raw, min(few, 5), slices, phases, seed=0)
        more = link_copies(raw, large, many) - link_copies(raw, small, few)
        ways = {str(n): (lambda n=n: more / (converted(large, n, on) - converted(small, n, on))) for n in (1, 2)}
        rate = interleaved(ways, rounds, warm_up=False)
    where = "files in memory" if on else "disk"
    name = f"conversion by two workers, {where}, {more} slices beyond their start"
    return Row(name, "slices/s", rate["2"], [Beside("one worker", rate["1"], wanted=1.8)], rate=True)


def linearity(few: int, many: int, slices: int, phases: int, rounds: int) -> Iterator[Row]:
    """ms a slice of many patients over that of few, and the peak memory of a process of its own."""
    with tempfile.TemporaryDirectory() as home:
        raw, long = Path(home) / "raw", Path(home) / "long"
        phantom.make(raw, min(few, 5), slices, phases, seed=0)
        phantom.make(long, 1, 4 * slices, 4 * phases, seed=0)
        count = {n: link_copies(raw, Path(home) / str(n), n) for n in (few, many)}
        peaks: dict[str, list[float]] = {}

        def ms_a_slice(n: int) -> float:
            took_s, peak_MB = alone(raw, Path(home) / str(n))
            peaks.setdefault(str(n), []).append(peak_MB)
            return 1000 * took_s / count[n]

        ms = interleaved({str(n): partial(ms_a_slice, n) for n in (few, many)}, rounds, warm_up=False)
        _, peak_long_MB = alone(raw, long)
    name = f"conversion of {many} patients, {slices * phases} slices each"
    yield Row(name, "ms a slice", ms[str(many)], [Beside(f"{few} patients", ms[str(few)], wanted=0.9)])
    note = f"one patient of {16 * slices * phases} slices: {peak_long_MB:.0f} MB"
    few_MB = Beside(f"{few} patients", peaks[str(few)])
    yield Row(f"{name}: a process's peak memory", "MB", peaks[str(many)], [few_MB], wanted=1000, note=note)


def alone(warm: Path, raw: Path) -> tuple[float, float]:
    """Seconds of a conversion in a process of its own that is warm, and the process's peak memory, MB."""
    command = [sys.executable, "-m", "tests.benchmarks.conversion", str(warm), str(raw)]
    ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    took_s, peak_MB = json.loads(ended.stdout)
    return took_s, peak_MB


def peak_memory_MB() -> float:
    """Of this process. Not ru_maxrss: that begins with the size of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def rows(rounds: int = 5) -> Iterator[Row]:
    """All of it."""
    with tempfile.TemporaryDirectory() as home:
        raw = Path(home) / "raw"
        phantom.make(raw, patients=1, slices=10, phases=10, seed=0)
        yield against_peers("the phantom's files", raw, rounds)
        folder = os.environ.get("BRANCHPOINT_REAL_DATA")
        if not folder:
            yield Row("conversion, real files", "", (), missing="BRANCHPOINT_REAL_DATA names no folder")
        else:
            real_case(Path(folder), Path(home) / "real", phases=6)
            yield against_peers("a real case", Path(home) / "real", rounds)
    for on in (None, MEMORY) if Path(MEMORY).is_dir() else (None,):
        yield two_workers(few=5, many=20, slices=10, phases=10, rounds=rounds, on=on)
    yield from linearity(few=5, many=50, slices=6, phases=5, rounds=rounds)


if __name__ == "__main__":
    converted(Path(sys.argv[1]))
    print(json.dumps([converted(Path(sys.argv[2])), peak_memory_MB()]))
