"""People's names in folders, files and tags: nowhere in what is stored, written or printed on the way to an answer."""

import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from tests.archives import edit

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = ["Erika_Mustermann", "Klaus-Brinkmann", "Anton Abendroth"]
TAGS = {"PatientID": "ID-778899", "PatientBirthDate": "19500417", "InstitutionName": "Sankt Nirgendwo"}


@pytest.fixture
def people(raw: Path, tmp_path: Path) -> Path:
    """Three of the phantom's patients, in folders and files named after people, and a fourth that cannot be used."""
    for number, person in enumerate([*PEOPLE, "Zacharias_Zobel"], start=1):
        folder = tmp_path / "archive" / person
        folder.mkdir(parents=True)
        for path in sorted((raw / f"DET900000{number}").iterdir()):
            shutil.copy(path, folder / path.name.replace(f"DET900000{number}", person))

        def name(dataset: pydicom.Dataset, _: Path, person: str = person) -> None:
            dataset.PatientName = person
            for key, value in TAGS.items():
                setattr(dataset, key, value)

        edit(folder, name)
    (tmp_path / "archive" / "Zacharias_Zobel" / "Zacharias_Zobel_SA1_ph0.dcm").write_text("no image")
    return tmp_path / "archive"


def ran(home: Path, *argv: str, status: int = 0) -> str:
    ended = subprocess.run([sys.executable, *argv], cwd=home, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == status, ended.stderr
    return ended.stdout + ended.stderr


def test_no_name_gets_further_than_the_report_and_the_list_beside_the_store(people: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    printed = ran(
        home, "-m", "data_prep.convert", str(people), "store.zarr", "--size", "32", "--spacing-mm", "6.25", status=3
    )
    printed += ran(home, "-m", "data_prep.check", "store.zarr")
    printed += ran(home, "-m", "data_prep.preview", "store.zarr", "sheets")
    sweep = ["sweep=branch_location", "profile=demo", "data.store=store.zarr", "model.branch=up4", "model.width=2"]
    sweep += ["train.folds=3", "train.epochs=1", "train.batch_size=8"]
    printed += ran(home, str(ROOT / "cluster" / "launch.py"), *sweep)
    assert "branch" in printed
    assert (home / "runs" / "mlflow.db").exists()
    names = [
        part for person in [*PEOPLE, "Zacharias_Zobel"] for part in person.replace("_", " ").replace("-", " ").split()
    ]
    secrets = [secret.lower() for secret in [*names, *TAGS.values()]]
    beside = {home / "store.zarr.report.csv", home / "store.zarr.keys.csv"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in beside)
    for path in sorted(home.rglob("*")):
        assert not [s for s in secrets if s in str(path.relative_to(home)).lower()], path
        if path.is_file() and path not in beside:
            content = path.read_bytes().lower()
            assert not [s for s in secrets if s.encode() in content], path
    assert not [s for s in secrets if s in printed.lower()]
    assert "set aside: P004: SA1_ph0.dcm: not readable as DICOM" in printed
