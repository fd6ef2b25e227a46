"""The losses as Keras losses: options, names, training, saving, what is refused."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import conformance
import losses
from losses import checks
from pipelines import loss_names

# Every loss, the ++ with exponents below and above 1, focal exponents at their ends.
LOSSES = [
    ("CE", {}),
    ("Focal", {"alpha": 0.25, "focal_gamma": 0.5}),
    ("DSC", {}),
    ("DSC++", {"gamma": 0.5}),
    ("Tversky", {}),
    ("Tversky++", {"alpha": 0.9, "beta": 0.2, "gamma": 0.5}),
    ("Focal Tversky", {}),
    ("Focal Tversky++", {"alpha": 0.8, "beta": 0.4, "focal_gamma": 2, "gamma": 5}),
    ("Combo", {}),
    ("Combo++", {"alpha": 0.3, "beta": 0.9, "gamma": 0.5}),
    ("Unified Focal", {}),
    ("Unified Focal++", {"lambda_": 0.8, "delta": 0.3, "focal_gamma": 0.9, "gamma": 5}),
    ("Symmetric Unified Focal", {}),
    ("Symmetric Unified Focal++", {}),
    ("Focal", {"alpha": 1.0, "focal_gamma": 0}),
    ("DSC++", {"gamma": 5.0}),
    ("Focal Tversky++", {"focal_gamma": 0.75, "gamma": 0.5}),
    ("Unified Focal++", {"lambda_": 0.2, "focal_gamma": 0, "gamma": 0.5}),
    ("Hard L1-ACE", {"penalty": 2, "bins": 7}),
    ("Soft L1-ACE", {"penalty": 0.5, "bins": 10}),
    ("NACL", {"penalty": 0.3}),
]
PLAIN = ["DSC", "Tversky", "Focal Tversky", "Combo"]
PLAIN += ["Unified Focal", "Symmetric Unified Focal"]
IDS = [f"{name}{list(values.values()) or ''}" for name, values in LOSSES]
# One of each formula. The others run on the default backend alone: all are on each
# backend in test_conformance.py.
EACH_FORMULA = ("Focal[0.25, 0.5]", "Focal Tversky++[0.8, 0.4, 2, 5]", "NACL[0.3]")
EACH_FORMULA += ("Combo++[0.3, 0.9, 0.5]", "Unified Focal++[0.8, 0.3, 0.9, 5]")
EACH_FORMULA += ("Soft L1-ACE[0.5, 10]",)
MARKED = [
    pytest.param(*loss, id=name, marks=[pytest.mark.backend] * (name in EACH_FORMULA))
    for loss, name in zip(LOSSES, IDS, strict=True)
]

# Values, gradients, edges and precision of the fourteen are in test_conformance.py.

# --- data and derivatives ------------------------------------------------------------


def sample(shape: tuple[int, ...], kind: str = "hard", seed: int = 0) -> tuple:
    """Labels and probabilities with 1e-6 <= p <= 1 - 1e-6 or so, in float32."""
    rng = np.random.default_rng(seed)
    e = np.exp(2 * rng.normal(size=shape))
    p = (e / e.sum(-1, keepdims=True)).astype("float32")
    y = np.eye(shape[-1])[rng.integers(0, shape[-1], size=shape[:-1])]
    if kind == "holes":  # voxels without a class, as augmentation leaves them
        y[rng.random(shape[:-1]) < 0.3] = 0
    return y.astype("float32"), p


def numbers(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def reference(name: str, y: np.ndarray, p: np.ndarray, **values: float) -> np.ndarray:
    """One value per image, in float64, from the formulas alone."""
    return conformance.reference(name, y, p, **values).value


def gradient(
    loss: Callable[[Any, Any], Any],
    y: np.ndarray,
    p: np.ndarray,
    dtype: str = "float32",
) -> np.ndarray:
    """Derivative of the summed loss by p, with the backend's own means."""
    return conformance.KerasAdapter(loss).gradient(y, p, dtype)


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


def test_counts_by_hand() -> None:
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


def test_special_cases_are_equal() -> None:
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
def test_modified_cross_entropy_keeps_the_digits_of_small_chances() -> None:
    # 1 - p keeps one digit of p = 1e-6 in float32.
    y = np.zeros((1, 4, 5, 2), "float32")
    y[..., 0] = 1
    p = y + np.array([-1e-6, 1e-6], "float32")
    ours = numbers(losses.modified_cross_entropy_loss(y, p, beta=0))[0]
    assert ours == pytest.approx(0.5e-6, rel=1e-5)


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


