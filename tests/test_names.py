"""Names and ids in files that come from others: none leads out of its folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_io import datasets, splits
from data_io.datasets import folder
from data_io.errors import InputError
from data_io.files import names
from data_io.own_images import describe
from pipelines.cli import main
from pipelines.prediction import evaluate
from pipelines.reporting.frame import read_cases
from pipelines.runs import run as runs
from pipelines.training.task import Task

HOSTILE = (
    "../evil",
    "../../../../evil",
    "..",
    ".",
    "",
    "a/b",
    "/etc/evil",
    "a\\b",
    "..\\evil",
    "C:evil",
    ".hidden",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "x" * 201,
    "é" * 101,  # 202 bytes
    None,
    7,
    ["a"],
)
HARMLESS = ("21", "case_00000", "a.b", "Ärzte 3", "true posterior", "x" * 200, "a..b")


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_are_refused(name):
    with pytest.raises(InputError, match=r"^run\.json: expected a case .*Correct it"):
        names.plain(name, "run.json", "case")


@pytest.mark.parametrize("name", HARMLESS)
def test_plain_names_are_accepted(name):
    assert names.plain(name, "run.json") == name


def write_run(place: Path, **change) -> Path:
    split = {"training": ["21"], "validation": ["37"], "test": ["01"]}
    record = {"format": 1, "state": "trained", "dataset": "drive", "preset": "demo"}
    record |= {"loss": "DSC", "method": "", "backend": "tensorflow", "split": split}
    place.mkdir(parents=True, exist_ok=True)
    (place / "run.json").write_text(json.dumps({**record, **change}))
    return place


@pytest.mark.parametrize("key", ["dataset", "preset", "loss", "method", "backend"])
@pytest.mark.parametrize("name", ["../../x", "own-../../x", "/x", "a\0", ["a"], 3])
def test_hostile_name_in_a_run_is_refused(tmp_path, key, name):
    run = write_run(tmp_path / "run", **{key: name})
    with pytest.raises(InputError, match=rf"run\.json: expected .*{key}"):
        runs.Run.open(run)


@pytest.mark.parametrize("part", ["training", "validation", "test"])
@pytest.mark.parametrize("name", ["../../../../evil", "/evil", "a\\b", None, {}])
def test_hostile_case_in_a_run_is_refused(tmp_path, part, name):
    run = write_run(tmp_path / "run", split={part: ["01", name]})
    with pytest.raises(InputError, match=r"run\.json: expected .*(case|split)"):
        runs.Run.open(run)


@pytest.mark.parametrize("split", [[], "test", {"test": "01"}, {"test": None}])
def test_invalid_split_in_a_run_is_refused(tmp_path, split):
    run = write_run(tmp_path / "run", split=split)
    with pytest.raises(InputError, match=r"found others \(split"):
        runs.Run.open(run)


@pytest.mark.parametrize("name", ["nifti", "probabilities", ".lock", "cases.csv"])
def test_link_that_leads_out_of_a_run_is_refused(tmp_path, name):
    run = write_run(tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (run / name).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=rf"{name}: .* a link that leads out"):
        runs.Run.open(run)
    assert list((tmp_path / "mine").iterdir()) == []


def test_links_within_a_run_and_to_it_are_followed(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "latest.csv").symlink_to("cases.csv")
    (tmp_path / "link").symlink_to(run)
    assert runs.Run.open(tmp_path / "link").state == "trained"


@pytest.mark.parametrize("name", ["own-../../x", "own-", "own-a/b", "own-A b", "own/x"])
def test_hostile_data_set_name_is_refused(name):
    with pytest.raises(InputError, match="expected one of"):
        datasets.by_name(name)


def write_own(place: Path, **change) -> Path:
    """A description as `describe.describe` writes it, of images that are not there."""
    image = str(place / "photos" / "a.png")
    about = {"format": 1, "name": "own", "title": "own", "classes": ["no", "yes"]}
    about |= {"input_shape": [32, 32], "spacing_mm": None, "cases": {}, **change}
    about["cases"] = about["cases"] or {"a": {"image": image, "observer1": image}}
    place.mkdir(parents=True)
    (place / folder.ABOUT).write_text(json.dumps(about))
    reading = {"channels": 1, "values": [0, 1]}
    (place / folder.READING).write_text(json.dumps(reading))
    return place


def test_description_of_own_data_with_hostile_names_is_refused(tmp_path):
    root = write_own(tmp_path / "own")
    assert folder.own_images.cases(folder.own_images.locate(root)) == ("a",)
    assert folder.own_images.places(root) == {root / "photos"}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"name": "own-../../x"},
        {"name": "drive"},
        {"name": None},
        {"classes": "ab"},
        {"input_shape": ["32", 32]},
        {"spacing_mm": "1"},
        {"cases": ["a"]},
        {"cases": {"../../../../evil": {"image": "/a.png"}}},
        {"cases": {"/evil": {"image": "/a.png"}}},
        {"cases": {"a\nb": {"image": "/a.png"}}},
        {"cases": {"a": {"image": "a.png"}}},
        {"cases": {"a": {"image": 3}}},
        {"cases": {"a": {"observer1": "/a.png"}}},
        {"cases": {"a": {"image": "/a.png", "../x": "/b.png"}}},
        {"cases": {"a": ["/a.png"]}},
    ],
    ids=str,
)
def test_hostile_description_is_refused(tmp_path, change):
    root = write_own(tmp_path / "own", **change)
    with pytest.raises(InputError, match=r"own/dataset\.json: expected"):
        folder.own_images.locate(root)


def test_paths_that_were_corrected_by_hand_after_a_move(tmp_path):
    """It said "expected a folder with dataset.json, received" that folder."""
    before, after = tmp_path / "before", tmp_path / "after"
    for name in ("photos", "labels"):
        (before / name).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 2, (32, 32), np.uint8)
        Image.fromarray(pixels * 255).save(before / name / "a.png")
    given = before / "photos", before / "labels", tmp_path / "work"
    root = describe.describe(*given).root
    before.rename(after)
    assert len(folder.own_images.check(folder.own_images.locate(root))) == 2
    about = root / folder.ABOUT
    about.write_text(about.read_text().replace(str(before), str(after)))
    with pytest.raises(InputError, match=r"by something else.*delete its first"):
        folder.own_images.locate(root)
    lines = about.read_text().splitlines()
    lines.remove(next(line for line in lines if '"sha256"' in line))
    about.write_text("\n".join(lines))
    assert folder.own_images.check(folder.own_images.locate(root)) == []
    assert folder.own_images.image(root, "a").shape == (32, 32, 1)
    about.write_text(about.read_text()[:-9])
    with pytest.raises(InputError, match=r"JSON.*it is written anew\.$"):
        folder.own_images.locate(root)


def test_hostile_paths_of_own_images_are_refused(tmp_path, capsys):
    """The reported input: predict would have written outside of the run."""
    hostile = {"../../../../evil": {"image": "/a.png", "observer1": "/a.png"}}
    root = write_own(tmp_path / "run" / runs.OWN_DATA, cases=hostile)
    task = Task.make("own", "DSC", preset="demo", record=folder.own_images.record(root))
    split = {"training": ["a"], "validation": ["b"], "test": ["c"]}
    record = {**task.identity(), "split": split, "state": "trained"}
    record |= {"preprocessing": {}, "data_hash": "", "backend": "tensorflow"}
    run = write_run(tmp_path / "run", **record)
    assert main(["predict", "--run", str(run), "--work", str(tmp_path / "work")]) == 2
    assert "own-data/dataset.json: expected a case" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"data": ""}', "{}"])
def test_damaged_file_of_image_paths_is_refused(tmp_path, capsys, text):
    root = write_own(tmp_path / "run" / runs.OWN_DATA)
    task = Task.make("own", "DSC", preset="demo", record=folder.own_images.record(root))
    record = {**task.identity(), "state": "trained", "preprocessing": {}}
    run = write_run(tmp_path / "run", **record)
    (root / folder.ABOUT).write_text(text)
    assert main(["predict", "--run", str(run), "--work", str(tmp_path / "work")]) == 2
    error = capsys.readouterr().err
    assert "expected a " in error and str(root) in error and folder.ABOUT in error


def test_damaged_hashes_of_training_images_are_refused(tmp_path):
    run = runs.Run.open(write_run(tmp_path / "run"))
    assert run.seen() is None
    run.path(runs.SEEN).write_text('{"a": "x", "b": "y"}')
    assert run.seen() == {"x", "y"}
    for other in ('{"a": ["x"], "b": "y"}', "[" * 100_000):
        run.path(runs.SEEN).write_text(other)
        with pytest.raises(InputError, match=r"seen-images\.json: expected the list"):
            run.seen()


@pytest.mark.parametrize("case", ["../../evil", "/evil", "a\\b"])
def test_hostile_case_in_a_split_is_refused(tmp_path, case):
    split = {"training": ["a"], "validation": ["b"], "test": [case]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    with pytest.raises(InputError, match=r"split\.json: expected a case"):
        splits.read([tmp_path / "split.json"], ["a", "b", case], "own")
    authors = {"TRAINING": ["a"], "VALIDATION": [case]}
    (tmp_path / "sample_list.json").write_text(json.dumps(authors))
    (tmp_path / "testing.json").write_text('{"VALIDATION": ["c"]}')
    with pytest.raises(InputError, match=r"sample_list\.json: expected a case"):
        files = [tmp_path / "sample_list.json", tmp_path / "testing.json"]
        splits.read(files, ["a", "c", case], "own")


def test_image_with_a_hostile_name_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a\\b.png").write_bytes(b"")
    (tmp_path / "photos" / f"{'x' * 210}.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        describe.describe(tmp_path / "photos", None, tmp_path / "work")
    assert "it leads to another folder. Rename" in str(caught.value)
    assert "it has more than 200 bytes. Rename" in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "a\0"])
def test_hostile_name_of_another_set_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="--name"):
        describe.describe(tmp_path, tmp_path, tmp_path / "work", f"own-{name}")


def test_experiment_with_a_hostile_data_set_is_refused(tmp_path, capsys):
    text = {"preset": "demo", "seeds": [0], "datasets": {"own-../../x": {}}}
    (tmp_path / "e.yaml").write_text(json.dumps(text))
    command = ["reproduce", "--dataset", "own-../../x", "--experiment"]
    assert main([*command, str(tmp_path / "e.yaml")]) == 2
    assert "--dataset own-../../x: expected one of" in capsys.readouterr().err


def test_every_stage_refuses_a_hostile_data_set(tmp_path, capsys):
    run = write_run(tmp_path / "run", dataset="own-../../x")
    for command in ("predict", "evaluate", "temperature"):
        assert main([command, "--run", str(run)]) == 2
        assert "expected a dataset that can be the name" in capsys.readouterr().err


def test_names_are_no_spreadsheet_formulas_and_are_read_back(tmp_path):
    """A case named =1+1 was 2 in a spreadsheet."""
    cases = ["=1+1", "@x", "+a", "-5", "'=1", "''@x", "'a", "a=1", ""]
    empty = dict.fromkeys(evaluate.COLUMNS, None)
    rows = [{**empty, "case": case, "split": "test", "dice": 0.5} for case in cases]
    path = runs.write_csv(tmp_path / "cases.csv", evaluate.COLUMNS, rows)
    with path.open(newline="") as file:
        written = [row["case"] for row in csv.DictReader(file)]
    assert written[:4] == ["'=1+1", "'@x", "'+a", "-5"]  # a number computes nothing
    assert not any(names.is_formula(cell) for cell in written)
    found = read_cases(path, "dscpp evaluate")
    assert list(found["case"]) == cases
    assert list(found["dice"]) == [0.5] * len(cases)
