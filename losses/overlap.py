# SPDX-License-Identifier: Apache-2.0
"""Losses of overlap: the soft counts with the focal power, DSC, Tversky, Focal Tversky.

Everything here rests on three numbers per image and class, sums over all voxels of a
label y in [0, 1] and a probability p in [1e-7, 1 - 1e-7]::

    TP = sum(y p)     FN = sum((y (1 - p))^g)     FP = sum(((1 - y) p)^g)

The exponent g is what the paper adds (Eq. 9): with g = 1 the loss is the plain one,
with g > 1 a confident error weighs more than several hesitant ones. Each loss is the
mean over classes of a ratio of errors to everything, never 1 minus a ratio of hits.
"""

from typing import Unpack

from keras import ops

from . import checks
from .base import (
    Options,
    PerImageLoss,
    Tensor,
    Voxels,
    mean,
    power_of_error,
    prepare,
    split_classes,
)

__all__ = [
    "Dice",
    "DicePlusPlus",
    "FocalTversky",
    "FocalTverskyPlusPlus",
    "Tversky",
    "TverskyPlusPlus",
    "asymmetric_focal_tversky_loss",
    "dice_loss",
    "focal_tversky_loss",
    "soft_counts",
    "tversky_loss",
]

_Counts = tuple[Tensor, Tensor, Tensor]


