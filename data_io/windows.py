"""Where MIScnn's random patch of a volume will lie, told before it is cut.

MIScnn makes the whole volume one-hot, mirrors, brightens and copies it, to cut one
patch out of it at last. Where nothing is warped the same patch comes from its piece of
the volume alone, in a fraction of time and memory. To know which piece that is, the
draws are made once here, and once more, from the same seed, by MIScnn.
"""

from collections.abc import Sequence

import numpy as np
from batchgenerators.augmentations.crop_and_pad_augmentations import (
    get_lbs_for_random_crop,
)

from data_io.preprocessing import Settings

__all__ = ["draw"]

_MIRROR = 0.5  # of each axis, batchgenerators' own


def draw(
    shape: Sequence[int], channels: int, settings: Settings, augment: bool
) -> tuple[slice, ...] | None:
    """Draw as MIScnn's `patchwise-crop` does, from numpy's global generator.

    Args:
        shape: of the volume, voxels by axis.
        channels: of the image.
        settings: the patch's shape, and the probability of each step.
        augment: whether the patch is augmented.

    Returns:
        which piece of the volume the patch is: as large as a patch, or all of an axis
        that is shorter. None where a warp needs voxels from outside of it.
    """
    uniform = np.random.uniform
    mirrored = [False] * len(shape)
    if augment:
        uniform()  # whether to mirror at all: always
        mirrored = [uniform() < _MIRROR for _ in shape]
        if uniform() < settings.probability:  # brightness: of all, then of each channel
            uniform(size=1 + channels)
        # Elastic deformation, rotation, scaling: with none of them, no further draw.
        if any(uniform() < settings.probability for _ in range(3)):
            return None
    patch = settings.input_shape
    margins = [0] * len(shape)
    firsts = get_lbs_for_random_crop(patch, (1, channels, *shape), margins)
    axes = zip(shape, patch, firsts, mirrored, strict=True)
    return tuple(_piece(*axis) for axis in axes)


def _piece(size: int, patch: int, first: int, mirrored: bool) -> slice:
    """The voxels of a patch along one axis, counted in the volume as it is stored."""
    if size <= patch:
        return slice(0, size)
    start = size - patch - int(first) if mirrored else int(first)
    return slice(start, start + patch)
