"""MIScnn's augmentation of one sample, without its detours.

MIScnn makes the whole sample one-hot, copies it as float32 and hands it through
batchgenerators, even where one patch of a volume is wanted and nothing is warped. Here
the draws are made first, in MIScnn's order and from the same numbers. Then what they
reach of the sample is read, mirrored, brightened and warped by the same SciPy calls,
and the label stays a map of class numbers until the end. What comes out is what
MIScnn's `Data_Augmentation.run` gives from the same draws: for images to the bit, for
volumes up to the error of an interpolation that knows a part of the volume alone.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from batchgenerators.augmentations.utils import (
    create_zero_centered_coordinate_mesh,
    rotate_coords_2d,
    rotate_coords_3d,
    scale_coords,
)
from scipy import ndimage

from data_io.prepare.miscnn_compat import Data_Augmentation

_MIRROR = 0.5  # of each axis, batchgenerators' own
_ORDER = 3  # of the image's interpolation, MIScnn's own; the label's is 0
# A cubic spline's coefficient depends on voxels further off by 0.27 to the power of
# their distance: 12 voxels leave an error of 1e-7, and are what SciPy itself pads.
_MARGIN = 12
_NO_CLASS = 255


@dataclasses.dataclass(frozen=True)
class Plan:
    """What happens to a sample: all that is drawn for it.

    Attributes:
        mirrored: whether each axis is turned round.
        factors: by which each channel is multiplied; () for none.
        region: what is needed of the mirrored sample, (start, stop) by axis; where
            nothing is warped it is the result, and may reach out of the sample.
        coordinates: where each voxel of the result comes from, counted from the first
            voxel of `region`, (axes, *result) float64; None where nothing is warped.
    """

    mirrored: tuple[bool, ...]
    factors: tuple[float, ...]
    region: tuple[tuple[int, int], ...]
    coordinates: np.ndarray | None = None


def plan(
    shape: Sequence[int],
    channels: int,
    patch: Sequence[int] | None,
    augmentation: Data_Augmentation | None,
    random: np.random.RandomState,
) -> Plan:
    """Draw what MIScnn would draw, in its order.

    Args:
        shape: of the sample, voxels by axis; two or three.
        channels: of its image.
        patch: shape of the random patch to cut ("patchwise-crop"); None: all of it.
        augmentation: from `data_io.prepare.preprocessing.augmentation`, whose steps
            alone are carried out here; None: none.
        random: a generator as NumPy's global one, in the state that MIScnn would find.
    """
    mirrored: tuple[bool, ...] = (False,) * len(shape)
    factors: tuple[float, ...] = ()
    if augmentation is not None:
        if augmentation.mirror:
            random.uniform()  # whether to mirror at all: always
            axes = augmentation.config_mirror_axes
            mirrored = tuple(
                axis in axes and random.uniform() < _MIRROR
                for axis in range(len(shape))
            )
        if augmentation.brightness:
            factors = _brightness(channels, augmentation, random)
        coordinates = _warp(shape, patch, augmentation, random)
        if coordinates is not None:
            return Plan(mirrored, factors, _reach(coordinates, shape), coordinates)
    firsts = [0] * len(shape) if patch is None else _crop(shape, patch, random)
    ends = zip(firsts, patch or shape, strict=True)
    region = tuple((first, first + size) for first, size in ends)
    return Plan(mirrored, factors, region)


def _brightness(
    channels: int, augmentation: Data_Augmentation, random: np.random.RandomState
) -> tuple[float, ...]:
    if random.uniform() >= augmentation.config_p_per_sample:
        return ()
    low, high = augmentation.config_brightness_range
    of_all = random.uniform(low, high)  # drawn in any case
    if not augmentation.coloraug_per_channel:
        return (of_all,) * channels
    return tuple(random.uniform(low, high) for _ in range(channels))


def _warp(
    shape: Sequence[int],
    patch: Sequence[int] | None,
    augmentation: Data_Augmentation,
    random: np.random.RandomState,
) -> np.ndarray | None:
    """Where the voxels of a patch, put somewhere, come from in the sample."""
    sides = patch or shape
    probability = augmentation.config_p_per_sample
    coordinates: np.ndarray | None = None

    def base() -> np.ndarray:
        if coordinates is None:
            return create_zero_centered_coordinate_mesh(sides)
        return coordinates

    if augmentation.elastic_deform and random.uniform() < probability:
        coordinates = base() + _elastic(sides, augmentation, random)
    if augmentation.rotations and random.uniform() < probability:
        coordinates = _rotated(base(), augmentation, random)
    if augmentation.scaling and random.uniform() < probability:
        low, high = augmentation.config_scaling_range
        smaller = random.random_sample() < 0.5 and low < 1
        range_ = (low, 1) if smaller else (max(low, 1), high)
        coordinates = scale_coords(base(), random.uniform(*range_))
    if coordinates is not None:  # so far counted from the patch's centre
        for axis, (size, side) in enumerate(zip(shape, sides, strict=True)):
            half = side // 2
            middle = random.uniform(half, size - half) if patch else size / 2.0 - 0.5
            coordinates[axis] += middle
    return coordinates


def _elastic(
    patch: Sequence[int],
    augmentation: Data_Augmentation,
    random: np.random.RandomState,
) -> np.ndarray:
    alpha = random.uniform(*augmentation.config_elastic_deform_alpha)
    sigma = random.uniform(*augmentation.config_elastic_deform_sigma)
    offsets = np.stack(
        [_smoothed(random.random_sample(tuple(patch)) * 2 - 1, sigma) for _ in patch]
    )
    offsets *= alpha
    return offsets


def _smoothed(field: np.ndarray, sigma: float) -> np.ndarray:
    """Filter with a Gaussian of `sigma` voxels, 0 outside."""
    if field.ndim == 2:
        return ndimage.gaussian_filter(field, sigma, mode="constant", cval=0)
    # The same filter as a matrix for each axis, its answers to a 1 in each place: of a
    # volume that is three times as fast, and rounds otherwise.
    for axis, size in enumerate(field.shape):
        matrix = ndimage.gaussian_filter1d(
            np.eye(size), sigma, axis=0, mode="constant", cval=0
        )
        field = np.moveaxis(np.tensordot(matrix, field, (1, axis)), 0, axis)
    return field


def _rotated(
    coordinates: np.ndarray,
    augmentation: Data_Augmentation,
    random: np.random.RandomState,
) -> np.ndarray:
    angles = []
    for axis in "XYZ" if len(coordinates) == 3 else "X":
        random.uniform()  # whether about this axis: always
        angles.append(
            random.uniform(*getattr(augmentation, f"config_rotations_angle{axis}"))
        )
    rotate = rotate_coords_3d if len(coordinates) == 3 else rotate_coords_2d
    return rotate(coordinates, *angles)


def _reach(
    coordinates: np.ndarray, shape: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """What an interpolation needs of the sample; coordinates then count from there."""
    if len(shape) == 2:  # all of it: MIScnn's values to the bit
        return tuple((0, size) for size in shape)
    ranges = []
    for axis, size in zip(coordinates, shape, strict=True):
        start = min(max(int(np.floor(axis.min())) - _MARGIN, 0), size)
        stop = min(max(int(np.ceil(axis.max())) + _MARGIN + 1, start), size)
        np.subtract(axis, start, out=axis)
        ranges.append((start, stop))
    return tuple(ranges)


def _crop(
    shape: Sequence[int], patch: Sequence[int], random: np.random.RandomState
) -> list[int]:
    """First voxel of a random patch; a sample that is shorter lies in its middle."""
    return [
        int(random.randint(0, size - part)) if size > part else (size - part) // 2
        for size, part in zip(shape, patch, strict=True)
    ]


def carry_out(
    todo: Plan, image: np.ndarray, label: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Do what was drawn to a sample.

    Args:
        todo: what to do.
        image: (*spatial, channels) float32; may be mapped from a file, of which only
            what is reached is read.
        label: (*spatial) uint8, class numbers below `classes`.
        classes: number of classes, below 255.

    Returns:
        image (*result, channels) and one-hot label (*result, classes), both float32,
        new. What comes from outside the sample is 0 in the image and of no class.
    """
    part = tuple(
        slice(min(max(start, 0), size), min(max(stop, 0), size))
        for (start, stop), size in zip(todo.region, label.shape, strict=True)
    )
    stored = tuple(map(_stored, part, label.shape, todo.mirrored))
    turn = tuple(slice(None, None, -1 if turned else 1) for turned in todo.mirrored)
    image, label = image[stored][turn], label[stored][turn]
    if todo.factors:
        image = image * np.asarray(todo.factors, np.float32)
    if todo.coordinates is None:
        drawn = _placed(image, todo, part, 0)
        numbers = _placed(label, todo, part, _NO_CLASS)
    else:
        drawn, numbers = _warped(image, label, todo.coordinates)
    return drawn, one_hot(numbers, classes)


