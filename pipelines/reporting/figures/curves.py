"""Figures from run files alone: curves and histograms, no picture of anyone.

Each takes a study and gives a matplotlib figure, or None where it has nothing to show;
call them within `style.drawing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
from pipelines.reporting.estimates import Z
from pipelines.reporting.evidence import THRESHOLDS, estimated
from pipelines.reporting.figures import style
from pipelines.reporting.frame import Study
from pipelines.reporting.published import Variant, each_cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["about", "by_exponent", "gammas", "label", "name_of", "reliability",
           "rounded", "softmax", "thresholds"]  # fmt: skip

_COMPARED = tuple(Variant.standard(loss) for loss in ("CE", "DSC", "DSC++"))
"""The losses of Fig. 5, and CE beside them."""

_BINS = np.arange(21) / 20  # all of them among the edges of every histogram
_SOFTMAX_PANELS = 4  # in a row
_MANY = 50  # cases: more lines than that are a blot
_BASE = 1e-3  # of the steps: below any count, as a logarithmic axis has no 0
_AT_THRESHOLDS = {"Recall": "recall", "Precision": "precision", "Dice": "dice"}
_AGAINST_GAMMA = {
    "NLL as published": "nll_published",
    "NLL, both terms": "nll",
    "Brier score": "brier_published",
    "Dice": "dice",
}
_RULED: dict[str, Any] = {"axis": "y", "color": "0.92", "linewidth": 0.6}
_Floats = npt.NDArray[np.float64]


def about(study: Study, shown: Iterable[Variant]) -> str:
    """What a figure is of, such as "DRIVE, preset reduced, seed 0, 20 test images"."""
    return f"{name_of(study.record)}, {study.about(shown)}"


def name_of(record: Mapping[str, Any]) -> str:
    """The data set of a `run.json` in print; simulated ones say so in capitals."""
    return f"{record['title']}{' (SIMULATED)' if record['simulated'] else ''}"


def by_exponent(variants: Iterable[Variant]) -> list[Variant]:
    """Sort by loss, as given, and each family by its exponent: 1 of the plain form."""
    listed = list(variants)
    families = list(dict.fromkeys(_family(variant) for variant in listed))
    return sorted(
        listed, key=lambda one: (families.index(_family(one)), one.gamma or 1.0)
    )


def _family(variant: Variant) -> str:
    return variant.loss.removesuffix("++")


def _grid(
    study: Study,
    columns: Mapping[str, Any],
    heights: tuple[float, float],
    texts: tuple[str, str],
    draw: Callable[[Axes, str, Any], None],
    below: Mapping[str, Any],
    legend: bool = True,
    share_y: bool = True,
) -> Figure:
    """A row of panels for each class, a column for each title and what it is of.

    `heights`, in inches, are those of the texts and of a row; `below` are settings of
    the lowest panels.
    """
    size = (style.WIDTH, heights[0] + heights[1] * len(study.targets))
    figure = style.sheet(size, *texts, legend=legend)
    axes = figure.subplots(
        len(study.targets), len(columns), sharex=True, sharey=share_y, squeeze=False
    )
    for row, target in zip(axes, study.targets, strict=True):
        for axis, one in zip(row, columns.values(), strict=True):
            draw(axis, target, one)
        row[0].set_ylabel(target)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set(**below)
    if legend:
        style.legend(figure)
    return figure


def thresholds(study: Study) -> Figure | None:
    """Draw recall, precision and Dice over the softmax threshold (Fig. 5, top).

    A row of panels for each class: those of the losses `_COMPARED` that are at hand
    (None: none is), and what the paper prints of the data set.
    """
    shown = [variant for variant in _COMPARED if variant in study.runs]
    if not shown:
        return None
    own = [] if study.simulated else study.paper.thresholds
    points = [row for row in own if row["dataset"] == study.title]
    note = (
        "Lines: mean over test images; bands: its 95 % interval (bootstrap over "
        f"images{_and_seeds(study, shown)}). Positive is where the softmax value is at "
        "least the threshold; precision is left out of the mean where nothing is."
        + (f" Diamonds: printed in the paper{_full(study)}." if points else "")
    )

    def draw(axis: Axes, target: str, metric: str) -> None:
        for variant in shown:
            _band(axis, study, variant, target, metric)
        _mark(axis, [one for one in points if one["metric"] == metric])
        axis.grid(**_RULED)

    texts = (f"Softmax thresholds: {about(study, shown)}", note)
    below = {"xlabel": "softmax threshold", "xticks": [0.1, 0.3, 0.5, 0.7, 0.9]}
    return _grid(study, _AT_THRESHOLDS, (0.85, 2.1), texts, draw, below)


def _band(axis: Axes, study: Study, variant: Variant, target: str, metric: str) -> None:
    """Draw one loss in one panel: mean and interval at each threshold."""
    found = [estimated(study, variant, target, metric, t) for t in THRESHOLDS]
    mean, low, high = rounded([(e.mean, e.ci_low, e.ci_high) for e in found]).T
    at, look = rounded(THRESHOLDS), style.line(variant.loss)
    axis.fill_between(at, low, high, color=look["color"], alpha=0.2, linewidth=0)
    axis.plot(at, mean, label=variant.label, **look)


def _mark(axis: Axes, rows: Sequence[dict[str, str]]) -> None:
    """Mark values that the paper prints."""
    for row in rows:
        look: dict[str, Any] = {"color": style.colour(row["loss"])}
        look |= {"label": f"{row['loss']}, paper"}
        look |= {"markerfacecolor": "white", "markersize": 5, "zorder": 3}
        axis.plot(float(row["threshold"]), float(row["value"]), "D", **look)


def softmax(study: Study) -> Figure | None:
    """Draw how many voxels have which softmax value (Fig. 2, bottom).

    Rows of four panels for each class: every loss and exponent, exponents in order.
    """
    shown = by_exponent(study.main)
    if not shown:
        return None
    columns = min(_SOFTMAX_PANELS, len(shown))
    rows, many = -(-len(shown) // columns), style.elements(study.record)
    figure = style.sheet(
        (style.WIDTH, 0.85 + 1.6 * rows * len(study.targets)),
        f"Softmax values: {about(study, shown)}",
        f"Filled: all {many} of the test images by softmax value, in bins of 0.05; "
        "line: those that are the target in truth. "
        f"{'Mean over seeds. ' if _and_seeds(study, shown) else ''}"
        f"Printed: the share of all {many} that lies between the outer bins.",
    )
    axes = figure.subplots(
        rows * len(study.targets), columns, sharex=True, sharey=True, squeeze=False
    )
    blocks = axes.reshape(len(study.targets), -1)
    for block, target in zip(blocks, study.targets, strict=True):
        for axis, variant in zip(block, shown, strict=False):
            _histogram(axis, study, variant, target)
        for axis in block[len(shown) :]:
            axis.remove()
        for axis in block[len(shown) - columns : len(shown)]:
            axis.set_xlabel("softmax value")
            axis.tick_params(labelbottom=True)
        for axis in block[::columns]:
            axis.set_ylabel(f"{style.elements(study.record)}\n({target})")
    axes[0, 0].set_ylim(bottom=_decade_below(figure))
    return figure


def _decade_below(figure: Figure) -> float:
    """Where a logarithmic axis begins: not far below the lowest step there is."""
    steps: list[Any] = [step for axis in figure.axes for step in axis.patches]
    values = np.concatenate([step.get_data().values for step in steps])
    lowest = values[values > 0].min() if values.any() else 1.0
    return float(10.0 ** np.floor(np.log10(lowest)))


def _power(value: float, _: float) -> str:
    """A power of ten without the $ of mathematics, which names may have."""
    exponent = str(round(np.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _histogram(axis: Axes, study: Study, variant: Variant, target: str) -> None:
    """Draw one panel: all voxels filled, those of the target as a line."""
    counts = study.counts(variant, target).sum(axis=1)
    starts = [int(np.abs(study.edges - edge).argmin()) for edge in _BINS[:-1]]
    # (2, bins): background, target.
    of_truth = np.add.reduceat(counts, starts, axis=-1).mean(axis=0)
    everything = of_truth.sum(axis=0)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_power)
    look: dict[str, Any] = {"color": style.colour(variant.loss), "alpha": 0.55}
    axis.stairs(rounded(everything), _BINS, fill=True, baseline=_BASE, **look)
    axis.stairs(rounded(of_truth[1]), _BINS, baseline=_BASE, color="black", lw=0.9)
    between = everything[1:-1].sum() / everything.sum()
    axis.text(0.5, 0.98, f"{100 * between:.1f} %\nfrom 0.05 to 0.95", ha="center",
              va="top", transform=axis.transAxes, fontsize=7)  # fmt: skip
    axis.set_title(label(variant))
    axis.set_xticks([0, 0.5, 1])


def label(variant: Variant) -> str:
    """A loss with its exponent, also where that is the usual one."""
    if variant.gamma is None:
        has_exponent = f"{variant.loss}++" in style.LOSSES
        return f"{variant.loss} (γ = 1)" if has_exponent else variant.loss
    return f"{variant.loss}, γ = {variant.gamma:g}"


def gammas(study: Study) -> Figure | None:
    """Draw NLL, Brier score and Dice of DSC++ against gamma (Table 3); DSC is gamma 1.

    Four panels for each class; None where the paper has no such table of the data set
    and fewer than three gammas were run.
    """
    shown = [v for v in by_exponent(study.main) if _family(v) == "DSC"]
    published = study.cells["table"].eq("table3").any()
    if not shown or (not published and len(shown) < 3):
        return None
    note = (
        "Filled: ours, mean over test images and its 95 % interval (bootstrap over "
        f"images{_and_seeds(study, shown)}); γ = 1 is DSC."
    )
    if published:
        note += " Open: printed in the paper, ± 1.96 standard errors"
        note += f"{_full(study)}. NLL as published is the foreground term alone."

    def draw(axis: Axes, target: str, metric: str) -> None:
        _published_gammas(axis, study, target, metric)
        for variant in shown:
            found = estimated(study, variant, target, metric)
            ours = (variant.gamma or 1.0, found.mean, found.ci_low, found.ci_high)
            at, mean, low, high = rounded(ours)
            look: dict[str, Any] = {"fmt": "o", "ms": 3.5, "zorder": 3}
            look |= {"label": f"{variant.loss}, ours"}
            look |= {"color": style.colour(variant.loss)}
            axis.errorbar(at, mean, [[mean - low], [high - mean]], **look)
        axis.grid(**_RULED)

    texts = (f"Exponent γ of DSC++: {about(study, shown)}", note)
    below = {"xlabel": "γ", "xticks": [1, 2, 3, 4, 5], "xlim": (0.3, 5.2)}
    heights = (0.85, 2.0)
    return _grid(study, _AGAINST_GAMMA, heights, texts, draw, below, share_y=False)


def _published_gammas(axis: Axes, study: Study, target: str, metric: str) -> None:
    """Draw the cells of Table 3 in grey."""
    theirs = [
        (cell.variant.gamma or 1.0, cell.value, Z * cell.judged_error)
        for cell in each_cell(study.cells)
        if (cell.table, cell.metric, cell.target) == ("table3", metric, target)
    ]
    if theirs:
        x, y, error = rounded(theirs).T
        look: dict[str, Any] = {"markerfacecolor": "white", "ms": 5, "lw": 0.8}
        look |= {"color": style.PUBLISHED, "label": "DSC++, paper"}
        axis.errorbar(x, y, error, fmt="D-", **look)


def reliability(study: Study, shown: Sequence[Variant] = ()) -> Figure | None:
    """Draw a reliability diagram of each variant, over the whole image.

    `shown` are the losses of Table 4 by default. A row of panels for each class,
    observer 1 the truth; None where none was run.
    """
    cells = study.paper.cells
    table4 = cells.loc[cells["table"] == "table4", "variant"].unique()
    shown = [one for one in shown or table4 if one in study.runs]
    if not shown:
        return None
    many = len(study.cases) > _MANY
    spread = "band: 10th to 90th percentile of" if many else "thin: single"
    note = (
        "Share that is the target in truth over the mean softmax value, whole image, "
        f"in 20 bins of width 0.05; thick: {style.elements(study.record)} of all cases "
        f"and seeds together, {spread} cases, where {ENOUGH} or more lie in a bin; "
        "dashed: calibrated. Above it p is too low, below too high. ECE weighs bins by "
        "what lies in them, ACE all alike; both of all cases together. Other losses "
        "and regions: reliability.csv."
    )

    def draw(axis: Axes, target: str, variant: Variant) -> None:
        place = (target, REGIONS[0], OBSERVERS[0])
        _diagram(axis, variant, Reader(study, variant).binned(place), many)

    columns = {variant.label: variant for variant in shown}
    texts, below = (f"Reliability: {about(study, shown)}", note), "mean softmax value"
    return _grid(study, columns, (0.95, 1.75), texts, draw, {"xlabel": below}, False)


def _diagram(axis: Axes, variant: Variant, binned: Binned, many: bool) -> None:
    """Draw one diagram: the diagonal, the cases, and all of them together."""
    look, bins = style.colour(variant.loss), binned.bins()
    axis.plot([0, 1], [0, 1], color="0.35", linewidth=0.7, dashes=(4, 3), zorder=2.5)
    (_spread if many else _lines)(axis, bins.pooled(axis=0), look)
    together = bins.pooled(axis=(0, 1))
    held = together.n > 0
    points = _rounded((together.confidence, together.frequency))[:, held]
    axis.plot(*points, ".-", color=look, markersize=3.5, label=variant.label, zorder=3)
    measures = (calibration.ece, calibration.ace)
    ece, ace = (float(np.mean(one(bins.pooled(axis=1)))) for one in measures)
    axis.text(0.03, 0.98, f"ECE {ece:.3f}\nACE {ace:.3f}", va="top", fontsize=7,
              transform=axis.transAxes)  # fmt: skip
    ticks = [0, 0.5, 1]
    axis.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)


def _lines(axis: Axes, cases: Bins, colour: str) -> None:
    """Draw every case, through the bins in which it has enough voxels."""
    for x, y, n in zip(cases.confidence, cases.frequency, cases.n, strict=True):
        points = _rounded((x, y))[:, n >= ENOUGH]
        axis.plot(*points, color=colour, alpha=0.25, linewidth=0.5)


def _spread(axis: Axes, cases: Bins, colour: str) -> None:
    """Draw how far the cases lie apart in each bin, over the bin's mean p."""
    band = _rounded((cases.pooled().confidence, *frequency_spread(cases)))
    band = band[:, ~np.isnan(band[1])]
    axis.fill_between(*band, color=colour, alpha=0.2, linewidth=0)


def _rounded(values: npt.ArrayLike) -> _Floats:
    """To 5 digits: more would differ between machines, and no eye would see it."""
    array: _Floats = np.asarray(values, dtype=np.float64)
    return np.round(array, 5)


def _full(study: Study) -> str:
    """That the paper's values are of another protocol than ours, where they are."""
    if study.preset == "paper":
        return ""
    return f" (its own protocol, not preset {study.preset})"


def _and_seeds(study: Study, shown: Iterable[Variant]) -> str:
    """How an interval covers seeds: only where there are several."""
    several = any(len(study.seeds(variant)) > 1 for variant in shown)
    return " and spread of seeds" if several else ""


def rounded(values: npt.ArrayLike) -> _Floats:
    """To 6 significant digits, as in the tables: more would differ between machines."""
    array = np.asarray(values, dtype=np.float64)
    return np.reshape([float(f"{value:.6g}") for value in array.flat], array.shape)
