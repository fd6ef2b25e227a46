"""Simulate how often the rules of the verdicts err.

The value of a loss in a case is a sum: its mean, an effect of the case on every loss,
an effect of the case on this loss, an effect of the seed, and a rest. The standard
deviations are those of Dice in the committed runs on DRIVE (`components`). Three losses
are drawn, as often as there are seeds, and given to the functions that decide the
verdicts. With one seed for each loss, the spread over seeds is that of three further
losses with three seeds, as in the tables where some losses were repeated. In half of
the worlds the seeds of the first loss differ by `NOISY` times as much as those of the
others. `make bench-verdicts` writes `verdicts.csv` and the table in
`results/README.md`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks import timing
from pipelines.measure import statistics
from pipelines.reporting import estimates
from pipelines.reporting.estimates import (
    ALPHA,
    MARGINS,
    Contrast,
    contrast,
    estimate,
    pooled,
    prediction_error,
    prediction_limit,
)
from pipelines.reporting.frame import open_study
from pipelines.reporting.markdown import fill, table
from pipelines.reporting.published import Variant
from pipelines.runs.run import write_csv

OUTPUT = Path(__file__).with_suffix(".csv")
README = Path(__file__).parents[1] / "results" / "README.md"
RUNS = README.with_name("drive") / "reduced"
COLUMNS = ("rule", "truth", "seeds", "cases", "replications", "rate", "error", "case",
           "loss_in_case", "training", "rest")  # fmt: skip
SEEDS, CASES, REPLICATIONS = (1, 3, 5), (20, 41, 122), 1000
GAP = 0.01
"""Between two losses that differ: Dice of DSC++ less that of CE as printed, DRIVE."""

NOISY = 3.0
"""So many times the spread over seeds of the other losses has one of them."""

_Floats = npt.NDArray[np.float64]


class Components(NamedTuple):
    """Standard deviations of Dice."""

    case: float
    loss_in_case: float
    training: float
    rest: float


def components() -> Components:
    """Estimate those of CE, DSC and DSC++ on DRIVE by analysis of variance."""
    study = open_study(RUNS)
    losses = [Variant("CE"), Variant("DSC"), Variant.standard("DSC++")]
    values = np.stack([study.measures(loss, "vessel", "dice") for loss in losses])
    trainings, cases = values.shape[1:]
    centred = values - values.mean(axis=2, keepdims=True)
    by_loss = centred.mean(axis=1)
    case = by_loss.mean(axis=0)
    left = centred - by_loss[:, np.newaxis]
    rest = float((left**2).sum()) / (len(losses) * (trainings - 1) * (cases - 1))
    loss_variance = float(((by_loss - case) ** 2).sum()) / (
        (len(losses) - 1) * (cases - 1)
    )
    spread = pooled(values).s ** 2 - rest / cases
    return Components(
        float(case.std(ddof=1)),
        math.sqrt(max(loss_variance - rest / trainings, 0.0)),
        math.sqrt(max(spread, 0.0)),
        math.sqrt(rest),
    )


class World:
    """One replication: cases, losses and seeds drawn from `Components`.

    Args:
        sizes: the standard deviations.
        seeds: number of seeds of each loss.
        cases: number of test cases.
        seed: seed of the draws.
        noisy: factor of the spread over seeds of the first loss.
    """

    def __init__(
        self, sizes: Components, seeds: int, cases: int, seed: int, noisy: float = 1.0
    ) -> None:
        self.sizes, self.seeds, self.noisy = sizes, seeds, noisy
        self.random = np.random.default_rng([seed, seeds, cases])
        self.images = self.random.normal(0.8, sizes.case, cases)
        # Effect of the image, and of the image on each of three losses.
        self.losses = [self.of_loss(self.images) for _ in range(3)]
        times = (noisy, 1.0, 1.0)
        noisiness = zip(self.losses, times, strict=True)
        trained = [self.trained(loss, seeds, more) for loss, more in noisiness]
        self.a, self.b = trained[:2]
        if seeds == 1:
            trained = [self.trained(self.of_loss(self.images), 3) for _ in range(3)]
        self.spread = pooled(trained)

    def of_loss(self, images: _Floats) -> _Floats:
        """Return the expected values of one loss on each image, (cases,)."""
        return images + self.random.normal(0, self.sizes.loss_in_case, len(images))

    def trained(self, loss: _Floats, seeds: int, times: float = 1.0) -> _Floats:
        """Return trainings of one loss, (seeds, cases)."""
        means = self.random.normal(0, times * self.sizes.training, (seeds, 1))
        return loss + means + self.random.normal(0, self.sizes.rest, (seeds, len(loss)))

    def contrast(self, gap: float) -> Contrast:
        """Compare the first two losses, with the first better by the given amount."""
        return contrast(self.a + gap, self.b, [self.spread] * 2)


def differs(world: World, gap: float) -> bool:
    """Return whether Student's t over seeds finds a difference."""
    return world.contrast(gap).p < ALPHA


def differs_pooled(world: World, gap: float) -> bool:
    """Return the same as if no loss had a spread of its own."""
    with patch.object(estimates, "OWN_SEEDS", world.seeds + 1):
        return differs(world, gap)


def ranks(test: str, world: World, gap: float) -> bool:
    """Return whether a test over images, averaged over seeds, finds a difference."""
    sides = ((world.a + gap).mean(axis=0), world.b.mean(axis=0))
    return bool(getattr(statistics, test)(*sides).p < ALPHA)


