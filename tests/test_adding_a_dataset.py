"""The example in docs/adding_a_dataset.md goes from command to table."""

import csv
import dataclasses
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_io import datasets
from data_io.datasets.dataset import Dataset
from data_io.datasets.record import Record
from pipelines.cli import main


@pytest.fixture
def cells(project: Path, monkeypatch):
    """The module in the page, as if it lay in data_io/datasets/cells.py."""
    page = (project / "docs" / "adding_a_dataset.md").read_text("utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    module = types.ModuleType("data_io.datasets.cells")
    exec(compile(source, "docs/adding_a_dataset.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(datasets, "NAMES", (*datasets.NAMES, "cells"))
    return module


def write(root: Path) -> None:
    for number in range(6):
        image = np.full((40 + number, 52, 3), 60, np.uint8)
        image[5 : 20 + number, 8:40] = 200
        for part, pixels in [("images", image), ("labels", image[..., 0] // 200 * 255)]:
            (root / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / part / f"cell{number}.png")


def test_page_lists_every_attribute_of_a_data_set(project):
    """All but what no data set has needed to give otherwise."""
    page = (project / "docs" / "adding_a_dataset.md").read_text("utf-8")
    doors = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
    named = {name for door in doors for name in re.findall(r"`(\w+)", door)}
    known = {name for name in vars(Dataset) if not name.startswith("_")} | {"RECORD"}
    inner = {"AXES", "DIRECTIONS", "HINTS", "expected", "geometry", "home", "look"}
    of_volumes = {"spacing_mm", "clip", "axes", "directions"}
    assert of_volumes < {field.name for field in dataclasses.fields(Record)}
    assert named == known - inner - {"picture", "values"} | of_volumes


@pytest.mark.slow
def test_from_command_to_table(cells, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "cells")
    data = ["--data", "cells"]
    assert main(["verify", "--dataset", "cells", *data]) == 0
    assert "6 cases, the whole data set has 100" in capsys.readouterr().out
    # As if the preset were this small: a run with overrides is in no table.
    from pipelines.training import protocol

    tiny = protocol.Protocol((32, 32), filters=2, depth=2, epochs=1)
    monkeypatch.setitem(protocol.PRESETS, "reduced", lambda record: tiny)
    arguments = [
        "--dataset",
        "cells",
        *data,
        "--preset",
        "reduced",
        "--split-seed",
        "4",
    ]
    assert main(["train", *arguments, "--loss", "CE"]) == 0
    run = Path("results/cells/reduced/runs/ce-s0")
    assert main(["predict", "--run", str(run), *data]) == 0
    assert main(["evaluate", "--run", str(run), *data]) == 0
    assert main(["tables"]) == 0
    split = json.loads((run / "run.json").read_text())["split"]
    assert {part: len(ids) for part, ids in split.items()} == {
        "training": 3,
        "validation": 1,
        "test": 2,
    }
    with (run.parent.parent / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["target"], row["n"]) for row in rows if row["metric"] == "nll"} == {
        ("cell", "2")
    }
    again = [*arguments, "--loss", "CE", "--split-seed", "5"]
    assert main(["train", *again]) == 2
    assert "split_seed: the run has 4, the command asks 5" in capsys.readouterr().err
