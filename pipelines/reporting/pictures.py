"""Pictures of one image: truth beside the softmax heat maps of the losses.

The caller gives arrays; nothing is read here. matplotlib is imported inside the
functions, since it takes half a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipelines.run import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["busiest_window", "compare"]

# Perceptually even and safe for colour-blind readers; dark is 0, bright is 1.
_COLOURS = "inferno"
_PANEL = 2.6  # inches
_FRAME = "#2ca8d2"
_DPI = 120

_Array = npt.NDArray[Any]


def compare(
    image: npt.ArrayLike,
    truth: npt.ArrayLike,
    probabilities: Mapping[str, npt.ArrayLike],
    path: Path,
    title: str = "",
    detail: int | None = None,
) -> Path:
    """Draw a row: image, truth, and a softmax heat map for each loss.

    The heat maps share one colour bar from 0 to 1, as Fig. 1 of the paper. The same
    input gives the same bytes.

    Args:
        image: (rows, columns), (rows, columns, 1) or RGB (rows, columns, 3); bytes, or
            values of any range, which are stretched from black to white.
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
    picture, mask = _displayable(image), np.asarray(truth)
    maps = {name: np.asarray(values) for name, values in probabilities.items()}
    _check(picture, mask, maps)
    windows = [(slice(None), slice(None))]
    if detail is not None and detail < min(mask.shape):
        windows.append(busiest_window(mask, detail))
    figure, axes = _grid(len(windows), 2 + len(maps), mask.shape, title)
    for row, window in zip(axes, windows, strict=True):
        heat = _draw_row(
            row, picture[window], mask[window], [m[window] for m in maps.values()]
        )
    for axis, name in zip(axes[0], ["image", "truth", *maps], strict=True):
        axis.set_title(name, fontsize=11)
    if len(windows) > 1:
        for axis in axes[0]:
            _frame(axis, windows[1])
        axes[1][0].set_ylabel("detail", fontsize=10)
    bar = figure.colorbar(
        heat, ax=axes[:, 2:].ravel().tolist(), fraction=0.05, pad=0.02
    )
    bar.set_label("probability of the target (softmax)", fontsize=9)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
    return _save(figure, path)


def busiest_window(mask: npt.ArrayLike, side: int) -> tuple[slice, slice]:
    """Find the square with most of the target in it: the first one, of several.

    Args:
        mask: 1 where the target is, else 0, (rows, columns).
        side: side of the square, at most the smaller side of the mask.

    Returns:
        The rows and the columns of the square.

    Raises:
        ValueError: a square that does not fit.
    """
    array = np.asarray(mask) > 0
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


def _check(picture: _Array, mask: _Array, maps: Mapping[str, _Array]) -> None:
    if not maps:
        raise ValueError("probabilities: expected at least one map, received none.")
    for name, array in {"truth": mask, **maps}.items():
        if array.shape != picture.shape[:2]:
            raise ValueError(
                f"{name}: expected shape {picture.shape[:2]}, that of the image, "
                f"received {array.shape}."
            )
    for name, array in maps.items():
        if not (array.min() >= -1e-5 and array.max() <= 1 + 1e-5):
            raise ValueError(
                f"{name}: expected probabilities in [0, 1], received {array.min()} to "
                f"{array.max()}."
            )


def _grid(
    rows: int, columns: int, shape: tuple[int, ...], title: str
) -> tuple[Figure, npt.NDArray[np.object_]]:
    """Make a figure without pyplot, which would keep a state for all callers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = _PANEL * (shape[0] / shape[1] + (rows - 1))
    size = (_PANEL * columns + 0.9, height + (0.8 if title else 0.45))
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    ratios = [shape[0] / shape[1], *[1.0] * (rows - 1)]
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=ratios)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure, axes


def _draw_row(
    axes: npt.NDArray[np.object_], picture: _Array, mask: _Array, maps: list[_Array]
) -> AxesImage:
    """Fill a row of panels; give back the last heat map, for the colour bar."""
    # Pixels stay pixels: smoothing would make up probabilities.
    axes[0].imshow(picture, interpolation="nearest")
    axes[1].imshow(mask > 0, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    heats = [
        axis.imshow(one, cmap=_COLOURS, vmin=0, vmax=1, interpolation="nearest")
        for axis, one in zip(axes[2:], maps, strict=True)
    ]
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    return heats[-1]


def _frame(axis: Axes, window: tuple[slice, slice]) -> None:
    """Show in the whole image where the detail is."""
    from matplotlib.patches import Rectangle

    rows, columns = window
    width, height = columns.stop - columns.start, rows.stop - rows.start
    corner = (columns.start - 0.5, rows.start - 0.5)
    axis.add_patch(
        Rectangle(corner, width, height, fill=False, edgecolor=_FRAME, linewidth=1.2)
    )


def _save(figure: Figure, path: Path) -> Path:
    # Without matplotlib's version in it, the same picture is the same file.
    return write_atomically(
        Path(path),
        lambda aside: figure.savefig(aside, format="png", metadata={"Software": None}),
    )