# --- gradients -----------------------------------------------------------------------


@pytest.mark.backend
def test_a_saturated_voxel_has_gradient_0() -> None:
    # Stated in losses.base.prepare: the clip's gradient outside its range.
    y, p = sample((1, 2, 3, 2))
    p[0, 0, 0] = 1 - y[0, 0, 0]
    slope = gradient(per_image("DSC"), y, p)
    assert (slope[0, 0, 0] == 0).all()
    assert (slope[0, 1, 2] != 0).all()


# --- as a Keras loss -----------------------------------------------------------------


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
def test_keras_mask_is_applied_in_training() -> None:
    y, _ = sample((2, 4, 6, 2))
    x = y[..., 1:] + 0.1
    mask = np.zeros((2, 4, 6), "float32")
    mask[:, :, :3] = 1
    model = _tiny_model(losses.by_name("Unified Focal++"))
    p = numbers(model(x))[:, :, :3]
    expected = np.mean(reference("Unified Focal++", y[:, :, :3], p))
    before = model.evaluate(x, y, sample_weight=mask, verbose=0)
    assert before == pytest.approx(expected, rel=1e-5)
    model.fit(x, y, sample_weight=mask, batch_size=1, epochs=2, verbose=0)
    assert model.evaluate(x, y, sample_weight=mask, verbose=0) < before


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
def test_serialisation_round_trip(name: str, values: dict) -> None:
    loss = losses.by_name(name, **values)
    assert values.items() <= loss.get_config().items()
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def test_changed_hyperparameter_applies_from_the_next_call() -> None:
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


@pytest.mark.parametrize("name", sorted(n for n in vars(losses) if n.endswith("_loss")))
def test_a_hyperparameter_may_be_any_kind_of_number(name: str) -> None:
    function = getattr(losses, name)
    parameters = inspect.signature(function).parameters
    values = {k: v.default for k, v in parameters.items() if k in checks.RANGES}
    y, p = sample((1, 4, 5, 2))
    fractions = {key: Fraction(value) for key, value in values.items()}
    expected = numbers(function(y, p, **values))
    np.testing.assert_array_equal(numbers(function(y, p, **fractions)), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "values"), [each for each in MARKED if each.marks])
def test_training_step_lowers_the_loss(name: str, values: dict) -> None:
    y, _ = sample((2, 4, 6, 2))
    x = y[..., 1:] + 0.1
    model = _tiny_model(losses.by_name(name, **values))
    before = model.evaluate(x, y, verbose=0)
    predicted = numbers(model(x))
    expected = np.mean(reference(name, y, predicted, **values))
    assert before == pytest.approx(
        expected, rel=1e-5, abs=tolerance(name, 1e-5)["atol"]
    )
    model.fit(x, y, batch_size=1, epochs=3, verbose=0)
    assert model.evaluate(x, y, verbose=0) < before


@pytest.mark.slow
def test_importing_losses_in_a_new_process(tmp_path: Path) -> None:
    """Nothing is hooked, saved models load, and any module can be the first."""
    path = tmp_path / "model.keras"
    _tiny_model(losses.by_name("DSC++", gamma=2.5)).save(path)
    program = """
        import importlib, sys
        import losses
        homes = [type(finder).__module__ for finder in sys.meta_path]
        loader = sys.modules["keras"].__spec__.loader
        print([home for home in homes if "losses" in home], vars(loader).keys())
        import keras
        model = keras.models.load_model(sys.argv[1])
        print(type(model.loss).__name__, model.loss.gamma)
        for module in ("cross_entropy", "overlap", "compound"):
            for loaded in [name for name in sys.modules if name.startswith("losses")]:
                del sys.modules[loaded]
            importlib.import_module(f"losses.{module}")
            import losses
            name = "dscpp>UnifiedFocalPlusPlus"
            found = keras.saving.get_registered_object(name)
            print(found is losses.UnifiedFocalPlusPlus)
    """
    hooks, loaded, *first = _python(program, str(path)).splitlines()
    assert hooks == "[] dict_keys(['name', 'path'])"
    assert loaded == "DicePlusPlus 2.5"
    assert first == 3 * ["True"]


