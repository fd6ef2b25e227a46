"""The U-Net of the study, fitting MIScnn's `Architecture` interface.

MIScnn's standard U-Net: two 3x3 convolutions a level, each with ReLU and then instance
normalisation (scale and shift, epsilon 1e-3), max pooling, transposed convolutions,
concatenation, softmax (section 2.7; Ronneberger et al. 2015; Zhou & Yang 2019).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from data_io.miscnn_compat import Abstract_Architecture

__all__ = ["UNet"]


class UNet(Abstract_Architecture):
    """Standard U-Net with instance normalisation.

    Args:
        filters: feature maps of the first level, doubled at each pooling.
        depth: number of poolings; each spatial axis must divide by 2**depth.

    Example:
        >>> model = UNet().create_model_2D((512, 512, 3), n_labels=2)
        >>> model.count_params()
        7766018
    """

    def __init__(self, filters: int = 32, depth: int = 4) -> None:
        self.filters = filters
        self.depth = depth

    def create_model_2D(
        self, input_shape: tuple[int | None, ...], n_labels: int = 2
    ) -> keras.Model:
        """Build for images.

        Args:
            input_shape: (rows, columns, channels).
            n_labels: classes, background included.

        Returns:
            A model from (N, rows, columns, channels) to class probabilities,
            (N, rows, columns, n_labels), float32, summing to 1.
        """
        return self._build(input_shape, n_labels, 2)

    def create_model_3D(
        self, input_shape: tuple[int | None, ...], n_labels: int = 2
    ) -> keras.Model:
        """Build for volumes: as `create_model_2D` with one more spatial axis."""
        return self._build(input_shape, n_labels, 3)

    def _build(
        self, input_shape: tuple[int | None, ...], n_labels: int, rank: int
    ) -> keras.Model:
        inputs = keras.Input(shape=input_shape, name="image")
        x, skips = inputs, []
        for level in range(self.depth):
            x = self._two_convolutions(x, level, rank)
            skips.append(x)
            x = _layer("MaxPooling", rank)(pool_size=2)(x)
        x = self._two_convolutions(x, self.depth, rank)
        for level in reversed(range(self.depth)):
            up = _layer("Conv", rank, "Transpose")
            x = up(self.filters * 2**level, 2, strides=2, padding="same")(x)
            x = layers.Concatenate(axis=-1)([x, skips[level]])
            x = self._two_convolutions(x, level, rank)
        logits = _layer("Conv", rank)(n_labels, 1, name="logits")(x)
        outputs = layers.Softmax(dtype="float32", name="probabilities")(logits)
        return keras.Model(inputs, outputs, name=f"unet_{rank}d")

    def _two_convolutions(self, x: Any, level: int, rank: int) -> Any:
        convolution = _layer("Conv", rank)
        for _ in range(2):
            x = convolution(
                self.filters * 2**level, 3, padding="same", activation="relu"
            )(x)
            x = layers.GroupNormalization(groups=-1, epsilon=1e-3)(x)
        return x


def _layer(kind: str, rank: int, suffix: str = "") -> Any:
    return getattr(layers, f"{kind}{rank}D{suffix}")
