"""A store to look at: pictures of the slices with their masks' contours.

    python -m data_prep.preview STORE OUT.png   # one page: every patient at a mid-ventricular level
    python -m data_prep.preview STORE OUT_DIR   # overview.png, that page, and a sheet per patient, base to apex

Shown are ED and ES; where neither is known, the first phase with a label. Pictures are for their owner alone
(0600), as they show patients.

Legend: P phase shown, Z level from base to apex, Y row, X column, C colour.
"""

import argparse
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep import files, store
from data_prep.ending import command

TILE = 192
"""A slice's picture has this many pixels at least along its longer side, and less than twice as many: small slices
are enlarged, of large ones every other pixel (or third, ...) is shown."""
CONTOURS = np.array([(255, 208, 0), (0, 208, 255), (255, 96, 208)], np.uint8)
"""A colour per class after the background, in turn: none of them is grey."""
PAPER, INK, FAINT = (28, 28, 28), (240, 240, 240), (150, 150, 150)
LINE, GAP = 15, 4
FONT = ImageFont.load_default(12)


@dataclass(frozen=True)
class View:
    """What is shown of a patient."""

    key: str
    image_PZYX: np.ndarray
    mask_PZYX: np.ndarray
    labelled_PZ: np.ndarray
    phases: tuple[str, ...]
    """A caption per P."""
    title: str
    check_PZ: np.ndarray | None = None
    """slices whose mask is not to be trusted"""


def preview(path: Path, out: Path) -> list[Path]:
    """Draw the store `path`; the pictures that were written, the page for the whole store first.

    FileNotFoundError, FileExistsError or ValueError say what is wrong with either.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's own word on a folder it does not know: store.open says it better
        opened = store.open(path)
    page = out if out.suffix.lower() == ".png" else out / "overview.png"
    _check_out(opened, out, page)
    if page != out:
        out.mkdir(mode=0o700, exist_ok=True)
    written, blocks = [page], []
    for patient in opened.patients:
        view = look(patient)
        blocks.append(_block(view))
        if page != out:
            written.append(out / f"{view.key}.png")
            save(sheet(view, opened.classes), written[-1])
    save(_overview(opened, blocks), page)
    return written


def _check_out(opened: store.Store, out: Path, page: Path) -> None:
    """Refuse an OUT that cannot be written or would do harm."""
    if out.resolve().is_relative_to(opened.path.resolve()):
        raise ValueError(f"{out}: lies in the store, which would be damaged by it; name another place")
    if not out.resolve().parent.is_dir():
        raise FileNotFoundError(f"{out}: no such folder as {out.parent}; make it first")
    if page == out and out.is_dir():
        raise FileExistsError(f"{out}: is a folder, wanted a file; a folder's name must not end in .png")
    if page != out and out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file, wanted a folder or a name that ends in .png")
    if page != out and any(patient.key.lower() == page.stem for patient in opened.patients):
        raise ValueError(f"{out}: a patient is called like {page.name}; only one page can be drawn: name OUT.png")


def look(patient: store.Patient) -> View:
    """A patient at ED and ES, at the one that is known, or else at the first phase that has a label."""
    advice = f"python -m data_prep.check {patient.folder.parent} says more"
    try:
        image_TZYX, mask_TZYX, labelled_TZ = (patient.array(name) for name in store.ARRAYS)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # what zarr makes of damaged files
        raise ValueError(f"{patient.key} cannot be read; {advice}") from error
    named = {"ED": patient.ed_phase, "ES": patient.es_phase}
    shown = [(f"{name} ", t) for name, t in named.items() if t is not None]
    shown = shown or [("", int(labelled_TZ.any(axis=1).argmax()))]
    phases = [t for _, t in shown]
    shapes = (mask_TZYX.shape, labelled_TZ.shape) == (image_TZYX.shape, image_TZYX.shape[:2])
    if not shapes or not all(isinstance(t, int) and t in range(len(image_TZYX)) for t in phases):
        raise ValueError(f"{patient.key}: arrays, ED and ES do not fit together; {advice}")
    return View(
        key=patient.key,
        image_PZYX=image_TZYX[phases],
        mask_PZYX=mask_TZYX[phases] * labelled_TZ[phases][..., None, None],
        labelled_PZ=labelled_TZ[phases],
        phases=tuple(f"{name}phase {t}" for name, t in shown),
        title=f"{patient.key}: {labelled_TZ.shape[0]} phases, {labelled_TZ.shape[1]} levels",
    )


def middle(view: View) -> int:
    """Halfway along the levels that have a mask at the first phase shown, or along all where none has."""
    drawn_Z = view.mask_PZYX[0].any(axis=(1, 2))
    levels = np.flatnonzero(drawn_Z) if drawn_Z.any() else np.arange(len(drawn_Z))
    return int(levels[len(levels) // 2])


def border(label_YX: np.ndarray) -> np.ndarray:
    """Labelled pixels with another label, or none, above, below, left or right."""
    padded = np.pad(label_YX, 1, mode="edge")
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    differs_YX: np.ndarray = np.any([other != label_YX for other in around], axis=0)
    return differs_YX & (label_YX > 0)


def draw(grey_YX: np.ndarray, label_YX: np.ndarray) -> np.ndarray:
    """A slice in grey with its mask's contours in colour, to scale: picture_YXC."""
    grey_YX, label_YX = _scale(grey_YX), _scale(label_YX)
    picture_YXC = np.repeat(grey_YX[..., None], 3, axis=2)
    edge_YX = border(label_YX)
    picture_YXC[edge_YX] = CONTOURS[(label_YX[edge_YX] - 1) % len(CONTOURS)]
    return picture_YXC


