"""The rules that decide a claim: what holds, what fails, what stays undecided.

`data/rules.yaml` says of each kind of claim what has to be refuted for a pair of
variants to hold, and what for it to fail; `p_of` has each p. Two losses differ where
Student's t over seeds says so (`estimates.contrast`); they are the same where two
one-sided tests put them inside a declared margin (`estimates.MARGINS`). A part with
several pairs holds where every pair does, each at `ALPHA`: that needs no correction, as
all have to pass (Berger and Hsu 1996). It fails where one does, after Holm's correction
for their number. Lack of evidence is neither: it leaves a claim undecided.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product
from typing import Any, NamedTuple, Self

from data_io.errors import InputError
from pipelines.measure import statistics
from pipelines.reporting import data, estimates
from pipelines.reporting.estimates import ALPHA, ROUNDING, Z, is_ratio, margin_of
from pipelines.reporting.evidence import Pair, Runs, estimated, training_spread
from pipelines.reporting.published import Cell, Variant

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"
CITED = "cited, not tested"

_Side = Sequence[Variant]
_Steps = list[tuple[Variant, Variant]]


@dataclass(frozen=True)
class Comparison:
    """One comparison of a claim: `a` is what it is about, `b` may be empty.

    Attributes:
        dataset: the data set's title in the paper.
        target: the class; "" for the only one.
        metric: the paper's word, such as "nll"; "" where nothing is measured.
    """

    dataset: str
    target: str
    metric: str
    a: tuple[Variant, ...]
    b: tuple[Variant, ...] = ()

    @property
    def name(self) -> str:
        """Return a name such as "KiTS19 (kidney) dice"."""
        target = f" ({self.target})" if self.target else ""
        return f"{self.dataset}{target} {self.metric}"

    @property
    def quantities(self) -> tuple[Variant, ...]:
        """Return all variants that have to be run for it."""
        return (*self.a, *self.b)

    @property
    def measured(self) -> tuple[Variant, ...]:
        """Return the variants to measure; none where the claim is about pictures."""
        return self.quantities if self.metric else ()


class Outcome(NamedTuple):
    """The verdict of a rule on one comparison.

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
        """Make an outcome without a p, such as that of printed means."""
        return cls(verdict, why, None, (), verdict != HOLDS, verdict != FAILS)


KINDS: Mapping[str, Mapping[str, Any]] = data("rules")
"""By the name that `results/paper/claims.csv` has in its column `rule`."""


def p_of(pair: Pair, sign: int) -> dict[str, float]:
    """Return what a pair can show, each with the p of its null hypothesis.

    Of two directions p is two-sided, above 1 where it is the other one. `sign` is 1
    where a is to be higher, else -1.
    """
    low, high, _ = margin_of(pair.metric)
    above, none = pair.effect.p_above, 1.0 if pair.effect.ratio else 0.0
    ahead, behind = (
        2 * above(none, below=direction < 0) for direction in (sign, -sign)
    )
    not_behind = above(low if sign > 0 else high, below=sign < 0)
    unseen = pair.p_same if pair.p_seeds >= ALPHA else 1.0
    return {
        "ahead": ahead,
        "behind": behind,
        "behind or same": min(behind, unseen),
        "not behind": not_behind,
        "behind by the margin": 1.0 if not_behind < ALPHA else behind,
        "same": pair.p_same,
        "beyond": 2 * min(above(high), above(low, below=True)),
        "none seen": 2.0 - pair.p_holm if pair.p_holm < ALPHA else pair.p_same,
        "different": 1.0 if pair.p_same < ALPHA else pair.p_seeds,
    }


def agreeing(metric: str, a: Cell, b: Cell, sign: int) -> dict[str, bool | None]:
    """Compare two printed means; None: no errors are printed."""
    less, limit = a.value - b.value, Z * math.hypot(a.judged_error, b.judged_error)
    # Rounded, as 0.3 - 0.1 - 0.2 is not 0.
    apart = None if math.isnan(limit) else round(abs(less), 9) > limit
    # How little "little" is, the paper does not say: the margin is ours.
    low, high, _ = margin_of(metric)
    effect = a.value / b.value if is_ratio(metric) else less
    return {
        "in order": sign * less >= -ROUNDING - 1e-12,
        "no order": None if apart is None else not apart,
        "clear order": None if apart is None else apart and sign * less > 0,
        "close": low <= round(effect, 9) <= high,
    }


