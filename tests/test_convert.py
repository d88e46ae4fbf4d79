"""The command: report, privacy, bad arguments."""

import csv
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from data_prep import convert, report, store
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
