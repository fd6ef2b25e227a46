"""The runs of one data set at one preset, joined for a table.

Reads `run.json`, `cases.csv` and `histograms.npz` of each run, nothing else, and
refuses to join what cannot be compared.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_io.errors import InputError
from pipelines import run as runs_module
from pipelines.measure import histograms, metrics
from pipelines.run import Run

__all__ = [
    "CUSTOM",
    "STANDARD_GAMMA",
    "Study",
    "Variant",
    "finished",
    "groups",
    "open_study",
]

CUSTOM = "custom-"
"""Folders of runs with overrides begin so; these are never in a table."""

STANDARD_GAMMA = 2.0
"""The exponent of the ++ losses in Tables 4 to 6 (Table 2 of the paper)."""

# What the paper reports: test images, all of each image, its one set of labels.
_SELECTION = {"split": "test", "region": "image", "reference": "observer1"}

_Counts = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Variant:
    """What was trained, whatever the seed: one row of a readable table.

    Attributes:
        loss: the loss's name as the paper writes it, such as "DSC++"; "" where nothing
            was trained.
        gamma: the ++ exponent of a ++ loss; None for every other loss.
        method: what was done after training, such as "temperature"; "" for nothing.
        backend: the Keras backend, where it is not the study's own; else "".
    """

    loss: str
    gamma: float | None = None
    method: str = ""
    backend: str = ""

    @property
    def label(self) -> str:
        """Such as "DSC++", "DSC++ g=2.5" or "DSC + temperature [torch]"."""
        text = self.loss
        if self.gamma is not None and self.gamma != STANDARD_GAMMA:
            text += f" g={self.gamma:g}"
        text = " + ".join(part for part in (text, self.method) if part)
        return text + (f" [{self.backend}]" if self.backend else "")

    @property
    def is_main(self) -> bool:
        """Whether the paper could have a cell for it: no method, the usual backend."""
        return not self.method and not self.backend


def groups(results: Path) -> list[Path]:
    """Folders `results/<dataset>/<preset>` with a finished run, in order of name.

    Args:
        results: the folder of all results.
    """
    found = sorted(path.parent for path in Path(results).glob("*/*/runs"))
    return [
        folder
        for folder in found
        if not folder.name.startswith(CUSTOM) and finished(folder)
    ]


def finished(folder: Path) -> list[Run]:
    """The evaluated runs of `results/<dataset>/<preset>`, in order of name."""
    return [run for run in runs_module.find(folder) if run.state == "evaluated"]


@dataclass(frozen=True, eq=False)
class Study:
    """The evaluated runs of one data set at one preset.

    Attributes:
        folder: `results/<dataset>/<preset>`.
        runs: the runs of each variant, in order of seed.
        cases: the test cases, in the order of the split.
        targets: the classes measured, such as ("vessel",).
        values: each run's measures, by the run's name: (targets, cases, metrics) in
            the order of `metrics.METRICS`; NaN where undefined.
    """

    folder: Path
    runs: dict[Variant, list[Run]]
    cases: tuple[str, ...]
    targets: tuple[str, ...]
    values: dict[str, _Floats]

    @cached_property
    def record(self) -> dict[str, Any]:
        """`run.json` of the first run: for what all runs share."""
        return next(iter(self.runs.values()))[0].record

    @property
    def preset(self) -> str:
        """Such as "paper" or "reduced"."""
        return str(self.record["preset"])

    @property
    def title(self) -> str:
        """The data set as the paper's tables print it."""
        return str(self.record["title"])

    @property
    def simulated(self) -> bool:
        """Whether the images are simulated."""
        return bool(self.record["simulated"])

    @property
    def main(self) -> list[Variant]:
        """The variants that the paper's cells, tests and thresholds are made of."""
        return [variant for variant in self.runs if variant.is_main]

    def standing_in(self, variant: Variant) -> Variant | None:
        """The variant at hand that is the same training; None: it was not run.

        Eq. 9 with gamma 1 is Eq. 5: the paper's row at gamma 1 is the plain loss.
        """
        if variant not in self.runs and variant.gamma == 1.0:
            variant = Variant(variant.loss.removesuffix("++"))
        return variant if variant in self.runs else None

    def seeds(self, variant: Variant) -> tuple[int, ...]:
        """Training seeds at hand."""
        return tuple(int(run.record["seed"]) for run in self.runs[variant])

    def shared(self, a: Variant, b: Variant) -> tuple[list[int], list[int]]:
        """Rows of two variants' values that are of the same seeds.

        Returns:
            For each variant the rows of `measures` of the seeds that both have, in the
            same order; all rows of each where they have none in common.
        """
        seeds_a, seeds_b = self.seeds(a), self.seeds(b)
        both = [seed for seed in seeds_a if seed in seeds_b]
        if not both:
            return list(range(len(seeds_a))), list(range(len(seeds_b)))
        return [seeds_a.index(s) for s in both], [seeds_b.index(s) for s in both]

    def measures(self, variant: Variant, target: str, metric: str) -> _Floats:
        """One metric of every seed and test case, (seeds, cases); NaN: undefined."""
        row, column = self.targets.index(target), metrics.METRICS.index(metric)
        return np.stack(
            [self.values[run.name][row, :, column] for run in self.runs[variant]]
        )

    def measures_in(
        self, variant: Variant, target: str, metric: str, region: str, reference: str
    ) -> _Floats:
        """As `measures`, in any region and against any observer.

        Returns:
            (seeds, cases); NaN where undefined, and where a case has no such row.
        """
        return np.array(
            [
                [self._measured(run, target, metric, region, reference, case)
                 for case in self.cases]
                for run in self.runs[variant]
            ]
        )  # fmt: skip

    def _measured(self, run: Run, target: str, metric: str, *where: str) -> float:
        row = self._everywhere[run.name].get((target, *where))
        return float("nan") if row is None else row[metrics.METRICS.index(metric)]

    @cached_property
    def _everywhere(self) -> dict[str, dict[tuple[str, ...], list[float]]]:
        """Measures by run; target, region, reference and case."""
        keys = ("target", "region", "reference", "case")
        return {
            run.name: {
                tuple(row[key] for key in keys): _numbers(run.path("cases.csv"), row)
                for row in _all_rows(run)
                if row["split"] == _SELECTION["split"]
            }
            for runs in self.runs.values()
            for run in runs
        }

    def at_thresholds(self, variant: Variant, target: str) -> dict[str, _Floats]:
        """Overlap measures at `histograms.THRESHOLDS`, from the histograms alone.

        Returns:
            "dice", "jaccard", "precision", "recall", each (seeds, cases, thresholds).
        """
        parts = [
            histograms.threshold_metrics(counts, edges=edges)
            for counts, edges in self.counts(variant, target)
        ]
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]}

    def counts(self, variant: Variant, target: str) -> list[tuple[_Counts, _Floats]]:
        """Counts of the softmax value given the truth, of every seed.

        Returns:
            for each seed the counts of the test cases, (cases, 2, B), as
            `histograms.count` has them, and the edges of their bins, (B + 1,).
        """
        return [self._counts_of(run, target) for run in self.runs[variant]]

    def _counts_of(self, run: Run, target: str) -> tuple[_Counts, _Floats]:
        path = run.path("histograms.npz")
        found = histograms.load(path)
        rows = found.where(target=target, **_SELECTION)
        names = [str(name) for name in found.case[rows]]
        _check_cases(path, names, self.cases, target)
        order = [names.index(case) for case in self.cases]
        return found.counts[rows][order], found.edges


