"""Phantoms of vessels: branching trees on a textured, noisy, reddish ground."""

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter

from data_io.simulation.phantom_drawing import chance

__all__ = ["FORMULA", "draw_image", "probability"]

FORMULA = (
    "P(y=1|image) = 0.002 + 0.996 / (1 + exp(-(D - 20) / 4)) with D = G_5 - G_1, G_s "
    "the visible 8-bit green channel smoothed by a Gaussian of s pixels (borders "
    "reflected); y is drawn pixel by pixel"
)


def probability(image: np.ndarray) -> np.ndarray:
    """The true P(y = 1 | image): how much darker a spot is than its surroundings.

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


def draw_image(random: np.random.Generator, size: int) -> np.ndarray:
    """Draws dark vessels on a textured, noisy, reddish ground.

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
    return np.clip(np.round(np.stack(channels, -1)), 0, 255).astype(np.uint8)


def draw_vessels(random: np.random.Generator, size: int) -> np.ndarray:
    """Draws vessels; returns how deep their shadow is, (size, size), in [0, 1]."""
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


def grow_tree(
    random: np.random.Generator, size: int
) -> Iterator[tuple[np.ndarray, float, float]]:
    """Grows branches: points (K, 2) and half width in pixels, contrast in [0, 1]."""
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
    random: np.random.Generator, start: np.ndarray, angle: float, length: float
) -> tuple[np.ndarray, float]:
    """Walks on, turning slowly: points (K, 2) in pixels, last direction in radians."""
    steps = max(6, int(random.uniform(0.5, 0.9) * length))
    angles = angle + np.cumsum(random.normal(0, 0.08, steps))
    moves = np.stack([np.cos(angles), np.sin(angles)], -1)
    return start + np.cumsum(moves, axis=0), float(angles[-1])
