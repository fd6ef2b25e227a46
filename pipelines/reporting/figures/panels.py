"""Pictures of images: truth, softmax heat maps of the losses, what they get wrong.

The caller gives arrays; nothing is read here. matplotlib is imported inside the
functions, since it takes half a second.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipelines.reporting.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Panel", "Window", "busiest_window", "compare", "draw", "errors", "heat", "photo",
    "truth_of",
]  # fmt: skip

_WIDEST = 1.8  # inches of a panel; more columns make narrower ones
_BAR = 0.75  # inches to the right, for the colour bar
_FRAME = "#2ca8d2"
_DIPPED = 0.6  # of its brightness: what an image keeps under coloured errors

# Of print, so that hardly a pixel is lost; and images are too large to be left as is.
_FINE = {
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.02,
    "pdf.compression": 6,
    "savefig.dpi": 300,
}

_Array = npt.NDArray[Any]
Window = tuple[slice, slice]
"""Rows and columns of a part of an image."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel of a picture; made by `photo`, `truth_of`, `heat` or `errors`.

    Attributes:
        pixels: bytes, (rows, columns, 3); of a heat map probabilities, (rows, columns).
        title: printed above.
        note: printed below, small.
        frame: a part to draw a frame around.
    """

    pixels: _Array
    title: str = ""
    note: str = ""
    frame: Window | None = None

    @property
    def is_heat(self) -> bool:
        """Whether it is a heat map, which a colour bar explains."""
        return self.pixels.ndim == 2

    def cut(self, window: Window | None) -> Panel:
        """The same panel of a part of the image; None for all of it."""
        return self if window is None else replace(self, pixels=self.pixels[window])


def photo(image: npt.ArrayLike, title: str = "image") -> Panel:
    """Make a panel of an image.

    Args:
        image: (rows, columns), (rows, columns, 1) or RGB (rows, columns, 3); bytes, or
            values of any range, which are stretched from black to white.
        title: printed above.

    Raises:
        ValueError: another shape.
    """
    return Panel(_displayable(image), title)


def truth_of(mask: npt.ArrayLike, title: str = "truth") -> Panel:
    """Make a panel of a mask, (rows, columns): white where it is not 0."""
    bright = np.where(np.asarray(mask) > 0, 255, 0).astype(np.uint8)
    return Panel(np.repeat(bright[..., np.newaxis], 3, axis=-1), title)


def heat(probability: npt.ArrayLike, title: str) -> Panel:
    """Make a heat map on a scale from 0 to 1.

    Args:
        probability: softmax values of the target, (rows, columns), in [0, 1].
        title: printed above.

    Raises:
        ValueError: values outside [0, 1], or NaN.
    """
    values = np.asarray(probability)
    if not (values.min() >= -1e-5 and values.max() <= 1 + 1e-5):
        raise ValueError(
            f"{title}: expected probabilities in [0, 1], received {values.min()} to "
            f"{values.max()}."
        )
    return Panel(values, title)


def errors(
    image: npt.ArrayLike, truth: npt.ArrayLike, positive: npt.ArrayLike, title: str
) -> Panel:
    """Lay a prediction and what is wrong in it over an image (as Fig. 5).

    Args:
        image: as for `photo`; shown in grey, dipped.
        truth: not 0 where the target is, (rows, columns).
        positive: not 0 where it is predicted, (rows, columns).
        title: printed above.

    Returns:
        True positives white, false positives magenta, false negatives green.
    """
    grey = _displayable(image).mean(axis=-1, keepdims=True) * _DIPPED
    pixels = np.repeat(np.round(grey).astype(np.uint8), 3, axis=-1)
    true, found = np.asarray(truth) > 0, np.asarray(positive) > 0
    pixels[true & found] = 255
    pixels[found & ~true] = _bytes(style.FALSE_POSITIVE)
    pixels[true & ~found] = _bytes(style.FALSE_NEGATIVE)
    return Panel(pixels, title)


def _bytes(colour: str) -> list[int]:
    return list(bytes.fromhex(colour.removeprefix("#")))


def draw(
    rows: Sequence[Sequence[Panel | None]],
    stem: Path,
    title: str,
    note: str = "",
    labels: Sequence[str] = (),
    formats: Sequence[str] = ("png",),
    key: bool = False,
) -> list[Path]:
    """Draw panels in rows; heat maps share one colour bar from 0 to 1.

    The same input gives the same bytes.

    Args:
        rows: the panels, rows of equal length; None for a gap.
        stem: the file to write, without its ending; replaced as a whole.
        title: printed above all.
        note: printed below, small.
        labels: printed at the left of each row, wrapped.
        formats: endings, of "png" and "pdf".
        key: explain the colours of `errors`.

    Returns:
        The files, in the order of `formats`.

    Raises:
        InputError: a file cannot be written.
    """
    with style.drawing(_FINE):
        figure, axes = _grid(rows, title, note, key)
        heats = [
            image
            for line, panels in zip(axes, rows, strict=True)
            for image in map(_fill, line, panels)
            if image is not None
        ]
        for line, label in zip(axes, labels, strict=False):
            line[0].set_ylabel(textwrap.fill(label, 18))
        if heats:
            bar = figure.colorbar(
                heats[-1], ax=axes.ravel().tolist(), fraction=0.03, pad=0.02, aspect=30
            )
            bar.set_label("softmax value")
            bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
            bar.outline.set_linewidth(0.4)
        if key:
            _explain(figure)
        return style.save(figure, stem, formats)


def _grid(
    rows: Sequence[Sequence[Panel | None]], title: str, note: str, key: bool
) -> tuple[Figure, npt.NDArray[np.object_]]:
    columns = len(rows[0])
    side = min(_WIDEST, (style.WIDTH - _BAR) / columns)
    ratios = [_ratio(row) for row in rows]
    # What stands above and below the panels; the layout takes what it needs of it.
    text = sum(0.21 + 0.12 * any(p and p.note for p in row) for row in rows)
    text += 0.3 + 0.2 * key + 0.25 * bool(note)
    size = (side * columns + _BAR, side * sum(ratios) + text)
    figure = style.sheet(size, title, note, legend=key)
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=ratios)
    return figure, axes


def _ratio(row: Sequence[Panel | None]) -> float:
    """Height over width of the tallest panel of a row."""
    shapes = [panel.pixels.shape for panel in row if panel]
    return max(shape[0] / shape[1] for shape in shapes)


def _fill(axis: Axes, panel: Panel | None) -> Any:
    """Draw one panel; give back the heat map, if it is one."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    if panel is None:
        return None
    axis.set_title(panel.title, fontsize=7.5, loc="center", pad=3)
    axis.set_xlabel(panel.note, fontsize=6.5, labelpad=2)
    if panel.frame:
        _frame(axis, panel.frame)
    # Enlarged pixels stay pixels: smoothing would make up probabilities.
    if not panel.is_heat:
        axis.imshow(panel.pixels)
        return None
    return axis.imshow(panel.pixels, cmap=style.HEAT, vmin=0, vmax=1)


