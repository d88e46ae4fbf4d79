"""The winner's models in MLflow: what they give back, that there are no others, and what stands in their way."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from cluster.tracking import command, models
from data_prep.files import write_csv
from mtl import augment, checkpoint, deploy
from mtl.config import Config, Model, Train, fold_dict
from mtl.network import UNet
from mtl.placed import Placed
from mtl.runfolder import RunFolder
from mtl.slices import Slices
from tests import tracked

BASE = Config("a" * 64, Model(width=2), Train(folds=3, epochs=2, device="cpu", precision="float32"))
BRANCHES = ("up4", "none")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Locks lie elsewhere than a user's; MLflow's own address is left as it was."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
    yield
    mlflow.set_tracking_uri(None)


def trained(run: RunFolder, config: Config, seed: int) -> UNet:
    """A finished fold's folder around a network that was drawn at random."""
    torch.manual_seed(seed)
    network = UNet(config.model.branch, config.model.width, size=48)
    if config.model.branch != "none":
        network.set_area_scale(900.0, 250.0)
    tracked.train(run, (1, 2), config=config)
    checkpoint.save(run.best, {"network": network.state_dict(), "epoch": 2}, config, seed)
    for name in ("volumes.csv", "slices.csv"):
        write_csv(run.path / name, [], ["patient"])
    tracked.done(run)
    return network.eval()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two configurations of three folds; the verdict calls the first one the winner."""
    folder = tmp_path / "runs" / "sweep"
    for branch, folds in zip(BRANCHES, tracked.sweep(folder, BRANCHES, BASE), strict=True):
        for number, run in enumerate(folds):
            trained(run, replace(BASE, model=replace(BASE.model, branch=branch)), number)
    call(folder, "up4")
    return folder


def call(folder: Path, branch: str, winner: bool = True) -> None:
    """The verdict."""
    (named,) = folder.glob(f"branch-{branch}-*")
    told = {"winner": named.name if winner else None, "best": named.name}
    (folder / "verdict.json").write_text(json.dumps(told))


def images(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(count).integers(0, 900, (count, 1, 48, 48)).astype(np.float32))


def test_they_predict_any_batch_as_the_network_in_training_does(sweep: Path, tmp_path: Path) -> None:
    uri = tracked.database(tmp_path / "db")
    addresses = [address for _, address in models.log(sweep, uri)]
    assert len(addresses) == 3
    mlflow.set_tracking_uri(uri)
    (folder,) = sweep.glob("branch-up4-*")
    for number, address in enumerate(addresses):
        module, arrays = mlflow.pytorch.load_model(address), mlflow.pyfunc.load_model(address)
        config, _, _ = deploy.told(RunFolder(folder / f"fold_{number}"))
        network = UNet("up4", 2, size=48)
        network.load_state_dict(checkpoint.load(folder / f"fold_{number}" / "best.pt", config, number)["network"])
        for count in (1, 2, 5):
            grey = images(count)
            with torch.inference_mode():
                answer = module(grey)
                normalised = (grey - grey.mean((2, 3), keepdim=True)) / grey.std((2, 3), keepdim=True, correction=0)
                logits, area = network.eval()(normalised)
            assert answer.probability_BAYX.shape == (count, 1, 48, 48)
            torch.testing.assert_close(answer.probability_BAYX, logits.sigmoid())
            torch.testing.assert_close(answer.area_mm2_BA, area)
            told = arrays.predict(grey.numpy())
            np.testing.assert_allclose(told["probability"], logits.sigmoid().numpy(), atol=1e-6)
            np.testing.assert_allclose(told["area_mm2"], area.numpy(), rtol=1e-5)


def test_what_is_told_of_them(sweep: Path, tmp_path: Path) -> None:
    uri = tracked.database(tmp_path / "db")
    (_, address), *_ = models.log(sweep, uri)
    mlflow.set_tracking_uri(uri)
    info = mlflow.models.get_model_info(address)
    assert [one.shape for one in info.signature.inputs.inputs] == [(-1, 1, 48, 48)]
    assert info.signature.outputs.input_names() == ["probability", "area_mm2"]
    assert info.metadata["pixel_spacing_mm"] == [6.25, 6.25]
    assert (info.metadata["fold"], info.metadata["size"]) == (0, [48, 48])
    loaded = mlflow.pyfunc.load_model(address)
    assert loaded.predict(loaded.input_example)["area_mm2"].shape == (1, 1)
    run = MlflowClient(uri).get_run(info.run_id)
    assert run.data.tags["branchpoint.path"].endswith("/fold_0")
    assert [one.model_id for one in run.outputs.model_outputs] == [address.removeprefix("models:/")]
    assert run.info.status == "FINISHED"


def test_asked_again_nothing_twice_and_with_another_winner_the_earlier_ones_go(sweep: Path, tmp_path: Path) -> None:
    uri = tracked.database(tmp_path / "db")
    first = dict(models.log(sweep, uri))
    assert dict(models.log(sweep, uri)) == first
    before = tracked.contents(uri)
    call(sweep, "none", winner=False)  # no winner is called, and another is best
    second = dict(models.log(sweep, uri))
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("sweep")
    assert experiment is not None
    there = client.search_logged_models([experiment.experiment_id])
    assert sorted(f"models:/{model.model_id}" for model in there) == sorted(second.values())
    assert not set(first.values()) & set(second.values())
    files = {path.parts[-3] for path in (tmp_path / "db" / "mlartifacts").rglob("artifacts/MLmodel")}
    assert files == {address.removeprefix("models:/") for address in second.values()}
    after = tracked.contents(uri)
    assert {path: run["metrics"] for path, run in after.items()} == {
        path: run["metrics"] for path, run in before.items()
    }


def test_the_baselines_area_is_that_of_its_mask(tmp_path: Path) -> None:
    run, config = RunFolder(tmp_path / "fold_0"), replace(BASE, model=Model(width=2, branch="none"))
    trained(run, config, 0)
    answer = deploy.deployed(run)(images(3))
    pixels = (answer.probability_BAYX > 0.5).sum(dim=(2, 3))
    torch.testing.assert_close(answer.area_mm2_BA, pixels * 6.25**2)


def test_images_are_normalised_as_in_training(slices: Slices, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "fold_0")
    network = trained(run, BASE, 0)
    some = np.arange(4)
    with torch.inference_mode():
        logits, _ = network(augment.images(Placed(slices, torch.device("cpu")), some, "slice"))
        answer = deploy.deployed(run)(torch.from_numpy(slices.image_NYX[some][:, None]))
    torch.testing.assert_close(answer.probability_BAYX, logits.sigmoid())


def test_what_stands_in_their_way_is_one_line(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = tracked.database(tmp_path / "db")
    (folder,) = sweep.glob("branch-up4-*")

    def refused() -> str:
        assert command.main(["models", str(sweep), "--to", uri]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    run = RunFolder(folder / "fold_1")
    volume = replace(BASE, model=replace(BASE.model, branch="up4"), train=replace(BASE.train, normalisation="volume"))
    whole = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").unlink()
    run.prepare(fold_dict(asdict(volume), 1))
    assert "trained with train.normalisation=volume" in refused()
    (run.path / "config.yaml").write_text(whole)
    best = run.best.read_bytes()
    run.best.write_bytes(best[:200])
    assert "best.pt: damaged" in refused()
    run.best.unlink()
    assert "fold_1: lost best.pt; a model wants a finished fold" in refused()
    run.best.write_bytes(best)
    (sweep / "verdict.json").write_text("{}")
    assert "verdict.json: damaged, or of another version" in refused()
    (sweep / "verdict.json").write_text('{"winner": null, "best": null}')
    assert "no configuration is done yet" in refused()
    (sweep / "verdict.json").unlink()
    assert "verdict.json: no such file" in refused()
    assert MlflowClient(uri).get_experiment_by_name("sweep") is None
    call(sweep, "up4")
    assert command.main(["models", str(sweep), "--to", uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("/")[0] for line in lines] == ["models:"] * 3
    assert lines[2].endswith(f"(sweep/{folder.name}/fold_2)")


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_norms_put_into_convolutions_change_no_answer(norm: str) -> None:
    torch.manual_seed(0)
    network, image = UNet(width=4, size=32, norm=norm), torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        network(image)  # BatchNorm's statistics are of these images
        logits, area = network.eval()(image)
        deploy.quicken(network)
        quick_logits, quick_area = network(image)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    assert torch.allclose(quick_logits, logits, atol=1e-4)
    assert torch.allclose(quick_area, area, atol=1e-4)
