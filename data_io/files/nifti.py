"""Volumes in NIfTI files: the one reader and writer of this project.

Arrays keep the axes of their file, whatever its affine says; what is written beside a
volume takes that volume's affine and header, so both lie on the same grid.
"""

import gzip
import itertools
import logging
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel import imageglobals
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError

from data_io.errors import InputError
from data_io.files import affines
from data_io.files.reading import decoding

# nibabel says on stderr what it mends in a header; what matters here is raised.
imageglobals.logger.setLevel(logging.CRITICAL + 1)
# Programs round quaternions to float32, and some to fewer digits.
nibabel.Nifti1Header.quaternion_threshold = np.float32(-1e-4)

_MOST_VOXELS = 1 << 32  # 15 times KiTS19's largest
_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
_SLAB = 16  # planes of the last axis, which lie together in the file
_SCALE = "expected a finite scale of the voxel values"
_WHOLE = 1e-3  # from a whole number: that number, in a label map
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

    @property
    def unit(self) -> str:
        """Of length, as the header says: `mm`, `unknown`, `micron`, `meter`, a code."""
        code = int(self.header["xyzt_units"]) % 8
        return _UNITS.get(code, f"code {code}")

    @property
    def other(self) -> np.ndarray | None:
        """The qform where it lies elsewhere than `affine`; see `affines.doubt`."""
        return affines.doubt(self.header)

    @property
    def directions(self) -> str | None:
        """Towards what each axis of the array runs: `LPS` is left, back and head.

        An oblique axis counts as the one it is nearest to. None where the header does
        not say how the array lies.
        """
        code = self.header["sform_code"] or self.header["qform_code"]
        if not code or not np.isfinite(self.affine).all():
            return None
        codes = aff2axcodes(self.affine)
        return None if None in codes else "".join(codes)


def is_volume(path: Path) -> bool:
    """True for NIfTI files, by their name."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def geometry(path: Path) -> Geometry:
    """Read where a volume's voxels lie, without reading the voxels.

    Raises:
        InputError: no file, not NIfTI, not three axes, colours or complex numbers, or
            a header that contradicts itself, see `data_io.files.affines.fault`.
    """
    with decoding(path, *_BROKEN):
        image = _open(path)
        result = _geometry(path, image)
        with ImageOpener(str(path)) as file:
            # As it is stored: nibabel makes 1 of a voxel size of 0 on loading.
            header = type(image.header).from_fileobj(file, check=False)
    fault = affines.fault(header) or _scale_fault(header)
    if fault:
        raise InputError(f"{path}: {fault}")
    return result


def _scale_fault(header: nibabel.Nifti1Header) -> str:
    """Say what is wrong with the scale of values; 0 and NaN stand for none."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isinf(slope):
        return ""
    return (
        f"{_SCALE}, found scl_slope {slope:g}, scl_inter {inter:g}. Correct them in "
        "the header: 1 and 0 where values are stored as they are."
    )


def read(path: Path) -> np.ndarray:
    """Read a volume, slab by slab.

    Args:
        path: a `.nii` or `.nii.gz` file with three axes (further ones of length 1 are
            dropped).

    Returns:
        (*shape) in the order of the file: whole numbers as they are stored where the
        header scales nothing, else float32 (to which 64-bit values are rounded).

    Raises:
        InputError: no file, not NIfTI, not three axes, colours or complex numbers, or
            cut short.
    """
    with decoding(path, *_BROKEN):
        image = _open(path)
        shape = _geometry(path, image).shape
        voxels = np.empty(shape, _dtype(image.dataobj), order="F")
    for start, slab in zip(range(0, shape[2], _SLAB), slabs(path), strict=True):
        voxels[:, :, start : start + _SLAB] = slab
    return voxels


