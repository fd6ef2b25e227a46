"""Run folders written by hand, with four cases whose means can be worked out."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.measure import histograms, metrics
from pipelines.runs.run import CASE_KEYS, folder_name

CASES = ("01", "02", "03", "04")
# One value a case; the rest of the metrics are the same for every run.
DSC_NLL = (0.10, 0.20, 0.40, 0.50)  # mean 0.30
PLUS_NLL = (0.04, 0.05, 0.03, 0.08)  # mean 0.05


def make_run(
    results: Path,
    loss: str = "DSC",
    nll: Sequence[float] = DSC_NLL,
    *,
    gamma: float | None = None,
    seed: int = 0,
    name: str | None = None,
    group: str | None = None,
    measures: Mapping[str, Sequence[float]] | None = None,
    targets: Sequence[str] = ("vessel",),
    shift: Sequence[int] = (0, 0, 0, 0),
    **record: object,
) -> Path:
    """Write a run folder by hand: `nll` is its published NLL of CASES."""
    full = {
        "format": 1,
        "dataset": "drive",
        "title": "DRIVE",
        "simulated": False,
        "preset": "paper",
        "loss": loss,
        "gamma": gamma,
        "seed": seed,
        "method": "",
        "backend": "tensorflow",
        "overrides": {},
        "split": {"training": ["21"], "validation": ["37"], "test": list(CASES)},
        "data_hash": "a" * 64,
        "state": "evaluated",
        "commit": "c" * 40,
        **record,
    }
    name = name or folder_name(
        loss, gamma, seed, str(full["backend"]), str(full["method"])
    )
    folder = results / str(full["dataset"]) / (group or str(full["preset"]))
    run = folder / "runs" / name
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps(full))
    columns = dict.fromkeys(metrics.METRICS, (0.5, 0.6, 0.7, 0.8))
    columns |= {"nll_published": nll, **(measures or {})}
    write_cases(run / "cases.csv", full, columns, targets)
    write_histograms(run / "histograms.npz", targets, shift)
    return run


def write_cases(path, record, columns, targets):
    rows = []
    for target in targets:
        for index, case in enumerate(CASES):
            row = {key: record.get(key) or "" for key in CASE_KEYS}
            row |= {"split": "test", "region": "image", "reference": "observer1"}
            row |= {"case": case, "target": target}
            row["n_foreground"] = 4
            values = {name: values[index] for name, values in columns.items()}
            row |= {k: "" if math.isnan(v) else v for k, v in values.items()}
            rows.append(row)
            # Rows that no table may take: each would be seen in the mean.
            others = (
                {"split": "validation"},
                {"region": "field of view"},
                {"reference": "observer2"},
            )
            nines = dict.fromkeys(metrics.METRICS, 9)
            rows += [row | other | nines for other in others]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*CASE_KEYS, "n_foreground", *metrics.METRICS])
        writer.writeheader()
        writer.writerows(rows)


def write_histograms(path, targets, shift=(0, 0, 0, 0)):
    """10 voxels a case: p = .1 x4, .3, .85 false, .3, .85 x3 true; `shift` adds FP."""
    rows = []
    for target in targets:
        for case, more in zip(CASES, shift, strict=True):
            p = np.array([0.1] * 4 + [0.3, 0.85] + [0.3] + [0.85] * 3 + [0.97] * more)
            y = np.array([0] * 6 + [1] * 4 + [0] * more)
            row = {"case": case, "target": target, "region": "image"}
            row |= {"split": "test", "reference": "observer1"}
            rows.append(row | {"counts": histograms.count(p, y)})
            rows.append(
                row | {"split": "validation", "counts": histograms.count(1 - p, y)}
            )
    histograms.save(path, histograms.Histograms.from_rows(rows))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def one(rows, **wanted):
    matching = [row for row in rows if all(row[k] == v for k, v in wanted.items())]
    assert len(matching) == 1, matching
    return matching[0]
