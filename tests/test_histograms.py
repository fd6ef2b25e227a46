"""Histograms: nothing is lost or counted twice, and thresholds are exact."""

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_io.errors import InputError
from pipelines.measure import voxels
from pipelines.measure.histograms import (
    EDGES,
    THRESHOLDS,
    Histograms,
    bins_of,
    centres,
    confusion,
    count,
    load,
    save,
    sum_bins,
    threshold_metrics,
)
from pipelines.measure.metrics import case_metrics, predicted

N_BINS = len(EDGES) - 1
# As decimal numbers, so that no arithmetic of ours is in them.
DECIMALS = [float(f"0.{k:02d}") for k in range(5, 100, 5)]

on_an_edge = st.sampled_from(
    [0.0, 1.0, *DECIMALS, *(float(np.float32(t)) for t in DECIMALS)]
)
probability = st.one_of(on_an_edge, st.floats(0, 1), st.floats(0, 1, width=32))


@st.composite
def predictions(draw, n_labels=1):
    """Probabilities (many of them on a threshold), labels and a mask, not empty."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    p = draw(hnp.arrays(np.float64, shape, elements=probability)).astype(dtype)
    labels = [draw(hnp.arrays(np.bool_, shape)) for _ in range(n_labels)]
    mask = draw(hnp.arrays(np.bool_, shape))
    mask.flat[draw(st.integers(0, mask.size - 1))] = True
    return p, *labels, mask


def stored(edges, dtype):
    """The edges, with the thresholds among them as a type has them."""
    return [float(dtype.type(e)) if e in DECIMALS else e for e in edges]


def row(case="01", counts=None, **other):
    counts = np.zeros((2, N_BINS), dtype=np.int64) if counts is None else counts
    return {
        "case": case,
        "split": "test",
        "region": "image",
        "reference": "observer1",
        "target": "vessel",
        "counts": counts,
    } | other


def test_edges_run_from_0_to_1_in_logit():
    assert EDGES.dtype == np.float64
    assert (EDGES[0], EDGES[-1]) == (0, 1)
    assert (np.diff(EDGES) > 0).all()
    logits = np.log(EDGES[1:-1]) - np.log1p(-EDGES[1:-1])
    assert logits[[0, -1]] == pytest.approx([-16, 16])
    # No bin is wider than a quarter, wherever the thresholds cut in.
    assert np.diff(logits).max() < 0.25 + 1e-6
    assert 100 <= N_BINS <= 150


def test_thresholds_are_edges_to_the_last_bit():
    assert THRESHOLDS.tolist() == DECIMALS
    assert set(DECIMALS) <= set(EDGES.tolist())


def test_edges_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        EDGES[0] = 1


def test_two_by_three_by_hand():
    p = np.array([[0.9, 0.4, 0.6], [0.2, 0.7, 0.8]])
    label = np.array([[1, 1, 0], [0, 0, 1]])
    counts = count(p, label)
    assert counts.shape == (2, N_BINS)
    assert counts.dtype == np.int64
    # All six are edges: each begins its bin.
    for value, y in zip(p.ravel(), label.ravel(), strict=True):
        assert counts[y, EDGES.tolist().index(value)] == 1
    assert confusion(counts, 0.5) == (2, 2, 1, 1)
    assert confusion(counts, 0.6) == (2, 2, 1, 1)
    assert confusion(counts, 0.65) == (2, 1, 1, 2)
    assert confusion(counts, 0.9) == (1, 0, 2, 3)
    assert confusion(counts, 0.95) == (0, 0, 3, 3)


def test_probabilities_of_0_and_1_are_counted():
    p = np.array([0.0, 1.0, 1e-300, np.nextafter(1, 0)])
    counts = count(p, np.array([0, 1, 0, 1]))
    assert counts[0, 0] == 2
    assert counts[1, -1] == 2


@settings(deadline=None)
@given(predictions())
def test_confusion_equals_a_direct_count_at_every_threshold(prediction):
    p, label, mask = prediction
    counts = count(p, label, mask=mask)
    assert counts.sum() == mask.sum()
    assert counts[1].sum() == label[mask].sum()
    for threshold in DECIMALS:
        positive = p[mask] >= p.dtype.type(threshold)
        truth = label[mask]
        assert confusion(counts, threshold) == (
            (positive & truth).sum(),
            (positive & ~truth).sum(),
            (~positive & truth).sum(),
            (~positive & ~truth).sum(),
        )


@settings(deadline=None, max_examples=50)
@given(predictions())
def test_bins_equal_numpy_histogram(prediction):
    p, label, mask = prediction
    counts = count(p, label, mask=mask)
    for value in (0, 1):
        chosen = p[mask & (label == value)].astype(np.float64)
        edges = stored(EDGES, p.dtype)
        np.testing.assert_array_equal(counts[value], np.histogram(chosen, edges)[0])


@settings(deadline=None, max_examples=50)
@given(predictions(), st.randoms(use_true_random=False))
def test_order_of_voxels_does_not_matter(prediction, random):
    p, label, mask = prediction
    order = list(range(p.size))
    random.shuffle(order)
    q, y, inside = (array.ravel()[order] for array in (p, label, mask))
    np.testing.assert_array_equal(count(q, y, mask=inside), count(p, label, mask=mask))


@settings(deadline=None, max_examples=50)
@given(predictions(n_labels=2))
def test_pairs_add_up_to_each_observer(prediction):
    p, a, b, mask = prediction
    pair = count(p, a, b, mask=mask)
    assert pair.shape == (4, N_BINS)
    np.testing.assert_array_equal(pair[[0, 2]] + pair[[1, 3]], count(p, a, mask=mask))
    np.testing.assert_array_equal(pair[[0, 1]] + pair[[2, 3]], count(p, b, mask=mask))


def test_pairs_of_labels_are_ordered_00_01_10_11():
    p = np.array([0.05, 0.3, 0.3, 0.6, 0.6, 0.6, 0.9, 0.9, 0.9, 0.9])
    a = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    b = np.array([0, 1, 1, 0, 0, 0, 1, 1, 1, 1])
    assert count(p, a, b).sum(axis=1).tolist() == [1, 2, 3, 4]


def test_mask_is_the_same_as_cropping():
    rng = np.random.default_rng(1)
    p, label = rng.random((7, 5)), rng.integers(0, 2, (7, 5))
    mask = np.zeros(p.shape, dtype=bool)
    mask[2:6, 1:3] = True
    np.testing.assert_array_equal(
        count(p, label, mask=mask), count(p[2:6, 1:3], label[2:6, 1:3])
    )


def test_blocks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(2)
    p, label = rng.random((9, 4, 3)), rng.integers(0, 2, (9, 4, 3))
    mask = rng.random(p.shape) < 0.2
    whole = count(p, label, mask=mask)
    monkeypatch.setattr(voxels, "_BLOCK", 13)
    np.testing.assert_array_equal(count(p, label, mask=mask), whole)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("threshold", DECIMALS)
def test_a_stored_threshold_is_at_least_the_threshold(dtype, threshold):
    """In float32, 0.35 is below 0.35: histograms said negative, label maps positive."""
    stored = dtype(threshold)
    below = np.nextafter(stored, dtype(0))
    p = np.array([stored, below])
    assert predicted(np.stack([1 - p, p]), threshold).tolist() == [1, 0]
    assert confusion(count(p, np.ones(2, int)), threshold)[0] == 1


def neighbours(values, steps=3):
    """Float32 values in [0, 1], and the next ones on both sides."""
    found = [np.asarray(values, dtype=np.float32)]
    for towards in (0, 1):
        value = found[0]
        for _ in range(steps):
            value = np.nextafter(value, np.float32(towards))
            found.append(value)
    return np.unique(np.concatenate(found))


def test_bins_of_float32_are_those_of_a_search():
    # Wherever a bin could begin one number too early or too late: at each edge, at each
    # end of what the table takes as one, at 0 and 1. Between those nothing changes.
    bits = np.arange(0, 1 << 32, 1 << 16, dtype=np.uint64).astype(np.uint32)
    ends = bits.view(np.float32)
    ends = ends[(ends >= 0) & (ends <= 1)]
    p = neighbours(np.concatenate([EDGES, ends, 1 - ends, [0.5]]))
    assert p.min() == 0
    assert p.max() == 1
    edges = stored(EDGES[1:-1], p.dtype)
    expected = np.searchsorted(edges, p.astype(np.float64), side="right")
    np.testing.assert_array_equal(bins_of(p), expected)


def test_one_half_is_foreground_in_histograms_and_background_for_argmax():
    p = np.array([0.5, 0.1])
    label = np.array([1, 0])
    assert confusion(count(p, label), 0.5) == (1, 0, 0, 1)
    assert case_metrics(label, np.stack([1 - p, p], -1), 1)["n_predicted"] == 0


def test_threshold_metrics_equal_the_measures_of_the_case_at_one_half():
    rng = np.random.default_rng(6)
    p = rng.random((3, 20, 15))
    label = (rng.random(p.shape) < p**2).astype(int)
    counts = np.stack([count(*pair) for pair in zip(p, label, strict=True)])
    table = threshold_metrics(counts)
    for name in ("dice", "jaccard", "precision", "recall"):
        assert table[name].shape == (3, 19)
        for case in range(3):
            softmax = np.stack([1 - p[case], p[case]], axis=-1)
            expected = case_metrics(label[case], softmax, 1)[name]
            assert table[name][case, 9] == pytest.approx(expected)


def test_threshold_metrics_are_nan_where_nothing_is_predicted():
    table = threshold_metrics(count(np.array([0.3, 0.2]), np.array([1, 0])), [0.3, 0.5])
    assert table["precision"][0] == table["recall"][0] == 1
    assert math.isnan(table["precision"][1])
    assert table["recall"][1] == table["dice"][1] == 0


def test_threshold_within_rounding_is_the_edge():
    assert 3 * 0.05 != 0.15
    counts = count(np.array([0.15]), np.array([1]))
    assert confusion(counts, 3 * 0.05)[0] == 1


@pytest.mark.parametrize("threshold", [0.51, -1, 2, math.nan])
def test_a_threshold_between_edges_is_refused(threshold):
    with pytest.raises(ValueError, match="expected an edge of the bins"):
        confusion(np.zeros((2, N_BINS), int), threshold)


def test_other_edges_can_be_given():
    counts = np.array([[5, 1], [2, 3]])
    assert confusion(counts, 0.4, edges=[0, 0.4, 1]) == (3, 1, 2, 5)


P = np.array([[0.1, 0.2, 0.3]])
ZEROS = np.zeros((1, 3), dtype=int)


@pytest.mark.parametrize(
    ("p", "label", "mask", "message"),
    [
        (P.T, ZEROS, None, r"probability: expected.*\(1, 3\).*\(3, 1\)"),
        (P, ZEROS + 2, None, "expected 0 and 1, received 2 to 2"),
        (P, ZEROS - 1, None, "expected 0 and 1, received -1 to -1"),
        (P, P, None, "expected integers or bool.*float64"),
        (P * np.nan, ZEROS, None, "received nan to nan"),
        (P * 10, ZEROS, None, r"expected values in \[0, 1\]"),
        (P, ZEROS, ZEROS > 0, "expected at least one voxel"),
        (P, ZEROS, ZEROS, "mask: expected bool"),
        (P, ZEROS, ZEROS.T == 0, r"mask: expected.*\(3, 1\)"),
        (
            np.stack([P, P], -1),
            ZEROS,
            None,
            r"probability: .*shape \(1, 3\)",
        ),
    ],
)
def test_invalid_arguments_are_named(p, label, mask, message):
    with pytest.raises(ValueError, match=message):
        count(p, label, mask=mask)


def test_labels_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"label map 2: expected.*\(1, 3\).*\(3, 1\)"):
        count(P, ZEROS, ZEROS.T)


def test_counts_that_do_not_fit_the_edges_are_refused():
    with pytest.raises(ValueError, match=rf"expected shape \(\.\.\., 2, {N_BINS}\)"):
        confusion(np.zeros((2, 7), int), 0.5)


# The file.


@pytest.fixture
def histograms():
    rng = np.random.default_rng(7)
    rows = [
        row(f"{k:02d}", rng.integers(0, 9, (2, N_BINS)), split=split, region=region)
        for k, split in [(1, "test"), (2, "test"), (37, "validation")]
        for region in ("image", "field of view")
    ]
    pair = rng.integers(0, 9, (4, N_BINS))
    return Histograms.from_rows(rows, [row("01", pair)])


def test_round_trip(tmp_path, histograms):
    save(tmp_path / "histograms.npz", histograms)
    back = load(tmp_path / "histograms.npz")
    for name, array in vars(histograms).items():
        if array is None:
            continue
        np.testing.assert_array_equal(getattr(back, name), array)
        assert getattr(back, name).dtype == array.dtype


def test_the_file_is_an_ordinary_npz_with_the_promised_keys(tmp_path, histograms):
    save(tmp_path / "histograms.npz", histograms)
    with np.load(tmp_path / "histograms.npz", allow_pickle=False) as file:
        assert set(file) == {
            *("edges", "case", "split", "region", "reference", "target", "counts"),
            *("pair_case", "pair_split", "pair_region", "pair_target", "pair_counts"),
        }
        assert file["case"].tolist() == ["01", "01", "02", "02", "37", "37"]
        assert file["pair_counts"].shape == (1, 4, N_BINS)


def test_the_same_histograms_give_the_same_bytes(monkeypatch, histograms):
    files = [io.BytesIO(), io.BytesIO()]
    save(files[0], histograms)
    monkeypatch.setattr("time.time", lambda: 2e9)
    save(files[1], histograms)
    assert files[0].getvalue() == files[1].getvalue()


def test_no_rows_and_no_pairs(tmp_path):
    save(tmp_path / "empty.npz", Histograms.from_rows([]))
    back = load(tmp_path / "empty.npz")
    assert back.counts.shape == (0, 2, N_BINS)
    assert back.pair_counts.shape == (0, 4, N_BINS)


@given(predictions())
def test_sums_equal_those_of_the_voxels(prediction):
    p, _, mask = prediction
    sums = sum_bins(bins_of(p[mask]), p[mask])
    values = p[mask].astype(np.float64)
    edges = stored(EDGES, p.dtype)
    for left, right, total in zip(edges[:-1], edges[1:], sums, strict=True):
        inside = (values >= left) & ((values < right) | (right == 1))
        assert total == pytest.approx(values[inside].sum(), rel=1e-12)


def test_means_are_nan_in_empty_bins(tmp_path):
    # By hand: 0.3 and 0.32 share a bin; their mean is 0.31.
    p = np.array([0.3, 0.32, 0.9])
    counts, sums = count(p, np.array([0, 1, 1])), sum_bins(bins_of(p), p)
    save(tmp_path / "h.npz", Histograms.from_rows([row(counts=counts, sums=sums)]))
    back = load(tmp_path / "h.npz")
    assert back.means.shape == (1, N_BINS)
    found = back.means[0][~np.isnan(back.means[0])]
    np.testing.assert_allclose(found, [0.31, 0.9], rtol=1e-6)
    full = back.counts[0].sum(axis=0) > 0
    np.testing.assert_allclose(back.confidence()[0, full], [0.31, 0.9], rtol=1e-6)
    np.testing.assert_allclose(back.confidence()[0, ~full], centres()[~full])


def test_without_means_the_confidence_is_the_centre(tmp_path, histograms):
    save(tmp_path / "old.npz", histograms)
    back = load(tmp_path / "old.npz")
    assert back.means is None
    np.testing.assert_array_equal(back.confidence()[3], centres())


def test_centres_lie_in_their_bins_half_way_in_logit():
    middle = centres()
    assert (middle > EDGES[:-1]).all() and (middle < EDGES[1:]).all()
    assert middle[0] == EDGES[1] / 2
    # The bin that ends at 0.5 begins at logit -0.2006 (p = 0.45).
    index = int(np.searchsorted(EDGES, 0.5)) - 1
    assert EDGES[index] == pytest.approx(0.45)
    half = math.log(0.45 / 0.55) / 2
    assert middle[index] == pytest.approx(1 / (1 + math.exp(-half)))


def test_means_of_another_shape_are_refused(histograms):
    with pytest.raises(ValueError, match=r"means: expected shape \(6, \d+\)"):
        replace(histograms, means=np.zeros((6, 3)))


def test_rows_are_selected_by_column(histograms):
    chosen = histograms.where(split="test", region="field of view")
    assert np.flatnonzero(chosen).tolist() == [1, 3]
    assert histograms.case[histograms.where(split="validation")].tolist() == ["37"] * 2
    assert not histograms.where(case="40").any()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("case", np.array(["01"]), r"case: expected text of shape \(6,\).*\(1,\)"),
        ("pair_target", np.array([1]), r"pair_target: expected text.*int64"),
        ("counts", np.zeros((6, 2, 3), int), r"counts: expected integers.*\(6, 2, 3\)"),
        ("counts", np.zeros((6, 2, N_BINS)), r"counts: expected integers.*float64"),
        ("pair_counts", np.zeros((1, 2, N_BINS), int), r"pair_counts: expected"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(histograms, name, array, message):
    with pytest.raises(ValueError, match=message):
        Histograms(**vars(histograms) | {name: array})


def test_file_that_is_not_a_histogram_is_refused(tmp_path, histograms):
    whole = tmp_path / "whole.npz"
    save(whole, histograms)
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    for name in ("missing.npz", "cut.npz", "text.npz", "other.npz"):
        with pytest.raises(InputError, match=rf"{name}: expected the histograms"):
            load(tmp_path / name)


def test_flipped_byte_is_detected(tmp_path, histograms):
    path = tmp_path / "flipped.npz"
    save(path, histograms)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        load(path)


def test_flipped_bit_in_the_archive_list_is_detected(tmp_path, histograms):
    """It may say that an entry is encrypted, or compressed in an unknown way."""
    path = tmp_path / "flipped.npz"
    save(path, histograms)
    whole = path.read_bytes()
    start = whole.index(b"PK\x01\x02")
    for bit in range(8 * 46):  # of the first entry's record
        content = bytearray(whole)
        content[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            found = load(path)
        except InputError:
            continue
        for name, array in vars(histograms).items():
            np.testing.assert_array_equal(getattr(found, name), array)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_ever_executed(tmp_path, histograms):
    path = tmp_path / "pickle.npz"
    trap = np.array([Trap(tmp_path / "sprung")] * 6, dtype=object)
    np.savez(path, **vars(histograms) | {"case": trap})
    with pytest.raises(InputError, match="cannot be read"):
        load(path)
    assert not (tmp_path / "sprung").exists()