def open_study(folder: Path, order: Sequence[str] = ()) -> Study:
    """Read and join the evaluated runs of one data set and preset.

    Args:
        folder: `results/<dataset>/<preset>`.
        order: names of losses in the order wanted; others follow by name.

    Raises:
        InputError: no evaluated run; runs on other data, another split or another
            preset than the first; a run with overrides; a damaged `cases.csv`.
    """
    runs = finished(folder)
    if not runs:
        raise InputError(
            f"{folder}: expected evaluated runs in runs/, found none; make one with "
            "`dscpp train`, `dscpp predict` and `dscpp evaluate`"
        )
    for other in runs:
        _check_joinable(runs[0], other)
        other.require_measures()
    cases = tuple(str(case) for case in runs[0].record["split"]["test"])
    targets = _targets(runs[0])
    values = {run.name: _read_cases(run, cases, targets) for run in runs}
    return Study(Path(folder), _variants(runs, order), cases, targets, values)


def _variants(runs: Sequence[Run], order: Sequence[str]) -> dict[Variant, list[Run]]:
    """Sort runs into variants: main ones first, then by loss and gamma; by seed."""
    usual = _usual_backend(runs)
    found: dict[Variant, list[Run]] = {}
    for run in sorted(runs, key=lambda run: int(run.record["seed"])):
        found.setdefault(_variant(run, usual), []).append(run)
    rank = {loss: position for position, loss in enumerate(order)}
    return dict(
        sorted(
            found.items(),
            key=lambda item: (
                not item[0].is_main,
                rank.get(item[0].loss, len(rank)),
                item[0].loss,
                item[0].gamma or 0.0,
                item[0].method,
                item[0].backend,
            ),
        )
    )


