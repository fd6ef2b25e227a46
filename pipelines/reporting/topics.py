"""Texts of the pages, from the frames at hand: the readable table and its notes.

A readable table has a row for each loss, the paper's values under it, then p. Sentences
are in `data/pages.yaml`.
"""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import bartlett, false_discovery_control

from data_io.datasets import is_own
from pipelines.environment.commits import from_clean_commit
from pipelines.measure import metrics
from pipelines.reporting import claims, data, practice
from pipelines.reporting.calibration_tables import (
    HUMAN,
    MEAN_OF_BOTH,
    OBSERVERS,
    REGIONS,
)
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
from pipelines.reporting.published import KEYS, Cell, Variant, each_cell
from pipelines.reporting.rules import FAILS
from pipelines.runs.run import TRUTH

COUNTS = "counts.csv"
_Files = Mapping[str, pd.DataFrame]

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
_PM = "{mean:.3f} ± {standard_error:.3f}"
_PM_4 = _PM.replace(".3f", ".4f")
_WORDS: Mapping[str, Any] = data("pages")
_ALONE = _WORDS["one seed"]


class Block(NamedTuple):
    """A readable table before it is laid out: headline, rows and notes."""

    headline: str
    rows: list[list[str]]
    notes: list[str]

    def plain(self) -> str:
        """Lay it out for a terminal: the first column to the left, others right."""
        columns = zip(*self.rows, strict=True)
        first, *widths = (max(map(len, cells)) for cells in columns)
        lines = []
        for name, *cells in self.rows:
            padded = map(str.rjust, cells, widths)
            lines.append("  ".join([name.ljust(first), *padded]).rstrip())
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
    trained = [variant for variant in study.runs if not variant.method]
    rows = [["loss", *_HEADINGS.values(), "hours"]]
    rows += _loss_rows(study, target, trained)
    if set(_PAIR) <= study.runs.keys():
        rows += _p_rows(study, target, tests)
    description = f"{study.about(trained)}, mean ± standard error"
    return Block(
        f"{title}, {target}, {description}", rows, _notes(study, target, trained)
    )


def _loss_rows(
    study: Study, target: str, trained: list[Variant]
) -> Iterator[list[str]]:
    """Make a row of ours for each variant, and the paper's under it if it has one."""
    # Table 3 repeats cells of Table 4: whichever comes first is shown, they agree.
    published: dict[tuple[Variant, str], Cell] = {}
    for cell in each_cell(study.cells[study.cells["target"] == target]):
        published.setdefault((cell.variant, cell.metric), cell)
    every = sorted({seed for one in trained for seed in study.seeds(one)})
    for variant, runs in study.runs.items():
        # What follows a training has its own table.
        if variant.method not in ("", TRUTH):
            continue
        ours = (estimated(study, variant, target, m) for m in _HEADINGS)
        cells = [pm(one.mean, one.standard_error) for one in ours]
        times = [run.record.get("times", {}).get("train_s") for run in runs]
        known = [seconds for seconds in times if seconds is not None]
        hours = f"{float(np.mean(known)) / 3600:.2f}" if known else ""
        yield [_name(study, variant, every), *cells, hours]
        columns = _as_published(study, variant, target)
        printed = [published.get((variant, column)) for column in columns]
        if any(printed):
            theirs = [pm(c.value, c.standard_error) if c else "" for c in printed]
            yield ["  paper", *theirs, ""]


def _name(study: Study, variant: Variant, every: list[int]) -> str:
    """Return a variant's label, with its seeds where the headline names others too."""
    seeds, trainings = study.seeds(variant), len(study.runs[variant])
    if variant.method == TRUTH:
        return variant.label
    details = [in_words(seeds)] if list(seeds) != every else []
    details += [f"{trainings} trainings"] if trainings > len(seeds) else []
    return variant.label + (f" ({', '.join(details)})" if details else "")


def _as_published(study: Study, variant: Variant, target: str) -> list[str]:
    """Return the paper's columns for `_HEADINGS`; one Brier if both forms agree."""
    forms = ("brier", "brier_published")
    ours, theirs = (study.measures(variant, target, metric) for metric in forms)
    same = np.array_equal(ours, theirs, equal_nan=True)
    return [forms[same] if metric == "brier" else metric for metric in _HEADINGS]


