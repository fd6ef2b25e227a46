"""Losses of cross entropy: CE and Focal, and the parts of Combo and Unified Focal."""

from typing import Any

import keras
from keras import ops

from . import checks
from .base import (
    PerImageLoss,
    Tensor,
    mean,
    power,
    prepare,
    split_classes,
    voxel_mean,
)

__all__ = [
    "CrossEntropy",
    "Focal",
    "asymmetric_focal_loss",
    "asymmetric_focal_of",
    "cross_entropy_loss",
    "focal_loss",
    "modified_cross_entropy_loss",
    "modified_cross_entropy_of",
]


def cross_entropy_loss(
    y_true: Tensor, y_pred: Tensor, axis: int = -1, weight: Tensor | None = None
) -> Tensor:
    """Cross entropy of each image.

    Formula:

    ```python
    loss = -mean over voxels of sum over classes of y_true * log(y_pred)
    ```

    A voxel without any class adds 0 to the sum but counts among the voxels.

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1]; clipped to [1e-7, 1 - 1e-7].
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

    Returns:
        Values from 0, (N,), in nats per voxel.

    Raises:
        ValueError: shapes that do not fit; class indices as labels.

    Example:
    >>> y = np.array([[[1, 0], [0, 1]]])
    >>> p = np.array([[[0.5, 0.5], [0.75, 0.25]]])
    >>> cross_entropy_loss(y, p)  # (log 2 + log 4) / 2
    [1.0397208]

    Reference:
        Eq. 1.
    """
    y_true, y_pred, weight = prepare(y_true, y_pred, axis, weight)
    return -ops.sum(voxel_mean(y_true * ops.log(y_pred), axis, weight), axis=-1)


def focal_loss(
    y_true: Tensor,
    y_pred: Tensor,
    alpha: float = 0.5,
    focal_gamma: float = 2.0,
    axis: int = -1,
    weight: Tensor | None = None,
) -> Tensor:
    """Focal loss of each image.

    Formula:

    ```python
    loss = -mean over voxels of
        sum over classes of alpha * (1 - y_pred) ** focal_gamma * y_true * log(y_pred)
    ```

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1]; clipped to [1e-7, 1 - 1e-7].
        alpha: weight of every class, in [0, 1].
        focal_gamma: exponent, at least 0; the larger, the less an easy voxel weighs.
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

    Returns:
        Values from 0, (N,).

    Raises:
        ValueError: `alpha` outside [0, 1]; `focal_gamma` below 0; shapes that do not
            fit; class indices as labels.

    Example:
    >>> y = np.array([[[1, 0], [0, 1]]])
    >>> p = np.array([[[0.5, 0.5], [0.5, 0.5]]])
    >>> focal_loss(y, p)  # 0.5 * 0.25 * log 2
    [0.0866434]

    Reference:
        Eq. 2, with one `alpha` for all classes as in Table 2. The paper says that it
        equals CE at exponent 1; it does at `focal_gamma=0` and `alpha=1`.
    """
    alpha = checks.fraction("alpha", alpha)
    focal_gamma = checks.not_negative("focal_gamma", focal_gamma)
    y_true, y_pred, weight = prepare(y_true, y_pred, axis, weight)
    terms = _focal_terms(y_true, y_pred, focal_gamma)
    return -alpha * ops.sum(voxel_mean(terms, axis, weight), axis=-1)


def modified_cross_entropy_loss(
    y_true: Tensor,
    y_pred: Tensor,
    beta: float = 0.5,
    axis: int = -1,
    weight: Tensor | None = None,
) -> Tensor:
    """Modified cross entropy of each image: every class against the rest.

    Formula:

    ```python
    loss = -mean over voxels and classes of
        beta * y_true * log(y_pred) + (1 - beta) * (1 - y_true) * log(1 - y_pred)
    ```

    With two classes and `beta=0.5` it is half the cross entropy. A voxel without any
    class is a negative of every class.

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1]; clipped to [1e-7, 1 - 1e-7].
        beta: weight of the missed against the false positives, in [0, 1].
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

    Returns:
        Values from 0, (N,).

    Raises:
        ValueError: `beta` outside [0, 1]; shapes that do not fit; class indices as
            labels.

    Example:
    >>> y = np.array([[[1, 0], [0, 1]]])
    >>> p = np.array([[[0.5, 0.5], [0.75, 0.25]]])
    >>> modified_cross_entropy_loss(y, p)  # half of (log 2 + log 4) / 2
    [0.5198604]

    Reference:
        Eq. 14, with both terms inside the minus, which the paper's sign leaves out;
        mean over classes.
    """
    beta = checks.fraction("beta", beta)
    y_true, y_pred, weight = prepare(y_true, y_pred, axis, weight)
    return modified_cross_entropy_of(y_true, y_pred, beta, axis, weight)


def modified_cross_entropy_of(
    y_true: Tensor, y_pred: Tensor, beta: float, axis: int, weight: Tensor | None
) -> Tensor:
    """`modified_cross_entropy_loss` from what `prepare` returns."""
    positive = beta * y_true * ops.log(y_pred)
    # log1p keeps the digits of a small p, of which 1 - p keeps few.
    negative = (1 - beta) * (1 - y_true) * ops.log1p(-y_pred)
    return -mean(voxel_mean(positive + negative, axis, weight), axis=-1)


