"""The probabilities that a run keeps: read by one reader, which knows them again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from predicted_runs import make_run

from data_io.datasets import phantom
from data_io.errors import InputError
from data_io.files import hashing
from pipelines import stages
from pipelines.posthoc import scaling
from pipelines.prediction import evaluate
from pipelines.reporting.figures import photographs
from pipelines.runs import predictions, written
from pipelines.runs import run as runs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    settings = phantom.Settings(training=1, validation=2, test=2, size=32, seed=3)
    return phantom.generate(settings, tmp_path_factory.mktemp("phantom"))


@pytest.fixture
def run(tmp_path, data) -> runs.Run:
    return make_run(tmp_path / "runs" / "dsc-s0", data)


def test_written_probabilities_are_read_back(run, data):
    for _, case in predictions.cases(run):
        p = phantom.vessels.posterior(data, case)
        odds = np.sqrt(p / (1 - p))
        found = predictions.as_kept(run, phantom.vessels, data, case)
        np.testing.assert_allclose(found[..., 1], odds / (1 + odds), atol=1e-5)


def test_the_list_of_probabilities_is_read_once(run, monkeypatch):
    """For each case it was read anew: the cost grew with the square of the cases."""
    known, read = predictions.written.known, []
    monkeypatch.setattr(
        predictions.written, "known", lambda of: read.append(of) or known(of)
    )
    cases = predictions.cases(run)
    for _, case in cases:
        predictions.probabilities(run, case, (32, 32))
    assert len(cases) > 1
    assert len(read) == 1


def test_the_run_that_was_scaled_is_opened_once(run, data, tmp_path, monkeypatch):
    stages.evaluate(run.folder, data, tmp_path / "work")
    twin = stages.scale(run.folder, data, tmp_path / "work")
    predictions._opened.cache_clear()
    open_, opened = runs.Run.open, []
    monkeypatch.setattr(runs.Run, "open", lambda of: opened.append(of) or open_(of))
    for _, case in predictions.cases(twin):
        predictions.probabilities(twin, case, (32, 32))
    assert opened == [run.folder]


def zeroed_tail(path: Path, run: runs.Run) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000] + bytes(2000))


def random_block(path: Path, run: runs.Run) -> None:
    """Values that could be a network's."""
    array = np.load(path)
    p = np.random.default_rng(0).random((9, 9), np.float32)
    array[3:12, 5:14] = np.stack([1 - p, p], -1)
    np.save(path, array)


def of_another_case(path: Path, run: runs.Run) -> None:
    others = [other for other in path.parent.glob("*.npy") if other != path]
    shutil.copy(sorted(others)[0], path)


def of_another_run(path: Path, run: runs.Run) -> None:
    array = np.load(path)
    np.save(path, scaling.scale(array, 1.5))


def cut(path: Path, run: runs.Run) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def archived(path: Path, run: runs.Run) -> None:
    array = np.load(path)
    with path.open("wb") as file:
        np.savez(file, array)


def changed(change: Callable[[np.ndarray], np.ndarray]):
    return lambda path, run: np.save(path, change(np.load(path)))


def relisted(path: Path, run: runs.Run) -> None:
    """Another file, and a list that says so."""
    of_another_run(path, run)
    written.seal(path.parent, [other.name for other in path.parent.glob("*.npy")])


def unlisted(path: Path, run: runs.Run) -> None:
    (path.parent / written.LIST).unlink()


def left_out(path: Path, run: runs.Run) -> None:
    written.seal(path.parent, [])


