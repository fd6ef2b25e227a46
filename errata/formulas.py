"""Entries about the losses: the printed or released formula beside the correct one.

The correct values are from `conformance.reference`, in float64. The others are computed
here from the printed equations. No line is copied from the released code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import softmax

from conformance.reference import FLOOR, reference
from errata.examples import Floats, one_hot, pair
from errata.registry import Row, measured

# Six voxels, two of them foreground, with one hesitant and one confident error.
TRUTH = np.array([0, 0, 0, 0, 1, 1])
CHANCE = np.array([0.01, 0.1, 0.4, 0.9, 0.95, 0.3])
Y, P = one_hot(TRUTH), pair(CHANCE)
EXAMPLE = "six voxels, two of them foreground"


def value(name: str, y: Floats, p: Floats, **hyperparameters: Any) -> float:
    """Return a loss of the reference for a batch of one image."""
    return float(reference(name, y, p, **hyperparameters).value[0])


@measured("focal-gamma", "constructed", "one voxel whose class has p = 0.7, alpha 1")
def focal_gamma() -> Iterator[Row]:
    """Measure at which gamma the Focal loss equals CE: the paper says 1, it is 0."""
    y, p = one_hot([1]), pair([0.7])

    def ratio(**hyperparameters: float) -> float:
        return value("Focal", y, p, **hyperparameters) / value("CE", y, p)

    at_1, at_0 = (ratio(alpha=1.0, focal_gamma=gamma) for gamma in (1.0, 0.0))
    yield Row("Focal / CE at gamma 1 (the paper: equal), at gamma 0", at_1, at_0)
    table_2 = ratio(focal_gamma=0.0)
    yield Row("Focal / CE at gamma 0, with Table 2's alpha and with 1", table_2, at_0)


@measured("class-sums", "constructed", "logits of 1000 voxels from a seed")
def class_sums() -> Iterator[Row]:
    """Compare the sum with the mean over classes: SGD's step, Unified Focal's balance.

    The gradient is computed by central differences of the reference over the logits.
    """
    for classes in (2, 3):
        moves = [
            0.1 * np.linalg.norm(_gradient(classes, factor)) for factor in (classes, 1)
        ]
        what = f"Tversky, {classes} classes"
        yield Row(f"{what}: step at learning rate 0.1 (length in logits)", *moves)
        rate = f"{what}: learning rate that gives the mean's step at 0.1"
        yield Row(rate, 0.1 * moves[0] / moves[1], 0.1)
    overlap, entropy = (value("Unified Focal", Y, P, lambda_=x) for x in (1.0, 0.0))
    what = "Unified Focal, two classes: Tversky part / focal part"
    yield Row(what, 2 * overlap / entropy, overlap / entropy)


def _gradient(classes: int, factor: int) -> Floats:
    random = np.random.default_rng(0)
    y = one_hot(random.integers(classes, size=1000), classes)
    logits = random.normal(size=y.shape) + 2 * y
    step, gradient = 1e-4, np.empty(50)
    for number in range(gradient.size):
        shift = np.zeros_like(logits)
        shift[0, number, 0] = step
        up, down = (
            value("Tversky", y, softmax(logits + x, axis=-1)) for x in (shift, -shift)
        )
        gradient[number] = factor * (up - down) / (2 * step)
    return gradient


@measured("eq14-sign", "constructed", "one background voxel, beta 0.5")
def eq14_sign() -> Iterator[Row]:
    """Compare the modified CE with its second term outside and inside the minus.

    Eq. 14 has one channel; the reference is its mean over both classes.
    """
    for p in (0.1, 0.9, 1 - FLOOR):
        term = 0.5 * np.log1p(-p)
        what = f"mCE where the network says foreground with p = {p:.7g}"
        yield Row(what, term, -term)


@measured("class-weights", "constructed", EXAMPLE)
def class_weights() -> Iterator[Row]:
    """Compare Eq. 14 with the authors' other repository, which weights classes."""
    for beta in (0.5, 0.7):
        ours = value("Combo", Y, P, alpha=1.0, beta=beta)
        weights = np.array([beta, 1 - beta])
        theirs = np.mean(np.sum(-weights * Y * np.log(P), axis=-1))
        what = f"mCE at beta {beta}"
        yield Row(f"{what}: their repository, mean over both channels", theirs, ours)
        missed = beta * TRUTH * np.log(CHANCE)
        taken = (1 - beta) * (1 - TRUTH) * np.log1p(-CHANCE)
        alone = -np.mean(missed + taken)
        yield Row(f"{what}: Eq. 14 on the foreground's channel alone", alone, ours)