def _scale(image_YX: np.ndarray) -> np.ndarray:
    longer = max(image_YX.shape)
    factor, step = math.ceil(TILE / longer), max(1, longer // TILE)
    return image_YX[::step, ::step].repeat(factor, axis=0).repeat(factor, axis=1)


def _grey(image_PZYX: np.ndarray) -> np.ndarray:
    """Grey levels from the 1st to the 99th percentile of everything given -> black to white."""
    low, high = np.percentile(image_PZYX, [1, 99])
    grey_PZYX: np.ndarray = np.clip((image_PZYX - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
    return grey_PZYX


def _tile(picture_YXC: np.ndarray, lines: Sequence[str]) -> Image.Image:
    """A picture below its caption."""
    high, wide = picture_YXC.shape[:2]
    tile = Image.new("RGB", (wide, high + LINE * len(lines)), PAPER)
    tile.paste(Image.fromarray(picture_YXC), (0, LINE * len(lines)))
    for n, line in enumerate(lines):
        ImageDraw.Draw(tile).text((2, LINE * n), _fit(line, wide - 4), INK if n == 0 else FAINT, FONT)
    return tile


def _fit(text: str, wide: int) -> str:
    """The text, cut where it is wider."""
    if FONT.getlength(text) <= wide:
        return text
    return next(cut for n in range(len(text), -1, -1) if FONT.getlength(cut := text[:n] + "...") <= wide or n == 0)


def _line(cells: Sequence[Image.Image], gap: int, *, across: bool = False) -> Image.Image:
    """Pictures in a line, downwards or across."""
    ends = np.cumsum([0, *((cell.width if across else cell.height) + gap for cell in cells)]).tolist()
    other = max(cell.height if across else cell.width for cell in cells)
    page = Image.new("RGB", (ends[-1] - gap, other) if across else (other, ends[-1] - gap), PAPER)
    for end, cell in zip(ends, cells, strict=False):
        page.paste(cell, (end, 0) if across else (0, end))
    return page


def _flow(blocks: Sequence[Image.Image]) -> Image.Image:
    """Blocks line by line, on a page about half as wide again as high; the last line is as full as can be."""
    gap, n = 4 * GAP, len(blocks)
    wide = sum(block.width + gap for block in blocks) / n
    ideal = min(n, max(1, round(math.sqrt(1.5 * n * (blocks[0].height + gap) / wide))))
    per_line = min(range(math.ceil(0.8 * ideal), int(1.3 * ideal) + 1), key=lambda k: (-n % k, abs(k - ideal)))
    lines = [blocks[first : first + per_line] for first in range(0, n, per_line)]
    return _line([_line(line, gap, across=True) for line in lines], gap)


def _page(title: str, classes: Sequence[str], body: Image.Image) -> Image.Image:
    """A title and the classes in their colours above the body."""
    names = [(title, INK), *((name, tuple(CONTOURS[n % len(CONTOURS)])) for n, name in enumerate(classes[1:]))]
    ends = np.cumsum([GAP, *(FONT.getlength(name) + 24 for name, _ in names)]).astype(int).tolist()
    page = Image.new("RGB", (max(body.width + 2 * GAP, ends[-1]), body.height + 2 * GAP + 2 * LINE), PAPER)
    for x, (name, colour) in zip(ends, names, strict=False):
        ImageDraw.Draw(page).text((x, LINE // 2), name, colour, FONT)
    page.paste(body, (GAP, GAP + 2 * LINE))
    return page


def sheet(view: View, classes: Sequence[str]) -> Image.Image:
    """Every level, from base to apex: one phase above the other."""
    grey_PZYX = _grey(view.image_PZYX)
    levels = view.labelled_PZ.shape[1]
    ends = {0: " base", levels - 1: " apex"} if levels > 1 else {}
    blocks = []
    for z in range(levels):
        captions = [(f"{z}{ends.get(z, '')}", line) for line in _captions(view, z)]
        tiles = [_tile(draw(grey_PZYX[p, z], view.mask_PZYX[p, z]), lines) for p, lines in enumerate(captions)]
        blocks.append(_line(tiles, GAP))
    return _page(view.title, classes, _flow(blocks))


def _captions(view: View, z: int) -> list[str]:
    """One per phase shown."""
    check_P = [False] * len(view.phases) if view.check_PZ is None else view.check_PZ[:, z].tolist()
    return [
        f"{name}{'' if labelled else ', unlabelled'}{', CHECK' if check else ''}"
        for name, labelled, check in zip(view.phases, view.labelled_PZ[:, z], check_P, strict=True)
    ]


def _block(view: View) -> Image.Image:
    """A patient on the page for the whole store: one level, the phases shown side by side."""
    z = middle(view)
    grey_PYX = _grey(view.image_PZYX[:, z])
    captions = [(view.key, f"level {z}, {line}") for line in _captions(view, z)]
    tiles = [_tile(draw(grey_PYX[p], view.mask_PZYX[p, z]), lines) for p, lines in enumerate(captions)]
    return _line(tiles, GAP, across=True)


def _overview(opened: store.Store, blocks: Sequence[Image.Image]) -> Image.Image:
    title = f"{opened.path.resolve().name}: {len(blocks)} patients, source {opened.source}"
    return _page(title, opened.classes, _flow(blocks))


def save(picture: Image.Image, path: Path) -> None:
    with files.atomic(path) as temporary:
        temporary.touch(0o600)
        picture.save(temporary, format="PNG")


@command("preview", "the pictures that are there are whole; the same command draws all of them")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data_prep.preview", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("store", type=Path, metavar="STORE", help="the zarr store to draw; it is only read")
    parser.add_argument("out", type=Path, metavar="OUT", help="one page if it ends in .png; else a folder of sheets")
    args = parser.parse_args(argv)
    page, *sheets = preview(args.store, args.out)
    beside = f"; {len(sheets)} sheets beside it, one per patient: {sheets[0].name}, ..." if sheets else ""
    print(f"{page}: one page for the whole store{beside}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
