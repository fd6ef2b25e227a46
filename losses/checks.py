"""What a caller can get wrong: hyperparameters and shapes. Plain Python, no Keras."""

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "OPTIONS",
    "below_one",
    "fraction",
    "hyperparameters",
    "is_voxel_weight",
    "not_negative",
    "options",
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


_RULES: Mapping[str, Callable[[str, Any], float]] = {
    "alpha": fraction,
    "beta": fraction,
    "delta": fraction,
    "epsilon": positive,
    "gamma": positive,
    "lambda_": fraction,
}


def hyperparameters(
    focal_rule: Callable[[str, Any], float] = not_negative, **values: Any
) -> dict[str, float]:
    """Check hyperparameters by their names.

    Args:
        focal_rule: the check of `focal_gamma`, which each loss has a range of its own
            for.
        **values: hyperparameters of one loss.

    Returns:
        The same as floats.

    Raises:
        ValueError: a value out of its range.
    """
    rules = {**_RULES, "focal_gamma": focal_rule}
    return {name: rules[name](name, value) for name, value in values.items()}


OPTIONS = ("axis", "ignore_background", "from_logits", "from_indices")
"""Arguments of every loss that say how labels and predictions are laid out."""


def options(loss: str, given: Mapping[str, Any]) -> None:
    """Refuse options that are none, or of another type.

    Args:
        loss: name of the class, for the message.
        given: options by name.

    Raises:
        ValueError: an unknown name; an axis that is no whole number; a flag that is
            not True or False.
    """
    for name, value in given.items():
        if name not in OPTIONS:
            known = ", ".join((*OPTIONS, "reduction", "dtype", "name"))
            raise ValueError(
                f"{loss}: expected its hyperparameters and {known}, received {name}"
            )
        expected = int if name == "axis" else bool
        if type(value) is not expected:
            kind = "a whole number" if name == "axis" else "True or False"
            raise ValueError(f"{name}: expected {kind}, received {value!r}")


def shapes(
    y_true: Any, y_pred: Any, axis: int = -1, from_indices: bool = False
) -> None:
    """Refuse labels and predictions that do not belong together.

    Only what is known when a graph is traced is looked at: an axis of unknown length
    fits any length, a tensor of unknown rank passes.

    Args:
        y_true: one-hot labels, (N, *spatial, C), or class indices.
        y_pred: probabilities or logits, (N, *spatial, C); C is 1 for one channel of
            foreground.
        axis: axis of the classes.
        from_indices: whether class indices were announced.

    Raises:
        ValueError: rank below 3, class indices in the place of one-hot labels or the
            other way round, shapes that differ, or an axis that is none of the classes.
    """
    true, predicted = _static_shape(y_true), _static_shape(y_pred)
    if predicted is not None:
        _check_prediction(predicted, axis)
        if true is not None and from_indices:
            _check_indices(true, predicted, axis)
        elif true is not None:
            _check_one_hot(true, predicted, axis)


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
    expected, _ = _without_classes(predicted, axis)
    if not _fit(shape, expected):
        raise ValueError(
            "sample_weight: expected one weight per image, shape (N,), or one per "
            f"voxel, shape {expected}, received shape {shape}"
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


def _check_one_hot(
    true: tuple[int | None, ...], predicted: tuple[int | None, ...], axis: int
) -> None:
    classes = predicted[axis]
    # One channel against an unknown number of classes would be broadcast.
    if _fit(true, predicted) and (true[axis] != 1 or classes == 1):
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
            f"keras.ops.one_hot(indices, {classes or 'number_of_classes'}, "
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


def _fit(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    """Whether two shapes agree in all that is known of both."""
    return len(one) == len(other) and all(
        a == b for a, b in zip(one, other, strict=True) if None not in (a, b)
    )
