"""Run folders read back for the report; what is wrong with them in one line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtl import function, results, train
from mtl.config import Config, Model, Optim, Weighting
from mtl.runfolder import RunFolder
from mtl.slices import Slices
from tests.reporting import BASE, PAPERS, write_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The paper's two networks, ten patients with three phases of seven levels."""
    return write_runs(tmp_path / "paper")


def folder_of(runs: Path, branch: str) -> Path:
    return next(runs.glob(f"branch-{branch}-*"))


def test_all_folds_test_volumes_are_read_with_the_baseline_first(runs: Path) -> None:
    trained = results.load([runs])
    assert [one.label for one in trained] == ["U-Net", "MTN up4"]
    assert [one.paper_name for one in trained] == ["UNet", "MTN"]
    for one in trained:
        assert len(one.volumes.patient_V) == 30
        assert len(set(one.volumes.keys)) == 30
        assert [one.volumes.among(name).sum() for name in results.PHASE_SETS] == [10, 10, 30]
        assert [one.areas.among("all", name).sum() for name in results.REGIONS] == [210, 60, 90, 60]
        assert one.areas.among("ED").sum() == 70
    assert np.isnan(trained[0].areas.reg_mm2_S).all()
    assert list(trained[0].sources) == ["Seg"]
    assert list(trained[1].sources) == ["Reg", "Seg"]


def test_any_folder_on_the_way_down_will_do_and_none_counts_twice(runs: Path) -> None:
    mtn = folder_of(runs, "up4")
    for named in ([runs.parent], [mtn, folder_of(runs, "none")], [runs, mtn, mtn / "fold_3"]):
        assert [one.label for one in results.load(named)] == ["U-Net", "MTN up4"]
    (alone,) = results.load([mtn / "fold_2"])
    assert alone.label == "MTN up4"


def test_labels_name_what_differs(tmp_path: Path) -> None:
    configs = (BASE, replace(BASE, optim=Optim(lr=0.01)), replace(BASE, weighting=Weighting(kind="equal")))
    trained = results.load([write_runs(tmp_path, configs=configs)])
    assert sorted(one.label for one in trained) == [
        "MTN up4, lr 0.001, kind equal",
        "MTN up4, lr 0.001, kind learned",
        "MTN up4, lr 0.01, kind learned",
    ]
    assert sorted(str(one.paper_name) for one in trained) == ["MTN", "MTN", "None"]


def test_mass_by_hand(tmp_path: Path) -> None:
    (one,) = results.load([write_runs(tmp_path, patients=5, phases=2, levels=3, configs=(BASE,))])
    one.areas.true_mm2_S[:], one.areas.seg_mm2_S[:], one.areas.reg_mm2_S[:] = 1000.0, 500.0, 2000.0
    found = function.mass(one)
    assert found.true_P == pytest.approx([3 * 1000 * 8 / 1000 * 1.05] * 5)  # 3 levels, 8 mm apart
    assert found.measured_P["Seg"] == pytest.approx(found.true_P / 2)
    assert found.measured_P["Reg"] == pytest.approx(found.true_P * 2)
    assert function.volume(one, "all").times(1.05, "g").true_P == pytest.approx(found.true_P)  # the mean of both phases
    one.volumes.slice_spacing_mm_V[one.volumes.patient_V == "P000"] = np.nan
    assert (len(function.mass(one).true_P), function.mass(one).unknown) == (4, 1)


