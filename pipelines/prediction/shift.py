"""A network on its own test images, corrupted: `shift.csv` of its run.

Each test image is corrupted as `data_io.simulation.corruptions` says, before any
preprocessing, predicted by the run's network and measured against its labels: as it is,
and after the temperature of the run's scaled twin. Temperature and threshold are those
fitted on the validation images as they are; `shift.csv` says which.
"""

from __future__ import annotations

import copy
import csv
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from data_io import bars, datasets
from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from data_io.files import schema
from data_io.simulation import corruptions
from pipelines.environment import commits
from pipelines.measure import calibration, decisions
from pipelines.measure.histograms import Histograms, bin_of_threshold
from pipelines.measure.regions import BAND
from pipelines.posthoc import scaling, threshold
from pipelines.prediction import evaluate, new_images
from pipelines.runs import predictions
from pipelines.runs import run as runs

COLUMNS = (
    "kind", "strength", "level", "method", "target", "case", "temperature",
    "threshold", *runs.SHIFTED,
)  # fmt: skip

_Array = npt.NDArray[Any]
_Row = dict[str, Any]
_Scaling = tuple[str, float, float | None]


def is_done(run: runs.Run) -> bool:
    """Return whether `shift.csv` is as the run wrote it, at today's scalings."""
    path = run.path(runs.SHIFT)
    if not predictions.is_as(path, run.record.get("files", {}).get(runs.SHIFT)):
        return False
    keys = ("method", "temperature", "threshold")
    with path.open(newline="", encoding="utf-8") as file:
        found = {tuple(map(row.get, keys)) for row in csv.DictReader(file)}
    return found == {
        (method, f"{temperature:.9g}", "" if cut is None else f"{cut:.9g}")
        for method, temperature, cut in _scalings(run)
    }


def measure(run: runs.Run, root: Path, work: Path) -> None:
    """Measure a run on its corrupted test images, and write `shift.csv`.

    Args:
        run: evaluated, with its network, held by the caller; its temperature is that of
            the scaled run beside it, where there is one.
        root: the data set's folder.
        work: for the corrupted images, a case at a time.

    Raises:
        InputError: volumes, images of several files, or images that are not 8-bit; no
            network here; a folder that cannot be written.
    """
    module = datasets.by_name(run.record["dataset"])
    modalities = run.record.get("preprocessing", {}).get("modalities") or ()
    if module.record(root).is_3d or len(modalities) > 1:
        raise InputError(
            f"{run.folder}: expected a run of photographs, one file each, to corrupt "
            f"as a camera would, found one of {' and '.join(modalities) or 'volumes'}"
        )
    run.update()  # a folder that cannot be written is refused now, not after it all
    scalings = list(_scalings(run))
    _note_lacking(run, scalings)
    trained = new_images.open_model(run.folder)
    # What was measured before a stop, by the same code with the same weights.
    identity = [run.folder.resolve(), run.record["files"], scalings, commits.commit()]
    memory = work / "cache" / "shift" / schema.digest([*map(str, identity)])
    rows: list[_Row] = []
    for case in bars.bar(run.record["split"]["test"], f"{run.name} shift", unit="case"):
        kept = memory / f"{schema.digest(case)}.json"
        of_case = schema.recall(kept, list[_Row])
        if of_case is None:
            of_case = list(_of_case(trained, module, root, case, scalings, work))
            runs.write_json(kept, of_case, allow_nan=True)
        rows += of_case
    runs.write_csv(run.path(runs.SHIFT), COLUMNS, rows)
    run.update(files=[runs.SHIFT])
    shutil.rmtree(memory, ignore_errors=True)


def _of_case(
    trained: new_images.Trained,
    module: Dataset,
    root: Path,
    case: str,
    scalings: list[_Scaling],
    work: Path,
) -> Iterator[_Row]:
    """Yield the rows of a case: all corruptions, scalings and classes."""
    for kind, strength in corruptions.STRENGTHS:
        softmax = _predicted(trained, module, root, case, kind, strength, work)
        level = corruptions.level_of(kind, strength)
        keys = {"kind": kind, "strength": strength, "level": level, "case": case}
        for scaled in scalings:
            for row in _measured(module, root, case, softmax, scaled):
                yield keys | row


def _scalings(run: runs.Run) -> Iterator[_Scaling]:
    """Yield method, temperature and threshold: as it is, then as it was scaled."""
    yield "", 1.0, _threshold(run)
    folder = scaling.folder_of(run)
    if runs.is_run(folder):
        twin = runs.Run.open(folder)
        scaling.trained(twin)  # of other weights it is refused
        fitted = twin.record["posthoc"]["temperature"]
        yield scaling.TEMPERATURE, fitted, _threshold(twin)


def _threshold(run: runs.Run) -> float | None:
    """Choose the threshold; None without a validation case to choose it on."""
    try:
        return threshold.choose(run).threshold
    except threshold.NoCase:
        return None


def _note_lacking(run: runs.Run, scalings: list[_Scaling]) -> None:
    if len(scalings) == 1:
        bars.note(
            f"  note     {run.name} is measured without a temperature: there is none "
            f"beside it. `dscpp temperature --run {run.folder}` fits one"
        )
    if scalings[0][-1] is None:
        bars.note(
            f"  note     {run.name} has no validation case with foreground to choose a "
            f"threshold on: `threshold` and `missed` are empty in {runs.SHIFT}"
        )


def _predicted(
    trained: new_images.Trained,
    module: Dataset,
    root: Path,
    case: str,
    kind: str,
    strength: int,
    work: Path,
) -> _Array:
    """Corrupt and predict a case; keep nothing of it in a cache."""
    from data_io.prepare import cache
    from pipelines.training import predict

    shifted = copy.copy(module)

    def image(root: Path, case: str) -> _Array:
        return corruptions.corrupted(module.image(root, case), kind, strength, case)

    # Of the copy alone: an attribute comes before the method of its class.
    vars(shifted)["image"] = image
    place = work / "cache"  # what a killed process leaves there, `clean` deletes
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
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
    at = None if cut is None else bin_of_threshold(table.edges, cut)
    first = next(iter(module.references(root, case)))
    ace = calibration.ace(
        calibration.join(table.counts, table.confidence(), table.edges)
    )
    missed = decisions.false_negatives(table.counts)
    for index, row in enumerate(rows):
        if row["region"] != "image" or row["reference"] != first:
            continue
        band = table.where(region=BAND, reference=first, target=row["target"])
        yield {
            "method": method,
            "target": row["target"],
            "temperature": temperature,
            "threshold": cut,
            "nll": row["nll"],
            "ace_band": float(ace[band][0]) if band.any() else None,
            "dice": row["dice"],
            "missed": None if at is None else float(missed[index, at]),
        }
