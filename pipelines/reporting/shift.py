"""Every loss on corrupted test images, against strength: from `shift.csv` of runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pandas as pd

from data_io.errors import InputError
from data_io.files.hashing import file_hash
from pipelines.reporting.estimates import by_seed, estimate
from pipelines.reporting.frame import Study
from pipelines.reporting.published import Variant
from pipelines.reporting.tables import framed
from pipelines.runs.run import SHIFT, SHIFTED, Run

FILE = SHIFT
_SETTING = ["method", "kind", "strength", "level"]


def table(study: Study) -> pd.DataFrame:
    """A row for each variant, class, corruption, strength and measure.

    Means are over cases and seeds, as in the other tables, of the trainings that have a
    `shift.csv`. `method` is "" or "temperature", of the same trainings.
    """
    return framed(
        (row for variant in study.runs for row in _of_variant(study, variant)), "shift"
    )


def _of_variant(study: Study, variant: Variant) -> Iterator[dict[str, Any]]:
    trainings = study.runs[variant]
    have = [n for n, run in enumerate(trainings) if run.path(FILE).is_file()]
    if not have:
        return
    frames = [_read(trainings[n]).assign(training=n) for n in have]
    rows = pd.concat(frames, ignore_index=True)
    groups = rows.groupby(_SETTING, sort=False, dropna=False)
    for (setting, part), target in product(groups, study.targets):
        of_class = part[part["target"] == target]
        method, *corruption = setting
        keys = replace(variant, method=method).columns | {"target": target}
        keys |= dict(zip(_SETTING[1:], corruption, strict=True))
        for measure in SHIFTED:
            wide = of_class.pivot(index="training", columns="case", values=measure)
            values = wide.reindex(index=have, columns=list(study.cases))
            means = by_seed(values, [study.trainings(variant)[n][0] for n in have])
            yield keys | {"measure": measure} | vars(estimate(means))


def _read(run: Run) -> pd.DataFrame:
    """Read the `shift.csv` of a run.

    Raises:
        InputError: it is not the one that the run wrote.
    """
    path, expected = run.path(FILE), run.record.get("files", {}).get(FILE)
    if file_hash(path) != expected:
        raise InputError(
            f"{path}: expected the file that run.json has the hash of, found another; "
            f"restore it, or run `dscpp shift --again --run {run.folder}`"
        )
    return pd.read_csv(
        path, dtype={"case": str, "method": str}, keep_default_na=True
    ).fillna({"method": ""})
