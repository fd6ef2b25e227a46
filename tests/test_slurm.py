"""Runs as jobs of SLURM: with commands in its place, then with a real one."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_odd_names import ODD
from test_own import write_sets
from test_workflow import assert_same_run, begun, saved_state, wait_until

from data_io.errors import InputError
from pipelines import cli
from pipelines.runs import run as runs
from pipelines.workflow import plan, processes, reproduce, slurm, study

# Each notes what it was asked, a line each; the queue is a file.
SBATCH = """#!{python}
import json, os, pathlib, sys
asked = pathlib.Path({asked!r})
lines = asked.read_text().splitlines() if asked.exists() else []
if os.environ.get("DSCPP_PARENT") or len(lines) >= {most}:
    sys.exit("sbatch: error: QOSMaxSubmitJobPerUserLimit")
asked.write_text("\\n".join([*lines, json.dumps(sys.argv[1:])]))
print("Welcome.", f"{{len(lines) + 1}};cluster", sep="\\n")
"""


@dataclasses.dataclass
class Cluster:
    """Commands of SLURM that do nothing."""

    folder: Path
    queue: list[str]

    def say(self, most: int = 1000) -> None:
        """Writes the commands; at `most` jobs `sbatch` refuses."""
        places = {"python": sys.executable, "asked": str(self.folder / "asked")}
        self.write("sbatch", SBATCH.format(**places, most=most))
        (self.folder / "queue").write_text("".join(f"{job}\n" for job in self.queue))
        self.write("squeue", f"#!/bin/sh\nexec cat '{self.folder}/queue'\n")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    @property
    def asked(self) -> list[list[str]]:
        """The arguments of each call of sbatch."""
        asked = self.folder / "asked"
        lines = asked.read_text().splitlines() if asked.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Cluster:
    folder = tmp_path / "bin"
    folder.mkdir()
    found = Cluster(folder, [])
    found.say()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(study.os, "nice", lambda _: None)
    monkeypatch.setattr(reproduce.Call, "_refused", lambda *_: {})
    return found


@pytest.fixture
def profile(tmp_path) -> Path:
    path = tmp_path / "profile.yaml"
    path.write_text(
        "sbatch: {partition: gpu, gres: 'gpu:1', time: 4:00:00, exclusive: }\n"
        "tables: {partition: cpu}\n"
        "attempts: 7\nprice: 2.5\n"
    )
    return path


def command(folder: Path, *arguments: str, more: str = "") -> tuple[int, str]:
    """Exit code and words of `dscpp study` on three runs, every place in `folder`."""
    (folder / "DRIVE" / "training").mkdir(parents=True, exist_ok=True)
    file = folder / "three.yaml"
    file.write_text(
        "- {dataset: drive, preset: reduced, losses: [DSC, CE, Focal]}" + more
    )
    places = [f"--{name}={folder / name}" for name in ("results", "work")]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main(["study", str(file), f"--data={folder}", *places, *arguments])
    return code, said.getvalue()


def option(words: list[str], name: str) -> str:
    (found,) = (word for word in words if word.startswith(f"--{name}="))
    return found.partition("=")[2]


def test_each_run_is_a_job_and_a_last_one_writes_the_tables(
    tmp_path, monkeypatch, cluster, profile
):
    """In a place with any name: SLURM gets it as one argument."""
    monkeypatch.setattr(processes, "follow", lambda: None)
    monkeypatch.setenv(processes.VARIABLE, "1")  # no job is to end with this process
    code, said = command(tmp_path / ODD, "--slurm", str(profile))
    assert (code, "expected a place without a backslash" in said) == (2, True), said
    assert cluster.asked == []
    odd = tmp_path / ODD.replace("\\", "")
    code, said = command(odd, "--slurm", str(profile))
    assert (code, "3 run(s) submitted to SLURM" in said) == (0, True), said
    *asked, last = cluster.asked
    group = odd / "results" / "drive" / "reduced" / "runs"
    for words, name in zip(asked, ("dsc-s0", "ce-s0", "focal-s0"), strict=True):
        at = words.index(str(slurm.SCRIPT))
        options, (attempts, folder, *run, file) = words[:at], words[at + 1 :]
        log = odd / "work" / "logs" / "drive" / "reduced" / f"{name}.log"
        assert set(options) == {
            "--parsable", "--partition=gpu", "--gres=gpu:1", "--time=4:00:00",
            "--exclusive", "--requeue", "--signal=B:USR1@120", "--open-mode=append",
            f"--job-name={slurm.job_name(group / name)}",
            "--output=" + str(log).replace("%", "%%"),
        }  # fmt: skip
        assert (attempts, folder) == ("7", str(group / name))
        assert run == [*reproduce.dscpp(), "run"]
        planned = plan.load(Path(file))
        assert (planned.folder, planned.data) == (group / name, odd / "DRIVE")
        assert (planned.log, log.parent.is_dir()) == (log, True)
    assert option(last, "dependency") == "afterany:1:2:3"
    assert "--partition=cpu" in last
    assert not any(word.startswith(("--gres", "--signal")) for word in last)
    wrapped = option(last, "wrap").removeprefix("exec ")
    told = subprocess.run(  # as the shell of the job reads it
        ["sh", "-c", f"printf '%s\\0' {wrapped}"], stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    python, *module, folder, _ = told.split("\0")
    assert [python, *module] == [sys.executable, "-m", "pipelines.workflow.slurm"]
    assert len(list((Path(folder) / "slurm").glob("*.json"))) == 3


def test_queued_and_finished_runs_are_not_submitted_again(tmp_path, cluster, profile):
    assert command(tmp_path, "--slurm", str(profile))[0] == 0
    names = [option(words, "job-name") for words in cluster.asked]
    states = ["PENDING", "RUNNING", "PENDING", "PENDING"]
    cluster.queue[:] = [
        f"{n} {state} {name}"
        for n, (state, name) in enumerate(zip(states, names, strict=True), 1)
    ] + ["77 RUNNING another job of mine", "78 PENDING in two\nlines"]
    cluster.say()
    code, said = command(tmp_path, "--slurm", str(profile))
    assert code == 0
    assert "0 run(s) submitted to SLURM, 3 were in its queue" in said
    assert len(cluster.asked) == 4
    # The first is done by now, and the second has left the queue: it failed.
    group = tmp_path / "results" / "drive" / "reduced" / "runs"
    begun(group / "dsc-s0", {"epochs": 1})
    del cluster.queue[:2]
    cluster.say()
    assert command(tmp_path, "--slurm", str(profile))[0] == 0
    one, last = cluster.asked[4:]
    assert option(one, "job-name") == slurm.job_name(group / "ce-s0")
    assert option(last, "dependency") == "afterany:3:5"


def test_a_data_set_that_is_refused_leaves_the_others(
    tmp_path, monkeypatch, cluster, profile
):
    (tmp_path / "CVC-ClinicDB" / "Original").mkdir(parents=True)
    more = "\n- {dataset: cvc-clinicdb, preset: reduced, losses: [DSC]}"
    monkeypatch.setattr(reproduce.Call, "_refused", lambda *_: {"cvc-clinicdb": 1})
    code, said = command(tmp_path, "--slurm", str(profile), more=more)
    assert code == 1
    assert "3 run(s) submitted" in said
    files = (tmp_path / "work" / "workflow" / "study").glob("*/slurm/*.json")
    data = {plan.load(file).task.dataset: plan.load(file).data for file in files}
    assert data == {"drive": tmp_path / "DRIVE", "cvc-clinicdb": None}


def test_a_job_that_is_refused_leaves_those_before_it(tmp_path, cluster, profile):
    cluster.say(most=2)
    code, said = command(tmp_path, "--slurm", str(profile))
    assert code == 2
    assert "QOSMaxSubmitJobPerUserLimit" in said
    assert "2 of 3 run(s) are in the queue; the same command submits the rest" in said


def test_a_later_call_keeps_the_files_of_queued_jobs(tmp_path, cluster, profile):
    """Its table job waits for them too; by another spelling they are the same."""
    (tmp_path / "DRIVE" / "training").mkdir(parents=True)
    places = [f"--{name}={tmp_path / name}" for name in ("results", "work")]
    given = ["reproduce", "--dataset=drive", "--preset=reduced", *places]
    given += [f"--data={tmp_path}", "--slurm", str(profile)]
    assert cli.main([*given, "--losses=DSC"]) == 0
    cluster.queue += [
        f"{n} PENDING {option(words, 'job-name')}"
        for n, words in enumerate(cluster.asked, 1)
    ]
    cluster.say()
    assert cli.main([*given, "--losses=CE"]) == 0
    one, last = cluster.asked[2:]
    assert option(one, "job-name").startswith("dscpp-ce-s0-")
    assert option(last, "dependency") == "afterany:1:3"
    files = [Path(words[-1]) for words in cluster.asked if "--requeue" in words]
    assert all(file.exists() for file in files) and len(files) == 2
    again = [f"--results={tmp_path}/work/../results", "--losses=DSC"]
    assert cli.main([*given, *again]) == 0
    assert len(cluster.asked) == 4


def test_a_filter_of_squeue_hides_no_job(tmp_path, monkeypatch, cluster):
    cluster.write("squeue", '#!/bin/sh\necho "7 PENDING dscpp-a$SQUEUE_STATES"')
    monkeypatch.setenv("SQUEUE_STATES", "R")
    assert slurm.queue() == {"dscpp-a": slurm.Job("7", "PENDING")}


def test_tables_of_no_runs_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["slurm", str(tmp_path / "gone")])
    assert slurm.main() == 2
    assert "expected the files of the runs, found none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "has_gpu"),
    [
        ({"partition": "cpu", "account": "gpu-lab", "exclude": "gpu07"}, False),
        ({"partition": "GPU"}, True),
        ({"gpus-per-node": "1"}, True),
        ({"gres": "gpu:a100:1"}, True),
        ({}, False),
    ],
)
def test_gpu_jobs_are_recognised_by_their_options(asked, has_gpu):
    assert slurm.Profile(asked).has_gpu == has_gpu


def test_without_slurm_the_message_names_the_login_node(
    tmp_path, monkeypatch, cluster, profile
):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, said = command(tmp_path, "--slurm", str(profile))
    assert code == 2
    assert "found no sbatch. Give the command on a login node" in said
    assert not (tmp_path / "work").exists()


def test_failing_squeue_is_reported(tmp_path, cluster, profile):
    cluster.write("squeue", "#!/bin/sh\necho Unable to contact controller >&2; exit 1")
    for arguments, expected in ((["--slurm", str(profile)], 2), (["--status"], 0)):
        code, said = command(tmp_path, *arguments)
        assert code == expected
        assert "squeue: expected an answer of SLURM" in said
        assert "Unable to contact controller" in said
    assert cluster.asked == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 3", ["profile.yaml", "any of sbatch, tables, attempts, warning, price"]),
        ("partition: gpu", ["partition: expected no such key"]),
        ("sbatch: gpu", ["sbatch"]),
        ("sbatch: {array: 1-3}", ["'array'"]),
        ("sbatch: {-p: gpu}", ["long names", "'-p'"]),
        ("tables: {output: mine}", ["'output'"]),
        ("attempts: many", ["attempts", "many"]),
        ("attempts: 0", ["attempts", "than or equal to 1, found '0'"]),
        ("warning: 70000", ["warning", "than or equal to 65535, found '70000'"]),
        *(
            (f"{{warning: 300, sbatch: {{time: {time}}}}}", ["time", "warning 300 s"])
            for time in ("5", "4:59", "0:05:00", "0-0:05", '"1"')
        ),
        ("price: -1", ["price", "-1"]),
        ("price: .nan", ["price", "nan"]),
        ("sbatch: {clusters: other}", ["'clusters'"]),
        ("sbatch: {quiet: }", ["'quiet'"]),
        ("sbatch: {arra: 1-2}", ["'arra'"]),
        ('sbatch: {comment: "a\\0b"}', ["'comment'"]),
        ("a: [", ["YAML"]),
    ],
)
def test_invalid_profile_entries_are_named(tmp_path, cluster, profile, text, words):
    profile.write_text(text)
    code, said = command(tmp_path, "--slurm", str(profile))
    assert code == 2
    assert all(word in said for word in words), said
    assert cluster.asked == []


@pytest.mark.parametrize("time", ["6", "5:01", "1:00:00", "1-0", "0", "UNLIMITED"])
def test_time_limit_longer_than_the_warning_is_accepted(profile, time):
    profile.write_text(f"{{warning: 300, sbatch: {{time: {time}}}}}")
    assert slurm.read(profile).sbatch == {"time": time}


def test_empty_profile_uses_the_cluster_defaults(tmp_path, cluster, profile):
    profile.write_text("{}")
    assert slurm.read(profile) == slurm.Profile()
    with pytest.raises(InputError, match=r"gone\.yaml"):
        slurm.read(tmp_path / "gone.yaml")


# --- how far it is, and what it takes --------------------------------------------


def test_status_shows_the_queue(tmp_path, cluster):
    group = tmp_path / "results" / "drive" / "reduced" / "runs"
    saved_state(begun(group / "ce-s0"), epoch=10, seconds=20.0)
    cluster.queue += [
        f"8 PENDING {slurm.job_name(group / 'dsc-s0')}",
        f"9 RUNNING {slurm.job_name(group / 'ce-s0')}",
    ]
    cluster.say()
    code, said = command(tmp_path, "--status")
    lines = said.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[:3]] == ["queued", "running", "left"]
    assert "job 8, PENDING" in lines[0]
    assert "job 9, RUNNING; epoch 10 of at most 100" in lines[1]
    assert lines[3] == "3 run(s): 0 done, 1 running, 1 queued, 0 stopped, 1 left"


def test_the_dry_run_counts_gpu_hours_and_their_price(
    tmp_path, monkeypatch, cluster, profile
):
    monkeypatch.chdir(tmp_path)
    group = tmp_path / "results" / "drive" / "reduced" / "runs"
    hour = {"train_s": 3400.0, "predict_s": 150.0, "evaluate_s": 50.0, "epochs": 80}
    begun(group / "dsc-s0", hour, device="A100", machine="a node")
    begun(group / "dscpp-s0", {**hour, "train_s": 0.0}, device="CPU", machine="here")
    code, said = command(tmp_path, "--slurm", str(profile), "--dry-run")
    assert code == 0
    assert cluster.asked == []
    assert (
        "drive at reduced: 2 run(s) take about 2.0 h "
        "(1 finished with tensorflow on A100: 1.0 h and 80 epochs a run)" in said
    )
    # Two hours at 2.5: by hand.
    assert "In sum about 2.0 GPU hours" in said
    assert "at 2.5 an hour: 5.00" in said
    assert "Not counted" not in said


def test_an_estimate_without_a_measurement_says_so(tmp_path, monkeypatch, profile):
    monkeypatch.chdir(tmp_path)
    given = ["reproduce", "--dataset=drive", "--losses=DSC,CE", "--dry-run"]
    given += ["--results=none", "--slurm", str(profile)]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(given) == 0
    assert "drive at paper: no run to take a time from yet" in out.getvalue()
    assert "Not counted: 2 run(s) without a time" in out.getvalue()
    assert [path.name for path in tmp_path.iterdir()] == ["profile.yaml"]


# --- the job itself --------------------------------------------------------------


@pytest.fixture
def job(cluster, tmp_path):
    """Starts `slurm.sh` on a shell command, as its job would; what was requeued."""
    requeued = tmp_path / "requeued"
    cluster.write("scontrol", f"#!/bin/sh\necho $@ >> {requeued}")

    def start(text: str, restarts: str = "") -> subprocess.Popen[str]:
        again = {"SLURM_RESTART_COUNT": restarts} if restarts else {}
        return subprocess.Popen(
            ["bash", str(slurm.SCRIPT), "3", str(tmp_path), "sh", "-c", text],
            cwd=tmp_path,
            env={**os.environ, "SLURM_JOB_ID": "42", **again},
            stdout=subprocess.PIPE,
            text=True,
        )

    start.requeued = lambda: requeued.exists() and requeued.read_text()
    return start


FURTHER = "echo an epoch >> state.npz"


@pytest.mark.parametrize(
    ("text", "restarts", "code", "requeued"),
    [
        ("exit 0", "", 0, False),
        ("exit 1", "", 1, False),  # a loss that is not finite
        ("exit 2", "", 2, False),  # bad input
        ("kill -TERM $$", "", 143, False),  # not by the time limit
        (f"{FURTHER}; kill -KILL $$", "", 137, True),
        (f"{FURTHER}; kill -KILL $$", "1", 137, True),
        (f"{FURTHER}; kill -KILL $$", "2", 137, False),  # the third of three attempts
        ("kill -KILL $$", "1", 137, False),  # it would be killed there again
    ],
)
def test_killed_job_is_requeued(job, text, restarts, code, requeued):
    process = job(text, restarts)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert job.requeued() == (requeued and "requeue 42\n")
    assert ("expected the run to be done in 3 attempts" in said) == (restarts == "2")
    stuck = code == 137 and FURTHER not in text
    assert ("ask for more memory in the profile" in said) == stuck


def warned(job, text: str, times: int = 1) -> int:
    """The exit code of a job that SLURM warns of its time limit."""
    process = job(f"trap '{text}' TERM; echo begun; while :; do sleep 0.05; done")
    assert process.stdout.readline() == "begun\n"
    for _ in range(times):
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
    process.communicate(timeout=20)
    return process.returncode


def test_job_near_its_time_limit_saves_and_is_requeued(job):
    assert (warned(job, "exit 143"), job.requeued()) == (143, "requeue 42\n")


def test_a_second_warning_changes_nothing(job):
    found = warned(job, "sleep 0.6; exit 143", times=2)
    assert (found, job.requeued()) == (143, "requeue 42\n")


@pytest.mark.parametrize("code", [0, 1])
def test_job_that_finishes_at_its_time_limit_is_not_requeued(job, code):
    assert (warned(job, f"exit {code}"), job.requeued()) == (code, False)


def test_scancelled_job_is_not_requeued(job):
    """It sends TERM to all processes of the job, the script among them."""
    process = job("echo begun; exec sleep 20")
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    assert (process.wait(timeout=20), job.requeued()) == (-signal.SIGTERM, False)


def test_the_last_job_names_the_runs_that_failed(
    tmp_path, monkeypatch, cluster, profile, capsys
):
    assert command(tmp_path, "--slurm", str(profile))[0] == 0
    (folder,) = (tmp_path / "work" / "workflow" / "study").iterdir()
    group = tmp_path / "results" / "drive" / "reduced" / "runs"
    begun(group / "dsc-s0", {"epochs": 1})
    log = tmp_path / "work" / "logs" / "drive" / "reduced" / "ce-s0.log"
    log.write_text("dscpp: the loss is not finite\n")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(reproduce.Call, "_dscpp", lambda _, *a, **__: asked.append(a))
    monkeypatch.setattr(sys, "argv", ["slurm", str(folder)])
    assert slurm.main() == 1
    said = capsys.readouterr().err
    assert "2 of 3 run(s) failed" in said
    assert "ce-s0: dscpp: the loss is not finite" in said
    assert "focal-s0: it was not started" in said
    where = ("--results", str(tmp_path / "results"))
    assert asked == [("tables", *where, "--dataset", "drive", "--preset", "reduced")]


# --- a real one ------------------------------------------------------------------

NEAR = "The time limit is near."
DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
MpiDefault=none
MailProg=/bin/true
KillWait=5
OverTimeLimit=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE
"""


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def say(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture
def real(monkeypatch) -> Iterator[Path]:
    """SLURM on this machine alone: its own configuration, keys and ports."""
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing or os.geteuid():
        pytest.skip(f"needs root and: {', '.join(DAEMONS)}; not here: {missing}")
    with tempfile.TemporaryDirectory(prefix="dscpp-") as name:  # short: for a socket
        folder = Path(name)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o600)
        conf = folder / "slurm.conf"
        places = {"host": socket.gethostname().partition(".")[0], "folder": folder}
        conf.write_text(CONFIGURATION.format(ports=free_ports(2), **places))
        monkeypatch.setenv("SLURM_CONF", str(conf))
        munge = {"key-file": "key", "socket": "munge.socket", "log-file": "munge.log"}
        munge |= {"pid-file": "munged.pid", "seed-file": "seed"}
        options = [f"--{key}={folder / file}" for key, file in munge.items()]
        try:
            start(options)
            yield folder
            print((folder / "slurmctld.log").read_text())  # where the test failed
        finally:
            subprocess.run(["scancel", "--me"], check=False)
            with contextlib.suppress(AssertionError, subprocess.CalledProcessError):
                wait_until(lambda: not in_queue(), 30)
            for daemon in reversed(DAEMONS):
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int((folder / f"{daemon}.pid").read_text()), signal.SIGTERM)
            time.sleep(2)  # they write what they know before they end


