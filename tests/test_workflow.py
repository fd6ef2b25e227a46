"""Many runs with one command: what is asked for, what is repeated, what survives."""

import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from written_runs import make_run

from data_io import splits
from data_io.errors import InputError
from pipelines import cli
from pipelines.environment import provenance
from pipelines.prediction import true_posterior
from pipelines.runs import run as runs
from pipelines.training.task import Task
from pipelines.workflow import estimate, plan, processes, reproduce, study

# Trainings of a second may take long beside other work: a study yields to all of it.
pytestmark = pytest.mark.timeout(1800)
ROOT = Path(__file__).resolve().parents[1]
TINY = plan.EXPERIMENTS / "tiny.yaml"
PAPER = plan.EXPERIMENTS / "paper.yaml"


def reproduced(folder):
    """Exit code of `dscpp reproduce` on the tiny configuration in `folder`, its words.

    The runs are processes; what starts them is not.
    """
    command = ["reproduce", "--dataset", "phantom", "--experiment", str(TINY)]
    said = io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        code = cli.main(command)
    return code, said.getvalue()


def finish(process, timeout=1500):
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def run_folders(folder):
    """The runs that were trained, without their scaled twins and the truth."""
    found = sorted((folder / "results" / "phantom").glob("*/runs/*"))
    other = ("-temperature", true_posterior.FOLDER)
    return [run for run in found if not run.name.endswith(other)]


def twin(run):
    return run.with_name(f"{run.name}-temperature")


def contents(folder):
    """Every result file below `folder` with its time of change."""
    return {
        path: path.stat().st_mtime_ns
        for path in (folder / "results" / "phantom").glob("*/runs/**/*")
        if path.is_file() and path.name != ".lock"
    }


def assert_same_run(one, other):
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    for found, expected in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert_same_measures(one, other)


