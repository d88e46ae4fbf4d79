"""A sweep as one zip: what leaves and what does not, what reads it, and what a damaged one says."""

import csv
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster import pack, staged
from cluster.tracking import command
from data_prep import phantom
from mtl import checkpoint, figures, packed, predict, report, results, tables
from mtl.config import Config, Model, Protocol, Train
from mtl.network import UNet
from mtl.results import Trained
from mtl.runfolder import RunFolder
from sweeps import verdict
from tests import tracked
from tests.reporting import write_runs

CONFIG = Config("0" * 64, Model(width=1), Train(folds=3, epochs=2, device="cpu"), protocol=Protocol(selection="test"))
CONFIGS = (CONFIG, replace(CONFIG, model=Model(branch="none", width=1)))
ROOT = Path(__file__).resolve().parent.parent
KEY = "DET0000{}"
SECRETS = ("DET0000", "erika", "/lab/", "node17", "778899", "Mustermann", "nobody", "secret")
OLD = ("config.yaml", "epochs.jsonl", "usage.jsonl", "volumes.csv", "slices.csv", "DONE")


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Locks lie elsewhere than a user's, what is unpacked where a test can look; no figure is drawn: it takes long."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(figures, "drawn", lambda *_: iter(()))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    assert not list((tmp_path / "tmp").glob("branchpoint-*"))  # whatever happened, what was unpacked is gone


