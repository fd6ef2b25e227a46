"""From stored probabilities to `cases.csv` and `histograms.npz`: no network needed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from data_io import datasets
from data_io.errors import InputError
from pipelines import provenance
from pipelines import run as runs
from pipelines.measure import histograms, metrics

__all__ = ["COLUMNS", "evaluate", "probabilities"]

COLUMNS = (*runs.CASE_KEYS, *metrics.COLUMNS)
PROBABILITIES = "probabilities"
SPLITS = ("validation", "test")
_PAIR = ("observer1", "observer2")

_Array = npt.NDArray[Any]


def probabilities(run: runs.Run, case: str, shape: tuple[int, ...]) -> _Array:
    """Read a case's probabilities.

    Args:
        run: a run in state "predicted" or past it, with its local files.
        case: the case's id.
        shape: the native spatial shape, from its label.

    Returns:
        Softmax values, (*shape, C), float32.

    Raises:
        InputError: the file is missing, damaged or of another shape.
    """
    path = run.path(PROBABILITIES) / f"{case}.npy"
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: expected the probabilities of case {case}, found none that can "
            f"be read ({error}). They are not kept in git: run "
            f"`dscpp predict --again --run {run.folder}` where the weights are"
        ) from error
    if found.shape[:-1] != tuple(shape):
        raise InputError(
            f"{path}: expected shape {tuple(shape)} and classes, found {found.shape}; "
            f"run `dscpp predict --again --run {run.folder}`"
        )
    return np.asarray(found)


def evaluate(run: runs.Run, root: Path) -> None:
    """Measure a run: one row a case, region, reference and target.

    Args:
        run: a run in state "predicted" or past it, locked by the caller.
        root: the data set's folder, for labels and regions.

    Raises:
        InputError: the run has no probabilities.
    """
    run.require("predicted", f"dscpp predict --run {run.folder}")
    start = time.perf_counter()
    module = datasets.by_name(run.record["dataset"])
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    cases = [(split, case) for split in SPLITS for case in run.record["split"][split]]
    for split, case in tqdm(cases, desc=f"{run.name} evaluate", unit="case"):
        measured, paired = _case(run, module, root, case)
        rows += [{"split": split, **row} for row in measured]
        pairs += [{"split": split, **row} for row in paired]
    _write(run, rows, pairs)
    run.update(
        files=["cases.csv", "histograms.npz"],
        state="evaluated",
        times={"evaluate_s": round(time.perf_counter() - start, 1)},
        peak_memory_mb=max(
            provenance.peak_memory_mb(), run.record.get("peak_memory_mb", 0)
        ),
    )


def _case(
    run: runs.Run, module: ModuleType, root: Path, case: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    references = module.references(root, case)
    regions = module.regions(root, case)
    found = probabilities(run, case, next(iter(references.values())).shape)
    rows, pairs = [], []
    for target, name in list(enumerate(module.record(root).classes))[1:]:
        for region, mask in regions.items():
            keys = {"case": case, "target": name, "region": region}
            rows += [{**keys, **row} for row in _rows(found, references, target, mask)]
            pairs += [{**keys, **row} for row in _pair(found, references, target, mask)]
    return rows, pairs


def _rows(
    found: _Array, references: Mapping[str, _Array], target: int, mask: _Array
) -> Iterator[dict[str, Any]]:
    for reference, label in references.items():
        yield {
            "reference": reference,
            "counts": histograms.count(found[..., target], label == target, mask),
            **metrics.case_metrics(label, found, target, mask),
        }


def _pair(
    found: _Array, references: Mapping[str, _Array], target: int, mask: _Array
) -> Iterator[dict[str, Any]]:
    if all(name in references for name in _PAIR):
        first, second = (references[name] == target for name in _PAIR)
        counts = histograms.count_pair(found[..., target], first, second, mask)
        yield {"counts": counts}


def _write(
    run: runs.Run, rows: list[dict[str, Any]], pairs: list[dict[str, Any]]
) -> None:
    # "split" is a row's own here, and the whole split in the record.
    own = {key: run.record[key] for key in runs.CASE_KEYS[:6]}
    runs.write_csv(run.path("cases.csv"), COLUMNS, [{**row, **own} for row in rows])
    table = histograms.Histograms.from_rows(rows, pairs)
    runs.write_atomically(
        run.path("histograms.npz"), lambda aside: histograms.save(aside, table)
    )
