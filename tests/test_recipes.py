"""The recipes, run as a reader would run them, with the real libraries."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def run(project: Path, tmp_path: Path):
    """Run a recipe in a process of its own; return the losses that it prints."""

    def losses_of(recipe: str) -> list[float]:
        result = subprocess.run(
            [sys.executable, project / "recipes" / recipe],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(project)},
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
def test_nnunet_plans_preprocesses_trains_and_validates(run) -> None:
    pytest.importorskip("nnunetv2")
    assert_falls(run("nnunet_train.py"), 3, to=0.95)


@pytest.fixture
def trainer_module(project: Path) -> ModuleType:
    """The trainer's file, as nnU-Net loads it from a folder of `nnUNet_extTrainer`."""
    pytest.importorskip("nnunetv2")
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = str(project / "recipes" / "nnunet_trainers")
    found = recursive_find_python_class(
        folder, "nnUNetTrainerDSCPlusPlus", None, base_folder=folder
    )
    return sys.modules[found.__module__]


@pytest.mark.peers
def test_ignored_voxels_do_not_count_in_nnunet(trainer_module: ModuleType) -> None:
    import torch

    # Two voxels with p = 1/2 of class 1, labels 0 and 1; a third one is ignored.
    logits = torch.zeros(1, 2, 1, 1, 3, requires_grad=True)
    target = torch.tensor([0.0, 1.0, 2.0]).reshape(1, 1, 1, 1, 3)
    value = trainer_module.DSCPlusPlus(ignore_label=2)(logits, target)
    # A class: TP 1/2, FN 1/4, FP 1/4, so 0.5 / 1.5.
    assert value.item() == pytest.approx(1 / 3, rel=1e-6)
    value.backward()
    gradient = logits.grad[0, :, 0, 0]
    assert gradient[:, :2].abs().min() > 0
    assert gradient[:, 2].abs().max() == 0


@pytest.mark.peers
def test_nnunet_regions_are_refused(trainer_module: ModuleType) -> None:
    class Regions(trainer_module.nnUNetTrainerDSCPlusPlus):
        def __init__(self) -> None:
            self.label_manager = type("Labels", (), {"has_regions": True})

    with pytest.raises(NotImplementedError, match="found regions"):
        Regions()._build_loss()
