"""The command line: help that is quick, errors that are one message and exit code 2."""

from __future__ import annotations

import os
import pkgutil
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import written_runs
from imitations import write_drive
from PIL import Image

from data_io import bars
from data_io.datasets import phantom
from pipelines import arguments, cli
from pipelines.runs import run as runs

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


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("predict --model m --images x --output o --data d", "--data"),
        ("predict --run m --images x --output o --again", "--again"),
        ("predict --run m --images x --output o --nifti", "--nifti"),
        ("evaluate --run r --name n", "--name"),
        ("evaluate --run r --classes a,b", "--classes"),
        ("evaluate --run r --images x --masks y --again", "--again"),
        ("figures --output o --data d", "--data"),
    ],
)
def test_option_without_effect_is_refused(tmp_path, monkeypatch, capsys, typed, named):
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, typed.split())
    assert f"{named}: expected none beside" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_unused_data_option_is_reported(tmp_path, capsys):
    folder = str(written_runs.make_run(tmp_path / "results"))
    given = ["--run", folder, "--data", "elsewhere"]
    for command in ("predict", "evaluate"):
        assert cli.main([command, *given]) == 0
        assert "--data elsewhere is not looked at" in capsys.readouterr().out
    given = ["--results", str(tmp_path / "results"), "--data", "elsewhere"]
    assert cli.main(["figures", *given]) == 0
    assert "--data elsewhere is not looked at" in capsys.readouterr().out


def test_missing_run_and_empty_results(tmp_path, capsys):
    for command in ("predict", "evaluate"):
        message = refused(capsys, [command, "--run", str(tmp_path / "none")])
        assert "expected a run folder" in message
    assert cli.main(["runs", "--results", str(tmp_path)]) == 0
    assert "no runs yet" in capsys.readouterr().out
    message = refused(capsys, ["tables", "--results", str(tmp_path)])
    assert "make demo" in message


@pytest.mark.slow
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
def test_missing_backend_is_refused(phantoms, tmp_path, backend):
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


def commands():
    """The parser of each command, by its name."""
    parser = cli._parser()
    (action,) = (a for a in parser._actions if isinstance(a, cli._Commands))
    return action.choices


def test_help_is_quick_and_needs_no_backend():
    code = (
        "import sys\n"
        "from pipelines import cli\n"
        "heavy = {'keras', 'tensorflow', 'torch', 'jax', 'miscnn', 'matplotlib',\n"
        "         'pandas', 'scipy', 'skimage'}\n"
        f"for command in [[], *([name] for name in {list(commands())!r})]:\n"
        "    try:\n"
        "        cli.main([*command, '--help'])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0, command\n"
        "    assert not heavy & set(sys.modules), (command, heavy & set(sys.modules))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("usage: ") == 1 + len(commands())


@pytest.mark.parametrize("name", arguments.commands())
def test_help_ends_with_two_examples_that_can_be_typed(name):
    *_, title, first, second = commands()[name].format_help().splitlines()
    assert title == "examples:"
    for example in (first, second):
        program, *words = shlex.split(example)
        assert (program, words[0]) == ("dscpp", name)
        assert cli._parser().parse_args(words).quiet == ("--quiet" in words)


@pytest.mark.parametrize("name", arguments.commands())
def test_each_command_has_its_function(name):
    assert callable(pkgutil.resolve_name(arguments.commands()[name]["run"]))


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"dscpp {metadata.version('dscpp')}\n"


def test_a_tree_that_is_not_installed_works(monkeypatch, tmp_path, capsys):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert cli.main(["runs", "--results", str(tmp_path)]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == "dscpp (not installed)\n"


@pytest.mark.parametrize("place", [0, 1])
def test_quiet_leaves_errors_and_results(tmp_path, capsys, place):
    """Before the command and behind it; the next command is not quiet."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
        for number in range(5):
            pixels = np.full((16, 16), number + 1, np.uint8)
            pixels[:8] = 0
            saved = pixels if folder is images else 255 * (pixels > 0).astype(np.uint8)
            Image.fromarray(saved).save(folder / f"{number}.png")
    own = ["--images", str(images), "--masks", str(masks)]
    command = ["verify", *own, "--work", str(tmp_path / "work"), "--jobs", "0"]
    assert cli.main(command) == 0
    loud = capsys.readouterr()
    assert cli.main([*command[:place], "--quiet", *command[place:]]) == 0
    quiet = capsys.readouterr()
    assert quiet.err == ""
    assert 0 < len(quiet.out) < len(loud.out)
    assert loud.out.endswith(quiet.out)  # the report, without what was found before
    (masks / "0.png").write_bytes(b"damaged")
    assert cli.main([*command[:place], "-q", *command[place:]]) == 2
    assert "0.png" in capsys.readouterr().err
    assert not bars.quiet()


def test_bash_completes_commands_options_names_and_files(tmp_path):
    script = "import sys; from pipelines import cli; cli.main(sys.argv[1:])"
    printed = [sys.executable, "-c", script, "--print-completion", "bash"]
    made = subprocess.run(printed, capture_output=True, text=True, check=True).stdout
    (tmp_path / "my-run").mkdir()
    asked = {
        "dscpp tem": "temperature",
        "dscpp train --lo": "--loss",
        "dscpp train --dataset dr": "drive",
        "dscpp predict --run my": "my-run",
    }
    for typed, expected in asked.items():
        words = shlex.join(typed.split())
        code = (
            f"{made}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
        )
        code += "_shtab_dscpp; echo ${COMPREPLY[@]}"
        found = subprocess.run(
            ["bash", "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert found.stdout.strip() == expected, found.stderr


def test_figures_and_tables_without_runs_give_the_same_error(tmp_path, capsys):
    for command in ("figures", "tables"):
        message = refused(capsys, [command, "--results", str(tmp_path)])
        assert f"{tmp_path}: expected evaluated runs" in message
