"""Entries about the losses: the printed or released formula beside the right one.

The right ones are `conformance.reference`, in float64; the others are written here from
the equations as they are printed. No line is taken from the released code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.reference import FLOOR, reference
from errata.examples import Floats, one_hot, pair, softmax
from errata.registry import Row, measured

# Six voxels, two of them foreground, with one hesitant and one confident error.
TRUTH = np.array([0, 0, 0, 0, 1, 1])
CHANCE = np.array([0.01, 0.1, 0.4, 0.9, 0.95, 0.3])
EXAMPLE = "six voxels, two of them foreground"


def value(name: str, y: Floats, p: Floats, **hyperparameters: Any) -> float:
    """A loss of the reference for a batch of one image."""
    return float(reference(name, y, p, **hyperparameters).value[0])


@measured("focal-gamma", "constructed", "one voxel whose class has p = 0.7, alpha 1")
def focal_gamma() -> Iterator[Row]:
    """Where the Focal loss equals CE: the paper says at gamma 1, it is at 0."""
    y, p = one_hot([1]), pair([0.7])
    entropy = value("CE", y, p)
    focal = (value("Focal", y, p, alpha=1.0, focal_gamma=g) for g in (1.0, 0.0))
    yield Row(
        "Focal / CE at gamma 1 (the paper: equal), at gamma 0",
        *(one / entropy for one in focal),
    )
    yield Row(
        "Focal / CE at gamma 0, with Table 2's alpha and with 1",
        value("Focal", y, p, focal_gamma=0.0) / entropy,
        value("Focal", y, p, alpha=1.0, focal_gamma=0.0) / entropy,
    )


@measured("class-sums", "constructed", "logits of 1000 voxels from a seed")
def class_sums() -> Iterator[Row]:
    """Sum or mean over classes: what a step of SGD moves, and Unified Focal's balance.

    The gradient is by central differences of the reference over the logits.
    """
    for classes in (2, 3):
        norms = [
            float(np.linalg.norm(_gradient(classes, factor))) for factor in (classes, 1)
        ]
        yield Row(
            f"Tversky, {classes} classes: step at learning rate 0.1 (length in logits)",
            *(0.1 * norm for norm in norms),
        )
        yield Row(
            f"Tversky, {classes} classes: learning rate that gives the mean's "
            "step at 0.1",
            0.1 * norms[0] / norms[1],
            0.1,
        )
    y, p = one_hot(TRUTH), pair(CHANCE)
    overlap, entropy = (
        value("Unified Focal", y, p, lambda_=weight) for weight in (1.0, 0.0)
    )
    yield Row(
        "Unified Focal, two classes: Tversky part / focal part",
        2 * overlap / entropy,
        overlap / entropy,
    )


def _gradient(classes: int, factor: int) -> Floats:
    random = np.random.default_rng(0)
    y = one_hot(random.integers(classes, size=1000), classes)
    logits = random.normal(size=y.shape) + 2 * y
    step, found = 1e-4, np.empty(50)
    for number in range(found.size):
        moved = []
        for sign in (1, -1):
            shifted = logits.copy()
            shifted[0, number, 0] += sign * step
            moved.append(factor * value("Tversky", y, softmax(shifted)))
        found[number] = (moved[0] - moved[1]) / (2 * step)
    return found


@measured("eq14-sign", "constructed", "one background voxel, beta 0.5")
def eq14_sign() -> Iterator[Row]:
    """The modified CE with its second term outside the minus, and inside.

    Eq. 14's own form, one channel: the reference is its mean over both classes.
    """
    for p in (0.1, 0.9, 1 - FLOOR):
        term = 0.5 * np.log1p(-p)
        yield Row(
            f"mCE where the network says foreground with p = {p:.7g}",
            float(term),
            float(-term),
        )


@measured("class-weights", "constructed", EXAMPLE)
def class_weights() -> Iterator[Row]:
    """The authors' other repository: weights per class of the one-hot CE, summed."""
    y, p = one_hot(TRUTH), pair(CHANCE)
    for beta in (0.5, 0.7):
        weights = np.array([beta, 1 - beta])
        theirs = float(np.mean(np.sum(-weights * y * np.log(p), axis=-1)))
        ours = value("Combo", y, p, alpha=1.0, beta=beta)
        yield Row(
            f"mCE at beta {beta}: their repository, mean over both channels",
            theirs,
            ours,
        )
        missed = beta * TRUTH * np.log(CHANCE)
        taken = (1 - beta) * (1 - TRUTH) * np.log1p(-CHANCE)
        yield Row(
            f"mCE at beta {beta}: Eq. 14 on the foreground's channel alone",
            float(-np.mean(missed + taken)),
            ours,
        )


