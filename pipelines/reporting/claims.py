"""The claims of the paper's text, each with a verdict from the runs at hand.

`results/paper/claims.csv` has what the paper says and which rule decides it; `rules`
has the rules; this module puts the two to the runs. What every column means is in
`results/README.md`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from data_io.errors import InputError
from pipelines.measure import metrics, statistics
from pipelines.reporting.evidence import Pair, Printed, Quantity, Runs
from pipelines.reporting.overview import PRESETS
from pipelines.reporting.published import (
    published_cells,
    published_p_values,
    published_thresholds,
    read_rows,
)
from pipelines.reporting.rules import (
    ALPHA,
    FAILS,
    HOLDS,
    NOT_RUN,
    RULES,
    UNDECIDED,
    Outcome,
    Part,
    Rule,
)
from pipelines.reporting.study import Study

__all__ = ["COLUMNS", "Claim", "claim_rows", "published_claims"]

COLUMNS = (
    "id",
    "section",
    "claim",
    "dataset",
    "metric",
    "test",
    "verdict",
    "preset",
    "seeds",
    "why",
    "paper",
    "ours",
    "a",
    "b",
    "difference",
    "ci_low",
    "ci_high",
    "n",
    "p_rank_sum",
    "p_signed_rank",
    "p_holm",
    "disagree",
    "verdict_corrected",
    "paper_tables",
    "parts",
    "parts_hold",
    "parts_fail",
    "parts_not_run",
    "reading",
)
_PAPER_COLUMNS = (
    "id",
    "section",
    "claim",
    "dataset",
    "rule",
    "metric",
    "a",
    "b",
    "sense",
    "value",
    "at_least",
    "reading",
)
_SHOWN_PARTS = 6
_Row = dict[str, object]
_Studies = Sequence[tuple[Study, Sequence[Mapping[str, object]]]]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper's text.

    Attributes:
        row: its row of `results/paper/claims.csv`.
        rule: what decides each of its parts.
        parts: what is compared.
        at_least: how many of the parts have to hold.
    """

    row: Mapping[str, str]
    rule: Rule
    parts: tuple[Part, ...]
    at_least: int

    @classmethod
    def parse(cls, row: Mapping[str, str]) -> Self:
        """Read a row.

        Lists are separated by "; ". A data set with several classes names one in
        brackets: "KiTS19 (kidney)".

        Raises:
            InputError: an unknown rule, metric or loss, or lists that do not fit it.
        """
        try:
            rule_type = RULES[row["rule"]]
            unknown = [m for m in _list(row["metric"]) if m not in metrics.PAPER_COLUMN]
            if unknown:
                raise KeyError(*unknown)
            rule = rule_type(row["sense"], float(row["value"] or "nan"))
            at_least = int(row["at_least"] or 0)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"claims.csv: claim {row['id']}: expected a rule out of "
                f"{', '.join(RULES)}, metrics out of {', '.join(metrics.PAPER_COLUMN)} "
                f"and numbers, found {error}; correct it"
            ) from error
        a, b = (tuple(map(Quantity.parse, _list(row[side]))) for side in ("a", "b"))
        parts = tuple(
            Part(dataset, target, metric, one, other)
            for dataset, target in map(_dataset, _list(row["dataset"]))
            for metric in _list(row["metric"]) or [""]
            for one, other in rule.split(a, b)
        )
        if not parts:
            raise InputError(
                f"claims.csv: claim {row['id']}: expected something to compare, found "
                "no data set, metric or loss; correct it"
            )
        return cls(row, rule, parts, at_least or len(parts))

    def combined(self, verdicts: Sequence[str]) -> str:
        """The claim's verdict out of those of its parts.

        It holds where enough parts hold, fails where too many fail, is not run where
        none was run, and is undecided otherwise.
        """
        count = Counter(verdicts)
        if count[HOLDS] >= self.at_least:
            return HOLDS
        if count[FAILS] > len(self.parts) - self.at_least:
            return FAILS
        return NOT_RUN if count[NOT_RUN] == len(self.parts) else UNDECIDED


def _list(text: str) -> list[str]:
    return [item for item in text.split("; ") if item]


def _dataset(text: str) -> tuple[str, str]:
    """Split "KiTS19 (kidney)" into data set and class."""
    title, _, target = text.removesuffix(")").partition(" (")
    return title, target


