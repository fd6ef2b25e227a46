"""Tables from synthetic run folders whose numbers can be worked out by hand."""

import csv
import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from written_runs import CASES, DSC_NLL, PLUS_NLL, make_run, one, read

from data_io.errors import InputError
from data_io.files.hashing import file_hash
from pipelines import cli, stages
from pipelines.measure import histograms, metrics
from pipelines.posthoc import threshold
from pipelines.reporting import (
    estimates,
    frame,
    pages,
    published,
    tables,
)
from pipelines.reporting.evidence import estimated, training_spread
from pipelines.reporting.published import Variant
from pipelines.runs import run as runs

# Written whatever was run.
ALWAYS = ("tests.csv", "thresholds.csv", "calibration.csv", "reliability.csv")
ALWAYS += (
    "practice.csv",
    "costs.csv",
)


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def test_counts_beyond_32_bits_are_kept(results):
    """Half the memory was had by cutting them."""
    for loss in ("DSC", "DSC++"):
        run = make_run(results, loss)
    path = run / "histograms.npz"
    found = histograms.load(path)
    many = found.counts.copy()
    many[0, 0, 0] = 2**31
    histograms.save(path, dataclasses.replace(found, counts=many))
    study = frame.open_study(path.parents[2])
    read = study.histograms[str(path.parent)]
    assert read.counts[0, 0, 0] == 2**31
    others = [h.counts.dtype for h in study.histograms.values() if h is not read]
    assert others and set(others) == {np.dtype(np.int32)}


def test_table4_row_by_hand(results):
    make_run(results, "DSC", DSC_NLL)
    written = pages.Report(results).write()
    folder = results / "drive" / "paper"
    names = ["table3.csv", "table4.csv", "table6.csv", "table.csv", *ALWAYS]
    over_all = ["table3.csv", "table4.csv", "table5.csv", "table6.csv"]
    over_all += ["claims.csv", "counts.csv", "summary.csv"]
    assert written == [
        *(folder / name for name in names),
        *(results / name for name in over_all),
    ]
    row = one(read(folder / "table4.csv"), loss="DSC", metric="nll_published")
    assert tuple(row) == tables.COLUMNS["table"]
    # Published: 0.204, standard error 0.013. Mean of DSC_NLL: 1.2 / 4.
    assert (row["mean"], row["published"], row["published_se"]) == (
        "0.3",
        "0.204",
        "0.013",
    )
    assert (row["difference"], row["n"], row["seeds"]) == ("0.096", "4", "1")
    assert (row["gamma"], row["target"], row["n_undefined"]) == ("", "vessel", "0")
    # The bootstrap's standard error tends to the population one over sqrt(n):
    # squares of -.2 -.1 .1 .2 sum to .1, so sqrt(.1 / 4) / 2 = 0.0790569.
    assert float(row["standard_error"]) == pytest.approx(0.0790569, rel=0.03)
    # Rounded: a resample in another order is the same, whatever its last bit.
    expected = stats.bootstrap(
        (np.array(DSC_NLL),),
        lambda x, axis: np.round(np.mean(x, axis), 12),
        n_resamples=10_000,
        rng=np.random.default_rng(0),
    )
    low, high = expected.confidence_interval
    assert row["standard_error"] == f"{expected.standard_error:.6g}"
    assert (row["ci_low"], row["ci_high"]) == (f"{low:.6g}", f"{high:.6g}")
    # Nothing was trained twice: what one more training might have is not known.
    assert (row["verdict"], row["limit"], row["p_same"]) == ("undecided", "", "")


def make_dice(results, loss, means, **more):
    """Trainings whose Dice is the same in every case: seed 0, 1, ..."""
    for seed, mean in enumerate(means):
        make_run(results, loss, seed=seed, measures={"dice": [mean] * 4}, **more)


def test_limit_of_within_is_one_more_training(results):
    # Dice .802, .806: s = .004 / sqrt(2), one degree of freedom, two trainings. CE,
    # with one, has the same s: its limit is wider.
    make_dice(results, "DSC", (0.802, 0.806))
    make_dice(results, "CE", (0.75,))
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "table4.csv")
    row = one(rows, loss="DSC", metric="dice")
    limit = 12.7062 * 0.004 / math.sqrt(2) * math.sqrt(1 + 1 / 2) + 0.0005
    assert float(row["limit"]) == pytest.approx(limit, rel=1e-5)
    # .798, .795 and .808 are all less than .0445 from .804.
    assert (row["verdict"], row["others_within"]) == ("within", "3 of 3")
    row = one(rows, loss="CE", metric="dice")
    limit = 12.7062 * 0.004 / math.sqrt(2) * math.sqrt(2) + 0.0005
    assert float(row["limit"]) == pytest.approx(limit, rel=1e-5)
    assert (row["difference"], row["verdict"]) == ("-0.048", "within")
    # Two one-sided tests of +-.01 about 0, t(1) = 2.886751 for .01 over the error.
    row = one(rows, loss="DSC", metric="dice")
    error = 0.004 / math.sqrt(2) * math.sqrt(1.5)
    expected = stats.t.sf(0.01 / error, df=1)
    assert float(row["p_same"]) == pytest.approx(expected, rel=1e-5)


def test_the_spread_of_nll_is_relative_and_pooled(results):
    # DSC .18 and .22 (s = .0282843, of .2: .141421), DSC++ .045 and .055, of .05 the
    # same: pooled .141421 with two degrees of freedom.
    for loss, means in (("DSC", (0.18, 0.22)), ("DSC++", (0.045, 0.055))):
        for seed, mean in enumerate(means):
            gamma = 2.0 if loss == "DSC++" else None
            make_run(results, loss, [mean] * 4, seed=seed, gamma=gamma)
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "table4.csv")
    for loss, mean in (("DSC", 0.2), ("DSC++", 0.05)):
        row = one(rows, loss=loss, metric="nll_published")
        limit = 4.302653 * 0.141421356 * mean * math.sqrt(1.5) + 0.0005
        assert float(row["limit"]) == pytest.approx(limit, rel=1e-5)
        error = 0.141421356 * mean / math.sqrt(2)
        assert float(row["standard_error"]) == pytest.approx(error, rel=1e-5)
        reach = float(row["ci_high"]) - mean
        assert reach == pytest.approx(4.302653 * error, rel=1e-4)


def test_other_images_add_the_errors_over_cases(results):
    # One training of each of two cases' worth: s = 0, so the errors over cases alone
    # decide, with t(1) for the seeds' degree of freedom.
    for seed in (0, 1):
        run = {"dataset": "dsb2018", "title": "2018DSB", "targets": ("nucleus",)}
        dice = {"dice": (0.90, 0.92, 0.94, 0.96)}
        make_run(results, "DSC", seed=seed, measures=dice, **run)
    pages.Report(results).write()
    rows = read(results / "dsb2018" / "paper" / "table4.csv")
    row = one(rows, loss="DSC", metric="dice")
    # The bootstrap's error of the mean, and the printed .006.
    error = math.hypot(float(row["standard_error"]), 0.006)
    assert float(row["limit"]) == pytest.approx(12.7062 * error + 0.0005, rel=1e-4)


def test_verdicts_outside_and_not_run(results):
    make_dice(results, "DSC", (0.770, 0.772, 0.771))
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "table4.csv")
    # s = .001, t(2) = 4.303: .033 off is more than .0055.
    assert one(rows, loss="DSC", metric="dice")["verdict"] == "outside"
    missing = one(rows, loss="CE", metric="dice")
    assert missing["verdict"] == "not run"
    assert missing["published"] == "0.798"
    for column in ("mean", "standard_error", "difference", "n", "seeds"):
        assert missing[column] == ""
    # A loss that was not run has its published cells and no empty corrected ones.
    assert [row["metric"] for row in rows if row["loss"] == "CE"] == [
        "nll_published",
        "brier_published",
        "dice",
        "jaccard",
    ]


