# SPDX-License-Identifier: Apache-2.0
"""The checks: each says in its docstring what it asks of an implementation.

A check is a function of a `Subject`. It is content without a word, or raises `Failed`
with input, expected, received and tolerance, or `Skipped` with the reason.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from . import inputs
from .inputs import Sample
from .reference import Member
from .subject import Failed, Skipped, Subject, expect_close, expect_finite

__all__ = ["CHECKS", "Check"]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: as reports print it.
        description: what it asks for.
        run: content, or raises `Failed` or `Skipped`.
        concerns: whether a member of the family has what is tried.
        precisions: in which it is made.
    """

    name: str
    description: str
    run: Callable[[Subject], None]
    concerns: Callable[[Member], bool] = lambda member: True
    precisions: tuple[str, ...] = ("float32", "float64")


CHECKS: list[Check] = []
"""All checks, in the order in which they are made."""


def _has(hyperparameter: str) -> Callable[[Member], bool]:
    return lambda member: hyperparameter in member.defaults


def _check(
    concerns: Callable[[Member], bool] = lambda member: True,
    precisions: tuple[str, ...] = ("float32", "float64"),
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Enter a function among `CHECKS`, with its docstring as description."""

    def enter(run: Callable[[Subject], None]) -> Callable[[Subject], None]:
        text = " ".join((run.__doc__ or "").split())
        CHECKS.append(Check(run.__name__, text, run, concerns, precisions))
        return run

    return enter


# --- values --------------------------------------------------------------------------


@_check()
def values_agree(subject: Subject) -> None:
    """Values are the reference's, in 2D and 3D, for 2 to 5 classes (float64: 3, 4)."""
    for seed, shape in enumerate(inputs.SHAPES[subject.precision]):
        subject.expect_reference(subject.sample(shape, seed=seed))


@_check()
def values_agree_where_p_is_extreme(subject: Subject) -> None:
    """Values keep their digits where p is up to 1e-6 near 0 and 1, right or wrong.

    In float32 `1 - ratio` is 0 where the DSC++ loss is 5e-12: (FN + FP) / (...) is not.
    """
    if subject.adapter.from_logits:
        raise Skipped("a softmax does not give such p to the last digit")
    for prediction in ("right", "wrong"):
        subject.expect_reference(subject.sample(prediction=prediction))


@_check()
def values_agree_on_voxels_without_class(subject: Subject) -> None:
    """A voxel labelled 0 in every class is put into the formula as it is.

    It is a false positive of every class for overlap and Combo, and nothing for the
    cross entropies, which count it among the voxels.
    """
    subject.expect_reference(subject.sample(labels="holes"))


@_check()
def soft_labels_follow_the_formula(subject: Subject) -> None:
    """Soft labels are put into the formula as they are; FN and FP are above 0 at p = y.

    With y = p = 1/2 everywhere DSC is 1/2 and DSC++ (g = 2) is 1/5, not 0.
    """
    if not subject.adapter.soft_labels:
        raise Skipped("takes one-hot labels only")
    soft = subject.sample(labels="soft")
    near = "moderate" if subject.adapter.from_logits else "right"
    for sample in (soft, subject.sample(labels="smoothed", prediction=near)):
        subject.expect_reference(sample)
    equal = Sample("soft labels, p equal to y", soft.y_true, soft.y_true)
    subject.expect_reference(equal)


@_check()
def soft_labels_can_be_reached(subject: Subject) -> None:
    """`soft_labels` gives the form that is lowest at p = y.

    Hits are min(y, p), errors (y - p)+ and (p - y)+, the focal factor is |y - p|. With
    one-hot labels values stay as they are; at p = y value and gradient are finite.
    """
    if not subject.takes("soft_labels"):
        raise Skipped("does not take soft_labels")
    for labels in ("hard", "holes", "soft", "smoothed"):
        sample = subject.sample(labels=labels, seed=2)
        subject.expect_reference(sample, soft_labels=True)
        if labels in ("hard", "holes"):
            usual = subject.values(sample)
            received = subject.values(sample, soft_labels=True)
            allowed = subject.tolerance * subject.reference(sample).scale
            expect_close(f"soft_labels, {sample.title}", received, usual, allowed)
    # Slopes change their sign at p = y: labels that are not too near to it.
    _, y, p = inputs.sample(seed=3)
    half = Sample("labels half way from p to one-hot ones, seed 3", (y + p) / 2, p)
    _expect_gradient(subject, subject.rounded(half), soft_labels=True)
    equal = sample._replace(title="soft labels, p equal to y", y_pred=sample.y_true)
    _expect_finite(subject, equal, subject.precision, soft_labels=True)


@_check()
def values_agree_with_other_hyperparameters(subject: Subject) -> None:
    """Each hyperparameter does what the formula says, in every combination tried."""
    sample, tried = subject.sample(seed=1), 0
    for variant in _variants(subject.member):
        if subject.takes(*variant) and not set(variant) & set(subject.fixed):
            subject.expect_reference(sample, **variant)
            tried += 1
    if not tried:
        raise Skipped("takes none of the hyperparameters that could be varied")


@_check(concerns=lambda member: member.plain is not None)
def gamma_1_is_the_plain_loss(subject: Subject) -> None:
    """The ++ form at gamma = 1 is the plain loss."""
    if not subject.takes("gamma"):
        raise Skipped("does not take gamma")
    sample = subject.sample(labels="holes")
    expected = subject.plain().reference(sample)
    received = subject.values(sample, gamma=1.0)
    allowed = subject.tolerance * expected.scale
    expect_close(f"gamma=1, {sample.title}", received, expected.value, allowed)


@_check(concerns=_has("epsilon"))
def absent_classes_cost_what_epsilon_says(subject: Subject) -> None:
    """A class absent from an image adds FP / (FP + epsilon) to DSC's mean, and so on.

    At the default 1e-7 that is 1 for any FP worth mentioning: a class that is not there
    costs all it can unless nothing at all is predicted of it.
    """
    y = np.zeros(inputs.STANDARD)
    y[..., 0] = 1
    p = np.where(y == 1, 0.75, 0.125)
    sample = Sample("only class 0 present, p = 0.125 of the others", y, p)
    subject.expect_reference(sample)
    if subject.takes("epsilon") and "epsilon" not in subject.fixed:
        for epsilon in (0.25, 5.0):
            subject.expect_reference(sample, epsilon=epsilon)


@_check()
def perfect_prediction_costs_least(subject: Subject) -> None:
    """At p = y the value is 0, for Combo -(1 - alpha), within 1e-3, never below."""
    y = inputs.sample().y_true
    sample = Sample("p equal to y", y, y)
    least = subject.fixed.get("alpha", subject.member.defaults.get("alpha", 1.0)) - 1
    least = least if subject.member.name.startswith("Combo") else 0.0
    expected = np.full(len(y), least)
    received = subject.values(sample)
    expect_close(sample.title, received, expected, 1e-3)
    if (received < least - 1e-6).any():
        raise Failed(
            f"{sample.title}: expected {least:g} at least, received {received.min():g}"
        )


@_check()
def wrong_predictions_are_clipped_at_1e_7(subject: Subject) -> None:
    """With p exactly 0 and 1, each wrong, the value is that of p clipped to 1e-7.

    Within 2 %: in float32 the upper end is 1 - 1.19e-7.
    """
    if subject.adapter.from_logits:
        raise Skipped("a softmax is never exactly 0 or 1")
    sample = inputs.edges()["all_wrong"][0]
    expected = subject.reference(sample)
    received = subject.values(sample)
    expect_close(sample.title, received, expected.value, 0.02 * expected.scale)


@_check(precisions=("float32",))
def large_images_keep_their_digits(subject: Subject) -> None:
    """The value of a 512x500 image is right in float32: sums one by one are not."""
    subject.expect_reference(subject.sample((1, 512, 500, 2)))


# --- symmetries ----------------------------------------------------------------------


@_check()
def voxel_order_is_irrelevant(subject: Subject) -> None:
    """Moving voxels about inside an image changes nothing."""
    sample = subject.sample(labels="holes")
    order = np.random.default_rng(0).permutation(15)
    y, p = (
        x.reshape(2, 15, 3)[:, order].reshape(x.shape)
        for x in (sample.y_true, sample.y_pred)
    )
    _expect_equal(subject, sample, Sample(f"{sample.title}, voxels permuted", y, p))


@_check()
def class_order_is_irrelevant(subject: Subject) -> None:
    """Renaming classes changes nothing; for Unified Focal, those of foreground."""
    sample = subject.sample()
    order = [0, 2, 1] if subject.member.asymmetric else [2, 0, 1]
    y, p = (x[..., order] for x in (sample.y_true, sample.y_pred))
    _expect_equal(subject, sample, Sample(f"{sample.title}, classes {order}", y, p))


@_check()
def images_are_independent(subject: Subject) -> None:
    """An image's value does not depend on its batch; a mean is that of the images."""
    sample = subject.sample(labels="holes")  # images of unlike sums
    allowed = subject.tolerance * subject.reference(sample).scale.mean()
    received = subject.raw_values(sample).reshape(-1)
    if not subject.per_image:
        mean = subject.values(sample).mean(keepdims=True)
        expect_close(f"mean of a batch, {sample.title}", received, mean, allowed)
        return
    for i in range(2):  # beside itself, it has its own value
        y, p = (x[[i, i]] for x in (sample.y_true, sample.y_pred))
        twice = subject.values(Sample(f"image {i} twice", y, p))
        beside = received[[i, i]]
        expect_close(
            f"image {i} beside another, {sample.title}", beside, twice, allowed
        )


@_check()
def errors_never_pay(subject: Subject) -> None:
    """With one-hot labels, p of a class moved away from its label never costs less.

    True of each formula, whatever the other p are: TP falls, or FN or FP rises, and so
    do the cross entropies. (With soft labels it is not true: y log p rises with p.) The
    classes of a voxel moved together, as a softmax moves them, must cost more.
    """
    base, together = subject.sample(), slice(0, 3)
    alone = [slice(c, c + 1) for c in range(3)]
    if subject.adapter.from_logits:  # a softmax moves the others too
        alone = []
    for class_and_row in ((0, 0), (2, 4)):
        for classes in (*alone, together):
            _expect_rising(subject, base, (*class_and_row, classes))


# --- options -------------------------------------------------------------------------


@_check()
def a_mask_is_as_if_voxels_were_absent(subject: Subject) -> None:
    """A weight of voxels is inside the sums: 0 is as if the voxel were not there."""
    if subject.adapter.weight is None:
        raise Skipped("takes no weight of voxels")
    sample = subject.sample(labels="holes")
    rng = np.random.default_rng(1)
    mask = rng.integers(0, 2, sample.y_true.shape[:-1]).astype(float)
    for weight in (mask, mask * rng.integers(1, 4, mask.shape)):
        subject.expect_reference(sample, weight=weight)
    none = np.zeros_like(mask)
    expect_finite("a weight of 0 alone", subject.values(sample, weight=none))
    if subject.adapter.has_gradient:
        for weight in (mask, none):
            unseen = subject.gradient(sample, weight=weight)[weight == 0]
            zeros = np.zeros_like(unseen)
            expect_close("gradient where the weight is 0", unseen, zeros, 0)


@_check()
def scale_of_weights_is_irrelevant(subject: Subject) -> None:
    """Weights of voxels times 1000 or 1/1000 change no value by more than 1e-3.

    They do change it a little where the formula has an epsilon, which stays as it is.
    """
    if subject.adapter.weight is None:
        raise Skipped("takes no weight of voxels")
    sample = subject.sample()
    weight = np.random.default_rng(1).uniform(1, 4, sample.y_true.shape[:-1])
    expected = subject.values(sample, weight=weight)
    allowed = 1e-3 * subject.reference(sample, weight=weight).scale
    for scale in (1e3, 1e-3):
        received = subject.values(sample, weight=scale * weight)
        title = f"weights times {scale:g}, {sample.title}"
        expect_close(title, received, expected, allowed)


@_check()
def background_can_be_ignored(subject: Subject) -> None:
    """`ignore_background` leaves class 0 out of the sums and means over classes."""
    if not subject.takes("ignore_background"):
        raise Skipped("does not take ignore_background")
    for shape in inputs.SHAPES[subject.precision][:2]:
        sample = subject.sample(shape, labels="holes")
        subject.expect_reference(sample, ignore_background=True)
    if subject.adapter.has_gradient and not subject.adapter.from_logits:
        ignored = subject.gradient(sample, ignore_background=True)[..., 0]
        zeros = np.zeros_like(ignored)
        expect_close("gradient by p of the background", ignored, zeros, 0)


# --- gradients, and the ends of the formulas -----------------------------------------


@_check()
def gradients_agree(subject: Subject) -> None:
    """Gradients are the central differences of the reference, with one-hot labels."""
    _expect_gradient(subject, subject.sample(seed=3))


@_check()
def gradients_agree_on_soft_labels(subject: Subject) -> None:
    """Gradients are the central differences of the reference, with soft labels."""
    if not subject.adapter.soft_labels:
        raise Skipped("takes one-hot labels only")
    _expect_gradient(subject, subject.sample(labels="soft", seed=3))


@_check(concerns=_has("gamma"))
def gradients_are_finite_with_gamma_below_1(subject: Subject) -> None:
    """With gamma = 1/2 the gradient is finite at all edges, and right between them.

    The slope of a root is infinite at 0, where FN and FP have most of their terms.
    """
    if not subject.takes("gamma"):
        raise Skipped("does not take gamma")
    _expect_gradient(subject, subject.sample(seed=4), gamma=0.5)
    for edge in inputs.edges().values():
        for sample in edge:
            _expect_finite(subject, sample, subject.precision, gamma=0.5)


def _finite(edge: str, subject: Subject) -> None:
    for sample in inputs.edges()[edge]:
        _expect_finite(subject, sample, subject.precision)


def _half(dtype: str, subject: Subject) -> None:
    if dtype not in subject.adapter.dtypes:
        raise Skipped(f"is not meant for {dtype}")
    for edge in inputs.edges().values():
        for sample in edge:
            _expect_finite(subject, subject.rounded(sample, dtype), dtype)
    if not subject.adapter.from_logits:  # their softmax is in this precision
        subject.expect_reference(subject.rounded(inputs.sample(), dtype), dtype)


for _name, _what in {
    "perfect_prediction": "p equal to y, also where only background is there",
    "all_wrong": "every voxel wholly of another class",
    "empty_class": "classes absent from the image",
    "no_class": "no voxel of any class",
    "p_at_0_and_1": "p exactly 0 and 1, right and wrong",
}.items():
    _text = f"Value and gradient are finite numbers: {_what}."
    CHECKS.append(Check(f"finite_at_{_name}", _text, partial(_finite, _name)))
for _dtype in ("float16", "bfloat16"):
    _text = (
        f"From {_dtype} the value is that of float32 at the same numbers, and value "
        "and gradient are finite at all edges."
    )
    CHECKS.append(
        Check(
            f"{_dtype}_is_computed_in_float32",
            _text,
            partial(_half, _dtype),
            precisions=("float32",),
        )
    )


# Of a gradient: of itself, and of the largest in the image. The differences of float64
# are right to about 1e-8.
_STEP = 3e-4
_GRADIENT: Mapping[str, tuple[float, float]] = {
    "float32": (1e-4, 1e-5),
    "float64": (1e-6, 1e-7),
}


# How far from its label a p is moved, to see whether that costs more.
_STEPS = (0.02, 0.25, 0.5, 0.75, 0.98)


# --- what the checks share -----------------------------------------------------------


_OTHERS = {
    "alpha": 0.8, "beta": 0.4, "gamma": 3.0, "lambda_": 0.9, "delta": 0.3,
    "focal_gamma": 0.75, "epsilon": 0.5, "penalty": 3.0, "bins": 7.0,
}  # fmt: skip


def _variants(member: Member) -> Iterator[dict[str, Any]]:
    """Hyperparameters to try: one by one away from Table 2's, then all at once."""
    values = {name: _OTHERS[name] for name in member.defaults}
    yield from ({name: value} for name, value in values.items())
    if len(values) > 1:
        yield values
    if "gamma" in values:
        yield from (values | {"gamma": gamma} for gamma in (0.5, 1.5))
    if member.name == "Focal":
        yield {"alpha": 1.0, "focal_gamma": 0.0}


def _expect_equal(subject: Subject, usual: Sample, other: Sample) -> None:
    allowed = subject.tolerance * subject.reference(usual).scale
    expected, received = subject.values(usual), subject.values(other)
    expect_close(other.title, received, expected, allowed)


def _expect_rising(
    subject: Subject, base: Sample, voxels: tuple[int, int, slice]
) -> None:
    """Move p at `voxels` in both images from the label to the opposite, in steps."""
    row, column, classes = voxels
    title = f"p of voxel {voxels[:2]}, classes {classes.start} to {classes.stop - 1}"
    each = []
    for step in _STEPS:
        p = base.y_pred.copy()
        p[:, row, column, classes] = np.abs(base.y_true[:, row, column, classes] - step)
        moved = subject.rounded(Sample(f"{title}, {step} from y", base.y_true, p))
        each.append(subject.values(moved))
        expect_finite(moved.title, each[-1])
    values = np.stack(each)
    allowed = subject.tolerance * np.abs(values).max()
    if (np.diff(values, axis=0) < -allowed).any():
        raise Failed(
            f"{title}, {list(_STEPS)} from y: expected values that do not fall by more "
            f"than {allowed:.2g}, received {np.round(values.T, 6).tolist()}"
        )
    if classes == slice(0, base.y_pred.shape[-1]) and (values[-1] <= values[0]).any():
        raise Failed(
            f"{title}, {_STEPS[-1]} from y: expected values above "
            f"{values[0].tolist()}, received {values[-1].tolist()}"
        )


def _expect_gradient(subject: Subject, sample: Sample, **options: Any) -> None:
    received = subject.gradient(sample, **options)
    images = [sample.image(i) for i in range(len(sample.y_true))]
    expected = np.concatenate([_differences(subject, x, **options) for x in images])
    relative, absolute = _GRADIENT[subject.precision]
    allowed = relative * np.abs(expected) + absolute * np.abs(expected).max()
    expect_close(f"gradient, {sample.title}", received, expected, allowed)


def _differences(subject: Subject, image: Sample, **options: float) -> np.ndarray:
    """Differences of the reference by each p of an image.

    By each logit where logits are given: to add to one is to multiply its p. From two
    steps Richardson's formula takes out the error that is quadratic in them.
    """
    p = image.y_pred
    room = np.ones_like(p) if subject.adapter.from_logits else np.minimum(p, 1 - p)
    whole, half = (
        _central(subject, image, x * room, options) for x in (_STEP, _STEP / 2)
    )
    return (4 * half - whole) / 3


def _central(
    subject: Subject, image: Sample, steps: np.ndarray, options: Mapping[str, float]
) -> np.ndarray:
    """Central differences by each p, each with its own step, as one batch."""
    p, step = image.y_pred, steps.ravel()
    moves = np.diag(step).reshape(-1, *p.shape[1:])
    y = np.repeat(image.y_true, len(moves), axis=0)
    both = (
        p * np.exp(x) if subject.adapter.from_logits else p + x for x in (moves, -moves)
    )
    up, down = (subject.reference(Sample("", y, x), **options).value for x in both)
    return ((up - down) / (2 * step)).reshape(p.shape)


def _expect_finite(
    subject: Subject, sample: Sample, dtype: str, **options: Any
) -> None:
    title = f"{sample.title}, {dtype}"
    expect_finite(title, subject.values(sample, dtype, **options))
    if subject.adapter.has_gradient:
        gradient = subject.gradient(sample, dtype, **options)
        expect_finite(f"gradient, {title}", gradient)
