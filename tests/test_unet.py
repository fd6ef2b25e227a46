"""The network: its two forms, precision, and what a step of it is compiled to."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

import losses
from pipelines.training import fit, unet
from pipelines.training.protocol import Protocol

BACKEND = keras.backend.backend()
CHANNELS_FIRST = pytest.mark.skipif(
    not unet.computes_channels_first(),
    reason="TensorFlow computes channels-first on a GPU, or by oneDNN (AVX-512)",
)
# (*spatial, channels), classes; axes of different length, the last never of as many
# voxels as there are channels: see the module `unet`.
SHAPES = [((16, 24, 3), 2), ((8, 12, 20, 1), 3)]


def protocol(shape=(16, 24), **changes) -> Protocol:
    return Protocol(shape, filters=4, depth=1, **changes)


def losses_of(values: Protocol, channels: int, classes: int, steps: int) -> list[float]:
    """The training loss, step by step, of a network of the protocol."""
    keras.utils.set_random_seed(1)
    model = fit.build(values, channels, classes)
    fit.compile_model(model, values, losses.by_name("DSC++"))
    batch = sample((*values.input_shape, channels), classes)
    return [float(model.train_on_batch(*batch)) for _ in range(steps)]


def create(network: unet.UNet, shape, classes) -> keras.Model:
    if len(shape) == 4:
        return network.create_model_3D(shape, classes)
    return network.create_model_2D(shape, classes)


def sample(shape, classes) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    image = random.normal(size=(1, *shape)).astype("float32")
    label = random.integers(0, classes, (1, *shape[:-1]))
    return image, np.eye(classes, dtype="float32")[label]


def trained(first: bool, shape, classes) -> tuple[keras.Model, float]:
    """A network after three steps, and the loss of the last."""
    keras.utils.set_random_seed(1)
    model = create(unet.UNet(4, 1, channels_first=first), shape, classes)
    fit.compile_model(model, protocol(shape[:-1]), losses.by_name("DSC++"))
    values = [model.train_on_batch(*sample(shape, classes)) for _ in range(3)]
    return model, float(values[-1])


def test_parameters_of_the_standard_unet():
    model = unet.UNet().create_model_2D((512, 512, 3), 2)
    assert model.count_params() == 7_766_018
    assert model.output_shape == (None, 512, 512, 2)


@pytest.mark.backend
@pytest.mark.parametrize("first", [False, pytest.param(True, marks=CHANNELS_FIRST)])
def test_the_unet_in_3d_takes_unequal_axes_and_three_classes(first):
    network = unet.UNet(filters=2, depth=2, channels_first=first)
    model = network.create_model_3D((8, 12, 16, 1), 3)
    out = keras.ops.convert_to_numpy(model(np.zeros((1, 8, 12, 16, 1), "float32")))
    assert out.shape == (1, 8, 12, 16, 3)
    np.testing.assert_allclose(out.sum(-1), 1, rtol=1e-5)


@pytest.mark.backend
@CHANNELS_FIRST
@pytest.mark.parametrize(("shape", "classes"), SHAPES)
def test_both_forms_train_to_the_same_weights(shape, classes):
    plain, plain_loss = trained(False, shape, classes)
    first, first_loss = trained(True, shape, classes)
    assert first_loss == pytest.approx(plain_loss, abs=1e-4)
    for one, other in zip(plain.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    # Weights go from one form to the other.
    plain.set_weights(first.get_weights())
    image, _ = sample(shape, classes)
    expected = plain.predict_on_batch(image)
    assert expected.max() - expected.min() > 0.1
    np.testing.assert_allclose(first.predict_on_batch(image), expected, atol=1e-4)


@pytest.mark.backend
@pytest.mark.skipif(BACKEND == "torch", reason="channels-first is faster on PyTorch")
def test_saved_model_has_the_plain_form():
    config = fit.build(protocol(), 3, 2).get_config()
    kinds = {layer["module"] for layer in config["layers"]}
    assert kinds == {"keras.layers"}
    formats = {layer["config"].get("data_format") for layer in config["layers"]}
    assert formats == {None, "channels_last"}


@pytest.mark.backend
@CHANNELS_FIRST
def test_normalisation_of_one_voxel_gives_the_shift():
    # One value less its mean: PyTorch's functional form refuses it.
    forms = [unet.UNet(4, 2, channels_first=first) for first in (False, True)]
    both = [create(network, (4, 4, 3), 2) for network in forms]
    both[1].set_weights(both[0].get_weights())
    image, _ = sample((4, 4, 3), 2)
    one, other = (model.predict_on_batch(image) for model in both)
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.backend
@pytest.mark.skipif(BACKEND != "torch", reason="memory is laid out on PyTorch alone")
@pytest.mark.parametrize(("shape", "classes"), SHAPES)
def test_kernels_stay_in_the_order_of_pytorch(shape, classes):
    model, _ = trained(True, shape, classes)
    model.set_weights(model.get_weights())
    model.train_on_batch(*sample(shape, classes))
    variables = [*model.variables, *model.optimizer.variables]
    kernels = [v.value for v in variables if len(v.shape) > 3]
    assert len(kernels) == 2 * 8
    for kernel in kernels + [kernel.grad for kernel in kernels[:8]]:
        spatial = range(kernel.ndim - 2)
        assert kernel.permute(-1, -2, *spatial).is_contiguous()


@pytest.mark.backend
@pytest.mark.slow
# TensorFlow pools no volumes in float16 on a CPU.
@pytest.mark.parametrize(
    ("precision", "shape", "classes"),
    [("mixed_float16", *SHAPES[0]), ("mixed_bfloat16", *SHAPES[1])],
)
def test_a_lower_precision_learns_nearly_the_same(precision, shape, classes):
    values = protocol(shape[:-1], precision=precision, learning_rate=0.01)
    exact = dataclasses.replace(values, precision="float32")
    expected, found = (losses_of(v, shape[-1], classes, 3) for v in (exact, values))
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert found != expected


@pytest.mark.backend
def test_lower_precision_applies_to_all_but_the_last_two_layers():
    model = fit.build(protocol(precision="mixed_bfloat16"), 3, 2)
    kept = [x for x in model.layers[1:] if x.compute_dtype != "bfloat16"]
    kept = [x.name for x in kept if not isinstance(x, keras.layers.Permute)]
    assert kept == ["logits", "probabilities"]
    assert {layer.output.dtype for layer in model.layers[-2:]} == {"float32"}
    assert {variable.dtype for variable in model.variables} == {"float32"}


@pytest.mark.backend
def test_only_float16_scales_its_loss():
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        values = protocol(precision=precision)
        model = fit.build(values, 3, 2)
        fit.compile_model(model, values, losses.by_name("DSC++"))
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (precision == "mixed_float16")


@pytest.mark.backend
def test_jit_compile_is_set_explicitly(monkeypatch):
    # As Keras finds on TensorFlow where there is a GPU.
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda model: True)
    for xla, expected in (
        ("auto", BACKEND == "jax"),
        (True, True),
        (False, False),
    ):
        values = protocol(xla=xla)
        model = fit.build(values, 3, 2)
        fit.compile_model(model, values, losses.by_name("DSC++"))
        assert model.jit_compile == expected


@pytest.mark.slow
@pytest.mark.skipif(
    BACKEND != "tensorflow",
    reason="JAX compiles by itself, torch.compile takes minutes",
)
def test_a_compiled_step_learns_the_same():
    found = [losses_of(protocol(xla=xla), 3, 2, 2) for xla in ("auto", True)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
