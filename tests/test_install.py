"""The front door: locks, metadata, and what the Makefile would run."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LOCKS = ("tensorflow", "torch", "jax", "gpu", "jax-gpu", "peers")
ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+)")


def make(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make with a clean environment: the caller's variables would count."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )


def entries(project: Path, lock: str) -> dict[str, str]:
    """Name of each package in a lock, and the text of its entry."""
    text = (project / "requirements" / f"{lock}.txt").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    blocks = re.split(r"\n(?=\S)", "\n".join(lines))
    found = {}
    for block in blocks:
        match = ENTRY.match(block)
        assert match, f"{lock}.txt: not a pinned package: {block[:60]}"
        found[match.group(1)] = block
    return found


@pytest.mark.parametrize("lock", [*LOCKS, "site"])
def test_locks_pin_every_package_by_hash_without_an_address(
    project: Path, lock: str
) -> None:
    found = entries(project, lock)
    assert len(found) > 30
    for name, block in found.items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), name
    text = (project / "requirements" / f"{lock}.txt").read_text()
    assert not re.search(r"://|--index|--find-links|\s@\s|\+cpu", text)


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_have_one_backend_and_no_old_requirements_of_miscnn(
    project: Path, lock: str
) -> None:
    found = entries(project, lock)
    assert found["miscnn"].startswith("miscnn==1.4.0 ")
    # torch's CPU build has another hash on every index, so it is in no lock.
    assert not {"torch", "tensorflow-addons", "pydicom"} & set(found)
    assert ("simpleitk" in found) == (lock == "peers")  # nnU-Net's
    backends = {"tensorflow", "tensorflow-cpu", "jax"} & set(found)
    expected = {
        "tensorflow": {"tensorflow", "tensorflow-cpu"},
        "gpu": {"tensorflow"},
        "torch": set(),
        "jax": {"jax"},
        "jax-gpu": {"jax"},
        "peers": set(),
    }
    assert backends == expected[lock]


def test_environments_share_their_versions(project: Path) -> None:
    def versions(lock: str) -> dict[str, str]:
        found = entries(project, lock)
        return {name: block.split()[0] for name, block in found.items()}

    first = versions("torch")
    for lock in (*LOCKS, "site"):
        other = versions(lock)
        # TensorFlow 2.21 needs an h5py older than the newest.
        shared = set(first) & set(other) - {"h5py"}
        assert {n: first[n] for n in shared} == {n: other[n] for n in shared}


def test_the_peers_are_added_to_pytorchs_environment(project: Path) -> None:
    """`make test-torch` tests the backend there."""
    assert entries(project, "torch").keys() <= entries(project, "peers").keys()


@pytest.mark.parametrize("lock", ["gpu", "jax-gpu"])
def test_the_gpu_locks_still_run_on_a_p100(project: Path, lock: str) -> None:
    version = entries(project, lock)["nvidia-cudnn-cu12"].split()[0].split("==")[1]
    numbers = tuple(int(part) for part in version.split("."))
    assert (9, 3, 0, 75) <= numbers < (9, 11)


def test_the_locks_hold_what_the_metadata_asks_for(project: Path) -> None:
    config = configparser.ConfigParser()
    config.read(project / "setup.cfg")
    wanted = {
        re.split(r"[^a-zA-Z0-9_-]", line)[0].replace("_", "-")
        for line in config["options"]["install_requires"].split()
    }
    assert "numpy" in wanted
    # miscnn pins tensorflow 2.7: in the metadata, no pip could install the project.
    assert "miscnn" not in str(dict(config["options"])) + str(
        dict(config["options.extras_require"])
    )
    for lock in LOCKS:
        assert wanted <= set(entries(project, lock))


def test_make_alone_lists_every_target_on_one_line_each(project: Path) -> None:
    result = make(project)
    assert result.returncode == 0, result.stderr
    listed = re.findall(r"^  ([a-z0-9-]+)  +\S", result.stdout, re.MULTILINE)
    text = (project / "Makefile").read_text()
    phony = " ".join(re.findall(r"^\.PHONY:(.*)", text, re.MULTILINE)).split()
    assert sorted(listed) == sorted(set(phony) - {"test-backend", "bench-step"})


def test_ci_runs_existing_commands(project: Path) -> None:
    text = (project / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    steps = yaml.safe_load(text)["jobs"]["test"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert ".ci/run" in commands
    for command in commands:
        assert os.access(project / command, os.X_OK), command


# Notes what it is asked for, and fails where $FAILS is in it; to install takes time.
MAKE = """#!/bin/sh
case "$*" in *"$FAILS"*) exit 3;; install*) sleep $TIME;; esac
echo "$*"
"""
BUILT = {"install", "install BACKEND=jax", "lint", ".venv-peers/.ready", "site"}
JAX = "test-backend BACKEND=jax PROCESSES=1"


@pytest.mark.parametrize(
    ("fails", "done"),
    [
        ("nothing", BUILT | {"test-all", JAX, "test-torch"}),
        ("install BACKEND=jax", BUILT - {"install BACKEND=jax", "lint"}),
        ("peers", set()),
        ("test-all", BUILT),
        ("PROCESSES", BUILT | {"test-all", "test-torch"}),
    ],
)
def test_ci_ends_at_the_first_failure_and_leaves_nothing_running(
    project: Path, tmp_path: Path, fails: str, done: set[str]
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(project / ".ci" / "run", tmp_path / ".ci" / "run")
    for name in ("make", "chromium", "slurmd", "munged"):
        (tmp_path / name).write_text(MAKE)
        (tmp_path / name).chmod(0o755)
    path, time = f"{tmp_path}:/usr/bin:/bin", "20" if fails == "peers" else "0"
    result = subprocess.run(  # returns when no process can write to the pipe any more
        [tmp_path / ".ci" / "run"],
        env={"PATH": path, "FAILS": fails, "TIME": time},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == (0 if fails == "nothing" else 3), result.stderr
    assert set(result.stdout.splitlines()) == done


STUB = '#!/bin/sh\nprintf "%s\\n" "$0" "$KERAS_BACKEND" "$@"\n'
INSTALL = f"""#!/bin/sh
echo "$1 from $2"
mkdir -p "$1/bin" && cat >"$1/bin/dscpp" <<'END' && chmod +x "$1/bin/dscpp"
{STUB}END
"""


@pytest.fixture
def tree(project: Path, tmp_path: Path) -> Path:
    """A tree whose environments hold a dscpp that prints what it is given."""
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(project / name, tmp_path)
    shutil.copytree(project / "requirements", tmp_path / "requirements")
    script = tmp_path / "requirements" / "install.sh"
    script.write_text(INSTALL)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "environment", "backend"),
    [
        ([], "tensorflow", "tensorflow"),
        (["BACKEND=torch"], "torch", "torch"),
        (["BACKEND=jax"], "jax", "jax"),
        (["GPU=1"], "gpu", "tensorflow"),
        (["BACKEND=jax", "GPU=1"], "jax-gpu", "jax"),
    ],
)
def test_each_backend_is_installed_in_an_environment_of_its_own(
    tree: Path, arguments: list[str], environment: str, backend: str
) -> None:
    result = make(tree, "demo", *arguments)
    assert result.returncode == 0, result.stderr
    folder = f".venv-{environment}".removesuffix("-tensorflow")
    assert result.stdout.splitlines() == [
        f"{folder} from requirements/{environment}.txt",
        f"{folder}/bin/dscpp", backend, "demo",
    ]  # fmt: skip


def test_make_variables_reach_the_command_unchanged(tree: Path) -> None:
    result = make(
        tree, "reproduce-drive", "DATA=my $HOME's/DRIVE", "PRESET=reduced",
        "LOSSES=CE, DSC++", "SEEDS=0,1", "EPOCHS=3", "JOBS=2", "PHANTOM=1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[3:] == [
        "reproduce", "--dataset", "drive", "--data=my $HOME's/DRIVE", "--phantom",
        "--preset=reduced", "--losses=CE, DSC++", "--seeds=0,1", "--epochs=3",
        "--jobs=2",
    ]  # fmt: skip


def test_jax_is_the_same_with_a_gpu_and_brings_what_cuda_needs(project: Path) -> None:
    cpu, gpu = entries(project, "jax"), entries(project, "jax-gpu")
    assert {name: cpu[name].split()[0] for name in cpu} == {
        name: gpu[name].split()[0] for name in cpu
    }
    added = gpu.keys() - cpu.keys()
    assert {"jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cudnn-cu12"} <= added
    for name in added:
        assert "sys_platform == 'linux'" in gpu[name].splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["demo", "BACKEND=mxnet"], 'tensorflow torch jax; received "mxnet"'),
        (["demo", "BACKEND=torch", "GPU=1"], "prepared for BACKEND=tensorflow and jax"),
    ],
)
def test_a_wrong_variable_is_refused(
    project: Path, arguments: list[str], reason: str
) -> None:
    result = make(project, *arguments)
    assert result.returncode == 2
    assert reason in result.stderr


def test_unsupported_python_version_is_refused(project: Path, tmp_path: Path) -> None:
    script = project / "requirements" / "install.sh"
    result = subprocess.run(
        [script, tmp_path / "env", "requirements/torch.txt", ""],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "3.11 to 3.13" in result.stderr
    assert not (tmp_path / "env").exists()


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A Python that writes down what it is asked, and does nothing."""
    path = tmp_path / "env" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n'
        'case "$1" in -c) echo digest;; esac\n'
        f'case "$*" in *"-r {tmp_path}/fail"*) exit 1;; esac\n'
    )
    path.chmod(0o755)
    return path