def _p_rows(study: Study, target: str, tests: pd.DataFrame) -> list[list[str]]:
    """Make rows of p of DSC++ against DSC: both tests, the paired also after Holm."""
    # In the order of the paper's losses, as `tables.comparisons` pairs them.
    tested = _PAIR[0].rows(_PAIR[1].rows(tests, "_a"), "_b")
    tested = tested[tested["target"] == target].set_index(["test", "metric"])
    rows = [
        [text, *(_p(tested.loc[(test, name), key]) for name in _HEADINGS), ""]
        for text, test, key in _P_ROWS
    ]
    # The paper has the rank-sum test alone: its figures stand under ours.
    words = {column: word for word, column in metrics.PAPER_COLUMN.items()}
    named = study.title if len(study.cells) else ""
    printed = (
        study.paper.printed_p(named, target, words.get(metric, ""), ("DSC++", "DSC"))
        for metric in _as_published(study, _PAIR[0], target)
    )
    paper = [_p(float(p)) if p else "" for p in printed]
    return [*rows[:1], *([["  paper", *paper, ""]] if any(paper) else []), *rows[1:]]


def _p(p: float) -> str:
    if p != p:
        return "undefined"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def _notes(study: Study, target: str, trained: list[Variant]) -> list[str]:
    """Return the notes that apply; last the thresholds that the text has values at."""
    changed = [
        run.name
        for variant in trained
        for run in study.runs[variant]
        if not from_clean_commit(run.record)
    ]
    hardware = {
        f"{run.record.get('device') or 'unknown device'}, {run.record.get('machine')}"
        for run in study.every_run
        if "train_s" in run.record.get("times", {})
    }
    has_truth = any(variant.method == TRUTH for variant in study.runs)
    held, n = study.n_with_class(target), len(study.cases)
    own_images = is_own(str(study.record["dataset"]))
    other = not (own_images or study.simulated) and study.preset != "paper"
    applies = {
        "some without": held < n,
        "tested": set(_PAIR) <= study.runs.keys(),
        "always": True,
        "simulated": study.simulated,
        "truth": study.simulated and has_truth,
        "another preset": other,
        "unclean": changed,
        "timed": hardware,
    }
    words = {"held": held, "n": n, "target": target, "truth": TRUTH.capitalize()}
    words |= {"preset": study.preset, "changed": ", ".join(changed)}
    claimed = "" if own_images else " (Student's t over seeds is in claims.csv)"
    words |= {"hardware": "; ".join(sorted(hardware)), "claimed": claimed}
    notes = [_WORDS["notes"][name].format(**words) for name in applies if applies[name]]
    for cell in study.paper.thresholds if len(study.cells) else ():
        if cell.dataset == study.title and study.same_training(cell.variant):
            ours = estimated(study, cell.variant, target, cell.metric)
            notes.append(
                f"{cell.loss} at threshold {cell.variant.threshold}: {cell.metric} "
                f"{pm(ours.mean, ours.standard_error)} (paper {cell.value:.3f})."
            )
    return notes


def calibrated(study: Study, files: _Files) -> str:
    """Lay out calibration: a row a loss and class, first observer.

    ECE of the whole image beside the measures of the narrowest region that all of the
    losses were measured in.
    """
    measured = files["calibration.csv"]
    measured = measured[measured["reference"] == OBSERVERS[0]]
    region_sets = [set(variant.rows(measured)["region"]) for variant in study.main]
    # The narrowest, as `REGIONS` begins with the whole image.
    common = [name for name in REGIONS if all(name in names for names in region_sets)]
    region = common[-1]
    regions = [name for name in REGIONS if name in set(measured["region"])]
    heads = {(name, "ece"): f"ECE, {name}" for name in regions}
    heads[region, "ace"] = "ACE"
    heads |= {(region, name): name for name in ("reliability", "resolution")}
    shown = {key: _PM if key[1] in ("ece", "ace") else _PM_4 for key in heads}
    lines = []
    for variant, target in product(study.main, study.targets):
        rows = variant.rows(measured[measured["target"] == target])
        cells = _cells(rows.set_index(["region", "measure"]), shown)
        name = _of_class(study, variant.label, target)
        lines.append([name, rows["seeds"].max(), *cells])
    note = _WORDS["calibration"].format(one_seed=_ALONE, region=region)
    return f"{table(['loss', 'seeds', *heads.values()], lines)}\n\n{note}"


def _cells(rows: pd.DataFrame, shown: Mapping[tuple[str, str], str]) -> list[str]:
    """Print the rows named by the keys of `shown`; "" for one that is not there."""
    return [
        form.format(**rows.loc[key]) if key in rows.index else ""
        for key, form in shown.items()
    ]


def _of_class(study: Study, name: str, target: object) -> str:
    return name + (f", {target}" if len(study.targets) > 1 else "")


def observed(study: Study, files: _Files) -> str:
    """Describe how far observers agree, and what p is where they do not."""
    if "observers.csv" not in files:
        return "*These images have one observer.*"
    rows = files["observers.csv"]
    rows = rows[rows["region"] == "image"].set_index(["reference", "measure"])
    by_class = ((rows[rows["target"] == name], name) for name in study.targets)
    return "\n\n".join(_agreement(study, *item) for item in by_class)


