"""From a run's probabilities to `cases.csv` and `histograms.npz`: needs no network.

What the functions take, each the same:

    run: a run in state "predicted" or past it, locked by the caller.
    module: the data set.
    root: its folder, for labels and regions.
    threshold: for what is predicted, as in `metrics.predicted`.
"""

import functools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy.typing as npt

from data_io import bars, datasets, pool
from data_io.datasets.dataset import Dataset
from pipelines.environment import provenance
from pipelines.measure import histograms, metrics, voxels
from pipelines.measure.regions import BAND, band, band_radius
from pipelines.runs import predictions
from pipelines.runs import run as runs

COLUMNS = (*runs.CASE_KEYS, *metrics.COLUMNS)
_PAIR = ("observer1", "observer2")

_Array = npt.NDArray[Any]
_Slab = tuple[Any, _Array]
_Rows = list[dict[str, Any]]
Measured = tuple[_Rows, _Rows]
"""Rows of `cases.csv` with the counts of `histograms.npz`; rows of observer pairs."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def evaluate(run: runs.Run, root: Path) -> None:
    """Measure a run: one row a case, region, reference and target.

    Raises:
        InputError: the run has no probabilities.
    """
    start = time.perf_counter()
    module = datasets.by_name(run.record["dataset"])
    measured = measure(run, module, root, predictions.cases(run))
    write(run.folder, run.record, *measured)
    run.update(
        files=runs.MEASURES,
        state="evaluated",
        times={"evaluate_s": round(time.perf_counter() - start, 1)},
        peak_memory_mb=provenance.peak_memory_mb(run.record),
    )


def measure(
    run: runs.Run,
    module: Dataset,
    root: Path,
    cases: Sequence[tuple[str, str]],
    threshold: float | None = None,
) -> Measured:
    """Measure cases, pairs of the split's name and a case, with their probabilities."""
    return joined(
        measure_case(
            module,
            root,
            split,
            case,
            functools.partial(predictions.slabs, run, module, root, case),
            threshold,
        )
        for split, case in bars.bar(cases, f"{run.name} evaluate", unit="case")
    )


def joined(measured: Iterable[Measured]) -> Measured:
    """Join what `measure_case` returned for each case."""
    rows: _Rows = []
    pairs: _Rows = []
    for of_case, of_pairs in measured:
        rows += of_case
        pairs += of_pairs
    return rows, pairs


def measure_case(
    module: Dataset,
    root: Path,
    split: str,
    case: str,
    slabs_of: Callable[[tuple[int, ...]], Iterable[_Slab]],
    threshold: float | None = None,
) -> Measured:
    """Measure one case in one pass over its voxels: all regions, observers, targets.

    Slabs are measured side by side, and what was found is added in their order: it does
    not depend on the number of cores.

    Args: the module's, the case and its part of the split, and
        slabs_of: from the native shape to probabilities, as `predictions.slabs`.
    """
    references = module.references(root, case)
    regions = _regions(module, root, case, references)
    targets = dict(enumerate(module.record(root).classes))
    del targets[0]
    shape = next(iter(references.values())).shape

    def measure_slab(slab: _Slab) -> dict[str, _Tally]:
        where, softmax = slab
        labels = {name: label[where] for name, label in references.items()}
        slab_tallies = {
            region: _Tally(targets, references, threshold) for region in regions
        }
        for region, tally in slab_tallies.items():
            tally.add(softmax, labels, regions[region][where])
        return slab_tallies

    tallies = {region: _Tally(targets, references) for region in regions}
    for slab_tallies in _side_by_side(measure_slab, slabs_of(shape)):
        for region, tally in slab_tallies.items():
            tallies[region].join(tally)
    rows, pairs = [], []
    for target, name in targets.items():
        for region, tally in tallies.items():
            keys = {"split": split, "case": case, "target": name, "region": region}
            rows += [{**keys, **row} for row in tally.rows(target)]
            pairs += [{**keys, **row} for row in tally.pairs(target)]
    return rows, pairs


