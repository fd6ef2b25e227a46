"""Losses of overlap: the soft counts with the focal power, DSC and DSC++.

Everything here rests on three numbers per image and class, sums over all voxels of a
label y in [0, 1] and a probability p in [1e-7, 1 - 1e-7]::

    TP = sum(y p)     FN = sum((y (1 - p))^g)     FP = sum(((1 - y) p)^g)

The exponent g is what the paper adds (Eq. 9): with g = 1 the loss is the plain one,
with g > 1 a confident error weighs more than several hesitant ones.
"""

from typing import Any

import keras
from keras import ops

from . import checks
from .base import PerImageLoss, Tensor, mean, power, prepare, voxel_sum

__all__ = ["Dice", "DicePlusPlus", "dice_loss", "soft_counts"]

# Below this an error counts as 0 where g < 1; see _focal_power.
_ERROR_FLOOR = 1e-30


def soft_counts(
    y_true: Tensor, y_pred: Tensor, gamma: float = 1.0, axis: int = -1
) -> tuple[Tensor, Tensor, Tensor]:
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
    says: then FN and FP are above 0 even at `y_pred == y_true`.

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1]; clipped to [1e-7, 1 - 1e-7].
        gamma: the ++ exponent, above 0.
        axis: axis of the classes.

    Returns:
        `(tp, fn, fp)`, each (N, C), float32 or float64.

    Raises:
        ValueError: `gamma` not above 0; shapes that do not fit; class indices as
            labels.

    Example:
    >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])  # one image, 3 voxels, 2 classes
    >>> p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]])
    >>> tp, fn, fp = soft_counts(y, p, gamma=2)
    >>> tp  # [[1.5, 0.5]]; fn: [[0.25, 0.25]]; fp: [[0.25, 0.25]]

    Reference:
        Eq. 9: the sums in it.
    """
    gamma = checks.positive("gamma", gamma)
    y_true, y_pred = prepare(y_true, y_pred, axis)
    missed = y_true * (1 - y_pred)
    false = (1 - y_true) * y_pred
    return (
        voxel_sum(y_true * y_pred, axis),
        voxel_sum(_focal_power(missed, gamma), axis),
        voxel_sum(_focal_power(false, gamma), axis),
    )


def dice_loss(
    y_true: Tensor,
    y_pred: Tensor,
    gamma: float = 1.0,
    epsilon: float = 1e-7,
    axis: int = -1,
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

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1].
        gamma: the ++ exponent, above 0; 1 is the plain DSC loss.
        epsilon: above 0; see above.
        axis: axis of the classes.

    Returns:
        Values in [0, 1], (N,).

    Raises:
        ValueError: `gamma` or `epsilon` not above 0; shapes that do not fit; class
            indices as labels.

    Example:
    >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
    >>> p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]])
    >>> dice_loss(y, p)  # (1/4 + 1/2) / 2
    [0.375]
    >>> dice_loss(y, p, gamma=2)  # (0.5/3.5 + 0.5/1.5) / 2
    [0.23809524]

    Reference:
        Eqs. 4, 5 and 8 (DSC), Eq. 9 (DSC++), which leave out `epsilon`. The mean over
        classes is theirs and the released code's.
    """
    epsilon = checks.positive("epsilon", epsilon)
    tp, fn, fp = soft_counts(y_true, y_pred, gamma, axis)
    errors = fn + fp
    return mean(errors / (2 * tp + errors + epsilon), axis=-1)


class _Overlap(PerImageLoss):
    """What DSC and DSC++ share."""

    def __init__(
        self,
        gamma: float,
        epsilon: float,
        axis: int,
        name: str,
        reduction: str | None,
        dtype: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype, axis=axis)
        self.gamma = checks.positive("gamma", gamma)
        self.epsilon = checks.positive("epsilon", epsilon)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per image, (N,)."""
        return dice_loss(y_true, y_pred, self.gamma, self.epsilon, self.axis)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="dscpp")
class Dice(_Overlap):
    """DSC loss: 1 minus the Dice similarity coefficient. See `dice_loss`.

    Formula:

    ```python
    loss = mean over classes of (fn + fp) / (2 * tp + fn + fp + epsilon)
    ```

    Args:
        epsilon: above 0; decides the value for classes absent from an image.
        axis: axis of the classes.
        name: name of the loss in logs.
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic, float32 at least.

    Raises:
        ValueError: `epsilon` not above 0; when called, shapes that do not fit.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.Dice())

    Reference:
        Eqs. 4, 5 and 8; mean over classes.
    """

    def __init__(
        self,
        epsilon: float = 1e-7,
        axis: int = -1,
        name: str = "dsc",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(1.0, epsilon, axis, name, reduction, dtype)


@keras.saving.register_keras_serializable(package="dscpp")
class DicePlusPlus(_Overlap):
    """DSC++ loss: the DSC loss with the power `gamma` on its errors. See `dice_loss`.

    Formula:

    ```python
    fn = sum((y_true * (1 - y_pred)) ** gamma)
    fp = sum(((1 - y_true) * y_pred) ** gamma)
    loss = mean over classes of (fn + fp) / (2 * tp + fn + fp + epsilon)
    ```

    Args:
        gamma: the ++ exponent, above 0; 1 gives the DSC loss.
        epsilon: above 0; decides the value for classes absent from an image.
        axis: axis of the classes.
        name: name of the loss in logs.
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic, float32 at least.

    Raises:
        ValueError: `gamma` or `epsilon` not above 0; when called, shapes that do not
            fit.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.DicePlusPlus(gamma=2))

    Reference:
        Eq. 9; mean over classes. `gamma=2` is the paper's choice (section 3.1).
    """

    def __init__(
        self,
        gamma: float = 2.0,
        epsilon: float = 1e-7,
        axis: int = -1,
        name: str = "dscpp",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(gamma, epsilon, axis, name, reduction, dtype)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        return {**super().get_config(), "gamma": self.gamma}


def _focal_power(errors: Tensor, gamma: float) -> Tensor:
    """`errors ** gamma` with a finite gradient at 0, where most of the errors lie."""
    if gamma >= 1:
        return power(errors, gamma)
    # The slope of x^g at 0 is infinite for g < 1, and infinity times the 0 of the
    # label is NaN. So the power never sees a 0, and a 0 gets gradient 0. Tensors in
    # the place of the numbers 1 and 0, since PyTorch would go through float32.
    above = errors > _ERROR_FLOOR
    powers = power(ops.where(above, errors, ops.ones_like(errors)), gamma)
    return ops.where(above, powers, ops.zeros_like(errors))
