"""How it stands over all data sets, in a few lines: for the terminal and the README."""

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from data_io.errors import InputError
from pipelines.reporting import claims, noise, summary
from pipelines.reporting.evidence import Quantity, Runs
from pipelines.reporting.markdown import table
from pipelines.reporting.overview import PRESETS
from pipelines.reporting.published import Cell, paper_folder, printed_p
from pipelines.reporting.rules import ALPHA
from pipelines.reporting.study import STANDARD_GAMMA, Study, Variant, groups
from pipelines.reporting.tables import study_of

__all__ = ["COUNTS", "MARKER", "counts", "markdown"]

MARKER = "claims"
"""Name of the marker in the README."""

COUNTS = "counts"
"""Name of the marker at the README's top."""

_KINDS = {"cells": "Published cells", "claims": "Claims of the text"}
_PAIR = (Variant("DSC++", STANDARD_GAMMA), Variant("DSC"))
_CE = Variant("CE")
# Metric, whether it is the proper form, and its heading.
_BESIDE_CE = (
    ("nll", False, "NLL published"),
    ("nll", True, "NLL"),
    ("brier", True, "Brier"),
    ("dice", False, "Dice"),
)

_Claim = Mapping[str, str]

_LISTS: Mapping[str, Callable[[_Claim], bool]] = {
    "Another verdict by the proper NLL and Brier": lambda row: (
        row["verdict_corrected"] not in ("", row["verdict"])
    ),
    "Printed means and standard errors speak against the text": lambda row: (
        row["paper_tables"] == "fails"
    ),
}
"""Which claims are named in the README, and under which words."""


def counts(results: Path) -> str:
    """How many published cells and claims came out how, in two lines.

    Args:
        results: the folder of all results, with its `summary.csv`.

    Raises:
        InputError: see `summary.read_counts`.
    """
    lines = []
    for kind, by_group in summary.read_counts(results).items():
        found = by_group["all"]
        said = "; ".join(f"{verdict} {count}" for verdict, count in found.items())
        lines.append(f"{_KINDS[kind]} ({sum(found.values())}): {said}.")
    return "\n".join(lines)


def markdown(results: Path) -> str:
    """Counts by table and section, claims worth a look, DSC++ beside DSC and CE.

    Args:
        results: the folder of all results, with its `summary.csv` and `claims.csv`.

    Raises:
        InputError: these cannot be read, or runs cannot be joined.
    """
    parts = []
    for kind, by_group in summary.read_counts(results).items():
        header = [_KINDS[kind], *by_group["all"]]
        rows = [[group, *map(str, found.values())] for group, found in by_group.items()]
        parts.append(table(header, rows))
    return "\n\n".join(
        [
            *parts,
            _named(results),
            _central(results),
            _beside_ce(results),
            _noise(results),
        ]
    )


def _named(results: Path) -> str:
    """The claims that fail with the reason, those of `_LISTS` by their ids."""
    path = Path(results) / claims.FILE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        named = {
            words: [row["id"] for row in rows if wanted(row)]
            for words, wanted in _LISTS.items()
        }
        failed = [f"  - {_failed(row)}." for row in rows if row["verdict"] == "fails"]
        disputed = sum(row["disagree"] != "" for row in rows)
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: expected verdicts on claims, found a file that cannot be read as "
            f"such ({error!r}); write it anew with `dscpp tables`"
        ) from error
    lines = [f"- Claims that fail ({len(failed)}), and by what:", *failed]
    lines += [
        f"- {words} ({len(ids)}): {', '.join(f'`{one}`' for one in ids) or 'none'}."
        for words, ids in named.items()
    ]
    lines.append(f"- Rank-sum test and paired test disagree: {disputed} claims.")
    return "\n".join(lines)


def _failed(row: _Claim) -> str:
    """A claim that fails: by what, from how many seeds, and what bears on the cause."""
    seeds = {"": "", "1": " (one seed)"}.get(row["seeds"], f" ({row['seeds']} seeds)")
    said = [f"`{row['id']}`{seeds}: {row['why'].partition('; not run:')[0]}"]
    # Of the pair that decided it: the paired test, where it says something else.
    paired, unpaired = (
        float(row[name] or "nan") for name in ("p_signed_rank", "p_rank_sum")
    )
    if (paired < ALPHA) != (unpaired < ALPHA):
        found = "" if paired < ALPHA else "not "
        said.append(f"the paired test's p is {found}below 0.05 ({paired:.1g})")
    if row["verdict_corrected"] not in ("", row["verdict"]):
        said.append(f"{row['verdict_corrected']} by the proper form")
    if row["paper_tables"] == "fails":
        said.append("fails by the paper's own tables too")
    return "; ".join(said)


