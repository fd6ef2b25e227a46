# SPDX-License-Identifier: Apache-2.0
"""The losses as functions: `dice_plus_plus(input, target, mask=None, **arguments)`.

The arguments are those of the class; see `dscpp_torch.losses`.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from . import losses


def _function(loss: type[losses.Loss]) -> Callable[..., Tensor]:
    def function(
        input: Tensor, target: Tensor, mask: Tensor | None = None, **arguments: Any
    ) -> Tensor:
        value: Tensor = loss(**arguments).to(input.device)(input, target, mask)
        return value

    function.__doc__ = loss.__doc__
    return function


cross_entropy = _function(losses.CrossEntropy)
focal = _function(losses.Focal)
dice = _function(losses.Dice)
dice_plus_plus = _function(losses.DicePlusPlus)
tversky = _function(losses.Tversky)
tversky_plus_plus = _function(losses.TverskyPlusPlus)
focal_tversky = _function(losses.FocalTversky)
focal_tversky_plus_plus = _function(losses.FocalTverskyPlusPlus)
combo = _function(losses.Combo)
combo_plus_plus = _function(losses.ComboPlusPlus)
unified_focal = _function(losses.UnifiedFocal)
unified_focal_plus_plus = _function(losses.UnifiedFocalPlusPlus)
symmetric_unified_focal = _function(losses.SymmetricUnifiedFocal)
symmetric_unified_focal_plus_plus = _function(losses.SymmetricUnifiedFocalPlusPlus)
