"""Tests and intervals, against enumeration, formulas and figures worked out by hand."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.measure.statistics import bootstrap, holm, rank_sum, signed_rank

NAN = math.nan
finite = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


# Rank-sum, as published.


def test_twenty_against_twenty_fully_separated_is_the_papers_p_value():
    result = rank_sum(np.arange(20), np.arange(20) + 100)
    # z = (210 - 410) / sqrt(20 * 20 * 41 / 12)
    assert result.statistic == pytest.approx(-200 / math.sqrt(400 * 41 / 12))
    assert result.p == pytest.approx(6.3e-8, rel=0.01)
    assert f"{result.p:.0e}" == "6e-08"


def test_rank_sum_by_hand():
    # Ranks of a: 1 and 3, sum 4; expected 2 * 6 / 2 = 6; variance 2 * 3 * 6 / 12 = 3.
    result = rank_sum([1, 3], [2, 4, 5])
    z = -2 / math.sqrt(3)
    assert result.statistic == pytest.approx(z)
    assert result.p == pytest.approx(math.erfc(-z / math.sqrt(2)))


@settings(deadline=None)
@given(st.lists(finite, min_size=1, max_size=9), st.lists(finite, min_size=1))
def test_rank_sum_counts_wins(a, b):
    # Mann and Whitney: wins of a over b, ties as halves.
    wins = sum((x > y) + (x == y) / 2 for x in a for y in b)
    n, m = len(a), len(b)
    z = (wins - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    assert rank_sum(a, b).statistic == pytest.approx(z, abs=1e-9)
    assert rank_sum(b, a).p == pytest.approx(rank_sum(a, b).p)


def test_rank_sum_of_equal_samples():
    result = rank_sum([1.0, 2.0, 2.0], [1.0, 2.0, 2.0])
    assert (result.statistic, result.p) == (0, 1)


def test_rank_sum_leaves_out_nan():
    result = rank_sum([1, NAN, 3], [NAN, 2, 4, 5])
    assert result.p == rank_sum([1, 3], [2, 4, 5]).p


@pytest.mark.parametrize("b", [[], [NAN, NAN]])
def test_rank_sum_without_values_is_nan(b):
    result = rank_sum([1, 2], b)
    assert math.isnan(result.p)
    assert math.isnan(result.statistic)


# Paired signed-rank.


def by_enumeration(difference):
    """Exact two-sided p: every choice of signs is equally likely."""
    rank = stats.rankdata(np.abs(difference))
    observed = rank[np.asarray(difference) > 0].sum()
    centre = rank.sum() / 2
    sums = [
        sum(r for r, sign in zip(rank, signs, strict=True) if sign)
        for signs in itertools.product([0, 1], repeat=len(rank))
    ]
    return np.mean([abs(s - centre) >= abs(observed - centre) - 1e-9 for s in sums])


def test_signed_rank_by_hand():
    # Differences 1, 2, 3, 4, 5, all of one sign: 2 of 32 choices of signs.
    result = signed_rank([1, 2, 3, 4, 5], [0, 0, 0, 0, 0])
    assert (result.statistic, result.p) == (0, 2 / 32)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(1, 99), min_size=1, max_size=9, unique=True),
    st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_signed_rank_equals_enumeration(sizes, signs):
    difference = [s if up else -s for s, up in zip(sizes, signs, strict=False)]
    result = signed_rank(difference, [0] * len(difference))
    assert result.p == pytest.approx(by_enumeration(difference))
    assert signed_rank([0] * len(difference), difference).p == result.p


def test_signed_rank_with_ties_uses_the_normal_approximation():
    # |d| = 1, 1, 2, 2, 2, 3: ranks 1.5, 1.5, 4, 4, 4, 6; the negative ones sum to 5.5.
    result = signed_rank([1, -1, 2, 2, -2, 3], [0] * 6)
    variance = 6 * 7 * 13 / 24 - ((2**3 - 2) + (3**3 - 3)) / 48
    z = (5.5 - 10.5) / math.sqrt(variance)
    assert result.statistic == 5.5
    assert result.p == pytest.approx(math.erfc(-z / math.sqrt(2)))


def test_signed_rank_of_many_pairs_uses_the_normal_approximation():
    difference = np.arange(1, 61) * np.where(np.arange(60) % 3, 1, -1)
    negative = -difference[difference < 0].sum()
    z = (negative - 60 * 61 / 4) / math.sqrt(60 * 61 * 121 / 24)
    result = signed_rank(difference, np.zeros(60))
    assert result.p == pytest.approx(math.erfc(-z / math.sqrt(2)))


def test_signed_rank_detects_what_rank_sum_misses():
    # Images differ much, models little, but always the same way.
    images = np.linspace(0, 10, 20)
    other = images + np.linspace(0.01, 0.02, 20)
    assert rank_sum(images, other).p > 0.5
    assert signed_rank(images, other).p == pytest.approx(2 / 2**20)


def test_signed_rank_leaves_out_zeros_and_nan():
    result = signed_rank([1, 2, 7, NAN, 3], [0, 0, 7, 1, NAN])
    assert result.p == signed_rank([1, 2], [0, 0]).p == 0.5


def test_signed_rank_of_equal_samples():
    result = signed_rank([1, 2, 3], [1, 2, 3])
    assert (result.statistic, result.p) == (0, 1)


@pytest.mark.parametrize(("a", "b"), [([], []), ([NAN, 1], [2, NAN])])
def test_signed_rank_without_pairs_is_nan(a, b):
    result = signed_rank(a, b)
    assert math.isnan(result.p)
    assert math.isnan(result.statistic)


# Holm.


def test_holm_by_hand():
    # In order: .005 * 4, .01 * 3, .03 * 2, .04 * 1 raised to the one before.
    np.testing.assert_allclose(
        holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]
    )


def test_holm_is_at_most_1():
    np.testing.assert_allclose(holm([0.5, 0.9, 0.6]), [1, 1, 1])


def test_holm_leaves_out_nan():
    np.testing.assert_allclose(holm([0.01, NAN, 0.04]), [0.02, NAN, 0.04])
    assert np.isnan(holm([NAN])).all()
    assert holm([]).shape == (0,)


# Bootstrap.


def test_standard_error_equals_all_27_resamples_of_three():
    values = [1.0, 2.0, 6.0]
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=3)]
    result = bootstrap(values)
    assert result.mean == 3
    assert result.standard_error == pytest.approx(np.std(means), rel=0.03)
    assert result.n == 3


@pytest.mark.parametrize("n", [20, 134])
def test_standard_error_equals_the_formula(n):
    values = np.random.default_rng(n).lognormal(size=n)
    expected = values.std() / math.sqrt(n)
    assert bootstrap(values).standard_error == pytest.approx(expected, rel=0.05)


def test_interval_equals_bca_written_out():
    """Efron's formulas, with draws of our own."""
    values = np.random.default_rng(8).lognormal(size=20)
    draws = np.random.default_rng(9).choice(values, size=(40_000, 20)).mean(axis=1)
    bias = stats.norm.ppf(np.mean(draws < values.mean()))
    jackknife = np.array([np.delete(values, i).mean() for i in range(20)])
    d = jackknife.mean() - jackknife
    acceleration = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    ends = []
    for z in (-1.959964, 1.959964):
        shifted = bias + (bias + z) / (1 - acceleration * (bias + z))
        ends.append(np.quantile(draws, stats.norm.cdf(shifted)))
    result = bootstrap(values)
    tolerance = 0.1 * result.standard_error
    assert (result.ci_low, result.ci_high) == pytest.approx(ends, abs=tolerance)
    # Skewed to the right: the interval reaches further up than down.
    assert result.ci_high - result.mean > result.mean - result.ci_low


