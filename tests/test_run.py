"""The run folder: names, atomic files, refusals, the lock."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_io.errors import InputError
from pipelines import provenance
from pipelines import run as runs

RECORD = {
    "dataset": "drive",
    "loss": "DSC",
    "gamma": 1.0,
    "settings": {"filters": 16, "epochs": 100},
    "split": {"training": ["21", "22"]},
    "times": {},
}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("DSC", 1.0, 0), "dsc-s0"),
        (("DSC++", 2.0, 3), "dscpp-s3"),
        (("dsc++", 2.5, 3), "dscpp-g2.5-s3"),
        (("CE", None, 1, "torch"), "ce-s1-torch"),
        (("DSC", 1.0, 0, "tensorflow", "temperature"), "dsc-s0-temperature"),
    ],
)
def test_folder_name(arguments, name):
    assert runs.folder_name(*arguments) == name


def test_overrides_never_share_a_folder_with_a_preset():
    plain = runs.run_folder(Path("results"), "drive", "paper", "dsc-s0", {})
    one = runs.run_folder(Path("results"), "drive", "paper", "dsc-s0", {"epochs": 3})
    two = runs.run_folder(Path("results"), "drive", "paper", "dsc-s0", {"epochs": 4})
    assert plain == Path("results/drive/paper/runs/dsc-s0")
    assert one.parts[2].startswith("custom-")
    assert one != two


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("old")

    def fail(aside: Path) -> None:
        aside.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        runs.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["cases.csv"]


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    held = runs.lock_folder(tmp_path / "file" / "run")
    with pytest.raises(InputError, match=r"file/run.*choose another"), held:
        pass
    with pytest.raises(InputError, match="choose another"):
        runs.write_json(tmp_path / "file" / "run.json", {})


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.npz"
    path.write_text("old")

    def fail(aside: Path) -> None:
        aside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"state\.npz.*No space left.*free space"):
        runs.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_csv_cells(tmp_path):
    rows = [{"a": 1 / 3, "b": float("nan"), "c": None, "d": 12}, {"a": "x,y", "d": 0}]
    path = runs.write_csv(tmp_path / "t.csv", ["a", "b", "c", "d"], rows)
    assert path.read_text() == 'a,b,c,d\n0.333333333,,,12\n"x,y",,,0\n'


def test_states_and_hashes(tmp_path):
    run = runs.Run.create(tmp_path / "r", RECORD)
    assert (run.state, run.reached("trained")) == ("training", False)
    run.path("history.csv").write_text("abc")
    run.update(files=["history.csv"], state="trained", times={"train_s": 1.0})
    run.update(times={"predict_s": 2.0})
    again = runs.Run.open(tmp_path / "r")
    assert again.reached("trained")
    assert again.record["times"] == {"train_s": 1.0, "predict_s": 2.0}
    assert again.record["files"]["history.csv"] == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(InputError, match="dscpp evaluate"):
        again.require("evaluated", "dscpp evaluate --run r")


def test_a_changed_setting_is_named_and_nothing_else(tmp_path):
    run = runs.Run.create(tmp_path / "r", RECORD)
    run.require_same({**RECORD, "times": {"other": 1}})
    changed = {**RECORD, "settings": {"filters": 32, "epochs": 100}}
    with pytest.raises(InputError) as caught:
        run.require_same(changed)
    assert "settings.filters: the run has 16, the command asks 32" in str(caught.value)
    assert "epochs" not in str(caught.value)
    with pytest.raises(InputError, match=r"settings\.epochs: the run has 100"):
        run.require_same({"settings": {"filters": 16}})
    with pytest.raises(InputError, match=r"settings\.depth: the run has None"):
        run.require_same({"settings": {**RECORD["settings"], "depth": 3}})


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 99}', '{"format": 1, "state": "tired"}']
)
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json"):
        runs.Run.open(tmp_path)


def test_no_run(tmp_path):
    with pytest.raises(InputError, match="expected a run folder"):
        runs.Run.open(tmp_path / "none")


def test_the_second_process_is_refused_and_the_lock_dies_with_its_owner(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from pipelines import run\n"
        "with run.lock_folder(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout.readline() == "held\n"
        held = runs.lock_folder(tmp_path)
        with pytest.raises(InputError, match="another process"), held:
            pass
    finally:
        owner.kill()
        owner.wait()
    with runs.lock_folder(tmp_path):
        pass


def test_a_thread_is_refused_too(tmp_path):
    found = []

    def second() -> None:
        try:
            with runs.lock_folder(tmp_path):
                found.append("held")
        except InputError:
            found.append("refused")

    with runs.lock_folder(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert found == ["refused"]


def test_find_takes_folders_with_a_record_only(tmp_path):
    runs.Run.create(tmp_path / "runs" / "b", RECORD)
    runs.Run.create(tmp_path / "runs" / "a", RECORD)
    (tmp_path / "runs" / "empty").mkdir()
    assert [run.name for run in runs.find(tmp_path)] == ["a", "b"]
    assert runs.find(tmp_path / "none") == []


def test_the_record_is_json_of_the_format(tmp_path):
    run = runs.Run.create(tmp_path / "r", RECORD)
    assert json.loads(run.path("run.json").read_text())["format"] == runs.FORMAT


def test_the_commit_is_that_of_the_code(tmp_path, monkeypatch):
    """A table that was written since the last commit does not change the code."""

    def git(*arguments):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *name, *arguments], cwd=tmp_path, check=True)

    for path in ("pipelines/code.py", "results/table.csv", "README.md", "docs/a.md"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("1")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "pipelines/code.py"))
    assert provenance.commit() == ""
    git("init", "-q")
    assert provenance.commit() == ""
    git("add", "-A")
    git("commit", "-qm", "first")
    name = provenance.commit()
    assert re.fullmatch("[0-9a-f]{40}", name)
    for path in ("results/table.csv", "README.md", "docs/a.md"):
        (tmp_path / path).write_text("2")
    (tmp_path / "pipelines/new.py").write_text("untracked, as a user's notes are")
    assert provenance.commit() == name
    (tmp_path / "pipelines/code.py").write_text("2")
    assert provenance.commit() == name + "+"
