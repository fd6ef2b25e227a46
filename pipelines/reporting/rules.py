"""The rules that decide a claim: what holds, what fails, what stays undecided."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product

from data_io.errors import InputError
from pipelines.reporting.evidence import Figure, Pair, Quantity, Runs

__all__ = [
    "ALPHA", "FAILS", "HOLDS", "MARGIN", "NOT_RUN", "PRINTED", "RULES", "UNDECIDED",
    "Outcome", "Part", "Rule",
]  # fmt: skip

ALPHA = 0.05
"""Section 2.7: a difference is significant where p is below it."""

MARGIN = 0.01
"""Two means are the same where the interval of their difference is within +-MARGIN."""

PRINTED = 0.0005
"""Half a unit of the last digit that the paper prints: less is a tie, as there."""

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"

_Means = Mapping[Quantity, float]
_Figures = Mapping[Quantity, Figure]
_Side = Sequence[Quantity]
_Steps = list[tuple[float, Quantity, Quantity]]
_Split = Iterator[tuple[tuple[Quantity, ...], tuple[Quantity, ...]]]


@dataclass(frozen=True)
class Part:
    """One comparison of a claim.

    Attributes:
        dataset: the data set's title in the paper.
        target: the class; "" for the only one.
        metric: the paper's word: nll, brier, dice, jaccard, precision or recall; ""
            where nothing is measured.
        a: what the claim is about.
        b: what it is compared with; may be empty.
    """

    dataset: str
    target: str
    metric: str
    a: tuple[Quantity, ...]
    b: tuple[Quantity, ...] = ()

    @property
    def name(self) -> str:
        """Such as "KiTS19 (kidney) dice"."""
        target = f" ({self.target})" if self.target else ""
        return f"{self.dataset}{target} {self.metric}"

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All that have to be run for it."""
        return (*self.a, *self.b)

    @property
    def measured(self) -> tuple[Quantity, ...]:
        """Those that a metric is asked of; none where the claim is about pictures."""
        return self.quantities if self.metric else ()


@dataclass(frozen=True)
class Outcome:
    """What a rule says of one part.

    Attributes:
        verdict: `HOLDS`, `FAILS`, `UNDECIDED` or `NOT_RUN`.
        why: in a few words; "" where nothing was run.
        weakness: of the parts of one claim the one with the highest is shown.
        pair: the two quantities it turns on, with both tests; None where there is none.
        missing: labels of what is compared and was not run.
    """

    verdict: str
    why: str = ""
    weakness: float = -math.inf
    pair: Pair | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule(ABC):
    """How one kind of claim is decided.

    Attributes:
        sense: "lower" or "higher": how `a` is to differ from `b`; "" where unused.
        value: the printed figure, where the claim is one; else NaN.
    """

    sense: str = ""
    value: float = math.nan

    test = ""
    """The deciding test in words."""

    def __post_init__(self) -> None:
        """Refuse a sense that is neither, where one is needed."""
        if "{sense}" in self.test and self.sense not in ("lower", "higher"):
            raise InputError(
                f"sense: expected lower or higher, found {self.sense!r}; correct "
                "claims.csv"
            )

    @property
    def in_words(self) -> str:
        """The deciding test, for a column of `results/claims.csv`."""
        return self.test.format(sense=self.sense)

    @property
    def _sign(self) -> int:
        return 1 if self.sense == "higher" else -1

    def split(self, a: _Side, b: _Side) -> _Split:
        """Which comparisons the two columns of `claims.csv` stand for."""
        yield tuple(a), tuple(b)

    @abstractmethod
    def decide(self, part: Part, runs: Runs) -> Outcome:
        """Decide a part from our runs."""

    def in_print(self, part: Part, printed: _Figures) -> str:
        """Decide a part from the paper's own tables; "" where they do not say."""
        return ""


def _pairs(a: _Side, b: _Side) -> _Split:
    """Pairs out of two lists.

    Lists of equal length are compared one by one, one against many with each of them;
    `a` alone stands for all its pairs.
    """
    if b and len(a) != len(b) and 1 not in (len(a), len(b)):
        raise InputError(
            f"a and b: expected as many losses in both, or one in either, found "
            f"{len(a)} and {len(b)}; correct claims.csv"
        )
    if not b:
        found = list(combinations(a, 2))
    else:
        found = list(zip(a, b, strict=True) if len(a) == len(b) else product(a, b))
    for one, other in found:
        yield (one,), (other,)


