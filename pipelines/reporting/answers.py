"""The answer on one page: six questions, the paper's figure beside ours for each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipelines.reporting.estimates import is_ratio, pooled, student
from pipelines.reporting.evidence import Printed, Quantity, Runs
from pipelines.reporting.frame import Study
from pipelines.reporting.markdown import table
from pipelines.reporting.published import Paper, Variant
from pipelines.reporting.tables import TEMPERATURE, deciding

__all__ = ["FILE", "QUESTIONS", "brief", "compared", "markdown", "summary"]

FILE = "summary.csv"
_COLUMNS = (
    "question", "comparison", "dataset", "target", "preset", "seeds", "form", "paper",
    "ours", "ci_low", "ci_high", "proper", "proper_low", "proper_high", "claim",
    "verdict", "verdict_proper", "parts", "parts_hold", "parts_not_run",
)  # fmt: skip
_OF_CLAIM = ("parts", "parts_hold", "parts_not_run")

QUESTIONS = (
    "Is DSC overconfident, and does DSC++ correct it?",
    "Is DSC++ as calibrated as CE?",
    "What does DSC++ cost in Dice?",
    "Does the ++ form carry over to other losses?",
    "Can a softmax threshold trade recall for precision?",
    "Is temperature scaling of DSC enough?",
)

_SCALED = Variant("DSC", None, TEMPERATURE)
_FITTED = "fitted temperature"


@dataclass(frozen=True)
class _Line:
    """One comparison of a question.

    Attributes:
        question: an index of `QUESTIONS`.
        text: what is compared; {a} and {b} stand for the two.
        metric: the paper's word, such as "nll"; or `_FITTED`.
        a: a loss with a threshold, or a variant; so is `b`.
        claims: patterns of the ids of the claims that it bears on, the likeliest
            first; it is shown for their data sets. "" for none: shown for all.
    """

    question: int
    text: str
    metric: str
    a: str | Variant
    b: str | Variant
    claims: str = ""

    @property
    def form(self) -> str:
        """How they are compared: "ratio", "difference", or "value" of `a` alone."""
        if self.metric == _FITTED:
            return "value"
        return "ratio" if is_ratio(self.metric) else "difference"

    @property
    def sides(self) -> list[Quantity]:
        """Both of them."""
        found = (self.a, self.b)
        return [Quantity.parse(x) if isinstance(x, str) else Quantity(x) for x in found]

    @property
    def comparison(self) -> str:
        """What is compared, in words."""
        names = [one.label.replace("@", " at threshold ") for one in self.sides]
        return self.text.format(a=names[0], b=names[1])


_LESS = "{a} - {b}"
_LINES = (
    _Line(0, "best temperature of DSC (above 1: overconfident)", _FITTED, _SCALED,
          "DSC"),
    _Line(0, "NLL: {a} / {b}", "nll", "DSC", "CE", "1-ce-calibrated"),
    _Line(0, "NLL: {a} / {b}", "nll", "DSC++", "DSC", r"3.2.[12]-nll-(?!same).*"),
    _Line(0, "Brier score: {a} / {b}", "brier", "DSC++", "DSC",
          r"3.2.[12]-brier-(?!lowest).*|1-contribution-2"),
    _Line(1, "NLL: {a} / {b}", "nll", "DSC++", "CE",
          r"3.2.1-nll-same-.*|3.2.2-same-.*"),
    _Line(1, "Brier score: {a} / {b}", "brier", "DSC++", "CE",
          r"3.2.1-brier-lowest-.*|3.2.2-same-.*"),
    _Line(2, f"Dice: {_LESS}", "dice", "DSC++", "DSC",
          r"3.1-no-cost|3.2.[12]-dice-highest.*"),
    *(
        _Line(3, f"{word}: {{a}} / {{b}}", metric, f"{loss}++", loss, f"3.3-{claim}")
        for loss, claim in (("Tversky", "tversky"), ("Focal Tversky", "focal-tversky"),
                            ("Combo", "combo"), ("Unified Focal", "unified-focal"))
        for word, metric in (("NLL", "nll"), ("Brier score", "brier"))
    ),
    _Line(4, f"recall: {_LESS}", "recall", "DSC++@0.2", "DSC++@0.8",
          "1-contribution-4-recall"),
    _Line(4, f"precision: {_LESS}", "precision", "DSC++@0.8", "DSC++@0.2",
          "1-contribution-4-precision"),
    _Line(4, f"recall: {_LESS}", "recall", "DSC@0.2", "DSC@0.8", "3.4-dsc-steady"),
    *(
        _Line(4, f"Dice: {_LESS}", "dice", f"DSC++@{at}", "DSC++@0.5",
              "3.4-dice-0.2-0.8")
        for at in ("0.2", "0.8")
    ),
    _Line(5, "NLL: {a} / {b}", "nll", _SCALED, "DSC"),
    _Line(5, "NLL: {a} / {b}", "nll", _SCALED, "DSC++"),
)  # fmt: skip


class Compared(NamedTuple):
    """A ratio, difference or mean, its 95 % interval (NaN: not known), seeds."""

    ours: float
    ci_low: float
    ci_high: float
    seeds: int


def compared(
    study: Study,
    target: str,
    metric: str,
    sides: Sequence[Quantity],
    corrected: bool = False,
) -> Compared | None:
    """Compare two losses as the verdicts do, by the paper's word of a metric.

    `corrected` takes the NLL or Brier score of both terms.

    Returns:
        The ratio of NLL or Brier score, else the difference; None where one side was
        not run.
    """
    runs = Runs(study, target, corrected)
    if not all(map(runs.has, sides)):
        return None
    a, b = sides
    pair = runs.pair(a, b, metric)
    effect = pair.effect
    return Compared(effect.mean, effect.ci_low, effect.ci_high, pair.seeds)


def _temperature(study: Study) -> Compared | None:
    """The mean fitted temperature of DSC over seeds, with Student's t."""
    if _SCALED not in study.runs:
        return None
    found = [run.record["posthoc"]["temperature"] for run in study.runs[_SCALED]]
    values = study.by_seed(_SCALED, found)
    spread = pooled([values[:, np.newaxis]])
    mean, error = float(values.mean()), spread.s / math.sqrt(len(values))
    half = student(spread.df) * error
    return Compared(mean, mean - half, mean + half, len(values))