def _noise(results: Path) -> str:
    """How many published differences exceed what trainings differ by."""
    tables = []
    for study, cells in _with_all(results):
        for target in study.targets:
            found = [r for r in noise.rows(study, cells) if r["target"] == target]
            if found:
                (_, *names), *lines = noise.summary(found)
                title = f"{study.title}, {target}: beyond training noise"
                tables.append(table([title, *names], lines))
    return "\n\n".join(tables)


def _central(results: Path) -> str:
    """DSC++ beside DSC wherever both were run: what the paper is about."""
    header = ["DSC++ beside DSC", "NLL published, ratio", "paper", "p", "paper"]
    header += ["NLL, ratio", "Dice, difference", "paper"]
    losses = _PAIR[0].loss, _PAIR[1].loss
    rows = []
    for study, cells in _with_all(results, *_PAIR):
        printed = {(c.variant, c.target, c.metric): c.value for c in cells}
        p = printed_p(paper_folder(results), study.title, losses)
        rows += [
            _central_row(study, target, printed, p.get((target, "nll"), ""))
            for target in study.targets
        ]
    return table(header, rows)


def _beside_ce(results: Path) -> str:
    """DSC++ less CE, paired: what is left of the lead under the proper forms."""
    headings = [f"{name}, difference" for _, _, name in _BESIDE_CE]
    rows = [
        [
            _title(study, target, _PAIR[0], _CE),
            *(
                _difference(study, target, corrected, metric, _PAIR[0], _CE)
                for metric, corrected, _ in _BESIDE_CE
            ),
        ]
        for study, _ in _with_all(results, _PAIR[0], _CE)
        for target in study.targets
    ]
    return table(["DSC++ beside CE", *headings], rows)


def _with_all(
    results: Path, *wanted: Variant
) -> Iterator[tuple[Study, tuple[Cell, ...]]]:
    """The studies with cells in the paper and runs of all these variants."""
    for folder in groups(results):
        study, cells = study_of(folder)
        there = all(variant in study.runs for variant in wanted)
        if cells and there and study.preset in PRESETS:
            yield study, cells


def _title(study: Study, target: str, a: Variant, b: Variant) -> str:
    seeds = Runs(study, (), target).pair(Quantity(a), Quantity(b), "dice").seeds
    word = "seed" if seeds == 1 else "seeds"
    return f"{study.title}, {target}, preset {study.preset}, {seeds} {word}"


def _difference(
    study: Study, target: str, corrected: bool, metric: str, a: Variant, b: Variant
) -> str:
    pair = Runs(study, (), target, corrected).pair(Quantity(a), Quantity(b), metric)
    return f"{pair.difference:+.3f} [{pair.ci_low:+.3f}, {pair.ci_high:+.3f}]"


def _central_row(
    study: Study,
    target: str,
    printed: Mapping[tuple[Variant, str, str], float],
    printed_p: str,
) -> list[str]:
    plus, plain = map(Quantity, _PAIR)
    ratios = []
    for corrected in (False, True):
        found = Runs(study, (), target, corrected).ratio(plus, plain, "nll")
        ratios.append(f"{found.mean:.2f} [{found.ci_low:.2f}, {found.ci_high:.2f}]")
    # Tables of binary data sets do not name the class.
    known = target if any(key[1] == target for key in printed) else ""
    nll, dice = (
        [printed[variant, known, metric] for variant in _PAIR]
        for metric in ("nll_published", "dice")
    )
    p = Runs(study, (), target).pair(plus, plain, "nll").p_rank_sum
    return [
        _title(study, target, *_PAIR),
        ratios[0],
        f"{nll[0] / nll[1]:.2f}",
        f"{p:.1g}",
        printed_p,
        ratios[1],
        _difference(study, target, False, "dice", *_PAIR),
        f"{dice[0] - dice[1]:+.3f}",
    ]
