"""Kinds of phantoms: lesions, moles, polyps, nuclei and vessels.

Each kind draws an image and has a formula for P(y = 1 | image) that uses only the
visible 8-bit image. So the drawn object and the likely foreground differ: noise, hairs,
shadows and reflections are part of the image, and also of the truth.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

Image = np.ndarray
Random = np.random.Generator
Draw = Callable[[Random, int], Image]
WEAKEST = 0.002  # no probability is nearer to 0 or 1


def chance(contrast: np.ndarray, middle: float, width: float) -> np.ndarray:
    """Apply the logistic curve of all phantoms; float32 in [0.002, 0.998]."""
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
        """Return the probability of a visible image; float32 (rows, columns)."""
        channel = image.astype(np.float64) @ np.array(self.weights, np.float64)
        smooth = gaussian_filter(channel, self.sigma)
        return chance(smooth - channel.mean(), self.middle, self.width)

    @property
    def formula(self) -> str:
        """Return the formula in words."""
        red, green, blue = self.weights
        return (
            f"P(y=1|image) = 0.002 + 0.996 / (1 + exp(-(D - {self.middle:g}) / "
            f"{self.width:g})) with D = G_{self.sigma:g} - M, G_s the visible 8-bit "
            f"channel {red} R + {green} G + {blue} B smoothed by a Gaussian of s "
            "pixels (borders reflected), M its mean; y is drawn pixel by pixel"
        )


def clipped(channels: list[np.ndarray]) -> Image:
    """Return channels as an 8-bit image, uint8 (rows, columns, 3)."""
    return np.clip(np.round(np.stack(channels, -1)), 0, 255).astype(np.uint8)


def texture(random: Random, size: int, sigma: float, spread: float) -> np.ndarray:
    """Draw a cloudy ground, (size, size): mean about 0, standard deviation `spread`."""
    cloud = gaussian_filter(random.standard_normal((size, size)), sigma, mode="wrap")
    return np.asarray(spread * cloud / cloud.std())


def blob(
    random: Random, size: int, radius: float, centre: np.ndarray, soft: float
) -> np.ndarray:
    """Draw an uneven round patch, (size, size) in [0, 1].

    Args:
        random: generator for its outline.
        size: size of the image.
        radius: in pixels.
        centre: row and column of the middle, pixels.
        soft: width of its edge, in radii.
    """
    rows, columns = np.mgrid[:size, :size]
    across, down = columns - centre[1], (rows - centre[0]) * random.uniform(0.8, 1.25)
    angle, edge = np.arctan2(down, across), np.ones((size, size))
    for waves in (2, 3, 5):
        height = random.uniform(0, 0.3 / waves)
        edge += height * np.cos(waves * angle + random.uniform(0, 2 * np.pi))
    return np.asarray(expit((edge - np.hypot(across, down) / radius) / soft))


def somewhere(random: Random, size: int, margin: float) -> np.ndarray:
    """Draw row and column of a point; `margin` is the least share to the edges."""
    return random.uniform(margin * size, (1 - margin) * size, 2)


VESSEL_FORMULA = (
    "P(y=1|image) = 0.002 + 0.996 / (1 + exp(-(D - 20) / 4)) with D = G_5 - G_1, G_s "
    "the visible 8-bit green channel smoothed by a Gaussian of s pixels (borders "
    "reflected); y is drawn pixel by pixel"
)


def vessel_probability(image: Image) -> np.ndarray:
    """Return P(y = 1 | image): how much darker a spot is than around it.

    D = G_5 - G_1, with G_s the green channel smoothed by a Gaussian of s pixels
    (borders reflected, cut at 4 s); P = 0.002 + 0.996 / (1 + exp(-(D - 20) / 4)).

    Args:
        image: the visible image, uint8 (rows, columns, 3).

    Returns:
        float32 (rows, columns), in [0.002, 0.998].
    """
    green = image[..., 1].astype(np.float64)
    darker = gaussian_filter(green, 5) - gaussian_filter(green, 1)
    return chance(darker, 20, 4)


def draw_vessel_image(random: Random, size: int) -> Image:
    """Draw dark vessels on a textured, noisy, reddish ground.

    Returns:
        uint8 (size, size, 3).
    """
    texture = gaussian_filter(random.standard_normal((size, size)), 8, mode="wrap")
    texture *= 8 / texture.std()
    depth = draw_vessels(random, size)
    # Vessels show most in green, as in fundus photographs.
    channels = [
        base + texture - contrast * depth + random.normal(0, noise, depth.shape)
        for base, contrast, noise in ((190, 30, 6), (130, 95, 6), (70, 20, 8))
    ]
    return clipped(channels)


def draw_vessels(random: Random, size: int) -> np.ndarray:
    """Draw vessels; return the depth of their shadow, (size, size), in [0, 1]."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    depth = np.zeros((size, size), np.float32)
    for points, width, contrast in grow_tree(random, size):
        squared = np.full_like(depth, np.inf)
        for row, column in points:
            distance = (rows - row) ** 2 + (columns - column) ** 2
            np.minimum(squared, distance, out=squared)
        shadow = contrast * np.exp(-((squared / width**2) ** 2))
        np.maximum(depth, shadow, out=depth)
    return depth


