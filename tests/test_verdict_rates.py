"""The simulation of the rules' error rates: what it draws, and what is committed."""

import csv
import math

import numpy as np
import pytest

from benchmarks import verdicts


@pytest.fixture(scope="module")
def committed():
    with verdicts.OUTPUT.open(newline="") as file:
        return list(csv.DictReader(file))


def test_variance_components_of_the_runs_are_positive():
    """Each part of the committed runs is known, and seeds differ by some."""
    assert all(0 < size < 0.1 for size in verdicts.components())


def test_simulated_values_have_the_requested_variances():
    sizes = verdicts.Components(0.016, 0.004, 0.003, 0.005)
    worlds = [verdicts.World(sizes, 5, 200, seed) for seed in range(60)]
    rest = np.mean([(w.a - w.a.mean(axis=0)).std(axis=1, ddof=1) for w in worlds])
    # The mean over five trainings is taken off: four fifths of the variance are left.
    assert rest == pytest.approx(0.005 * math.sqrt(4 / 5), rel=0.02)
    trained = np.sqrt(np.mean([w.a.mean(axis=1).var(ddof=1) for w in worlds]))
    assert trained == pytest.approx(math.hypot(0.003, 0.005 / math.sqrt(200)), rel=0.2)
    own = np.mean([(w.losses[0] - w.images).std(ddof=1) for w in worlds])
    assert own == pytest.approx(0.004, rel=0.02)
    assert {w.spread.df for w in worlds} == {3 * 4}
    noisy = [verdicts.World(sizes, 5, 200, seed, 3.0) for seed in range(60)]
    more = np.sqrt(np.mean([w.a.mean(axis=1).var(ddof=1) for w in noisy]))
    assert more == pytest.approx(math.hypot(0.009, 0.005 / math.sqrt(200)), rel=0.2)
    assert verdicts.World(sizes, 1, 20, 0).spread.df == 3 * 2


def test_rules_without_noise_make_no_error():
    world = verdicts.World(verdicts.Components(0.02, 0.0, 0.0, 0.0), 3, 20, 0)
    assert not verdicts.differs(world, 0.0) and verdicts.same(world, 0.0)
    assert verdicts.differs(world, 0.011) and not verdicts.same(world, 0.011)
    assert verdicts.within(True, world, 0.0)
    # Not half a thousandth away.
    assert not verdicts.within(True, world, 0.001)


def test_error_rates_stay_below_their_levels(committed):
    """What results/README.md says of them, from the committed rates."""
    assert len(committed) == len(verdicts.RULES) * 9
    for row in committed:
        rate, error = float(row["rate"]), float(row["error"])
        assert error == pytest.approx(math.sqrt(rate * (1 - rate) / 1000), abs=6e-4)
        rule, truth = row["rule"], row["truth"]
        none, apart = verdicts.NONE[0], verdicts.APART[0]
        errs = {("differs over seeds", none), ("the same", apart)}
        if (rule, truth) in errs:
            assert rate < 0.05 + 3 * 0.007
        # Also where one loss is three times as noisy, if it has three seeds.
        equal, *noisy = truth.split(", ")
        if noisy and (rule, equal) in errs and row["seeds"] != "1":
            assert rate < 0.07 + 3 * 0.008
        if rule.startswith("within, ") and truth == "one more training":
            assert rate > 0.95 - 3 * 0.007
        if rule == "differs by signed-rank":
            assert rate > 0.15


def test_results_readme_has_the_error_rates(committed):
    assert verdicts.layout(committed) in verdicts.README.read_text("utf-8")