def at_threshold(run: runs.Run, root: Path, threshold: float) -> Path:
    """Measure a run's test cases at a threshold, anew each time.

    They go to `threshold-<threshold>.csv` of the run, with the columns of `cases.csv`.

    Raises:
        InputError: as `evaluate`.
    """
    module = datasets.by_name(run.record["dataset"])
    cases = [named for named in predictions.cases(run) if named[0] == "test"]
    rows, _ = measure(run, module, root, cases, threshold)
    path = run.path(threshold_file(threshold))
    write_cases(path, run.record, rows)
    run.update(files=[path.name])
    return path


def threshold_file(threshold: float) -> str:
    """Return the name of the file with the measures at a threshold."""
    return f"threshold-{threshold:g}.csv"


def _regions(
    module: Dataset, root: Path, case: str, references: Mapping[str, _Array]
) -> dict[str, _Array]:
    """Return the data set's regions, and the band around observer 1's label."""
    regions = dict(module.regions(root, case))
    label = next(iter(references.values()))
    geometry = module.geometry(root, case)
    near = band(
        label, band_radius(label.ndim, geometry.spacing_mm if geometry else None)
    )
    if near.any():
        regions[BAND] = near
    return regions


def _side_by_side(
    function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """Yield a function's results in the items' order, a few computed ahead."""
    threads = pool.threads()
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads) as workers:
        for item in items:
            waiting.append(workers.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Tally:
    """Sums over one region of a case, by class and observer."""

    def __init__(
        self,
        targets: Iterable[int],
        references: Iterable[str],
        threshold: float | None = None,
    ) -> None:
        self._targets = list(targets)
        self._measures = {
            name: metrics.CaseMetrics(self._targets, threshold) for name in references
        }
        self._totals: dict[tuple[Any, ...], Any] = defaultdict(int)  # of bins

    def add(self, softmax: _Array, labels: Mapping[str, _Array], mask: _Array) -> None:
        for name, label in labels.items():
            self._measures[name].check(label, softmax)
        for cut, p in voxels.blocks(list(labels.values()), softmax, mask):
            self._add_block(dict(zip(labels, cut, strict=True)), p)

    def _add_block(self, labels: Mapping[str, _Array], p: _Array) -> None:
        for name, label in labels.items():
            self._measures[name].add_block(label, p)
        for target in self._targets:
            is_target = {name: label == target for name, label in labels.items()}
            bins = histograms.bins_of(p[target])
            self._totals["sums", target] += histograms.sum_bins(bins, p[target])
            for name in labels:
                counts = histograms.count_bins(bins, [is_target[name]])
                self._totals["counts", target, name] += counts
            if all(name in labels for name in _PAIR):
                pair = [is_target[name] for name in _PAIR]
                self._totals["pairs", target] += histograms.count_bins(bins, pair)

    def join(self, other: Self) -> None:
        """Add the sums of another tally of the same targets and observers."""
        for name, measures in other._measures.items():
            self._measures[name].join(measures)
        for key, total in other._totals.items():
            self._totals[key] += total

    def rows(self, target: int) -> Iterator[dict[str, Any]]:
        for name, measures in self._measures.items():
            yield {
                "reference": name,
                "counts": self._totals["counts", target, name],
                "sums": self._totals["sums", target],
                **measures.of(target),
            }

    def pairs(self, target: int) -> Iterator[dict[str, Any]]:
        if ("pairs", target) in self._totals:
            yield {"counts": self._totals["pairs", target]}


def write(
    folder: Path,
    record: Mapping[str, Any],
    rows: Sequence[dict[str, Any]],
    pairs: Sequence[dict[str, Any]],
) -> None:
    """Write `cases.csv` and `histograms.npz` into a folder.

    `record` is that of the run measured; rows and pairs are from `measure`.
    """
    write_cases(folder / "cases.csv", record, rows)
    table = histograms.Histograms.from_rows(rows, pairs)
    runs.write_atomically(
        folder / "histograms.npz", lambda aside: histograms.save(aside, table)
    )


def write_cases(
    path: Path, record: Mapping[str, Any], rows: Sequence[dict[str, Any]]
) -> Path:
    """Write the rows of a `cases.csv`; arguments as for `write`."""
    # "split" is a row's own here, and the whole split in the record.
    run_values = {key: record[key] for key in runs.CASE_KEYS[:6]}
    return runs.write_csv(path, COLUMNS, [{**row, **run_values} for row in rows])
