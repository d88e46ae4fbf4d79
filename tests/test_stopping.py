"""Conversions that are stopped, repeated, or run into trouble: what was done stays done."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep import convert, jobs, making, phantom, store
from tests.archives import edit
from tests.test_convert import SMALL, bytes_of, rows_of, run


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
        while len(workers) < 2 and time.monotonic() < deadline:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            workers = [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(workers[0], signal.SIGKILL)  # before it has begun
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