class _Pairwise(Rule):
    """A rule on two quantities, see `_pairs`."""

    def split(self, a: _Side, b: _Side) -> _Split:
        return _pairs(a, b)

    def decide(self, part: Part, runs: Runs) -> Outcome:
        missing = tuple(one.label for one in part.quantities if not runs.has(one))
        if missing:
            return Outcome(NOT_RUN, missing=missing)
        pair = runs.pair(part.a[0], part.b[0], part.metric)
        if pair.n < 2:
            return Outcome(UNDECIDED, f"{pair.n} cases are defined for both", pair=pair)
        return self._decide(pair)

    def in_print(self, part: Part, printed: _Figures) -> str:
        if not all(one in printed for one in part.quantities):
            return ""
        a, b = (printed[one] for one in part.quantities)
        error = math.hypot(a.standard_error, b.standard_error)
        # Rounded, as 0.3 - 0.1 - 0.2 is not 0.
        agrees = self._printed(round(a.mean - b.mean, 9), error)
        return "" if agrees is None else HOLDS if agrees else FAILS

    @abstractmethod
    def _decide(self, pair: Pair) -> Outcome:
        """Decide from a pair of two cases or more."""

    @abstractmethod
    def _printed(self, difference: float, error: float) -> bool | None:
        """Whether a printed difference, with its standard error, agrees; None: open."""


class Differs(_Pairwise):
    """A significant difference, as published: the rank-sum test and the direction."""

    test = f"rank-sum p < {ALPHA:g} and a {{sense}} than b (mean and z)"

    def _decide(self, pair: Pair) -> Outcome:
        right = self._sign * pair.difference > 0 and self._sign * pair.z > 0
        p = pair.p_rank_sum
        direction = "as claimed" if right else "not as claimed"
        significant = "" if p < ALPHA else "not "
        why = f"direction {direction}, rank-sum p {significant}below {ALPHA:g}"
        holds = right and p < ALPHA
        # The surer the wrong direction, the weaker.
        return Outcome(HOLDS if holds else FAILS, why, p if right else 2 - p, pair)

    def _printed(self, difference: float, error: float) -> bool | None:
        return self._sign * difference > 0


class Steady(_Pairwise):
    """No change: two means are the same within a margin."""

    test = (
        f"the paired 95 % interval of a - b lies within +-{MARGIN:g} (fails where it "
        "lies wholly beyond)"
    )

    def _decide(self, pair: Pair) -> Outcome:
        low, high = pair.ci_low, pair.ci_high
        weakness = max(abs(low), abs(high))
        if weakness <= MARGIN:
            return Outcome(HOLDS, f"interval within +-{MARGIN:g}", weakness, pair)
        if low > MARGIN or high < -MARGIN:
            why = f"interval wholly beyond +-{MARGIN:g}"
            return Outcome(FAILS, why, weakness, pair)
        why = f"interval reaches beyond +-{MARGIN:g}, and not wholly"
        return Outcome(UNDECIDED, why, weakness, pair)

    def _printed(self, difference: float, error: float) -> bool | None:
        # How little "little" is, the paper does not say: the margin is ours.
        return abs(difference) <= MARGIN


class NoDifference(Steady):
    """No significant difference: that test finds none, and the means are the same."""

    test = (
        f"rank-sum p >= {ALPHA:g} and the paired 95 % interval of a - b within "
        f"+-{MARGIN:g} (fails where p < {ALPHA:g} or the interval lies wholly beyond)"
    )

    def _decide(self, pair: Pair) -> Outcome:
        same = super()._decide(pair)
        if pair.p_rank_sum < ALPHA:
            why = f"rank-sum p below {ALPHA:g}; {same.why}"
            # A difference that the test finds comes before those it does not.
            return Outcome(FAILS, why, 1 + same.weakness, pair)
        why = f"rank-sum p not below {ALPHA:g}; {same.why}"
        return Outcome(same.verdict, why, same.weakness, pair)

    def _printed(self, difference: float, error: float) -> bool | None:
        return abs(difference) <= 1.96 * error


