"""The paper's figures from the runs at hand: curves, which are committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.reporting.figures import curves, style
from pipelines.reporting.frame import studies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "write_figures"]

_FOLDER = "figures"
FORMATS = ("svg", "pdf", "png")


def write_figures(results: Path) -> list[Path]:
    """Draw the curves of every `results/<dataset>/<preset>/` with a finished run.

    Returns:
        The files written, in order: `<dataset>/<preset>/figures/*`, then
        `figures/forest.*` of all data sets, each figure in all `FORMATS`. A figure
        that its runs cannot fill is removed.

    Raises:
        InputError: runs that cannot be joined; a folder that cannot be written.
    """
    written = []
    with style.drawing():
        for stem, figure in _drawn(results):
            if figure is not None:
                written += style.save(figure, stem, FORMATS)
                continue
            for kind in FORMATS:
                stem.with_name(f"{stem.name}.{kind}").unlink(missing_ok=True)
    return written


def _drawn(results: Path) -> Iterator[tuple[Path, Figure | None]]:
    """The path of each figure without its ending, and what is drawn."""
    found = studies(results)
    for study in found:
        folder = study.folder / _FOLDER
        yield folder / "figure2-softmax", curves.softmax(study)
        yield folder / "figure5-thresholds", curves.thresholds(study)
        yield folder / "table3-gamma", curves.gammas(study)
        yield folder / "reliability", curves.reliability(study)
    yield results / _FOLDER / "forest", curves.forest(found)
