"""Pictures of images in rows: truth, softmax heat maps, what a prediction gets wrong.

The caller gives arrays; nothing is read here. matplotlib is imported inside the
functions, since it takes half a second.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from pipelines.reporting.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDEST = 1.8  # inches of a panel; more columns make narrower ones
_BAR = 0.75  # inches to the right, for the colour bar
_FRAME = "#2ca8d2"
_DIPPED = 0.6  # of its brightness: what an image keeps under coloured errors
KEY = {
    "true positive": "#ffffff",
    "false positive": style.FALSE_POSITIVE,
    "false negative": style.FALSE_NEGATIVE,
}
"""Colours of `errors`."""

CLASSES = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"
)  # fmt: skip
"""Colours of `overlay`, from class 1 on, Okabe and Ito's; then they begin again."""

_Array = npt.NDArray[Any]
Window = tuple[slice, slice]
"""Rows and columns of a part of an image."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel of a picture, with a title above, a small note below.

    Attributes:
        pixels: bytes, (rows, columns, 3); of a heat map softmax values in [0, 1],
            (rows, columns), which are shown on a scale from 0 to 1.
        frame: a part to draw a frame around.
        aspect: height over width of a pixel.
    """

    pixels: _Array
    title: str = ""
    note: str = ""
    frame: Window | None = None
    aspect: float = 1.0

    @property
    def ratio(self) -> float:
        """Height over width of the panel."""
        return self.pixels.shape[0] / self.pixels.shape[1] * self.aspect

    def cut(self, window: Window | None) -> Panel:
        """The same panel of a part of the image; None for all of it."""
        return self if window is None else replace(self, pixels=self.pixels[window])

    def fill(self, axis: Axes) -> None:
        """Draw it, and a frame where the detail is."""
        from matplotlib.patches import Rectangle

        axis.set_title(self.title, fontsize=7.5, loc="center", pad=3)
        axis.set_xlabel(self.note, fontsize=6.5, labelpad=2)
        if self.frame:
            rows, columns = self.frame
            sides = columns.stop - columns.start, rows.stop - rows.start
            corner = (columns.start - 0.5, rows.start - 0.5)
            axis.add_patch(Rectangle(corner, *sides, fill=False, ec=_FRAME, lw=1))
        # Enlarged pixels stay pixels: smoothing would make up probabilities.
        scale: dict[str, Any] = {"cmap": style.HEAT, "vmin": 0, "vmax": 1}
        axis.imshow(self.pixels, aspect=self.aspect, **scale)


Row = list[Panel | None]
"""Panels side by side; None for a gap."""


