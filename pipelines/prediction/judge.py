"""`dscpp judge`: how good and how calibrated the probabilities of any program are.

No network and no run of ours is needed: probabilities and label maps are measured as
the study's are, and the same tables come of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import bars
from data_io.datasets.dataset import Dataset
from data_io.datasets.folder import own
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import nifti
from data_io.files.content import file_hash
from data_io.files.names import unfit
from data_io.files.schema import digest
from data_io.own_images import probabilities as given
from data_io.own_images.describe import class_names
from pipelines import arguments
from pipelines.environment import commits
from pipelines.measure import decisions
from pipelines.measure.histograms import EDGES
from pipelines.measure.metrics import ratio
from pipelines.measure.regions import BAND
from pipelines.posthoc import decision as decision_file
from pipelines.prediction import evaluate
from pipelines.runs import run as runs
from pipelines.runs.stored import scale

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.measure.histograms import Histograms
    from pipelines.reporting.frame import Study

_FILES = ("calibration.csv", "reliability.csv")
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
    """`dscpp judge`: measure, write the tables; returns the main measures."""
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
    files = given.pairs(probabilities, labels)
    folder = _folder(output, name)
    of_labels = _of_labels(labels, files)
    _require_same(output, folder, of_labels)
    if decision:
        classes = _classes_of(decision, classes)
    temperature = decision["temperature"] if decision else 1
    shown = bars.bar(files.items(), "judge", unit="case")
    found, classes = measured(shown, classes, "test", temperature)
    record = _record(name, classes) | of_labels
    if decision:
        record["decision"] = decision
    run = runs.Run.create(folder, record)
    evaluate.write(folder, record, *found)
    run.update(files=runs.MEASURES, state="evaluated")
    return run


def _folder(output: Path, name: str) -> Path:
    """The run's folder, if the name and what is there allow it."""
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
    decision: decision_file.Decision, asked: tuple[str, ...]
) -> tuple[str, ...]:
    """Names of the classes of a decision file that can be applied to histograms."""
    classes, threshold = tuple(decision["classes"]), decision["threshold"]
    if asked not in ((), classes):
        raise InputError(
            f"--classes: expected those of the decision file, {', '.join(classes)}, or "
            f"none, received {', '.join(asked)}."
        )
    if np.abs(EDGES - threshold).min() > 1e-9:
        raise InputError(
            f"--decision: threshold: expected one that `dscpp calibrate` writes, as "
            f"voxels are counted at those alone, found {threshold}; 0.05, 0.10, ..., "
            "0.95 are among them."
        )
    return classes


def _of_labels(labels: Path, files: Mapping[str, tuple[Path, Path]]) -> dict[str, Any]:
    """What all that is judged by these label maps shares."""
    return {
        "title": labels.resolve().name,
        "split": {"training": [], "validation": [], "test": list(files)},
        "data_hash": digest([file_hash(label) for _, label in files.values()]),
    }


