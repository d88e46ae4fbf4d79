"""The house's order: a floor imports what stands below it, and each heavy library has one home."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ["data_prep", "mtl", "sweeps", "cluster"]
HOMES = {
    "torch": {"mtl/", "cluster/worker.py"},
    "SimpleITK": {"data_prep/"},
    "pydicom": {"data_prep/"},
    "zarr": {"data_prep/"},
    "ray": {"sweeps/", "cluster/executors.py"},
    "mlflow": {"cluster/tracking/"},
    "submitit": {"cluster/"},
}
FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_downward(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    above = FLOORS[FLOORS.index(floor) + 1 :]
    assert not {name for name in imported(path) if name.split(".")[0] in above}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_stay_in_their_home(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    for name in {name.split(".")[0] for name in imported(path)} & set(HOMES):
        assert any(place.startswith(home) for home in HOMES[name]), f"{name} in {place}"


def test_mtl_takes_only_the_store_whole_files_and_how_a_command_ends_from_data_prep() -> None:
    for path in (ROOT / "mtl").rglob("*.py"):
        taken = {".".join(name.split(".")[:2]) for name in imported(path) if name.startswith("data_prep.")}
        of_new_cases = {"data_prep.newcases", "data_prep.export"} if path.name == "predict.py" else set()
        assert taken <= {"data_prep.store", "data_prep.files", "data_prep.ending", *of_new_cases}, path


def test_the_parts_that_drivers_read_import_no_torch() -> None:
    for name in ("config.py", "runfolder.py", "data.py", "slices.py"):
        assert "torch" not in {n.split(".")[0] for n in imported(ROOT / "mtl" / name)}


def test_no_file_in_cluster_hides_a_library() -> None:
    assert not {p.stem for p in (ROOT / "cluster").glob("*.py")} & {"mlflow", "ray", "submitit", "hydra"}


def test_files_can_be_read_in_one_sitting() -> None:
    assert {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 350} == {}
