"""Maps from a class's probability to a better calibrated one, fitted on counts.

With p the probability of a class and q what becomes of it:

    affine    logit q = a logit p + b                  Platt (1999)
    beta      logit q = a log p - b log(1 - p) + c     Kull et al. (2017)
    isotonic  q never falls as p rises                 Zadrozny and Elkan (2002)

a, b >= 0, so that no map turns the order of voxels around. Affine and beta have the
lowest NLL, isotonic the lowest Brier score, over all voxels of the validation cases
together. p nearer to 0 or 1 than `EPSILON` counts as that far, since histograms tell no
more. Isotonic values stay `FLOOR` away from 0 and 1: their NLL is finite.

Isotonic is exact: q is constant in each bin of the histograms. Affine and beta are
fitted with the mean p of each bin for all its voxels; bins are 0.25 wide in logit.

Of several classes each is mapped against the rest. The background gets what the others
leave; where they sum to more than 1, they are divided by their sum. The fit knows
nothing of that division, and the most probable class of a voxel may change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from pipelines.measure.histograms import EDGES, bins_of, centres
from pipelines.measure.metrics import EPSILON, ratio

FLOOR = 1e-6
"""A bin without a voxel of the target is no proof that there is none."""

_ZERO = 1e-6  # of a, b, c: what is smaller is 0
_MOST = 20.0  # of a and b: the lowest temperature is 1 / 20
_Array = npt.NDArray[Any]
_Floats = npt.NDArray[np.float64]
_Fit = Callable[[_Floats, _Floats, _Floats], list[float]]
_Apply = Callable[[_Array, Sequence[float]], _Array]


def fit(method: str, counts: npt.ArrayLike, confidence: npt.ArrayLike) -> list[float]:
    """Fit a map of one class.

    Args:
        method: a key of `METHODS`.
        counts: voxels of the validation cases, (cases, 2, B); see `histograms.count`.
        confidence: mean p in each bin, (cases, B).

    Returns:
        Its parameters: a, b, c (of "affine" a, a, b); of "isotonic" q of each bin.
    """
    counts = np.asarray(counts, np.float64)
    voxels = counts.sum(axis=-2)
    n, true = voxels.sum(axis=0), counts[:, 1].sum(axis=0)
    return METHODS[method][0](n, true, ratio((voxels * confidence).sum(axis=0), n))


def lacking(counts: npt.ArrayLike) -> str:
    """Name the voxels that a map needs and these lack: with or without the class.

    Args:
        counts: as `fit` takes them.

    Returns:
        "with": no voxel is of the class; "without": all are; "": there are both.
    """
    without, within = np.asarray(counts).sum(axis=(0, 2))
    return "with" * (not within) or "without" * (not without)


def mapped(method: str, p: npt.ArrayLike, parameters: Sequence[float]) -> _Array:
    """Map probabilities of one class: q, as p of any shape, in [0, 1].

    p that rounding left below 0 or above 1 counts as 0 or 1, as the metrics count it.
    """
    return METHODS[method][1](np.clip(p, 0.0, 1.0), parameters)


def of_bins(
    method: str,
    counts: npt.ArrayLike,
    confidence: npt.ArrayLike,
    parameters: Sequence[float],
) -> tuple[_Array, _Floats]:
    """Map histograms of one class: all voxels of a bin go where its mean p goes.

    Args:
        method: a key of `METHODS`.
        counts: (cases, 2, B), with the bins of `EDGES`.
        confidence: mean p in each bin, (cases, B).
        parameters: from `fit`.

    Returns:
        The same two of q.
    """
    counts = np.asarray(counts)
    # In float32 a mean may be rounded out of its bin.
    inside = np.clip(confidence, EDGES[:-1], np.nextafter(EDGES[1:], 0))
    q, n = mapped(method, inside, parameters), counts.sum(axis=-2)
    cells = np.arange(len(q))[:, np.newaxis], bins_of(q)
    moved, sums = np.zeros(counts.shape, np.int64), np.zeros(q.shape)
    np.add.at(moved.swapaxes(1, 2), cells, counts.swapaxes(1, 2))
    np.add.at(sums, cells, n * q)
    held = moved.sum(axis=-2)
    return moved, np.where(held, ratio(sums, held), centres())


def softmax(
    method: str, p: npt.ArrayLike, parameters: Sequence[Sequence[float]]
) -> _Array:
    """Map the probabilities of all classes.

    Args:
        method: a key of `METHODS`.
        p: (*spatial, C), in [0, 1], with sum 1 over the classes.
        parameters: of each class but the background.

    Returns:
        float32, (*spatial, C), with sum 1 over the classes.
    """
    p = np.asarray(p, np.float32)
    q = np.empty_like(p)
    for number, fitted in enumerate(parameters, start=1):
        q[..., number] = mapped(method, p[..., number], fitted)
    total = q[..., 1:].sum(axis=-1)
    q[..., 0] = np.maximum(1 - total, 0)
    q /= np.maximum(total, 1)[..., np.newaxis]
    return q


def _logits(p: _Array) -> tuple[_Array, _Array]:
    """Log p and -log(1 - p)."""
    p = np.clip(p, EPSILON, 1 - EPSILON)
    return np.log(p), -np.log1p(-p)


def _logistic(shared: bool, n: _Floats, true: _Floats, p: _Floats) -> list[float]:
    """Fit a, b, c; `shared`: a and b are one."""
    n, true, (low, high) = n[n > 0], true[n > 0], _logits(p[n > 0])
    slopes = [low + high] if shared else [low, high]
    x = np.stack([*slopes, np.ones(len(n))], axis=-1)

    def nll(weights: _Floats) -> tuple[float, _Floats]:
        z = x @ weights
        value = n @ np.logaddexp(0, z) - true @ z
        return value / n.sum(), (n * special.expit(z) - true) @ x / n.sum()

    solution = optimize.minimize(
        nll,
        np.array([1.0] * len(slopes) + [0.0]),
        jac=True,
        method="SLSQP",
        bounds=[(0, _MOST)] * len(slopes) + [(None, None)],
        options={"ftol": 1e-16, "maxiter": 300},
    ).x
    # The same to the last digit that is written, on every machine; below the
    # tolerance of the search all digits are chance.
    *fitted, shift = (0.0 if abs(v) < _ZERO else float(f"{v:.4g}") for v in solution)
    return [fitted[0], fitted[-1], shift]


def _beta(p: _Array, parameters: Sequence[float]) -> _Array:
    a, b, c = parameters
    low, high = _logits(p)
    return special.expit(a * low + b * high + c)


def _isotonic(n: _Floats, true: _Floats, _: _Floats) -> list[float]:
    """Pool neighbouring bins until the share of the target never falls."""
    held = np.flatnonzero(n)
    shares = optimize.isotonic_regression(true[held] / n[held], weights=n[held]).x
    shares = np.clip(shares, FLOOR, 1 - FLOOR)
    # A bin without a voxel lies between its neighbours.
    values = np.interp(np.arange(len(n)), held, shares)
    return [float(f"{value:.9g}") for value in values]


def _steps(p: _Array, parameters: Sequence[float]) -> _Array:
    return np.asarray(parameters, p.dtype)[bins_of(p)]


METHODS: Mapping[str, tuple[_Fit, _Apply]] = {
    "affine": (partial(_logistic, True), _beta),
    "beta": (partial(_logistic, False), _beta),
    "isotonic": (_isotonic, _steps),
}
"""How each is fitted and applied."""