def build(project: Path, stub: Path, lock: str) -> tuple[int, str]:
    """Exit code of install.sh with the stub, and what pip and venv were asked."""
    script = project / "requirements" / "install.sh"
    folder = stub.parents[1]
    command = [script, folder, lock, stub]
    code = subprocess.run(command, capture_output=True, check=False).returncode
    return code, (folder.parent / "asked").read_text()


def test_an_environment_is_built_from_hashes_and_marked_last(
    project: Path, stub: Path
) -> None:
    code, commands = build(project, stub, "requirements/jax.txt")
    assert code == 0
    assert "-m venv --clear" in commands
    assert (
        "--no-deps --only-binary :all: --require-hashes -r requirements/jax" in commands
    )
    assert commands.rstrip().endswith("--no-deps --no-build-isolation -e .")
    assert "torch" not in commands
    assert (stub.parents[1] / ".ready").read_text() == "digest\n"


def test_package_without_a_wheel_is_built_from_a_hashed_source(
    project: Path, stub: Path
) -> None:
    lock = project / "requirements" / "peers-sdist.txt"
    packages = re.findall(
        r"^([a-z-]+)==\S+ \\\n +--hash=sha256:[0-9a-f]{64}$",
        lock.read_text(),
        re.MULTILINE,
    )
    assert packages == ["acvl-utils"]
    assert "acvl-utils" not in entries(project, "peers")
    _, commands = build(project, stub, "requirements/peers.txt")
    wheels = commands.index("-r requirements/peers.txt")
    source = commands.index(
        "--no-build-isolation --require-hashes -r requirements/peers-sdist.txt"
    )
    assert wheels < source


