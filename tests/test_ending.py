"""How commands end: every one of them with one line and a status, whatever stops it."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cluster import cancel, launch, pack, status
from cluster.sites import __main__ as sites
from cluster.tracking import command as tracking
from data_prep import check, convert, phantom, preview
from mtl import predict, report
from sweeps import verdict

ROOT = Path(__file__).resolve().parent.parent
COMMANDS: dict[str, tuple[ModuleType, str, list[str]]] = {
    "cancel": (cancel, "cancel", ["runs/a"]),
    "check": (check, "check", ["a.zarr"]),
    "convert": (convert, "convert", ["raw", "a.zarr"]),
    "launch": (launch, "compose", []),
    "pack": (pack, "pack", ["runs/a", "out.zip"]),
    "phantom": (phantom, "make", ["raw"]),
    "predict": (predict, "predict", ["run", "in", "out"]),
    "preview": (preview, "preview", ["a.zarr", "a.png"]),
    "report": (report, "report", ["runs"]),
    "sites": (sites, "new", ["new"]),
    "status": (status, "report", ["runs/a"]),
    "tracking": (tracking, "mirror", ["mirror", "runs/a"]),
    "verdict": (verdict, "write", ["runs/a"]),
}
"""name -> its module, the function in it that does the work, a command line"""


@pytest.fixture(autouse=True)
def _this_process_stays_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    mask, handler, environment = os.umask(0o022), signal.getsignal(signal.SIGTERM), dict(os.environ)
    yield
    os.umask(mask)
    signal.signal(signal.SIGTERM, handler)
    os.environ.clear()
    os.environ |= environment


def ended(name: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """The status of the command whose work raises `error`."""
    module, work, argv = COMMANDS[name]

    def stopped(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, work, stopped)
    monkeypatch.setattr("sys.argv", [name, *argv])
    if module is launch:
        return launch.main()
    return int(module.main(argv))


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_is_one_line_and_130(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(name, KeyboardInterrupt(), monkeypatch) == 130
    out, err = capsys.readouterr()
    assert (out, re.sub("interrupted; .+", "interrupted; ...", err)) == ("", f"\n{name}: interrupted; ...\n")


@pytest.mark.parametrize("error", [ValueError("fold 7, wanted 1 to 5"), OSError("no such store")], ids=["value", "os"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_is_one_line_and_2(
    name: str, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(name, error, monkeypatch) == 2
    assert capsys.readouterr() == ("", f"{name}: {error}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_of_ours_is_not_hidden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        ended(name, ZeroDivisionError(), monkeypatch)


def test_these_are_all_commands() -> None:
    has_main = {
        path
        for floor in ("data_prep", "mtl", "sweeps", "cluster")
        for path in (ROOT / floor).rglob("*.py")
        if "\ndef main(" in path.read_text()
    }
    # The canary answers the command that sent it, in a file; its status is 0 or 1.
    assert has_main == {Path(str(module.__file__)) for module, *_ in COMMANDS.values()} | {ROOT / "cluster/canary.py"}
