"""Every mistake at launch.py's command line: one line, status 2, no traceback, nothing spent."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr

from cluster import confirm, costs, helptext, launch, roster, settings
from cluster.costs import Estimate
from data_prep import store

Launch = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Launch]:
    """Runs launch.py's main in an empty folder; the one line it complains with."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*argv: object) -> str:
        monkeypatch.setattr(sys, "argv", ["launch.py", *map(str, argv)])
        assert launch.main() == 2
        error = capsys.readouterr().err
        assert error.startswith("launch: ")
        assert error.count("\n") == 1
        assert not (tmp_path / "outputs").exists()
        return error

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep=nope", "unknown sweep 'nope', wanted one of: acdc, branch_location"),
        ("site=pbs", "unknown site 'pbs', wanted one of: local, node, ray, slurm, or a file of your own (site=X.yaml)"),
        ("profile=large", "unknown profile 'large', wanted one of: demo, paper"),
        ("train.epoch=1", "unknown key 'train.epoch', wanted one of: train.epochs, train.batch_size"),
        ("learning_rate=1", "unknown key 'learning_rate', wanted one of: data, demo, model"),
        ("train.epochs.x=1", "unknown key 'train.epochs.x'"),
        ("model.branch=up7", "model.branch is 'up7', wanted one of: bottleneck, up1, up2, up3, up4, none"),
        ("train.epochs=many", "could not be converted to Integer (train.epochs)"),
        ("train.epochs=0", "train.epochs is 0, wanted 1 to 100000"),
        ("optim.lr=nan", "optim.lr is nan"),
        ("train.device=gpu", "train.device is 'gpu', wanted one of: auto, cpu, cuda, mps"),
        ("train.folds=2", "train.folds is 2, wanted 3 or more"),
        ("train.epochs=1,2", "gives several values"),
        ("+new=1", "settings can be given, not added or deleted"),
        ("~train.epochs", "settings can be given, not added or deleted"),
        ("train.epochs=???", "Missing mandatory value: epochs (train.epochs)"),
        ("model={branch: up2}", "'model' is a section; give its settings one by one: model.branch, model.width"),
        ("data={store: x}", "'data' is a section"),
        ("runs=", "runs is empty, wanted a folder"),
        ("runs=what?", "cannot stand in a database's address"),
        ("sweep.space={model.branch:[up1,up1]}", "gives model.branch a value twice"),
        ("", "'' is not of the form key=value"),
        ("stray", "'stray' is not of the form key=value"),
        (
            "data.store=nowhere",
            "store nowhere: no such folder; make one with: python -m data_prep.convert RAW STORE",
        ),
        ("tracking.uri=mlruns", "tracking.uri is 'mlruns', wanted one that begins with: sqlite, http"),
        ("demo.size=100", "demo.size is 100, wanted a multiple of 16"),
        ("site.slots=0", "site.slots is 0, wanted 1 to 10000"),
        ("sweep.space={model.branch:[]}", "the sweep's space has no values for model.branch"),
        ("-m", "-m is not used here"),
        ("site=none.yaml", "site=none.yaml: cannot be read as YAML: No such file"),
        ("site=local.yaml", "site=local.yaml: wanted a name of its own"),
        ("site=ray", "ray.address is None with site.kind=ray, wanted both or neither"),
        ("driver=maybe", "driver is 'maybe', wanted one of: job, here, none, answer"),
    ],
)
def test_one_line_with_the_valid_choices(refused: Launch, tmp_path: Path, override: str, message: str) -> None:
    first = [] if override.startswith("sweep=") else ["sweep=branch_location"]
    assert message in refused(*first, override)
    assert list(tmp_path.iterdir()) == []


def test_a_space_that_names_no_field() -> None:
    with pytest.raises(
        ValueError, match=r"a point of the sweep names 'model.depth', wanted one of: model.branch, model.width"
    ):
        settings.config_at(settings.Settings(), {"model.depth": 3}, "d")


def test_a_sweep_about_more_structures_than_the_store_holds(refused: Launch, store_path: Path) -> None:
    message = refused("sweep=acdc", f"data.store={store_path}")
    assert "labels myocardium, and the sweep asks about 3 structures (sweep.structures)" in message


def test_no_sweep(refused: Launch) -> None:
    assert "no sweep given; give sweep= with one of: acdc, branch_location" in refused()


