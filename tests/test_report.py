"""The report's tables, methods and files."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtl import figures, methods, paper, report, results, statistics, tables
from mtl.config import Model, Protocol
from mtl.results import Trained
from mtl.table import Table
from tests.reporting import BASE, PAPERS, write_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("runs") / "paper")


@pytest.fixture(scope="module")
def trained(runs: Path) -> list[Trained]:
    return results.load([runs])


def row(table: Table, *starts: str) -> dict[str, str]:
    (found,) = [cells for cells in table.rows if cells[: len(starts)] == starts]
    return dict(zip(table.head, found, strict=True))


def test_the_papers_numbers_are_those_of_its_text() -> None:
    assert paper.TABLE1["dice", "all", "MTN"] == (0.849, 0.036)
    assert paper.TABLE1["msd", "ED", "UNet"] == (0.318, 0.089)
    assert paper.TABLE1["hd", "ES", "MTN"] == (13.355, 3.861)
    assert paper.TABLE2["all", "all", "MTN", "Reg"] == (206, 198)
    assert paper.TABLE2["mid", "ED", "MTN", "Seg"] == (141, 132)
    assert paper.TABLE2["basal", "all", "UNet", "Seg"] == (237, 319)
    assert len(paper.TABLE1), len(paper.TABLE2) == (24, 36)
    assert np.exp(-paper.LOG_SIGMA2_SEG + paper.LOG_SIGMA_REG) == pytest.approx(paper.RATIO, abs=1)


def test_table_1_is_the_mean_and_sd_over_test_volumes_beside_the_papers(trained: list[Trained]) -> None:
    told = row(tables.table1(trained), "end-systole", "Dice")
    dice = trained[1].volumes.metric_V["dice"][trained[1].volumes.is_es_V]
    assert told["MTN up4"] == f"{dice.mean():.3f} ± {dice.std(ddof=1):.3f}"
    assert (told["paper, UNet"], told["paper, MTN"]) == ("0.850 ± 0.033", "0.849 ± 0.036")
    assert len(tables.table1(trained).rows) == 3 * 6


def test_table_2_has_each_source_by_phase_and_region(trained: list[Trained]) -> None:
    table = tables.table2(trained)
    assert table.head[2:] == (
        "Seg, U-Net", "paper, UNet", "Reg, MTN up4", "paper, MTN", "Seg, MTN up4", "paper, MTN"
    )  # fmt: skip
    cells = next(cells for cells in table.rows if cells[:2] == ("all phases", "mid"))
    areas = trained[1].areas
    differences = np.abs(areas.reg_mm2_S - areas.true_mm2_S)[areas.region_S == "mid"]
    assert cells[4] == f"{differences.mean():.0f} ± {differences.std(ddof=1):.0f}"
    assert (cells[3], cells[5], cells[7]) == ("176 ± 141", "212 ± 178", "149 ± 132")


def test_means_have_both_intervals(trained: list[Trained]) -> None:
    volumes = trained[0].volumes
    dice = volumes.metric_V["dice"]
    told = row(tables.means(trained), "U-Net", "Dice")
    wide = statistics.mean_interval_by_patient(dice, volumes.patient_V)
    assert told["99 %, by patient"] == f"{wide.low:.4f} to {wide.high:.4f}"
    assert told["99 %, by volume (the paper's)"] != told["99 %, by patient"]


def test_differences_are_paired_against_the_baseline(trained: list[Trained]) -> None:
    table = tables.differences(trained)
    told = row(table, "MTN up4", "Dice")
    a, b = (one.volumes.metric_V["dice"] for one in reversed(trained))
    wanted = statistics.paired_difference(trained[1].volumes.keys, a, trained[0].volumes.keys, b)
    assert (
        told["difference [99 % interval by patient]"] == f"{wanted.mean:+.4f} [{wanted.low:+.4f}, {wanted.high:+.4f}]"
    )
    assert told["KS p, paper"] == "2.156e-04"
    assert "minus that of U-Net" in table.notes[0]


def test_a_configuration_minus_itself_is_nothing(trained: list[Trained]) -> None:
    table = tables.differences([trained[1], replace(trained[1], label="again")])
    assert all((cells[2], cells[3]) == ("+0.0000 [+0.0000, +0.0000]", "no") for cells in table.rows)


def test_missed_volumes_are_counted_and_in_no_mean_of_distances(trained: list[Trained]) -> None:
    one = trained[1]
    metric_V = {name: values.copy() for name, values in one.volumes.metric_V.items()}
    for name, values in metric_V.items():
        values[0] = 0 if name in ("dice", "jaccard") else np.nan
    missing = replace(one, volumes=replace(one.volumes, metric_V=metric_V))
    table = tables.table1([missing])
    assert row(table, "all phases", "Hausdorff distance, mm")["MTN up4"].endswith("[29]")
    assert "1 of which were missed" in table.notes[0]
    assert any("Volumes of which nothing was predicted: MTN up4 1." in line for line in report.warnings([missing]))
    assert row(tables.differences([trained[0], missing]), "MTN up4", "Hausdorff distance, mm")["n"] == "29"


def test_every_measured_table_says_what_was_selected_on(tmp_path: Path, trained: list[Trained]) -> None:
    on_test = replace(BASE, protocol=Protocol(selection="test"))
    chosen = results.load([write_runs(tmp_path, configs=(on_test,))])
    for table in tables.all_of(chosen):
        about_us = table.title not in ("Protocol: what differs from the paper", "Figures of others, for orientation")
        said = "Selected on the test fold, as in the paper" in " ".join(table.notes)
        assert said == (about_us and table.title != "Weights at the last epoch")
    assert "Selected on the test fold" in " ".join(report.warnings(chosen))
    assert "on the test fold was kept, as in [1], which is optimistic" in methods.paragraph(chosen)
    assert all("Selected on the test fold" not in " ".join(table.notes) for table in tables.all_of(trained))


def test_the_protocol_names_what_differs_and_nothing_that_does_not(trained: list[Trained]) -> None:
    table = tables.protocol(trained)
    named = {cells[0]: cells[1:] for cells in table.rows}
    assert named["best epoch chosen on"] == ("the test fold", "validation patients")
    assert named["share of patients that train"] == ("80 %", "60 %")
    assert named["data"] == ("lvsc", "phantom")
    assert "epochs" not in named
    assert "epochs" in table.notes[0]


def test_a_store_that_claims_to_be_lvsc_is_counted(tmp_path: Path, trained: list[Trained]) -> None:
    told = paper.counts_that_differ(results.load([write_runs(tmp_path, source="lvsc", configs=(BASE,))]))
    assert told == [
        "10 patients where the paper has 97",
        "30 volumes where the paper has 2191",
        "210 slices where the paper has 26664",
    ]
    assert paper.counts_that_differ(trained) == []


def test_markdown_latex_and_html_hold_the_same_cells() -> None:
    table = Table("A & B", ("x_1", "50 %"), (("1 ± 2", "a|b"), ("<3", "~^\\{}#$")), ("Note & more.",))
    assert table.markdown().splitlines()[2:6] == [
        "| x_1 | 50 % |",
        "| --- | --- |",
        "| 1 ± 2 | a\\|b |",
        "| <3 | ~^\\{}#$ |",
    ]
    latex = table.latex()
    assert r"x\_1 & 50 \% \\" in latex
    assert r"1 $\pm$ 2 & a|b \\" in latex
    assert r"$<$3 & \textasciitilde{}\textasciicircum{}\textbackslash{}\{\}\#\$ \\" in latex
    assert r"\caption{A \& B. Note \& more.}" in latex
    assert "<td>&lt;3</td>" in table.html()


def test_methods_name_every_value_that_occurs(tmp_path: Path) -> None:
    configs = (*PAPERS, replace(BASE, model=Model(branch="up1", width=32)))
    text = methods.paragraph(results.load([write_runs(tmp_path, configs=configs)]))
    assert "A U-Net [2] of 16 or 32 channels" in text
    assert "leaves the decoder at up1 or up4 [1]; the same network without it is the baseline" in text
    assert "made-up patients: 10 patients, 30 volumes and 210 labelled" in text
    assert "Branchpoint 0.1.0 and PyTorch 2.13.0+cpu" in text
    assert not re.search(r"\bNone\b|\?|nan", text)


def test_the_command_writes_all_files_and_the_page_holds_everything(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs, tmp_path / "paper")
    out = copy / "report"  # the default place lies within the run folder, which is searched the next time
    command = [sys.executable, "-m", "mtl.report", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in out.iterdir()} == {"report.html", "tables.md", "tables.tex", "methods.md", "figures"}
    names = {path.stem for path in (out / "figures").iterdir()}
    assert {path.name for path in (out / "figures").iterdir()} == {f"{n}.{s}" for n in names for s in ("png", "pdf")}
    page = (out / "report.html").read_text()
    assert len(page.encode()) < 5_000_000
    assert page.count("data:image/png;base64,") == len(names)
    assert not re.search(r"(src|href)=(?![\"']?data:)", page)  # nothing is fetched
    assert "Made-up patients: this shows that the machinery works" in page
    for table in tables.all_of(results.load([runs])):
        assert table.html() in page
    assert (out.stat().st_mode & 0o777, (out / "report.html").stat().st_mode & 0o777) == (0o700, 0o600)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert report.main([str(copy)]) == 0
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_too_large_a_picture_is_named_instead(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: figures.FIGURES[name] for name in ("figure2_means", "mass")}
    monkeypatch.setattr(figures, "FIGURES", few)
    whole = report.report([runs], tmp_path).stat().st_size
    monkeypatch.setattr(report, "LARGEST_BYTES", whole - 10_000)
    page = report.report([runs], tmp_path).read_text()
    assert len(page.encode()) < whole
    assert 'src="data:image/png;base64' in page
    assert "Too large for this page: see figures/" in page


def test_bad_input_is_one_line_and_writes_nothing(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for arguments in ([str(tmp_path / "none")], [str(tmp_path)], [str(runs), "--out", str(tmp_path / "file")]):
        assert report.main(arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith("report: ")
        assert told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
