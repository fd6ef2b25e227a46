"""Entries about images before the network: splits, sizes, augmentation."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from batchgenerators.augmentations import utils as warps
from PIL import Image
from scipy.ndimage import map_coordinates
from skimage.transform import resize

from conformance.reference import reference
from data_io.datasets.cvc_clinicdb import SEQUENCES
from errata.examples import Floats, phantom_image, phantom_label, seeded, z_score
from errata.registry import Row, measured

SIZE = (512, 512)
# Half of DRIVE, whose ratio to the network's input is the same.
HALF_DRIVE, HALF = (292, 283), (256, 256)
DRAWS = 300
GREY = "grey levels of 255"


def resized(
    image: np.ndarray, order: int, shape: tuple[int, int] = SIZE, **options: object
) -> Floats:
    """Resize an image channel by channel, as float and without rounding."""
    settings = {"anti_aliasing": False, "clip": True} | options
    channels = [
        resize(image[..., c].astype(float), shape, order, **settings)
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1)


AUGMENTED = f"{DRAWS} augmented phantom labels, 512x512"


@measured("classless-pixels", "constructed", AUGMENTED, slow=True)
def classless_pixels() -> Iterator[Row]:
    """Measure pixels without a class after augmentation, and their cost."""
    label = np.eye(2)[phantom_label(*SIZE)][None]
    drawn = list(_augmented(label, DRAWS))
    lost = np.array([1 - sample.sum(axis=-1).mean() for sample in drawn])
    yield Row("share of samples with pixels of no class", np.mean(lost > 0), 0.0)
    mean = 100 * lost[lost > 0].mean()
    yield Row("pixels of no class in such a sample, mean", mean, 0.0, unit="%")
    for name in ("CE", "DSC", "DSC++"):
        values = [_of_perfect(name, drawn[hit]) for hit in np.flatnonzero(lost > 0)]
        what = f"{name} of a perfect prediction of such a sample, mean"
        yield Row(what, *np.mean(values, axis=0))


def _of_perfect(name: str, label: np.ndarray) -> list[float]:
    """Return a loss with classless pixels as they are, and as background."""
    whole = label.copy()
    whole[label.sum(axis=-1) == 0, 0] = 1
    values = (reference(name, y[None], whole[None]).value for y in (label, whole))
    # Rounding removes the cost of clipping p at 1e-7, which is not measured here.
    return [round(float(value[0]), 5) for value in values]


def _augmented(label: np.ndarray, draws: int) -> Iterator[np.ndarray]:
    """Yield one-hot labels through MIScnn's augmentation, from a fixed seed."""
    from data_io.prepare.preprocessing import Settings, augmentation

    augment = augmentation(Settings(SIZE))
    image = np.zeros((*label.shape[:-1], 1), np.float32)
    with seeded(0):
        for _ in range(draws):
            yield augment.run(image, label)[1][0]


@measured("mirroring", "constructed", "4000 augmented samples; the paper's 0.15")
def mirroring() -> Iterator[Row]:
    """Measure the share of samples mirrored along any axis, in 2D and 3D."""
    from data_io.prepare.preprocessing import Settings, augmentation

    for axes in (2, 3):
        shape = (2, 3, 4)[:axes]
        image = np.arange(math.prod(shape), dtype=np.float32).reshape(1, *shape, 1)
        augment = augmentation(Settings(shape))
        augment.brightness = augment.elastic_deform = False
        augment.rotations = augment.scaling = False
        with seeded(0):
            drawn = [augment.run(image.copy(), image.copy())[0] for _ in range(4000)]
        share = np.mean([not np.array_equal(sample, image) for sample in drawn])
        what = f"share of samples mirrored, {axes}D: code, paper (0.15 an axis)"
        yield Row(what, share, 1 - 0.85**axes)
    what = "share of samples left as they are, 2D: code, paper"
    yield Row(what, 0.5**2 * 0.85**4, 0.85**2 * 0.85**4)


@measured("scaling-sense", "constructed", "a square of 100x100 pixels, warped")
def scaling_sense() -> Iterator[Row]:
    """Measure the direction of "0.85-1.25x": a square's edge at both ends."""
    image = np.zeros((200, 200), np.float32)
    image[50:150, 50:150] = 1
    for factor in (0.85, 1.25):
        mesh = warps.scale_coords(
            warps.create_zero_centered_coordinate_mesh((200, 200)), factor
        )
        scaled = warps.interpolate_img(image, mesh + 99.5, order=1)
        what = f"edge of the square at scale {factor}: code, paper's words"
        yield Row(what, math.sqrt(scaled.sum()), 100 * factor, unit="pixels")
    # Half the draws are from 0.85 to 1, half from 1 to 1.25.
    yield Row("share of draws below 1: code, even over the range", 0.5, 0.15 / 0.4)


