"""Cross-validation: the test cases of all folds, pooled into one run for the tables."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data_io.errors import InputError
from pipelines.measure import histograms
from pipelines.runs import run as runs

# What folds differ in, and what is of one training alone.
_OWN = ("fold", "split", "times", "files", "state", "history", "environment_changes")


def pool_with_methods(folders: Sequence[Path], output: Path) -> None:
    """Pool the folds of a run, and their runs after methods such as a temperature.

    Raises:
        InputError: as `pool`.
    """
    pool(folders, output)
    endings = {
        path.name.removeprefix(f"{folders[0].name}-")
        for path in folders[0].parent.glob(f"{folders[0].name}-*")
        if runs.is_run(path) and runs.Run.open(path).origin == folders[0].name
    }
    for ending in sorted(endings):
        method_folders = [
            folder.with_name(f"{folder.name}-{ending}") for folder in folders
        ]
        if all(map(runs.is_run, method_folders)):
            pool(method_folders, output.with_name(f"{output.name}-{ending}"))


def pool(folders: Sequence[Path], output: Path) -> runs.Run:
    """Write the run of all folds: the measures of each case in its test fold.

    A pooled run that is there is written anew.

    Returns:
        It: its record is that of the first fold, with the number of `folds`, all cases
        as its test, the sums of the times, and of temperatures the mean.

    Raises:
        InputError: a fold that is missing or not evaluated; cases that are not in the
            test of one fold each; another run in the place.
    """
    folds = [runs.Run.open(folder) for folder in folders]
    for run in folds:
        run.require("evaluated", f"dscpp evaluate --run {run.folder}")
        run.require_measures()
    record = _record(folds)
    runs.require_replaceable(output, "its folds", lambda run: "folds" in run.record)
    with runs.lock_folder(output):
        new = runs.Run.create(output, record)
        paths = [run.path("cases.csv") for run in folds]
        # As they stand there.
        tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths]
        pooled = pd.concat([rows[rows["split"] == "test"] for rows in tables])
        runs.write_atomically(
            new.path("cases.csv"),
            lambda aside: pooled.to_csv(aside, index=False, lineterminator="\n"),
        )
        counts = [histograms.load(run.path("histograms.npz")) for run in folds]
        joined = histograms.joined([table.part("test") for table in counts])
        runs.write_atomically(
            new.path("histograms.npz"), lambda aside: histograms.save(aside, joined)
        )
        new.update(files=runs.MEASURES, state="evaluated")
    return new


def _record(folds: Sequence[runs.Run]) -> dict[str, Any]:
    first, number = folds[0].record, folds[0].record["fold"][1]
    test = sorted(case for run in folds for case in run.record["split"]["test"])
    every = {case for ids in first["split"].values() for case in ids}
    if sorted(every) != test:
        raise InputError(
            f"{folds[0].folder}: expected {number} folds with each of {len(every)} "
            f"cases in the test of one, found {len(folds)} with {len(test)} test cases"
        )
    times: dict[str, float] = {}
    for run in folds:
        for key, seconds in run.record.get("times", {}).items():
            times[key] = round(times.get(key, 0) + seconds, 3)
    record = {key: value for key, value in first.items() if key not in _OWN}
    record |= {"folds": number, "times": times}
    record["split"] = {"training": [], "validation": [], "test": test}
    if "posthoc" in first:
        record["posthoc"] = {"run": first["posthoc"]["run"]}
        if "temperature" in first["posthoc"]:
            fitted = [run.record["posthoc"]["temperature"] for run in folds]
            mean = float(f"{statistics.fmean(fitted):.4g}")
            record["posthoc"]["temperature"] = mean
    return record
