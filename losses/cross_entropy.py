"""Losses of cross entropy: CE and Focal."""

from typing import Any

import keras
from keras import ops

from . import checks
from .base import PerImageLoss, Tensor, power, prepare, voxel_mean

__all__ = ["CrossEntropy", "Focal", "cross_entropy_loss", "focal_loss"]


def cross_entropy_loss(y_true: Tensor, y_pred: Tensor, axis: int = -1) -> Tensor:
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
    y_true, y_pred = prepare(y_true, y_pred, axis)
    return -ops.sum(voxel_mean(y_true * ops.log(y_pred), axis), axis=-1)


def focal_loss(
    y_true: Tensor,
    y_pred: Tensor,
    alpha: float = 0.5,
    focal_gamma: float = 2.0,
    axis: int = -1,
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
    y_true, y_pred = prepare(y_true, y_pred, axis)
    terms = y_true * ops.log(y_pred)
    if focal_gamma > 0:
        # 1 - p is at least 1e-7 after the clip: no power has an infinite slope.
        terms = power(1 - y_pred, focal_gamma) * terms
    return -alpha * ops.sum(voxel_mean(terms, axis), axis=-1)


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

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per image, (N,)."""
        return cross_entropy_loss(y_true, y_pred, self.axis)


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

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per image, (N,)."""
        return focal_loss(y_true, y_pred, self.alpha, self.focal_gamma, self.axis)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        own = {"alpha": self.alpha, "focal_gamma": self.focal_gamma}
        return {**super().get_config(), **own}