def same(world: World, gap: float) -> bool:
    """Return whether two one-sided tests put two losses within the margin of Dice."""
    return world.contrast(gap).p_same(MARGINS["dice"]) < ALPHA


def within(same_images: bool, world: World, gap: float) -> bool:
    """Return whether a printed mean is `within` our estimate's limit.

    Args:
        same_images: whether it is of the same test images.
        world: the world; its first loss is ours.
        gap: how much better the printed loss is; 0: it is another training of ours.
    """
    loss = world.losses[1 if gap else 0]
    if not same_images:
        images = world.random.normal(0.8, world.sizes.case, len(world.images))
        loss = world.of_loss(images)
    (theirs,) = world.trained(loss, 1, 1.0 if gap else world.noisy) + gap
    # By the formula: the bootstrap would take most of the time.
    their_error = float(theirs.std()) / math.sqrt(len(theirs))
    ours = estimate(world.a, world.spread)
    error = prediction_error(ours, world.spread, their_error, same_images)
    limit = prediction_limit(error, world.spread.df)
    return bool(abs(ours.mean - round(float(theirs.mean()), 3)) <= limit)


Rule = Callable[[World, float], bool]
RULES: dict[tuple[str, str], tuple[Rule, float, float]] = {}
NONE, APART = ("no difference", 0.0), (f"differ by {GAP}", GAP)
ANOTHER, BETTER = ("one more training", 0.0), (f"a loss {GAP} better", GAP)
_QUESTIONS: dict[str, tuple[Rule, tuple[tuple[str, float], ...]]] = {
    "differs over seeds": (differs, (NONE, APART)),
    "differs, spread pooled": (differs_pooled, (NONE,)),
    "the same": (same, (APART, NONE)),
    "within, same images": (partial(within, True), (ANOTHER, BETTER)),
    "within, other images": (partial(within, False), (ANOTHER, BETTER)),
}
for _noisy, _said in ((1.0, ""), (NOISY, f", spreads differ by {NOISY:g}")):
    for _name, (_rule, _truths) in _QUESTIONS.items():
        for _truth, _gap in _truths:
            RULES[_name, _truth + _said] = _rule, _gap, _noisy
for _test in ("signed_rank", "rank_sum"):
    _name = f"differs by {_test.replace('_', '-')}"
    RULES[_name, NONE[0]] = partial(ranks, _test), 0.0, 1.0
"""By rule and truth: what is asked, how much better one loss is, and how noisy."""


def simulate(seeds: int, cases: int, replications: int) -> list[dict[str, object]]:
    """Count how often each rule says yes.

    Returns:
        Rows with `COLUMNS`; `error` is the binomial standard error of `rate`.
    """
    sizes, count = components(), dict.fromkeys(RULES, 0)
    for seed in range(replications):
        worlds = {n: World(sizes, seeds, cases, seed, n) for n in (1.0, NOISY)}
        for key, (rule, gap, noisy) in RULES.items():
            count[key] += rule(worlds[noisy], gap)
    drawn = {name: f"{size:.4f}" for name, size in sizes._asdict().items()}
    rows: list[dict[str, object]] = []
    for (rule_name, truth), yes in count.items():
        rate = yes / replications
        row: dict[str, object] = {"rule": rule_name, "truth": truth, "seeds": seeds}
        row |= {"cases": cases, "replications": replications, "rate": f"{rate:.3f}"}
        error = math.sqrt(rate * (1 - rate) / replications)
        rows.append(row | {"error": f"{error:.3f}"} | drawn)
    return rows


def layout(rows: Iterable[Mapping[str, object]]) -> str:
    """Lay out the rates in Markdown: a line for each rule and truth; what was drawn."""
    frame = pd.DataFrame(rows).astype({"rate": float, "seeds": int, "cases": int})
    keys = ["rule", "truth"]
    grid = frame.pivot(index=keys, columns=["seeds", "cases"], values="rate")
    grid = grid.loc[frame[keys].drop_duplicates().itertuples(index=False, name=None)]
    heads = [f"{seeds} x {cases}" for seeds, cases in grid.columns]
    lines = [
        [*key, *(f"{rate:.2f}" for rate in values)]
        for key, values in zip(grid.index, grid.to_numpy(), strict=True)
    ]
    first = frame.iloc[0]
    drawn = (
        f"Standard deviations drawn: images {first['case']}, loss and image "
        f"{first['loss_in_case']}, seed {first['training']}, the rest {first['rest']}. "
        f"{first['replications']} replications a cell: Monte Carlo error at most "
        f"{frame['error'].astype(float).max():.3f}, of a rate of 0.05 "
        f"{math.sqrt(0.05 * 0.95 / float(first['replications'])):.3f}."
    )
    return table(["says", "truth", *heads], lines) + "\n\n" + drawn


def main() -> None:
    """Simulate every number of seeds and cases and write the rows."""
    parser = timing.parser(__doc__, OUTPUT)
    parser.add_argument("--replications", type=int, default=REPLICATIONS, metavar="N")
    options = parser.parse_args()
    rows = [
        row
        for seeds in SEEDS
        for cases in CASES
        for row in simulate(seeds, cases, options.replications)
    ]
    write_csv(options.output, COLUMNS, rows)
    if options.output == OUTPUT:
        fill(README, {"rates": lambda: layout(rows)})


if __name__ == "__main__":
    main()
