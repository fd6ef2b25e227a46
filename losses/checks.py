"""What a caller can get wrong: hyperparameters and shapes. Plain Python, no Keras."""

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "OPTIONS",
    "below_one",
    "fraction",
    "hyperparameters",
    "not_negative",
    "options",
    "positive",
    "sample_weight",
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


OPTIONS: Mapping[str, Any] = {
    "axis": -1,
    "ignore_background": False,
    "from_logits": False,
    "from_indices": False,
}
"""Arguments of every loss that say how labels and predictions are laid out."""


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the options that are not given.

    Args:
        given: options by name.

    Raises:
        ValueError: an unknown name; an axis that is no whole number; a flag that is
            not True or False.
    """
    for name, value in given.items():
        if name not in OPTIONS:
            raise ValueError(
                f"options: expected some of {', '.join(OPTIONS)} besides the "
                f"hyperparameters, received {name}"
            )
        if type(value) is not type(OPTIONS[name]):
            kind = "a whole number" if name == "axis" else "True or False"
            raise ValueError(f"{name}: expected {kind}, received {value!r}")
    return {**OPTIONS, **given}


def shapes(
    y_true: Any, y_pred: Any, axis: int = -1, from_indices: bool = False
) -> None:
    """Refuse labels and predictions that do not belong together.

    Only what is known when a graph is traced is looked at: an axis of unknown length
    fits any length. Rank and number of classes have to be known.

    Args:
        y_true: one-hot labels, (N, *spatial, C), or class indices.
        y_pred: probabilities or logits, (N, *spatial, C); C is 1 for one channel of
            foreground.
        axis: axis of the classes.
        from_indices: whether class indices were announced.

    Raises:
        ValueError: rank below 3 or unknown, number of classes unknown, class indices
            in the place of one-hot labels or the other way round, shapes that differ,
            or an axis that is none of the classes.
    """
    true, predicted = _shape("y_true", y_true), _shape("y_pred", y_pred)
    _check_prediction(predicted, axis)
    if from_indices:
        _check_indices(true, predicted, axis)
    else:
        _check_one_hot(true, predicted, axis)


def sample_weight(weight: Any, y_pred: Any, axis: int = -1) -> str:
    """Tell whether weights are meant per image or per voxel.

    Args:
        weight: a number, (N,), (N, 1) or (N, *spatial).
        y_pred: probabilities, (N, *spatial, C).
        axis: axis of the classes.

    Returns:
        "images" or "voxels".

    Raises:
        ValueError: where the shape is none of these. Keras would broadcast it without
            a word.
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
    """Refuse weights of voxels that do not fit the probabilities.

    Args:
        weight: weights, (N, *spatial).
        y_pred: probabilities, (N, *spatial, C).
        axis: axis of the classes.

    Raises:
        ValueError: where the shape is another one.
    """
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
    except (TypeError, ValueError):
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


def _fit(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    """Whether two shapes agree in all that is known of both."""
    return len(one) == len(other) and all(
        a == b for a, b in zip(one, other, strict=True) if None not in (a, b)
    )
