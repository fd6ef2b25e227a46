"""Probabilities that any program wrote, read beside their label maps."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_io.datasets.folder import read_labels
from data_io.errors import InputError, Problems
from data_io.files import nifti
from data_io.files.names import LIST
from data_io.files.reading import decode, decoding, described, one_channel
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

_Steps = tuple[float, float]
"""How far apart stored numbers are next to 0, and next to 1."""

_FLOAT16: _Steps = (2**-24, 2**-11)
_FLOAT32: _Steps = (0.0, 2**-24)


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


@dataclass(frozen=True)
class Case:
    """What is read of a case.

    Attributes:
        softmax: float32, (*shape, classes), in [0, 1], summing to 1.
        label: class numbers, uint8, (*shape).
        least: how small a p, or its difference to 1, the file can hold, by its type;
            what is smaller was rounded. 0 of all classes as float32.
        value: what its label map has for class 1, if that is any one number; else None.
    """

    softmax: np.ndarray
    label: np.ndarray
    least: float
    value: int | None


def read_all(
    files: Mapping[str, tuple[Path, Path]],
) -> Iterator[tuple[str, Case]]:
    """Read cases one by one, as `read`; the foreground is one value in all of them.

    Args:
        files: from `pairs`.

    Raises:
        InputError: as `read`; label maps with different values for the foreground.
    """
    first: tuple[Path, int] | None = None
    for name, (path, label) in files.items():
        case = read(path, label)
        if case.value is not None:
            first = first or (label, case.value)
            if case.value != first[1]:
                raise InputError(
                    f"{label}: expected one value for the foreground in all label "
                    f"maps, found {case.value} here and {first[1]} in {first[0]}. Give "
                    "label maps of one structure, with one number for it."
                )
        yield name, case


def read(path: Path, label: Path) -> Case:
    """Read the probabilities of a case, and its label map as class numbers.

    Args:
        path: NumPy or NIfTI: of the foreground, (*shape), or of all classes, one more
            axis, the first or the last. An .npz with an array `probabilities` is
            nnU-Net's: classes first, and the axes of a NIfTI volume in reverse. PNG
            and TIFF: of the foreground, in grey: floats, or whole numbers of 8 or 16
            bits without a sign, which count from 0 to the largest of their type.
        label: the label map, whose shape (*shape) is; as `read_labels` takes it. A
            volume of probabilities must lie where it lies. With two classes any one
            value besides 0 is class 1.

    Raises:
        InputError: one cannot be read, or is of another shape; a picture in colour, of
            other numbers or of class numbers; a probability is outside [0, 1], or sums
            are not 1; a label is no class.
    """
    labels = read_labels(label)
    shape = labels.shape
    if nifti.is_volume(path):
        values, steps = _of_volume(path, label)
    elif path.suffix.lower() in (".npy", ".npz"):
        values, steps = _of_numpy(path, shape)
    else:
        values, steps = _of_image(path)
    _require_range(path, values)
    softmax = _classes_last(path, values, shape)
    _require_sums(path, softmax)
    # Of the foreground alone, 1 - p ends where p next to 1 does.
    step = max(steps) if values.shape == shape else steps[0]
    numbers, value = _numbered(label, labels, softmax.shape[-1])
    return Case(np.clip(softmax, 0, 1), numbers, step / 2, value)


def _numbered(
    path: Path, label: np.ndarray, classes: int
) -> tuple[np.ndarray, int | None]:
    """Return class numbers, and the value of class 1 where any one number may be it."""
    seen = np.unique(label)
    if classes == 2 and len(found := seen[seen > 0]) <= 1:
        return (label > 0).astype(np.uint8), int(found[0]) if len(found) else None
    if seen.max(initial=0) >= classes:
        raise InputError(
            f"{path}: expected the class numbers 0 to {classes - 1}, as there are "
            f"probabilities of {classes} classes, found {seen.max()}."
        )
    return label.astype(np.uint8), None


def _of_volume(path: Path, label: Path) -> tuple[np.ndarray, _Steps]:
    values, affine, slope = nifti.read_channels(path)
    label_affine = nifti.geometry(label).affine if nifti.is_volume(label) else None
    if label_affine is not None and np.abs(affine - label_affine).max() > _GRID_MM:
        raise InputError(
            f"{path}: expected the affine of {label}, found another. Export the "
            "probabilities on the grid of the label map."
        )
    # Whole numbers without a scale are 0 and 1: an answer, not a rounded p.
    return values, (slope, slope) if 0 < slope < 1 else _FLOAT32


def _of_numpy(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, _Steps]:
    with decoding(path, Exception):
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return np.asarray(content, np.float32), _of_floats(content)
        names = list(content)
        is_nnunet = _NNUNET in names
        if not is_nnunet and len(names) != 1:
            raise InputError(
                f"{path}: expected one array, or one named {_NNUNET!r}, found "
                f"{', '.join(names) or 'none'}."
            )
        stored = content[_NNUNET if is_nnunet else names[0]]
        values, steps = np.asarray(stored, np.float32), _of_floats(stored)
    if is_nnunet and values.ndim == 4:
        # (classes, z, y, x) of a NIfTI file's (x, y, z); an image has one slice.
        values = values[:, 0] if len(shape) == 2 else values.transpose(0, 3, 2, 1)
    return np.moveaxis(values, 0, -1) if is_nnunet else values, steps


def _of_floats(stored: np.ndarray) -> _Steps:
    return _FLOAT16 if stored.dtype == np.float16 else _FLOAT32


def _of_image(path: Path) -> tuple[np.ndarray, _Steps]:
    mode, pixels = decode(path, colours=True)  # as shown: 0 to 255, of 4 bits too
    if mode == "F":
        return pixels.astype(np.float32), _FLOAT32
    grey = one_channel(mode, pixels)
    if grey is None or grey.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path}: expected probabilities in grey, as floats or as whole numbers "
            f"of 8 or 16 bits without a sign, found {described(mode, pixels)}, "
            f"{pixels.dtype}. Save them as .npy."
        )
    if grey.max() == 1:
        raise InputError(
            f"{path}: expected probabilities from 0 to {np.iinfo(grey.dtype).max}, "
            "found 0 and 1, which look like class numbers. Give the probabilities, of "
            "nnU-Net with --save_probabilities; if these are, save them as .npy."
        )
    most = np.iinfo(grey.dtype).max
    return np.asarray(grey / np.float32(most), np.float32), (1 / most, 1 / most)


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


def _require_range(path: Path, values: np.ndarray) -> None:
    low, high = float(values.min()), float(values.max())
    if not -_SLACK <= low <= high <= 1 + _SLACK:
        raise InputError(
            f"{path}: expected probabilities in [0, 1], found {low:g} to {high:g}. "
            "Save them behind the softmax or sigmoid."
        )


def _require_sums(path: Path, p: np.ndarray) -> None:
    off = float(np.abs(p.sum(axis=-1) - 1).max())
    if off > _SUM_SLACK or p.shape[-1] < 2:
        raise InputError(
            f"{path}: expected probabilities of {p.shape[-1]} classes that sum to 1, "
            f"found a sum off by {off:g}. Give classes that overlap (a sigmoid each) "
            "one at a time, as the foreground."
        )
