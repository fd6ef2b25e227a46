"""The band: the structures and what lies near them."""

import numpy as np
import pytest

from data_io.datasets import phantom
from pipelines.measure import histograms, metrics
from pipelines.measure.regions import band, band_radius
from pipelines.prediction import evaluate

SMALL = phantom.Settings(training=1, validation=1, test=1, size=64)


def test_the_band_is_a_box_around_each_voxel_of_a_structure():
    label = np.zeros((9, 12), np.uint8)
    label[4, 3], label[4, 9] = 1, 2
    expected = np.zeros((9, 12), bool)
    expected[3:6, 1:6] = True  # one row, two columns beyond
    expected[3:6, 7:12] = True
    np.testing.assert_array_equal(band(label, (1, 2)), expected)


def test_the_band_ends_at_the_border_and_does_not_wrap():
    label = np.zeros((4, 5, 6), bool)
    label[0, 0, 5] = True
    found = band(label, (2, 1, 3))
    assert found.sum() == 3 * 2 * 4
    assert found[:3, :2, 2:].all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_band_equals_the_union_of_boxes(order):
    random = np.random.default_rng(0)
    label = np.asarray(random.random((17, 12, 20)) < 0.002, order=order)
    label[:, :2] = label[..., 15:] = False
    radius = (2, 0, 4)
    expected = np.zeros(label.shape, bool)
    for voxel in np.argwhere(label):
        first = np.maximum(voxel - radius, 0)
        expected[tuple(map(slice, first, voxel + radius + 1))] = True
    found = band(label, radius)
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.sum() < found.size
    assert found.flags[f"{order}_CONTIGUOUS"]  # what is measured lies alike


def test_band_is_empty_without_a_structure():
    assert not band(np.zeros((5, 5)), (3, 3)).any()


@pytest.mark.parametrize(
    ("axes", "spacing_mm", "radius"),
    [
        (2, None, (5, 5)),
        (3, (5.0, 0.8, 0.8), (1, 6, 6)),  # 1, 6.25
        (3, (0.5, 1.7, 12.0), (10, 3, 1)),  # 10, 2.9, at least 1
    ],
)
def test_the_width_is_5_pixels_or_5_mm(axes, spacing_mm, radius):
    assert band_radius(axes, spacing_mm) == radius


def test_a_radius_for_other_axes_is_refused():
    with pytest.raises(ValueError, match=r"radius: expected 2 numbers.*\(1, 1, 1\)"):
        band(np.zeros((5, 5)), (1, 1, 1))


def test_a_case_is_measured_in_its_band(tmp_path):
    root = phantom.generate(SMALL, tmp_path / "phantoms")
    case = phantom.vessels.split(root)["test"][0]
    label = phantom.vessels.references(root, case)["observer1"]
    p = phantom.vessels.posterior(root, case)
    softmax = np.stack([1 - p, p], axis=-1)
    rows, _ = evaluate.measure_case(
        phantom.vessels, root, "test", case, lambda shape: [(slice(None), softmax)]
    )
    assert [row["region"] for row in rows] == ["image", "band"]
    inside = band(label, (5, 5))
    assert 0 < inside.sum() < inside.size
    row = rows[1]
    expected = metrics.case_metrics(label, softmax, 1, inside)
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    counts = histograms.count(p, label, mask=inside)
    sums = histograms.sum_bins(histograms.bins_of(p[inside]), p[inside])
    np.testing.assert_array_equal(row["counts"], counts)
    np.testing.assert_allclose(row["sums"], sums)


def test_case_without_a_structure_has_no_band(tmp_path, monkeypatch):
    root = phantom.generate(SMALL, tmp_path / "phantoms")
    case = phantom.vessels.split(root)["test"][0]
    empty = np.zeros_like(phantom.vessels.references(root, case)["observer1"])
    monkeypatch.setattr(phantom.vessels, "references", lambda *_: {"observer1": empty})
    softmax = np.full((*empty.shape, 2), 0.5, np.float32)
    rows, _ = evaluate.measure_case(
        phantom.vessels, root, "test", case, lambda shape: [(slice(None), softmax)]
    )
    assert [row["region"] for row in rows] == ["image"]
