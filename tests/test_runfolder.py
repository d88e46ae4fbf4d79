"""Atomic writes, the lock, outcomes, patience with a full disk."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep import files
from data_prep.files import Locked, locked
from mtl import runfolder
from mtl.runfolder import RunFolder


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    files.write_text(path, "old")

    def fill_the_disk() -> None:
        with files.atomic(path) as temporary:
            temporary.write_text("ne")
            assert path.read_text() == "old"
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        fill_the_disk()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_waited_for_and_told_once(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[int] = []

    def write() -> str:
        tried.append(len(tried))
        if len(tried) < 4:
            raise OSError(number, os.strerror(number), str(tmp_path / "last.pt"))
        return "written"

    assert files.patiently(write, wait_s=60, every_s=0.001) == "written"
    assert len(tried) == 4
    told = capsys.readouterr().err
    assert told == f"[Errno {number}] {os.strerror(number)}: '{tmp_path}/last.pt': waiting for room, 60 s at most\n"
    tried.clear()
    lines: list[str] = []
    files.patiently(write, wait_s=60, every_s=0.001, told=lines.append)
    assert lines == [told.strip()]
    assert capsys.readouterr().err == ""


def test_the_wait_for_a_full_disk_ends_and_no_other_error_is_waited_for() -> None:
    def write(number: int) -> None:
        tried.append(number)
        raise OSError(number, os.strerror(number))

    tried: list[int] = []
    begin = time.monotonic()
    with pytest.raises(OSError, match="No space left"):
        files.patiently(lambda: write(errno.ENOSPC), wait_s=0.2, every_s=0.05, told=lambda line: None)
    assert 0.2 <= time.monotonic() - begin < 2
    assert len(tried) > 2
    tried.clear()
    with pytest.raises(OSError, match="Permission denied"):
        files.patiently(lambda: write(errno.EACCES))
    assert tried == [errno.EACCES]


def test_csv_keeps_every_digit_and_leaves_missing_numbers_empty(tmp_path: Path) -> None:
    third = 1 / 3
    files.write_csv(tmp_path / "x.csv", [{"a": third, "b": None, "c": float("nan")}], ["a", "b", "c"])
    assert (tmp_path / "x.csv").read_text() == f"a,b,c\n{third!r},,\n"


def test_the_lock_holds_against_another_process_and_says_who(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from data_prep.files import locked\n"
        "with locked(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(Locked, match=f"being written by process {other.pid} on "), locked(tmp_path):
            pass
        other.kill()  # -9: the lock goes with the process
        other.wait()
        with locked(tmp_path, wait_s=5):
            pass


def test_a_lock_holds_where_there_is_no_room_to_say_who_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("data_prep.files.os.write", full)
    with locked(tmp_path), pytest.raises(Locked, match="is being written by somebody"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_folders_are_private(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.prepare({"a": 1})
    assert os.stat(folder.path).st_mode & 0o777 == 0o700


def test_another_configuration_or_other_data_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    mine = {"data_digest": "abc", "model": {"width": 2}, "fold": 0}
    folder.prepare(mine)
    folder.check(mine)
    with pytest.raises(ValueError, match=r"made with other data; remove it or use another runs="):
        folder.check({**mine, "data_digest": "abd"})
    with pytest.raises(ValueError, match=r"made with another model;"):
        folder.check({**mine, "model": {"width": 4}})
    (tmp_path / "config.yaml").write_text("{")
    with pytest.raises(ValueError, match="remove it"):
        folder.check(mine)


def test_exactly_one_outcome(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.outcome() is None
    folder.finish("FAILED", "out of memory", traceback="...")
    assert (folder.outcome(), folder.reason()) == ("FAILED", "out of memory")
    folder.prepare({"a": 1})  # tried again
    assert folder.outcome() is None
    folder.finish("FAILED", "again")
    folder.finish("DONE", "all epochs trained")
    assert [p.name for p in tmp_path.iterdir() if p.name in runfolder.OUTCOMES] == ["DONE"]


def test_epochs_and_the_best_of_them(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.epochs() == []
    records = [{"epoch": n, "dice_val": dice} for n, dice in enumerate([0.1, 0.7, 0.7, 0.3], start=1)]
    folder.write_epochs(records)
    assert folder.epochs() == records
    assert runfolder.best_epoch(records)["epoch"] == 2