def test_a_trained_fold_is_read(config: Config, slices: Slices, tmp_path: Path) -> None:
    """What train writes is what is read: not only what tests/reporting.py writes."""
    folder = tmp_path / "branch-up4-0"
    for k in range(5):
        train.train(replace(config, train=replace(config.train, epochs=1)), slices, k, RunFolder(folder / f"fold_{k}"))
    (one,) = results.load([folder])
    assert len(one.volumes.patient_V) == 10
    assert one.areas.true_mm2_S.sum() == pytest.approx(slices.area_mm2_NA(np.arange(30)).sum())
    assert one.facts[0]["source"] == "phantom"
    assert (one.facts[0]["patients"], one.facts[0]["volumes"], one.facts[0]["slices"]) == (5, 10, 30)
    assert len(one.cases) == 10  # two test volumes a fold, both kept
    assert [case.dice for case in one.cases] == sorted(one.volumes.metric_V["dice"])
    assert np.isfinite(one.volumes.slice_spacing_mm_V).all()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "fold_3" / "DONE").unlink(), r"fold_3: not finished; the report wants all 5 folds"),
        (lambda f: RunFolder(f / "fold_3").finish("FAILED", "x"), r"fold_3: FAILED; the report wants all 5 folds"),
        (lambda f: (f / "fold_3").rename(f / "away"), r"fold_3: missing; the report wants all 5 folds"),
        (lambda f: (f / "fold_3/config.yaml").write_text("a: ["), r"fold_3/config.yaml: damaged .*remove the fold"),
        (lambda f: (f / "fold_3/config.yaml").write_text("fold: 3"), r"fold_3: another configuration than its"),
        (lambda f: (f / "fold_0/config.yaml").write_text("depth: 3\nfold: 0"), r"of another version .unknown key"),
        (lambda f: (f / "fold_3/volumes.csv").unlink(), r"volumes.csv: cannot be read .*run the sweep again"),
        (lambda f: (f / "fold_3/volumes.csv").write_text("a,b\n1,2\n"), r"column .dice. or .set. is missing"),
        (lambda f: short(f / "fold_3/slices.csv"), r"column 'area_seg_mm2' of a fold's table is damaged"),
        (lambda f: cut(f / "fold_3/slices.csv"), r"slices.csv: cannot be read \(its end is missing\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(harm: object, message: str, runs: Path) -> None:
    assert callable(harm)
    harm(folder_of(runs, "up4"))
    with pytest.raises(ValueError, match=message) as caught:
        results.load([runs])
    assert "\n" not in str(caught.value)


def short(table: Path) -> None:
    """A row without its last field."""
    lines = table.read_text().splitlines()
    lines[5] = lines[5].rpartition(",")[0]
    table.write_text("\n".join(lines) + "\n")


def cut(table: Path) -> None:
    """In the middle of its last number, which would still be one."""
    table.write_text(table.read_text()[:-8])


def test_folders_of_different_stores_do_not_mix(tmp_path: Path) -> None:
    others = (replace(BASE, data_digest="1" * 64, model=Model(branch="up1")),)
    write_runs(tmp_path / "a", configs=(BASE,))
    write_runs(tmp_path / "b", configs=others)
    with pytest.raises(ValueError, match=r"were trained on different stores \(data 0{8} and 1{8}\)"):
        results.load([tmp_path])


def test_a_folder_without_runs_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no trained configuration in it .*name a sweep's run folder"):
        results.load([tmp_path])
    with pytest.raises(ValueError, match=r"nowhere: no such folder"):
        results.load([tmp_path / "nowhere"])


def test_volumes_of_which_nothing_was_predicted_are_counted(runs: Path) -> None:
    table = folder_of(runs, "up4") / "fold_0" / "volumes.csv"
    head, first, *rest = table.read_text().splitlines()
    missed = ",".join([*first.split(",")[:5], "0.0", "0.0", "", "", "", "", "8.0"])
    table.write_text("\n".join([head, missed, *rest]) + "\n")
    mtn = results.load([runs])[1]
    assert mtn.volumes.missed == 1
    assert np.isnan(mtn.volumes.metric_V["hd_mm"]).sum() == 1


def test_what_a_fold_says_of_itself_is_kept(runs: Path) -> None:
    done = folder_of(runs, "up4") / "fold_1" / "DONE"
    done.write_text(json.dumps({**json.loads(done.read_text()), "device": "NVIDIA H100"}))
    assert [fold["device"] for fold in results.load([runs])[1].facts] == ["cpu", "NVIDIA H100", "cpu", "cpu", "cpu"]
    assert len(PAPERS) == 2


def test_what_a_search_has_stopped_early_is_left_out(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, patients=5, phases=2, levels=3)
    first, second = results.configurations(runs)
    RunFolder(first / "fold_4").finish("STOPPED", "others were better", by="racing")
    assert [one.folder for one in results.load([runs])] == [second]
    RunFolder(second / "fold_4").finish("STOPPED", "others were better", by="racing")
    with pytest.raises(ValueError, match="every configuration in it was stopped early"):
        results.load([runs])
