"""Voxels in blocks: what every measure goes through, checked once.

All measures are sums over voxels, in whatever order. The arrays made of a block stay
small whatever the size of the image, and lie in the cache that the cores share.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Resizing softmax values may leave [0, 1] by a rounding error; more is a mistake.
_TOLERANCE = 1e-5
# 1 MB as float64. Smaller ones are no faster, and threads wait more for each other.
_BLOCK = 1 << 17

_Array = npt.NDArray[Any]


def blocks(
    labels: Sequence[_Array], probabilities: _Array, mask: _Array | None = None
) -> Iterator[tuple[list[_Array], _Array]]:
    """Cut label maps and their probabilities into blocks of voxels.

    The order of the voxels is that in which the first label map lies in memory.

    Args:
        labels: label maps, (*spatial).
        probabilities: in [0, 1], (*spatial) or (*spatial, C).
        mask: voxels to keep, bool, (*spatial); None keeps all of them.

    Yields:
        The label maps, each (n,), and the probabilities, (n,) or, classes first,
        (C, n), contiguous, of at least one voxel, inside the mask only.

    Raises:
        ValueError: shapes that do not fit, probabilities that are NaN or outside
            [0, 1].
    """
    axes, shape = labels[0].ndim, labels[0].shape
    for position, other in enumerate(labels[1:], start=2):
        check_shape(f"label map {position}", other.shape, shape)
    check_shape("probabilities", probabilities.shape[:axes], shape)
    if mask is not None and not any(mask.strides):
        # One value seen from everywhere, as that of a whole volume.
        if not mask.flat[0]:
            return
        mask = None
    if labels[0].flags.f_contiguous:
        order = (*range(axes)[::-1], *range(axes, probabilities.ndim))
        labels, probabilities = [a.T for a in labels], probabilities.transpose(order)
        mask = None if mask is None else mask.T
    flat = [label.reshape(-1) for label in labels]
    p = probabilities.reshape(-1, *probabilities.shape[axes:])
    keep = None if mask is None else mask.reshape(-1)
    for start in range(0, len(p), _BLOCK):
        part = slice(start, start + _BLOCK)
        chosen = _chosen([a[part] for a in flat], p[part], keep, part)
        if chosen:
            yield chosen[0], _in_range(chosen[1])


def _chosen(
    labels: list[_Array], p: _Array, keep: _Array | None, part: slice
) -> tuple[list[_Array], _Array] | None:
    """Keep the voxels in the mask, and put classes first; None: there are none."""
    if keep is None or (chosen := keep[part]).all():
        return labels, np.ascontiguousarray(p.T)
    if not chosen.any():
        return None
    voxels = np.flatnonzero(chosen)
    return [label[voxels] for label in labels], np.ascontiguousarray(p[voxels].T)


def _in_range(p: _Array) -> _Array:
    """Check for [0, 1], and take off what rounding left outside.

    NaN fails, as no comparison with it is true.
    """
    low, high = p.min(), p.max()
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise ValueError(
            f"probabilities: expected values in [0, 1], received {low} to {high}."
        )
    return p if low >= 0 and high <= 1 else np.clip(p, 0, 1)


def check_shape(
    name: str, received: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Check that an array has the label's spatial shape.

    Raises:
        ValueError: it has another; says of which array.
    """
    if received != expected:
        raise ValueError(
            f"{name}: expected spatial shape {expected}, that of the label, received "
            f"{received}."
        )


def check_mask(mask: npt.ArrayLike | None, shape: tuple[int, ...]) -> _Array | None:
    """Check that there is something to measure.

    Args:
        mask: voxels to use, bool, (*spatial); None uses all of them.
        shape: of the label.

    Returns:
        The mask as an array; None for None.

    Raises:
        ValueError: no voxel in it, another shape, not bool.
    """
    if mask is None:
        if not math.prod(shape):
            raise ValueError(f"label: expected voxels, received shape {shape}.")
        return None
    array = np.asarray(mask)
    check_shape("mask", array.shape, shape)
    # A mask of 0 and 255 would pick voxels by index.
    if array.dtype != np.bool_:
        raise ValueError(f"mask: expected bool, received {array.dtype}.")
    if not array.any():
        raise ValueError("mask: expected at least one voxel inside, received none.")
    return array
