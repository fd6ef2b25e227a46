"""`dscpp clean`: what it lists, and that it deletes nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.runs import cleaning
from pipelines.runs import run as runs

KEPT = ("history.csv", *runs.MEASURES, "pictures/a.png", "nifti/a.nii.gz")
REMADE = ("probabilities/a.npy", "probabilities/dscpp.sha256")
WEIGHTS = (runs.MODEL, runs.STATE)
IN_WORK = {"cache": 3000, "verify": 20, "own": 10, "phantom": 500, "data": 700}


def write(folder: Path, name: str, size: int = 10) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def make_run(name: str, files=(*KEPT, *REMADE, *WEIGHTS), **record) -> Path:
    folder = Path("results/drive/reduced/runs") / name
    run = runs.Run.create(folder, {"dataset": "drive", "split": {}, **record})
    run.update(state=record.get("state", "evaluated"))
    for file in files:
        write(folder, file)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A finished run with its twin of before; one from git; one in training."""
    monkeypatch.chdir(tmp_path)
    make_run("dsc-s0")
    twin = {"method": "temperature", "posthoc": {"run": "dsc-s0"}}
    make_run("dsc-s0-temperature", (*KEPT, *REMADE), **twin)
    make_run("ce-s0", (*KEPT, *REMADE))
    make_run("dscpp-s0", (runs.STATE, runs.MODEL, *REMADE), state="training")
    for name, size in IN_WORK.items():
        write(Path(".work"), f"{name}/file", size)
    write(Path(".work"), "logs/drive/reduced/dsc-s0.log")
    write(Path("data"), "DRIVE/a.png")
    return tmp_path


def contents() -> set[str]:
    return {str(p) for p in Path().rglob("*") if p.is_file() and p.name != ".lock"}


def of_run(name: str, files) -> set[str]:
    return {f"results/drive/reduced/runs/{name}/{file}" for file in files}


def test_without_yes_clean_lists_and_deletes_nothing(place, capsys):
    before = contents()
    assert cli.main(["clean"]) == 0
    assert contents() == before
    *listed, total, said = capsys.readouterr().out.splitlines()
    assert listed[0].split()[:2] == ["3.00kB", ".work/cache"]
    assert total.split() == ["4.27kB", "in", "all"]  # 3000 + 20 + 10 + 500 + 700 + 40
    assert "--yes" in said


@pytest.mark.parametrize("weights", [False, True])
def test_clean_deletes_only_what_can_be_made_again(place, weights):
    before = contents()
    assert cli.main(["clean", "--yes", *["--weights"] * weights]) == 0
    gone = {f".work/{name}/file" for name in IN_WORK}
    gone |= of_run("dsc-s0", REMADE) | of_run("dsc-s0-temperature", REMADE)
    gone |= of_run("dsc-s0", WEIGHTS) if weights else set()
    assert before - contents() == gone
    assert runs.Run.open(Path("results/drive/reduced/runs/dsc-s0")).state == "evaluated"
    assert cleaning.find(Path("results"), Path(".work"), weights) == []


def test_only_the_cache_of_another_work_folder_is_deleted(place, capsys):
    """Folders that are named like those of .work are the user's own."""
    write(place, "phantom/mine.png")
    shutil.rmtree(".work")
    write(place, "cache/file")
    assert cli.main(["clean", "--yes", "--work", "."]) == 0
    assert "data/DRIVE/a.png" in contents() and "phantom/mine.png" in contents()
    assert not Path("cache").exists()


def test_nothing_is_deleted_while_a_command_runs(place, capsys):
    before = contents()
    with runs.lock_folder(Path("results/drive/reduced/runs/dsc-s0")):
        assert cli.main(["clean", "--yes"]) == 2
    assert "dsc-s0: expected no command at work" in capsys.readouterr().err
    assert contents() == before
