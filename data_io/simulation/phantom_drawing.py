"""What the kinds of phantoms are drawn with, and how contrast becomes probability."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

__all__ = ["Contrast", "blob", "chance", "clipped", "somewhere", "texture"]

Image = np.ndarray
Random = np.random.Generator
WEAKEST = 0.002  # no probability is nearer to 0 or 1


def chance(contrast: np.ndarray, middle: float, width: float) -> np.ndarray:
    """The logistic curve of all phantoms, float32 in [0.002, 0.998]."""
    share = expit((contrast - middle) / width)
    return (WEAKEST + (1 - 2 * WEAKEST) * share).astype(np.float32)


@dataclass(frozen=True)
class Contrast:
    """How much a spot differs from the whole image, as a probability.

    D = G_s(c) - mean(c) of the channel c = w . (red, green, blue), with G_s a Gaussian
    of s pixels (borders reflected, cut at 4 s);
    P = 0.002 + 0.996 / (1 + exp(-(D - middle) / width)).

    Attributes:
        weights: w, of red, green and blue.
        sigma: s, in pixels.
        middle, width: of the logistic curve, in grey levels.
    """

    weights: tuple[int, int, int]
    sigma: float
    middle: float
    width: float

    def __call__(self, image: Image) -> np.ndarray:
        """The probability of a visible image; float32 (rows, columns)."""
        channel = image.astype(np.float64) @ np.array(self.weights, np.float64)
        smooth = gaussian_filter(channel, self.sigma)
        return chance(smooth - channel.mean(), self.middle, self.width)

    @property
    def formula(self) -> str:
        """The formula in words."""
        red, green, blue = self.weights
        return (
            f"P(y=1|image) = 0.002 + 0.996 / (1 + exp(-(D - {self.middle:g}) / "
            f"{self.width:g})) with D = G_{self.sigma:g} - M, G_s the visible 8-bit "
            f"channel {red} R + {green} G + {blue} B smoothed by a Gaussian of s "
            "pixels (borders reflected), M its mean; y is drawn pixel by pixel"
        )


def clipped(channels: list[np.ndarray]) -> Image:
    """Channels as an 8-bit image, uint8 (rows, columns, 3)."""
    return np.clip(np.round(np.stack(channels, -1)), 0, 255).astype(np.uint8)


def texture(random: Random, size: int, sigma: float, spread: float) -> np.ndarray:
    """A cloudy ground, (size, size): mean about 0, standard deviation `spread`."""
    cloud = gaussian_filter(random.standard_normal((size, size)), sigma, mode="wrap")
    return np.asarray(spread * cloud / cloud.std())


def blob(
    random: Random, size: int, radius: float, place: np.ndarray, soft: float
) -> np.ndarray:
    """An uneven round patch, (size, size) in [0, 1].

    Args:
        random: decides its outline.
        size: of the image.
        radius: in pixels.
        place: row and column of the middle, pixels.
        soft: how wide its edge is, in radii.
    """
    rows, columns = np.mgrid[:size, :size]
    across, down = columns - place[1], (rows - place[0]) * random.uniform(0.8, 1.25)
    angle, edge = np.arctan2(down, across), np.ones((size, size))
    for waves in (2, 3, 5):
        height = random.uniform(0, 0.3 / waves)
        edge += height * np.cos(waves * angle + random.uniform(0, 2 * np.pi))
    return np.asarray(expit((edge - np.hypot(across, down) / radius) / soft))


def somewhere(random: Random, size: int, margin: float) -> np.ndarray:
    """Row and column of a place; `margin`, of the size, is the least to the edges."""
    return random.uniform(margin * size, (1 - margin) * size, 2)
