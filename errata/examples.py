"""Inputs that several entries share: phantoms, one-hot labels, probabilities."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from data_io.simulation import phantoms

Floats = npt.NDArray[np.float64]


@cache
def phantom_image(rows: int, columns: int) -> np.ndarray:
    """Return a phantom cropped to a size, uint8 (rows, columns, 3)."""
    size = math.ceil(max(rows, columns) / 16) * 16
    return phantoms.draw_vessel_image(np.random.default_rng(0), size)[:rows, :columns]


def phantom_label(rows: int, columns: int) -> np.ndarray:
    """Return where vessels of that phantom have p > 0.5, int (rows, columns)."""
    return (phantoms.vessel_probability(phantom_image(rows, columns)) > 0.5).astype(int)


def z_score(image: np.ndarray) -> Floats:
    """Normalise as MIScnn does: over the whole image and all channels."""
    values = image.astype(np.float64)
    return (values - values.mean() + 1e-6) / (values.std() + 1e-6)


def one_hot(labels: npt.ArrayLike, classes: int = 2) -> Floats:
    """Return labels (N,) as a batch of one image: (1, N, classes)."""
    return np.eye(classes)[np.asarray(labels)][None]


def pair(chance: npt.ArrayLike) -> Floats:
    """Return probabilities of foreground (N,) as a batch of one image: (1, N, 2)."""
    p = np.asarray(chance, np.float64)
    return np.stack([1 - p, p], axis=-1)[None]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which batchgenerators uses, inside the block."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
