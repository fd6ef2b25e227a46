"""The rules that decide a claim: what holds, what fails, what stays undecided.

Each rule is a row of `KINDS`: what has to be refuted for a pair of quantities to hold,
and what for it to fail, each with its p. Two losses differ where Student's t over seeds
says so (`estimates.contrast`); they are the same where two one-sided tests put them
inside a declared margin (`estimates.MARGINS`). A part with several pairs holds where
every pair does, each at `ALPHA`: that needs no correction, as all have to pass (Berger
and Hsu 1996). It fails where one does, after Holm's correction for their number. Lack
of evidence is neither: it leaves a claim undecided.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product
from typing import NamedTuple

from data_io.errors import InputError
from pipelines.measure import statistics
from pipelines.reporting import estimates
from pipelines.reporting.estimates import ALPHA, MARGINS, ROUNDING, Z, is_ratio
from pipelines.reporting.evidence import Figure, Pair, Quantity, Runs

__all__ = [
    "CITED", "FAILS", "HOLDS", "KINDS", "NOT_RUN", "UNDECIDED", "Outcome", "Part",
    "Rule",
]  # fmt: skip

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"
CITED = "cited, not tested"

_SEEDS = f"over seeds (Student's t, p < {ALPHA:g})"
_SAME = f"inside the metric's margin (two one-sided tests, p < {ALPHA:g})"

_Side = Sequence[Quantity]
_Steps = list[tuple[Quantity, Quantity]]
_Each = Sequence[float]


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


class Outcome(NamedTuple):
    """What a rule says of one part.

    Attributes:
        verdict: `HOLDS`, `FAILS`, `UNDECIDED`, `NOT_RUN` or `CITED`.
        why: in a few words; "" where nothing was run.
        pair: the two quantities it turns on, with the tests; None where there is none.
        missing: labels of what is compared and was not run.
        p_holds: of what has to be refuted for the part to hold: it does below `ALPHA`.
            Of two directions it is above 1 where the other one is seen.
        p_fails: the same for it to fail.
    """

    verdict: str
    why: str = ""
    pair: Pair | None = None
    missing: tuple[str, ...] = ()
    p_holds: float = 1.0
    p_fails: float = 1.0

    @classmethod
    def plain(cls, verdict: str, why: str = "") -> "Outcome":
        """One that no p is known of, such as that of printed means."""
        return cls(verdict, why, None, (), verdict != HOLDS, verdict != FAILS)


def _ahead(pair: Pair, sign: int) -> float:
    """Two-sided p of no difference; above 1 where it has the other sign."""
    none = 1.0 if pair.effect.ratio else 0.0
    return 2 * pair.effect.p_above(none, below=sign < 0)


def _behind(pair: Pair, sign: int) -> float:
    return _ahead(pair, -sign)


def _behind_or_same(pair: Pair, sign: int) -> float:
    same = pair.p_same if pair.p_seeds >= ALPHA else 1.0
    return min(_behind(pair, sign), same)


def _not_behind(pair: Pair, sign: int) -> float:
    margin = MARGINS[pair.metric]
    limit = margin.low if sign > 0 else margin.high
    return pair.effect.p_above(limit, below=sign < 0)


def _behind_by_margin(pair: Pair, sign: int) -> float:
    return 1.0 if _not_behind(pair, sign) < ALPHA else _behind(pair, sign)


def _same(pair: Pair, sign: int) -> float:
    return pair.p_same


def _beyond(pair: Pair, sign: int) -> float:
    margin = MARGINS[pair.metric]
    above = pair.effect.p_above(margin.high)
    return 2 * min(above, pair.effect.p_above(margin.low, below=True))


def _none_seen(pair: Pair, sign: int) -> float:
    return 2.0 - pair.p_holm if pair.p_holm < ALPHA else pair.p_same


def _different(pair: Pair, sign: int) -> float:
    return 1.0 if pair.p_same < ALPHA else pair.p_seeds


def _in_order(metric: str, a: Figure, b: Figure, sign: int) -> bool | None:
    return sign * (a.mean - b.mean) >= -ROUNDING - 1e-12


def _no_order(metric: str, a: Figure, b: Figure, sign: int) -> bool | None:
    """Whether printed means are not told apart by their errors; None: none printed."""
    limit = Z * math.hypot(a.standard_error, b.standard_error)
    # Rounded, as 0.3 - 0.1 - 0.2 is not 0.
    return None if math.isnan(limit) else round(abs(a.mean - b.mean), 9) <= limit


def _clear_order(metric: str, a: Figure, b: Figure, sign: int) -> bool | None:
    none = _no_order(metric, a, b, sign)
    return none if none is None else not none and sign * (a.mean - b.mean) > 0


def _close(metric: str, a: Figure, b: Figure, sign: int) -> bool | None:
    # How little "little" is, the paper does not say: the margin is ours.
    margin = MARGINS[metric]
    effect = a.mean / b.mean if is_ratio(metric) else a.mean - b.mean
    return margin.low <= round(effect, 9) <= margin.high


def _products(part: Part, known: _Side) -> _Steps:
    found = product(part.a, part.b) if part.b else combinations(part.a, 2)
    return [step for step in found if all(one in known for one in step)]


def _in_turn(part: Part, known: _Side) -> _Steps:
    """Each after the one before it; then the last after the first."""
    own = [one for one in part.a if one in known]
    steps = [(after, before) for before, after in pairwise(own)]
    return steps + ([(own[-1], own[0])] if len(own) > 2 else [])


def _one_fails(fails: _Each) -> float:
    return float(min(statistics.holm([min(p, 1.0) for p in fails])))


def _every(steps: _Steps, holds: _Each, fails: _Each) -> tuple[float, float]:
    """All pairs have to hold; one that fails is enough."""
    return max(holds), _one_fails(fails)


def _last(steps: _Steps, holds: _Each, fails: _Each) -> tuple[float, float]:
    """The last pair has to hold, and none to fail."""
    found = _one_fails(fails)
    return (1.0 if found < ALPHA else holds[-1]), found


def _any_of_a(steps: _Steps, holds: _Each, fails: _Each) -> tuple[float, float]:
    """One of a has to hold against all of b: Bonferroni's correction for which it is.

    It fails where each of a does against one of b.
    """
    rows = [
        [i for i, step in enumerate(steps) if step[0] == one]
        for one in dict.fromkeys(step[0] for step in steps)
    ]
    ahead = len(rows) * min(max(holds[i] for i in row) for row in rows)
    return ahead, max(_one_fails([fails[i] for i in row]) for row in rows)


def _as_printed(part: Part, runs: Runs, value: float) -> Outcome:
    """Whether one more training of ours could have a printed figure."""
    quantity = part.a[0]
    if not runs.has(quantity):
        return Outcome(NOT_RUN, missing=(quantity.label,))
    found = runs.estimate(quantity, part.metric)
    spread = runs.spread(quantity, part.metric)
    why = f"ours {found.mean:.3f} ± {found.standard_error:.3f}"
    error = estimates.prediction_error(found, spread, math.nan, runs.study.same_images)
    limit = estimates.prediction_limit(error, spread.df)
    if runs.study.preset != "paper":
        return Outcome(UNDECIDED, f"{why}; a figure is judged on preset paper alone")
    if math.isnan(limit):
        return Outcome(UNDECIDED, f"{why}; no loss has two seeds")
    verdict = HOLDS if abs(found.mean - value) <= limit + 1e-12 else FAILS
    return Outcome.plain(verdict, f"{why}, limit {limit:.3f}")


def _unmeasured(part: Part, runs: Runs, value: float) -> Outcome:
    return Outcome(UNDECIDED, "seen in pictures, measured nowhere")


class Kind(NamedTuple):
    """How one kind of claim is decided; `sign` is 1 where a is to be higher, else -1.

    Attributes:
        test: the deciding test in words.
        holds: p of what has to be refuted for a pair to hold.
        fails: the same for it to fail.
        printed: whether two printed figures agree; None: they do not say.
        alone: whether each pair of a and b is a part of its own.
        steps: which pairs are compared.
        joined: p of the part out of those of its pairs.
        decide: in place of all these, where no pairs are compared.
    """

    test: str
    holds: Callable[[Pair, int], float] = _ahead
    fails: Callable[[Pair, int], float] = _behind
    printed: Callable[[str, Figure, Figure, int], bool | None] = _in_order
    alone: bool = False
    steps: Callable[[Part, _Side], _Steps] = _products
    joined: Callable[[_Steps, _Each, _Each], tuple[float, float]] = _every
    decide: Callable[[Part, Runs, float], Outcome] | None = None


KINDS: Mapping[str, Kind] = {
    "ahead": Kind(
        f"a {{sense}} than b {_SEEDS}; fails where b is {{sense}}", alone=True
    ),
    "differs": Kind(
        f"a {{sense}} than b {_SEEDS}; fails where b is {{sense}}, or no difference is "
        f"seen and both are {_SAME}",
        fails=_behind_or_same, printed=_clear_order, alone=True,
    ),
    "not worse": Kind(
        f"a not behind b by the metric's margin (one-sided test, p < {ALPHA:g}), "
        f"{{sense}} being better; fails where it is, and b is ahead {_SEEDS}",
        holds=_not_behind, fails=_behind_by_margin, alone=True,
    ),
    "steady": Kind(
        f"a and b {_SAME}; fails where their difference is beyond it",
        holds=_same, fails=_beyond, printed=_close,
    ),
    "no difference": Kind(
        f"a and b {_SAME}, and no difference {_SEEDS}, after Holm's correction for the "
        "number of pairs; fails where there is one and they are not inside",
        holds=_none_seen, fails=_different, printed=_no_order,
    ),
    "best": Kind(
        f"each of a {{sense}} than all of b {_SEEDS}; fails where one of b is "
        "{sense}, after Holm's correction for their number",
    ),
    "one best": Kind(
        f"one of a {{sense}} than all of b {_SEEDS}, with Bonferroni's correction for "
        "which one; fails where for each of a one of b is {sense}",
        joined=_any_of_a,
    ),
    "trend": Kind(
        f"the last of a {{sense}} than the first {_SEEDS}; fails where the first is, "
        "or one is {sense} than the next, after Holm's correction for their number",
        steps=_in_turn, joined=_last,
    ),
    "figure": Kind(
        "preset paper alone: ours and the printed figure `within`, as in the tables",
        decide=_as_printed,
    ),
    "by eye": Kind("seen in pictures; no measure decides it", decide=_unmeasured),
    "cited": Kind("cited literature: not tested", decide=_unmeasured),
}  # fmt: skip
"""By the name that `results/paper/claims.csv` has in its column `rule`."""


@dataclass(frozen=True)
class Rule:
    """The kind of a claim with what its row says.

    Attributes:
        name: a key of `KINDS`.
        sense: "lower" or "higher", how `a` is to differ from `b`; "" where unused.
        value: the printed figure, where the claim is one, else NaN.
    """

    name: str
    sense: str = ""
    value: float = math.nan

    def __post_init__(self) -> None:
        """Refuse a sense that is neither, where one is needed."""
        if "{sense}" in self.kind.test and self.sense not in ("lower", "higher"):
            raise InputError(
                f"sense: expected lower or higher, found {self.sense!r}; correct "
                "claims.csv"
            )

    @property
    def kind(self) -> Kind:
        """How it is decided."""
        return KINDS[self.name]

    @property
    def in_words(self) -> str:
        """The deciding test, for a column of `results/claims.csv`."""
        return self.kind.test.format(sense=self.sense)

    @property
    def _sign(self) -> int:
        return 1 if self.sense == "higher" else -1

    def split(self, a: _Side, b: _Side) -> Iterator[tuple[_Side, _Side]]:
        """Which parts the two columns of `claims.csv` stand for.

        Pairs: two lists one by one, or one quantity with each of a list.
        """
        if not self.kind.alone:
            yield tuple(a), tuple(b)
            return
        if b and len(a) != len(b) and 1 not in (len(a), len(b)):
            raise InputError(
                f"a and b: expected as many losses in both, or one in either, found "
                f"{len(a)} and {len(b)}; correct claims.csv"
            )
        pairs = zip(a, b, strict=True) if len(a) == len(b) else product(a, b)
        yield from (((one,), (other,)) for one, other in pairs)

    def decide(self, part: Part, runs: Runs | None) -> Outcome:
        """Decide a part from our runs of its data set; None where there are none."""
        kind = self.kind
        if self.name == "cited":
            return Outcome(CITED)
        if runs is None:
            return Outcome(NOT_RUN, missing=("all",))
        if kind.decide:
            return kind.decide(part, runs, self.value)
        known = [one for one in part.quantities if runs.has(one)]
        missing = tuple(one.label for one in part.quantities if one not in known)
        steps = kind.steps(part, known)
        if not steps:
            return Outcome(NOT_RUN, missing=missing)
        pairs = _corrected([runs.pair(*step, part.metric) for step in steps])
        holds = [_known(kind.holds(pair, self._sign)) for pair in pairs]
        fails = [_known(kind.fails(pair, self._sign)) for pair in pairs]
        p_holds, p_fails = kind.joined(steps, holds, fails)
        if missing:
            p_holds = max(p_holds, 1.0)
        if kind.joined is _any_of_a and {one.label for one in part.a} & set(missing):
            p_fails = 1.0  # Another of a might be ahead.
        verdict = HOLDS if p_holds < ALPHA else FAILS if p_fails < ALPHA else UNDECIDED
        # The weakest pair is shown; of those that fail, if it fails for these.
        failing = [h for h, f in zip(holds, fails, strict=True) if f < ALPHA]
        among = failing if verdict == FAILS and failing else holds
        shown = pairs[holds.index(max(among))]
        return Outcome(verdict, self._why(shown), shown, missing, p_holds, p_fails)

    def _why(self, pair: Pair) -> str:
        names = f"{pair.a.label} against {pair.b.label}: "
        if pair.difference.n < 2:
            return f"{names}{pair.difference.n} cases are defined for both"
        said = [str(pair.effect)]
        if self.kind.holds is not _ahead or pair.p_same < ALPHA:
            said.append("margin {:g} to {:g}".format(*MARGINS[pair.metric]))
        if "over seeds" in self.kind.test and not math.isnan(pair.effect.df):
            said.append(f"p over seeds {pair.p_seeds:.2g}")
            if pair.p_holm != pair.p_seeds:
                said[-1] += f" ({pair.p_holm:.2g} after Holm's correction)"
        return names + ", ".join(said)

    def in_print(self, part: Part, printed: Mapping[Quantity, Figure]) -> str:
        """Decide a part from the paper's own tables; "" where they do not say."""
        steps = self.kind.steps(part, part.quantities)
        if self.kind.decide or not all(one in printed for one in part.quantities):
            return ""
        agree = [
            self.kind.printed(part.metric, printed[a], printed[b], self._sign)
            for a, b in steps
        ]
        if None in agree:
            return ""
        refuted = [float(not one) for one in agree]
        p_holds, _ = self.kind.joined(steps, refuted, [1 - p for p in refuted])
        if self.kind.joined is _last:
            # No change is no trend.
            first, last = printed[part.a[0]].mean, printed[part.a[-1]].mean
            p_holds += self._sign * (last - first) <= ROUNDING
        return HOLDS if p_holds < ALPHA else FAILS


def _known(p: float) -> float:
    return 1.0 if math.isnan(p) else p


def _corrected(pairs: list[Pair]) -> list[Pair]:
    """Their p after Holm's correction for the number of pairs."""
    found = statistics.holm([pair.p_seeds for pair in pairs])
    return [replace(one, p_holm=float(p)) for one, p in zip(pairs, found, strict=True)]
