"""Many runs with one command: what is asked for, what is repeated, what survives."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from data_io.errors import InputError
from pipelines import cli, truth
from pipelines import run as runs
from pipelines.workflow import estimate, leader, plan, reproduce

ROOT = Path(__file__).resolve().parents[1]
TINY = plan.EXPERIMENTS / "tiny.yaml"
PAPER = plan.EXPERIMENTS / "paper.yaml"
THE_RUN = ("history.csv", "cases.csv")  # and the arrays of histograms.npz


def start(folder, *arguments, **options):
    """Starts `dscpp reproduce` on the tiny configuration, in `folder`."""
    command = [*reproduce.dscpp(), "reproduce", "--dataset", "phantom"]
    command += ["--experiment", str(TINY), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, **{**pipes, **options})


def finish(process, timeout=200):
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def run_folders(folder):
    """The runs that were trained, without their scaled twins and the truth."""
    found = sorted((folder / "results" / "phantom").glob("*/runs/*"))
    other = ("-temperature", truth.FOLDER)
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
    for name in THE_RUN:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
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


def test_the_paper_on_drive_is_twenty_runs():
    tasks = plan.read(PAPER, "drive").tasks()
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
    losses = plan.parse_losses("DSC++, dsc++ 2, DSC++ 1.5")
    experiment = plan.Experiment("phantom", "demo", losses, (0, 3))
    names = [planned.name for planned in plan.plan(experiment, tmp_path)]
    assert names == ["dscpp-s0", "dscpp-g1.5-s0", "dscpp-s3", "dscpp-g1.5-s3"]


def test_overrides_lead_to_a_folder_of_their_own_and_to_the_command(tmp_path):
    experiment = plan.Experiment("phantom", "demo", (("DSC", None),), (0,))
    changed = plan.Experiment(
        "phantom",
        "demo",
        (("DSC", None),),
        (0,),
        {"epochs": 2, "input_shape": [32, 32]},
    )
    usual, other = (plan.plan(each, tmp_path)[0] for each in (experiment, changed))
    assert usual.folder == tmp_path / "phantom" / "demo" / "runs" / "dsc-s0"
    assert other.folder.parent.parent.name.startswith("custom-")
    arguments = other.arguments()
    assert arguments[-4:-2] == ["--set", "epochs=2"]
    assert arguments[-2:] == ["--set", "input_shape=[32, 32]"]


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
        (["--dataset", "driver"], ["driver", "drive"]),
        (["--experiment", "none.yaml"], ["none.yaml"]),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    given = ["reproduce", "--dataset", "phantom", "--experiment", str(TINY)]
    assert cli.main([*given, *arguments]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


def test_without_the_data_it_says_where_to_get_it_and_names_the_demo(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", "--dataset", "drive"]) == 2
    message = capsys.readouterr().err
    for words in ("http", "1st_manual", "data/DRIVE", "make demo"):
        assert words in message
    assert list(tmp_path.iterdir()) == []


WHOLE = "preset: demo\nseeds: {}\noverrides: {}\ndatasets: {}\n"


@pytest.mark.parametrize(
    "text",
    [
        "preset: paper\n",
        "- a\n",
        "a: [\n",
        "preset: {a\n",
        WHOLE.format("3", "{}", "{phantom: {DSC: []}}"),
        WHOLE.format("[3]", "7", "{phantom: {DSC: []}}"),
        WHOLE.format("[3]", "{}", "[phantom]"),
        WHOLE.format("[3]", "{}", "{phantom: {DSC: 3}}"),
    ],
    ids=repr,
)
def test_a_damaged_experiment_file_is_named(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"broken\.yaml"):
        plan.read(path, "phantom")


# --- what it takes ---------------------------------------------------------------


def test_hours_to_expect_are_counted_by_hand():
    # 3.6 s an epoch, 1000 epochs, 5 runs: an hour each; two at a time: 2.5 h.
    cost = estimate.Cost(3.6, 1000, "CPU", gpu=False)
    assert cost.hours(5) == pytest.approx(5)
    assert cost.hours(5, jobs=2) == pytest.approx(2.5)
    assert cost.hours(1, jobs=4) == pytest.approx(1)


def test_without_a_gpu_the_reduced_preset_is_named():
    losses = (("DSC", None),)
    tasks = [
        plan.Experiment("drive", preset, losses, (0,)).tasks()[0]
        for preset in ("paper", "reduced")
    ]
    slow = estimate.Cost(100, 1000, "CPU", gpu=False)
    quick = estimate.Cost(9, 100, "CPU", gpu=False)
    lines = "\n".join(estimate.describe(tasks, [slow, quick], runs=3, jobs=1))
    assert "83.3 h" in lines  # 100 s x 1000 x 3
    assert "PRESET=reduced" in lines
    assert "45 min" in lines  # 9 s x 100 x 3
    assert "256x256 pixels, 16 filters, at most 100 epochs" in lines
    graphics = estimate.Cost(1, 1000, "NVIDIA H200", gpu=True)
    lines = "\n".join(estimate.describe(tasks, [graphics], runs=3, jobs=1))
    assert "NVIDIA H200" in lines
    assert "reduced" not in lines


# --- who ends with whom ----------------------------------------------------------

LEADER = """
    import pathlib, subprocess, sys
    from pipelines.workflow import leader
    with leader.lead(pathlib.Path(sys.argv[1])) as file:
        import os
        os.environ[leader.VARIABLE] = str(file)
        # A shell in between, as Snakemake has one.
        subprocess.run(["bash", "-c", sys.argv[2] + "; true"])
