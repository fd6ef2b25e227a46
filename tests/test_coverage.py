"""The simulation of coverage: what it draws from, and what it counts."""

import csv

import numpy as np
import pytest

from benchmarks import coverage


def test_row_counts_intervals_that_contain_the_mean(monkeypatch):
    # Truth is 0; the intervals hold it, lie below, above, touch it from above.
    ends = [(-1, 1), (-2, -1), (0.5, 2), (0, 1)]
    monkeypatch.setattr(coverage, "interval", lambda values, seed: ends[seed])
    row = coverage.simulate(("mean", "normal"), n=5, replications=4)
    assert tuple(row) == coverage.COLUMNS
    assert (row["coverage"], row["below"], row["above"]) == (
        "0.5000", "0.2500", "0.2500",
    )  # fmt: skip
    # sqrt(.5 * .5 / 4), and the mean of 2, 1, 1.5, 1.
    assert (row["error"], row["width"], row["n"]) == ("0.2500", "1.375", 5)


@pytest.mark.parametrize("key", coverage.populations())
def test_populations_have_their_stated_mean(key):
    draw, truth = coverage.populations()[key]
    random = np.random.default_rng(0)
    n = 400_000 if key[0] != "mean over seeds" else 1000
    values = np.stack([draw(random, n).reshape(-1, n) for _ in range(20)])
    means = values.mean(axis=(1, 2))
    # Over seeds the three trainings decide, so it is their spread that counts.
    assert abs(means.mean() - truth) < 5 * means.std(ddof=1) / np.sqrt(len(means))


def test_measured_values_are_those_of_the_committed_run(project):
    path = project / "results" / coverage.MEASURED / "dsc-s0" / "cases.csv"
    with path.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "test"]
    values = coverage.read("dsc-s0", "dice")
    whole = [float(r["dice"]) for r in rows if r["region"] == "image"]
    np.testing.assert_array_equal(values, whole)
    assert len(values) == 133


def test_both_kinds_of_interval():
    values = np.random.default_rng(1).normal(size=(3, 20))
    for given in (values[0], values):
        low, high = coverage.interval(given, seed=2)
        assert low < given.mean() < high


def test_the_committed_table_is_complete():
    with coverage.OUTPUT.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["interval"], row["population"], int(row["n"])) for row in rows}
    wanted = {(*key, n) for key in coverage.populations() for n in coverage.SIZES}
    assert found == wanted
    for row in rows:
        outside = float(row["below"]) + float(row["above"])
        assert float(row["coverage"]) == pytest.approx(1 - outside, abs=2e-4)
        assert int(row["replications"]) >= 2000


def test_the_page_has_the_table_of_the_committed_rows(tmp_path):
    committed = coverage.PAGE.read_text("utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(committed, "utf-8")
    coverage.update(copy)
    assert copy.read_text("utf-8") == committed
