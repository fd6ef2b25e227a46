"""The rules that decide a claim: what holds, what fails, what stays undecided.

The training is the unit. Two losses differ where Student's t over trainings says so,
with the spread pooled over the losses (`estimates.contrast`); they are the same where
two one-sided tests put them inside a declared margin (`estimates.MARGINS`). Lack of
evidence is neither: it leaves a claim undecided.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product

from data_io.errors import InputError
from pipelines.measure import statistics
from pipelines.reporting import estimates
from pipelines.reporting.estimates import ALPHA, MARGINS, ROUNDING, Z, is_ratio
from pipelines.reporting.evidence import Figure, Pair, Quantity, Runs

__all__ = [
    "CITED", "FAILS", "HOLDS", "NOT_RUN", "RULES", "UNDECIDED", "Outcome", "Part",
    "Rule",
]  # fmt: skip

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"
CITED = "cited, not tested"

_TRAININGS = f"over trainings (Student's t, p < {ALPHA:g})"
_SAME = f"inside the metric's margin (two one-sided tests, p < {ALPHA:g})"

_Figures = Mapping[Quantity, Figure]
_Means = Mapping[Quantity, float]
_Side = Sequence[Quantity]
_Split = Iterator[tuple[tuple[Quantity, ...], tuple[Quantity, ...]]]
_Steps = list[tuple[Quantity, Quantity]]


@dataclass(frozen=True)
class Part:
    """One comparison of a claim: `a` is what it is about, `b` may be empty.

    Attributes:
        dataset: the data set's title in the paper.
        target: the class; "" for the only one.
        metric: the paper's word, such as "nll"; "" where nothing is measured.
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
        verdict: `HOLDS`, `FAILS`, `UNDECIDED`, `NOT_RUN` or `CITED`.
        why: in a few words; "" where nothing was run.
        doubt: of the parts of one claim the one with the highest is shown.
        pair: the two quantities it turns on, with the tests; None where there is none.
        missing: labels of what is compared and was not run.
    """

    verdict: str
    why: str = ""
    doubt: float = -math.inf
    pair: Pair | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule(ABC):
    """How one kind of claim is decided.

    `sense` ("lower" or "higher") is how `a` is to differ from `b`, "" where unused;
    `value` the printed figure, where the claim is one, else NaN.
    """

    sense: str = ""
    value: float = math.nan

    test = ""
    """The deciding test in words."""

    without_runs = Outcome(NOT_RUN, missing=("all",))
    """What a part is where there are no runs of its data set."""

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

    def split(self, a: _Side, b: _Side) -> _Split:
        """Which parts the two columns of `claims.csv` stand for."""
        yield tuple(a), tuple(b)

    @abstractmethod
    def decide(self, part: Part, runs: Runs) -> Outcome:
        """Decide a part from our runs."""

    def in_print(self, part: Part, printed: _Figures) -> str:
        """Decide a part from the paper's own tables; "" where they do not say."""
        return ""


