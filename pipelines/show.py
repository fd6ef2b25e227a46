"""Pictures of runs, made where their probabilities are.

Pictures of real patients stay local: git ignores them (see `results/README.md`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from data_io import datasets, native
from data_io.datasets import nifti
from data_io.datasets.reading import read_image
from losses import catalogue
from pipelines import provenance, written
from pipelines import run as runs
from pipelines.reporting import pictures
from pipelines.stored import PROBABILITIES, probabilities, volume

__all__ = ["FOLDER", "View", "compare", "detail", "foreground", "picture", "view"]

FOLDER = "pictures"
_COMPARED = ("CE", "DSC", "DSC++")
_DETAIL = 128  # pixels: what a fine vessel needs to be seen

_Array = npt.NDArray[Any]


def picture(run: runs.Run, root: Path) -> Path:
    """Draw a run's first test case: image, truth, softmax heat map with colour bar.

    Of a volume the slice of axis 0 with most foreground is drawn.

    Args:
        run: a predicted run with its probabilities.
        root: the data set's folder.

    Returns:
        The PNG file, `pictures/<case>.png` of the run.
    """
    case = run.record["split"]["test"][0]
    path = run.path(FOLDER) / f"{case}.png"
    return _draw({run.record["loss"]: run}, root, case, path)


def compare(group: Path, root: Path) -> Path | None:
    """Draw CE, DSC and DSC++ side by side on the first test case (as Fig. 1).

    Args:
        group: `results/<dataset>/<preset>`.
        root: the data set's folder.

    Returns:
        The PNG file, or None where DSC and DSC++ have no probabilities here. Runs are
        those of this process's backend; of several seeds the lowest is shown.
    """
    found: dict[str, runs.Run] = {}
    for run in sorted(runs.find(group), key=lambda run: int(run.record["seed"])):
        if run.path(PROBABILITIES).is_dir() and run.name == _name(run):
            found.setdefault(run.record["loss"], run)
    chosen = {loss: found[loss] for loss in _COMPARED if loss in found}
    if not {"DSC", "DSC++"} <= chosen.keys():
        return None
    case = chosen["DSC"].record["split"]["test"][0]
    return _draw(chosen, root, case, group / FOLDER / "compare.png")


def _name(run: runs.Run) -> str:
    """What the run would be called here with the loss's default exponent."""
    loss, seed = run.record["loss"], run.record["seed"]
    default = catalogue.default_gamma(loss)
    return runs.folder_name(loss, default, seed, provenance.backend())


def _draw(shown: Mapping[str, runs.Run], root: Path, case: str, path: Path) -> Path:
    written.require_figure(path)
    first = next(iter(shown.values()))
    found = view(shown, root, case)
    maps = {loss: foreground(softmax) for loss, softmax in found.softmax.items()}
    truth = found.label > 0
    return pictures.compare(
        found.image, truth, maps, path, _title(first, case), detail(truth.shape)
    )


@dataclass(frozen=True, eq=False)
class View:
    """What a picture shows of a case: an image, or one slice of a volume.

    Attributes:
        image: (rows, columns[, channels]); of a CT what the network sees of it.
        label: class numbers, (rows, columns), of the first observer.
        softmax: softmax values by the name of the run, (rows, columns, C).
        index: of the slice, along axis 0; None of an image.
    """

    image: _Array
    label: _Array
    softmax: dict[str, _Array]
    index: int | None = None


def view(
    shown: Mapping[str, runs.Run], root: Path, case: str, target: int | None = None
) -> View:
    """Read a case with the probabilities of some runs.

    Args:
        shown: runs of one data set with their probabilities, by a name for each.
        root: the data set's folder.
        case: the case's id.
        target: of a volume, the class whose largest slice is taken (the first of
            several); None, or one that the case has nothing of: all foreground.

    Raises:
        InputError: probabilities or images are not there, or do not fit.
    """
    record = next(iter(shown.values())).record
    module = datasets.by_name(record["dataset"])
    if module.record(root).is_3d:
        return _slice(shown, module, root, case, target)
    return _image(shown, module, root, case)


def _image(
    shown: Mapping[str, runs.Run], module: ModuleType, root: Path, case: str
) -> View:
    label = module.references(root, case)["observer1"]
    softmax = {
        name: probabilities(run, case, label.shape) for name, run in shown.items()
    }
    # Own images may be grey, or have more than 8 bits.
    own = getattr(module, "picture", None)
    image = own(root, case) if own else read_image(module.roles(root, case)["image"])
    return View(image, label, softmax)


def _slice(
    shown: Mapping[str, runs.Run],
    module: ModuleType,
    root: Path,
    case: str,
    target: int | None,
) -> View:
    label = module.references(root, case)["observer1"]
    sizes = [np.count_nonzero(plane == target) for plane in label] if target else [0]
    if not any(sizes):
        sizes = [np.count_nonzero(plane) for plane in label]
    index = int(np.argmax(sizes))
    part = slice(index, index + 1)
    softmax = {
        name: native.slab(volume(run, module, root, case)[0], label.shape, part)[0]
        for name, run in shown.items()
    }
    image = nifti.read_slice(module.roles(root, case)["image"], index)
    window = module.record(root).clip
    # What the network sees of a CT: beyond it lie bone and air.
    image = image if window is None else np.clip(image, *window)
    return View(image, label[index], softmax, index)


def detail(shape: Sequence[int]) -> int | None:
    """Side of the square to show enlarged; None where the image is small itself."""
    return _DETAIL if min(shape) > 2 * _DETAIL else None


def foreground(softmax: _Array) -> _Array:
    """Softmax value of all classes but the background, (rows, columns)."""
    return np.asarray(np.clip(1 - softmax[..., 0], 0, 1))


def _title(run: runs.Run, case: str) -> str:
    record = run.record
    simulated = " (simulated)" if record["simulated"] else ""
    number = case.removeprefix("case_")
    return f"{record['title']}{simulated}, case {number}, preset {record['preset']}"