def _require_same(output: Path, folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse what could not stand in one table with what is there."""
    for other in runs.find(output):
        found = {key: other.record.get(key) for key in ("split", "data_hash")}
        if other.folder != folder and not found.items() <= wanted.items():
            raise InputError(
                f"{output}: expected probabilities of the cases and label maps of "
                f"{other.name} there, received others. Choose another --output."
            )


def _record(name: str, classes: tuple[str, ...]) -> dict[str, Any]:
    """The rest of `run.json`."""
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
    """One case, read already, as `evaluate.measure_case` takes a data set."""

    p: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]
    place: nifti.Geometry | None

    def record(self, root: Path) -> Record:
        """Returns a record with the classes."""
        return replace(own.RECORD, classes=self.classes)

    def references(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Returns the label map."""
        return {"observer1": self.label}

    def regions(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Returns the whole image."""
        return {"image": np.broadcast_to(np.True_, self.label.shape)}

    def geometry(self, root: Path, case: str) -> nifti.Geometry | None:
        """Returns where the voxels lie."""
        return self.place

    def slabs(self, _: tuple[int, ...]) -> list[tuple[Any, np.ndarray]]:
        """Returns the probabilities, all at once."""
        return [(..., self.p)]


def measured(
    files: Iterable[tuple[str, tuple[Path, Path]]],
    classes: tuple[str, ...],
    part: str,
    temperature: float,
) -> tuple[evaluate.Measured, tuple[str, ...]]:
    """Measure probabilities case by case.

    The names of the classes are given back too.

    Args:
        files: of each case its name, the file of its probabilities and its label map.
        classes: names of the classes; () to name them by their number.
        part: what the rows say under `split`.
        temperature: that the probabilities are scaled by.

    Raises:
        InputError: as `data_io.own_images.probabilities.read`; another number of
            classes than those named, or in another case.
    """
    found = []
    for case, (path, label_path) in files:
        p, label = given.read(path, label_path)
        classes = classes or tuple(class_names(p.shape[-1]))
        if len(classes) != p.shape[-1]:
            raise InputError(
                f"{path}: expected probabilities of {len(classes)} classes "
                f"({', '.join(classes)}), found {p.shape[-1]}."
            )
        place = nifti.geometry(label_path) if nifti.is_volume(label_path) else None
        p = p if temperature == 1 else scale(p, temperature)
        one = _Case(p, label, classes, place)
        found.append(evaluate.measure_case(one, Path(), part, case, one.slabs))
    return evaluate.joined(found), classes


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
    found = calibration_tables.tables(study)
    made = {name: found[name] for name in _FILES}
    made |= {"table.csv": tables.papers(study)["table.csv"]}
    made |= {"thresholds.csv": tables.thresholds(study), "volumes.csv": volumes(study)}
    made |= {_DECIDED: decided(study)}
    for name, frame in made.items():
        runs.require_table(output / name, list(frame))
    if made[_DECIDED].empty:
        del made[_DECIDED]
        (output / _DECIDED).unlink(missing_ok=True)
    for name, frame in made.items():
        runs.write_csv(output / name, list(frame), frame.to_dict("records"))
    with style.drawing():
        figure = curves.reliability(study, list(study.runs))
        drawn = figure and style.save(figure, output / "reliability", ("png", "svg"))
    paths = [str(output / name) for name in made] + [str(path) for path in drawn or ()]
    return "\n".join([*_printed(made), "", *paths])


def volumes(study: Study) -> pd.DataFrame:
    """How far volumes are off, by method, class and case.

    `expected` is the sum of the probabilities, times the factor of a decision file
    where one was applied, `at_half` the voxels with 0.5 or more,
    `true` those of the label map, all in voxels. `bias` is expected / true - 1; empty
    where there is nothing of a class.
    """
    import pandas as pd

    rows = []
    for variant, trainings in study.runs.items():
        one = study.histograms[str(trainings[0].folder)]
        sums = _expected(one, trainings[0])
        half = int(np.abs(one.edges - 0.5).argmin())
        above = decisions.positives(one.counts)[:, half]
        for row in np.flatnonzero(one.where(region="image")):
            true = int(one.counts[row, 1].sum())
            rows.append(
                {
                    **variant.columns,
                    "target": str(one.target[row]),
                    "case": str(one.case[row]),
                    "expected": float(sums[row]),
                    "at_half": int(above[row]),
                    "true": true,
                    "bias": sums[row] / true - 1 if true else np.nan,
                }
            )
    return pd.DataFrame(rows)


def _expected(one: Histograms, run: runs.Run) -> np.ndarray:
    """Expected volume of each row of a run's histograms, in voxels."""
    factors = run.record.get("decision", {}).get("volume_factors", {})
    found = decisions.expected_volume(one.counts, one.confidence())
    return found * np.array([factors.get(str(target), 1.0) for target in one.target])


def decided(study: Study) -> pd.DataFrame:
    """What comes of the decision files that were applied, with `practice.COLUMNS`.

    At the file's threshold, of each class against all others: `dice`; `missed`, the
    share of the true voxels that is missed; `set_size`, the positive voxels over the
    true ones. `volume_expected` is as `bias` in `volumes`.
    """
    import pandas as pd

    from pipelines.reporting import practice
    from pipelines.reporting.estimates import estimate

    rows = []
    for (variant, (run, *_)), target in product(study.runs.items(), study.targets):
        if not (applied := run.record.get("decision")):
            continue
        one = study.histograms[str(run.folder)]
        of = one.where(region="image", target=target)
        cut = int(np.abs(one.edges[:-1] - applied["threshold"]).argmin())
        counts, true = one.counts[of], one.counts[of, 1].sum(axis=-1)
        found = {
            "dice": decisions.dice(counts)[:, cut],
            "missed": decisions.false_negatives(counts)[:, cut],
            "set_size": ratio(decisions.positives(counts)[:, cut], true),
            "volume_expected": ratio(_expected(one, run)[of], true) - 1,
        }
        about = variant.columns | {"target": target}
        for name, values in found.items():
            rows.append(about | {"measure": name} | vars(estimate(values[np.newaxis])))
    return pd.DataFrame(rows, columns=list(practice.COLUMNS))


def _printed(made: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """A line for each method and class."""
    table, measured = made["table.csv"], made["calibration.csv"]
    bias = made["volumes.csv"].groupby(["loss", "target"])["bias"].mean()
    for (loss, target), rows in table.groupby(["loss", "target"], sort=False):
        values = rows.set_index("metric")
        parts = [
            f"{title} {_interval(values.loc[key])}" for key, title in _MEANS.items()
        ]
        mine = measured[(measured["loss"] == loss) & (measured["target"] == target)]
        by = mine.set_index(["region", "measure"])["pooled"]
        parts += [
            f"{title} {by[key]:.4f}" for key, title in _CALIBRATION.items() if key in by
        ]
        parts.append(f"volume {bias[loss, target]:+.1%}")
        if _DECIDED in made:
            applied = made[_DECIDED].set_index(["loss", "target", "measure"])
            parts += [
                f"{title} {_interval(applied.loc[(loss, target, key)])}"
                for key, title in _OF_DECISION.items()
                if (loss, target, key) in applied.index
            ]
        number = int(values["n"]["nll"])
        yield f"{loss}, {target}, {number} case{'s' * (number != 1)}"
        yield from (f"  {part}" for part in parts)


def _interval(row: pd.Series) -> str:
    """A mean with its interval; of one case there is none."""
    text = f"{row['mean']:.4f}"
    return (
        text + f" [{row['ci_low']:.4f}, {row['ci_high']:.4f}]" if row["n"] > 1 else text
    )
