"""The backend is set up alike, whatever the environment says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from pipelines.environment import backend, provenance
from pipelines.training import fit
from pipelines.training.protocol import Protocol


def network(precision: str) -> keras.Model:
    return fit.build(Protocol((16, 16), 2, 1, precision=precision), 3, 2)


@pytest.fixture
def in_float32():
    yield
    backend.set_precision("float32")


def tf32_allowed() -> set[bool]:
    """Whether the backend may round to TF32: in convolutions, in products."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return {tf.config.experimental.tensor_float_32_execution_enabled()}
    if keras.backend.backend() == "torch":
        import torch

        return {
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.conv.fp32_precision == "tf32",
            torch.backends.cuda.matmul.allow_tf32,
        }
    import jax

    levels = {"tensorfloat32": True, "highest": False}
    return {levels[jax.config.jax_default_matmul_precision]}


@pytest.mark.backend
@pytest.mark.parametrize(
    ("precision", "allowed"),
    [("tf32", True), ("float32", False), ("mixed_bfloat16", False)],
)
def test_only_the_precision_tf32_allows_tf32(in_float32, precision, allowed):
    backend.set_precision("float32" if allowed else "tf32")
    model = network(precision)
    assert tf32_allowed() == {allowed}
    policy = "mixed_bfloat16" if precision == "mixed_bfloat16" else "float32"
    assert {layer.dtype_policy.name for layer in model.layers} <= {policy, "float32"}


@pytest.mark.backend
def test_every_convolution_of_jax_asks_for_float32(in_float32):
    if keras.backend.backend() != "jax":
        pytest.skip("of JAX alone: the others have one switch for all")
    import jax

    def convolutions(precision: str) -> list[str]:
        model = network(precision)
        weights = [variable.value for variable in model.trainable_variables]
        image = np.zeros((1, 16, 16, 3), np.float32)

        def loss(weights):
            outputs, _ = model.stateless_call(weights, [], image, training=True)
            return outputs[..., 0].sum()

        text = jax.jit(jax.grad(loss)).lower(weights).as_text("hlo")
        return [line for line in text.splitlines() if " convolution(" in line]

    exact, rounded = convolutions("float32"), convolutions("tf32")
    # 8 layers: forward, and backward to the weights and to what came in.
    assert len(exact) == len(rounded) >= 20
    for line in exact:
        assert "operand_precision={highest,highest}" in line
    assert not any("highest" in line for line in rounded)


@pytest.fixture
def no_cache_yet():
    """JAX as it is before the first `start`, and then as it was."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    names = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.backend
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX alone keeps steps")
def test_jax_cache_is_reused_and_rebuilt_when_damaged(no_cache_yet, tmp_path):
    import jax

    def compute() -> float:
        jax.clear_caches()
        return float(jax.jit(lambda x: jax.numpy.sin(x).sum() * 3)(np.arange(9.0)))

    backend.start(tmp_path)
    found = compute()
    entries = list(tmp_path.glob("jax/*/*-cache"))
    assert entries
    before = {path: path.read_bytes() for path in entries}
    assert compute() == found
    assert {path: path.read_bytes() for path in entries} == before
    for path, content in before.items():
        middle = len(content) // 2
        path.write_bytes(content[:middle] + b"damaged" + content[middle + 7 :])
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        assert compute() == found
    for path in entries:
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        assert compute() == found


@pytest.mark.backend
def test_keras_settings_are_reset_to_defaults():
    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("float16")
    keras.config.set_epsilon(1e-2)
    keras.config.set_image_data_format("channels_first")
    keras.config.set_max_epochs(1)
    keras.config.set_max_steps_per_epoch(1)
    backend.start()
    assert values() == DEFAULTS


DEFAULTS = ["float32", "float32", 1e-7, "channels_last", None, None]


def values() -> list:
    config = keras.config
    return [
        config.floatx(),
        config.dtype_policy().name,
        config.epsilon(),
        config.image_data_format(),
        config.max_epochs(),
        config.max_steps_per_epoch(),
    ]


HOSTILE = {
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "many",
    "KERAS_NNX_ENABLED": "true",
}
SHOW = """
import json
from pipelines.environment import backend
backend.start()
import keras, test_backend
print(json.dumps(test_backend.values()))
"""


@pytest.mark.slow
def test_the_users_configuration_of_keras_changes_nothing(project, tmp_path):
    text = '{"floatx": "float64", "epsilon": 1}'
    # Refused by Keras itself: epsilon is no float, and a limit is no number.
    kept = tmp_path / ".keras" / "keras.json"
    kept.parent.mkdir()
    kept.write_text(text)
    path = f"{project}{os.pathsep}{project / 'tests'}"
    result = subprocess.run(
        [sys.executable, "-c", SHOW],
        env={**os.environ, **HOSTILE, "HOME": str(tmp_path), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == DEFAULTS
    for name in HOSTILE:
        assert f"dscpp: {name} is set and not used" in result.stderr
    assert kept.read_text() == text


def test_variables_that_override_run_settings_are_removed(monkeypatch, capsys):
    for name in backend._OVERRULING:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KERAS_HOME", "/home/somebody/.keras")
    backend.clear_environment()
    assert not backend._OVERRULING.keys() & os.environ.keys()
    assert len(capsys.readouterr().err.splitlines()) == len(backend._OVERRULING)
    backend.clear_environment()
    assert capsys.readouterr().err == ""


def test_variables_that_decide_rounding_are_recorded_without_paths(monkeypatch):
    for name in provenance.variables():
        monkeypatch.delenv(name)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/me  --xla_cpu_enable=false")
    monkeypatch.setenv("TORCH_HOME", "/home/me/torch")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setenv("HOME", "/home/me")
    assert provenance.variables() == {
        "OMP_NUM_THREADS": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "XLA_FLAGS": "--xla_cpu_enable=false",
    }


@pytest.mark.backend
def test_recorded_number_of_threads_is_the_backends(monkeypatch):
    if keras.backend.backend() == "torch":
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            assert provenance.threads() == 3
        finally:
            torch.set_num_threads(before)
        return
    names = {"tensorflow": "TF_NUM_INTRAOP_THREADS", "jax": "PJRT_NPROC"}
    monkeypatch.setenv(names[keras.backend.backend()], "3")
    assert provenance.threads() == 3


def test_an_environment_is_compared_with_the_last_one():
    now = {"commit": "b", "versions": {"keras": "2"}, "machine": "m", "threads": 2}
    old = {"commit": "a", "versions": {"keras": "2"}, "machine": "m"}
    # What an older run does not say has not changed.
    assert provenance.changes(old, now) == {"commit": "b"}
    old["environment_changes"] = [
        {"stage": "train", "commit": "b", "machine": "other"},
        {"stage": "predict", "machine": "m"},
    ]
    assert provenance.changes(old, now) == {}
    assert provenance.changes({**old, "threads": 1}, now) == {"threads": 2}
