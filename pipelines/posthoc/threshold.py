"""A softmax threshold chosen on a run's validation cases, from its own files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_io.errors import InputError
from pipelines.measure import decisions, histograms
from pipelines.runs import run as runs

OF_RUN = {"split": "validation", "region": "image", "reference": "observer1"}
"""What a threshold is chosen on."""


class NoCase(InputError):
    """No validation case with foreground: nothing to choose a threshold on."""


@dataclass(frozen=True)
class Choice:
    """A threshold and what it was chosen by.

    Attributes:
        threshold: one of `histograms.THRESHOLDS`.
        dice: mean Dice of the validation cases there, in [0, 1].
        without: the same of the most probable class.
        cases: validation cases.
    """

    threshold: float
    dice: float
    without: float
    cases: int

    def __str__(self) -> str:
        return (
            f"  threshold {self.threshold:g}: the best of 0.05 to 0.95, mean Dice "
            f"{self.dice:.3f} of {self.cases} validation cases (most probable class: "
            f"{self.without:.3f})"
        )


def choose(run: runs.Run) -> Choice:
    """Choose the threshold with the best mean Dice on a run's validation cases.

    Each class is compared with all others together, p >= threshold, as in
    `thresholds.csv`; Dice is averaged over cases, those where it is undefined left
    out, then over classes. Of equal thresholds the one nearest to 0.5 is taken.

    Args:
        run: an evaluated run; its `histograms.npz` and `cases.csv` are all that is
            read.

    Raises:
        InputError: a run that is not evaluated, or whose files are others; `NoCase`.
    """
    run.require("evaluated", f"dscpp evaluate --run {run.folder}")
    run.require_measures()
    histogram = histograms.load(run.path("histograms.npz"))
    best, dice, cases = best_of(histogram, run.folder)
    return Choice(best, dice, _without(run), cases)


def best_of(
    histogram: histograms.Histograms, source: object
) -> tuple[float, float, int]:
    """Choose a threshold as `choose` does, from the validation part of histograms.

    Args:
        histogram: counts of voxels.
        source: where they are from, for the message.

    Returns:
        The threshold, the mean Dice there and the number of cases.

    Raises:
        NoCase: no validation case with foreground.
    """
    rows = histogram.where(**OF_RUN)
    dice = histograms.threshold_metrics(histogram.counts[rows], edges=histogram.edges)[
        "dice"
    ]
    means = (
        pd.DataFrame(dice, index=histogram.target[rows]).groupby(level=0).mean().mean()
    )
    best = decisions.best(means, histograms.THRESHOLDS)
    if best is None:
        raise NoCase(
            f"{source}: expected validation cases with foreground to choose a "
            "threshold on, found none; give other cases, or choose a number yourself"
        )
    threshold = round(float(histograms.THRESHOLDS[best]), 9)
    return threshold, float(means[best]), len(np.unique(histogram.case[rows]))


def _without(run: runs.Run) -> float:
    """Average Dice of the most probable class, from `cases.csv`."""
    rows = pd.read_csv(run.path("cases.csv"), dtype={"case": str})
    for key, value in OF_RUN.items():
        rows = rows[rows[key] == value]
    return float(rows.groupby("target")["dice"].mean().mean())
