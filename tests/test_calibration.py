"""Calibration from histograms: by hand, from the voxels, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from pipelines.measure import calibration, histograms
from pipelines.measure.calibration import ace, ece, join, mce, mean_label, murphy
from pipelines.measure.histograms import EDGES, centres, count

# p and truth of ten voxels, in three bins of width 0.05: [.1, .15), [.3, .35), [.85,.9)
P = np.array([0.10, 0.12, 0.12, 0.14, 0.30, 0.32, 0.86, 0.88, 0.88, 0.88])
Y = np.array([0, 0, 0, 1, 0, 1, 1, 1, 1, 0])


def bins_of(p, y, wanted=calibration.WIDE):
    """From voxels to bins, on the way that tables take."""
    counts, sums = count(p, y), histograms.sum_bins(histograms.bins_of(p), p)
    n = counts.sum(axis=0)
    means = np.divide(sums, n, out=centres(), where=n > 0)
    return join(counts, means, wanted=wanted)


def voxels(minimum=1):
    """Pairs of probabilities and labels; many at the edges, where mistakes are."""
    special = st.sampled_from([0.0, 1e-9, 0.05, 0.15, 0.35, 0.5, 0.95, 1.0])
    p = st.one_of(special, st.floats(0, 1))
    return st.integers(minimum, 60).flatmap(
        lambda n: st.tuples(
            arrays.arrays(np.float64, n, elements=p),
            arrays.arrays(np.int64, n, elements=st.integers(0, 1)),
        )
    )


def test_by_hand():
    bins = bins_of(P, Y)
    held = bins.n > 0
    np.testing.assert_array_equal(bins.n[held], [4, 2, 4])
    np.testing.assert_allclose(bins.confidence[held], [0.12, 0.31, 0.875])
    np.testing.assert_allclose(bins.frequency[held], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(bins.weight[held], [0.4, 0.2, 0.4])
    # Gaps .13, .19, .125.
    assert ece(bins) == pytest.approx(0.4 * 0.13 + 0.2 * 0.19 + 0.4 * 0.125)
    assert ace(bins) == pytest.approx((0.13 + 0.19 + 0.125) / 3)
    assert mce(bins) == pytest.approx(0.19)


def test_murphy_by_hand():
    brier = np.mean((Y - P) ** 2)
    parts = murphy(bins_of(P, Y), brier)
    rel = 0.4 * 0.13**2 + 0.2 * 0.19**2 + 0.4 * 0.125**2
    assert parts["reliability"] == pytest.approx(rel)
    # Half of the voxels are the target.
    assert parts["resolution"] == pytest.approx(0.4 * 0.25**2 + 0.4 * 0.25**2)
    assert parts["uncertainty"] == pytest.approx(0.25)
    assert parts["within_bins"] == pytest.approx(within(P, Y, calibration.WIDE))


def within(p, y, edges):
    """Stephenson et al. 2008, Eqs. 6 and 7, voxel by voxel: WBV - WBC."""
    which = np.searchsorted(edges[1:-1], p, side="right")
    total = 0.0
    for k in np.unique(which):
        f, o = p[which == k], y[which == k]
        total += ((f - f.mean()) ** 2).sum()
        total -= 2 * ((o - o.mean()) * (f - f.mean())).sum()
    return total / len(p)


@settings(deadline=None)
@given(voxels(), st.sampled_from([calibration.WIDE, EDGES]))
def test_equal_to_the_voxels_themselves(given_, edges):
    p, y = given_
    which = np.searchsorted(edges[1:-1], p, side="right")
    gaps, sizes = [], []
    for k in np.unique(which):
        sizes.append((which == k).sum())
        gaps.append(abs(y[which == k].mean() - p[which == k].mean()))
    bins = bins_of(p, y, edges)
    assert ece(bins) == pytest.approx(np.average(gaps, weights=sizes), abs=1e-12)
    assert ace(bins) == pytest.approx(np.mean(gaps), abs=1e-12)
    assert mce(bins) == pytest.approx(max(gaps), abs=1e-12)
    parts = murphy(bins, np.mean((y - p) ** 2))
    assert parts["within_bins"] == pytest.approx(within(p, y, edges), abs=1e-12)


@settings(deadline=None)
@given(voxels())
def test_equal_to_scikit_learn(given_):
    # Its bins are open to the left, ours to the right: keep off the edges.
    p, y = given_
    p = np.where(np.isclose(p * 20, np.round(p * 20)), 0.4321, p)
    frequency, confidence = calibration_curve(y, p, n_bins=20, strategy="uniform")
    bins = bins_of(p, y)
    held = bins.n > 0
    np.testing.assert_allclose(bins.frequency[held], frequency, atol=1e-12)
    np.testing.assert_allclose(bins.confidence[held], confidence, atol=1e-12)
    parts = murphy(bins, brier := brier_score_loss(y, p, pos_label=1))
    rebuilt = parts["reliability"] - parts["resolution"] + parts["uncertainty"]
    assert rebuilt + within(p, y, calibration.WIDE) == pytest.approx(brier, abs=1e-12)


def test_calibrated_probabilities_have_no_error():
    p = np.repeat([0.12, 0.52, 0.92], 100)
    y = np.concatenate([np.arange(100) < share for share in (12, 52, 92)]).astype(int)
    bins = bins_of(p, y)
    assert ece(bins) == pytest.approx(0, abs=1e-12)
    assert murphy(bins, np.mean((y - p) ** 2))["reliability"] == pytest.approx(0)
    # One that says 0 and 1 where half is true is off by a half.
    assert ece(bins_of(np.repeat([0.0, 1.0], 2), np.array([0, 1, 0, 1]))) == 0.5


def test_empty_row_is_nan_and_leaves_other_rows_alone():
    one = count(P, Y)
    counts = np.stack([one, np.zeros_like(one)])
    bins = join(counts, np.stack([centres()] * 2))
    parts = murphy(bins, [0.2, np.nan])
    for values in (ece(bins), ace(bins), mce(bins), *parts.values()):
        assert np.isfinite(values[0])
        assert np.isnan(values[1])
    assert np.isnan(bins.weight[1]).all()


def test_pooled_value_equals_that_of_all_voxels_together():
    rng = np.random.default_rng(3)
    p, y = rng.random((3, 50)), rng.integers(0, 2, (3, 50))
    fine = [bins_of(*case) for case in zip(p, y, strict=True)]
    stacked = calibration.Bins(
        *(np.stack([getattr(b, k) for b in fine]) for k in ("n", "target", "sum_p"))
    )
    together = bins_of(p.ravel(), y.ravel())
    assert ece(stacked.pooled()) == pytest.approx(ece(together))
    assert ece(stacked).shape == (3,)


def test_mean_label_counts_halves():
    p = np.array([0.2, 0.2, 0.2, 0.2, 0.7])
    a, b = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 0])
    counts = mean_label(count(p, a, b))
    expected = (count(p, a) + count(p, b)) / 2
    np.testing.assert_array_equal(counts, expected)
    bins = join(counts, centres())
    held = bins.n > 0
    np.testing.assert_array_equal(bins.frequency[held], [0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_label(np.zeros((2, 9))), r"expected shape \(..., 4, B\)"),
        (lambda: join(np.zeros((2, 3)), centres()), "counts: expected shape"),
        (lambda: join(np.zeros((2, 148)), np.zeros(3)), "and confidence"),
        (lambda: join(count(P, Y), centres(), wanted=[0, 0.33, 1]), "wanted: expected"),
        (lambda: join(count(P, Y), centres(), wanted=[0, 0.5]), "wanted: expected"),
        (
            lambda: join(count(P, Y), centres(), wanted=[0, 0.5, 0.5, 1]),
            "wanted: expected",
        ),
    ],
)
def test_invalid_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