def weights(run):
    """The arrays of a saved network, read without Keras."""
    found = []
    with zipfile.ZipFile(run / runs.MODEL) as file:
        content = io.BytesIO(file.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(
            lambda _, item: found.append(item[()]) if hasattr(item, "dtype") else None
        )
    assert found
    return found


def assert_same_measures(one, other):
    assert (one / "cases.csv").read_bytes() == (other / "cases.csv").read_bytes()
    with np.load(one / "histograms.npz") as a, np.load(other / "histograms.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# --- what is asked for -----------------------------------------------------------


@pytest.mark.slow
def test_a_run_with_a_loss_of_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = "{input_shape: [32, 32], filters: 2, depth: 2, epochs: 3}"
    text = f"{{dataset: phantom, preset: demo, loss: NACL, overrides: {small}}}"
    Path("run.yaml").write_text(text)
    assert cli.main(["run", "run.yaml"]) == 0
    (trained,) = run_folders(tmp_path)
    assert json.loads((trained / "run.json").read_text())["state"] == "evaluated"
    history = np.genfromtxt(trained / "history.csv", delimiter=",", names=True)
    assert np.isfinite([history["loss"], history["val_loss"]]).all()


def test_the_runs_beyond_the_paper():
    blocks = plan.read(plan.EXPERIMENTS / "beyond.yaml")
    tasks = [task for block in blocks for task in block.tasks()]
    data = ("drive", "cvc-clinicdb", "hippocampus")
    losses = ("CE", "DSC", "DSC++", "Hard L1-ACE", "Soft L1-ACE", "NACL")
    expected = itertools.product(data, ["reduced"], losses, range(3))
    runs = [(task.dataset, task.preset, task.loss, task.seed) for task in tasks]
    assert sorted(runs) == sorted(expected)


def test_the_paper_on_drive_is_twenty_runs():
    (block,) = plan.of_dataset(PAPER, "drive")
    tasks = block.tasks()
    # Table 4: CE, Focal, DSC; Table 3: ten exponents, of which 1 is DSC itself.
    first, table6 = tasks[:12], tasks[12:]
    assert [task.loss for task in first] == ["CE", "Focal", "DSC"] + 9 * ["DSC++"]
    assert sorted(task.gamma for task in first[2:]) == [n / 2 for n in range(1, 11)]
    plain = ("Tversky", "Focal Tversky", "Combo", "Unified Focal")
    expected = [(name + end, g) for name in plain for end, g in (("", 1), ("++", 2))]
    assert [(task.loss, task.gamma) for task in table6] == expected
    assert {task.preset for task in tasks} == {"paper"}
    assert len(tasks) == 20


def test_a_default_exponent_written_out_is_not_a_second_run(tmp_path):
    losses = plan.parse_losses("DSC++, dsc++ 2, DSC++ g=1.5")
    experiment = plan.Experiment("phantom", losses, (0, 3), "demo")
    names = [planned.name for planned in plan.plan([experiment], tmp_path)]
    assert names == ["dscpp-s0", "dscpp-g1.5-s0", "dscpp-s3", "dscpp-g1.5-s3"]


def test_data_of_another_split_are_refused_before_any_run(tmp_path, monkeypatch):
    """A newcomer's download beside committed runs of another copy: one message."""
    there = runs.Run.open(make_run(tmp_path, "DSC", preset="reduced"))
    experiment = plan.Experiment("drive", (("CE", None),), preset="reduced")
    (run,) = plan.plan([experiment], tmp_path)
    places = tmp_path / "images", tmp_path
    same = {part: tuple(ids) for part, ids in there.record["split"].items()}
    monkeypatch.setattr(splits, "of", lambda *_: same)
    assert reproduce._other_split([run], *places) == ""
    other = same | {"test": (*same["test"], "more")}
    monkeypatch.setattr(splits, "of", lambda *_: other)
    said = reproduce._other_split([run], *places)
    assert f"such as {there.name}" in said and "make: RESULTS=my-results" in said


def test_overrides_lead_to_a_folder_of_their_own(tmp_path):
    usual = plan.Experiment("phantom", (("DSC", None),), preset="demo")
    changed = dataclasses.replace(
        usual, overrides={"epochs": 2, "input_shape": [32, 32]}
    )
    plain, other = plan.plan([usual, changed], tmp_path)
    assert plain.folder == tmp_path / "phantom" / "demo" / "runs" / "dsc-s0"
    assert other.group.name.startswith("custom-")


def test_a_run_file_describes_all_of_a_run(tmp_path):
    experiment = plan.Experiment(
        "phantom",
        (("DSC++", 1.5),),
        (3,),
        "demo",
        {"epochs": 2, "input_shape": [32, 32]},
        split_files=(tmp_path / "split.json",),
        replicate=2,
        backend="torch",
    )
    (planned,) = plan.plan([experiment], tmp_path)
    assert planned.name == "dscpp-g1.5-s3-torch.r2"
    planned = dataclasses.replace(planned, data=tmp_path / "br{a}ces", work=tmp_path)
    assert plan.load(planned.write(tmp_path / "run.json")) == planned


def test_a_run_file_needs_a_data_set_and_a_loss_alone(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("{dataset: drive, loss: dsc++}")
    found = plan.load(path)
    assert found.task == Task.make("drive", "DSC++")
    assert found.folder == Path("results/drive/paper/runs/dscpp-s0")


def test_a_replicate_is_a_run_beside_the_first(tmp_path):
    first = plan.Experiment("phantom", (("DSC", None),), preset="demo")
    again = dataclasses.replace(first, replicate=2)
    planned = plan.plan([first, again, first], tmp_path)
    assert [run.name for run in planned] == ["dsc-s0", "dsc-s0.r2"]
    assert planned[1].task.identity()["replicate"] == 2


def test_two_splits_do_not_share_a_folder(tmp_path):
    one = plan.Experiment("dsb2018", (("DSC", None),))
    with pytest.raises(InputError, match=r"dsc-s0.*differ in their split"):
        plan.plan([one, dataclasses.replace(one, split_seed=1)], tmp_path)


def test_the_study_is_in_the_order_that_was_asked_for(tmp_path):
    planned = plan.plan(plan.read(study.STUDY), tmp_path)
    names = [f"{run.group.relative_to(tmp_path)} {run.name}" for run in planned]
    first = [f"{loss}-s{n}" for n in (0, 1, 2) for loss in ("dscpp", "dsc", "ce")]
    assert names[:10] == [f"drive/paper {name}" for name in [*first, "focal-s0"]]
    assert "tversky" in names[10] and "dscpp-g1.5-s0" in names[18]
    assert sum(name.startswith("drive/paper") for name in names) == 26
    assert names[26].startswith("cvc-clinicdb/reduced")
    assert len(names) == 26 + 12 + 12 + 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--losses", "Dise"], ["Dise", "DSC++"]),
        (["--losses", "CE 2"], ["CE"]),
        (["--losses", " ,"], ["losses", "expected"]),
        (["--seeds", "0;1"], ["seeds", "0;1"]),
        (["--seeds", "-1"], ["seeds", "-1"]),
        (["--preset", "papier"], ["papier", "reduced"]),
        (["--epochs", "0"], ["epochs", "0"]),
        (["--jobs", "0"], ["jobs", "0"]),
        (["--folds", "1"], ["folds: expected 2 to 1000", "received 1"]),
        (["--folds", "100000000"], ["folds: expected 2 to 1000"]),
        (["--dataset", "driver"], ["driver", "drive"]),
        (["--experiment", "none.yaml"], ["none.yaml"]),
    ],
)
def test_invalid_arguments_fail_early(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    given = ["reproduce", "--dataset", "phantom", "--experiment", str(TINY)]
    assert cli.main([*given, *arguments]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "split_seed"), [([], 5), (["--split-seed", "0"], 0)]
)
def test_split_comes_from_the_file_unless_the_command_sets_it(
    tmp_path, monkeypatch, arguments, split_seed
):
    path = tmp_path / "file.yaml"
    path.write_text("- {dataset: phantom, losses: [DSC], split_seed: 5}")
    asked = []
    monkeypatch.setattr(
        reproduce, "reproduce", lambda blocks, *_: asked.extend(blocks) or 0
    )
    given = ["reproduce", "--dataset", "phantom", "--experiment", str(path)]
    assert cli.main([*given, *arguments]) == 0
    assert [block.split_seed for block in asked] == [split_seed]


def test_zero_jobs_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", str(TINY), "--jobs", "0"]) == 2
    assert "jobs: expected" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_missing_data_name_their_source_and_the_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", "--dataset", "drive"]) == 2
    message = capsys.readouterr().err
    for words in ("http", "1st_manual", "data/DRIVE", "make demo"):
        assert words in message
    assert list(tmp_path.iterdir()) == []


def broken(key, value):
    return f"- {{dataset: phantom, losses: [DSC], {key}: {value}}}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("preset: paper\n", ["list", "paper.yaml"]),
        ("[]", ["list"]),
        ("- a\n", ["block 1", "dataset"]),
        ("a: [\n", ["YAML"]),
        ("- {dataset: phantom}\n", ["losses: expected a value, found none"]),
        (broken("lose", "1"), ["lose: expected no such key"]),
        (broken('"seeds[0]"', "1"), ["block 1: seeds[0]: expected no such key"]),
        (broken("2020-01-01", "1"), ["block 1: expected text as each key", "date"]),
        (broken("preset", '"\\ud800"'), ["block 1", "surrogates not allowed"]),
        (broken("seeds", "3"), ["seeds: expected a valid array, found 3"]),
        (
            broken("seeds", "[a]"),
            ["broken.yaml: block 1: seeds.0", "integer"],
        ),
        (broken("seeds", "[-1]"), ["seed", "-1"]),
        (broken("overrides", "7"), ["overrides: expected an object, found 7"]),
        (broken("overrides", "{filter: 7}"), ["filter", "filters"]),
        (broken("preset", "papier"), ["papier", "reduced"]),
        (broken("preset", "[demo]"), ["preset: expected a valid string"]),
        (broken("replicate", "0"), ["replicate", "0"]),
        (
            broken("replicate", "true"),
            ["replicate", "integer, found True"],
        ),
        (broken("backend", "theano"), ["backend", "theano", "torch"]),
        (broken("split_files", "[3]"), ["split_files.0: expected"]),
        ("- {dataset: phantom, losses: DSC}\n", ["losses: expected a valid array"]),
        ("- {dataset: phantom, losses: [3]}\n", ["losses", "3"]),
        ("- {dataset: phantom, losses: []}\n", ["losses"]),
        ("- {dataset: phantom, losses: [CE 2]}\n", ["CE"]),
        ("- {dataset: fantom, losses: [CE]}\n", ["fantom", "phantom"]),
    ],
)
def test_invalid_experiment_files_are_named(tmp_path, monkeypatch, capsys, text, words):
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text(text)
    assert cli.main(["study", "broken.yaml"]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in (*words, "expected")), message
    assert re.search("found|received|gave", message), message
    assert [path.name for path in tmp_path.iterdir()] == ["broken.yaml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{dataset: phantom}", ["loss: expected a value, found none"]),
        ("{dataset: phantom, loss: Dise}", ["run.yaml: loss", "Dise", "DSC++"]),
        ("{dataset: phantom, loss: DSC, preset: big}", ["run.yaml", "preset", "big"]),
        (
            "{dataset: phantom, loss: DSC, gamma: two}",
            ["gamma: expected a valid number, found 'two'"],
        ),
        ("{dataset: phantom, loss: DSC, seed: 1.5}", ["seed", "1.5"]),
        ("[1]", ["run: expected an object, found [1]"]),
        ("\0", ["run.yaml"]),
        ("{dataset: drive, loss: DSC, data: gone}", ["DRIVE", "gone"]),
    ],
)
def test_invalid_run_files_are_named(tmp_path, monkeypatch, capsys, text, words):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(text)
    assert cli.main(["run", "run.yaml"]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in (*words, "expected")), message
    assert re.search("found|received|gave", message), message
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