def test_loss_names_of_the_command_line_do_not_import_keras() -> None:
    program = """
        import sys
        from pipelines import cli, loss_names; from pipelines.runs import run
        assert "DSC++" in loss_names.NAMES
        heavy = {"keras", "losses", "tensorflow", "torch", "jax"}
        print(sorted(heavy & set(sys.modules)))
    """
    assert _python(program) == "[]"


def test_a_backend_that_is_not_installed_is_named() -> None:
    find = importlib.util.find_spec
    absent = next(n for n in ("jax", "torch", "tensorflow") if find(n) is None)
    program = """
        try:
            import losses
        except ImportError as error:
            print(error.__suppress_context__, error)
    """
    told = _python(program, KERAS_BACKEND=absent)
    expected = f"True Keras is set to run on {absent}, which is not installed here. Set"
    assert told.startswith(expected)
    assert "KERAS_BACKEND" in told


def _python(program: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        cwd=Path(losses.__file__).parents[1],
        env={**os.environ, **variables},
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


@pytest.mark.parametrize(("name", "values"), MARKED)
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


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("name", "values"), MARKED)
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


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("name", "values"), MARKED)
def test_large_logits_are_finite(name: str, values: dict, dtype: str) -> None:
    y, _ = sample((1, 3, 5, 3), "holes")
    loss = per_image(name, from_logits=True, **values)
    for logits in (60 * y, 60 - 60 * y, np.full_like(y, -60), 0 * y):
        assert np.isfinite(numbers(loss(y, ops.cast(logits, dtype)))).all()
        assert np.isfinite(gradient(loss, y, logits, dtype)).all()


@pytest.mark.backend
def test_very_wrong_voxel_has_a_gradient_from_logits() -> None:
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
def test_false_positive_of_three_classes_has_a_gradient_from_logits(
    ignore: bool,
) -> None:
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


@pytest.mark.parametrize(("name", "values"), MARKED)
def test_logits_in_double_precision(name: str, values: dict) -> None:
    y, p = sample((2, 3, 5, 3))
    logits = _logits(p.astype(np.float64))
    exact = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    options = {"dtype": "float64", "from_logits": True, **values}
    loss, one = (per_image(name, from_indices=one, **options) for one in (False, True))
    with _float64():
        ours = numbers(loss(y, logits))
        channel = numbers(one(y.argmax(-1) > 0, logits[..., :1]))
    expected = reference(name, y, exact, **values)
    np.testing.assert_allclose(ours, expected, **tolerance(name, 1e-12))
    chance = 1 / (1 + np.exp(-logits[..., :1]))
    y1 = (y.argmax(-1) > 0)[..., None]
    pairs = [np.concatenate([1 - a, a], -1) for a in (y1, chance)]
    expected = reference(name, *pairs, **values)
    np.testing.assert_allclose(channel, expected, **tolerance(name, 1e-12))


@pytest.mark.parametrize(("name", "values"), MARKED)
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


@pytest.mark.parametrize(
    "module", ["", ".overlap", ".cross_entropy", ".compound", ".calibration"]
)
def test_examples_in_the_docstrings(module: str) -> None:
    names = {"np": np, "losses": losses, "model": _tiny_model("mse")}
    outcome = doctest.testmod(
        importlib.import_module(f"losses{module}"), extraglobs=names
    )
    assert outcome.attempted > 0
    assert outcome.failed == 0


# --- soft labels ---------------------------------------------------------------------

# Not the asymmetric Unified Focal losses, whose foreground has a plain cross entropy,
# nor NACL, which asks for what is around a voxel.
REACHED = [name for name in losses.names() if not name.startswith(("Unified", "NACL"))]
UNIT = st.floats(0, 1, width=32)


def _pair(values: list[float]) -> np.ndarray:
    """Two classes that sum to 1, one image of a row of voxels."""
    foreground = np.array(values, "float64")
    return np.stack([1 - foreground, foreground], -1)[None]


