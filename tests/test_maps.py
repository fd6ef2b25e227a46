"""Affine, beta and isotonic maps: by hand, against scikit-learn, and as runs."""

import csv
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predicted_runs import make_run
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from data_io.datasets import phantom
from data_io.errors import InputError
from pipelines import cli, stages
from pipelines.measure import calibration, histograms
from pipelines.measure.histograms import EDGES, N_BINS, bins_of, centres
from pipelines.posthoc import maps, scaling
from pipelines.prediction import calibrate
from pipelines.runs import predictions
from pipelines.runs import run as runs


def counted(p, y):
    """Counts and mean p of one case, (1, 2, B) and (1, B)."""
    p, bins = np.asarray(p, np.float64), bins_of(np.asarray(p, np.float64))
    counts, sums = histograms.count(p, y), histograms.sum_bins(bins, p)
    n = counts.sum(axis=0)
    return counts[None], np.divide(sums, n, out=centres(), where=n > 0)[None]


def drawn(seed, slope=1.0, shift=0.0, n=4000):
    """Probabilities whose truth has logit slope * logit p + shift."""
    random = np.random.default_rng(seed)
    p = np.clip(random.beta(0.5, 1.5, n), 1e-5, 1 - 1e-5)
    return p, (random.random(n) < expit(slope * logit(p) + shift)).astype(int)


def repeated(values, shares, each=8):
    """`each` voxels a value, of which a share is the target."""
    p, y = np.repeat(values, each), []
    for share in shares:
        y += [1] * round(share * each) + [0] * round((1 - share) * each)
    return p, np.array(y)


def test_affine_by_hand():
    # It says .1 and .9 where 1/4 and 3/4 are true: logits -+log 9 to -+log 3.
    found = maps.fit("affine", *counted(*repeated([0.1, 0.9], [0.25, 0.75])))
    assert found == pytest.approx([0.5, 0.5, 0], abs=1e-4)
    assert found[2] == 0  # not 1e-10, of which every machine has another
    # Two points and two parameters: logit 1/8 = a logit .1 + b, logit 3/4 of .9.
    a, b = np.linalg.solve([[logit(0.1), 1], [logit(0.9), 1]], logit([0.125, 0.75]))
    found = maps.fit("affine", *counted(*repeated([0.1, 0.9], [0.125, 0.75])))
    assert found == pytest.approx([a, a, b], rel=1e-3)


def test_beta_by_hand():
    # Three points and three parameters: it goes through all of them.
    p, shares = np.array([0.1, 0.4, 0.9]), np.array([0.25, 0.5, 0.875])
    x = np.stack([np.log(p), -np.log1p(-p), np.ones(3)], axis=1)
    found = maps.fit("beta", *counted(*repeated(p, shares)))
    assert found == pytest.approx(np.linalg.solve(x, logit(shares)), rel=1e-3)
    np.testing.assert_allclose(maps.mapped("beta", p, found), shares, rtol=1e-3)


def test_isotonic_by_hand():
    # .3 has a larger share than .6: both get that of the two together, 1/2. Nothing
    # is true at .05, but it is not certain.
    values, shares = [0.05, 0.3, 0.6, 0.9], [0, 0.75, 0.25, 0.875]
    found = maps.fit("isotonic", *counted(*repeated(values, shares)))
    expected = [1e-6, 0.5, 0.5, 0.875]
    np.testing.assert_allclose(maps.mapped("isotonic", values, found), expected)
    assert maps.mapped("isotonic", 0.45, found) == pytest.approx(0.5)
    assert maps.mapped("isotonic", [0.0, 1.0], found) == pytest.approx([1e-6, 0.875])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", maps.METHODS)
