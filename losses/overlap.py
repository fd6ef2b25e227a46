"""Losses of overlap: the soft counts with the focal power, DSC, Tversky, Focal Tversky.

Everything here rests on three numbers per image and class, sums over all voxels of a
label y in [0, 1] and a probability p in [1e-7, 1 - 1e-7]::

    TP = sum(y p)     FN = sum((y (1 - p))^g)     FP = sum(((1 - y) p)^g)

The exponent g is what the paper adds (Eq. 9): with g = 1 the loss is the plain one,
with g > 1 a confident error weighs more than several hesitant ones. Each loss is the
mean over classes of a ratio of errors to everything, never 1 minus a ratio of hits.
"""

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
    voxel_sum,
)

__all__ = [
    "Dice",
    "DicePlusPlus",
    "FocalTversky",
    "FocalTverskyPlusPlus",
    "Tversky",
    "TverskyPlusPlus",
    "asymmetric_focal_tversky_loss",
    "asymmetric_focal_tversky_of",
    "counts_of",
    "dice_loss",
    "dice_of",
    "focal_tversky_loss",
    "soft_counts",
    "tversky_loss",
]

# Below this an error counts as 0 where the exponent is below 1; see _focal_power.
_ERROR_FLOOR = 1e-30

_Counts = tuple[Tensor, Tensor, Tensor]


def soft_counts(
    y_true: Tensor,
    y_pred: Tensor,
    gamma: float = 1.0,
    axis: int = -1,
    weight: Tensor | None = None,
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
    says: then FN and FP are above 0 even at `y_pred == y_true`.

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1]; clipped to [1e-7, 1 - 1e-7].
        gamma: the ++ exponent, above 0.
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

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
    y_true, y_pred, weight = prepare(y_true, y_pred, axis, weight)
    return counts_of(y_true, y_pred, gamma, axis, weight)


def counts_of(
    y_true: Tensor, y_pred: Tensor, gamma: float, axis: int, weight: Tensor | None
) -> _Counts:
    """`soft_counts` from what `prepare` returns."""
    missed = y_true * (1 - y_pred)
    false = (1 - y_true) * y_pred
    return (
        voxel_sum(y_true * y_pred, axis, weight),
        voxel_sum(_focal_power(missed, gamma), axis, weight),
        voxel_sum(_focal_power(false, gamma), axis, weight),
    )


