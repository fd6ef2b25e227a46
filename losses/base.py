# SPDX-License-Identifier: Apache-2.0
"""What the losses share: what is done to their arguments, and the class's shell."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, TypedDict, Unpack

import keras
from keras import ops

from . import checks
from .titles import slug

# A tensor of the Keras backend in use, or a NumPy array.
Tensor = Any

# Probabilities are held in [1e-7, 1 - 1e-7], as in the released code.
PROBABILITY_FLOOR = 1e-7

# Below this an error counts as 0 where the exponent is below 1; see power_of_error.
_ERROR_FLOOR = 1e-30


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
        soft_labels: whether labels between 0 and 1 are to be reached: then the loss is
            lowest at p = y. Hits are min(y, p), errors (y - p)+ and (p - y)+, and the
            focal factor is |y - p|; with labels of 0 and 1 all are the same as without.
            Default False: the labels are put into the formulas as they are. It does not
            reach the cross entropy of Combo with `beta` other than 1/2, that of the
            foreground in Unified Focal, and NACL.
    """

    axis: int
    ignore_background: bool
    from_logits: bool
    from_indices: bool
    soft_labels: bool


class Shell(Options, total=False):
    """What every class of a loss takes besides its hyperparameters and its name.

    Attributes:
        reduction: as in `keras.losses.Loss`; the default is the mean over images.
        dtype: precision of the arithmetic; float16 and bfloat16 are raised to float32.
    """

    reduction: str | None
    dtype: Any


@dataclass(eq=False)
class Voxels:
    """Checked labels and predictions of one type, float32 or float64.

    What is made from the predictions is made when it is asked for.

    Attributes:
        y_true: labels, (N, *spatial, C) from class `first` on, or one channel.
        scores: probabilities or logits of all classes, or one channel of foreground.
        axis: axis of the classes, counted from 0.
        first: the first class that counts: 0, or 1 without the background.
        from_logits: whether `scores` are logits.
        weight: weight of each voxel, with a class axis of length 1; None for 1.
        soft: whether hits are min(y, p), not y p.
    """

    y_true: Tensor
    scores: Tensor
    axis: int
    first: int = 0
    from_logits: bool = False
    weight: Tensor | None = None
    soft: bool = False

    @property
    def is_pair(self) -> bool:
        """Whether one channel stands for two classes, background and foreground."""
        return self.first == 0 and self.scores.shape[self.axis] == 1

    @cached_property
    def y_pred(self) -> Tensor:
        """Probabilities in [1e-7, 1 - 1e-7], of the shape of `y_true`."""
        chances = self.scores
        if self.from_logits and chances.shape[self.axis] == 1:
            chances = ops.sigmoid(chances)
        elif self.from_logits:
            chances = ops.softmax(chances, axis=self.axis)
        chances = _from_class(chances, self.first, self.axis)
        return ops.clip(chances, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)

    @cached_property
    def log_pred(self) -> Tensor:
        """Logarithms of the probabilities; not of one channel, see `spread`."""
        if not self.from_logits:
            return ops.log(self.y_pred)
        return _from_class(self._logs, self.first, self.axis)

    @cached_property
    def log_rest(self) -> Tensor:
        """Logarithms of 1 minus the probabilities; not of one channel either."""
        if not self.from_logits:
            # log1p keeps the digits of a small p, of which 1 - p keeps few.
            return ops.log1p(-self.y_pred)
        # From the other classes' logits: 1 - p itself is 0 where p is 1 in float32.
        classes = range(self.scores.shape[self.axis])
        parts = [_at(self._logs, c, c + 1, self.axis) for c in classes]
        rest = [
            ops.logsumexp(
                ops.concatenate([*parts[:c], *parts[c + 1 :]], self.axis),
                axis=self.axis,
                keepdims=True,
            )
            for c in range(self.first, len(parts))
        ]
        return ops.concatenate(rest, axis=self.axis)

    @cached_property
    def _logs(self) -> Tensor:
        """Logarithms of the softmax of all classes, from logits."""
        return ops.log_softmax(self.scores, axis=self.axis)

    def spread(self) -> "Voxels":
        """The same with two classes in the place of one channel."""
        if self.scores.shape[self.axis] != 1:
            return self
        y_true = _with_rest(self.y_true, self.axis) if self.is_pair else self.y_true
        scores = _two_scores(self.scores, self.axis, self.from_logits)
        return replace(self, y_true=y_true, scores=scores)

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
    **options: Unpack[Options],
) -> Voxels:
    """Check the shapes, raise to float32 at least, make labels one-hot.

    A prediction of one channel is that of the foreground: from p the classes are the
    background with 1 - p and the foreground with p, and likewise from its label.

    The cast comes before the clip of probabilities: 1 - 1e-7 is 1 in float16. In
    float32 it is 1 - 1.19e-7. Clipping has gradient 0 outside the range, so a voxel
    whose p is exactly 0 or 1 does not learn; from a softmax it would not have learnt
    anyway, since the softmax's own gradient is 0 there. Give a model of low precision a
    softmax in float32 (`keras.layers.Activation("softmax", dtype="float32")`), or give
    logits.

    The arguments, and what is refused, are in the package's docstring.
    """
    chosen = checks.options(options)
    backend = keras.backend.backend()
    checks.tensors(backend, y_true=y_true, y_pred=y_pred, weight=weight)
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    checks.shapes(y_true, y_pred, chosen["axis"], chosen["from_indices"])
    axis, first = chosen["axis"] % len(y_pred.shape), int(chosen["ignore_background"])
    dtype = _at_least_float32(keras.backend.standardize_dtype(y_pred.dtype))
    if weight is not None:
        checks.voxel_weight_shape(weight, y_pred, axis)
        weight = ops.cast(ops.convert_to_tensor(weight), dtype)
        weight = ops.expand_dims(weight, axis)
    scores = ops.cast(y_pred, dtype)
    if chosen["from_indices"]:
        # Two classes, since a voxel whose index is none of them has no class.
        if scores.shape[axis] == 1:
            scores = _two_scores(scores, axis, chosen["from_logits"])
        y_true = _one_hot(y_true, scores, axis)
    else:
        y_true = ops.cast(y_true, dtype)
    if y_true.shape[axis] != 1:
        y_true = _from_class(y_true, first, axis)
    logits, soft = chosen["from_logits"], chosen["soft_labels"]
    return Voxels(y_true, scores, axis, first, logits, weight, soft)


