"""Train nnU-Net v2 with DSC++ on a tiny data set, by nnU-Net's own means.

What `nnUNetv2_plan_and_preprocess` and `nnUNetv2_train --npz` do, called from Python so
that the epoch can be shortened. Run: `python recipes/nnunet_train.py [FOLDER]`; what
nnU-Net writes stays in FOLDER. It needs `pip install ./ports/torch`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np

NAME = "Dataset900_Spheres"


def write_raw_data(folder: Path, count: int = 4) -> None:
    """Write volumes with a sphere each, in nnU-Net's raw layout.

    The sphere has a core of its own class, and the last two slices are not labelled.

    Args:
        folder: the folder `nnUNet_raw`.
        count: number of volumes, of 24 x 32 x 40 voxels.
    """
    shape = (24, 32, 40)
    random = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / NAME / name).mkdir(parents=True)
    for number in range(count):
        center = [random.uniform(8, side - 8) for side in shape]
        grid = np.indices(shape) - np.reshape(center, (3, 1, 1, 1))
        distance = np.sqrt((grid**2).sum(axis=0))
        label = (distance < 7).astype("uint8") + (distance < 3)
        image = label + random.normal(scale=0.3, size=shape)
        label[-2:] = 3
        for path, values in (
            (f"imagesTr/case{number}_0000", image.astype("float32")),
            (f"labelsTr/case{number}", label.astype("uint8")),
        ):
            volume = nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 1.5, 1.0]))
            nibabel.save(volume, folder / NAME / f"{path}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "sphere": 1, "core": 2, "ignore": 3},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (folder / NAME / "dataset.json").write_text(json.dumps(description))


def plan_and_preprocess() -> None:
    """Do what `nnUNetv2_plan_and_preprocess -d 900 -c 2d` does."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    nnunet.extract_fingerprint_dataset(900, num_processes=1, verbose=False)
    _, identifier = nnunet.plan_experiment_dataset(900)
    nnunet.preprocess_dataset(900, identifier, ["2d"], num_processes=[1])


def train(folder: Path, epochs: int) -> list[float]:
    """Do what `nnUNetv2_train 900 2d all` does, in a few small epochs.

    Args:
        folder: the data set in `nnUNet_preprocessed`.
        epochs: number of epochs.

    Returns:
        The training loss of each epoch.
    """
    import torch
    from dscpp_torch.nnunet.dscpp_trainers import nnUNetTrainerDSCPlusPlus

    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    description = json.loads((folder / "dataset.json").read_text())
    trainer = nnUNetTrainerDSCPlusPlus(
        {**plans, "continue_training": False},
        configuration="2d",
        fold="all",
        dataset_json=description,
        device=torch.device("cpu"),
    )
    trainer.num_epochs = epochs
    trainer.num_iterations_per_epoch = 8
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    trainer.perform_actual_validation(save_probabilities=True)
    return trainer.logger.get_value("train_losses", step=None)


def main(folder: str, epochs: int = 3) -> list[float]:
    """Do all of it in a folder; return the training loss of each epoch."""
    # nnU-Net reads these; one process is enough to augment so little.
    variables = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    folders = {name: f"{folder}/{name}" for name in variables}
    os.environ.update(folders, nnUNet_n_proc_DA="1")
    write_raw_data(Path(folders["nnUNet_raw"]))
    plan_and_preprocess()
    return train(Path(folders["nnUNet_preprocessed"]) / NAME, epochs)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        losses = main(*sys.argv[1:2] or [temporary])
    for epoch, value in enumerate(losses, start=1):
        print(f"epoch {epoch}: loss {value:.4f}")
