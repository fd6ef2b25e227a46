"""What the phantoms show: lesions, moles, polyps or nuclei, besides vessels.

Each kind draws an image and has a formula for P(y = 1 | image) that sees nothing but
the visible 8-bit image. What is drawn is not exactly what is likely: noise, hairs,
shadows and reflections are part of the image, and so of the truth.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from data_io.simulation import phantom_vessels
from data_io.simulation.phantom_drawing import (
    Contrast,
    Image,
    Random,
    blob,
    clipped,
    somewhere,
    texture,
)

__all__ = ["KINDS", "LESION", "NUCLEI", "POLYP", "SKIN", "VESSEL", "Kind"]


Draw = Callable[[Random, int], Image]


@dataclass(frozen=True)
class Kind:
    """A kind of phantom.

    Attributes:
        dataset: name of the data set.
        structure: what is in the foreground.
        formula: the true probability in words.
        draw: makes an image, uint8 (size, size, 3), from a generator and a size.
        probability: the true probability, float32 (rows, columns) in [0.002, 0.998], of
            a visible image, uint8 (rows, columns, 3).
    """

    dataset: str
    structure: str
    formula: str
    draw: Draw
    probability: Callable[[Image], np.ndarray]

    @classmethod
    def of(cls, name: str, structure: str, draw: Draw, seen: Contrast) -> "Kind":
        """A kind whose probability is a contrast with the whole image."""
        return cls(f"phantom-{name}", structure, seen.formula, draw, seen)


def draw_lesion(random: Random, size: int) -> Image:
    """Draws ultrasound: a dark lesion with a shadow below it, in layers of speckle."""
    place = somewhere(random, size, 0.3)
    lesion = blob(random, size, random.uniform(0.13, 0.25) * size, place, 0.12)
    layers = 14 * np.sin(np.arange(size)[:, None] / size * random.uniform(12, 22))
    shadow = np.cumsum(lesion, axis=0) / size * random.uniform(0, 50)
    level = 130 + layers + texture(random, size, 5, 9) - shadow * (1 - lesion)
    level -= random.uniform(40, 85) * lesion
    # Speckle: the noise of ultrasound grows with the echo, and is not white.
    speckle = gaussian_filter(random.gamma(4, 0.25, (size, size)), 0.6)
    return clipped([level * speckle] * 3)


def draw_skin(random: Random, size: int) -> Image:
    """Draws a brown mole on skin, with a fainter spot beside it and hairs across."""
    radius = random.uniform(0.15, 0.3) * size
    depth = blob(random, size, radius, somewhere(random, size, 0.35), 0.1)
    faint = blob(random, size, radius / 2, somewhere(random, size, 0.2), 0.2)
    depth = np.maximum(depth, random.uniform(0.2, 0.6) * faint)
    depth *= random.uniform(0.6, 1) + texture(random, size, 3, 0.08)
    hairs = sum((hair(random, size) for _ in range(random.integers(0, 6))),
                np.zeros((size, size)))  # fmt: skip
    ground = texture(random, size, 6, 7) - 45 * np.minimum(hairs, 1)
    return clipped(
        [
            base + ground - fall * depth + random.normal(0, 5, depth.shape)
            for base, fall in ((205, 85), (160, 95), (140, 75))
        ]
    )


def hair(random: Random, size: int) -> np.ndarray:
    """A straight thin line through the image, (size, size) in [0, 1]."""
    rows, columns = np.mgrid[:size, :size]
    row, column = somewhere(random, size, 0)
    angle = random.uniform(0, np.pi)
    away = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    return np.asarray(np.exp(-((away / 0.7) ** 2)))


def draw_polyp(random: Random, size: int) -> Image:
    """Draws a redder bump on folds of mucosa, lit from the middle, with reflections."""
    place = somewhere(random, size, 0.3)
    bump = blob(random, size, random.uniform(0.13, 0.26) * size, place, 0.12)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    light = 1.1 - 0.8 * (rows**2 + columns**2)
    folds = 10 * np.sin(rows * random.uniform(8, 20) + random.uniform(0, 6))
    ground = folds + texture(random, size, 5, 8)
    redder = random.uniform(18, 45) * bump * (1 + texture(random, size, 3, 0.15))
    channels = [
        (base + ground + share * redder) * light + random.normal(0, 5, bump.shape)
        for base, share in ((165, 0.5), (95, -0.5), (80, -0.4))
    ]
    for _ in range(random.integers(1, 5)):
        place = somewhere(random, size, 0.1)
        spot = blob(random, size, random.uniform(1, 2.5), place, 0.3)
        channels = [channel + (250 - channel) * spot for channel in channels]
    return clipped(channels)


def draw_nuclei(random: Random, size: int) -> Image:
    """Draws bright nuclei of many strengths on a dark ground, as fluorescence shows."""
    level = 25 + texture(random, size, 10, 5)
    for _ in range(int(random.uniform(0.002, 0.005) * size**2)):
        place = somewhere(random, size, 0)
        nucleus = blob(random, size, random.uniform(2.5, 5), place, 0.15)
        strength = random.uniform(15, 130) * (1 + texture(random, size, 2, 0.1))
        level = np.maximum(level, 25 + strength * nucleus)
    return clipped([level + random.normal(0, 4, level.shape)] * 3)


_VESSEL_DOORS = phantom_vessels.draw_image, phantom_vessels.probability
VESSEL = Kind("phantom", "vessel", phantom_vessels.FORMULA, *_VESSEL_DOORS)
LESION = Kind.of("lesion", "lesion", draw_lesion, Contrast((0, -1, 0), 2, 30, 6))
SKIN = Kind.of("skin", "mole", draw_skin, Contrast((0, -1, 0), 1.5, 24, 6))
POLYP = Kind.of("polyp", "polyp", draw_polyp, Contrast((1, -1, 0), 2, 13, 3.5))
NUCLEI = Kind.of("nuclei", "nucleus", draw_nuclei, Contrast((0, 1, 0), 1, 22, 5))

KINDS = {kind.dataset: kind for kind in (VESSEL, LESION, SKIN, POLYP, NUCLEI)}
"""All kinds by the name of their data set."""