def _with_rest(values: Tensor, axis: int) -> Tensor:
    return ops.concatenate([1 - values, values], axis=axis)


def _two_scores(scores: Tensor, axis: int, from_logits: bool) -> Tensor:
    """Scores of two classes from those of one channel of foreground."""
    if not from_logits:
        return _with_rest(scores, axis)
    # The softmax of (0, z) is (1 - sigmoid(z), sigmoid(z)).
    return ops.concatenate([ops.zeros_like(scores), scores], axis=axis)


def _one_hot(indices: Tensor, like: Tensor, axis: int) -> Tensor:
    """One-hot labels of the classes that `like` has, 0 for an index of no class.

    Not `ops.one_hot`, which is an error on PyTorch where an index is no class.
    """
    if len(indices.shape) < len(like.shape):
        indices = ops.expand_dims(indices, axis)
    shape = [1] * len(like.shape)
    shape[axis] = like.shape[axis]
    classes = ops.reshape(ops.arange(like.shape[axis], dtype="int32"), shape)
    return ops.cast(ops.equal(ops.cast(indices, "int32"), classes), like.dtype)


def _at(tensor: Tensor, start: int, stop: int | None, axis: int) -> Tensor:
    return tensor[(*[slice(None)] * axis, slice(start, stop))]


def _from_class(tensor: Tensor, first: int, axis: int) -> Tensor:
    """The classes from `first` on; one channel is the foreground already."""
    whole = first == 0 or tensor.shape[axis] == 1
    return tensor if whole else _at(tensor, first, None, axis)


