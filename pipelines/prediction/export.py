"""Predictions as files to look at: pictures, and maps of volumes as NIfTI.

What the functions that write take, each the same:

    folder: where to; made where it is missing.
    case: its id, and the name of its files without the ending.
    softmax: (*spatial, classes) float32; of a volume on the network's grid.
    geometry: of a volume's image.
    threshold: see `labels`.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_io import bars, datasets
from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from data_io.files import nifti
from data_io.prepare import native_grid
from pipelines.measure import metrics
from pipelines.runs import predictions, written
from pipelines.runs import run as runs

FOLDER, PICTURES = predictions.DERIVED

_Array = npt.NDArray[Any]
_Labels = npt.NDArray[np.uint8]


def volumes(run: runs.Run, root: Path, with_probabilities: bool = False) -> list[Path]:
    """Write what a run predicts of its validation and test volumes.

    The run is predicted, with its local files; probabilities are float32, and large.

    Returns:
        The label maps, `nifti/<case>.nii.gz` of the run; the probabilities lie beside
        them as `<case>_probabilities.nii.gz`, classes last.

    Raises:
        InputError: a run of images, no probabilities here, no place to write, or a
            file there that was not written so, such as a corrected label map.
    """
    module = datasets.by_name(run.record["dataset"])
    if not module.record(root).is_3d:
        raise InputError(
            f"{run.folder}: expected a run on volumes for --nifti, found one on images,"
            f" whose probabilities are in {predictions.PROBABILITIES}/"
        )
    folder, label_maps = run.path(FOLDER), []
    cases = [case for _, case in predictions.cases(run)]
    require_free(run, with_probabilities=with_probabilities)
    with written.anew(folder):
        for case in bars.bar(cases, f"{run.name} nifti", unit="case"):
            softmax, geometry = predictions.volume(run, module, root, case)
            label_maps.append(write_labels(folder, case, softmax, geometry))
            if with_probabilities:
                write_probabilities(folder, case, softmax, geometry)
    return label_maps


def pictures(run: runs.Run, root: Path) -> list[Path]:
    """Draw what a run predicts of its validation and test cases.

    They go to `pictures/` of the run, see `write_pictures`.

    Raises:
        InputError: as `volumes`, but for a run of images.
    """
    module = datasets.by_name(run.record["dataset"])
    classes = run.record.get("classes") or module.RECORD.classes
    folder, paths = run.path(PICTURES), []
    cases = [case for _, case in predictions.cases(run)]
    require_free(run, volumes=False, pictures=True)
    with written.anew(folder):
        for case in bars.bar(cases, f"{run.name} pictures", unit="case"):
            softmax = predictions.as_kept(run, module, root, case)
            paths.append(write_pictures(folder, case, softmax, module, root, classes))
    return paths


def require_free(
    run: runs.Run,
    volumes: bool = True,
    with_probabilities: bool = False,
    pictures: bool = False,
) -> None:
    """Refuse to replace other files than those that `volumes` and `pictures` wrote.

    Raises:
        InputError: see `written.require_own`.
    """
    cases = [case for _, case in predictions.cases(run)]
    if volumes:
        names_by_case = [files_of(case, True, with_probabilities) for case in cases]
        written.require_own(run.path(FOLDER), list(itertools.chain(*names_by_case)))
    if pictures:
        is_3d = len(run.record["settings"]["input_shape"]) == 3
        names_by_case = [pictures_of(case, is_3d) for case in cases]
        written.require_own(run.path(PICTURES), list(itertools.chain(*names_by_case)))


def files_of(
    case: str,
    is_volume: bool,
    with_probabilities: bool = False,
    with_pictures: bool = False,
) -> list[str]:
    """Return the names of the files written for a case, at its own size.

    Of an image `<case>.png`, grey of 8 bits whose values are class numbers, and
    `<case>.npy`, the probabilities, float32 (rows, columns, classes). Of a volume
    `<case>.nii.gz`, uint8 class numbers, and on request the probabilities, float32,
    classes last, both with the volume's affine and header; and `pictures_of`.
    """
    volume = [f"{case}.nii.gz", f"{case}_probabilities.nii.gz"]
    image = [f"{case}.npy", f"{case}.png"]
    names = volume[: 1 + with_probabilities] if is_volume else image
    return names + (pictures_of(case, is_volume) if with_pictures else [])


def pictures_of(case: str, is_volume: bool) -> list[str]:
    """Return the names of the files that `write_pictures` writes for a case."""
    maps = [f"{case}_probabilities.nii.gz", f"{case}_entropy.nii.gz"]
    return [f"{case}_picture.png", *(maps if is_volume else [])]


def write_pictures(
    folder: Path,
    case: str,
    softmax: _Array,
    module: Dataset,
    root: Path,
    classes: Sequence[str],
    threshold: float | None = None,
) -> Path:
    """Draw a predicted case; for a volume, write its maps too.

    Args: the module's, and the data set, its folder and the names of the classes,
        background first.

    Returns:
        `<case>_picture.png`: image, prediction, probabilities, entropy; of a volume of
        one slice. Beside it lie a volume's `<case>_probabilities.nii.gz` and
        `<case>_entropy.nii.gz`, float32, see `photographs.entropy`.
    """
    from pipelines.reporting.figures import photographs

    geometry = module.geometry(root, case)
    if geometry:
        write_probabilities(folder, case, softmax, geometry)
        slabs = native_grid.slabs(softmax, geometry.shape)
        entropy = (photographs.entropy(slab) for _, slab in slabs)
        _write_map(folder / f"{case}_entropy.nii.gz", entropy, 1, geometry)
        label = native_labels(softmax, geometry.shape, threshold)
    else:
        label = labels(softmax, threshold)
    sheet = photographs.predicted(module, root, case, softmax, label, classes)
    return written.write(
        folder / f"{case}_picture.png",
        lambda aside: sheet.draw(aside.with_suffix(""), ["png"]),
    )


def write_labels(
    folder: Path,
    case: str,
    softmax: _Array,
    geometry: nifti.Geometry,
    threshold: float | None = None,
) -> Path:
    """Write a volume's label map, uint8, with the affine and header of its image.

    It is `<case>.nii.gz`.
    """
    label = native_labels(softmax, geometry.shape, threshold)
    return written.write(
        folder / f"{case}.nii.gz",
        lambda aside: nifti.write_like(aside, label, geometry),
    )


def write_probabilities(
    folder: Path, case: str, softmax: _Array, geometry: nifti.Geometry
) -> Path:
    """Write a volume's probabilities at native resolution, without ever holding them.

    Returns:
        `<case>_probabilities.nii.gz`, float32, classes last.
    """
    path, blocks = folder / f"{case}_probabilities.nii.gz", _blocks(softmax, geometry)
    return _write_map(path, blocks, softmax.shape[-1], geometry)


def _write_map(
    path: Path, blocks: Iterator[_Array], channels: int, geometry: nifti.Geometry
) -> Path:
    def write(aside: Path) -> None:
        nifti.write_blocks(aside, blocks, channels, np.float32, geometry)

    return written.write(path, write)


def _blocks(softmax: _Array, geometry: nifti.Geometry) -> Iterator[_Array]:
    """Yield probabilities at native resolution in the order of a NIfTI file."""
    for p in np.moveaxis(softmax, -1, 0)[..., np.newaxis]:
        for _, slab in native_grid.slabs(p, geometry.shape):
            yield slab[..., 0]


def native_labels(
    softmax: _Array, shape: tuple[int, ...], threshold: float | None = None
) -> _Labels:
    """Return the label map at native resolution, (*shape), computed slab by slab."""
    label_map = np.empty(shape, np.uint8)
    for part, slab in native_grid.slabs(softmax, shape):
        label_map[part] = labels(slab, threshold)
    return label_map


def labels(softmax: _Array, threshold: float | None = None) -> _Labels:
    """Return class numbers from probabilities.

    Args:
        softmax: (..., classes), in [0, 1].
        threshold: see `metrics.predicted`.
    """
    numbers = metrics.predicted(np.moveaxis(softmax, -1, 0), threshold)
    return numbers.astype(np.uint8)
