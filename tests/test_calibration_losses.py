"""L1-ACE and NACL: values by hand, slopes, what they ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops

import losses


def two(foreground: list[float]) -> np.ndarray:
    """One image, a row of voxels, two classes."""
    p = np.array(foreground)
    return np.stack([1 - p, p], -1)[None]


def calibration_error(name: str, y: Any, p: Any, **given: Any) -> float:
    """What a penalty of 1 adds."""
    weight = given.pop("sample_weight", None)
    pair = (losses.by_name(name, penalty=k, **given) for k in (1, 0))
    one, none = (float(loss(y, p, sample_weight=weight)) for loss in pair)
    return one - none


def test_hard_l1_ace_by_hand() -> None:
    y, p = two([0, 1, 0, 1, 0, 0]), two([0.1, 0.1, 0.2, 0.6, 0.6, 0.7])
    # 4 bins. Foreground: p of .1, .1 and .2 against 1/3; p of .6, .6 and .7 against
    # 1/3. Background: .3, .4 and .4 against 2/3; .8, .9 and .9 against 2/3.
    low, high = abs(0.4 / 3 - 1 / 3), abs(1.9 / 3 - 1 / 3)
    found = calibration_error("Hard L1-ACE", y, p, bins=4)
    assert found == pytest.approx((low + high) / 2, rel=1e-5)


def test_the_lower_end_belongs_to_a_hard_bin() -> None:
    y, p = two([0, 0, 1, 0]), two([0.25, 0.375, 0.5, 0.625])
    # Foreground: .3125 against 0, .5625 against 1/2. Background: .375 against 1, .5625
    # against 1/2, .75 against 1.
    foreground, background = 0.375 / 2, (0.625 + 0.0625 + 0.25) / 3
    found = calibration_error("Hard L1-ACE", y, p, bins=4)
    assert found == pytest.approx((foreground + background) / 2, rel=1e-5)


def test_soft_l1_ace_by_hand() -> None:
    y, p = two([0, 1]), two([0.375, 0.625])
    # 2 bins, centres .25 and .75: shares 3/4 and 1/4 of .375, 1/4 and 3/4 of .625. Mean
    # p .4375 and .5625, of the labels 1/4 and 3/4. The background is the mirror.
    found = calibration_error("Soft L1-ACE", y, p, bins=2)
    assert found == pytest.approx(0.1875, rel=1e-5)
    # Beyond the centres of the ends: all in one bin.
    y, p = two([0, 1]), two([0.125, 0.25])
    found = calibration_error("Soft L1-ACE", y, p, bins=2)
    assert found == pytest.approx(0.3125, rel=1e-5)


@pytest.mark.parametrize("name", ["Hard L1-ACE", "Soft L1-ACE"])
def test_an_absent_class_counts_as_0(name: str) -> None:
    y, p = two([0, 0]), two([0.25, 0.25])
    assert calibration_error(name, y, p) == pytest.approx(0.25 / 2, rel=1e-5)


@pytest.mark.parametrize("scale", [1e3, 1, 0.01, 1e-4])
def test_a_bin_is_empty_beside_the_largest_weight(scale: float) -> None:
    y, p = two([0, 1]), two([0.1, 0.6])
    # Two bins with gaps of .1 and .4, of each class the same. The second is filled
    # where its weight is above 1/100 of the first one's.
    for second, expected in ((1, 0.25), (0.02, 0.25), (0.005, 0.1), (0, 0.1)):
        weight = scale * np.array([[1, second]])
        found = calibration_error("Hard L1-ACE", y, p, bins=2, sample_weight=weight)
        present = 1 if second else 0.5  # where it weighs 0, the foreground is absent
        assert found == pytest.approx(expected * present, rel=1e-4)


def test_l1_ace_contains_dsc_and_ce() -> None:
    y, p = two([0, 1, 0]), two([0.25, 0.5, 0.125])
    expected = losses.dice_loss(y, p) + losses.cross_entropy_loss(y, p)
    found = losses.l1_ace_loss(y, p, penalty=0)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-6)


def test_nacl_by_hand() -> None:
    y, p = two([0, 0, 1]), two([0.25, 0.5, 0.75])
    # Shares of the foreground around each voxel: 0 of 2, 1 of 3, 1 of 2. With two
    # classes half the distance of logit p from twice the share less 1.
    wanted = [-1, -1 / 3, 0]
    distances = np.abs(np.log([1 / 3, 1, 3]) - wanted) / 2
    found = calibration_error("NACL", y, p)
    assert found == pytest.approx(distances.mean(), rel=1e-5)


def test_nacl_has_a_square_of_neighbours_and_a_cube() -> None:
    for grid in ((3, 4), (3, 4, 3)):
        y = np.zeros((1, *grid, 2))
        y[..., 0] = 1
        y[(0, *[0] * len(grid))] = [0, 1]  # the corner
        p = np.full_like(y, 0.5)
        # p of 1/2 is as far as the share is from 1/2; the corner is in the shares of
        # its square or cube. These have 2, or at the inner voxels 3, along an axis.
        expected = np.full(grid, 1.0)
        for at in np.ndindex(*[2] * len(grid)):
            share = 1 / np.prod([3 if i else 2 for i in at])
            expected[at] = abs(1 - 2 * share)
        found = calibration_error("NACL", y, p)
        assert found == pytest.approx(expected.mean() / 2, rel=1e-5)


def test_nacl_takes_the_median_over_the_classes() -> None:
    y, p = np.eye(4)[[[0]]], np.array([[[0.5, 0.25, 0.125, 0.125]]])
    # Logarithms less shares in halvings: -1 - s, -2, -3 and -3, s being 1 / log 2.
    # s is 1.44: -2, -2.44, -3, -3 in order, and the upper two less the lower two.
    log2 = np.log(2)
    expected = ((-2 * log2) + (-log2 - 1) + 3 * log2 + 3 * log2) / 4
    assert calibration_error("NACL", y, p) == pytest.approx(expected, rel=1e-5)


def test_nacl_of_logits_does_not_see_what_softmax_does_not() -> None:
    y, logits = np.eye(3)[[[0, 1, 2]]], np.array([[[1.0, 2, 0], [0, 3, 1], [2, 2, 5]]])
    loss = losses.by_name("NACL", from_logits=True)
    assert float(loss(y, logits + 7)) == pytest.approx(float(loss(y, logits)), rel=1e-5)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    plain = losses.by_name("NACL")(y, p)
    assert float(loss(y, logits)) == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.parametrize(
    ("classes", "least"), [(2, 0.95), (3, 0.9 + 0.2 / 3), (4, 0.975)]
)
def test_nacl_asks_for_less_than_certainty(classes: int, least: float) -> None:
    # All voxels of class 0: there CE's slope by the logit, 1 - p, is the penalty's 1/10
    # over the number of classes.
    chance = np.arange(0.9, 0.999, 0.1 / 120)
    p = np.repeat((1 - chance[:, None, None]) / (classes - 1), classes, axis=-1)
    p[..., 0] = chance[:, None]
    y = np.zeros_like(p)
    y[..., 0] = 1
    values = ops.convert_to_numpy(losses.nacl_loss(y, p))
    assert chance[values.argmin()] == pytest.approx(least)


@pytest.mark.backend
def test_a_mask_is_not_changed() -> None:
    # PyTorch would add in place.
    y, p, mask = two([0, 1, 0]), two([0.25, 0.5, 0.125]), np.array([[1.0, 0.0, 1.0]])
    given = [ops.convert_to_tensor(x, "float32") for x in (y, p, mask)]
    losses.by_name("NACL")(*given)
    for tensor, before in zip(given, (y, p, mask), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(tensor), before)


@pytest.mark.parametrize("bins", [0, 2.5, -1, 1001, 1e30, 10**400, float("inf")])
def test_bins_refused(bins: float) -> None:
    with pytest.raises(ValueError, match=r"bins: .* among 1, 2, \.\.\., 1000, "):
        losses.by_name("Hard L1-ACE", bins=bins)
