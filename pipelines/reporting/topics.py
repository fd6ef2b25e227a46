"""What the pages say besides their tables, from the frames at hand, in Markdown."""

from collections.abc import Callable, Mapping

import pandas as pd

from pipelines.reporting import claims
from pipelines.reporting.calibration import EITHER, HUMAN, OBSERVERS, REGIONS
from pipelines.reporting.frame import Study
from pipelines.reporting.markdown import table
from pipelines.reporting.published import Variant
from pipelines.reporting.rules import FAILS

__all__ = ["COUNTS", "TOPICS", "claimed", "counts"]

COUNTS = "counts.csv"
_SHOWN = ("ace", "reliability", "resolution")
_PM = "{mean:.3f} ± {standard_error:.3f}"


def _of(rows: pd.DataFrame, variant: Variant, who: str = "loss") -> pd.DataFrame:
    """The rows of one variant."""
    own = variant.columns
    same = rows["gamma"].fillna(0.0) == (variant.gamma or 0.0)
    return rows[(rows[who] == own["loss"]) & same]


def calibrated(study: Study, found: pd.DataFrame) -> str:
    """Lay out calibration: a row a loss and class, first observer.

    ECE of the whole image beside the measures of the narrowest region that all of the
    losses were measured in.
    """
    found = found[found["reference"] == OBSERVERS[0]]
    each = {variant: set(_of(found, variant)["region"]) for variant in study.main}
    known = set(found["region"])
    region = [one for one in REGIONS if all(one in own for own in each.values())][-1]
    regions = [one for one in REGIONS if one in known]
    shown = [*((one, "ece") for one in regions), *((region, one) for one in _SHOWN)]
    heads = ["loss", *(f"ECE, {one}" for one in regions), "ACE", *_SHOWN[1:]]
    lines = []
    for variant in study.main:
        rows = _of(found, variant).set_index(["target", "region", "measure"])
        for target in study.targets:
            name = variant.label
            name += f", {target}" if len(study.targets) > 1 else ""
            lines.append([name, *(_cell(rows, (target, *one)) for one in shown)])
    note = (
        "Mean over test images ± standard error, first observer. ECE, ACE: 20 bins of "
        "0.05. Reliability (lower is better) and resolution (higher is better): "
        f"Murphy's parts of the Brier score. Without another word: {region}."
    )
    return f"{table(heads, lines)}\n\n{note}"


def _cell(rows: pd.DataFrame, key: tuple[str, str, str]) -> str:
    if key not in rows.index:
        return ""
    digits = 3 if key[-1] in ("ece", "ace") else 4
    form = f"{{mean:.{digits}f}} ± {{standard_error:.{digits}f}}"
    return form.format(**rows.loc[key, ["mean", "standard_error"]])


def observed(study: Study, found: pd.DataFrame) -> str:
    """Say how far observers agree, and what p is where they do not."""
    if found.empty:
        return "*These images have one observer.*"
    found = found[found["region"] == "image"]
    said = [
        _said(study, found[found["target"] == target], target)
        for target in study.targets
    ]
    return "\n\n".join(said)


def _said(study: Study, found: pd.DataFrame, target: str) -> str:
    """A sentence and a table on one class."""
    keys = ["reference", "measure"]
    columns = (
        ("observer1", "dice", _PM), ("observer2", "dice", _PM),
        (EITHER, "mean_p_one", "{mean:.2f}"), (EITHER, "near_half_one", "{mean:.2f}"),
    )  # fmt: skip
    header = [
        target, "Dice, first observer", "Dice, second", "mean p where they disagree",
        "share of that with p from 0.25 to 0.75",
    ]  # fmt: skip
    lines = []
    for variant in study.main:
        rows = _of(found, variant, "who").set_index(keys)
        cells = [form.format(**rows.loc[of, what]) for of, what, form in columns]
        lines.append([variant.label, *cells])
    human = found[found["who"] == HUMAN].set_index(keys)
    return (
        f"Against the first observer's {target}, the second has Dice "
        f"{_PM.format(**human.loc[('observer1', 'dice')])}. The two disagree on "
        f"{100 * human.loc[(EITHER, 'share_one'), 'mean']:.1f} % of the image.\n\n"
        + table(header, lines)
    )


def scaled(study: Study, found: pd.DataFrame) -> str:
    """Lay out the temperatures of one study: a row a loss and class."""
    if found.empty:
        return "*No run was scaled yet.*"
    header = ["loss", "seeds", "temperature", "NLL", "scaled", "Brier", "scaled"]
    header.append("scaled NLL less that of DSC++")
    nll, brier = (found[found["metric"] == one] for one in ("nll", "brier"))
    both = zip(nll.to_dict("records"), brier.to_dict("records"), strict=True)
    return table(header, [_scaled_line(study, *pair) for pair in both])