# --- where the code comes from ---------------------------------------------------


@pytest.mark.parametrize(
    ("commit", "words"),
    [("0" * 40 + "+", ["changes on top of 000000000000", "worktree"]),
     ("", ["without a commit", "DSCPP_COMMIT"])],
)  # fmt: skip
def test_full_size_study_needs_a_clean_commit(
    tmp_path, monkeypatch, capsys, commit, words
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce.commits, "commit", lambda: commit)
    assert cli.main(["study", "--data", "nowhere"]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in ["paper", *words]), message
    # Smaller runs, and those of no table, need none.
    for more in ("preset: reduced", "overrides: {epochs: 3}"):
        Path("small.yaml").write_text(f"- {{dataset: drive, losses: [DSC], {more}}}")
        assert cli.main(["study", "small.yaml", "--data", "nowhere"]) == 2
        assert "expected the data set in nowhere" in capsys.readouterr().err


def test_run_begun_by_changed_code_is_not_continued(tmp_path, monkeypatch, capsys):
    path = study_file(tmp_path, "- {dataset: drive, losses: [DSC]}")
    folder = tmp_path / "results" / "drive" / "paper" / "runs" / "dsc-s0"
    begun(folder, commit="1" * 40 + "+")
    monkeypatch.setattr(reproduce.commits, "commit", lambda: "1" * 40)
    given = ["study", str(path), "--results", str(tmp_path / "results")]
    assert cli.main(given) == 2
    message = capsys.readouterr().err
    assert str(folder) in message
    assert "replicate" in message