def _frame(axis: Axes, window: Window) -> None:
    """Show in the whole image where the detail is."""
    from matplotlib.patches import Rectangle

    rows, columns = window
    width, height = columns.stop - columns.start, rows.stop - rows.start
    corner = (columns.start - 0.5, rows.start - 0.5)
    axis.add_patch(
        Rectangle(corner, width, height, fill=False, edgecolor=_FRAME, linewidth=1)
    )


def _explain(figure: Figure) -> None:
    from matplotlib.patches import Patch

    colours = {
        "true positive": "white",
        "false positive": style.FALSE_POSITIVE,
        "false negative": style.FALSE_NEGATIVE,
    }
    style.legend(
        figure,
        {
            name: Patch(facecolor=colour, edgecolor="black", linewidth=0.4)
            for name, colour in colours.items()
        },
    )


def compare(
    image: npt.ArrayLike,
    truth: npt.ArrayLike,
    probabilities: Mapping[str, npt.ArrayLike],
    path: Path,
    title: str = "",
    detail: int | None = None,
) -> Path:
    """Draw a row: image, truth, and a softmax heat map for each loss.

    The same input gives the same bytes.

    Args:
        image: as for `photo`.
        truth: 1 where the target is, else 0, (rows, columns).
        probabilities: by the name to print: probability of the target, (rows,
            columns), in [0, 1].
        path: PNG file to write; replaced as a whole.
        title: printed above the row.
        detail: side of a square, in pixels: a second row shows that square, where the
            truth has most of the target. None for one row.

    Returns:
        `path`.

    Raises:
        ValueError: no probabilities, shapes that do not fit, values outside [0, 1].
        InputError: the file cannot be written.
    """
    panels = [photo(image), truth_of(truth)]
    panels += [heat(values, name) for name, values in probabilities.items()]
    _check(panels)
    rows, mask = [panels], np.asarray(truth)
    if detail is not None and detail < min(mask.shape):
        window = busiest_window(mask > 0, detail)
        rows = [
            [replace(panel, frame=window) for panel in panels],
            [replace(panel.cut(window), title="") for panel in panels],
        ]
    stem = path.with_name(path.name.removesuffix(".png"))
    return draw(rows, stem, title, labels=["", "detail"])[0]


def _check(panels: Sequence[Panel]) -> None:
    if len(panels) < 3:
        raise ValueError("probabilities: expected at least one map, received none.")
    shape = panels[0].pixels.shape[:2]
    for panel in panels[1:]:
        if panel.pixels.shape[:2] != shape:
            raise ValueError(
                f"{panel.title}: expected shape {shape}, that of the image, received "
                f"{panel.pixels.shape[:2]}."
            )


def busiest_window(weight: npt.ArrayLike, side: int) -> Window:
    """Find the square with most in it: the first one, of several.

    Args:
        weight: how much each pixel counts, a whole number from 0 up, (rows, columns);
            of a mask, 1 where the target is.
        side: side of the square, at most the smaller side of the image.

    Returns:
        The rows and the columns of the square.

    Raises:
        ValueError: a square that does not fit.
    """
    array = np.asarray(weight).astype(np.int64)
    if not 0 < side <= min(array.shape):
        raise ValueError(f"side: expected 1 to {min(array.shape)}, received {side}.")
    # Sums of all squares at once, as differences of sums from the corner.
    total = np.pad(array.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = (
        total[side:, side:]
        - total[:-side, side:]
        - total[side:, :-side]
        + total[:-side, :-side]
    )
    row, column = (int(i) for i in np.unravel_index(int(sums.argmax()), sums.shape))
    return slice(row, row + side), slice(column, column + side)


def _displayable(image: npt.ArrayLike) -> _Array:
    """Turn an image into bytes, (rows, columns, 3)."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise ValueError(
            "image: expected (rows, columns) with 1 or 3 channels, received shape "
            f"{np.shape(image)}."
        )
    if array.dtype != np.uint8:
        values = array.astype(np.float64)
        low, span = values.min(), np.ptp(values)
        array = np.round(255 * (values - low) / (span or 1.0)).astype(np.uint8)
    return np.broadcast_to(array, (*array.shape[:2], 3))
