"""What goes wrong with a photograph, in five strengths: noise, blur, light, JPEG.

Noise, blur, brightness and JPEG are kinds of Hendrycks and Dietterich (2019, section
4.1) that any camera can show. A gamma curve takes the place of their contrast, which
the z-score of a grey image takes away. Their strengths are for images of things as
large as the picture; ours are milder, since structures here are a few pixels wide: the
first can hardly be seen, the last is as bad as a fine vessel of DRIVE (1 or 2 pixels)
can take. Levels are in units of 8-bit images at native size, before any resize.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from data_io.errors import InputError

_Array = npt.NDArray[Any]


class Kind(NamedTuple):
    """A kind of corruption.

    Attributes:
        what: its level is, with the unit.
        levels: of the strengths 1 to 5.
        apply: from an image, float64 (rows, columns, channels) in [0, 255], a level and
            a generator to such an image, which is then rounded and clipped.
    """

    what: str
    levels: tuple[float, ...]
    apply: Callable[[_Array, float, np.random.Generator], _Array]


def _noise(image: _Array, deviation: float, random: np.random.Generator) -> _Array:
    return image + deviation * random.standard_normal(image.shape)


def _blur(image: _Array, sigma: float, _: np.random.Generator) -> _Array:
    return np.asarray(ndimage.gaussian_filter(image, (sigma, sigma, 0)))


def _gamma(image: _Array, exponent: float, _: np.random.Generator) -> _Array:
    return np.asarray(255 * (image / 255) ** exponent)


def _brightness(image: _Array, stops: float, _: np.random.Generator) -> _Array:
    return image * 2**stops


def _jpeg(image: _Array, quality: float, _: np.random.Generator) -> _Array:
    grey = image.shape[-1] == 1
    pixels, file = image.astype(np.uint8), io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if grey else pixels)
    picture.save(file, "JPEG", quality=int(quality))
    decoded = np.asarray(Image.open(file, formats=["JPEG"]))
    return decoded[..., np.newaxis] if grey else decoded


KINDS: Mapping[str, Kind] = {
    "noise": Kind("standard deviation, grey levels", (4, 8, 16, 24, 32), _noise),
    "blur": Kind("standard deviation, pixels", (0.5, 1, 1.5, 2, 3), _blur),
    "gamma": Kind("exponent of the share of 255", (1.2, 1.5, 2, 2.5, 3), _gamma),
    "brightness": Kind("exposure, stops", (0.25, 0.5, 0.75, 1, 1.5), _brightness),
    "jpeg": Kind("quality of Pillow", (50, 30, 20, 10, 5), _jpeg),
}  # fmt: skip
"""By name. A z-score takes a change of exposure away, but not what it saturates."""

NONE = "none"
"""The image as it is: strength 0."""

STRENGTHS = ((NONE, 0), *((name, n + 1) for name in KINDS for n in range(5)))
"""Every kind with every strength."""


def level_of(kind: str, strength: int) -> float | None:
    """Return the level of a strength; None for strength 0."""
    return KINDS[kind].levels[strength - 1] if strength else None


def corrupted(image: _Array, kind: str, strength: int, case: str) -> _Array:
    """Corrupt an image.

    Args:
        image: uint8, (rows, columns, 1 or 3).
        kind: a key of `KINDS`, or `NONE`.
        strength: 1 to 5; 0 changes nothing.
        case: its id, which decides the noise: the same at each strength, but scaled.

    Returns:
        uint8, of the same shape.

    Raises:
        InputError: another type or number of channels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise InputError(
            f"case {case}: expected an 8-bit image, grey or RGB, to corrupt as a "
            f"camera would, found {image.dtype} of shape {image.shape}; give a run of "
            "such images"
        )
    if not strength:
        return image
    random = np.random.default_rng(zlib.crc32(case.encode("utf-8", "surrogatepass")))
    chosen = KINDS[kind]
    changed = chosen.apply(
        image.astype(np.float64), chosen.levels[strength - 1], random
    )
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)
