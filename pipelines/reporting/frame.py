"""The runs of one data set at one preset as one tidy frame, with the paper's values.

Reads `run.json`, `cases.csv` and `histograms.npz` of each run once, nothing else, and
refuses to join what cannot be compared.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_io.datasets import is_own
from data_io.errors import InputError
from data_io.files.names import from_cell
from pipelines.environment.commits import from_clean_commit, unclean_commit
from pipelines.measure import histograms, metrics
from pipelines.measure.histograms import Histograms
from pipelines.reporting.estimates import by_seed
from pipelines.reporting.published import (
    SAME_TEST_IMAGES,
    STANDARD_GAMMA,
    THRESHOLDS,
    Paper,
    Variant,
    paper_folder,
    read_table,
)
from pipelines.runs import predictions
from pipelines.runs import run as runs_module
from pipelines.runs.run import CUSTOM, TRUTH, Run, spelled

EXTREMES = "extremes"
"""A measure of confidence: the share of voxels with p < 0.05 or p >= 0.95."""

_REPLICATE = "train it again from a clean checkout, as a replicate"
_ONE_FOLD = re.compile(r"-\d+folds-fold\d+$")
"""Folders of a single fold end so; the tables are of all folds together."""

# What the paper reports: test images, all of each image, its one set of labels.
_SELECTION = {"split": "test", "region": "image", "reference": "observer1"}
_KEYS = ("target", "region", "reference")

_DESCRIBED = (
    "dataset", "title", "simulated", "preset", "loss", "seed", "backend", "split",
)  # fmt: skip
_Counts = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


def _folders(results: Path) -> list[Path]:
    """List the folders that have tables: own images with any settings, else presets."""
    folders = sorted(path.parent for path in Path(results).glob("*/*/runs"))
    return [
        folder
        for folder in folders
        if not _ONE_FOLD.search(folder.name)
        and (not folder.name.startswith(CUSTOM) or is_own(folder.parent.name))
    ]


def finished(runs: Iterable[Run]) -> list[Run]:
    """Return the evaluated runs, but for those that `left_out` names."""
    runs = [run for run in runs if run.state == "evaluated"]
    for run in runs:
        require_described(run)
    reasons = left_out(runs)
    return [run for run in runs if run.folder not in reasons]


def require_described(run: Run) -> None:
    """Refuse a run whose `run.json` lacks what every table needs.

    Raises:
        InputError: names the file and what it lacks.
    """
    missing = [key for key in _DESCRIBED if run.record.get(key) is None]
    if "split" not in missing and "test" not in run.record["split"]:
        missing.append("test cases in split")
    if missing:
        raise InputError(
            f"{run.path(runs_module.RECORD)}: expected {', '.join(_DESCRIBED)}, "
            f"found no {', '.join(missing)}; restore the file, or move the run's "
            "folder away"
        )


def left_out_of(results: Path) -> list[str]:
    """Return the lines of `left_out` for every folder that has tables."""
    groups = (runs_module.find(folder) for folder in _folders(results))
    return [line for group in groups for line in left_out(group).values()]


def left_out(runs: Iterable[Run]) -> dict[Path, str]:
    """Return by folder a line on each evaluated run that is in no table, and why.

    At the preset "paper" these are runs whose commit is unknown or has changes:
    verdicts rest on them, so anybody must be able to get their code. Own images have
    no verdicts. At any preset they are ensembles that share a member with one of the
    same method before them, by name; and what was made of a run that is left out, or
    whose probabilities are others now.
    """
    reasons: dict[Path, str] = {}
    taken: dict[tuple[str, Path], Path] = {}
    evaluated = [run for run in runs if run.state == "evaluated"]
    for run in sorted(evaluated, key=lambda run: run.folder):
        reason = _unclean(run) or _outdated(run, reasons) or _shared(run, taken)
        if reason:
            reasons[run.folder] = f"{run.folder}: {reason}"
    return reasons


def _unclean(run: Run) -> str:
    if _is_clean(run):
        return ""
    found = unclean_commit(run.record)
    return f"expected commits without changes, found {found}; {_REPLICATE}"


def _outdated(run: Run, reasons: Mapping[Path, str]) -> str:
    """Say which run, of those that a run was made of, no table may have or is new."""
    for name, expected in predictions.sources(run).items():
        origin = runs_module.readable(run.folder.with_name(name))
        if origin and (origin.folder in reasons or not _is_clean(origin)):
            return f"expected runs in tables to be made of, found {name}, left out too"
        if origin and predictions.listed(origin) != expected:
            return (
                f"expected the probabilities of {name} that it was made of, found "
                f"others; run `{run.remake()}`"
            )
    return ""


def _shared(run: Run, taken: dict[tuple[str, Path], Path]) -> str:
    """Note the members of an ensemble as taken; say which are so by another one."""
    keys = [(run.method, run.folder.with_name(name)) for name in run.members]
    for key in keys:
        if key in taken:
            return f"expected no member of {taken[key]}, found {key[1].name} in both"
    taken.update(dict.fromkeys(keys, run.folder))
    return ""


def _is_clean(run: Run) -> bool:
    """Whether a table may have it: own images, or a preset other than "paper"."""
    if run.record.get("preset") != "paper" or run.record.get("method") == TRUTH:
        return True
    return is_own(str(run.record.get("dataset"))) or from_clean_commit(run.record)


@dataclass(frozen=True, eq=False)
class Study:
    """Evaluated runs that can be joined, such as those of a data set and preset.

    Attributes:
        folder: where their tables are, such as `results/<dataset>/<preset>`.
        runs: the runs of each variant, in order of seed and replicate.
        cases: the test cases, in the order of the split.
        targets: the classes measured, such as ("vessel",).
        frame: a row for each run (its folder), target, region, reference and test case:
            these by name, and `metrics.METRICS`; NaN where undefined.
    """

    folder: Path
    paper: Paper
    runs: dict[Variant, list[Run]]
    cases: tuple[str, ...]
    targets: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def every_run(self) -> list[Run]:
        """Return the runs of all variants."""
        return [run for runs in self.runs.values() for run in runs]

    @property
    def record(self) -> dict[str, Any]:
        """Return `run.json` of the first run: for what all runs share."""
        return self.every_run[0].record

    @property
    def preset(self) -> str:
        """Return the preset, such as "paper" or "reduced"."""
        return str(self.record["preset"])

    @property
    def title(self) -> str:
        """Return the data set's name as the paper's tables print it."""
        return str(self.record["title"])

    @property
    def simulated(self) -> bool:
        """Whether the images are simulated."""
        return bool(self.record["simulated"])

    @property
    def same_images(self) -> bool:
        """Whether the test images are those that the paper measured."""
        return self.title in SAME_TEST_IMAGES

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Return the data set's published cells with their class.

        None of simulated data, nor of a cross-validation, whose test cases are all.
        """
        cells = self.paper.cells
        if self.simulated or "folds" in self.record:
            return cells.iloc[:0]
        published = cells[cells["dataset"] == self.title]
        return published.assign(target=published["target"].replace("", self.targets[0]))

    @property
    def main(self) -> list[Variant]:
        """Return the variants that the tests and the tables of thresholds have."""
        return [variant for variant in self.runs if variant.is_main]

    def same_training(self, variant: Variant) -> Variant | None:
        """Return the key of `runs` with the same training; None: it was not run.

        Eq. 9 with gamma 1 is Eq. 5: the paper's row at gamma 1 is the plain loss.
        """
        trained = replace(variant, threshold=None)
        if trained not in self.runs and trained.gamma == 1.0:
            trained = replace(trained, loss=trained.loss.removesuffix("++"), gamma=None)
        return trained if trained in self.runs else None

    def seeds(self, variant: Variant) -> tuple[int, ...]:
        """Return the training seeds at hand, each once."""
        return tuple(dict.fromkeys(seed for seed, _ in self.trainings(variant)))

    def about(self, shown: Iterable[Variant]) -> str:
        """Describe the data, such as "preset reduced, seed 0, 20 test images"."""
        trained = [self.trainings(variant) for variant in shown]
        seed_sets = [{seed for seed, _ in pairs} for pairs in trained]
        more = sum(map(len, trained)) - sum(map(len, seed_sets))
        replicates = f" and {more} replicate{'s' * (more > 1)}" if more else ""
        images = f"{len(self.cases)} test image" + "s" * (len(self.cases) != 1)
        if not self.preset:  # nothing was trained here
            return images
        seeds = in_words(set().union(*seed_sets)) + replicates
        shared = spelled(dict(_common(run.record for run in self.every_run)))
        settings = f" ({shared})" if shared else ""
        return f"preset {self.preset}{settings}, {seeds}, {images}"

    def trainings(self, variant: Variant) -> list[tuple[int, int]]:
        """Return seed and replicate of each training, in the order of `runs`."""
        return [_training(run) for run in self.of(variant)]

    def of(self, variant: Variant) -> list[Run]:
        """Return the runs of a variant at any threshold; see `same_training`."""
        return self.runs[self.same_training(variant) or variant]

    def by_seed(self, variant: Variant, values: npt.ArrayLike) -> _Floats:
        """Average (trainings, ...) over the replicates of each seed: (seeds, ...).

        The seed is the unit: its replicates share first weights and order of images, so
        they narrow no interval as another seed would.
        """
        return by_seed(values, [seed for seed, _ in self.trainings(variant)])

    def paired(
        self, a: Variant, b: Variant, target: str, metric: str
    ) -> tuple[_Floats, _Floats]:
        """Return one metric of two variants to compare, (seeds, cases) each.

        Of the seeds that both have; of a loss and what a method made of it, of the
        trainings that are the same. Of all of each where they have none in common.
        """
        unit = slice(None) if a.trained == b.trained else 0
        trained_a, trained_b = map(self.trainings, (a, b))
        units_a, units_b = ({one[unit] for one in t} for t in (trained_a, trained_b))
        shared = units_a & units_b or units_a | units_b

        def of(variant: Variant, trained: list[tuple[int, int]]) -> _Floats:
            rows = [row for row, one in enumerate(trained) if one[unit] in shared]
            values = self.of_trainings(variant, target, metric)
            return by_seed(values[rows], [trained[row][0] for row in rows])

        return of(a, trained_a), of(b, trained_b)

    def measures(self, variant: Variant, target: str, metric: str) -> _Floats:
        """Return one metric by seed and test case, (seeds, cases); see `by_seed`.

        A column of `cases.csv`, `EXTREMES` or, at a threshold, a measure of overlap.
        NaN where undefined, and where a case has no such row.
        """
        return self.by_seed(variant, self.of_trainings(variant, target, metric))

    def of_trainings(
        self,
        variant: Variant,
        target: str,
        metric: str,
        region: str = _SELECTION["region"],
        reference: str = _SELECTION["reference"],
    ) -> _Floats:
        """Return one metric by training and test case, (trainings, cases)."""
        trained, at = replace(variant, threshold=None), variant.threshold
        if at is not None or metric == EXTREMES:
            values = _at_thresholds(self, trained, target)[metric]
            return values if at is None else values[:, :, THRESHOLDS.index(at)]
        by_run, undefined = self._by_case[metric], np.full(len(self.cases), np.nan)
        part = (target, region, reference)
        keys = ((str(run.folder), *part) for run in self.of(trained))
        return np.stack([by_run.get(key, undefined) for key in keys])

    @cached_property
    def _by_case(self) -> dict[str, dict[tuple[str, ...], _Floats]]:
        """Index values by case by metric, run, target, region and reference.

        Tables ask 20,000 times: a look-up in pandas would take most of their time.
        """
        wide = self.frame.pivot(index=["run", *_KEYS], columns="case")
        return {
            name: dict(
                zip(wide.index, wide[name][[*self.cases]].to_numpy(), strict=True)
            )
            for name in metrics.METRICS
        }

    @cached_property
    def histograms(self) -> dict[str, Histograms]:
        """Read the histograms of each run, by the run's folder.

        Raises:
            InputError: a damaged file, or one that lacks a test case.
        """
        by_folder = {}
        for run in self.every_run:
            path = run.path("histograms.npz")
            read = histograms.load(path)
            counted = replace(
                read,
                counts=_small(read.counts),
                pair_counts=_small(read.pair_counts),
            )
            by_folder[str(run.folder)] = counted
            for target in self.targets:
                names = counted.case[counted.where(target=target, **_SELECTION)]
                check_cases(path, list(map(str, names)), self.cases, target)
        return by_folder

    @cached_property
    def edges(self) -> _Floats:
        """Return the edges of the bins of all histograms, (B + 1,)."""
        return next(iter(self.histograms.values())).edges

    def counts(
        self,
        variant: Variant,
        target: str,
        region: str = _SELECTION["region"],
        reference: str = _SELECTION["reference"],
    ) -> _Counts:
        """Count voxels by truth and bin of softmax, (trainings, cases, 2, B).

        As `histograms.count` has them; 0 where a case has none of the region.
        """
        where = {"target": target, "region": region, "reference": reference}
        files = (self.histograms[str(run.folder)] for run in self.of(variant))
        pairs = ((file, file.where(split="test", **where)) for file in files)
        placed = [self.placed(h.counts[at], h.case[at]) for h, at in pairs]
        return np.stack(placed, dtype=np.int64)

    def n_with_class(self, target: str) -> int:
        """Count the test cases in which a class occurs, by the first observer."""
        counts = self.counts(next(iter(self.runs)), target)
        return int(counts[0, :, 1].any(axis=-1).sum())

    def placed(
        self, values: npt.NDArray[Any], names: npt.NDArray[np.str_]
    ) -> npt.NDArray[Any]:
        """Put values, (K, ...), of K named cases in the order of `cases`; else 0."""
        result = np.zeros((len(self.cases), *values.shape[1:]), dtype=values.dtype)
        result[[self.cases.index(str(name)) for name in names]] = values
        return result


