"""MIScnn's resampling of volumes, in a fraction of its memory.

MIScnn hands a whole volume as float64 to a cubic spline in three dimensions: 3.7 GB for
611x512x512 voxels. The spline is a product of three, one for each axis, so the axes can
be taken one after the other, slab by slab: the values differ by rounding alone. Labels
come out the same to the last voxel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import zoom

from data_io.prepare.miscnn_compat import Resampling
from data_io.prepare.native_grid import resampled_shape

_SLAB = 16  # columns at a time; 512 rows of 611 slices are 40 MB as float64


class SlabResampling(Resampling):
    """MIScnn's `Resampling` to a voxel size, slab by slab.

    It reads `spacing` (mm, by axis) from the sample's details, as MIScnn does, and
    leaves `original_shape` there for the way back, which is MIScnn's own; slab by slab
    it is that of `data_io.prepare.native_grid`.

    Args:
        new_spacing: voxel size to resample to, mm, by axis.
        order_img: spline order of the image, 0-5.
        order_seg: order of the label's, each class on its own, 0 or 1.
    """

    def preprocessing(self, sample: Any, training: bool = True) -> None:
        """Resample an image (*spatial, channels) and, in training, its label.

        One that has the voxel size already stays as it is, type and all.

        Raises:
            InputError: the volume is thinner than one new voxel.
        """
        native = sample.img_data.shape[:-1]
        spacing_mm = sample.get_extended_data()["spacing"]
        name = f"case {sample.index}"
        shape = resampled_shape(native, spacing_mm, self.new_spacing, name)
        if not training:
            sample.extended["original_shape"] = native
        if shape == native:
            return
        channels = [
            resample_image(sample.img_data[..., channel], shape, self.order_img)
            for channel in range(sample.img_data.shape[-1])
        ]
        sample.img_data = np.stack(channels, axis=-1)
        if training:
            label = resample_label(sample.seg_data[..., 0], shape, self.order_seg)
            sample.seg_data = label[..., np.newaxis]


def resample_image(
    image: np.ndarray, shape: Sequence[int], order: int = 3
) -> np.ndarray:
    """Interpolate a volume, as `skimage.transform.resize` without anti-aliasing.

    Borders are mirrored; values are cut off at the range of the input, beyond which a
    cubic spline swings.

    Args:
        image: (slices, rows, columns), any real type.
        shape: the new spatial shape.
        order: spline order, 0-5.

    Returns:
        float64 (*shape), equal to skimage's up to rounding.
    """
    slices, rows, columns = (
        _weights(old, new, order) for old, new in zip(image.shape, shape, strict=True)
    )
    part = np.empty((*shape[:2], image.shape[2]))
    for start in range(0, image.shape[2], _SLAB):
        slab = np.moveaxis(image[..., start : start + _SLAB], 2, 0).astype(np.float64)
        resampled = slices @ slab @ rows.T
        part[..., start : start + _SLAB] = np.moveaxis(resampled, 0, 2)
    whole = part @ columns.T
    return np.clip(whole, image.min(), image.max(), out=whole)


def _weights(size: int, new_size: int, order: int) -> np.ndarray:
    """Return the spline along one axis as a matrix, (new_size, size): it is linear."""
    ratio = new_size / size
    columns = [
        zoom(unit, ratio, order=order, mode="mirror", grid_mode=True)
        for unit in np.eye(size)
    ]
    return np.stack(columns, axis=1)


def resample_label(
    label: np.ndarray, shape: Sequence[int], order: int = 1
) -> np.ndarray:
    """Interpolate a label map, as batchgenerators' `resize_segmentation`.

    Each class on its own; the highest value wins. Where several share it the nearest
    voxel's class does, if it is one of them, else the lowest.

    Args:
        label: uint8 (slices, rows, columns), class numbers.
        shape: the new spatial shape.
        order: spline order, 0-5; 0 takes the nearest voxel.

    Returns:
        uint8 (*shape), the same as batchgenerators'.
    """
    nearest = _zoom(label, shape, 0, np.uint8)
    if order == 0:
        return nearest
    best, score_of_nearest = np.zeros(shape), np.zeros(shape)
    result = np.zeros(shape, np.uint8)
    for value in _values(label):
        score = np.clip(_zoom(label == value, shape, order, np.float64), 0, 1)
        np.copyto(score_of_nearest, score, where=nearest == value)
        np.copyto(result, value, where=score > best)
        np.maximum(best, score, out=best)
    return np.where(score_of_nearest == best, nearest, result)


def _zoom(
    array: np.ndarray, shape: Sequence[int], order: int, dtype: Any
) -> np.ndarray:
    """Resize as skimage's `resize` with continued border, without copying the input."""
    if array.dtype == bool:
        array = array.view(np.uint8)
    ratios = [1 / (old / new) for old, new in zip(array.shape, shape, strict=True)]
    return zoom(array, ratios, dtype, order=order, mode="nearest", grid_mode=True)


def _values(label: np.ndarray) -> list[np.uint8]:
    """Return the class numbers that occur, lowest first; by slice to save memory."""
    return sorted(set().union(*(np.unique(part) for part in label)))
