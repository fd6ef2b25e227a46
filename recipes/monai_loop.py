"""DSC++ in a training of MONAI, in the form of its tutorials, with bfloat16.

The loss stands where `DiceLoss` would, with the same arguments: the network returns
logits, and labels are class indices of one channel. Needs `pip install ./ports/torch`.
Run: `python recipes/monai_loop.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from dscpp_torch import DicePlusPlus
from monai.data import DataLoader, Dataset, create_test_image_2d, decollate_batch
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import (
    AsDiscrete,
    Compose,
    EnsureChannelFirstd,
    RandFlipd,
    RandGaussianNoised,
    ScaleIntensityd,
)
from monai.utils import set_determinism

KEYS = ("image", "label")


def samples(count: int, size: int = 64) -> list[dict[str, np.ndarray]]:
    """Draw images of discs with MONAI, each with its class indices 0, 1, 2."""
    random = np.random.RandomState(0)
    drawn = (
        create_test_image_2d(size, size, num_seg_classes=2, random_state=random)
        for _ in range(count)
    )
    return [dict(zip(KEYS, pair, strict=True)) for pair in drawn]


def loaders(count: int = 24, batch_size: int = 4) -> tuple[DataLoader, DataLoader]:
    """Serve samples of shape (1, rows, columns): for training, and for validation."""
    plain = [
        EnsureChannelFirstd(KEYS, channel_dim="no_channel"),
        ScaleIntensityd("image"),
    ]
    augmented = [
        RandFlipd(KEYS, prob=0.5, spatial_axis=0),
        RandGaussianNoised("image", prob=0.5),
    ]
    drawn = samples(count + batch_size)
    train = Dataset(drawn[:count], Compose([*plain, *augmented]))
    validation = Dataset(drawn[count:], Compose(plain))
    return DataLoader(train, batch_size, shuffle=True), DataLoader(validation, 1)


def validate(model: UNet, loader: DataLoader, device: torch.device) -> float:
    """Mean Dice of the foreground classes."""
    metric = DiceMetric(include_background=False, reduction="mean")
    prediction = AsDiscrete(argmax=True, to_onehot=3)
    label = AsDiscrete(to_onehot=3)
    model.eval()
    with torch.no_grad():
        for batch in loader:
            logits = model(batch["image"].to(device))
            predicted = [prediction(sample) for sample in decollate_batch(logits)]
            labels = [
                label(sample) for sample in decollate_batch(batch["label"].to(device))
            ]
            metric(predicted, labels)
    model.train()
    return metric.aggregate().item()


def main(epochs: int = 5) -> list[float]:
    """Train a network; return the mean loss of each epoch."""
    set_determinism(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = UNet(2, 1, 3, channels=(8, 16, 32), strides=(2, 2)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_function = DicePlusPlus(softmax=True, to_onehot_y=True)
    train, validation = loaders()
    history = []
    for _ in range(epochs):
        total = 0.0
        for batch in train:
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16):
                logits = model(batch["image"].to(device))  # (N, 3, rows, columns)
                loss = loss_function(logits, batch["label"].to(device))
            loss.backward()
            optimizer.step()
            total += loss.item()
        history.append(total / len(train))
    print(f"mean Dice of the validation: {validate(model, validation, device):.3f}")
    return history


if __name__ == "__main__":
    for epoch, value in enumerate(main(), start=1):
        print(f"epoch {epoch}: loss {value:.4f}")
