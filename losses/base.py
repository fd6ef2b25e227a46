"""What the losses share: what is done to their arguments, and the class's shell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict, Unpack

import keras
from keras import ops

from . import checks

__all__ = [
    "PROBABILITY_FLOOR",
    "Options",
    "PerImageLoss",
    "Shell",
    "Tensor",
    "Voxels",
    "mean",
    "power",
    "prepare",
    "split_classes",
]

# A tensor of the Keras backend in use, or a NumPy array.
Tensor = Any

# Probabilities are held in [1e-7, 1 - 1e-7], as in the released code.
PROBABILITY_FLOOR = 1e-7


class Options(TypedDict, total=False):
    """How labels and predictions are laid out; every loss takes these.

    Attributes:
        axis: axis of the classes: -1 (the default) for (N, *spatial, C), 1 for
            (N, C, *spatial).
        ignore_background: whether class 0 is left out of the sum or mean over classes.
            Default False. CE and Focal then see no voxel of the background at all, so
            nothing holds false positives down; the losses of overlap and Combo count
            them still, as errors of the foreground classes.
        from_logits: whether `y_pred` holds logits, of which the softmax over the
            classes is taken, or the sigmoid where there is one channel. Default False.
            Logarithms then come from the logits: no floor holds them, and a voxel that
            is wrong by a wide margin keeps its gradient. Everything else is as from
            probabilities.
        from_indices: whether `y_true` holds class indices, (N, *spatial) or with a
            class axis of length 1, of any type. Default False. A voxel whose index is
            no class, such as 255, has no class.
    """

    axis: int
    ignore_background: bool
    from_logits: bool
    from_indices: bool


class Shell(Options, total=False):
    """What every class of a loss takes besides its hyperparameters and its name.

    Attributes:
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic; float16 and bfloat16 are raised to float32.
    """

    reduction: str | None
    dtype: Any


@dataclass(frozen=True)
class Voxels:
    """Checked labels and predictions of one type, float32 or float64.

    Attributes:
        y_true: labels, (N, *spatial, C).
        y_pred: probabilities in [1e-7, 1 - 1e-7], (N, *spatial, C).
        axis: axis of the classes, in both.
        first: the class that comes first in both: 0, or 1 without the background.
        weight: weight of each voxel, with a class axis of length 1; None for 1.
        logs: logarithms of the probabilities of all classes, background included, where
            logits were given; else None.
    """

    y_true: Tensor
    y_pred: Tensor
    axis: int
    first: int = 0
    weight: Tensor | None = None
    logs: Tensor | None = None

    def log_pred(self) -> Tensor:
        """Logarithms of the probabilities, (N, *spatial, C)."""
        if self.logs is None:
            return ops.log(self.y_pred)
        return _from_class(self.logs, self.first, self.axis)

    def log_rest(self) -> Tensor:
        """Logarithms of 1 minus the probabilities, (N, *spatial, C)."""
        if self.logs is not None and self.logs.shape[self.axis] == 2:
            return _from_class(ops.flip(self.logs, self.axis), self.first, self.axis)
        # log1p keeps the digits of a small p, of which 1 - p keeps few.
        return ops.log1p(-self.y_pred)

    def sum(self, terms: Tensor) -> Tensor:
        """Weighted sum over the spatial axes, (N, C), of terms laid out as `y_pred`."""
        if self.weight is not None:
            terms = self.weight * terms
        return self._over_voxels(terms, ops.sum)

    def mean(self, terms: Tensor) -> Tensor:
        """Weighted mean over the spatial axes, (N, C), 0 at no weight at all."""
        if self.weight is None:
            return self._over_voxels(terms, mean)
        total = self._over_voxels(self.weight, ops.sum)
        some = ops.where(total > 0, total, ops.ones_like(total))
        return self.sum(terms) / some

    def _over_voxels(
        self, terms: Tensor, reduce: Callable[[Tensor, int], Tensor]
    ) -> Tensor:
        """Reduce all axes but the images' and the classes'.

        One axis after the other, which costs no second pass: TensorFlow adds float32
        one by one, and over the 262,144 voxels of a 512x512 image at once it was wrong
        by 5e-5.
        """
        for axis in reversed(range(1, len(terms.shape))):
            if axis != self.axis:
                terms = reduce(terms, axis)
        return terms


def prepare(
    y_true: Tensor,
    y_pred: Tensor,
    weight: Tensor | None = None,
    axis: int = -1,
    ignore_background: bool = False,
    from_logits: bool = False,
    from_indices: bool = False,
) -> Voxels:
    """Check the shapes, raise to float32 at least, clip the probabilities.

    A prediction of one channel is that of the foreground: from p the classes are the
    background with 1 - p and the foreground with p, and likewise from its label.

    The cast comes before the clip: 1 - 1e-7 is 1 in float16. In float32 it is
    1 - 1.19e-7. Clipping has gradient 0 outside the range, so a voxel whose p is
    exactly 0 or 1 does not learn; from a softmax it would not have learnt anyway,
    since the softmax's own gradient is 0 there. Give a model of low precision a softmax
    in float32 (`keras.layers.Activation("softmax", dtype="float32")`), or give logits.

    Args:
        y_true: one-hot labels, (N, *spatial, C), or class indices; any type.
        y_pred: probabilities in [0, 1], or logits, (N, *spatial, C).
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.
        axis: see `Options`, as for the others.
        ignore_background: whether class 0 is left out.
        from_logits: whether `y_pred` holds logits.
        from_indices: whether `y_true` holds class indices.

    Returns:
        All as tensors of one type, float32 or float64.

    Raises:
        ValueError: shapes as in `checks.shapes` and `checks.voxel_weight_shape`.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    checks.shapes(y_true, y_pred, axis, from_indices)
    dtype = _at_least_float32(keras.backend.standardize_dtype(y_pred.dtype))
    if weight is not None:
        checks.voxel_weight_shape(weight, y_pred, axis)
        weight = ops.cast(ops.convert_to_tensor(weight), dtype)
        weight = ops.expand_dims(weight, axis)
    axis, first = axis % len(y_pred.shape), int(ignore_background)
    y_pred, logs = ops.cast(y_pred, dtype), None
    if from_logits:
        logs = _log_probabilities(y_pred, axis)
        y_pred = ops.exp(_from_class(logs, first, axis))
    else:
        y_pred = _classes(y_pred, first, axis)
    if from_indices:
        y_true = _one_hot(y_true, first, y_pred, axis)
    else:
        y_true = _classes(ops.cast(y_true, dtype), first, axis)
    y_pred = ops.clip(y_pred, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return Voxels(y_true, y_pred, axis, first, weight, logs)


def _log_probabilities(logits: Tensor, axis: int) -> Tensor:
    """Logarithms of the softmax, or of the sigmoid's two classes from one channel."""
    if logits.shape[axis] != 1:
        return ops.log_softmax(logits, axis=axis)
    pair = [ops.log_sigmoid(-logits), ops.log_sigmoid(logits)]
    return ops.concatenate(pair, axis=axis)


def _classes(values: Tensor, first: int, axis: int) -> Tensor:
    """The classes from `first` on; one channel is class 1, and class 0 is the rest."""
    if values.shape[axis] != 1:
        return _from_class(values, first, axis)
    return values if first else ops.concatenate([1 - values, values], axis=axis)


def _one_hot(indices: Tensor, first: int, like: Tensor, axis: int) -> Tensor:
    """One-hot labels of the classes that `like` has, 0 for an index of no class.

    Not `ops.one_hot`, which is an error on PyTorch where an index is no class.
    """
    if len(indices.shape) < len(like.shape):
        indices = ops.expand_dims(indices, axis)
    classes = ops.arange(first, first + ops.shape(like)[axis], dtype="int32")
    classes = ops.reshape(
        classes, [-1 if i == axis else 1 for i in range(len(like.shape))]
    )
    return ops.cast(ops.equal(ops.cast(indices, "int32"), classes), like.dtype)


def _from_class(tensor: Tensor, first: int, axis: int) -> Tensor:
    """The classes from `first` on, along `axis`, counted from 0."""
    if first == 0:
        return tensor
    return tensor[(*[slice(None)] * axis, slice(first, None))]


def split_classes(tensor: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The first class and all others, along `axis`, counted from 0."""
    before = [slice(None)] * axis
    return tensor[(*before, slice(0, 1))], tensor[(*before, slice(1, None))]


def mean(values: Tensor, axis: int) -> Tensor:
    """Mean along one axis. `ops.mean` on PyTorch takes float64 through float32."""
    length = ops.cast(ops.shape(values)[axis], values.dtype)
    return ops.sum(values, axis=axis) / length


def power(values: Tensor, exponent: float) -> Tensor:
    """`values ** exponent`, the exponent rounded to the type of `values` and no more.

    PyTorch would round a plain number to float32. Square and identity cost no power.
    """
    if exponent == 1:
        return values
    if exponent == 2:
        return ops.square(values)
    dtype = keras.backend.standardize_dtype(values.dtype)
    return ops.power(values, ops.convert_to_tensor(exponent, dtype=dtype))


def _at_least_float32(dtype: str | None) -> str:
    """`dtype`, or float32 where it is narrower; None means Keras' `floatx`."""
    return "float64" if (dtype or keras.config.floatx()) == "float64" else "float32"


class PerImageLoss(keras.losses.Loss):
    """Shell of the loss classes; each brings its function and its hyperparameters.

    Args:
        name: name of the loss in logs.
        hyperparameters: arguments of the function, checked; attributes of the loss.
        **shell: see `Shell`.
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, name: str, hyperparameters: Mapping[str, float], **shell: Unpack[Shell]
    ) -> None:
        reduction = shell.pop("reduction", "sum_over_batch_size")
        dtype = _loss_dtype(shell.pop("dtype", None))
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        checks.options(type(self).__name__, shell)
        self.options = {**_DEFAULTS, **shell}
        self.hyperparameters = dict(hyperparameters)
        for argument, value in hyperparameters.items():
            setattr(self, argument, value)

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return the loss, reduced over the images.

        Args:
            y_true: one-hot labels, (N, *spatial, C), or class indices (`from_indices`).
            y_pred: probabilities in [0, 1], or logits (`from_logits`),
                (N, *spatial, C); one channel is that of the foreground.
            sample_weight: weight per image, (N,), or per voxel, (N, *spatial), at
                least 0. With weights per image the weighted values are divided by N,
                not by the sum of weights, unless `reduction` is
                "mean_with_sample_weight". Weights per voxel are inside all sums over
                voxels, and means are divided by their sum: a mask of 0 and 1 gives the
                value of the image without the voxels at 0.

        Raises:
            ValueError: shapes that do not fit.
        """
        if checks.is_voxel_weight(sample_weight, y_pred):
            return super().__call__((y_true, sample_weight), y_pred)
        return super().__call__(y_true, y_pred, sample_weight=sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per image, (N,); `y_true` may be labels and weights of voxels."""
        y_true, weight = y_true if isinstance(y_true, tuple) else (y_true, None)
        own = {**self.hyperparameters, **self.options}
        return type(self).function(y_true, y_pred, weight=weight, **own)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        own = {**self.hyperparameters, **self.options}
        return {**super().get_config(), "dtype": self.dtype, **own}


_DEFAULTS: dict[str, Any] = {
    "axis": -1,
    "ignore_background": False,
    "from_logits": False,
    "from_indices": False,
}


def _loss_dtype(dtype: Any) -> str:
    if dtype is not None:
        dtype = keras.dtype_policies.get(dtype).compute_dtype
    return _at_least_float32(dtype)