def _small(counts: _Counts) -> Any:
    """Return counts in 32 bits where they fit: a thousand runs are held at once."""
    return counts.astype(np.int32) if counts.max(initial=0) < 2**31 else counts


@lru_cache(maxsize=256)
def _at_thresholds(study: Study, variant: Variant, target: str) -> dict[str, _Floats]:
    """Overlap at `THRESHOLDS`, (trainings, cases, thresholds); `EXTREMES` of each."""
    counts, low = study.counts(variant, target), study.edges[:-1]
    by_bin = counts.sum(axis=2)
    between = (low >= THRESHOLDS[0]) & (low < THRESHOLDS[-1])
    extremes = by_bin[..., ~between].sum(axis=-1) / by_bin.sum(axis=-1)
    overlap = histograms.threshold_metrics(counts, edges=study.edges)
    return overlap | {EXTREMES: extremes}


def in_words(seeds: Iterable[int]) -> str:
    """Write seeds as "seed 0", "2 seeds (0, 1)" or "3 seeds (0-2)"."""
    numbers = sorted(map(int, seeds))
    if len(numbers) == 1:
        return f"seed {numbers[0]}"
    # A list without brackets would run into the number that follows it.
    row = len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1
    named = f"{numbers[0]}-{numbers[-1]}" if row else ", ".join(map(str, numbers))
    return f"{len(numbers)} seeds ({named})"


