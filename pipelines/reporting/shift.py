"""Every loss on corrupted test images, against strength: from `shift.csv` of runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pandas as pd

from data_io.errors import InputError
from data_io.files.hashing import file_hash
from data_io.files.names import from_cell
from pipelines.reporting.estimates import by_seed, estimate
from pipelines.reporting.frame import Study, check_cases
from pipelines.reporting.published import Variant, read_table
from pipelines.reporting.tables import framed
from pipelines.runs.run import SHIFT, SHIFTED, Run

FILE = SHIFT
_NAMES = ["kind", "method", "target", "case"]
_SETTING = ["method", "kind", "strength", "level"]


def table(study: Study) -> pd.DataFrame:
    """A row for each variant, class, corruption, strength and measure.

    Means are over cases and seeds, as in the other tables, of the trainings that have a
    `shift.csv`. `method` is "" or "temperature", of those among them that have one.

    Raises:
        InputError: as `read`, or a file that lacks a test case.
    """
    return framed(
        (row for variant in study.runs for row in _of_variant(study, variant)), "shift"
    )


def _of_variant(study: Study, variant: Variant) -> Iterator[dict[str, Any]]:
    trainings = study.runs[variant]
    frames = [
        read(run).assign(training=n)
        for n, run in enumerate(trainings)
        if run.path(FILE).is_file()
    ]
    if not frames:
        return
    rows = pd.concat(frames, ignore_index=True)
    groups = rows.groupby(_SETTING, sort=False, dropna=False)
    for (setting, part), target in product(groups, study.targets):
        of_class = part[part["target"] == target]
        for n in part["training"].unique():
            names = list(of_class["case"][of_class["training"] == n])
            check_cases(trainings[n].path(FILE), names, study.cases, target)
        method, *corruption = setting
        keys = replace(variant, method=method).columns | {"target": target}
        keys |= dict(zip(_SETTING[1:], corruption, strict=True))
        for measure in SHIFTED:
            wide = of_class.pivot(index="training", columns="case", values=measure)
            seeds = [study.trainings(variant)[n][0] for n in wide.index]
            means = by_seed(wide[[*study.cases]], seeds)
            yield keys | {"measure": measure} | vars(estimate(means))


def read(run: Run) -> pd.DataFrame:
    """Read the `shift.csv` of a run: names as text, NaN where a number is empty.

    Raises:
        InputError: it is not the one that the run wrote, or lacks a column.
    """
    path, expected = run.path(FILE), run.record.get("files", {}).get(FILE)
    remedy = f"restore it, or run `dscpp shift --again --run {run.folder}`"
    if file_hash(path) != expected:
        raise InputError(
            f"{path}: expected the file that run.json has the hash of, found another; "
            f"{remedy}"
        )
    numbers = ("strength", "level", *SHIFTED)
    rows = read_table(path, _NAMES, numbers, "measures of corrupted images", remedy)
    names = rows[_NAMES].map(from_cell)
    return names.join(rows[[*numbers]]).astype({"strength": int})