def test_cases_without_the_class_are_counted(results):
    nan = float("nan")
    run = make_run(results, "DSC", measures={"dice": (0.5, 0.7, 0, nan)})
    make_run(results, "CE", measures={"dice": (0.5, 0.7, nan, nan)})
    for path in results.glob("*/*/runs/*/histograms.npz"):
        found = dict(np.load(path))
        found["counts"][np.isin(found["case"], CASES[2:]), 1] = 0
        np.savez(path, **found)
    (page,) = (report := pages.Report(results)).pages
    report.write()
    for name in ("table.csv", "table4.csv"):
        rows = read(run.parents[1] / name)
        found = {r["loss"]: (r["n"], r["n_with_class"]) for r in rows
                 if r["metric"] == "dice" and r["n"]}  # fmt: skip
        assert found == {"DSC": ("3", "2"), "CE": ("2", "2")}
    assert "Only 2 of 4 test images have vessel in the label map." in page.markdown()
    missing = one(rows, loss="Focal", metric="dice")
    assert (missing["verdict"], missing["n_with_class"]) == ("not run", "")


def test_a_mean_over_fewer_images_of_another_set_says_so(results):
    nan = float("nan")
    dice = {"dice": (0.5, 0.7, nan, nan), "jaccard": (0.4, nan, nan, nan)}
    run = make_run(results, "DSC", measures=dice)
    rows = pd.read_csv(run / "cases.csv")
    kept = rows["reference"].eq("observer1") & rows["split"].eq("test")
    rows[kept].to_csv(run / "cases.csv", index=False)
    (said,) = tables.set_summary(run / "cases.csv")
    assert "dice 0.600 ± 0.07" in said and " (of 2), jaccard 0.400 (of 1)" in said
    assert said.endswith(" (4 images)")


def test_corrected_metrics_are_listed_with_the_published(results):
    make_run(results, "DSC", measures={"nll": (0.25, 0.35, 0.45, 0.15)})
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "table4.csv")
    own = [row for row in rows if row["loss"] == "DSC"]
    assert [row["metric"] for row in own] == list(metrics.METRICS)
    corrected = one(own, metric="nll")
    assert corrected["mean"] == "0.3"
    for column in ("published", "published_se", "difference", "verdict", "direction"):
        assert corrected[column] == ""


def test_every_published_drive_cell_has_one_row(results):
    make_run(results, "CE")
    pages.Report(results).write()
    for table, cells in {"table3": 40, "table4": 16, "table6": 32}.items():
        rows = read(results / "drive" / "paper" / f"{table}.csv")
        published = [row for row in rows if row["published"]]
        assert len(published) == cells
        keys = {(row["loss"], row["gamma"], row["metric"]) for row in published}
        assert len(keys) == cells


def test_table3_gamma_goes_to_its_own_row(results):
    make_run(results, "DSC++", PLUS_NLL, gamma=2.5)
    make_run(results, "DSC++", DSC_NLL, gamma=2.0)
    make_run(results, "DSC++", DSC_NLL, gamma=2.75)
    pages.Report(results).write()
    folder = results / "drive" / "paper"
    rows = read(folder / "table3.csv")
    found = one(rows, gamma="2.5", metric="nll_published")
    assert (found["mean"], found["published"]) == ("0.05", "0.038")
    assert one(rows, gamma="2", metric="nll_published")["mean"] == "0.3"
    assert one(rows, gamma="3", metric="nll_published")["verdict"] == "not run"
    row4 = one(read(folder / "table4.csv"), loss="DSC++", metric="nll_published")
    assert (row4["mean"], row4["gamma"]) == ("0.3", "2")
    # The paper has no gamma 2.75: nothing at hand is lost in silence.
    for name in ("table.csv", "thresholds.csv"):
        keys = {(row["loss"], row["gamma"]) for row in read(folder / name)}
        assert keys == {("DSC++", "2"), ("DSC++", "2.5"), ("DSC++", "2.75")}


def test_misprinted_error_is_shown_but_not_judged_by(results):
    make_run(results, "DSC++", gamma=1.0)
    make_run(results, "DSC++", gamma=2.0)
    pages.Report(results).write()
    path = results / "drive" / "paper" / "table3.csv"
    row = one(read(path), gamma="1", metric="jaccard")
    assert row["published_se"] == "0.05"
    cells = published.Paper(published.paper_folder(results)).cells
    found = cells[cells["table"].eq("table3") & cells["standard_error"].eq(0.05)]
    assert list(found["judged_error"]) == [0.005, 0.005]


def test_the_plain_loss_is_the_papers_gamma_1(results):
    make_run(results, "DSC", DSC_NLL)
    pages.Report(results).write()
    folder = results / "drive" / "paper"
    nll = one(read(folder / "table3.csv"), gamma="1", metric="nll_published")
    same = one(read(folder / "table4.csv"), loss="DSC", metric="nll_published")
    assert nll["mean"] == same["mean"] != ""
    assert (nll["published"], same["published"]) == ("0.204", "0.204")


def test_reduced_preset_is_judged_on_direction(results):
    make_run(results, "DSC", DSC_NLL, preset="reduced")
    make_run(results, "DSC++", PLUS_NLL, gamma=2.0, preset="reduced")
    brier = {"brier_published": (0.02, 0.02, 0.03, 0.03)}
    make_run(results, "CE", PLUS_NLL, preset="reduced", measures=brier)
    pages.Report(results).write()
    rows = read(results / "drive" / "reduced" / "table4.csv")
    assert {r["verdict"] for r in rows if r["published"]} == {"reduced", "not run"}
    # Paper: DSC .204 above DSC++ .041; ours: .30 above .05.
    assert one(rows, loss="DSC", metric="nll_published")["direction"] == "same"
    assert one(rows, loss="DSC++", metric="nll_published")["direction"] == "same"
    # Dice: .804 +- .003 and .808 +- .003 are no direction to judge by.
    assert one(rows, loss="DSC", metric="dice")["direction"] == ""
    # Paper: DSC .031 above DSC++ .024 in Brier; ours are equal.
    assert one(rows, loss="DSC", metric="brier_published")["direction"] == "opposite"


def test_direction_over_gamma_and_with_a_missing_partner(results):
    make_run(results, "DSC++", DSC_NLL, gamma=0.5)
    pages.Report(results).write()
    path = results / "drive" / "paper" / "table3.csv"
    assert one(read(path), gamma="0.5", metric="nll_published")["direction"] == ""
    make_run(results, "DSC++", PLUS_NLL, gamma=2.0)
    pages.Report(results).write()
    assert one(read(path), gamma="0.5", metric="nll_published")["direction"] == "same"


def test_several_seeds_by_hand():
    # Case means .2 .2 .2 .2: no spread over cases; seed means .1 .2 .3.
    values = np.array([[0.1] * 4, [0.2] * 4, [0.3] * 4])
    found = estimates.estimate(values)
    assert found.mean == pytest.approx(0.2)
    # s = .1, over sqrt(3) seeds.
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(3))
    # Student's t for two degrees of freedom, 97.5 %: 4.303.
    assert found.ci_high - found.mean == pytest.approx(
        4.303 * 0.1 / math.sqrt(3), rel=1e-3
    )
    assert (found.n, found.seeds, found.n_undefined) == (4, 3, 0)


def test_seed_and_case_errors_add_in_squares():
    values = np.array([[0.1, 0.2, 0.4, 0.5], [0.2, 0.3, 0.5, 0.6]])
    cases = estimates.estimate(values.mean(axis=0, keepdims=True))
    both = estimates.estimate(values)
    seed_error = math.sqrt(0.005) / math.sqrt(2)  # seed means .3 and .4
    assert both.mean == pytest.approx(0.35)
    assert both.standard_error == pytest.approx(
        math.sqrt(cases.standard_error**2 + seed_error**2)
    )