class _Compared(Rule):
    """A rule on one or several pairs of quantities.

    A part holds where every pair does, and fails where one fails. Of several pairs the
    p of a difference is corrected for their number (Holm); that of two one-sided tests
    is not, as all of them have to be passed (Berger and Hsu 1996).
    """

    @property
    def _sign(self) -> int:
        return 1 if self.sense == "higher" else -1

    def decide(self, part: Part, runs: Runs) -> Outcome:
        missing = tuple(one.label for one in part.quantities if not runs.has(one))
        means = runs.means(part.quantities, part.metric)
        pairs = _corrected(
            [runs.pair(*step, part.metric) for step in self._steps(part, means)]
        )
        if not pairs:
            return Outcome(NOT_RUN, missing=missing)
        failing = [pair for pair in pairs if self._fails(pair)]
        holding = [pair for pair in pairs if self._known_doubt(pair) < ALPHA]
        verdict = UNDECIDED
        if failing and not self._may_turn(part, missing):
            verdict = FAILS
        elif not missing and not failing and set(self._needed(pairs)) <= set(holding):
            verdict = HOLDS
        shown = max(failing or pairs, key=self._known_doubt)
        return Outcome(
            verdict, self._why(shown), self._known_doubt(shown), shown, missing
        )

    def in_print(self, part: Part, printed: _Figures) -> str:
        if not all(one in printed for one in part.quantities):
            return ""
        steps = self._steps(part, {one: f.mean for one, f in printed.items()})
        agree = [self._printed(part.metric, printed[a], printed[b]) for a, b in steps]
        if None in agree:
            return ""
        return HOLDS if all(agree) else FAILS

    def _why(self, pair: Pair) -> str:
        names = f"{pair.a.label} against {pair.b.label}: "
        if pair.n < 2:
            return f"{names}{pair.n} cases are defined for both"
        return names + ", ".join([str(pair.effect), *self._reasons(pair)])

    def _reasons(self, pair: Pair) -> Iterator[str]:
        """What else decided, in words."""
        if not math.isnan(pair.effect.df):
            yield f"p over trainings {pair.p_trainings:.2g}"

    def _known_doubt(self, pair: Pair) -> float:
        doubt = self._doubt(pair)
        return 1.0 if math.isnan(doubt) else doubt

    def _steps(self, part: Part, means: _Means) -> _Steps:
        """Which pairs are compared, of what has a mean."""
        found = product(part.a, part.b) if part.b else combinations(part.a, 2)
        return [step for step in found if all(one in means for one in step)]

    def _needed(self, pairs: list[Pair]) -> list[Pair]:
        """The pairs that have to hold."""
        return pairs

    def _may_turn(self, part: Part, missing: Sequence[str]) -> bool:
        """Whether what is missing could still make a failing part hold."""
        return False

    @abstractmethod
    def _doubt(self, pair: Pair) -> float:
        """P of what has to be refuted for a pair to hold: it does below `ALPHA`."""

    @abstractmethod
    def _fails(self, pair: Pair) -> bool:
        """Whether the opposite of the claim is shown."""

    @abstractmethod
    def _printed(self, metric: str, a: Figure, b: Figure) -> bool | None:
        """Whether two printed figures agree with the claim; None: they do not say."""


def _corrected(pairs: list[Pair]) -> list[Pair]:
    """Both p of a difference after Holm's correction for the number of pairs."""
    if len(pairs) < 2:
        return pairs
    trainings = statistics.holm([pair.p_trainings for pair in pairs])
    ranks = statistics.holm([pair.p_rank_sum for pair in pairs])
    return [
        replace(pair, p_trainings=float(p), p_rank_sum=float(rank_p))
        for pair, p, rank_p in zip(pairs, trainings, ranks, strict=True)
    ]


def _beyond(a: Figure, b: Figure) -> bool | None:
    """Whether printed means differ by more than their errors; None: none is printed."""
    limit = Z * math.hypot(a.standard_error, b.standard_error)
    # Rounded, as 0.3 - 0.1 - 0.2 is not 0.
    return None if math.isnan(limit) else round(abs(a.mean - b.mean), 9) > limit


class _Directed(_Compared):
    """A rule whose pairs have a direction."""

    def split(self, a: _Side, b: _Side) -> _Split:
        """Pairs: two lists one by one, or one quantity with each of a list."""
        if b and len(a) != len(b) and 1 not in (len(a), len(b)):
            raise InputError(
                f"a and b: expected as many losses in both, or one in either, found "
                f"{len(a)} and {len(b)}; correct claims.csv"
            )
        pairs = zip(a, b, strict=True) if len(a) == len(b) else product(a, b)
        yield from (((one,), (other,)) for one, other in pairs)

    def _lead(self, pair: Pair) -> float:
        return self._sign * pair.difference

    def _doubt(self, pair: Pair) -> float:
        # The surer the other direction, the higher.
        p = pair.p_trainings
        return p if self._lead(pair) > 0 else 2 - p

    def _fails(self, pair: Pair) -> bool:
        return self._lead(pair) < 0 and pair.p_trainings < ALPHA

    def _printed(self, metric: str, a: Figure, b: Figure) -> bool | None:
        return self._sign * (a.mean - b.mean) >= -ROUNDING - 1e-12


