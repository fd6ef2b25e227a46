"""Reliability diagrams from run files: how often p comes true, by case and over all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.measure import calibration
from pipelines.measure.calibration import Bins
from pipelines.reporting.calibration import (
    ENOUGH,
    OBSERVERS,
    REGIONS,
    Binned,
    Reader,
    frequency_spread,
)
from pipelines.reporting.figures import style
from pipelines.reporting.figures.curves import about
from pipelines.reporting.frame import Study
from pipelines.reporting.published import Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["diagrams"]

_MANY = 50  # cases: more lines than that are a blot
_Floats = npt.NDArray[np.float64]


def diagrams(study: Study) -> Figure | None:
    """Draw a reliability diagram of each loss of Table 4, over the whole image.

    Args:
        study: the runs; observer 1 is the truth.

    Returns:
        A row of panels for each class; None where none of these losses was run.
    """
    cells = study.paper.cells
    table4 = cells.loc[cells["table"] == "table4", "variant"].unique()
    shown = [variant for variant in table4 if variant in study.runs]
    if not shown:
        return None
    many = len(study.cases) > _MANY
    spread = "band: 10th to 90th percentile of" if many else "thin: single"
    figure = style.sheet(
        (style.WIDTH, 0.95 + 1.75 * len(study.targets)),
        f"Reliability: {about(study, shown)}",
        "Share that is the target in truth over the mean softmax value, whole image, "
        f"in 20 bins of width 0.05; thick: {style.elements(study.record)} of all cases "
        f"and seeds together, {spread} cases, where {ENOUGH} or more lie in a bin; "
        "dashed: calibrated. Above it p is too low, below too high. ECE weighs bins by "
        "what lies in them, ACE all alike; both of all cases together. Other losses "
        "and regions: reliability.csv.",
    )
    axes = figure.subplots(
        len(study.targets), len(shown), sharex=True, sharey=True, squeeze=False
    )
    for row, target in zip(axes, study.targets, strict=True):
        for axis, variant in zip(row, shown, strict=True):
            place = (target, REGIONS[0], OBSERVERS[0])
            _panel(axis, variant, Reader(study, variant).binned(place), many)
        row[0].set_ylabel(target)
    for axis, variant in zip(axes[0], shown, strict=True):
        axis.set_title(variant.label)
    for axis in axes[-1]:
        axis.set_xlabel("mean softmax value")
    return figure


def _panel(axis: Axes, variant: Variant, binned: Binned, many: bool) -> None:
    """Draw one diagram: the diagonal, the cases, and all of them together."""
    look, bins = style.colour(variant.loss), binned.bins()
    axis.plot([0, 1], [0, 1], color="0.35", linewidth=0.7, dashes=(4, 3), zorder=2.5)
    (_spread if many else _lines)(axis, bins.pooled(axis=0), look)
    together = bins.pooled(axis=(0, 1))
    held = together.n > 0
    x, y = _rounded(together.confidence[held]), _rounded(together.frequency[held])
    axis.plot(x, y, ".-", color=look, markersize=3.5, label=variant.label, zorder=3)
    measures = (calibration.ece, calibration.ace)
    ece, ace = (float(np.mean(one(bins.pooled(axis=1)))) for one in measures)
    axis.text(0.03, 0.98, f"ECE {ece:.3f}\nACE {ace:.3f}", va="top", fontsize=7,
              transform=axis.transAxes)  # fmt: skip
    ticks = [0, 0.5, 1]
    axis.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)


def _lines(axis: Axes, cases: Bins, colour: str) -> None:
    """Draw every case, through the bins in which it has enough voxels."""
    for x, y, n in zip(cases.confidence, cases.frequency, cases.n, strict=True):
        points = _rounded(x[n >= ENOUGH]), _rounded(y[n >= ENOUGH])
        axis.plot(*points, color=colour, alpha=0.25, linewidth=0.5)


def _spread(axis: Axes, cases: Bins, colour: str) -> None:
    """Draw how far the cases lie apart in each bin, over the bin's mean p."""
    low, high = _rounded(frequency_spread(cases))
    known = ~np.isnan(low)
    x = _rounded(cases.pooled().confidence[known])
    ends = low[known], high[known]
    axis.fill_between(x, *ends, color=colour, alpha=0.2, linewidth=0)


def _rounded(values: _Floats) -> _Floats:
    """To 5 digits: more would differ between machines, and no eye would see it."""
    return np.round(values, 5)
