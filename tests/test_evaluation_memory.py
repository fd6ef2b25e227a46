"""The benchmark of the evaluation: both ways find the same, and draws are in turn."""

import json
import shutil

import pytest

from benchmarks import evaluation_memory as benchmark
from data_io.errors import InputError

SHAPE = (40, 48, 44)
OURS = "evaluation"
THEIRS = benchmark.WHAT[OURS].peer


@pytest.fixture
def case(tmp_path):
    benchmark.simulate(tmp_path, SHAPE)
    return tmp_path


def test_both_ways_find_the_same(case):
    rows, _ = benchmark.evaluation(case)()
    theirs = benchmark.notebooks_evaluation(case)()
    ours = {row["target"]: row for row in rows if row["region"] == "image"}
    for target, name in ((1, "kidney"), (2, "kidney tumour")):
        row = ours[name]
        assert 0 < row["dice"] < 1  # it is not a matter of course
        for measure in ("dice", "jaccard", "precision", "recall"):
            assert row[measure] == pytest.approx(theirs[target][measure], rel=1e-3)
        for measure in ("nll", "brier"):
            published = row[f"{measure}_published"]
            assert published == pytest.approx(theirs[target][measure], rel=1e-5)


@pytest.fixture
def said(monkeypatch):
    """Stands for the processes that measure: names in order, with made-up numbers."""
    numbers = {OURS: [(1, 2, 10), (3, 4, 30), (2, 2, 20)]}
    numbers[THEIRS] = [(10, 20, 90), (30, 30, 90), (50, 40, 90)]
    names = []

    def call(*arguments):
        if arguments[0] == "--simulate":
            return ""
        name = arguments[1]
        seconds, busy, peak = numbers[name][names.count(name)]
        names.append(name)
        found = {"seconds": seconds, "cpu_seconds": busy, "peak_mb": peak}
        return json.dumps(found)

    monkeypatch.setattr(benchmark, "_call", call)
    return names


def test_ours_and_the_notebooks_are_measured_in_turn(said):
    time, busy, memory = benchmark.rows(draws=3)
    assert said == [OURS, THEIRS] * 3
    assert (time.ours, time.peer_median, time.ratio) == ("2", "30", "0.0667")
    assert (busy.ours, busy.peer_median, busy.ratio) == ("2", "30", "0.0667")
    assert (memory.ours, memory.peer_median, memory.ratio) == ("20", "90", "0.222")
    # Wall clock and memory are what was promised.
    assert [row.met for row in (time, busy, memory)] == ["yes", "", "yes"]
    assert [row.target for row in (time, busy, memory)] == ["0.1", "", "0.333"]
    assert time.peer == THEIRS


def test_the_table_has_the_middle_time_and_the_highest_peak(said):
    found = benchmark.draw([OURS, THEIRS], 3)
    ours, theirs = benchmark.table(found)
    assert (ours["seconds"], ours["cpu_seconds"], ours["peak_mb"]) == (2, 2, 30)
    assert (ours["n"], ours["shape"], ours["met"]) == (3, "611x512x512", "yes")
    assert "met" not in theirs


def test_what_has_no_peer_here_is_measured_once(said):
    found = benchmark.draw([OURS], 3)
    assert said == [OURS]
    assert benchmark.beside_peers(found) == []


def test_a_draw_says_what_it_took(case):
    found = benchmark.measure(OURS, case)
    assert found.keys() == {"seconds", "cpu_seconds", "peak_mb"}
    assert found["seconds"] > 0
    assert found["peak_mb"] > 10
    shutil.rmtree(case / "run")
    with pytest.raises(InputError, match="expected the probabilities"):
        benchmark.measure(OURS, case)
