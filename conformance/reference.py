# SPDX-License-Identifier: Apache-2.0
"""The losses in float64 NumPy: what an implementation is compared with.

The fourteen are written from the formulas of Yeung et al. and from nothing else, one
function a formula, as plainly as they read. It is slow on purpose and has no gradient.

With y the labels, p the probabilities and g the ++ exponent, for each image and class,
summed over voxels:

    TP = sum(y p)    FN = sum((y (1 - p))^g)    FP = sum(((1 - y) p)^g)

Soft labels, and voxels whose label is 0 in every class, are put into the formulas as
they are. With `soft_labels` the form is another, which is lowest at p = y and the same
where y is 0 or 1:

    TP = sum(min(y, p))    FN = sum(((y - p)+)^g)    FP = sum(((p - y)+)^g)

and the factor of the focal losses is |y - p|. The paper's sums over classes are means
here, as in its released code. Hard and Soft L1-ACE and NACL are of others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["FAMILY", "FLOOR", "MEMBERS", "Member", "Terms", "member", "reference"]

FLOOR = 1e-7
"""Probabilities are held in [FLOOR, 1 - FLOOR]."""

Array = npt.NDArray[np.float64]


class Terms(NamedTuple):
    """One value per image, and the scale to which a tolerance refers.

    Attributes:
        value: the loss of each image, (N,).
        scale: sum of the absolute values of the loss's terms, (N,). It is the value
            itself but for Combo, a difference, which may be 0 where its terms are not.
    """

    value: Array
    scale: Array


class _Batch(NamedTuple):
    """Labels and probabilities as the formulas want them.

    Attributes:
        y: labels, (N, V, C), V voxels.
        p: probabilities, (N, V, C), clipped.
        weight: weight of each voxel, (N, V, 1).
        foreground: whether a class is one, (C,).
        soft: whether soft labels are to be reached.
        grid: the spatial shape.
    """

    y: Array
    p: Array
    weight: Array
    foreground: npt.NDArray[np.bool_]
    soft: bool
    grid: tuple[int, ...]


_Formula = Callable[..., list[Array]]


@dataclass(frozen=True)
class Member:
    """One loss.

    Attributes:
        name: as the paper prints it, such as "DSC++".
        formula: from a batch and the hyperparameters to terms of (N,) each.
        defaults: hyperparameters with the values of Table 2.
        plain: of a ++ form, the name of the plain form; None otherwise.
        asymmetric: whether class 0, the background, is weighed unlike the others.
        untrue: names of checks that ask for what its formula does not have.
    """

    name: str
    formula: _Formula
    defaults: Mapping[str, float]
    plain: str | None = None
    asymmetric: bool = False
    untrue: frozenset[str] = frozenset()


def reference(
    name: str,
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    axis: int = -1,
    weight: npt.ArrayLike | None = None,
    ignore_background: bool = False,
    soft_labels: bool = False,
    **hyperparameters: float,
) -> Terms:
    """Compute a loss of each image in float64.

    Args:
        name: a key of `MEMBERS`.
        y_true: labels, (N, *spatial, C), in [0, 1].
        y_pred: probabilities, (N, *spatial, C), in [0, 1].
        axis: axis of the classes.
        weight: weight of each voxel, at least 0, (N, *spatial); it is inside every sum
            over voxels, and means are divided by its sum. None for 1 everywhere.
        ignore_background: whether class 0 is left out of the sums and means over
            classes. Voxels of background still count: as false positives of the other
            classes, and in the number of voxels.
        soft_labels: whether the form is that of soft labels that are to be reached.
        **hyperparameters: in the place of Table 2's; `gamma` is the ++ exponent,
            `focal_gamma` the loss's own, `lambda_` the weight of Eq. 18.

    Returns:
        Value and scale, (N,) each.

    Raises:
        ValueError: no such loss or hyperparameter, or shapes that differ.

    Example:
    >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])  # one image, 3 voxels, 2 classes
    >>> p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]])
    >>> reference("DSC", y, p).value  # (1/4 + 1/2) / 2
    array([0.375])
    """
    info = member(name)
    unknown = sorted(set(hyperparameters) - set(info.defaults))
    if unknown:
        raise ValueError(
            f"{name}: expected hyperparameters among {', '.join(info.defaults)}, "
            f"received {', '.join(unknown)}"
        )
    batch = _batch(y_true, y_pred, axis, weight, ignore_background, soft_labels)
    terms = info.formula(batch, **{**info.defaults, **hyperparameters})
    return Terms(np.sum(terms, axis=0), np.sum(np.abs(terms), axis=0))


def member(name: str) -> Member:
    """Look a loss up by its name.

    Raises:
        ValueError: no such loss; the message lists them.
    """
    if name not in MEMBERS:
        raise ValueError(
            f"loss: expected one of {', '.join(MEMBERS)}, received {name!r}"
        )
    return MEMBERS[name]


def _batch(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    axis: int,
    weight: npt.ArrayLike | None,
    ignore_background: bool,
    soft: bool,
) -> _Batch:
    y, p = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if y.shape != p.shape:
        raise ValueError(f"y_true: expected shape {p.shape}, received {y.shape}")
    y, p = (np.moveaxis(x, axis, -1) for x in (y, p))
    grid = y.shape[1:-1]
    y, p = (x.reshape(len(x), -1, x.shape[-1]) for x in (y, p))
    w = np.ones(p.shape[:2]) if weight is None else np.asarray(weight, np.float64)
    foreground = np.arange(p.shape[-1]) > 0
    kept = foreground if ignore_background else np.ones_like(foreground)
    p = np.clip(p, FLOOR, 1 - FLOOR)
    w = w.reshape(*p.shape[:2], 1)
    return _Batch(y[..., kept], p[..., kept], w, foreground[kept], soft, grid)


def _voxel_mean(batch: _Batch, terms: Array) -> Array:
    """Weighted mean over voxels, (N, C); 0 where no voxel has any weight."""
    total = batch.weight.sum(axis=1)
    return (batch.weight * terms).sum(axis=1) / np.where(total > 0, total, 1)


def _counts(batch: _Batch, gamma: float) -> tuple[Array, Array, Array]:
    """TP, FN and FP of Eq. 9, (N, C) each."""
    y, p = batch.y, batch.p
    tp, fn, fp = y * p, y * (1 - p), (1 - y) * p
    if batch.soft:
        tp, fn, fp = np.minimum(y, p), np.maximum(y - p, 0), np.maximum(p - y, 0)
    fn, fp = fn**gamma, fp**gamma
    tp, fn, fp = ((batch.weight * x).sum(axis=1) for x in (tp, fn, fp))
    return tp, fn, fp


def _far(batch: _Batch) -> Array:
    """What has the exponent in the factor of the focal losses, (N, V, C)."""
    return np.abs(batch.y - batch.p) if batch.soft else 1 - batch.p


def _cross_entropy(batch: _Batch) -> list[Array]:
    """Eq. 1."""
    return [_voxel_mean(batch, -batch.y * np.log(batch.p)).sum(axis=-1)]


def _focal(batch: _Batch, alpha: float, focal_gamma: float) -> list[Array]:
    """Eq. 2."""
    factor = alpha * _far(batch) ** focal_gamma
    return [_voxel_mean(batch, -factor * batch.y * np.log(batch.p)).sum(axis=-1)]


def _dice(batch: _Batch, gamma: float, epsilon: float) -> list[Array]:
    """Eqs. 5 and 9, one minus the ratio brought to one fraction."""
    tp, fn, fp = _counts(batch, gamma)
    return [((fn + fp) / (2 * tp + fn + fp + epsilon)).mean(axis=-1)]


def _tversky_errors(
    batch: _Batch, alpha: float, beta: float, gamma: float, epsilon: float
) -> Array:
    """1 - TI of Eqs. 16 and 21, brought to one fraction, (N, C)."""
    tp, fn, fp = _counts(batch, gamma)
    errors = alpha * fp + beta * fn
    return errors / (tp + errors + epsilon)


def _tversky(batch: _Batch, **hyperparameters: float) -> list[Array]:
    """Eq. 15."""
    return [_tversky_errors(batch, **hyperparameters).mean(axis=-1)]


def _focal_tversky(
    batch: _Batch, focal_gamma: float, **hyperparameters: float
) -> list[Array]:
    """Eq. 17."""
    errors = _tversky_errors(batch, **hyperparameters)
    return [(errors ** (1 / focal_gamma)).mean(axis=-1)]


def _combo(
    batch: _Batch, alpha: float, beta: float, gamma: float, epsilon: float
) -> list[Array]:
    """Eqs. 13 and 14, both terms of the latter inside the minus; mean over classes."""
    positive = beta * batch.y * np.log(batch.p)
    negative = (1 - beta) * (1 - batch.y) * np.log1p(-batch.p)
    entropy = -_voxel_mean(batch, positive + negative).mean(axis=-1)
    tp, fn, fp = _counts(batch, gamma)
    dice = ((2 * tp + epsilon) / (2 * tp + fn + fp + epsilon)).mean(axis=-1)
    return [alpha * entropy, -(1 - alpha) * dice]


def _unified_focal(
    batch: _Batch,
    lambda_: float,
    delta: float,
    focal_gamma: float,
    gamma: float,
    epsilon: float,
    symmetric: bool,
) -> list[Array]:
    """Eqs. 18 to 21, lambda on the Tversky part as in the released code.

    Symmetric: the root and the factor are on every class.
    """
    root = np.where(batch.foreground | symmetric, 1 - focal_gamma, 1.0)
    errors = _tversky_errors(batch, 1 - delta, delta, gamma, epsilon)
    tversky = (errors**root).mean(axis=-1)
    exponent = np.where(~batch.foreground | symmetric, focal_gamma, 0.0)
    factor = np.where(batch.foreground, delta, 1 - delta) * _far(batch) ** exponent
    focal = _voxel_mean(batch, -factor * batch.y * np.log(batch.p)).sum(axis=-1)
    return [lambda_ * tversky, (1 - lambda_) * focal]


def _l1_ace(
    batch: _Batch, penalty: float, bins: float, epsilon: float, soft_bins: bool
) -> list[Array]:
    """DSC, CE and L1-ACE of Barfoot et al., 2025; of an absent class it is 0."""
    y, p, weight = batch.y, batch.p, batch.weight
    count = int(bins)
    if soft_bins:
        centres = (np.arange(count) + 0.5) / count
        shares = np.stack([np.interp(p, centres, each) for each in np.eye(count)])
    else:
        index = np.digitize(p, np.linspace(0, 1, count + 1)[1:-1])
        shares = np.stack([index == each for each in range(count)])
    total, gap = ((weight * shares * x).sum(axis=2) for x in (np.ones_like(p), p - y))
    filled = total > 0.01 * weight.max(axis=1)
    gaps = np.where(filled, np.abs(gap) / np.where(filled, total, 1), 0)
    error = gaps.sum(axis=0) / np.maximum(filled.sum(axis=0), 1)
    present = (weight * y).sum(axis=1) > 0
    error = penalty * np.where(present, error, 0).mean(axis=-1)
    return [*_dice(batch, 1.0, epsilon), *_cross_entropy(batch), error]


def _nacl(batch: _Batch, penalty: float) -> list[Array]:
    """CE and the penalty of Murugesan et al., 2023, at the best constant of a voxel."""
    both = np.concatenate([batch.weight * batch.y, batch.weight], axis=-1)
    both = both.reshape(len(both), *batch.grid, -1)
    padded = np.pad(both, [(0, 0), *[(1, 1)] * len(batch.grid), (0, 0)])
    around = np.zeros_like(both)
    for start in product(range(3), repeat=len(batch.grid)):
        sides = zip(start, batch.grid, strict=True)
        around += padded[(slice(None), *(slice(s, s + n) for s, n in sides))]
    total = np.where(around[..., -1:] > 0, around[..., -1:], 1)
    share = (around[..., :-1] / total).reshape(batch.y.shape)
    rest = np.log(batch.p) - share
    # The best constant takes one class's rest to 0: a sum of distances is least there.
    tried = np.abs(rest[..., None] - rest[..., None, :]).mean(axis=-2)
    distance = _voxel_mean(batch, tried.min(axis=-1, keepdims=True))[:, 0]
    return [*_cross_entropy(batch), penalty * distance]


def _pair(
    name: str,
    formula: _Formula,
    defaults: Mapping[str, float],
    asymmetric: bool = False,
) -> list[Member]:
    """A loss of overlap in its plain form, g = 1, and in its ++ form, g = 2."""
    defaults = {**defaults, "epsilon": 1e-7}
    return [
        Member(name, partial(formula, gamma=1.0), defaults, asymmetric=asymmetric),
        Member(f"{name}++", formula, {**defaults, "gamma": 2.0}, name, asymmetric),
    ]


def _members() -> list[Member]:
    tversky = {"alpha": 0.3, "beta": 0.7}
    unified = {"lambda_": 0.5, "delta": 0.6, "focal_gamma": 0.5}
    asymmetric = partial(_unified_focal, symmetric=False)
    symmetric = partial(_unified_focal, symmetric=True)
    ace = {"penalty": 1.0, "bins": 20.0, "epsilon": 1e-7}
    # An error can make up for another one's calibration.
    not_ace = frozenset({"errors_never_pay"})
    not_nacl = not_ace | {"perfect_prediction_costs_least", "voxel_order_is_irrelevant"}
    hard, soft = (partial(_l1_ace, soft_bins=each) for each in (False, True))
    return [
        Member("CE", _cross_entropy, {}),
        Member("Focal", _focal, {"alpha": 0.5, "focal_gamma": 2.0}),
        *_pair("DSC", _dice, {}),
        *_pair("Tversky", _tversky, tversky),
        *_pair("Focal Tversky", _focal_tversky, {**tversky, "focal_gamma": 4 / 3}),
        *_pair("Combo", _combo, {"alpha": 0.5, "beta": 0.5}),
        *_pair("Unified Focal", asymmetric, unified, asymmetric=True),
        *_pair("Symmetric Unified Focal", symmetric, unified, asymmetric=True),
        Member("Hard L1-ACE", hard, ace, untrue=not_ace),
        Member("Soft L1-ACE", soft, ace, untrue=not_ace),
        Member("NACL", _nacl, {"penalty": 0.1}, untrue=not_nacl),
    ]


MEMBERS: Mapping[str, Member] = {each.name: each for each in _members()}
"""The losses by name: the fourteen in the paper's order, then those of others."""

FAMILY = tuple(MEMBERS)[:14]
"""Names of the fourteen."""