def soft_counts(
    y_true: Tensor,
    y_pred: Tensor,
    gamma: float = 1.0,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> _Counts:
    """Count true positives, false negatives and false positives, softly.

    Formula:

    ```python
    tp = sum(y_true * y_pred)
    fn = sum((y_true * (1 - y_pred)) ** gamma)
    fp = sum(((1 - y_true) * y_pred) ** gamma)
    ```

    The sums run over all voxels of one image and one class. A voxel without any class
    (all zeros in `y_true`, such as augmentation leaves where it draws from outside the
    image) counts as false positive in every class. Soft labels are taken as the formula
    says: then FN and FP are above 0 even at `y_pred == y_true`; with `soft_labels=True`
    tp is the sum of `min(y_true, y_pred)`, and what is summed in fn and fp the power of
    what `y_pred` lacks to `y_true`, and of what it exceeds it by.

    Arguments: see the package's docstring.

    Returns:
        `(tp, fn, fp)`, each (N, C), float32 or float64; (N, C - 1) without background.

    Examples:
        >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])  # one image, 3 voxels, 2 classes
        >>> p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]])
        >>> tp, fn, fp = soft_counts(y, p, gamma=2)
        >>> [[round(float(n), 4) for n in count[0]] for count in (tp, fn, fp)]
        [[1.5, 0.5], [0.25, 0.25], [0.25, 0.25]]

    Reference:
        Eq. 9: the sums in it.
    """
    gamma = checks.POSITIVE("gamma", gamma)
    return counts_of(prepare(y_true, y_pred, weight, **options), gamma)


def counts_of(voxels: Voxels, gamma: float) -> _Counts:
    """`soft_counts` from what `prepare` returns."""
    # y - y p and p - y p are y (1 - p) and (1 - y) p, exactly so for a label of 0 or 1,
    # with two passes over the voxels less.
    # min(y, p), of soft labels that are to be reached, leaves (y - p)+ and (p - y)+.
    both = _lesser if voxels.soft else ops.multiply
    hits = both(voxels.y_true, voxels.y_pred)
    tp = voxels.sum(hits)
    fn = voxels.sum(power_of_error(voxels.y_true - hits, gamma))
    fp = voxels.sum(power_of_error(voxels.y_pred - hits, gamma))
    if not voxels.is_pair:
        return tp, fn, fp
    # What one class misses is what the other takes falsely.
    rest = voxels.sum(both(1 - voxels.y_true, 1 - voxels.y_pred))
    pairs = ((rest, tp), (fp, fn), (fn, fp))
    tp, fn, fp = (ops.concatenate(pair, axis=-1) for pair in pairs)
    return tp, fn, fp


def _lesser(a: Tensor, b: Tensor) -> Tensor:
    """Not `ops.minimum`, which takes float64 through float32 on PyTorch."""
    return ops.where(a < b, a, b)


def dice_loss(
    y_true: Tensor,
    y_pred: Tensor,
    gamma: float = 1.0,
    epsilon: float = 1e-7,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """DSC loss (`gamma=1`) or DSC++ loss of each image.

    Formula:

    ```python
    loss = mean over classes of (fn + fp) / (2 * tp + fn + fp + epsilon)
    ```

    with `tp, fn, fp` from `soft_counts`. This equals the paper's
    `1 - (2 tp + epsilon) / (2 tp + fn + fp + epsilon)`, but keeps its digits where the
    loss is small: 1 minus a ratio is 0 in float32 where the truth is 5e-12.

    For a class that is absent from an image tp and fn are 0, so its value is
    `fp / (fp + epsilon)`: `epsilon` is the fp at which an absent class costs 0.5. As p
    is clipped, fp is at least 1e-7 per voxel for `gamma=1`: an absent class always
    costs nearly 1 there, whatever is predicted.

    Arguments: see the package's docstring. Values are in [0, 1], (N,).

    Examples:
        >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]])
        >>> round(float(dice_loss(y, p)[0]), 5)
        0.375

    which is (1/4 + 1/2) / 2.

    >>> round(float(dice_loss(y, p, gamma=2)[0]), 5)
    0.2381

    which is (0.5/3.5 + 0.5/1.5) / 2.

    Reference:
        Eqs. 4, 5 and 8 (DSC), Eq. 9 (DSC++), which leave out `epsilon`. The mean over
        classes is theirs and the released code's.
    """
    epsilon = checks.POSITIVE("epsilon", epsilon)
    return dice_of(soft_counts(y_true, y_pred, gamma, weight, **options), epsilon)


def dice_of(counts: _Counts, epsilon: float) -> Tensor:
    """`dice_loss` from what `soft_counts` returns."""
    tp, fn, fp = counts
    errors = fn + fp
    return mean(errors / (2 * tp + errors + epsilon), axis=-1)


def tversky_loss(
    y_true: Tensor,
    y_pred: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    epsilon: float = 1e-7,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Tversky loss (`gamma=1`) or Tversky++ loss of each image.

    Formula:

    ```python
    errors = alpha * fp + beta * fn
    loss = mean over classes of errors / (tp + errors + epsilon)
    ```

    with `tp, fn, fp` from `soft_counts`. This equals the paper's `1 - TI` with
    `TI = (tp + epsilon) / (tp + errors + epsilon)`. At `alpha=beta=0.5` it is
    `dice_loss` with twice the `epsilon`. For a class that is absent from an image it is
    `alpha * fp / (alpha * fp + epsilon)`.

    Hyperparameters:
        alpha: weight of the false positives, in [0, 1].
        beta: weight of the false negatives, in [0, 1].

    Other arguments: see the package's docstring. Values are in [0, 1], (N,).

    Examples:
        >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [1, 0], [0.75, 0.25]]])
        >>> round(float(tversky_loss(y, p)[0]), 5)
        0.50342

    which is (0.575/2.075 + 0.675/0.925) / 2.

    Reference:
        Eqs. 15 and 16, with the mean over classes of the released code; Table 2.
    """
    hyperparameters = checks.hyperparameters(alpha=alpha, beta=beta, epsilon=epsilon)
    counts = soft_counts(y_true, y_pred, gamma, weight, **options)
    return mean(_tversky_errors(counts, **hyperparameters), axis=-1)


def focal_tversky_loss(
    y_true: Tensor,
    y_pred: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    focal_gamma: float = 4 / 3,
    gamma: float = 1.0,
    epsilon: float = 1e-7,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Focal Tversky loss (`gamma=1`) or Focal Tversky++ loss of each image.

    Formula:

    ```python
    errors = alpha * fp + beta * fn
    loss = mean over classes of
        (errors / (tp + errors + epsilon)) ** (1 / focal_gamma)
    ```

    with `tp, fn, fp` from `soft_counts`. Where the ratio is below 1e-30 the value and
    its gradient are 0, since a root has an infinite slope at 0.

    Hyperparameters:
        alpha: weight of the false positives, in [0, 1].
        beta: weight of the false negatives, in [0, 1].
        focal_gamma: above 0; the ratio of a class has the exponent `1 / focal_gamma`,
            so above 1 the classes with a small ratio weigh more.

    Other arguments: see the package's docstring. Values are in [0, 1], (N,).

    Examples:
        >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [1, 0], [0.75, 0.25]]])
        >>> round(float(focal_tversky_loss(y, p)[0]), 5)
        0.58573

    which is ((0.575/2.075)**0.75 + (0.675/0.925)**0.75) / 2.

    Reference:
        Eq. 17, with the mean over classes of the released code. The paper's text says
        that below 1 it focuses on hard examples; its Table 2 has 4/3, and the code the
        power 0.75.
    """
    hyperparameters = checks.hyperparameters(alpha=alpha, beta=beta, epsilon=epsilon)
    focal_gamma = checks.POSITIVE("focal_gamma", focal_gamma)
    counts = soft_counts(y_true, y_pred, gamma, weight, **options)
    errors = _tversky_errors(counts, **hyperparameters)
    return mean(power_of_error(errors, 1 / focal_gamma), axis=-1)


