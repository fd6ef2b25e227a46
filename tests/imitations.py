"""Imitations of raw data sets: true layout and image modes, made-up content.

The images are drawn, not photographed. They have the true size, so that no check has
to be loosened for a test.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROWS, COLUMNS = 584, 565
# Colours that no threshold on grey values would tell apart the right way: the
# background is brighter than the vessel, as nothing forbids in a palette image.
PALETTE = [200, 180, 90, 10, 20, 30]


def vessels(seed: int) -> np.ndarray:
    """Draws a few crooked lines; bool (584, 565), about a tenth of it True."""
    random = np.random.default_rng(seed)
    canvas = Image.new("L", (COLUMNS, ROWS))
    draw = ImageDraw.Draw(canvas)
    for _ in range(14):
        point, angle = random.uniform(80, 480, 2), random.uniform(0, 2 * np.pi)
        for _ in range(12):
            angle += random.normal(0, 0.4)
            step = point + 25 * np.array([np.cos(angle), np.sin(angle)])
            draw.line([*point, *step], fill=1, width=int(random.integers(2, 12)))
            point = step
    return np.asarray(canvas) > 0


def field_of_view() -> np.ndarray:
    """The round aperture; bool (584, 565)."""
    rows, columns = np.ogrid[:ROWS, :COLUMNS]
    return (rows - 291.5) ** 2 + (columns - 282) ** 2 < 270**2


def photograph(label: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Reddish ground with dark vessels inside the aperture; uint8 (584, 565, 3)."""
    ramp = np.linspace(0, 40, COLUMNS)[None, :, None]
    ground = np.array([180.0, 90.0, 50.0]) + ramp
    image = np.where(label[..., None], 0.6 * ground, ground)
    return np.where(inside[..., None], image, 2).astype(np.uint8)


def write_grey(path: Path, mask: np.ndarray) -> None:
    """Writes a GIF that reads as mode L with values 0 and 255, as `1st_manual` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    grey.save(path, optimize=False)  # Pillow would turn two greys into a palette


def write_palette(path: Path, indices: np.ndarray, palette: list[int]) -> None:
    """Writes a GIF that reads as mode P, as `2nd_manual` does: indices, not greys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette(palette)
    image.save(path, optimize=False)


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes an RGB TIFF with LZW, as the real photographs are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compression="tiff_lzw")


def write_drive(root: Path, seed: int = 0) -> Path:
    """Writes an imitation of DRIVE, 40 cases in the layout as distributed.

    Args:
        root: folder in which `DRIVE` is made.
        seed: of the drawn vessels; each case has its own.

    Returns:
        The folder `DRIVE`.
    """
    folder, inside = Path(root) / "DRIVE", field_of_view()
    for number in range(1, 41):
        part = "test" if number <= 20 else "training"
        base, case = folder / part, f"{number:02d}"
        label = vessels(1000 * seed + number) & inside
        write_image(base / "images" / f"{case}_{part}.tif", photograph(label, inside))
        write_grey(base / "1st_manual" / f"{case}_manual1.gif", label)
        write_grey(base / "mask" / f"{case}_{part}_mask.gif", inside)
        if part == "test":
            second = np.roll(label, 1, axis=1) & inside
            write_palette(base / "2nd_manual" / f"{case}_manual2.gif", second, PALETTE)
    return folder
