"""The two task losses and eq. (5), which joins them.

Outside eq. (5) is the soft Dice loss that may be added to the cross-entropy: Drozdzal et al., "The importance of skip
connections in biomedical image segmentation", DLMIA 2016; Isensee et al., "nnU-Net", Nature Methods 18 (2021).
"""

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


def soft_dice_loss(logits_BKYX: torch.Tensor, mask_B1YX: torch.Tensor) -> torch.Tensor:
    """1 - (2 |P M| + 1) / (|P| + |M| + 1), P probabilities and M the mask in pixels; mean over slices and structures.

    By slice, not by batch as in nnU-Net's two-dimensional networks, so that the loss of a batch is the mean of its
    parts', on however many ranks these are. The pixel that is added lets an empty slice have a right answer.
    """
    classes = logits_BKYX.shape[1]
    if classes == 1:
        probability, truth = logits_BKYX.sigmoid(), mask_B1YX.to(logits_BKYX.dtype)
    else:
        probability = logits_BKYX.softmax(dim=1)[:, 1:]
        labels = torch.arange(1, classes, device=mask_B1YX.device).view(1, -1, 1, 1)
        truth = (mask_B1YX == labels).to(logits_BKYX.dtype)
    both, either = ((t).sum(dim=(2, 3)) for t in (probability * truth, probability + truth))
    return (1 - (2 * both + 1) / (either + 1)).mean()


def area_loss(area_BA: torch.Tensor, true_BA: torch.Tensor) -> torch.Tensor:
    """L_1 of eq. (5): mean absolute difference of the areas, mm2; (A,), for each structure is a task of its own."""
    return torch.stack([one_B.mean() for one_B in (area_BA - true_BA).abs().unbind(dim=1)])


def joint_loss(
    seg_loss: torch.Tensor, area_loss: torch.Tensor, s_seg: torch.Tensor, s_reg: torch.Tensor
) -> torch.Tensor:
    """Eq. (5): exp(-s_seg) L_seg + exp(-s_reg) L_area + s_seg / 2 + s_reg.

    With several structures, whose areas are several tasks, one s a task: area_loss and s_reg are (A,), and the terms of
    the areas are added up.

    s_seg = log sigma_seg^2 and s_reg = log sigma_reg. The paper writes "s = log(sigma)" for both, but its
    figures -3.9 and 3.45 give its ratio of 1556:1 only as exp(3.9 + 3.45), that is with weights exp(-s). The
    optimum is sigma_reg = L_area and sigma_seg^2 = 2 L_seg.
    """
    return torch.exp(-s_seg) * seg_loss + (torch.exp(-s_reg) * area_loss).sum() + s_seg / 2 + s_reg.sum()