def dice_loss(
    y_true: Tensor,
    y_pred: Tensor,
    gamma: float = 1.0,
    epsilon: float = 1e-7,
    axis: int = -1,
    weight: Tensor | None = None,
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
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

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
    return dice_of(soft_counts(y_true, y_pred, gamma, axis, weight), epsilon)


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
    axis: int = -1,
    weight: Tensor | None = None,
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

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1].
        alpha: weight of the false positives, in [0, 1].
        beta: weight of the false negatives, in [0, 1].
        gamma: the ++ exponent, above 0; 1 is the plain Tversky loss.
        epsilon: above 0; decides the value for classes absent from an image.
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

    Returns:
        Values in [0, 1], (N,).

    Raises:
        ValueError: `alpha` or `beta` outside [0, 1]; `gamma` or `epsilon` not above 0;
            shapes that do not fit; class indices as labels.

    Example:
    >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
    >>> p = np.array([[[0.5, 0.5], [1, 0], [0.75, 0.25]]])
    >>> tversky_loss(y, p)  # (0.575/2.075 + 0.675/0.925) / 2
    [0.5034191]

    Reference:
        Eqs. 15 and 16, with the mean over classes of the released code; Table 2.
    """
    alpha, beta = checks.fraction("alpha", alpha), checks.fraction("beta", beta)
    epsilon = checks.positive("epsilon", epsilon)
    counts = soft_counts(y_true, y_pred, gamma, axis, weight)
    return mean(_tversky_errors(counts, alpha, beta, epsilon), axis=-1)


def focal_tversky_loss(
    y_true: Tensor,
    y_pred: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    focal_gamma: float = 4 / 3,
    gamma: float = 1.0,
    epsilon: float = 1e-7,
    axis: int = -1,
    weight: Tensor | None = None,
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

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1].
        alpha: weight of the false positives, in [0, 1].
        beta: weight of the false negatives, in [0, 1].
        focal_gamma: above 0; the ratio of a class has the exponent `1 / focal_gamma`,
            so above 1 the classes with a small ratio weigh more.
        gamma: the ++ exponent, above 0; 1 is the plain Focal Tversky loss.
        epsilon: above 0; decides the value for classes absent from an image.
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

    Returns:
        Values in [0, 1], (N,).

    Raises:
        ValueError: `alpha` or `beta` outside [0, 1]; `focal_gamma`, `gamma` or
            `epsilon` not above 0; shapes that do not fit; class indices as labels.

    Example:
    >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
    >>> p = np.array([[[0.5, 0.5], [1, 0], [0.75, 0.25]]])
    >>> focal_tversky_loss(y, p)  # ((0.575/2.075)**0.75 + (0.675/0.925)**0.75) / 2
    [0.5857342]

    Reference:
        Eq. 17, with the mean over classes of the released code. The paper's text says
        that below 1 it focuses on hard examples; its Table 2 has 4/3, and the code the
        power 0.75.
    """
    alpha, beta = checks.fraction("alpha", alpha), checks.fraction("beta", beta)
    focal_gamma = checks.positive("focal_gamma", focal_gamma)
    epsilon = checks.positive("epsilon", epsilon)
    counts = soft_counts(y_true, y_pred, gamma, axis, weight)
    errors = _tversky_errors(counts, alpha, beta, epsilon)
    return mean(_focal_power(errors, 1 / focal_gamma), axis=-1)


