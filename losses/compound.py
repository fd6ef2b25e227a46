# SPDX-License-Identifier: Apache-2.0
"""Compound losses: Combo and Unified Focal, of a cross entropy and an overlap each.

Their ++ forms have the exponent `gamma` in the part of overlap alone.
"""

from functools import partial
from typing import Unpack

from . import checks, cross_entropy, overlap
from .base import Options, PerImageLoss, Tensor, prepare

__all__ = [
    "Combo",
    "ComboPlusPlus",
    "SymmetricUnifiedFocal",
    "SymmetricUnifiedFocalPlusPlus",
    "UnifiedFocal",
    "UnifiedFocalPlusPlus",
    "combo_loss",
    "unified_focal_loss",
]


def combo_loss(
    y_true: Tensor,
    y_pred: Tensor,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 1.0,
    epsilon: float = 1e-7,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Combo loss (`gamma=1`) or Combo++ loss of each image.

    Formula:

    ```python
    loss = alpha * modified_cross_entropy - (1 - alpha) * (1 - dice)
    ```

    with `modified_cross_entropy_loss` and `dice_loss`. It ends at `-(1 - alpha)` for a
    perfect prediction, not at 0.

    Hyperparameters:
        alpha: weight of the cross entropy, in [0, 1]; the overlap has the rest.
        beta: weight of the missed against the false positives in the cross entropy,
            in [0, 1].

    Other arguments: see the package's docstring. Values are from `-(1 - alpha)`, (N,).

    Examples:
        >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]])
        >>> round(float(combo_loss(y, p)[0]), 5)
        -0.19698

    which is 0.5 * log 2 / 3 - 0.5 * (1 - 0.375).

    Reference:
        Eqs. 13 and 14, the sign of Eq. 14 mended as in `modified_cross_entropy_loss`.
        Combo++ was never released; here it is Eq. 13 with the DSC of Eq. 9.
    """
    alpha, beta, gamma, epsilon = checks.hyperparameters(
        alpha=alpha, beta=beta, gamma=gamma, epsilon=epsilon
    ).values()
    voxels = prepare(y_true, y_pred, weight, **options)
    entropy = cross_entropy.modified_cross_entropy_of(voxels, beta)
    dice = overlap.dice_of(overlap.counts_of(voxels, gamma), epsilon)
    return alpha * entropy - (1 - alpha) * (1 - dice)


def unified_focal_loss(
    y_true: Tensor,
    y_pred: Tensor,
    lambda_: float = 0.5,
    delta: float = 0.6,
    focal_gamma: float = 0.5,
    gamma: float = 1.0,
    symmetric: bool = False,
    epsilon: float = 1e-7,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Unified Focal loss (`gamma=1`) or Unified Focal++ loss of each image.

    Formula:

    ```python
    loss = lambda_ * focal_tversky + (1 - lambda_) * focal
    ```

    with `asymmetric_focal_tversky_loss` and `asymmetric_focal_loss`.

    Hyperparameters:
        lambda_: weight of the focal Tversky part, in [0, 1].
        delta: weight of the missed against the false positives, and of foreground
            against background, in [0, 1].
        focal_gamma: in [0, 1); the larger, the less an easy background voxel weighs,
            and the more a foreground class with a small Tversky loss.
        symmetric: whether both effects of `focal_gamma` are on every class.

    Other arguments: see the package's docstring. Values are from 0, (N,).

    Examples:
        >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [1, 0], [0.75, 0.25]]])
        >>> round(float(unified_focal_loss(y, p)[0]), 5)
        0.45519

    Reference:
        Eqs. 18 to 21, but `lambda_` is on the Tversky part, as in the released code; at
        0.5 that is the same. The symmetric form is not in the paper.
    """
    focal_gamma = checks.BELOW_ONE("focal_gamma", focal_gamma)
    others = {"lambda_": lambda_, "delta": delta, "gamma": gamma, "epsilon": epsilon}
    lambda_, delta, gamma, epsilon = checks.hyperparameters(**others).values()
    voxels = prepare(y_true, y_pred, weight, **options)
    shared = (delta, focal_gamma, symmetric)
    tversky = overlap.asymmetric_focal_tversky_of(voxels, *shared, gamma, epsilon)
    focal = cross_entropy.asymmetric_focal_of(voxels, *shared)
    return lambda_ * tversky + (1 - lambda_) * focal


class Combo(PerImageLoss):
    """Combo loss, `combo_loss`: Eqs. 13 and 14, the sign of 14 mended; Table 2."""

    title = "Combo"
    function = staticmethod(combo_loss)


class ComboPlusPlus(PerImageLoss):
    """Combo++ loss, with the sums of Eq. 9; Table 2, `gamma` of Table 6."""

    title = "Combo++"
    function = staticmethod(combo_loss)


class UnifiedFocal(PerImageLoss):
    """Unified Focal loss, asymmetric, `unified_focal_loss`: Eqs. 18 to 21; Table 2."""

    title = "Unified Focal"
    function = staticmethod(unified_focal_loss)
    focal_range = checks.BELOW_ONE


class UnifiedFocalPlusPlus(PerImageLoss):
    """Unified Focal++ loss: with the sums of Eq. 9; Table 2, `gamma` of Table 6."""

    title = "Unified Focal++"
    function = staticmethod(unified_focal_loss)
    focal_range = checks.BELOW_ONE


class SymmetricUnifiedFocal(PerImageLoss):
    """Unified Focal loss, factor and root on every class: not in the paper."""

    title = "Symmetric Unified Focal"
    function = staticmethod(partial(unified_focal_loss, symmetric=True))
    focal_range = checks.BELOW_ONE


class SymmetricUnifiedFocalPlusPlus(PerImageLoss):
    """The same with the sums of Eq. 9: not in the paper."""

    title = "Symmetric Unified Focal++"
    function = staticmethod(partial(unified_focal_loss, symmetric=True))
    focal_range = checks.BELOW_ONE