def test_missing_data_sets_do_not_stop_others(tmp_path, capsys):
    experiments = [plan.Experiment(n, (("DSC", None),)) for n in ("drive", "kits19")]
    (tmp_path / "DRIVE" / "training").mkdir(parents=True)
    found = study._locate(plan.plan(experiments, tmp_path), tmp_path)
    assert found == {"drive": tmp_path / "DRIVE"}
    assert "Runs left out: KiTS19" in capsys.readouterr().err


def test_data_set_is_found_by_name_in_the_common_folder(tmp_path):
    # The folder of another data set has the subfolder that 2018DSB is told by.
    (tmp_path / "OTHER" / "images").mkdir(parents=True)
    for part in ("images", "masks"):
        (tmp_path / "stage1_train" / "a" / part).mkdir(parents=True)
    planned = plan.plan([plan.Experiment("dsb2018", (("DSC", None),))], tmp_path)
    assert study._locate(planned, tmp_path) == {"dsb2018": tmp_path / "stage1_train"}


def test_study_runs_at_low_priority_and_makes_what_is_left(tmp_path, monkeypatch):
    path = tmp_path / "study.yaml"
    path.write_text("- {dataset: drive, preset: reduced, losses: [DSC, CE, Focal]}")
    (tmp_path / "DRIVE" / "training").mkdir(parents=True)
    results, calls, yielded = tmp_path / "results", [], []
    begun(results / "drive" / "reduced" / "runs" / "ce-s0", {"epochs": 1})
    monkeypatch.setattr(study.os, "nice", yielded.append)
    monkeypatch.setattr(study.reproduce, "make", lambda *given: calls.append(given))
    given = ["study", str(path), "--data", str(tmp_path), "--results", str(results)]
    assert cli.main([*given, "--work", str(tmp_path / "work")]) == 0
    ((planned, *_),) = calls
    data = [(run.name, run.data) for run in planned]
    drive = tmp_path / "DRIVE"
    assert data == [("dsc-s0", drive), ("ce-s0", None), ("focal-s0", drive)]
    assert yielded == [19]


