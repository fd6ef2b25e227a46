"""What the pages say, from the frames at hand: the readable table and what is beside.

A readable table has a row for each loss, the paper's values under it, then p.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import bartlett, false_discovery_control

from data_io.datasets import is_own
from pipelines.commits import from_clean_commit
from pipelines.measure import metrics
from pipelines.reporting import claims
from pipelines.reporting.calibration import EITHER, HUMAN, OBSERVERS, REGIONS
from pipelines.reporting.estimates import (
    ALPHA,
    MARGINS,
    OWN_SEEDS,
    is_ratio,
    pm,
    pooled,
)
from pipelines.reporting.evidence import estimated
from pipelines.reporting.frame import Study, in_words
from pipelines.reporting.markdown import table
from pipelines.reporting.published import Cell, Variant, each_cell
from pipelines.reporting.rules import FAILS
from pipelines.reporting.tables import TEMPERATURE
from pipelines.run import TRUTH, Run

__all__ = [
    "COUNTS", "NUMBERS", "TOPICS", "Block", "block", "claimed", "counts", "margins",
]  # fmt: skip

_HEADINGS = {
    "nll_published": "NLL published",
    "nll": "NLL",
    "brier": "Brier",
    "dice": "Dice",
    "jaccard": "Jaccard",
}
_PAIR = (Variant.standard("DSC++"), Variant("DSC"))
_P_ROWS = (
    ("p rank-sum", "rank_sum", "p"),
    ("p signed-rank", "signed_rank", "p"),
    ("p signed-rank, Holm", "signed_rank", "p_holm"),
)


class Block(NamedTuple):
    """What a readable table says, before it is laid out."""

    headline: str
    rows: list[list[str]]
    notes: list[str]

    def plain(self) -> str:
        """Lay it out for a terminal."""
        grid = pd.DataFrame(self.rows)
        padded = grid.apply(
            lambda cells: cells.str.pad(
                cells.str.len().max(), "left" if cells.name else "right"
            )
        )
        lines = list(padded.agg("  ".join, axis=1).str.rstrip())
        rule = "-" * max(map(len, lines))
        notes = [textwrap.fill(note, len(rule)) for note in self.notes]
        body = [rule, lines[0], rule, *lines[1:], rule]
        return "\n".join([self.headline, *body, *notes])

    def markdown(self) -> str:
        """Lay it out in Markdown."""
        # Two leading spaces mean "under the row above"; Markdown would drop them.
        body = [[re.sub("^  ", "&ensp;", row[0]), *row[1:]] for row in self.rows[1:]]
        rows = table(self.rows[0], body)
        return f"**{self.headline}**\n\n{rows}\n\n{' '.join(self.notes)}"


def block(study: Study, target: str, tests: pd.DataFrame) -> Block:
    """Lay out the means of a class, and of `tests` (`tests.csv`) DSC++ against DSC."""
    title = "PHANTOM (simulated)" if study.simulated else study.title
    about = study.about(_trained(study))
    rows = [["loss", *_HEADINGS.values(), "hours"], *_loss_rows(study, target)]
    if set(_PAIR) <= study.runs.keys():
        rows += _p_rows(study, target, tests)
    headline = f"{title}, {target}, {about}, mean ± standard error"
    return Block(headline, rows, _notes(study, target))


def _trained(study: Study) -> list[Variant]:
    return [variant for variant in study.runs if not variant.method]


def _loss_rows(study: Study, target: str) -> Iterator[list[str]]:
    """A row of ours for each variant; the paper's under it where there is one."""
    # Table 3 repeats cells of Table 4: whichever comes first is shown, they agree.
    published: dict[tuple[Variant, str], Cell] = {}
    for cell in each_cell(study.cells[study.cells["target"] == target]):
        published.setdefault((cell.variant, cell.metric), cell)
    for variant in study.runs:
        # What follows a training has its own table.
        if variant.method not in ("", TRUTH):
            continue
        ours = (estimated(study, variant, target, m) for m in _HEADINGS)
        cells = [pm(one.mean, one.standard_error) for one in ours]
        yield [_name(study, variant), *cells, _hours(study.runs[variant])]
        columns = (_as_published(study, variant, target, m) for m in _HEADINGS)
        found = [published.get((variant, column)) for column in columns]
        if any(found):
            theirs = [pm(c.value, c.standard_error) if c else "" for c in found]
            yield ["  paper", *theirs, ""]


def _name(study: Study, variant: Variant) -> str:
    """A variant's label; with its seeds where the headline names others too."""
    seeds, trainings = study.seeds(variant), len(study.runs[variant])
    every = sorted({s for one in _trained(study) for s in study.seeds(one)})
    if variant.method == TRUTH:
        return variant.label
    said = [in_words(seeds)] if list(seeds) != every else []
    said += [f"{trainings} trainings"] if trainings > len(seeds) else []
    return variant.label + (f" ({', '.join(said)})" if said else "")


