"""Thresholds, decoding, volumes: against voxels, hand-worked cases and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.measure import decisions, histograms
from pipelines.measure.histograms import EDGES, N_BINS


def drawn(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    p = random.beta(0.4, 0.8, n)
    return p, random.random(n) < p


def counted(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts and mean probability by bin."""
    counts = histograms.count(p, y)
    bins = histograms.bins_of(p)
    sums = np.bincount(bins, p, N_BINS)
    return counts, np.divide(sums, counts.sum(0), out=np.zeros(N_BINS),
                             where=counts.sum(0) > 0)  # fmt: skip


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_every_curve_is_that_of_the_voxels(seed: int) -> None:
    p, y = drawn(seed)
    counts, confidence = counted(p, y)
    dice = decisions.dice(counts)
    expected = decisions.expected_dice(counts, confidence)
    missed = decisions.false_negatives(counts)
    for k in (0, N_BINS // 3, N_BINS // 2, N_BINS - 1):
        cut = p >= EDGES[k]
        assert decisions.positives(counts)[k] == cut.sum()
        assert dice[k] == pytest.approx(2 * (cut & y).sum() / (cut.sum() + y.sum()))
        assert expected[k] == pytest.approx(2 * p[cut].sum() / (cut.sum() + p.sum()))
        assert missed[k] == pytest.approx((~cut & y).sum() / y.sum())
    assert decisions.expected_volume(counts, confidence) == pytest.approx(p.sum())


def test_the_largest_expected_dice_is_near_the_best_over_many_labels() -> None:
    p, _ = drawn(3, 2000)
    random = np.random.default_rng(0)
    curves = [decisions.dice(counted(p, random.random(2000) < p)[0]) for _ in range(60)]
    counts, confidence = counted(p, p > 0.5)
    expected = decisions.expected_dice(counts, confidence)
    mean = np.mean(curves, axis=0)
    assert np.abs(expected - mean)[EDGES[:-1] < 0.9].max() < 0.01
    assert mean[expected.argmax()] > mean.max() - 0.002


def test_measures_without_foreground_are_undefined() -> None:
    counts = histograms.count(np.array([0.2, 0.7]), np.array([0, 0]))
    assert np.isnan(decisions.false_negatives(counts)).all()
    assert decisions.dice(counts)[0] == 0
    assert np.isnan(decisions.dice(np.zeros((2, N_BINS)))).all()


def test_a_conformal_threshold_worked_by_hand() -> None:
    # Two cases, three thresholds: (sum + 1) / 3 is 1/3, 1.3/3, 2.2/3.
    missed = [[0.0, 0.1, 0.5], [0.0, 0.2, 0.7], [np.nan] * 3]
    assert decisions.conformal(missed, 0.5) == 1
    assert decisions.conformal(missed, 1 / 3) is None  # only by marking everything
    assert decisions.conformal(missed, 0.3) is None  # n + 1 < 1 / alpha
    assert decisions.conformal(missed, 0.9) == 2


@pytest.mark.slow
def test_conformal_rate_holds_on_average() -> None:
    """Over 400 draws of 30 cases and a new one, of true and of overconfident p."""
    random = np.random.default_rng(1)
    for power in (1.0, 2.5):
        lost = []
        for _ in range(400):
            curves = []
            for _ in range(31):
                p = random.beta(*random.uniform(0.3, 1.2, 2), 60)
                y = random.random(60) < p
                said = p**power / (p**power + (1 - p) ** power)
                y[0] = True
                curves.append(decisions.false_negatives(histograms.count(said, y)))
            cut = decisions.conformal(curves[:-1], 0.1)
            assert cut is not None
            lost.append(curves[-1][cut])
        # Not above alpha but for the error of the mean, and not far below it.
        assert 0.05 < np.mean(lost) < 0.1 + 3 * np.std(lost) / np.sqrt(len(lost))


def test_aurc_worked_by_hand() -> None:
    # By confidence: risks 0.1, 0.3, 0.2; means 0.1, 0.2, 0.2.
    risk, confidence = [0.3, 0.2, 0.1, np.nan], [0.8, 0.5, 0.9, 0.7]
    assert decisions.aurc(risk, confidence) == pytest.approx(0.5 / 3)
    assert np.isnan(decisions.aurc([], []))


def test_tie_of_thresholds_goes_to_the_one_nearest_one_half() -> None:
    assert decisions.best([0.7, 0.8, 0.8 + 1e-15, 0.1], [0.1, 0.4, 0.9, 1.0]) == 1


def test_the_best_threshold_is_of_the_same_cases_at_each() -> None:
    # A case with foreground: Dice 1 up to 0.6, then 2/3. Nine without: one false voxel
    # of 0.63 each, so that at 0.65 and above nothing is positive and Dice undefined.
    sick = histograms.count(np.array([0.62, 0.97, 0.01]), np.array([1, 1, 0]))
    healthy = histograms.count(np.array([0.63, 0.02, 0.02]), np.array([0, 0, 0]))
    cases = np.stack([sick, *[healthy] * 9])
    assert decisions.has_foreground(cases).tolist() == [True] + [False] * 9
    assert decisions.best_threshold([cases], EDGES) == (0.5, 1.0)
    # A class that does not occur is no part of the mean over classes.
    assert decisions.best_threshold([cases, cases[1:]], EDGES) == (0.5, 1.0)
    # Another class: Dice 2/3 at 0.5 and 1 at 0.65 to 0.95, where the first has 2/3.
    other = histograms.count(np.array([0.63, 0.96, 0.02]), np.array([0, 1, 0]))
    threshold, mean = decisions.best_threshold([cases, other[None]], EDGES) or (0, 0)
    assert threshold == 0.5 and mean == pytest.approx((1 + 2 / 3) / 2)
    assert decisions.best_threshold([cases[1:]], EDGES) is None
