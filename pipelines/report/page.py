"""The page: everything that `dscpp tables` and `figures` say, to be looked at.

One HTML file that needs nothing beside it. What the tables and figures have is made by
`pipelines.reporting`; here it is laid out.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from data_io import bars
from data_io.errors import InputError
from pipelines import commits
from pipelines.report import explorer
from pipelines.reporting import answers, calibration, claims
from pipelines.reporting.figures import curves, style
from pipelines.reporting.frame import Study
from pipelines.reporting.pages import Page, Report
from pipelines.reporting.tables import OURS
from pipelines.run import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 15_000_000
"""Bytes that a page may have."""

MARK = "<!-- dscpp report -->"
"""Every page begins so."""

_HERE = Path(__file__).parent
_REGIONS = {"image": "whole image"}
_PUBLISHED = (
    "dataset preset loss gamma target metric mean standard_error ci_low ci_high seeds n "
    "published published_se difference verdict direction"
).split()
_CLAIMED = "id claim dataset metric paper ours verdict verdict_corrected preset".split()
_COSTS = (
    "dataset preset loss gamma method seed replicate backend device machine epochs "
    "train_s seconds_per_epoch predict_s evaluate_s peak_memory_mb"
).split()


def _table(title: str, file: str, frame: pd.DataFrame) -> dict[str, Any]:
    """A table for the page, without columns that say nothing."""
    shown = frame.replace("", np.nan).dropna(axis="columns", how="all")
    shown.columns = [str(name).replace("_", " ") for name in shown]
    with pd.option_context("display.max_colwidth", None):
        html = shown.to_html(
            index=False, border=0, na_rep="", float_format="{:.4g}".format,
            classes="sortable",
        )  # fmt: skip
    return {"title": title, "file": file, "n": len(shown), "html": Markup(html)}


def require_replaceable(path: Path) -> None:
    """Refuse to replace a file that is no page of ours.

    Raises:
        InputError: a folder, a link or another file is there.
    """
    if not os.path.lexists(path):
        return
    begin = b""
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            begin = file.read(200)
    if MARK.encode() not in begin:
        raise InputError(
            f"{path}: expected no file, or an earlier report, found another, which "
            "would be replaced; move it away or name another --output"
        )


def write(
    report: Report, pages: Sequence[Page], locate: explorer.Locate, output: Path
) -> Path:
    """Write the page.

    Args:
        report: of all runs at hand.
        pages: of it, those that the page is about.
        locate: as for `explorer.data`.
        output: the HTML file.

    Raises:
        InputError: another file is there, or it cannot be written.
    """
    require_replaceable(output)
    text = html(report, pages, locate)
    if len(text.encode()) > LIMIT:
        raise InputError(
            f"{output}: expected a page of at most {LIMIT / 1e6:g} MB, made one of "
            f"{len(text.encode()) / 1e6:.1f} MB; name fewer runs: `dscpp report RUN`"
        )
    return write_atomically(output, lambda aside: aside.write_text(text, "utf-8"))


def html(report: Report, pages: Sequence[Page], locate: explorer.Locate) -> str:
    """Make the text of the page; arguments as for `write`."""
    studies = [page.study for page in pages]
    over_all = report.over_all if any(len(one.cells) for one in studies) else {}
    shown = explorer.data(pages, locate)
    context = {
        "mark": MARK,
        "commit": commits.commit(),
        "studies": [_described(one) for one in studies],
        "questions": _questions(over_all),
        "forest": _forest(studies),
        "tables": list(_tables(over_all, pages)),
        "diagrams": list(_diagrams(studies)),
        "explorer": shown,
        "costs": _table("Costs", "costs.csv", _costs(pages)),
        "hours": sum(_hours(one) for one in studies),
        "made": _made(studies),
    }
    return environment(True).get_template("page.html").render(context)


def environment(autoescape: bool) -> jinja2.Environment:
    """Where the templates are; HTML is escaped, and an undefined name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _questions(over_all: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Each question: its headline, and every comparison of it."""
    if answers.FILE not in over_all:
        return []
    found = over_all[answers.FILE]
    heads = answers.headlines(found).set_index("question")
    return [
        {"asked": asked, "headline": heads.loc[asked].to_dict(),
         "table": _table(asked, answers.FILE, answers.answered(found, asked))}
        for asked in answers.QUESTIONS
    ]  # fmt: skip


def _tables(over_all: dict[str, pd.DataFrame], pages: Sequence[Page]) -> Iterator[dict[str, Any]]:
    """Published cells beside ours, the claims, and what each data set has besides."""
    for name in ("table4.csv", "table3.csv", "table5.csv", "table6.csv"):
        if name in over_all:
            title = f"Table {name[5]} of the paper, published and ours"
            yield _table(title, name, over_all[name][_PUBLISHED])
    if claims.FILE in over_all:
        yield _table("Claims of the paper", claims.FILE, over_all[claims.FILE][_CLAIMED])
    for page in pages:
        about = f"{curves.name_of(page.study.record)}, preset {page.study.preset}"
        if not len(page.study.cells):
            yield _table(f"{about}: all measures", OURS, page.files[OURS])
        for name, what in _OF_PAGE.items():
            if name in page.files:
                yield _table(f"{about}: {what}", name, page.files[name])


_OF_PAGE = {
    "temperature.csv": "temperature scaling",
    "practice.csv": "thresholds and volumes in practice",
    "other-sets.csv": "measured on other sets",
}


def _svg(figure: Figure, place: Path) -> str:
    """A figure as the address of an image that is in the page itself."""
    (path,) = style.save(figure, place / "figure", ["svg"])
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _forest(studies: Sequence[Study]) -> str:
    with style.drawing("page"), tempfile.TemporaryDirectory() as place:
        figure = curves.forest(studies)
        return _svg(figure, Path(place)) if figure else ""


def _diagrams(studies: Sequence[Study]) -> Iterator[dict[str, str]]:
    """A reliability diagram of each data set, class, region and loss."""
    with style.drawing("page"), tempfile.TemporaryDirectory() as place:
        for study in bars.bar(studies, "reliability", unit="data set"):
            for variant in study.main:
                places = calibration.Reader(study, variant).places()
                for target, region, reference in places:
                    if reference == calibration.OBSERVERS[0]:
                        figure = curves.diagram(study, target, variant, region)
                        yield {
                            "dataset": _named(study),
                            "class": target,
                            "region": _REGIONS.get(region, region),
                            "loss": variant.label,
                            "image": _svg(figure, Path(place)),
                        }


def _named(study: Study) -> str:
    return f"{curves.name_of(study.record)}, preset {study.preset}"


def _costs(pages: Sequence[Page]) -> pd.DataFrame:
    parts = [
        page.files["costs.csv"].assign(dataset=page.study.title, preset=page.study.preset)
        for page in pages
    ]
    return pd.concat(parts, ignore_index=True)[_COSTS]


def _hours(study: Study) -> float:
    times = (run.record.get("times", {}) for run in study.every_run)
    return float(np.sum([one.get("train_s", 0) for one in times])) / 3600


def _described(study: Study) -> dict[str, Any]:
    return {
        "name": _named(study),
        "about": study.about(study.main or study.runs),
        "simulated": study.simulated,
        "runs": len(study.every_run),
    }


def _made(studies: Sequence[Study]) -> dict[str, Any]:
    """What the runs of each data set were made with."""
    rows = []
    for study in studies:
        records = [run.record for run in study.every_run]
        versions = [one.get("versions", {}) for one in records]
        rows.append({
            "dataset": _named(study),
            "runs": len(records),
            "test images": len(study.cases),
            "data (SHA-256)": str(study.record.get("data_hash", ""))[:12],
            "commits": _each(str(one.get("commit", ""))[:12] for one in records),
            "backends": _each(one.get("backend") for one in records),
            "Keras": _each(one.get("keras") for one in versions),
            "devices": _each(one.get("device") for one in records),
        })  # fmt: skip
    return _table("runs", "run.json", pd.DataFrame(rows))


def _each(values: Any) -> str:
    return ", ".join(sorted({str(one) for one in values if one}))
