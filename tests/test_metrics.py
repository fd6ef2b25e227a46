"""Measures of one image, against figures worked out by hand and against plain loops."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import distance

from pipelines.measure import metrics, voxels
from pipelines.measure.metrics import case_metrics, overlap_scores

# Two rows, three columns; argmax gives 2 TP, 2 FP, 1 FN, 1 TN.
LABEL = np.array([[1, 1, 0], [0, 0, 1]], dtype=np.uint8)
VESSEL = np.array([[0.9, 0.4, 0.6], [0.2, 0.7, 0.8]])
SOFTMAX = np.stack([1 - VESSEL, VESSEL], axis=-1)


def one_hot(label, n_classes):
    return np.eye(n_classes)[np.asarray(label)]


def by_loops(label, probabilities, target, mask):
    """The definitions of protocol.md, voxel by voxel, in plain Python."""
    n_classes = probabilities.shape[-1]
    nll_pub = brier_pub = nll = brier = nll_cat = brier_cat = 0.0
    n = true = predicted = tp = 0
    for voxel in np.ndindex(label.shape):
        if not mask[voxel]:
            continue
        row = [float(p) for p in probabilities[voxel]]
        cut = [min(max(p, 1e-7), 1 - 1e-7) for p in row]
        k, p, q = int(label[voxel]), row[target], cut[target]
        y = 1 if k == target else 0
        y_pub = k if n_classes > 2 else y
        guess = row.index(max(row)) == target
        n, true, predicted = n + 1, true + y, predicted + guess
        tp += y * guess
        nll_pub -= y_pub * math.log(q)
        brier_pub += (y_pub - p) ** 2
        nll -= math.log(q) if y else math.log(1 - q)
        brier += (y - p) ** 2
        nll_cat -= math.log(cut[k])
        brier_cat += sum((row[c] - (c == k)) ** 2 for c in range(n_classes))
    fp, fn = predicted - tp, true - tp
    return {
        "n_voxels": n,
        "n_foreground": true,
        "n_predicted": predicted,
        "nll_published": nll_pub / n,
        "brier_published": brier_pub / n,
        "nll": nll / n,
        "brier": brier / n,
        "nll_categorical": nll_cat / n,
        "brier_categorical": brier_cat / n / n_classes,
        "dice": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan,
        "jaccard": tp / (tp + fp + fn) if tp + fp + fn else math.nan,
        "precision": tp / predicted if predicted else math.nan,
        "recall": tp / true if true else math.nan,
    }


@st.composite
def cases(draw):
    """A label map, softmax values, a target and a mask with something in it."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    n_classes = draw(st.integers(2, 4))
    label = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, n_classes - 1)))
    weight = st.sampled_from([0.0, 1e-9, 1e-4, 0.3, 1.0, 2.5])
    raw = draw(hnp.arrays(np.float64, (*shape, n_classes), elements=weight))
    raw[raw.sum(axis=-1) == 0] = 1.0
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    probabilities = (raw / raw.sum(axis=-1, keepdims=True)).astype(dtype)
    mask = draw(hnp.arrays(np.bool_, shape))
    mask.flat[draw(st.integers(0, mask.size - 1))] = True
    return label, probabilities, draw(st.integers(0, n_classes - 1)), mask


def assert_same(received, expected):
    assert list(received) == list(expected)
    for name, value in expected.items():
        assert received[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)


def test_two_by_three_by_hand():
    assert_same(
        case_metrics(LABEL, SOFTMAX, target=1),
        {
            "n_voxels": 6,
            "n_foreground": 3,
            "n_predicted": 4,
            "nll_published": -math.log(0.9 * 0.4 * 0.8) / 6,
            "brier_published": 1.30 / 6,
            "nll": -math.log(0.9 * 0.4 * 0.4 * 0.8 * 0.3 * 0.8) / 6,
            "brier": 1.30 / 6,
            "nll_categorical": -math.log(0.9 * 0.4 * 0.4 * 0.8 * 0.3 * 0.8) / 6,
            "brier_categorical": 1.30 / 6,
            "dice": 4 / 7,
            "jaccard": 2 / 5,
            "precision": 2 / 4,
            "recall": 2 / 3,
        },
    )


def test_published_nll_equals_reference_numbers():
    assert case_metrics(LABEL, SOFTMAX, 1)["nll_published"] == pytest.approx(
        0.2074658, abs=5e-8
    )
    assert case_metrics(LABEL, SOFTMAX, 1)["nll"] == pytest.approx(0.5980336, abs=5e-8)


