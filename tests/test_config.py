"""Settings: checked when made, hashed without paths."""

import dataclasses

import pytest

from mtl import config
from mtl.config import Config, Model, Optim, Protocol, Train, Weighting, from_dict


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Model(branch="up5"), "model.branch is 'up5', wanted one of: bottleneck, up1, up2, up3, up4, none"),
        (lambda: Model(width=0), "model.width is 0, wanted 1 to 256 channels"),
        (lambda: Model(area_scale="mm"), "model.area_scale is 'mm', wanted one of: fold, none"),
        (lambda: Train(epochs=0), "train.epochs is 0, wanted 1 to 100000"),
        (lambda: Train(batch_size=0), "train.batch_size is 0"),
        (lambda: Train(folds=1), "train.folds is 1, wanted 2 to 1000"),
        (lambda: Train(rotation_deg=200.0), "train.rotation_deg is 200.0, wanted 0 to 180 degrees"),
        (lambda: Train(shift=float("nan")), "train.shift is nan, wanted 0 to 1 image sizes"),
        (lambda: Train(device="gpu"), "train.device is 'gpu', wanted one of: auto, cpu, cuda, mps"),
        (lambda: Optim(lr=-1.0), "optim.lr is -1.0"),
        (lambda: Optim(decay=1.5), "optim.decay is 1.5, wanted 0.01 to 1"),
        (lambda: Weighting(kind="best"), "weighting.kind is 'best', wanted one of: learned, fixed, equal"),
        (lambda: Weighting(ratio=0.0), "weighting.ratio is 0.0"),
        (
            lambda: Protocol(selection="train"),
            "protocol.selection is 'train', wanted one of: validation, test",
        ),
        (lambda: Config(train=Train(folds=2)), "train.folds is 2, wanted 3 or more"),
        (
            lambda: from_dict(Config, {"model": {"with": 3}}),
            "unknown key 'with', wanted one of: branch, width",
        ),
        (lambda: from_dict(Train, {"epochs": "many"}), "epochs is 'many', wanted int"),
        (lambda: from_dict(Train, {"epochs": True}), "epochs is True, wanted int"),
    ],
)
def test_a_wrong_value_names_field_value_and_choices(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"^" + message.replace("(", r"\(").replace(".", r"\.")):
        make()  # type: ignore[operator]


def test_defaults_are_the_papers() -> None:
    c = Config()
    assert (c.model.branch, c.model.width) == ("up4", 16)
    assert (c.optim.lr, c.optim.decay, c.train.epochs, c.train.folds) == (0.001, 0.95, 50, 5)
    assert (c.train.augment_copies, c.train.shift, c.weighting.kind, c.weighting.ratio) == (
        2,
        0.5,
        "learned",
        1556,
    )


def test_sections_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.width = 3  # type: ignore[misc]


def test_dictionary_and_back() -> None:
    c = Config(data_digest="abc", model=Model(branch="up2"), optim=Optim(lr=0.1))
    assert from_dict(Config, dataclasses.asdict(c)) == c
    assert from_dict(Optim, {"lr": 1}).lr == 1.0


def test_every_setting_changes_the_digest_and_the_digest_is_stable() -> None:
    base = Config(data_digest="abc")
    others = [
        Config(data_digest="abd"),
        Config("abc", model=Model(width=8)),
        Config("abc", train=Train(seed=1)),
        Config("abc", optim=Optim(decay=0.9)),
        Config("abc", weighting=Weighting(kind="equal")),
        Config("abc", protocol=Protocol(selection="test")),
    ]
    assert len({c.digest for c in [base, *others]}) == 7
    assert base.digest == "dcfee3e6"  # golden: finished runs are found again under this name


def test_every_field_has_a_line_of_meaning() -> None:
    for section in (Model, Train, Optim, Weighting, Protocol):
        assert set(config.meanings(section)) == {f.name for f in dataclasses.fields(section)}