def asymmetric_focal_loss(
    y_true: Tensor,
    y_pred: Tensor,
    delta: float = 0.6,
    focal_gamma: float = 0.5,
    symmetric: bool = False,
    axis: int = -1,
    weight: Tensor | None = None,
) -> Tensor:
    """Asymmetric Focal loss of each image: only easy background weighs less.

    Formula:

    ```python
    background = (1 - y_pred[0]) ** focal_gamma * y_true[0] * log(y_pred[0])
    foreground = sum over the other classes of y_true * log(y_pred)
    loss = -mean over voxels of (1 - delta) * background + delta * foreground
    ```

    Class 0 is background, all others are foreground.

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1]; clipped to [1e-7, 1 - 1e-7].
        delta: weight of the foreground, in [0, 1]; background has the rest.
        focal_gamma: exponent, at least 0; the larger, the less easy background weighs.
        symmetric: whether foreground has the factor `(1 - y_pred) ** focal_gamma` too.
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

    Returns:
        Values from 0, (N,).

    Raises:
        ValueError: `delta` outside [0, 1]; `focal_gamma` below 0; shapes that do not
            fit; class indices as labels.

    Example:
    >>> y = np.array([[[1, 0], [0, 1]]])
    >>> p = np.array([[[0.75, 0.25], [0.5, 0.5]]])
    >>> asymmetric_focal_loss(y, p)  # (0.4 * 0.5 * log(4/3) + 0.6 * log 2) / 2
    [0.2367124]

    Reference:
        Eq. 19, whose log is of the true class's probability. The released code knows
        two classes of a 2D image; the symmetric form is not in the paper.
    """
    delta = checks.fraction("delta", delta)
    focal_gamma = checks.not_negative("focal_gamma", focal_gamma)
    y_true, y_pred, weight = prepare(y_true, y_pred, axis, weight)
    own = (delta, focal_gamma, symmetric)
    return asymmetric_focal_of(y_true, y_pred, *own, axis, weight)


def asymmetric_focal_of(
    y_true: Tensor,
    y_pred: Tensor,
    delta: float,
    focal_gamma: float,
    symmetric: bool,
    axis: int,
    weight: Tensor | None,
) -> Tensor:
    """`asymmetric_focal_loss` from what `prepare` returns."""
    labels, chances = split_classes(y_true, axis), split_classes(y_pred, axis)
    exponents = (focal_gamma, focal_gamma if symmetric else 0.0)
    background, foreground = (
        ops.sum(voxel_mean(_focal_terms(*each), axis, weight), axis=-1)
        for each in zip(labels, chances, exponents, strict=True)
    )
    return -(1 - delta) * background - delta * foreground


def _focal_terms(y_true: Tensor, y_pred: Tensor, focal_gamma: float) -> Tensor:
    terms = y_true * ops.log(y_pred)
    if focal_gamma > 0:
        # 1 - p is at least 1e-7 after the clip: no power has an infinite slope.
        terms = power(1 - y_pred, focal_gamma) * terms
    return terms


@keras.saving.register_keras_serializable(package="dscpp")
class CrossEntropy(PerImageLoss):
    """Cross entropy. See `cross_entropy_loss`.

    Formula:

    ```python
    loss = -mean over voxels of sum over classes of y_true * log(y_pred)
    ```

    Args:
        axis: axis of the classes.
        name: name of the loss in logs.
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic, float32 at least.

    Raises:
        ValueError: when called, shapes that do not fit.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.CrossEntropy())

    Reference:
        Eq. 1.
    """

    def __init__(
        self,
        axis: int = -1,
        name: str = "ce",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype, axis=axis)

    def values(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        """One value per image, (N,)."""
        return cross_entropy_loss(y_true, y_pred, self.axis, weight)


@keras.saving.register_keras_serializable(package="dscpp")
class Focal(PerImageLoss):
    """Focal loss: cross entropy in which easy voxels weigh less. See `focal_loss`.

    Formula:

    ```python
    loss = -mean over voxels of
        sum over classes of alpha * (1 - y_pred) ** focal_gamma * y_true * log(y_pred)
    ```

    Args:
        alpha: weight of every class, in [0, 1].
        focal_gamma: exponent, at least 0.
        axis: axis of the classes.
        name: name of the loss in logs.
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic, float32 at least.

    Raises:
        ValueError: `alpha` outside [0, 1]; `focal_gamma` below 0; when called, shapes
            that do not fit.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.Focal(focal_gamma=2))

    Reference:
        Eq. 2 and Table 2.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        focal_gamma: float = 2.0,
        axis: int = -1,
        name: str = "focal",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype, axis=axis)
        self.alpha = checks.fraction("alpha", alpha)
        self.focal_gamma = checks.not_negative("focal_gamma", focal_gamma)

    def values(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        """One value per image, (N,)."""
        return focal_loss(
            y_true, y_pred, self.alpha, self.focal_gamma, self.axis, weight
        )

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        own = {"alpha": self.alpha, "focal_gamma": self.focal_gamma}
        return {**super().get_config(), **own}
