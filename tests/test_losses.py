"""The losses against a second implementation, by hand, and at their edges."""

from __future__ import annotations

import contextlib
import doctest
import functools
import importlib
import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import losses
from losses import catalogue

FLOOR = 1e-7
# Axes of different length, so that a sum over the wrong one shows.
SHAPES = [(2, 3, 5, 2), (1, 4, 3, 3), (2, 2, 3, 5, 4), (1, 7, 2)]
GAMMAS = [0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0]
LOSSES = [
    ("CE", {}),
    ("Focal", {}),
    ("Focal", {"alpha": 0.25, "focal_gamma": 0.5}),
    ("Focal", {"alpha": 1.0, "focal_gamma": 0}),
    ("DSC", {}),
    *(("DSC++", {"gamma": gamma}) for gamma in GAMMAS),
    ("Tversky", {}),
    ("Tversky++", {}),
    ("Tversky++", {"alpha": 0.9, "beta": 0.2, "gamma": 0.5}),
    ("Focal Tversky", {}),
    ("Focal Tversky++", {}),
    ("Focal Tversky++", {"alpha": 0.8, "beta": 0.4, "focal_gamma": 2, "gamma": 5}),
    ("Focal Tversky++", {"focal_gamma": 0.75, "gamma": 0.5}),
    ("Combo", {}),
    ("Combo++", {}),
    ("Combo++", {"alpha": 0.3, "beta": 0.9, "gamma": 0.5}),
    ("Unified Focal", {}),
    ("Unified Focal++", {}),
    ("Unified Focal++", {"lambda_": 0.8, "delta": 0.3, "focal_gamma": 0.9, "gamma": 5}),
    ("Unified Focal++", {"lambda_": 0.2, "focal_gamma": 0, "gamma": 0.5}),
    ("Symmetric Unified Focal", {}),
    ("Symmetric Unified Focal++", {}),
]
PLAIN = ["DSC", "Tversky", "Focal Tversky", "Combo"]
PLAIN += ["Unified Focal", "Symmetric Unified Focal"]
IDS = [f"{name}{list(values.values()) or ''}" for name, values in LOSSES]


# --- a second implementation: loops over voxels, float64, nothing shared -------------


def reference(name: str, y: np.ndarray, p: np.ndarray, **values: float) -> list[float]:
    """One value per image, voxel by voxel, in Python's own floats."""
    if name.endswith("++"):
        values = {"gamma": 2.0, **values}
    one = {
        "CE": _reference_ce,
        "Focal": _reference_focal,
        "DSC": _reference_dice,
        "Tversky": _reference_tversky,
        "Focal Tversky": _reference_focal_tversky,
        "Combo": _reference_combo,
        "Unified Focal": _reference_unified,
        "Symmetric Unified Focal": functools.partial(_reference_unified, symmetric=1),
    }[name.removesuffix("++")]
    p = np.minimum(np.maximum(p.astype(np.float64), FLOOR), 1 - FLOOR)
    y = y.astype(np.float64)
    classes = y.shape[-1]
    return [
        one(a.reshape(-1, classes).tolist(), b.reshape(-1, classes).tolist(), **values)
        for a, b in zip(y, p, strict=True)
    ]


def _reference_ce(y: list, p: list) -> float:
    total = 0.0
    for labels, chances in zip(y, p, strict=True):
        for label, chance in zip(labels, chances, strict=True):
            total -= label * np.log(chance)
    return total / len(y)


def _reference_focal(
    y: list, p: list, alpha: float = 0.5, focal_gamma: float = 2.0
) -> float:
    total = 0.0
    for labels, chances in zip(y, p, strict=True):
        for label, chance in zip(labels, chances, strict=True):
            total += alpha * (1 - chance) ** focal_gamma * -label * np.log(chance)
    return total / len(y)


def _reference_dice(y: list, p: list, gamma: float = 1.0, e: float = 1e-7) -> float:
    total = 0.0
    for tp, fn, fp in _reference_counts(y, p, gamma):
        total += (fn + fp) / (2 * tp + fn + fp + e)
    return total / len(y[0])


def _reference_counts(y: list, p: list, gamma: float) -> list[tuple]:
    counts = []
    for c in range(len(y[0])):
        tp = fn = fp = 0.0
        for labels, chances in zip(y, p, strict=True):
            tp += labels[c] * chances[c]
            fn += (labels[c] * (1 - chances[c])) ** gamma
            fp += ((1 - labels[c]) * chances[c]) ** gamma
        counts.append((tp, fn, fp))
    return counts


def _reference_indices(
    y: list, p: list, alpha: float, beta: float, gamma: float, e: float = 1e-7
) -> list[float]:
    """The Tversky index of each class, as Eqs. 16 and 21 have it."""
    return [
        (tp + e) / (tp + alpha * fp + beta * fn + e)
        for tp, fn, fp in _reference_counts(y, p, gamma)
    ]


def _reference_tversky(
    y: list, p: list, alpha: float = 0.3, beta: float = 0.7, gamma: float = 1.0
) -> float:
    indices = _reference_indices(y, p, alpha, beta, gamma)
    return sum(1 - index for index in indices) / len(indices)


def _reference_focal_tversky(
    y: list,
    p: list,
    alpha: float = 0.3,
    beta: float = 0.7,
    focal_gamma: float = 4 / 3,
    gamma: float = 1.0,
) -> float:
    indices = _reference_indices(y, p, alpha, beta, gamma)
    return sum((1 - index) ** (1 / focal_gamma) for index in indices) / len(indices)


def _reference_combo(
    y: list, p: list, alpha: float = 0.5, beta: float = 0.5, gamma: float = 1.0
) -> float:
    entropy = 0.0
    for labels, chances in zip(y, p, strict=True):
        for label, chance in zip(labels, chances, strict=True):
            entropy -= beta * label * np.log(chance)
            entropy -= (1 - beta) * (1 - label) * np.log(1 - chance)
    entropy /= len(y) * len(y[0])
    return alpha * entropy - (1 - alpha) * (1 - _reference_dice(y, p, gamma))


def _reference_unified(
    y: list,
    p: list,
    lambda_: float = 0.5,
    delta: float = 0.6,
    focal_gamma: float = 0.5,
    gamma: float = 1.0,
    symmetric: bool = False,
) -> float:
    tversky = focal = 0.0
    for c, index in enumerate(_reference_indices(y, p, 1 - delta, delta, gamma)):
        root = symmetric or c > 0
        tversky += (1 - index) ** (1 - focal_gamma) if root else 1 - index
    for labels, chances in zip(y, p, strict=True):
        for c, (label, chance) in enumerate(zip(labels, chances, strict=True)):
            weight = delta if c > 0 else 1 - delta
            if symmetric or c == 0:
                weight *= (1 - chance) ** focal_gamma
            focal -= weight * label * np.log(chance)
    return lambda_ * tversky / len(y[0]) + (1 - lambda_) * focal / len(y)


# --- data and derivatives ------------------------------------------------------------


