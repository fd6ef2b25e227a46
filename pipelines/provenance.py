"""Where a run was made: versions, backend, device and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from pathlib import Path

__all__ = ["BACKENDS", "backend", "device", "machine", "peak_memory_mb", "versions"]

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


def backend() -> str:
    """The Keras backend that this process would use, without importing Keras."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].backend.backend())
    return os.environ.get("KERAS_BACKEND", "tensorflow")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Kind of machine: system, architecture, cores, processor. No host name.

    The processor belongs to it: another kind adds floats in another order, and from
    the last bits on a training takes another way.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    kind = f"{platform.system()} {platform.machine()}, {cores or os.cpu_count()} cores"
    return ", ".join(filter(None, [kind, _processor()]))


def _processor() -> str:
    """The processor's name, or "" where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else ""


def device() -> str:
    """What the backend computes on: the GPU's name, or "CPU"."""
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


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MB (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)