def summary(
    paper: Paper, studies: Sequence[Study], claims: pd.DataFrame
) -> pd.DataFrame:
    """Answer the questions: `summary.csv`, a row for each comparison and data set.

    Of each data set the preset is taken that its claims (`claims.decide`) are put to.
    """
    printed = Printed(paper)
    rows: dict[tuple[_Line, str, str], dict[str, object]] = {}
    for line in _LINES:
        for study in deciding(studies):
            for target in study.targets:
                key = (line, study.title, target)
                if not rows.get(key):  # the first that has it
                    rows[key] = _row(line, study, target, claims, printed)
    return pd.DataFrame(filter(None, rows.values()), columns=list(_COLUMNS))


def _row(
    line: _Line, study: Study, target: str, claims: pd.DataFrame, printed: Printed
) -> dict[str, object]:
    """One comparison on one data set; {} where it was not run."""
    metric, claim = line.metric, _claim(line, study.title, target, claims)
    if metric == _FITTED:
        ours = _temperature(study)
    else:
        ours = compared(study, target, metric, line.sides)
    if ours is None or (line.claims and claim is None):
        return {}
    row: dict[str, object] = {"question": QUESTIONS[line.question]}
    row |= {"comparison": line.comparison, "dataset": study.title, "target": target}
    row |= {"preset": study.preset, "form": line.form}
    row |= ours._asdict()
    named = target if len(study.targets) > 1 else ""
    row |= {"paper": _printed(line, printed, study.title, named)}
    if metric == "nll":
        proper = compared(study, target, metric, line.sides, corrected=True)
        ends = ("proper", "proper_low", "proper_high")
        row |= dict(zip(ends, proper or (), strict=False))
    return row | _verdict(claim, metric == "nll")


def _claim(
    line: _Line, title: str, target: str, claims: pd.DataFrame
) -> Mapping[str, object] | None:
    """The first claim of the line that is about a data set, or its class."""
    for pattern in filter(None, line.claims.split("|")):
        for row in claims[claims["id"].str.fullmatch(pattern)].to_dict("records"):
            if {title, f"{title} ({target})"} & set(str(row["dataset"]).split("; ")):
                return row
    return None


