"""How the two losses are weighed: one short file a way, the same two methods each.

total(seg_loss, area_loss)  the loss to descend on; area_loss in mm2
state()                     log_sigma2_seg, log_sigma_reg (None where not learned), weight_seg, weight_reg
"""

import math

from mtl.config import Weighting
from mtl.weighting.fixed import Fixed
from mtl.weighting.learned import Learned


def make(settings: Weighting, area_scale_mm2: float) -> Fixed | Learned:
    """The weighting that the settings name. area_scale_mm2: one unit of what the network predicts, mm2."""
    if settings.kind == "learned":
        return Learned(s_reg=math.log(area_scale_mm2))
    return Fixed(ratio=settings.ratio if settings.kind == "fixed" else 1.0)