def published_claims(folder: Path) -> tuple[Claim, ...]:
    """Read the claims of the paper's text.

    Args:
        folder: `results/paper`.

    Raises:
        InputError: `claims.csv` is missing or is not as expected.
    """
    rows = read_rows(Path(folder) / "claims.csv", _PAPER_COLUMNS)
    return tuple(Claim.parse(row) for row in rows)


def claim_rows(paper: Path, studies: _Studies) -> list[_Row]:
    """Decide every claim, with `COLUMNS`.

    Args:
        paper: `results/paper`.
        studies: each study with the rows of its `tests.csv`. Simulated ones and other
            presets than `overview.PRESETS` are left out.

    Raises:
        InputError: a file of `results/paper` is missing or is not as expected.
    """
    usable = sorted(
        ((s, tests) for s, tests in studies if not s.simulated and s.preset in PRESETS),
        key=lambda item: PRESETS.index(item[0].preset),
    )
    printed = Printed(published_cells(paper), published_thresholds(paper))
    p_values = published_p_values(paper)
    return [
        _Decision(claim, usable).row() | _paper_side(claim, printed, p_values)
        for claim in published_claims(paper)
    ]


class _Decision:
    """One claim put to the runs."""

    def __init__(self, claim: Claim, studies: _Studies) -> None:
        self.claim = claim
        self.studies = studies
        self.evidence = [self._evidence(part) for part in claim.parts]
        self.outcomes = _with_holm(self._outcomes(corrected=False))
        self.verdict = claim.combined([one.verdict for one in self.outcomes])

    def _evidence(self, part: Part, corrected: bool = False) -> Runs | None:
        """The preset with most of what a part compares; the paper's before others."""
        found = [
            Runs(study, tests, part.target, corrected)
            for study, tests in self.studies
            if study.title == part.dataset
        ]
        counts = [sum(map(runs.has, part.quantities)) for runs in found]
        return found[counts.index(max(counts))] if found else None

    def _outcomes(self, corrected: bool) -> list[Outcome]:
        result = []
        for part in self.claim.parts:
            runs = self._evidence(part, corrected)
            if runs is None:
                result.append(Outcome(NOT_RUN, f"no runs on {part.dataset}"))
            else:
                result.append(self.claim.rule.decide(part, runs))
        return result

    def row(self) -> _Row:
        shown = self._shown()
        pair, run = shown.pair, [o for o in self.outcomes if o.verdict != NOT_RUN]
        used = [
            runs.study.preset
            for part, runs, one in zip(
                self.claim.parts, self.evidence, self.outcomes, strict=True
            )
            if runs is not None and part.measured and one.verdict != NOT_RUN
        ]
        row: _Row = {
            name: self.claim.row[name]
            for name in ("id", "section", "claim", "dataset", "metric", "reading")
        }
        row |= {
            "test": self._test(),
            "verdict": self.verdict,
            "preset": "; ".join(dict.fromkeys(used)),
            "why": self._why(shown),
            "ours": self._ours(),
            "disagree": _disagreement([one.pair for one in run]),
            "verdict_corrected": self._corrected(),
        }
        count = Counter(one.verdict for one in self.outcomes)
        row |= {"parts": len(self.outcomes), "parts_hold": count[HOLDS]}
        row |= {"parts_fail": count[FAILS], "parts_not_run": count[NOT_RUN]}
        if pair is not None:
            row |= vars(pair) | {"a": pair.a.label, "b": pair.b.label}
        return row

    def _shown(self) -> Outcome:
        """The weakest of the parts that the verdict comes from."""
        own = [one for one in self.outcomes if one.verdict == self.verdict]
        run = [one for one in self.outcomes if one.verdict != NOT_RUN]
        return max(own or run or self.outcomes, key=lambda one: one.weakness)

    def _test(self) -> str:
        if self.claim.at_least == len(self.claim.parts):
            return self.claim.rule.in_words
        return (
            f"{self.claim.rule.in_words}; in at least {self.claim.at_least} of "
            f"{len(self.claim.parts)}"
        )

    def _why(self, shown: Outcome) -> str:
        missing = sorted(
            {one.why for one in self.outcomes if one.verdict == NOT_RUN} - {shown.why}
        )
        listed = missing[:_SHOWN_PARTS]
        more = len(missing) - len(listed)
        return "; ".join([shown.why, *listed, *([f"{more} more"] if more else [])])

    def _ours(self) -> str:
        """Our figures: every part that was run, or the weakest where they are many."""
        found = [
            (one, _listed(part, runs.means(part.measured, part.metric)))
            for part, runs, one in zip(
                self.claim.parts, self.evidence, self.outcomes, strict=True
            )
            if runs is not None and one.verdict != NOT_RUN
        ]
        if len(found) > _SHOWN_PARTS:
            shown = self._shown()
            rest = f"{len(found) - 1} more"
            return "; ".join([*(text for one, text in found if one is shown), rest])
        return "; ".join(text for _, text in found)

    def _corrected(self) -> str:
        """The verdict by the corrected NLL and Brier; "" for a claim on neither."""
        if not {"nll", "brier"} & {part.metric for part in self.claim.parts}:
            return ""
        return self.claim.combined([o.verdict for o in self._outcomes(corrected=True)])


