"""The claims of the paper's text put to the runs at hand: a verdict for each.

What every column means is in `results/README.md`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.measure import statistics
from pipelines.reporting.claims import Claim, published_claims
from pipelines.reporting.evidence import Pair, Printed, Quantity, Runs
from pipelines.reporting.overview import PRESETS
from pipelines.reporting.published import (
    published_cells,
    published_p_values,
    published_thresholds,
)
from pipelines.reporting.rules import ALPHA, FAILS, HOLDS, NOT_RUN, Outcome, Part
from pipelines.reporting.study import Study

__all__ = ["COLUMNS", "claim_rows"]

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
_SHOWN = 6
"""So many comparisons are named in a cell; the others are counted."""

_Row = dict[str, object]
_Studies = Sequence[tuple[Study, Sequence[Mapping[str, object]]]]


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


@dataclass(frozen=True)
class _Judged:
    """A part of a claim, the runs it was put to, and what came of it."""

    part: Part
    runs: Runs | None
    outcome: Outcome

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

    def __init__(self, claim: Claim, studies: _Studies) -> None:
        self.claim = claim
        self.studies = studies
        self.judged = _with_holm(self._judge(corrected=False))
        self.verdict = claim.combined([one.outcome.verdict for one in self.judged])
        self.was_run = [one for one in self.judged if one.was_run]

    def _judge(self, corrected: bool) -> list[_Judged]:
        result = []
        for part in self.claim.parts:
            runs = self._evidence(part, corrected)
            if runs is None:
                outcome = Outcome(NOT_RUN, missing=("all",))
            else:
                outcome = self.claim.rule.decide(part, runs)
            result.append(_Judged(part, runs, outcome))
        return result

    def _evidence(self, part: Part, corrected: bool) -> Runs | None:
        """The preset with most of what a part compares; the paper's before others."""
        found = [
            Runs(study, tests, part.target, corrected)
            for study, tests in self.studies
            if study.title == part.dataset
        ]
        counts = [sum(map(runs.has, part.quantities)) for runs in found]
        return found[counts.index(max(counts))] if found else None

    def row(self) -> _Row:
        row: _Row = {
            name: self.claim.row[name]
            for name in ("id", "section", "claim", "dataset", "metric", "reading")
        }
        presets = [
            one.runs.study.preset
            for one in self.was_run
            if one.runs is not None and one.part.measured
        ]
        row |= {
            "test": self._test(),
            "verdict": self.verdict,
            "preset": "; ".join(dict.fromkeys(presets)),
            "why": self._why(),
            "ours": self._ours(),
            "disagree": _disagreement([one.outcome.pair for one in self.was_run]),
            "verdict_corrected": self._corrected(),
        }
        return row | self._numbers()

    def _numbers(self) -> _Row:
        count = Counter(one.outcome.verdict for one in self.judged)
        row: _Row = {"parts": len(self.judged), "parts_hold": count[HOLDS]}
        row |= {"parts_fail": count[FAILS], "parts_not_run": count[NOT_RUN]}
        pair = self._shown().outcome.pair
        if pair is not None:
            row |= vars(pair) | {"a": pair.a.label, "b": pair.b.label}
        return row

    def _shown(self) -> _Judged:
        """The weakest of the parts that the verdict comes from."""
        own = [one for one in self.judged if one.outcome.verdict == self.verdict]
        among = own or self.was_run or self.judged
        return max(among, key=lambda one: one.outcome.weakness)

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
            why = f"{_name(shown.part)}: {why}"
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
        found = self._judge(corrected=True)
        return self.claim.combined([one.outcome.verdict for one in found])


def _name(part: Part) -> str:
    target = f" ({part.target})" if part.target else ""
    return f"{part.dataset}{target} {part.metric}"


def _listed(part: Part, means: Mapping[Quantity, float]) -> str:
    values = ", ".join(
        f"{one.label} {'undefined' if math.isnan(mean) else f'{mean:.4g}'}"
        for one, mean in means.items()
    )
    return f"{_name(part)}: {values}" if values else ""


def _some(texts: Iterable[str]) -> str:
    """Join the first few, each once, and say how many more there are."""
    found = [text for text in dict.fromkeys(texts) if text]
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN] + ([f"{more} more"] if more > 0 else []))


def _with_holm(judged: Sequence[_Judged]) -> list[_Judged]:
    """Correct p over the claim's own parts where `tests.csv` has no such pair."""
    open_ones = [
        (index, one.outcome.pair)
        for index, one in enumerate(judged)
        if one.outcome.pair is not None and math.isnan(one.outcome.pair.p_holm)
    ]
    adjusted = np.array([pair.p_signed_rank for _, pair in open_ones])
    if len(adjusted) > 1:
        adjusted = statistics.holm(adjusted)
    result = list(judged)
    for (index, pair), p in zip(open_ones, adjusted, strict=True):
        outcome = replace(judged[index].outcome, pair=replace(pair, p_holm=float(p)))
        result[index] = replace(judged[index], outcome=outcome)
    return result


def _disagreement(pairs: Sequence[Pair | None]) -> str:
    """Where the two tests fall on different sides of `ALPHA`."""
    said = []
    for pair in pairs:
        if pair is None or (pair.p_rank_sum < ALPHA) == (pair.p_signed_rank < ALPHA):
            continue
        finder = "rank-sum" if pair.p_rank_sum < ALPHA else "signed-rank"
        said.append(f"{finder} alone finds {pair.a.label} other than {pair.b.label}")
    return _some(said)


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
    if not math.isnan(claim.rule.value):
        texts = [f"{claim.rule.value:g}"]
    return {
        "paper": _some(texts),
        "paper_tables": claim.combined(verdicts) if all(verdicts) else "",
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
