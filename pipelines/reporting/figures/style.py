"""How every figure looks: one colour for each loss, font sizes, stable bytes.

matplotlib is imported inside the functions, since it takes half a second.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.reporting import DATA, data
from pipelines.runs.run import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAT = "inferno"
"""Colour map of probabilities, even to the eye and safe; dark is 0, bright is 1."""

FALSE_POSITIVE, FALSE_NEGATIVE = "#ff00ff", "#00c800"
"""Magenta and green, as in the paper: told apart with any kind of colour vision."""

PUBLISHED = "#595959"
"""Values that the paper prints."""

_COLOURS: Mapping[str, str] = data("colours")
LOSSES = tuple(_COLOURS)
"""All losses that have a colour."""

_HEADING: dict[str, Any] = {"x": 0.01, "ha": "left"}
_HEADING |= {"fontsize": 8.5, "fontweight": "bold", "linespacing": 1.5}
_LEGEND_COLUMN, _TEXTS = 1.15, 0.5  # inches: width; height of title and note
# Without versions and dates, the same figure is the same file.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def colour(loss: str) -> str:
    """Return the colour of a loss, such as "#0072b2" for DSC++; grey if unknown."""
    return _COLOURS.get(loss, PUBLISHED)


def line(loss: str) -> dict[str, Any]:
    """Return colour and dashes of a loss; ++ forms are solid, to work in grey print."""
    plain = "--" if f"{loss}++" in _COLOURS else ":"
    dashes = "-" if loss.endswith("++") else plain
    return {"color": colour(loss), "linestyle": dashes}


def elements(record: Mapping[str, Any]) -> str:
    """Return what the images of a `run.json` consist of: "pixels" or "voxels"."""
    shape = record.get("settings", {}).get("input_shape", ())
    return "voxels" if len(shape) == 3 else "pixels"


@contextlib.contextmanager
def drawing(*more: str, width: float | None = None) -> Iterator[None]:
    """Draw with `figures.mplstyle`, whatever the user's own matplotlibrc says.

    `more` names style sheets with further settings, such as "pictures"; `width` in
    inches replaces the sheet's.
    """
    import matplotlib.style

    sheets = [DATA / f"{name}.mplstyle" for name in ("figures", *more)]
    size = {"figure.figsize": (width, 1)} if width else {}
    with matplotlib.style.context(["default", *sheets, size]):
        yield


def width() -> float:
    """Return the width of a figure in inches, within `drawing`."""
    from matplotlib import rcParams

    return float(rcParams["figure.figsize"][0])


def sheet(
    size: tuple[float, float], title: str, note: str = "", legend: bool = False
) -> Figure:
    """Make an empty figure of a width and height in inches; call it within `drawing`.

    The title is above all panels, the note in small print below; both are wrapped to
    the width. `legend` leaves space for a legend under the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot, which keeps global state.
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    lines = textwrap.fill(title, int(size[0] * 13))
    figure.suptitle(lines + "\n " * legend, **_HEADING)
    if note:
        lines = textwrap.fill(note, int(size[0] * 20))
        figure.supxlabel(lines, x=0.01, ha="left", fontsize=6.5, color="#404040")
    return figure


def legend(figure: Figure, key: Mapping[str, Any] | None = None) -> None:
    """Put one legend for all panels under the title, with each name once.

    `key` has a handle for each name; None takes those of the panels.
    """
    handles = dict(key or {})
    for axis in () if key else figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    title_lines = figure.get_suptitle().count("\n")
    below_title = 1 - (0.02 + 0.18 * title_lines) / figure.get_figheight()
    columns = min(len(handles), max(1, int(width() / _LEGEND_COLUMN)))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="upper left",
        bbox_to_anchor=(0, below_title),
        ncols=columns,
    )
    if more := -(-len(handles) // columns) - 1:
        figure.suptitle(figure.get_suptitle() + "\n " * more, **_HEADING)


def leave_bare(figure: Figure) -> None:
    """Remove title and note, since a paper has a caption."""
    rows = figure.get_suptitle().count("\n ")
    figure.set_figheight(figure.get_figheight() - _TEXTS)
    figure.suptitle("\n ".join(" " * rows), **_HEADING)
    figure.supxlabel("")
    for key in figure.legends:
        key.set_bbox_to_anchor((0, 1))


def save(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write a figure as `stem` with each ending; the same figure gives the same bytes.

    Each file is written atomically. Call it within `drawing`.

    Raises:
        InputError: a file cannot be written.
    """

    def write(aside: Path) -> None:
        kind = aside.suffix[1:]
        figure.savefig(aside, format=kind, metadata=_METADATA[kind])

    # Not with_suffix: a name may have dots in it.
    return [
        write_atomically(stem.parent / f"{stem.name}.{kind}", write) for kind in formats
    ]