def _agreement(study: Study, rows: pd.DataFrame, target: str) -> str:
    shown = {("observer1", "dice"): _PM, ("observer2", "dice"): _PM}
    shown |= {
        (MEAN_OF_BOTH, name): "{mean:.2f}" for name in ("mean_p_one", "near_half_one")
    }
    by_loss = [(variant.label, variant.rows(rows)) for variant in study.main]
    lines = [[name, o["seeds"].max(), *_cells(o, shown)] for name, o in by_loss]
    human = HUMAN.rows(rows)
    sentence = _WORDS["observers"].format(
        target=target,
        dice=_PM.format(**human.loc[("observer1", "dice")]),
        share=f"{100 * human.loc[(MEAN_OF_BOTH, 'share_one'), 'mean']:.1f}",
        one_seed=_ALONE,
    )
    heads = ["Dice, first observer", "Dice, second", "mean p where they disagree"]
    heads.append("share of that with p from 0.25 to 0.75")
    return f"{sentence}\n\n{table([target, 'seeds', *heads], lines)}"


def scaled(study: Study, files: _Files) -> str:
    """Lay out the temperatures of one study: a row a loss and class."""
    if "temperature.csv" not in files:
        return "*No run was scaled yet.*"
    temperatures = files["temperature.csv"].set_index([*KEYS, "target"])
    nll, brier = (
        temperatures[temperatures["metric"] == metric] for metric in ("nll", "brier")
    )
    rows = nll.join(brier[["before", "after"]].add_prefix("brier_")).reset_index()
    lines = [_scaled_line(study, row) for row in rows.to_dict("records")]
    header = ["loss", "seeds", "temperature", "NLL", "scaled", "Brier", "scaled"]
    header.append("scaled NLL less that of DSC++")
    return f"{table(header, lines)}\n\nIntervals in brackets. {_ALONE}"


def _scaled_line(study: Study, row: dict[str, Any]) -> list[str]:
    gamma = row["gamma"] if row["gamma"] == row["gamma"] else None
    keys = row["loss"], gamma, row["method"]
    runs = {
        variant.before.label: len(runs)
        for variant, runs in study.runs.items()
        if (variant.columns["loss"], variant.gamma, variant.method) == keys
    }
    ((name, trainings),) = runs.items()  # replicates included
    more = f" ({trainings} trainings)" if trainings > row["seeds"] else ""
    spread = " ({temperature_low:.2f} to {temperature_high:.2f})"
    gap = "{to_dscpp:+.3f} ({to_dscpp_low:+.3f} to {to_dscpp_high:+.3f})"
    cells = ["{seeds}" + more]
    cells.append("{temperature:.2f}" + ("" if row["seeds"] == 1 else spread))
    cells += ["{before:.3f}", "{after:.3f}", "{brier_before:.3f}", "{brier_after:.3f}"]
    cells.append(gap if row["to_dscpp"] == row["to_dscpp"] else "")
    named = _of_class(study, name, row["target"])
    return [named, *(cell.format(**row) for cell in cells)]


def margins() -> str:
    """List the margins of "the same", with their reasons."""
    words = {True: "ratio", False: "difference"}
    lines = [
        [f"`{metric}`", f"{words[is_ratio(metric)]} {low:g} to {high:g}", reason]
        for metric, (low, high, reason) in MARGINS.items()
    ]
    return table(["metric", "margin", "why"], lines)


def same_loss(study: Study, files: _Files) -> str:
    """Count how often each test separates two trainings of one loss, by metric."""
    rows = files["tests.csv"]
    rows = rows[rows["same_loss"].ne("")].drop_duplicates(["target", "metric", "test"])
    if rows.empty:
        return "*No loss was trained twice.*"
    grid = rows.pivot(index=["target", "metric"], columns="test", values="same_loss")
    grid.index = [f"{target}, `{name}`" for target, name in grid.index]
    return table(["p < 0.05", *(f"`{name}`" for name in grid)], grid.itertuples())


def others_within(study: Study, files: _Files) -> str:
    """Count other losses whose printed values would be `within` too, by metric."""
    frames = [frame for frame in files.values() if "others_within" in frame]
    rows = pd.concat(frames) if frames else pd.DataFrame(columns=["others_within"])
    rows = rows[rows["others_within"].notna()]
    if rows.empty:
        return "*No loss has two seeds.*"
    both = rows["others_within"].str.split(" of ", expand=True).astype(int)
    sums = both.groupby(rows["metric"].to_numpy()).sum()
    lines = [
        [f"`{name}`", f"{near} of {total}"] for name, near, total in sums.itertuples()
    ]
    return table(["metric", "would pass too"], lines)


