"""data_prep.preview: contours lie on the masks' borders, pages are whole and private, mistakes cost one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from data_prep import preview, store

YELLOW, CYAN = (tuple(colour) for colour in preview.CONTOURS[:2].tolist())


def made(path: Path, **attributes: object) -> Path:
    """One patient, two phases, three levels of 64 x 64: a ring (1) around a cavity (2) at levels 0 and 1.

    Level 1 has the larger ring, level 2 an empty mask; at phase 1 only level 1 is labelled.
    """
    y, x = np.mgrid[:64, :64] - 31.5
    radius_YX = np.hypot(y, x)
    mask_TZYX = np.zeros((2, 3, 64, 64), np.uint8)
    labelled_TZ = np.array([[True, True, True], [False, True, False]])
    for z, outer in ((0, 12), (1, 16)):
        mask_TZYX[:, z] = np.where(radius_YX < outer - 6, 2, radius_YX < outer)
    image_TZYX = np.random.default_rng(0).integers(0, 900, mask_TZYX.shape)
    with store.create(path, source="t", spacing_mm=(2, 2), size=(64, 64), classes=("b", "myo", "lv")) as out:
        out.add("A", image_TZYX, mask_TZYX, labelled_TZ, {"ed_phase": 0, "es_phase": 1, **attributes})
    return path


def where(picture_YXC: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    return np.asarray((picture_YXC == colour).all(axis=-1))


def coloured(picture_YXC: np.ndarray) -> bool:
    """Whether a contour was drawn: everything else is grey."""
    return bool((picture_YXC.max(axis=-1) != picture_YXC.min(axis=-1)).any())


def tiles(sheet: Image.Image, count: int) -> list[np.ndarray]:
    """Pictures of a sheet of one line, from its left: rows of phases, columns of levels."""
    top, step = preview.GAP + 2 * preview.LINE, preview.TILE + 4 * preview.GAP
    below = np.asarray(sheet)[top:]
    return [below[:, preview.GAP + n * step :][:, : preview.TILE] for n in range(count)]


def test_a_square_s_border_by_hand() -> None:
    label_YX = np.zeros((6, 7), np.uint8)
    label_YX[1:5, 1:5] = 1
    label_YX[2:4, 5] = 2
    assert preview.border(label_YX).astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 0, 0, 1, 1, 0],
        [0, 1, 0, 0, 1, 1, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
    assert not preview.border(np.ones((4, 4), np.uint8)).any()  # the slice's edge is no border


def test_contours_lie_on_the_border_of_the_enlarged_mask_and_nowhere_else() -> None:
    label_YX = np.zeros((64, 64), np.uint8)
    label_YX[10:30, 20:50], label_YX[15:25, 30:40] = 1, 2
    picture_YXC = preview.draw(np.full((64, 64), 77, np.uint8), label_YX)
    assert picture_YXC.shape == (192, 192, 3)
    inside = {}
    for label, (top, bottom, left, right) in {1: (30, 90, 60, 150), 2: (45, 75, 90, 120)}.items():
        inside[label] = np.zeros((192, 192), bool)
        inside[label][top:bottom, left:right] = True
        inside[label][top + 1 : bottom - 1, left + 1 : right - 1] = False
    around_the_hole = np.zeros((192, 192), bool)
    around_the_hole[44:76, 90:120] = around_the_hole[45:75, 89:121] = True
    around_the_hole[45:75, 90:120] = False
    np.testing.assert_array_equal(where(picture_YXC, YELLOW), inside[1] | around_the_hole)
    np.testing.assert_array_equal(where(picture_YXC, CYAN), inside[2])
    assert (picture_YXC[~(inside[1] | inside[2] | around_the_hole)] == 77).all()


@pytest.mark.parametrize(
    ("size", "shown"),
    [((48, 48), (192, 192)), ((192, 192), (192, 192)), ((96, 64), (192, 128)), ((1024, 512), (205, 103))],
)
def test_pictures_are_of_one_size_or_so(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert preview.draw(np.zeros(size, np.uint8), np.zeros(size, np.uint8)).shape == (*shown, 3)


def test_a_sheet_has_ed_above_es_and_levels_from_base_to_apex(tmp_path: Path) -> None:
    preview.preview(made(tmp_path / "s"), tmp_path / "out")
    sheet = Image.open(tmp_path / "out" / "A.png")
    patient = store.open(tmp_path / "s").patients[0]
    caption, high = 2 * preview.LINE, preview.TILE
    for z, column in enumerate(tiles(sheet, 3)):
        for p, top in enumerate((caption, 2 * caption + high + preview.GAP)):
            label_YX = patient.array("mask_TZYX")[p, z].repeat(3, axis=0).repeat(3, axis=1)
            labelled = patient.array("labelled_TZ")[p, z]
            expected = preview.border(label_YX) & labelled
            picture = column[top : top + high]
            np.testing.assert_array_equal(where(picture, YELLOW) | where(picture, CYAN), expected)
            assert coloured(picture) == expected.any()


def test_masks_of_unlabelled_slices_are_not_drawn(tmp_path: Path) -> None:
    view = preview.look(store.open(made(tmp_path / "s")).patients[0])
    assert view.mask_PZYX[0, 0].any()
    assert not view.mask_PZYX[1, 0].any()  # written, against the contract, but not labelled
    assert preview._captions(view, 0) == ["ED phase 0", "ES phase 1, unlabelled"]


@pytest.mark.parametrize(
    ("ed", "es", "phases"),
    [
        (0, 1, ("ED phase 0", "ES phase 1")),
        (1, None, ("ED phase 1",)),
        (None, 1, ("ES phase 1",)),
        (None, None, ("phase 0",)),
    ],
)
def test_phases_shown(ed: int | None, es: int | None, phases: tuple[str, ...], tmp_path: Path) -> None:
    (patient,) = store.open(made(tmp_path / "s", ed_phase=ed, es_phase=es)).patients
    assert preview.look(patient).phases == phases


def test_without_ed_and_es_the_first_labelled_phase_is_shown(tmp_path: Path) -> None:
    empty = np.zeros((3, 1, 32, 32))
    with store.create(tmp_path / "s", source="t", spacing_mm=(2, 2), size=(32, 32), classes=("b", "m")) as out:
        out.add("A", empty, empty, np.array([[False], [False], [True]]), {})
        out.add("B", empty, empty, np.zeros((3, 1), bool), {})
    assert [preview.look(patient).phases for patient in store.open(tmp_path / "s").patients] == [
        ("phase 2",),
        ("phase 0",),
    ]
    assert len(preview.preview(tmp_path / "s", tmp_path / "out")) == 3  # an even grey is no division by zero


def test_the_middle_is_the_largest_mask_s_level_else_halfway(tmp_path: Path) -> None:
    (patient,) = store.open(made(tmp_path / "s")).patients
    view = preview.look(patient)
    assert preview.middle(view) == 1
    view.mask_PZYX[:] = 0
    assert preview.middle(view) == 1
    view.mask_PZYX[0, 2, 0, 0] = 1
    assert preview.middle(view) == 2


def test_files_are_whole_private_and_told(store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert preview.main([str(store_path), str(out)]) == 0
    said = capsys.readouterr()
    assert str(out / "overview.png") in said.out
    assert "5 sheets" in said.out
    assert said.err == ""
    names = sorted(file.name for file in out.iterdir())
    assert names == [*(f"DET900000{n}.png" for n in range(1, 6)), "overview.png"]
    assert out.stat().st_mode & 0o777 == 0o700
    for file in out.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        with Image.open(file) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert coloured(np.asarray(picture))


def test_one_page_is_the_overview_and_repeating_it_changes_nothing(store_path: Path, tmp_path: Path) -> None:
    (page,) = preview.preview(store_path, tmp_path / "page.png")
    preview.preview(store_path, tmp_path / "out")
    assert page.read_bytes() == (tmp_path / "out" / "overview.png").read_bytes()
    assert page.stat().st_mode & 0o777 == 0o600
    before = page.read_bytes()
    preview.preview(store_path, page)
    assert page.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".tmp")] == []


def test_the_page_has_a_pair_of_pictures_per_patient(store_path: Path, tmp_path: Path) -> None:
    with Image.open(preview.preview(store_path, tmp_path / "page.png")[0]) as page:
        pair, high, gap = 2 * preview.TILE + preview.GAP, preview.TILE + 2 * preview.LINE, 4 * preview.GAP
        wide = [n for n in range(1, 6) if page.width == n * (pair + gap) - gap + 2 * preview.GAP]
        assert wide
        lines = -(-5 // wide[0])
        assert page.height == lines * (high + gap) - gap + 2 * preview.GAP + 2 * preview.LINE


@pytest.mark.parametrize("count", [12, 13, 20, 50, 97])
def test_many_patients_make_a_landscape_page_that_is_nearly_full(count: int) -> None:
    wide, high, gap = 392, 222, 16
    page = preview._flow([Image.new("RGB", (wide, high))] * count)
    assert 1 < page.width / page.height < 2.5
    cells = (page.width + gap) // (wide + gap) * ((page.height + gap) // (high + gap))
    assert count <= cells <= 1.2 * count


def test_long_captions_are_cut() -> None:
    cut = preview._fit("a very long name of a patient or a study", 100)
    assert cut.endswith("...")
    assert preview.FONT.getlength(cut) <= 100
    assert preview._fit("short", 100) == "short"


def test_mistakes_cost_one_line(store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = tmp_path / "folder.png", tmp_path / "file"
    folder.mkdir()
    file.write_text("mine")
    for path, out, reason in [
        (tmp_path / "none", tmp_path / "a.png", "no such folder; make one with"),
        (store_path, tmp_path / "missing" / "a.png", "no such folder as"),
        (store_path, tmp_path / "missing" / "out", "no such folder as"),
        (store_path, folder, "is a folder, wanted a file"),
        (store_path, file, "is a file, wanted a folder"),
        (store_path, store_path / "out", "lies in the store"),
        (store_path, store_path, "lies in the store"),
    ]:
        assert preview.main([str(path), str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("preview: ")
        assert reason in line
    assert file.read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.png"]


def test_damaged_stores_cost_one_line(store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "s.zarr"
    shutil.copytree(store_path, copy)
    group = zarr.open_group(copy / "DET9000001", mode="a")
    group.attrs["ed_phase"] = 2
    assert preview.main([str(copy), str(tmp_path / "a.png")]) == 2
    assert "DET9000001: arrays, ED and ES do not fit together" in capsys.readouterr().err
    (copy / "DET9000001" / "image_TZYX" / "c" / "0" / "0" / "0" / "0").unlink()
    assert preview.main([str(copy), str(tmp_path / "a.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"preview: DET9000001 cannot be read; python -m data_prep.check {copy} says more"
    (copy / "stray").mkdir()
    assert preview.main([str(copy), str(tmp_path / "a.png")]) == 2
    assert "incomplete at stray" in capsys.readouterr().err


def test_a_patient_called_overview_is_not_written_over(tmp_path: Path) -> None:
    path = made(tmp_path / "s")
    (path / "A").rename(path / "overview")
    with pytest.raises(ValueError, match=r"only one page can be drawn: name OUT\.png"):
        preview.preview(path, tmp_path / "out")
    assert preview.preview(path, tmp_path / "out.png") == [tmp_path / "out.png"]