def test_background_as_target_exchanges_the_errors():
    vessel, background = (case_metrics(LABEL, SOFTMAX, target) for target in (1, 0))
    assert background["nll"] == pytest.approx(vessel["nll"])
    assert background["precision"] == 1 / 2
    assert background["recall"] == 1 / 3
    assert background["nll_published"] == pytest.approx(-math.log(0.4 * 0.8 * 0.3) / 6)


@settings(deadline=None)
@given(cases())
def test_equals_plain_loops(case):
    assert_same(case_metrics(*case), by_loops(*case))
    label, probabilities, target, _ = case
    everywhere = np.ones(label.shape, dtype=bool)
    assert_same(
        case_metrics(label, probabilities, target),
        by_loops(label, probabilities, target, everywhere),
    )


@settings(deadline=None, max_examples=50)
@given(cases())
def test_dice_and_jaccard_equal_scipy(case):
    label, probabilities, target, _ = case
    truth = (label == target).ravel()
    guess = (probabilities.argmax(axis=-1) == target).ravel()
    result = case_metrics(label, probabilities, target)
    if truth.any() or guess.any():
        assert result["dice"] == pytest.approx(1 - distance.dice(truth, guess))
        assert result["jaccard"] == pytest.approx(1 - distance.jaccard(truth, guess))
        assert result["jaccard"] == pytest.approx(result["dice"] / (2 - result["dice"]))
    else:
        assert math.isnan(result["dice"])
        assert math.isnan(result["jaccard"])


@settings(deadline=None, max_examples=50)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_voxels_does_not_matter(case, random):
    label, probabilities, target, mask = case
    order = list(range(label.size))
    random.shuffle(order)
    shuffled = case_metrics(
        label.ravel()[order],
        probabilities.reshape(label.size, -1)[order],
        target,
        mask.ravel()[order],
    )
    assert_same(shuffled, case_metrics(*case))


def test_mask_is_the_same_as_cropping():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, (6, 5, 4))
    probabilities = rng.dirichlet([1, 1, 1], label.shape)
    mask = np.zeros(label.shape, dtype=bool)
    mask[1:4, 2:5, :3] = True
    assert_same(
        case_metrics(label, probabilities, 2, mask),
        case_metrics(label[1:4, 2:5, :3], probabilities[1:4, 2:5, :3], 2),
    )


def test_values_outside_the_mask_are_ignored():
    label, probabilities = LABEL.copy(), SOFTMAX.copy()
    label[0, 0], probabilities[0, 0] = 255, np.nan
    mask = np.ones(label.shape, dtype=bool)
    mask[0, 0] = False
    assert case_metrics(label, probabilities, 1, mask)["n_voxels"] == 5


@pytest.mark.parametrize("size", [1, 7, 20, 60])
def test_blocks_do_not_change_the_result(monkeypatch, size):
    rng = np.random.default_rng(4)
    label = rng.integers(0, 2, (11, 3, 2))
    # Transposed, so that no block is contiguous.
    probabilities = np.moveaxis(rng.dirichlet([1, 1], (2, 3, 11)), (0, 2), (2, 0))
    mask = rng.random(label.shape) < 0.3
    whole = case_metrics(label, probabilities, 1, mask)
    monkeypatch.setattr(voxels, "_BLOCK", size)
    assert_same(case_metrics(label, probabilities, 1, mask), whole)


@settings(deadline=None, max_examples=50)
@given(cases(), st.data())
def test_adding_parts_equals_the_whole(case, data):
    label, probabilities, _, mask = case
    targets = range(probabilities.shape[-1])
    cut = data.draw(st.integers(0, len(label)))
    parts = metrics.CaseMetrics(targets)
    for part in (slice(cut), slice(cut, None)):
        if mask[part].any():
            parts.add(label[part], probabilities[part], mask[part])
    for target in targets:
        whole = case_metrics(label, probabilities, target, mask)
        assert_same(parts.of(target), whole)


@settings(deadline=None, max_examples=50)
@given(cases())
def test_the_order_in_memory_does_not_matter(case):
    label, probabilities, target, mask = case
    backwards = (np.asfortranarray(array) for array in (label, probabilities))
    planes = np.moveaxis(np.moveaxis(probabilities, -1, 0).copy(), 0, -1)
    expected = case_metrics(label, probabilities, target, mask)
    assert_same(case_metrics(*backwards, target, mask), expected)
    assert_same(case_metrics(label, planes, target, mask), expected)


