"""Reliability diagrams from run files: how often p comes true, by case and over all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.measure import calibration
from pipelines.measure.calibration import Bins
from pipelines.reporting.calibration import (
    ENOUGH,
    OBSERVERS,
    Binned,
    Reader,
    frequency_spread,
)
from pipelines.reporting.figures import style
from pipelines.reporting.figures.curves import about, by_exponent
from pipelines.reporting.frame import Study
from pipelines.reporting.published import Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["diagrams"]

_PANELS = 4  # in a row
_MANY = 50  # cases: more lines than that are a blot
_Found = Mapping[Variant, Binned]
_Floats = npt.NDArray[np.float64]


def diagrams(study: Study) -> Figure | None:
    """Draw a reliability diagram of each loss, in each class and region.

    Args:
        study: the runs; observer 1 is the truth.

    Returns:
        Rows of four panels, a block of rows for each class and region; None where
        there is no run to show.
    """
    shown = by_exponent(study.main)
    if not shown:
        return None
    places = _places(study, shown)
    columns = min(_PANELS, len(shown))
    rows = -(-len(shown) // columns)
    many = len(study.cases) > _MANY
    figure = style.sheet(
        (style.WIDTH, 0.85 + 1.75 * rows * len(places)),
        f"Reliability: {about(study, shown)}",
        "Share that is the target in truth over the mean softmax value, in 20 bins of "
        f"width 0.05; thick: {style.elements(study.record)} of all cases and seeds "
        f"together, {'band: 10th to 90th percentile of' if many else 'thin: single'} "
        f"cases, where {ENOUGH} or more lie in a bin; dashed: calibrated. Above it "
        "p is too low, below too high. ECE weighs bins by what lies in them, ACE "
        "all alike; both of all cases together.",
    )
    axes = figure.subplots(
        rows * len(places), columns, sharex=True, sharey=True, squeeze=False
    )
    blocks = axes.reshape(len(places), -1)
    for block, ((target, region), found) in zip(blocks, places.items(), strict=True):
        for axis, variant in zip(block, shown, strict=False):
            if variant in found:
                _panel(axis, variant, found[variant], many)
            axis.set_title(variant.label)
        for axis in block[len(shown) :]:
            axis.remove()
        for axis in block[len(shown) - columns : len(shown)]:
            axis.set_xlabel("mean softmax value")
            axis.tick_params(labelbottom=True)
        for axis in block[::columns]:
            axis.set_ylabel(f"{target}\n({region})")
    return figure


def _places(study: Study, shown: list[Variant]) -> Mapping[tuple[str, str], _Found]:
    """The histograms of the variants in each class and region, in order."""
    found: dict[tuple[str, str], dict[Variant, Binned]] = {}
    for variant in shown:
        reader = Reader(study, variant)
        for place in reader.places():
            if place[-1] == OBSERVERS[0]:
                found.setdefault(place[:2], {})[variant] = reader.binned(place)
    return found


def _panel(axis: Axes, variant: Variant, binned: Binned, many: bool) -> None:
    """Draw one diagram: the diagonal, the cases, and all of them together."""
    look = style.colour(variant.loss)
    bins = binned.bins()
    axis.plot([0, 1], [0, 1], color="0.35", linewidth=0.7, dashes=(4, 3), zorder=2.5)
    (_spread if many else _lines)(axis, bins.pooled(axis=0), look)
    together = bins.pooled(axis=(0, 1))
    held = together.n > 0
    x, y = _rounded(together.confidence[held]), _rounded(together.frequency[held])
    axis.plot(x, y, ".-", color=look, markersize=3.5, label=variant.label, zorder=3)
    ece, ace = (
        float(np.mean(measure(bins.pooled(axis=1))))
        for measure in (calibration.ece, calibration.ace)
    )
    axis.text(0.03, 0.98, f"ECE {ece:.3f}\nACE {ace:.3f}", va="top", fontsize=7,
              transform=axis.transAxes)  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])


def _lines(axis: Axes, cases: Bins, colour: str) -> None:
    """Draw every case, through the bins in which it has enough voxels."""
    x, y = cases.confidence, cases.frequency
    for case, enough in enumerate(cases.n >= ENOUGH):
        axis.plot(
            _rounded(x[case, enough]),
            _rounded(y[case, enough]),
            color=colour,
            alpha=0.25,
            linewidth=0.5,
        )


def _spread(axis: Axes, cases: Bins, colour: str) -> None:
    """Draw how far the cases lie apart in each bin, over the bin's mean p."""
    low, high = _rounded(frequency_spread(cases))
    known = ~np.isnan(low)
    x = _rounded(cases.pooled().confidence)
    axis.fill_between(
        x[known], low[known], high[known], color=colour, alpha=0.2, linewidth=0
    )


def _rounded(values: _Floats) -> _Floats:
    """To 5 digits: more would differ between machines, and no eye would see it."""
    return np.round(values, 5)
