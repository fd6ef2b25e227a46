"""What a caller can get wrong: hyperparameters and shapes. Plain Python, no Keras."""

import math
from typing import Any

__all__ = [
    "below_one",
    "fraction",
    "is_voxel_weight",
    "not_negative",
    "positive",
    "shapes",
    "voxel_weight_shape",
]


def positive(argument: str, value: Any) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: where it is not a finite number above 0.
    """
    if not _is_number(value) or value <= 0:
        raise ValueError(f"{argument}: expected a number above 0, received {value!r}")
    return float(value)


def not_negative(argument: str, value: Any) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: where it is not a finite number of at least 0.
    """
    if not _is_number(value) or value < 0:
        raise ValueError(
            f"{argument}: expected a number of at least 0, received {value!r}"
        )
    return float(value)


def fraction(argument: str, value: Any) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: where it is not a number in [0, 1].
    """
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(
            f"{argument}: expected a number from 0 to 1, received {value!r}"
        )
    return float(value)


def below_one(argument: str, value: Any) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: where it is not a number in [0, 1).
    """
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(
            f"{argument}: expected a number from 0 to below 1, received {value!r}"
        )
    return float(value)


def shapes(y_true: Any, y_pred: Any, axis: int = -1) -> None:
    """Refuse labels and probabilities that do not belong together.

    Only what is known when a graph is traced is looked at: an axis of unknown length
    fits any length, a tensor of unknown rank passes.

    Args:
        y_true: one-hot labels, (N, *spatial, C).
        y_pred: probabilities, (N, *spatial, C), C at least 2.
        axis: axis of the classes.

    Raises:
        ValueError: rank below 3, one class only, class indices in the place of
            one-hot labels, shapes that differ, or an axis that is none of the classes.
    """
    true, predicted = _static_shape(y_true), _static_shape(y_pred)
    if predicted is not None:
        _check_prediction(predicted, axis)
        if true is not None:
            _check_labels(true, predicted, axis)


def is_voxel_weight(sample_weight: Any, y_pred: Any) -> bool:
    """Whether a `sample_weight` is meant per voxel: not None, (), (N,) or (N, 1)."""
    shape, predicted = _static_shape(sample_weight), _static_shape(y_pred)
    if sample_weight is None or shape is None or len(shape) < 2:
        return False
    length = shape[1]
    if length is None and predicted is not None:  # (N, 1), or one spatial axis
        return len(shape) > 2 or len(predicted) == 3
    return len(shape) > 2 or length != 1


def voxel_weight_shape(weight: Any, y_pred: Any, axis: int = -1) -> None:
    """Refuse weights of voxels that do not fit the probabilities.

    Args:
        weight: weights, (N, *spatial).
        y_pred: probabilities, (N, *spatial, C).
        axis: axis of the classes.

    Raises:
        ValueError: where the shape is another one. Keras would broadcast it without a
            word.
    """
    shape, predicted = _static_shape(weight), _static_shape(y_pred)
    if shape is None or predicted is None:
        return
    expected = list(predicted)
    del expected[axis]
    known = zip(shape, expected, strict=False)
    if len(shape) != len(expected) or any(
        a != b for a, b in known if None not in (a, b)
    ):
        raise ValueError(
            "sample_weight: expected one weight per image, shape (N,), or one per "
            f"voxel, shape {tuple(expected)}, received shape {shape}"
        )


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, str, bytes)) or value is None:
        return False
    try:
        return math.isfinite(value)
    except (TypeError, ValueError):
        return False


def _static_shape(tensor: Any) -> tuple[int | None, ...] | None:
    shape = getattr(tensor, "shape", ())
    try:
        return tuple(shape)
    except ValueError:  # TensorFlow: the rank itself is unknown
        return None


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
    if shape[axis] == 1:
        raise ValueError(
            "y_pred: expected two or more classes, received one, shape "
            f"{shape}. From a sigmoid p pass the pair (1 - p, p) on the class axis"
        )


def _check_labels(
    true: tuple[int | None, ...], predicted: tuple[int | None, ...], axis: int
) -> None:
    classes = predicted[axis]
    squeezed = list(predicted)
    del squeezed[axis]
    if len(true) == len(predicted):
        indices = true[axis] == 1
        differ = any(
            a != b for a, b in zip(true, predicted, strict=True) if None not in (a, b)
        )
    else:
        indices, differ = len(true) == len(squeezed), True
    if indices:
        raise ValueError(
            f"y_true: expected one-hot labels of shape {predicted}, received shape "
            f"{true}, which looks like class indices. Pass "
            f"keras.ops.one_hot(indices, {classes or 'number_of_classes'}, "
            f"axis={axis}), the indices without a class axis"
        )
    if differ:
        raise ValueError(
            f"y_true: expected the shape of y_pred, {predicted}, received {true}"
        )