@measured("focal-tversky-exponent", "constructed", "a class with 1 - TI = 0.8, one 0.1")
def focal_tversky_exponent() -> Iterator[Row]:
    """How much the hard class pulls against the easy one: slopes of (1 - TI)^power."""
    hard, easy = 0.8, 0.1
    pulls = ((hard / easy) ** (1 / gamma - 1) for gamma in (4 / 3, 3 / 4))
    yield Row(
        "pull of the hard class / of the easy one: gamma 4/3 (Table 2), 3/4", *pulls
    )


@measured("lambda-side", "constructed", EXAMPLE)
def lambda_side() -> Iterator[Row]:
    """Unified Focal with lambda on the focal part (Eq. 18), on the Tversky part."""
    y, p = one_hot(TRUTH), pair(CHANCE)
    for weight in (0.5, 0.3):
        printed, released = (
            value("Unified Focal", y, p, lambda_=side) for side in (1 - weight, weight)
        )
        yield Row(f"Unified Focal at lambda {weight}", printed, released)


@measured("eq19-class", "constructed", "one background voxel, delta 0.6, gamma 0.5")
def eq19_class() -> Iterator[Row]:
    """Eq. 19's background term with the log of the foreground's p, and of its own."""
    for p in (0.5, 0.9, 0.999):
        factor = 0.4 * (1 - p) ** 0.5
        right = value("Unified Focal", one_hot([0]), pair([1 - p]), lambda_=0.0)
        yield Row(
            f"focal part where background has p = {p}",
            -factor * float(np.log(1 - p)),
            right,
        )


@measured("nan-at-zero", "constructed", "perfect prediction of 512x512, float32")
def nan_at_zero() -> Iterator[Row]:
    """(1 - TI) (1 - TI)^-gamma in float32, and (1 - TI)^(1 - gamma) from the errors."""
    for name, exponent in (("Unified Focal", 1.0), ("Unified Focal++", 2.0)):
        tp, fn, fp = _perfect_counts(exponent)
        errors = np.float32(0.4) * fp + np.float32(0.6) * fn
        rest = np.float32(1) - tp / (tp + errors)
        with np.errstate(divide="ignore", invalid="ignore"):
            released = rest * rest ** np.float32(-0.5)
        yield Row(
            f"root of the foreground's 1 - TI, {name}",
            float(released),
            float(np.sqrt(errors / (tp + errors))),
        )