def _listed(part: Part, means: Mapping[Quantity, float]) -> str:
    values = ", ".join(
        f"{one.label} {'undefined' if math.isnan(mean) else f'{mean:.4g}'}"
        for one, mean in means.items()
    )
    target = f" ({part.target})" if part.target else ""
    return f"{part.dataset}{target} {part.metric}: {values}"


def _with_holm(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Correct p over the claim's own parts where `tests.csv` has no such pair."""
    index = [
        i
        for i, one in enumerate(outcomes)
        if one.pair is not None and math.isnan(one.pair.p_holm)
    ]
    pairs = [outcomes[i].pair for i in index]
    adjusted = statistics.holm(
        np.array([pair.p_signed_rank for pair in pairs if pair is not None])
    )
    result = list(outcomes)
    for i, pair, p in zip(index, pairs, adjusted, strict=True):
        if pair is not None:
            result[i] = replace(outcomes[i], pair=replace(pair, p_holm=float(p)))
    return result


def _disagreement(pairs: Sequence[Pair | None]) -> str:
    """Where the two tests fall on different sides of `ALPHA`."""
    said = []
    for pair in pairs:
        if pair is None or (pair.p_rank_sum < ALPHA) == (pair.p_signed_rank < ALPHA):
            continue
        finder = "rank-sum" if pair.p_rank_sum < ALPHA else "signed-rank"
        said.append(f"{finder} alone finds {pair.a.label} other than {pair.b.label}")
    counted = Counter(said)
    shown = list(counted)[:_SHOWN_PARTS]
    more = len(counted) - len(shown)
    return "; ".join([*shown, *([f"{more} more"] if more else [])])


def _paper_side(
    claim: Claim, printed: Printed, p_values: Sequence[Mapping[str, str]]
) -> _Row:
    """What the paper prints of it, and whether its own tables agree with its text."""
    verdicts, texts = [], []
    for part in claim.parts:
        found = printed.figures(part.dataset, part.target, part.measured, part.metric)
        verdicts.append(claim.rule.in_print(part, found))
        means = {one: figure.mean for one, figure in found.items()}
        p = _printed_p(part, p_values)
        text = (_listed(part, means) if means else "") + (f", p = {p}" if p else "")
        texts += [text] if text else []
    if len(texts) > _SHOWN_PARTS:
        texts = [*texts[:_SHOWN_PARTS], f"{len(texts) - _SHOWN_PARTS} more"]
    known = all(verdicts)
    if not math.isnan(claim.rule.value):
        texts = [f"{claim.rule.value:g}"]
    return {
        "paper": "; ".join(texts),
        "paper_tables": claim.combined(verdicts) if known else "",
    }


def _printed_p(part: Part, p_values: Sequence[Mapping[str, str]]) -> str:
    if len(part.a) != 1 or len(part.b) != 1:
        return ""
    for row in p_values:
        own = (row["dataset"], row["metric"], row["loss_a"], row["loss_b"])
        target = part.target in ("", row["target"])
        if target and own == (
            part.dataset,
            part.metric,
            part.a[0].label,
            part.b[0].label,
        ):
            return row["p"]
    return ""
