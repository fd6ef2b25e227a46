"""How often the rules of the verdicts err, by simulation.

A loss's value in a case is its mean, what the case adds for every loss, what it adds
for this loss, what a training adds and what is left. The standard deviations are those
of Dice in the committed runs on DRIVE (`components`). Three losses are drawn, as often
as there are seeds, and put to the functions that the verdicts come from; with one seed
a loss, the spread over trainings is that of three losses with three seeds more, as in
the tables where some losses were repeated. `make bench-verdicts` writes
`verdicts.csv` and the table in `results/README.md`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipelines.measure import statistics
from pipelines.reporting.estimates import (
    ALPHA,
    MARGINS,
    Z,
    contrast,
    estimate,
    pooled,
    prediction_error,
    prediction_limit,
)
from pipelines.reporting.frame import open_study
from pipelines.reporting.markdown import replace_marked, table
from pipelines.reporting.published import Variant
from pipelines.run import write_csv

OUTPUT = Path(__file__).with_suffix(".csv")
README = Path(__file__).parents[1] / "results" / "README.md"
RUNS = README.with_name("drive") / "reduced"
COLUMNS = ("rule", "truth", "seeds", "cases", "replications", "rate", "error")
SEEDS, CASES, REPLICATIONS = (1, 3, 5), (20, 41, 122), 1000
GAP = 0.01
"""Between two losses that differ: Dice of DSC++ less that of CE as printed, DRIVE."""

_Floats = npt.NDArray[np.float64]


class Components(NamedTuple):
    """Standard deviations of Dice."""

    case: float
    loss_in_case: float
    training: float
    rest: float


def components() -> Components:
    """Of CE, DSC and DSC++ on DRIVE, trained equally often: analysis of variance."""
    study = open_study(RUNS)
    losses = [Variant("CE"), Variant("DSC"), Variant.standard("DSC++")]
    values = np.stack([study.measures(one, "vessel", "dice") for one in losses])
    trainings, cases = values.shape[1:]
    centred = values - values.mean(axis=2, keepdims=True)
    by_loss = centred.mean(axis=1)
    case = by_loss.mean(axis=0)
    left = centred - by_loss[:, np.newaxis]
    rest = float((left**2).sum()) / (len(losses) * (trainings - 1) * (cases - 1))
    own = float(((by_loss - case) ** 2).sum()) / ((len(losses) - 1) * (cases - 1))
    spread = pooled(values).s ** 2 - rest / cases
    return Components(
        float(case.std(ddof=1)),
        math.sqrt(max(own - rest / trainings, 0.0)),
        math.sqrt(max(spread, 0.0)),
        math.sqrt(rest),
    )


class World:
    """One replication: cases, losses and trainings drawn from `Components`.

    Args:
        sizes: the standard deviations.
        seeds: trainings of each loss.
        cases: test cases.
        seed: of the draws.
    """

    def __init__(self, sizes: Components, seeds: int, cases: int, seed: int) -> None:
        self.sizes, self.seeds = sizes, seeds
        self.random = np.random.default_rng([seed, seeds, cases])
        self.images = self.random.normal(0.8, sizes.case, cases)
        # The image and what this loss makes of it, of three losses.
        self.losses = [self.of_loss(self.images) for _ in range(3)]
        trained = [self.trained(one, seeds) for one in self.losses]
        self.a, self.b = trained[:2]
        if seeds == 1:
            trained = [self.trained(self.of_loss(self.images), 3) for _ in range(3)]
        self.spread = pooled(trained)

    def of_loss(self, images: _Floats) -> _Floats:
        """What one loss is expected to have on each image, (cases,)."""
        return images + self.random.normal(0, self.sizes.loss_in_case, len(images))

    def trained(self, loss: _Floats, seeds: int) -> _Floats:
        """Trainings of one loss, (seeds, cases)."""
        means = self.random.normal(0, self.sizes.training, (seeds, 1))
        return loss + means + self.random.normal(0, self.sizes.rest, (seeds, len(loss)))


def differs(world: World, gap: float) -> bool:
    """Whether Student's t over trainings finds a difference."""
    return contrast(world.a + gap, world.b, world.spread).p < ALPHA


