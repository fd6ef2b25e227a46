"""Imitations of raw data sets: true layout and image modes, made-up content.

The images are drawn, not photographed. They have the true size, so that no check has
to be loosened for a test.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_io.datasets.dataset import Dataset
from data_io.verification.report import Report
from data_io.verification.verify import audit

ROWS, COLUMNS = 584, 565
# Colours that no threshold on grey values would tell apart the right way: the
# background is brighter than the vessel, as nothing forbids in a palette image.
PALETTE = [200, 180, 90, 10, 20, 30]


def verify(
    dataset: Dataset,
    root: Path,
    state: Path | None = None,
    jobs: int | None = None,
) -> Report:
    """As `audit`; raises `InputError` with all problems, where there are any."""
    report = audit(dataset, root, state, jobs)
    if report.problems:
        raise report.error()
    return report


def vessels(seed: int) -> np.ndarray:
    """Draw a few crooked lines; bool (584, 565), about a tenth of it True."""
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
    """Write a GIF that reads as mode L with values 0 and 255, as `1st_manual` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    grey.save(path, optimize=False)  # Pillow would turn two greys into a palette


def write_palette(path: Path, indices: np.ndarray, palette: list[int]) -> None:
    """Write a GIF that reads as mode P, as `2nd_manual` does: indices, not greys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette(palette)
    image.save(path, optimize=False)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an RGB TIFF with LZW, as the real photographs are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compression="tiff_lzw")


def write_drive(root: Path, seed: int = 0) -> Path:
    """Write an imitation of DRIVE, 40 cases in the layout as distributed.

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


def blob(size: tuple[int, int], seed: int) -> np.ndarray:
    """Draw one lesion: an ellipse off the centre; bool (rows, columns)."""
    random = np.random.default_rng(seed)
    canvas = Image.new("L", size[::-1])
    row, column = (int(random.uniform(0.35, 0.65) * side) for side in size)
    tall, wide = (int(random.uniform(0.1, 0.25) * side) for side in size)
    box = [column - wide, row - tall, column + wide, row + tall]
    ImageDraw.Draw(canvas).ellipse(box, fill=1)
    return np.asarray(canvas) > 0


def shaded(mask: np.ndarray, seed: int, inside: int, outside: int) -> np.ndarray:
    """A grey picture with noise, of one level inside a mask and another outside."""
    noise = np.random.default_rng(seed).normal(0, 12, mask.shape)
    levels = np.where(mask, inside, outside)
    return np.clip(levels + noise, 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    """Write an image file in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def as_grey(mask: np.ndarray) -> np.ndarray:
    """A mask as most sets have it: uint8, 0 and 255."""
    return np.where(mask, 255, 0).astype(np.uint8)


def write_bus2017(root: Path, number: int = 6) -> Path:
    """Write an imitation of dataset B: BUS/original and BUS/GT, 000001.png and so on.

    Ultrasound is grey and of many sizes. The images come as grey, RGB, opaque RGBA and
    palette files in turn, the masks as 0/255, 0/1 and with three channels.

    Returns:
        The folder `BUS`.
    """
    folder = Path(root) / "BUS"
    for n in range(1, number + 1):
        mask = blob((90 + 7 * n, 130 - 5 * n), n)
        grey = shaded(mask, n, 50, 130)
        opaque = np.full((*mask.shape, 1), 255, np.uint8)
        rgb = np.repeat(grey[..., None], 3, -1)
        path = folder / "original" / f"{n:06d}.png"
        if n % 4 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            palette = Image.fromarray(255 - grey, mode="P")
            palette.putpalette([255 - level for level in range(256) for _ in "rgb"])
            palette.save(path)
        else:
            save(path, [None, grey, rgb, np.concatenate([rgb, opaque], -1)][n % 4])
        label = [as_grey(mask), mask.astype(np.uint8), as_grey(mask)[..., None]][n % 3]
        if label.ndim == 3:
            label = np.repeat(label, 3, -1)
        save(folder / "GT" / f"{n:06d}.png", label)
    return folder


def write_isic2018(root: Path, number: int = 6) -> Path:
    """Write an imitation of ISIC2018, task 1: JPEG images, PNG masks 0/255.

    The ids have gaps; the archives also hold two text files, and those of 2017
    superpixels beside the images.

    Returns:
        The folder with the two folders of the archives.
    """
    folder = Path(root) / "ISIC2018"
    images = folder / "ISIC2018_Task1-2_Training_Input"
    masks = folder / "ISIC2018_Task1_Training_GroundTruth"
    for n in range(number):
        case = f"ISIC_{7 * n + 3:07d}"
        mask = blob((96 + 10 * n, 128 + 6 * n), 100 + n)
        grey = shaded(mask, n, 90, 170)
        skin = np.stack([grey, grey * 0.75, grey * 0.7], -1).astype(np.uint8)
        save(images / f"{case}.jpg", skin, quality=95)
        save(masks / f"{case}_segmentation.png", as_grey(mask))
    for part in (images, masks):
        (part / "ATTRIBUTION.txt").write_text("who took them")
        (part / "LICENSE.txt").write_text("terms")
    save(images / "ISIC_0000003_superpixels.png", np.zeros((96, 128, 3), np.uint8))
    return folder


def write_cvc_clinicdb(root: Path, frames: tuple[int, ...]) -> Path:
    """Write an imitation of CVC-ClinicDB: TIFF frames of 288 x 384, not padded.

    Args:
        root: folder in which `CVC-ClinicDB` is made.
        frames: numbers from 1 to 612.

    Returns:
        The folder `CVC-ClinicDB`.
    """
    folder = Path(root) / "CVC-ClinicDB"
    for n in frames:
        mask = blob((288, 384), 200 + n)
        grey = shaded(mask, n, 180, 110)
        frame = np.stack([grey, grey * 0.6, grey * 0.5], -1).astype(np.uint8)
        save(folder / "Original" / f"{n}.tif", frame)
        save(folder / "Ground Truth" / f"{n}.tif", as_grey(mask))
    (folder / "Original" / "Thumbs.db").write_bytes(b"thumbs")
    return folder


def write_prepared(root: Path, cases: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """Write the layout that MIScnn's interfaces read, and so the authors' copies have.

    Args:
        root: folder of the cases.
        cases: image and mask (bool) by name.

    Returns:
        `root`.
    """
    for case, (image, mask) in cases.items():
        save(Path(root) / case / "imaging.png", image)
        save(Path(root) / case / "segmentation.png", mask.astype(np.uint8))
    return Path(root)
