"""What a message advises works; a run that lost a file is named, never passed over."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from predicted_runs import make_run
from written_runs import make_run as write_run

from data_io.datasets import phantom
from data_io.errors import InputError
from pipelines import stages
from pipelines.cli import main
from pipelines.prediction import true_posterior
from pipelines.reporting.figures import photographs
from pipelines.reporting.pages import Report
from pipelines.runs import run as runs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    settings = phantom.Settings(training=1, validation=1, test=1, size=32, seed=3)
    return phantom.generate(settings, tmp_path_factory.mktemp("phantom"))


@pytest.fixture
def run(tmp_path, data, monkeypatch) -> runs.Run:
    """An evaluated run below `results`, with its probabilities."""
    monkeypatch.setattr(photographs, "picture", lambda *_: None)  # takes a second
    folder = tmp_path / "results" / "phantom" / "demo" / "runs" / "dsc-s0"
    make_run(folder, data)
    return stages.evaluate(folder, data, tmp_path / "work")


def advised(message: str) -> list[str]:
    """The command that a message names, without the name of the program."""
    (command,) = [t for t in message.split("`") if t.startswith("dscpp ")]
    return shlex.split(command)[1:]


@pytest.mark.parametrize("name", runs.MEASURES)
def test_missing_measures_are_made_again(run, data, tmp_path, name):
    """The reported dead end: evaluate said "evaluated" and made nothing."""
    before = {each: run.path(each).read_bytes() for each in runs.MEASURES}
    run.path(name).unlink()
    if name == "cases.csv":
        with pytest.raises(InputError) as caught:
            Report(tmp_path / "results").write()
        command = advised(str(caught.value))
    else:
        command = ["evaluate", "--run", str(run.folder)]
    work = str(tmp_path / "work")
    assert main([*command, "--data", str(data), "--work", work]) == 0
    # What lies in the archive has a time of its own; the hash of a table has not.
    assert run.path("cases.csv").read_bytes() == before["cases.csv"]
    found = runs.Run.open(run.folder)
    found.require_measures()
    assert found.state == "evaluated" and found.has_measures


def test_missing_measures_and_probabilities_name_the_command(
    run, data, tmp_path, capsys
):
    run.path("cases.csv").unlink()
    shutil.rmtree(run.path("probabilities"))
    command = ["evaluate", "--run", str(run.folder), "--data", str(data)]
    assert main([*command, "--work", str(tmp_path / "work")]) == 2
    said = capsys.readouterr().err
    assert advised(said) == ["predict", "--again", "--run", str(run.folder)]


def test_advised_command_repairs_edited_measures(run, data, tmp_path):
    before = run.path("cases.csv").read_bytes()
    for content in (before.replace(b",0.", b",1.", 1), b"", b"patient,age\n"):
        run.path("cases.csv").write_bytes(content)
        with pytest.raises(InputError) as caught:
            stages.evaluate(run.folder, None)
        command = [*advised(str(caught.value)), "--data", str(data)]
        assert main([*command, "--work", str(tmp_path / "work")]) == 0
        assert run.path("cases.csv").read_bytes() == before


def test_a_finished_run_is_left_alone(run, tmp_path):
    shutil.rmtree(run.path("probabilities"))
    before = run.path("run.json").read_bytes()
    assert stages.evaluate(run.folder, None, tmp_path / "work").state == "evaluated"
    assert run.path("run.json").read_bytes() == before


def test_scaled_run_whose_source_has_no_probabilities(run, data, tmp_path):
    work = tmp_path / "work"
    made = stages.scale(run.folder, data, work)
    run.path("probabilities").rename(tmp_path / "aside")
    with pytest.raises(InputError) as caught:
        stages.evaluate(made.folder, data, work, again=True)
    command = ["predict", "--again", "--run", str(run.folder)]
    assert advised(str(caught.value)) == command
    (tmp_path / "aside").rename(run.path("probabilities"))
    assert stages.evaluate(made.folder, data, work, again=True).state == "evaluated"


def test_a_scaled_run_that_was_stopped(run, data, tmp_path):
    work = tmp_path / "work"
    made = stages.scale(run.folder, data, work)
    made.update(state="training")
    with pytest.raises(InputError) as caught:
        stages.evaluate(made.folder, data, work)
    assert advised(str(caught.value)) == ["temperature", "--run", str(run.folder)]
    with pytest.raises(InputError, match="found one after temperature") as caught:
        stages.predict(made.folder, data, work)
    command = [*advised(str(caught.value)), "--data", str(data)]
    assert main([*command, "--work", str(work)]) == 0
    assert runs.Run.open(made.folder).state == "evaluated"


def test_true_posterior_without_measures(run, data, tmp_path):
    group = run.folder.parent.parent
    made = true_posterior.measure(group, data)
    before = made.path("cases.csv").read_bytes()
    made.path("cases.csv").unlink()
    with pytest.raises(InputError) as caught:
        stages.evaluate(made.folder, data, tmp_path / "work")
    assert advised(str(caught.value)) == ["reproduce"]
    true_posterior.measure(group, data)  # as reproduce does
    assert made.path("cases.csv").read_bytes() == before


def lost(results: Path, name: str) -> Path:
    folder = write_run(results, name=name, seed=7)
    (folder / "run.json").unlink()
    return folder


@pytest.mark.parametrize("command", ["tables", "figures", "runs"])
def test_a_run_that_lost_its_record_is_named(tmp_path, capsys, command, monkeypatch):
    report = SimpleNamespace(write=list, pages=[], chosen=lambda *_: [])
    monkeypatch.setattr("pipelines.reporting.pages.Report", lambda _: report)
    monkeypatch.setattr(
        "pipelines.reporting.figures.curves.write_figures", lambda *_: []
    )
    monkeypatch.setattr(
        "pipelines.reporting.figures.photographs.write_pictures",
        lambda *_: ([], ""),
    )
    results = tmp_path / "results"
    write_run(results)
    folder = lost(results, "dsc-s7")
    (folder.with_name("ce-s0") / "probabilities").mkdir(parents=True)
    (folder.with_name("empty")).mkdir()
    (folder.with_name("never-begun")).mkdir()
    (folder.with_name("never-begun") / ".lock").touch()
    (folder.with_name(".hidden")).mkdir()
    (folder.with_name(".hidden") / "x").touch()
    (folder.with_name("notes.txt")).touch()
    assert main([command, "--results", str(results)]) == 0
    said = capsys.readouterr().err.strip().splitlines()
    assert [line.partition(": expected")[0] for line in said] == [
        f"dscpp: warning: left out: {folder.with_name('ce-s0')}",
        f"dscpp: warning: left out: {folder}",
    ]
    assert "found cases.csv, histograms.npz without one; restore it" in said[1]


def test_no_record_at_all(tmp_path, capsys):
    folder = lost(tmp_path / "results", "dsc-s7")
    assert main(["tables", "--results", str(tmp_path / "results")]) == 2
    assert f"left out: {folder}" in capsys.readouterr().err


def test_a_stage_on_a_run_that_lost_its_record(tmp_path):
    """Training there would be refused: it is not advised."""
    folder = lost(tmp_path, "dsc-s7")
    with pytest.raises(InputError, match="restore it, or move the folder away"):
        stages.predict(folder, None)
    with pytest.raises(InputError, match=r"lost its run\.json, restore that"):
        runs.require_free(folder)
    folder.rename(tmp_path / "away")
    runs.require_free(folder)
    with pytest.raises(InputError, match="make one with `dscpp train"):
        stages.predict(folder, None)


def test_a_record_that_is_empty(tmp_path):
    folder = write_run(tmp_path)
    (folder / "run.json").write_text("")
    for act in (runs.Run.open, lambda folder: runs.find(folder.parent.parent)):
        with pytest.raises(InputError, match=r"run\.json: .* or delete the run folder"):
            act(folder)
    shutil.rmtree(folder)
    runs.require_free(folder)