def read_channels(path: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Read a volume that may have channels, such as probabilities of classes.

    Returns:
        float32, (*shape) or (*shape, channels), in the order of the file; its
        affine, (4, 4); and how far apart stored whole numbers are, 0 of floats.

    Raises:
        InputError: no file, not NIfTI, or cut short.
    """
    with decoding(path, *_BROKEN):
        image = _open(path)
        whole = image.get_data_dtype().kind in "ui"
        step = whole * abs(float(getattr(image.dataobj, "slope", 1)))
        return np.asarray(image.dataobj, np.float32), np.asarray(image.affine), step


def slabs(path: Path) -> Iterator[np.ndarray]:
    """Read a volume in the order of its file, holding no more than a slab of it.

    Yields:
        (*shape[:2], n) of the type that `read` gives: planes of the last axis; raises
        as `read`.
    """
    with decoding(path, *_BROKEN):
        image = _open(path)
        shape, kind = _geometry(path, image).shape, _dtype(image.dataobj)
        for start in range(0, shape[2], _SLAB):
            slab = image.dataobj[:, :, start : start + _SLAB]
            yield slab.reshape(*shape[:2], -1).astype(kind, copy=False)


def read_label(path: Path) -> np.ndarray:
    """Read a label map.

    Returns:
        uint8 (*shape), class numbers, in the order of the file.

    Raises:
        InputError: as `read`, or values that are no whole numbers from 0 to 255.
    """
    return as_label(path, read(path))


def as_label(path: Path, values: np.ndarray) -> np.ndarray:
    """Make class numbers, uint8, of the values of a file; raise as `read_label`."""
    whole = rounded(values)
    with np.errstate(invalid="ignore"):  # NaN is refused below
        label = whole.astype(np.uint8, copy=False)
    if label.dtype != whole.dtype and not np.array_equal(label, whole):
        odd = whole[whole != label].flat[0]
        raise InputError(
            f"{path}: expected class numbers, 0 to 255, found {odd:g} among values "
            f"from {whole.min():g} to {whole.max():g}. Is this the label map?"
        )
    return label


def rounded(labels: np.ndarray) -> np.ndarray:
    """Label values, those within 0.001 of a whole number (scaled ones) as that."""
    if labels.dtype.kind != "f":
        return labels
    near = np.rint(labels)
    with np.errstate(invalid="ignore"):  # of infinite ones
        return np.where(np.abs(labels - near) <= _WHOLE, near, labels)


def read_slice(path: Path, index: int, axis: int = 0) -> np.ndarray:
    """Read one slice of an axis, (*the two others), as `read`, a slab in memory."""
    if axis == 2:
        slab = next(itertools.islice(slabs(path), index // _SLAB, None))
        return slab[..., index % _SLAB]
    # Whole planes: to seek for each voxel of a packed file takes far longer.
    return np.concatenate([slab.take(index, axis) for slab in slabs(path)], axis=1)


def write_like(
    path: Path, array: np.ndarray, like: Geometry, description: str = ""
) -> None:
    """Write an array on the grid of a volume: its affine and its header.

    What the header says of the values and of the patient is left out: the range to
    show, what they mean, texts, extensions.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        array: (*shape) or (*shape, channels); its type is kept, unscaled.
        like: the volume's geometry.
        description: text of the header, at most 79 bytes.

    Raises:
        ValueError: the array has another shape than the volume.
    """
    if array.shape[:3] != like.shape:
        raise ValueError(f"array: expected shape {like.shape}, received {array.shape}")
    nibabel.save(_image_like(array, like, description), path)


def write_blocks(
    path: Path,
    blocks: Iterable[np.ndarray],
    channels: int,
    dtype: npt.DTypeLike,
    like: Geometry,
) -> None:
    """Write an array on the grid of a volume, as `write_like`, but never hold it.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        blocks: in the order of the file, which is: channel after channel, and in each
            the planes of the last axis one after the other, (*shape[:2], n).
        channels: how many; of one, the file has the three axes of the volume alone.
        dtype: of the voxels.
        like: the volume's geometry.

    Raises:
        ValueError: the blocks are not as many voxels as the volume has.
    """
    shape = (*like.shape, channels) if channels > 1 else like.shape
    dtype = np.dtype(dtype)
    # No voxel of it is ever read: it stands for the whole, whose header is wanted.
    whole = np.broadcast_to(np.zeros((), dtype), shape)
    header = _image_like(whole, like).header
    header.set_slope_inter(1, 0)
    missing = math.prod(shape)
    with ImageOpener(str(path), "wb") as file:
        header.write_to(file)
        file.write(bytes(header.get_data_offset() - file.tell()))
        for block in blocks:
            file.write(np.asarray(block, header.get_data_dtype()).tobytes("F"))
            missing -= block.size
    if missing:
        raise ValueError(f"blocks: expected shape {shape}, {missing} voxels missing")


def _image_like(
    array: np.ndarray, like: Geometry, description: str = ""
) -> nibabel.Nifti1Image:
    header = like.header.copy()
    header.extensions.clear()
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"], header["aux_file"] = description.encode(), b""
    for name in {"db_name", "data_type"} & set(header):
        header[name] = b""
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    return nibabel.Nifti1Image(array, like.affine, header)


def check_whole(path: Path) -> None:
    """Unpack a file to its end, where its checksum is; the voxels may end before.

    Raises:
        InputError: it is cut short or damaged.
    """
    if path.suffix == ".gz":
        with decoding(path, *_BROKEN), gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass


def _dtype(stored: Any) -> Any:
    """The type of the voxels in memory, which `read` tells of."""
    scaled = (stored.slope, stored.inter) != (1, 0) or stored.dtype.kind == "f"
    return np.float32 if scaled else stored.dtype.newbyteorder("=")


def _open(path: Path) -> nibabel.Nifti1Image:
    # One open file for all slabs: a packed one would be unpacked anew for each.
    try:
        image = nibabel.load(path, keep_file_open=True)
    except (HeaderDataError, ValueError) as error:
        fault = ""
        if "w2" in str(error):  # of a quaternion
            fault = affines.no_rotation(error)
        elif "intercept" in str(error):
            fault = f"{_SCALE}, found {error}. Correct it in the header."
        if fault:
            raise InputError(f"{path}: {fault}") from error
        raise
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(
            f"{path}: expected a NIfTI file, found {type(image).__name__}. Convert it."
        )
    kind = image.get_data_dtype()
    if kind.kind not in "iuf":
        stored = "colours" if kind.fields else f"type {kind}"
        raise InputError(
            f"{path}: expected one real number a voxel, found {stored}. Convert it to "
            "grey, or to its magnitude."
        )
    return image


def _geometry(path: Path, image: nibabel.Nifti1Image) -> Geometry:
    shape = tuple(int(size) for size in image.shape)
    if len(shape) < 3 or set(shape[3:]) - {1} or 0 in shape:
        raise InputError(
            f"{path}: expected a volume with three axes, found shape {shape}. "
            "Split what has more."
        )
    if math.prod(shape) > _MOST_VOXELS:
        raise InputError(
            f"{path}: expected a volume of at most {_MOST_VOXELS} voxels, found a "
            f"header of {' x '.join(map(str, shape[:3]))}. Look at the header, or crop "
            "it."
        )
    return Geometry(shape[:3], np.asarray(image.affine), image.header)