class Ahead(_Directed):
    """Two means in an order."""

    test = f"a {{sense}} than b {_TRAININGS}; fails where b is {{sense}}"


class Differs(_Directed):
    """A significant difference: by the paper's own test, and over trainings."""

    test = (
        f"a {{sense}} than b by the rank-sum test (p < {ALPHA:g}) and {_TRAININGS}; "
        f"fails where b is {{sense}} by the latter, or both are {_SAME} and neither "
        "test finds a difference"
    )

    def _doubt(self, pair: Pair) -> float:
        p = max(pair.p_trainings, pair.p_rank_sum)
        return p if self._lead(pair) > 0 and self._sign * pair.z > 0 else 2 - p

    def _fails(self, pair: Pair) -> bool:
        # Inside the margin for sure, and no test finds anything.
        nothing = min(pair.p_rank_sum, pair.p_trainings) >= ALPHA
        return (nothing and pair.p_same < ALPHA) or super()._fails(pair)

    def _reasons(self, pair: Pair) -> Iterator[str]:
        yield from super()._reasons(pair)
        yield f"rank-sum {pair.p_rank_sum:.2g}"
        if self._fails(pair) and pair.p_same < ALPHA:
            yield f"the same by two one-sided tests {pair.p_same:.2g}"

    def _printed(self, metric: str, a: Figure, b: Figure) -> bool | None:
        beyond = _beyond(a, b)
        return beyond and self._sign * (a.mean - b.mean) > 0


class NotWorse(_Directed):
    """Not behind by as much as the metric's margin."""

    test = (
        f"a not behind b by the metric's margin (one-sided test, p < {ALPHA:g}), "
        f"{{sense}} being better; fails where it is, and b is ahead {_TRAININGS}"
    )

    def _doubt(self, pair: Pair) -> float:
        margin, effect = MARGINS[pair.metric], pair.effect
        if self._sign > 0:
            return effect.p_above(margin.low)
        return effect.p_above(margin.high, below=True)

    def _fails(self, pair: Pair) -> bool:
        return super()._fails(pair) and not self._doubt(pair) < ALPHA


class Steady(_Compared):
    """No change: two means are the same within the metric's margin."""

    test = f"a and b {_SAME}; fails where their 95 % interval lies wholly beyond it"

    def _doubt(self, pair: Pair) -> float:
        return pair.p_same

    def _fails(self, pair: Pair) -> bool:
        margin, effect = MARGINS[pair.metric], pair.effect
        beyond = effect.ci_low > margin.high or effect.ci_high < margin.low
        return beyond and not math.isnan(effect.df)

    def _reasons(self, pair: Pair) -> Iterator[str]:
        yield "margin {:g} to {:g}".format(*MARGINS[pair.metric])

    def _printed(self, metric: str, a: Figure, b: Figure) -> bool | None:
        # How little "little" is, the paper does not say: the margin is ours.
        margin = MARGINS[metric]
        effect = a.mean / b.mean if is_ratio(metric) else a.mean - b.mean
        return margin.low <= round(effect, 9) <= margin.high


class NoDifference(Steady):
    """No significant difference: that test finds none, and the means are the same."""

    test = (
        f"a and b {_SAME}, and rank-sum p >= {ALPHA:g}; fails where they differ "
        f"{_TRAININGS} and are not inside; of several pairs both p of a difference "
        "are corrected for their number (Holm)"
    )

    def _doubt(self, pair: Pair) -> float:
        found = pair.p_rank_sum < ALPHA
        return 2 - pair.p_rank_sum if found else pair.p_same

    def _fails(self, pair: Pair) -> bool:
        return pair.p_trainings < ALPHA <= pair.p_same

    def _reasons(self, pair: Pair) -> Iterator[str]:
        yield from super()._reasons(pair)
        yield from _Compared._reasons(self, pair)
        yield f"rank-sum {pair.p_rank_sum:.2g}"

    def _printed(self, metric: str, a: Figure, b: Figure) -> bool | None:
        beyond = _beyond(a, b)
        return None if beyond is None else not beyond