def _stored(part: slice, size: int, mirrored: bool) -> slice:
    """The same voxels, counted as they are stored."""
    return slice(size - part.stop, size - part.start) if mirrored else part


def _placed(
    values: np.ndarray, todo: Plan, part: Sequence[slice], outside: int
) -> np.ndarray:
    """Copy a part to where it belongs in the result."""
    result = tuple(stop - start for start, stop in todo.region)
    if values.shape[: len(result)] == result:
        return np.array(values, order="C")
    placed = np.full(result + values.shape[len(result) :], outside, values.dtype)
    inside = tuple(
        slice(axis.start - start, axis.stop - start)
        for axis, (start, _) in zip(part, todo.region, strict=True)
    )
    placed[inside] = values
    return placed


def _warped(
    image: np.ndarray, label: np.ndarray, coordinates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate: the image with cubic splines, the label from its nearest voxel."""
    drawn = np.empty((*coordinates.shape[1:], image.shape[-1]), np.float32)
    for channel in range(image.shape[-1]):
        values = image[..., channel].astype(float)
        drawn[..., channel] = ndimage.map_coordinates(
            values, coordinates, order=_ORDER, mode="constant", cval=0
        )
    numbers = ndimage.map_coordinates(
        np.ascontiguousarray(label),
        coordinates,
        output=label.dtype,
        order=0,
        mode="constant",
        cval=_NO_CLASS,
    )
    return drawn, numbers


def one_hot(label: np.ndarray, classes: int) -> np.ndarray:
    """Classes as MIScnn's networks take them.

    Args:
        label: (*spatial) uint8, class numbers; one that is not below `classes` is of no
            class.
        classes: number of classes, below 255.

    Returns:
        (*spatial, classes) float32.
    """
    # Zeros in the rows of what is no class.
    return np.eye(_NO_CLASS + 1, classes, dtype=np.float32).take(label, axis=0)