def test_a_ratio_of_means_over_the_same_cases():
    # Every a is half of its b: no spread over cases, whatever that of each is.
    none = estimates.Spread(0.0, 2, relative=True)
    b = np.array([[0.1, 0.2, 0.6], [0.3, 0.2, 0.7]])
    found = estimates.contrast(b / 2, b, [none] * 2, ratio=True)
    assert (found.mean, found.ci_low, found.ci_high) == pytest.approx((0.5, 0.5, 0.5))
    # Undefined for one of the two: the case is left out of both. 0.3 over 0.6.
    a = np.array([[0.1, 0.2, 0.9]])
    found = estimates.contrast(a, [[0.2, 0.4, np.nan]], [none] * 2, ratio=True)
    assert (found.mean, found.n) == (pytest.approx(0.5), 2)
    # One and two trainings of equal cases that differ by 10 %, two degrees of freedom.
    spread = estimates.Spread(0.1, 2, relative=True)
    found = estimates.contrast([[1.0] * 3], [[2.0] * 3] * 2, [spread] * 2, ratio=True)
    error = 0.1 * math.sqrt(1 + 1 / 2)
    assert found.ci_high == pytest.approx(0.5 * math.exp(4.302653 * error), rel=1e-6)
    assert found.p == pytest.approx(2 * stats.t.sf(math.log(2) / error, 2))


def test_a_contrast_by_hand():
    # Differences .02 .04 .06 .08 of cases: mean .05, s = .0258199, SE .0129099, three
    # degrees of freedom; seeds: s = .01, two and one of them, four degrees.
    b = np.array([0.5, 0.6, 0.7, 0.8])
    a = b + np.array([0.02, 0.04, 0.06, 0.08])
    spread = estimates.Spread(0.01, 4)
    found = estimates.contrast([a], [b, b], [spread] * 2)
    cases, trained = 0.0129099445, 0.01 * math.sqrt(1.5)
    error = math.hypot(cases, trained)
    # One pooled spread in both: four degrees of freedom, not eight.
    df = error**4 / (cases**4 / 3 + trained**4 / 4)
    assert (found.mean, found.df) == pytest.approx((0.05, df))
    reach = stats.t.ppf(0.975, df) * error
    assert (found.ci_low, found.ci_high) == pytest.approx((0.05 - reach, 0.05 + reach))
    assert found.p == pytest.approx(2 * stats.t.sf(0.05 / error, df))
    # Schuirmann's two tests against +-.1: the nearer limit decides.
    margin = estimates.Margin(-0.1, 0.1, "")
    assert found.p_same(margin) == pytest.approx(stats.t.sf(0.05 / error, df))
    assert found.p_same(estimates.Margin(-0.05, 0.05, "")) == pytest.approx(0.5)
    # Of the same trainings the spread is that of the difference: s / sqrt(1).
    found = estimates.contrast([a], [b], [spread])
    assert found.standard_error == pytest.approx(math.hypot(cases, 0.01))
    # The scaled form of a loss has a spread of its own.
    found = estimates.contrast([a], [b], [estimates.Spread(0.03, 2), spread])
    assert found.standard_error == pytest.approx(math.hypot(cases, 0.03, 0.01))
    # Not known what seeds differ by: no interval, and no p.
    found = estimates.contrast([a], [b], [estimates.Spread(math.nan, 0)] * 2)
    assert math.isnan(found.p) and math.isnan(found.p_same(margin))
    assert math.isnan(found.ci_low) and found.mean == pytest.approx(0.05)


def test_losses_with_three_seeds_have_their_own_spread():
    """No error over cases: Welch's test over the means of the seeds, as in scipy."""
    a, b = (0.50, 0.51, 0.55), (0.60, 0.61, 0.605, 0.6)
    each = [np.repeat(np.array(one)[:, np.newaxis], 20, axis=1) for one in (a, b)]
    # The pooled spread is not asked.
    found = estimates.contrast(*each, [estimates.Spread(9.0, 7)] * 2)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert (found.p, found.df) == pytest.approx((expected.pvalue, expected.df))
    # A loss with two seeds has the pooled one; both depend on each other, so the
    # degrees of freedom are no more than (sum of v)^2 / (sum of v / sqrt(df))^2.
    found = estimates.contrast(each[0], each[1][:2], [estimates.Spread(0.01, 7)] * 2)
    parts = np.var(a, ddof=1) / 3, 0.01**2 / 2
    assert found.standard_error == pytest.approx(math.sqrt(sum(parts)))
    bound = (parts[0] / math.sqrt(2) + parts[1] / math.sqrt(7)) ** 2
    assert found.df == pytest.approx(sum(parts) ** 2 / bound)


def test_equivalence_equals_statsmodels():
    from statsmodels.stats.weightstats import DescrStatsW

    values = np.random.default_rng(0).normal(0.004, 0.01, 25)
    none = estimates.Spread(0.0, 3)
    found = estimates.contrast([values], [values * 0], [none] * 2)
    expected = DescrStatsW(values).ttost_mean(-0.01, 0.01)[0]
    assert found.p_same(estimates.MARGINS["dice"]) == pytest.approx(expected)
    assert found.p == pytest.approx(DescrStatsW(values).ttest_mean(0)[1])


def test_two_seeds_in_the_table(results):
    make_run(results, "DSC", DSC_NLL, seed=0)
    make_run(results, "DSC", [value + 0.1 for value in DSC_NLL], seed=7)
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "table4.csv")
    row = one(rows, loss="DSC", metric="nll_published")
    assert (row["mean"], row["n"], row["seeds"]) == ("0.35", "4", "2")


def test_undefined_values_are_left_out_and_counted(results):
    nan = float("nan")
    first = {"precision": (nan, 0.2, 0.4, nan), "recall": (nan,) * 4}
    second = {"precision": (0.6, 0.4, 0.4, nan), "recall": (nan,) * 4}
    make_run(results, "DSC", measures=first, seed=0)
    make_run(results, "DSC", measures=second, seed=1)
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "table4.csv")
    row = one(rows, loss="DSC", metric="precision")
    # Case means .6, .3, .4 and none.
    assert (row["n"], row["n_undefined"]) == ("3", "3")
    assert float(row["mean"]) == pytest.approx(1.3 / 3, abs=1e-6)
    row = one(rows, loss="DSC", metric="recall")
    assert (row["mean"], row["n"], row["n_undefined"]) == ("", "0", "8")


_HUNDREDTHS = st.integers(0, 100).map(lambda value: value / 100)