def spreads(study: Study, files: _Files) -> str:
    """List the spread over seeds of each loss with `OWN_SEEDS` seeds, and pooled."""
    several = [
        variant for variant in study.main if len(study.seeds(variant)) >= OWN_SEEDS
    ]
    if len(several) < 2:
        return f"*Fewer than two losses have {OWN_SEEDS} seeds.*"
    lines = []
    for target, name in product(study.targets, _HEADINGS):
        means = [
            study.measures(variant, target, name).mean(axis=1) for variant in several
        ]
        if is_ratio(name):
            means = [values / values.mean() for values in means]
        by_loss = [pooled([values[:, np.newaxis]]).s for values in means]
        every = pooled([values[:, np.newaxis] for values in means]).s
        p = f"{bartlett(*means).pvalue:.2f}" if min(by_loss) else ""
        cells = [f"{s:.4f}" for s in (*by_loss, every)]
        lines.append([f"{target}, `{name}`", *cells, p])
    labels = [variant.label for variant in several]
    heads = ["s over seeds", *labels, "pooled", "Bartlett's p"]
    return table(heads, lines)


TOPICS: Mapping[str, Callable[[Study, _Files], str]] = {
    "temperature": scaled,
    "calibration": calibrated,
    "observers": observed,
    "practice": practice.described,
    "scaled": practice.scaled,
    "same-loss": same_loss,
    "others-within": others_within,
    "spreads": spreads,
}
"""Texts about a study and its tables, by the last part of the marker's name."""

_KINDS = {
    "cells": "Published cells",
    "comparisons": "Comparisons",
    "facts": "Facts claimed",
}


def counts(over_all: _Files) -> str:
    """Count verdicts on published cells and on claims, a line each, from `COUNTS`."""
    counted = over_all[COUNTS]
    lines = []
    for kind, rows in counted[counted["group"] == "all"].groupby("kind", sort=False):
        pairs = rows[["verdict", "count"]].itertuples(index=False)
        verdicts = "; ".join(f"{verdict} {count}" for verdict, count in pairs)
        lines.append(f"{_KINDS[kind]} ({rows['count'].sum()}): {verdicts}.")
    return "\n".join(lines)


def claimed(over_all: _Files) -> str:
    """Count verdicts by table and section, and list notable claims."""
    parts = []
    for kind, rows in over_all[COUNTS].groupby("kind", sort=False):
        grid = rows.pivot(index="group", columns="verdict", values="count")
        grid = grid.loc[rows["group"].unique(), rows["verdict"].unique()]
        parts.append(table([_KINDS[kind], *grid], grid.itertuples()))
    return "\n\n".join([*parts, _named(over_all[claims.FILE])])


def _named(rows: pd.DataFrame) -> str:
    """List claims with a verdict against the paper, and why; others by their ids."""
    failing = rows[rows["verdict"].isin([FAILS, claims.NOT_SEEN])]
    words = " or ".join(failing["verdict"].unique()) or "fails"
    lines = [f"- Verdict {words} ({len(failing)}), with the reason:"]
    lines += [f"  - {_failed(row)}." for row in failing.to_dict("records")]
    proper = rows["verdict_corrected"]
    lists = {
        "Different verdict by the NLL and Brier score of both terms": (
            proper.ne("") & proper.ne(rows["verdict"])
        ),
        "Not supported by the paper's own printed means and errors": (
            rows["paper_tables"].eq("fails")
        ),
    }
    for heading, wanted in lists.items():
        ids = [f"`{claim}`" for claim in rows.loc[wanted, "id"]]
        lines.append(f"- {heading} ({len(ids)}): {', '.join(ids) or 'none'}.")
    return "\n".join([*lines, _family(rows)])


def _family(rows: pd.DataFrame) -> str:
    """Count verdicts on facts: all, false by chance, and left after correction."""
    facts = rows[rows["fact"].eq(rows["id"]) & rows["p_holds"].notna()]
    if facts.empty:
        return "- No fact was tested."
    words = {"n": len(facts), "alpha": ALPHA, "chance": ALPHA * len(facts)}
    for name, column in {"holding": "p_holds", "failing": "p_fails"}.items():
        p = facts[column]
        adjusted = false_discovery_control(p.clip(upper=1))
        words |= {name: p.lt(ALPHA).sum(), f"{name}_left": (adjusted < ALPHA).sum()}
    return str(_WORDS["family"].format(**words))


def _failed(row: Mapping[str, object]) -> str:
    """Describe a failed claim: the reason, the seeds and what bears on the cause."""
    number = float(str(row["seeds"]))
    seeds = "" if number != number else f" ({number:g} seeds)"
    seeds = " (one seed)" if number == 1 else seeds
    texts = [f"`{row['id']}`{seeds}: {str(row['why']).partition('; not run:')[0]}"]
    if row["verdict_corrected"] not in ("", row["verdict"]):
        texts.append(f"{row['verdict_corrected']} by both terms")
    if row["paper_tables"] == "fails":
        texts.append("not supported by the paper's own tables either")
    return "; ".join(texts)
