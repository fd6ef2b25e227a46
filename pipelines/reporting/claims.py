"""The claims of the paper's text put to the runs at hand: a verdict for each.

`results/paper/claims.csv` says what a claim compares and which of the `rules` decides
it. What every column of the result means is in `results/README.md`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import pandas as pd

from data_io.errors import InputError
from pipelines.measure import metrics
from pipelines.reporting import rules
from pipelines.reporting.evidence import EXTREMES, Printed, Quantity, Runs
from pipelines.reporting.frame import Study
from pipelines.reporting.published import Paper, Variant, read_rows
from pipelines.reporting.rules import CITED, FAILS, HOLDS, NOT_RUN, Part, Rule
from pipelines.reporting.tables import usable

__all__ = [
    "COLUMNS", "FILE", "NOT_SEEN", "SEEN", "VERDICTS", "Claim", "decide",
    "published_claims",
]  # fmt: skip

FILE = "claims.csv"
COLUMNS = (
    "id", "fact", "section", "claim", "dataset", "metric", "test", "verdict", "preset",
    "seeds", "why", "paper", "ours", "a", "b", "difference", "ci_low", "ci_high", "n",
    "p_trainings", "p_same", "p_rank_sum", "other_losses", "verdict_corrected",
    "paper_tables", "parts", "parts_hold", "parts_fail", "parts_not_run", "reading",
)  # fmt: skip

SEEN, NOT_SEEN = "seen at reduced", "not seen at reduced"
"""A network 16 times smaller than the paper's neither proves nor refutes a claim."""

VERDICTS = (HOLDS, FAILS, SEEN, NOT_SEEN, rules.UNDECIDED, NOT_RUN, CITED)
"""What can become of a claim."""

_GIVEN = ("id", "fact", "section", "claim", "dataset", "metric", "reading")
_PAPER_COLUMNS = (*_GIVEN, "rule", "a", "b", "sense", "value", "at_least")
_METRICS = (*metrics.PAPER_COLUMN, EXTREMES)
_SHOWN = 6
"""So many comparisons are named in a cell; the others are counted."""

_OTHERS = ("CE", "Focal", "DSC", "DSC++")  # of Table 4

_Row = dict[str, object]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper's text: a row of `results/paper/claims.csv`.

    It holds where `at_least` of the parts do, each by the rule.
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
            rule_type = rules.RULES[row["rule"]]
            unknown = [m for m in _list(row["metric"]) if m not in _METRICS]
            if unknown:
                raise KeyError(*unknown)
            rule = rule_type(row["sense"], float(row["value"] or "nan"))
            at_least = int(row["at_least"] or 0)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"claims.csv: claim {row['id']}: expected a rule out of "
                f"{', '.join(rules.RULES)}, metrics out of {', '.join(_METRICS)} "
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
        if count[CITED]:
            return CITED
        if count[HOLDS] >= self.at_least:
            return HOLDS
        if count[FAILS] > len(self.parts) - self.at_least:
            return FAILS
        return NOT_RUN if count[NOT_RUN] == len(self.parts) else rules.UNDECIDED

    def of_other(self, loss: str) -> Self | None:
        """The same claim of another loss; None: it is not about one loss's thresholds.

        Such a claim may be true of any loss.
        """
        own = {one.variant for part in self.parts for one in part.quantities}
        at = [one.threshold for part in self.parts for one in part.quantities]
        if len(own) != 1 or None in at or own == {Variant.standard(loss)}:
            return None

        def swapped(side: Sequence[Quantity]) -> tuple[Quantity, ...]:
            return tuple(replace(one, variant=Variant.standard(loss)) for one in side)

        parts = (replace(p, a=swapped(p.a), b=swapped(p.b)) for p in self.parts)
        return replace(self, parts=tuple(parts))


def _list(text: str) -> list[str]:
    return [item for item in text.split("; ") if item]


def _dataset(text: str) -> tuple[str, str]:
    """Split "KiTS19 (kidney)" into data set and class."""
    title, _, target = text.removesuffix(")").partition(" (")
    return title, target


def published_claims(paper: Paper) -> tuple[Claim, ...]:
    """Read the claims of the paper's text.

    Raises:
        InputError: `claims.csv` is missing or is not as expected.
    """
    return tuple(map(Claim.parse, read_rows(paper.folder / FILE, _PAPER_COLUMNS)))


