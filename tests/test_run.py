"""The run folder: names, atomic files, refusals, the lock."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import textwrap
import threading
from pathlib import Path

import pytest

from data_io.errors import InputError
from data_io.files import schema
from data_io.files.writing import sweep
from pipelines.environment import commits
from pipelines.runs import run as runs
from pipelines.runs import written

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
        (("DSC", 1.0, 0, "tensorflow", "", 2), "dsc-s0.r2"),
        (("DSC++", 2.5, 0, "torch", "", 3), "dscpp-g2.5-s0-torch.r3"),
        (("DSC", 1.0, 0, "tensorflow", "temperature", 2), "dsc-s0.r2-temperature"),
    ],
)
def test_folder_name(arguments, name):
    assert runs.folder_name(*arguments) == name


@pytest.mark.parametrize(
    ("name", "replicate"),
    [("dsc-s0", 1), ("dscpp-g2.5-s0", 1), ("a/dsc-s0.r2", 2), ("x.r12", 12), ("r2", 1)],
)
def test_folder_name_has_the_replicate(name, replicate):
    assert runs.replicate_of(Path(name)) == replicate


def test_older_run_without_a_replicate_is_the_first(tmp_path):
    old = runs.Run.create(tmp_path / "dsc-s0", RECORD)
    old.require_same({"loss": "DSC", "replicate": 1})
    with pytest.raises(InputError, match="replicate: the run has 1, the command asks"):
        old.require_same({"loss": "DSC", "replicate": 2})


CLEAN, OTHER = "0123456789abcdef" * 2 + "01234567", "f" * 40
CHANGES = "environment_changes"


@pytest.mark.parametrize(
    ("record", "clean"),
    [
        ({"commit": CLEAN}, True),
        ({"commit": CLEAN, CHANGES: [{"stage": "train", "threads": 1}]}, True),
        ({"commit": CLEAN, CHANGES: [{"commit": OTHER}]}, True),
        (
            {"commit": CLEAN, CHANGES: [{"commit": OTHER}, {"commit": OTHER + "+"}]},
            False,
        ),
        ({"commit": CLEAN, CHANGES: [{"commit": ""}]}, False),
        ({"commit": CLEAN + "+"}, False),
        ({"commit": ""}, False),
        ({"commit": None}, False),
        ({}, False),
    ],
)
def test_clean_run_needs_known_and_unchanged_commits(record, clean):
    assert commits.from_clean_commit(record) is clean


def test_run_is_locked_while_a_process_works_on_it(tmp_path):
    assert not runs.is_held(tmp_path / "none")
    with runs.lock_folder(tmp_path / "r"):
        assert runs.is_held(tmp_path / "r")
    assert not runs.is_held(tmp_path / "r")


def test_overrides_never_share_a_folder_with_a_preset():
    plain = runs.run_folder(Path("results"), "drive", "paper", "dsc-s0", {})
    one = runs.run_folder(Path("results"), "drive", "paper", "dsc-s0", {"epochs": 3})
    two = runs.run_folder(Path("results"), "drive", "paper", "dsc-s0", {"epochs": 4})
    assert plain == Path("results/drive/paper/runs/dsc-s0")
    assert one.parts[2].startswith("custom-")
    assert one != two


@pytest.mark.parametrize(
    ("overrides", "group"),
    [
        ({}, "reduced"),
        ({"epochs": 3}, "reduced-epochs=3"),
        (
            {"input_shape": [48, 32], "epochs": 3, "mirror_axes": []},
            "reduced-epochs=3-input_shape=48x32-mirror_axes=none",
        ),
        ({"join": "gaussian", "learning_rate": 1e-05},
         "reduced-join=gaussian-learning_rate=1e-05"),
    ],
)  # fmt: skip
def test_group_of_own_images_is_named_after_its_settings(overrides, group):
    found = runs.run_folder(Path("r"), "own-a", "reduced", "dsc-s0", overrides)
    assert found == Path("r") / "own-a" / group / "runs" / "dsc-s0"


def test_a_group_of_very_many_settings_has_a_short_name():
    many = {f"key{number}": number for number in range(30)}
    found = runs.run_folder(Path("r"), "own-a", "reduced", "dsc-s0", many)
    assert found.parts[2].startswith("custom-")


def test_runs_are_listed_by_name_or_by_folder(tmp_path):
    for name in ("x/runs/a", "x/runs/b", "alone/c"):
        runs.Run.create(tmp_path / name, RECORD)
    one, group = tmp_path / "x" / "runs" / "b", tmp_path / "x"
    found = runs.listed([one, group, group / "runs", tmp_path / "alone"])
    assert [run.name for run in found] == ["b", "a", "c"]
    with pytest.raises(InputError, match="expected a run folder"):
        runs.listed([tmp_path / "nowhere"])


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


def test_csv_format_of_cells(tmp_path):
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


def test_only_the_changed_setting_is_named(tmp_path):
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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"times": None}, "times: expected an object, found None"),
        ({"files": []}, r"files: expected an object, found \[\]"),
        ({"gamma": "x"}, "gamma: expected a valid number, found 'x'"),
        ({"loss": 3, "seed": 1.5}, "loss: .*; seed: "),
        ({"split": {"test": "01"}}, "split.test: expected a valid array, found '01'"),
        ({"posthoc": {"run": 1}}, "posthoc.run: expected a valid string, found 1"),
        ({"times": {"train_s": "long"}}, "times.train_s: .*found 'long'"),
        ({"state": "tired"}, "state: expected 'training', .*found 'tired'"),
    ],
    ids=str,
)
def test_values_of_other_types_are_named(tmp_path, values, said):
    record = {"format": 1, "state": "training", **values}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=rf"run\.json: .*\({said}"):
        runs.Run.open(tmp_path)


def test_a_record_nested_too_deep_is_named(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "run.json").write_text('{"format": 1, "times": ' + deep + "}")
    with pytest.raises(InputError, match="recursion limit"):
        runs.Run.open(tmp_path)


def test_a_record_that_was_edited_is_refused(tmp_path):
    run = runs.Run.create(tmp_path / "run", {"loss": "DSC", "times": {"train_s": 0.1}})
    run.update(times={"predict_s": 1 / 3}, note="größer")
    path = run.path("run.json")
    assert runs.Run.open(run.folder).record == run.record
    path.write_text(path.read_text().replace('"DSC"', '"DSC++"'))
    with pytest.raises(InputError, match="values changed by something else"):
        runs.Run.open(run.folder)
    record = json.loads(path.read_text())
    del record["sha256"]  # as runs of before have none
    path.write_text(json.dumps(record))
    assert runs.Run.open(run.folder).record["loss"] == "DSC++"


def test_reformatted_numbers_keep_the_hash(tmp_path):
    """As jq writes them: 15.0 becomes 15 and 1e-05 0.00001, in another order."""
    path = tmp_path / "a.json"
    value = {"b": [15.0, {"c": -0.0}], "a": 1e-05, "d": 1e20, "e": 0.5, "f": True}
    runs.write_json(path, schema.sealed(value))
    kept = json.loads(path.read_text())["sha256"]
    other = '"a":0.00001,"f":true,"d":100000000000000000000,"e":0.50,"b":[15,{"c":0}]'
    path.write_text(f'{{{other},"sha256":"{kept}"}}')
    assert schema.load(path, dict) == value
    for was, now in (("15", "15.5"), ("0.50", '"0.5"'), ("true", "1")):
        path.write_text(f'{{{other.replace(was, now, 1)},"sha256":"{kept}"}}')
        with pytest.raises(schema.Changed):
            schema.load(path, dict)


def test_older_hashes_of_records_are_still_valid(tmp_path, project):
    value = {"b": [15.0], "c": 2}
    path = runs.write_json(
        tmp_path / "a.json", {**value, "sha256": schema.digest(value)}
    )
    assert schema.load(path, dict) == value
    found = [json.loads(p.read_text()) for p in project.glob("results/**/run.json")]
    sealed = [record for record in found if schema.SEAL in record]
    assert sealed
    for record in sealed:
        schema.require_unchanged(record)


def test_a_list_of_images_seen_that_was_changed_is_refused(tmp_path):
    run = runs.Run(tmp_path)
    assert run.seen() is None
    path = runs.write_json(run.path(runs.SEEN), schema.sealed({"a": "1" * 64}))
    assert run.seen() == {"1" * 64}
    path.write_text(path.read_text().replace("1111", "1112", 1))
    with pytest.raises(InputError, match=f"{runs.SEEN}.*changed by"):
        run.seen()


def test_missing_run_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a run folder"):
        runs.Run.open(tmp_path / "none")


def test_second_process_is_refused_and_a_dead_owner_releases_the_lock(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from pipelines.runs import run\n"
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


def test_second_thread_is_refused(tmp_path):
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


def git(folder, *arguments):
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", *name, *arguments]
    done = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_commit_excludes_results_and_docs(tmp_path, monkeypatch):
    """A table that was written since the last commit does not change the code."""

    for path in ("pipelines/code.py", "results/table.csv", "README.md", "docs/a.md"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("1")
    monkeypatch.setattr(commits, "__file__", str(tmp_path / "pipelines/code.py"))
    monkeypatch.delenv(commits.VARIABLE, raising=False)
    assert commits.commit() == ""
    git(tmp_path, "init", "-q")
    assert commits.commit() == ""
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    name = commits.commit()
    assert re.fullmatch("[0-9a-f]{40}", name)
    for path in ("results/table.csv", "README.md", "docs/a.md"):
        (tmp_path / path).write_text("2")
    (tmp_path / "pipelines/new.py").write_text("untracked, as a user's notes are")
    assert commits.commit() == name
    (tmp_path / "pipelines/code.py").write_text("2")
    assert commits.commit() == name + "+"


def test_commit_without_git_comes_from_variable_or_archive(tmp_path, monkeypatch):
    """By the environment, else by the file that `git archive` writes."""
    code = tmp_path / "pipelines" / "commits.py"
    code.parent.mkdir()
    code.write_text("")
    monkeypatch.setattr(commits, "__file__", str(code))
    monkeypatch.delenv(commits.VARIABLE, raising=False)
    code.with_name("commit.txt").write_text("$Format:%H$\n")
    assert commits.commit() == ""
    code.with_name("commit.txt").write_text(OTHER + "\n")
    assert commits.commit() == OTHER
    monkeypatch.setenv(commits.VARIABLE, CLEAN + "+")
    assert commits.commit() == CLEAN + "+"
    for wrong in ("v1.0", CLEAN[:7], "$(git rev-parse HEAD)"):
        monkeypatch.setenv(commits.VARIABLE, wrong)
        with pytest.raises(InputError, match=commits.VARIABLE):
            commits.commit()


def test_surrounding_repository_gives_no_commit(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "of somebody else")
    code = tmp_path / "unpacked" / "commits.py"
    code.parent.mkdir()
    code.write_text("")
    monkeypatch.setattr(commits, "__file__", str(code))
    assert commits.commit() == ""


def test_tree_that_git_cannot_read_is_not_clean(tmp_path, monkeypatch):
    code = tmp_path / "commits.py"
    code.write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(commits, "__file__", str(code))
    monkeypatch.setattr(commits, "_git", refusing(commits._git, "status"))
    assert commits.commit().endswith("+")


def refusing(original, command):
    return lambda *given: None if given[0] == command else original(*given)


def test_git_archive_writes_the_commit(tmp_path, project):
    if commits.is_clean(
        (project / "pipelines/environment/commit.txt").read_text().strip()
    ):
        pytest.skip("this tree is such an archive")
    for file in (".gitattributes", "pipelines/environment/commit.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / file, tmp_path / file)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "archive", "--output", "tree.tar", "HEAD")
    with tarfile.open(tmp_path / "tree.tar") as tar:
        packed = tar.extractfile("pipelines/environment/commit.txt")
        assert packed.read().decode().strip() == head


def test_link_instead_of_lock_or_run_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "other")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name, place in (("run", r"run/\.lock"), ("gone", "gone")):
        held = runs.lock_folder(tmp_path / name)
        with pytest.raises(InputError, match=f"{place}: .*found a link to .*delete it"):
            held.__enter__()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_finished_run_that_is_read_only_is_read_without_a_lock(
    tmp_path, monkeypatch, number
):
    """`evaluate` of a run on a read-only place said that it cannot be written."""

    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    run = runs.Run.create(tmp_path / "run", RECORD)
    monkeypatch.setattr(runs.filelock.FileLock, "acquire", refuse)
    with runs.lock_folder(run.folder):
        assert runs.Run.open(run.folder).state == "training"
    held = runs.lock_folder(tmp_path / "new")
    with pytest.raises(InputError, match="expected a place that can be written"):
        held.__enter__()


# --- what is written, and with which rights ------------------------------------------


@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_written_files_obey_the_umask(tmp_path, umask):
    """Files were 0644 whatever a user had said."""
    before = os.umask(umask)
    try:
        path = runs.write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_writing_through_a_link_keeps_the_link(tmp_path):
    link, target = tmp_path / "link.json", tmp_path / "deep" / "target.json"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    runs.write_json(link, 1)
    assert link.is_symlink() and target.read_text() == "1\n"


def test_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    runs.write_json(pipe, {"a": 1})
    reader.join(10)
    assert found == ['{\n "a": 1\n}\n']
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_report_to_standard_output(tmp_path, capfd):
    """`verify --json /dev/stdout` renamed a file over the link."""
    standard = tmp_path / "stdout"
    standard.symlink_to("/dev/stdout")
    written.require_report(standard, ["format"])
    runs.write_json(standard, {"a": 1})
    assert capfd.readouterr().out == '{\n "a": 1\n}\n'
    assert standard.is_symlink()


def test_long_settings_that_differ_late_are_told_apart(tmp_path):
    same = "x" * 100
    run = runs.Run.create(tmp_path / "r", {**RECORD, "settings": {"filters": same}})
    with pytest.raises(InputError) as caught:
        run.require_same({"settings": {"filters": f"{same}, 5 mm"}})
    shown = f"the run has ...{'x' * 40}', the command asks ...{'x' * 40}, 5 mm'"
    assert shown in str(caught.value)
    cases = [f"c{number:02d}" for number in range(40)]
    other = [*cases[:30], "other", *cases[31:]]
    before = "40 values, ...4', 'c25', 'c26', 'c27', 'c28', 'c29', "
    assert runs.short(cases, other) == f"{before}'c30', 'c31', 'c32', ..."
    assert runs.short(other, cases) == f"{before}'other', 'c31', 'c32'..."
    assert runs.short([1, 2], [3]) == "[1, 2]"
    assert runs.short({"a": same}, None) == f"{{'a': '{'x' * 53}..."


def test_leftovers_of_killed_processes_are_deleted_and_files_in_use_kept(tmp_path):
    code = (
        "import os, sys, pathlib\n"
        "from pipelines.runs import run\n"
        "run.write_atomically(pathlib.Path(sys.argv[1]), lambda _: os._exit(1))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.csv")], check=False)
    (left,) = tmp_path.iterdir()
    mine = tmp_path / ".dscpp-notes"
    mine.touch()

    def other(aside: Path) -> None:
        """Another process writes into the folder at the same time."""
        sweep.cache_clear()
        sweep(tmp_path)
        assert aside.exists()

    runs.write_atomically(tmp_path / "b.csv", other)
    assert sorted(tmp_path.iterdir()) == [mine, tmp_path / "b.csv"]
    assert left.name.startswith(".dscpp-")


def test_a_folder_that_another_process_fills_for_hours_is_kept(tmp_path):
    filling = tmp_path / ".making-0123"
    filling.mkdir()
    os.utime(filling, (1, 1))
    runs.write_atomically(tmp_path / "b.csv", lambda aside: aside.touch())
    assert filling.exists()


def test_command_line_and_writer_work_without_posix_modules(tmp_path):
    """`fcntl` was imported by all that reads a run."""
    code = """
        import pathlib, signal, sys
        sys.modules.update(fcntl=None, resource=None)
        del signal.SIGHUP
        from pipelines import cli
        from pipelines.environment import provenance, stopping
        from pipelines.runs import run
        from pipelines.workflow import processes
        run.write_json(pathlib.Path(sys.argv[1]), {"a": provenance.peak_memory_mb()})
    """
    path = tmp_path / "a.json"
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), path], check=True)
    assert json.loads(path.read_text()) == {"a": 0.0}
    assert list(tmp_path.iterdir()) == [path]