@given(
    st.lists(
        st.lists(_HUNDREDTHS | st.just(float("nan")), min_size=5, max_size=5),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=25, deadline=None)
def test_estimate_interval_holds_the_mean(values):
    found = estimates.estimate(np.array(values))
    assert found.n <= 5
    if found.n >= 2:
        assert found.ci_low - 1e-12 <= found.mean <= found.ci_high + 1e-12
        assert found.standard_error >= 0


def test_measures_of_another_set_that_were_changed_are_refused(results):
    run = make_run(results, "DSC")
    other = run / "other-sets" / "clinic"
    other.mkdir(parents=True)
    path = shutil.copy(run / "cases.csv", other / "cases.csv")
    runs.write_json(other / "set.json", {"files": {"cases.csv": file_hash(path)}})
    assert "other-sets.csv" in pages.Report(results).pages[0].files
    path.write_text(path.read_text().replace("0.1", "0.7", 1))
    with pytest.raises(InputError, match=r"clinic/cases\.csv: .*found another"):
        _ = pages.Report(results).pages[0].files
    for wrong in ("x", {"cases.csv": 1}, ["cases.csv"], None):
        runs.write_json(other / "set.json", {"files": wrong})
        with pytest.raises(InputError, match=r"set\.json: .* \(files"):
            _ = pages.Report(results).pages[0].files


def test_number_of_compared_pairs_of_trainings_is_limited(results, monkeypatch):
    monkeypatch.setattr(tables, "_MOST_PAIRS", 2)
    for seed in range(4):
        make_run(results, "DSC", np.add(DSC_NLL, seed / 100), seed=seed)
    study = pages.Report(results).pages[0].study
    # Pairs 0, 3 of (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3).
    _, of = tables.same_loss(study, "vessel", "nll_published", "signed_rank")
    assert of == 2


def test_phantom_table_has_no_published_values(results):
    shared = {"dataset": "phantom", "preset": "demo", "simulated": True}
    # Even a phantom that is called DRIVE is not compared with the paper.
    make_run(results, "DSC", DSC_NLL, **shared)
    make_run(results, "CE", PLUS_NLL, **shared)
    make_run(results, "DSC++", PLUS_NLL, gamma=2.0, **shared)
    written = pages.Report(results).write()
    assert [path.name for path in written] == ["table.csv", *ALWAYS]
    rows = read(written[0])
    assert list(dict.fromkeys(row["loss"] for row in rows)) == ["CE", "DSC", "DSC++"]
    assert tuple(rows[0]) == tables.COLUMNS["ours"]
    assert (
        "PHANTOM (simulated)"
        in pages.Page(frame.open_study(results / "phantom" / "demo")).text()
    )


@pytest.mark.slow
def test_tables_of_one_data_set_leave_the_others_alone(results, capsys):
    """What `dscpp demo` calls: no table of the paper is written, no count printed."""
    make_run(results, "DSC", DSC_NLL)
    make_run(results, "DSC", DSC_NLL, dataset="phantom", preset="demo", simulated=True)
    before = set(results.rglob("*.csv"))
    chosen = ["tables", "--results", str(results), "--dataset", "phantom"]
    assert cli.main([*chosen, "--preset", "demo"]) == 0
    made = set(results.rglob("*.csv")) - before
    assert {path.parent for path in made} == {results / "phantom" / "demo"}
    said = capsys.readouterr().out
    assert "PHANTOM (simulated)" in said
    counts = pages.Report(results).counts()
    assert counts not in said and "table3.csv" not in said
    assert cli.main(["tables", "--results", str(results), "--dataset", "drive"]) == 0
    assert (results / "table3.csv").is_file()
    assert counts in capsys.readouterr().out
    assert cli.main([*chosen, "--preset", "paper"]) == 2
    assert "expected evaluated runs in phantom/paper" in capsys.readouterr().err


@pytest.mark.slow
def test_tests_csv_against_scipy(results):
    make_run(results, "DSC", DSC_NLL)
    make_run(results, "DSC++", PLUS_NLL, gamma=2.0)
    make_run(results, "CE", (0.06, 0.05, 0.07, 0.09))
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "tests.csv")
    assert tuple(rows[0]) == tables.COLUMNS["tests"]
    # Three pairs, six metrics, two tests.
    assert len(rows) == 3 * 6 * 2
    pair = {"loss_a": "DSC", "loss_b": "DSC++", "metric": "nll_published"}
    assert {(r["gamma_a"], r["gamma_b"]) for r in rows if r["loss_b"] == "DSC++"} == {
        ("", "2")
    }
    row = one(rows, test="rank_sum", **pair)
    # 4 against 4, fully separated: z = 8 / sqrt(4 * 4 * 9 / 12) = 2.3094.
    assert float(row["statistic"]) == pytest.approx(2.3094, abs=1e-4)
    assert float(row["p"]) == pytest.approx(math.erfc(2.3094 / math.sqrt(2)), rel=1e-3)
    row = one(rows, test="signed_rank", **pair)
    # All four differences of one sign: 2 / 2^4.
    assert (row["statistic"], row["p"], row["n"]) == ("0", "0.125", "4")
    # Holm by hand over the three pairs of this metric and test: CE against DSC .125,
    # CE against DSC++ differences .02 .0 .04 .01 (the zero is dropped): 2 / 2^3 = .25.
    family = [r for r in rows if r["test"] == "signed_rank"]
    family = [r for r in family if r["metric"] == "nll_published"]
    assert [r["p"] for r in family] == ["0.125", "0.25", "0.125"]
    assert [r["p_holm"] for r in family] == ["0.375", "0.375", "0.375"]
    assert {r["same_loss"] for r in rows} == {""}


def test_tests_between_trainings_of_one_loss_are_counted(results):
    # Three trainings of DSC: two are equal, the third is above both in every case.
    # Four against four, fully separated, has a rank-sum p of .02; the signed-rank test
    # of four pairs of unlike size is never below .125.
    for seed, more in enumerate((0, 0, 1)):
        nll = [value * (1 + more * 9) for value in DSC_NLL]
        make_run(results, "DSC", nll, seed=seed)
    make_run(results, "CE", PLUS_NLL)
    studied = frame.open_study(results / "drive" / "paper")
    given = (studied, "vessel", "nll_published")
    assert tables.same_loss(*given, "rank_sum") == (2, 3)
    assert tables.same_loss(*given, "signed_rank") == (0, 3)
    (row,) = (
        row
        for row in tables.comparisons(studied).to_dict("records")
        if (row["metric"], row["test"]) == ("nll_published", "rank_sum")
    )
    assert row["same_loss"] == "2 of 3"


def test_thresholds_by_hand(results):
    # The other seed has one more false positive (p = .97) in every case.
    make_run(results, "DSC++", gamma=2.0, seed=0)
    make_run(results, "DSC++", gamma=2.0, seed=1, shift=(1, 1, 1, 1))
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "thresholds.csv")
    assert tuple(rows[0]) == tables.COLUMNS["thresholds"]
    assert len(rows) == 19 * 3
    row = one(rows, threshold="0.8", metric="precision")
    # TP 3, FP 1 and 2: 3/4 and 3/5, mean .675.
    assert row["mean"] == "0.675"
    assert one(rows, threshold="0.8", metric="recall")["mean"] == "0.75"
    # At 0.2: TP 4, FP 2 and 3, FN 0: 8/10 and 8/11.
    row = one(rows, threshold="0.2", metric="dice")
    assert float(row["mean"]) == pytest.approx((8 / 10 + 8 / 11) / 2, abs=1e-6)
    # At 0.9 the first seed predicts nothing: its precision is undefined, left out.
    assert one(rows, threshold="0.9", metric="precision")["mean"] == "0"


def test_second_run_gives_the_same_bytes(results):
    make_run(results, "DSC", DSC_NLL)
    make_run(results, "DSC++", PLUS_NLL, gamma=2.0)
    first = {path: path.read_bytes() for path in pages.Report(results).write()}
    estimates.over_cases.cache_clear()  # Drawn anew, as another process would.
    second = {path: path.read_bytes() for path in pages.Report(results).write()}
    assert first == second
    for content in first.values():
        assert b"\r" not in content and b"nan" not in content
        assert content.endswith(b"\n")
    leftovers = [p for p in (results / "drive" / "paper").iterdir() if p.name[0] == "."]
    assert leftovers == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("split", {"training": ["21"], "validation": ["38"], "test": list(CASES)}),
        ("data_hash", "b" * 64),
        ("settings", {"filters": 16}),
    ],
)
def test_runs_on_other_data_are_not_joined(results, key, value):
    a = make_run(results, "DSC", DSC_NLL)
    b = make_run(results, "DSC++", PLUS_NLL, gamma=2.0, **{key: value})
    with pytest.raises(InputError) as error:
        pages.Report(results).write()
    assert str(a) in str(error.value) and str(b) in str(error.value)
    assert not (results / "drive" / "paper" / "table4.csv").exists()


def test_verdicts_rest_on_runs_of_clean_commits_alone(results, capsys):
    make_run(results, "DSC", DSC_NLL)
    for number, commit in enumerate(["c" * 40 + "+", ""], 1):
        make_run(results, "DSC", PLUS_NLL, seed=number, commit=commit)
    studied = frame.open_study(results / "drive" / "paper")
    (variant,) = studied.runs
    assert studied.seeds(variant) == (0,)
    first, *_ = frame.left_out_of(results)
    assert "dsc-s1: expected commits without changes, found 'ccc" in first
    assert cli.main(["tables", "--results", str(results)]) == 0
    said = capsys.readouterr().err
    assert all(f"left out: {results}/drive/paper/runs/dsc-s{n}:" in said for n in "12")


def test_a_smaller_preset_names_runs_of_changed_code(results):
    make_run(results, "DSC", DSC_NLL, preset="reduced", commit="c" * 40 + "+")
    make_run(results, "CE", DSC_NLL, preset="reduced")
    (page,) = pages.Report(results).pages
    assert "so not exactly repeatable: dsc-s0." in page.text()