def _hours(runs: list[Run]) -> str:
    """Mean hours that the trainings of a variant took; "" where none is known."""
    found = [run.record.get("times", {}).get("train_s") for run in runs]
    known = [seconds for seconds in found if seconds is not None]
    return f"{float(np.mean(known)) / 3600:.2f}" if known else ""


def _as_published(study: Study, variant: Variant, target: str, metric: str) -> str:
    """With two classes the published Brier is the corrected one: one column, then."""
    form = f"{metric}_published"
    if metric != "brier":
        return metric
    ours, theirs = (study.measures(variant, target, name) for name in (metric, form))
    return form if np.array_equal(ours, theirs, equal_nan=True) else metric


def _p_rows(study: Study, target: str, tests: pd.DataFrame) -> list[list[str]]:
    """P of DSC++ against DSC: both tests, the paired one also after Holm."""
    found = tests[tests["target"] == target]
    # In either order.
    each = (a.rows(b.rows(found, "_b"), "_a") for a, b in permutations(_PAIR))
    found = pd.concat(each).set_index(["test", "metric"])
    rows = [
        [text, *(_p(found.loc[(test, name), key]) for name in _HEADINGS), ""]
        for text, test, key in _P_ROWS
    ]
    # The paper has the rank-sum test alone: its figures stand under ours.
    words = {column: word for word, column in metrics.PAPER_COLUMN.items()}
    columns = (_as_published(study, _PAIR[0], target, m) for m in _HEADINGS)
    named = study.title if len(study.cells) else ""
    printed = (
        study.paper.printed_p(named, target, words.get(one, ""), ("DSC++", "DSC"))
        for one in columns
    )
    paper = [_p(float(p)) if p else "" for p in printed]
    return [*rows[:1], *([["  paper", *paper, ""]] if any(paper) else []), *rows[1:]]


def _p(p: float) -> str:
    if p != p:
        return "undefined"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


_CLAIMED = " (Student's t over seeds is in claims.csv)"


def _notes(study: Study, target: str) -> list[str]:
    # Trainings whose code no commit holds; what trainings ran on.
    changed = [
        run.name
        for variant in _trained(study)
        for run in study.runs[variant]
        if not from_clean_commit(run.record)
    ]
    hardware = {
        f"{run.record.get('device') or 'unknown device'}, {run.record.get('machine')}"
        for run in study.every_run
        if "train_s" in run.record.get("times", {})
    }
    truth = any(variant.method == TRUTH for variant in study.runs)
    held, n = study.n_with_class(target), len(study.cases)
    own = is_own(str(study.record["dataset"]))
    said = {
        f"Only {held} of {n} test images have {target} in truth: in the others Dice "
        "and Jaccard are 0 where it is predicted, and undefined and left out where it "
        "is not.": held < n,
        "p: DSC++ against DSC over test images: of the weights at hand, not of the "
        f"losses{'' if own else _CLAIMED}.": set(_PAIR) <= study.runs.keys(),
        "NLL published is the foreground term alone, as the paper's tables have "
        "it; NLL has both terms. Lower NLL and Brier, higher Dice and Jaccard are "
        "better.": True,
        "Simulated images: no value here says anything about "
        "patients.": study.simulated,
        f"{TRUTH.capitalize()}: the probability that the labels were drawn from. "
        "Nothing is expected to have a lower NLL or Brier "
        "score.": study.simulated and truth,
        f"Preset {study.preset} is not the paper's protocol: compare directions, "
        "not values.": not (own or study.simulated) and study.preset != "paper",
        "Of a commit with uncommitted changes, so not to be made again exactly: "
        f"{', '.join(changed)}.": changed,
        "Hours: mean of a training, also where other work ran beside it (costs.csv "
        f"has every run). Hardware: {'; '.join(sorted(hardware))}.": hardware,
    }
    notes = [note for note, applies in said.items() if applies]
    return notes + (_threshold_notes(study, target) if len(study.cells) else [])


def _threshold_notes(study: Study, target: str) -> list[str]:
    """The softmax thresholds whose figures the paper's text prints, ours beside."""
    notes = []
    for row in study.paper.thresholds:
        variant = Variant.standard(row["loss"])
        if row["dataset"] != study.title or variant not in study.runs:
            continue
        at = round(float(row["threshold"]), 9)
        ours = estimated(study, variant, target, row["metric"], at)
        notes.append(
            f"{row['loss']} at threshold {row['threshold']}: {row['metric']} "
            f"{pm(ours.mean, ours.standard_error)} (paper {float(row['value']):.3f})."
        )
    return notes


