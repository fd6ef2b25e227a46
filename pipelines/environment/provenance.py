"""Where a run was made: versions, backend, device, machine, environment."""

import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_io import pool
from pipelines.environment import commits

BACKENDS = ("tensorflow", "torch", "jax")

_PACKAGES = (
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "torch",
    "jax",
    "miscnn",
    "batchgenerators",
    "scikit-image",
    "numpy",
    "scipy",
)


_CPUINFO = Path("/proc/cpuinfo")
# Variables of these beginnings decide how a backend rounds or how it shares work out.
_DECIDE = (
    "ATEN_", "CUBLAS_", "CUDNN_", "DNNL_", "JAX_", "KERAS_TORCH_DEVICE", "KMP_", "MKL_",
    "NPROC", "OMP_", "ONEDNN_", "OPENBLAS_", "PJRT_", "TF_", "TORCH_", "XLA_",
)  # fmt: skip
# But these only say what is logged, where things are kept and how memory is taken.
_DO_NOT = (
    "JAX_COMPILATION_CACHE_", "JAX_PERSISTENT_CACHE_", "TF_CPP_",
    "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_",
)  # fmt: skip


def environment(with_backend: bool = True) -> dict[str, Any]:
    """Return what decides a run's numbers besides its settings, for `run.json`.

    `with_backend`: it is imported and computes; else there are neither `threads` nor
    `variables`.
    """
    values: dict[str, Any] = {
        "commit": commits.commit(),
        "versions": versions(),
        "machine": machine(),
    }
    if with_backend:
        values |= {"threads": threads(), "variables": variables()}
    return values


def changes(record: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has changed in the environment since a run was last worked on.

    Return the values of now that differ. What an older run does not record counts as
    unchanged.
    """
    before = {key: record[key] for key in now if key in record}
    for change in record.get("environment_changes", ()):
        before |= {key: change[key] for key in before if key in change}
    return {key: now[key] for key in before if now[key] != before[key]}


def threads() -> int:
    """Return the number of threads of one operation of the backend, on the CPU."""
    name = backend()
    if name == "torch":
        import torch

        return int(torch.get_num_threads())
    if name == "tensorflow":
        import tensorflow as tf

        set_in_code = tf.config.threading.get_intra_op_parallelism_threads()
        return (
            set_in_code or _thread_count("TF_NUM_INTRAOP_THREADS") or pool.processors()
        )
    return _thread_count("PJRT_NPROC") or _thread_count("NPROC") or pool.processors()


def _thread_count(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else 0


def variables() -> dict[str, str]:
    """Return the variables that decide how the backend computes, without paths."""
    texts = {
        name: " ".join(word for word in value.split() if "/" not in word)
        for name, value in sorted(os.environ.items())
        if name.startswith(_DECIDE) and not name.startswith(_DO_NOT)
    }
    return {name: value for name, value in texts.items() if value}


def backend() -> str:
    """Return the Keras backend that this process would use; do not import Keras."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].backend.backend())
    return os.environ.get("KERAS_BACKEND", "tensorflow")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    by_package = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            by_package[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return by_package


def machine() -> str:
    """Kind of machine: system, architecture, cores, processor. No host name.

    The processor belongs to it: another kind adds floats in another order, and from
    the last bits on a training takes another way.
    """
    cores = pool.processors()
    kind = f"{platform.system()} {platform.machine()}, {cores} cores"
    name = _cpuinfo("model name") if _CPUINFO.exists() else platform.processor()
    return ", ".join(filter(None, [kind, name]))


def processor_hash() -> str:
    """Return 8 hex digits, the same for processors that share machine code."""
    kind = [machine(), _cpuinfo("flags"), _cpuinfo("Features")]
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:8]


def _cpuinfo(key: str) -> str:
    """Return a value of `/proc/cpuinfo` for the first processor; "" without one."""
    try:
        lines = _CPUINFO.read_text("utf-8").splitlines()
    except OSError:
        return ""
    values = [line.partition(":")[2] for line in lines if line.startswith(key)]
    return values[0].strip() if values else ""


def device() -> str:
    """Return what the backend computes on: the GPU's name, or "CPU"."""
    name = backend()
    if name == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return ", ".join(str(d.get("device_name", "GPU")) for d in details) or "CPU"
    if name == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    if name == "jax":
        import jax

        kinds = [d.device_kind for d in jax.devices() if d.platform != "cpu"]
        return ", ".join(kinds) or "CPU"
    return name


def peak_memory_mb(record: Mapping[str, Any] | None = None) -> float:
    """Return the peak resident memory of this process, in MB (1e6 bytes); 0 if unknown.

    Of a run's record, that of the processes that worked on it before counts too.
    """
    before = (record or {}).get("peak_memory_mb") or 0.0
    try:
        import resource
    except ImportError:  # Windows
        return before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    return max(round(peak_mb, 1), before)
