"""The U-Net of the study, fitting MIScnn's `Architecture` interface.

MIScnn's standard U-Net: two 3x3 convolutions a level, each with ReLU and then instance
normalisation (scale and shift, epsilon 1e-3), max pooling, transposed convolutions,
concatenation, softmax (section 2.7; Ronneberger et al. 2015; Zhou & Yang 2019).

It has two forms of the same weights in the same order. The plain one is Keras' own
layers, channels-last: what is saved, and what Keras loads anywhere. The other is
channels-first inside; on PyTorch it also normalises by PyTorch's own kernel and keeps
kernels in PyTorch's order. `channels_first_is_faster` says which of them the backend
computes faster (`benchmarks.step` measures both). On TensorFlow channels-first would
not always be right either: where the last axis has as many voxels as there are
channels, Keras (3.15: `ops.add`) adds the bias along that axis.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import keras
from keras import layers

from data_io.prepare.miscnn_compat import Abstract_Architecture


def channels_first_is_faster() -> bool:
    """Return whether this backend computes the channels-first form faster."""
    return _on_torch()


def computes_channels_first() -> bool:
    """Return whether the backend computes the channels-first form here.

    TensorFlow does on a GPU; on a processor it takes oneDNN for it, which it uses by
    itself where there is AVX-512.
    """
    if keras.backend.backend() != "tensorflow":
        return True
    from tensorflow import errors, nn, zeros

    try:
        nn.conv2d_transpose(
            zeros((1, 2, 4, 4)), zeros((2, 2, 2, 2)), (1, 2, 8, 8), 2, "SAME", "NCHW"
        )
    except (errors.InvalidArgumentError, errors.UnimplementedError):
        return False
    return True


def _on_torch() -> bool:
    return bool(keras.backend.backend() == "torch")


class UNet(Abstract_Architecture):
    """Standard U-Net with instance normalisation.

    Args:
        filters: feature maps of the first level, doubled at each pooling.
        depth: number of poolings; each spatial axis must divide by 2**depth.
        precision: Keras' dtype policy of all layers but the last two, which are always
            float32: probabilities are what the study measures.
        channels_first: the form that is channels-first inside; what goes in and comes
            out is channels-last in both.

    Example:
        >>> model = UNet().create_model_2D((512, 512, 3), n_labels=2)
        >>> model.count_params()
        7766018
    """

    def __init__(
        self,
        filters: int = 32,
        depth: int = 4,
        precision: str = "float32",
        channels_first: bool = False,
    ) -> None:
        self.filters = filters
        self.depth = depth
        self.precision = precision
        self.channels_first = channels_first

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
        if self.channels_first:
            x = _ChannelsFirst(dtype=self.precision)(x)
        for level in range(self.depth):
            x = self._two_convolutions(x, level, rank)
            skips.append(x)
            x = self._layer("MaxPooling", rank)(pool_size=2)(x)
        x = self._two_convolutions(x, self.depth, rank)
        for level in reversed(range(self.depth)):
            up = self._layer("Conv", rank, "Transpose")
            x = up(self.filters * 2**level, 2, strides=2, padding="same")(x)
            x = layers.Concatenate(axis=self._axis, dtype=self.precision)(
                [x, skips[level]]
            )
            x = self._two_convolutions(x, level, rank)
        logits = self._layer("Conv", rank, dtype="float32")
        x = logits(n_labels, 1, name="logits")(x)
        if self.channels_first:
            x = layers.Permute((*range(2, rank + 2), 1), dtype="float32")(x)
        outputs = layers.Softmax(dtype="float32", name="probabilities")(x)
        model = keras.Model(inputs, outputs, name=f"unet_{rank}d")
        if self.channels_first and _on_torch():
            arrange(model.variables)
        return model

    def _two_convolutions(self, x: Any, level: int, rank: int) -> Any:
        convolution = self._layer("Conv", rank)
        for _ in range(2):
            x = convolution(
                self.filters * 2**level, 3, padding="same", activation="relu"
            )(x)
            x = self._normalization()(x)
        return x

    @property
    def _axis(self) -> int:
        return 1 if self.channels_first else -1

    def _normalization(self) -> layers.Layer:
        is_torch_first = self.channels_first and _on_torch()
        kind = _InstanceNormalization if is_torch_first else layers.GroupNormalization
        return kind(groups=-1, axis=self._axis, epsilon=1e-3, dtype=self.precision)

    def _layer(
        self, kind: str, rank: int, suffix: str = "", dtype: str | None = None
    ) -> Any:
        return partial(
            getattr(layers, f"{kind}{rank}D{suffix}"),
            data_format="channels_first" if self.channels_first else "channels_last",
            dtype=dtype or self.precision,
        )


def arrange(variables: Iterable[keras.Variable]) -> None:
    """Lay kernels out in memory as PyTorch's convolutions want them.

    Keras keeps kernels (*spatial, in, out) and turns them at each call; PyTorch then
    copies all of them, and all of their gradients, at each step: 10 % of one at
    256x256. Shapes and values stay what they were, only the order in memory is
    (out, in, *spatial), so that nothing is left to copy.

    Args:
        variables: of a network or its optimiser, on the PyTorch backend. What assigns
            to them later keeps the order.
    """
    for variable in variables:
        rank = len(variable.shape)
        if rank > 3:
            turned = variable.value.data.permute(-1, -2, *range(rank - 2))
            variable.value.data = turned.contiguous().permute(*range(2, rank), 1, 0)


@keras.saving.register_keras_serializable(package="dscpp")
class _ChannelsFirst(layers.Layer):
    """From (N, *spatial, C) to (N, C, *spatial), in that order in memory too.

    On PyTorch a view, as `Permute` gives, would make each convolution go back to
    channels-last inside.
    """

    def call(self, inputs: Any) -> Any:
        turned = keras.ops.moveaxis(inputs, -1, 1)
        return turned.contiguous() if _on_torch() else turned


@keras.saving.register_keras_serializable(package="dscpp")
class _InstanceNormalization(layers.GroupNormalization):
    """Keras' layer with one group a channel, channels-first, by PyTorch's kernel.

    Keras' own passes over the voxels one operation at a time.
    """

    def call(self, inputs: Any) -> Any:
        import torch

        return torch.group_norm(
            inputs, self.groups, self.gamma.value, self.beta.value, self.epsilon
        )