def test_fewer_patients_than_folds(refused: Launch, store_path: Path) -> None:
    message = refused("sweep=branch_location", f"data.store={store_path}", "train.folds=6")
    assert "5 patients for 6 folds; wanted at least one per fold: set train.folds=5 or use a larger store" in message


def test_a_store_of_another_version(refused: Launch, tmp_path: Path) -> None:
    with store.create(tmp_path / "s", source="t", spacing_mm=(1, 1), size=(16, 16), classes=("b", "m")):
        pass
    zarr.open_group(tmp_path / "s", mode="a").attrs["version"] = 9
    assert "version is 9, this program reads 1" in refused("sweep=branch_location", f"data.store={tmp_path / 's'}")


def test_a_run_folder_made_with_another_configuration(refused: Launch, store_path: Path, tmp_path: Path) -> None:
    argv = ["sweep=branch_location", f"data.store={store_path}", "model.branch=up4"]
    settings.register("")
    request = launch.compose(argv)
    assert request is not None
    sweep_folder = tmp_path / "runs" / "branch_location"
    c = roster.configuration(request.settings, store.open(store_path).digest, sweep_folder, {"model.branch": "up4"})
    fold = c.runs[2]
    fold.prepare({**c.config, "fold": 2, "optim": {"lr": 9.0, "decay": 1.0}})
    assert "made with another optim; remove it or use another runs= folder" in refused(*argv)
    fold.path.joinpath("config.yaml").unlink()
    fold.prepare({**c.config, "fold": 2, "data_digest": "other"})
    assert "made with other data" in refused(*argv)


def test_a_second_launch_of_the_same_sweep(refused: Launch, store_path: Path, tmp_path: Path) -> None:
    folder = launch.make_private(tmp_path / "runs" / "branch_location")
    with launch.locked(folder):
        message = refused("sweep=branch_location", f"data.store={store_path}")
    assert f"branch_location is being written by process {os.getpid()}" in message


