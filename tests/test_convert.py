"""The command: report, stopping and repeating, workers, privacy, bad arguments."""

import csv
import errno
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from data_prep import convert, jobs, making, phantom, report, store
from data_prep.readers.found import Options
from tests.archives import edit

SMALL = ["--size", "48", "--spacing-mm", "6.25"]


def run(*argv: object) -> int:
    return convert.main([str(a) for a in argv] + SMALL)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(report.beside(path), newline="") as handle:
        return list(csv.DictReader(handle))


def bytes_of(path: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_attributes_of_a_patient(store_path: Path) -> None:
    opened = store.open(store_path)
    assert (opened.source, opened.spacing_mm, opened.size) == ("phantom", (6.25, 6.25), (48, 48))
    assert [p.key for p in opened.patients] == [f"DET900000{n}" for n in range(1, 6)]
    attributes = opened.patients[0].attributes
    assert {*attributes} >= {"subject", "stratum", "slice_spacing_mm", "phase_rule", "z_rule", "digest"}
    assert attributes["slice_spacing_mm"] == pytest.approx(10, abs=1e-3)
    assert attributes["source_spacing_mm"] == [[1.7708, 1.7708]] * 3
    assert {attributes["ed_phase"], attributes["es_phase"]} == {0, 1}


# The report


def test_every_file_is_accounted_for_once(raw: Path, tmp_path: Path) -> None:
    for n in (1, 2, 3):
        shutil.copytree(raw / f"DET900000{n}", tmp_path / "raw" / f"DET900000{n}")
    one = tmp_path / "raw" / "DET9000001"
    shutil.copy(one / "DET9000001_SA1_ph0.dcm", one / "DET9000001_LA1_ph0.dcm")
    shutil.copy(one / "DET9000001_SA1_ph0.png", one / "DET9000001_SA1_ph5.png")
    (one / "notes.txt").write_text("x")
    (one / ".DS_Store").write_text("x")
    (one / "again").symlink_to("..")
    (tmp_path / "raw" / "DET9000002" / "DET9000002_SA2_ph0.dcm").write_text("no image")
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 3
    rows = rows_of(tmp_path / "s.zarr")
    files = {str(p.relative_to(tmp_path / "raw")) for p in (tmp_path / "raw").rglob("*") if not p.is_dir()}
    assert sorted(row["file"] for row in rows) == sorted(files | {"DET9000001/again"})
    by_file = {Path(row["file"]).name: row for row in rows}
    outcomes = {name: (row["study"], row["outcome"]) for name, row in by_file.items()}
    assert outcomes["DET9000001_SA1_ph0.dcm"] == ("DET9000001", "used")
    assert outcomes["DET9000001_LA1_ph0.dcm"] == ("", "ignored")
    assert outcomes["DET9000001_SA1_ph5.png"] == ("DET9000001", "mended")
    assert outcomes["notes.txt"] == outcomes[".DS_Store"] == outcomes["again"] == ("", "ignored")
    assert outcomes["DET9000002_SA2_ph0.dcm"] == outcomes["DET9000002_SA1_ph0.dcm"] == ("DET9000002", "set_aside")
    assert by_file["DET9000002_SA1_ph0.dcm"]["reason"].startswith("its study is set aside: DET9000002_SA2_ph0.dcm: ")
    assert {row["outcome"] for row in rows} == {"used", "ignored", "mended", "set_aside"}
    assert all(row["reason"] for row in rows if row["outcome"] != "used")
    assert stat.S_IMODE(report.beside(tmp_path / "s.zarr").stat().st_mode) == 0o600


def test_the_summary_says_what_was_done(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raw, tmp_path / "s.zarr") == 0
    out = capsys.readouterr().out
    assert re.search(r"5 studies, 10 volumes, 30 slices \(30 labelled\), 0 studies mended, 0 set aside, 36 files", out)
    assert re.search(r"MB \(\d+ bytes\) written, [\d.]+ s: ", out)
    assert str(report.beside(tmp_path / "s.zarr")) in out
    files = [p for p in (tmp_path / "s.zarr").rglob("*") if p.is_file()]
    assert len(files) == 36
    assert f"({sum(p.stat().st_size for p in files)} bytes)" in out
    assert max(sum(f.is_file() for f in p.rglob("*")) for p in (tmp_path / "s.zarr").iterdir()) <= 8


def test_a_dry_run_says_the_files_and_bytes_that_are_then_written(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raw, tmp_path / "s.zarr", "--dry-run") == 0
    would = re.search(r"would write (\d+ files, [\d.]+ MB \(\d+ bytes\))", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    run(raw, tmp_path / "s.zarr")
    assert would is not None
    assert f"{would[1]} written" in capsys.readouterr().out


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_strict_writes_nothing_when_a_study_would_be_set_aside(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dry: list[str]
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    assert run(tmp_path / "raw", tmp_path / "good.zarr", "--strict") == 0
    (tmp_path / "raw" / "DET9000003" / "DET9000003_SA1_ph1.dcm").write_text("no image")
    assert run(tmp_path / "raw", tmp_path / "s.zarr", "--strict", *dry) == 2
    assert "set aside: DET9000003: DET9000003_SA1_ph1.dcm: not readable as DICOM" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "good.zarr", "good.zarr.report.csv"}


def test_the_others_go_on_and_status_is_3(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in (1, 2):
        shutil.copytree(raw / f"DET900000{n}", tmp_path / "raw" / f"DET900000{n}")
    (tmp_path / "raw" / "DET9000001" / "DET9000001_SA2_ph1.dcm").write_text("no image")
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 3
    captured = capsys.readouterr()
    assert "set aside: DET9000001: DET9000001_SA2_ph1.dcm: not readable as DICOM" in captured.out
    assert "Traceback" not in captured.err
    assert [p.key for p in store.open(tmp_path / "s.zarr").patients] == ["DET9000002"]


def test_where_all_are_set_aside_there_is_a_report_and_no_store(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(raw / "DET9000001", tmp_path / "raw" / "DET9000001")
    (tmp_path / "raw" / "DET9000001" / "DET9000001_SA2_ph1.dcm").write_text("no image")
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 3
    assert "no study can be used, so" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "s.zarr.report.csv"}
    assert {row["outcome"] for row in rows_of(tmp_path / "s.zarr")} == {"set_aside"}


# Again


def test_the_same_bytes_whatever_the_workers(raw: Path, tmp_path: Path) -> None:
    assert run(raw, tmp_path / "a.zarr") == 0
    assert run(raw, tmp_path / "b.zarr", "--workers", 2) == 0
    assert bytes_of(tmp_path / "a.zarr") == bytes_of(tmp_path / "b.zarr")


def test_run_again_it_converts_what_changed_alone(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    out = tmp_path / "s.zarr"
    run(tmp_path / "raw", out)
    before, stamps = bytes_of(out), {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert run(tmp_path / "raw", out) == 0
    assert "5 studies (5 unchanged)" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == stamps
    reported = rows_of(out)
    path = tmp_path / "raw" / "DET9000002" / "DET9000002_SA1_ph0.dcm"
    edit(path.parent, lambda dataset, p: setattr(dataset, "RescaleSlope", "3") if p == path else None)
    assert run(tmp_path / "raw", out) == 0
    assert "5 studies (4 unchanged)" in capsys.readouterr().out
    assert rows_of(out) == reported
    changed = {name.split("/")[0] for name, content in bytes_of(out).items() if content != before[name]}
    assert changed == {"DET9000002"}
    shutil.copytree(tmp_path / "raw" / "DET9000002", tmp_path / "raw" / "DET9000007")
    for p in (tmp_path / "raw" / "DET9000007").iterdir():
        p.rename(p.with_name(p.name.replace("DET9000002", "DET9000007")))
    assert run(tmp_path / "raw", out) == 0
    assert "6 studies (5 unchanged)" in capsys.readouterr().out
    assert len(store.open(out).patients) == 6
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "s.zarr", "s.zarr.report.csv"}


def test_a_study_that_is_now_set_aside_leaves_the_store(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    run(tmp_path / "raw", tmp_path / "s.zarr")
    (tmp_path / "raw" / "DET9000002" / "DET9000002_SA1_ph0.dcm").write_text("no image")
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 3
    assert "DET9000002" not in {p.key for p in store.open(tmp_path / "s.zarr").patients}


def test_a_store_of_other_patients_or_another_grid_is_not_touched(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(raw, tmp_path / "s.zarr")
    before = bytes_of(tmp_path / "s.zarr")
    shutil.copytree(raw / "DET9000001", tmp_path / "raw" / "DET9000001")
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 2
    assert "holds 4 patients that the raw folder has not (DET9000002" in capsys.readouterr().err
    assert convert.main([str(raw), str(tmp_path / "s.zarr"), "--size", "96"]) == 2
    assert "exists with spacing_mm [6.25, 6.25], wanted [1.5625, 1.5625]; name another store" in capsys.readouterr().err
    assert bytes_of(tmp_path / "s.zarr") == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("damage", ["flip", "lose", "cut"])
def test_a_patient_who_was_damaged_since_is_converted_again(raw: Path, tmp_path: Path, damage: str) -> None:
    run(raw, tmp_path / "s.zarr")
    whole = bytes_of(tmp_path / "s.zarr")
    shard = tmp_path / "s.zarr" / "DET9000002" / "mask_TZYX" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content if damage == "flip" else content[:-9])
    if damage == "lose":
        shard.unlink()
    assert run(raw, tmp_path / "s.zarr") == 0
    assert bytes_of(tmp_path / "s.zarr") == whole


def test_a_lost_patient_comes_back(raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "s.zarr")
    whole = bytes_of(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "DET9000002" / "zarr.json").unlink()
    shutil.rmtree(tmp_path / "s.zarr" / "DET9000004" / "image_TZYX")
    assert run(raw, tmp_path / "s.zarr") == 0
    assert bytes_of(tmp_path / "s.zarr") == whole


def test_a_dry_run_knows_the_store_that_is_there(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(raw, tmp_path / "s.zarr")
    capsys.readouterr()
    assert run(raw, tmp_path / "s.zarr", "--dry-run") == 0
    assert "5 studies (5 unchanged)" in capsys.readouterr().out
    (tmp_path / "other").mkdir()
    assert run(raw, tmp_path / "other", "--dry-run") == 2


def test_a_link_to_a_store_stays_one(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    (tmp_path / "disk").mkdir()
    (tmp_path / "s.zarr").symlink_to(tmp_path / "disk" / "real.zarr")
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 0
    edit(tmp_path / "raw" / "DET9000002", lambda dataset, _: setattr(dataset, "RescaleSlope", "3"))
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 0
    assert (tmp_path / "s.zarr").is_symlink()
    assert len(store.open(tmp_path / "disk" / "real.zarr").patients) == 5


def test_a_reader_that_goes_away_is_no_error(raw: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "data_prep.convert", str(raw), str(tmp_path / "s.zarr"), *SMALL]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0


# Stopped


def crash_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the n-th folder or file that takes its place kills the process, as it were."""
    count = 0
    rename = Path.rename

    def crash(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == number:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", crash)


@pytest.mark.parametrize("number", range(1, 7))
def test_stopped_before_any_folder_takes_its_place_it_goes_on(
    raw: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, store_path: Path
) -> None:
    with monkeypatch.context() as patched:
        crash_at(number, patched)
        assert run(raw, tmp_path / "s.zarr") == 130
    assert not (tmp_path / "s.zarr").exists()
    summary = convert.convert(raw, tmp_path / "s.zarr", 6.25, 48)
    assert sum(o.result == "unchanged" for o in summary.used) == min(number - 1, 5)
    assert bytes_of(tmp_path / "s.zarr") == bytes_of(store_path)


@pytest.mark.parametrize("number", range(1, 5))
def test_stopped_while_a_store_is_brought_up_to_date_it_goes_on(
    raw: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, store_path: Path
) -> None:
    """At no moment is there a store that mixes old and new, and the next run ends as if nothing had happened."""
    shutil.copytree(raw, tmp_path / "raw")
    path = tmp_path / "raw" / "DET9000002" / "DET9000002_SA1_ph0.dcm"
    content = path.read_bytes()
    edit(path.parent, lambda dataset, p: setattr(dataset, "RescaleSlope", "3") if p == path else None)
    run(tmp_path / "raw", tmp_path / "s.zarr")
    old = bytes_of(tmp_path / "s.zarr")
    path.write_bytes(content)
    edit(path.parent, lambda dataset, p: None)
    with monkeypatch.context() as patched:
        crash_at(5 + number, patched)  # five patients are linked first
        assert run(tmp_path / "raw", tmp_path / "s.zarr") == 130
    if (tmp_path / "s.zarr").exists():
        assert bytes_of(tmp_path / "s.zarr") == old
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 0
    new = bytes_of(tmp_path / "s.zarr")
    assert store.open(tmp_path / "s.zarr").digest == store.open(store_path).digest
    assert {name for name in new if new[name] != old[name]} <= {name for name in new if name.startswith("DET9000002")}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_for_real_at_any_moment_it_goes_on(tmp_path: Path, workers: int) -> None:
    """kill -9 of the command alone: its workers end too, and the next runs end with the same bytes."""
    phantom.make(tmp_path / "raw", patients=8, slices=4, phases=4, seed=0)
    argv = [str(tmp_path / "raw"), str(tmp_path / "s.zarr"), "--workers", str(workers), *SMALL]
    begin = time.monotonic()
    assert convert.main([*argv[:1], str(tmp_path / "whole.zarr"), *argv[2:]]) == 0
    whole_s = time.monotonic() - begin
    for share in (0.2, 0.5, 0.8):
        process = subprocess.Popen([sys.executable, "-m", "data_prep.convert", *argv], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while (
            not list(tmp_path.glob(".s.zarr.partial/DET*")) and time.monotonic() < deadline and process.poll() is None
        ):
            time.sleep(0.01)
        time.sleep(share * whole_s / 2)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert convert.main(argv) == 0
    assert bytes_of(tmp_path / "s.zarr") == bytes_of(tmp_path / "whole.zarr")
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_ends_it_and_what_was_done_is_kept(raw: Path, tmp_path: Path, store_path: Path) -> None:
    """A file of the system's own limit instead of a full disk: the write fails in the middle of a shard."""
    script = (
        "import resource, sys; from data_prep import convert\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "sys.exit(convert.main(sys.argv[1:]))\n"
    )
    argv = [str(raw), str(tmp_path / "s.zarr"), *SMALL]
    ended = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert "File too large; nothing is half written and finished studies are kept" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "s.zarr").exists()
    assert not list(tmp_path.glob(f".s.zarr.partial/{store.MAKING}*"))
    assert convert.main(argv) == 0
    assert bytes_of(tmp_path / "s.zarr") == bytes_of(store_path)


def test_a_disk_that_is_full_in_a_worker(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store, "write_patient", full)
    with pytest.raises(jobs.WriteError, match="No space left on device"):
        convert.convert(raw, tmp_path / "s.zarr", 6.25, 48)


def test_a_worker_that_is_killed_is_named_by_what_it_was_at(raw: Path, tmp_path: Path) -> None:
    argv = [str(raw), str(tmp_path / "s.zarr"), "--workers", "2", *SMALL]
    process = subprocess.Popen([sys.executable, "-m", "data_prep.convert", *argv], stderr=subprocess.PIPE, text=True)
    workers: list[int] = []
    with process:
        deadline = time.monotonic() + 60
        while not workers and time.monotonic() < deadline:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            workers = [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(workers[0], signal.SIGKILL)  # while it starts
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.search(r"a worker was killed, .*at one of these studies: DET9\d+, DET9\d+; finished ones are kept", error)
    assert "Traceback" not in error
    assert not (tmp_path / "s.zarr").exists()


def test_two_at_once(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = store.root_attributes("phantom", (6.25, 6.25), (48, 48), ("background", "myocardium"))
    with making.making(tmp_path / "s.zarr", root, ["DET9000001"]):
        assert run(raw, tmp_path / "s.zarr") == 2
    assert "another process is writing it" in capsys.readouterr().err


# Privacy

PERSON = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "ID-778899",
    "PatientBirthDate": "19500417",
    "PatientAddress": "Hauptstrasse 1",
    "InstitutionName": "Sankt Nirgendwo",
    "ReferringPhysicianName": "Brinkmann^Klaus",
    "StudyDescription": "Geheimbefund",
    "AccessionNumber": "ACC-4711",
    "StudyDate": "20110203",
    "DeviceSerialNumber": "SN-90210",
}


def test_no_tag_that_identifies_reaches_the_store(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw / "DET9000001", tmp_path / "raw" / "DET9000001")

    def name(dataset: pydicom.Dataset, _: Path) -> None:
        for key, value in PERSON.items():
            setattr(dataset, key, value)

    edit(tmp_path / "raw" / "DET9000001", name)
    dataset = pydicom.dcmread(next((tmp_path / "raw").rglob("*.dcm")))
    uids = [dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID]
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 0
    stored = b"".join(bytes_of(tmp_path / "s.zarr").values())
    for secret in [*PERSON.values(), *uids, str(tmp_path), "DET9000001_SA1"]:
        assert str(secret).encode() not in stored


def named_after_people(raw: Path, folder: Path) -> Path:
    for number, person in enumerate(("ERIKA_MUSTERMANN", "Klaus Brinkmann"), start=1):
        for path in sorted((raw / f"DET900000{number}").iterdir()):
            target = folder / person / path.name.replace(f"DET900000{number}", person)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return folder


def test_folders_named_after_people_become_pseudonyms_and_the_list_lies_outside(
    raw: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    people = named_after_people(raw, tmp_path / "raw")
    shutil.copy(
        people / "Klaus Brinkmann" / "Klaus Brinkmann_SA1_ph0.png", people / "Klaus Brinkmann" / "x_SA1_ph0.png"
    )
    (people / "ERIKA_MUSTERMANN" / "ERIKA_MUSTERMANN_SA1_ph0.dcm").write_text("no image")
    assert run(people, tmp_path / "s.zarr") == 3
    assert run(people, tmp_path / "s.zarr", "--workers", 2, "--dry-run") == 3
    assert run(people, tmp_path / "t.zarr", "--strict") == 2
    printed = "".join(capfd.readouterr())
    stored = b"".join(bytes_of(tmp_path / "s.zarr").values()) + "".join(bytes_of(tmp_path / "s.zarr")).encode()
    for secret in ("mustermann", "erika", "klaus", "brinkmann"):
        assert secret not in printed.lower()
        assert secret.encode() not in stored.lower()
    assert "set aside: P001: SA1_ph0.dcm: not readable as DICOM" in printed
    assert [p.key for p in store.open(tmp_path / "s.zarr").patients] == ["P002"]
    listed = tmp_path / "s.zarr.keys.csv"
    assert listed.read_text() == "key,name\nP001,ERIKA_MUSTERMANN\nP002,KLAUS BRINKMANN\n"
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600


def test_a_pseudonym_stays_a_persons_when_others_come(raw: Path, tmp_path: Path) -> None:
    people = named_after_people(raw, tmp_path / "raw")
    assert run(people, tmp_path / "s.zarr") == 0
    digests = {p.key: p.attributes["digest"] for p in store.open(tmp_path / "s.zarr").patients}
    for path in sorted((raw / "DET9000003").iterdir()):
        shutil.copy(path, people / path.name.replace("DET9000003", "ANTON"))
    assert run(people, tmp_path / "s.zarr") == 0
    now = {p.key: p.attributes["digest"] for p in store.open(tmp_path / "s.zarr").patients}
    assert {*now} == {"P001", "P002", "P003"}
    assert {key: now[key] for key in digests} == digests
    assert "P003,ANTON" in (tmp_path / "s.zarr.keys.csv").read_text()


def test_names_are_kept_where_that_is_asked_for(raw: Path, tmp_path: Path) -> None:
    people = named_after_people(raw, tmp_path / "raw")
    assert run(people, tmp_path / "s.zarr", "--keep-names") == 0
    assert [p.key for p in store.open(tmp_path / "s.zarr").patients] == ["ERIKA_MUSTERMANN", "KLAUS_BRINKMANN"]
    assert not (tmp_path / "s.zarr.keys.csv").exists()


# Arguments


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command; the one line it complains with."""

    def complain(*argv: object) -> str:
        assert convert.main([str(a) for a in argv]) == 2
        error = capsys.readouterr().err
        assert error.startswith("convert: ")
        assert error.count("\n") == 1
        return error

    return complain


def test_bad_arguments_are_one_line_and_status_2(raw: Path, tmp_path: Path, failing: Callable[..., str]) -> None:
    out = tmp_path / "s.zarr"
    assert "no such folder" in failing(tmp_path / "none", out)
    file = tmp_path / "file.dcm"
    file.write_text("x")
    assert "file.dcm: is a file; give the archive's folder, or a table" in failing(file, out)
    assert "--size is 100, wanted a multiple of 16 (four down-samplings)" in failing(raw, out, "--size", 100)
    assert "--spacing-mm is nan" in failing(raw, out, "--spacing-mm", "nan")
    assert "--workers is 0, wanted 1 to 1024" in failing(raw, out, "--workers", 0)
    assert "--label is for a table of own masks" in failing(raw, out, "--label", "myocardium=2")
    for something in ("folder", "file"):
        out = tmp_path / something
        (out.mkdir if something == "folder" else out.touch)()
        assert "exists already and is something else; name another" in failing(raw, out)
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize(
    "argv",
    [
        ["--reader", "other"],
        ["--label", "heart=1"],
        ["--label", "myocardium=0"],
        ["--label", "myocardium"],
        ["--workers", "x"],
    ],
)
def test_the_parsers_own_complaints_are_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        convert.main(["raw", "out", *argv])
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_what_no_reader_recognises_is_described_with_a_table_to_start_from(
    tmp_path: Path, failing: Callable[..., str]
) -> None:
    (tmp_path / "raw").mkdir()
    assert "no layout recognised; found no file; wanted LVSC: DET" in failing(tmp_path / "raw", tmp_path / "s")
    for name in ("a.jpg", "b.jpg", "erika mustermann", "c.nii.gz"):
        (tmp_path / "raw" / name).touch()
    said = failing(tmp_path / "raw", tmp_path / "s")
    assert "found 2 .jpg, " in said
    assert "'subject,image,mask,phase,stratum\\nP001,P001/cine.nii.gz,P001/ed_mask.nii.gz,0,'" in said
    assert "mustermann" not in said
    assert "wanted Sunnybrook: " in failing(tmp_path / "raw", tmp_path / "s", "--reader", "sunnybrook")


def test_a_link_loop_ends(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw / "DET9000001", tmp_path / "raw" / "DET9000001")
    (tmp_path / "raw" / "DET9000001" / "loop").symlink_to(tmp_path / "raw")
    (tmp_path / "raw" / "elsewhere").symlink_to(raw / "DET9000002")
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 0
    assert [p.key for p in store.open(tmp_path / "s.zarr").patients] == ["DET9000001", "DET9000002"]
    assert {row["reason"] for row in rows_of(tmp_path / "s.zarr") if row["outcome"] == "ignored"} == {
        "a link to a folder that is read already"
    }


def test_links_to_folders_that_are_read_under_their_own_name(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw / "DET9000001", tmp_path / "raw" / "z" / "DET9000001")
    (tmp_path / "raw" / "aaa").mkdir()
    (tmp_path / "raw" / "aaa" / "today").symlink_to(tmp_path / "raw" / "z" / "DET9000001")
    assert run(tmp_path / "raw", tmp_path / "s.zarr") == 0
    used = [row["file"] for row in rows_of(tmp_path / "s.zarr") if row["outcome"] == "used"]
    assert all(name.startswith("z/DET9000001/") for name in used)


def test_hidden_folders_stores_and_names_in_other_encodings_have_their_rows(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw / "DET9000001", tmp_path / "raw" / "DET9000001")
    (tmp_path / "raw" / "DET9000001" / "zarr.json").write_text("somebody else's")
    (tmp_path / "raw" / ".git").mkdir()
    (tmp_path / "raw" / ".git" / "config").touch()
    os.close(os.open(os.fsencode(tmp_path / "raw") + b"/M\xfcller.txt", os.O_CREAT))
    assert run(tmp_path / "raw", tmp_path / "raw" / "s.zarr") == 0
    assert run(tmp_path / "raw", tmp_path / "t.zarr") == 0
    listed = report.beside(tmp_path / "t.zarr").read_bytes().splitlines()
    assert b"M\xfcller.txt,,ignored,no file of the layout that was read" in listed
    assert b".git/config,,ignored,hidden" in listed
    files = [p for p in (tmp_path / "raw").rglob("*") if p.is_file()]
    assert len(listed) - 1 == len(files)
    assert sum(line.endswith(b",ignored,of a store") for line in listed) == 8


def test_names_of_folders_that_no_store_can_have(raw: Path, tmp_path: Path, failing: Callable[..., str]) -> None:
    assert "is no name for a folder of its own" in failing(raw, "/")
    assert "exists already and is something else" in failing(raw, tmp_path)
    (tmp_path / "file").touch()
    assert "file" in failing(raw, tmp_path / "file" / "s.zarr")


def test_options_default_to_none_given() -> None:
    assert Options() == Options({}, keep_names=False)
    assert np.dtype(store.ARRAYS["image_TZYX"]) == np.int16