class Best(Ahead):
    """The lowest or highest of all: every one of `a` is ahead of all of `b`."""

    test = (
        f"each of a {{sense}} than all of b {_TRAININGS}; fails where one of b is "
        "{sense} by the same test"
    )

    split = Rule.split


class OneBest(Best):
    """The lowest or highest of all is one of `a`."""

    test = f"the {{sense}}est of a {{sense}} than all of b {_TRAININGS}"

    def _steps(self, part: Part, means: _Means) -> _Steps:
        found = super()._steps(part, means)
        # The best of `a` against all of `b` is what decides.
        ahead = [self._sign * means[one] for one, _ in found]
        best = found[ahead.index(max(ahead))][0] if found else None
        return [step for step in found if step[0] == best]

    def _may_turn(self, part: Part, missing: Sequence[str]) -> bool:
        return any(one.label in missing for one in part.a)


class Trend(Best):
    """The last of `a` ahead of the first, and none behind the one before it."""

    test = (
        f"the last of a {{sense}} than the first {_TRAININGS}; fails where it is not, "
        "or one is surely not {sense} than the one before"
    )

    def _steps(self, part: Part, means: _Means) -> _Steps:
        known = [one for one in part.a if one in means]
        steps = [(after, before) for before, after in pairwise(known)]
        return steps + ([(known[-1], known[0])] if len(known) > 2 else [])

    def _needed(self, pairs: list[Pair]) -> list[Pair]:
        return pairs[-1:]

    def in_print(self, part: Part, printed: _Figures) -> str:
        found = super().in_print(part, printed)
        if found != HOLDS:
            return found
        first, last = printed[part.a[0]].mean, printed[part.a[-1]].mean
        return HOLDS if self._sign * (last - first) > ROUNDING else FAILS


class AsPrinted(Rule):
    """A printed figure: whether one more training of ours could have it."""

    test = "preset paper alone: ours and the printed figure `within`, as in the tables"

    def decide(self, part: Part, runs: Runs) -> Outcome:
        quantity = part.a[0]
        if not runs.has(quantity):
            return Outcome(NOT_RUN, missing=(quantity.label,))
        found = runs.estimate(quantity, part.metric)
        spread = runs.spread(quantity, part.metric)
        why = f"ours {found.mean:.3f} ± {found.standard_error:.3f}"
        error = estimates.prediction_error(
            found, spread, math.nan, runs.study.same_images
        )
        limit = estimates.prediction_limit(error, spread.df)
        if runs.study.preset != "paper":
            why = f"{why}; a figure is judged on preset paper alone"
            return Outcome(UNDECIDED, why)
        if math.isnan(limit):
            return Outcome(UNDECIDED, f"{why}; no loss was trained twice")
        off = abs(found.mean - self.value)
        verdict = HOLDS if off <= limit + 1e-12 else FAILS
        return Outcome(verdict, f"{why}, limit {limit:.3f}", off)


class ByEye(Rule):
    """What the paper shows in a picture and measures nowhere."""

    test = "seen in pictures; no measure decides it"

    def decide(self, part: Part, runs: Runs) -> Outcome:
        return Outcome(UNDECIDED, "seen in pictures, measured nowhere")


class Cited(Rule):
    """What the paper takes from others' work: it is not this study's to test."""

    test = "cited literature: not tested"

    without_runs = Outcome(CITED)

    def decide(self, part: Part, runs: Runs) -> Outcome:
        return self.without_runs


RULES: Mapping[str, type[Rule]] = {
    "differs": Differs,
    "no difference": NoDifference,
    "steady": Steady,
    "not worse": NotWorse,
    "ahead": Ahead,
    "best": Best,
    "one best": OneBest,
    "trend": Trend,
    "figure": AsPrinted,
    "by eye": ByEye,
    "cited": Cited,
}
"""By the name that `results/paper/claims.csv` has in its column `rule`."""
