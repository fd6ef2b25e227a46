"""The study's network and training in plain PyTorch.

Our Keras version is measured against it: (N, C, *spatial), PyTorch's own layers, loss
and optimiser, no code of this project.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import nn


class PlainUNet(nn.Module):
    """MIScnn's standard U-Net with instance normalisation.

    Its parameters are in Keras' order.

    Args:
        rank: 2 for images, 3 for volumes.
        channels: channels of the images.
        classes: classes of the probabilities.
        filters: feature maps of the first level.
        depth: number of poolings.
    """

    def __init__(
        self, rank: int, channels: int, classes: int, filters: int = 32, depth: int = 4
    ) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(depth + 1)]
        transposed = getattr(nn, f"ConvTranspose{rank}d")
        self.down = nn.ModuleList(
            _two_convolutions(rank, *sizes) for sizes in pairwise([channels, *widths])
        )
        self.up = nn.ModuleList(
            nn.ModuleList(
                [transposed(*sizes, 2, stride=2), _two_convolutions(rank, *sizes)]
            )
            for sizes in pairwise(widths[::-1])
        )
        self.pool = getattr(nn, f"MaxPool{rank}d")(2)
        self.logits = getattr(nn, f"Conv{rank}d")(filters, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return probabilities (N, classes, *spatial) of images (N, C, *spatial)."""
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.down[-1](x)
        for up, block in self.up:
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        return torch.softmax(self.logits(x), dim=1)

    def take(self, weights: list[np.ndarray]) -> None:
        """Copy the weights of our network: in Keras' order, with kernels transposed."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), weights, strict=True):
                kernel = value.ndim > 1
                turned = np.moveaxis(value, (-1, -2), (0, 1)) if kernel else value
                if parameter.shape != turned.shape:
                    raise ValueError(
                        f"expected a weight of shape {tuple(parameter.shape)}, "
                        f"received {turned.shape}"
                    )
                parameter.copy_(torch.tensor(turned))


def _two_convolutions(rank: int, before: int, after: int) -> nn.Sequential:
    convolution = getattr(nn, f"Conv{rank}d")
    normalisation = getattr(nn, f"InstanceNorm{rank}d")
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [convolution(channels, after, 3, padding=1), nn.ReLU()]
        layers.append(normalisation(after, eps=1e-3, affine=True))
    return nn.Sequential(*layers)


def dice_plus_plus(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    """Compute DSC++ with exponent 2, mean over images and classes; (N, C, *spatial)."""
    y_pred = y_pred.clamp(1e-7, 1 - 1e-7)
    spatial = tuple(range(2, y_pred.ndim))
    hit = (y_true * y_pred).sum(spatial)
    missed = (y_true * (1 - y_pred)).square().sum(spatial)
    false = ((1 - y_true) * y_pred).square().sum(spatial)
    return ((missed + false) / (2 * hit + missed + false + 1e-7)).mean()


def training_step(
    network: PlainUNet,
    image: np.ndarray,
    label: np.ndarray,
    learning_rate: float,
    momentum: float,
) -> Callable[[], float]:
    """Return a function that takes a step of SGD with Nesterov momentum.

    The function returns the loss.

    Args:
        network: the network to train; it is moved to the GPU where there is one.
        image: (N, C, *spatial), copied to the device at each step, as in a training.
        label: one-hot, (N, classes, *spatial).
        learning_rate: of the optimiser.
        momentum: of the optimiser.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)
    optimizer = torch.optim.SGD(
        network.parameters(), learning_rate, momentum=momentum, nesterov=True
    )

    def step() -> float:
        optimizer.zero_grad()
        probabilities = network(torch.from_numpy(image).to(device))
        loss = dice_plus_plus(torch.from_numpy(label).to(device), probabilities)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