@measured(
    "brightness", "constructed", "a phantom, factor 2 before and after the z-score"
)
def brightness() -> Iterator[Row]:
    """Show that brightness on z-scored values is contrast: the mean stays 0."""
    image = phantom_image(*HALF_DRIVE)
    for name, measure in (("mean", np.mean), ("standard deviation", np.std)):
        after = round(float(measure(2 * z_score(image))), 6)
        before = measure(2.0 * image / image.std() - image.mean() / image.std())
        what = f"{name} at factor 2: after the z-score (code), before it"
        yield Row(what, after, before, unit="SD")


@measured("cubic", "constructed", "a phantom, 292x283 to 256x256")
def cubic() -> Iterator[Row]:
    """Compare cubic with linear interpolation, in grey levels and z-scored."""
    yield from _cubic([phantom_image(*HALF_DRIVE)], HALF)


@measured("cubic", "data", "DRIVE's 40 images, 584x565 to 512x512", "drive")
def cubic_on_drive(root: Path) -> Iterator[Row]:
    """Compare them on real images."""
    from data_io.datasets.drive import drive
    from data_io.files.reading import read_image

    cases = drive.TRAINING + drive.TEST
    yield from _cubic(read_image(drive.roles(root, case)["image"]) for case in cases)


def _cubic(
    images: Iterable[np.ndarray], shape: tuple[int, int] = SIZE
) -> Iterator[Row]:
    grey, scored, largest = [], [], []
    for image in images:
        cube, line = resized(image, 3, shape), resized(image, 1, shape)
        grey.append(np.abs(cube - line).mean())
        largest.append(np.abs(cube - line).max())
        scored.append(np.abs(z_score(cube) - z_score(line)).mean())
    yield Row("mean difference of cubic from linear", np.mean(grey), 0.0, unit=GREY)
    yield Row("largest difference", np.max(largest), 0.0, unit=GREY)
    yield Row("mean difference after the z-score", np.mean(scored), 0.0, unit="SD")


HALF_BUS2017 = "a phantom, 380x285 to 64x64, half of BUS2017"


@measured("no-anti-aliasing", "constructed", HALF_BUS2017)
def no_anti_aliasing() -> Iterator[Row]:
    """Measure the noise left after shrinking by 5 without a filter."""
    image = phantom_image(380, 285)
    plain, smooth = (
        resized(image, 3, (64, 64), anti_aliasing=on) for on in (False, True)
    )
    apart = np.abs(plain - smooth).mean()
    yield Row("mean difference from a filtered resize", apart, 0.0, unit=GREY)
    what = "standard deviation of the resized image"
    yield Row(what, plain.std(), smooth.std(), unit="grey levels")


@measured("eight-bit", "constructed", "a phantom, 292x283 to 256x256, cubic")
def eight_bit() -> Iterator[Row]:
    """Compare truncated (batchgenerators 0.21) with rounded (0.25) 8-bit values."""
    exact = resized(phantom_image(*HALF_DRIVE), 3, HALF)
    forms = np.trunc(exact), np.rint(exact)
    yield Row("mean shift", *((f - exact).mean() for f in forms), unit="grey levels")
    what = "mean difference after the z-score, which takes off the shift"
    apart = (np.abs(z_score(f) - z_score(exact)).mean() for f in forms)
    yield Row(what, *apart, unit="SD")


@measured("resize-border", "constructed", "a phantom, 292x283 to 256x256, cubic")
def resize_border() -> Iterator[Row]:
    """Measure the rim: outside is 0 (batchgenerators 0.21) or mirrored (0.25)."""
    image = phantom_image(*HALF_DRIVE)
    dark = resized(image, 3, HALF, mode="constant", cval=0)
    difference = np.abs(dark - resized(image, 3, HALF))
    inside = difference[1:-1, 1:-1]
    rim = (difference.sum() - inside.sum()) / (difference.size - inside.size)
    yield Row("mean difference of the outermost pixels", rim, 0.0, unit=GREY)
    yield Row("largest difference inside of them", inside.max(), 0.0, unit=GREY)


@measured("label-resize", "constructed", "a phantom's label, 292x283 to 256x256")
def label_resize() -> Iterator[Row]:
    """Compare how both versions resize labels of two classes, which may tie."""
    label = phantom_label(*HALF_DRIVE)
    old, new = last_class_of_half(label, HALF), highest_class(label, HALF)
    yield Row("share of pixels that differ", np.mean(old != new), 0.0)
    yield Row("foreground pixels", (old > 0).sum(), (new > 0).sum())