def test_replicates_are_averaged_and_do_not_count_as_seeds(results):
    # DSC was trained twice with seed 0, DSC++ with another replicate of that seed.
    make_run(results, "DSC", DSC_NLL)
    make_run(results, "DSC", PLUS_NLL, name="dsc-s0.r2", replicate=2)
    make_run(results, "DSC++", PLUS_NLL, name="dscpp-s0.r3", replicate=3)
    studied = frame.open_study(results / "drive" / "paper")
    dsc, plus = Variant("DSC"), Variant.standard("DSC++")
    measured = studied.measures(dsc, "vessel", "nll_published")
    assert measured == pytest.approx((np.array([DSC_NLL]) + np.array([PLUS_NLL])) / 2)
    assert studied.seeds(dsc) == (0,)
    assert studied.trainings(dsc) == [(0, 1), (0, 2)]
    # Paired by seed, whichever the replicates; a scaled run with its own training.
    ours, others = studied.paired(dsc, plus, "vessel", "nll_published")
    assert ours == pytest.approx(measured)
    assert others == pytest.approx(np.array([PLUS_NLL]))
    # What seeds differ by is not known: nothing is decided.
    assert training_spread(studied, "vessel", "nll_published").df == 0
    make_run(results, "DSC", DSC_NLL, seed=1)
    scaling = {"method": "temperature", "posthoc": {"temperature": 3.5}}
    make_run(results, "DSC", PLUS_NLL, name="dsc-s0-t", **scaling)
    studied = frame.open_study(results / "drive" / "paper")
    scaled = Variant("DSC", None, "temperature")
    before, after = studied.paired(dsc, scaled, "vessel", "nll_published")
    assert before == pytest.approx(np.array([DSC_NLL]))
    assert after == pytest.approx(np.array([PLUS_NLL]))
    # Two seeds, .175 and .3: s = .0883883 of their mean .2375, one degree of freedom.
    spread = training_spread(studied, "vessel", "nll_published")
    assert spread == pytest.approx((0.0883883 / 0.2375, 1, True))
    found = estimated(studied, dsc, "vessel", "nll_published")
    assert (found.mean, found.seeds) == (pytest.approx(0.2375), 2)
    # Dice at a threshold is averaged within the seed too.
    assert (
        estimated(
            studied, dataclasses.replace(dsc, threshold=0.5), "vessel", "dice"
        ).seeds
        == 2
    )


def test_scaled_replicates_are_counted_for_each_backend(results):
    scaling = {"method": "temperature", "posthoc": {"temperature": 3.5}}
    # TensorFlow has the most runs, so it is the usual backend.
    for loss in ("CE", "DSC", "Focal", "DSC++", "Tversky", "Combo", "Combo++"):
        make_run(results, loss, DSC_NLL)
    for number, nll in ((1, DSC_NLL), (2, PLUS_NLL)):
        for more in ({}, scaling):
            name = f"dsc-s0.r{number}-torch" + "-temperature" * bool(more)
            options = {"replicate": number, "backend": "torch", "name": name}
            make_run(results, "DSC", nll, **options, **more)
    for more in ({}, scaling):
        name = "dscpp-g2.5-s0-torch" + "-temperature" * bool(more)
        options = {"gamma": 2.5, "backend": "torch", "name": name}
        make_run(results, "DSC++", PLUS_NLL, **options, **more)
    (page,) = pages.Report(results).pages
    topic = page.topic("temperature")
    assert "| DSC [torch] | 1 (2 trainings) |" in topic
    assert "| DSC++ g=2.5 [torch] | 1 |" in topic


def test_pages_name_seeds_and_replicates(results):
    make_run(results, "DSC", DSC_NLL)
    make_run(results, "DSC", PLUS_NLL, name="dsc-s0.r2", replicate=2)
    make_run(results, "DSC", DSC_NLL, seed=1)
    make_run(results, "DSC++", PLUS_NLL, gamma=2.0)
    (page,) = pages.Report(results).pages
    text = page.text()
    assert "preset paper, 2 seeds (0, 1) and 1 replicate, 4 test images" in text
    names = {line.split("  ")[0] for line in text.splitlines()}
    assert {"DSC (3 trainings)", "DSC++ (seed 0)"} <= names


def test_bit_identical_training_counts_once(results):
    for number in (1, 2, 3):
        nll = PLUS_NLL if number == 3 else DSC_NLL
        run = make_run(results, "DSC", nll, name=f"dsc-s0.r{number}", replicate=number)
        record = json.loads((run / "run.json").read_text())
        record["files"] = {"cases.csv": file_hash(run / "cases.csv")}
        (run / "run.json").write_text(json.dumps(record))
    studied = frame.open_study(results / "drive" / "paper")
    assert studied.trainings(Variant("DSC")) == [(0, 1), (0, 3)]


def test_a_run_of_another_preset_is_not_joined(results):
    make_run(results, "DSC", DSC_NLL)
    make_run(results, "CE", PLUS_NLL, preset="reduced", group="paper")
    with pytest.raises(InputError, match="share the preset, found reduced and paper"):
        pages.Report(results).write()


def test_overrides_are_in_no_table(results):
    make_run(results, "DSC", DSC_NLL)
    make_run(results, "CE", group="custom-0a1b2c3d", overrides={"epochs": 3})
    written = pages.Report(results).write()
    assert {path.parent.name for path in written} == {"paper", "results"}
    make_run(results, "CE", overrides={"epochs": 3})
    with pytest.raises(InputError, match="overrides"):
        pages.Report(results).write()


def make_own(results, loss="DSC", nll=DSC_NLL, *, epochs=None, **more):
    """A run of own images; with `epochs` it has other settings than the preset."""
    settings = {"epochs": epochs or 100, "filters": 16}
    group = f"reduced-epochs={epochs}" if epochs else "reduced"
    more = {"preset": "reduced", "group": group, "settings": settings} | more
    more |= {"overrides": {"epochs": epochs} if epochs else {}}
    own = {"dataset": "own-a", "title": "own-a", "gamma": 2.0 if "++" in loss else None}
    return make_run(results, loss, nll, **own, **more)


def test_own_images_have_tables_with_any_settings(results):
    """Runs with --epochs were in no table, as if there were a paper to compare with."""
    make_own(results, epochs=3)
    make_own(results, epochs=3, group="custom-0a1b2c3d")  # of before
    report = pages.Report(results)
    report.write()
    for group in ("custom-0a1b2c3d", "reduced-epochs=3"):
        rows = read(results / "own-a" / group / "table.csv")
        row = one(rows, loss="DSC", metric="nll_published")
        assert (row["mean"], row["n"]) == ("0.3", "4")
    text = report.pages[1].text()
    assert "own-a, vessel, preset reduced (epochs=3), seed 0, 4 test images" in text
    assert "not the paper's protocol" not in text and "claims.csv" not in text


