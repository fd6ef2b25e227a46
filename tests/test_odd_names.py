"""Places with any name: as the data, the results, the work, the checkout itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import arguments
from pipelines.workflow import plan, reproduce

# What Snakemake, a shell, awk, make, glob and format would each take for their own.
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
    losses = (("DSC", None),)
    split = (folder / "split.json",)
    asked = plan.Experiment("phantom", "demo", losses, (0,), {}, 0, split)
    results, work = folder / "results", folder / "work"
    place = work / "workflow"
    place.mkdir(parents=True)
    planned = plan.plan(asked, results)
    return reproduce.Call(asked, planned, folder / "data", results, work, place, 1)


@pytest.fixture
def odd(tmp_path, monkeypatch) -> Path:
    """A checkout under such a name, with a `dscpp` that notes what it was asked."""
    folder = tmp_path / ODD
    folder.mkdir()
    shutil.copy(reproduce.SNAKEFILE, folder)
    command = folder / "dscpp"
    command.write_text(DSCPP.format(python=sys.executable))
    command.chmod(0o755)
    monkeypatch.setattr(reproduce, "SNAKEFILE", folder / "Snakefile")
    monkeypatch.setattr(reproduce, "dscpp", lambda: [str(command)])
    monkeypatch.chdir(folder)
    return folder


def test_every_place_may_have_any_name(odd):
    one = call(odd)
    assert one._snakemake() == {}, (one.folder / "snakemake.log").read_text()
    asked = [json.loads(line) for line in (odd / "asked").read_text().splitlines()]
    run = str(odd / "results" / "phantom" / "demo" / "runs" / "dsc-s0")
    places = ["--data", str(odd / "data"), "--work", str(odd / "work")]
    split = ["--split", str(odd / "split.json")]
    loss = ["--dataset", "phantom", "--preset", "demo", "--loss", "DSC", "--seed", "0"]
    assert asked == [
        ["train", *loss, *split, *places, "--output", run],
        ["predict", "--run", run, *places],
        ["evaluate", "--run", run, *places],
    ]


def test_where_snakemake_fails_before_any_run_its_own_error_is_shown(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "Snakefile").write_text('raise ValueError("no such moon")\n')
    monkeypatch.setattr(reproduce, "SNAKEFILE", tmp_path / "Snakefile")
    one = call(tmp_path)
    log = one._log(one.planned[0])
    log.parent.mkdir(parents=True)
    log.write_text("dscpp: the reason of last week\n")
    one._report(one._snakemake())
    error = capsys.readouterr().err
    assert "dsc-s0: it was not started" in error
    assert "no such moon" in error
    assert "last week" not in error


def test_a_tilde_before_no_user_is_part_of_a_name(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of mine")
    assert arguments.folder("~/x") == Path("/home/of mine/x")
    assert arguments.folder("~no.such.user/x") == Path("~no.such.user/x")


@pytest.mark.parametrize("name", [ODD, "$$x", "a$(shell id)b", "'", '"', "#", "x y"])
def test_make_hands_on_a_path_as_typed(project: Path, name: str) -> None:
    command = ["make", "-n", "--old-file=.venv/.ready", "figures"]
    dry = subprocess.run(
        [*command, f"DATA={name}"], cwd=project, capture_output=True, check=True
    ).stdout.replace(b".venv/bin/dscpp", b"printf '%s\\0'")
    said = subprocess.run(["bash"], input=dry, capture_output=True, check=False).stdout
    assert said.split(b"\0")[-2].decode() == f"--data={name}"
