"""Probabilities that any program wrote, read beside their label maps."""

import zipfile
from pathlib import Path

import numpy as np

from data_io.datasets.folder import read_labels
from data_io.errors import InputError, Problems
from data_io.files import nifti
from data_io.files.names import LIST
from data_io.files.reading import decode, decoding
from data_io.own_images.describe import (
    by_stem,
    files_of,
    match_names,
    without_label,
)

_ARRAYS = (".npz", ".npy")
_PICTURES = (".nii.gz", ".nii", ".png", ".tif", ".tiff")
ENDINGS = (*_ARRAYS, *_PICTURES)
_PREDICTED = (".npy", "_probabilities.nii.gz")  # as `dscpp predict` writes them
_NNUNET = "probabilities"
"""What nnU-Net v2 calls the array in the .npz of `--save_probabilities`."""

_GRID_MM = 1e-3  # two affines this close are one


def pairs(probabilities: Path, labels: Path) -> dict[str, tuple[Path, Path]]:
    """Find the label map of each file of probabilities, by name.

    Args:
        probabilities: a folder of files that end in one of `ENDINGS`, or one file. The
            label maps and pictures that nnU-Net or `dscpp predict` wrote beside their
            probabilities are left out.
        labels: a folder of images or NIfTI volumes, or one file. A label map has the
            name of its probabilities, or either has an ending such as `_mask`.

    Returns:
        The two files by case. Label maps without probabilities are left out: a test
        set may lie among others.

    Raises:
        InputError: no such place, none of these files, or probabilities without one
            label map.
    """
    problems: list[str] = []
    probability_files = _probability_files(Path(probabilities), problems)
    if problems:
        raise Problems(f"{probabilities}", problems)
    label_files = files_of(Path(labels), option="")
    if len(probability_files) == len(label_files) == 1 and Path(labels).is_file():
        ((case, path),), (label,) = probability_files.items(), label_files.values()
        return {case: (path, label)}
    partners = match_names(list(probability_files), list(label_files))
    problems = without_label(probability_files, partners, labels)
    if problems:
        raise Problems(f"{probabilities} with {labels}", problems)
    return {
        case: (probability_files[case], label_files[label])
        for case, label in partners.items()
    }


def _probability_files(source: Path, problems: list[str]) -> dict[str, Path]:
    """Files of probabilities by case; not what nnU-Net or we predicted beside them."""
    if (source / LIST).exists():
        found = by_stem(source, problems, endings=_PREDICTED)
        if not found:
            problems[-1] += " Volumes need `dscpp predict --probabilities`."
        return found
    if not (source.is_dir() and any(map(_is_of_nnunet, source.glob("*.npz")))):
        return by_stem(source, problems, endings=ENDINGS)
    arrays = by_stem(source, problems, endings=_ARRAYS)
    problems += [
        f"{path}: expected {case}.npz beside it, as for other cases of nnU-Net, found "
        "none. Predict it with --save_probabilities, or move it away."
        for case, path in by_stem(source, [], endings=_PICTURES).items()
        if case not in arrays
    ]
    return arrays


def _is_of_nnunet(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return f"{_NNUNET}.npy" in archive.namelist()


def read(path: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the probabilities of a case, and its label map as class numbers.

    Args:
        path: NumPy or NIfTI: of the foreground, (*shape), or of all classes, one more
            axis, the first or the last. An .npz with an array `probabilities` is
            nnU-Net's: classes first, and the axes of a NIfTI volume in reverse. PNG
            and TIFF: of the foreground; whole numbers count from 0 to their type's
            largest.
        label: the label map, whose shape (*shape) is; as `read_labels` takes it. A
            volume of probabilities must lie where it lies. With two classes any one
            value besides 0 is class 1.

    Returns:
        float32, (*shape, classes), in [0, 1], summing to 1; and uint8, (*shape).

    Raises:
        InputError: one cannot be read, or is of another shape; a probability is
            outside [0, 1], or sums are not 1; a label is no class.
    """
    labels = read_labels(label)
    shape = labels.shape
    if nifti.is_volume(path):
        values = _of_volume(path, label)
    elif path.suffix.lower() in (".npy", ".npz"):
        values = _of_numpy(path, shape)
    else:
        values = _of_image(path)
    p = _checked(path, _classes_last(path, values, shape))
    return p, _numbered(label, labels, p.shape[-1])


def _numbered(path: Path, label: np.ndarray, classes: int) -> np.ndarray:
    seen = np.unique(label)
    if classes == 2 and len(seen[seen > 0]) <= 1:
        return (label > 0).astype(np.uint8)
    if seen.max(initial=0) >= classes:
        raise InputError(
            f"{path}: expected the class numbers 0 to {classes - 1}, as there are "
            f"probabilities of {classes} classes, found {seen.max()}."
        )
    return label.astype(np.uint8)


def _of_volume(path: Path, label: Path) -> np.ndarray:
    values, affine = nifti.read_channels(path)
    label_affine = nifti.geometry(label).affine if nifti.is_volume(label) else None
    if label_affine is not None and np.abs(affine - label_affine).max() > _GRID_MM:
        raise InputError(
            f"{path}: expected the affine of {label}, found another. Export the "
            "probabilities on the grid of the label map."
        )
    return values


def _of_numpy(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    with decoding(path, Exception):
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return np.asarray(content, np.float32)
        names = list(content)
        is_nnunet = _NNUNET in names
        if not is_nnunet and len(names) != 1:
            raise InputError(
                f"{path}: expected one array, or one named {_NNUNET!r}, found "
                f"{', '.join(names) or 'none'}."
            )
        values = np.asarray(content[_NNUNET if is_nnunet else names[0]], np.float32)
    if is_nnunet and values.ndim == 4:
        # (classes, z, y, x) of a NIfTI file's (x, y, z); an image has one slice.
        values = values[:, 0] if len(shape) == 2 else values.transpose(0, 3, 2, 1)
    return np.moveaxis(values, 0, -1) if is_nnunet else values


def _of_image(path: Path) -> np.ndarray:
    _, pixels = decode(path)
    if pixels.dtype.kind in "ui":
        return np.asarray(pixels / np.float32(np.iinfo(pixels.dtype).max), np.float32)
    return pixels.astype(np.float32)


def _classes_last(path: Path, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape == shape:
        return np.stack([1 - values, values], axis=-1)
    if values.ndim == len(shape) + 1 and values.shape[:-1] == shape:
        return values
    if values.ndim == len(shape) + 1 and values.shape[1:] == shape:
        return np.moveaxis(values, 0, -1)
    raise InputError(
        f"{path}: expected {shape} for the foreground, or one more axis for the "
        f"classes, as the label map is {shape}, found {values.shape}."
    )


_SLACK, _SUM_SLACK = 1e-3, 1e-2  # what float16 and 8 bits leave


def _checked(path: Path, p: np.ndarray) -> np.ndarray:
    low, high = float(p.min()), float(p.max())
    if not -_SLACK <= low <= high <= 1 + _SLACK:
        raise InputError(
            f"{path}: expected probabilities in [0, 1], found {low:g} to {high:g}. "
            "Save them behind the softmax or sigmoid."
        )
    off = float(np.abs(p.sum(axis=-1) - 1).max())
    if off > _SUM_SLACK or p.shape[-1] < 2:
        raise InputError(
            f"{path}: expected probabilities of {p.shape[-1]} classes that sum to 1, "
            f"found a sum off by {off:g}. Give classes that overlap (a sigmoid each) "
            "one at a time, as the foreground."
        )
    return np.clip(p, 0, 1)