def test_an_environment_whose_lock_is_unchanged_is_kept(
    project: Path, stub: Path
) -> None:
    (stub.parents[1] / ".ready").write_text("digest\n")
    code, commands = build(project, stub, "requirements/jax.txt")
    assert code == 0
    assert "venv" not in commands
    assert "--require-hashes" not in commands


def test_an_environment_that_failed_is_not_marked_ready(
    project: Path, stub: Path, tmp_path: Path
) -> None:
    (stub.parents[1] / ".ready").write_text("of an older lock\n")
    code, _ = build(project, stub, f"{tmp_path}/fail.txt")
    assert code != 0
    assert not (stub.parents[1] / ".ready").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch has no CUDA")
@pytest.mark.parametrize("lock", ["torch", "peers"])
def test_torch_is_the_cpu_build(project: Path, stub: Path, lock: str) -> None:
    code, commands = build(project, stub, f"requirements/{lock}.txt")
    assert code == 0
    assert re.search(r"--no-deps torch==[0-9.]+\+cpu$", commands, re.MULTILINE)


KEPT = (
    "results/drive/reduced/runs/dsc-s0/run.json",
    "results/drive/reduced/runs/dsc-s0/history.csv",
    "results/drive/reduced/runs/dsc-s0/cases.csv",
    "results/drive/reduced/runs/dsc-s0/histograms.npz",
    "results/drive/reduced/table3.csv",
    "results/phantom/reduced/pictures/dsc.png",
    "data_io/datasets/drive.py",
)
IGNORED = (
    ".venv-torch/bin/python",
    ".work/cache/a.npy",
    "data/DRIVE/training/images/21_training.tif",
    "results/drive/custom-1a2b3c/runs/dsc-s0/run.json",
    "results/drive/reduced/pictures/dsc.png",
    "results/pictures/figure3-losses-reduced.png",
    "results/drive/reduced/runs/dsc-s0/model.keras",
    "results/drive/reduced/runs/dsc-s0/pictures/01.png",
    "results/drive/reduced/runs/dsc-s0/probabilities/01.npy",
    "results/phantom/demo/runs/dsc-s0/run.json",
)


def test_weights_data_and_pictures_of_patients_stay_out_of_git(project: Path) -> None:
    if not (project / ".git").exists():
        pytest.skip("not a git checkout")
    result = subprocess.run(
        ["git", "check-ignore", "--no-index", *KEPT, *IGNORED],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.split() == list(IGNORED)
