"""What each run cost: hours, memory and the hardware that it took."""

from __future__ import annotations

import numpy as np

from pipelines.reporting.study import Study, Variant

__all__ = ["COLUMNS", "TABLE", "hardware", "hours", "rows"]

TABLE = "costs.csv"
_TIMES = (
    "train_s", "epochs", "seconds_per_epoch", "fit_s", "predict_s", "evaluate_s",
)  # fmt: skip
COLUMNS = (
    "loss", "gamma", "seed", "method", "backend", "device", "machine", *_TIMES,
    "peak_memory_mb",
)  # fmt: skip


def rows(study: Study) -> list[dict[str, object]]:
    """A row for each run, in the order of the study; see `COLUMNS`."""
    return [
        {
            "loss": variant.loss,
            "gamma": variant.gamma,
            "seed": run.record["seed"],
            "method": variant.method,
            "backend": run.record["backend"],
            "device": run.record.get("device"),
            "machine": run.record.get("machine"),
            **{name: run.record.get("times", {}).get(name) for name in _TIMES},
            "peak_memory_mb": run.record.get("peak_memory_mb"),
        }
        for variant, runs in study.runs.items()
        for run in runs
    ]


def hours(study: Study, variant: Variant) -> float:
    """Mean hours that the trainings of a variant took; NaN where none is known."""
    found = [run.record.get("times", {}).get("train_s") for run in study.runs[variant]]
    known = [seconds for seconds in found if seconds is not None]
    return float(np.mean(known)) / 3600 if known else float("nan")


def hardware(study: Study) -> list[str]:
    """What the study's trainings ran on: device and machine, each once."""
    found = [
        f"{run.record.get('device') or 'unknown device'}, {run.record.get('machine')}"
        for runs in study.runs.values()
        for run in runs
        if "train_s" in run.record.get("times", {})
    ]
    return sorted(set(found))