@measured("focal-tversky-exponent", "constructed", "a class with 1 - TI = 0.8, one 0.1")
def focal_tversky_exponent() -> Iterator[Row]:
    """Compare the slopes of (1 - TI)^power of a hard and an easy class."""
    hard, easy = 0.8, 0.1
    pulls = ((hard / easy) ** (1 / gamma - 1) for gamma in (4 / 3, 3 / 4))
    what = "pull of the hard class / of the easy one: gamma 4/3 (Table 2), 3/4"
    yield Row(what, *pulls)


@measured("lambda-side", "constructed", EXAMPLE)
def lambda_side() -> Iterator[Row]:
    """Compare Unified Focal with lambda on the focal (Eq. 18) or the Tversky part."""
    for weight in (0.5, 0.3):
        sides = (value("Unified Focal", Y, P, lambda_=x) for x in (1 - weight, weight))
        yield Row(f"Unified Focal at lambda {weight}", *sides)


@measured("eq19-class", "constructed", "one background voxel, delta 0.6, gamma 0.5")
def eq19_class() -> Iterator[Row]:
    """Compare the log of the foreground's p in Eq. 19 with that of the background's."""
    for p in (0.5, 0.9, 0.999):
        printed = -0.4 * (1 - p) ** 0.5 * np.log(1 - p)
        right = value("Unified Focal", one_hot([0]), pair([1 - p]), lambda_=0.0)
        yield Row(f"focal part where background has p = {p}", printed, right)


@measured("nan-at-zero", "constructed", "perfect prediction of 512x512, float32")
def nan_at_zero() -> Iterator[Row]:
    """Compare (1 - TI) (1 - TI)^-gamma in float32 with (1 - TI)^(1 - gamma)."""
    for name, exponent in (("Unified Focal", 1.0), ("Unified Focal++", 2.0)):
        tp, fn, fp = _perfect_counts(exponent)
        errors = np.float32(0.4) * fp + np.float32(0.6) * fn
        rest = np.float32(1) - tp / (tp + errors)
        with np.errstate(divide="ignore", invalid="ignore"):
            released = rest * rest ** np.float32(-0.5)
        corrected = np.sqrt(errors / (tp + errors))
        yield Row(f"root of the foreground's 1 - TI, {name}", released, corrected)


