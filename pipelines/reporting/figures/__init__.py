"""The paper's figures from the runs at hand: curves, which are committed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.reporting.figures import curves, reliability, style
from pipelines.reporting.frame import Study, studies
from pipelines.reporting.published import Paper, paper_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FOLDER", "FORMATS", "write_figures"]

FOLDER = "figures"
FORMATS = ("svg", "pdf", "png")


def write_figures(results: Path) -> list[Path]:
    """Draw the curves of every `results/<dataset>/<preset>/` with a finished run.

    Args:
        results: the folder of all results.

    Returns:
        The files written, in order: `<dataset>/<preset>/figures/*`, each figure in all
        `FORMATS`. A figure that its runs cannot fill is removed.

    Raises:
        InputError: runs that cannot be joined; a folder that cannot be written.
    """
    written = []
    with style.drawing():
        for study in studies(results, Paper(paper_folder(results))):
            for name, figure in _curves(study).items():
                stem = study.folder / FOLDER / name
                if figure is None:
                    for kind in FORMATS:
                        (stem.parent / f"{name}.{kind}").unlink(missing_ok=True)
                else:
                    written += style.save(figure, stem, FORMATS)
    return written


def _curves(study: Study) -> dict[str, Figure | None]:
    """The figures of one data set and preset, by the name of their files."""
    return {
        "figure2-softmax": curves.softmax(study),
        "figure5-thresholds": curves.thresholds(study),
        "table3-gamma": curves.gammas(study),
        "reliability": reliability.diagrams(study),
    }