"""
FOLLOWER = """
    import os, pathlib, sys, time
    from pipelines.workflow import leader
    leader.follow()
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
def test_children_end_with_a_leader_that_is_killed(tmp_path):
    pid_file, script = tmp_path / "pid", tmp_path / "follower.py"
    script.write_text(textwrap.dedent(FOLLOWER))
    program, follower = textwrap.dedent(LEADER), f"{sys.executable} {script} {pid_file}"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), follower],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    wait_until(lambda: pid_file.exists() and pid_file.read_text(), 20)
    pid = int(pid_file.read_text())
    assert alive(pid)
    process.kill()
    process.wait()
    wait_until(lambda: not alive(pid), 10)


def test_a_child_of_a_leader_that_is_gone_does_not_start(tmp_path):
    code = subprocess.run(
        [
            sys.executable,
            "-c",
            "from pipelines.workflow import leader; leader.follow()",
        ],
        cwd=ROOT,
        check=False,
        env={**os.environ, leader.VARIABLE: str(tmp_path / "gone")},
    ).returncode
    assert code == leader.ENDED


def environment(jobs, tmp_path):
    """What the runs of a call with so many jobs are started with."""
    return reproduce.Call(
        None, (), tmp_path, tmp_path, tmp_path, tmp_path, jobs
    )._environment()


@pytest.mark.parametrize(("jobs", "threads"), [(2, "4"), (3, "2"), (16, "1")])
def test_runs_at_a_time_share_cores_and_gpu(tmp_path, monkeypatch, jobs, threads):
    monkeypatch.setattr(reproduce.pool, "processors", lambda: 8)
    for name in reproduce.shared(jobs):
        monkeypatch.delenv(name, raising=False)
    found = environment(jobs, tmp_path)
    assert found["OMP_NUM_THREADS"] == found["PJRT_NPROC"] == threads
    assert found["TF_NUM_INTRAOP_THREADS"] == threads
    assert found["TF_NUM_INTEROP_THREADS"] == threads
    assert found["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert found["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_what_the_user_has_set_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    found = environment(2, tmp_path)
    assert found["OMP_NUM_THREADS"] == "7"
    assert found["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"


def test_a_run_alone_has_all_of_the_machine(tmp_path, monkeypatch):
    for name in reproduce.shared(2):
        monkeypatch.delenv(name, raising=False)
    assert not reproduce.shared(2).keys() & environment(1, tmp_path).keys()


# --- the tiny configuration, through the same rules ------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny configuration, run to its end and left alone."""
    folder = tmp_path_factory.mktemp("tiny")
    code, output = finish(start(folder))
    assert code == 0, output
    return folder


def test_tiny_goes_through(tiny):
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
    # Nothing of Snakemake beside the results.
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
    code, output = finish(start(tmp_path))
    assert code == 0, output
    assert "2 done, 0 to do" in output
    assert contents(tmp_path) == before


def test_a_failed_run_stops_no_other_and_is_named_with_its_log(tiny, tmp_path):
    # One run cannot be read; of the other, only the measures are missing.
    whole = {folder.name: folder for folder in run_folders(tiny)}
    group = tmp_path / whole["dsc-s0"].relative_to(tiny).parent
    (group / "dsc-s0").mkdir(parents=True)
    (group / "dsc-s0" / "run.json").write_text('{"format": ')
    shutil.copytree(whole["dscpp-s0"], group / "dscpp-s0")
    runs.Run.open(group / "dscpp-s0").update(state="predicted")
    for name in ("cases.csv", "histograms.npz"):
        (group / "dscpp-s0" / name).unlink()
    code, output = finish(start(tmp_path))
    assert code == 1, output
    assert_same_run(group / "dscpp-s0", whole["dscpp-s0"])
    end = output.rpartition("1 of 2 run(s) failed")[2]
    log = next((tmp_path / ".work" / "logs").rglob("dsc-s0.log"))
    assert "dsc-s0: dscpp: " in end
    assert str(log) in end
    assert "dscpp-s0" not in end
    assert "run.json" in log.read_text()


# --- make, killed ----------------------------------------------------------------


def clone(folder):
    """A tree in which `make` works: the front door, the environment, nothing made."""
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venv").symlink_to(Path(sys.prefix), target_is_directory=True)
    return folder


def make(folder):
    """Starts the target itself, on the tiny configuration, in its environment."""
    # `$()` keeps the space that make would strip.
    flags = f"FLAGS=$() --experiment {TINY} --losses DSC++"
    return subprocess.Popen(
        ["make", "--old-file=.venv/.ready", "reproduce-drive", "PHANTOM=1", flags],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def saved(folder):
    """When the training in `folder` last saved its state; 0 before that."""
    times = [path.stat().st_mtime_ns for path in folder.rglob("state.npz")]
    return max(times, default=0)


def kill_in_training(folder, kill):
    """Starts make, kills it between two saved states, and waits for all it started."""
    before = saved(folder / "results")
    process = make(folder)
    saves = folder / "results"
    wait_until(lambda: saved(saves) != before or process.poll() is not None, 120)
    assert process.poll() is None, process.communicate()[0]
    kill(process)
    # The pipe closes when the last process that holds it has ended.
    process.communicate(timeout=20)
    assert saved(folder / "results"), "the training was over before the kill"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_killed_make_goes_on_to_the_same_run(tiny, tmp_path):
    killed = clone(tmp_path / "killed")
    kill_in_training(killed, lambda process: os.killpg(process.pid, signal.SIGKILL))
    kill_in_training(killed, lambda process: process.kill())  # make alone
    code, output = finish(make(killed))
    assert code == 0, output
    (found,) = run_folders(killed)
    assert_same_run(found, run_folders(tiny)[1])