def private(sweep: Path) -> None:
    """What a lab's folder holds beside what may leave."""
    for run in map(RunFolder, sweep.glob("*/fold_*")):
        for name in ("volumes.csv", "slices.csv"):
            path = run.path / name
            path.write_text(re.sub(r"(?m)^P(\d+),", lambda m: KEY.format(101 + 7 * int(m[1])) + ",", path.read_text()))
        told = {"owner": "erika", "host": "node17", "store": "/lab/erika/hearts.zarr", "job": 778899}
        facts = run.facts() | told | {"reason": "killed on node17, see /lab/erika", "python": "/lab/erika/bin"}
        (run.path / "DONE").write_text(json.dumps(facts))
        run.write_epochs([{**record, "host": "node17"} for record in run.epochs()])
        run.write_usage(1, {"cores": 2.0})
        (run.path / "notes.txt").write_text("Mustermann")
        (run.path / "last.pt").write_bytes(b"secret")
    for name in ("jobs", "code", "launches"):
        (sweep / name).mkdir()
        (sweep / name / "a.json").write_text('{"user": "erika"}')
    store = {"path": "/lab/erika/hearts.zarr", "digest": CONFIG.data_digest}
    told = {
        "git": {"commit": "abcdef1", "uncommitted": True, "by": "erika"},
        "store": store,
        "settings": {"runs": "/lab/erika"},
    }
    (sweep / "launches" / "b.json").write_text(json.dumps(told))
    (sweep / "verdict" / "secret.png").write_bytes(b"nobody's heart")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two configurations of three finished folds, their networks drawn at random."""
    folder = write_runs(tmp_path_factory.mktemp("runs") / "study", 6, 2, 4, CONFIGS)
    for config in CONFIGS:
        for k in range(3):
            torch.manual_seed(k)
            network = UNet(config.model.branch, 1, size=192)
            if config.model.branch != "none":
                network.set_area_scale(900.0, 250.0)
            path = folder / f"branch-{config.model.branch}-{config.digest}" / f"fold_{k}" / "best.pt"
            state = {"network": network.state_dict(), "epoch": 2, "owner": "erika"}
            checkpoint.save(path, state, config, k)
    verdict.write(folder, plots=False)
    (folder / "verdict").mkdir()
    private(folder)
    return folder


@pytest.fixture(scope="module")
def made(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep in a zip, with the winner's networks. Figures are given no picture of a patient to draw."""
    out = tmp_path_factory.mktemp("out") / "out.zip"
    drawn: list[list[Trained]] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figures, "drawn", lambda *given: drawn.append(given[0]) or ())  # type: ignore[func-returns-value]
        pack.pack(sweep, out, model=True)
    assert [one.cases for one in drawn[0]] == [[], []]
    assert all(one.cases for one in results.load([sweep]))
    return out


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A command's one line of complaint."""

    def run(main: Callable[[list[str]], int], *argv: object, status: int = 2) -> str:
        assert main([str(word) for word in argv]) == status
        error = capsys.readouterr().err.lstrip("\n")
        assert error.count("\n") == 1, error
        return error

    return run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def contents(zip_: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(zip_) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


# What leaves.


def test_no_byte_of_what_is_private_leaves(made: Path, sweep: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o600
    for name, content in contents(made).items():
        assert packed.is_known(name)
        assert Path(name).suffix in ("", ".yaml", ".jsonl", ".json", ".csv", ".md", ".tex", ".html", ".pt"), name
        if name.endswith(".pt"):  # its tensors are stored as they are, among the names of a pickle
            content = b"".join(
                zipfile.ZipFile(io.BytesIO(content)).read(one)
                for one in zipfile.ZipFile(io.BytesIO(content)).namelist()
            )
        found = [secret for secret in SECRETS if secret.lower().encode() in (name.encode() + content).lower()]
        assert not found, name
    with zipfile.ZipFile(made) as opened:
        assert {(info.date_time, info.extra) for info in opened.infolist()} == {((1980, 1, 1, 0, 0, 0), b"")}


def test_patients_have_new_numbers_the_same_everywhere_and_nothing_else_changes(made: Path, sweep: Path) -> None:
    old_of: dict[str, str] = {}
    for name, content in contents(made).items():
        if name.endswith(("volumes.csv", "slices.csv")):
            new, old = rows(content.decode()), rows((sweep.parent / name).read_text())
            assert new
            rest = {tuple(v for k, v in row.items() if k != "patient"): row["patient"] for row in old}
            assert len(rest) == len(old) == len(new)
            for row in new:
                key = tuple(value for column, value in row.items() if column != "patient")
                assert old_of.setdefault(row["patient"], rest[key]) == rest[key]
            assert [row["patient"] for row in new] == sorted(row["patient"] for row in new)
    assert sorted(old_of) == [f"P{n:03}" for n in range(1, 7)]
    assert len(set(old_of.values())) == 6
    assert list(map(old_of.get, sorted(old_of))) != sorted(old_of.values())


def test_the_same_folders_give_the_same_zip_whatever_patients_are_called(sweep: Path, tmp_path: Path) -> None:
    again = tmp_path / "again" / "study"
    for path in sweep.glob("*/fold_*"):
        there = again / path.relative_to(sweep)
        there.mkdir(parents=True)
        for name in OLD:
            (there / name).write_text((path / name).read_text())
    pack.pack(again, tmp_path / "a.zip", model=False)
    number = {KEY.format(101 + 7 * n): f"X{9 - n}" for n in range(6)}
    for path in again.glob("*/fold_*/*.csv"):
        path.write_text(re.sub(r"(?m)^DET\d+", lambda m: number[m[0]], path.read_text()))
    pack.pack(again, tmp_path / "b.zip", model=False)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_metrics_are_those_of_the_epochs(made: Path, sweep: Path) -> None:
    found = {tuple(row.values())[:4]: row["value"] for row in rows(contents(made)["metrics.csv"].decode())}
    wanted: dict[tuple[str, ...], Any] = {}
    for run in map(RunFolder, sweep.glob("*/fold_*")):
        for record in run.epochs():
            for name, value in record.items():
                if name not in ("epoch", "time_utc", "host") and value is not None:
                    wanted[run.path.parent.name, run.path.name[5:], str(record["epoch"]), name] = str(value)
    assert found == wanted
    assert contents(made)["metrics.csv"].startswith(b"configuration,fold,epoch,name,value\n")


def test_of_several_sweeps_configurations_are_told_apart_and_unfinished_ones_leave_as_far_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked.finished(tmp_path / "runs" / "first", ["up3"])
    ((begun, *_),) = tracked.sweep(tmp_path / "runs" / "second", ["up4"])
    tracked.train(begun, (1,))
    begun.finish("FAILED", "no room on /lab/erika", failure="disk", traceback="node17")
    pack.pack(tmp_path / "runs", tmp_path / "out.zip", model=False)
    names = {
        row["configuration"].partition("/")[0] for row in rows(contents(tmp_path / "out.zip")["metrics.csv"].decode())
    }
    assert names == {"first", "second"}
    told = capsys.readouterr().out
    assert "second: 1 configurations, 1 folds (1 failed)" in told
    assert "first: no report, since it wants every fold done: " in told
    (failed,) = [text for name, text in contents(tmp_path / "out.zip").items() if name.endswith("FAILED")]
    assert json.loads(failed) == {"reason": "failed: disk", "failure": "disk"}


def test_what_leaves_is_listed_with_what_stays(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack.main([str(sweep), str(tmp_path / "out.zip"), "--model"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^  volumes.csv +6 .*of patients, renumbered", told, re.MULTILINE)
    assert re.search(r"^  best.pt +3 ", told, re.MULTILINE)
    assert "  6 patients, as P001 and so on" in told
    stays = next(line for line in told.splitlines() if line.startswith("What stays: "))
    assert stays == "What stays: best.pt (3), cases.npz (6), code/, jobs/, last.pt (6), notes.txt (6), verdict/"
    assert told.splitlines()[-1].startswith(f"{tmp_path / 'out.zip'}: ")


# What reads it.


def test_the_report_has_the_same_tables(made: Path, sweep: Path, tmp_path: Path) -> None:
    with packed.opened(made) as runs:
        ours, theirs = results.load([runs]), results.load([sweep])
        for table in (tables.table1, tables.table2):
            assert table(ours) == table(theirs)
        assert [one.epochs[0][1]["dice_val"] for one in ours] == [one.epochs[0][1]["dice_val"] for one in theirs]
        assert [row[:4] for row in tables.means(ours).rows] == [row[:4] for row in tables.means(theirs).rows]
    zip_ = tmp_path / "out.zip"
    zip_.write_bytes(made.read_bytes())
    assert report.main([str(zip_)]) == 0
    assert (tmp_path / "out-report" / "tables.md").read_bytes() == contents(made)["study/report/tables.md"]
    assert report.main([f"{zip_}/study", "--out", str(tmp_path / "named")]) == 0
    for page in (tmp_path / "named", tmp_path / "out-report"):
        told = (page / "report.html").read_text()
        assert "<h2>Tables</h2>" in told
        assert verdict.read(sweep).answer in told
        assert str(tmp_path / "tmp") not in told


def test_the_mirror_has_the_same_runs_and_has_them_once(made: Path, sweep: Path, tmp_path: Path) -> None:
    of_folder, of_zip = tracked.database(tmp_path / "a"), tracked.database(tmp_path / "b")
    assert command.main(["mirror", str(sweep), "--to", of_folder]) == 0
    for _ in range(2):
        assert command.main(["mirror", str(made), "--to", of_zip]) == 0
    theirs, ours = tracked.contents(of_folder, "study"), tracked.contents(of_zip, "study")
    assert ours.keys() == theirs.keys()
    for path, one in ours.items():
        for key in ("name", "parent", "status", "times", "params", "metrics"):
            assert one[key] == theirs[path][key], (path, key)
        assert {*theirs[path]["tags"]} - {*one["tags"]} <= {"python"}  # which was a path here
    assert [name for name, *_ in ours["study"]["data"]] == ["store"]


def test_new_cases_are_predicted_as_from_the_run_folder(
    made: Path, sweep: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    winner = json.loads((sweep / "verdict.json").read_text())["best"]
    phantom.make(tmp_path / "new", patients=1, slices=3, phases=1, seed=3)
    for run, out in ((made, "a"), (f"{made}/{winner}", "b"), (sweep / winner, "c")):
        assert predict.main([str(run), str(tmp_path / "new"), str(tmp_path / out), "--device", "cpu"]) == 0
    a, b, c = ({p.name: p.read_bytes() for p in (tmp_path / out).rglob("*") if p.is_file()} for out in "abc")
    a.pop("model.json"), b.pop("model.json"), c.pop("model.json")  # of the checkpoints' bytes: these are made anew
    assert a == b == c
    assert len(a) == 3
    about = json.loads(contents(made)[f"study/{winner}/model.json"])
    assert (about["normalisation"], about["pixel_spacing_mm"], about["size"]) == ("slice", [1.5625, 1.5625], [192, 192])
    (other,) = {path.parent.name for path in sweep.glob("*/fold_0")} - {winner}
    line = refused(predict.main, f"{made}/study/{other}", tmp_path / "new", tmp_path / "d")
    assert "packed without --model, so there is no network in it; pack it again with --model" in line
    assert "has no folder nope" in refused(predict.main, f"{made}/nope", tmp_path / "new", tmp_path / "d")


def test_of_several_with_networks_one_is_named(tmp_path: Path) -> None:
    zip_ = tmp_path / "two.zip"
    with zipfile.ZipFile(zip_, "w") as made:
        for name in ("s/one/fold_0/best.pt", "t/two/fold_0/best.pt", "t/one/fold_0/DONE"):
            made.writestr(name, "")
    with pytest.raises(ValueError, match=rf"name one of: {zip_}/s/one, {zip_}/t/two$"), packed.with_networks(zip_):
        pass
    with packed.with_networks(zip_ / "t") as run:
        assert run.name == "two"
    with pytest.raises(ValueError, match="has one in several sweeps; name one: "), packed.opened(zip_ / "one"):
        pass


# What is wrong.


def readers(zip_: Path, home: Path) -> Iterator[tuple[Callable[[list[str]], int], list[object]]]:
    yield report.main, [zip_]
    yield command.main, ["mirror", zip_]
    yield predict.main, [zip_, home, home / "out"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda all_: all_[: len(all_) // 2], "damaged, or no zip of a sweep"),
        (lambda all_: all_[:200] + bytes([all_[200] ^ 1]) + all_[201:], "damaged, or no zip of a sweep"),
        (lambda all_: b"no zip", "damaged, or no zip of a sweep"),
        (lambda all_: b"", "damaged, or no zip of a sweep"),
    ],
    ids=["truncated", "flipped", "text", "empty"],
)
def test_a_damaged_zip_is_one_line_and_nothing_is_written(
    damage: Callable[[bytes], bytes], said: str, made: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    zip_ = tmp_path / "home" / "out.zip"
    zip_.parent.mkdir()
    zip_.write_bytes(damage(made.read_bytes()))
    for main, argv in readers(zip_, zip_.parent):
        line = refused(main, *argv)
        assert f"{zip_}: {said}" in line
        assert line.endswith("get it again, or pack it again: python -m cluster.pack RUNS out.zip\n")
    assert list(zip_.parent.iterdir()) == [zip_]


@pytest.mark.parametrize(
    "name",
    [
        "../out.txt",
        "/etc/passwd",
        "s/../../x/fold_0/DONE",
        "s/c/fold_0/cases.npz",
        "s/c/fold_0/run.sh",
        "s\\c/sweep.json",
    ],
)
def test_what_the_packer_never_writes_is_not_unpacked(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    zip_ = tmp_path / "out.zip"
    with zipfile.ZipFile(zip_, "w") as made:
        made.writestr("s/c/fold_0/DONE", "{}")
        made.writestr(name, "x")
    before = sorted(tmp_path.rglob("*"))
    for main, argv in readers(zip_, tmp_path):
        assert "which no packed sweep has; get it again" in refused(main, *argv)
    assert sorted(tmp_path.rglob("*")) == before


def test_neither_links_nor_bombs_are_unpacked(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link, large = zipfile.ZipInfo("s/c/fold_0/DONE"), tmp_path / "large.zip"
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as made:
        made.writestr(link, "/etc/passwd")
    assert "which is a link or a device" in refused(report.main, tmp_path / "link.zip")
    with zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("s/c/fold_0/DONE", b"0" * 3_000_000)
    monkeypatch.setattr(packed, "LARGEST", 2**21)
    assert "unpacks to more than 0 GB" in refused(report.main, large)


def test_a_flipped_byte_is_found_or_harms_nothing(made: Path, sweep: Path, tmp_path: Path) -> None:
    whole, zip_ = made.read_bytes(), tmp_path / "out.zip"
    wanted = contents(made)
    for place in np.random.default_rng(0).integers(0, len(whole), 12).tolist() + [len(whole) - n for n in (3, 60, 900)]:
        zip_.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with suppress(ValueError), packed.opened(zip_) as runs:
            assert {str(p.relative_to(runs)): p.read_bytes() for p in runs.rglob("*") if p.is_file()} == wanted


def test_bad_input_is_one_line(sweep: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "there.zip").write_text("mine")
    assert "there.zip: exists already; remove it or name another" in refused(pack.main, sweep, tmp_path / "there.zip")
    assert (tmp_path / "there.zip").read_text() == "mine"
    assert "no such folder; wanted runs/ or a sweep's folder" in refused(
        pack.main, tmp_path / "no", tmp_path / "out.zip"
    )
    assert "there is no folder" in refused(pack.main, sweep, tmp_path / "no" / "out.zip")
    tracked.sweep(tmp_path / "runs" / "asked")
    assert "no fold has begun in it" in refused(pack.main, tmp_path / "runs", tmp_path / "out.zip")
    ((run, *_),) = tracked.sweep(tmp_path / "more" / "begun", ["up3"])
    tracked.train(run, (1,))
    assert "--model: no configuration is done yet" in refused(
        pack.main, tmp_path / "more", tmp_path / "out.zip", "--model"
    )
    (run.path / "slices.csv").write_text("patient,phase\nErika Mustermann,ED of Mustermann\n")
    line = refused(pack.main, tmp_path / "more", tmp_path / "out.zip")
    assert f"{run.path / 'slices.csv'}: damaged (column 'phase' holds text, wanted numbers)" in line
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    "end", [KeyboardInterrupt, OSError(28, "No space left on device")], ids=["interrupted", "full"]
)
def test_killed_in_the_middle_there_is_no_zip(
    end: Any, sweep: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = zipfile.ZipFile.open, iter(range(9))

    def open_(self: zipfile.ZipFile, *args: Any, **named: Any) -> Any:
        if next(count) == 8:
            raise end
        return real(self, *args, **named)

    left_over = tmp_path / ".out.zip.partial" / "runs" / "study"  # of one that had no time to clear up
    left_over.mkdir(parents=True)
    (left_over / "sweep.json").write_text("half")
    monkeypatch.setattr(zipfile.ZipFile, "open", open_)
    status = 130 if end is KeyboardInterrupt else 2
    refused(pack.main, sweep, tmp_path / "out.zip", status=status)
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]


def test_settings_that_are_not_known_stay(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "s" / "c" / "fold_0")
    tracked.train(run, (1,))
    told = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(told + "data:\n  store: /lab/erika\nowner: erika\n")
    folder = tmp_path / "staged"
    folder.mkdir()
    staged.stage([tmp_path / "runs" / "s"], folder, model=False)
    assert (folder / "s" / "c" / "fold_0" / "config.yaml").read_text() == told


def test_columns_that_are_new_leave_with_their_numbers_and_structures_with_their_names(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "s" / "c" / "fold_0")
    tracked.train(run, (1,))
    text = "patient,phase,set,structure,area_true_mm2,new_mm\n"
    text += "DET1,0,test,left ventricle,5.25,0.1\nDET1,0,test,myocardium,6.5,\nDET2,0,test,myocardium,7.5,1e-3\n"
    (run.path / "slices.csv").write_text(text)
    folder = tmp_path / "staged"
    folder.mkdir()
    staged.stage([tmp_path / "runs" / "s"], folder, model=False)
    left = (folder / "s" / "c" / "fold_0" / "slices.csv").read_text()
    number = {row["new_mm"]: row["patient"] for row in rows(left)}
    assert sorted(left.replace(number["0.1"], "DET1").replace(number["1e-3"], "DET2")) == sorted(text)
    assert {number["0.1"], number["1e-3"]} == {"P001", "P002"}


def test_two_stores_may_call_two_people_alike(sweep: Path, tmp_path: Path) -> None:
    """Keys are P001, P002, ... in every store of a user's own."""
    runs = tmp_path / "runs"
    for name in ("first", "second"):
        shutil.copytree(sweep, runs / name)
    for path in (runs / "second").rglob("config.yaml"):
        path.write_text(path.read_text().replace("0" * 64, "1" * 64))
    assert pack.main([str(runs), str(tmp_path / "out.zip")]) == 0
    found = {}
    with packed.opened(tmp_path / "out.zip") as unpacked:
        for name in ("first", "second"):
            tables_of_it = (path.read_text().splitlines() for path in (unpacked / name).rglob("slices.csv"))
            found[name] = {row["patient"] for table in tables_of_it for row in csv.DictReader(table)}
    assert len(found["first"]) == len(found["second"]) == 6
    assert not found["first"] & found["second"]


WAITING = """
import sys, time
from pathlib import Path
from mtl import packed
with packed.opened(Path(sys.argv[1])):
    print("open", flush=True)
    time.sleep(60)
"""


def test_a_reader_that_is_terminated_leaves_nothing_unpacked(made: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    command = [sys.executable, "-c", WAITING, str(made)]
    temporary = os.environ | {"TMPDIR": str(own)}
    with subprocess.Popen(command, env=temporary, cwd=ROOT, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        assert list(own.iterdir())
        reader.terminate()
        assert reader.wait(timeout=30) == 128 + signal.SIGTERM
    assert list(own.iterdir()) == []
