"""The benchmark of the evaluation: both ways find the same, and draws are in turn."""

import shutil

import pytest

from benchmarks import evaluation as benchmark
from data_io.errors import InputError

SHAPE = (40, 48, 44)


@pytest.fixture
def case(tmp_path):
    benchmark.simulate(tmp_path, SHAPE)
    return tmp_path


def test_both_ways_give_the_same_measures(case):
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
def called(monkeypatch):
    """Stands for the processes that measure: work in order, with made-up numbers."""
    numbers = {benchmark.evaluation: [(1, 2, 10), (3, 4, 30), (2, 2, 20)]}
    numbers[benchmark.notebooks_evaluation] = [(10, 20, 90), (30, 30, 90), (50, 40, 90)]
    works = []

    def alone(function, first, *_):
        if function is benchmark.simulate:
            return None
        seconds, busy, peak = numbers[first][works.count(first)]
        works.append(first)
        return {"time": seconds, "processor time": busy, "peak memory": peak}

    monkeypatch.setattr(benchmark, "alone", alone)
    return works


def test_ours_and_the_notebooks_way_are_timed_in_turn(called):
    time, busy, memory = benchmark.beside_notebooks()
    assert called == [benchmark.evaluation, benchmark.notebooks_evaluation] * 3
    assert (time.ours, time.peer_median, time.ratio) == ("2", "30", "0.0667")
    assert (busy.ours, busy.peer_median, busy.ratio) == ("2", "30", "0.0667")
    assert (memory.ours, memory.peer_median, memory.ratio) == ("20", "90", "0.222")
    assert [row.met for row in (time, busy, memory)] == ["yes", "", "yes"]
    assert [row.target for row in (time, busy, memory)] == ["0.1", "", "0.3333"]


def test_the_longest_case_is_measured_once(called):
    row = benchmark.longest_case()
    assert called == [benchmark.evaluation]
    assert (row.what, row.ours, row.target, row.met, row.n) == (
        "evaluation, longest case: peak memory", "10", "4000", "yes", 1,
    )  # fmt: skip


def test_a_draw_is_measured_in_a_process_of_its_own(case):
    found = benchmark.alone(benchmark.measure, benchmark.evaluation, case)
    assert found.keys() == {"time", "processor time", "peak memory"}
    assert found["time"] > 0
    assert found["peak memory"] > 10
    shutil.rmtree(case / "run")
    with pytest.raises(InputError, match="expected the probabilities"):
        benchmark.measure(benchmark.evaluation, case)
