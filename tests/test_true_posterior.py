"""Phantoms: measured as a network is, the true probability is calibrated and best.

If any part of the way from probabilities to tables leaned to one side, it would not be.
"""

import csv

import numpy as np
import pytest
from scipy import stats

from data_io.datasets import phantom
from data_io.datasets.drive import drive
from data_io.files.schema import sealed
from pipelines import stages
from pipelines.measure import calibration, histograms
from pipelines.prediction import true_posterior
from pipelines.reporting import frame, pages
from pipelines.runs import run as runs
from pipelines.training.task import Task

SETTINGS = phantom.Settings(training=12, validation=3, test=50, size=64, seed=11)
LOSSES = ("CE", "DSC++")
# Enough to be far better than a guess, in seconds.
SMALL = {"filters": 8, "depth": 1, "epochs": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return phantom.generate(SETTINGS, tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture(scope="module")
def group(data, tmp_path_factory):
    """Two trained networks with their measures, and the truth beside them."""
    group = tmp_path_factory.mktemp("results") / "phantom" / "demo"
    for loss in LOSSES:
        task = Task.make("phantom", loss, seed=0, preset="demo", overrides=SMALL)
        run = group / "runs" / runs.folder_name(loss, task.gamma, 0)
        stages.train(task, data, run, group / "work")
        stages.predict(run, data, group / "work")
        stages.evaluate(run, data, group / "work")
    true_posterior.measure(group, data)
    return group


def measures(run, metric, region="image"):
    """One value a test case, (cases,)."""
    with run.path("cases.csv").open(newline="") as file:
        return np.array(
            [
                float(row[metric])
                for row in csv.DictReader(file)
                if (row["split"], row["region"]) == ("test", region)
            ]
        )


def gaps(found, data):
    """Per bin: gap between share and mean p, and its standard error by sampling."""
    where = found.where(split="test", region="image")
    bins = calibration.join(
        found.counts[where].sum(axis=0),
        np.average(
            found.confidence()[where],
            axis=0,
            weights=found.counts[where].sum(axis=1) + 1e-300,
        ),
    )
    p = np.stack([phantom.vessels.posterior(data, case) for case in found.case[where]])
    p = p.astype(np.float64)
    which = np.searchsorted(calibration.WIDE[1:-1], p, side="right")
    variance = np.bincount(which.ravel(), (p * (1 - p)).ravel(), len(bins.n))
    np.testing.assert_array_equal(bins.n, np.bincount(which.ravel(), None, len(bins.n)))
    held = bins.n > 0
    return (bins.frequency - bins.confidence)[held], (np.sqrt(variance) / bins.n)[held]


def test_true_posterior_is_calibrated_within_sampling_error(group, data):
    found = histograms.load(group / "runs" / true_posterior.FOLDER / "histograms.npz")
    gap, error = gaps(found, data)
    assert len(gap) == 20
    z = gap / error
    assert np.abs(z).max() < 4
    # All bins together: neither too far off nor, by some mistake, too near.
    assert 1e-4 < stats.chi2.sf((z**2).sum(), len(z)) < 1 - 1e-4


def test_slight_overconfidence_is_detected(data):
    """The same labels under 1.15 times the true logit: the check above can fail."""
    total, sums = 0, 0
    for case in phantom.vessels.split(data)["test"]:
        p = phantom.vessels.posterior(data, case).astype(np.float64)
        label = phantom.vessels.references(data, case)["observer1"]
        odds = (p / (1 - p)) ** 1.15
        q = odds / (1 + odds)
        one = histograms.count(q, label)
        of_p = histograms.sum_bins(histograms.bins_of(q.ravel()), q.ravel())
        total, sums = total + one, sums + of_p
    n = total.sum(axis=0)
    means = np.divide(sums, n, out=histograms.centres(), where=n > 0)
    bins = calibration.join(total, means)
    f = bins.confidence
    z = (bins.frequency - f) / np.sqrt(f * (1 - f) / bins.n)
    assert stats.chi2.sf((z**2).sum(), len(z)) < 1e-9


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("metric", ["nll", "brier"])
def test_no_trained_network_is_better_than_the_true_posterior(group, loss, metric):
    best = runs.Run.open(group / "runs" / true_posterior.FOLDER)
    gamma = {"DSC++": 2.0}.get(loss)
    trained = runs.Run.open(group / "runs" / runs.folder_name(loss, gamma, 0))
    theirs, ours = measures(trained, metric), measures(best, metric)
    assert len(theirs) == len(ours) == SETTINGS.test
    assert ours.mean() < theirs.mean()
    # On the same images, and not by chance.
    assert stats.ttest_rel(ours, theirs, alternative="less").pvalue < 1e-3
    # It did learn: saying the share of the foreground everywhere is worse.
    share = 0.128
    guess = (
        share * (1 - share) if metric == "brier" else stats.entropy([share, 1 - share])
    )
    if loss == "CE":
        assert theirs.mean() < 0.8 * guess


def test_nll_and_brier_of_the_true_posterior_equal_theory(group, data):
    """Mean of the entropy and of p (1 - p), within sampling error."""
    run = runs.Run.open(group / "runs" / true_posterior.FOLDER)
    p = np.stack(
        [
            phantom.vessels.posterior(data, case)
            for case in phantom.vessels.split(data)["test"]
        ]
    )
    p = p.astype(np.float64)
    q = 1 - p
    expected = {"brier": p * q, "nll": -(p * np.log(p) + q * np.log(q))}
    # Variances of (y - p)^2 and of -log p(y), given p.
    variance = {"brier": p * q * (1 - 2 * p) ** 2, "nll": p * q * np.log(p / q) ** 2}
    for metric, values in expected.items():
        error = np.sqrt(variance[metric].sum()) / p.size
        assert abs(measures(run, metric).mean() - values.mean()) < 4 * error


def test_true_posterior_is_in_the_tables_but_in_no_test(group, data, tmp_path):
    """With the preset's own values, as `dscpp demo` makes it."""
    copy = tmp_path / "phantom" / "demo"
    for run in runs.find(group):
        record = sealed({**run.record, "overrides": {}})
        folder = copy / "runs" / run.name
        folder.mkdir(parents=True)
        for name in ("cases.csv", "histograms.npz"):
            (folder / name).write_bytes(run.path(name).read_bytes())
        runs.write_json(folder / "run.json", record)
    pages.Report(tmp_path).write()
    with (copy / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["loss"] for row in rows)) == [*LOSSES, ""]
    for name in ("tests.csv", "thresholds.csv"):
        assert runs.TRUTH not in (copy / name).read_text()
    assert runs.TRUTH in (copy / "calibration.csv").read_text()
    shown = pages.Page(frame.open_study(copy)).text()
    assert f"\n{runs.TRUTH} " in shown
    assert "True posterior: the probability" in shown


def test_no_true_posterior_without_known_probabilities(
    group, data, monkeypatch, tmp_path
):
    assert true_posterior.measure(tmp_path, data) is None
    monkeypatch.setattr(true_posterior.datasets, "by_name", lambda name: drive)
    assert true_posterior.measure(group, data) is None


def test_true_posterior_is_measured_again_where_a_file_changed(group, data):
    run = group / "runs" / true_posterior.FOLDER
    paths = [run / name for name in ("run.json", "cases.csv", "histograms.npz")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    true_posterior.measure(group, data)
    assert [(p.read_bytes(), p.stat().st_mtime_ns) for p in paths] == before
    paths[1].write_text("damaged")
    true_posterior.measure(group, data)
    assert [p.read_bytes() for p in paths] == [content for content, _ in before]