def _verdict(claim: Mapping[str, object] | None, proper: bool) -> dict[str, object]:
    """The claim's own words, and how many of its parts they rest on."""
    if claim is None:
        return {}
    found = {name: claim.get(name) for name in _OF_CLAIM}
    found |= {"claim": claim["id"], "verdict": claim["verdict"]}
    return found | (
        {"verdict_proper": claim.get("verdict_corrected")} if proper else {}
    )


def _printed(line: _Line, printed: Printed, title: str, target: str) -> float:
    """The paper's figure; NaN where it prints none."""
    sides = line.sides
    if line.form == "value" or any(one.variant.method for one in sides):
        return math.nan
    found = printed.figures(title, target, sides, line.metric)
    if len(found) < len(sides):
        return math.nan
    a, b = (found[one].mean for one in sides)
    return a / b if line.form == "ratio" else a - b


def markdown(found: pd.DataFrame, question: str) -> str:
    """Lay out one of `QUESTIONS` of what `summary` found."""
    rows = found[found["question"] == question].to_dict("records")
    if not rows:
        return "*Not run yet.*"
    lines = pd.DataFrame([_cells(row) for row in rows])
    # Columns that say nothing on this question are left out.
    lines = lines.loc[:, lines.ne("").any()]
    return table(list(lines), lines.to_numpy().tolist())


# What speaks for a question where there is room for one line.
_HEADLINES = (
    "NLL: DSC++ / DSC",
    "NLL: DSC++ / CE",
    "Dice: DSC++ - DSC",
    "NLL: Tversky++ / Tversky",
    "recall: DSC++ at threshold 0.2 - DSC++ at threshold 0.8",
    "NLL: DSC + temperature / DSC++",
)


def brief(found: pd.DataFrame) -> str:
    """Lay out one line a question: of the paper's first data set that was run."""
    lines = []
    for question, headline in zip(QUESTIONS, _HEADLINES, strict=True):
        rows = found[found["comparison"] == headline].to_dict("records")
        if not rows:
            lines.append({"question": question, "compared": "not run yet"})
            continue
        row = rows[0]
        cells = _cells(row)
        on = f"{cells['comparison']} ({row['dataset']}, {row['preset']})"
        shown = {name: cells[name] for name in ("paper", "ours", "ours, both terms")}
        lines.append({"question": question, "compared": on} | shown)
    table_of = pd.DataFrame(lines).fillna("")
    return table(list(table_of), table_of.to_numpy().tolist())


def _cells(row: Mapping[str, object]) -> dict[str, str]:
    n = row["seeds"]
    on = f"{row['dataset']}, {row['target']}, preset {row['preset']}, {n} seed"
    return {
        "comparison": str(row["comparison"]),
        "on": on + ("s" if n != 1 else ""),
        "paper": _number(row, "paper"),
        "ours": _number(row, "ours", "ci_low", "ci_high"),
        "ours, both terms": _number(row, "proper", "proper_low", "proper_high"),
        "verdict on the claim": _said(row),
    }


def _number(row: Mapping[str, object], *names: str) -> str:
    """A value with its interval, each empty where there is none."""
    form = "{:+.3f}" if row["form"] == "difference" else "{:.2f}"
    value, *ends = (float(str(row[name])) for name in names)
    if math.isnan(value):
        return ""
    known = [form.format(end) for end in ends if not math.isnan(end)]
    return form.format(value) + (f" [{', '.join(known)}]" if known else "")


def _said(row: Mapping[str, object]) -> str:
    """The verdict on the claim, with what bears on it; "" without a claim."""
    if not isinstance(row["claim"], str):
        return ""
    said, (parts, hold, lacking) = f"{row['verdict']}", (row[one] for one in _OF_CLAIM)
    if hold != parts:
        known = f"{hold:g} of {parts:g} parts hold"
        said += f", {known}, {lacking:g} not run" if lacking else f", {known}"
    other = row["verdict_proper"]
    if isinstance(other, str) and other not in ("", row["verdict"]):
        said += f"; {other} by both terms"
    return f"{said} (`{row['claim']}`)"
