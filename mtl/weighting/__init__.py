"""How the two losses are weighed: one short file a way, the same three methods each.

start(seg_loss, area_loss)  told the first batch's losses, once, before the first total
total(seg_loss, area_loss)  the loss to descend on; area_loss in mm2
state()                     log_sigma2_seg, log_sigma_reg (None where not learned), weight_seg, weight_reg
"""

import math

from mtl.config import Weighting
from mtl.weighting.alone import Alone
from mtl.weighting.fixed import Fixed
from mtl.weighting.learned import Learned

Way = Alone | Fixed | Learned


def make(settings: Weighting, area_scale_mm2: float | None) -> Way:
    """The weighting that the settings name. area_scale_mm2: one unit of what the network predicts, mm2; None
    where it predicts no area."""
    if area_scale_mm2 is None:
        return Alone()
    if settings.kind == "learned":
        return Learned(s_reg=math.log(area_scale_mm2), from_data=settings.init == "data")
    return Fixed(ratio=settings.ratio if settings.kind == "fixed" else 1.0)
