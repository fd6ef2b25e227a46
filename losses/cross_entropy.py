# SPDX-License-Identifier: Apache-2.0
"""Losses of cross entropy: CE and Focal, and the parts of Combo and Unified Focal."""

from typing import Unpack

from keras import ops

from . import checks
from .base import (
    Options,
    PerImageLoss,
    Tensor,
    Voxels,
    mean,
    power,
    power_of_error,
    prepare,
    split_classes,
)

__all__ = [
    "CrossEntropy",
    "Focal",
    "asymmetric_focal_loss",
    "cross_entropy_loss",
    "focal_loss",
    "modified_cross_entropy_loss",
]


def cross_entropy_loss(
    y_true: Tensor,
    y_pred: Tensor,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Cross entropy of each image.

    Formula:

    ```python
    loss = -mean over voxels of sum over classes of y_true * log(y_pred)
    ```

    A voxel without any class adds 0 to the sum but counts among the voxels.

    Arguments: see the package's docstring. Values are from 0, (N,), in nats per voxel.

    Examples:
        >>> y = np.array([[[1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [0.75, 0.25]]])
        >>> round(float(cross_entropy_loss(y, p)[0]), 5)
        1.03972

    which is (log 2 + log 4) / 2.

    Reference:
        Eq. 1.
    """
    return cross_entropy_of(prepare(y_true, y_pred, weight, **options))


def cross_entropy_of(voxels: Voxels) -> Tensor:
    """`cross_entropy_loss` from what `prepare` returns."""
    voxels = voxels.spread()
    return -ops.sum(voxels.mean(voxels.y_true * voxels.log_pred), axis=-1)


def focal_loss(
    y_true: Tensor,
    y_pred: Tensor,
    alpha: float = 0.5,
    focal_gamma: float = 2.0,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Focal loss of each image.

    Formula:

    ```python
    loss = -mean over voxels of
        sum over classes of alpha * (1 - y_pred) ** focal_gamma * y_true * log(y_pred)
    ```

    Hyperparameters:
        alpha: weight of every class, in [0, 1].
        focal_gamma: exponent, at least 0; the larger, the less an easy voxel weighs.

    Other arguments: see the package's docstring. Values are from 0, (N,).

    Examples:
        >>> y = np.array([[[1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [0.5, 0.5]]])
        >>> round(float(focal_loss(y, p)[0]), 5)
        0.08664

    which is 0.5 * 0.25 * log 2.

    Reference:
        Eq. 2, with one `alpha` for all classes as in Table 2. The paper says that it
        equals CE at exponent 1; it does at `focal_gamma=0` and `alpha=1`.
    """
    alpha = checks.FRACTION("alpha", alpha)
    focal_gamma = checks.NOT_NEGATIVE("focal_gamma", focal_gamma)
    voxels = prepare(y_true, y_pred, weight, **options).spread()
    terms = voxels.y_true * voxels.log_pred
    return -alpha * _total(voxels, focal_gamma, terms, voxels.y_true, voxels.y_pred)


def modified_cross_entropy_loss(
    y_true: Tensor,
    y_pred: Tensor,
    beta: float = 0.5,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Modified cross entropy of each image: every class against the rest.

    Formula:

    ```python
    loss = -mean over voxels and classes of
        beta * y_true * log(y_pred) + (1 - beta) * (1 - y_true) * log(1 - y_pred)
    ```

    With two classes and `beta=0.5` it is half the cross entropy. A voxel without any
    class is a negative of every class.

    Hyperparameters:
        beta: weight of the missed against the false positives, in [0, 1].

    Other arguments: see the package's docstring. Values are from 0, (N,).

    Examples:
        >>> y = np.array([[[1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [0.75, 0.25]]])
        >>> round(float(modified_cross_entropy_loss(y, p)[0]), 5)
        0.51986

    which is half of (log 2 + log 4) / 2.

    Reference:
        Eq. 14, with both terms inside the minus, which the paper's sign leaves out;
        mean over classes.
    """
    beta = checks.FRACTION("beta", beta)
    return modified_cross_entropy_of(prepare(y_true, y_pred, weight, **options), beta)


def modified_cross_entropy_of(voxels: Voxels, beta: float) -> Tensor:
    """`modified_cross_entropy_loss` from what `prepare` returns."""
    voxels = voxels.spread()
    positive = beta * voxels.y_true * voxels.log_pred
    negative = (1 - beta) * (1 - voxels.y_true) * voxels.log_rest
    return -mean(voxels.mean(positive + negative), axis=-1)


def asymmetric_focal_loss(
    y_true: Tensor,
    y_pred: Tensor,
    delta: float = 0.6,
    focal_gamma: float = 0.5,
    symmetric: bool = False,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Asymmetric Focal loss of each image: only easy background weighs less.

    Formula:

    ```python
    background = (1 - y_pred[0]) ** focal_gamma * y_true[0] * log(y_pred[0])
    foreground = sum over the other classes of y_true * log(y_pred)
    loss = -mean over voxels of (1 - delta) * background + delta * foreground
    ```

    Class 0 is background, all others are foreground.

    Hyperparameters:
        delta: weight of the foreground, in [0, 1]; background has the rest.
        focal_gamma: exponent, at least 0; the larger, the less easy background weighs.
        symmetric: whether foreground has the factor `(1 - y_pred) ** focal_gamma` too.

    Other arguments: see the package's docstring. Values are from 0, (N,).

    Examples:
        >>> y = np.array([[[1, 0], [0, 1]]])
        >>> p = np.array([[[0.75, 0.25], [0.5, 0.5]]])
        >>> round(float(asymmetric_focal_loss(y, p)[0]), 5)
        0.23671

    which is (0.4 * 0.5 * log(4/3) + 0.6 * log 2) / 2.

    Reference:
        Eq. 19, whose log is of the true class's probability. The released code knows
        two classes of a 2D image; the symmetric form is not in the paper.
    """
    delta = checks.FRACTION("delta", delta)
    focal_gamma = checks.NOT_NEGATIVE("focal_gamma", focal_gamma)
    voxels = prepare(y_true, y_pred, weight, **options)
    return asymmetric_focal_of(voxels, delta, focal_gamma, symmetric)


def asymmetric_focal_of(
    voxels: Voxels, delta: float, focal_gamma: float, symmetric: bool
) -> Tensor:
    """`asymmetric_focal_loss` from what `prepare` returns."""
    voxels = voxels.spread()
    terms = voxels.y_true * voxels.log_pred, voxels.y_true, voxels.y_pred
    exponent = focal_gamma if symmetric else 0.0
    if voxels.first > 0:
        return -delta * _total(voxels, exponent, *terms)
    pairs = [split_classes(each, voxels.axis) for each in terms]
    background = _total(voxels, focal_gamma, *(pair[0] for pair in pairs))
    foreground = _total(voxels, exponent, *(pair[1] for pair in pairs))
    return -(1 - delta) * background - delta * foreground


def _total(
    voxels: Voxels, focal_gamma: float, terms: Tensor, y_true: Tensor, y_pred: Tensor
) -> Tensor:
    """Sum over classes of the mean over voxels, (N,); easy voxels weigh less."""
    if focal_gamma != 0 and voxels.soft:
        terms = power_of_error(ops.abs(y_true - y_pred), focal_gamma) * terms
    elif focal_gamma != 0:
        # 1 - p is at least 1e-7 after the clip: no power has an infinite slope.
        terms = power(1 - y_pred, focal_gamma) * terms
    return ops.sum(voxels.mean(terms), axis=-1)


class CrossEntropy(PerImageLoss):
    """Cross entropy, `cross_entropy_loss`: Eq. 1."""

    title = "CE"
    function = staticmethod(cross_entropy_loss)


class Focal(PerImageLoss):
    """Focal loss, `focal_loss`: Eq. 2; Table 2."""

    title = "Focal"
    function = staticmethod(focal_loss)