def split_classes(tensor: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The first class and all others, along `axis`, counted from 0."""
    return _at(tensor, 0, 1, axis), _at(tensor, 1, None, axis)


def mean(values: Tensor, axis: int) -> Tensor:
    """Mean along one axis. `ops.mean` on PyTorch takes float64 through float32."""
    length = ops.cast(ops.shape(values)[axis], values.dtype)
    return ops.sum(values, axis=axis) / length


def power(values: Tensor, exponent: float) -> Tensor:
    """`values ** exponent`, the exponent rounded to the type of `values` and no more.

    PyTorch would round a plain number to float32. Identity, square and square root
    cost no power.
    """
    if exponent == 1:
        return values
    if exponent == 2:
        return ops.square(values)
    if exponent == 0.5:
        return ops.sqrt(values)
    dtype = keras.backend.standardize_dtype(values.dtype)
    return ops.power(values, ops.convert_to_tensor(exponent, dtype=dtype))


def power_of_error(errors: Tensor, exponent: float) -> Tensor:
    """`errors ** exponent` with a finite gradient at 0, where most errors lie."""
    if exponent >= 1:
        return power(errors, exponent)
    # The slope of x^g at 0 is infinite for g < 1, and infinity times the 0 of the
    # label is NaN. So the power never sees a 0, and a 0 gets gradient 0. Tensors in
    # the place of the numbers 1 and 0, since PyTorch would go through float32.
    above = errors > _ERROR_FLOOR
    powers = power(ops.where(above, errors, ops.ones_like(errors)), exponent)
    return ops.where(above, powers, ops.zeros_like(errors))


def _at_least_float32(dtype: str | None) -> str:
    """`dtype`, or float32 where it is narrower; None means Keras' `floatx`."""
    return "float64" if (dtype or keras.config.floatx()) == "float64" else "float32"


class PerImageLoss(keras.losses.Loss):
    """What the loss classes share; each brings its title and its function.

    The hyperparameters of a class, and their defaults, are those in the signature of
    its function. A title that ends in "++" adds `gamma`, 2 by default; in the other
    classes `gamma` is 1, and no argument.

    Args:
        name: name of the loss in logs; by default `slug` of its title.
        reduction: see `Shell`.
        dtype: see `Shell`.
        **arguments: hyperparameters of the function, and `Options`. All are attributes
            of the loss, and a new value counts from the next call on.

    Raises:
        ValueError: an argument that the loss does not take, or a value out of range.
    """

    title: ClassVar[str]
    function: ClassVar[Callable[..., Tensor]]
    focal_range: ClassVar[checks.Range] = checks.NOT_NEGATIVE
    defaults: ClassVar[Mapping[str, float]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        parameters = inspect.signature(cls.function).parameters
        defaults = {k: v.default for k, v in parameters.items() if k in checks.RANGES}
        if cls.title.endswith("++"):
            defaults["gamma"] = 2.0
        else:
            defaults.pop("gamma", None)
        cls.defaults = defaults
        cls.__init__ = _with_signature(defaults)  # type: ignore[method-assign]

    def __init__(
        self,
        *,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
        **arguments: Any,
    ) -> None:
        dtype = _loss_dtype(dtype)
        super().__init__(name or slug(self.title), reduction=reduction, dtype=dtype)
        self._refuse_unknown(arguments)
        options = {k: v for k, v in arguments.items() if k in checks.OPTIONS}
        hyperparameters = {k: arguments.get(k, v) for k, v in self.defaults.items()}
        values = checks.hyperparameters(self.focal_range, **hyperparameters)
        values |= checks.options(options)
        self._arguments = tuple(values)
        for argument, value in values.items():
            setattr(self, argument, value)

    def _refuse_unknown(self, arguments: Mapping[str, Any]) -> None:
        known = [*sorted(self.defaults), *checks.OPTIONS, "reduction", "dtype", "name"]
        unknown = [argument for argument in arguments if argument not in known]
        if not unknown:
            return
        hint = ""
        if "gamma" in unknown:
            hint = ". gamma is the exponent of the ++ losses"
            hint += "; its own is focal_gamma" * ("focal_gamma" in self.defaults)
        raise ValueError(
            f"{self.title}: expected arguments among {', '.join(known)}, received "
            f"{', '.join(unknown)}{hint}"
        )

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
            ValueError: shapes that do not fit; a tensor of another framework than
                Keras runs on.
        """
        backend = keras.backend.backend()
        tensors = {"y_true": y_true, "y_pred": y_pred, "sample_weight": sample_weight}
        checks.tensors(backend, **tensors)
        if sample_weight is not None:
            sample_weight = ops.convert_to_tensor(sample_weight)
            y_pred = ops.convert_to_tensor(y_pred)
            if checks.sample_weight(sample_weight, y_pred, self.axis) == "voxels":
                return super().__call__((y_true, sample_weight), y_pred)
        return super().__call__(y_true, y_pred, sample_weight=sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per image, (N,); `y_true` may be labels and weights of voxels."""
        y_true, weight = y_true if isinstance(y_true, tuple) else (y_true, None)
        return type(self).function(y_true, y_pred, weight=weight, **self._values())

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this loss again."""
        return {**super().get_config(), "dtype": self.dtype, **self._values()}

    def _values(self) -> dict[str, Any]:
        return {argument: getattr(self, argument) for argument in self._arguments}


def _with_signature(defaults: Mapping[str, float]) -> Callable[..., None]:
    """`PerImageLoss.__init__` that names its arguments, as `help` shows them."""
    shared = PerImageLoss.__init__

    @functools.wraps(shared)
    def initialise(self: PerImageLoss, **arguments: Any) -> None:
        shared(self, **arguments)

    parameters = list(inspect.signature(shared).parameters.values())
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        for name, value in {**defaults, **checks.OPTIONS}.items()
    ]
    parameters = [parameters[0], *named, *parameters[1:-1]]
    signature = inspect.Signature(parameters, return_annotation=None)
    initialise.__signature__ = signature  # type: ignore[attr-defined]
    return initialise


def _loss_dtype(dtype: Any) -> str:
    if dtype is not None:
        dtype = keras.dtype_policies.get(dtype).compute_dtype
    return _at_least_float32(dtype)
