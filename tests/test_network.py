"""The U-Net and the place where the regression path leaves."""

import pytest
import torch

from mtl.config import BRANCHES as ALL
from mtl.network import UNet

BRANCHES = [branch for branch in ALL if branch != "none"]
QUARTER = {"bottleneck": 3, "up1": 6, "up2": 12, "up3": 24, "up4": 48}
"""A quarter of each level's size at 192 x 192."""


@pytest.mark.parametrize("branch", BRANCHES)
def test_shapes_at_any_size_divisible_by_16(branch: str) -> None:
    network = UNet(branch, width=2, size=64).eval()
    for rows, columns in [(64, 64), (96, 96), (32, 48)]:
        logits, area = network(torch.zeros(3, 1, rows, columns))
        assert logits.shape == (3, 1, rows, columns)
        assert area.shape == (3, 1)


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_regression_path_is_pooled_to_a_quarter_of_its_level(branch: str) -> None:
    assert UNet(branch, width=2, size=192).area_grid == QUARTER[branch]


def test_pooling_is_a_plain_4_by_4_at_the_size_it_is_built_for() -> None:
    network = UNet("up4", width=2, size=32).eval()
    seen: list[torch.Tensor] = []
    network.area_convolutions.register_forward_hook(lambda *a: seen.append(a[2]))
    _, area = network(torch.randn(1, 1, 32, 32))
    plain = torch.nn.functional.max_pool2d(seen[0], 4).flatten(1)
    assert torch.equal(area, network.area(plain))


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_area_reaches_the_decoder_up_to_its_branch_and_no_further(branch: str) -> None:
    network = UNet(branch, width=2, size=32)
    network(torch.randn(2, 1, 32, 32))[1].sum().backward()
    place = BRANCHES.index(branch)
    for level, (up, merge) in enumerate(zip(network.up, network.merge, strict=True), start=1):
        assert (up.weight.grad is not None) == (level <= place)
        assert (merge[0].weight.grad is not None) == (level < place)
    assert network.segmentation.weight.grad is None
    assert all(p.grad is not None for p in network.down.parameters())


def test_at_up4_both_paths_have_two_convolutions_of_the_same_kind() -> None:
    network = UNet("up4", width=4)
    shapes = [[tuple(p.shape) for p in path.parameters()] for path in (network.merge[-1], network.area_convolutions)]
    assert shapes[0] == shapes[1]


def test_widths_double_at_each_of_four_down_samplings() -> None:
    network = UNet(width=16)
    assert [block[0].out_channels for block in network.down] == [16, 32, 64, 128, 256]


def test_classes_and_areas() -> None:
    logits, area = UNet(width=2, classes=3, areas=3, size=32)(torch.zeros(2, 1, 32, 32))
    assert logits.shape == (2, 4, 32, 32)
    assert area.shape == (2, 3)


def test_area_scale_is_undone_at_the_output_and_kept_with_the_weights() -> None:
    network = UNet(width=2, size=32).eval()
    x = torch.randn(2, 1, 32, 32)
    plain = network(x)[1]
    network.set_area_scale(1500.0, 400.0)
    assert torch.allclose(network(x)[1], plain * 400 + 1500)
    other = UNet(width=2, size=32).eval()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x)[1], network(x)[1])


def test_kaiming_uniform_bounds() -> None:
    weight = UNet(width=16).down[1][0].weight
    bound = (6 / (16 * 9)) ** 0.5
    assert weight.abs().max().item() <= bound
    assert weight.abs().max().item() > 0.95 * bound


def test_the_same_seed_gives_every_branch_the_same_shared_weights() -> None:
    """So that branch points are compared from one start."""
    starts = []
    for branch in BRANCHES:
        torch.manual_seed(3)
        network = UNet(branch, width=2, size=32)
        starts.append({k: v for k, v in network.state_dict().items() if not k.startswith("area")})
    for other in starts[1:]:
        assert all(torch.equal(value, other[key]) for key, value in starts[0].items())


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_baseline_is_the_same_network_without_the_regression_path(norm: str) -> None:
    torch.manual_seed(3)
    whole = UNet("up4", width=2, size=32, norm=norm)
    torch.manual_seed(3)
    baseline = UNet("none", width=2, size=32, norm=norm)
    state = whole.state_dict()
    assert {key for key in state if not key.startswith("area")} == set(baseline.state_dict())
    assert all(torch.equal(value, state[key]) for key, value in baseline.state_dict().items())
    x = torch.randn(2, 1, 32, 32)
    logits, area = baseline(x)
    assert area is None
    assert torch.equal(logits, whole(x)[0])


def test_group_norm_knows_no_batch() -> None:
    network = UNet(width=2, size=32, norm="group")
    x = torch.randn(4, 1, 32, 32)
    for whole, part in zip(network(x), network(x[:1]), strict=True):
        assert torch.allclose(whole[:1], part, atol=1e-5)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="width is 0, wanted 1 or more"):
        UNet(width=0)
    with pytest.raises(ValueError, match="norm is 'layer', wanted one of: batch, group"):
        UNet(norm="layer")
    with pytest.raises(ValueError, match=r"images of \(40, 32\), wanted multiples of 16"):
        UNet(width=2, size=32)(torch.zeros(1, 1, 40, 32))
    with pytest.raises(ValueError, match="branch is 'up9', wanted one of: bottleneck"):
        UNet("up9")
    with pytest.raises(ValueError, match="size is 100, wanted a multiple of 16"):
        UNet(size=100)
