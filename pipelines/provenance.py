"""Where a run was made: code, versions, backend, device and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path

from data_io.errors import InputError

__all__ = [
    "BACKENDS", "COMMIT", "backend", "commit", "device", "is_clean", "machine",
    "peak_memory_mb", "versions",
]  # fmt: skip

BACKENDS = ("tensorflow", "torch", "jax")
COMMIT = "DSCPP_COMMIT"
"""The environment variable that names the commit of a tree without git."""

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


def commit() -> str:
    """Commit of the code, with "+" when code differs from it; "" where it is unknown.

    What runs and tables write (`results`, the README, `docs`) is not code, nor is what
    git does not track. Without git the environment variable `COMMIT` says it, or the
    file that `git archive` writes it into (`commit.txt`).

    Raises:
        InputError: the environment variable holds something else.
    """
    # A repository around an installed or unpacked tree is not this code's.
    name = _git("ls-files", "--error-unmatch", __file__) and _git("rev-parse", "HEAD")
    if not name:
        return _told() or _archived()
    written = (f":(top,exclude){path}" for path in ("results", "README.md", "docs"))
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *written)
    return name + "+" * bool(changed)


def is_clean(name: object) -> bool:
    """Whether a commit, as `commit` gives it, is known and without changes."""
    return isinstance(name, str) and bool(re.fullmatch("[0-9a-f]{40,64}", name))


def _told() -> str:
    name = os.environ.get(COMMIT, "").strip()
    if name and not is_clean(name.removesuffix("+")):
        raise InputError(
            f"{COMMIT}: expected a commit of 40 hexadecimal digits, as `git rev-parse "
            f"HEAD` gives it, with + behind it where files were changed; received "
            f"{name!r}"
        )
    return name


def _archived() -> str:
    """What `git archive` wrote; in a checkout the file holds a placeholder."""
    try:
        name = Path(__file__).with_name("commit.txt").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return name if is_clean(name) else ""


def _git(*arguments: str) -> str:
    """What git says, or "" where it is not there or refuses."""
    here = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


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