def studies(results: Path) -> list[Study]:
    """Join the runs of every folder with a finished run, in order of name.

    Variants come in the order of the paper's losses; others follow by name.

    Raises:
        InputError: no finished run at all; runs on other data, another split or another
            preset than the first; a run with overrides; a damaged `cases.csv`; no
            published values.
    """
    paper = Paper(paper_folder(results))
    folders = ((folder, runs_module.find(folder)) for folder in _folders(results))
    groups = ((folder, finished(runs)) for folder, runs in folders)
    joined = [join(folder, runs, paper) for folder, runs in groups if runs]
    if not joined:
        raise InputError(
            f"{results}: expected evaluated runs in <dataset>/<preset>/runs/, found "
            "none; make some with `make demo` or `make reproduce-drive DATA=...`, or "
            "name a run where the command takes one, such as `dscpp report RUN`"
        )
    return joined


def open_study(folder: Path) -> Study:
    """Open one of `studies`, `results/<dataset>/<preset>` with a finished run."""
    runs = finished(runs_module.find(folder))
    return join(folder, runs, Paper(paper_folder(folder.absolute().parents[1])))


def join(folder: Path, runs: Sequence[Run], paper: Paper) -> Study:
    """Join finished runs to a study with its tables in `folder`; see `studies`."""
    for other in runs:
        _check_joinable(runs[0], other)
        other.require_measures()
    cases = tuple(str(case) for case in runs[0].record["split"]["test"])
    read = [_test_rows(run) for run in runs]
    targets = tuple(map(str, selected(read[0])["target"].unique()))
    for run, rows in zip(runs, read, strict=True):
        kept = selected(rows)
        for target in targets:
            names = list(kept["case"][kept["target"] == target])
            check_cases(run.path("cases.csv"), names, cases, target)
    order = tuple(paper.cells["loss"].unique())
    frame = pd.concat(read, ignore_index=True)
    return Study(folder, paper, _variants(runs, order), cases, targets, frame)


