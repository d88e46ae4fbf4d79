"""Training one fold: it learns, it resumes to the same numbers, it stops when it must."""

import csv
import dataclasses
import errno
import functools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from data_prep import files
from mtl import checkpoint, evaluate, network, train
from mtl.config import Config, Model, Optim, Protocol, Train, Weighting
from mtl.placed import Placed
from mtl.runfolder import RunFolder
from mtl.slices import Slices, folds_of
from mtl.trainer import Diverged, Trainer, resolve_device

TIMES = {"time_utc", "seconds", "slices_per_s"}
CPU = torch.device("cpu")


class Killed(BaseException):
    """Stands for kill -9: nothing below may catch it."""


def numbers(folder: RunFolder) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in TIMES} for record in folder.epochs()]


def weights(folder: RunFolder, name: str) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder.path / name, weights_only=True)["network"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def whole(config: Config, slices: Slices, shared: Path, tmp_path: Path) -> RunFolder:
    """An uninterrupted training of fold 1, trained once and copied for each test."""
    if not shared.exists():
        train.train(config, slices, 1, RunFolder(shared))
    return RunFolder(shutil.copytree(shared, tmp_path / "whole"))


def assert_same(a: RunFolder, b: RunFolder) -> None:
    assert numbers(a) == numbers(b)
    for name in ("last.pt", "best.pt"):
        theirs = weights(b, name)
        assert all(torch.equal(value, theirs[key]) for key, value in weights(a, name).items())
    for name in ("volumes.csv", "slices.csv", "config.yaml", "DONE"):
        assert (a.path / name).read_bytes() == (b.path / name).read_bytes()


def test_a_run_folder_holds_what_the_contract_says(whole: RunFolder) -> None:
    names = {p.name for p in whole.path.iterdir()}
    csvs = {"volumes.csv", "slices.csv"}
    assert names == {"config.yaml", "epochs.jsonl", "usage.jsonl", "last.pt", "best.pt", *csvs, "cases.npz", "DONE"}
    assert list(whole.epochs()[0]) == [
        "epoch",
        "time_utc",
        "loss_train",
        "loss_seg_train",
        "loss_area_train",
        "dice_val",
        "area_mad_mm2",
        "log_sigma2_seg",
        "log_sigma_reg",
        "weight_seg",
        "weight_reg",
        "lr",
        "seconds",
        "slices_per_s",
    ]
    assert [record["epoch"] for record in whole.epochs()] == [1, 2, 3]
    assert [record["lr"] for record in whole.epochs()] == pytest.approx([0.001, 0.00095, 0.0009025])


def killed_once(settings: Config, slices: Slices, path: Path, after: int = 1) -> RunFolder:
    """Fold 1, killed when epoch `after` is on the disk and started again."""

    def kill(record: dict[str, Any]) -> None:
        if record["epoch"] == after:
            raise Killed

    folder = RunFolder(path)
    with pytest.raises(Killed):
        train.train(settings, slices, 1, folder, kill)
    train.train(settings, slices, 1, folder)
    return folder


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_killed_after_any_epoch_it_ends_with_the_same_numbers(
    epoch: int, whole: RunFolder, config: Config, slices: Slices, tmp_path: Path
) -> None:
    assert_same(killed_once(config, slices, tmp_path / "killed", epoch), whole)


def test_killed_while_it_writes_masks_it_goes_on(config: Config, slices: Slices, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    left_over = folder.path / ".masks.zarr.0123abcd.tmp"  # what kill -9 leaves of a folder in the making
    (left_over / "DET9000001").mkdir(parents=True)
    train.train(config, slices, 1, folder, save_masks=True)
    assert folder.outcome() == "DONE"
    assert not left_over.exists()
    assert (folder.path / "masks.zarr" / "zarr.json").exists()


@pytest.mark.parametrize("writes", range(1, 16))
def test_killed_before_any_write_it_ends_with_the_same_numbers(
    writes: int,
    whole: RunFolder,
    config: Config,
    slices: Slices,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Die at the n-th replacement of a file: best.pt, epochs.jsonl, last.pt, the CSVs, DONE."""
    folder, left, replace = RunFolder(tmp_path / "killed"), [writes], os.replace

    def dying(*args: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        replace(*args)

    with monkeypatch.context() as patched:
        patched.setattr("data_prep.files.os.replace", dying)
        try:
            train.train(config, slices, 1, folder)
        except Killed:
            assert folder.outcome() is None
    train.train(config, slices, 1, folder)
    assert_same(folder, whole)


def killed_every(
    steps: int, settings: Config, slices: Slices, path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunFolder:
    """Fold 1, kept after every batch, killed before the next one after so many, and started again until it is done."""
    folder, step, left = RunFolder(path), Trainer.step, [0]

    def dying(self: Trainer, *args: Any) -> Any:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return step(self, *args)

    batches = settings.train.epochs * len(trainer_of(settings, slices).batches(1))
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", dying)
        for _ in range(-(-batches // steps)):
            assert folder.outcome() is None
            left[0] = steps
            with suppress(Killed):
                train.train(settings, slices, 1, folder, checkpoint_minutes=0.0)
    assert folder.outcome() == "DONE"
    return folder


def trainer_of(settings: Config, slices: Slices) -> Trainer:
    """Of fold 1, before its first step."""
    return Trainer(settings, slices, folds_of(slices, 5, 0, "validation")[1], 1, CPU)


def test_killed_in_the_middle_of_epochs_it_ends_with_the_same_numbers(
    whole: RunFolder, config: Config, slices: Slices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_same(killed_every(4, config, slices, tmp_path / "killed", monkeypatch), whole)


@pytest.mark.parametrize(("minutes", "kept"), [(None, []), (5.0, [5, 10])])
def test_within_an_epoch_it_is_kept_when_so_many_minutes_have_gone(
    minutes: float | None,
    kept: list[int],
    config: Config,
    slices: Slices,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fourteen batches an epoch, of a minute each."""
    steps, told = [0], []
    step, save = Trainer.step, checkpoint.save

    def slow(self: Trainer, *args: Any) -> Any:
        steps[0] += 1
        return step(self, *args)

    def saved(path: Path, state: dict[str, Any], *others: Any) -> None:
        told.append((path.name, state.get("within", {}).get("batches")))
        save(path, state, *others)

    monkeypatch.setattr(Trainer, "step", slow)
    monkeypatch.setattr(checkpoint, "save", saved)
    clock = SimpleNamespace(monotonic=lambda: 60.0 * steps[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(train, "time", clock)
    settings = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2))
    train.train(settings, slices, 1, RunFolder(tmp_path / "run"), checkpoint_minutes=minutes)
    assert [batches for name, batches in told if name == "last.pt"] == [*kept, None, *kept, None]


def test_a_resumed_epoch_tells_the_time_that_its_earlier_parts_took_too(
    config: Config, slices: Slices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "predict", killing)
        with pytest.raises(Killed):
            train.train(config, slices, 1, folder, checkpoint_minutes=0.0)
    state = torch.load(folder.last, weights_only=True)
    assert (state["within"]["epoch"], state["within"]["batches"], state["within"]["slices"]) == (1, 14, 54)
    state["within"]["seconds"] = 5400.0
    torch.save(state, folder.last)
    train.train(config, slices, 1, folder)
    first, second, _ = folder.epochs()
    assert 5400 < first["seconds"] < 5460
    assert first["slices_per_s"] == pytest.approx(54 / 5400, rel=0.01)
    assert second["seconds"] < 60


def killing(*args: Any) -> None:
    raise Killed


def test_between_epochs_last_pt_is_as_it_always_was(whole: RunFolder) -> None:
    trained = {"network", "weighting", "optimiser", "micro_batches", "codes"}
    assert set(torch.load(whole.last, weights_only=True)) == {*trained, "records", "config", "data_digest", "fold"}


def test_while_the_disk_is_full_for_a_moment_it_waits(
    whole: RunFolder,
    config: Config,
    slices: Slices,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There is no room for the first file of each name."""
    folder, refused, replace = RunFolder(tmp_path / "run"), set(), os.replace

    def full(source: Path, target: Path) -> None:
        if target.name not in refused:
            refused.add(target.name)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(target))
        replace(source, target)

    monkeypatch.setattr("data_prep.files.os.replace", full)
    monkeypatch.setattr(train, "patiently", functools.partial(files.patiently, every_s=0.0))
    train.train(config, slices, 1, folder)
    assert_same(folder, whole)
    csvs = {"volumes.csv", "slices.csv"}
    lines = {"epochs.jsonl", "usage.jsonl"}
    assert refused == {"config.yaml", *lines, "last.pt", "best.pt", *csvs, "cases.npz", "DONE"}
    assert capsys.readouterr().err.count("waiting for room, 600 s at most\n") == 7  # one for the evaluation's three


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 2 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", str(path)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk to fill it")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    """Until there is no room for another page."""
    with suppress(OSError), open(path, "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_on_a_disk_that_is_really_full_it_waits_at_the_ends_of_epochs_and_not_within(
    whole: RunFolder, config: Config, slices: Slices, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, filler, waits = RunFolder(disk / "run"), disk / "filler", []

    def clear_up(line: str) -> None:
        assert "No space left on device" in line
        waits.append(folder.epochs())
        filler.unlink()

    monkeypatch.setattr(train, "patiently", functools.partial(files.patiently, every_s=0.0, told=clear_up))
    train.train(config, slices, 1, folder, lambda record: fill(filler), save_masks=True, checkpoint_minutes=0.0)
    assert_same(folder, whole)
    assert [len(epochs) for epochs in waits] == [1, 2, 3]  # twice for the next epoch's files, once for the evaluation


def test_a_checkpoint_on_a_full_disk_is_an_error_of_the_system(
    disk: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(disk / "last.pt", {"network": torch.zeros(9)}, config, 1)
    fill(disk / "filler")
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save(disk / "last.pt", {"network": torch.zeros(99999)}, config, 1)
    assert torch.equal(checkpoint.load(disk / "last.pt", config, 1)["network"], torch.zeros(9))
    assert {path.name for path in disk.iterdir()} == {"last.pt", "filler"}


def test_each_image_and_copy_is_seen_once_an_epoch(slices: Slices, config: Config) -> None:
    fold = folds_of(slices, 5, 0, "validation")[0]
    trainer = Trainer(config, slices, fold, 0, CPU)
    for epoch in (1, 2):
        pairs = np.concatenate(trainer.batches(epoch))
        assert sorted(map(tuple, pairs.tolist())) == [(n, c) for n in sorted(fold.train.tolist()) for c in range(3)]
    assert not np.array_equal(np.concatenate(trainer.batches(1)), np.concatenate(trainer.batches(2)))
    assert max(len(batch) for batch in trainer.batches(1)) <= config.train.batch_size


def test_the_area_is_that_of_the_transformed_mask(slices: Slices, config: Config) -> None:
    trainer = Trainer(config, slices, folds_of(slices, 5, 0, "validation")[0], 0, CPU)
    image, mask, area_mm2 = trainer.inputs(trainer.batches(1)[0], trainer.draws(1))
    assert image.shape == mask.shape == (len(area_mm2), 1, 48, 48)
    assert torch.equal(area_mm2[:, 0], mask.sum(dim=(1, 2, 3)) * 6.25**2)


def test_areas_are_reported_in_mm2_whatever_the_scale(slices: Slices, config: Config) -> None:
    """The first joint loss's parts are in mm2 for both scales; log sigma starts at one predicted unit."""
    fold = folds_of(slices, 5, 0, "validation")[0]
    deviation_mm2 = float(slices.area_mm2_NA(fold.train).std())
    for scale, s_reg in (("fold", np.log(deviation_mm2)), ("none", 0.0)):
        settings = dataclasses.replace(config, model=Model(width=2, area_scale=scale))
        trainer = Trainer(settings, slices, fold, 0, CPU)
        assert trainer.weighting.state()["log_sigma_reg"] == pytest.approx(s_reg, abs=1e-6)
        image, mask, area_mm2 = trainer.inputs(trainer.batches(1)[0], trainer.draws(1))
        expected = (trainer.network(image)[1] - area_mm2).abs().mean().item()
        assert trainer.step(image, mask, area_mm2)[2] == pytest.approx(expected, rel=1e-4)


def test_it_learns(slices: Slices, config: Config, tmp_path: Path) -> None:
    small = Train(epochs=12, batch_size=2, device="cpu")
    settings = dataclasses.replace(config, model=Model(width=8), train=small, optim=Optim(lr=0.005))
    folder = RunFolder(tmp_path / "run")
    train.train(settings, slices, 0, folder)
    first, last = folder.epochs()[0], folder.epochs()[-1]
    assert last["loss_seg_train"] < 0.5 * first["loss_seg_train"]
    assert max(record["dice_val"] for record in folder.epochs()) > 0.5
    assert last["log_sigma2_seg"] < 0  # eq. (5): the segmentation's loss is far below 1/2


def test_the_papers_selection_reports_the_test_set_alone(slices: Slices, config: Config, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        config, protocol=Protocol(selection="test"), train=dataclasses.replace(config.train, epochs=1)
    )
    folder = RunFolder(tmp_path / "run")
    train.train(settings, slices, 0, folder)
    lines = (folder.path / "volumes.csv").read_text().splitlines()[1:]
    assert lines
    assert all(line.split(",")[2] == "test" for line in lines)


def test_the_baseline_trains_and_its_area_comes_from_its_segmentation(
    slices: Slices, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(config, model=Model(branch="none", width=2))
    whole = RunFolder(tmp_path / "whole")
    train.train(settings, slices, 1, whole)
    record = whole.epochs()[-1]
    assert record["loss_train"] == record["loss_seg_train"]
    assert {record[name] for name in ("loss_area_train", "log_sigma2_seg", "log_sigma_reg", "weight_reg")} == {None}
    rows = list(csv.DictReader((whole.path / "slices.csv").read_text().splitlines()))
    assert {row["area_reg_mm2"] for row in rows} == {""}
    errors = [abs(float(r["area_seg_mm2"]) - float(r["area_true_mm2"])) for r in rows if r["set"] == "validation"]
    best = max(whole.epochs(), key=lambda record: record["dice_val"])
    assert best["area_mad_mm2"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert_same(killed_once(settings, slices, tmp_path / "killed"), whole)
    assert_same(killed_every(9, settings, slices, tmp_path / "within", monkeypatch), whole)


def test_other_norms_normalisations_and_starts_resume_to_the_same_numbers(
    slices: Slices, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(
        config,
        model=Model(width=2, norm="group"),
        train=dataclasses.replace(config.train, normalisation="volume"),
        weighting=Weighting(init="data"),
    )
    whole = RunFolder(tmp_path / "whole")
    train.train(settings, slices, 1, whole)
    assert_same(killed_once(settings, slices, tmp_path / "killed"), whole)
    assert_same(killed_every(9, settings, slices, tmp_path / "within", monkeypatch), whole)


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"channels_last": False}])
def test_precision_and_layout_are_held_to_float32(
    change: dict[str, Any], slices: Slices, config: Config, tmp_path: Path
) -> None:
    """bf16 has eight bits: a training stays close to float32's, and its predictions nearly the same."""
    plain, other = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "other")
    settings = dataclasses.replace(config, train=dataclasses.replace(config.train, precision="float32", epochs=2))
    train.train(settings, slices, 1, plain)
    changed = dataclasses.replace(settings, train=dataclasses.replace(settings.train, **change))
    train.train(changed, slices, 1, other)
    for a, b in zip(plain.epochs(), other.epochs(), strict=True):
        assert b["loss_seg_train"] == pytest.approx(a["loss_seg_train"], rel=0.02)
        assert b["loss_area_train"] == pytest.approx(a["loss_area_train"], rel=0.1)
    best = Trainer(settings, slices, folds_of(slices, 5, 0, "validation")[1], 1, CPU).network
    best.load_state_dict(weights(plain, "best.pt"))
    theirs, ours = (evaluate.predict(best, Placed(slices, CPU), np.arange(30), s.train) for s in (settings, changed))
    assert (theirs.mask_NYX != ours.mask_NYX).mean() < 0.01
    usual_mm2 = float(slices.area_mm2_NA(np.arange(30)).std())
    assert ours.area_mm2_NA == pytest.approx(theirs.area_mm2_NA, abs=0.1 * usual_mm2)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile wants g++ on CPUs")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
def test_a_compiled_step_is_held_to_the_plain_one(
    slices: Slices, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    fold = folds_of(slices, 5, 0, "validation")[1]
    compiled = dataclasses.replace(config, train=dataclasses.replace(config.train, compile=True))
    ours, plain = (Trainer(settings, slices, fold, 1, CPU) for settings in (compiled, config))
    assert ours.joint.network is not ours.network
    inputs = plain.inputs(plain.batches(1)[0][:4], plain.draws(1))
    assert ours.step(*inputs) == pytest.approx(plain.step(*inputs), rel=1e-5)
    a, b = (torch.cat([p.grad.flatten() for p in one.network.parameters()]) for one in (ours, plain))
    # Sums in another order: 1 % in single first weights, behind five levels of normalisation.
    assert (a - b).norm() < 0.02 * b.norm()
    assert list(ours.state()["network"]) == list(plain.state()["network"])


def test_without_a_compiler_there_is_one_line(slices: Slices, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    compiled = dataclasses.replace(config, train=dataclasses.replace(config.train, compile=True))
    with pytest.raises(ValueError, match=r"^train.compile wants a C\+\+ compiler .*install one, or leave it false$"):
        Trainer(compiled, slices, folds_of(slices, 5, 0, "validation")[1], 1, CPU)


def test_bf16_is_taken_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda there=there: {"avx512_bf16": there})
        with network.arithmetic("auto", CPU):
            assert torch.is_autocast_enabled("cpu") == there
    with network.arithmetic("bf16", CPU):
        assert torch.is_autocast_enabled("cpu")


def test_learned_weights_start_at_the_first_batch_and_at_no_later_one(slices: Slices, config: Config) -> None:
    settings = dataclasses.replace(config, weighting=Weighting(init="data"))
    trainer = Trainer(settings, slices, folds_of(slices, 5, 0, "validation")[0], 0, CPU)
    batches, draws = trainer.batches(1), trainer.draws(1)
    _, seg, reg = trainer.step(*trainer.inputs(batches[0], draws))
    start = np.log([2 * seg, reg])
    for steps, pairs in enumerate([None, *batches[1:4]], start=1):
        if pairs is not None:
            trainer.step(*trainer.inputs(pairs, draws))
        state = trainer.weighting.state()
        # RMSprop moves a parameter by at most ten learning rates a step.
        assert abs(np.subtract([state["log_sigma2_seg"], state["log_sigma_reg"]], start)).max() < 0.0101 * steps


def test_predicted_masks_are_kept_when_asked_for_and_give_the_rows_areas(
    slices: Slices, config: Config, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    train.train(config, slices, 1, folder, save_masks=True)
    group = zarr.open_group(folder.path / "masks.zarr", mode="r")
    rows = [r for r in csv.DictReader((folder.path / "slices.csv").read_text().splitlines()) if r["set"] == "test"]
    assert set(group.array_keys()) == {row["patient"] for row in rows}
    for row in rows:
        mask_TZYX = np.asarray(group[row["patient"]])
        area_mm2 = mask_TZYX[int(row["phase"]), int(row["level"])].sum() * slices.pixel_mm2
        assert area_mm2 == pytest.approx(float(row["area_seg_mm2"]))


def test_fixed_weights_have_no_sigma(slices: Slices, config: Config, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        config, weighting=Weighting(kind="fixed"), train=dataclasses.replace(config.train, epochs=1)
    )
    folder = RunFolder(tmp_path / "run")
    train.train(settings, slices, 0, folder)
    record = folder.epochs()[0]
    assert (record["log_sigma2_seg"], record["log_sigma_reg"]) == (None, None)
    assert record["loss_train"] == pytest.approx(record["loss_seg_train"] + record["loss_area_train"] / 1556)


def test_a_loss_that_is_no_number_stops_the_fold_and_says_where(slices: Slices, config: Config) -> None:
    trainer = Trainer(config, slices, folds_of(slices, 5, 0, "validation")[0], 0, CPU)
    trainer.epoch(1)
    torch.nn.init.constant_(trainer.network.segmentation.weight, float("nan"))
    with pytest.raises(Diverged, match=r"^epoch 2, batch 1: loss nan: L_seg nan, .*log_sigma_reg"):
        trainer.epoch(2)


def test_an_area_error_that_is_no_number_is_a_divergence_too(slices: Slices, config: Config) -> None:
    trainer = Trainer(config, slices, folds_of(slices, 5, 0, "validation")[0], 0, CPU)
    trainer.network.down[0][1].running_var.fill_(float("nan"))  # what evaluation uses, and training does not
    trainer.network.down[0][1].momentum = 0.0
    with pytest.raises(Diverged, match=r"^epoch 1: the area error on the selection set is nan mm2"):
        trainer.epoch(1)


def test_checkpoints_of_others_and_damaged_ones_are_refused(whole: RunFolder, config: Config, slices: Slices) -> None:
    with pytest.raises(ValueError, match="of another configuration, data or fold"):
        checkpoint.load(whole.last, config, 2)
    whole.last.write_bytes(whole.last.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"last\.pt: damaged .*remove the fold's folder"):
        train.train(config, slices, 1, whole)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error(device: str) -> None:
    if {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[device]:
        pytest.skip(f"{device} is usable here")
    with pytest.raises(ValueError, match=f"train.device is '{device}', which is not usable here; usable: cpu"):
        resolve_device(device)


def test_the_probe_measures_and_changes_nothing(slices: Slices, config: Config) -> None:
    cost = train.probe(config, slices)
    assert cost.predict_s > 0
    assert cost.train_s > 0
    assert cost.memory_share == 0


def out_of_memory_at(monkeypatch: pytest.MonkeyPatch, largest: int, begins_at: int = 0) -> list[int]:
    """Batches of more than `largest` slices do not fit, after `begins_at` that do; the sizes that were tried."""
    tried: list[int] = []
    forward = network.UNet.forward

    def tight(self: network.UNet, image: torch.Tensor) -> Any:
        tried.append(len(image))
        made = forward(self, image)  # so that BatchNorm has seen the batch
        if self.training and len(image) > largest and len(tried) > begins_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return made

    monkeypatch.setattr(network.UNet, "forward", tight)
    return tried


def test_out_of_memory_halves_the_batch_once_and_leaves_nothing_of_the_failed_epoch(
    slices: Slices, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short of memory in the middle of the second epoch, or from its first batch on, or halved before it because that
    was asked for: the same numbers."""
    middle, beginning = RunFolder(tmp_path / "middle"), RunFolder(tmp_path / "beginning")
    batches = len(Trainer(config, slices, folds_of(slices, 5, 0, "validation")[1], 1, CPU).batches(1))

    def kill(record: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        train.train(config, slices, 1, beginning, kill)
    first = beginning.epochs()
    with monkeypatch.context() as patch:
        tried = out_of_memory_at(patch, largest=2, begins_at=batches + 3)
        train.train(config, slices, 1, middle)
    assert max(tried[batches + 1 : batches + 5]) > 2  # whole batches first, in the second epoch too
    asked = RunFolder(shutil.copytree(beginning.path, tmp_path / "asked"))
    train.train(config, slices, 1, asked, micro_batches=2)
    out_of_memory_at(monkeypatch, largest=2)
    train.train(config, slices, 1, beginning)
    assert_same(middle, beginning)
    assert_same(asked, beginning)
    assert middle.facts()["micro_batches"] == 2
    assert numbers(middle)[0] == {k: v for k, v in first[0].items() if k not in TIMES}


def test_half_batches_descend_on_the_whole_batchs_loss(slices: Slices, config: Config) -> None:
    """With GroupNorm, which does not see the batch, two halves (here of 3 and 2) are the batch."""
    settings = dataclasses.replace(config, model=dataclasses.replace(config.model, norm="group"))
    fold = folds_of(slices, 5, 0, "validation")[1]
    whole, halves = (Trainer(settings, slices, fold, 1, CPU) for _ in range(2))
    halves.build(micro_batches=2)
    inputs = whole.inputs(whole.batches(1)[0][:5], whole.draws(1))
    assert halves.step(*inputs) == pytest.approx(whole.step(*inputs), rel=1e-6)
    for (name, a), b in zip(whole.joint.named_parameters(), halves.joint.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-6), name


def test_out_of_memory_in_half_batches_fails_with_advice(
    slices: Slices, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_memory_at(monkeypatch, largest=1)
    with pytest.raises(train.OutOfMemory, match=r"^epoch 1: out of memory in half batches too: give a smaller"):
        train.train(config, slices, 1, RunFolder(tmp_path / "run"))


def test_out_of_memory_goes_on_in_halves_from_what_was_kept_last(
    slices: Slices, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short of memory in the fifth batch of the second epoch: no batch is trained twice."""
    settings, step = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2)), Trainer.step
    halves: list[int] = []

    def counted(self: Trainer, *args: Any) -> Any:
        halves.append(self.micro_batches)
        if len(halves) == 14 + 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return step(self, *args)

    monkeypatch.setattr(Trainer, "step", counted)
    folder = RunFolder(tmp_path / "run")
    train.train(settings, slices, 1, folder, checkpoint_minutes=0.0)
    assert halves == [1] * (14 + 5) + [2] * 10
    assert [record["epoch"] for record in folder.epochs()] == [1, 2]


def test_killed_in_half_batches_it_goes_on_in_them(
    slices: Slices, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    train.train(config, slices, 1, whole, micro_batches=2)
    out_of_memory_at(monkeypatch, largest=2)

    def kill(record: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        train.train(config, slices, 1, broken, kill)
    tried = out_of_memory_at(monkeypatch, largest=2)
    train.train(config, slices, 1, broken)
    assert_same(whole, broken)
    assert tried[0] <= 2  # no whole batch is tried again
