"""The U-Net whose regression path leaves at `branch` (paper, section 2.3 and Fig. 1)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mtl.config import BRANCHES, NORMS, between, choice

LEVELS = 4


def _norm(kind: str, channels: int) -> nn.Module:
    """BatchNorm, or GroupNorm over groups of up to eight channels, which knows no batch."""
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(math.gcd(channels, 8), channels)


def _convolutions(channels_in: int, channels_out: int, norm: str) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with its norm and ReLU."""
    layers: list[nn.Module] = []
    for before in (channels_in, channels_out):
        layers += [
            nn.Conv2d(before, channels_out, 3, padding=1, bias=False),
            _norm(norm, channels_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Segmentation and areas from one image.

    Four down-samplings, two convolutions a level, skip connections by concatenation. The decoder's levels
    are `up1` (coarsest) to `up4` (full size); drawn for branch="up4", the paper's place, at 192 x 192:

        image 192 --> [conv conv] ---------------------------skip----+
                          | max-pool 2                               |
                         ...  down to 12 (bottleneck), up again  ... |
                                                       up-sample --> concatenate
                                                                      /        \\
                                           segmentation: [conv conv]            regression: [conv conv]
                                                              |                          |
                                                       1 x 1 conv                max-pool to a quarter: 48
                                                              |                          |
                                                   logits_BKYX 192              fully connected: area_BA

    At up1 to up3 the paths part in the same way after that level's concatenation; at `bottleneck` the
    regression path starts from the bottleneck's features. It always has two convolutions of its own.

    At `none` there is no regression path: the baseline U-Net of section 3.

    branch: where the regression path leaves. width: channels of the first level. classes: structures to
    segment; K = 1 (sigmoid) for one, classes + 1 (softmax) else. areas: numbers A to regress. size: rows
    and columns of the images it is built for; the regression path is pooled to the grid that a quarter of
    its level's size gives, so that any input size divisible by 16 works. norm: batch or group.

    forward(image_BCYX) -> (logits_BKYX, area_BA), areas in mm2: the fully connected layer's output times
    `area_scale_mm2` plus `area_offset_mm2` (buffers, 1 and 0 unless set_area_scale was called); None at `none`.
    ValueError where an argument is none that the network can take, or an image's size is not divisible by 16.
    """

    area_offset_mm2: torch.Tensor
    area_scale_mm2: torch.Tensor

    def __init__(
        self,
        branch: str = "up4",
        width: int = 16,
        in_channels: int = 1,
        classes: int = 1,
        areas: int = 1,
        size: int = 192,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        choice("branch", branch, BRANCHES)
        choice("norm", norm, NORMS)
        for name, value in {"width": width, "in_channels": in_channels, "classes": classes, "areas": areas}.items():
            between(name, value, 1)
        if size % 2**LEVELS or size < 2**LEVELS:
            raise ValueError(f"size is {size}, wanted a multiple of {2**LEVELS}")
        channels = [width * 2**level for level in range(LEVELS + 1)]
        self.branch = None if branch == "none" else BRANCHES.index(branch)  # 0: bottleneck, k: up<k>
        self.down = nn.ModuleList(
            _convolutions(before, after, norm)
            for before, after in zip([in_channels, *channels], channels, strict=False)
        )
        decoder = channels[-2::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in decoder)
        self.merge = nn.ModuleList(_convolutions(2 * c, c, norm) for c in decoder)
        self.segmentation = nn.Conv2d(width, 1 if classes == 1 else classes + 1, 1)
        # Drawn before the regression path's, so that the same seed gives every branch the same shared weights.
        self.apply(_kaiming_uniform)
        if self.branch is None:
            return
        leaves = channels[-1] if self.branch == 0 else 2 * decoder[self.branch - 1]
        channels_area = channels[-1] if self.branch == 0 else decoder[self.branch - 1]
        self.area_convolutions = _convolutions(leaves, channels_area, norm)
        self.area_grid = max(1, (size >> (LEVELS - self.branch)) // 4)
        self.area = nn.Linear(channels_area * self.area_grid**2, areas)
        self.register_buffer("area_offset_mm2", torch.zeros(areas))
        self.register_buffer("area_scale_mm2", torch.ones(areas))
        for own in (self.area_convolutions, self.area):
            own.apply(_kaiming_uniform)

    def shared(self) -> dict[str, list[nn.Parameter]]:
        """What the losses of both paths move, by level in the order of the forward pass: down1 to down4, bottleneck,
        and up1 to the branch point, whose own up-sampling is the last. Empty at `none`."""
        if self.branch is None:
            return {}
        names = [*(f"down{level}" for level in range(1, LEVELS + 1)), "bottleneck"]
        made = {name: list(module.parameters()) for name, module in zip(names, self.down, strict=True)}
        for level in range(1, self.branch + 1):
            modules = [self.up[level - 1], *([self.merge[level - 1]] if level < self.branch else [])]
            made[f"up{level}"] = [parameter for module in modules for parameter in module.parameters()]
        return made

    def set_area_scale(self, mean_mm2: float | Sequence[float], deviation_mm2: float | Sequence[float]) -> None:
        """Let the network predict areas in standard deviations about a mean: one of all, or one of each.

        With raw mm2 and both s at 0 the area's loss is a thousand times the other, RMSprop moves s by 0.001
        a step, and the segmentation hardly learns meanwhile.
        """
        self.area_offset_mm2.copy_(torch.as_tensor(mean_mm2))
        self.area_scale_mm2.copy_(torch.as_tensor(deviation_mm2))

    def forward(self, image_BCYX: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if any(n % 2**LEVELS for n in image_BCYX.shape[2:]):
            raise ValueError(f"images of {tuple(image_BCYX.shape[2:])}, wanted multiples of {2**LEVELS}")
        skips, x = [], image_BCYX
        for level, convolutions in enumerate(self.down):
            x = convolutions(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        leaving = x
        for level, (up, merge) in enumerate(zip(self.up, self.merge, strict=True), start=1):
            x = torch.cat([up(x), skips[-1 - level]], dim=1)
            if level == self.branch:
                leaving = x
            x = merge(x)
        return self.segmentation(x), None if self.branch is None else self._area(leaving)

    def _area(self, leaving_BCYX: torch.Tensor) -> torch.Tensor:
        features = _max_pool_to(self.area_convolutions(leaving_BCYX), self.area_grid)
        with torch.autocast(features.device.type, enabled=False):  # bf16 has three digits, an area in mm2 four
            area_BA: torch.Tensor = self.area(features.flatten(1).float()) * self.area_scale_mm2 + self.area_offset_mm2
        return area_BA


def arithmetic(precision: str, device: torch.device) -> torch.autocast:
    """The context in which the network computes, in training and in prediction.

    precision: float32, bf16 (convolutions alone; weights stay float32), or auto: bf16 where the device has units for
    it. Elsewhere bf16 is emulated and slow.
    """
    wanted = resolve_precision(precision, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def resolve_precision(precision: str, device: torch.device) -> str:
    """float32 or bf16: what `auto` means on this device."""
    return ("bf16" if _has_bf16(device) else "float32") if precision == "auto" else precision


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


def _max_pool_to(x_BCYX: torch.Tensor, grid: int) -> torch.Tensor:
    """Max-pool to grid x grid; plain where it divides (faster; exact at the size the network is built for)."""
    rows, columns = x_BCYX.shape[2:]
    if rows % grid == 0 and columns % grid == 0:
        return F.max_pool2d(x_BCYX, (rows // grid, columns // grid))
    return F.adaptive_max_pool2d(x_BCYX, grid)


def _kaiming_uniform(module: nn.Module) -> None:
    """The paper's initialiser [16]; biases start at 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