def grow_tree(random: Random, size: int) -> Iterator[tuple[np.ndarray, float, float]]:
    """Grow branches: points (K, 2) and half width in pixels, contrast in [0, 1]."""
    starts = random.uniform(0, size, (3, 2))
    starts[:, 0] = 0, size - 1, random.uniform(0, size)
    starts[2, 1] = random.choice([0, size - 1])
    for start in starts:
        towards = size / 2 - start + random.normal(0, size / 6, 2)
        angle = float(np.arctan2(towards[1], towards[0]))
        trunk = (start, angle, random.uniform(1.6, 2.8), random.uniform(0.7, 1), 0)
        branches = [trunk]
        while branches:
            origin, angle, width, contrast, level = branches.pop()
            points, angle = walk(random, origin, angle, size * 0.7**level)
            yield points, width, contrast
            for side in (-1, 1) if level < 2 else ():
                split_at = points[random.integers(len(points) // 3, len(points))]
                turn = angle + side * random.uniform(0.4, 1.1)
                faded = contrast * random.uniform(0.4, 0.9)
                thin = max(1.0, width * random.uniform(0.6, 0.85))
                branches.append((split_at, turn, thin, faded, level + 1))


def walk(
    random: Random, start: np.ndarray, angle: float, length: float
) -> tuple[np.ndarray, float]:
    """Walk on, turning slowly: points (K, 2) in pixels, last direction in radians."""
    steps = max(6, int(random.uniform(0.5, 0.9) * length))
    angles = angle + np.cumsum(random.normal(0, 0.08, steps))
    moves = np.stack([np.cos(angles), np.sin(angles)], -1)
    return start + np.cumsum(moves, axis=0), float(angles[-1])


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
        """Make a kind whose probability is a contrast with the whole image."""
        return cls(f"phantom-{name}", structure, seen.formula, draw, seen)


def draw_lesion(random: Random, size: int) -> Image:
    """Draw ultrasound: a dark lesion with a shadow below it, in layers of speckle."""
    centre = somewhere(random, size, 0.3)
    lesion = blob(random, size, random.uniform(0.13, 0.25) * size, centre, 0.12)
    layers = 14 * np.sin(np.arange(size)[:, None] / size * random.uniform(12, 22))
    shadow = np.cumsum(lesion, axis=0) / size * random.uniform(0, 50)
    level = 130 + layers + texture(random, size, 5, 9) - shadow * (1 - lesion)
    level -= random.uniform(40, 85) * lesion
    # Speckle: the noise of ultrasound grows with the echo, and is not white.
    speckle = gaussian_filter(random.gamma(4, 0.25, (size, size)), 0.6)
    return clipped([level * speckle] * 3)


def draw_skin(random: Random, size: int) -> Image:
    """Draw a brown mole on skin, with a fainter spot beside it and hairs across."""
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
    """Draw a straight thin line through the image, (size, size) in [0, 1]."""
    rows, columns = np.mgrid[:size, :size]
    row, column = somewhere(random, size, 0)
    angle = random.uniform(0, np.pi)
    away = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    return np.asarray(np.exp(-((away / 0.7) ** 2)))


def draw_polyp(random: Random, size: int) -> Image:
    """Draw a redder bump on folds of mucosa, lit from the middle, with reflections."""
    centre = somewhere(random, size, 0.3)
    bump = blob(random, size, random.uniform(0.13, 0.26) * size, centre, 0.12)
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
        centre = somewhere(random, size, 0.1)
        spot = blob(random, size, random.uniform(1, 2.5), centre, 0.3)
        channels = [channel + (250 - channel) * spot for channel in channels]
    return clipped(channels)


def draw_nuclei(random: Random, size: int) -> Image:
    """Draw bright nuclei of many strengths on a dark ground, as fluorescence shows."""
    level = 25 + texture(random, size, 10, 5)
    for _ in range(int(random.uniform(0.002, 0.005) * size**2)):
        centre = somewhere(random, size, 0)
        nucleus = blob(random, size, random.uniform(2.5, 5), centre, 0.15)
        strength = random.uniform(15, 130) * (1 + texture(random, size, 2, 0.1))
        level = np.maximum(level, 25 + strength * nucleus)
    return clipped([level + random.normal(0, 4, level.shape)] * 3)


VESSEL = Kind(
    "phantom", "vessel", VESSEL_FORMULA, draw_vessel_image, vessel_probability
)
LESION = Kind.of("lesion", "lesion", draw_lesion, Contrast((0, -1, 0), 2, 30, 6))
SKIN = Kind.of("skin", "mole", draw_skin, Contrast((0, -1, 0), 1.5, 24, 6))
POLYP = Kind.of("polyp", "polyp", draw_polyp, Contrast((1, -1, 0), 2, 13, 3.5))
NUCLEI = Kind.of("nuclei", "nucleus", draw_nuclei, Contrast((0, 1, 0), 1, 22, 5))

KINDS = {kind.dataset: kind for kind in (VESSEL, LESION, SKIN, POLYP, NUCLEI)}
"""All kinds by the name of their data set."""