def last_class_of_half(label: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize a label map by the rule of batchgenerators 0.21.

    Each class is resized linearly by itself; a voxel gets the last class that reaches
    0.5, or 0.
    """
    classes = np.zeros(shape, label.dtype)
    for value in np.unique(label):
        mask = (label == value).astype(float)
        share = resize(mask, shape, 1, mode="edge", clip=True, anti_aliasing=False)
        classes[share >= 0.5] = value
    return classes


def highest_class(label: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize a label map by the rule of 0.25: the class with the highest share."""
    return np.asarray(warps.resize_segmentation(label, shape, order=1))


@measured("half-pixel", "constructed", "a phantom of 256x256, a warp by nothing")
def half_pixel() -> Iterator[Row]:
    """Compare the warp's centre at n / 2 (batchgenerators 0.21), (n - 1) / 2 (0.25)."""
    image, label = z_score(phantom_image(*HALF))[..., 1], phantom_label(*HALF)
    mesh = np.indices(HALF).astype(float)
    moved = {
        shift: map_coordinates(image, mesh + shift, order=3, cval=0)
        for shift in (0.5, 0.0)
    }
    yield Row("centre of 256 pixels", 256 / 2, (256 - 1) / 2, unit="pixel")
    apart = (round(float(np.abs(warp - image).mean()), 6) for warp in moved.values())
    yield Row("mean difference of the image from itself", *apart, unit="SD")
    labels = (map_coordinates(label, mesh + by, order=0, cval=0) for by in moved)
    dice = (2 * (warp & label).sum() / (warp.sum() + label.sum()) for warp in labels)
    yield Row("Dice of the vessels' label with itself", *dice)


@measured("jpeg-masks", "constructed", "an ellipse of 400x600 pixels, JPEG quality 75")
def jpeg_masks() -> Iterator[Row]:
    """Measure grey values in a mask read from JPEG, and two ways to cut them."""
    rows, columns = np.ogrid[-1:1:400j, -1:1:600j]
    mask = np.where((rows / 0.6) ** 2 + (columns / 0.5) ** 2 < 1, 255, 0)
    memory = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(memory, "JPEG", quality=75)
    read = np.asarray(Image.open(memory, formats=["JPEG"]))
    grey = 100 * np.mean((read > 0) & (read < 255))
    yield Row("pixels that are neither 0 nor 255", grey, 0.0, unit="%")
    shares = (
        foreground.sum() / (mask > 0).sum() for foreground in (read > 0, read >= 128)
    )
    yield Row("foreground by value > 0 / by value >= 128", *shares)


# The published lists, against the numbers of the frames (they are not in this project).
COUNTED = {"training": 107, "training or validation": 117}
FRAMES, PARTS = 612, {"training": 392, "training or validation": 490}
LENGTHS = tuple(map(len, SEQUENCES))  # section 2.6 has 23 sequences


@measured("frame-split", "constructed", "612 frames, 392/98/122 at random")
def frame_split() -> Iterator[Row]:
    """Compute the expected number of test frames with a neighbour in training."""
    at_an_end = 2 * len(LENGTHS)  # frames with one neighbour
    for part, count in PARTS.items():
        expected = 122 * (
            at_an_end * _chance(count, 1) + (FRAMES - at_an_end) * _chance(count, 2)
        )
        what = f"of 122 test frames, with a neighbour in {part}"
        yield Row(f"{what}: expected", expected / FRAMES, 0.0)
        yield Row(f"{what}: published lists", COUNTED[part], 0)
    yield from _recall()


def _chance(count: int, neighbours: int) -> float:
    """Return the chance that one of 1 or 2 other frames is among `count` of 611."""
    none = math.comb(FRAMES - 1 - neighbours, count) / math.comb(FRAMES - 1, count)
    return 1 - none


def _recall() -> Iterator[Row]:
    """Measure Dice of a network that returns the label of the most similar frame.

    A polyp is a disc that drifts by some 2 % of the picture per frame. The most similar
    frame is the one with the nearest disc.
    """
    random = np.random.default_rng(0)
    discs = np.concatenate([_sequence(random, length) for length in LENGTHS])
    sequence = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    by_frame = random.permutation(FRAMES)[:122]
    by_sequence = np.flatnonzero(sequence % 5 == 0)
    dice = (_recalled(discs, test) for test in (by_frame, by_sequence))
    what = "mean Dice of a network that recalls the most like frame, simulated"
    yield Row(what, *dice)


def _sequence(random: np.random.Generator, length: int) -> Floats:
    """Return row, column and radius of a disc in each frame; the picture is 1 by 1."""
    start = random.uniform((0.2, 0.2, 0.05), (0.8, 0.8, 0.2))
    steps = random.normal(0, (0.02, 0.02, 0.002), (length, 3))
    return np.abs(start + np.cumsum(steps, axis=0))


def _recalled(discs: Floats, test: np.ndarray) -> float:
    rest = np.setdiff1d(np.arange(len(discs)), test)
    apart = np.linalg.norm(discs[test, None] - discs[None, rest], axis=-1)
    pairs = zip(discs[test], discs[rest[apart.argmin(axis=1)]], strict=True)
    return float(np.mean([_dice(*pair) for pair in pairs]))


def _dice(one: Floats, other: Floats) -> float:
    """Return Dice of two discs, drawn on 200x200 pixels."""
    rows, columns = np.ogrid[0:1:200j, 0:1:200j]
    a, b = (
        (rows - disc[0]) ** 2 + (columns - disc[1]) ** 2 < disc[2] ** 2
        for disc in (one, other)
    )
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
