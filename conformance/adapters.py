# SPDX-License-Identifier: Apache-2.0
"""Implementations as the suite sees them: NumPy arrays in, NumPy arrays out.

>>> adapter = TorchAdapter(my_module.dice_plus_plus, axis=1)
>>> adapter = KerasAdapter(losses.DicePlusPlus)
>>> adapter = JaxAdapter(lambda y, p: 1 - ..., name="mine")

Keras, PyTorch and JAX are imported when they are first used, never with this module.
Another framework needs a subclass with `_tensor`, `_numbers`, `_slopes` and, if float64
is not there at once, `_precision`: see `TorchAdapter`.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "DTYPES", "FRAMEWORKS", "Adapter", "JaxAdapter", "KerasAdapter", "NumpyAdapter",
    "TorchAdapter",
]  # fmt: skip

DTYPES = ("float16", "bfloat16", "float32", "float64")

Array = npt.NDArray[np.float64]

# What a probability of 0 becomes before its logarithm is given as a logit.
_SMALLEST = 1e-30


class Adapter:
    """One implementation of one loss.

    Args:
        target: what is tried: a function of labels and probabilities, a class or, with
            `factory`, a function, that is called with hyperparameters and returns such
            a function; or an object that is one.
        name: how reports call it; its own name by default.
        axis: where it wants the classes: -1 for (N, *spatial, C), 1 for
            (N, C, *spatial).
        settings: arguments that it is always given, such as `{"axis": 1}`.
        options: hyperparameters that it takes as keywords, by the names of
            `conformance.MEMBERS`, and "ignore_background" and "soft_labels" where it
            has these; by default what its signature names. Checks that need another
            are skipped.
        dtypes: types of the probabilities that it is meant for, some of `DTYPES`.
        soft_labels: whether it takes labels that are not one-hot.
        weight: name of its keyword for a weight of each voxel, (N, *spatial).
        factory: whether `target` makes the loss; a class always does.
        pred_first: whether its arguments are probabilities, then labels.
        from_logits: whether it takes logits and applies a softmax: then it is given the
            logarithms of the probabilities, and gradients are by these.
    """

    framework = ""
    has_gradient = True

    def __init__(
        self,
        target: Callable[..., Any],
        *,
        name: str | None = None,
        axis: int = -1,
        settings: Mapping[str, Any] | None = None,
        options: Iterable[str] | None = None,
        dtypes: Iterable[str] = DTYPES,
        soft_labels: bool = True,
        weight: str | None = None,
        factory: bool = False,
        pred_first: bool = False,
        from_logits: bool = False,
    ) -> None:
        self.target = target
        self.name = name or str(getattr(target, "__name__", type(target).__name__))
        self.axis = axis
        self.settings = dict(settings or {})
        self.options = frozenset(_named(target) if options is None else options)
        self.dtypes = tuple(dtypes)
        self.soft_labels = soft_labels
        self.weight = weight
        self.factory = factory or inspect.isclass(target)
        self.pred_first = pred_first
        self.from_logits = from_logits

    def values(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        dtype: str = "float32",
        **given: Any,
    ) -> Array:
        """Compute the loss.

        Args:
            y_true: labels, (N, *spatial, C).
            y_pred: probabilities, (N, *spatial, C).
            dtype: one of `DTYPES`; both are given to the implementation in it.
            **given: hyperparameters, and `weight`, of each voxel, (N, *spatial).

        Returns:
            What the implementation returns: (N,), or () for a mean over the images.
        """
        with self._precision(dtype):
            loss, p = self._bound(y_true, y_pred, dtype, **given)
            return self._numbers(loss(p))

    def gradient(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        dtype: str = "float32",
        **given: Any,
    ) -> Array:
        """Differentiate the sum of `values`, whose arguments it takes.

        Returns:
            The derivative by `y_pred`, or by the logits, (N, *spatial, C).
        """
        with self._precision(dtype):
            slopes = self._slopes(*self._bound(y_true, y_pred, dtype, **given))
            return np.moveaxis(self._numbers(slopes), self.axis, -1)

    def _bound(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        dtype: str,
        weight: npt.ArrayLike | None = None,
        **hyperparameters: Any,
    ) -> tuple[Callable[[Any], Any], Any]:
        """Return the implementation as a function of the prediction, and that."""
        p = np.asarray(y_pred, np.float64)
        if self.from_logits:
            p = np.log(np.maximum(p, _SMALLEST))
        y, p = (
            self._tensor(np.moveaxis(np.asarray(x), -1, self.axis), dtype)
            for x in (y_true, p)
        )
        call, keywords = self.target, {**self.settings, **hyperparameters}
        if self.factory:
            call, keywords = self._made(keywords, dtype), {}
        if weight is not None:
            if self.weight is None:
                raise TypeError(f"{self.name} takes no weight of voxels")
            keywords = {**keywords, self.weight: self._tensor(weight, dtype)}

        def loss(p: Any) -> Any:
            return call(*((p, y) if self.pred_first else (y, p)), **keywords)

        return loss, p

    def _made(self, arguments: Mapping[str, Any], dtype: str) -> Callable[..., Any]:
        return self.target(**arguments)

    def _precision(self, dtype: str) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which `dtype` can be computed."""
        return contextlib.nullcontext()

    def _tensor(self, array: npt.ArrayLike, dtype: str) -> Any:
        raise NotImplementedError

    def _numbers(self, tensor: Any) -> Array:
        raise NotImplementedError

    def _slopes(self, loss: Callable[[Any], Any], p: Any) -> Any:
        """Return the derivative of the sum of `loss(p)` by `p`."""
        raise NotImplementedError


