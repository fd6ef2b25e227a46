# SPDX-License-Identifier: Apache-2.0
"""What a caller can get wrong: hyperparameters, tensors, shapes. Plain Python.

Each function raises ValueError for what it refuses.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """The numbers that an argument may be, and the words for them."""

    words: str
    holds: Callable[[float], bool]

    def __call__(self, argument: str, value: Any) -> float:
        """Return `value` as a float; ValueError where it is no such finite number."""
        if not _is_number(value) or not self.holds(value):
            raise ValueError(
                f"{argument}: expected a number {self.words}, received {value!r}"
            )
        return float(value)


POSITIVE = Range("above 0", lambda x: x > 0)
NOT_NEGATIVE = Range("of at least 0", lambda x: x >= 0)
FRACTION = Range("from 0 to 1", lambda x: 0 <= x <= 1)
BELOW_ONE = Range("from 0 to below 1", lambda x: 0 <= x < 1)
COUNT = Range("among 1, 2, ..., 1000", lambda x: 1 <= x <= 1000 and x == int(x))

RANGES: Mapping[str, Range] = {
    "alpha": FRACTION,
    "beta": FRACTION,
    "bins": COUNT,
    "delta": FRACTION,
    "epsilon": POSITIVE,
    "focal_gamma": NOT_NEGATIVE,  # some losses have a narrower one
    "gamma": POSITIVE,
    "lambda_": FRACTION,
    "penalty": NOT_NEGATIVE,
}
"""All hyperparameters."""

OPTIONS: Mapping[str, Any] = {
    "axis": -1,
    "ignore_background": False,
    "from_logits": False,
    "from_indices": False,
    "soft_labels": False,
}
"""Arguments of every loss that say how labels and predictions are to be read."""

# By the top-level package of a tensor's class.
_FRAMEWORKS = {
    "jax": "jax",
    "jaxlib": "jax",
    "tensorflow": "tensorflow",
    "torch": "torch",
}


def hyperparameters(
    focal_range: Range = NOT_NEGATIVE, /, **values: Any
) -> dict[str, float]:
    """Check hyperparameters by their names, and return them as floats."""
    ranges = {**RANGES, "focal_gamma": focal_range}
    return {name: ranges[name](name, value) for name, value in values.items()}


def options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check options, and fill in those that are not given."""
    for name, value in values.items():
        if name not in OPTIONS:
            raise ValueError(
                f"options: expected some of {', '.join(OPTIONS)} besides the "
                f"hyperparameters, received {name}"
            )
        if type(value) is not type(OPTIONS[name]):
            kind = "a whole number" if name == "axis" else "True or False"
            raise ValueError(f"{name}: expected {kind}, received {value!r}")
    return {**OPTIONS, **values}


def tensors(backend: str, **arguments: Any) -> None:
    """Refuse tensors of another framework than Keras runs on.

    Keras would make them NumPy arrays where it can, and lose the gradient.
    """
    for argument, tensor in arguments.items():
        homes = {each.__module__.partition(".")[0] for each in type(tensor).__mro__}
        frameworks = {_FRAMEWORKS[home] for home in homes if home in _FRAMEWORKS}
        if frameworks and backend not in frameworks:
            raise ValueError(
                f"{argument}: expected a tensor of {backend}, on which Keras runs "
                f"here, or a NumPy array, received a tensor of {min(frameworks)}. "
                f"Set the environment variable KERAS_BACKEND={min(frameworks)} before "
                "Keras or the losses are imported"
            )


def shapes(
    y_true: Any, y_pred: Any, axis: int = -1, from_indices: bool = False
) -> None:
    """Refuse labels and predictions that do not belong together.

    Only what is known when a graph is traced is looked at: an axis of unknown length
    fits any length. Rank and number of classes have to be known.
    """
    true, predicted = _shape("y_true", y_true), _shape("y_pred", y_pred)
    _check_prediction(predicted, axis)
    if from_indices:
        _check_indices(true, predicted, axis)
    else:
        _check_one_hot(true, predicted, axis)


