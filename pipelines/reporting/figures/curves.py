"""Figures from run files only: curves and histograms, without images.

Each function takes a study (`forest` takes all of them) and returns a matplotlib
figure, or None where there is nothing to show. Call them within `style.drawing`. Titles
and notes are in `data/figures.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipelines.measure import calibration
from pipelines.reporting import data
from pipelines.reporting.answers import compared
from pipelines.reporting.calibration_tables import (
    ENOUGH,
    OBSERVERS,
    REGIONS,
    Reader,
    frequency_interval,
    frequency_spread,
)
from pipelines.reporting.evidence import estimated
from pipelines.reporting.figures import style
from pipelines.reporting.frame import Study, studies
from pipelines.reporting.published import THRESHOLDS, Paper, Variant, read_table
from pipelines.reporting.tables import usable
from pipelines.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "pdf", "png")

_COMPARED = tuple(Variant.standard(loss) for loss in ("CE", "DSC", "DSC++"))
"""The losses of Fig. 5, and CE beside them."""

_BINS = np.arange(21) / 20  # all of them among the edges of every histogram
_SOFTMAX_PANEL, _LABELLED = 1.8, 1.3  # inches
_HEADROOM = 0.38  # of the height of the steps
_MANY = 50  # cases: more lines cannot be told apart
_BASE = 1e-3  # of the steps: below any count, since a logarithmic axis has no 0
_AT_THRESHOLDS = {"Recall": "recall", "Precision": "precision", "Dice": "dice"}
_HISTORY = ("epoch", "loss", "val_loss", "learning_rate")
_RULED: dict[str, Any] = {"color": "0.92", "linewidth": 0.6}
_DASHED: dict[str, Any] = {"color": "0.35", "linewidth": 0.7, "dashes": (4, 3)}

_PAIR = [Variant.standard("DSC++"), Variant("DSC")]
_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
_GAP = 0.45  # between data sets, in lines
# Our points in the forest plot: metric, whether of both terms, offset in lines, marker
# (black and white, since colours mean losses) and name.
_OURS = (
    ("nll", False, -0.17, {"marker": "o"}, "ours, NLL as published"),
    ("nll", True, 0.17, {"marker": "o", "mfc": "white"}, "ours, NLL of both terms"),
    ("dice", False, 0.0, {"marker": "s"}, "ours, Dice"),
)

_Draw = Callable[["Axes", str, Any], None]
_Floats = npt.NDArray[np.float64]
_Line = tuple[str, str, Study | None, str]
"""Data set and class, whose values (ours, or None for the paper's), and in words."""


def about(study: Study, shown: Iterable[Variant]) -> str:
    """Say what a figure shows: "DRIVE, preset reduced, seed 0, 20 test images"."""
    return f"{name_of(study.record)}, {study.about(shown)}"


def name_of(record: Mapping[str, Any]) -> str:
    """Return the data set's name of a `run.json`; simulated ones are marked."""
    return f"{record['title']}{' (SIMULATED)' if record['simulated'] else ''}"


def by_exponent(variants: Iterable[Variant]) -> list[Variant]:
    """Sort by loss, in the given order, then by exponent (plain form: 1)."""
    keyed = [
        (variant.loss.removesuffix("++"), variant.gamma or 1.0, variant)
        for variant in variants
    ]
    families = [family for family, *_ in keyed]
    return [
        variant
        for *_, variant in sorted(keyed, key=lambda e: (families.index(e[0]), e[1]))
    ]


def label(variant: Variant) -> str:
    """Return a loss with its exponent, also where that is the default."""
    if variant.gamma is None:
        has_exponent = f"{variant.loss}++" in style.LOSSES
        return f"{variant.loss} (γ = 1)" if has_exponent else variant.loss
    return f"{variant.loss}, γ = {variant.gamma:g}"


def _texts(
    name: str,
    study: Study,
    shown: Iterable[Variant],
    printed: bool = False,
    **more: Any,
) -> tuple[str, str]:
    """Return title and note of a figure; `printed`: it has values of the paper."""
    words, listed = data("figures")[name], list(shown)
    several = any(len(study.seeds(variant)) > 1 for variant in listed)
    preset = "" if study.preset == "paper" else study.preset
    known = more | {
        "about": about(study, listed),
        "elements": style.elements(study.record),
        "seeds": " and spread of seeds" if several else "",
        "mean": "Mean over seeds. " if several else "",
        "protocol": f" (its own protocol, not preset {preset})" if preset else "",
    }
    note = words["note"] + (words["printed"] if printed else "")
    return words["title"].format(**known), note.format(**known)


def _grid(
    study: Study,
    columns: Mapping[str, Any],
    heights: tuple[float, float],
    texts: tuple[str, str],
    draw: _Draw,
    below: Mapping[str, Any],
    legend: bool = True,
) -> Figure:
    """Make a grid of panels: a row for each class, a column for each title.

    `heights`, in inches, are those of the texts and of a row; `below` are settings of
    the lowest panels.
    """
    n = len(study.targets)
    size = (style.width(), heights[0] + heights[1] * n)
    figure = style.sheet(size, *texts, legend=legend)
    axes = figure.subplots(n, len(columns), sharex=True, sharey=True, squeeze=False)
    for row, target in zip(axes, study.targets, strict=True):
        for axis, column in zip(row, columns.values(), strict=True):
            draw(axis, target, column)
        row[0].set_ylabel(target)
    for axis, last, title in zip(axes[0], axes[-1], columns, strict=True):
        axis.set_title(title)
        last.set(**below)
    if style.width() / len(columns) < _LABELLED:  # labels side by side would overlap
        for last in np.delete(axes[-1], len(columns) // 2):
            last.set_xlabel("")
    if legend:
        style.legend(figure)
    return figure


def thresholds(study: Study) -> Figure | None:
    """Draw recall, precision and Dice over the softmax threshold (Fig. 5, top).

    A row of panels for each class, with those losses of `_COMPARED` that were run (None
    if none was) and the paper's printed values for the data set.
    """
    shown = [variant for variant in _COMPARED if variant in study.runs]
    if not shown:
        return None
    printed = [] if study.simulated else study.paper.thresholds
    points = [cell for cell in printed if cell.dataset == study.title]

    def draw(axis: Axes, target: str, metric: str) -> None:
        for variant in shown:
            cuts = (replace(variant, threshold=at) for at in THRESHOLDS)
            estimates = [estimated(study, cut, target, metric) for cut in cuts]
            mean, low, high = _rounded(
                [(e.mean, e.ci_low, e.ci_high) for e in estimates]
            ).T
            at, options = _rounded(THRESHOLDS), style.line(variant.loss)
            axis.fill_between(at, low, high, color=options["color"], alpha=0.2, lw=0)
            axis.plot(at, mean, label=variant.label, **options)
        for cell in (one for one in points if one.metric == metric):
            colour, words = style.colour(cell.loss), f"{cell.loss}, paper"
            options = {"color": colour, "label": words, "zorder": 3}
            options |= {"markerfacecolor": "white", "markersize": 5}
            axis.plot(cell.variant.threshold or 0.5, cell.value, "D", **options)
        axis.grid(axis="y", **_RULED)

    texts = _texts("thresholds", study, shown, bool(points))
    below = {"xlabel": "softmax threshold", "xticks": [0.1, 0.3, 0.5, 0.7, 0.9]}
    return _grid(study, _AT_THRESHOLDS, (0.85, 2.1), texts, draw, below)


def softmax(study: Study) -> Figure | None:
    """Draw how many voxels have which softmax value (Fig. 2, bottom).

    A row of panels for each class, with every loss and exponent in order.
    """
    shown = by_exponent(study.main)
    if not shown:
        return None
    columns = min(max(1, round(style.width() / _SOFTMAX_PANEL)), len(shown))
    rows = -(-len(shown) // columns) * len(study.targets)
    texts = _texts("softmax", study, shown)
    figure = style.sheet((style.width(), 0.85 + 1.6 * rows), *texts)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
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
    # The axis begins just below the lowest step. It ends so far above the highest that
    # the text overlaps no step.
    steps: list[Any] = [step for axis in figure.axes for step in axis.patches]
    values = np.concatenate([step.get_data().values for step in steps])
    lowest = values[values > 0].min() if values.any() else 1.0
    bottom = 10.0 ** np.floor(np.log10(lowest))
    highest = max(values.max(initial=1.0), 10 * bottom)
    axes[0, 0].set_ylim(bottom, highest * (highest / bottom) ** _HEADROOM)
    return figure


def _histogram(axis: Axes, study: Study, variant: Variant, target: str) -> None:
    """Draw one panel: all voxels filled, those of the target as a line."""
    counts = study.counts(variant, target).sum(axis=1)
    starts = [int(np.abs(study.edges - edge).argmin()) for edge in _BINS[:-1]]
    # (2, bins): background, target.
    of_truth = np.add.reduceat(counts, starts, axis=-1).mean(axis=0)
    everything = of_truth.sum(axis=0)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_power)
    options: dict[str, Any] = {"color": style.colour(variant.loss), "alpha": 0.55}
    axis.stairs(_rounded(everything), _BINS, fill=True, baseline=_BASE, **options)
    axis.stairs(_rounded(of_truth[1]), _BINS, baseline=_BASE, color="black", lw=0.9)
    between = everything[1:-1].sum() / everything.sum()
    axis.text(0.5, 0.98, f"{100 * between:.1f} %\nfrom 0.05 to 0.95", ha="center",
              va="top", transform=axis.transAxes, fontsize=7)  # fmt: skip
    axis.set_title(label(variant))
    axis.set_xticks([0, 0.5, 1])


def _power(value: float, _: float) -> str:
    """Return a power of ten without the $ of mathematics, since names may have a $."""
    exponent = str(round(np.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def reliability(study: Study, shown: Sequence[Variant] = ()) -> Figure | None:
    """Draw a reliability diagram of each variant, over the whole image.

    `shown` are the losses to draw; by default those of Table 4. A row of panels for
    each class; observer 1 is the truth. None where none of them was run.
    """
    cells = study.paper.cells
    table4 = cells.loc[cells["table"] == "table4", "variant"].unique()
    columns = {
        variant.label: variant for variant in shown or table4 if variant in study.runs
    }
    if not columns:
        return None
    spread = "thin: single"
    if len(study.cases) > _MANY:
        spread = "band: 10th to 90th percentile of"
    texts = _texts("reliability", study, columns.values(), spread=spread, enough=ENOUGH)
    draw = partial(_diagram, study)
    heights = (1.15, min(3.4, 1.2 * style.width() / len(columns)))
    figure = _grid(study, columns, heights, texts, draw, {}, legend=False)
    figure.set_layout_engine("compressed")  # square panels stay side by side
    return figure


def diagram(study: Study, target: str, variant: Variant, region: str) -> Figure:
    """Draw the reliability diagram of one variant, class and region alone."""
    figure = style.sheet((3.4, 3.9), "")
    axis = figure.subplots()
    _diagram(study, axis, target, variant, region)
    axis.set_ylabel(f"share that is {target}")
    return figure


def _diagram(
    study: Study, axis: Axes, target: str, variant: Variant, region: str = REGIONS[0]
) -> None:
    """Draw one diagram: the diagonal, each case, all cases together, and counts.

    Where most cases have few voxels, the curve of all cases is faded.
    """
    key = (target, region, OBSERVERS[0])
    colour, binned = style.colour(variant.loss), Reader(study, variant).binned(key)
    bins = calibration.join(*binned, study.edges)
    axis.plot([0, 1], [0, 1], **_DASHED, zorder=2.5)
    cases, together = bins.pooled(axis=0), bins.pooled(axis=(0, 1))
    # To 5 digits: further digits differ between machines and are not visible.
    if len(study.cases) > _MANY:
        ends = frequency_spread(cases)
        band = np.round((together.confidence, *ends), 5)[:, ~np.isnan(ends[0])]
        axis.fill_between(*band, color=colour, alpha=0.2, linewidth=0)
    else:
        for x, y, n in zip(cases.confidence, cases.frequency, cases.n, strict=True):
            points = np.round((x, y), 5)[:, n >= ENOUGH]
            axis.plot(*points, color=colour, alpha=0.25, linewidth=0.5)
    points = np.round((together.confidence, together.frequency), 5)[:, together.n > 0]
    dots: dict[str, Any] = {"color": colour, "markersize": 3.5, "zorder": 3}
    axis.plot(*points, ".-", label=variant.label, alpha=0.35, **dots)
    supported = np.mean(cases.n >= ENOUGH, axis=0)[together.n > 0] >= 0.5
    axis.plot(points[0], np.where(supported, points[1], np.nan), ".-", **dots)
    ends = np.round(frequency_interval(cases)[:, together.n > 0], 5)
    faded = np.where(supported, 1, 0.35)
    axis.vlines(points[0], *ends, color=colour, linewidth=0.8, alpha=faded, zorder=3)
    _counts(axis, together.n, colour)
    measures = (calibration.ece, calibration.ace)
    ece, ace = (float(np.mean(measure(bins.pooled(axis=1)))) for measure in measures)
    axis.text(0.03, 0.98, f"ECE {ece:.3f}\nACE {ace:.3f}", va="top", fontsize=7,
              transform=axis.transAxes)  # fmt: skip
    ticks = [0, 0.5, 1]
    axis.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks, box_aspect=1)


def learning(run: Run) -> Figure | None:
    """Draw the training and the validation loss of a run over its epochs.

    Grey lines mark where the learning rate fell. None where the run has no history.

    Raises:
        InputError: the history cannot be read.
    """
    history = _history(run.path("history.csv"))
    if history is None:
        return None
    options: dict[str, Any] = {"color": style.colour(str(run.record["loss"]))}
    figure = style.sheet((4.6, 3.2), "", legend=True)
    axis = figure.subplots()
    epoch, best = history["epoch"], history["val_loss"].idxmin()
    for at in epoch[history["learning_rate"].diff() < 0]:
        axis.axvline(at, color="0.8", linewidth=0.8)
    axis.plot(epoch, _rounded(history["loss"]), "--", label="training", **options)
    axis.plot(epoch, _rounded(history["val_loss"]), "-", label="validation", **options)
    lowest = epoch[best], history["val_loss"][best]
    axis.plot(*lowest, "o", label="lowest validation loss", linestyle="", **options)
    axis.set(xlabel="epoch", ylabel="loss")
    style.legend(figure)
    return figure


def _history(path: Path) -> pd.DataFrame | None:
    """Read losses and learning rate by epoch; None without a file or an epoch."""
    if not path.exists():
        return None
    expected = f"the columns {', '.join(_HISTORY)} with a number in each line"
    remedy = "copy it again, or delete it to go without its curve"
    history = read_table(path, (), _HISTORY, expected, remedy)
    return history if history["val_loss"].notna().any() else None


def _counts(axis: Axes, n: _Floats, colour: str) -> None:
    """Draw the number of voxels in each bin below a diagram."""
    strip = axis.inset_axes((0, -0.3, 1, 0.22), sharex=axis)
    strip.stairs(n, _BINS, fill=True, baseline=0.5, color=colour, alpha=0.55)
    strip.set_yscale("log")
    strip.set_ylim(0.5, 10 ** np.ceil(np.log10(max(n.sum(), 10))))
    strip.yaxis.set_major_formatter(_power)
    strip.locator_params(axis="y", numticks=3)
    strip.minorticks_off()
    strip.set_xlabel("mean softmax value")
    axis.tick_params(labelbottom=False)


def forest(studies: Sequence[Study]) -> Figure | None:
    """Draw the NLL ratio and the Dice difference of DSC++ and DSC on each data set.

    Two panels, a line for each data set and class and one for each preset below it;
    None where no data set of the paper has runs of both losses.
    """
    from matplotlib.ticker import FixedLocator

    lines = list(_lines(usable(studies)))
    if not any(study for *_, study, _ in lines):
        return None
    # Rows are one line apart, data sets a little more.
    gaps = np.cumsum([_GAP * (study is None) for *_, study, _ in lines])
    heights = np.arange(len(lines)) + gaps
    height, words = heights[-1] + 1, data("figures")["forest"]
    size = (style.width(), 1.4 + 0.19 * height)
    figure = style.sheet(size, words["title"], words["note"], legend=True)
    axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    panels = dict(zip(("nll", "dice"), axes, strict=True))
    for line, at in zip(lines, heights, strict=True):
        _draw_line(panels, at, line, studies[0].paper)
    axes[0].set_yticks(heights, [words for *_, words in lines])
    title = "NLL ratio (below 1: better)"
    axes[0].set(ylim=(height - 0.4, _GAP - 0.6), xscale="log", title=title)
    axes[0].minorticks_off()
    axes[0].xaxis.set_major_locator(FixedLocator(_TICKS))
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[1].set_title("Dice difference (above 0: better)")
    for axis, nothing in zip(axes, (1.0, 0.0), strict=True):
        axis.axvline(nothing, **_DASHED)
        axis.grid(axis="x", **_RULED)
        axis.tick_params(axis="y", length=0)
    style.legend(figure)
    return figure


def _lines(studies: Sequence[Study]) -> Iterator[_Line]:
    """Yield the lines from the top: each data set of the paper, then our presets."""
    if not studies:
        return
    cells = studies[0].paper.cells
    cells = cells[cells["table"].isin(["table4", "table5"])]
    places = cells[["dataset", "target"]].drop_duplicates()
    for name, target in places.itertuples(index=False):
        title = f"{name}, {target}" if target else name
        yield name, target, None, f"{title}: paper"
        for study in (study for study in studies if study.title == name):
            class_name = target or study.targets[0]
            if pair := compared(study, class_name, "nll", _PAIR):
                seeds = f"{pair.seeds} seed{'s' * (pair.seeds > 1)}"
                yield name, class_name, study, f"ours, preset {study.preset}, {seeds}"


def _draw_line(axes: Mapping[str, Axes], at: float, line: _Line, paper: Paper) -> None:
    """Draw the paper's diamonds, or both forms of our NLL and the Dice difference."""
    name, target, study, _ = line
    if study is None:
        options: dict[str, Any] = {"markersize": 5, "linestyle": "", "label": "paper"}
        for metric, axis in axes.items():
            means = paper.printed_means(name, target, _PAIR, metric)
            a, b = (means[variant].value for variant in _PAIR)
            at_x = _rounded([a / b if metric == "nll" else a - b])
            axis.plot(at_x, [at], marker="D", color=style.PUBLISHED, **options)
        return
    for metric, corrected, down, marker, words in _OURS:
        if pair := compared(study, target, metric, _PAIR, corrected):
            e = pair.effect
            value, low, high = _rounded((e.mean, e.ci_low, e.ci_high))
            ends = None if math.isnan(low) else [[value - low], [high - value]]
            options = {"linestyle": "", "ms": 4, "elinewidth": 1.3, "zorder": 3}
            options |= {"color": "black", "label": words, **marker}
            axes[metric].errorbar([value], [at + down], xerr=ends, **options)


def _rounded(values: npt.ArrayLike) -> _Floats:
    """Round to 6 digits, as in tables: further digits depend on the machine."""
    array = np.asarray(values, dtype=np.float64)
    return np.reshape([float(f"{value:.6g}") for value in array.flat], array.shape)


def write_figures(
    results: Path,
    output: Path | None = None,
    losses: Sequence[str] = (),
    width: float | None = None,
    titled: bool = True,
) -> list[Path]:
    """Draw the curves of every `results/<dataset>/<preset>/` with a finished run.

    Args:
        results: folder of all results.
        output: folder to write to instead; None: beside the runs.
        losses: names of the losses to draw, in each figure that has several; () for
            all.
        width: width of each figure in inches; None: that of the style sheet.
        titled: whether a figure has a title and a note.

    Returns:
        The files written, in order: `<dataset>/<preset>/figures/*`, then
        `figures/forest.*` of all data sets, each figure in all `FORMATS`. An old figure
        that the runs no longer support is removed.

    Raises:
        InputError: runs that cannot be joined; a folder that cannot be written.
    """
    joined, root = studies(results), output or results
    drawn: dict[Path, Figure | None] = {}
    with style.drawing(width=width):
        for study in joined:
            kept = {
                variant: runs
                for variant, runs in study.runs.items()
                if not losses or variant.loss.partition(" [")[0] in losses
            }
            folder = root / study.folder.relative_to(results) / "figures"
            for name, draw in _OF_STUDY.items() if kept else ():
                drawn[folder / name] = draw(replace(study, runs=kept))
        drawn[root / "figures" / "forest"] = forest(joined)
        written = []
        for stem, figure in drawn.items():
            if figure and not titled:
                style.leave_bare(figure)
            if figure:
                written += style.save(figure, stem, FORMATS)
            for kind in () if figure else FORMATS:
                stem.with_name(f"{stem.name}.{kind}").unlink(missing_ok=True)
    return written


_OF_STUDY: Mapping[str, Callable[[Study], Figure | None]] = {
    "figure2-softmax": softmax,
    "figure5-thresholds": thresholds,
    "reliability": reliability,
}