class _Ordered(Rule):
    """A rule on the order of several means, whatever their spread."""

    def decide(self, part: Part, runs: Runs) -> Outcome:
        means = runs.means(part.quantities, part.metric)
        undefined = [one.label for one, mean in means.items() if math.isnan(mean)]
        if undefined:
            return Outcome(UNDECIDED, f"undefined: {', '.join(undefined)}")
        missing = tuple(one.label for one in part.quantities if one not in means)
        steps = self._steps(part, means)
        if not steps:
            return Outcome(NOT_RUN, missing=missing)
        lead, one, other = min(steps, key=lambda step: step[0])
        pair = runs.pair(one, other, part.metric)
        why = f"{one.label} minus {other.label} is {self._sign * lead:+.4f}"
        if self._stands(part, means, lead):
            verdict = UNDECIDED if missing else HOLDS
        else:
            verdict = UNDECIDED if self._may_turn(part, missing) else FAILS
        return Outcome(verdict, why, -lead, pair, missing)

    def in_print(self, part: Part, printed: _Figures) -> str:
        if not all(one in printed for one in part.quantities):
            return ""
        means = {one: figure.mean for one, figure in printed.items()}
        lead = min(self._steps(part, means), key=lambda step: step[0])[0]
        return HOLDS if self._stands(part, means, lead) else FAILS

    def _stands(self, part: Part, means: _Means, lead: float) -> bool:
        return lead >= -PRINTED - 1e-12

    def _may_turn(self, part: Part, missing: Sequence[str]) -> bool:
        """Whether what is missing could still make a failing part hold."""
        return False

    @abstractmethod
    def _steps(self, part: Part, means: _Means) -> _Steps:
        """By how much the first is ahead of the second, for what has a mean."""


class Best(_Ordered):
    """The lowest or highest of all: every one of `a` is ahead of all of `b`."""

    test = "each mean of a {sense} than all of b, or equal as printed"

    def _steps(self, part: Part, means: _Means) -> _Steps:
        return [
            (self._sign * (means[one] - means[other]), one, other)
            for one, other in product(part.a, part.b)
            if one in means and other in means
        ]


class Ahead(Best):
    """Two means in an order, or equal as printed; no test asked for."""

    test = "mean of a {sense} than that of b, or equal as printed"

    def split(self, a: _Side, b: _Side) -> _Split:
        return _pairs(a, b)


class OneBest(Best):
    """The lowest or highest of all is one of `a`."""

    test = "one mean of a {sense} than all of b, or equal as printed"

    def _steps(self, part: Part, means: _Means) -> _Steps:
        steps = super()._steps(part, means)
        if not steps:
            return []
        # The best of `a` against the best of `b` is what decides.
        best = max((one for _, one, _ in steps), key=lambda q: self._sign * means[q])
        return [step for step in steps if step[1] == best]

    def _may_turn(self, part: Part, missing: Sequence[str]) -> bool:
        return any(one.label in missing for one in part.a)


class Trend(_Ordered):
    """Each mean of `a` ahead of the one before it, and the last of the first."""

    test = "each mean of a {sense} than the one before, or equal as printed"

    def _steps(self, part: Part, means: _Means) -> _Steps:
        return [
            (self._sign * (means[after] - means[before]), after, before)
            for before, after in pairwise(one for one in part.a if one in means)
        ]

    def _stands(self, part: Part, means: _Means, lead: float) -> bool:
        found = [means[one] for one in part.a if one in means]
        whole = self._sign * (found[-1] - found[0])
        return super()._stands(part, means, lead) and whole > PRINTED


class AsPrinted(Rule):
    """A printed figure without a standard error: taken to be as large as ours."""

    test = (
        "preset paper alone: |ours - printed| <= 1.96 sqrt(2) standard errors of ours"
    )

    def decide(self, part: Part, runs: Runs) -> Outcome:
        quantity = part.a[0]
        if not runs.has(quantity):
            return Outcome(NOT_RUN, missing=(quantity.label,))
        found = runs.estimate(quantity, part.metric)
        difference = found.mean - self.value
        why = f"ours {found.mean:.3f} ± {found.standard_error:.3f}"
        if runs.study.preset != "paper":
            return Outcome(
                UNDECIDED, f"{why}; a figure is judged on preset paper alone"
            )
        if math.isnan(found.standard_error):
            return Outcome(UNDECIDED, f"{why}; no standard error")
        limit = 1.96 * math.sqrt(2) * found.standard_error
        verdict = HOLDS if abs(difference) <= limit + 1e-12 else FAILS
        return Outcome(verdict, f"{why}, limit {limit:.3f}", abs(difference))


class ByEye(Rule):
    """What the paper shows in a picture and measures nowhere."""

    test = "seen in pictures; no measure decides it"

    def decide(self, part: Part, runs: Runs) -> Outcome:
        return Outcome(UNDECIDED, "seen in pictures, measured nowhere")


RULES: Mapping[str, type[Rule]] = {
    "differs": Differs,
    "no difference": NoDifference,
    "steady": Steady,
    "ahead": Ahead,
    "best": Best,
    "one best": OneBest,
    "trend": Trend,
    "figure": AsPrinted,
    "by eye": ByEye,
}
"""By the name that `results/paper/claims.csv` has in its column `rule`."""