def test_runs_with_other_settings_are_joined_by_name(results, tmp_path, capsys):
    folders = [make_own(results), make_own(results, "DSC++", PLUS_NLL, epochs=3)]
    folders.append(make_own(results, "DSC", PLUS_NLL, epochs=9))
    unfinished = make_own(results, "CE", epochs=3, state="trained")
    output = tmp_path / "joined"
    named = [*map(str, folders), str(unfinished)]
    assert cli.main(["tables", *named, "--output", str(output)]) == 0
    said = capsys.readouterr()
    assert f"left out: {unfinished}" in said.err
    assert "DSC [epochs=9]" in said.out and str(output / "table.csv") in said.out
    rows = read(output / "table.csv")
    found = {
        row["loss"]: row["mean"] for row in rows if row["metric"] == "nll_published"
    }
    assert found == {"DSC": "0.3", "DSC [epochs=9]": "0.05", "DSC++ [epochs=3]": "0.05"}
    assert len(read(output / "tests.csv")) == 3 * 2 * 6  # pairs, tests, metrics
    # The folders of the same runs, and a run of the same name elsewhere.
    groups = [str(folder.parents[1]) for folder in folders]
    assert cli.main(["tables", *groups, "--output", str(output)]) == 0
    assert read(output / "table.csv") == rows


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": {"training": ["37"], "validation": ["21"], "test": list(CASES)}},
         "share the split"),
        ({"preprocessing": {"input_shape": [64, 64]}}, "share the preprocessing"),
        ({"data_hash": "b" * 64}, "share the data"),
        ({"preset": "paper"}, "share the preset"),
        ({"settings": {"epochs": 3, "filters": 8}}, "share the preset's settings"),
    ],
)  # fmt: skip
def test_own_runs_that_cannot_be_compared_are_refused(
    results, tmp_path, changed, message, capsys
):
    make_own(results)
    make_own(results, "DSC++", epochs=3, **changed)
    named = [str(path) for path in sorted(results.glob("own-a/*"))]
    assert cli.main(["tables", *named, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_scaled_run_alone_is_no_table(results, capsys):
    scaling = {"method": "temperature", "posthoc": {"run": "dsc-s0", "temperature": 2}}
    trained, scaled = make_own(results), make_own(results, **scaling)
    assert cli.main(["tables", str(scaled)]) == 2
    assert "runs/dsc-s0 too" in capsys.readouterr().err
    output = results.with_name("out")
    both = ["tables", str(trained), str(scaled), "--output", str(output)]
    assert cli.main(both) == 0
    assert {row["method"] for row in read(output / "table.csv")} == {"", "temperature"}


def test_runs_of_the_paper_with_overrides_are_joined_by_no_name(results, capsys):
    run = make_run(results, "CE", group="custom-0a1b2c3d", overrides={"epochs": 3})
    assert cli.main(["tables", str(run)]) == 2
    assert "in no table" in capsys.readouterr().err


def test_own_images_need_no_clean_commit(results):
    """Without git, or with changes, runs at the default preset were left out."""
    make_own(results, preset="paper", group="paper", commit="")
    assert frame.left_out_of(results) == []
    pages.Report(results).write()
    assert (results / "own-a" / "paper" / "table.csv").is_file()


def test_runs_are_listed_with_their_measures(results, tmp_path, capsys):
    run = make_own(results, measures={"nll": (0.1, 0.2, 0.3, 0.8)}, targets=("a", "b"))
    make_own(results, "CE", state="trained")
    assert cli.main(["runs", "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert said.count("Dice 0.650, NLL 0.350") == 1  # of the test images alone
    elsewhere = run.rename(tmp_path / "elsewhere")
    assert cli.main(["runs", str(elsewhere)]) == 0
    line, _ = capsys.readouterr().out.splitlines()
    assert line.endswith(f"Dice 0.650, NLL 0.350    {elsewhere}")
    (elsewhere / "cases.csv").write_text("damaged")
    assert cli.main(["runs", str(elsewhere)]) == 0
    assert "measures damaged" in capsys.readouterr().out


def test_the_threshold_with_the_best_dice_on_validation(results, capsys):
    # Validation has 1 - p of `write_histograms`: .9 x4, .7, .15 false, .7, .15 x3 true.
    # Dice is 8 / 14 up to 0.15, 2 / 10 up to 0.7, then 0: 0.15 is nearest to 0.5.
    run = make_own(results, targets=("a", "b"))
    found = threshold.choose(runs.Run.open(run))
    assert (found.threshold, found.cases) == (0.15, 4)
    assert found.dice == pytest.approx(8 / 14)
    assert found.without == 9  # what make_run writes into validation rows of cases.csv
    assert "threshold 0.15: the best of 0.05 to 0.95, mean Dice 0.571" in str(found)
    assert "4 of 4 cases have foreground" in str(found)


def test_automatic_threshold_needs_an_evaluated_run(results, tmp_path, capsys):
    run = make_own(results, state="predicted")
    with pytest.raises(InputError, match=r"'evaluated', found 'predicted'"):
        stages.choose_threshold(run, "auto")
    (tmp_path / "net.keras").write_bytes(b"")
    command = ["predict", "--images", str(tmp_path), "--output", str(tmp_path / "o")]
    model = ["--model", str(tmp_path / "net.keras")]
    assert cli.main([*command, *model, "--threshold", "auto"]) == 2
    assert "found a network alone" in capsys.readouterr().err
    for wrong in ("0", "1", "nan", "best"):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*command, *model, "--threshold", wrong])
        assert "expected a number between 0 and 1, or auto" in capsys.readouterr().err
    assert stages.choose_threshold(run, 0.3) == 0.3
    found = histograms.load(run / "histograms.npz")
    empty = found.counts * np.array([1, 0])[:, None]  # nothing true
    empty[..., :] *= np.arange(empty.shape[-1]) < 1  # nothing predicted
    histograms.save(run / "histograms.npz", dataclasses.replace(found, counts=empty))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"state": "evaluated"}))
    with pytest.raises(InputError, match="validation cases with foreground"):
        stages.choose_threshold(run, "auto")


def test_unfinished_runs_are_left_out(results):
    make_run(results, "DSC", DSC_NLL)
    run = make_run(results, "CE", PLUS_NLL, state="training")
    (run / "cases.csv").unlink()
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "table4.csv")
    assert one(rows, loss="CE", metric="dice")["verdict"] == "not run"


def test_results_without_evaluated_runs_are_an_error(results):
    make_run(results, "CE", state="predicted")
    with pytest.raises(InputError, match="make demo"):
        pages.Report(results).write()


def test_other_backends_and_methods_have_rows_of_their_own(results):
    make_run(results, "DSC", DSC_NLL)
    make_run(results, "DSC", PLUS_NLL, backend="torch")
    scaling = {"method": "temperature", "posthoc": {"temperature": 3.5}}
    make_run(results, "DSC", PLUS_NLL, **scaling)
    pages.Report(results).write()
    folder = results / "drive" / "paper"
    row = one(read(folder / "table4.csv"), loss="DSC", metric="nll_published")
    assert (row["mean"], row["seeds"]) == ("0.3", "1")
    keys = [(row["loss"], row["method"]) for row in read(folder / "table.csv")]
    assert list(dict.fromkeys(keys)) == [
        ("DSC", ""), ("DSC [torch]", ""), ("DSC", "temperature"),
    ]  # fmt: skip
    # One loss of the main kind: no pairs, so a header alone.
    assert read(folder / "tests.csv") == []


@pytest.mark.slow
def test_losses_of_others_have_rows_and_no_part_in_verdicts(results):
    def written():
        pages.Report(results).write()
        paths = [results / "drive" / "paper", results]
        files = (path for folder in paths for path in folder.glob("*.csv"))
        return {
            path.relative_to(results).as_posix(): path.read_text() for path in files
        }

    for seed in (0, 1):
        make_run(results, "DSC", DSC_NLL, seed=seed)
        make_run(results, "CE", [*DSC_NLL[:3], 0.6 + seed], seed=seed)
    before = written()
    for seed in (0, 1):
        make_run(results, "NACL", [0.5 + seed, *PLUS_NLL[1:]], seed=seed)
    after = written()
    rows = ("table.csv", "calibration.csv", "reliability.csv", "practice.csv")
    rows += ("costs.csv", "settings.csv")
    changed = {name for name, text in after.items() if before.get(name) != text}
    assert changed <= {f"drive/paper/{name}" for name in rows}
    losses = [row["loss"] for row in read(results / "drive" / "paper" / "table.csv")]
    assert list(dict.fromkeys(losses)) == ["CE", "DSC", "NACL"]
    page = pages.Page(frame.open_study(results / "drive" / "paper")).text()
    assert [line for line in page.splitlines() if line.startswith("NACL ")]


def test_the_readable_table_names_the_seeds_of_each_loss(results):
    for seed in (0, 1):
        make_run(results, "DSC", DSC_NLL, seed=seed)
    make_run(results, "CE", DSC_NLL)
    scaling = {"method": "temperature", "posthoc": {"temperature": 3.5}}
    make_run(results, "CE", PLUS_NLL, seed=2, **scaling)
    lines = (
        pages.Page(frame.open_study(results / "drive" / "paper")).text().splitlines()
    )
    assert ", 2 seeds (0, 1), 4 test images" in lines[0]
    assert sum(line.startswith("CE (seed 0) ") for line in lines) == 1
    assert sum(line.startswith("DSC  ") for line in lines) == 1
    # What followed a training has a table of its own.
    assert not any("temperature" in line for line in lines)


