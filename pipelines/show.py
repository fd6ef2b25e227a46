"""Pictures of runs, made where their probabilities are.

Pictures of real patients stay local: git ignores them (see `results/README.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from data_io import datasets, native
from data_io.datasets import nifti
from data_io.datasets.reading import read_image
from losses import catalogue
from pipelines import provenance
from pipelines import run as runs
from pipelines.reporting import pictures
from pipelines.stored import PROBABILITIES, probabilities, volume

__all__ = ["FOLDER", "compare", "picture"]

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
    first = next(iter(shown.values()))
    module = datasets.by_name(first.record["dataset"])
    of_case = _slice if module.record(root).is_3d else _image
    image, truth, maps = of_case(shown, module, root, case)
    detail = _DETAIL if min(truth.shape) > 2 * _DETAIL else None
    return pictures.compare(image, truth > 0, maps, path, _title(first, case), detail)


_Shown = tuple[_Array, _Array, dict[str, _Array]]


def _image(
    shown: Mapping[str, runs.Run], module: ModuleType, root: Path, case: str
) -> _Shown:
    truth = module.references(root, case)["observer1"]
    maps = {
        loss: _foreground(probabilities(run, case, truth.shape))
        for loss, run in shown.items()
    }
    # Own images may be grey, or have more than 8 bits.
    own = getattr(module, "picture", None)
    image = own(root, case) if own else read_image(module.roles(root, case)["image"])
    return image, truth, maps


def _slice(
    shown: Mapping[str, runs.Run], module: ModuleType, root: Path, case: str
) -> _Shown:
    """The slice of a volume with most foreground in it, the first of several."""
    label = module.references(root, case)["observer1"]
    index = max(range(len(label)), key=lambda i: np.count_nonzero(label[i]))
    maps = {
        loss: _foreground(
            native.slab(
                volume(run, module, root, case)[0],
                label.shape,
                slice(index, index + 1),
            )[0]
        )
        for loss, run in shown.items()
    }
    image = nifti.read_slice(module.roles(root, case)["image"], index)
    window = module.record(root).clip
    # What the network sees of a CT: beyond it lie bone and air.
    return image if window is None else np.clip(image, *window), label[index], maps


def _foreground(softmax: _Array) -> _Array:
    return np.asarray(np.clip(1 - softmax[..., 0], 0, 1))


def _title(run: runs.Run, case: str) -> str:
    record = run.record
    simulated = " (simulated)" if record["simulated"] else ""
    number = case.removeprefix("case_")
    return f"{record['title']}{simulated}, case {number}, preset {record['preset']}"
