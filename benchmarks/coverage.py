"""Simulate how often the 95 % intervals of the tables contain the true mean.

Values of n images are drawn from a population with a known mean. The interval is
computed as in the tables (`statistics.bootstrap`, 10,000 resamples, BCa), and we count
how often it contains that mean. Populations are normal, lognormal (skewed like NLL),
and the per-image values of committed runs, drawn with replacement; for differences of
two losses on the same images, pairs are drawn. The last rows add seeds:
`estimates.estimate` with three of them. `make bench-coverage` writes `coverage.csv` and
the table in README.md.
"""

import math
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipelines.measure import statistics
from pipelines.reporting import markdown
from pipelines.reporting.estimates import estimate
from pipelines.runs.run import write_csv

OUTPUT = Path(__file__).with_suffix(".csv")
PAGE = OUTPUT.with_name("README.md")
RESULTS = Path(__file__).parents[1] / "results"
COLUMNS = (
    "interval", "population", "n", "seeds", "replications", "coverage", "error",
    "below", "above", "width",
)  # fmt: skip
SIZES = (20, 41, 134)
"""Test images of DRIVE, KiTS19 and 2018DSB."""

REPLICATIONS = 2000
MEASURED = Path("dsb2018/reduced/runs")  # 133 test images, the most of all runs
LOSSES = {"CE": "ce-s0", "DSC": "dsc-s0", "DSC++": "dscpp-s0"}
N_SEEDS = 3

_Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], _Floats]


def read(run: str, metric: str) -> _Floats:
    """Return per-image values of a committed run, (images,), in file order."""
    cases = pd.read_csv(RESULTS / MEASURED / run / "cases.csv")
    return cases.query("split == 'test' and region == 'image'")[metric].to_numpy()


def with_seeds(seed_deviation: float) -> tuple[Draw, float]:
    """Draw three trainings with normal noise of images, trainings and the rest.

    Args:
        seed_deviation: standard deviation of the trainings' own means; that over images
            is 1 and that of the rest 0.3.
    """

    def draw(random: np.random.Generator, n: int) -> _Floats:
        images = random.normal(size=n)
        trainings = random.normal(scale=seed_deviation, size=(N_SEEDS, 1))
        return images + trainings + random.normal(scale=0.3, size=(N_SEEDS, n))

    return draw, 0.0


def populations() -> dict[tuple[str, str], tuple[Draw, float]]:
    """Return the populations and their means, by kind of interval and name."""
    draws: dict[tuple[str, str], tuple[Draw, float]] = {
        ("mean", "normal"): (lambda random, n: random.normal(size=n), 0.0)
    }
    for sigma in (0.5, 1.0):  # of the logarithm
        draws["mean", f"lognormal, sigma {sigma:g}"] = (
            partial(_lognormal, sigma),
            math.exp(sigma**2 / 2),
        )
    for metric in ("nll", "dice"):
        values = {loss: read(run, metric) for loss, run in LOSSES.items()}
        for loss, case_values in values.items():
            draws["mean", f"2018DSB, {metric} of {loss}"] = measured(case_values)
        for loss in ("DSC", "CE"):
            name = f"2018DSB, {metric} of DSC++ less {loss}"
            draws["paired difference", name] = measured(values["DSC++"] - values[loss])
    for deviation in (0.0, 0.1, 0.3, 0.6, 1.0):
        name = f"normal, trainings differ by {deviation:g}"
        draws["mean over seeds", name] = with_seeds(deviation)
    return draws


def _lognormal(sigma: float, random: np.random.Generator, n: int) -> _Floats:
    return random.lognormal(sigma=sigma, size=n)


def measured(values: _Floats) -> tuple[Draw, float]:
    """Return the images of a run as the population."""
    return lambda random, n: random.choice(values, size=n), float(values.mean())


def simulate(
    key: tuple[str, str], n: int, replications: int = REPLICATIONS
) -> dict[str, Any]:
    """Count how often the interval contains the mean.

    Args:
        key: of `populations`.
        n: images.
        replications: how often to draw.

    Returns:
        A row with `COLUMNS`: `error` is the binomial standard error of `coverage`.
    """
    kind, name = key
    draw, mean = populations()[key]
    random = np.random.default_rng([zlib.crc32(name.encode()), n])
    bounds = np.array(
        [interval(draw(random, n), seed) for seed in range(replications)], dtype=float
    )
    # An interval of width 0 around 0 would depend on the last bits.
    slack = 1e-12
    below = float(np.mean(bounds[:, 1] < mean - slack))
    above = float(np.mean(bounds[:, 0] > mean + slack))
    coverage = 1 - below - above
    return {
        "interval": kind,
        "population": name,
        "n": n,
        "seeds": N_SEEDS if kind == "mean over seeds" else 1,
        "replications": replications,
        "coverage": f"{coverage:.4f}",
        "error": f"{math.sqrt(coverage * (1 - coverage) / replications):.4f}",
        "below": f"{below:.4f}",
        "above": f"{above:.4f}",
        "width": f"{np.mean(bounds[:, 1] - bounds[:, 0]):.4g}",
    }


def interval(values: _Floats, seed: int) -> tuple[float, float]:
    """Return the interval of the tables: of one value per image, or of (seeds, images).

    Args:
        values: (n,) or (seeds, n).
        seed: of the bootstrap; the tables always use 0, but replications must be
            independent.
    """
    if values.ndim == 1:
        bootstrapped = statistics.bootstrap(values, seed=seed)
        return bootstrapped.ci_low, bootstrapped.ci_high
    over_seeds = estimate(values)
    return over_seeds.ci_low, over_seeds.ci_high


def table(rows: pd.DataFrame) -> str:
    """Lay out the coverage of each population by number of images, in Markdown.

    Args:
        rows: of `coverage.csv`.
    """
    header = ("population", *(f"n = {n}" for n in SIZES))
    kinds = rows.groupby("population", sort=False)["coverage"]
    cells = [[name, *(f"{x:.2f}" for x in values)] for name, values in kinds]
    return markdown.table(header, cells)


def update(page: Path = PAGE) -> None:
    """Put the table of `coverage.csv` between the markers of a page."""
    markdown.fill(page, {"coverage": lambda: table(pd.read_csv(OUTPUT))})


def main() -> None:
    """Simulate every population at every size; write the rows and the table."""
    rows = []
    for key in populations():
        for n in SIZES:
            rows.append(simulate(key, n))
            print(*rows[-1].values(), sep=", ", flush=True)
    write_csv(OUTPUT, COLUMNS, rows)
    update()


if __name__ == "__main__":
    main()