def asymmetric_focal_tversky_loss(
    y_true: Tensor,
    y_pred: Tensor,
    delta: float = 0.6,
    focal_gamma: float = 0.5,
    gamma: float = 1.0,
    symmetric: bool = False,
    epsilon: float = 1e-7,
    axis: int = -1,
    weight: Tensor | None = None,
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

    Args:
        y_true: one-hot labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1].
        delta: weight of the false negatives, in [0, 1]; false positives have the rest.
        focal_gamma: in [0, 1); the larger, the more a class with a small ratio weighs.
        gamma: the ++ exponent, above 0.
        symmetric: whether background has the exponent `1 - focal_gamma` too.
        epsilon: above 0; decides the value for classes absent from an image.
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

    Returns:
        Values in [0, 1], (N,).

    Raises:
        ValueError: `delta` outside [0, 1]; `focal_gamma` outside [0, 1); `gamma` or
            `epsilon` not above 0; shapes that do not fit; class indices as labels.

    Example:
    >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
    >>> p = np.array([[[0.5, 0.5], [1, 0], [0.75, 0.25]]])
    >>> asymmetric_focal_tversky_loss(y, p)  # (0.6/2.1 + (0.65/0.9)**0.5) / 2
    [0.5677754]

    Reference:
        Eqs. 20 and 21, with the mean over classes of the released code, which knows two
        classes of a 2D image and is NaN where `TI` is 1; the symmetric form is not in
        the paper.
    """
    delta = checks.fraction("delta", delta)
    focal_gamma = checks.below_one("focal_gamma", focal_gamma)
    epsilon = checks.positive("epsilon", epsilon)
    counts = soft_counts(y_true, y_pred, gamma, axis, weight)
    return asymmetric_focal_tversky_of(counts, delta, focal_gamma, symmetric, epsilon)


def asymmetric_focal_tversky_of(
    counts: _Counts, delta: float, focal_gamma: float, symmetric: bool, epsilon: float
) -> Tensor:
    """`asymmetric_focal_tversky_loss` from what `soft_counts` returns."""
    errors = _tversky_errors(counts, 1 - delta, delta, epsilon)
    if symmetric:
        return mean(_focal_power(errors, 1 - focal_gamma), axis=-1)
    background, foreground = split_classes(errors)
    rooted = _focal_power(foreground, 1 - focal_gamma)
    return mean(ops.concatenate([background, rooted], axis=-1), axis=-1)


def _tversky_errors(
    counts: _Counts, alpha: float, beta: float, epsilon: float
) -> Tensor:
    """1 minus the Tversky index of each class, (N, C)."""
    tp, fn, fp = counts
    errors = alpha * fp + beta * fn
    return errors / (tp + errors + epsilon)


class _Overlap(PerImageLoss):
    """What all losses of overlap share."""

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

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        return {**super().get_config(), "epsilon": self.epsilon}


class _Dice(_Overlap):
    """What DSC and DSC++ share."""

    def values(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        """One value per image, (N,)."""
        return dice_loss(y_true, y_pred, self.gamma, self.epsilon, self.axis, weight)


@keras.saving.register_keras_serializable(package="dscpp")
class Dice(_Dice):
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
class DicePlusPlus(_Dice):
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


class _Tversky(_Overlap):
    """What Tversky and Tversky++ share."""

    def __init__(
        self, alpha: float, beta: float, gamma: float, epsilon: float, *shell: Any
    ) -> None:
        super().__init__(gamma, epsilon, *shell)
        self.alpha = checks.fraction("alpha", alpha)
        self.beta = checks.fraction("beta", beta)

    def values(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        """One value per image, (N,)."""
        own = (self.alpha, self.beta, self.gamma, self.epsilon)
        return tversky_loss(y_true, y_pred, *own, self.axis, weight)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}


@keras.saving.register_keras_serializable(package="dscpp")
class Tversky(_Tversky):
    """Tversky loss: overlap with weights for both kinds of error. See `tversky_loss`.

    Formula:

    ```python
    errors = alpha * fp + beta * fn
    loss = mean over classes of errors / (tp + errors + epsilon)
    ```

    Args:
        alpha: weight of the false positives, in [0, 1].
        beta: weight of the false negatives, in [0, 1].
        epsilon: above 0; decides the value for classes absent from an image.
        axis: axis of the classes.
        name: name of the loss in logs.
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic, float32 at least.

    Raises:
        ValueError: `alpha` or `beta` outside [0, 1]; `epsilon` not above 0; when
            called, shapes that do not fit.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.Tversky(alpha=0.3, beta=0.7))

    Reference:
        Eqs. 15 and 16, mean over classes; Table 2.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        epsilon: float = 1e-7,
        axis: int = -1,
        name: str = "tversky",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(alpha, beta, 1.0, epsilon, axis, name, reduction, dtype)


