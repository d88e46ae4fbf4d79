"""The two task losses and eq. (5), which joins them."""

import torch
import torch.nn.functional as F


def segmentation_loss(logits_BKYX: torch.Tensor, mask_B1YX: torch.Tensor) -> torch.Tensor:
    """L_2 of eq. (5): cross-entropy per pixel, mean over pixels and batch (nats); mask: class labels.

    K = 1 is a sigmoid, more a softmax with background as class 0. Section 2.3 says sigmoid, eq. (1) softmax: for
    one structure they are the same likelihood up to scale.
    """
    if logits_BKYX.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits_BKYX, mask_B1YX.to(logits_BKYX.dtype))
    return F.cross_entropy(logits_BKYX, mask_B1YX[:, 0].long())


def area_loss(area_BA: torch.Tensor, true_BA: torch.Tensor) -> torch.Tensor:
    """L_1 of eq. (5): mean absolute difference of the areas, mm2."""
    return (area_BA - true_BA).abs().mean()


def joint_loss(
    seg_loss: torch.Tensor, area_loss: torch.Tensor, s_seg: torch.Tensor, s_reg: torch.Tensor
) -> torch.Tensor:
    """Eq. (5): exp(-s_seg) L_seg + exp(-s_reg) L_area + s_seg / 2 + s_reg.

    s_seg = log sigma_seg^2 and s_reg = log sigma_reg. The paper writes "s = log(sigma)" for both, but its
    figures -3.9 and 3.45 give its ratio of 1556:1 only as exp(3.9 + 3.45), that is with weights exp(-s). The
    optimum is sigma_reg = L_area and sigma_seg^2 = 2 L_seg.
    """
    return torch.exp(-s_seg) * seg_loss + torch.exp(-s_reg) * area_loss + s_seg / 2 + s_reg