COUNTS = "counts.csv"
_Files = Mapping[str, pd.DataFrame]
_SHOWN = ("ace", "reliability", "resolution")
_PM = "{mean:.3f} ± {standard_error:.3f}"
_ALONE = "With one seed the error is over images alone; with several over both."


def calibrated(study: Study, found: pd.DataFrame) -> str:
    """Lay out calibration: a row a loss and class, first observer.

    ECE of the whole image beside the measures of the narrowest region that all of the
    losses were measured in.
    """
    found = found[found["reference"] == OBSERVERS[0]]
    each = {variant: set(variant.rows(found)["region"]) for variant in study.main}
    known = set(found["region"])
    region = [one for one in REGIONS if all(one in own for own in each.values())][-1]
    regions = [one for one in REGIONS if one in known]
    shown = [*((one, "ece") for one in regions), *((region, one) for one in _SHOWN)]
    heads = ["loss", "seeds", *(f"ECE, {one}" for one in regions), "ACE", *_SHOWN[1:]]
    lines = []
    for variant in study.main:
        rows = variant.rows(found).set_index(["target", "region", "measure"])
        for target in study.targets:
            name = variant.label
            name += f", {target}" if len(study.targets) > 1 else ""
            cells = [_cell(rows, (target, *one)) for one in shown]
            lines.append([name, str(rows["seeds"].max()), *cells])
    note = (
        f"Mean over test images ± standard error, first observer. {_ALONE} ECE, ACE: "
        "20 bins of 0.05. Reliability (lower is better) and resolution (higher is "
        f"better): Murphy's parts of the Brier score. Without another word: {region}."
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
        target, "seeds", "Dice, first observer", "Dice, second",
        "mean p where they disagree", "share of that with p from 0.25 to 0.75",
    ]  # fmt: skip
    lines = []
    for variant in study.main:
        rows = variant.rows(found).set_index(keys)
        cells = [form.format(**rows.loc[of, what]) for of, what, form in columns]
        lines.append([variant.label, str(rows["seeds"].max()), *cells])
    human = HUMAN.rows(found).set_index(keys)
    return (
        f"Against the first observer's {target}, the second has Dice "
        f"{_PM.format(**human.loc[('observer1', 'dice')])}. The two disagree on "
        f"{100 * human.loc[(EITHER, 'share_one'), 'mean']:.1f} % of the image. "
        f"{_ALONE}\n\n" + table(header, lines)
    )


def scaled(study: Study, found: pd.DataFrame) -> str:
    """Lay out the temperatures of one study: a row a loss and class."""
    if found.empty:
        return "*No run was scaled yet.*"
    header = ["loss", "seeds", "temperature", "NLL", "scaled", "Brier", "scaled"]
    header.append("scaled NLL less that of DSC++")
    nll, brier = (found[found["metric"] == one] for one in ("nll", "brier"))
    both = zip(nll.to_dict("records"), brier.to_dict("records"), strict=True)
    lines = [_scaled_line(study, *pair) for pair in both]
    return f"{table(header, lines)}\n\nIntervals in brackets. {_ALONE}"


def _scaled_line(
    study: Study, row: dict[str, float], brier: dict[str, float]
) -> list[str]:
    gamma = row["gamma"] if row["gamma"] == row["gamma"] else None
    name = Variant(str(row["loss"]), gamma).label
    trainings = _trainings(study, name)
    if len(study.targets) > 1:
        name += f", {row['target']}"
    spread = " ({temperature_low:.2f} to {temperature_high:.2f})"
    gap = "{to_dscpp:+.3f} ({to_dscpp_low:+.3f} to {to_dscpp_high:+.3f})"
    cells = [
        name,
        "{seeds}" + (f" ({trainings} trainings)" if trainings > row["seeds"] else ""),
        "{temperature:.2f}" + ("" if row["seeds"] == 1 else spread),
        "{before:.3f}",
        "{after:.3f}",
        f"{brier['before']:.3f}",
        f"{brier['after']:.3f}",
        gap if row["to_dscpp"] == row["to_dscpp"] else "",
    ]
    return [cell.format(**row) for cell in cells]


def _trainings(study: Study, name: str) -> int:
    """How often a loss was trained and scaled, replicates included."""
    scaled = f"{name} + {TEMPERATURE}"
    return sum(len(runs) for one, runs in study.runs.items() if one.label == scaled)


TOPICS: Mapping[str, tuple[str, Callable[[Study, pd.DataFrame], str]]] = {
    "temperature": ("temperature.csv", scaled),
    "calibration": ("calibration.csv", calibrated),
    "observers": ("observers.csv", observed),
}
"""By the end of the marker's name: the table it is from, and who writes."""


def margins() -> str:
    """The margins of "the same", with their reasons."""
    lines = [
        [f"`{metric}`", f"{_word(metric)} {low:g} to {high:g}", reason]
        for metric, (low, high, reason) in MARGINS.items()
    ]
    return table(["metric", "margin", "why"], lines)