@dataclass(frozen=True)
class Rule:
    """How a claim is decided: a row of `data/rules.yaml`, and what the claim's says.

    Attributes:
        name: a key of `KINDS`; what follows it is said there.
        value: the printed figure, where the claim is one, else NaN.
        sign: 1 where `a` is to be higher than `b`, else -1.
    """

    name: str
    test: str
    value: float
    sign: int
    holds: str = "ahead"
    fails: str = "behind"
    printed: str = "in order"
    joined: str = "every"
    alone: bool = False
    pairs: bool = True

    @classmethod
    def of(cls, name: str, sense: str = "", value: float = math.nan) -> Self:
        """Make one of `KINDS`; `sense` says how `a` is to differ from `b`.

        Raises:
            KeyError: there is no such kind.
            InputError: the sense is neither lower nor higher, where one is needed.
        """
        kind = dict(KINDS[name])
        words = kind.pop("test")
        if "{sense}" in words and sense not in ("lower", "higher"):
            raise InputError(
                f"sense: expected lower or higher, found {sense!r}; correct claims.csv"
            )
        sign = 1 if sense == "higher" else -1
        return cls(name, words.format(sense=sense), value, sign, **kind)

    def split(self, a: _Side, b: _Side) -> Iterator[tuple[_Side, _Side]]:
        """Split the two columns of `claims.csv` into comparisons.

        Pairs: two lists one by one, or one quantity with each of a list.
        """
        if not self.alone:
            yield tuple(a), tuple(b)
            return
        if b and len(a) != len(b) and 1 not in (len(a), len(b)):
            raise InputError(
                f"a and b: expected as many losses in both, or one in either, found "
                f"{len(a)} and {len(b)}; correct claims.csv"
            )
        pairs = zip(a, b, strict=True) if len(a) == len(b) else product(a, b)
        yield from (((one,), (other,)) for one, other in pairs)

    def decide(self, part: Comparison, runs: Runs | None) -> Outcome:
        """Decide a part from our runs of its data set; None where there are none."""
        if self.name == "cited":
            return Outcome(CITED)
        if runs is None:
            return Outcome(NOT_RUN, missing=("all",))
        if self.name == "by eye":
            return Outcome(UNDECIDED, "seen in pictures, measured nowhere")
        known = [variant for variant in part.quantities if runs.has(variant)]
        missing = tuple(v.label for v in part.quantities if v not in known)
        if self.name == "figure":
            return self._as_printed(part, runs, missing)
        steps = self._steps(part, known)
        if not steps:
            return Outcome(NOT_RUN, missing=missing)
        pairs = [runs.pair(*step, part.metric) for step in steps]
        adjusted = statistics.holm([pair.p_seeds for pair in pairs])
        corrected = zip(pairs, map(float, adjusted), strict=True)
        return self._of_pairs(
            [replace(pair, p_holm=p) for pair, p in corrected], part, missing
        )

    def _of_pairs(
        self, pairs: list[Pair], part: Comparison, missing: tuple[str, ...]
    ) -> Outcome:
        """Decide from what was run, given with its p after Holm's correction."""
        shown_by = [p_of(pair, self.sign) for pair in pairs]
        holds, fails = (
            [1.0 if math.isnan(p[key]) else p[key] for p in shown_by]
            for key in (self.holds, self.fails)
        )
        p_holds, p_fails = self._joined([(one.a, one.b) for one in pairs], holds, fails)
        if missing:
            p_holds = max(p_holds, 1.0)
            # Another of a might be ahead.
            if self.joined == "one of a" and {q.label for q in part.a} & {*missing}:
                p_fails = 1.0
        verdict = HOLDS if p_holds < ALPHA else FAILS if p_fails < ALPHA else UNDECIDED
        # The weakest pair is shown; of those that fail, if it fails for these.
        failing = [h for h, f in zip(holds, fails, strict=True) if f < ALPHA]
        among = failing if verdict == FAILS and failing else holds
        shown = pairs[holds.index(max(among))]
        return Outcome(verdict, self._why(shown), shown, missing, p_holds, p_fails)

    def _as_printed(
        self, part: Comparison, runs: Runs, missing: tuple[str, ...]
    ) -> Outcome:
        """Decide whether one more training of ours could have the printed value."""
        if missing:
            return Outcome(NOT_RUN, missing=missing)
        (a, *_), at = part.a, (runs.target, runs.column(part.metric))
        ours = estimated(runs.study, a, *at)
        spread = training_spread(runs.study, *at, (a.threshold,), a.method)
        error = estimates.prediction_error(
            ours, spread, math.nan, runs.study.same_images
        )
        limit = estimates.prediction_limit(error, spread.df)
        why = f"ours {ours.mean:.3f} ± {ours.standard_error:.3f}"
        if runs.study.preset != "paper":
            why += "; a figure is judged on preset paper alone"
            return Outcome(UNDECIDED, why)
        if math.isnan(limit):
            return Outcome(UNDECIDED, f"{why}; no loss has two seeds")
        verdict = HOLDS if abs(ours.mean - self.value) <= limit + 1e-12 else FAILS
        return Outcome.plain(verdict, f"{why}, limit {limit:.3f}")

    def _steps(self, part: Comparison, known: _Side) -> _Steps:
        """List the pairs to compare among the variants that were run."""
        if self.joined == "last":
            present = [variant for variant in part.a if variant in known]
            steps = [(after, before) for before, after in pairwise(present)]
            return steps + ([(present[-1], present[0])] if len(present) > 2 else [])
        pairs = product(part.a, part.b) if part.b else combinations(part.a, 2)
        return [step for step in pairs if all(variant in known for variant in step)]

    def _joined(
        self, steps: _Steps, holds: Sequence[float], fails: Sequence[float]
    ) -> tuple[float, float]:
        if self.joined == "one of a":
            rows = [
                [i for i, step in enumerate(steps) if step[0] == variant]
                for variant in dict.fromkeys(step[0] for step in steps)
            ]
            ahead = len(rows) * min(max(holds[i] for i in row) for row in rows)
            return ahead, max(_one_fails([fails[i] for i in row]) for row in rows)
        failed = _one_fails(fails)
        if self.joined == "last":
            return (1.0 if failed < ALPHA else holds[-1]), failed
        return max(holds), failed

    def _why(self, pair: Pair) -> str:
        """Describe the effect of the pair shown, and what decides on it."""
        names = f"{pair.a.label} against {pair.b.label}: "
        if pair.difference.n < 2:
            return f"{names}{pair.difference.n} cases are defined for both"
        texts = [str(pair.effect)]
        if self.holds != "ahead" or pair.p_same < ALPHA:
            texts.append("margin {:g} to {:g}".format(*margin_of(pair.metric)))
        if "over seeds" in self.test and not math.isnan(pair.effect.df):
            texts.append(f"p over seeds {pair.p_seeds:.2g}")
            if pair.p_holm != pair.p_seeds:
                texts[-1] += f" ({pair.p_holm:.2g} after Holm's correction)"
        return names + ", ".join(texts)

    def in_print(self, part: Comparison, printed: Mapping[Variant, Cell]) -> str:
        """Decide a part from the paper's own tables; "" where they do not say."""
        if not self.pairs or not all(one in printed for one in part.quantities):
            return ""
        steps = self._steps(part, part.quantities)
        agree = [
            agreeing(part.metric, printed[a], printed[b], self.sign)[self.printed]
            for a, b in steps
        ]
        if None in agree:
            return ""
        refuted = [float(not one) for one in agree]
        p_holds, _ = self._joined(steps, refuted, [1 - p for p in refuted])
        if self.joined == "last":
            # No change is no trend.
            first, last = printed[part.a[0]].value, printed[part.a[-1]].value
            p_holds += self.sign * (last - first) <= ROUNDING
        return HOLDS if p_holds < ALPHA else FAILS


def _one_fails(fails: Sequence[float]) -> float:
    """Return the p of "none fails", after Holm's correction for their number."""
    return float(min(statistics.holm([min(p, 1.0) for p in fails])))
