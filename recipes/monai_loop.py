"""DSC++ in a training loop of MONAI and PyTorch, with bfloat16.

`axis=1` says that classes come second, as everywhere in PyTorch. MONAI's labels are
class indices of one channel and its networks return logits: two more options. The
loss computes in float32, whatever the network's precision. Keras has to be told, before
it is imported, that the tensors are PyTorch's. Run: `python recipes/monai_loop.py`.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import torch
from monai.data import DataLoader, Dataset, create_test_image_2d
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    RandFlipd,
    RandGaussianNoised,
    ScaleIntensityd,
)
from monai.utils import set_determinism

import losses


def samples(count: int, size: int = 64) -> list[dict[str, np.ndarray]]:
    """Draw images of discs with MONAI, each with its class indices 0, 1, 2."""
    keys = ("image", "label")
    random = np.random.RandomState(0)
    drawn = (
        create_test_image_2d(size, size, num_seg_classes=2, random_state=random)
        for _ in range(count)
    )
    return [dict(zip(keys, pair, strict=True)) for pair in drawn]


def batches(count: int = 24, batch_size: int = 4) -> DataLoader:
    """Serve samples of shape (1, rows, columns) with MONAI's transforms."""
    transforms = Compose(
        [
            EnsureChannelFirstd(["image", "label"], channel_dim="no_channel"),
            ScaleIntensityd("image"),
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
            RandGaussianNoised("image", prob=0.5),
        ]
    )
    dataset = Dataset(samples(count), transforms)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True)


def main(epochs: int = 5) -> list[float]:
    """Train a network; return the mean loss of each epoch."""
    set_determinism(0)
    # As Keras chooses: the loss brings its tensors to this device.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = UNet(2, 1, 3, channels=(8, 16, 32), strides=(2, 2)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_function = losses.by_name("DSC++", axis=1, from_logits=True, from_indices=True)
    history = []
    loader = batches()
    for _ in range(epochs):
        total = 0.0
        for batch in loader:
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16):
                logits = model(batch["image"].to(device))  # (N, 3, rows, columns)
                loss = loss_function(batch["label"].to(device), logits)
            loss.backward()
            optimizer.step()
            total += loss.item()
        history.append(total / len(loader))
    return history


if __name__ == "__main__":
    for epoch, value in enumerate(main(), start=1):
        print(f"epoch {epoch}: loss {value:.4f}")