def _perfect_counts(exponent: float) -> tuple[np.float32, np.float32, np.float32]:
    """TP, FN, FP of the foreground, a tenth of 512x512, p clipped, in float32."""
    truth = np.zeros(512 * 512, np.float32)
    truth[: truth.size // 10] = 1
    p = np.clip(truth, np.float32(FLOOR), np.float32(1 - FLOOR))
    power = np.float32(exponent)
    fn, fp = (truth * (1 - p)) ** power, ((1 - truth) * p) ** power
    return (truth * p).sum(), fn.sum(), fp.sum()


@measured("one-minus-ratio", "constructed", "perfect prediction of 512x512, float32")
def one_minus_ratio() -> Iterator[Row]:
    """DSC++ as 1 minus a ratio, and as errors over everything."""
    tp, fn, fp = _perfect_counts(2.0)
    whole = 2 * tp + fn + fp + np.float32(1e-7)
    yield Row(
        "DSC++ of the foreground",
        float(np.float32(1) - (2 * tp + np.float32(1e-7)) / whole),
        float((fn + fp) / whole),
    )


@measured("clipped-labels", "constructed", "512x512 voxels, a tenth foreground")
def clipped_labels() -> Iterator[Row]:
    """DSC++ with the labels clipped to [1e-7, 1 - 1e-7] like p, and not."""
    truth = np.zeros(512 * 512, np.intp)
    truth[: truth.size // 10] = 1
    cases = {
        "perfect prediction": (truth, truth.astype(float)),
        "p = 0.6 for the true class": (truth, np.where(truth == 1, 0.6, 0.4)),
        "no foreground, p = 1e-4": (0 * truth, np.full(truth.size, 1e-4)),
    }
    for name, (labels, chance) in cases.items():
        y, p = one_hot(labels), pair(chance)
        yield Row(
            f"DSC++, {name}",
            value("DSC++", np.clip(y, FLOOR, 1 - FLOOR), p),
            value("DSC++", y, p),
        )


@measured("smoothing", "constructed", "a class absent from 80x160x160 voxels")
def smoothing() -> Iterator[Row]:
    """What an absent class costs by its false positives and the smoothing e.

    Published: MIScnn's DSC, e = 1e-5 and p not clipped, for DSC; the notebooks' DSC++
    with e = 1e-7, TP + e over TP + 0.5 FN + 0.5 FP + e, that is 2e here.
    """
    voxels = 80 * 160 * 160
    for p in (0.0, 1e-9, 1e-5):
        clipped = max(p, FLOOR)
        yield Row(
            f"DSC, p = {p:g} everywhere",
            _absent(voxels * p, 1e-5),
            _absent(voxels * clipped, 1e-7),
        )
        squares = voxels * clipped**2
        yield Row(
            f"DSC++, p = {p:g} everywhere",
            _absent(squares, 2e-7),
            _absent(squares, 1e-7),
        )


def _absent(false_positives: float, epsilon: float) -> float:
    return false_positives / (false_positives + epsilon)


@measured("wrong-axis", "constructed", "patches of 80x160x160, three classes")
def wrong_axis() -> Iterator[Row]:
    """Two classes taken by position from the fourth axis of a tensor.

    Of images, (N, rows, columns, C), that axis is the classes; of volumes, (N, slices,
    rows, columns, C), the columns.
    """
    random = np.random.default_rng(0)
    patch = np.ones((1, 8, 16, 160, 3))
    seen = np.zeros_like(patch)
    seen[:, :, :, :2] = 1
    yield Row("share of a patch's voxels in the focal part", float(seen.mean()), 1.0)
    columns = random.integers(0, 160 - 20, 10_000)
    yield Row(
        "share of tumours 20 columns wide of which it sees a voxel",
        float(np.mean(columns < 2)),
        1.0,
    )
    yield Row("foreground classes in the Tversky part", 1, 2)


@measured("not-exponential", "constructed", "one error of size p, gamma 2")
def not_exponential() -> Iterator[Row]:
    """Penalty and slope of one error: p as in DSC, p^2 as in DSC++."""
    for p in (0.1, 0.5, 0.9):
        yield Row(f"penalty at p = {p}: DSC++ / DSC", "more", p**2 / p)
        yield Row(f"slope at p = {p}: DSC++ / DSC", None, 2 * p)


@measured("combo-offset", "constructed", EXAMPLE)
def combo_offset() -> Iterator[Row]:
    """Combo's value where the prediction is perfect."""
    y = one_hot(TRUTH)
    yield Row(
        "Combo of a perfect prediction; 0 in other losses", value("Combo", y, y), 0
    )


@measured("keras-tversky", "constructed", "two voxels, one of them half wrong")
def keras_tversky() -> Iterator[Row]:
    """Keras' own Tversky beside the formula, false positives and negatives alone."""
    import keras

    cases = {
        "a false positive": np.array([0.0, 1.0]),
        "a miss": np.array([1.0, 1.0]),
    }
    for name, truth in cases.items():
        p = np.array([0.5, 1.0])
        theirs = keras.losses.tversky(truth[None], p[None], alpha=0.3, beta=0.7)
        tp = float(truth @ p)
        errors = 0.3 * float((1 - truth) @ p) + 0.7 * float(truth @ (1 - p))
        yield Row(
            f"Tversky loss, {name}: keras.losses.tversky, Eq. 16",
            float(np.asarray(keras.ops.convert_to_numpy(theirs)).squeeze()),
            errors / (tp + errors),
        )
