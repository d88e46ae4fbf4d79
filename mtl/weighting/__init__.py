"""How the losses are weighed: one short file a way, the same four methods each.

start(seg_loss, area_loss)  told the first batch's losses, once, before the first total
total(seg_loss, area_loss)  the loss to descend on; area_loss in mm2, (A,): a loss for each structure's area
weight_reg()                of the areas' losses: (A,), or one for all; None where there are none
state()                     log_sigma2_seg, log_sigma_reg (None where not learned), weight_seg, weight_reg; where there
                            are several areas the last of each name is a mean, with each one's beside it
"""

import math
from collections.abc import Sequence

from mtl.config import Weighting
from mtl.weighting.alone import Alone
from mtl.weighting.fixed import Fixed
from mtl.weighting.learned import Learned

ONE = ("myocardium",)
Way = Alone | Fixed | Learned


def make(settings: Weighting, area_scale_mm2: Sequence[float] | None, structures: Sequence[str] = ONE) -> Way:
    """The weighting that the settings name. area_scale_mm2: one unit of what the network predicts of each structure,
    mm2; None where it predicts no area."""
    if area_scale_mm2 is None:
        return Alone()
    if settings.kind == "learned":
        return Learned([math.log(unit) for unit in area_scale_mm2], structures, from_data=settings.init == "data")
    return Fixed(ratio=settings.ratio if settings.kind == "fixed" else 1.0)
