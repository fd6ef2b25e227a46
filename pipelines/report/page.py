"""The page: what `dscpp tables` and `dscpp figures` make, laid out in one HTML file."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd

from data_io.errors import InputError
from pipelines.environment import commits
from pipelines.report import explorer
from pipelines.reporting import answers, calibration_tables, claims
from pipelines.reporting.figures import curves, style
from pipelines.reporting.figures.photographs import Locate
from pipelines.reporting.frame import Study
from pipelines.reporting.markdown import escape
from pipelines.reporting.pages import Page, Report
from pipelines.reporting.tables import OURS
from pipelines.runs.run import spelled, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 15_000_000
"""Bytes that a page may have."""

MARK = "<!-- dscpp report -->"
"""It stands near the begin of every page."""

_LEFT_OUT = ["method", "limit", "others_within", "p_same", "partner", "n_undefined"]
_CLAIMED = ["id", "claim", "dataset", "metric", "paper", "ours", "preset", "verdict"]
_OF_PAGE = {
    "temperature.csv": "temperature scaling",
    "practice.csv": "thresholds and volumes in practice",
    "other-sets.csv": "measured on other sets",
}

_Table = dict[str, Any]


def require_replaceable(path: Path) -> None:
    """Refuse to replace a file that is no page of ours.

    Raises:
        InputError: a folder, a link or another file is there.
    """
    begin = b""
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            begin = file.read(200)
    if os.path.lexists(path) and MARK.encode() not in begin:
        raise InputError(
            f"{path}: expected no file, or an earlier report, found another, which "
            "would be replaced; move it away or name another --output"
        )


def write(page: str, output: Path) -> Path:
    """Write a page, the text of `html`, into a file.

    Raises:
        InputError: another file is there, it cannot be written, or it has more than
            `LIMIT` bytes.
    """
    require_replaceable(output)
    text = page.encode()
    if len(text) > LIMIT:
        raise InputError(
            f"{output}: expected a page of at most {LIMIT / 1e6:g} MB, made one of "
            f"{len(text) / 1e6:.1f} MB; name fewer runs: `dscpp report RUN`"
        )
    return write_atomically(output, lambda aside: aside.write_bytes(text))


def html(report: Report, pages: Sequence[Page], locate: Locate) -> str:
    """Make the text of the page.

    Args:
        report: of all runs at hand.
        pages: of it, those that the page is about.
        locate: see `photographs.Locate`.
    """
    studies = [page.study for page in pages]
    over_all = report.over_all if any(len(one.cells) for one in studies) else {}
    records = [run.record for one in studies for run in one.every_run]
    seconds = sum(one.get("times", {}).get("train_s", 0) for one in records)
    with style.drawing("page"):
        forest = curves.forest(studies)
        context = {
            "mark": MARK,
            "commit": commits.commit(),
            "studies": [(explorer.named(one), one) for one in studies],
            "trained": any(one.preset for one in studies),
            "judged": not all(one.preset for one in studies),
            "questions": list(_questions(over_all)),
            "forest": _svg(forest) if forest else "",
            "tables": list(_tables(over_all, pages)),
            "diagrams": list(_diagrams(studies)),
            "learning": list(_learning(studies)),
            "explorer": explorer.data(pages, locate, bool(over_all)),
            "costs": _costs(pages),
            "hours": seconds / 3600,
            "made": _table("Runs", "run.json", pd.DataFrame(map(_made, studies))),
        }
    return template("page.html").render(context)


def template(name: str) -> jinja2.Template:
    """Load a template; values are escaped, an undefined name is an error."""
    is_html = name.endswith(".html")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=is_html,
        finalize=None if is_html else _in_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _in_markdown(value: Any) -> Any:
    """Escape what a template has not called safe, which then has `__html__`."""
    return value if hasattr(value, "__html__") else escape(str(value))


def _table(title: str, file: str, frame: pd.DataFrame) -> _Table:
    """Make a table for the page, without empty columns."""
    shown = frame.replace("", np.nan).dropna(axis="columns", how="all")
    shown.columns = [str(name).replace("_", " ") for name in shown]
    options: dict[str, Any] = {"classes": "sortable", "border": 0, "na_rep": ""}
    with pd.option_context("display.max_colwidth", None):
        text = shown.to_html(index=False, float_format="{:.4g}".format, **options)
    return {"title": title, "file": file, "n": len(shown), "html": text}


def _questions(over_all: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """Yield each question with its headline and all its comparisons."""
    if answers.FILE not in over_all:
        return
    rows = over_all[answers.FILE]
    for headline in answers.headlines(rows).to_dict("records"):
        question = headline["question"]
        lines = answers.answered(rows, question).replace("`", "", regex=True)
        yield {"headline": headline, "table": _table(question, answers.FILE, lines)}


def _tables(
    over_all: Mapping[str, pd.DataFrame], pages: Sequence[Page]
) -> Iterator[_Table]:
    """Yield published cells beside ours, the claims, and tables of each data set."""
    for name in ("table4.csv", "table3.csv", "table5.csv", "table6.csv"):
        if name in over_all:
            title = f"Table {name[5]} of the paper, published and ours"
            yield _table(title, name, over_all[name].drop(columns=_LEFT_OUT))
    if claims.FILE in over_all:
        rows = over_all[claims.FILE][_CLAIMED]
        yield _table("Claims of the paper", claims.FILE, rows)
    for page in pages:
        extra = {} if len(page.study.cells) else {OURS: "all measures"}
        for name, what in (extra | _OF_PAGE).items():
            if name in page.files:
                title = f"{explorer.named(page.study)}: {what}"
                yield _table(title, name, page.files[name])


def _svg(figure: Figure) -> str:
    with tempfile.TemporaryDirectory() as folder:
        (path,) = style.save(figure, Path(folder) / "figure", ["svg"])
        text = base64.b64encode(path.read_bytes()).decode()
    return f"data:image/svg+xml;base64,{text}"


def _diagrams(studies: Sequence[Study]) -> Iterator[dict[str, str]]:
    pairs = ((study, variant) for study in studies for variant in study.main)
    for study, variant in pairs:
        fields = {"dataset": explorer.named(study), "loss": variant.label}
        for target, region, reference in calibration_tables.Reader(
            study, variant
        ).groups():
            if reference == calibration_tables.OBSERVERS[0]:
                image = _svg(curves.diagram(study, target, variant, region))
                words = "whole image" if region == "image" else region
                yield fields | {"class": target, "region": words, "image": image}


def _learning(studies: Sequence[Study]) -> Iterator[dict[str, str]]:
    for study in studies:
        for variant, runs in study.runs.items():
            for run in runs:
                if figure := curves.learning(run):
                    fields = {"dataset": explorer.named(study), "loss": variant.label}
                    yield fields | {"run": run.folder.name, "image": _svg(figure)}


def _costs(pages: Sequence[Page]) -> _Table:
    parts = [
        page.files["costs.csv"].assign(dataset=explorer.named(page.study))
        for page in pages
    ]
    costs = pd.concat(parts, ignore_index=True)
    costs.insert(0, "dataset", costs.pop("dataset"))
    return _table("Costs", "costs.csv", costs)


def _made(study: Study) -> dict[str, object]:
    """Describe the software and hardware of a data set's runs."""
    records = [run.record for run in study.every_run]
    versions = [one.get("versions", {}) for one in records]
    return {
        "data set": explorer.named(study),
        "runs": len(records),
        "test images": len(study.cases),
        "data (SHA-256)": str(study.record.get("data_hash", ""))[:12],
        "overrides": _each(spelled(one.get("overrides", {})) for one in records),
        "commits": _each(str(one.get("commit", ""))[:12] for one in records),
        "backends": _each(one.get("backend") for one in records),
        "Keras": _each(one.get("keras") for one in versions),
        "devices": _each(one.get("device") for one in records),
    }


def _each(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(value) for value in values if value}))
