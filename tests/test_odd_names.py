"""Places with any name: as the data, the results, the work, the checkout itself."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import imitations
import numpy as np
import pytest

from data_io import splits
from data_io.errors import InputError, escaped, not_text
from data_io.own_images import describe
from data_io.verification import leaks
from pipelines import arguments, cli
from pipelines.runs import run as runs
from pipelines.workflow import plan, reproduce

# What a shell, make, glob and format would each take for their own.
ODD = "-br{x}a{{c}}e {wildcards.name} $HOME `id` 'q\" [a]*?%s#~é\\n;:&\t\n" + 90 * "x"
# Notes what it was asked, a line each, and says so.
DSCPP = """#!/bin/sh
exec {python} -c '
import json, pathlib, sys
pathlib.Path("asked").open("a").write(json.dumps(sys.argv[1:]) + chr(10))
print("said")
' "$@"
"""


def call(folder: Path) -> reproduce.Call:
    """A call for one run, every place of it in `folder`."""
    losses, split = (("DSC", None),), (folder / "split.json",)
    asked = plan.Experiment("phantom", losses, preset="demo", split_files=split)
    results, work = folder / "results", folder / "work"
    place = work / "workflow"
    place.mkdir(parents=True)
    (run,) = plan.plan([asked], results)
    placed = dataclasses.replace(run, data=folder / "data", work=work)
    return reproduce.Call([placed], results, work, place, 1)


@pytest.fixture
def odd(tmp_path, monkeypatch) -> Path:
    """A checkout under such a name, with a `dscpp` that notes what it was asked."""
    folder = tmp_path / ODD
    folder.mkdir()
    command = folder / "dscpp"
    command.write_text(DSCPP.format(python=sys.executable))
    command.chmod(0o755)
    monkeypatch.setattr(reproduce, "dscpp", lambda: [str(command)])
    monkeypatch.chdir(folder)
    return folder


def test_every_folder_may_have_any_name(odd):
    one = call(odd)
    assert one._make(one.planned) == []
    asked = [json.loads(line) for line in (odd / "asked").read_text().splitlines()]
    file = one.folder / "runs" / "0.json"
    assert asked == [["run", str(file)]]
    found = plan.load(file)
    assert found.folder == odd / "results" / "phantom" / "demo" / "runs" / "dsc-s0"
    assert (found.data, found.work) == (odd / "data", odd / "work")
    assert found.task.split_files == (odd / "split.json",)


def test_tilde_of_an_unknown_user_is_part_of_the_name(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of mine")
    assert arguments.folder("~/x") == Path("/home/of mine/x")
    assert arguments.folder("~no.such.user/x") == Path("~no.such.user/x")


@pytest.fixture(scope="module")
def front_door(tmp_path_factory) -> Path:
    """A tree in which `make` calls a dscpp that says what it was given."""
    folder = tmp_path_factory.mktemp("front-door")
    shutil.copy(Path(__file__).parents[1] / "Makefile", folder)
    command = folder / ".venv" / "bin" / "dscpp"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    command.chmod(0o755)
    return folder


def made(folder: Path, target: str, variable: str) -> list[str]:
    """What dscpp is given by a target; nothing else may happen."""
    before = set(folder.rglob("*"))
    command = ["make", "--silent", "--old-file=.venv/.ready", target, variable]
    said = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    assert set(folder.rglob("*")) == before
    return said.decode().split("\0")[:-1]


NAMES = [ODD, "$$x", "$(touch x)", "$$(touch x)", "$(shell touch x)", "`touch x`", "'",
         '"', "#", "x y"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_make_passes_a_path_unchanged(front_door: Path, name: str) -> None:
    """Values were expanded on their way: by make for its environment, by the shell."""
    assert made(front_door, "figures", f"DATA={name}") == ["figures", f"--data={name}"]
    *_, option, said = ["", *made(front_door, "study", f"STUDY={name}")]
    assert (option, said) == ("study", name)


@pytest.mark.parametrize(
    "names", ["a b", "`touch x`", "$$(touch x)", "$(shell touch x)"]
)
def test_make_passes_the_files_of_a_split(front_door: Path, names: str) -> None:
    said = made(front_door, "reproduce-drive", f"SPLIT={names}")
    assert said == ["reproduce", "--dataset", "drive", "--split", *names.split()]


# --- names of files that are no UTF-8, or that another system wrote -----------------

LATIN = os.fsdecode(b"caf\xe9")
ONE, TWO = "\u00e9", "e\u0301"  # the same letter, with its accent and beside it


def images(folder: Path, names: list[str], label_names: list[str]) -> list[str]:
    """Writes own images, and label maps; the arguments that name them."""
    for number, (name, label) in enumerate(zip(names, label_names, strict=True)):
        mask = imitations.blob((24, 32), number)
        grey = imitations.shaded(mask, number, 60, 150)
        imitations.save(folder / "photos" / f"{name}.png", grey)
        imitations.save(folder / "labels" / f"{label}.png", imitations.as_grey(mask))
    return ["--images", str(folder / "photos"), "--masks", str(folder / "labels")]


def refused(capsys, *command: str) -> str:
    """The one message of a command that must end with exit code 2."""
    assert cli.main(list(command)) == 2
    error = capsys.readouterr().err
    assert error.count("dscpp: ") == 1
    assert "Traceback" not in error
    return error


@pytest.mark.skipif(sys.platform != "linux", reason="a name is text there")
def test_names_that_are_not_utf8_are_refused_once_and_shown(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    own_images = images(tmp_path, [LATIN, "b", "c"], [LATIN, "b", "c"])
    for command in (["verify", "--json", "r.json"], ["train", "--loss", "DSC"]):
        error = refused(capsys, *command, *own_images)
        assert r"photos/caf\xe9.png: expected a name in UTF-8" in error
    assert (
        r"caf\xe9.png"
        in json.loads(Path("r.json").read_text())["problems"][0]["message"]
    )
    for case in (LATIN, "b", "c"):
        for kind in ("images", "masks"):
            pixels = np.full((9, 9, 4), 255, np.uint8)
            name = tmp_path / "dsb" / case / kind / f"{case}.png"
            imitations.save(name, pixels)
    dsb = ("--dataset", "dsb2018", "--data", str(tmp_path / "dsb"))
    for command in (["verify"], ["train", "--loss", "DSC"]):
        error = refused(capsys, *command, *dsb)
        assert r"caf\xe9: expected a name in UTF-8" in error
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.skipif(sys.platform != "linux", reason="a name is text there")
def test_paths_that_are_not_utf8_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (
        ["tables", "--results", LATIN],
        ["demo", "--work", LATIN],
        ["train", "--dataset", "phantom", "--loss", "DSC", "--output", LATIN],
        ["verify", "--images", LATIN, "--masks", "labels"],
    ):
        assert r"dscpp: caf\xe9: expected a name in UTF-8" in refused(capsys, *command)
    (tmp_path / LATIN).mkdir()
    monkeypatch.chdir(LATIN)
    assert r"caf\xe9: expected a name in UTF-8" in refused(capsys, "tables")
    assert sorted(tmp_path.iterdir()) == [tmp_path / LATIN]
    (tmp_path / LATIN).rmdir()
    assert "this one was deleted" in refused(capsys, "tables")


def test_ascii_locale_is_named_in_the_message(monkeypatch):
    assert "PYTHONUTF8" not in not_text(LATIN)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert "PYTHONUTF8=1" in not_text(LATIN)


def test_letters_that_the_terminal_lacks_are_escaped(tmp_path, monkeypatch):
    own_images = images(tmp_path / ONE, ["a", "b", "c"], ["a", "b", "c"])
    said = [io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", said[0])
    monkeypatch.setattr(sys, "stderr", said[1])
    work = ("--work", str(tmp_path / "work"))
    assert cli.main(["verify", *own_images, *work]) == 0
    assert cli.main(["verify", *own_images[:3], ONE, *work]) == 2
    for stream in said:
        stream.flush()
        assert rb"/\xe9/photos" in stream.buffer.getvalue()


def test_accents_of_both_unicode_forms_match(tmp_path):
    images(tmp_path, [ONE, "b", TWO + "1"], [TWO + "_mask", "b", ONE + "1"])
    photos, labels = tmp_path / "photos", tmp_path / "labels"
    found = describe.describe(photos, labels, tmp_path)
    about = json.loads((found.root / "dataset.json").read_text())["cases"]
    assert about == {
        case: {"image": str(photos / image), "observer1": str(labels / label)}
        for case, image, label in (
            ("b", "b.png", "b.png"),
            (ONE, f"{ONE}.png", f"{TWO}_mask.png"),
            (f"{ONE}1", f"{TWO}1.png", f"{ONE}1.png"),
        )
    }
    (tmp_path / "split.json").write_text(
        json.dumps({"training": [TWO], "validation": ["b"], "test": [TWO + "1"]})
    )
    for known in ([ONE, "b", ONE + "1"], [TWO, "b", TWO + "1"]):
        split = splits.read([tmp_path / "split.json"], known, "own")
        assert [case for ids in split.values() for case in ids] == known
    assert leaks.normal(ONE) == leaks.normal(TWO)


@pytest.mark.skipif(sys.platform == "darwin", reason="one file there")
def test_names_that_differ_only_in_unicode_form_are_refused(tmp_path):
    images(tmp_path, [ONE, TWO, "b"], [ONE, "c", "b"])
    with pytest.raises(InputError, match=f"expected one file named {ONE}, found 2"):
        describe.describe(tmp_path / "photos", tmp_path / "labels", tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b\n\t\u00e9\u202f\N{MICROSCOPE}", "a b\n\t\u00e9\u202f\N{MICROSCOPE}"),
        ("\x1b[31mred\r\x00", r"\x1b[31mred\x0d\x00"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        (LATIN, r"caf\xe9"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_in_names_are_escaped(text, expected):
    assert escaped(text) == expected


def test_an_error_shows_control_characters(tmp_path, capsys):
    error = refused(capsys, "tables", "--results", str(tmp_path / "\x1b[2Jx\r"))
    assert r"\x1b[2Jx\x0d" in error
    assert not {"\x1b", "\r"} & set(error)


def test_any_name_can_be_recorded(tmp_path):
    path = runs.write_json(tmp_path / "a.json", {LATIN: "\u00e9\n\x1b"})
    assert json.loads(path.read_text("utf-8")) == {LATIN: "\u00e9\n\x1b"}
    path = runs.write_csv(tmp_path / "a.csv", ["case"], [{"case": LATIN}])
    assert path.read_text("utf-8") == "case\ncaf\\udce9\n"