def test_case_without_parts_is_refused():
    with pytest.raises(ValueError, match="expected at least one part"):
        metrics.CaseMetrics([1]).of(1)


def test_sums_are_made_in_float64():
    # In float32 a running sum of 0.3 stops being exact after a few thousand.
    p = np.full((2000, 1000), 0.3, dtype=np.float32)
    result = case_metrics(np.zeros(p.shape, int), np.stack([1 - p, p], axis=-1), 1)
    assert result["brier"] == pytest.approx(float(np.float32(0.3)) ** 2, rel=1e-12)


# What the published forms do.


def test_published_nll_ignores_false_positives():
    everything = one_hot(np.ones_like(LABEL), 2)
    result = case_metrics(LABEL, everything, 1)
    assert result["nll_published"] == pytest.approx(0, abs=1e-6)
    # Three of six voxels are wrong with full confidence.
    assert result["nll"] == pytest.approx(-math.log(1e-7) / 2, rel=1e-6)


def test_published_nll_prefers_overconfidence_to_the_truth():
    rng = np.random.default_rng(5)
    truth = rng.uniform(0.05, 0.95, (300, 200))
    label = (rng.random(truth.shape) < truth).astype(int)
    larger = truth**0.5
    honest, inflated = (
        case_metrics(label, np.stack([1 - p, p], axis=-1), 1) for p in (truth, larger)
    )
    assert inflated["nll_published"] < honest["nll_published"]
    assert inflated["nll"] > honest["nll"]
    assert inflated["brier"] > honest["brier"]


@pytest.mark.parametrize(
    ("target", "brier", "nll"), [(1, 4 / 3, 2 / 3), (2, 2 / 3, 1 / 3)]
)
def test_published_scores_of_a_perfect_prediction_of_three_classes(target, brier, nll):
    # KiTS19: the label map 0, 1, 2 stands where the one-hot truth belongs, so the
    # other structure counts as an error: with weight 2 if it is the tumour.
    label = np.array([[0, 1, 2]])
    result = case_metrics(label, one_hot(label, 3), target)
    assert result["brier_published"] == pytest.approx(brier)
    assert result["nll_published"] == pytest.approx(-math.log(1e-7) * nll, rel=1e-6)
    assert result["brier"] == result["brier_categorical"] == 0
    assert result["nll"] == pytest.approx(0, abs=1e-6)
    assert result["dice"] == 1


def test_published_brier_is_the_corrected_one_for_two_classes():
    result = case_metrics(LABEL, SOFTMAX, 1)
    assert result["brier_published"] == result["brier"]


def test_saturated_probabilities_are_clipped_in_the_logarithm_only():
    label = np.array([1, 0, 0])
    result = case_metrics(label, one_hot(1 - label, 2).astype(np.float32), 1)
    assert result["nll"] == pytest.approx(-math.log(1e-7), rel=1e-6)
    assert result["nll_categorical"] == pytest.approx(-math.log(1e-7), rel=1e-6)
    assert result["brier"] == 1


# Undefined is NaN.


@pytest.mark.parametrize(
    ("label", "guess", "undefined"),
    [
        ([0, 0], [0, 0], {"dice", "jaccard", "precision", "recall"}),
        ([0, 1], [0, 0], {"precision"}),
        ([0, 0], [0, 1], {"recall"}),
        ([0, 1], [1, 0], set()),
    ],
)
def test_undefined_is_nan(label, guess, undefined):
    result = case_metrics(np.array(label), one_hot(guess, 2), 1)
    assert {name for name, value in result.items() if math.isnan(value)} == undefined
    for name in {"dice", "jaccard", "precision", "recall"} - undefined:
        assert result[name] == 0


@pytest.mark.filterwarnings("error")
def test_overlap_scores_of_many_counts_at_once():
    scores = overlap_scores([[2, 0]], [[2, 0]], [[1, 0]])
    np.testing.assert_array_equal(scores["dice"], [[4 / 7, np.nan]])
    np.testing.assert_array_equal(scores["jaccard"], [[2 / 5, np.nan]])
    np.testing.assert_array_equal(scores["precision"], [[2 / 4, np.nan]])
    np.testing.assert_array_equal(scores["recall"], [[2 / 3, np.nan]])


