"""What is not installed is said once, with the command for it, before anything runs."""

from __future__ import annotations

import configparser
import importlib.util
import sys
from pathlib import Path

import pytest
from written_runs import make_run

from pipelines import cli
from pipelines.environment import installed
from pipelines.reporting import published
from pipelines.runs.run import Run

TRAIN = ["train", "--dataset", "phantom", "--loss", "DSC", "--preset", "demo"]
COMMANDS = [
    TRAIN,
    ["demo"],
    ["reproduce", "--dataset", "phantom", "--preset", "demo", "--losses", "DSC"],
    ["predict", "--model", "run", "--input", "photos", "--output", "labels"],
    ["evaluate", "--run", "../run", "--images", "photos", "--masks", "labels"],
]


def refused(capsys, command: list[str]) -> str:
    """The one message of a command that must end with exit code 2 and leave nothing."""
    assert cli.main(command) == 2
    said = capsys.readouterr()
    assert said.err.count("dscpp: ") == 1
    assert "Traceback" not in said.err
    assert said.out == ""
    assert list(Path.cwd().iterdir()) == []
    return said.err


def take_away(monkeypatch, *names: str) -> None:
    """Let no module of these names be found."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in names else real(name)
    )


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Run.create(tmp_path / "run", {})
    # So that what the tests of one backend do not have is no other reason.
    for name in ("keras", "tensorflow", "miscnn"):
        if not installed.is_here(name):
            pytest.skip(f"needs {name}, to take it away")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("absent", "pip"),
    [
        ("miscnn", "-m pip install --no-deps miscnn==1.4.0\n"),
        ("keras", "-m pip install keras\n"),
        ("tensorflow", "-m pip install tensorflow\n"),
    ],
)
def test_commands_name_missing_packages(capsys, monkeypatch, command, absent, pip):
    take_away(monkeypatch, absent)
    assert pip in refused(capsys, command)


@pytest.mark.parametrize("name", ["tensorfow", "TensorFlow", "numpy", " torch", "a.b"])
@pytest.mark.parametrize("command", COMMANDS[:2], ids=lambda command: command[0])
def test_unknown_backend_is_refused(capsys, monkeypatch, command, name):
    monkeypatch.setenv("KERAS_BACKEND", name)
    message = refused(capsys, command)
    assert f"received {name!r}" in message
    assert "installed: tensorflow" in message


def test_empty_folder_is_not_a_package(tmp_path, monkeypatch):
    (tmp_path / "left_behind" / "lib").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert not installed.is_here("left_behind")
    (tmp_path / "left_behind" / "__init__.py").touch()
    assert installed.is_here("left_behind")


def test_finished_stage_needs_no_backend(tmp_path, monkeypatch):
    run = make_run(tmp_path, state="predicted")
    take_away(monkeypatch, "miscnn", "keras", "tensorflow")
    assert cli.main(["predict", "--run", str(run)]) == 0


def test_other_missing_packages_are_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pipelines.reporting.pages", None)
    with pytest.raises(ModuleNotFoundError):  # of ours: no command brings it
        cli.main(["tables"])
    monkeypatch.delitem(sys.modules, "pipelines.reporting.pages")
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr(
        "pipelines.reporting.figures.curves.write_figures", lambda *_: []
    )
    monkeypatch.setattr(
        "pipelines.reporting.figures.photographs.write_pictures",
        lambda *_: importlib.import_module("skimage"),
    )
    assert "pip install scikit-image\n" in refused(capsys, ["figures"])


def test_the_published_values_come_with_the_package(
    project: Path, tmp_path, monkeypatch
):
    config = configparser.ConfigParser()
    config.read(project / "setup.cfg")
    pattern = config["options.data_files"]["share/dscpp/paper"]
    listed = {path.name for path in project.glob(pattern)}
    assert listed == {path.name for path in (project / "results/paper").iterdir()}
    # As pip would install it, outside any checkout.
    site, values = tmp_path / "lib" / "site", tmp_path / "share/dscpp/paper"
    info = site / "dscpp-9.dist-info"
    info.mkdir(parents=True)
    values.mkdir(parents=True)
    (values / "table4.csv").touch()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dscpp\nVersion: 9\n")
    (info / "RECORD").write_text("../../share/dscpp/paper/table4.csv,,\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(published, "__file__", str(site / "a" / "b" / "published.py"))
    assert published.paper_folder(tmp_path / "results").resolve() == values.resolve()
