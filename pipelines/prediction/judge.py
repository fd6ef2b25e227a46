"""`dscpp judge`: how good and how calibrated the probabilities of any program are.

No network and no run of ours is needed: probabilities and label maps are measured as
the study's are, and the same tables come of it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import bars
from data_io.datasets.dataset import Dataset
from data_io.datasets.folder import own_images
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import nifti
from data_io.files.hashing import file_hash
from data_io.files.names import from_cell, unfit
from data_io.files.schema import digest
from data_io.own_images import probabilities as probability_files
from data_io.own_images.describe import class_names
from pipelines import arguments
from pipelines.environment import commits
from pipelines.measure import decisions
from pipelines.measure.metrics import ratio
from pipelines.measure.regions import BAND
from pipelines.posthoc import decision as decision_file
from pipelines.prediction import evaluate
from pipelines.runs import predictions
from pipelines.runs import run as runs

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.measure.histograms import Histograms
    from pipelines.reporting.frame import Study

_FILES = ("calibration.csv", "reliability.csv", "table.csv")
_DECIDED = "decided.csv"
# Columns of what is printed, by the names of measures.
_MEANS = {"nll": "NLL", "brier": "Brier", "dice": "Dice"}
_OF_DECISION = {"dice": "Dice at the file's threshold", "missed": "missed there"}
_CALIBRATION = {
    ("image", "ece"): "ECE",
    (BAND, "ece"): "ECE, band",
    (BAND, "ace"): "ACE, band",
}


def command(options: argparse.Namespace) -> str:
    """`dscpp judge`: measure, write the tables; return the main measures."""
    name = options.name or options.probabilities.resolve().name.partition(".")[0]
    classes = tuple(arguments.class_names(options))
    judge(
        options.probabilities,
        options.labels,
        options.output,
        name,
        classes,
        decision_file.load(options.decision) if options.decision else None,
    )
    return report(options.output)


def judge(
    probabilities: Path,
    labels: Path,
    output: Path,
    name: str,
    classes: tuple[str, ...] = (),
    decision: decision_file.Decision | None = None,
) -> runs.Run:
    """Measure probabilities against label maps.

    Args:
        probabilities: see `data_io.own_images.probabilities.pairs`, as are `labels`.
        labels: the label maps.
        output: `runs/NAME` in it becomes a run folder with `cases.csv` and
            `histograms.npz`, as results/README.md has them; one of this name there is
            replaced.
        name: what the probabilities are called; a folder's name.
        classes: names of the classes, background first; () for "foreground", or "class
            1", "class 2", ...
        decision: what is applied to the probabilities first; its classes are those of
            the probabilities.

    Raises:
        InputError: files that cannot be read or do not fit; nothing is written then.
    """
    if decision:
        decision_file.require_unapplied(probabilities)
        decision_file.require_of_files(decision)
    files = probability_files.pairs(probabilities, labels)
    folder = _folder(output, name)
    label_record = {
        "title": labels.resolve().name,
        "split": {"training": [], "validation": [], "test": list(files)},
        "data_hash": digest([file_hash(label) for _, label in files.values()]),
    }
    _require_same(output, folder, label_record)
    if decision:
        classes = _classes_of(decision, classes)
    temperature = decision["temperature"] if decision else 1
    cuts = [decision["threshold"]] if decision else []
    (measures, *at_cuts), classes = measured(
        files, "judge", classes, "test", temperature, (None, *cuts)
    )
    record = _record(name, classes) | label_record
    if decision:
        record["decision"] = decision
    at = zip(cuts, at_cuts, strict=True)
    return _write(folder, record, measures, {cut: rows for cut, (rows, _) in at})


def _write(
    folder: Path,
    record: dict[str, Any],
    measures: evaluate.Measured,
    at_cuts: Mapping[float, list[dict[str, Any]]],
) -> runs.Run:
    """Write the run, and the rows at thresholds; delete those at earlier ones."""
    for earlier in folder.glob("threshold-*.csv"):
        earlier.unlink()
    run = runs.Run.create(folder, record)
    evaluate.write(folder, record, *measures)
    names = [
        evaluate.write_cases(run.path(evaluate.threshold_file(cut)), record, rows).name
        for cut, rows in at_cuts.items()
    ]
    run.update(files=[*runs.MEASURES, *names], state="evaluated")
    return run


def _folder(output: Path, name: str) -> Path:
    """Return the run's folder; refuse a bad name, or another run in its place."""
    if unfit(name):
        raise InputError(
            f"--name: expected a name that a folder can have, received {name!r}: "
            f"{unfit(name)}."
        )
    folder = output / "runs" / name
    runs.require_replaceable(
        folder,
        "judged probabilities",
        lambda run: run.record["dataset"] == runs.JUDGED,
    )
    return folder


