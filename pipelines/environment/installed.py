"""What a command needs beside the project, looked for before anything is begun."""

import importlib.util
import os
import shlex
import sys

from data_io.errors import InputError
from pipelines.environment.provenance import BACKENDS

_PIP = {
    # It asks for a TensorFlow that today's Pythons do not have; see setup.cfg.
    "miscnn": ("--no-deps", "miscnn==1.4.0"),
    "PIL": ("pillow",),
    "skimage": ("scikit-image",),
    "yaml": ("pyyaml",),
}


def require_training(backend: str | None = None) -> None:
    """Look for Keras, its backend and MIScnn, without importing any.

    `backend` is the one wanted; None for that of this process.

    Raises:
        InputError: one is not installed, or `KERAS_BACKEND` names no backend; the
            message has the command that installs it.
    """
    source = "KERAS_BACKEND" if backend is None else "backend"
    backend = backend or os.environ.get("KERAS_BACKEND") or "tensorflow"
    available = [name for name in BACKENDS if is_here(name)]
    if backend in available:
        require("keras", "miscnn")
        return
    wrong = (
        f"{source}: expected one of {', '.join(BACKENDS)} that is installed, "
        f"received {backend!r}; installed: {', '.join(available) or 'none'}"
    )
    if backend not in BACKENDS:
        raise InputError(f"{wrong}. Set another.")
    absent = [name for name in ("keras", backend, "miscnn") if not is_here(name)]
    raise InputError(f"{wrong}\n{missing(*absent)}")


def require(*modules: str) -> None:
    """Look for modules without importing them.

    Raises:
        InputError: one or more are not installed.
    """
    if absent := [name for name in modules if not is_here(name)]:
        raise missing(*absent)


def missing(*modules: str) -> InputError:
    """Return the error for modules that are not installed."""
    pip = (sys.executable, "-m", "pip", "install")
    commands = [shlex.join((*pip, *_PIP.get(name, (name,)))) for name in modules]
    lines = "\n  ".join(commands)
    return InputError(
        f"{', '.join(modules)}: expected to be installed, found no such Python package "
        f"in this environment. To install:\n  {lines}\n"
        "In a checkout of the project, `make install` does that in .venv."
    )


def is_here(name: str) -> bool:
    """Return whether a module is installed; an empty folder left behind is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None
