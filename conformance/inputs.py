# SPDX-License-Identifier: Apache-2.0
"""What the losses are tried on: small seeded images with axes of different length."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["SHAPES", "STANDARD", "VOLUME", "Sample", "edges", "representable", "sample"]

Array = npt.NDArray[np.float64]

STANDARD = (2, 3, 5, 3)
"""Two images of 3x5 with three classes."""

VOLUME = (1, 2, 3, 5, 4)
"""One volume of 2x3x5 with four classes."""

SHAPES: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "float32": (STANDARD, (2, 4, 3, 2), VOLUME, (1, 4, 7, 5)),
    "float64": (STANDARD, VOLUME),  # JAX compiles every operation for every shape
}
"""Images and a volume with 2 to 5 classes, (N, *spatial, C), by precision."""

NEAREST = 1e-6
"""Agreement is asked for where NEAREST <= p <= 1 - NEAREST."""

SMOOTHING = 1e-3
"""What smoothed labels take from the class and share among all."""


class Sample(NamedTuple):
    """Labels and probabilities, and what they are.

    Attributes:
        title: what a failure says of the input.
        y_true: labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1].
    """

    title: str
    y_true: Array
    y_pred: Array

    def image(self, index: int) -> "Sample":
        """One image, as a batch of one."""
        part = slice(index, index + 1)
        return Sample(
            f"image {index} of {self.title}", self.y_true[part], self.y_pred[part]
        )


def sample(
    shape: tuple[int, ...] = STANDARD,
    labels: str = "hard",
    prediction: str = "moderate",
    seed: int = 0,
) -> Sample:
    """Draw a sample.

    Args:
        shape: (N, *spatial, C).
        labels: "hard", one-hot; "holes", some voxels without any class; "soft", a
            distribution over the classes; "smoothed", one-hot but for `SMOOTHING`.
        prediction: "moderate", a softmax of normal draws; "right" and "wrong", up to
            1e-6 near the label and near its opposite. Only the first sums to 1 over
            the classes.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    moderate = _softmax(2 * rng.normal(size=shape))
    y = np.eye(shape[-1])[rng.integers(0, shape[-1], size=shape[:-1])]
    distance = NEAREST * 10 ** rng.uniform(0, 4, size=shape)
    if labels == "holes":
        y[rng.random(shape[:-1]) < 0.3] = 0
    if labels == "soft":
        y = _softmax(rng.normal(size=shape))
    if labels == "smoothed":
        y = (1 - SMOOTHING) * y + SMOOTHING / shape[-1]
    near = {"moderate": moderate, "right": distance, "wrong": 1 - distance}[prediction]
    p = moderate if prediction == "moderate" else np.abs(np.round(y) - near)
    title = f"{labels} labels, {prediction} prediction, shape {shape}, seed {seed}"
    return Sample(title, y, np.clip(p, NEAREST, 1 - NEAREST))


def edges() -> dict[str, tuple[Sample, ...]]:
    """Inputs on which a formula is at its end, by what they try.

    Two images each, so that one shape serves all.
    """
    _, y, p = sample()
    background = np.zeros_like(y)
    background[..., 0] = 1
    none = np.zeros_like(y)
    ends = np.stack([np.zeros_like(y[0]), np.ones_like(y[0])])
    first_is_background = np.stack([background[0], y[1]])
    second_is_certain = np.stack([p[0], y[1]])
    return {
        "perfect_prediction": (
            Sample("p equal to y", y, y),
            Sample("p equal to y, image 0 background", *2 * [first_is_background]),
        ),
        "all_wrong": (Sample("p of another class", y, np.roll(y, 1, axis=-1)),),
        "empty_class": (Sample("background alone in y", background, p),),
        "no_class": (
            Sample("y of 0 everywhere, p 0 and 1 in image 1", none, second_is_certain),
        ),
        "p_at_0_and_1": (
            Sample("p 1 for the likeliest class", y, np.eye(3)[p.argmax(axis=-1)]),
            Sample("p 0 everywhere in image 0 and 1 in image 1", y, ends),
        ),
    }


def representable(values: npt.ArrayLike, dtype: str) -> Array:
    """Round to what `dtype` can hold, so that both sides see the same numbers.

    bfloat16, which NumPy lacks, is a float32 without its lower 16 bits: rounded to 0.
    """
    if dtype == "bfloat16":
        bits = np.asarray(values, np.float32).view(np.uint32)
        kept = bits & np.uint32(0xFFFF0000)
        return kept.view(np.float32).astype(np.float64)
    return np.asarray(values).astype(dtype).astype(np.float64)


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