def asymmetric_focal_tversky_loss(
    y_true: Tensor,
    y_pred: Tensor,
    delta: float = 0.6,
    focal_gamma: float = 0.5,
    gamma: float = 1.0,
    symmetric: bool = False,
    epsilon: float = 1e-7,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Asymmetric Focal Tversky loss of each image: a root for the foreground only.

    Formula:

    ```python
    errors = (1 - delta) * fp + delta * fn
    ratio = errors / (tp + errors + epsilon)
    loss = mean over classes of
        [ratio[0], ratio[1] ** (1 - focal_gamma), ratio[2] ** (1 - focal_gamma), ...]
    ```

    with `tp, fn, fp` from `soft_counts`. Class 0 is background, all others are
    foreground. Where a ratio is below 1e-30 its root and the gradient are 0.

    Hyperparameters:
        delta: weight of the false negatives, in [0, 1]; false positives have the rest.
        focal_gamma: in [0, 1); the larger, the more a class with a small ratio weighs.
        symmetric: whether background has the exponent `1 - focal_gamma` too.

    Other arguments: see the package's docstring. Values are in [0, 1], (N,).

    Examples:
        >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [1, 0], [0.75, 0.25]]])
        >>> round(float(asymmetric_focal_tversky_loss(y, p)[0]), 5)
        0.56778

    which is (0.6/2.1 + (0.65/0.9)**0.5) / 2.

    Reference:
        Eqs. 20 and 21, with the mean over classes of the released code, which takes two
        classes of a 2D image alone; the symmetric form is not in the paper.
    """
    focal_gamma = checks.BELOW_ONE("focal_gamma", focal_gamma)
    others = {"delta": delta, "gamma": gamma, "epsilon": epsilon}
    delta, gamma, epsilon = checks.hyperparameters(**others).values()
    voxels = prepare(y_true, y_pred, weight, **options)
    hyperparameters = (delta, focal_gamma, symmetric, gamma, epsilon)
    return asymmetric_focal_tversky_of(voxels, *hyperparameters)


def asymmetric_focal_tversky_of(
    voxels: Voxels,
    delta: float,
    focal_gamma: float,
    symmetric: bool,
    gamma: float,
    epsilon: float,
) -> Tensor:
    """`asymmetric_focal_tversky_loss` from what `prepare` returns."""
    errors = _tversky_errors(counts_of(voxels, gamma), 1 - delta, delta, epsilon)
    if symmetric or voxels.first > 0:
        return mean(power_of_error(errors, 1 - focal_gamma), axis=-1)
    background, foreground = split_classes(errors, axis=1)
    rooted = power_of_error(foreground, 1 - focal_gamma)
    return mean(ops.concatenate([background, rooted], axis=-1), axis=-1)


def _tversky_errors(
    counts: _Counts, alpha: float, beta: float, epsilon: float
) -> Tensor:
    """1 minus the Tversky index of each class, (N, C)."""
    tp, fn, fp = counts
    errors = alpha * fp + beta * fn
    return errors / (tp + errors + epsilon)


class Dice(PerImageLoss):
    """DSC loss, `dice_loss`: Eqs. 4, 5 and 8, mean over classes."""

    title = "DSC"
    function = staticmethod(dice_loss)


class DicePlusPlus(PerImageLoss):
    """DSC++ loss, `dice_loss`: Eq. 9, mean over classes; `gamma=2` of Table 2."""

    title = "DSC++"
    function = staticmethod(dice_loss)


class Tversky(PerImageLoss):
    """Tversky loss, `tversky_loss`: Eqs. 15 and 16, mean over classes; Table 2."""

    title = "Tversky"
    function = staticmethod(tversky_loss)


class TverskyPlusPlus(PerImageLoss):
    """Tversky++ loss, with the sums of Eq. 9; Table 2, `gamma` of Table 6."""

    title = "Tversky++"
    function = staticmethod(tversky_loss)


class FocalTversky(PerImageLoss):
    """Focal Tversky loss, `focal_tversky_loss`: Eq. 17, mean over classes; Table 2."""

    title = "Focal Tversky"
    function = staticmethod(focal_tversky_loss)
    focal_range = checks.POSITIVE


class FocalTverskyPlusPlus(PerImageLoss):
    """Focal Tversky++ loss, with the sums of Eq. 9; Table 2, `gamma` of Table 6."""

    title = "Focal Tversky++"
    function = staticmethod(focal_tversky_loss)
    focal_range = checks.POSITIVE
