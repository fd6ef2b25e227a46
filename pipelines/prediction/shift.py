"""A network on its own test images, corrupted: `shift.csv` of its run.

Each test image is corrupted as `data_io.simulation.corruptions` says, before any
preprocessing, predicted by the run's network and measured against its labels: as it is,
and after the temperature of the run's scaled twin. Temperature and threshold are those
fitted on the validation images as they are.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_io import bars, datasets
from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from data_io.simulation import corruptions
from pipelines.measure import calibration, decisions
from pipelines.measure.histograms import Histograms
from pipelines.measure.regions import BAND
from pipelines.posthoc import scaling, threshold
from pipelines.prediction import evaluate, new_images
from pipelines.runs import predictions
from pipelines.runs import run as runs

COLUMNS = (
    "kind", "strength", "level", "method", "target", "case", "threshold",
    *runs.SHIFTED,
)  # fmt: skip

_Array = npt.NDArray[Any]
_Row = dict[str, Any]
_Scaling = tuple[str, float, float]


def measure(run: runs.Run, root: Path) -> None:
    """Measure a run on its corrupted test images, and write `shift.csv`.

    Args:
        run: evaluated, with its network, held by the caller; its temperature is that of
            the scaled run beside it, where there is one.
        root: the data set's folder.

    Raises:
        InputError: volumes, or images that are not 8-bit; no network here.
    """
    module = datasets.by_name(run.record["dataset"])
    if module.record(root).is_3d:
        raise InputError(
            f"{run.folder}: expected a run of images to corrupt as a camera would, "
            "found one of volumes"
        )
    scalings = list(_scalings(run))
    trained = new_images.open_model(run.folder)
    rows: list[_Row] = []
    for case in bars.bar(run.record["split"]["test"], f"{run.name} shift", unit="case"):
        for kind, strength in corruptions.STRENGTHS:
            softmax = _predicted(trained, module, root, case, kind, strength)
            level = corruptions.level_of(kind, strength)
            keys = {"kind": kind, "strength": strength, "level": level, "case": case}
            measured = (_measured(module, root, case, softmax, s) for s in scalings)
            rows += [keys | row for part in measured for row in part]
    runs.write_csv(run.path(runs.SHIFT), COLUMNS, rows)
    run.update(files=[runs.SHIFT])


def _scalings(run: runs.Run) -> Iterator[_Scaling]:
    """Yield method, temperature and threshold: as it is, then as it was scaled."""
    yield "", 1.0, threshold.choose(run).threshold
    folder = scaling.folder_of(run)
    if not runs.is_run(folder):
        bars.note(
            f"  note     {run.name} is measured without a temperature: there is none "
            f"beside it. `dscpp temperature --run {run.folder}` fits one"
        )
        return
    twin = runs.Run.open(folder)
    scaling.trained(twin)  # of other weights it is refused
    fitted = twin.record["posthoc"]["temperature"]
    yield scaling.TEMPERATURE, fitted, threshold.choose(twin).threshold


def _predicted(
    trained: new_images.Trained,
    module: Dataset,
    root: Path,
    case: str,
    kind: str,
    strength: int,
) -> _Array:
    """Corrupt and predict a case; keep nothing of it in a cache."""
    from data_io.prepare import cache
    from pipelines.training import predict

    shifted = copy.copy(module)

    def image(root: Path, case: str) -> _Array:
        return corruptions.corrupted(module.image(root, case), kind, strength, case)

    # Of the copy alone: an attribute comes before the method of its class.
    vars(shifted)["image"] = image
    with tempfile.TemporaryDirectory() as folder:
        prepared = cache.prepare(
            shifted, root, [case], trained.settings, Path(folder), progress=False
        )
        return predict.probabilities(trained.model, prepared, case, trained.protocol)


def _measured(
    module: Dataset, root: Path, case: str, softmax: _Array, scaled: _Scaling
) -> Iterator[_Row]:
    """Yield the measures of each class, of the whole image and first observer."""
    method, temperature, cut = scaled
    p = predictions.scale(softmax, temperature) if method else softmax
    rows, _ = evaluate.measure_case(module, root, "test", case, lambda _: [(..., p)])
    table = Histograms.from_rows(rows)
    at = int(np.abs(table.edges[:-1] - cut).argmin())
    first = next(iter(module.references(root, case)))
    ace = calibration.ace(
        calibration.join(table.counts, table.confidence(), table.edges)
    )
    for index, row in enumerate(rows):
        if row["region"] != "image" or row["reference"] != first:
            continue
        band = table.where(region=BAND, reference=first, target=row["target"])
        yield {
            "method": method,
            "target": row["target"],
            "threshold": cut,
            "nll": row["nll"],
            "ace_band": float(ace[band][0]) if band.any() else None,
            "dice": row["dice"],
            "missed": float(decisions.false_negatives(table.counts[index])[at]),
        }
