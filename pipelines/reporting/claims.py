"""The claims of the paper's text put to the runs at hand: a verdict for each.

`results/paper/claims.csv` says what a claim compares and which of the `rules` decides
it. What every column of the result means is in `results/README.md`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import pandas as pd

from data_io.errors import InputError
from pipelines.measure import metrics
from pipelines.reporting import rules
from pipelines.reporting.estimates import ALPHA
from pipelines.reporting.evidence import Runs
from pipelines.reporting.frame import EXTREMES, Study
from pipelines.reporting.published import Paper, Variant, read_rows
from pipelines.reporting.rules import (
    FAILS,
    HOLDS,
    NOT_RUN,
    UNDECIDED,
    Comparison,
    Outcome,
)
from pipelines.reporting.tables import deciding, framed, usable

FILE = "claims.csv"
SEEN, NOT_SEEN = "seen at reduced", "not seen at reduced"
"""A network 16 times smaller than the paper's neither proves nor refutes a claim."""

VERDICTS = (HOLDS, FAILS, SEEN, NOT_SEEN, UNDECIDED, NOT_RUN, rules.CITED)
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
    rule: rules.Rule
    parts: tuple[Comparison, ...]
    at_least: int

    @classmethod
    def parse(cls, row: Mapping[str, str]) -> Self:
        """Read a row.

        Lists are separated by "; ". A data set with several classes names one in
        brackets: "KiTS19 (kidney)".

        Raises:
            InputError: an unknown rule, metric or loss, or lists that do not fit it.
        """
        lists = {
            key: [item for item in row[key].split("; ") if item]
            for key in ("metric", "dataset", "a", "b")
        }
        try:
            if unknown := [m for m in lists["metric"] if m not in _METRICS]:
                raise KeyError(*unknown)
            rule = rules.Rule.of(
                row["rule"], row["sense"], float(row["value"] or "nan")
            )
            at_least = int(row["at_least"] or 0)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"claims.csv: claim {row['id']}: expected a rule out of "
                f"{', '.join(rules.KINDS)}, metrics out of {', '.join(_METRICS)} "
                f"and numbers, found {error}; correct it"
            ) from error
        a, b = (tuple(map(Variant.parse, lists[side])) for side in ("a", "b"))
        parts = tuple(
            Comparison(*_dataset(title), metric, tuple(one), tuple(other))
            for title in lists["dataset"]
            for metric in lists["metric"] or [""]
            for one, other in rule.split(a, b)
        )
        if not parts:
            raise InputError(
                f"claims.csv: claim {row['id']}: expected something to compare, found "
                "no data set, metric or loss; correct it"
            )
        return cls(row, rule, parts, at_least or len(parts))

    def combined(self, outcomes: Sequence[Outcome]) -> tuple[str, float, float]:
        """Combine the verdicts of the parts: verdict, p to hold, p to fail.

        Each p is that of the partial conjunction of its parts (Benjamini and Heller
        2008): to hold, of `at_least` parts; to fail, of so many that fewer are left.
        """
        spare = len(outcomes) - self.at_least
        p_holds = _enough([outcome.p_holds for outcome in outcomes], self.at_least)
        p_fails = _enough([outcome.p_fails for outcome in outcomes], spare + 1)
        for verdict in (rules.CITED, NOT_RUN):
            if all(outcome.verdict == verdict for outcome in outcomes):
                return verdict, math.nan, math.nan
        seen = HOLDS if p_holds < ALPHA else FAILS if p_fails < ALPHA else UNDECIDED
        return seen, p_holds, p_fails

    def of_other(self, loss: str) -> Self | None:
        """Make the same claim of another loss; None: not about one loss's thresholds.

        Such a claim may be true of any loss.
        """
        every = [variant for part in self.parts for variant in part.quantities]
        labels = {replace(variant, threshold=None).label for variant in every}
        if (
            len(labels) != 1
            or labels == {loss}
            or any(x.threshold is None for x in every)
        ):
            return None
        (name,) = labels
        sides = {side: self.row[side].replace(name, loss) for side in ("a", "b")}
        return self.parse({**self.row, **sides})


def _enough(p_values: Iterable[float], number: int) -> float:
    """P of "fewer than `number` of these are so", by Bonferroni's correction."""
    ordered = sorted(p_values)
    return min(1.0, (len(ordered) - number + 1) * ordered[number - 1])


def _dataset(text: str) -> tuple[str, str]:
    title, _, target = text.removesuffix(")").partition(" (")
    return title, target


def published_claims(paper: Paper) -> tuple[Claim, ...]:
    """Read the claims of the paper's text.

    Raises:
        InputError: `claims.csv` is missing or is not as expected.
    """
    return tuple(map(Claim.parse, read_rows(paper.folder / FILE, _PAPER_COLUMNS)))


def decide(paper: Paper, studies: Sequence[Study]) -> pd.DataFrame:
    """Decide every claim from the `tables.deciding` studies: `claims.csv`.

    Raises:
        InputError: a file of `results/paper` is missing or is not as expected.
    """
    ordered = deciding(studies)
    rows = [
        _Decision(claim, ordered).row() | _paper_side(claim, paper)
        for claim in published_claims(paper)
    ]
    return framed(rows, "claims")


class _Judged(NamedTuple):
    """A part of a claim, the runs it was put to, and what came of it."""

    part: Comparison
    runs: Runs | None
    outcome: Outcome

    @property
    def ours(self) -> str:
        """Return our means of all that it compares."""
        if self.runs is None:
            return ""
        return _listed(self.part, self.runs.means(self.part.measured, self.part.metric))