def decide(paper: Paper, studies: Sequence[Study]) -> pd.DataFrame:
    """Decide every claim from the `tables.usable` studies, with `COLUMNS`.

    Raises:
        InputError: a file of `results/paper` is missing or is not as expected.
    """
    ordered, printed = usable(studies), Printed(paper)
    rows = [
        _Decision(claim, ordered).row() | _paper_side(claim, paper, printed)
        for claim in published_claims(paper)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Judged:
    """A part of a claim, the runs it was put to, and what came of it."""

    part: Part
    runs: Runs | None
    outcome: rules.Outcome

    @property
    def was_run(self) -> bool:
        return self.outcome.verdict != NOT_RUN

    @property
    def ours(self) -> str:
        """Our means of all that it compares."""
        if self.runs is None:
            return ""
        return _listed(self.part, self.runs.means(self.part.measured, self.part.metric))


class _Decision:
    """One claim put to the runs."""

    def __init__(self, claim: Claim, studies: Sequence[Study]) -> None:
        self.claim = claim
        self.studies = studies
        self.judged = [self._judged(part) for part in claim.parts]
        self.verdict = claim.combined([one.outcome.verdict for one in self.judged])
        self.was_run = [one for one in self.judged if one.was_run]

    def _judged(self, part: Part, corrected: bool = False) -> _Judged:
        runs, rule = self._evidence(part, corrected), self.claim.rule
        outcome = rule.decide(part, runs) if runs else rule.without_runs
        return _Judged(part, runs, outcome)

    def _evidence(self, part: Part, corrected: bool) -> Runs | None:
        """The preset with most of what a part compares; the paper's before others."""
        found = [
            Runs(study, part.target, corrected)
            for study in self.studies
            if study.title == part.dataset
        ]
        every = part.quantities
        return max(found, key=lambda runs: sum(map(runs.has, every)), default=None)

    @property
    def _presets(self) -> list[str]:
        """The presets of what was measured, each once."""
        measured = (one.runs for one in self.was_run if one.part.measured)
        return list(dict.fromkeys(runs.study.preset for runs in measured if runs))

    def _worded(self, verdict: str) -> str:
        """A verdict in the words of the preset that it is from."""
        if set(self._presets) <= {"paper"}:
            return verdict
        return {HOLDS: SEEN, FAILS: NOT_SEEN}.get(verdict, verdict)

    def row(self) -> _Row:
        count = Counter(one.outcome.verdict for one in self.judged)
        row: _Row = {name: self.claim.row[name] for name in _GIVEN}
        row |= {
            "test": self._test(),
            "verdict": self._worded(self.verdict),
            "preset": "; ".join(self._presets),
            "why": self._why(),
            "ours": self._ours(),
            "other_losses": self._others(),
            "verdict_corrected": self._corrected(),
            "parts": len(self.judged),
            "parts_hold": count[HOLDS],
            "parts_fail": count[FAILS],
            "parts_not_run": count[NOT_RUN],
        }
        pair = self._shown().outcome.pair
        if pair is not None:
            row |= vars(pair) | {"metric": row["metric"]}
            row |= {"a": pair.a.label, "b": pair.b.label}
        return row

    def _shown(self) -> _Judged:
        """The weakest of the parts that the verdict comes from."""
        own = [one for one in self.judged if one.outcome.verdict == self.verdict]
        among = own or self.was_run or self.judged
        return max(among, key=lambda one: one.outcome.doubt)

    def _test(self) -> str:
        words, parts = self.claim.rule.in_words, len(self.claim.parts)
        if self.claim.at_least == parts:
            return words
        return f"{words}; in at least {self.claim.at_least} of {parts}"

    def _why(self) -> str:
        """What decided, of which part, and what was not run."""
        shown = self._shown()
        why = shown.outcome.why
        if why and len(self.claim.parts) > 1 and shown.part.metric:
            why = f"{shown.part.name}: {why}"
        several = len({one.part.dataset for one in self.judged}) > 1
        missing = dict.fromkeys(
            f"{label} on {one.part.dataset}" if several or label == "all" else label
            for one in self.judged
            for label in one.outcome.missing
        )
        lacking = f"not run: {', '.join(missing)}" if missing else ""
        return "; ".join(text for text in (why, lacking) if text)

    def _ours(self) -> str:
        """Our figures: every part that was run, or the weakest where they are many."""
        if len(self.was_run) > _SHOWN:
            return f"{self._shown().ours}; {len(self.was_run) - 1} more"
        return _some(one.ours for one in self.was_run)

    def _corrected(self) -> str:
        """The verdict by the corrected NLL and Brier; "" for a claim on neither."""
        if not {"nll", "brier"} & {part.metric for part in self.claim.parts}:
            return ""
        found = (self._judged(part, corrected=True) for part in self.claim.parts)
        return self._worded(self.claim.combined([one.outcome.verdict for one in found]))

    def _others(self) -> str:
        """Of a claim on thresholds of one loss: which others have the same verdict."""
        if self.verdict not in (HOLDS, FAILS):
            return ""
        claims = {loss: self.claim.of_other(loss) for loss in _OTHERS}
        same = [
            loss
            for loss, claim in claims.items()
            if claim and _Decision(claim, self.studies).verdict == self.verdict
        ]
        return "; ".join(same)


def _listed(part: Part, means: Mapping[Quantity, float]) -> str:
    values = ", ".join(
        f"{one.label} {'undefined' if math.isnan(mean) else f'{mean:.4g}'}"
        for one, mean in means.items()
    )
    return f"{part.name}: {values}" if values else ""


def _some(texts: Iterable[str]) -> str:
    """Join the first few, each once, and say how many more there are."""
    found = [text for text in dict.fromkeys(texts) if text]
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN] + ([f"{more} more"] if more > 0 else []))


def _paper_side(claim: Claim, paper: Paper, printed: Printed) -> _Row:
    """What the paper prints of it, and whether its own tables agree with its text."""
    verdicts, texts = [], []
    for part in claim.parts:
        found = printed.figures(part.dataset, part.target, part.measured, part.metric)
        verdicts.append(claim.rule.in_print(part, found))
        text = _listed(part, {one: figure.mean for one, figure in found.items()})
        if len(part.a) == len(part.b) == 1:
            pair = (part.a[0].label, part.b[0].label)
            p = paper.printed_p(part.dataset, part.target, part.metric, pair)
            text += f", p = {p}" if p else ""
        texts.append(text)
    if not math.isnan(claim.rule.value):
        texts = [f"{claim.rule.value:g}"]
    return {
        "paper": _some(texts),
        "paper_tables": claim.combined(verdicts) if all(verdicts) else "",
    }