def sample(shape: tuple[int, ...], kind: str = "hard", seed: int = 0) -> tuple:
    """Labels and probabilities with 1e-6 <= p <= 1 - 1e-6 or so, in float32."""
    rng = np.random.default_rng(seed)
    p = _softmax(2 * rng.normal(size=shape))
    if kind == "soft":
        return _softmax(rng.normal(size=shape)).astype("float32"), p
    y = np.eye(shape[-1])[rng.integers(0, shape[-1], size=shape[:-1])]
    if kind == "holes":  # voxels without a class, as augmentation leaves them
        y[rng.random(shape[:-1]) < 0.3] = 0
    return y.astype("float32"), p


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype("float32")


def numbers(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def gradient(
    loss: Callable[[Any, Any], Any],
    y: np.ndarray,
    p: np.ndarray,
    dtype: str = "float32",
) -> np.ndarray:
    """Derivative of the summed loss by p, with the backend's own means."""
    y, p = ops.convert_to_tensor(y), ops.cast(ops.convert_to_tensor(p), dtype)
    taken = {
        "tensorflow": _gradient_tensorflow,
        "jax": _gradient_jax,
        "torch": _gradient_torch,
    }[keras.backend.backend()](lambda q: ops.sum(loss(y, q)), p)
    return numbers(ops.cast(taken, "float32"))


def _gradient_tensorflow(function: Callable[[Any], Any], p: Any) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(p)
        value = function(p)
    return tape.gradient(value, p)


def _gradient_jax(function: Callable[[Any], Any], p: Any) -> Any:
    import jax

    return jax.grad(function)(p)


def _gradient_torch(function: Callable[[Any], Any], p: Any) -> Any:
    p = p.detach().clone().requires_grad_(True)
    function(p).backward()
    return p.grad


def _float64() -> contextlib.AbstractContextManager:
    """JAX has float64 only on demand."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


def tolerance(name: str, relative: float) -> dict[str, float]:
    """Of the value; for Combo, a difference, of the sum of its terms, at least 1/2."""
    absolute = relative / 2 if name.startswith("Combo") else 0.0
    return {"rtol": relative, "atol": absolute}


def per_image(name: str, **values: float) -> Any:
    return losses.by_name(name, reduction=None, **values)


# --- values --------------------------------------------------------------------------


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
@pytest.mark.parametrize("kind", ["hard", "soft", "holes"])
def test_equals_the_second_implementation(name: str, values: dict, kind: str) -> None:
    for seed, shape in enumerate(SHAPES):
        y, p = sample(shape, kind, seed)
        ours = numbers(per_image(name, **values)(y, p))
        assert ours.shape == shape[:1]
        assert str(ours.dtype) == "float32"
        expected = reference(name, y, p, **values)
        np.testing.assert_allclose(ours, expected, **tolerance(name, 1e-5))


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_double_precision(name: str, values: dict) -> None:
    y, p = sample((2, 3, 5, 3), "soft")
    with _float64():
        ours = numbers(per_image(name, dtype="float64", **values)(y, p))
    assert str(ours.dtype) == "float64"
    expected = reference(name, y, p, **values)
    np.testing.assert_allclose(ours, expected, **tolerance(name, 1e-12))


@pytest.mark.backend
def test_a_large_image_keeps_its_digits() -> None:
    # Summed one by one in float32, 512x512 voxels were wrong by 5e-5.
    y, p = sample((1, 512, 500, 2))
    q = np.clip(p.astype(np.float64), FLOOR, 1 - FLOOR)
    ce = -(y * np.log(q)).sum(-1).mean()
    assert numbers(losses.cross_entropy_loss(y, p))[0] == pytest.approx(ce, rel=2e-6)
    tp = (y * q).sum((0, 1, 2))
    errors = ((y * (1 - q)) ** 2 + ((1 - y) * q) ** 2).sum((0, 1, 2))
    dice = np.mean(errors / (2 * tp + errors))
    assert numbers(losses.dice_loss(y, p, gamma=2))[0] == pytest.approx(dice, rel=2e-6)


@pytest.mark.backend
def test_by_hand() -> None:
    # One 2x3 image. Foreground in the left column; FN = 0.25 and FP = 1.25 there.
    y1 = np.array([[1, 0, 0], [1, 0, 0]])
    p1 = np.array([[0.75, 0.5, 0.25], [1, 0.5, 0]])
    y = np.stack([1 - y1, y1], -1)[None].astype("float32")
    p = np.stack([1 - p1, p1], -1)[None].astype("float32")
    tp, fn, fp = (numbers(count)[0] for count in losses.soft_counts(y, p))
    np.testing.assert_allclose(tp, [2.75, 1.75], atol=1e-6)
    np.testing.assert_allclose(fn, [1.25, 0.25], atol=1e-6)
    np.testing.assert_allclose(fp, [0.25, 1.25], atol=1e-6)
    _, fn, fp = (numbers(count)[0] for count in losses.soft_counts(y, p, gamma=2))
    np.testing.assert_allclose(fn, [0.5625, 0.0625], atol=1e-6)
    np.testing.assert_allclose(fp, [0.0625, 0.5625], atol=1e-6)

    def value(name: str) -> float:
        return float(losses.by_name(name)(y, p))

    assert value("DSC") == pytest.approx((1.5 / 7 + 1.5 / 5) / 2, rel=1e-6)
    assert value("DSC++") == pytest.approx((0.625 / 6.125 + 0.625 / 4.125) / 2, 1e-6)
    # Chances of the true class, by rows: 3/4, 1/2, 3/4; 1, 1/2, 1.
    assert value("CE") == pytest.approx(2 * np.log(8 / 3) / 6, rel=1e-6)
    focal = 0.5 * (2 * np.log(4 / 3) / 16 + 2 * np.log(2) / 4) / 6
    assert value("Focal") == pytest.approx(focal, rel=1e-6)
    # 0.3 FP + 0.7 FN: 0.95 and 0.55; with the power 2: 0.4125 and 0.2125.
    plain, plus = (0.95 / 3.7, 0.55 / 2.3), (0.4125 / 3.1625, 0.2125 / 1.9625)
    assert value("Tversky") == pytest.approx(sum(plain) / 2, rel=1e-6)
    assert value("Tversky++") == pytest.approx(sum(plus) / 2, rel=1e-6)
    focal = (plain[0] ** 0.75 + plain[1] ** 0.75) / 2
    assert value("Focal Tversky") == pytest.approx(focal, rel=1e-6)
    focal = (plus[0] ** 0.75 + plus[1] ** 0.75) / 2
    assert value("Focal Tversky++") == pytest.approx(focal, rel=1e-6)
    quarter = np.log(8 / 3) / 12  # of the cross entropy
    combo = quarter - (1 - (1.5 / 7 + 1.5 / 5) / 2) / 2
    assert value("Combo") == pytest.approx(combo, rel=1e-6)
    combo = quarter - (1 - (0.625 / 6.125 + 0.625 / 4.125) / 2) / 2
    assert value("Combo++") == pytest.approx(combo, rel=1e-6)


@pytest.mark.backend
def test_unified_focal_by_hand() -> None:
    # The image of test_by_hand: TP 2.75 and 1.75, FN 1.25 and 0.25, FP 0.25 and 1.25.
    y1 = np.array([[1, 0, 0], [1, 0, 0]])
    p1 = np.array([[0.75, 0.5, 0.25], [1, 0.5, 0]])
    y = np.stack([1 - y1, y1], -1)[None].astype("float32")
    p = np.stack([1 - p1, p1], -1)[None].astype("float32")
    # 0.4 FP + 0.6 FN: 0.85 and 0.65; with the power 2: 0.3625 and 0.2625.
    plain, plus = (0.85 / 3.6, 0.65 / 2.4), (0.3625 / 3.1125, 0.2625 / 2.0125)
    # Background 1/2, 1/2, 3/4, 1; foreground 3/4, 1.
    background = 2 * 0.5**0.5 * np.log(2) + 0.25**0.5 * np.log(4 / 3)
    foreground = np.log(4 / 3)
    for name, ratios in (("Unified Focal", plain), ("Unified Focal++", plus)):
        tversky = (ratios[0] + ratios[1] ** 0.5) / 2
        focal = (0.4 * background + 0.6 * foreground) / 6
        expected = (tversky + focal) / 2
        assert float(losses.by_name(name)(y, p)) == pytest.approx(expected, rel=1e-6)
        tversky = (ratios[0] ** 0.5 + ratios[1] ** 0.5) / 2
        focal = (0.4 * background + 0.6 * 0.25**0.5 * foreground) / 6
        expected = (tversky + focal) / 2
        loss = losses.by_name(f"Symmetric {name}")
        assert float(loss(y, p)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.backend
def test_lambda_is_on_the_tversky_part() -> None:
    y, p = sample((2, 3, 5, 3))
    tversky = losses.asymmetric_focal_tversky_loss(y, p, 0.3, 0.2, gamma=2)
    focal = losses.asymmetric_focal_loss(y, p, 0.3, 0.2)
    for share in (0.0, 0.25, 1.0):
        ours = losses.unified_focal_loss(y, p, share, 0.3, 0.2, gamma=2)
        expected = share * numbers(tversky) + (1 - share) * numbers(focal)
        np.testing.assert_allclose(numbers(ours), expected, rtol=1e-6)


@pytest.mark.backend
def test_class_0_is_background_and_all_others_are_alike() -> None:
    y, p = sample((2, 3, 5, 4))

    def value(name: str, order: list[int]) -> np.ndarray:
        return numbers(per_image(name)(y[..., order], p[..., order]))

    for name in ("Unified Focal", "Unified Focal++"):
        usual = value(name, [0, 1, 2, 3])
        np.testing.assert_allclose(value(name, [0, 3, 1, 2]), usual, rtol=2e-6)
        assert np.all(np.abs(value(name, [1, 0, 2, 3]) - usual) > 1e-4)


@pytest.mark.backend
def test_special_cases_meet() -> None:
    y, p = sample((2, 3, 5, 3))

    def agree(one: Any, other: Any) -> None:
        np.testing.assert_allclose(numbers(one), numbers(other), rtol=2e-6)

    halves = losses.tversky_loss(y, p, 0.5, 0.5, gamma=2, epsilon=0.5)
    agree(halves, losses.dice_loss(y, p, gamma=2, epsilon=1.0))
    tversky = losses.tversky_loss(y, p, gamma=2)
    agree(losses.focal_tversky_loss(y, p, focal_gamma=1, gamma=2), tversky)
    weighted = losses.asymmetric_focal_tversky_loss(y, p, 0.7, 0, gamma=2)
    agree(weighted, tversky)
    ce = losses.cross_entropy_loss(y, p)
    agree(losses.asymmetric_focal_loss(y, p, 0.5, 0), ce / 2)
    focal = losses.focal_loss(y, p, 0.5, 1.5)
    agree(losses.asymmetric_focal_loss(y, p, 0.5, 1.5, symmetric=True), focal)
    entropy = losses.modified_cross_entropy_loss(y, p, 0.8)
    agree(losses.combo_loss(y, p, 1, 0.8), entropy)
    y, p = sample((2, 3, 5, 2))
    half = losses.modified_cross_entropy_loss(y, p)
    agree(half, losses.cross_entropy_loss(y, p) / 2)


@pytest.mark.backend
def test_combo_ends_below_0() -> None:
    # At a perfect prediction it is minus the weight of the overlap.
    y, _ = sample((1, 3, 5, 2))
    for name in ("Combo", "Combo++"):
        loss = losses.by_name(name, alpha=0.2)
        assert float(loss(y, y)) == pytest.approx(-0.8, abs=1e-6)


@pytest.mark.backend
def test_modified_cross_entropy_keeps_the_digits_of_small_chances() -> None:
    # 1 - p keeps one digit of p = 1e-6 in float32.
    y = np.zeros((1, 4, 5, 2), "float32")
    y[..., 0] = 1
    p = y + np.array([-1e-6, 1e-6], "float32")
    ours = numbers(losses.modified_cross_entropy_loss(y, p, beta=0))[0]
    assert ours == pytest.approx(0.5e-6, rel=1e-5)


@pytest.mark.backend
def test_a_voxel_without_class_is_a_false_positive_for_dice_and_unseen_by_ce() -> None:
    y, p = sample((1, 3, 4, 2))
    y_hole = y.copy()
    y_hole[0, 1, 2] = 0
    _, _, fp = losses.soft_counts(y, p)
    _, _, fp_hole = losses.soft_counts(y_hole, p)
    np.testing.assert_allclose(
        numbers(fp_hole - fp)[0], y[0, 1, 2] * p[0, 1, 2], atol=1e-6
    )
    ce, ce_hole = (numbers(losses.cross_entropy_loss(a, p))[0] for a in (y, y_hole))
    own = -np.log(p[0, 1, 2][y[0, 1, 2] == 1][0])
    assert ce - ce_hole == pytest.approx(own / 12, rel=1e-4)


@pytest.mark.backend
def test_plus_plus_at_one_is_the_plain_loss() -> None:
    for name, kind in itertools.product(PLAIN, ("hard", "soft")):
        y, p = sample((2, 3, 5, 3), kind)
        plain, plus = losses.by_name(name), losses.by_name(f"{name}++", gamma=1)
        assert float(plain(y, p)) == float(plus(y, p))


@pytest.mark.backend
def test_focal_without_exponent_and_weight_is_ce() -> None:
    y, p = sample((2, 3, 5, 3))
    focal = losses.by_name("Focal", alpha=1, focal_gamma=0)
    assert float(focal(y, p)) == pytest.approx(float(losses.by_name("CE")(y, p)))


@pytest.mark.backend
def test_small_values_keep_their_digits() -> None:
    # In float32, 1 - 2 tp / (2 tp + fn + fp) would be 0 here.
    y, _ = sample((1, 8, 9, 2))
    p = np.where(y == 1, 1.0, 0.0).astype("float32")
    value = numbers(losses.dice_loss(y, p, gamma=2))[0]
    # The clip leaves 1 - 2^-23 in float32 where the label is 1, and 1e-7 elsewhere.
    n = y.sum((0, 1, 2))
    errors = n * 2.0**-46 + (72 - n) * 1e-14
    assert 0 < value == pytest.approx(np.mean(errors / (2 * n)), rel=1e-4)
    ratio = (0.7 * n * 2.0**-46 + 0.3 * (72 - n) * 1e-14) / n
    value = numbers(losses.tversky_loss(y, p, gamma=2))[0]
    assert value == pytest.approx(np.mean(ratio), rel=1e-4)
    value = numbers(losses.focal_tversky_loss(y, p, gamma=2))[0]
    assert value == pytest.approx(np.mean(ratio**0.75), rel=1e-4)


@pytest.mark.backend
def test_an_absent_class_costs_what_epsilon_says() -> None:
    y = np.zeros((1, 4, 5, 2), "float32")
    y[..., 0] = 1
    p = np.zeros_like(y)
    p[..., 0], p[..., 1] = 0.9, 0.1
    fp = 20 * 0.01
    for epsilon in (1e-7, 0.2, 5.0):
        present = fp / (2 * 18 + fp + epsilon)
        expected = (present + fp / (fp + epsilon)) / 2
        ours = numbers(losses.dice_loss(y, p, gamma=2, epsilon=epsilon))[0]
        assert ours == pytest.approx(expected, rel=1e-5)
        # The missed of the other class are as many as these false positives.
        present = 0.7 * fp / (18 + 0.7 * fp + epsilon)
        expected = (present + 0.3 * fp / (0.3 * fp + epsilon)) / 2
        ours = numbers(losses.tversky_loss(y, p, gamma=2, epsilon=epsilon))[0]
        assert ours == pytest.approx(expected, rel=1e-5)


@pytest.mark.backend
def test_stated_behaviour_on_soft_labels() -> None:
    # y = p = 0.5 everywhere: fn = fp = n / 4 and tp = n / 4, so the loss is 0.5.
    half = np.full((1, 3, 5, 2), 0.5, "float32")
    assert float(losses.by_name("DSC")(half, half)) == pytest.approx(0.5)
    # g = 2: fn = fp = n / 16, so (1/8) / (1/2 + 1/8).
    assert float(losses.by_name("DSC++")(half, half)) == pytest.approx(0.2)
    assert float(losses.by_name("CE")(half, half)) == pytest.approx(np.log(2))


@pytest.mark.backend
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**16), case=st.sampled_from(LOSSES))
def test_the_order_of_voxels_is_irrelevant(seed: int, case: tuple) -> None:
    y, p = sample((2, 4, 6, 3), "holes", seed)
    order = np.random.default_rng(seed).permutation(24)

    def shuffled(x: np.ndarray) -> np.ndarray:
        return x.reshape(2, 24, 3)[:, order].reshape(2, 6, 2, 2, 3)

    loss = per_image(case[0], **case[1])
    np.testing.assert_allclose(
        numbers(loss(y, p)),
        numbers(loss(shuffled(y), shuffled(p))),
        **tolerance(case[0], 2e-6),
    )


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_a_larger_error_never_costs_less(name: str, values: dict) -> None:
    y, p = sample((1, 3, 4, 2))
    loss = per_image(name, **values)
    seen = []
    for chance in np.linspace(0, 1, 21):
        p[0, 1, 2] = np.where(y[0, 1, 2] == 1, 1 - chance, chance)
        seen.append(numbers(loss(y, p))[0])
    assert np.all(np.diff(seen) > -1e-7)
    assert seen[-1] > seen[0]


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_channels_first(name: str, values: dict) -> None:
    y, p = sample((2, 2, 3, 5, 4))
    last = per_image(name, **values)(y, p)
    first = per_image(name, axis=1, **values)(
        np.moveaxis(y, -1, 1), np.moveaxis(p, -1, 1)
    )
    np.testing.assert_allclose(numbers(first), numbers(last), **tolerance(name, 2e-6))


# --- gradients -----------------------------------------------------------------------


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_gradient_equals_finite_differences(name: str, values: dict, kind: str) -> None:
    y, p = sample((2, 2, 3, 3), kind, seed=3)
    ours = gradient(per_image(name, **values), y, p)
    step, differences = 1e-5, np.zeros(p.shape)
    for place in itertools.product(*map(range, p.shape)):
        # Steps in float64, on the second implementation.
        up, down = p.astype(np.float64), p.astype(np.float64)
        h = step * min(p[place], 1 - p[place])
        up[place] += h
        down[place] -= h
        image = slice(place[0], place[0] + 1)
        a = reference(name, y[image], up[image], **values)[0]
        b = reference(name, y[image], down[image], **values)[0]
        differences[place] = (a - b) / (2 * h)
    np.testing.assert_allclose(ours, differences, rtol=2e-4, atol=1e-6)


def _edges() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    y, p = sample((1, 3, 5, 3))
    one_class = np.zeros_like(y)
    one_class[..., 0] = 1
    return {
        "perfect": (y, y),
        "all wrong": (y, np.roll(y, 1, -1)),
        "empty class": (one_class, p),
        "empty class, perfect": (one_class, one_class),
        "no class at all": (np.zeros_like(y), p),
        "no class, p at 0 and 1": (np.zeros_like(y), y),
        "p at 0 and 1": (y, np.where(p > 0.5, 1, 0).astype("float32")),
        "all 0": (y, np.zeros_like(p)),
        "all 1": (y, np.ones_like(p)),
        "soft, p at 0 and 1": (p, y),
    }


@pytest.mark.backend
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_edges_are_finite(name: str, values: dict, dtype: str) -> None:
    loss = per_image(name, **values)
    for edge, (y, p) in _edges().items():
        value = loss(y, ops.cast(p, dtype))
        assert keras.backend.standardize_dtype(value.dtype) == "float32", edge
        assert np.isfinite(numbers(value)).all(), edge
        assert np.isfinite(gradient(loss, y, p, dtype)).all(), edge


@pytest.mark.backend
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_half_precision_computes_in_float32(
    name: str, values: dict, dtype: str
) -> None:
    y, p = sample((2, 3, 5, 3))
    half = ops.cast(p, dtype)
    rounded = numbers(ops.cast(half, "float32"))
    for loss in (per_image(name, **values), per_image(name, dtype=dtype, **values)):
        expected = reference(name, y, rounded, **values)
        np.testing.assert_allclose(
            numbers(loss(y, half)), expected, **tolerance(name, 1e-5)
        )
    assert np.isfinite(gradient(loss, y, p, dtype)).all()


@pytest.mark.backend
def test_a_saturated_voxel_has_gradient_0() -> None:
    # Stated in losses.base.prepare: the clip's gradient outside its range.
    y, p = sample((1, 2, 3, 2))
    p[0, 0, 0] = 1 - y[0, 0, 0]
    slope = gradient(per_image("DSC"), y, p)
    assert (slope[0, 0, 0] == 0).all()
    assert (slope[0, 1, 2] != 0).all()


# --- as a Keras loss -----------------------------------------------------------------


@pytest.mark.backend
def test_reductions_and_weights_per_image() -> None:
    y, p = sample((3, 4, 5, 2))
    each = numbers(per_image("DSC++")(y, p))
    weights = np.array([0.0, 1.0, 3.0], "float32")
    loss = losses.by_name("DSC++")
    assert float(loss(y, p)) == pytest.approx(each.mean())
    assert float(loss(y, p, weights)) == pytest.approx((each * weights).sum() / 3)
    weighted = losses.by_name("DSC++", reduction="mean_with_sample_weight")
    assert float(weighted(y, p, weights)) == pytest.approx((each @ weights) / 4)
    assert float(loss(y, p, weights[:, None])) == pytest.approx(
        float(loss(y, p, weights))
    )
    for wrong in [(3, 4), (3, 5, 4), (3, 4, 5, 1), (2, 4, 5), (2,)]:
        with pytest.raises(ValueError, match=r"one per voxel, shape \(3, 4, 5\), rec"):
            loss(y, p, np.ones(wrong, "float32"))
        with pytest.raises(ValueError, match=r"weight: expected one per voxel"):
            losses.dice_loss(y, p, weight=np.ones(wrong, "float32"))
    assert float(loss(y, p, weights.tolist())) == pytest.approx(
        float(loss(y, p, weights))
    )
    # One image, one spatial axis: weights of its voxels, not of three images.
    one = losses.by_name("DSC++")(y[:1, 0], p[:1, 0], [[0, 1, 1, 1, 1]])
    seen = losses.by_name("DSC++")(y[:1, 0, 1:], p[:1, 0, 1:])
    assert float(one) == pytest.approx(float(seen))
    with pytest.raises(ValueError, match=r"shape \(1,\), or one per voxel"):
        loss(y[:1], p[:1], weights)


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_a_mask_of_voxels_is_as_if_they_were_not_there(name: str, values: dict) -> None:
    y, p = sample((2, 3, 5, 3), "holes")
    mask = np.random.default_rng(1).integers(0, 2, (2, 3, 5)).astype("float32")
    loss = per_image(name, **values)
    ours, other = numbers(loss(y, p, mask)), numbers(loss(y, p))
    for i, seen in enumerate(mask.astype(bool)):
        expected = reference(name, y[i][seen][None], p[i][seen][None], **values)
        np.testing.assert_allclose(ours[i], expected[0], **tolerance(name, 1e-5))
    assert np.all(np.abs(ours - other) > 1e-4)
    all_seen = numbers(loss(y, p, np.ones_like(mask)))
    np.testing.assert_allclose(all_seen, other, **tolerance(name, 2e-6))
    slope = gradient(lambda a, b: loss(a, b, mask), y, p)
    assert np.all(slope[mask == 0] == 0)
    assert np.any(slope[mask == 1] != 0)
    first = per_image(name, axis=1, **values)
    np.testing.assert_allclose(
        numbers(first(np.moveaxis(y, -1, 1), np.moveaxis(p, -1, 1), mask)),
        ours,
        **tolerance(name, 2e-6),
    )
    none = np.zeros_like(mask)
    assert np.isfinite(numbers(loss(y, p, none))).all()
    assert np.all(gradient(lambda a, b: loss(a, b, none), y, p) == 0)


@pytest.mark.backend
def test_weights_of_voxels_by_hand() -> None:
    y = np.array([[[1, 0], [0, 1], [1, 0]]], "float32")
    p = np.array([[[0.5, 0.5], [0.75, 0.25], [0.5, 0.5]]], "float32")
    weight = np.array([[1.0, 3.0, 0.0]], "float32")
    ce = numbers(losses.cross_entropy_loss(y, p, weight=weight))
    assert ce[0] == pytest.approx((np.log(2) + 3 * np.log(4)) / 4, rel=1e-6)
    tp, fn, fp = (
        numbers(count)[0] for count in losses.soft_counts(y, p, 2, weight=weight)
    )
    np.testing.assert_allclose(tp, [0.5, 0.75], atol=1e-6)
    np.testing.assert_allclose(fn, [0.25, 3 * 0.5625], atol=1e-6)
    np.testing.assert_allclose(fp, [3 * 0.5625, 0.25], atol=1e-6)


@pytest.mark.backend
def test_a_mask_in_training() -> None:
    y, _ = sample((2, 4, 6, 2))
    x = y[..., 1:] + 0.1
    mask = np.zeros((2, 4, 6), "float32")
    mask[:, :, :3] = 1
    model = _tiny_model(losses.by_name("Unified Focal++"))
    p = model.predict(x, verbose=0)[:, :, :3]
    expected = np.mean(reference("Unified Focal++", y[:, :, :3], p))
    before = model.evaluate(x, y, sample_weight=mask, verbose=0)
    assert before == pytest.approx(expected, rel=1e-5)
    model.fit(x, y, sample_weight=mask, batch_size=1, epochs=2, verbose=0)
    assert model.evaluate(x, y, sample_weight=mask, verbose=0) < before


@pytest.mark.backend
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("CE", {"axis": 1}),
        ("Focal", {"alpha": 0.3, "focal_gamma": 1.5}),
        ("DSC", {"epsilon": 0.1, "reduction": "sum"}),
        ("DSC++", {"gamma": 2.5, "dtype": "float64"}),
        ("Tversky", {"alpha": 0.1, "beta": 0.8}),
        ("Tversky++", {"beta": 0.8, "gamma": 3}),
        ("Focal Tversky", {"alpha": 0.1, "focal_gamma": 2}),
        ("Focal Tversky++", {"beta": 0.8, "focal_gamma": 2, "gamma": 3}),
        ("Combo", {"alpha": 0.1, "beta": 0.8, "epsilon": 1}),
        ("Combo++", {"beta": 0.8, "gamma": 3, "axis": 1}),
        ("Unified Focal", {"lambda_": 0.1, "delta": 0.8, "focal_gamma": 0.2}),
        ("Unified Focal++", {"lambda_": 0.1, "focal_gamma": 0.2, "gamma": 3}),
        ("Symmetric Unified Focal", {"delta": 0.8, "reduction": "sum"}),
        ("Symmetric Unified Focal++", {"delta": 0.8, "gamma": 3}),
        ("DSC++", {"from_logits": True, "from_indices": True}),
        ("Combo", {"ignore_background": True, "name": "mine"}),
    ],
)
def test_serialisation_goes_round(name: str, values: dict) -> None:
    loss = losses.by_name(name, **values)
    assert values.items() <= loss.get_config().items()
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


@pytest.mark.backend
def test_a_changed_hyperparameter_counts_from_the_next_call_on() -> None:
    y, p = sample((2, 3, 5, 2))
    loss = losses.by_name("DSC++", gamma=2)
    loss.gamma = 3.0
    assert loss.get_config()["gamma"] == 3
    assert float(loss(y, p)) == float(losses.by_name("DSC++", gamma=3)(y, p))


def _tiny_model(loss: Any, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4, 6, 1)),
            keras.layers.Conv2D(2, 3, padding="same", activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    return model


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_a_step_of_training(name: str, values: dict) -> None:
    y, _ = sample((2, 4, 6, 2))
    x = y[..., 1:] + 0.1
    model = _tiny_model(losses.by_name(name, **values))
    before = model.evaluate(x, y, verbose=0)
    predicted = model.predict(x, verbose=0)
    expected = np.mean(reference(name, y, predicted, **values))
    assert before == pytest.approx(
        expected, rel=1e-5, abs=tolerance(name, 1e-5)["atol"]
    )
    model.fit(x, y, batch_size=1, epochs=3, verbose=0)
    assert model.evaluate(x, y, verbose=0) < before


@pytest.mark.parametrize("module", ["cross_entropy", "overlap", "compound"])
def test_any_module_can_be_the_first_import(module: str) -> None:
    program = f"""
        import losses.{module}, losses, keras
        name = "dscpp>UnifiedFocalPlusPlus"
        found = keras.saving.get_registered_object(name)
        print(found is losses.UnifiedFocalPlusPlus)
    """
    assert _python(program) == "True"


@pytest.mark.backend
@pytest.mark.parametrize(
    "order",
    [
        "import keras, losses",
        "import losses, keras",
        # Many libraries look whether Keras is there before they load it.
        'import losses; from importlib.util import *; find_spec("keras"); import keras',
    ],
)
def test_saved_models_load_without_custom_objects(tmp_path: Path, order: str) -> None:
    path = tmp_path / "model.keras"
    _tiny_model(losses.by_name("DSC++", gamma=2.5)).save(path)
    program = f"""
        import sys
        {order}
        model = keras.models.load_model(sys.argv[1])
        print(type(model.loss).__name__, model.loss.gamma)
    """
    assert _python(program, str(path)) == "DicePlusPlus 2.5"


def test_names_do_not_cost_keras() -> None:
    program = """
        import sys
        import losses
        import losses.catalogue
        losses.names(), losses.slug("DSC++"), losses.default_gamma("DSC")
        heavy = {"keras", "tensorflow", "torch", "jax", "numpy"}
        print(sorted(heavy & set(sys.modules)))
    """
    assert _python(program) == "[]"


def _python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        cwd=Path(losses.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- other layouts of labels and predictions -----------------------------------------


def _logits(p: np.ndarray) -> np.ndarray:
    """Logits of which p is the softmax; another constant for each voxel."""
    return np.log(p) + np.arange(p[..., :1].size).reshape(p[..., :1].shape) % 7 - 3


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_class_indices_are_one_hot_labels(name: str, values: dict) -> None:
    y, p = sample((2, 3, 5, 3), "holes")
    expected = numbers(per_image(name, **values)(y, p))
    loss = per_image(name, from_indices=True, **values)
    first = per_image(name, from_indices=True, axis=1, **values)
    # 255 is no class: a voxel without one.
    indices = np.where(y.sum(-1) == 1, y.argmax(-1), 255)
    for dtype in ("uint8", "int64", "float32"):
        given = indices.astype(dtype)
        np.testing.assert_array_equal(numbers(loss(given, p)), expected)
        np.testing.assert_array_equal(numbers(loss(given[..., None], p)), expected)
        moved = numbers(first(given[:, None], np.moveaxis(p, -1, 1)))
        np.testing.assert_allclose(moved, expected, **tolerance(name, 2e-6))


@pytest.mark.backend
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_logits_are_probabilities(name: str, values: dict, classes: int) -> None:
    y, p = sample((2, 3, 5, classes), "holes")
    logits = _logits(p).astype("float32")
    loss, plain = per_image(name, from_logits=True, **values), per_image(name, **values)
    np.testing.assert_allclose(
        numbers(loss(y, logits)), numbers(plain(y, p)), **tolerance(name, 1e-5)
    )
    # The chain rule of the softmax: dz_c = p_c (dp_c - sum_k p_k dp_k).
    slope = gradient(plain, y, p)
    expected = p * (slope - (p * slope).sum(-1, keepdims=True))
    np.testing.assert_allclose(
        gradient(loss, y, logits), expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.backend
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_large_logits_are_finite(name: str, values: dict, dtype: str) -> None:
    y, _ = sample((1, 3, 5, 3), "holes")
    loss = per_image(name, from_logits=True, **values)
    for logits in (60 * y, 60 - 60 * y, np.full_like(y, -60), 0 * y):
        assert np.isfinite(numbers(loss(y, ops.cast(logits, dtype)))).all()
        assert np.isfinite(gradient(loss, y, logits, dtype)).all()


@pytest.mark.backend
def test_a_voxel_that_is_wrong_by_far_learns_from_logits() -> None:
    # Its probability is 0 in float32, and from there it would not.
    y = np.array([[[1, 0], [0, 1]]], "float32")
    logits = np.array([[[0, 40], [0, 40]]], "float32")
    ce = losses.by_name("CE", from_logits=True)
    assert float(ce(y, logits)) == pytest.approx(20)
    slope = gradient(ce, y, logits)
    np.testing.assert_allclose(slope, [[[-0.5, 0.5], [0, 0]]], atol=1e-6)
    combo = losses.by_name("Combo", from_logits=True, alpha=1)
    # beta = 0.5, mean over classes: (40 / 2 + 40 / 2) / 2 in one of two voxels.
    assert float(combo(y, logits)) == pytest.approx(10)


@pytest.mark.backend
@pytest.mark.parametrize("ignore", [False, True])
def test_a_false_positive_among_three_classes_learns_from_logits(ignore: bool) -> None:
    # The label is class 0; class 1 leads by 40. log(1 - p_1) is -40 + log 2, that of
    # the others 0.
    y = np.array([[[1, 0, 0]]], "float32")
    logits = np.array([[[0, 40, 0]]], "float32")
    options = {"from_logits": True, "ignore_background": ignore}
    combo = losses.by_name("Combo", alpha=1, beta=0, **options)
    classes = 2 if ignore else 3
    expected = (40 - np.log(2)) / classes
    assert float(combo(y, logits)) == pytest.approx(expected, rel=1e-6)
    slope = gradient(combo, y, logits)
    np.testing.assert_allclose(slope * classes, [[[-0.5, 1, -0.5]]], atol=1e-5)


@pytest.mark.backend
def test_logits_in_double_precision() -> None:
    for name in catalogue.names():
        y, p = sample((2, 3, 5, 3))
        logits = _logits(p.astype(np.float64))
        exact = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        loss = per_image(name, dtype="float64", from_logits=True)
        one = per_image(name, dtype="float64", from_logits=True, from_indices=True)
        with _float64():
            ours = numbers(loss(y, logits))
            channel = numbers(one(y.argmax(-1) > 0, logits[..., :1]))
        expected = reference(name, y, exact)
        np.testing.assert_allclose(ours, expected, **tolerance(name, 1e-12))
        chance = 1 / (1 + np.exp(-logits[..., :1]))
        y1 = (y.argmax(-1) > 0)[..., None]
        pairs = [np.concatenate([1 - a, a], -1) for a in (y1, chance)]
        expected = reference(name, *pairs)
        np.testing.assert_allclose(channel, expected, **tolerance(name, 1e-12))


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_one_channel_is_the_foreground(name: str, values: dict) -> None:
    y, p = sample((2, 3, 5, 2), seed=1)
    y1, p1 = y[..., 1:], p[..., 1:]
    p = np.concatenate([1 - p1, p1], -1)
    logits = np.log(p1) - np.log1p(-p1)
    for more in ({}, {"ignore_background": True}):
        expected = numbers(per_image(name, **more, **values)(y, p))

        def agree(labels: Any, given: Any, **options: Any) -> None:
            ours = per_image(name, **options, **more, **values)(labels, given)  # noqa: B023
            np.testing.assert_allclose(
                numbers(ours),
                expected,  # noqa: B023
                **tolerance(name, 1e-5),
            )

        agree(y1, p1)
        agree(y1.astype("int32"), logits, from_logits=True)
        agree(y1[..., 0], p1, from_indices=True)
        agree(np.moveaxis(y1, -1, 1), np.moveaxis(p1, -1, 1), axis=1)
    slope = gradient(per_image(name, from_logits=True, **values), y1, logits)
    both = gradient(per_image(name, **values), y, p)
    expected = (p1 * (1 - p1)) * (both[..., 1:] - both[..., :1])
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.backend
@pytest.mark.parametrize(("name", "values"), LOSSES, ids=IDS)
def test_the_background_is_left_out(name: str, values: dict) -> None:
    y, p = sample((2, 2, 3, 5, 4), "holes")
    loss = per_image(name, ignore_background=True, **values)
    expected = [
        _without_background(name, a.reshape(-1, 4), b.reshape(-1, 4), **values)
        for a, b in zip(y, p.astype(np.float64), strict=True)
    ]
    np.testing.assert_allclose(numbers(loss(y, p)), expected, **tolerance(name, 1e-5))
    slope = gradient(loss, y, p)
    assert np.all(slope[..., 0] == 0)
    assert np.any(slope[..., 1:] != 0)
    # From logits the background's share still follows the others'.
    logits = per_image(name, ignore_background=True, from_logits=True, **values)
    np.testing.assert_allclose(
        numbers(logits(y, _logits(p))), expected, **tolerance(name, 1e-5)
    )


def _without_background(name: str, y: np.ndarray, p: np.ndarray, **values: Any) -> Any:
    """The formulas with sums and means over the classes 1, 2, ... alone."""
    gamma = values.pop("gamma", 2.0 if name.endswith("++") else 1.0)
    values = {**catalogue.entry(name).hyperparameters, **values}
    family = name.removesuffix("++").removeprefix("Symmetric ")
    counts = np.array(_reference_counts(y.tolist(), p.tolist(), gamma)[1:]).T
    y, p = y[:, 1:], p[:, 1:]
    focal = values.get("focal_gamma", 0)
    if family in ("CE", "Focal"):
        terms = -values.get("alpha", 1) * (1 - p) ** focal * y * np.log(p)
        return terms.sum(-1).mean()
    alpha, beta = values.get("alpha", 0.5), values.get("beta", 0.5)
    if family in ("DSC", "Combo"):
        dice = _ratios(counts, 0.5, 0.5).mean()
        entropy = -(beta * y * np.log(p) + (1 - beta) * (1 - y) * np.log(1 - p)).mean()
        return dice if family == "DSC" else alpha * entropy - (1 - alpha) * (1 - dice)
    if family in ("Tversky", "Focal Tversky"):
        return (_ratios(counts, alpha, beta) ** (1 / (focal or 1))).mean()
    delta, share = values["delta"], values["lambda_"]
    tversky = (_ratios(counts, 1 - delta, delta) ** (1 - focal)).mean()
    factor = (1 - p) ** focal if name.startswith("Symmetric") else 1
    entropy = -delta * (factor * y * np.log(p)).sum(-1).mean()
    return share * tversky + (1 - share) * entropy


def _ratios(counts: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    tp, fn, fp = counts
    return (alpha * fp + beta * fn) / (tp + alpha * fp + beta * fn)


@pytest.mark.backend
@pytest.mark.parametrize("channels", [1, 2])
def test_training_on_logits_and_indices(channels: int) -> None:
    y, _ = sample((2, 4, 6, 2))
    x = y[..., 1:] + 0.1
    keras.utils.set_random_seed(0)
    layer = keras.layers.Conv2D(channels, 3, padding="same")
    model = keras.Sequential([keras.Input((4, 6, 1)), layer])
    options = {"from_logits": True, "from_indices": True}
    model.compile("sgd", loss=losses.by_name("DSC++", **options))
    labels = y.argmax(-1)
    mask = np.arange(48.0).reshape(2, 4, 6).astype("float32") % 3
    for weight in (None, mask):
        before = model.evaluate(x, labels, sample_weight=weight, verbose=0)
        model.fit(x, labels, sample_weight=weight, epochs=3, batch_size=1, verbose=0)
        assert model.evaluate(x, labels, sample_weight=weight, verbose=0) < before


@pytest.mark.backend
@pytest.mark.parametrize("module", ["", ".overlap", ".cross_entropy", ".compound"])
def test_examples_in_the_docstrings(module: str) -> None:
    names = {"np": np, "losses": losses, "model": _tiny_model("mse")}
    found = doctest.testmod(
        importlib.import_module(f"losses{module}"), extraglobs=names
    )
    assert found.attempted > 0
    assert found.failed == 0


# --- names, and what is refused ------------------------------------------------------


def test_catalogue() -> None:
    pairs = [n for plain in PLAIN for n in (plain, f"{plain}++")]
    assert catalogue.names() == ["CE", "Focal", *pairs]
    assert [catalogue.slug(n) for n in catalogue.names()] == [
        "ce", "focal", "dsc", "dscpp", "tversky", "tverskypp",
        "focal_tversky", "focal_tverskypp", "combo", "combopp",
        "unified_focal", "unified_focalpp",
        "symmetric_unified_focal", "symmetric_unified_focalpp",
    ]  # fmt: skip
    gammas = [catalogue.default_gamma(n) for n in catalogue.names()]
    assert gammas == [None, None, *6 * [1, 2]]
    assert catalogue.canonical("dsc++") == "DSC++"
    assert catalogue.check_gamma("dsc++") == 2
    assert catalogue.check_gamma("DSC++", 3) == 3
    assert catalogue.check_gamma("CE") is None
    assert catalogue.hyperparameters("focal") == {"alpha": 0.5, "focal_gamma": 2.0}


def test_defaults_are_those_of_table_2() -> None:
    expected = {
        "Tversky": {"alpha": 0.3, "beta": 0.7},
        "Focal Tversky": {"alpha": 0.3, "beta": 0.7, "focal_gamma": 4 / 3},
        "Combo": {"alpha": 0.5, "beta": 0.5},
        "Unified Focal": {"lambda_": 0.5, "delta": 0.6, "focal_gamma": 0.5},
        "Symmetric Unified Focal": {"lambda_": 0.5, "delta": 0.6, "focal_gamma": 0.5},
    }
    for name, own in expected.items():
        plain = {**own, "epsilon": 1e-7}
        assert catalogue.hyperparameters(name) == plain
        assert catalogue.hyperparameters(f"{name}++") == {**plain, "gamma": 2.0}


@pytest.mark.backend
@pytest.mark.parametrize("name", catalogue.names())
def test_the_classes_agree_with_the_catalogue(name: str) -> None:
    entry = catalogue.entry(name)
    default = getattr(losses, entry.class_name)().get_config()
    assert losses.by_name(name).get_config() == default
    assert losses.by_name(name, gamma=None).get_config() == default
    assert entry.hyperparameters.items() <= default.items()
    assert default["name"] == entry.slug
    if entry.gamma is not None and not entry.plain:
        assert default["gamma"] == entry.gamma


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("DSC+", {}, r"CE, Focal, DSC, DSC\+\+, .*received 'DSC\+'.*mean DSC"),
        ("dscpp", {}, r"Did you mean DSC\+\+"),
        ("hinge", {}, r"received 'hinge'$"),
        (None, {}, "received None"),
        ("DSC++", {"gamma": 0}, "gamma: expected a number above 0, received 0"),
        ("DSC++", {"gamma": -1}, "above 0, received -1"),
        ("DSC++", {"gamma": "2"}, "above 0, received '2'"),
        ("DSC++", {"gamma": float("nan")}, "above 0, received nan"),
        ("DSC++", {"gamma": True}, "above 0, received True"),
        ("DSC", {"gamma": 2}, r"plain form, expected 1, received 2.*take DSC\+\+"),
        ("CE", {"gamma": 2}, r"CE has no \+\+ exponent, received 2. Leave gamma out"),
        (
            "Focal Tversky",
            {"gamma": 1.5},
            r"take Focal Tversky\+\+. Its own exponent is focal_gamma",
        ),
        ("unified focal", {"alpha": 1}, "among delta, epsilon, focal_gamma, lambda_"),
        ("Focal", {"gamma": 2}, "Its own exponent is focal_gamma"),
        ("DSC++", {"gama": 2}, "among epsilon, gamma, .*received gama"),
        ("DSC++", {"axis": 1.0}, "axis: expected a whole number, received 1.0"),
        ("CE", {"from_logits": 1}, "from_logits: expected True or False, received 1"),
        ("Combo", {"from_indices": None}, "from_indices: expected True or False"),
        ("CE", {"alpha": 0.5}, "received alpha"),
    ],
)
def test_names_and_arguments_refused(
    name: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        losses.by_name(name, **values)


@pytest.mark.backend
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("Focal", {"alpha": 1.5}, "alpha: expected a number from 0 to 1, received 1.5"),
        ("Focal", {"alpha": -0.1}, "received -0.1"),
        ("Focal", {"focal_gamma": -1}, "focal_gamma: expected .* at least 0"),
        ("DSC", {"epsilon": 0}, "epsilon: expected a number above 0"),
        ("Tversky", {"alpha": 1.5}, "alpha: expected a number from 0 to 1"),
        ("Tversky++", {"beta": -0.5}, "beta: expected a number from 0 to 1"),
        ("Tversky++", {"epsilon": 0}, "epsilon: expected a number above 0"),
        ("Focal Tversky", {"focal_gamma": 0}, "focal_gamma: expected .* above 0"),
        ("Combo", {"alpha": 2}, "alpha: expected a number from 0 to 1"),
        ("Combo++", {"beta": "a"}, "beta: expected a number from 0 to 1"),
        ("Combo++", {"gamma": 0}, "gamma: expected a number above 0"),
        ("Unified Focal", {"lambda_": 1.1}, "lambda_: expected a number from 0 to 1"),
        ("Unified Focal", {"delta": -1}, "delta: expected a number from 0 to 1"),
        ("Unified Focal++", {"focal_gamma": 1}, "focal_gamma: .* 0 to below 1"),
        ("Symmetric Unified Focal++", {"focal_gamma": -1}, "0 to below 1, received -1"),
    ],
)
def test_values_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        losses.by_name(name, **values)


SHAPES_REFUSED = [
    ((2, 3, 5), (2, 3, 5, 4), r"class indices.*one_hot\(indices, 4, axis=-1\)"),
    ((2, 3, 5, 1), (2, 3, 5, 4), "class indices"),
    ((2, 3, 5, 2), (2, 3, 5, 3), r"shape of y_pred, \(2, 3, 5, 3\)"),
    ((2, 3, 4, 2), (2, 3, 5, 2), "expected the shape of y_pred"),
    ((2,), (2, 3, 5, 3), "expected the shape of y_pred"),
    ((3, 2), (3, 2), "expected rank 3 or more"),
    ((2, 3, 5, 2), (2, 3, 5, 1), r"labels of one channel, shape \(2, 3, 5, 1\)"),
    ((2, 3, 5), (2, 3, 5, 1), "labels of one channel.*from_indices=True"),
]


@pytest.mark.backend
@pytest.mark.parametrize(("true", "predicted", "message"), SHAPES_REFUSED)
@pytest.mark.parametrize("name", catalogue.names())
def test_shapes_refused(
    name: str, true: tuple[int, ...], predicted: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        losses.by_name(name)(np.zeros(true, "float32"), np.zeros(predicted, "float32"))


INDICES_REFUSED = [
    ((2, 3, 5, 4), (2, 3, 5, 4), "One-hot labels are passed without from_indices"),
    ((2, 3, 4), (2, 3, 5, 4), r"of shape \(2, 3, 5\) or \(2, 3, 5, 1\), received"),
    ((2, 5, 3, 1), (2, 3, 5, 4), "expected class indices"),
    ((2, 3, 5, 2), (2, 3, 5, 1), "expected class indices"),
]


@pytest.mark.backend
@pytest.mark.parametrize(("true", "predicted", "message"), INDICES_REFUSED)
def test_shapes_of_indices_refused(
    true: tuple[int, ...], predicted: tuple[int, ...], message: str
) -> None:
    loss = losses.by_name("DSC++", from_indices=True)
    with pytest.raises(ValueError, match=message):
        loss(np.zeros(true, "int32"), np.zeros(predicted, "float32"))


def test_options_of_a_class_refused() -> None:
    with pytest.raises(ValueError, match=r"axis, ignore_background.*received from_log"):
        losses.Dice(from_log=True)
    y, p = sample((2, 3, 5, 2))
    with pytest.raises(ValueError, match="ignore_background: expected True or False"):
        losses.dice_loss(y, p, ignore_background=2)
    with pytest.raises(ValueError, match="received foo"):
        losses.cross_entropy_loss(y, p, foo=1)


@pytest.mark.backend
@pytest.mark.parametrize("axis", [0, 4, -4])
def test_axis_refused(axis: int) -> None:
    y, p = sample((2, 3, 5, 2))
    with pytest.raises(ValueError, match="axis of the classes"):
        losses.by_name("CE", axis=axis)(y, p)


@pytest.mark.backend
def test_unknown_lengths_pass_when_traced() -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces with unknown lengths")
    import tensorflow as tf

    y, p = sample((2, 3, 5, 2))
    open_shape = tf.TensorSpec((None, None, None, 2))
    for name in catalogue.names():
        loss = losses.by_name(name)
        traced = tf.function(loss, input_signature=[open_shape, open_shape])
        assert float(traced(y, p)) == pytest.approx(float(loss(y, p)), rel=1e-6)
    mask = np.arange(30.0).reshape(2, 3, 5).astype("float32") % 2
    open_mask = tf.TensorSpec((None, None, None))
    traced = tf.function(loss, input_signature=[open_shape, open_shape, open_mask])
    assert float(traced(y, p, mask)) == pytest.approx(float(loss(y, p, mask)), rel=1e-6)
    indices = tf.TensorSpec((None, None, None))
    with pytest.raises(ValueError, match="class indices"):
        tf.function(loss).get_concrete_function(indices, open_shape)
    # One channel and many classes are not told apart without their number.
    without = tf.TensorSpec((None, None, None, None))
    with pytest.raises(ValueError, match=r"known number of classes.*set_shape"):
        tf.function(loss).get_concrete_function(without, without)
    for places in ((0,), (1,), (2,)):
        shapes = [open_shape, open_shape, open_mask]
        for place in places:
            shapes[place] = tf.TensorSpec(None)
        with pytest.raises(ValueError, match=r"whose rank is known.*set_shape"):
            tf.function(loss).get_concrete_function(*shapes)