class _Decision:
    """One claim put to the runs."""

    def __init__(
        self, claim: Claim, studies: Sequence[Study], corrected: bool = False
    ) -> None:
        self.claim, self.studies = claim, studies
        self.judged = [self._judged(part, corrected) for part in claim.parts]
        outcomes = [judged.outcome for judged in self.judged]
        self.verdict, *self.p = claim.combined(outcomes)
        self.was_run = [
            judged for judged in self.judged if judged.outcome.verdict != NOT_RUN
        ]
        # The weakest of the parts that the verdict comes from.
        same_verdict = [
            judged for judged in self.judged if judged.outcome.verdict == self.verdict
        ]
        among = same_verdict or self.was_run or self.judged
        self.shown = max(among, key=lambda judged: judged.outcome.p_holds)
        measured = (judged.runs for judged in self.was_run if judged.part.measured)
        self.presets = list(dict.fromkeys(r.study.preset for r in measured if r))
        # In the words of the preset that it is from.
        at_paper = set(self.presets) <= {"paper"}
        words = {} if at_paper else {HOLDS: SEEN, FAILS: NOT_SEEN}
        self.worded = words.get(self.verdict, self.verdict)

    def _judged(self, part: Comparison, corrected: bool) -> _Judged:
        """Judge a part by the preset with most of its variants, in the studies' order.

        A printed figure says nothing of another preset: there the paper's comes first.
        """
        printed = not math.isnan(self.claim.rule.value)
        candidates = [
            Runs(study, part.target, corrected)
            for study in (usable(self.studies) if printed else self.studies)
            if study.title == part.dataset
        ]
        every = part.quantities
        runs = max(candidates, key=lambda runs: sum(map(runs.has, every)), default=None)
        return _Judged(part, runs, self.claim.rule.decide(part, runs))

    def row(self) -> _Row:
        """Make its row of `claims.csv`, but for the paper's side."""
        claim, parts, pair = self.claim, self.claim.parts, self.shown.outcome.pair
        count = Counter(judged.outcome.verdict for judged in self.judged)
        test, enough = claim.rule.test, claim.at_least
        if enough != len(parts):
            test += f"; in at least {enough} of {len(parts)}"
        ours = _some(judged.ours for judged in self.was_run)
        if len(self.was_run) > _SHOWN:
            ours = f"{self.shown.ours}; {len(self.was_run) - 1} more"
        corrected = ""
        if {"nll", "brier"} & {part.metric for part in parts}:
            corrected = _Decision(claim, self.studies, corrected=True).worded
        p = dict(zip(("p_holds", "p_fails"), self.p, strict=True))
        return {
            **(pair.columns if pair else {}),
            **(p if claim.rule.pairs else {}),
            **{name: claim.row[name] for name in _GIVEN},
            "test": test,
            "verdict": self.worded,
            "preset": "; ".join(self.presets),
            "why": self._why(),
            "ours": ours,
            "other_losses": self._others(),
            "verdict_corrected": corrected,
            "parts": len(parts),
            "parts_hold": count[HOLDS],
            "parts_fail": count[FAILS],
            "parts_not_run": count[NOT_RUN],
        }

    def _why(self) -> str:
        """Describe the reason, the part it is of, and what was not run."""
        part, _, outcome = self.shown
        why = outcome.why
        if why and len(self.claim.parts) > 1 and part.metric:
            why = f"{part.name}: {why}"
        several = len({judged.part.dataset for judged in self.judged}) > 1
        missing = dict.fromkeys(
            f"{label} on {judged.part.dataset}" if several or label == "all" else label
            for judged in self.judged
            for label in judged.outcome.missing
        )
        lacking = f"not run: {', '.join(missing)}" if missing else ""
        return "; ".join(text for text in (why, lacking) if text)

    def _others(self) -> str:
        """List losses with the same verdict, for a claim on one loss's thresholds."""
        if self.verdict not in (HOLDS, FAILS):
            return ""
        claims = {loss: self.claim.of_other(loss) for loss in _OTHERS}
        same = [
            loss
            for loss, claim in claims.items()
            if claim and _Decision(claim, self.studies).verdict == self.verdict
        ]
        return "; ".join(same)


def _listed(part: Comparison, means: Mapping[Variant, float]) -> str:
    values = ", ".join(
        f"{variant.label} {'undefined' if math.isnan(mean) else f'{mean:.4g}'}"
        for variant, mean in means.items()
    )
    return f"{part.name}: {values}" if values else ""


def _some(texts: Iterable[str]) -> str:
    """Join the first few, each once, and say how many more there are."""
    kept = [text for text in dict.fromkeys(texts) if text]
    more = len(kept) - _SHOWN
    return "; ".join(kept[:_SHOWN] + ([f"{more} more"] if more > 0 else []))


def _paper_side(claim: Claim, paper: Paper) -> _Row:
    """Return what the paper prints, and whether its tables agree with its text."""
    verdicts, texts = [], []
    for part in claim.parts:
        printed = paper.printed_means(
            part.dataset, part.target, part.measured, part.metric
        )
        verdicts.append(claim.rule.in_print(part, printed))
        text = _listed(part, {variant: cell.value for variant, cell in printed.items()})
        if len(part.a) == len(part.b) == 1:
            pair = (part.a[0].label, part.b[0].label)
            p = paper.printed_p(part.dataset, part.target, part.metric, pair)
            text += f", p = {p}" if p else ""
        texts.append(text)
    if not math.isnan(claim.rule.value):
        texts = [f"{claim.rule.value:g}"]
    agree = claim.combined(list(map(Outcome.plain, verdicts)))[0]
    return {"paper": _some(texts), "paper_tables": agree if all(verdicts) else ""}