def _word(metric: str) -> str:
    return "ratio" if is_ratio(metric) else "difference"


def same_loss(study: Study, files: _Files) -> str:
    """How often each test tells two trainings of the same loss apart, by metric."""
    rows = files["tests.csv"]
    rows = rows[rows["same_loss"].ne("")].drop_duplicates(["target", "metric", "test"])
    if rows.empty:
        return "*No loss was trained twice.*"
    grid = rows.pivot(index=["target", "metric"], columns="test", values="same_loss")
    lines = [[f"{target}, `{name}`", *cells] for (target, name), *cells in
             grid.itertuples()]  # fmt: skip
    return table(["p < 0.05", *(f"`{name}`" for name in grid)], lines)


def others_within(study: Study, files: _Files) -> str:
    """How many other losses' printed values `within` does not tell from a cell's."""
    frames = [frame for name, frame in files.items() if name in _OF_PAPER]
    rows = pd.concat(frames) if frames else pd.DataFrame(columns=["others_within"])
    rows = rows[rows["others_within"].notna()]
    if rows.empty:
        return "*No loss has two seeds.*"
    both = rows["others_within"].str.split(" of ", expand=True).astype(int)
    found = both.groupby(rows["metric"].to_numpy()).sum()
    lines = [[f"`{name}`", f"{near} of {of}"] for name, near, of in found.itertuples()]
    return table(["metric", "would pass too"], lines)


def spreads(study: Study, files: _Files) -> str:
    """What seeds of each loss with `OWN_SEEDS` of them differ by, and all pooled."""
    several = [one for one in study.main if len(study.seeds(one)) >= OWN_SEEDS]
    if len(several) < 2:
        return f"*Fewer than two losses have {OWN_SEEDS} seeds.*"
    lines = []
    for target, name in product(study.targets, _SPREADS):
        means = [study.measures(one, target, name).mean(axis=1) for one in several]
        if is_ratio(name):
            means = [values / values.mean() for values in means]
        each = [pooled([values[:, np.newaxis]]).s for values in means]
        every = pooled([values[:, np.newaxis] for values in means]).s
        p = f"{bartlett(*means).pvalue:.2f}" if min(each) else ""
        cells = [f"{s:.4f}" for s in (*each, every)]
        lines.append([f"{target}, `{name}`", *cells, p])
    heads = ["s over seeds", *(one.label for one in several), "pooled", "Bartlett's p"]
    return table(heads, lines)


_SPREADS = ("nll_published", "nll", "brier", "dice", "jaccard")
_OF_PAPER = ("table3.csv", "table4.csv", "table5.csv", "table6.csv")
NUMBERS: Mapping[str, Callable[[Study, _Files], str]] = {
    "same-loss": same_loss,
    "others-within": others_within,
    "spreads": spreads,
}
"""What `results/README.md` says of a study in numbers, by the end of the marker."""

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
    "Not borne out by the paper's own printed means and errors": lambda rows: rows[
        "paper_tables"
    ].eq("fails"),
}
"""Which claims are named besides, and under which words."""


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
    return "\n".join([*lines, _family(rows)])


def _family(rows: pd.DataFrame) -> str:
    """How many of the verdicts on facts may be false, and how many withstand it."""
    facts = rows[rows["fact"].eq(rows["id"]) & rows["p_holds"].notna()]
    each = {"to hold": facts["p_holds"], "to fail": facts["p_fails"]}
    seen = [f"{p.lt(ALPHA).sum()} {word}" for word, p in each.items()]
    if facts.empty:
        return "- No fact was tested."
    adjusted = [false_discovery_control(p.clip(upper=1)) for p in each.values()]
    left = [str((p < ALPHA).sum()) for p in adjusted]
    return (
        f"- {len(facts)} facts were tested, each at {ALPHA:g}, not corrected for their "
        f"number: {' and '.join(seen)}. If none of them were true, up to "
        f"{ALPHA * len(facts):.1f} would hold by chance; if all were, as many would "
        f"fail. With the false discovery rate held at {ALPHA:g} (Benjamini and "
        f"Hochberg 1995) {' and '.join(left)} of these are left."
    )


def _failed(row: Mapping[str, object]) -> str:
    """A claim: by what, from how many seeds, and what bears on the cause."""
    number = float(str(row["seeds"]))
    seeds = "" if number != number else f" ({number:g} seeds)"
    seeds = " (one seed)" if number == 1 else seeds
    said = [f"`{row['id']}`{seeds}: {str(row['why']).partition('; not run:')[0]}"]
    if row["verdict_corrected"] not in ("", row["verdict"]):
        said.append(f"{row['verdict_corrected']} by the proper form")
    if row["paper_tables"] == "fails":
        said.append("not borne out by the paper's own tables either")
    return "; ".join(said)
