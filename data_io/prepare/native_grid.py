"""The two grids of a volume, the network's and its own, and the way back.

A network sees volumes at one voxel size. Its probabilities are stored on that grid,
since at native resolution those of a volume of 1059 slices would take 3.3 GB. Measures,
label maps and pictures use the native grid. So probabilities are resampled slab by
slab, and only one slab is in memory.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_io.errors import InputError

_VOXELS = 1 << 20  # in a slab; 12 MB of three classes, which stay in a cache
_SAME = 1e-5  # relative difference of voxel sizes that is rounding alone

_BOTH_WAYS = {code: pair for pair in ("LR", "PA", "IS") for code in pair}

_Taps = tuple[np.ndarray, np.ndarray, np.ndarray]
_Index = tuple[Any, ...]


def resampled_shape(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    name: str = "resampling",
) -> tuple[int, ...]:
    """Return the shape at another voxel size: rounded down, as MIScnn does.

    Voxel sizes that differ only by rounding (1e-5 of them) count as equal, unlike in
    MIScnn, where 512 voxels of 0.6999999 mm become 511 of 0.7 mm.

    Args:
        shape: voxels by axis.
        spacing_mm: their size by axis, above 0.
        new_spacing_mm: the new size, by axis, above 0.
        name: name of the volume for the error.

    Raises:
        InputError: an axis is thinner than one new voxel.
    """
    ratio = np.asarray(spacing_mm) / np.array(new_spacing_mm)
    ratio[np.abs(ratio - 1) <= _SAME] = 1
    new_shape = tuple(int(size) for size in np.floor(np.asarray(shape) * ratio))
    if 0 in new_shape:
        extent_mm = np.asarray(shape) * spacing_mm
        raise InputError(
            f"{name}: expected a volume of at least one voxel of "
            f"{by_axis(new_spacing_mm)} mm, found one of {by_axis(extent_mm)} mm. "
            "Check its voxel size, or take it out."
        )
    return new_shape


def by_axis(sizes: Sequence[float] | np.ndarray) -> str:
    """Format sizes in voxels or mm for messages: `3.22 x 1.62 x 1.62`."""
    return " x ".join(f"{size:g}" for size in sizes)


def flipped_axes(codes: str | None, wanted: str | None) -> tuple[int, ...]:
    """Return the axes along which a volume runs against the wanted directions.

    () also where either is not known, or the axes are in another order.

    Args:
        codes: of the volume, such as `LAS`; see `nifti.Geometry.directions`.
        wanted: such as `RAS`, for which axis 0 is turned round.
    """
    if not codes or not wanted:
        return ()
    pairs = list(zip(codes, wanted, strict=True))
    if any(a not in _BOTH_WAYS[b] for a, b in pairs):
        return ()
    return tuple(axis for axis, (a, b) in enumerate(pairs) if a != b)


def slabs(
    softmax: np.ndarray, shape: Sequence[int]
) -> Iterator[tuple[_Index, np.ndarray]]:
    """Bring probabilities back to a volume's own grid, slab by slab along axis 2.

    Linear in each axis, the border continued: MIScnn's `Resampling.postprocessing` of
    softmax values with order 1, up to the rounding of float32. The planes of axis 2 lie
    together in a NIfTI file, and in what `nifti.read` gives.

    Args:
        softmax: (*network's grid, classes) float32; may be memory-mapped.
        shape: the volume's own, three axes.

    Yields:
        where in the volume, an index; the probabilities there, (*shape[:2], planes,
        classes) float32, of which those of a class and plane lie together.
    """
    befores, afters, weights = _taps(softmax.shape[2], shape[2], slice(None))
    count = max(1, _VOXELS // (shape[0] * shape[1]))
    planes: dict[int, np.ndarray] = {}
    for start in range(0, shape[2], count):
        part = slice(start, min(start + count, shape[2]))
        backwards = (softmax.shape[3], part.stop - start, shape[1], shape[0])
        slab = np.empty(backwards, np.float32)
        for number in range(start, part.stop):
            pair = int(befores[number]), int(afters[number])
            # Several planes of the volume lie between the same two.
            planes = {
                k: planes[k] if k in planes else _plane(softmax, shape, k) for k in pair
            }
            before, after = (planes[k] for k in pair)
            values = np.subtract(after, before, out=slab[:, number - start])
            values *= weights[number]
            values += before
        yield np.s_[:, :, part], slab.T


def _plane(softmax: np.ndarray, shape: Sequence[int], number: int) -> np.ndarray:
    """Return a plane of axis 2 on the native grid: (classes, shape[1], shape[0])."""
    plane = np.ascontiguousarray(softmax[:, :, number].T)
    for axis in (0, 1):
        taps = _taps(softmax.shape[axis], shape[axis], slice(None))
        plane = _interpolate(plane, taps, 2 - axis)
    return plane


def plane(
    softmax: np.ndarray, shape: Sequence[int], index: int, axis: int = 0
) -> np.ndarray:
    """Bring the plane at an index of an axis back, as `slabs`.

    Returns:
        (*the two other axes of shape, classes) float32.
    """
    values = softmax
    # The plane's own axis first: the others are interpolated in it alone.
    for each in sorted(range(3), key=lambda other: other != axis):
        chosen = slice(index, index + 1) if each == axis else slice(None)
        taps = _taps(softmax.shape[each], shape[each], chosen)
        values = _interpolate(values, taps, each)
    return values.take(0, axis)


def _taps(size: int, new_size: int, part: slice) -> _Taps:
    """Return for each new voxel the old ones around it, and the second one's weight."""
    # Voxels are cells: the ends of the axis, not the last cells' centres, stay.
    position = (np.arange(new_size)[part] + 0.5) * (size / new_size) - 0.5
    position = np.clip(position, 0, size - 1)
    before = np.floor(position).astype(np.intp)
    after = np.minimum(before + 1, size - 1)
    return before, after, (position - before).astype(np.float32)


def _interpolate(array: np.ndarray, taps: _Taps, axis: int) -> np.ndarray:
    before, after, weight = taps
    values = np.take(array, before, axis, mode="clip")  # "raise" checks each
    step = np.take(array, after, axis, mode="clip")
    step -= values
    step *= weight.reshape(-1, *[1] * (array.ndim - axis - 1))
    values += step
    return values
