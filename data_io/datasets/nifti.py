"""Volumes in NIfTI files: the one reader and writer of this project.

Arrays keep the axes of their file, whatever its affine says; what is written beside a
volume takes that volume's affine and header, so both lie on the same grid.
"""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from data_io.datasets.reading import describe, reason
from data_io.errors import InputError

__all__ = ["Geometry", "check_whole", "geometry", "read", "read_label", "write_like"]

_SLAB = 16  # planes of the last axis, which lie together in the file
_BROKEN = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the voxels of a volume lie.

    Attributes:
        shape: voxels by axis of the file.
        affine: (4, 4), voxel indices to mm.
        header: the file's own.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    header: nibabel.Nifti1Header

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size by axis of the array, from the affine.

        MIScnn reads the affine's diagonal or the other one instead: the same where the
        axes are those of the scanner in this or the opposite order, as in KiTS19.
        """
        return tuple(float(size) for size in voxel_sizes(self.affine))


def geometry(path: Path) -> Geometry:
    """Reads where a volume's voxels lie, without reading the voxels.

    Raises:
        InputError: no file, not NIfTI, or not three axes.
    """
    with _decoding(path):
        return _geometry(path, _open(path))


def read(path: Path) -> np.ndarray:
    """Reads a volume, slab by slab.

    Args:
        path: a `.nii` or `.nii.gz` file with three axes (further ones of length 1 are
            dropped).

    Returns:
        (*shape) in the order of the file: whole numbers as they are stored where the
        header scales nothing, else float32 (to which 64-bit values are rounded).

    Raises:
        InputError: no file, not NIfTI, not three axes, or cut short.
    """
    with _decoding(path):
        image = _open(path)
        shape = _geometry(path, image).shape
        stored: Any = image.dataobj
        scaled = (stored.slope, stored.inter) != (1, 0) or stored.dtype.kind == "f"
        dtype = np.float32 if scaled else stored.dtype.newbyteorder("=")
        found = np.empty(shape, dtype, order="F")
        for start in range(0, shape[2], _SLAB):
            slab = stored[:, :, start : start + _SLAB]
            found[:, :, start : start + _SLAB] = slab.reshape(*shape[:2], -1)
    return found


def read_label(path: Path) -> np.ndarray:
    """Reads a label map.

    Returns:
        uint8 (*shape), class numbers, in the order of the file.

    Raises:
        InputError: as `read`, or values that are no whole numbers from 0 to 255.
    """
    found = read(path)
    with np.errstate(invalid="ignore"):  # NaN is refused below
        label = found.astype(np.uint8)
    if label.dtype != found.dtype and not np.array_equal(label, found):
        raise InputError(
            f"{path}: expected class numbers, 0 to 255, found values from "
            f"{found.min():g} to {found.max():g} or fractions. Is this the label map?"
        )
    return label


def write_like(path: Path, array: np.ndarray, like: Geometry) -> None:
    """Writes an array on the grid of a volume: its affine and its header.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        array: (*shape) or (*shape, channels); its type is kept, unscaled.
        like: the volume's geometry.

    Raises:
        ValueError: the array has another shape than the volume.
    """
    if array.shape[:3] != like.shape:
        raise ValueError(f"array: expected shape {like.shape}, received {array.shape}")
    header = like.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    nibabel.save(nibabel.Nifti1Image(array, like.affine, header), path)


def check_whole(path: Path) -> None:
    """Unpacks a file to its end, where its checksum is; the voxels may end before.

    Raises:
        InputError: it is cut short or damaged.
    """
    if path.suffix == ".gz":
        with _decoding(path), gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass


def _open(path: Path) -> nibabel.Nifti1Image:
    # One open file for all slabs: a packed one would be unpacked anew for each.
    image = nibabel.load(path, keep_file_open=True)
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(
            f"{path}: expected a NIfTI file, found {type(image).__name__}. Convert it."
        )
    return image


def _geometry(path: Path, image: nibabel.Nifti1Image) -> Geometry:
    shape = tuple(int(size) for size in image.shape)
    if len(shape) < 3 or set(shape[3:]) - {1} or 0 in shape:
        raise InputError(
            f"{path}: expected a volume with three axes, found shape {shape}. "
            "Split what has more."
        )
    return Geometry(shape[:3], np.asarray(image.affine), image.header)


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turns what nibabel and gzip raise on a bad file into one clear error."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a file, found none.") from error
    except PermissionError as error:
        raise InputError(
            f"{path}: expected a readable file, found no permission to read it. "
            "Change its permissions."
        ) from error
    except _BROKEN as error:
        raise InputError(f"{path}: {describe(path)} ({reason(error)}).") from error