@pytest.mark.slow
@pytest.mark.parametrize("name", REACHED)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(UNIT, UNIT), min_size=6, max_size=6))
def test_loss_is_lowest_where_p_equals_the_soft_label(name: str, rows: list) -> None:
    y, p = (_pair(values) for values in zip(*rows, strict=True))
    loss = losses.by_name(name, soft_labels=True, dtype="float64")
    with _float64():
        least, cost, nearer = (float(loss(y, x)) for x in (y, p, (p + y) / 2))
    assert least <= cost + 1e-6  # the clip moves labels of 0 and 1 by 1e-7
    if name.removesuffix("++") in ("DSC", "Tversky", "Focal Tversky"):
        assert nearer <= cost + 1e-6


def test_one_channel_with_soft_labels_is_two_classes() -> None:
    y, p = (_pair(values) for values in ([0.25, 1, 0, 0.5], [0.5, 0.75, 0.125, 0.5]))
    for name in losses.names():
        loss = per_image(name, soft_labels=True)
        one = numbers(loss(y[..., 1:], p[..., 1:]))
        np.testing.assert_allclose(one, numbers(loss(y, p)), rtol=1e-5, atol=1e-7)
    # Hits 0.25 + 0.75 + 0 + 0.5, errors 0.25², 0.25², 0.125²; of the background 0.5 +
    # 0 + 0.875 + 0.5 hits, and the same errors.
    errors = 2 * 0.0625 + 0.015625
    expected = (errors / (3 + errors) + errors / (3.75 + errors)) / 2
    assert float(losses.by_name("DSC++", soft_labels=True)(y, p)) == pytest.approx(
        expected, rel=1e-6
    )


# --- names, and what is refused ------------------------------------------------------


def test_registered_names_and_slugs() -> None:
    pairs = [n for plain in PLAIN for n in (plain, f"{plain}++")]
    beyond = ["Hard L1-ACE", "Soft L1-ACE", "NACL"]
    assert losses.names() == ["CE", "Focal", *pairs, *beyond]
    assert list(conformance.FAMILY) == ["CE", "Focal", *pairs]
    assert [losses.slug(n) for n in losses.names()] == [
        "ce", "focal", "dsc", "dscpp", "tversky", "tverskypp",
        "focal_tversky", "focal_tverskypp", "combo", "combopp",
        "unified_focal", "unified_focalpp",
        "symmetric_unified_focal", "symmetric_unified_focalpp",
        "hard_l1ace", "soft_l1ace", "nacl",
    ]  # fmt: skip
    gammas = [losses.default_gamma(n) for n in losses.names()]
    assert gammas == [None, None, *6 * [1, 2], None, None, None]
    assert type(losses.by_name("dsc++")) is losses.DicePlusPlus


def test_the_command_line_knows_the_same_names() -> None:
    assert list(loss_names.NAMES) == losses.names()
    assert sorted(losses._REGISTRY) == sorted(losses.names())
    for name in losses.names():
        assert loss_names.slug(name) == losses.slug(name)
        _, gamma = loss_names.checked(name)
        assert gamma == losses.default_gamma(name)
        assert type(losses.by_name(name, gamma=gamma)).title == name


def test_defaults_are_those_of_table_2_and_of_the_authors() -> None:
    expected = {
        "DSC": {},
        "Tversky": {"alpha": 0.3, "beta": 0.7},
        "Focal Tversky": {"alpha": 0.3, "beta": 0.7, "focal_gamma": 4 / 3},
        "Combo": {"alpha": 0.5, "beta": 0.5},
        "Unified Focal": {"lambda_": 0.5, "delta": 0.6, "focal_gamma": 0.5},
        "Symmetric Unified Focal": {"lambda_": 0.5, "delta": 0.6, "focal_gamma": 0.5},
    }
    assert losses.CrossEntropy.defaults == {}
    assert losses.Focal.defaults == {"alpha": 0.5, "focal_gamma": 2.0}
    assert losses.NACL.defaults == {"penalty": 0.1}
    ace = {"penalty": 1, "bins": 20, "epsilon": 1e-7}
    assert losses.HardL1ACE.defaults == losses.SoftL1ACE.defaults == ace
    for name, own in expected.items():
        plain = {**own, "epsilon": 1e-7}
        assert losses.by_name(name).defaults == plain
        assert losses.by_name(f"{name}++").defaults == {**plain, "gamma": 2.0}


