"""Reading raw image files: decoded to the last pixel, or one clear error."""

import contextlib
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from data_io.errors import InputError

__all__ = ["decode", "decoding", "read_image", "read_mask", "read_union", "union"]

# What Pillow raises, as it catches it itself on opening a JPEG.
_BAD_EXIF = (KeyError, SyntaxError, TypeError, ValueError, struct.error)


def decode(path: Path) -> tuple[str, np.ndarray]:
    """Decodes a whole image file.

    Palette images give their indices, never the colours: what a palette shows as grey
    says nothing about the label.

    Args:
        path: an image file.

    Returns:
        Pillow's mode (`RGB`, `L`, `P`, ...) and the pixels, (rows, columns) or
        (rows, columns, channels).

    Raises:
        InputError: no file, not an image, cut short, of several pages or more than 8
            bits a colour channel, or turned by an EXIF tag.
    """
    # Pillow warns of what does not matter here; what does is raised. It raises nearly
    # anything on a broken file.
    with (
        decoding(path, Exception),
        warnings.catch_warnings(action="ignore"),
        Image.open(path) as image,
    ):
        _refuse_what_would_be_lost(path, image)
        _refuse_turned(path, image)
        image.load()
        return image.mode, np.array(image)


@contextlib.contextmanager
def decoding(path: Path, *broken: type[Exception]) -> Iterator[None]:
    """Turns what a decoder raises on a bad file into one clear error.

    Args:
        path: the file.
        *broken: what is raised where it is damaged or of another kind.

    Raises:
        InputError: in place of these, and of a file that is missing or closed to us.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a file, found none.") from error
    except PermissionError as error:
        raise InputError(
            f"{path}: expected a readable file, found no permission to read it. "
            "Change its permissions."
        ) from error
    except broken as error:
        raise InputError(f"{path}: {describe(path)} ({reason(error)}).") from error


def _refuse_what_would_be_lost(path: Path, image: Image.Image) -> None:
    """Raises InputError for further pages, and for colour of 16 bits a channel.

    Pillow reads the first page and the upper 8 bits, and says nothing. The second
    picture in a camera's JPEG (MPO) is a preview.
    """
    pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if pages > 1:
        raise InputError(
            f"{path}: expected one picture, found {pages} pages. Save each page as a "
            "file, or a stack of slices as NIfTI."
        )
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    rawmodes = [a[0] if isinstance(a, tuple) else a for a in arguments]
    if image.mode in ("RGB", "RGBA") and any(";16" in str(raw) for raw in rawmodes):
        raise InputError(
            f"{path}: expected 8 bits a colour channel, found 16. Convert it to 8 bits."
        )


def _refuse_turned(path: Path, image: Image.Image) -> None:
    """Raises InputError where viewers turn or mirror the stored pixels.

    Pillow turns TIFF as it loads, and JPEG and PNG not: an image and its mask could
    differ in it and nothing would say so.
    """
    if image.format == "PNG":
        image.load()  # The tag may come after the pixels.
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _BAD_EXIF:
        return  # What can't be read turns nothing.
    if orientation not in (0, 1):
        raise InputError(
            f"{path}: expected pixels as they are shown, found an EXIF rotation "
            f"(orientation {orientation}). Save it turned, without the tag."
        )


def describe(path: Path) -> str:
    """Says what a file that can't be decoded seems to be."""
    kind = f"{path.suffix.lstrip('.').upper()} image"
    if ".nii" in path.suffixes:
        kind = "NIfTI volume"
    what = f"expected a whole {kind}, found "
    if path.is_dir():
        return what + "a folder. Put the file in its place"
    with path.open("rb") as file:
        head = file.read(512)
    size = path.stat().st_size
    if not head:
        return what + "an empty file. Copy it again from the original download"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        return what + f"{size} bytes of text. Copy the image itself in its place"
    return (
        what + f"{size} bytes that can't be decoded to the end, "
        "cut short or damaged. Copy it again from the original download"
    )


def reason(error: Exception) -> str:
    """The decoder's own words, without the path it repeats."""
    text = str(error).splitlines()[0] if str(error) else ""
    return (
        "not a known image format"
        if "cannot identify" in text
        else (text or type(error).__name__)
    )


def read_image(path: Path) -> np.ndarray:
    """Reads a colour image.

    Args:
        path: an RGB image file, 8 bits a channel. A fourth channel, alpha, is left out
            where it is opaque throughout, and so says nothing.

    Returns:
        uint8, (rows, columns, 3), in [0, 255].

    Raises:
        InputError: not decodable, or not RGB.
    """
    mode, pixels = decode(path)
    if not is_colour(mode, pixels):
        raise InputError(
            f"{path}: expected an RGB image, found {described(mode, pixels)}. "
            "Copy it again from the original download."
        )
    return pixels[..., :3]


def is_colour(mode: str, pixels: np.ndarray) -> bool:
    """True for RGB, and for RGBA that is opaque throughout."""
    return mode == "RGB" or (mode == "RGBA" and bool((pixels[..., 3] == 255).all()))


def described(mode: str, pixels: np.ndarray) -> str:
    """A mode in words; of an alpha channel, that it is not opaque."""
    clear = mode == "RGBA" and not is_colour(mode, pixels)
    return f"mode {mode}" + (" with transparent pixels" if clear else "")


def read_mask(path: Path) -> np.ndarray:
    """Reads a binary mask: foreground is every index or value above 0.

    Args:
        path: a palette, grey or one-bit image file.

    Returns:
        uint8, (rows, columns), 0 or 1.

    Raises:
        InputError: not decodable, or more than one channel.
    """
    mode, pixels = decode(path)
    if pixels.ndim != 2:
        raise InputError(
            f"{path}: expected a mask of one channel, found mode {mode}. "
            "Copy it again from the original download."
        )
    return (pixels > 0).astype(np.uint8)


def union(folder: Path) -> tuple[np.ndarray, int, list[str]]:
    """Joins the masks of single objects, one file each.

    Args:
        folder: of nothing but masks, all of one size.

    Returns:
        uint8 (rows, columns), 1 where any mask is foreground; the number of pixels that
        several masks claim, which count once; names of masks without foreground.

    Raises:
        InputError: no mask, one that can't be decoded or has not one channel, or masks
            of different sizes.
    """
    total, empty = None, []
    for path in masks(folder):
        mask = read_mask(path)
        if not mask.any():
            empty.append(path.name)
        if total is None:
            total = np.zeros(mask.shape, np.uint16)
        if mask.shape != total.shape:
            raise InputError(
                f"{path}: expected {total.shape} (rows, columns), the size of the "
                f"other masks of this image, found {mask.shape}. "
                "Copy it again from the original download."
            )
        total += mask
    if total is None:
        raise InputError(
            f"{folder}: expected a mask for each object, found no PNG file. "
            "Copy the folder again from the original download."
        )
    return (total > 0).astype(np.uint8), int((total > 1).sum()), empty


def read_union(folder: Path) -> np.ndarray:
    """Reads the union of the masks in a folder, uint8 (rows, columns); see `union`."""
    return union(folder)[0]


def masks(folder: Path) -> list[Path]:
    """The mask files of a folder, by name."""
    found = folder.glob("*.png") if folder.is_dir() else []
    return sorted(path for path in found if not path.name.startswith("."))