def test_argmax_gives_a_tie_to_the_lower_class():
    half = np.full((2, 2), 0.5)
    assert case_metrics(np.array([0, 1]), half, 1)["n_predicted"] == 0
    assert case_metrics(np.array([0, 1]), half, 0)["n_predicted"] == 2


# Columns.


def test_columns_are_the_keys_in_order():
    result = case_metrics(LABEL, SOFTMAX, 1)
    assert tuple(result) == metrics.COLUMNS
    assert all(type(result[name]) is int for name in metrics.COUNTS)
    assert all(type(result[name]) is float for name in metrics.METRICS)


def test_every_name_in_the_metadata_is_a_metric():
    names = set(metrics.METRICS)
    assert names.issuperset(metrics.PAPER_COLUMN.values())
    assert metrics.PAPER_COLUMN["nll"] == "nll_published"


# Mistakes.


@pytest.mark.parametrize(
    ("label", "probabilities", "target", "mask", "message"),
    [
        (LABEL.T, SOFTMAX, 1, None, r"expected spatial shape \(3, 2\).*\(2, 3\)"),
        (LABEL, VESSEL, 1, None, r"expected shape \(2, 3\) \+ \(C,\).*\(2, 3\)"),
        (LABEL, VESSEL[..., None], 1, None, r"C >= 2, received \(2, 3, 1\)"),
        (LABEL, SOFTMAX, 2, None, "expected 0 to 1, received 2"),
        (LABEL, SOFTMAX, -1, None, "expected 0 to 1, received -1"),
        (LABEL * 255, SOFTMAX, 1, None, "expected classes 0 to 1, received 0 to 255"),
        (LABEL.astype(float), SOFTMAX, 1, None, "expected integer.*received float64"),
        (LABEL, SOFTMAX * 2, 1, None, r"expected values in \[0, 1\], received"),
        (LABEL, SOFTMAX * np.nan, 1, None, r"received nan to nan"),
        (LABEL, SOFTMAX / 2, 1, None, "expected a sum of 1.*off by 0.5"),
        (LABEL, SOFTMAX, 1, LABEL.T > 0, r"mask: expected.*\(2, 3\).*\(3, 2\)"),
        (LABEL, SOFTMAX, 1, LABEL > 1, "expected at least one voxel"),
        (LABEL, SOFTMAX, 1, LABEL, "mask: expected bool, received uint8"),
        (LABEL[:0], SOFTMAX[:0], 1, None, "expected voxels"),
        (np.uint8(1), SOFTMAX[0, 0], 1, None, "at least one axis"),
    ],
)
def test_invalid_arguments_are_named(label, probabilities, target, mask, message):
    with pytest.raises(ValueError, match=message):
        case_metrics(label, probabilities, target, mask)


def test_rounding_errors_of_the_resize_are_corrected():
    label = np.array([1, 0])
    probabilities = np.array([[-1e-7, 1 + 1e-7], [1, 0]])
    assert case_metrics(label, probabilities, 1)["brier"] == 0


def test_measuring_needs_no_network_library():
    code = (
        "import sys; from pipelines.measure import histograms, metrics, statistics; "
        "print(*{'keras', 'tensorflow', 'torch', 'jax', 'miscnn', 'losses', "
        "'batchgenerators'} & set(sys.modules))"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


def test_measures_at_a_threshold_equal_those_of_the_label_map():
    """Of two foreground classes above it a voxel has the more probable one alone."""
    label = np.array([1, 1, 2, 0, 0])
    p = np.array([[0.6, 0.4, 0.0], [0.1, 0.5, 0.4], [0.3, 0.4, 0.3],
                  [0.7, 0.0, 0.3], [0.8, 0.2, 0.0]])  # fmt: skip
    # At 0.3: 1 1 1 2 0. Class 1: two right, one too many; class 2: one missed, one
    # too many. The most probable: 0 1 1 0 0.
    case = metrics.CaseMetrics([1, 2], threshold=0.3)
    case.add(label, p)
    assert case.of(1)["dice"] == pytest.approx(4 / 5) and case.of(1)["n_predicted"] == 3
    assert (case.of(2)["dice"], case.of(2)["n_predicted"]) == (0, 1)
    usual = metrics.case_metrics(label, p, 1)
    assert usual["dice"] == pytest.approx(2 / 4)
    assert case.of(1)["nll"] == usual["nll"]
    np.testing.assert_array_equal(metrics.predicted(p.T, 0.3), [1, 1, 1, 2, 0])