def ranks(test: str, world: World, gap: float) -> bool:
    """Whether a test over images finds a difference, each averaged over trainings."""
    sides = ((world.a + gap).mean(axis=0), world.b.mean(axis=0))
    return bool(getattr(statistics, test)(*sides).p < ALPHA)


def same(world: World, gap: float) -> bool:
    """Whether two one-sided tests put two losses within the margin of Dice."""
    found = contrast(world.a + gap, world.b, world.spread)
    return found.p_same(MARGINS["dice"]) < ALPHA


def within(same_images: bool, before: bool, world: World, gap: float) -> bool:
    """Whether a printed mean is `within` our estimate's limit.

    Args:
        same_images: whether it is of the same test images.
        before: by the rule that this one replaced, 1.96 standard errors of both.
        world: its first loss is ours.
        gap: printed is a loss that is so much better; 0: another training of ours.
    """
    loss = world.losses[1 if gap else 0]
    if not same_images:
        images = world.random.normal(0.8, world.sizes.case, len(world.images))
        loss = world.of_loss(images)
    (theirs,) = world.trained(loss, 1) + gap
    # As the bootstrap's, which would take most of the time.
    their_error = float(theirs.std()) / math.sqrt(len(theirs))
    ours = estimate(world.a, None if before else world.spread)
    limit = Z * math.hypot(ours.standard_error, their_error)
    if not before:
        error = prediction_error(ours, world.spread, their_error, same_images)
        limit = prediction_limit(error, world.spread.df)
    return bool(abs(ours.mean - round(float(theirs.mean()), 3)) <= limit)


Rule = Callable[[World, float], bool]
RULES: dict[tuple[str, str], tuple[Rule, float]] = {
    ("differs over trainings", "no difference"): (differs, 0.0),
    ("differs by signed-rank", "no difference"): (partial(ranks, "signed_rank"), 0.0),
    ("differs by rank-sum", "no difference"): (partial(ranks, "rank_sum"), 0.0),
    ("differs over trainings", f"differ by {GAP}"): (differs, GAP),
    ("the same", f"differ by {GAP}"): (same, GAP),
    ("the same", "no difference"): (same, 0.0),
}
for _before, _at in product((False, True), (True, False)):
    _name = f"within{' (before)' * _before}, {'same' if _at else 'other'} images"
    RULES[_name, "one more training"] = partial(within, _at, _before), 0.0
    RULES[_name, f"a loss {GAP} better"] = partial(within, _at, _before), GAP
"""By rule and truth: what is asked, and how much better one loss is."""


def simulate(seeds: int, cases: int, replications: int) -> list[dict[str, object]]:
    """How often each rule says yes.

    Returns:
        Rows with `COLUMNS`; `error` is the binomial standard error of `rate`.
    """
    sizes, count = components(), dict.fromkeys(RULES, 0)
    for seed in range(replications):
        world = World(sizes, seeds, cases, seed)
        for key, (rule, gap) in RULES.items():
            count[key] += rule(world, gap)
    rows: list[dict[str, object]] = []
    for (rule_name, truth), yes in count.items():
        rate = yes / replications
        row: dict[str, object] = {"rule": rule_name, "truth": truth, "seeds": seeds}
        row |= {"cases": cases, "replications": replications, "rate": f"{rate:.3f}"}
        error = math.sqrt(rate * (1 - rate) / replications)
        rows.append(row | {"error": f"{error:.3f}"})
    return rows


def layout(rows: Iterable[Mapping[str, object]]) -> str:
    """Lay out the rates in Markdown: a line a rule and truth."""
    frame = pd.DataFrame(rows).astype({"rate": float, "seeds": int, "cases": int})
    keys = ["rule", "truth"]
    grid = frame.pivot(index=keys, columns=["seeds", "cases"], values="rate")
    grid = grid.loc[frame[keys].drop_duplicates().itertuples(index=False, name=None)]
    heads = [f"{seeds} x {cases}" for seeds, cases in grid.columns]
    lines = [
        [*map(str, key), *(f"{rate:.2f}" for rate in values)]
        for key, values in zip(grid.index, grid.to_numpy(), strict=True)
    ]
    return table(["says", "truth", *heads], lines)


def main() -> None:
    """Simulate every number of seeds and cases and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="CSV")
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
        text = replace_marked(README, README.read_text("utf-8"), "rates", layout(rows))
        README.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