def photo(image: npt.ArrayLike, title: str = "image") -> Panel:
    """Make a panel of an image, (rows, columns[, 1]) or RGB (rows, columns, 3).

    Bytes are shown as they are, other values stretched from black to white.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.dtype != np.uint8:
        values = array.astype(np.float64)
        low, span = values.min(), np.ptp(values)
        array = np.round(255 * (values - low) / (span or 1.0)).astype(np.uint8)
    return Panel(np.broadcast_to(array, (*array.shape[:2], 3)), title)


def truth_of(mask: npt.ArrayLike) -> Panel:
    """Make a panel of a mask, (rows, columns): white where it is not 0."""
    return photo(255 * (np.asarray(mask) > 0).astype(np.uint8), "truth")


def errors(
    image: npt.ArrayLike, truth: npt.ArrayLike, positive: npt.ArrayLike, title: str
) -> Panel:
    """Lay a prediction and what is wrong in it over an image (as Fig. 5).

    The image, as for `photo`, is shown in grey, dipped; true positives are white, false
    positives magenta, false negatives green. Both masks, (rows, columns), are not 0
    where the target is, or is predicted.
    """
    pixels = _dipped(image)
    true, predicted = np.asarray(truth) > 0, np.asarray(positive) > 0
    parts = (true & predicted, predicted & ~true, true & ~predicted)
    for part, colour in zip(parts, KEY.values(), strict=True):
        pixels[part] = list(bytes.fromhex(colour[1:]))
    return Panel(pixels, title)


def overlay(image: npt.ArrayLike, label: _Array, title: str) -> Panel:
    """Lay classes over an image, half transparent, in the colours of `CLASSES`.

    The image, as for `photo`, is shown in grey, dipped; `label` has class numbers,
    (rows, columns).
    """
    pixels = _dipped(image)
    for number in np.unique(label[label > 0]):
        colour = list(bytes.fromhex(CLASSES[(number - 1) % len(CLASSES)][1:]))
        inside = label == number
        pixels[inside] = pixels[inside] // 2 + np.array(colour, np.uint8) // 2
    return Panel(pixels, title)


def _dipped(image: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """An image in grey, (rows, columns, 3), so dark that colours on it stand out."""
    grey = photo(image).pixels.mean(axis=-1, keepdims=True) * _DIPPED
    return np.repeat(np.round(grey).astype(np.uint8), 3, axis=-1)


def in_rows(drawn: Sequence[Panel | None], most: int = 4) -> list[Row]:
    """Panels in as few rows as hold them, of equal length."""
    number = -(-len(drawn) // most)
    columns = -(-len(drawn) // number)
    row: Row = [*drawn, *[None] * (-len(drawn) % columns)]
    return [row[i : i + columns] for i in range(0, len(row), columns)]


def busiest_window(weight: npt.ArrayLike, side: int) -> Window:
    """Find the square with most in it, as rows and columns: the first of several.

    Args:
        weight: how much each pixel counts, a whole number from 0 up, (rows, columns).
        side: pixels, at most the smaller side of the image.
    """
    sums = np.asarray(weight).astype(np.int64)
    for axis in (0, 1):
        sums = sliding_window_view(sums, side, axis).sum(axis=-1)
    row, column = (int(i) for i in np.unravel_index(int(sums.argmax()), sums.shape))
    return slice(row, row + side), slice(column, column + side)


@dataclass(frozen=True, eq=False)
class Sheet:
    """Panels in rows of equal length; heat maps share one colour bar from 0 to 1.

    `labels` stand at the left of the rows; `key` explains colours, such as `KEY` those
    of `errors`; `scale` says what the colour bar shows.
    """

    rows: Sequence[Row]
    title: str
    note: str = ""
    labels: Sequence[str] = ()
    key: Mapping[str, str] = field(default_factory=dict)
    scale: str = "softmax value"

    def draw(self, stem: Path, formats: Sequence[str] = ("pdf", "png")) -> list[Path]:
        """Draw it; the same panels give the same bytes. See `style.save`."""
        with style.drawing("pictures"):
            ratios = [max(shown.ratio for shown in row if shown) for row in self.rows]
            figure = style.sheet(
                self._size(ratios), self.title, self.note, bool(self.key)
            )
            axes = figure.subplots(
                len(self.rows), len(self.rows[0]), squeeze=False, height_ratios=ratios
            )
            for axis, panel in zip(axes.flat, chain(*self.rows), strict=True):
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if panel:
                    panel.fill(axis)
            for axis, label in zip(axes[:, 0], self.labels, strict=False):
                axis.set_ylabel(textwrap.fill(label, 18))
            _explain(figure, self.key, self.scale)
            return style.save(figure, stem, formats)

    def _size(self, ratios: Sequence[float]) -> tuple[float, float]:
        columns = len(self.rows[0])
        side = min(_WIDEST, (style.width() - _BAR) / columns)
        # What stands above and below panels; the layout takes what it needs of it.
        notes = [0.12 * any(p and p.note for p in row) for row in self.rows]
        text = sum(0.21 + note for note in notes)
        text += 0.3 + 0.2 * bool(self.key) + 0.25 * bool(self.note)
        return side * columns + _BAR, side * sum(ratios) + text


def _explain(figure: Figure, key: Mapping[str, str], scale: str) -> None:
    """Add a colour bar where there is a heat map, and the key of the colours."""
    from matplotlib.patches import Patch

    shown: list[Any] = [image for axis in figure.axes for image in axis.images]
    heats = [image for image in shown if image.get_array().ndim == 2]
    if heats:
        bar = figure.colorbar(
            heats[-1], ax=figure.axes, fraction=0.03, pad=0.02, aspect=30
        )
        bar.set_label(scale)
        bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
        bar.outline.set_linewidth(0.4)
    if key:
        options: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.4}
        patches = {
            name: Patch(facecolor=colour, **options) for name, colour in key.items()
        }
        style.legend(figure, patches)
