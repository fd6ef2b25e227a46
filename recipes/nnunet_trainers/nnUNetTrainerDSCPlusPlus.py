"""DSC++ in nnU-Net v2: a trainer with another loss, and nothing else.

This file is all that nnU-Net needs, beside the package `losses`: see README.md in the
folder above for where to put it.
"""

from __future__ import annotations

import os

# Before Keras is imported: the tensors are PyTorch's.
os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

import losses


class DSCPlusPlus(torch.nn.Module):
    """The loss as nnU-Net calls it.

    Args:
        ignore_label: class index of voxels that do not count; None for none.
        gamma: the ++ exponent.
    """

    def __init__(self, ignore_label: int | None = None, gamma: float = 2.0) -> None:
        super().__init__()
        self.ignore_label = ignore_label
        self.function = losses.by_name(
            "DSC++", gamma=gamma, axis=1, from_logits=True, from_indices=True
        )

    def forward(self, net_output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean over images.

        Args:
            net_output: logits, (N, C, *spatial).
            target: class indices, (N, 1, *spatial).
        """
        mask = None
        if self.ignore_label is not None:
            mask = target[:, 0] != self.ignore_label
        # Where nnU-Net trains, which may be another device than Keras' default.
        with keras.device(str(net_output.device)):
            return self.function(target, net_output, sample_weight=mask)


class nnUNetTrainerDSCPlusPlus(nnUNetTrainer):
    """nnU-Net's own training with DSC++ in place of Dice and cross entropy.

    Background counts as a class, as in the paper. Soft counts are per image, so
    nnU-Net's `batch_dice` has no effect.

    Raises:
        NotImplementedError: region-based training, whose classes overlap: DSC++ needs
            one class a voxel.
    """

    def _build_loss(self) -> torch.nn.Module:
        if self.label_manager.has_regions:
            raise NotImplementedError(
                "nnUNetTrainerDSCPlusPlus: expected labels that are class indices, "
                "found regions in dataset.json. Give each label one index"
            )
        loss = super()._build_loss()
        ours = DSCPlusPlus(self.label_manager.ignore_label)
        if not isinstance(loss, DeepSupervisionWrapper):
            return ours
        # Deep supervision: nnU-Net's weights of the resolutions stay as they are.
        loss.loss = ours
        return loss
