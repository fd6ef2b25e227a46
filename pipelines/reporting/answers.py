"""The answer on one page: six questions, the paper's figure beside ours for each.

`data/questions.yaml` says what is compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from pipelines.reporting import data
from pipelines.reporting.estimates import is_ratio, pooled, student
from pipelines.reporting.evidence import Pair, Runs
from pipelines.reporting.frame import Study
from pipelines.reporting.markdown import interval, table
from pipelines.reporting.published import Paper, Variant
from pipelines.reporting.tables import deciding, framed

FILE = "summary.csv"
_OF_CLAIM = ("parts", "parts_hold", "parts_not_run")
_ASKED: Sequence[Mapping[str, Any]] = data("questions")
QUESTIONS = tuple(one["question"] for one in _ASKED)
_WORDS = {"nll": "NLL", "brier": "Brier score", "dice": "Dice"}
_FITTED = "fitted temperature"
_PROPER = {"proper": "ours", "proper_low": "ci_low", "proper_high": "ci_high"}


@dataclass(frozen=True)
class _Line:
    """One comparison of a question, as `data/questions.yaml` has it."""

    question: str
    metric: str
    a: str
    b: str
    claims: str = ""

    @property
    def form(self) -> str:
        """How they are compared: "ratio", "difference", or "value" of `a` alone."""
        if self.metric == _FITTED:
            return "value"
        return "ratio" if is_ratio(self.metric) else "difference"

    @property
    def sides(self) -> list[Variant]:
        """Return both variants."""
        return [Variant.parse(self.a), Variant.parse(self.b)]

    @property
    def comparison(self) -> str:
        """Describe the comparison in words."""
        if self.form == "value":
            return f"best temperature of {self.b} (above 1: overconfident)"
        a, b = (one.replace("@", " at threshold ") for one in (self.a, self.b))
        sign = "/" if self.form == "ratio" else "-"
        return f"{_WORDS.get(self.metric, self.metric)}: {a} {sign} {b}"


def compared(
    study: Study,
    target: str,
    metric: str,
    sides: Sequence[Variant],
    corrected: bool = False,
) -> Pair | None:
    """Compare two losses as the verdicts do; None where one of them was not run.

    By the paper's word of a metric; `corrected` takes the NLL or Brier score of both
    terms.
    """
    runs, (a, b) = Runs(study, target, corrected), sides
    return runs.pair(a, b, metric) if runs.has(a) and runs.has(b) else None


def _temperature(study: Study, scaled: Variant) -> tuple[float, float, float, int]:
    """Return the mean fitted temperature, its interval (Student's t), and the seeds."""
    fitted = [run.record["posthoc"]["temperature"] for run in study.runs[scaled]]
    values = study.by_seed(scaled, fitted)
    spread, mean, n = pooled([values[:, np.newaxis]]), float(values.mean()), len(values)
    half = student(spread.df) * spread.s / math.sqrt(n)
    return mean, mean - half, mean + half, n


def _measured(
    line: _Line, study: Study, target: str, corrected: bool = False
) -> dict[str, object]:
    """Return our ratio or difference with its interval; {} where it was not run."""
    scaled, values = line.sides[0], tuple[float, ...]()
    if line.form == "value":
        values = _temperature(study, scaled) if scaled in study.runs else ()
    elif pair := compared(study, target, line.metric, line.sides, corrected):
        ours = pair.effect
        values = ours.mean, ours.ci_low, ours.ci_high, pair.seeds
    return dict(zip(("ours", "ci_low", "ci_high", "seeds"), values, strict=False))


def summary(
    paper: Paper, studies: Sequence[Study], claims: pd.DataFrame
) -> pd.DataFrame:
    """Answer the questions: `summary.csv`, a row for each comparison and data set.

    Of each data set the preset is taken that its claims (`claims.decide`) are put to.
    """
    rows: dict[tuple[_Line, str, str], dict[str, object]] = {}
    lines = [_Line(one["question"], **c) for one in _ASKED for c in one["comparisons"]]
    for line, study in product(lines, deciding(studies)):
        for target in study.targets:
            key = (line, study.title, target)
            if not rows.get(key):  # the first that has it
                rows[key] = _row(line, study, target, claims, paper)
    return framed(filter(None, rows.values()), "answers")


def _row(
    line: _Line, study: Study, target: str, claims: pd.DataFrame, paper: Paper
) -> dict[str, object]:
    """Make the row of one comparison on one data set; {} where it was not run."""
    claim = _claim(line, study.title, target, claims)
    ours = _measured(line, study, target)
    if not ours or (line.claims and not claim):
        return {}
    row: dict[str, object] = {
        "question": line.question,
        "comparison": line.comparison,
        "dataset": study.title,
        "target": target,
        "preset": study.preset,
        "form": line.form,
        "paper": _printed(line, study, target, paper),
        **ours,
        **{name: claim.get(name) for name in (*_OF_CLAIM, "verdict")},
        "claim": claim.get("id"),
    }
    if line.metric == "nll":
        proper = _measured(line, study, target, corrected=True)
        row |= {name: proper[column] for name, column in _PROPER.items()}
        row["verdict_proper"] = claim.get("verdict_corrected")
    return row


def _claim(
    line: _Line, title: str, target: str, claims: pd.DataFrame
) -> Mapping[str, object]:
    """Find the line's first claim about a data set, or its class; else {}."""
    for pattern in filter(None, line.claims.split("|")):
        for row in claims[claims["id"].str.fullmatch(pattern)].to_dict("records"):
            if {title, f"{title} ({target})"} & set(str(row["dataset"]).split("; ")):
                return row
    return {}


def _printed(line: _Line, study: Study, target: str, paper: Paper) -> float:
    """Return the paper's ratio or difference; NaN where it prints none."""
    named = target if len(study.targets) > 1 else ""
    means = paper.printed_means(study.title, named, line.sides, line.metric)
    if len(means) < len(line.sides):
        return math.nan
    a, b = (means[variant].value for variant in line.sides)
    return a / b if line.form == "ratio" else a - b


def answered(comparisons: pd.DataFrame, question: str) -> pd.DataFrame:
    """Return the cells of one of `QUESTIONS` out of `summary`, as text."""
    rows = comparisons[comparisons["question"] == question].to_dict("records")
    lines = pd.DataFrame([_cells(row) for row in rows])
    # Columns without an entry are left out.
    return lines.loc[:, lines.ne("").any()]


def markdown(comparisons: pd.DataFrame, question: str) -> str:
    """Lay out `answered` in Markdown."""
    lines = answered(comparisons, question)
    if lines.empty:
        return "*Not run yet.*"
    return table(lines, lines.to_numpy())


def headlines(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Make a line for each question, as text, of the first data set that was run."""
    lines = []
    for question in _ASKED:
        rows = comparisons[comparisons["comparison"] == question["headline"]].to_dict(
            "records"
        )
        line = {"question": question["question"], "compared": "not run yet"}
        for row in rows[:1]:
            cells = _cells(row)
            on = f"{cells['comparison']} ({row['dataset']}, {row['preset']})"
            shown = ("paper", "ours", "ours, both terms")
            line |= {"compared": on} | {name: cells[name] for name in shown}
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def brief(comparisons: pd.DataFrame) -> str:
    """Lay out `headlines` in Markdown."""
    rows = headlines(comparisons)
    return table(rows, rows.to_numpy())


def _cells(row: Mapping[str, object]) -> dict[str, str]:
    """Return the cells for a row of `summary`, by column head."""
    n = row["seeds"]
    on = f"{row['dataset']}, {row['target']}, preset {row['preset']}, {n} seed"
    return {
        "comparison": str(row["comparison"]),
        "on": on + ("s" if n != 1 else ""),
        "paper": _number(row, "paper"),
        "ours": _number(row, "ours", "ci_low", "ci_high"),
        "ours, both terms": _number(row, "proper", "proper_low", "proper_high"),
        "verdict on the claim": _verdict_text(row),
    }


def _number(row: Mapping[str, object], *names: str) -> str:
    """Write a value with its interval, each empty where there is none."""
    # Differences are of Dice, recall or precision.
    of_difference = row["form"] == "difference"
    form, limits = ("+.3f", (-1, 1)) if of_difference else (".2f", (0, math.inf))
    value, *ends = (float(str(row[name])) for name in names)
    if math.isnan(value):
        return ""
    return format(value, form) + (interval(ends, form, limits) if ends else "")


def _verdict_text(row: Mapping[str, object]) -> str:
    """Write the verdict on the claim, with its parts; "" without a claim."""
    if not isinstance(row["claim"], str):
        return ""
    text, (parts, hold, lacking) = str(row["verdict"]), (row[n] for n in _OF_CLAIM)
    if hold != parts:
        known = f"{hold:g} of {parts:g} parts hold"
        text += f", {known}, {lacking:g} not run" if lacking else f", {known}"
    other = row["verdict_proper"]
    if isinstance(other, str) and other not in ("", row["verdict"]):
        text += f"; {other} by both terms"
    return f"{text} (`{row['claim']}`)"