DAMAGES = {
    "zeroed tail": zeroed_tail,
    "random block": random_block,
    "another case": of_another_case,
    "another run": of_another_run,
    "cut short": cut,
    "an archive of arrays": archived,
    "empty": lambda path, run: path.write_bytes(b""),
    "gone": lambda path, run: path.unlink(),
    "NaN": changed(lambda a: np.where(a == a.max(), np.nan, a)),
    "above 1": changed(lambda a: a + np.float32([1, -1])),
    "sum not 1": changed(lambda a: a / 2),
    "another shape": changed(lambda a: a[:-1]),
    "more classes": changed(lambda a: np.concatenate([a, 0 * a[..., :1]], -1)),
    "16 bits": changed(lambda a: a.astype(np.float16)),
    "another list": relisted,
    "no list": unlisted,
    "not in the list": left_out,
}
READERS = {
    "temperature": scaling.make,
    "evaluate": lambda run, data, out: evaluate.evaluate(run, data),
    "picture": lambda run, data, out: photographs.picture(run, data),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_or_swapped_probabilities_are_refused(
    run, data, tmp_path, damage, reader
):
    # The picture shows the first test case.
    path = predictions.path(run, run.record["split"]["test"][0])
    DAMAGES[damage](path, run)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"dscpp predict --again --run .*dsc-s0`"):
        READERS[reader](run, data, tmp_path / "runs" / "dsc-s0-temperature")
    assert sorted(tmp_path.rglob("*")) == before


def test_probabilities_of_another_run_are_refused(run, data, tmp_path):
    """Folder and list swapped together: run.json has the hash of the list."""
    other = make_run(tmp_path / "runs" / "dsc-s1", data, power=0.7)
    shutil.rmtree(run.path("probabilities"))
    shutil.copytree(other.path("probabilities"), run.path("probabilities"))
    with pytest.raises(InputError, match=r"dscpp\.sha256: expected the list"):
        scaling.make(run, data, tmp_path / "out")


def test_older_run_without_the_list_is_read_with_one_note(run, data, capsys):
    run.path(predictions.LIST).unlink()
    run.record["files"] = {}
    for _, case in predictions.cases(run):
        predictions.as_kept(run, phantom.vessels, data, case)
    said = capsys.readouterr().out
    assert said.count("note") == 1 and "not whether the files are the run's" in said
    zeroed_tail(predictions.path(run, case), run)
    with pytest.raises(InputError, match="sum off by 1"):
        predictions.as_kept(run, phantom.vessels, data, case)


def test_scaled_run_reads_only_the_probabilities_of_its_source(run, data, tmp_path):
    new = scaling.make(run, data, tmp_path / "runs" / "dsc-s0-temperature")
    assert new.record["posthoc"]["temperature"] == pytest.approx(0.5, abs=0.15)
    case = run.record["split"]["test"][0]
    found = predictions.as_kept(new, phantom.vessels, data, case)
    kept = predictions.as_kept(run, phantom.vessels, data, case)
    fitted = new.record["posthoc"]["temperature"]
    np.testing.assert_array_equal(found, predictions.scale(kept, fitted))
    of_another_run(predictions.path(run, case), run)
    with pytest.raises(InputError, match=r"dscpp predict --again --run .*runs/dsc-s0`"):
        predictions.as_kept(new, phantom.vessels, data, case)


def test_a_file_is_hashed_once(run, data, monkeypatch):
    seen = []

    def counted(path: Path) -> str:
        seen.append(path.name)
        return hashing.file_hash(path)

    monkeypatch.setattr(predictions, "file_hash", counted)
    case = run.record["split"]["test"][0]
    for _ in range(3):
        predictions.as_kept(run, phantom.vessels, data, case)
    assert sorted(seen) == sorted([written.LIST, f"{case}.npy"])
    path = predictions.path(run, case)
    state = path.stat()
    of_another_run(path, run)  # of the same size and, set back, the same mtime
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(InputError, match="expected the probabilities that the run"):
        predictions.as_kept(run, phantom.vessels, data, case)


def test_list_can_be_checked_by_sha256sum(run):
    lines = run.path(predictions.LIST).read_text().splitlines()
    names = sorted(line.split("  ")[1] for line in lines)
    assert names == sorted(f"{case}.npy" for _, case in predictions.cases(run))
    first = lines[0].split("  ")
    assert first[0] == hashing.file_hash(run.path("probabilities") / first[1])


def test_set_with_a_foreign_description_is_not_deleted(run, capfd):
    about = run.path(runs.OTHER_SETS) / "mine" / "set.json"
    about.parent.mkdir(parents=True)
    (about.parent / "cases.csv").write_text("mine")
    about.write_text('{"files": "x", "model": "another"}')
    predictions.discard_derived(run)
    assert (about.parent / "cases.csv").read_text() == "mine"
