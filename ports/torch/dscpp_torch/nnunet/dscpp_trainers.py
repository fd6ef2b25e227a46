# SPDX-License-Identifier: Apache-2.0
"""nnU-Net v2 trainers, one for each loss: nnU-Net's own but for the loss.

    export nnUNet_extTrainer=$(python -c "import dscpp_torch as d; print(d.NNUNET)")
    nnUNetv2_train 900 3d_fullres 0 -tr nnUNetTrainerDSCPlusPlus

nnU-Net imports this file by itself, from the folder, so all imports are absolute.
"""

from __future__ import annotations

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

import dscpp_torch


class RegionLoss(torch.nn.Module):
    """A loss of regions, whose target has the ignored voxels in its last channel."""

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, net_output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of the logits, (N, C, *spatial), and C + 1 channels."""
        seen = 1 - target[:, -1:].to(net_output.dtype)
        return self.loss(net_output, target[:, :-1], seen)


class DSCPPTrainer(nnUNetTrainer):
    """nnU-Net's training with another loss; regions, ignore label and DDP as it has.

    Background counts as a class, as in the paper. Sums run over the batch where the
    plans say `batch_dice`, and over the processes of DDP with it.
    """

    loss_name = "DSC++"

    def _build_loss(self) -> torch.nn.Module:
        built = super()._build_loss()
        labels = self.label_manager
        batch = bool(self.configuration_manager.batch_dice)
        sums = {"batch": batch, "ddp": batch and self.is_ddp}
        ignored = labels.ignore_label
        loss: torch.nn.Module
        if labels.has_regions:
            regions = dscpp_torch.by_name(self.loss_name, sigmoid=True, **sums)
            loss = regions if ignored is None else RegionLoss(regions)
        else:
            loss = dscpp_torch.by_name(
                self.loss_name,
                softmax=True,
                to_onehot_y=True,
                ignore_index=ignored,
                **sums,
            )
        if not isinstance(built, DeepSupervisionWrapper):
            return loss
        built.loss = loss  # nnU-Net's weights of the resolutions stay
        return built


def _trainer(name: str) -> type[DSCPPTrainer]:
    title = "nnUNetTrainer" + name.replace("++", "PlusPlus").replace(" ", "")
    about = f"nnU-Net's training with the {name} loss."
    return type(
        title,
        (DSCPPTrainer,),
        {"loss_name": name, "__doc__": about, "__module__": __name__},
    )


TRAINERS = [_trainer(name) for name in dscpp_torch.NAMES]
"""In the order of `dscpp_torch.NAMES`; nnU-Net finds each by its name below."""
globals().update({trainer.__name__: trainer for trainer in TRAINERS})