def _scaled_line(
    study: Study, row: dict[str, float], brier: dict[str, float]
) -> list[str]:
    gamma = row["gamma"] if row["gamma"] == row["gamma"] else None
    name = Variant(str(row["loss"]), gamma).label
    if len(study.targets) > 1:
        name += f", {row['target']}"
    spread = " ({temperature_low:.2f} to {temperature_high:.2f})"
    gap = "{to_dscpp:+.3f} ({to_dscpp_low:+.3f} to {to_dscpp_high:+.3f})"
    cells = [
        name,
        "{seeds}",
        "{temperature:.2f}" + ("" if row["seeds"] == 1 else spread),
        "{before:.3f}",
        "{after:.3f}",
        f"{brier['before']:.3f}",
        f"{brier['after']:.3f}",
        gap if row["to_dscpp"] == row["to_dscpp"] else "",
    ]
    return [cell.format(**row) for cell in cells]


TOPICS: Mapping[str, tuple[str, Callable[[Study, pd.DataFrame], str]]] = {
    "temperature": ("temperature.csv", scaled),
    "calibration": ("calibration.csv", calibrated),
    "observers": ("observers.csv", observed),
}
"""By the end of the marker's name: the table it is from, and who writes."""

_KINDS = {
    "cells": "Published cells",
    "comparisons": "Comparisons",
    "facts": "Facts claimed",
}
_AGAINST = (FAILS, claims.NOT_SEEN)
"""Verdicts whose reason is told."""

_LISTS: Mapping[str, Callable[[pd.DataFrame], pd.Series]] = {
    "Another verdict by the proper NLL and Brier": lambda rows: (
        rows["verdict_corrected"].ne("") & rows["verdict_corrected"].ne(rows["verdict"])
    ),
    "Printed means and standard errors speak against the text": lambda rows: rows[
        "paper_tables"
    ].eq("fails"),
}
"""Which claims are named besides, and under which words."""

_Files = Mapping[str, pd.DataFrame]


def counts(over_all: _Files) -> str:
    """How many published cells and claims came out how, in two lines of `COUNTS`."""
    found = over_all[COUNTS]
    lines = []
    for kind, rows in found[found["group"] == "all"].groupby("kind", sort=False):
        pairs = rows[["verdict", "count"]].itertuples(index=False)
        said = "; ".join(f"{verdict} {count}" for verdict, count in pairs)
        lines.append(f"{_KINDS[kind]} ({rows['count'].sum()}): {said}.")
    return "\n".join(lines)


def claimed(over_all: _Files) -> str:
    """Counts by table and section, and claims worth a look, of all data sets."""
    parts = []
    for kind, rows in over_all[COUNTS].groupby("kind", sort=False):
        grid = rows.pivot(index="group", columns="verdict", values="count")
        grid = grid.loc[rows["group"].unique(), rows["verdict"].unique()].astype(str)
        lines = [list(line) for line in grid.itertuples()]
        parts.append(table([_KINDS[kind], *grid.columns], lines))
    parts.append(_named(over_all[claims.FILE]))
    return "\n\n".join(parts)


def _named(rows: pd.DataFrame) -> str:
    """The claims that came out against the paper, and by what; others by their ids."""
    failing = rows[rows["verdict"].isin(_AGAINST)]
    words = " or ".join(failing["verdict"].unique()) or "fails"
    lines = [f"- Verdict {words} ({len(failing)}), and by what:"]
    lines += [f"  - {_failed(row)}." for row in failing.to_dict("records")]
    for said, wanted in _LISTS.items():
        ids = [f"`{one}`" for one in rows.loc[wanted(rows), "id"]]
        lines.append(f"- {said} ({len(ids)}): {', '.join(ids) or 'none'}.")
    return "\n".join(lines)


def _failed(row: Mapping[str, object]) -> str:
    """A claim: by what, from how many seeds, and what bears on the cause."""
    number = float(str(row["seeds"]))
    seeds = "" if number != number else f" ({number:g} trainings)"
    seeds = " (one training)" if number == 1 else seeds
    said = [f"`{row['id']}`{seeds}: {str(row['why']).partition('; not run:')[0]}"]
    if row["verdict_corrected"] not in ("", row["verdict"]):
        said.append(f"{row['verdict_corrected']} by the proper form")
    if row["paper_tables"] == "fails":
        said.append("fails by the paper's own tables too")
    return "; ".join(said)