def start(options: list[str]) -> None:
    """Start SLURM; a machine that does not let it run is no fault of ours."""
    try:
        say("munged", "--force", *options)
        say("slurmctld", "-c")
        say("slurmd", "-c")
        wait_until(lambda: "idle" in say("sinfo", "--noheader"), 30)
    except (AssertionError, subprocess.CalledProcessError) as error:
        if os.environ.get("DSCPP_REQUIRE_SLURM"):  # as `make test-slurm` says
            raise
        pytest.skip(f"SLURM does not start on this machine: {error}")


def in_queue() -> set[str]:
    return set(say("squeue", "--noheader", "--format=%A %j").splitlines())


def process_of(run: Path) -> int:
    """The process that works on a run: not the script of its job."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError, ValueError):
            program, *_, file, _ = path.read_bytes().decode().split("\0")
            if file.endswith(f"{slurm.job_name(run)}.json") and "python" in program:
                return int(path.parent.name)
    raise AssertionError(f"no process works on {run}")


def signal_in_training(signals: dict[Path, signal.Signals]) -> None:
    """Sends each run its signal once the state of its training is saved."""
    left = dict(signals)

    def send() -> bool:
        for run in [run for run in left if (run / runs.STATE).exists()]:
            assert runs.Run.open(run).state == "training", "over before the signal"
            os.kill(process_of(run), left.pop(run))
        return not left

    wait_until(send, 240)


def texts(folder: Path) -> dict[Path, bytes]:
    """The tables and measures below a folder, but for those of time."""
    paths = [path for path in folder.rglob("*.csv") if path.name != "costs.csv"]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.timeout(1200)  # beside other work; alone it takes minutes
def test_real_cluster_and_one_machine_give_the_same_tables(real, tmp_path, monkeypatch):
    """One run reaches its time limit, one is killed; both go on where they were."""
    place = tmp_path / "a $HOME & 100 %a"
    images, masks = write_sets(place)
    monkeypatch.chdir(place)
    Path("runs.yaml").write_text(
        "- {dataset: own, preset: reduced, losses: [DSC, DSC++],"
        " overrides: {filters: 2, depth: 2, epochs: 40}}"
    )
    Path("profile.yaml").write_text("sbatch: {time: 2}\nwarning: 1\nattempts: 5\n")
    given = ["reproduce", "--images", str(images), "--masks", str(masks)]
    given += ["--name", "spots", "--experiment", "runs.yaml"]
    on_cluster = [*given, "--slurm", "profile.yaml"]
    assert cli.main(on_cluster) == 0
    group = place / "results" / "own-spots" / "reduced-depth=2-epochs=40-filters=2"
    limited, killed = (group / "runs" / name for name in ("dsc-s0", "dscpp-s0"))
    # The first is held, or it would be done before its time limit.
    signal_in_training({limited: signal.SIGSTOP, killed: signal.SIGKILL})
    logs = [next(place.rglob(f"{run.name}.log")) for run in (limited, killed)]
    warnings = logs[0].read_text().count(NEAR)
    before = in_queue()
    assert cli.main(on_cluster) == 0
    assert in_queue() <= before
    local = ["--results", "local", "--work", "work of local"]
    assert cli.main([*given, *local]) == 0
    wait_until(lambda: logs[0].read_text().count(NEAR) > warnings, 130)
    os.kill(process_of(limited), signal.SIGCONT)
    wait_until(lambda: not in_queue(), 400)
    for log in logs:
        assert "Attempt 1 of 5 ended; the job goes back into" in log.read_text()
    here, there = texts(place / "local"), texts(place / "results")
    assert len(there) > 10
    assert here == there
    for run in (limited, killed):
        assert_same_run(run, place / "local" / run.relative_to(place / "results"))