class NumpyAdapter(Adapter):
    """A loss on NumPy arrays; without a gradient, and without bfloat16."""

    framework = "numpy"
    has_gradient = False

    def __init__(self, target: Callable[..., Any], **options: Any) -> None:
        dtypes = ("float16", "float32", "float64")
        super().__init__(target, **{"dtypes": dtypes, **options})

    def _tensor(self, array: npt.ArrayLike, dtype: str) -> Any:
        return np.asarray(array, dtype)

    def _numbers(self, tensor: Any) -> Array:
        return np.asarray(tensor, np.float64)


class TorchAdapter(Adapter):
    """A loss on PyTorch tensors: a function, or a module's class or object."""

    framework = "torch"

    def _tensor(self, array: npt.ArrayLike, dtype: str) -> Any:
        import torch

        array = np.ascontiguousarray(array, np.float64)
        return torch.from_numpy(array).to(getattr(torch, dtype))

    def _numbers(self, tensor: Any) -> Array:
        import torch

        return tensor.detach().to(torch.float64).cpu().numpy()

    def _slopes(self, loss: Callable[[Any], Any], p: Any) -> Any:
        return _torch_slopes(loss, p)


class JaxAdapter(Adapter):
    """A loss on JAX arrays."""

    framework = "jax"

    def _precision(self, dtype: str) -> contextlib.AbstractContextManager[Any]:
        return _jax_precision(dtype)

    def _tensor(self, array: npt.ArrayLike, dtype: str) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(_numpy_first(array, dtype), dtype)

    def _numbers(self, tensor: Any) -> Array:
        return np.asarray(tensor).astype(np.float64)

    def _slopes(self, loss: Callable[[Any], Any], p: Any) -> Any:
        return _jax_slopes(loss, p)


class KerasAdapter(Adapter):
    """A Keras loss, or a function on tensors of whatever backend Keras runs on.

    A class that takes `dtype` is made with float64 where that is tried: a Keras loss
    casts to float32 otherwise, as an object that was made before does.
    """

    framework = "keras"

    def _made(self, arguments: Mapping[str, Any], dtype: str) -> Callable[..., Any]:
        if dtype == "float64" and "dtype" in self.options:
            arguments = {**arguments, "dtype": dtype}
        return super()._made(arguments, dtype)

    def _precision(self, dtype: str) -> contextlib.AbstractContextManager[Any]:
        import keras

        if keras.backend.backend() == "jax":
            return _jax_precision(dtype)
        return contextlib.nullcontext()

    def _tensor(self, array: npt.ArrayLike, dtype: str) -> Any:
        from keras import ops

        return ops.cast(ops.convert_to_tensor(_numpy_first(array, dtype)), dtype)

    def _numbers(self, tensor: Any) -> Array:
        from keras import ops

        return np.asarray(ops.convert_to_numpy(tensor)).astype(np.float64)

    def _slopes(self, loss: Callable[[Any], Any], p: Any) -> Any:
        import keras

        slopes = {
            "tensorflow": _tensorflow_slopes,
            "jax": _jax_slopes,
            "torch": _torch_slopes,
        }
        return slopes[keras.backend.backend()](loss, p)


FRAMEWORKS: Mapping[str, type[Adapter]] = {
    each.framework: each
    for each in (KerasAdapter, TorchAdapter, JaxAdapter, NumpyAdapter)
}
"""The adapters by the name of their framework."""


def _tensorflow_slopes(loss: Callable[[Any], Any], p: Any) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(p)
        total = tf.reduce_sum(loss(p))
    return tape.gradient(total, p)


def _torch_slopes(loss: Callable[[Any], Any], p: Any) -> Any:
    p = p.detach().clone().requires_grad_(True)
    loss(p).sum().backward()
    return p.grad


def _jax_slopes(loss: Callable[[Any], Any], p: Any) -> Any:
    import jax

    return jax.grad(lambda q: loss(q).sum())(p)


def _jax_precision(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which JAX has float64, which it has only on demand."""
    import jax

    if dtype != "float64":
        return contextlib.nullcontext()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # before JAX 0.8

    return enable_x64(True)


def _numpy_first(array: npt.ArrayLike, dtype: str) -> npt.NDArray[Any]:
    """Convert to a type that NumPy has and that can hold `dtype`."""
    return np.asarray(array, np.float64 if dtype == "float64" else np.float32)


def _named(target: Callable[..., Any]) -> list[str]:
    """Return the arguments that can be given by name."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # of some builtins there is none to read
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.kind in kinds]
