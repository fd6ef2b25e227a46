"""The command line: help that is quick, errors that are one message and exit code 2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from imitations import write_drive

from data_io.datasets import phantom
from pipelines import cli
from pipelines import run as runs

TINY = ("input_shape=[32,32]", "filters=2", "depth=1", "epochs=1")


@pytest.fixture(scope="module")
def drive(tmp_path_factory) -> Path:
    """An imitation of DRIVE that no test changes."""
    return write_drive(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def broken(drive, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(drive, tmp_path / "DRIVE"))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    settings = phantom.Settings(training=2, validation=1, test=2, size=32)
    return phantom.generate(settings, tmp_path_factory.mktemp("phantom"))


def train(data: Path, output: Path, *more: str, dataset: str = "phantom") -> list[str]:
    sets = [part for text in TINY for part in ("--set", text)]
    return [
        *("train", "--dataset", dataset, "--data", str(data), "--loss", "DSC++"),
        *("--preset", "demo", "--output", str(output), *sets),
        *("--work", str(output.parent / "work"), *more),
    ]


def refused(capsys, arguments: list[str]) -> str:
    """The one message of a command that must end with exit code 2."""
    code = cli.main(arguments)
    captured = capsys.readouterr()
    assert code == 2, captured
    assert "Traceback" not in captured.err
    assert captured.err.count("dscpp: ") == 1
    return captured.err


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def resize(path: Path) -> None:
    from PIL import Image

    Image.open(path).resize((300, 300)).save(path)


def third_class(path: Path) -> None:
    import numpy as np
    from PIL import Image

    label = np.zeros((584, 565), np.uint8)
    label[10:20], label[30:40] = 1, 2
    Image.fromarray(label).save(path)


DAMAGE = {
    "missing": ("training/images/21_training.tif", Path.unlink),
    "cut": ("training/images/22_training.tif", cut),
    "size": ("training/1st_manual/23_manual1.gif", resize),
    "classes": ("test/1st_manual/01_manual1.gif", third_class),
    "text": (
        "test/images/02_test.tif",
        lambda path: path.write_text("this is no image"),
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("command", ["verify", "train"])
def test_damaged_data(broken, tmp_path, capsys, kind, command):
    name, damage = DAMAGE[kind]
    damage(broken / name)
    arguments = train(broken, tmp_path / "r", dataset="drive")
    if command == "verify":
        work = ["--work", str(tmp_path / "work")]
        arguments = ["verify", "--dataset", "drive", "--data", str(broken), *work]
    message = refused(capsys, arguments)
    assert Path(name).name in message
    assert not (tmp_path / "r" / "run.json").exists()


def test_wrong_path(tmp_path, capsys):
    data = tmp_path / "nowhere"
    message = refused(capsys, train(data, tmp_path / "r", dataset="drive"))
    assert str(data) in message
    assert "drive.grand-challenge.org" in message
    assert "make demo" in message
    assert not (tmp_path / "r").exists()


def test_unwritable_output(phantoms, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = refused(capsys, train(phantoms, tmp_path / "file" / "run"))
    assert "choose another" in message


def test_unknown_names(phantoms, tmp_path, capsys):
    output = tmp_path / "r"
    arguments = train(phantoms, output)
    wrong = ["DSC+" if part == "DSC++" else part for part in arguments]
    assert "DSC++" in refused(capsys, wrong)
    wrong = ["dirve" if part == "phantom" else part for part in arguments]
    assert "drive" in refused(capsys, wrong)
    assert "reduced" in refused(capsys, [*arguments, "--preset", "smal"])
    assert "gamma" in refused(capsys, [*arguments, "--gamma", "-1"])
    assert "gamma" in refused(capsys, [*arguments, "--loss", "CE", "--gamma", "2"])
    assert "epochs" in refused(capsys, [*arguments, "--epochs", "0"])
    assert "gamma" in refused(capsys, [*arguments, "--gamma", "nan"])
    assert "seed" in refused(capsys, [*arguments, "--seed", "-1"])
    assert "seed" in refused(capsys, [*arguments, "--seed", str(2**32)])
    assert "split_seed" in refused(capsys, [*arguments, "--split-seed", str(2**32)])
    for command in ("train", "verify", "reproduce"):
        with pytest.raises(SystemExit, match="2"):
            cli.main([command, "--dataset", "phantom", "--split-seed", "-1"])
        assert "--split-seed: expected a whole number" in capsys.readouterr().err
    assert not output.exists()


def test_no_run_and_no_runs(tmp_path, capsys):
    for command in ("predict", "evaluate"):
        message = refused(capsys, [command, "--run", str(tmp_path / "none")])
        assert "expected a run folder" in message
    assert cli.main(["runs", "--results", str(tmp_path)]) == 0
    assert "no runs yet" in capsys.readouterr().out
    message = refused(capsys, ["tables", "--results", str(tmp_path)])
    assert "make demo" in message


def test_stages_and_a_model_of_another_architecture(phantoms, tmp_path, capsys):

    from pipelines.training import unet

    run = tmp_path / "results" / "phantom" / "demo" / "runs" / "dscpp-s0"
    work = ["--data", str(phantoms), "--work", str(tmp_path / "work")]
    assert cli.main(train(phantoms, run)) == 0
    assert cli.main(["predict", "--run", str(run), *work]) == 0
    assert cli.main(["evaluate", "--run", str(run), *work]) == 0
    assert cli.main(["runs", "--results", str(tmp_path / "results")]) == 0
    assert "evaluated" in capsys.readouterr().out
    other = Path(shutil.copytree(run, tmp_path / "other"))
    runs.Run.open(other).update(state="trained")
    model = unet.UNet(filters=3, depth=1).create_model_2D((32, 32, 3), 2)
    model.save(other / "model.keras")
    message = refused(capsys, ["predict", "--run", str(other), *work])
    assert "another architecture" in message
    assert f"{model.count_params():,} parameters" in message


@pytest.mark.parametrize("backend", ["theano", ""])
def test_the_backend_named_must_be_here(phantoms, tmp_path, backend):
    arguments = train(phantoms, tmp_path / "r")
    # Without a name it is TensorFlow, and that is not here.
    code = (
        "import sys\n"
        "sys.modules['tensorflow'] = None\n"
        "from pipelines import cli\n"
        f"sys.exit(cli.main({arguments!r}))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    assert f"received {backend or 'tensorflow'!r}" in found.stderr


@pytest.mark.parametrize(
    "command",
    [
        [],
        *(
            [c]
            for c in [
                "demo",
                "reproduce",
                "fetch",
                "verify",
                "train",
                "predict",
                "evaluate",
                "tables",
                "runs",
            ]
        ),
    ],
)
def test_help_is_quick_and_needs_no_backend(command):
    code = (
        "import sys\n"
        "from pipelines import cli\n"
        "try:\n"
        f"    cli.main([*{command!r}, '--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "heavy = {'keras', 'tensorflow', 'torch', 'jax', 'miscnn', 'matplotlib',\n"
        "         'pandas', 'scipy', 'skimage'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "usage: " in found.stdout