def selected(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the whole image and the first observer, as in the paper."""
    kept = [rows[key] == _SELECTION[key] for key in ("region", "reference")]
    return rows[np.logical_and(*kept)]


def by_dice(study: Study, run: Run) -> list[str]:
    """Sort the test cases by a run's Dice, averaged over classes; all if undefined."""
    rows = study.frame[study.frame["run"] == str(run.folder)]
    dice = selected(rows).groupby("case")["dice"].mean().reindex(study.cases)
    ranked = dice.dropna().sort_values(kind="stable").index
    # Where nothing is defined, any case is as good as another.
    return list(map(str, ranked)) or list(study.cases)


def _variants(runs: Sequence[Run], order: Sequence[str]) -> dict[Variant, list[Run]]:
    """Sort runs into variants: main ones first, then by loss and gamma; by seed."""
    # The most frequent; of equally many TensorFlow, as the default.
    counts = Counter(str(run.record["backend"]) for run in runs)
    usual = max(sorted(counts), key=lambda name: (counts[name], name == "tensorflow"))
    common = _common(run.record for run in runs)
    variants: dict[Variant, list[Run]] = {}
    for run in sorted(runs, key=_training):
        group = variants.setdefault(_variant(run, usual, common), [])
        # A replicate that is equal to the bit adds nothing.
        if _training(run)[1] == 1 or _measures(run) not in map(_measures, group):
            group.append(run)

    def rank(item: tuple[Variant, list[Run]]) -> tuple[object, ...]:
        key, _ = item
        listed = order.index(key.loss) if key.loss in order else len(order)
        names = (key.loss, key.gamma or 0.0, key.method, key.backend, key.settings)
        return (not key.is_main, listed, *names)

    return dict(sorted(variants.items(), key=rank))


def _training(run: Run) -> tuple[int, int]:
    return int(run.record["seed"]), int(run.record.get("replicate", 1))


def _measures(run: Run) -> object:
    """Return what differs where the measures of two trainings do."""
    return run.record.get("files", {}).get("cases.csv", run.name)


_Settings = set[tuple[str, Any]]


def _common(records: Iterable[Mapping[str, Any]]) -> _Settings:
    overrides = (record.get("overrides", {}).items() for record in records)
    return set.intersection(
        *(
            {(k, tuple(v) if isinstance(v, list) else v) for k, v in items}
            for items in overrides
        )
    )


def _variant(run: Run, usual_backend: str, common: _Settings) -> Variant:
    gamma, backend = run.record.get("gamma"), str(run.record["backend"])
    exponent = STANDARD_GAMMA if gamma in (None, "") else float(gamma)
    return replace(
        Variant.standard(str(run.record["loss"]), exponent),
        method=str(run.record.get("method") or ""),
        backend="" if backend == usual_backend else backend,
        settings=spelled(dict(_common([run.record]) - common)),
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
    own_images = is_own(str(other.record["dataset"]))
    # Of own images other settings are named: `_variant`.
    free = {key for run in (first, other) for key in run.record.get("overrides", {})}
    for key, meaning in _SHARED.items():
        values = [run.record.get(key) for run in (first, other)]
        if own_images and key == "settings":
            values = [
                {k: v for k, v in (value or {}).items() if k not in free}
                for value in values
            ]
        if values[0] != values[1]:
            raise InputError(
                f"{first.folder} and {other.folder}: expected runs that share the "
                f"{meaning}, found {_short(values[0])} and {_short(values[1])}; leave "
                "one of them out, or train it again"
            )
    if other.record.get("overrides") and not own_images:
        raise InputError(
            f"{other.folder}: expected a run with the preset's own values, found "
            f"overrides {other.record['overrides']}; such a run belongs in "
            f"{CUSTOM}<hash>/ beside the preset's folder, and in no table"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _test_rows(run: Run) -> pd.DataFrame:
    """Read the test rows of a run's `cases.csv`, and add the run's name."""
    path, command = run.path("cases.csv"), f"dscpp evaluate --run {run.folder}"
    rows = read_cases(path, command)
    rows = rows[rows["split"] == _SELECTION["split"]]
    twice = rows.loc[rows.duplicated(["case", *_KEYS]), "case"]
    if len(twice):
        raise InputError(
            f"{path}: expected a row for each case, class, region and reference, found "
            f"several (repeated: {sorted(set(twice))}); run `{command} --again`"
        )
    return rows.assign(run=str(run.folder))


def read_cases(path: Path, command: str) -> pd.DataFrame:
    """Read a `cases.csv`: keys as text, `metrics.METRICS` as numbers, NaN where empty.

    Raises:
        InputError: it cannot be read, lacks a column, or a measure is no number; names
            the command that writes it.
    """
    keys, measures = [*_SELECTION, "case", "target"], list(metrics.METRICS)
    words = ("the measures of an evaluated run", f"run `{command}` again")
    rows = read_table(path, keys, measures, *words)
    return rows[keys].map(from_cell).join(rows[measures])


def check_cases(
    path: Path, names: Sequence[str], expected: Sequence[str], target: str
) -> None:
    """Require every test case once, so that all means are over the same cases."""
    if sorted(names) != sorted(expected):
        missing = sorted(set(expected) - set(names))
        extra = sorted(set(names) - set(expected))
        repeated = sorted(name for name, n in Counter(names).items() if n > 1)
        raise InputError(
            f"{path}: {target}: expected each of the {len(expected)} test cases once, "
            f"found {len(names)} rows (missing: {missing or 'none'}, not in the split: "
            f"{extra or 'none'}, repeated: {repeated or 'none'}); measure it again"
        )
