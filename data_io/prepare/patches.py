"""Volumes in patches at prediction: the grid, the padding, the joining.

Patches lie where MIScnn puts them: at steps of patch less overlap, the last one shifted
back to end with the volume. Where patches overlap, their predictions are joined by
weights that sum to 1 at each voxel. MIScnn joins by pairwise means, first along the
last axis, then the others; written out, the weight of a patch is a product of one
weight an axis, as a mean and a Gaussian are too. So one way of adding up serves all
three, and of all patches never more is held than a row, a layer and the volume that
they are added to.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Join = Literal["miscnn", "mean", "gaussian"]
JOINS: tuple[Join, ...] = get_args(Join)
_SIGMA = 1 / 8  # of the patch: what nnU-Net and MONAI take
_Weighed = tuple[slice, np.ndarray]


@dataclass(frozen=True)
class Grid:
    """Where the patches of a volume lie, and how much each counts.

    Attributes:
        shape: of the volume, voxels by axis.
        patch: shape of a patch.
        overlap: of neighbouring patches, voxels by axis, below the patch.
        join: "miscnn": pairwise means as MIScnn takes them, so that the order decides:
            1/4, 1/4, 1/2 where the last patch lies over two others. "mean": the mean
            of all patches at a voxel. "gaussian": by distance from the patch's centre,
            with a standard deviation of 1/8 of the patch.
    """

    shape: tuple[int, ...]
    patch: tuple[int, ...]
    overlap: tuple[int, ...]
    join: Join = "miscnn"

    def axes(self) -> list[list[_Weighed]]:
        """The patches along each axis; those of the volume are their product.

        Returns:
            by axis and patch: its place, and its weights there, (length of the place,)
            in (0, 1]; at each voxel they sum to 1.
        """
        along = zip(self.shape, self.patch, self.overlap, strict=True)
        return [self._weighed(_parts(*three), three[1]) for three in along]

    def _weighed(self, parts: list[slice], patch: int) -> list[_Weighed]:
        if self.join == "miscnn":
            return _pairwise(parts)
        if self.join == "mean":
            return _normalised(parts, np.ones(patch))
        distance = (np.arange(patch) - (patch - 1) / 2) / (_SIGMA * patch)
        return _normalised(parts, np.exp(-(distance**2) / 2))


def _parts(size: int, patch: int, overlap: int) -> list[slice]:
    """Places along one axis; one patch where the volume is no longer than that."""
    steps = max(1, math.ceil((size - overlap) / (patch - overlap)))
    starts = [step * (patch - overlap) for step in range(steps)]
    last = max(0, size - patch)
    return [
        slice(min(start, last), min(start, last) + min(patch, size)) for start in starts
    ]


def _pairwise(parts: list[slice]) -> list[_Weighed]:
    """MIScnn's: each patch halves with all that lay there before it."""
    weights = [np.ones(part.stop - part.start) for part in parts]
    for number in range(1, len(parts)):
        start, stop = parts[number].start, parts[number - 1].stop
        weights[number][: stop - start] = 0.5
        for earlier, part in zip(weights[:number], parts, strict=False):
            earlier[max(0, start - part.start) :] *= 0.5
    return list(zip(parts, weights, strict=True))


def _normalised(parts: list[slice], profile: np.ndarray) -> list[_Weighed]:
    """A profile for each patch, divided by their sum at each voxel."""
    # A patch that the volume does not fill has one place alone, and the weight 1.
    profiles = [profile[: part.stop - part.start] for part in parts]
    total = np.zeros(parts[-1].stop)
    for part, values in zip(parts, profiles, strict=True):
        total[part] += values
    return [
        (part, values / total[part])
        for part, values in zip(parts, profiles, strict=True)
    ]


def predict(
    image: np.ndarray, network: Callable[[np.ndarray], np.ndarray], grid: Grid
) -> np.ndarray:
    """Predict a volume patch by patch.

    A patch that sticks out of the volume is padded by MIScnn's `pad_patch` (the minimum
    along each axis, on both sides), and its prediction is cut back.

    Args:
        image: (*shape, channels) float32; may be memory-mapped.
        network: gives probabilities (1, *patch, classes) for a patch
            (1, *patch, channels).
        grid: of that shape.

    Returns:
        probabilities, (*shape, classes) float32; joined as MIScnn does it, they are
        MIScnn's to the last bit (but for values below 1e-37).
    """
    # Not above: the names of the joins are wanted where Keras is not.
    from data_io.prepare.miscnn_compat import crop_patch, pad_patch

    def of_patch(index: tuple[slice, ...]) -> np.ndarray:
        patch = np.array(image[index], dtype=np.float32, order="C")[np.newaxis]
        padded, inside = pad_patch(patch, grid.patch, return_slicer=True)
        return np.asarray(crop_patch(network(padded), inside)[0], dtype=np.float32)

    return _joined(grid.axes(), of_patch)


_Index = tuple[slice, ...]


def _joined(
    axes: Sequence[Sequence[_Weighed]],
    of_patch: Callable[[_Index], np.ndarray],
    index: _Index = (),
) -> np.ndarray:
    """Add up patches along the last axis first, which decides how sums are rounded."""
    axis = len(index)
    if axis == len(axes):
        return of_patch(index)
    total = np.empty(0)
    for part, weights in axes[axis]:
        part_sum = _joined(axes, of_patch, (*index, part))
        if not total.size:
            size = axes[axis][-1][0].stop
            shape = (*part_sum.shape[:axis], size, *part_sum.shape[axis + 1 :])
            total = np.zeros(shape, np.float32)
        part_sum = part_sum * weights.astype(np.float32).reshape(
            -1, *[1] * (part_sum.ndim - axis - 1)
        )
        total[(*[slice(None)] * axis, part)] += part_sum
    return total
