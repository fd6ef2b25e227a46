"""How it stands over all data sets, in a few lines: for the terminal and the README."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd

from pipelines.reporting import tables
from pipelines.reporting.claims import FILE, NOT_SEEN
from pipelines.reporting.evidence import Quantity, Runs
from pipelines.reporting.frame import Study
from pipelines.reporting.markdown import table
from pipelines.reporting.published import Variant, each_cell
from pipelines.reporting.rules import FAILS

__all__ = ["counts", "markdown"]

_KINDS = {
    "cells": "Published cells",
    "facts": "Facts claimed",
    "comparisons": "Comparisons",
}
_PLUS, _PLAIN, _CE = (Quantity.parse(loss) for loss in ("DSC++", "DSC", "CE"))
# Metric, whether it is the proper form, and its heading.
_BESIDE_CE = (
    ("nll", False, "NLL published"),
    ("nll", True, "NLL"),
    ("brier", True, "Brier"),
    ("dice", False, "Dice"),
)
_LISTS: Mapping[str, Callable[[pd.DataFrame], pd.Series]] = {
    "Another verdict by the proper NLL and Brier": lambda rows: (
        rows["verdict_corrected"].ne("") & rows["verdict_corrected"].ne(rows["verdict"])
    ),
    "Printed means and standard errors speak against the text": lambda rows: rows[
        "paper_tables"
    ].eq("fails"),
}
"""Which claims are named in the README, and under which words."""

_Files = Mapping[str, pd.DataFrame]


def counts(over_all: _Files) -> str:
    """How many published cells and claims came out how, in two lines.

    Args:
        over_all: the tables over all data sets by file name, with `summary.csv`.
    """
    found = over_all["summary.csv"]
    lines = []
    for kind, rows in found[found["group"] == "all"].groupby("kind", sort=False):
        pairs = rows[["verdict", "count"]].itertuples(index=False)
        said = "; ".join(f"{verdict} {count}" for verdict, count in pairs)
        lines.append(f"{_KINDS[kind]} ({rows['count'].sum()}): {said}.")
    return "\n".join(lines)


def markdown(made: Sequence[tuple[Study, _Files]], over_all: _Files) -> str:
    """Counts by table and section, claims worth a look, DSC++ beside DSC and CE.

    Args:
        made: each study with its own tables by file name.
        over_all: the tables over all data sets by file name.
    """
    made = [
        (study, files)
        for study, files in made
        if len(study.cells) and study.preset in tables.PRESETS
    ]
    known = [study for study, _ in made]
    parts = []
    for kind, rows in over_all["summary.csv"].groupby("kind", sort=False):
        grid = rows.pivot(index="group", columns="verdict", values="count")
        grid = grid.loc[rows["group"].unique(), rows["verdict"].unique()].astype(str)
        lines = [list(line) for line in grid.itertuples()]
        parts.append(table([_KINDS[kind], *grid.columns], lines))
    parts += [_named(over_all[FILE]), _central(known), _beside_ce(known)]
    return "\n\n".join([*parts, _noise(made)])


def _named(rows: pd.DataFrame) -> str:
    """The claims that fail with the reason, those of `_LISTS` by their ids."""
    failing = rows[rows["verdict"].isin((FAILS, NOT_SEEN))].to_dict("records")
    failed = [f"  - {_failed(row)}." for row in failing]
    lines = [f"- Claims that fail or are {NOT_SEEN} ({len(failed)}), why:", *failed]
    for words, wanted in _LISTS.items():
        ids = [f"`{one}`" for one in rows.loc[wanted(rows), "id"]]
        lines.append(f"- {words} ({len(ids)}): {', '.join(ids) or 'none'}.")
    return "\n".join(lines)


def _failed(row: Mapping[str, object]) -> str:
    """A claim that fails: by what, from how many seeds, and what bears on the cause."""
    number = float(str(row["seeds"]))
    seeds = "" if number != number else f" ({number:g} seeds)"
    seeds = " (one seed)" if number == 1 else seeds
    said = [f"`{row['id']}`{seeds}: {str(row['why']).partition('; not run:')[0]}"]
    if row["verdict_corrected"] not in ("", row["verdict"]):
        said.append(f"{row['verdict_corrected']} by the proper form")
    if row["paper_tables"] == "fails":
        said.append("fails by the paper's own tables too")
    return "; ".join(said)


def _noise(made: Sequence[tuple[Study, _Files]]) -> str:
    """How many published differences exceed what trainings differ by."""
    found = []
    for study, files in made:
        if "noise.csv" not in files:
            continue
        for target, own in files["noise.csv"].groupby("target", sort=False):
            (_, *names), *lines = tables.noise_counts(own)
            title = f"{study.title}, {target}: beyond training noise"
            found.append(table([title, *names], lines))
    return "\n\n".join(found)


def _central(studies: Sequence[Study]) -> str:
    """DSC++ beside DSC wherever both were run: what the paper is about."""
    header = ["DSC++ beside DSC", "NLL published, ratio", "paper", "p", "paper"]
    header += ["NLL, ratio", "Dice, difference", "paper"]
    return table(header, [_central_row(*one) for one in _with(studies, _PLUS, _PLAIN)])


def _central_row(study: Study, target: str) -> list[str]:
    pair = (_PLUS, _PLAIN)
    losses = (_PLUS.variant.loss, _PLAIN.variant.loss)
    p_printed = study.paper.printed_p(study.title, losses).get((target, "nll"), "")
    printed: dict[tuple[Variant, str], float] = {
        (cell.variant, cell.metric): cell.value
        for cell in each_cell(study.cells[study.cells["target"] == target])
    }
    nll, dice = (
        [printed[one.variant, metric] for one in pair]
        for metric in ("nll_published", "dice")
    )
    ratios = [
        Runs(study, name=target, corrected=corrected).ratio(*pair, "nll")
        for corrected in (False, True)
    ]
    ours = [f"{one.mean:.2f} [{one.ci_low:.2f}, {one.ci_high:.2f}]" for one in ratios]
    return [
        _title(study, target, *pair),
        ours[0],
        f"{nll[0] / nll[1]:.2f}",
        f"{Runs(study, name=target).pair(*pair, 'nll').p_rank_sum:.1g}",
        p_printed,
        ours[1],
        _difference(study, target, False, "dice", *pair),
        f"{dice[0] - dice[1]:+.3f}",
    ]


def _beside_ce(studies: Sequence[Study]) -> str:
    """DSC++ less CE, paired: what is left of the lead under the proper forms."""
    headings = [f"{name}, difference" for _, _, name in _BESIDE_CE]
    rows = [
        [
            _title(study, target, _PLUS, _CE),
            *(
                _difference(study, target, corrected, metric, _PLUS, _CE)
                for metric, corrected, _ in _BESIDE_CE
            ),
        ]
        for study, target in _with(studies, _PLUS, _CE)
    ]
    return table(["DSC++ beside CE", *headings], rows)


def _with(studies: Sequence[Study], *wanted: Quantity) -> Iterator[tuple[Study, str]]:
    """The studies with runs of all of these, and each of their classes."""
    for study in studies:
        if all(one.variant in study.runs for one in wanted):
            yield from ((study, target) for target in study.targets)


def _title(study: Study, target: str, a: Quantity, b: Quantity) -> str:
    seeds = Runs(study, name=target).pair(a, b, "dice").seeds
    word = "seed" if seeds == 1 else "seeds"
    return f"{study.title}, {target}, preset {study.preset}, {seeds} {word}"


def _difference(
    study: Study, target: str, corrected: bool, metric: str, a: Quantity, b: Quantity
) -> str:
    pair = Runs(study, name=target, corrected=corrected).pair(a, b, metric)
    return f"{pair.difference:+.3f} [{pair.ci_low:+.3f}, {pair.ci_high:+.3f}]"
