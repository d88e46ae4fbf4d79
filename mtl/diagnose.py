"""Why a branch point hurts: whether the two tasks pull what they share in one direction (`train.diagnose=true`).

The paper found early branch points detrimental and could only guess at the skip connections. Once an epoch, on one of
its batches, the gradients of both weighted losses of eq. (5) are taken with respect to everything that both move:

    grad_cosine        of the angle between them; below 0 the tasks are in conflict, and a step for one undoes the other
    grad_norm_ratio    |weight_reg grad L_area| / |weight_seg grad L_seg|; above 1 the areas lead

(L_area: of several structures the weighted sum) over the whole shared part, and of each of its levels as
`grad_cosine_down1`, ... (UNet.shared). Nothing that is trained changes. It costs about as
much as a step (0.9 to 1.3): under 3 % of an epoch of 45 batches or more; the paper's has 4,000.

Source of the cosine as a measure of conflict: Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from mtl.joint import Joint
from mtl.network import UNet

Gradients = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Level -> the gradient of the weighted L_seg and that of the weighted L_area, each as a vector."""


def conflict(
    joint: Joint,
    network: UNet,
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    share: float = 1.0,
) -> dict[str, float | None]:
    """grad_cosine and grad_norm_ratio, whole and by level; None where a gradient is 0.

    network: the joint one's own, uncompiled. batch, share: as for Joint.forward; every rank calls this with its part.
    """
    with _unmoved(network):
        return told(_gradients(joint, network, batch, share))


def told(gradients: Gradients) -> dict[str, float | None]:
    """What is told of them, in the order of the levels, after the whole."""
    both = [torch.cat(vectors) for vectors in zip(*gradients.values(), strict=True)]
    made: dict[str, float | None] = {}
    for level, (seg, reg) in {"": (both[0], both[1]), **gradients}.items():
        product, seg_2, reg_2 = (float((a * b).sum()) for a, b in ((seg, reg), (seg, seg), (reg, reg)))
        suffix = f"_{level}" if level else ""
        made[f"grad_cosine{suffix}"] = product / (seg_2 * reg_2) ** 0.5 if seg_2 * reg_2 > 0 else None
        made[f"grad_norm_ratio{suffix}"] = (reg_2 / seg_2) ** 0.5 if seg_2 > 0 else None
    return made


def _gradients(
    joint: Joint, network: UNet, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], share: float
) -> Gradients:
    shared = network.shared()
    parameters = [parameter for level in shared.values() for parameter in level]
    weight_seg, weight_reg = joint.weighting.state()["weight_seg"], joint.weighting.weight_reg()
    assert weight_seg is not None, "the segmentation always has a weight"
    assert weight_reg is not None, "without a regression path there is nothing to compare"
    vectors = []
    seg, reg = joint.losses(network, *batch)
    for loss, kept in ((weight_seg * seg, True), ((weight_reg * reg).sum(), False)):
        found = torch.autograd.grad(share * loss, parameters, retain_graph=kept)
        vectors.append(joint.ranks.mean(torch.cat([one.reshape(-1) for one in found])).cpu().double())
    lengths = [sum(parameter.numel() for parameter in level) for level in shared.values()]
    return dict(zip(shared, zip(*(torch.split(vector, lengths) for vector in vectors), strict=True), strict=True))


@contextmanager
def _unmoved(network: nn.Module) -> Iterator[None]:
    """Its buffers (BatchNorm's running means) are afterwards what they were before."""
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(kept[name])