def test_every_table_is_joined_by_the_same_columns(results):
    times = {"train_s": 60}
    make_run(results, "DSC", DSC_NLL, times=times)
    run = make_run(results, "DSC", PLUS_NLL, name="dsc-s0.r2", replicate=2, times=times)
    make_run(results, "DSC++", PLUS_NLL, gamma=2.75)
    make_run(results, "DSC", PLUS_NLL, backend="torch")
    scaling = {"method": "temperature", "posthoc": {"temperature": 3.5}}
    make_run(results, "DSC", PLUS_NLL, **scaling)
    (run / "other-sets" / "clinic").mkdir(parents=True)
    (run / "other-sets" / "clinic" / "cases.csv").write_text(
        (run / "cases.csv").read_text()
    )
    pages.Report(results).write()
    folder, keys = results / "drive" / "paper", list(published.KEYS)

    def table(name):
        return pd.read_csv(folder / name, dtype={"method": str})

    ours = table("table.csv")[keys].drop_duplicates()
    assert len(ours) == 4
    kind = {"method": ours["method"].dtype}
    both = table("tests.csv").assign(method=None).astype(kind)
    found = [both.rename(columns={f"{key}_{s}": key for key in keys}) for s in "ab"]
    names = ["table4.csv", "thresholds.csv", "calibration.csv", "reliability.csv"]
    names += ["costs.csv", "other-sets.csv", "temperature.csv"]
    for rows in [*found, *map(table, names)]:
        run = rows[rows["verdict"] != "not run"] if "verdict" in rows else rows
        assert len(run[keys].merge(ours, on=keys)) == len(run) > 0
    rows = read(folder / "costs.csv")
    assert [(r["loss"], r["seed"], r["replicate"]) for r in rows[:2]] == [
        ("DSC", "0", "1"), ("DSC", "0", "2"),
    ]  # fmt: skip


def test_torch_is_the_main_backend_where_it_is_the_only_one(results):
    make_run(results, "DSC", DSC_NLL, backend="torch")
    pages.Report(results).write()
    folder = results / "drive" / "paper"
    assert {row["loss"] for row in read(folder / "table.csv")} == {"DSC"}
    row = one(read(folder / "table4.csv"), loss="DSC", metric="nll_published")
    assert row["mean"] == "0.3"


def test_backend_with_most_runs_is_compared_with_the_paper(results):
    for seed in (0, 1):
        make_run(results, "DSC", DSC_NLL, seed=seed, backend="jax")
    make_run(results, "DSC", PLUS_NLL)
    pages.Report(results).write()
    folder = results / "drive" / "paper"
    found = {row["loss"] for row in read(folder / "table.csv")}
    assert found == {"DSC", "DSC [tensorflow]"}
    row = one(read(folder / "table4.csv"), loss="DSC", metric="nll_published")
    assert (row["mean"], row["seeds"]) == ("0.3", "2")


def test_two_targets_use_the_table_that_names_them(results):
    shared = {"dataset": "kits19", "title": "KiTS19"}
    make_run(results, "CE", targets=("kidney", "kidney tumour"), **shared)
    pages.Report(results).write()
    rows = read(results / "kits19" / "paper" / "table5.csv")
    row = one(rows, loss="CE", target="kidney tumour", metric="dice")
    assert (row["mean"], row["published"]) == ("0.65", "0.188")
    assert one(rows, loss="CE", target="kidney", metric="dice")["published"] == "0.896"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-4], "missing: ['04']"),
        (lambda rows: rows + rows[:1], "repeated: ['01']"),
        (lambda rows: rows + rows[2:3], "repeated: ['01']"),
        (lambda rows: [{**r, "dice": "good"} for r in rows], "could not convert"),
        (lambda rows: [{k: r[k] for k in r if k != "nll"} for r in rows], "column nll"),
    ],
)
def test_damaged_cases_are_named(results, change, message):
    path = make_run(results, "DSC") / "cases.csv"
    rows = change(read(path))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(InputError) as error:
        pages.Report(results).write()
    assert message in str(error.value) and "cases.csv" in str(error.value)


def test_edited_measures_are_refused(results):
    run = make_run(results, "DSC")
    record = json.loads((run / "run.json").read_text())
    record["files"] = {"cases.csv": file_hash(run / "cases.csv")}
    (run / "run.json").write_text(json.dumps(record))
    pages.Report(results).write()
    with (run / "cases.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match=r"cases\.csv: expected the file that run"):
        pages.Report(results).write()


def test_missing_cases_file(results):
    (make_run(results, "DSC") / "cases.csv").unlink()
    with pytest.raises(InputError, match="dscpp evaluate"):
        pages.Report(results).write()


def test_missing_cases_of_thresholds(results):
    run = make_run(results, "DSC")
    empty = histograms.Histograms.from_rows([])
    histograms.save(run / "histograms.npz", empty)
    with pytest.raises(InputError, match=r"histograms\.npz"):
        pages.Report(results).write()


@pytest.mark.parametrize(
    ("mean", "limit", "expected"),
    [
        (0.2098, 0.0098, "within"),
        (0.2099, 0.0098, "outside"),
        (0.1902, 0.0098, "within"),
        (0.1901, 0.0098, "outside"),
        (0.2, float("nan"), "undecided"),
        (float("nan"), float("nan"), "outside"),
    ],
)
def test_verdict_at_its_limits(mean, limit, expected):
    ours = estimates.Estimate(mean, 0.1, mean, mean, 20, 1, 0)
    assert tables.verdict("paper", ours, 0.2, limit) == expected
    assert tables.verdict("reduced", ours, 0.2, limit) == "reduced"


def test_published_values_as_printed(project):
    paper = published.Paper(project / "results" / "paper")
    cells = list(published.each_cell(paper.cells))
    # Table 3: 10 gammas; 4: 5 data sets x 4 losses; 5: 2 classes x 4; 6: 8 losses.
    assert len(cells) == 4 * (10 + 20 + 8 + 8)
    drive = [c for c in cells if c.dataset == "DRIVE" and c.table == "table4"]
    found = {(c.loss, c.metric): (c.value, c.standard_error) for c in drive}
    assert found["DSC++", "nll_published"] == (0.041, 0.003)
    assert found["CE", "jaccard"] == (0.664, 0.005)


@pytest.mark.parametrize("name", ["thresholds", "p_values"])
@pytest.mark.parametrize("content", [None, b"", b"dataset,loss\n", b"\xff\xfe\n"])
def test_published_figures_are_read_or_named(tmp_path, name, content):
    path = tmp_path / f"{name.replace('_', '')}.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path.name}: expected published values"):
        getattr(published.Paper(tmp_path), name)


def test_readable_table(results):
    make_run(results, "DSC", DSC_NLL, preset="reduced", seed=3)
    make_run(results, "DSC++", PLUS_NLL, gamma=2.0, preset="reduced", seed=3)
    shown = (
        pages.Page(frame.open_study(results / "drive" / "reduced")).text().splitlines()
    )
    assert shown[0].startswith("DRIVE, vessel, preset reduced, seed 3, 4 test images")
    assert "PHANTOM" not in shown[0]
    dsc = next(i for i, line in enumerate(shown) if line.startswith("DSC "))
    assert "0.300 ± 0.078" in shown[dsc]
    assert shown[dsc + 1].split()[:4] == ["paper", "0.204", "±", "0.013"]
    # With two classes the published Brier is the corrected one, so it stands under it.
    assert "0.031 ± 0.001" in shown[dsc + 1]
    p = next(line for line in shown if line.startswith("p signed-rank "))
    assert p.split()[2] == "0.125"
    # The paper prints p of its rank-sum test for NLL and Brier, and for no other.
    rank_sum = next(i for i, line in enumerate(shown) if line.startswith("p rank-sum"))
    assert shown[rank_sum + 1].split() == ["paper", "6e-08", "2e-07"]
    columns = [shown[2].index(name) + len(name) for name in ("NLL published", "Brier")]
    assert [shown[rank_sum + 1].index(p) + 5 for p in ("6e-08", "2e-07")] == columns
    assert any("DSC++ at threshold 0.8: precision 0.750" in line for line in shown)
    assert max(map(len, shown)) <= 130


