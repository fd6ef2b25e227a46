# SPDX-License-Identifier: Apache-2.0
"""Losses with a penalty for miscalibration: Hard and Soft L1-ACE, and NACL.

They are not of the paper that the other losses are from. docs/losses.md says how each
differs from its authors' code and from MONAI's.
"""

from functools import partial
from typing import Unpack

from keras import ops

from . import checks, cross_entropy, overlap
from .base import (
    Options,
    PerImageLoss,
    Tensor,
    Voxels,
    mean,
    prepare,
    split_classes,
)

__all__ = ["NACL", "HardL1ACE", "SoftL1ACE", "l1_ace_loss", "nacl_loss"]

# A bin with this or less is empty, in voxels of the largest weight in the image.
_EMPTY = 0.01


def l1_ace_loss(
    y_true: Tensor,
    y_pred: Tensor,
    penalty: float = 1.0,
    bins: float = 20,
    soft_bins: bool = False,
    epsilon: float = 1e-7,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """DSC loss plus cross entropy plus the average calibration error of each image.

    Formula:

    ```python
    loss = dice + cross_entropy + penalty * ace
    ace = mean over classes of mean over filled bins of
        abs(sum(u * (y_pred - y_true))) / sum(u)
    ```

    with `dice_loss` and `cross_entropy_loss`. The sums run over the voxels of one image
    and class; `u` is the share of a voxel in a bin. Bins have the width `1 / bins`. In
    hard bins `u` is 1 where `y_pred` is in the bin, its lower end included, and 0
    elsewhere. In soft bins `u` falls linearly from 1 at the centre of the bin to 0 at
    the centres of its neighbours; below the first centre and above the last it is 1. A
    bin is filled where `sum(u)` is above 0.01; with weights of voxels, above 0.01 of
    the largest weight in the image. A class that is absent from an image counts as 0 in
    the mean.

    Hyperparameters:
        penalty: weight of the calibration error, at least 0; the paper's lambda.
        bins: their number, 1 to 1000.
        soft_bins: whether a voxel is shared by two bins.

    Other arguments: see the package's docstring. Values are from 0, (N,).

    Examples:
        >>> y = np.array([[[1, 0], [1, 0], [0, 1]]])
        >>> p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]])
        >>> round(float(l1_ace_loss(y, p)[0]), 5)
        0.8371

    which is 0.375 + 2/3 log 2, and no calibration error: half of what has 0.5 is so.

    Reference:
        Barfoot et al., "Average Calibration Losses for Reliable Uncertainty in Medical
        Image Segmentation", 2025, arXiv 2506.03942: hL1-ACE and sL1-ACE. Equal weights
        of the three terms and 20 bins are those of the authors' experiments.
    """
    numbers = {"penalty": penalty, "bins": bins, "epsilon": epsilon}
    penalty, bins, epsilon = checks.hyperparameters(**numbers).values()
    voxels = prepare(y_true, y_pred, weight, **options).spread()
    dice = overlap.dice_of(overlap.counts_of(voxels, 1.0), epsilon)
    error = mean(_calibration_error(voxels, int(bins), soft_bins), axis=-1)
    return dice + cross_entropy.cross_entropy_of(voxels) + penalty * error


def nacl_loss(
    y_true: Tensor,
    y_pred: Tensor,
    penalty: float = 0.1,
    weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Cross entropy of each image, with logits held near the labels around a voxel.

    Formula:

    ```python
    loss = cross_entropy + penalty * mean over voxels of
        min over c of mean over classes of abs(log(y_pred) - share - c)
    ```

    with `cross_entropy_loss`; `share` is the mean of `y_true` over the voxel and its
    neighbours, 3 along each axis, as many as are inside the image. The paper has logits
    in the place of `log(y_pred) - c`. Probabilities give a voxel's logits up to a
    constant, and c is the one that costs least: the median over the classes.

    Weights of voxels count in `share` too.

    Hyperparameters:
        penalty: weight of the distance, at least 0; the paper's lambda.

    Other arguments: see the package's docstring. Values are from 0, (N,); a perfect
    prediction does not cost least.

    Examples:
        >>> y = np.array([[[1, 0], [1, 0]]])
        >>> p = np.array([[[0.75, 0.25], [0.75, 0.25]]])
        >>> round(float(nacl_loss(y, p)[0]), 5)
        0.29261

    which is log 4/3 + 0.1 * (log 3 - 1) / 2.

    Reference:
        Murugesan et al., "Trust your neighbours: Penalty-based constraints for model
        calibration", MICCAI 2023, arXiv 2303.06268, which sums over the classes; the
        mean, the weight 0.1 and the 3 voxels are those of the authors' code.
    """
    penalty = checks.NOT_NEGATIVE("penalty", penalty)
    voxels = prepare(y_true, y_pred, weight, **options).spread()
    residual = voxels.log_pred - _share_around(voxels)
    classes = residual.shape[voxels.axis]
    # The distances from the median: the upper half less the lower half, in order.
    rank = ops.sign(2 * ops.arange(classes, dtype="int32") - (classes - 1))
    shape = [1] * len(residual.shape)
    shape[voxels.axis] = classes
    rank = ops.reshape(ops.cast(rank, residual.dtype), shape)
    distances = voxels.mean(rank * ops.sort(residual, axis=voxels.axis))
    return cross_entropy.cross_entropy_of(voxels) + penalty * mean(distances, axis=-1)


def _calibration_error(voxels: Voxels, bins: int, soft_bins: bool) -> Tensor:
    """Mean over the filled bins of each class, (N, C).

    One bin after the other: all at once would take the memory of `bins` images.
    """
    place = bins * voxels.y_pred
    place = ops.clip(place - 0.5, 0, bins - 1) if soft_bins else ops.floor(place)
    difference = voxels.y_pred - voxels.y_true
    totals, sums = [], []
    for index in range(bins):
        away = ops.abs(place - index)
        share = ops.relu(1 - away) if soft_bins else ops.cast(away < 0.5, away.dtype)
        totals.append(voxels.sum(share))
        sums.append(voxels.sum(share * difference))
    total, gap = ops.stack(totals), ops.abs(ops.stack(sums))  # (bins, N, C)
    filled = total > _EMPTY * _largest_weight(voxels)
    # 1 in the place of a total near 0, whose slope would be NaN.
    gap = gap / ops.where(filled, total, ops.ones_like(total))
    full = ops.cast(filled, gap.dtype)
    count = ops.sum(full, axis=0)
    present = ops.cast(voxels.sum(voxels.y_true) > 0, gap.dtype)
    gap = ops.sum(full * gap, axis=0)
    return present * gap / ops.where(count > 0, count, ops.ones_like(count))


def _largest_weight(voxels: Voxels) -> Tensor:
    """Largest weight of a voxel in each image, (N, 1)."""
    if voxels.weight is None:
        return 1.0
    axes = [each for each in range(1, len(voxels.weight.shape)) if each != voxels.axis]
    return ops.max(voxels.weight, axis=axes)


def _share_around(voxels: Voxels) -> Tensor:
    """Weighted mean of the labels over each voxel and its neighbours."""
    weight = voxels.weight
    if weight is None:
        weight = ops.ones_like(split_classes(voxels.y_true, voxels.axis)[0])
    total = _sum_around(weight, voxels.axis)
    some = ops.where(total > 0, total, ops.ones_like(total))
    return _sum_around(weight * voxels.y_true, voxels.axis) / some


def _sum_around(values: Tensor, class_axis: int) -> Tensor:
    """Sum of three neighbours along each spatial axis; outside the image is 0."""
    rank = len(values.shape)
    for axis in range(1, rank):
        if axis != class_axis:
            margins = [[int(each == axis)] * 2 for each in range(rank)]
            padded, ahead = ops.pad(values, margins), [slice(None)] * axis
            before, after = slice(None, -2), slice(2, None)
            values = padded[(*ahead, before)] + values + padded[(*ahead, after)]
    return values


class HardL1ACE(PerImageLoss):
    """DSC, CE and hL1-ACE, the calibration error in hard bins, `l1_ace_loss`."""

    title = "Hard L1-ACE"
    function = staticmethod(l1_ace_loss)


class SoftL1ACE(PerImageLoss):
    """DSC, CE and sL1-ACE, the calibration error in soft bins, `l1_ace_loss`."""

    title = "Soft L1-ACE"
    function = staticmethod(partial(l1_ace_loss, soft_bins=True))


class NACL(PerImageLoss):
    """Neighbour-aware calibration loss, `nacl_loss`."""

    title = "NACL"
    function = staticmethod(nacl_loss)
