"""How many cells and claims came out how, and which claims are worth a look."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from pipelines.reporting import tables
from pipelines.reporting.claims import FILE as CLAIMS
from pipelines.reporting.claims import NOT_SEEN
from pipelines.reporting.frame import Study
from pipelines.reporting.markdown import table
from pipelines.reporting.rules import FAILS

__all__ = ["FILE", "counts", "markdown"]

FILE = "counts.csv"
_KINDS = {
    "cells": "Published cells",
    "comparisons": "Comparisons",
    "facts": "Facts claimed",
}
_AGAINST = (FAILS, NOT_SEEN)
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
    """How many published cells and claims came out how, in two lines.

    Args:
        over_all: the tables over all data sets by file name, with `FILE`.
    """
    found = over_all[FILE]
    lines = []
    for kind, rows in found[found["group"] == "all"].groupby("kind", sort=False):
        pairs = rows[["verdict", "count"]].itertuples(index=False)
        said = "; ".join(f"{verdict} {count}" for verdict, count in pairs)
        lines.append(f"{_KINDS[kind]} ({rows['count'].sum()}): {said}.")
    return "\n".join(lines)


def markdown(made: Sequence[tuple[Study, _Files]], over_all: _Files) -> str:
    """Counts by table and section, claims worth a look, noise of training.

    Args:
        made: each study with its own tables by file name.
        over_all: the tables over all data sets by file name.
    """
    parts = []
    for kind, rows in over_all[FILE].groupby("kind", sort=False):
        grid = rows.pivot(index="group", columns="verdict", values="count")
        grid = grid.loc[rows["group"].unique(), rows["verdict"].unique()].astype(str)
        lines = [list(line) for line in grid.itertuples()]
        parts.append(table([_KINDS[kind], *grid.columns], lines))
    parts.append(_named(over_all[CLAIMS]))
    return "\n\n".join([*parts, *_noise(made)])


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


def _noise(made: Sequence[tuple[Study, _Files]]) -> list[str]:
    """How many published differences exceed what trainings differ by."""
    found = []
    for study, files in made:
        if study.preset not in tables.PRESETS or "noise.csv" not in files:
            continue
        own = files["noise.csv"]
        for target, rows in own.groupby("target", sort=False):
            (_, *names), *lines = tables.noise_counts(rows)
            title = f"{study.title}, {target}: beyond training noise"
            found.append(table([title, *names], lines))
    return found
