"""Keras and its backend, set up alike whatever the environment says.

`keras.json` and a dozen environment variables change a training without a word: the
type of all floats, the number of epochs, how products are rounded. What a run records
must be what was computed, so they are set here, in code, or taken away.
"""

import importlib
import os
import sys
import tempfile
from pathlib import Path

from data_io import bars
from data_io.errors import InputError
from pipelines.environment import installed, provenance

_NOTES = ("I0000 ", "WARNING: All log messages before absl")
_MOST_COMPILED = 2**30  # bytes; what was not used for longest goes first
# Each would make a run something else than its run.json says, without a trace in it.
_OVERRULING = {
    "KERAS_MAX_EPOCHS": "use --epochs",
    "KERAS_MAX_STEPS_PER_EPOCH": "an epoch is all training cases",
    "KERAS_NNX_ENABLED": "this project does not use it",
    "NVIDIA_TF32_OVERRIDE": "use --set precision=tf32 or float32",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "use --set precision=tf32 or float32",
    "ONEDNN_DEFAULT_FPMATH_MODE": "use --set precision=mixed_bfloat16",
    "DNNL_DEFAULT_FPMATH_MODE": "use --set precision=mixed_bfloat16",
    "TF_SET_ONEDNN_FPMATH_MODE": "use --set precision=mixed_bfloat16",
    "TF_XLA_FLAGS": "use --set xla=true",
    "JAX_DEFAULT_MATMUL_PRECISION": "use --set precision=tf32 or float32",
    "JAX_ENABLE_X64": "all values are float32",
    "JAX_DEFAULT_DTYPE_BITS": "all values are float32",
    "JAX_NUMPY_DTYPE_PROMOTION": "all values are float32",
    "JAX_DISABLE_JIT": "JAX always compiles here",
    "JAX_DEFAULT_PRNG_IMPL": "the seed alone decides the first weights",
    "JAX_RANDOM_SEED_OFFSET": "use --seed",
    "JAX_THREEFRY_PARTITIONABLE": "the seed alone decides the first weights",
}


def clear_environment() -> None:
    """Remove environment variables that would overrule a run's settings.

    Each variable that is taken away is named on stderr. No `keras.json` is read or
    written: of the folders it could be in, this process and its children see none.
    """
    for name, instead in _OVERRULING.items():
        if os.environ.pop(name, None) is not None:
            bars.note(f"dscpp: {name} is set and not used: {instead}", sys.stderr)
    os.environ["KERAS_HOME"] = os.devnull


def start(work: Path | None = None) -> None:
    """Import Keras and its backend with the values that all runs have.

    To be called before anything else imports Keras; where that was done already, what
    its configuration can still change is set all the same.

    Args:
        work: where JAX keeps what it has compiled, for the next process; None: nowhere.

    Raises:
        InputError: KERAS_BACKEND names a backend that is not installed.
    """
    clear_environment()
    installed.require_training()
    _import_keras()
    import keras

    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
    set_precision("float32")
    if work and keras.backend.backend() == "jax":
        _keep_compiled(work / "jax" / provenance.processor_hash())


def _keep_compiled(folder: Path) -> None:
    """Let JAX compile a step once for all processes; keep a folder that is set."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.config.update("jax_compilation_cache_max_size", _MOST_COMPILED)


def set_precision(precision: str) -> None:
    """Set how the backend multiplies float32 from now on.

    NVIDIA's GPUs since Ampere round the factors of convolutions and products to TF32,
    10 bits of mantissa instead of 23, and all three backends allow it by default for
    some or all of them. A CPU knows no TF32: there it changes nothing.

    Args:
        precision: as `Protocol.precision`; "tf32" allows TF32, and nothing else does.
    """
    allowed = precision == "tf32"
    name = provenance.backend()
    if name == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(allowed)
    elif name == "torch":
        import torch

        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed
    elif name == "jax":
        import jax

        level = "tensorfloat32" if allowed else "highest"
        jax.config.update("jax_default_matmul_precision", level)


def _import_keras() -> None:
    """Import Keras without TensorFlow's notes on how it was built.

    They come from C++ before any log level counts, two screens of them a command, and
    would bury what matters; warnings and errors still come through.
    """
    sys.stderr.flush()
    stderr_copy = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            importlib.import_module("keras")
        except (ImportError, ValueError) as error:
            missing = str(getattr(error, "name", None) or "").partition(".")[0]
            if missing not in ("", *provenance.BACKENDS):
                raise  # Something else is broken, and no setting mends it.
            raise InputError(
                "KERAS_BACKEND: expected a backend that is installed here (tensorflow, "
                f"torch or jax), received {provenance.backend()!r} ({error}); set "
                "another, or use the environment of that backend"
            ) from error
        finally:
            os.dup2(stderr_copy, 2)
            os.close(stderr_copy)
            notes.seek(0)
            for line in notes.read().decode(errors="replace").splitlines():
                if not line.startswith(_NOTES):
                    print(line, file=sys.stderr)