def _perfect_counts(exponent: float) -> tuple[np.float32, np.float32, np.float32]:
    """Return TP, FN, FP in float32: 512x512, a tenth foreground, p clipped."""
    label = np.zeros(512 * 512, np.float32)
    label[: label.size // 10] = 1
    p = np.clip(label, np.float32(FLOOR), np.float32(1 - FLOOR))
    power = np.float32(exponent)
    fn, fp = (label * (1 - p)) ** power, ((1 - label) * p) ** power
    return (label * p).sum(), fn.sum(), fp.sum()


@measured("one-minus-ratio", "constructed", "perfect prediction of 512x512, float32")
def one_minus_ratio() -> Iterator[Row]:
    """Compare DSC++ as 1 minus a ratio with DSC++ as errors over the total."""
    tp, fn, fp = _perfect_counts(2.0)
    whole = 2 * tp + fn + fp + np.float32(1e-7)
    ratio = np.float32(1) - (2 * tp + np.float32(1e-7)) / whole
    yield Row("DSC++ of the foreground", ratio, (fn + fp) / whole)


@measured("clipped-labels", "constructed", "512x512 voxels, a tenth foreground")
def clipped_labels() -> Iterator[Row]:
    """Compare DSC++ with labels clipped to [1e-7, 1 - 1e-7] and unclipped."""
    label = np.zeros(512 * 512, np.intp)
    label[: label.size // 10] = 1
    cases = {
        "perfect prediction": (label, label.astype(float)),
        "p = 0.6 for the true class": (label, np.where(label == 1, 0.6, 0.4)),
        "no foreground, p = 1e-4": (0 * label, np.full(label.size, 1e-4)),
    }
    for name, (labels, chance) in cases.items():
        y, p = one_hot(labels), pair(chance)
        forms = (value("DSC++", x, p) for x in (np.clip(y, FLOOR, 1 - FLOOR), y))
        yield Row(f"DSC++, {name}", *forms)


@measured("smoothing", "constructed", "a class absent from 80x160x160 voxels")
def smoothing() -> Iterator[Row]:
    """Measure the loss of an absent class from its false positives and smoothing e.

    Published, DSC: MIScnn's, with e = 1e-5 and p not clipped. Published, DSC++: the
    notebooks', TP + e over TP + 0.5 FN + 0.5 FP + e with e = 1e-7, which is 2e here.
    """
    voxels = 80 * 160 * 160
    for p in (0.0, 1e-9, 1e-5):
        clipped = max(p, FLOOR)
        costs = [_absent(voxels * p, 1e-5), _absent(voxels * clipped, 1e-7)]
        yield Row(f"DSC, p = {p:g} everywhere", *costs)
        costs = [_absent(voxels * clipped**2, epsilon) for epsilon in (2e-7, 1e-7)]
        yield Row(f"DSC++, p = {p:g} everywhere", *costs)


def _absent(false_positives: float, epsilon: float) -> float:
    return false_positives / (false_positives + epsilon)


@measured("wrong-axis", "constructed", "patches of 80x160x160, three classes")
def wrong_axis() -> Iterator[Row]:
    """Measure what taking two classes by position from the fourth axis selects.

    For images, (N, rows, columns, C), that axis holds the classes; for volumes,
    (N, slices, rows, columns, C), the columns.
    """
    seen = np.zeros((1, 8, 16, 160, 3))
    seen[:, :, :, :2] = 1
    yield Row("share of a patch's voxels in the focal part", seen.mean(), 1.0)
    columns = np.random.default_rng(0).integers(0, 160 - 20, 10_000)
    what = "share of tumours 20 columns wide of which it sees a voxel"
    yield Row(what, np.mean(columns < 2), 1.0)
    yield Row("foreground classes in the Tversky part", 1, 2)


@measured("not-exponential", "constructed", "one error of size p, gamma 2")
def not_exponential() -> Iterator[Row]:
    """Compare penalty and slope of one error with p (DSC) and p^2 (DSC++)."""
    for p in (0.1, 0.5, 0.9):
        yield Row(f"penalty at p = {p}: DSC++ / DSC", "more", p**2 / p)
        yield Row(f"slope at p = {p}: DSC++ / DSC", None, 2 * p)


@measured("combo-offset", "constructed", EXAMPLE)
def combo_offset() -> Iterator[Row]:
    """Measure the value of Combo for a perfect prediction."""
    perfect = value("Combo", Y, Y)
    yield Row("Combo of a perfect prediction; 0 in other losses", perfect, 0)


@measured("keras-tversky", "constructed", "two voxels, one of them half wrong")
def keras_tversky() -> Iterator[Row]:
    """Compare Keras' Tversky with the formula, for one false positive and one miss."""
    import keras

    p = np.array([0.5, 1.0])
    for name, labels in (("a false positive", [0.0, 1.0]), ("a miss", [1.0, 1.0])):
        y = np.array(labels)
        theirs = keras.losses.tversky(y[None], p[None], alpha=0.3, beta=0.7)
        tp, errors = y @ p, 0.3 * (1 - y) @ p + 0.7 * y @ (1 - p)
        yield Row(
            f"Tversky loss, {name}: keras.losses.tversky, Eq. 16",
            float(keras.ops.convert_to_numpy(theirs).squeeze()),
            errors / (tp + errors),
        )
