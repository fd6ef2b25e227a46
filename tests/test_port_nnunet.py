"""The port's nnU-Net trainers, with nnU-Net itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")
import dscpp_torch as port  # noqa: E402

pytestmark = pytest.mark.ports
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def trainers() -> ModuleType:
    """The trainers' file, as nnU-Net loads it from `nnUNet_extTrainer`."""
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    found = recursive_find_python_class(
        port.NNUNET, "nnUNetTrainerDSCPlusPlus", None, base_folder=port.NNUNET
    )
    return sys.modules[found.__module__]


def made(trainer: type, **given: Any) -> Any:
    """A trainer that has what `_build_loss` reads, and no data set."""
    settings = {"ignore": None, "regions": False, "batch": True, "deep": True} | given
    self = trainer.__new__(trainer)
    self.label_manager = SimpleNamespace(
        has_regions=settings["regions"], ignore_label=settings["ignore"]
    )
    self.configuration_manager = SimpleNamespace(batch_dice=settings["batch"])
    self.enable_deep_supervision, self.is_ddp = settings["deep"], False
    self.device = torch.device("cpu")
    self._get_deep_supervision_scales = lambda: [[1, 1], [0.5, 0.5], [0.25, 0.25]]
    return self


def test_there_is_a_trainer_for_each_loss(trainers: ModuleType) -> None:
    assert len(trainers.TRAINERS) == 14
    for trainer, name in zip(trainers.TRAINERS, port.NAMES, strict=True):
        assert getattr(trainers, trainer.__name__) is trainer
        loss = made(trainer, deep=False)._build_loss()
        assert type(loss) is port.NAMES[name]
        assert loss.softmax and loss.to_onehot_y and loss.batch and not loss.ddp
    assert trainers.nnUNetTrainerDSCPlusPlus.loss_name == "DSC++"
    assert trainers.nnUNetTrainerSymmetricUnifiedFocal.__doc__


def test_plans_set_batch_dice_and_ddp(trainers: ModuleType) -> None:
    for batch, processes in ((True, True), (False, True)):
        trainer = made(trainers.nnUNetTrainerDSCPlusPlus, batch=batch, deep=False)
        trainer.is_ddp = processes
        loss = trainer._build_loss()
        assert (loss.batch, loss.ddp) == (batch, batch)


def test_deep_supervision_keeps_its_weights(trainers: ModuleType) -> None:
    wrapped = made(trainers.nnUNetTrainerDSCPlusPlus)._build_loss()
    assert wrapped.weight_factors == pytest.approx((2 / 3, 1 / 3, 0))
    outputs = [torch.randn(2, 3, n, n) for n in (8, 4, 2)]
    targets = [torch.randint(0, 3, (2, 1, n, n)).float() for n in (8, 4, 2)]
    single = port.DicePlusPlus(softmax=True, to_onehot_y=True, batch=True)
    parts = [single(*pair) for pair in zip(outputs, targets, strict=True)]
    expected = 2 / 3 * parts[0] + 1 / 3 * parts[1]
    torch.testing.assert_close(wrapped(outputs, targets), expected)


def test_ignored_voxels_do_not_count(trainers: ModuleType) -> None:
    # Two voxels with p = 1/2 of class 1, labels 0 and 1; a third one is ignored.
    logits = torch.zeros(1, 2, 1, 1, 3, requires_grad=True)
    target = torch.tensor([0.0, 1.0, 2.0]).reshape(1, 1, 1, 1, 3)
    trainer = made(trainers.nnUNetTrainerDSCPlusPlus, ignore=2, deep=False)
    value = trainer._build_loss()(logits, target)
    # A class: TP 1/2, FN 1/4, FP 1/4, so 0.5 / 1.5.
    assert value.item() == pytest.approx(1 / 3, rel=1e-6)
    value.backward()
    gradient = logits.grad[0, :, 0, 0]
    assert gradient[:, :2].abs().min() > 0
    assert gradient[:, 2].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_regions_have_the_ignored_voxels_last(trainers: ModuleType, dtype: Any) -> None:
    logits = torch.randn(2, 2, 4, 6, requires_grad=True)
    regions = torch.rand(2, 2, 4, 6) < 0.5
    ignored = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    ignored[:, :, 3] = True
    for trainer, name in zip(trainers.TRAINERS, port.NAMES, strict=True):
        loss = made(trainer, regions=True, ignore=3, deep=False)._build_loss()
        value = loss(logits, torch.cat([regions, ignored], 1).to(dtype))
        single = port.by_name(name, sigmoid=True, batch=True)
        expected = single(logits[:, :, :3], regions[:, :, :3])
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        plain = made(trainer, regions=True, deep=False)._build_loss()
        torch.testing.assert_close(
            plain(logits, regions.to(dtype)), single(logits, regions)
        )


TIMM = "import torch\n\n\ndef __getattr__(name):\n    return torch.nn.Module\n"
SHORT = """from dscpp_torch.nnunet.dscpp_trainers import nnUNetTrainerDSCPlusPlus


class nnUNetTrainerDSCPlusPlus_1epoch(nnUNetTrainerDSCPlusPlus):
    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch = 1, 4
        self.num_val_iterations_per_epoch = 1
        super().initialize()
"""


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_nnunet_command_trains(tmp_path: Path) -> None:
    # nnU-Net's search imports its Primus trainers, which need timm: empty here.
    for name in (
        "timm/__init__",
        "timm/layers",
        "timm/models/__init__",
        "timm/models/eva",
    ):
        path = tmp_path / "path" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TIMM)
    own = tmp_path / "trainers"
    own.mkdir()
    (own / "short.py").write_text(SHORT)
    folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    paths = [tmp_path / "path", ROOT / "recipes", ROOT / "ports" / "torch"]
    environment = {
        **os.environ,
        **{name: str(tmp_path / name) for name in folders},
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "nnUNet_extTrainer": os.pathsep.join([port.NNUNET, str(own)]),
        "nnUNet_n_proc_DA": "1",
    }
    prepare = (
        "import pathlib, nnunet_train as recipe\n"
        f"recipe.write_raw_data(pathlib.Path({str(tmp_path / 'nnUNet_raw')!r}))\n"
        "recipe.plan_and_preprocess()\n"
    )
    command = Path(sys.executable).with_name("nnUNetv2_train")
    train = [command, "900", "2d", "all", "-tr", "nnUNetTrainerDSCPlusPlus_1epoch"]
    for step in ([sys.executable, "-c", prepare], [*train, "-device", "cpu"]):
        result = subprocess.run(
            step, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr[-3000:]
    assert re.search(r"train_loss 0?\.\d+", result.stdout), result.stdout[-2000:]
    trained = tmp_path / "nnUNet_results" / "Dataset900_Spheres"
    (folder,) = trained.glob("nnUNetTrainerDSCPlusPlus_1epoch__*")
    assert (folder / "fold_all" / "checkpoint_final.pth").exists()
    assert "foreground_mean" in json.loads(
        (folder / "fold_all" / "validation" / "summary.json").read_text()
    )