def test_study_reads_the_commit_once(tmp_path, monkeypatch):
    path = study_file(tmp_path, "- {dataset: drive, losses: [DSC, CE]}")
    (tmp_path / "DRIVE" / "training").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(
        reproduce.commits, "commit", lambda: asked.append(1) or 40 * "0"
    )
    monkeypatch.setattr(reproduce.Call, "run", lambda self: 0)
    monkeypatch.setattr(study.os, "nice", lambda _: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", str(path), "--data", str(tmp_path)]) == 0
    assert len(asked) == 1


def test_refused_study_draws_no_phantoms(tmp_path, monkeypatch):
    path = tmp_path / "study.yaml"
    path.write_text("- {dataset: phantom, preset: demo, losses: [DSC]}")

    def missing(*_names):
        raise InputError("no keras")

    monkeypatch.setattr(reproduce.installed, "require_training", missing)
    monkeypatch.setattr(study, "_locate", lambda *_: pytest.fail("drawn"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", str(path), "--work", str(tmp_path / "work")]) == 2


def test_skipped_and_unstarted_runs_count_as_failed(tmp_path, monkeypatch):
    losses = (("DSC", None), ("CE", None), ("Focal", None), ("Combo", None))
    made, stopped, done, left_out = plan.plan(
        [plan.Experiment("drive", losses)], tmp_path
    )
    made, stopped = (
        dataclasses.replace(run, data=tmp_path, work=tmp_path)
        for run in (made, stopped)
    )
    begun(done.folder, {"epochs": 1})
    monkeypatch.setattr(reproduce, "dscpp", lambda: [shutil.which("true")])
    call = reproduce.Call(
        [made, stopped, done, left_out], tmp_path, tmp_path, tmp_path, 1
    )
    assert call._make([made]) == [
        (stopped, "it was not started"),
        (left_out, "it was not started"),
    ]


# --- what it takes ---------------------------------------------------------------


def test_hours_to_expect_are_counted_by_hand():
    # 3.6 s an epoch, 1000 epochs, 5 runs: an hour each; two at a time: 2.5 h.
    cost = estimate.Cost(3.6, 1000, "CPU")
    assert cost.hours(5) == pytest.approx(5)
    assert cost.hours(5, jobs=2) == pytest.approx(2.5)
    assert cost.hours(1, jobs=4) == pytest.approx(1)


def test_without_a_gpu_the_reduced_preset_is_named():
    losses = (("DSC", None),)
    tasks = [
        plan.Experiment("drive", losses, preset=preset).tasks()[0]
        for preset in ("paper", "reduced")
    ]
    slow = estimate.Cost(100, 1000, "CPU")
    quick = estimate.Cost(9, 100, "CPU")
    lines = "\n".join(estimate.describe(tasks, [slow, quick], runs=3, jobs=1))
    assert "83.3 h" in lines  # 100 s x 1000 x 3
    assert "PRESET=reduced" in lines
    assert "45 min" in lines  # 9 s x 100 x 3
    assert "256x256 pixels, 16 filters, at most 100 epochs" in lines
    graphics = estimate.Cost(1, 1000, "NVIDIA H200")
    lines = "\n".join(estimate.describe(tasks, [graphics], runs=3, jobs=1))
    assert "NVIDIA H200" in lines
    assert "reduced" not in lines


def test_estimate_also_times_the_reduced_preset(tmp_path, monkeypatch):
    split = tmp_path / "split.json"
    experiment = plan.Experiment("drive", (("DSC", None),), split_files=(split,))
    planned = plan.plan([experiment], tmp_path)
    timed = []
    monkeypatch.setattr(
        reproduce.estimate, "measure", lambda runs, folder: timed.extend(runs) or []
    )
    reproduce.Call(planned, tmp_path, tmp_path, tmp_path, 1)._expect(planned)
    assert [run.task.preset for run in timed] == ["paper", "reduced"]
    for number, run in enumerate(timed):
        assert plan.load(run.write(tmp_path / f"{number}.json")) == run


# --- who ends with whom ----------------------------------------------------------

LEADER = """
    import pathlib, sys
    from pipelines.workflow import processes
    job = processes.Job(sys.argv[1:], pathlib.Path("log"))
    print(processes.make([job, job], 1, processes.environment()))
"""
FOLLOWER = """
    import os, pathlib, sys, time
    from pipelines.workflow import processes
    processes.follow()
    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(60)
"""


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_child_processes_end_with_their_parent(tmp_path, how):
    """Whatever ends it; the second command is not begun."""
    pid_file, script = tmp_path / "pid", tmp_path / "follower.py"
    script.write_text(textwrap.dedent(FOLLOWER))
    program = [sys.executable, "-c", textwrap.dedent(LEADER)]
    process = subprocess.Popen(
        [*program, sys.executable, str(script), str(pid_file)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: pid_file.exists() and pid_file.read_text(), 20)
    pid = int(pid_file.read_text())
    assert alive(pid)
    process.send_signal(how)
    process.wait()
    wait_until(lambda: not alive(pid), 10)
    assert pid_file.read_text() == str(pid)


def test_child_of_a_dead_parent_does_not_start():
    code = subprocess.run(
        [sys.executable, "-c",
         "from pipelines.workflow import processes; processes.follow()"],
        cwd=ROOT,
        check=False,
        env={**os.environ, processes.VARIABLE: "-1"},
    ).returncode  # fmt: skip
    assert code == processes.ENDED


def test_parallel_runs_continue_when_one_fails(tmp_path, capfd):
    """Each waits for a file that the other makes; the third is made behind them."""
    script = "touch {0}; while ! [ -e {1} ]; do sleep 0.01; done; echo {0}; exit {2}"
    programs = [script.format("a", "b", 3), script.format("b", "a", 0), "echo c"]
    jobs = [
        processes.Job(["sh", "-c", f"cd {tmp_path}; {text}"], tmp_path / name, name)
        for text, name in zip(programs, "123", strict=True)
    ]
    assert processes.make(jobs, 2, os.environ) == ["a", "", ""]
    assert sorted(capfd.readouterr().out.split()) == ["1a", "2b", "3c"]
    logs = [(tmp_path / name).read_text() for name in "123"]
    assert logs == ["a\n", "b\n", "c\n"]


def test_missing_or_silent_command_is_reported(tmp_path):
    commands = [["/no/such/dscpp"], ["sh", "-c", "exit 3"]]
    jobs = [processes.Job(command, tmp_path / "log") for command in commands]
    absent, silent = processes.make(jobs, 1, os.environ)
    assert "/no/such/dscpp" in absent
    assert silent == "it ended without a message"


def environment(jobs, tmp_path):
    """What the runs of a call with so many jobs are started with."""
    return reproduce.Call((), tmp_path, tmp_path, tmp_path, jobs)._environment


@pytest.mark.parametrize(("jobs", "threads"), [(2, "4"), (3, "2"), (16, "1")])
def test_runs_at_a_time_share_cores_and_gpu(tmp_path, monkeypatch, jobs, threads):
    monkeypatch.setattr(reproduce.pool, "processors", lambda: 8)
    for name in reproduce.shared(jobs, tmp_path):
        monkeypatch.delenv(name, raising=False)
    found = environment(jobs, tmp_path)
    assert found["OMP_NUM_THREADS"] == found["PJRT_NPROC"] == threads
    assert found["TF_NUM_INTRAOP_THREADS"] == threads
    assert found["TF_NUM_INTEROP_THREADS"] == threads
    assert found["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert found["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert found["DSCPP_SAMPLES"].startswith(str(tmp_path))


def test_user_environment_variables_take_precedence(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    found = environment(2, tmp_path)
    assert found["OMP_NUM_THREADS"] == "7"
    assert found["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"


def test_single_run_gets_the_whole_machine(tmp_path, monkeypatch):
    for name in reproduce.shared(2, tmp_path):
        monkeypatch.delenv(name, raising=False)
    assert not reproduce.shared(2, tmp_path).keys() & environment(1, tmp_path).keys()


# --- the tiny configuration, through the same rules ------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny configuration, run to its end and left alone."""
    folder = tmp_path_factory.mktemp("tiny")
    code, output = reproduced(folder)
    assert code == 0, output
    return folder


def test_tiny_study_completes(tiny):
    folders = run_folders(tiny)
    assert [folder.name for folder in folders] == ["dsc-s0", "dscpp-s0"]
    for folder in folders:
        record = json.loads((folder / "run.json").read_text())
        assert record["state"] == "evaluated"
        assert record["simulated"] is True
        assert all((folder / name).is_file() for name in runs.COMMITTED)
        assert len((folder / "history.csv").read_text().splitlines()) == 1 + 20
        scaled = runs.Run.open(twin(folder))
        assert (scaled.state, scaled.record["posthoc"]["run"]) == (
            "evaluated",
            folder.name,
        )
    logs = sorted((tiny / ".work" / "logs").rglob("*.log"))
    assert [log.name for log in logs] == ["dsc-s0.log", "dscpp-s0.log"]
    for log in logs:  # of whole lines, not of a bar that is drawn anew
        content = log.read_bytes()
        assert b"\r" not in content
        assert b": epoch 1 of at most 20, loss " in content
    assert {path.name for path in tiny.iterdir()} <= {"results", ".work"}


def test_done_work_is_not_repeated_nor_are_committed_runs_of_a_fresh_clone(
    tiny, tmp_path
):
    # One run as it was left, with its weights; one as it comes from git.
    whole, committed = run_folders(tiny)
    for folder in (whole, twin(whole), whole.with_name("true-posterior")):
        shutil.copytree(folder, tmp_path / folder.relative_to(tiny))
    copy = tmp_path / committed.relative_to(tiny)
    copy.mkdir(parents=True)
    for name in runs.COMMITTED:
        shutil.copy(committed / name, copy / name)
    before = contents(tmp_path)
    code, output = reproduced(tmp_path)
    assert code == 0, output
    assert "2 done, 0 to do" in output
    assert contents(tmp_path) == before


def test_failed_run_is_named_with_its_log_and_others_continue(tiny, tmp_path):
    # One run cannot be read; of the other, only the measures are missing.
    whole = {folder.name: folder for folder in run_folders(tiny)}
    group = tmp_path / whole["dsc-s0"].relative_to(tiny).parent
    (group / "dsc-s0").mkdir(parents=True)
    (group / "dsc-s0" / "run.json").write_text('{"format": ')
    shutil.copytree(whole["dscpp-s0"], group / "dscpp-s0")
    runs.Run.open(group / "dscpp-s0").update(state="predicted")
    for name in ("cases.csv", "histograms.npz"):
        (group / "dscpp-s0" / name).unlink()
    code, output = reproduced(tmp_path)
    assert code == 1, output
    assert_same_run(group / "dscpp-s0", whole["dscpp-s0"])
    end = output.rpartition("1 of 2 run(s) failed")[2]
    log = next((tmp_path / ".work" / "logs").rglob("dsc-s0.log"))
    assert "dsc-s0: dscpp: " in end
    assert str(log) in end
    assert "dscpp-s0" not in end
    assert "run.json" in log.read_text()


# --- how far it is ---------------------------------------------------------------


def begun(folder, times=None, **values):
    """Writes a run of this machine: finished where it has times."""
    machine = {"machine": provenance.machine(), "commit": "0" * 40}
    block = plan.Experiment(
        folder.parents[2].name,
        tuple((loss, None) for loss in ("DSC++", "DSC", "CE", "Focal")),
        preset=folder.parents[1].name,
    )
    planned = plan.plan([block], folder.parents[3])
    tasks = {run.folder: run.task for run in planned}
    identity = tasks[folder.with_name(folder.name.removesuffix("-temperature"))]
    record = {"method": "", **identity.identity(), **machine, **values}
    run = runs.Run.create(folder, record)
    if times:
        for name in runs.MEASURES:
            run.path(name).touch()
        run.update(state="evaluated", times=times)
    return run


def saved_state(run, epoch, seconds):
    progress = json.dumps({"epoch": epoch, "seconds": seconds})
    np.savez(run.path(runs.STATE), progress=np.array(progress))


def study_file(folder, text):
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def shown(folder, path, *arguments):
    given = ["study", str(path), "--status", "--results", str(folder / "results")]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main([*given, "--work", str(folder / "work"), *arguments]) == 0
    return out.getvalue().splitlines()


def test_status_lists_done_running_stopped_and_left(tmp_path):
    path = study_file(tmp_path, "- {dataset: drive, losses: [DSC++, DSC, CE, Focal]}")
    group = tmp_path / "results" / "drive" / "paper" / "runs"
    done = {"train_s": 3400.0, "predict_s": 150.0, "evaluate_s": 50.0, "epochs": 170}
    begun(group / "dscpp-s0", done)
    saved_state(begun(group / "dsc-s0"), epoch=90, seconds=1800.0)
    saved_state(begun(group / "ce-s0"), epoch=10, seconds=200.0)
    log = tmp_path / "work" / "logs" / "drive" / "paper" / "ce-s0.log"
    log.parent.mkdir(parents=True)
    log.write_text("dscpp: the disk is full\n")
    with runs.lock_folder(group / "dsc-s0"):
        lines = shown(tmp_path, path)
    starts = [line.split()[0] for line in lines[:4]]
    assert starts == ["done", "running", "stopped", "left"]
    assert "170 epochs, 1.0 h" in lines[0]
    assert "epoch 90 of at most 1000" in lines[1]
    assert "epoch 10 of at most 1000; dscpp: the disk is full" in lines[2]
    assert lines[4] == "4 run(s): 1 done, 1 running, 1 stopped, 1 left"
    # An hour a run: (3600 - 1800) + (3600 - 200) + 3600 s = 2.44 h.
    assert lines[5].startswith("drive at paper: 3 run(s) take about 2.4 h (1 finished")
    assert "about 1.2 h" in shown(tmp_path, path, "--jobs", "2")[5]


def test_run_with_probabilities_is_done_only_with_its_temperature(tmp_path):
    (planned,) = plan.plan([plan.Experiment("drive", (("DSC", None),))], tmp_path)
    assert not planned.done
    run = begun(planned.folder, {"epochs": 1}, files={runs.MODEL: "of now"})
    assert planned.done  # as it comes from git
    run.path("probabilities").mkdir()
    assert not planned.done
    scaled = begun(twin(planned.folder), {"fit_s": 1}, posthoc={"model": "of now"})
    assert planned.done
    scaled.update(state="predicted")
    assert not planned.done
    scaled.update(state="evaluated", posthoc={"model": "of before"})
    assert not planned.done
    run.update(temperature_at_bound="of now")  # none can be fitted
    assert planned.done
    run.update(split_seed=7)  # another training than the one that is planned
    assert not planned.done


def test_time_is_estimated_from_epochs_before_a_run_finishes(tmp_path):
    path = study_file(tmp_path, "- {dataset: drive, losses: [DSC++, DSC]}")
    group = tmp_path / "results" / "drive" / "paper" / "runs"
    assert shown(tmp_path, path)[3] == "drive at paper: no run to take a time from yet"
    # Of another kind of machine: it says nothing here.
    elsewhere = {"train_s": 36.0, "predict_s": 0.0, "evaluate_s": 0.0, "epochs": 9}
    begun(group / "ce-s0", elsewhere, machine="another")
    begun(group / "focal-s0", elsewhere, backend="jax")
    saved_state(begun(group / "dscpp-s0"), epoch=10, seconds=180.0)
    # 18 s x 1000 epochs x 2 runs, less the 180 s that are spent.
    line = shown(tmp_path, path)[3]
    assert line.startswith("drive at paper: 2 run(s) take at most 9.9 h (10 epochs of")
    assert "18.0 s each, at most 1000" in line


def test_damaged_record_does_not_stop_status(tmp_path):
    path = study_file(tmp_path, "- {dataset: drive, losses: [DSC++, DSC, CE]}")
    group = tmp_path / "results" / "drive" / "paper" / "runs"
    begun(group / "dscpp-s0", {"seconds": 1.0})
    begun(group / "dsc-s0").path(runs.STATE).write_bytes(b"PK nothing")
    begun(group / "ce-s0").path("run.json").write_text("{")
    lines = shown(tmp_path, path)
    assert [line.split()[0] for line in lines[:3]] == ["done", "stopped", "left"]


# --- make, killed ----------------------------------------------------------------


def clone(folder):
    """A tree in which `make` works: the front door, the environment, nothing made."""
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venv").symlink_to(Path(sys.prefix), target_is_directory=True)
    return folder


def make_study(folder):
    """Starts the target itself, on the tiny configuration, in its environment."""
    return subprocess.Popen(
        ["make", "--old-file=.venv/.ready", "study", f"STUDY={TINY}"],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_when(folder, moment, kill):
    """Starts make, kills it at a moment, and waits for all that it started."""
    process = make_study(folder)
    wait_until(lambda: moment() or process.poll() is not None, 800)
    assert process.poll() is None, process.communicate()[0]
    kill(process)
    # The pipe closes when the last process that holds it has ended.
    process.communicate(timeout=60)


def state_of(folder, name):
    """The state of a run: "saved" once its training can go on; "" before it begins."""
    for run in folder.glob(f"results/phantom/*/runs/{name}"):
        if runs.is_run(run):
            state = runs.Run.open(run).state
            saved = state == "training" and (run / runs.STATE).exists()
            return "saved" if saved else state
    return ""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_study_that_was_killed_twice_makes_the_same_files(tiny, tmp_path):
    """In the training of one run and behind that of another; all of it, and make."""
    killed = clone(tmp_path / "ki{ll}ed twice")
    first, second = run_folders(tiny)

    def in_training():
        return state_of(killed, first.name) == "saved"

    def before_its_measures():
        return state_of(killed, second.name) in ("trained", "predicted")

    kill_when(killed, in_training, lambda make: os.killpg(make.pid, signal.SIGKILL))
    assert in_training(), "the training was over before the kill"
    kill_when(killed, before_its_measures, lambda make: make.kill())
    assert state_of(killed, first.name) == "evaluated"
    assert before_its_measures(), "the run was over before the kill"
    code, output = finish(make_study(killed))
    assert code == 0, output
    assert "2 run(s): 1 done, 1 to do" in output
    for found, expected in zip(run_folders(killed), run_folders(tiny), strict=True):
        assert_same_run(found, expected)
        assert_same_measures(twin(found), twin(expected))
