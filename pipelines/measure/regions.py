"""Where to measure besides the whole image: near the structures.

Far background is easy for every network and outnumbers the rest: over a whole volume
the calibration error of any loss is about 0.001. In the band it is not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

BAND = "band"
"""Name of the region in `cases.csv` and `histograms.npz`."""

BAND_WIDTH = 5.0
"""How far the band reaches beyond the structures: pixels, in volumes mm."""


def band_radius(
    n_axes: int, spacing_mm: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Give the width of the band in voxels, by axis.

    Args:
        n_axes: spatial axes.
        spacing_mm: voxel size by axis; None for images, whose unit is the pixel.

    Returns:
        `BAND_WIDTH` in voxels, rounded, at least 1 along each axis.
    """
    spacing = [1.0] * n_axes if spacing_mm is None else spacing_mm
    return tuple(max(1, round(BAND_WIDTH / float(size))) for size in spacing)


def band(label: npt.ArrayLike, radius: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Mark the structures and what lies near them.

    Args:
        label: 0 is background, everything else a structure, (*spatial).
        radius: voxels along each axis, from `band_radius`.

    Returns:
        bool, (*spatial): True where a box of `2 radius + 1` voxels holds a voxel of a
        structure. Nothing is near where there is no structure.

    Raises:
        ValueError: a radius for another number of axes, or below 0.
    """
    marked: npt.NDArray[np.bool_] = np.asarray(label) != 0
    if len(radius) != marked.ndim or min(radius, default=0) < 0:
        raise ValueError(
            f"radius: expected {marked.ndim} numbers of at least 0, received "
            f"{tuple(radius)}."
        )
    mask = np.zeros(marked.shape, np.bool_, "F" if marked.flags.fnc else "C")
    if not marked.any():
        return mask
    (whole,) = ndimage.find_objects(marked.view(np.int8))
    box = tuple(
        slice(max(0, side.start - reach), side.stop + reach)
        for side, reach in zip(whole, radius, strict=True)
    )
    near: npt.NDArray[Any] = marked[box].view(np.uint8)
    sides = [2 * reach + 1 for reach in radius]
    mask[box] = ndimage.maximum_filter(near, sides, mode="constant").view(np.bool_)
    return mask