def sample_weight(weight: Any, y_pred: Any, axis: int = -1) -> str:
    """Tell whether weights are per image, (), (N,) or (N, 1), or voxel, (N, *spatial).

    Other shapes are refused: Keras would broadcast them without a word.
    """
    shape, predicted = _shape("sample_weight", weight), _shape("y_pred", y_pred)
    voxels, _ = _without_classes(predicted, axis)
    # One spatial axis of unknown length fits (N, 1) too: that is a weight per image.
    if _fit(shape, voxels) and shape[1:] != (1,):
        return "voxels"
    if not shape or _fit(shape, predicted[:1]) or _fit(shape, (predicted[0], 1)):
        return "images"
    raise ValueError(
        f"sample_weight: expected one weight per image, shape {predicted[:1]}, or one "
        f"per voxel, shape {voxels}, received shape {shape}"
    )


def voxel_weight_shape(weight: Any, y_pred: Any, axis: int = -1) -> None:
    """Refuse weights of voxels that are not (N, *spatial)."""
    shape = _shape("weight", weight)
    expected, _ = _without_classes(_shape("y_pred", y_pred), axis)
    if not _fit(shape, expected):
        raise ValueError(
            f"weight: expected one per voxel, shape {expected}, received shape {shape}"
        )


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, str, bytes)) or value is None:
        return False
    try:
        return math.isfinite(value)
    except (OverflowError, TypeError, ValueError):
        return False


def _shape(argument: str, tensor: Any) -> tuple[int | None, ...]:
    """The shape as far as it is known; None for an axis of unknown length."""
    try:
        return tuple(getattr(tensor, "shape", ()))
    except ValueError as error:
        raise ValueError(
            f"{argument}: expected a tensor whose rank is known, received one without "
            "a shape, as tf.py_function gives. Call its set_shape first"
        ) from error


def _check_prediction(shape: tuple[int | None, ...], axis: int) -> None:
    if len(shape) < 3:
        raise ValueError(
            "y_pred: expected rank 3 or more, (N, *spatial, C), received shape "
            f"{shape}. Add a batch axis of length 1 to a single image"
        )
    if not -len(shape) < axis < len(shape) or axis == 0:
        raise ValueError(
            "axis: expected the axis of the classes, -1 for (N, *spatial, C) or 1 for "
            f"(N, C, *spatial), received {axis} for shape {shape}"
        )
    if not shape[axis]:
        raise ValueError(
            "y_pred: expected a known number of classes, or one channel, received "
            f"shape {shape}. Call the tensor's set_shape first"
        )


def _check_one_hot(
    true: tuple[int | None, ...], predicted: tuple[int | None, ...], axis: int
) -> None:
    classes = predicted[axis]
    if _fit(true, predicted):
        return
    if classes == 1:
        raise ValueError(
            f"y_true: expected labels of one channel, shape {predicted}, as y_pred has "
            f"one, received shape {true}. Pass 1 where the foreground is and 0 "
            "elsewhere, or class indices and from_indices=True"
        )
    bare, thin = _without_classes(predicted, axis)
    if _fit(true, bare) or _fit(true, thin) or len(true) == len(bare):
        raise ValueError(
            f"y_true: expected one-hot labels of shape {predicted}, received shape "
            f"{true}, which looks like class indices. Pass from_indices=True, or "
            f"keras.ops.one_hot(indices, {classes}, "
            f"axis={axis}), the indices without a class axis"
        )
    raise ValueError(
        f"y_true: expected the shape of y_pred, {predicted}, received {true}"
    )


def _check_indices(
    true: tuple[int | None, ...], predicted: tuple[int | None, ...], axis: int
) -> None:
    bare, thin = _without_classes(predicted, axis)
    if _fit(true, bare) or _fit(true, thin):
        return
    hint = ""
    if _fit(true, predicted):
        hint = ". One-hot labels are passed without from_indices"
    raise ValueError(
        f"y_true: expected class indices (from_indices=True) of shape {bare} or "
        f"{thin}, received {true}{hint}"
    )


def _without_classes(
    shape: tuple[int | None, ...], axis: int
) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """The shape without its class axis, and with one of length 1."""
    bare, thin = list(shape), list(shape)
    del bare[axis]
    thin[axis] = 1
    return tuple(bare), tuple(thin)


def _fit(shape: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    """Whether two shapes agree in all that is known of both."""
    return len(shape) == len(other) and all(
        a == b for a, b in zip(shape, other, strict=True) if None not in (a, b)
    )