def test_on_a_slurm_login_node_it_says_so(
    refused: Launch,
    store_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sinfo = tmp_path / "bin" / "sinfo"
    sinfo.parent.mkdir()
    sinfo.write_text("#!/bin/sh\necho 'debug* up infinite 2 idle'\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", str(sinfo.parent), prepend=os.pathsep)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert confirm.on_login_node()
    message = refused("sweep=branch_location", f"data.store={store_path}")
    assert "looks like a Slurm login node" in message
    assert "yes=true" in message
    assert "login node" in refused("sweep=branch_location")
    assert not (tmp_path / "data").exists()  # no patients were made before it was refused
    assert not list(tmp_path.rglob("fold_*"))
    capsys.readouterr()
    confirm.check_login_node(yes=True)
    assert "login node" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert not confirm.on_login_node()
    monkeypatch.delenv("SLURM_JOB_ID")
    sinfo.write_text("#!/bin/sh\nexit 1\n")  # Slurm is installed, and does not answer
    assert not confirm.on_login_node()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("partitions: gpu", "unknown key 'site.partitions', wanted one of: site.kind, site.slots"),
        ("[1, 2]", "holds no settings, wanted lines of key: value"),
        ("a: b: c", "cannot be read as YAML"),
        ("umask: 027", "site.umask is '23', wanted three octal digits in quotes"),
    ],
)
def test_a_site_file_with_a_mistake_is_one_line(refused: Launch, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert told in refused("sweep=branch_location", f"site={tmp_path / 'mine.yaml'}")


def test_files_of_the_users_own_are_composed_like_the_shipped_ones(tmp_path: Path) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    (folder / "my-site.yaml").write_text("kind: slurm\npartition: gpu\nsetup: [module load cuda]\numask: '027'\n")
    (folder / "width.yaml").write_text("question: How wide?\nspace:\n  model.width: [4, 8]\n")
    (folder / "quick.yaml").write_text("train:\n  epochs: 1\n")
    words = [f"{group}={folder}/{name}.yaml" for group, name in
             (("site", "my-site"), ("sweep", "width"), ("profile", "quick"))]  # fmt: skip
    request = launch.compose([*words, "site.time_min=7"])
    assert request is not None
    site = request.settings.site
    assert (site.kind, site.partition, site.setup, site.umask, site.time_min) == (
        "slurm", "gpu", ["module load cuda"], "027", 7
    )  # fmt: skip
    assert (request.sweep, request.settings.sweep.space) == ("width", {"model.width": [4, 8]})
    assert (request.profile, request.settings.train.epochs) == ("quick", 1)


def test_a_long_sweep_asks_and_without_a_terminal_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Estimate(hours=3.0, folds=25, slots=2)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(confirm.Refused, match=r"confirm_above_hours=2, and there is no terminal.*yes=true"):
        confirm.confirm(long, 2.0, yes=False)
    confirm.confirm(long, 2.0, yes=True)
    confirm.confirm(long, 3.5, yes=False)
    assert "about 3.000 hours (3.0 h) on this machine: 25 folds to train, 2 at a time" in str(long)


@pytest.mark.parametrize("error", [RuntimeError("out of memory\nmore"), ArithmeticError("loss nan")])
def test_a_probe_that_fails_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(costs.executors, "outcome", fail)
    with pytest.raises(ValueError, match=r"^a probe of a few steps failed: (out of memory|loss nan); try a smaller"):
        costs._median([None])


def test_help_lists_sweeps_sites_profiles_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["launch.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        launch.main()
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for line in ("sweep: acdc, branch_location", "site: local", "profile: demo, paper", "train.epochs=50"):
        assert line in text
    assert list(tmp_path.iterdir()) == []


def test_the_profiles_say_what_the_schemas_defaults_say() -> None:
    """The paper's values are mtl/config.py's; the made-up patients' sizes are Demo's."""
    paper, demo = (yaml.safe_load((settings.GROUPS["profile"] / f"{p}.yaml").read_text()) for p in ("paper", "demo"))
    defaults = settings.Settings()
    for section, values in paper.items():
        assert {key: getattr(getattr(defaults, section), key) for key in values} == values
    assert settings.Demo(**demo["demo"]) == defaults.demo
    assert helptext.profile_values("demo") == "model.width=8 train.epochs=4 train.batch_size=4 optim.lr=0.005"


@pytest.mark.parametrize("path", ["2026_11_23", "a b", "it's", "x=(1)", "back\\slash"])
def test_paths_are_text_whatever_they_look_like(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    request = launch.compose(["sweep=branch_location", f"runs={path}", f"data.store={path}"])
    assert request is not None
    assert (request.settings.runs, request.settings.data.store) == (path, path)


@pytest.mark.parametrize(
    ("share", "gpus", "cores", "wanted"),
    [
        (0.0, 1, 16, 1),
        (0.3, 1, 16, 3),
        (0.3, 2, 16, 6),
        (0.3, 4, 8, 8),
        (0.05, 1, 4, 4),
        (0.7, 2, 16, 2),
        (1.2, 1, 4, 1),
    ],
)
def test_folds_on_a_gpu_by_memory_and_cores(share: float, gpus: int, cores: int, wanted: int) -> None:
    assert costs.folds_at_a_time(share, gpus, cores) == wanted


@pytest.mark.parametrize("sweep", settings.choices("sweep"))
@pytest.mark.parametrize("profile", settings.choices("profile"))
def test_every_sweep_composes_with_every_profile(
    sweep: str, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = launch.compose([f"sweep={sweep}", f"profile={profile}"])
    assert request is not None
    rng = np.random.default_rng(0)
    space = roster.space_of(request.settings, request.given)
    points = space.grid() if request.settings.sweep.by == "grid" else [space.random(rng) for _ in range(5)]
    names = [settings.configuration_name(p, settings.config_at(request.settings, p, "d")) for p in points]
    assert len(set(names)) == len(names) >= 2


def test_the_command_line_wins_over_the_profile_and_holds_a_searched_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = launch.compose(["train.epochs=7", "sweep=branch_location", "model.branch=up2", "profile=paper"])
    assert request is not None
    assert (request.settings.train.epochs, request.settings.model.width) == (7, 16)
    assert roster.space_of(request.settings, request.given).grid() == [{"model.branch": "up2"}]
    config = settings.config_at(request.settings, {"model.branch": "up2"}, "d")
    assert settings.configuration_name({"model.branch": "up2"}, config) == f"branch-up2-{config.digest}"


@pytest.mark.parametrize(
    ("argv", "profile"),
    [
        ([], "demo"),
        (["data.store=x"], "paper"),
        (["data.store=x", "profile=demo"], "demo"),
        (["data.store="], "demo"),
    ],
)
def test_without_a_store_it_is_the_demo_and_with_one_the_paper(
    argv: list[str], profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = launch.compose(["sweep=branch_location", *argv])
    assert request is not None
    assert request.profile == profile
    assert request.settings.model.width == (8 if profile == "demo" else 16)
