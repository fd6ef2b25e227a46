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

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1]; clipped to [1e-7, 1 - 1e-7].
        alpha: weight of the cross entropy, in [0, 1]; the overlap has the rest.
        beta: weight of the missed against the false positives in the cross entropy,
            in [0, 1].
        gamma: the ++ exponent, above 0; 1 is the plain Combo loss.
        epsilon: above 0; decides the value for classes absent from an image.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.
        **options: see `Options`.

    Returns:
        Values from `-(1 - alpha)`, (N,).

    Raises:
        ValueError: `alpha` or `beta` outside [0, 1]; `gamma` or `epsilon` not above 0;
            shapes that do not fit; class indices as labels.

    Example:
    >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
    >>> p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]])
    >>> round(float(combo_loss(y, p)[0]), 5)
    -0.19698

    which is 0.5 * log 2 / 3 - 0.5 * (1 - 0.375).

    Reference:
        Eqs. 13 and 14, the sign of Eq. 14 mended as in `modified_cross_entropy_loss`.
        Combo++ was never released; here it is Eq. 13 with the DSC of Eq. 9.
    """
    checks.hyperparameters(alpha=alpha, beta=beta, gamma=gamma, epsilon=epsilon)
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

    with `asymmetric_focal_tversky_loss` and `asymmetric_focal_loss`. Class 0 is
    background, all others are foreground.

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1]; clipped to [1e-7, 1 - 1e-7].
        lambda_: weight of the focal Tversky part, in [0, 1]; the focal part has the
            rest.
        delta: weight of the missed against the false positives, and of foreground
            against background, in [0, 1].
        focal_gamma: in [0, 1); the larger, the less an easy background voxel weighs,
            and the more a foreground class with a small Tversky loss.
        gamma: the ++ exponent, above 0; 1 is the plain Unified Focal loss.
        symmetric: whether both effects of `focal_gamma` are on every class.
        epsilon: above 0; decides the value for classes absent from an image.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.
        **options: see `Options`.

    Returns:
        Values from 0, (N,).

    Raises:
        ValueError: `lambda_` or `delta` outside [0, 1]; `focal_gamma` outside [0, 1);
            `gamma` or `epsilon` not above 0; shapes that do not fit; class indices as
            labels.

    Example:
    >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
    >>> p = np.array([[[0.5, 0.5], [1, 0], [0.75, 0.25]]])
    >>> round(float(unified_focal_loss(y, p)[0]), 5)
    0.45519

    Reference:
        Eqs. 18 to 21, with `lambda_` on the Tversky part as in the released code;
        Eq. 18 has it on the focal part. At 0.5 they agree. The symmetric form is not
        in the paper.
    """
    checks.hyperparameters(
        checks.BELOW_ONE,
        lambda_=lambda_,
        delta=delta,
        focal_gamma=focal_gamma,
        gamma=gamma,
        epsilon=epsilon,
    )
    voxels = prepare(y_true, y_pred, weight, **options)
    own = (delta, focal_gamma, symmetric)
    tversky = overlap.asymmetric_focal_tversky_of(voxels, *own, gamma, epsilon)
    focal = cross_entropy.asymmetric_focal_of(voxels, *own)
    return lambda_ * tversky + (1 - lambda_) * focal


class Combo(PerImageLoss):
    """Combo loss: modified cross entropy and DSC. See `combo_loss`.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.Combo(alpha=0.5))

    Reference:
        Eqs. 13 and 14, the sign of Eq. 14 mended; Table 2.
    """

    title = "Combo"
    function = staticmethod(combo_loss)


class ComboPlusPlus(PerImageLoss):
    """Combo++ loss: modified cross entropy and DSC++. See `combo_loss`.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.ComboPlusPlus(gamma=2))

    Reference:
        Eqs. 13 and 14 with the sums of Eq. 9, the sign of Eq. 14 mended; Table 2, and
        Table 6 for `gamma=2`.
    """

    title = "Combo++"
    function = staticmethod(combo_loss)


class UnifiedFocal(PerImageLoss):
    """Unified Focal loss, asymmetric, the paper's. See `unified_focal_loss`.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.UnifiedFocal(delta=0.6))

    Reference:
        Eqs. 18 to 21, `lambda_` on the Tversky part; Table 2.
    """

    title = "Unified Focal"
    function = staticmethod(unified_focal_loss)
    focal_range = checks.BELOW_ONE


class UnifiedFocalPlusPlus(PerImageLoss):
    """Unified Focal++ loss, asymmetric, the paper's. See `unified_focal_loss`.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.UnifiedFocalPlusPlus(gamma=2))

    Reference:
        Eqs. 18 to 21 with the sums of Eq. 9, `lambda_` on the Tversky part; Table 2,
        and Table 6 for `gamma=2`.
    """

    title = "Unified Focal++"
    function = staticmethod(unified_focal_loss)
    focal_range = checks.BELOW_ONE


class SymmetricUnifiedFocal(PerImageLoss):
    """Unified Focal loss, symmetric in the classes. See `unified_focal_loss`.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.SymmetricUnifiedFocal(delta=0.6))

    Reference:
        Eqs. 18 to 21 with factor and root on every class, which is not in the paper;
        defaults of its asymmetric form.
    """

    title = "Symmetric Unified Focal"
    function = staticmethod(partial(unified_focal_loss, symmetric=True))
    focal_range = checks.BELOW_ONE


class SymmetricUnifiedFocalPlusPlus(PerImageLoss):
    """Unified Focal++ loss, symmetric in the classes. See `unified_focal_loss`.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.SymmetricUnifiedFocalPlusPlus())

    Reference:
        Eqs. 18 to 21 with the sums of Eq. 9, factor and root on every class, which is
        not in the paper; defaults of its asymmetric form.
    """

    title = "Symmetric Unified Focal++"
    function = staticmethod(partial(unified_focal_loss, symmetric=True))
    focal_range = checks.BELOW_ONE