@keras.saving.register_keras_serializable(package="dscpp")
class TverskyPlusPlus(_Tversky):
    """Tversky++ loss: Tversky with the power `gamma` on errors. See `tversky_loss`.

    Formula:

    ```python
    fn = sum((y_true * (1 - y_pred)) ** gamma)
    fp = sum(((1 - y_true) * y_pred) ** gamma)
    errors = alpha * fp + beta * fn
    loss = mean over classes of errors / (tp + errors + epsilon)
    ```

    Args:
        alpha: weight of the false positives, in [0, 1].
        beta: weight of the false negatives, in [0, 1].
        gamma: the ++ exponent, above 0; 1 gives the Tversky loss.
        epsilon: above 0; decides the value for classes absent from an image.
        axis: axis of the classes.
        name: name of the loss in logs.
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic, float32 at least.

    Raises:
        ValueError: `alpha` or `beta` outside [0, 1]; `gamma` or `epsilon` not above 0;
            when called, shapes that do not fit.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.TverskyPlusPlus(gamma=2))

    Reference:
        Eqs. 15 and 16 with the sums of Eq. 9, mean over classes; Table 2, and Table 6
        for `gamma=2`.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 2.0,
        epsilon: float = 1e-7,
        axis: int = -1,
        name: str = "tverskypp",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(alpha, beta, gamma, epsilon, axis, name, reduction, dtype)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        return {**super().get_config(), "gamma": self.gamma}


class _FocalTversky(_Tversky):
    """What Focal Tversky and Focal Tversky++ share."""

    def __init__(self, focal_gamma: float, *others: Any) -> None:
        super().__init__(*others)
        self.focal_gamma = checks.positive("focal_gamma", focal_gamma)

    def values(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        """One value per image, (N,)."""
        own = (self.alpha, self.beta, self.focal_gamma, self.gamma, self.epsilon)
        return focal_tversky_loss(y_true, y_pred, *own, self.axis, weight)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        return {**super().get_config(), "focal_gamma": self.focal_gamma}


@keras.saving.register_keras_serializable(package="dscpp")
class FocalTversky(_FocalTversky):
    """Focal Tversky loss: a root of the Tversky loss. See `focal_tversky_loss`.

    Formula:

    ```python
    errors = alpha * fp + beta * fn
    loss = mean over classes of
        (errors / (tp + errors + epsilon)) ** (1 / focal_gamma)
    ```

    Args:
        alpha: weight of the false positives, in [0, 1].
        beta: weight of the false negatives, in [0, 1].
        focal_gamma: above 0; the exponent is `1 / focal_gamma`.
        epsilon: above 0; decides the value for classes absent from an image.
        axis: axis of the classes.
        name: name of the loss in logs.
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic, float32 at least.

    Raises:
        ValueError: `alpha` or `beta` outside [0, 1]; `focal_gamma` or `epsilon` not
            above 0; when called, shapes that do not fit.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.FocalTversky(focal_gamma=4 / 3))

    Reference:
        Eq. 17, mean over classes; Table 2.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        focal_gamma: float = 4 / 3,
        epsilon: float = 1e-7,
        axis: int = -1,
        name: str = "focal_tversky",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        shell = (axis, name, reduction, dtype)
        super().__init__(focal_gamma, alpha, beta, 1.0, epsilon, *shell)


@keras.saving.register_keras_serializable(package="dscpp")
class FocalTverskyPlusPlus(_FocalTversky):
    """Focal Tversky++ loss: with the power `gamma` on errors. See `focal_tversky_loss`.

    Formula:

    ```python
    fn = sum((y_true * (1 - y_pred)) ** gamma)
    fp = sum(((1 - y_true) * y_pred) ** gamma)
    errors = alpha * fp + beta * fn
    loss = mean over classes of
        (errors / (tp + errors + epsilon)) ** (1 / focal_gamma)
    ```

    Args:
        alpha: weight of the false positives, in [0, 1].
        beta: weight of the false negatives, in [0, 1].
        focal_gamma: above 0; the exponent of the ratio is `1 / focal_gamma`.
        gamma: the ++ exponent, above 0; 1 gives the Focal Tversky loss.
        epsilon: above 0; decides the value for classes absent from an image.
        axis: axis of the classes.
        name: name of the loss in logs.
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic, float32 at least.

    Raises:
        ValueError: `alpha` or `beta` outside [0, 1]; `focal_gamma`, `gamma` or
            `epsilon` not above 0; when called, shapes that do not fit.

    Example:
    >>> model.compile(optimizer="sgd", loss=losses.FocalTverskyPlusPlus(gamma=2))

    Reference:
        Eq. 17 with the sums of Eq. 9, mean over classes; Table 2, and Table 6 for
        `gamma=2`.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        focal_gamma: float = 4 / 3,
        gamma: float = 2.0,
        epsilon: float = 1e-7,
        axis: int = -1,
        name: str = "focal_tverskypp",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        shell = (axis, name, reduction, dtype)
        super().__init__(focal_gamma, alpha, beta, gamma, epsilon, *shell)

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