@pytest.mark.parametrize("name", losses.names())
def test_the_configuration_holds_each_argument(name: str) -> None:
    loss = losses.by_name(name)
    config = loss.get_config()
    assert config == type(loss)().get_config()
    assert config["name"] == losses.slug(name)
    signature = inspect.signature(type(loss)).parameters
    assert {k: v.default for k, v in signature.items()} == {
        **config,
        "name": None,
        "dtype": None,
    }
    assert list(inspect.signature(loss).parameters)[:2] == ["y_true", "y_pred"]


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
        ("DSC", {"gamma": 2}, r"received gamma. gamma is the exponent of the \+\+ l"),
        ("CE", {"gamma": 2}, r"CE: expected .*received gamma. .* the \+\+ losses$"),
        ("Focal Tversky", {"gamma": 1.5}, "; its own is focal_gamma$"),
        ("unified focal", {"alpha": 1}, "among delta, epsilon, focal_gamma, lambda_"),
        ("Focal", {"gamma": 2}, "; its own is focal_gamma$"),
        ("DSC++", {"gama": 2}, "among epsilon, gamma, .*received gama"),
        ("DSC++", {"axis": 1.0}, "axis: expected a whole number, received 1.0"),
        ("CE", {"from_logits": 1}, "from_logits: expected True or False, received 1"),
        ("Combo", {"from_indices": None}, "from_indices: expected True or False"),
        ("CE", {"alpha": 0.5}, "received alpha"),
    ],
)
def test_invalid_names_and_arguments_are_refused(
    name: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        losses.by_name(name, **values)


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
def test_invalid_values_are_refused(
    name: str, values: dict[str, Any], message: str
) -> None:
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


@pytest.mark.parametrize(("true", "predicted", "message"), SHAPES_REFUSED)
@pytest.mark.parametrize("name", losses.names())
def test_invalid_shapes_are_refused(
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


@pytest.mark.parametrize(("true", "predicted", "message"), INDICES_REFUSED)
def test_invalid_shapes_of_indices_are_refused(
    true: tuple[int, ...], predicted: tuple[int, ...], message: str
) -> None:
    loss = losses.by_name("DSC++", from_indices=True)
    with pytest.raises(ValueError, match=message):
        loss(np.zeros(true, "int32"), np.zeros(predicted, "float32"))


def test_invalid_options_of_a_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"axis, ignore_background.*received from_log"):
        losses.Dice(from_log=True)
    y, p = sample((2, 3, 5, 2))
    with pytest.raises(ValueError, match="ignore_background: expected True or False"):
        losses.dice_loss(y, p, ignore_background=2)
    with pytest.raises(ValueError, match="received foo"):
        losses.cross_entropy_loss(y, p, foo=1)


@pytest.mark.backend
@pytest.mark.parametrize("place", ["y_true", "y_pred", "sample_weight"])
def test_a_tensor_of_another_framework_is_refused(place: str) -> None:
    # As PyTorch's are where KERAS_BACKEND was not set. A stand-in: one backend is here.
    other = "jax" if keras.backend.backend() == "torch" else "torch"
    tensor = type("Tensor", (), {"__module__": f"{other}.somewhere"})
    mine = type("MetaTensor", (tensor,), {"__module__": "mine"})()
    y, p = sample((2, 3, 5, 2))
    given = {"y_true": y, "y_pred": p, "sample_weight": y[..., 0], place: mine}
    message = rf"{place}: expected a tensor of {keras.backend.backend()}, .* a tensor "
    message += (
        rf"of {other}\. Set the environment variable KERAS_BACKEND={other} before"
    )
    with pytest.raises(ValueError, match=message) as caught:
        losses.by_name("DSC++")(**given)
    assert caught.value.__cause__ is None
    given["weight"] = given.pop("sample_weight")
    message = message.replace("sample_weight", "weight")
    with pytest.raises(ValueError, match=message):
        losses.dice_loss(**given)


@pytest.mark.parametrize("axis", [0, 4, -4])
def test_invalid_axis_is_refused(axis: int) -> None:
    y, p = sample((2, 3, 5, 2))
    with pytest.raises(ValueError, match="axis of the classes"):
        losses.by_name("CE", axis=axis)(y, p)


@pytest.mark.slow
def test_unknown_lengths_pass_when_traced() -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces with unknown lengths")
    import tensorflow as tf

    y, p = sample((2, 3, 5, 2))
    open_shape = tf.TensorSpec((None, None, None, 2))
    for name in losses.names():
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