def _classes_of(
    decision: decision_file.Decision, named: tuple[str, ...]
) -> tuple[str, ...]:
    """Return a decision file's classes; refuse other names."""
    classes = tuple(decision["classes"])
    if named not in ((), classes):
        raise InputError(
            f"--classes: expected those of the decision file, {', '.join(classes)}, or "
            f"none, received {', '.join(named)}."
        )
    return classes


def _require_same(output: Path, folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse other cases or label maps than those of the runs in the folder."""
    for other in runs.find(output):
        values = {key: other.record.get(key) for key in ("split", "data_hash")}
        if other.folder != folder and not values.items() <= wanted.items():
            raise InputError(
                f"{output}: expected probabilities of the cases and label maps of "
                f"{other.name} there, received others. Choose another --output."
            )


def _record(name: str, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "dataset": runs.JUDGED,
        "simulated": False,
        "classes": list(classes),
        "preset": "",
        "loss": name,
        "gamma": None,
        "seed": 0,
        "method": "",
        "backend": "",
        "commit": commits.commit(),
    }


@dataclass
class _Case(Dataset):
    """One case in memory, as a data set for `evaluate.measure_case`."""

    label: np.ndarray
    classes: tuple[str, ...]
    place: nifti.Geometry | None

    def record(self, root: Path) -> Record:
        """Return a record with the classes."""
        return replace(own_images.RECORD, classes=self.classes)

    def references(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Return the label map."""
        return {"observer1": self.label}

    def regions(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Return the whole image."""
        return {"image": np.broadcast_to(np.True_, self.label.shape)}

    def geometry(self, root: Path, case: str) -> nifti.Geometry | None:
        """Return the geometry of the label map."""
        return self.place


def measured(
    files: Mapping[str, tuple[Path, Path]],
    title: str,
    classes: tuple[str, ...],
    part: str,
    temperature: float,
    thresholds: Sequence[float | None] = (None,),
) -> tuple[list[evaluate.Measured], tuple[str, ...]]:
    """Measure probabilities case by case, at each threshold.

    Return also the names of the classes.

    Args:
        files: of each case the file of its probabilities and its label map.
        title: of the bar.
        classes: names of the classes; () to name them by their number.
        part: what the rows say under `split`.
        temperature: that the probabilities are scaled by.
        thresholds: for what is predicted, as in `metrics.predicted`.

    Raises:
        InputError: as `data_io.own_images.probabilities.read_all`; another number of
            classes than those named, or in another case.
    """
    results: list[list[evaluate.Measured]] = [[] for _ in thresholds]
    read = probability_files.read_all(files)
    for name, case in bars.bar(read, title, total=len(files), unit="case"):
        (path, label_path), p = files[name], case.softmax
        classes = classes or tuple(class_names(p.shape[-1]))
        if len(classes) != p.shape[-1]:
            raise InputError(
                f"{path}: expected probabilities of {len(classes)} classes "
                f"({', '.join(classes)}), found {p.shape[-1]}."
            )
        geometry = nifti.geometry(label_path) if nifti.is_volume(label_path) else None
        p = p if temperature == 1 else predictions.scale(p, temperature)
        data = _Case(case.label, classes, geometry)
        slabs = partial(predictions.native, p, False)
        for at, result in zip(thresholds, results, strict=True):
            result.append(evaluate.measure_case(data, Path(), part, name, slabs, at))
    return [evaluate.joined(result) for result in results], classes


def report(output: Path) -> str:
    """Write the tables of all that was judged into a folder, and draw the diagram.

    Returns:
        The main measures as a table, with 95 % intervals over cases.

    Raises:
        InputError: what was judged there is not of the same label maps.
    """
    from pipelines.reporting import calibration_tables, tables
    from pipelines.reporting.figures import curves, style
    from pipelines.reporting.frame import open_study

    study = open_study(output)
    by_file = calibration_tables.tables(study) | tables.papers(study)
    frames = {name: by_file[name] for name in _FILES} | {
        "thresholds.csv": tables.thresholds(study),
        "volumes.csv": volumes(study),
        _DECIDED: decided(study),
    }
    for name, frame in frames.items():
        runs.require_table(output / name, list(frame))
    if frames[_DECIDED].empty:
        del frames[_DECIDED]
        (output / _DECIDED).unlink(missing_ok=True)
    for name, frame in frames.items():
        runs.write_csv(output / name, list(frame), frame.to_dict("records"))
    with style.drawing():
        figure = curves.reliability(study, list(study.runs))
        drawn = figure and style.save(figure, output / "reliability", ("png", "svg"))
    paths = [str(output / name) for name in frames] + [
        str(path) for path in drawn or ()
    ]
    return "\n".join([*_printed(frames), "", *paths])


def volumes(study: Study) -> pd.DataFrame:
    """Return the errors of volumes, by method, class and case.

    `expected` is the sum of the probabilities, times the factor of a decision file
    where one was applied, `at_half` the voxels with 0.5 or more,
    `true` those of the label map, all in voxels. `bias` is expected / true - 1; empty
    where there is nothing of a class.
    """
    import pandas as pd

    parts = []
    for variant, (run, *_) in study.runs.items():
        table = study.histograms[str(run.folder)]
        whole, half = table.where(region="image"), np.abs(table.edges - 0.5).argmin()
        true, sums = table.counts[whole, 1].sum(axis=-1), _expected(table, run)[whole]
        values = {
            "target": table.target[whole],
            "case": table.case[whole],
            "expected": sums,
            "at_half": decisions.positives(table.counts[whole])[:, half].astype(int),
            "true": true,
            "bias": ratio(sums, true) - 1,
        }
        parts.append(pd.DataFrame(variant.columns | values))
    return pd.concat(parts, ignore_index=True)


def _expected(table: Histograms, run: runs.Run) -> np.ndarray:
    """Return the expected volume of each row of a run's histograms, in voxels."""
    factors = run.record.get("decision", {}).get("volume_factors", {})
    sums = decisions.expected_volume(table.counts, table.confidence())
    return sums * np.array([factors.get(str(target), 1.0) for target in table.target])


def decided(study: Study) -> pd.DataFrame:
    """Return the measures at the decision files' thresholds, as `practice.COLUMNS`.

    Of each class in the label maps at the file's threshold (`metrics.predicted`):
    `dice`; `missed`, the share of the true voxels that is missed; `set_size`, the
    positive voxels over the true ones. `volume_expected` is as `bias` in `volumes`.
    """
    import pandas as pd

    from pipelines.reporting import practice
    from pipelines.reporting.estimates import estimate

    rows = []
    for (variant, (run, *_)), target in product(study.runs.items(), study.targets):
        if not (applied := run.record.get("decision")):
            continue
        table = study.histograms[str(run.folder)]
        selected = table.where(region="image", target=target)
        true = table.counts[selected, 1].sum(axis=-1)
        labels = _of_labels(run, applied["threshold"], target, table.case[selected])
        measures = {
            "dice": labels["dice"].to_numpy(),
            "missed": 1 - labels["recall"].to_numpy(),
            "set_size": ratio(labels["n_predicted"], true),
            "volume_expected": ratio(_expected(table, run)[selected], true) - 1,
        }
        keys = variant.columns | {"target": target}
        for name, values in measures.items():
            rows.append(keys | {"measure": name} | vars(estimate(values[np.newaxis])))
    return pd.DataFrame(rows, columns=list(practice.COLUMNS))


def _of_labels(
    run: runs.Run, threshold: float, target: str, cases: Iterable[str]
) -> pd.DataFrame:
    """Read the measures of a class in label maps at a threshold, in order of cases."""
    from pipelines.reporting.published import read_table

    rows = read_table(
        run.path(evaluate.threshold_file(threshold)),
        ("case", "target", "region"),
        ("dice", "recall", "n_predicted"),
        "the measures at the decision file's threshold",
        "judge these probabilities again",
    )
    names = [rows[key].map(from_cell) for key in ("case", "target")]
    kept = rows.assign(case=names[0])[
        (names[1] == target) & (rows["region"] == "image")
    ]
    return kept.set_index("case").loc[list(cases)]


def _printed(frames: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    table, measured = frames["table.csv"], frames["calibration.csv"]
    volume = frames["volumes.csv"].groupby(["loss", "target"])
    for (loss, target), rows in table.groupby(["loss", "target"], sort=False):
        values = rows.set_index("metric")
        number = int(values["n"]["nll"])
        parts = [
            f"{title} {_interval(values.loc[key], number)}"
            for key, title in _MEANS.items()
        ]
        of_class = measured[(measured["loss"] == loss) & (measured["target"] == target)]
        pooled = of_class.set_index(["region", "measure"])["pooled"]
        parts += [
            f"{title} {_shown(pooled[key], '.4f')}"
            for key, title in _CALIBRATION.items()
            if key in pooled
        ]
        parts += _biases(volume.get_group((loss, target)))
        if _DECIDED in frames:
            applied = frames[_DECIDED].set_index(["loss", "target", "measure"])
            parts += [
                f"{title} {_interval(applied.loc[(loss, target, key)], number)}"
                for key, title in _OF_DECISION.items()
                if (loss, target, key) in applied.index
            ]
        yield f"{loss}, {target}, {number} case{'s' * (number != 1)}"
        yield from (f"  {part}" for part in parts)


_ENOUGH = 10  # cases: of five, the "95 %" interval holds the mean in 85 %


def _biases(rows: pd.DataFrame) -> list[str]:
    """Format the bias of the volume: of all cases together, and the mean of cases."""
    expected, true = rows["expected"].sum(), rows["true"].sum()
    total, mean = expected / true - 1 if true else math.nan, rows["bias"].mean()
    of_cases = _of_cases(rows["bias"].count(), len(rows))
    return [
        f"volume of all cases together {_shown(total, '+.1%')}",
        f"volume, mean over cases {_shown(mean, '+.1%')}{of_cases}",
    ]


def _interval(row: pd.Series, number: int) -> str:
    """Format a mean and of how many cases; with its interval, unless these are few."""
    text = _shown(row["mean"], ".4f")
    if row["n"] >= _ENOUGH and row["ci_low"] < row["ci_high"]:
        text += f" [{row['ci_low']:.4f}, {row['ci_high']:.4f}]"
    return text + _of_cases(row["n"], number)


def _shown(value: float, form: str) -> str:
    return "undefined" if math.isnan(value) else format(value, form)


def _of_cases(defined: float, number: int) -> str:
    """Say how many cases have a value, where not all have."""
    return f" ({defined:.0f} of {number} cases)" if defined != number else ""