@pytest.mark.parametrize("n", [2, 5, 20, 41])
def test_the_bootstrap_is_that_of_scipy_to_the_last_digits(n):
    values = np.random.default_rng(n).lognormal(size=n)
    drawn = stats.bootstrap(
        (values,),
        # Rounded as ours: else BCa counts equal resamples by their last bits.
        lambda x, axis: np.round(x.mean(axis=axis), 12),
        n_resamples=10_000,
        method="BCa",
        rng=np.random.default_rng(0),
    )
    found = bootstrap(values)
    expected = (drawn.standard_error, *drawn.confidence_interval)
    ours = (found.standard_error, found.ci_low, found.ci_high)
    assert ours == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "share"), [(300, None), (2000, None), (300, 0.05)])
def test_many_images_are_not_drawn_and_have_the_ends_of_many_resamples(n, share):
    random = np.random.default_rng(n)
    # NLL is skewed as the first is; a share of images is as the last.
    values = random.lognormal(size=n) if share is None else random.random(n) < share
    drawn = stats.bootstrap(
        (values * 1.0,), np.mean, n_resamples=20_000, rng=random, batch=1000
    )
    found = bootstrap(values)
    assert found.standard_error == pytest.approx(drawn.standard_error, rel=0.02)
    # An image more or less of the share is one step of its resampled means.
    slack = 0.04 * drawn.standard_error * 2 + (1 / n if share else 0)
    ends = (found.ci_low, found.ci_high)
    assert ends == pytest.approx(tuple(drawn.confidence_interval), abs=slack)