def test_readable_table_of_one_loss_has_no_p(results):
    make_run(results, "CE")
    shown = pages.Page(frame.open_study(results / "drive" / "paper")).text()
    assert "rank" not in shown


def test_readme_is_rewritten_between_its_markers_only(results, tmp_path):
    make_run(results, "DSC", DSC_NLL, preset="reduced")
    make_run(results, "DSC", DSC_NLL)
    readme = tmp_path / "README.md"
    begin, end = "<!-- drive-reduced:begin -->", "<!-- drive-reduced:end -->"
    readme.write_text(f"before\n{begin}\nold \\1\n{end}\nafter\n")
    assert pages.Report(results).update(readme) == ["drive-reduced"]
    content = readme.read_text()
    table = pages.Page(frame.open_study(results / "drive" / "reduced")).markdown()
    assert content == f"before\n{begin}\n{table}\n{end}\nafter\n"
    assert "| DSC | 0.300 ± 0.078 |" in table
    before = readme.stat().st_mtime_ns
    assert pages.Report(results).update(readme) == ["drive-reduced"]
    assert readme.stat().st_mtime_ns == before


def test_readme_with_half_a_marker(results, tmp_path):
    make_run(results, "DSC")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- drive-paper:begin -->\n")
    with pytest.raises(InputError, match="drive-paper:end"):
        pages.Report(results).update(readme)
    with pytest.raises(InputError, match="README"):
        pages.Report(results).update(tmp_path / "no.md")


def test_tables_need_no_backend(project):
    """Nothing heavy is imported, so tables regenerate without TensorFlow."""
    code = (
        "import sys; from pipelines.reporting import pages; "
        "from pipelines.reporting.figures import curves, panels; "
        "heavy = {'keras', 'tensorflow', 'torch', 'jax', 'miscnn', 'matplotlib'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project)


def test_studies_are_sorted_and_skip_custom(results):
    make_run(results, "DSC", preset="reduced")
    make_run(results, "DSC")
    make_run(results, "DSC", group="custom-00000000")
    assert [study.folder for study in frame.studies(results)] == [
        results / "drive" / "paper",
        results / "drive" / "reduced",
    ]


def test_every_published_cell_is_once_in_the_overall_tables(results):
    make_run(results, "DSC", DSC_NLL)
    make_run(results, "DSC", PLUS_NLL, preset="reduced")
    make_run(results, "CE", PLUS_NLL, preset="reduced")
    make_run(results, "CE", PLUS_NLL, dataset="bus", title="BUS2017", simulated=True)
    pages.Report(results).write()
    keys = ("dataset", "loss", "gamma", "target", "metric")
    for name, cells in {"table3": 40, "table4": 80, "table5": 32, "table6": 32}.items():
        rows = read(results / f"{name}.csv")
        assert tuple(rows[0]) == tables.COLUMNS["over all"]
        assert len({tuple(row[key] for key in keys) for row in rows}) == cells
        assert all(row["published"] and row["published_se"] for row in rows)
        assert len(rows) == cells
    rows = read(results / "table4.csv")
    # The paper's preset comes before the reduced one, which comes before nothing.
    found = one(rows, dataset="DRIVE", loss="DSC", metric="nll_published")
    assert (found["preset"], found["mean"], found["verdict"]) == (
        "paper",
        "0.3",
        "undecided",
    )
    found = one(rows, dataset="DRIVE", loss="CE", metric="nll_published")
    assert (found["preset"], found["mean"], found["verdict"]) == (
        "reduced",
        "0.05",
        "reduced",
    )
    # Simulated images fill no cell, whatever they are called.
    away = [row for row in rows if row["dataset"] != "DRIVE"]
    assert {(row["preset"], row["mean"], row["verdict"]) for row in away} == {
        ("", "", "not run")
    }
    # Table 3 at gamma 1 is the same training.
    found = one(read(results / "table3.csv"), gamma="1", metric="nll_published")
    assert (found["preset"], found["mean"]) == ("paper", "0.3")


def test_simulated_rows_are_never_used(results):
    run = {"loss": "CE", "gamma": None, "target": "vessel", "metric": "dice"}
    run |= {"published": 0.798, "mean": 0.5, "verdict": "within"}
    columns = list(tables.COLUMNS["table"])
    offered = {"table4.csv": pd.DataFrame([run], columns=columns)}
    cells = published.Paper(published.paper_folder(results)).cells
    means = []
    for name, simulated in (("real", False), ("phantom", True)):
        make_run(results, "CE", dataset=name, simulated=simulated)
        found = frame.open_study(results / name / "paper")
        rows = tables.over_all(cells, {found: offered})["table4.csv"]
        means.append(list(rows["mean"].dropna()))
    assert means == [[0.5], []]


def test_own_data_make_no_overall_tables(results):
    make_run(results, "DSC", dataset="own", title="clinic")
    written = pages.Report(results).write()
    assert {path.parent.name for path in written} == {"paper"}


@pytest.mark.slow
def test_table_has_hours_and_hardware(results):
    made = {"device": "CPU", "machine": "Linux x86_64, 2 cores, Some CPU"}
    for seed, seconds in ((0, 1800), (1, 5400)):
        make_run(results, seed=seed, times={"train_s": seconds, "epochs": 9}, **made)
    gpu = {"device": "Some GPU", "machine": "Linux x86_64, 16 cores"}
    make_run(results, "DSC++", gamma=2.0, times={"train_s": 360}, **gpu)
    make_run(results, "CE")  # of an older version: nothing is known
    pages.Report(results).write()
    folder = results / "drive" / "paper"
    rows = read(folder / "costs.csv")
    row = one(rows, loss="DSC", seed="1")
    assert (row["train_s"], row["epochs"], row["device"]) == ("5400", "9", "CPU")
    assert one(rows, loss="CE")["train_s"] == ""
    shown = pages.Page(frame.open_study(folder)).text()
    lines = {line.split("  ")[0]: line.split()[-1] for line in shown.splitlines()}
    assert lines["loss"] == "hours"
    assert (lines["DSC"], lines["DSC++ (seed 0)"]) == ("1.00", "0.10")
    assert "CPU, Linux x86_64, 2 cores, Some CPU" in " ".join(shown.split())
    assert "Some GPU, Linux x86_64, 16 cores" in " ".join(shown.split())


def test_margins_exclude_differences_beyond_the_papers_errors(project):
    """The margins keep out what the paper's own errors tell apart."""
    cells = published.Paper(project / "results" / "paper").cells
    for _, own in cells.groupby(["table", "dataset", "target", "metric"]):
        for a, b in combinations(published.each_cell(own), 2):
            error = math.hypot(a.judged_error, b.judged_error)
            if round(abs(a.value - b.value), 9) <= estimates.Z * error:
                continue
            low, high, _ = estimates.margin_of(a.metric)
            ratio = estimates.is_ratio(a.metric)
            effect = a.value / b.value if ratio else a.value - b.value
            assert not low < round(effect, 9) < high, (a, b)


def test_numbers_of_the_data_dictionary_are_generated(results, tmp_path):
    for seed, more in enumerate((0.0, 0.0, 0.1)):
        for loss in ("DSC", "CE"):
            nll = [value + more for value in DSC_NLL]
            make_run(results, loss, nll, seed=seed)
    parts = ("same-loss", "others-within", "spreads")
    names = ["margins", *(f"drive-paper-{part}" for part in parts)]
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- {n}:begin -->\n<!-- {n}:end -->\n" for n in names))
    assert sorted(pages.Report(results).update(page)) == sorted(names)
    text = page.read_text()
    margin = estimates.MARGINS["nll"]
    assert f"| `nll` | ratio 0.9 to 1.11 | {margin.reason} |" in text
    assert "| vessel, `nll` | 0 of 6 | 0 of 6 |" in text
    # Means .3 .3 .4 of both losses: s = .057735 of .333333.
    assert "| vessel, `nll_published` | 0.1732 | 0.1732 | 0.1732 | 1.00 |" in text
    # Others' printed NLL in Tables 3 and 4 beside the limit of .3 and more.
    assert re.search(r"\| `nll_published` \| \d+ of \d+ \|", text)