def test_values_just_outside_0_and_1_are_mapped_as_0_and_1(method, dtype):
    """Isotonic sent 1.0000001 to 0: bins of float32 are those of 0 to 1 alone."""
    own = np.linspace(0, 1, N_BINS) if method == "isotonic" else [1, 1, 0]
    p = np.array([-1e-5, -1e-7, -0.0, 0, 1, 1.0000001, 1.00001], dtype)
    found = maps.mapped(method, p, own)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, [0, 0, 0, 0, 1, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(found, maps.mapped(method, p.clip(0, 1), own))
    assert maps.mapped(method, [0, 1], own) == pytest.approx([0, 1], abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_affine_and_beta_are_those_of_a_logistic_regression(seed):
    """Of the voxels, not of bins: scikit-learn's, without a penalty."""
    p, y = drawn(seed, slope=0.6, shift=-0.4)
    low, high = np.log(p), -np.log1p(-p)
    for method, features in (("affine", [low + high]), ("beta", [low, high])):
        x = np.stack(features, axis=1)
        other = LogisticRegression(C=np.inf, tol=1e-8).fit(x, y)
        expected = [other.coef_[0][0], other.coef_[0][-1], other.intercept_[0]]
        found = maps.fit(method, *counted(p, y))
        assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_isotonic_is_that_of_scikit_learn_on_the_bins(seed):
    p, y = drawn(seed, slope=0.6)
    bins = bins_of(p)
    limits = {"y_min": maps.FLOOR, "y_max": 1 - maps.FLOOR}
    other = IsotonicRegression(**limits).fit(bins, y)
    found = maps.mapped("isotonic", p, maps.fit("isotonic", *counted(p, y)))
    np.testing.assert_allclose(found, other.predict(bins), rtol=1e-8)


def test_inverted_probabilities_map_to_a_constant():
    """No slope below 0: the best is the share of the target everywhere."""
    p, y = repeated([0.1, 0.9], [0.75, 0.25])
    for method in maps.METHODS:
        found = maps.fit(method, *counted(p, y))
        assert maps.mapped(method, p, found) == pytest.approx(0.5, abs=1e-3)


@given(st.integers(0, 10_000), st.floats(0.1, 3), st.floats(-2, 2))
@settings(max_examples=15, deadline=None)
def test_maps_keep_the_order_and_do_not_raise_the_nll(seed, slope, shift):
    p, y = drawn(seed, slope, shift, n=300)
    counts, confidence = counted(p, y)
    line = np.linspace(0, 1, 1001)
    before = calibration.scores(calibration.join(counts, confidence, wanted=None))
    for method in maps.METHODS:
        fitted = maps.fit(method, counts, confidence)
        q = maps.mapped(method, line, fitted)
        assert (np.diff(q) >= 0).all() and q.min() >= 0 and q.max() <= 1
        after = maps.of_bins(method, counts, confidence, fitted)
        after = calibration.scores(calibration.join(*after, wanted=None))
        assert after["nll"] <= before["nll"] + 1e-3


def test_calibrated_probabilities_stay_unchanged():
    p = np.array([0.125, 0.25, 0.5, 0.75, 0.875])
    counts, confidence = counted(*repeated(p, p))
    for method in maps.METHODS:
        found = maps.fit(method, counts, confidence)
        np.testing.assert_allclose(maps.mapped(method, p, found), p, rtol=1e-3)
    assert maps.fit("beta", counts, confidence) == pytest.approx([1, 1, 0], abs=1e-3)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_isotonic_calibrates_its_fitting_voxels(seed):
    p, y = drawn(seed, slope=0.4, shift=1)
    counts, confidence = counted(p, y)
    fitted = maps.fit("isotonic", counts, confidence)
    after = maps.of_bins("isotonic", counts, confidence, fitted)
    assert calibration.ece(calibration.join(*after, wanted=None)) < 2e-6  # the floor
    assert calibration.ece(calibration.join(*after)) < 2e-6


@pytest.mark.parametrize("method", maps.METHODS)
def test_mapped_histograms_are_those_of_mapped_voxels(method):
    p, y = drawn(5, slope=0.5, shift=-0.5)
    counts, confidence = counted(p, y)
    fitted = maps.fit(method, counts, confidence)
    found, means = maps.of_bins(method, counts, confidence, fitted)
    q = maps.mapped(method, p, fitted)
    expected, sums = counted(q, y)
    if method == "isotonic":  # all voxels of a bin have one q
        np.testing.assert_array_equal(found, expected)
        held = found.sum(axis=1) > 0
        np.testing.assert_allclose(means[held], sums[held])
    assert found.sum() == len(p)
    own = calibration.scores(calibration.join(found, means, wanted=None))
    right = np.where(y, q, 1 - q)
    assert own["nll"] == pytest.approx(-np.log(right).mean(), rel=2e-3)
    assert own["brier"] == pytest.approx(((y - q) ** 2).mean(), rel=2e-3)


def test_two_classes_use_one_map():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [1, 0], [0, 1]], np.float32)
    found = maps.softmax("beta", p, [[0.5, 0.7, 0.2]])
    expected = maps.mapped("beta", p[:, 1].astype(float), [0.5, 0.7, 0.2])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 1], expected, atol=2e-6)  # of float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_background_of_three_classes_gets_the_rest():
    p = np.array([[0.5, 0.25, 0.25], [0, 0.5, 0.5]], np.float32)
    same, twice = [1, 1, 0], [1, 1, np.log(3)]
    found = maps.softmax("affine", p, [same, twice])
    # logit .25 = -log 3, so 1/2; of 1/2 it makes 3/4, and .5 + .75 is too much.
    expected = [[0.25, 0.25, 0.5], [0, 0.4, 0.6]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_mean_outside_its_bin_by_rounding_stays_in_it():
    """Means are kept in float32, where some lie below the edge of their bin."""
    k = int(np.abs(EDGES - 0.35).argmin())
    counts = np.zeros((1, 2, N_BINS), int)
    counts[0, :, k] = 2, 6
    confidence = centres()[None]
    confidence[0, k] = np.nextafter(EDGES[k], 0)
    steps = [0.1] * k + [0.75] * (N_BINS - k)
    found, means = maps.of_bins("isotonic", counts, confidence, steps)
    place = bins_of(np.array([0.75]))[0]
    assert found[0, :, place].tolist() == [2, 6] and means[0, place] == 0.75


def test_bins_that_fall_together_are_added_in_64_bits():
    """`frame` holds counts in 32 bits where they fit."""
    counts = np.zeros((1, 2, N_BINS), np.int32)
    counts[0, 1, :3] = 2**30
    found, _ = maps.of_bins("isotonic", counts, centres()[None], [0.5] * N_BINS)
    assert found.sum() == found.max() == 3 * 2**30


def test_nll_and_brier_from_bins_by_hand():
    bins = calibration.Bins(*np.array([[4.0, 0], [1, 0], [1.2, 0]]))  # mean p .3
    found = calibration.scores(bins)
    assert found["nll"] == pytest.approx(-(np.log(0.3) + 3 * np.log(0.7)) / 4)
    assert found["brier"] == pytest.approx((0.7**2 + 3 * 0.3**2) / 4)
    assert set(maps.METHODS) < set(scaling.METHODS)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run whose logits are half of the true ones, and the folder of its data."""
    folder = tmp_path_factory.mktemp("maps")
    asked = phantom.Settings(training=1, validation=2, test=2, size=32, seed=3)
    data = phantom.generate(asked, folder / "phantom")
    made = make_run(folder / "runs" / "dsc-s0", data)
    return stages.evaluate(made.folder, data, folder / "work"), data


@pytest.fixture
def run(evaluated, tmp_path):
    shutil.copytree(evaluated[0].folder, tmp_path / "dsc-s0")
    return runs.Run.open(tmp_path / "dsc-s0")


def scaled(run, data, method, *more):
    given = ["--run", str(run.folder), "--data", str(data), "--method", method, *more]
    assert cli.main(["scale", *given, "--work", str(run.folder / "work")]) == 0
    return runs.Run.open(run.folder.with_name(f"{run.name}-{method}"))


@pytest.mark.parametrize("method", maps.METHODS)
def test_a_mapped_run_is_a_run_beside_the_run(run, evaluated, method, capsys, tmp_path):
    new = scaled(run, evaluated[1], method)
    assert f"evaluated, {method}, NLL of the validation" in capsys.readouterr().out
    assert (new.state, new.method, new.origin) == ("evaluated", method, "dsc-s0")
    assert set(new.record["files"]) == {"cases.csv", "histograms.npz"}
    fitted = new.record["posthoc"]
    assert fitted["nll_after"] < fitted["nll_before"]
    assert (fitted["cases"], fitted["n_voxels"]) == (2, 2 * 32 * 32)
    with new.path("cases.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["region"] == "image"]
    nll = [float(r["nll"]) for r in rows if r["split"] == "validation"]
    # Bins are 0.25 wide in logit, twice that after the map: about 0.4 % of the NLL.
    near = 1e-4 if method == "isotonic" else 6e-3
    assert np.mean(nll) == pytest.approx(fitted["nll_after"], rel=near)
    if method == "isotonic":
        return
    # What halved the logits is found.
    assert fitted["maps"][0][:2] == pytest.approx([2, 2], abs=0.4)
    given = [
        "tables",
        str(run.folder),
        str(new.folder),
        "--output",
        str(tmp_path / "t"),
    ]
    assert cli.main(given) == 0
    made = (tmp_path / "t" / "practice.csv").read_text()
    assert made.count(f"DSC,,{method},phantom vessel,dice_half,") == 1


def test_isotonic_runs_have_the_histograms_that_tables_compute(run, evaluated):
    new = scaled(run, evaluated[1], "isotonic")
    before, after = (histograms.load(r.path("histograms.npz")) for r in (run, new))
    (fitted,) = new.record["posthoc"]["maps"]
    found = maps.of_bins("isotonic", before.counts, before.confidence(), fitted)
    np.testing.assert_array_equal(found[0], after.counts)
    np.testing.assert_allclose(found[1], after.confidence(), rtol=1e-5)


def test_unsupported_uses_of_a_mapped_run_are_refused(run, evaluated):
    new = scaled(run, evaluated[1], "beta")
    with pytest.raises(InputError, match=f"other scaling, .*beta; give .*{run.name}$"):
        calibrate.of_run(new.folder)
    with pytest.raises(InputError, match="expected a run as it was trained"):
        stages.scale(new.folder, evaluated[1], method="isotonic")
    shutil.rmtree(run.path(predictions.PROBABILITIES))
    run.path(predictions.PROBABILITIES).mkdir()
    with pytest.raises(InputError, match=r"not kept in git: run `dscpp predict"):
        stages.scale(run.folder, evaluated[1], again=True, method="beta")
    run.update(files=[], sha256="")
    run.record["files"][predictions.LIST] = "of others"
    run.update()
    again = f"dscpp scale --method beta --again --run {run.folder}"
    with pytest.raises(InputError, match=f"made from, found others; run `{again}`"):
        predictions.probabilities(new, run.record["split"]["test"][0], (32, 32))


@pytest.mark.parametrize(
    ("gone", "other", "lacks"), [(1, 0, "with"), (0, 1, "without")]
)
def test_constant_class_on_validation_is_refused(
    run, evaluated, tmp_path, gone, other, lacks
):
    """Such a map erased the class from every image, or everything else."""
    found = histograms.load(run.path("histograms.npz"))
    rows = found.where(split="validation")
    found.counts[rows, other] += found.counts[rows, gone]
    found.counts[rows, gone] = 0
    histograms.save(run.path("histograms.npz"), found)
    run.update(files=["histograms.npz"])
    for method in maps.METHODS:
        with pytest.raises(InputError, match=f"vessel to .* found none {lacks} it"):
            stages.scale(run.folder, evaluated[1], method=method)
        assert not runs.is_run(scaling.folder_of(run, method))
    out = str(tmp_path / "t")
    assert cli.main(["tables", str(run.folder), "--output", out]) == 0
    with (tmp_path / "t" / "practice.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == {""}


def test_a_map_needs_measures_and_validation_cases(run, evaluated):
    run.update(state="predicted")
    with pytest.raises(InputError, match="dscpp evaluate --run"):
        stages.scale(run.folder, evaluated[1], method="affine")
    one = histograms.load(run.path("histograms.npz")).part("test")
    histograms.save(run.path("histograms.npz"), one)
    run.update(state="evaluated", files=["histograms.npz"])
    with pytest.raises(InputError, match="expected histograms of validation cases"):
        stages.scale(run.folder, evaluated[1], method="affine")
    assert not runs.is_run(scaling.folder_of(run, "affine"))
