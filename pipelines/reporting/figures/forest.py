"""One figure over all data sets: DSC++ against DSC, the paper's values beside ours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.reporting.answers import compared
from pipelines.reporting.evidence import Printed, Quantity
from pipelines.reporting.figures import style
from pipelines.reporting.figures.curves import rounded
from pipelines.reporting.frame import Study
from pipelines.reporting.tables import usable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["forest"]

_PAIR = [Quantity.parse("DSC++"), Quantity.parse("DSC")]
_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
_GAP = 0.45  # between data sets, in lines
_NOTE = (
    "Means over test images. Bars: 95 % interval over images and seeds, as in "
    "claims.csv; without a bar: no loss of that data set has two seeds. NLL as "
    "published: the foreground term alone; the paper has no NLL of both "
    "terms. At a preset other than paper networks are smaller: compare directions."
)
# What is drawn of ours: metric, whether of both terms, lines further down, colour and
# name.
_OURS = (
    ("nll", False, -0.17, "#0072b2", "ours, NLL as published"),
    ("nll", True, 0.17, "#d55e00", "ours, NLL of both terms"),
    ("dice", False, 0.0, "#000000", "ours, Dice"),
)
_Line = tuple[str, str, Study | None, str]
"""Data set and class, whose values (ours, or None for the paper's), and in words."""


def forest(studies: Sequence[Study]) -> Figure | None:
    """Draw the NLL ratio and the Dice difference of DSC++ and DSC on each data set.

    Two panels, a line for each data set and class and one for each preset below it;
    None where no data set of the paper has runs of both losses.
    """
    lines = list(_lines(usable(studies)))
    if not any(study for *_, study, _ in lines):
        return None
    printed = Printed(studies[0].paper)
    heights, height = [], 0.0
    for *_, study, _ in lines:
        height += _GAP * (study is None)
        heights.append(height)
        height += 1
    size = (style.WIDTH, 1.4 + 0.19 * height)
    title = "DSC++ compared with DSC: NLL ratio and Dice difference"
    figure = style.sheet(size, title, _NOTE, legend=True)
    axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for (name, target, study, _), at in zip(lines, heights, strict=True):
        if study is None:
            _draw_printed(axes, at, printed, name, target)
        else:
            _draw_ours(axes, at, study, target)
    axes[0].set_yticks(heights, [words for *_, words in lines])
    axes[0].set_ylim(height - 0.4, _GAP - 0.6)
    _scale(*axes)
    style.legend(figure)
    return figure


def _lines(studies: Sequence[Study]) -> Iterator[_Line]:
    """From the top, each data set of the paper with our presets below it."""
    if not studies:
        return
    cells = studies[0].paper.cells
    cells = cells[cells["table"].isin(["table4", "table5"])]
    places = cells[["dataset", "target"]].drop_duplicates()
    for name, target in places.itertuples(index=False):
        title = f"{name}, {target}" if target else name
        yield name, target, None, f"{title}: paper"
        for study in (one for one in studies if one.title == name):
            own = target or study.targets[0]
            if found := compared(study, own, "nll", _PAIR):
                seeds = f"{found.seeds} seed{'s' * (found.seeds > 1)}"
                yield name, own, study, f"ours, preset {study.preset}, {seeds}"


def _draw_printed(
    axes: Sequence[Axes], at: float, printed: Printed, name: str, target: str
) -> None:
    """The paper's diamonds."""
    nll, dice = (
        [found[one].mean for one in _PAIR]
        for found in (printed.figures(name, target, _PAIR, m) for m in ("nll", "dice"))
    )
    for axis, value in zip(axes, (nll[0] / nll[1], dice[0] - dice[1]), strict=True):
        look: dict[str, Any] = {"markersize": 5, "linestyle": "", "label": "paper"}
        axis.plot(rounded([value]), [at], marker="D", color=style.PUBLISHED, **look)


def _draw_ours(axes: Sequence[Axes], at: float, study: Study, target: str) -> None:
    """Both forms of the NLL, one above the other, and the Dice difference."""
    for metric, corrected, down, colour, name in _OURS:
        found = compared(study, target, metric, _PAIR, corrected)
        if found is None:
            continue
        value, low, high = rounded(found[:3])
        ends = None if math.isnan(low) else [[value - low], [high - value]]
        look: dict[str, Any] = {"fmt": "o", "ms": 4, "elinewidth": 1.3, "zorder": 3}
        axis = axes[0] if metric == "nll" else axes[1]
        axis.errorbar([value], [at + down], xerr=ends, color=colour, label=name, **look)


def _scale(left: Axes, right: Axes) -> None:
    from matplotlib.ticker import FixedLocator

    left.set_xscale("log")
    left.minorticks_off()
    left.xaxis.set_major_locator(FixedLocator(_TICKS))
    left.xaxis.set_major_formatter("{x:g}")
    left.set_title("NLL ratio (below 1: better)")
    right.set_title("Dice difference (above 0: better)")
    for axis, nothing in ((left, 1.0), (right, 0.0)):
        axis.axvline(nothing, color="0.35", linewidth=0.7, dashes=(4, 3))
        axis.grid(axis="x", color="0.92", linewidth=0.6)
        axis.tick_params(axis="y", length=0)
