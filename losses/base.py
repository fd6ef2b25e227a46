"""What the losses share: what is done to their arguments, and the class's shell."""

from typing import Any

import keras
from keras import ops

from . import checks

__all__ = [
    "PROBABILITY_FLOOR",
    "PerImageLoss",
    "Tensor",
    "at_least_float32",
    "mean",
    "power",
    "prepare",
    "split_classes",
    "voxel_mean",
    "voxel_sum",
]

# A tensor of the Keras backend in use, or a NumPy array.
Tensor = Any

# Probabilities are held in [1e-7, 1 - 1e-7], as in the released code.
PROBABILITY_FLOOR = 1e-7


def prepare(
    y_true: Tensor, y_pred: Tensor, axis: int = -1, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Check the shapes, raise to float32 at least, clip the probabilities.

    The cast comes before the clip: 1 - 1e-7 is 1 in float16. In float32 it is
    1 - 1.19e-7. Clipping has gradient 0 outside the range, so a voxel whose p is
    exactly 0 or 1 does not learn; from a softmax it would not have learnt anyway,
    since the softmax's own gradient is 0 there. Give a model of low precision a softmax
    in float32 (`keras.layers.Activation("softmax", dtype="float32")`).

    Args:
        y_true: one-hot labels, (N, *spatial, C), any type.
        y_pred: probabilities, (N, *spatial, C), in [0, 1].
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); None for 1 everywhere.

    Returns:
        All as tensors of one type, float32 or float64; probabilities in
        [1e-7, 1 - 1e-7]; the weight with an axis of length 1 for the classes, or None.

    Raises:
        ValueError: shapes as in `checks.shapes` and `checks.voxel_weight_shape`.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    checks.shapes(y_true, y_pred, axis)
    dtype = at_least_float32(keras.backend.standardize_dtype(y_pred.dtype))
    y_true, y_pred = ops.cast(y_true, dtype), ops.cast(y_pred, dtype)
    if weight is not None:
        checks.voxel_weight_shape(weight, y_pred, axis)
        weight = ops.cast(ops.convert_to_tensor(weight), dtype)
        weight = ops.expand_dims(weight, axis)
    return y_true, ops.clip(y_pred, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR), weight


def split_classes(tensor: Tensor, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Background and foreground: class 0, and all others, along `axis`."""
    before = (slice(None),) * (axis % len(tensor.shape))
    return tensor[(*before, slice(0, 1))], tensor[(*before, slice(1, None))]


def voxel_sum(terms: Tensor, axis: int = -1, weight: Tensor | None = None) -> Tensor:
    """Sum over the spatial axes, (N, C), from terms with classes on `axis`.

    One axis after the other, which costs no second pass: TensorFlow adds float32 one
    by one, and over the 262,144 voxels of a 512x512 image at once it was wrong by 5e-5.

    `weight` is what `prepare` returns.
    """
    if weight is not None:
        terms = weight * terms
    for spatial in _spatial_axes(terms, axis):
        terms = ops.sum(terms, axis=spatial)
    return terms


def voxel_mean(terms: Tensor, axis: int = -1, weight: Tensor | None = None) -> Tensor:
    """Mean over the spatial axes, (N, C), 0 at no weight at all; see `voxel_sum`."""
    if weight is not None:
        total = voxel_sum(weight, axis)
        some = ops.where(total > 0, total, ops.ones_like(total))
        return voxel_sum(terms, axis, weight) / some
    for spatial in _spatial_axes(terms, axis):
        terms = mean(terms, spatial)
    return terms


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


def _spatial_axes(tensor: Tensor, axis: int) -> list[int]:
    """All axes but the first, the images, and `axis`, the classes; the last first."""
    rank = len(tensor.shape)
    return [i for i in reversed(range(1, rank)) if i != axis % rank]


def at_least_float32(dtype: str | None) -> str:
    """`dtype`, or float32 where it is narrower; None means Keras' `floatx`."""
    return "float64" if (dtype or keras.config.floatx()) == "float64" else "float32"


class PerImageLoss(keras.losses.Loss):
    """Shell of the loss classes; each brings its own `values`.

    Args:
        name: name of the loss in logs.
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic; float16 and bfloat16 are raised to float32.
        axis: axis of the classes.
    """

    def __init__(
        self,
        name: str,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=_loss_dtype(dtype))
        self.axis = axis

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return the loss, reduced over the images.

        Args:
            y_true: one-hot labels, (N, *spatial, C).
            y_pred: probabilities, (N, *spatial, C), in [0, 1].
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
        return self.values(y_true, y_pred, weight)

    def values(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        """One value per image, (N,)."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        return {**super().get_config(), "dtype": self.dtype, "axis": self.axis}


def _loss_dtype(dtype: Any) -> str:
    if dtype is not None:
        dtype = keras.dtype_policies.get(dtype).compute_dtype
    return at_least_float32(dtype)
