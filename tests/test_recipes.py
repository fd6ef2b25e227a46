"""The recipes, run as a reader would run them, with the real libraries."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines import cli


@pytest.fixture
def run(project: Path, tmp_path: Path):
    """Run a recipe in a process of its own; return the losses that it prints."""

    def losses_of(recipe: str, *given: Path) -> list[float]:
        result = subprocess.run(
            [sys.executable, project / "recipes" / recipe, *given],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": f"{project}:{project / 'ports' / 'torch'}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        printed = re.findall(r"^epoch \d+: loss (\S+)$", result.stdout, re.MULTILINE)
        return [float(value) for value in printed]

    return losses_of


def assert_falls(values: list[float], epochs: int, to: float) -> None:
    assert len(values) == epochs
    assert np.isfinite(values).all()
    assert values[-1] < to * values[0]


@pytest.mark.slow
@pytest.mark.backend
@pytest.mark.peers
def test_keras_fit(run) -> None:
    assert_falls(run("keras_fit.py"), 5, to=0.5)


@pytest.mark.peers
def test_monai_loop(run) -> None:
    pytest.importorskip("monai")
    assert_falls(run("monai_loop.py"), 5, to=0.7)


@pytest.mark.peers
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_nnunet_plans_preprocesses_trains_and_validates(run, tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2")
    assert_falls(run("nnunet_train.py", tmp_path), 3, to=0.95)
    (validation,) = tmp_path.glob("nnUNet_results/*/*/fold_all/validation")
    # Of their own label maps the probabilities are right wherever one is the largest.
    judged = ["judge", str(validation), str(validation), "--output", str(tmp_path)]
    assert cli.main(judged) == 0
    (path,) = tmp_path.glob("runs/validation/cases.csv")
    rows = pd.read_csv(path)
    rows = rows[rows["region"] == "image"]
    assert len(rows) == 4 * 2 and set(rows["target"]) == {"class 1", "class 2"}
    assert set(rows["n_voxels"]) == {24 * 32 * 40}
    np.testing.assert_array_equal(rows["n_predicted"], rows["n_foreground"])
    assert (rows["dice"].isna() | (rows["dice"] == 1)).all()
    assert rows["nll"].between(0, 1).all()