def test_memory_of_an_interval_does_not_grow_with_the_images():
    values = np.random.default_rng(0).lognormal(size=20_000)
    tracemalloc.start()
    bootstrap(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * values.nbytes


def test_an_interval_of_one_image_of_many_stays_within_the_values():
    found = bootstrap([1.0, *[0.0] * 400])
    assert found.ci_low == 0 and found.mean < found.ci_high < 0.03


def test_the_same_seed_gives_the_same_result():
    values = np.random.default_rng(10).random(20)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values, seed=1) != bootstrap(values)


def test_a_higher_level_is_wider():
    values = np.random.default_rng(11).random(20)
    narrow, wide = bootstrap(values), bootstrap(values, level=0.99)
    assert wide.ci_low < narrow.ci_low < narrow.mean < narrow.ci_high < wide.ci_high


def test_nan_values_are_left_out_and_counted():
    result = bootstrap([1, NAN, 2, 6, NAN])
    assert result.mean == 3
    assert result.n == 3
    assert result.standard_error == bootstrap([1, 2, 6]).standard_error


@pytest.mark.parametrize("values", [[], [NAN, NAN]])
def test_estimate_of_no_values_is_nan(values):
    result = bootstrap(values)
    assert all(
        math.isnan(x)
        for x in (result.mean, result.standard_error, result.ci_low, result.ci_high)
    )
    assert result.n == 0


def test_one_value_has_a_mean_and_no_spread():
    result = bootstrap([0.7])
    assert result.mean == 0.7
    assert math.isnan(result.standard_error)
    assert math.isnan(result.ci_low)
    assert math.isnan(result.ci_high)


@pytest.mark.parametrize("values", [[0.1] * 7, [0.0, 0.0], [0.3, 0.1 + 0.2]])
def test_equal_values_have_an_interval_of_width_0(values):
    result = bootstrap(values)
    assert result.standard_error == 0
    assert result.ci_low == result.mean == result.ci_high
    assert result.mean == pytest.approx(values[0])


@settings(deadline=None, max_examples=50)
@given(st.lists(finite, min_size=2, max_size=6))
def test_the_interval_is_defined_whatever_the_values(values):
    result = bootstrap(values, n_resamples=199)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= result.ci_low <= result.ci_high
    assert result.ci_high <= max(values) + slack


# Mistakes.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: signed_rank([1, 2], [1]), "b: expected 2 values.*received 1"),
        (lambda: rank_sum([[1, 2]], [1]), r"a: expected one value.*shape \(1, 2\)"),
        (lambda: rank_sum([1], 2), r"b: expected one value.*shape \(\)"),
        (lambda: bootstrap([1, math.inf]), "expected finite values or NaN"),
        (lambda: holm([0.1, 1.2]), r"expected values in \[0, 1\]"),
    ],
)
def test_invalid_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("seed", range(4))
def test_the_last_bit_of_a_value_does_not_move_an_interval(seed):
    # Five images: 4 % of the resamples tie with the sample's mean. Processors that add
    # in another order gave other intervals (committed tables were not made again).
    values = np.random.default_rng(seed).lognormal(size=5)
    moved = np.nextafter(values, [9, 0, 9, 0, 9])
    ours, theirs = bootstrap(values), bootstrap(moved)
    assert ours.ci_low == pytest.approx(theirs.ci_low, rel=1e-12)
    assert ours.ci_high == pytest.approx(theirs.ci_high, rel=1e-12)
