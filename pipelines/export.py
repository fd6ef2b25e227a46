"""Volumes as NIfTI files: label maps and probabilities on the grid of their images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_io import bars, datasets
from data_io.errors import InputError
from data_io.files import nifti
from data_io.prepare import native
from pipelines import run as runs
from pipelines import stored, written
from pipelines.measure import metrics

__all__ = [
    "FOLDER", "files_of", "labels", "native_labels", "require_free", "volumes",
    "write_labels", "write_probabilities",
]  # fmt: skip

FOLDER = "nifti"

_Array = npt.NDArray[Any]
_Labels = npt.NDArray[np.uint8]


def volumes(run: runs.Run, root: Path, with_probabilities: bool = False) -> list[Path]:
    """Write what a run predicts of its validation and test volumes.

    Args:
        run: a run in state "predicted" or past it, with its local files.
        root: the data set's folder, for the images' geometry.
        with_probabilities: write them too: float32, large.

    Returns:
        The label maps, `nifti/<case>.nii.gz` of the run; the probabilities lie beside
        them as `<case>_probabilities.nii.gz`, classes last.

    Raises:
        InputError: a run of images, no probabilities here, no place to write, or a
            file there that was not written so, such as a corrected label map.
    """
    run.require("predicted", run.remake())
    module = datasets.by_name(run.record["dataset"])
    if not module.record(root).is_3d:
        raise InputError(
            f"{run.folder}: expected a run on volumes for --nifti, found one on images,"
            f" whose probabilities are in {stored.PROBABILITIES}/"
        )
    folder, made = run.path(FOLDER), []
    cases = [case for _, case in stored.cases(run)]
    names = require_free(run, with_probabilities)
    for case in bars.bar(cases, f"{run.name} nifti", unit="case"):
        softmax, place = stored.volume(run, module, root, case)
        made.append(write_labels(folder, case, softmax, place))
        if with_probabilities:
            write_probabilities(folder, case, softmax, place)
    written.settle(folder, names)
    return made


def require_free(run: runs.Run, with_probabilities: bool = False) -> list[str]:
    """Refuse to replace other files than those that `volumes` wrote.

    Returns:
        Names of all files that `volumes` will write.

    Raises:
        InputError: see `written.require_own`.
    """
    names = [
        name
        for _, case in stored.cases(run)
        for name in files_of(case, True, with_probabilities)
    ]
    written.require_own(run.path(FOLDER), names)
    return names


def files_of(case: str, is_volume: bool, with_probabilities: bool = False) -> list[str]:
    """Names of the files that are written of a case; of an image both are."""
    if not is_volume:
        return [f"{case}.npy", f"{case}.png"]
    return [f"{case}.nii.gz", f"{case}_probabilities.nii.gz"][: 1 + with_probabilities]


def write_labels(
    folder: Path,
    case: str,
    softmax: _Array,
    place: nifti.Geometry,
    threshold: float | None = None,
) -> Path:
    """Write a volume's label map, uint8, with the affine and header of its image.

    Args:
        folder: where to; made where it is missing.
        case: name of the file, without the ending.
        softmax: (*network's grid, classes) float32.
        place: geometry of the image.
        threshold: see `labels`.

    Returns:
        `<case>.nii.gz`.
    """
    label = native_labels(softmax, place.shape, threshold)
    return written.write(
        folder / f"{case}.nii.gz", lambda aside: nifti.write_like(aside, label, place)
    )


def write_probabilities(
    folder: Path, case: str, softmax: _Array, place: nifti.Geometry
) -> Path:
    """Write a volume's probabilities at native resolution, without ever holding them.

    Args:
        folder: where to; made where it is missing.
        case: name of the file, without the ending.
        softmax: (*network's grid, classes) float32.
        place: geometry of the image.

    Returns:
        `<case>_probabilities.nii.gz`, float32, classes last.
    """
    classes = softmax.shape[-1]

    def write(aside: Path) -> None:
        blocks = _blocks(softmax, place.shape)
        nifti.write_blocks(aside, blocks, classes, np.float32, place)

    return written.write(folder / f"{case}_probabilities.nii.gz", write)


def _blocks(softmax: _Array, shape: tuple[int, ...]) -> Iterator[_Array]:
    """Probabilities at native resolution in the order of a NIfTI file."""
    for channel in range(softmax.shape[-1]):
        for _, slab in native.slabs(softmax[..., channel, np.newaxis], shape):
            yield slab[..., 0]


def native_labels(
    softmax: _Array, shape: tuple[int, ...], threshold: float | None = None
) -> _Labels:
    """Label map at native resolution, from probabilities that go there slab by slab.

    Args:
        softmax: (*network's grid, classes) float32.
        shape: the volume's own.
        threshold: see `labels`.

    Returns:
        (*shape), class numbers.
    """
    found = np.empty(shape, np.uint8)
    for part, slab in native.slabs(softmax, shape):
        found[part] = labels(slab, threshold)
    return found


def labels(softmax: _Array, threshold: float | None = None) -> _Labels:
    """Class numbers from probabilities.

    Args:
        softmax: (..., classes), in [0, 1].
        threshold: see `metrics.predicted`.
    """
    found = metrics.predicted(np.moveaxis(softmax, -1, 0), threshold)
    return found.astype(np.uint8)