def _usual_backend(runs: Sequence[Run]) -> str:
    """TensorFlow where any run has it, as the default; else the most frequent."""
    counts = Counter(str(run.record["backend"]) for run in runs)
    return max(sorted(counts), key=lambda name: (name == "tensorflow", counts[name]))


def _variant(run: Run, usual_backend: str) -> Variant:
    loss, gamma = str(run.record["loss"]), run.record.get("gamma")
    # Plain forms are gamma = 1 by definition and CE has none: only ++ losses vary.
    plus = loss.endswith("++")
    backend = str(run.record["backend"])
    return Variant(
        loss,
        (STANDARD_GAMMA if gamma in (None, "") else float(gamma)) if plus else None,
        str(run.record.get("method") or ""),
        "" if backend == usual_backend else backend,
    )


_SHARED = {
    "dataset": "data set",
    "preset": "preset",
    "settings": "preset's settings",
    "preprocessing": "preprocessing",
    "split": "split",
    "data_hash": "data (hash of the raw files)",
}


def _check_joinable(first: Run, other: Run) -> None:
    """Refuse runs whose per-case values cannot be set side by side."""
    for key, meaning in _SHARED.items():
        if first.record.get(key) != other.record.get(key):
            raise InputError(
                f"{first.folder} and {other.folder}: expected runs that share the "
                f"{meaning}, found {_short(first.record.get(key))} and "
                f"{_short(other.record.get(key))}; remove one of them or train it again"
            )
    if other.record.get("overrides"):
        raise InputError(
            f"{other.folder}: expected a run with the preset's own values, found "
            f"overrides {other.record['overrides']}; such a run belongs in "
            f"{CUSTOM}<hash>/ beside the preset's folder, and in no table"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _rows(run: Run) -> list[dict[str, str]]:
    """The rows of `cases.csv` that the paper's tables are about."""
    return [
        row
        for row in _all_rows(run)
        if all(row[key] == _SELECTION[key] for key in _SELECTION)
    ]


def _all_rows(run: Run) -> list[dict[str, str]]:
    path = run.path("cases.csv")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: expected the measures of an evaluated run, found a file that "
            f"cannot be read ({error}); run `dscpp evaluate --run {run.folder}`"
        ) from error
    wanted = [*_SELECTION, "case", "target", *metrics.METRICS]
    missing = [name for name in wanted if rows and name not in rows[0]]
    if missing:
        raise InputError(
            f"{path}: expected the column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)}, found none; run `dscpp evaluate --run {run.folder}`"
        )
    return rows


def _targets(run: Run) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row["target"] for row in _rows(run)))


def _read_cases(run: Run, cases: Sequence[str], targets: Sequence[str]) -> _Floats:
    """Read the measures of a run, (targets, cases, metrics); empty cells are NaN."""
    path, rows = run.path("cases.csv"), _rows(run)
    result = []
    for target in targets:
        by_case = [(row["case"], row) for row in rows if row["target"] == target]
        _check_cases(path, [case for case, _ in by_case], cases, target)
        named = dict(by_case)
        result.append([_numbers(path, named[case]) for case in cases])
    shape = (len(targets), len(cases), len(metrics.METRICS))
    return np.array(result, dtype=np.float64).reshape(shape)


def _numbers(path: Path, row: dict[str, str]) -> list[float]:
    try:
        return [float(row[metric] or "nan") for metric in metrics.METRICS]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: case {row['case']}: expected numbers or empty cells, found "
            f"{error}; evaluate the run again"
        ) from error


def _check_cases(
    path: Path, found: Sequence[str], expected: Sequence[str], target: str
) -> None:
    """Every test case once, so that no mean is over other cases than it says."""
    if sorted(found) != sorted(expected):
        missing = sorted(set(expected) - set(found))
        extra = sorted(set(found) - set(expected))
        repeated = sorted(name for name, n in Counter(found).items() if n > 1)
        raise InputError(
            f"{path}: {target}: expected each of the {len(expected)} test cases once, "
            f"found {len(found)} rows (missing: {missing or 'none'}, not in the split: "
            f"{extra or 'none'}, repeated: {repeated or 'none'}); evaluate it again"
        )
