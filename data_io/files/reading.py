"""Reading raw image files: decoded to the last pixel, or one clear error."""

import contextlib
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from data_io.errors import InputError, Problems

Base = ExifTags.Base
GREY = 128  # of 255: from here on a grey value of a mask is foreground

# Pillow tries nothing else: it would hand what looks like PostScript to Ghostscript,
# which runs it as a program, whatever the file's name.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")

# What TIFF samples of each mode may be declared as for Pillow to read them as they are
# stored: bits, and 1 for whole numbers, 2 for those with a sign, 3 for floats.
_TIFF_SAMPLES = {
    "1": {(1, 1)},
    "L": {(2, 1), (4, 1), (8, 1)},
    "P": {(1, 1), (2, 1), (4, 1), (8, 1)},
    **{mode: {(8, 1)} for mode in ("LA", "RGB", "RGBA")},
    **{mode: {(16, 1)} for mode in ("I;16", "I;16B")},
    "I": {(16, 2), (32, 1), (32, 2)},
    "F": {(32, 3)},
}
_NUMBERS = {1: "", 2: " with a sign", 3: ", floats"}
_IMAGE_DEPTH = 32997  # of volumes in one page; Pillow has no name for it

_MOST_PIXELS = 1 << 28
# Pillow takes twice as many for an attack, and a quarter if it is not told otherwise.
Image.MAX_IMAGE_PIXELS = _MOST_PIXELS // 2

# What a stored 1 becomes where Pillow spreads few grey bits over 8, by its raw mode.
_SPREAD = {"L;2": 85, "L;4": 17}

# What Pillow raises, as it catches it itself on opening a JPEG.
_BAD_EXIF = (KeyError, SyntaxError, TypeError, ValueError, struct.error)


def read_npy(path: Path) -> np.ndarray:
    """Read a whole `.npy` file; `np.load` would take other files of that name too.

    Raises:
        OSError: it is not there.
        ValueError: it is damaged, or another kind of file.
    """
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def decode(path: Path, colours: bool = False) -> tuple[str, np.ndarray]:
    """Decode a whole image file.

    A grey or RGB image that declares one value to be transparent gets an alpha channel,
    where any pixel has that value.

    Args:
        path: an image file of one of the `FORMATS`, whatever its name ends in.
        colours: of a palette image and of grey of 2 or 4 bits gives what is shown; else
            the indices or numbers stored, which say what a label is.

    Returns:
        Pillow's mode (`RGB`, `L`, `P`, ...) and the pixels, (rows, columns) or
        (rows, columns, channels), as the file holds them.

    Raises:
        InputError: no file, not an image, cut short, of several pages or more than 8
            bits a colour channel, turned by an EXIF tag, or stored in a way that Pillow
            does not read without loss.
    """
    # Pillow warns of what does not matter here; what does is raised. It raises nearly
    # anything on a broken file.
    with (
        decoding(path, Exception),
        warnings.catch_warnings(action="ignore"),
        Image.open(path, formats=FORMATS) as image,
    ):
        _refuse_what_would_be_lost(path, image)
        unit = _SPREAD.get("".join(_rawmodes(image)[:1]), 1)
        _refuse_turned(path, image)
        image.load()
        if image.mode == "P":
            return _colours(image) if colours else ("P", np.array(image))
        mode, pixels = _stored(image)
        return mode, pixels if colours or mode != "L" else pixels // np.uint8(unit)


@contextlib.contextmanager
def decoding(path: Path, *broken: type[Exception]) -> Iterator[None]:
    """Turn what a decoder raises on a bad file into one clear error.

    `broken` is what is raised where the file is damaged or of another kind.

    Raises:
        InputError: in place of these, and of a file that is missing or closed to us.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a file, found none.") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise InputError(
            f"{path}: expected at most {_MOST_PIXELS} pixels, and what fits into "
            f"memory, found more ({reason(error)}). Crop it, or make it smaller."
        ) from error
    except PermissionError as error:
        raise InputError(
            f"{path}: expected a readable file, found no permission to read it. "
            "Change its permissions."
        ) from error
    except broken as error:
        raise InputError(f"{path}: {describe(path)} ({reason(error)}).") from error


def _refuse_what_would_be_lost(path: Path, image: Image.Image) -> None:
    """Refuse further pages and deeper channels, of which Pillow says nothing."""
    # The second picture in a camera's JPEG (MPO) is a preview.
    pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if pages > 1:
        raise InputError(
            f"{path}: expected one picture, found {pages} pages. Save each page as a "
            "file, or a stack of slices as NIfTI."
        )
    if image.mode[0] != "I" and any(";16" in raw for raw in _rawmodes(image)):
        raise InputError(
            f"{path}: expected 8 bits a colour channel, found 16. Convert it to 8 bits."
        )
    if image.format == "TIFF":
        _refuse_tiff(path, image)


def _rawmodes(image: Image.Image) -> list[str]:
    """Pillow's names of how pixels are stored, before it loads them."""
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    return [str(a[0] if isinstance(a, tuple) else a) for a in arguments]


def _refuse_tiff(path: Path, image: Image.Image) -> None:
    """Raise InputError for a TIFF that declares other pixels than Pillow decodes.

    Pillow takes planes of 16 bits for 8, and 8 bits with a sign for 8 without; it
    leaves out channels besides colour and alpha, and planes of a volume; where 0 is
    white it turns grey of 8 bits but not of more; and big-endian numbers of 32 bits
    that are compressed have their bytes swapped twice.
    """
    tags, mode = image.tag_v2, image.mode  # type: ignore[attr-defined]
    if mode not in _TIFF_SAMPLES:
        return  # No image is read in these modes, nor a label map.
    (depth, kind), planes = _samples(image), tags.get(_IMAGE_DEPTH, 1)
    bits = tags.get(Base.BitsPerSample, (1,))
    channels = max(len(bits), tags.get(Base.SamplesPerPixel, 1))
    content = ""
    if channels != len(image.getbands()):
        content = f"{channels} channels"
    elif (depth, kind) not in _TIFF_SAMPLES[mode]:
        content = f"{depth} bits a channel{_NUMBERS.get(kind, '')}"
    elif planes != 1:
        content = f"a volume of {planes} planes"
    elif tags.get(Base.PhotometricInterpretation) == 0:
        # Of a mask, nobody can say whether the value or the colour is meant.
        content = f"{depth} bit{'s' * (depth > 1)} of which 0 is white"
    elif mode in "IF" and tags.prefix == b"MM" and tags.get(Base.Compression, 1) != 1:
        content = f"{depth} bits that are big-endian and compressed"
    if content:
        raise InputError(
            f"{path}: expected a TIFF of 8 bits a channel, or grey of 16 bits or "
            f"32-bit floats, found {content}, which would be read wrongly. Convert it."
        )


def _samples(image: Image.Image) -> tuple[int, int]:
    """Bits and kind of number of a TIFF's samples, the highest of all channels."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, kinds = tags.get(Base.BitsPerSample, (1,)), tags.get(Base.SampleFormat, (1,))
    return max(bits), max(kinds)


def _stored(image: Image.Image) -> tuple[str, np.ndarray]:
    """Mode and pixels of an image that is no palette's, with the alpha it declares."""
    pixels, value = np.array(image), image.info.get("transparency")
    if image.format == "TIFF" and image.mode == "I" and _samples(image) == (32, 1):
        pixels = pixels.view(np.uint32)  # Pillow has no mode without a sign.
    if value is None or image.mode not in ("1", "L", "I;16", "RGB"):
        return image.mode, pixels
    clear = pixels == np.array(value)
    clear = clear.all(axis=-1) if clear.ndim == 3 else clear
    if not clear.any():
        return image.mode, pixels
    mode = "RGBA" if image.mode == "RGB" else "LA"
    return mode, np.dstack([pixels, np.where(clear, 0, 255)])


def _colours(image: Image.Image) -> tuple[str, np.ndarray]:
    """Mode and colours of a palette image: RGBA where any pixel is transparent."""
    pixels = np.array(image.convert("RGBA"))
    if is_colour("RGBA", pixels):
        return "RGB", np.ascontiguousarray(pixels[..., :3])
    return "RGBA", pixels


def _refuse_turned(path: Path, image: Image.Image) -> None:
    """Refuse pixels that viewers turn: Pillow does so for TIFF alone."""
    if image.format == "PNG":
        image.load()  # The tag may come after the pixels.
    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except _BAD_EXIF:
        return  # What can't be read turns nothing.
    if orientation not in (0, 1):
        raise InputError(
            f"{path}: expected pixels as they are shown, found an EXIF rotation "
            f"(orientation {orientation}). Save it turned, without the tag."
        )


def describe(path: Path) -> str:
    """Say what a file that can't be decoded seems to be."""
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
    content = f"{size} bytes that can't be decoded to the end, cut short or damaged"
    again = "Copy it again from the original download"
    if head.startswith((b"II*\0", b"MM\0*")):
        content += ", or a TIFF of a kind that is not read, such as 64-bit floats"
        again += ", or convert it to PNG"
    return f"{what}{content}. {again}"


def reason(error: Exception) -> str:
    """The decoder's own words, without the path it repeats."""
    text = str(error).splitlines()[0] if str(error) else ""
    return (
        "not a known image format"
        if "cannot identify" in text
        else (text or type(error).__name__)
    )


def read_image(path: Path) -> np.ndarray:
    """Read an image as RGB; copies of a data set store it in different ways.

    Args:
        path: an image of 8 bits a channel: RGB, grey (three equal channels then), one
            bit, or a palette (its colours then); an opaque alpha channel is left out.

    Returns:
        uint8, (rows, columns, 3), in [0, 255].

    Raises:
        InputError: not decodable, or neither of these.
    """
    mode, pixels = decode(path, colours=True)
    rgb = as_rgb(mode, pixels)
    if rgb is None:
        raise InputError(
            f"{path}: expected an RGB or a grey image of 8 bits, found "
            f"{described(mode, pixels)}. Copy it again from the original download."
        )
    return rgb


def as_rgb(mode: str, pixels: np.ndarray) -> np.ndarray | None:
    """Make RGB of a image decoded to its colours; None where it can't be.

    Returns:
        uint8, (rows, columns, 3).
    """
    if is_colour(mode, pixels):
        return pixels[..., :3]
    if mode == "LA" and (pixels[..., 1] == 255).all():
        mode, pixels = "L", pixels[..., 0]
    if mode not in ("L", "1"):
        return None
    grey = pixels * np.uint8(255) if mode == "1" else pixels
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def is_colour(mode: str, pixels: np.ndarray) -> bool:
    """True for RGB, and for RGBA that is opaque throughout."""
    return mode == "RGB" or (mode == "RGBA" and bool((pixels[..., 3] == 255).all()))


def described(mode: str, pixels: np.ndarray) -> str:
    """A mode in words; of an alpha channel, that it is not opaque."""
    clear = mode in ("RGBA", "LA") and bool((pixels[..., -1] != 255).any())
    return f"mode {mode}" + (" with transparent pixels" if clear else "")


def read_mask(path: Path, grey: bool = False) -> np.ndarray:
    """Read a binary mask: foreground is every index or value above 0.

    Args:
        path: a palette, grey or one-bit image file.
        grey: for data sets whose copies store masks in different ways. Equal channels
            count as one; where there are more values than 0 and one other, 8-bit greys
            as JPEG and resizing leave them, foreground is `GREY` and above.

    Returns:
        uint8, (rows, columns), 0 or 1.

    Raises:
        InputError: not decodable, more than one channel, or with `grey` several values
            none of which is a grey of `GREY` or above.
    """
    mode, pixels = decode(path)
    mask = as_binary(mode, pixels) if grey else pixels > 0
    if mask is None or mask.ndim != 2:
        kind = "0 and one other value, or of 8-bit greys" if grey else "one channel"
        raise InputError(
            f"{path}: expected a mask of {kind}, found "
            f"{described(mode, pixels)}. Copy it again from the original download."
        )
    return mask.astype(np.uint8)


def as_binary(mode: str, pixels: np.ndarray) -> np.ndarray | None:
    """Make a mask of a decoded file as `read_mask` does with `grey`, or None.

    Returns:
        bool, (rows, columns).
    """
    grey = one_channel(mode, pixels)
    if grey is None:
        return None
    if has_two_values(grey):
        return grey > 0
    # Small numbers, such as 0, 1 and 2, are classes and no greys.
    greys = grey.dtype == np.uint8 and mode != "P" and grey.max() >= GREY
    return grey >= GREY if greys else None


def one_channel(mode: str, pixels: np.ndarray) -> np.ndarray | None:
    """The one channel of a grey picture, also of one in colour; None for others."""
    if mode == "LA" and (pixels[..., 1] == 255).all():
        return pixels[..., 0]
    if is_colour(mode, pixels):
        # A photograph shows its colours in the first row: no need to see all of it.
        same = all(
            (part[..., :3] == part[..., :1]).all() for part in (pixels[:1], pixels)
        )
        return pixels[..., 0] if same else None
    return pixels if pixels.ndim == 2 and pixels.dtype.kind in "bui" else None


def has_two_values(grey: np.ndarray) -> bool:
    """True for whole numbers of 0 and at most one other, 0 or more."""
    highest = grey.max()
    return bool(((grey == 0) | (grey == highest)).all() and highest >= 0)


def union(folder: Path) -> tuple[np.ndarray, int, list[str]]:
    """Join the masks of single objects, one file each.

    Args:
        folder: of nothing but masks, all of one size.

    Returns:
        uint8 (rows, columns), 1 where any mask is foreground; the number of pixels that
        several masks claim, which count once; names of masks without foreground.

    Raises:
        InputError: no mask; or all that is wrong with them: that can't be decoded, have
            not one channel, or another size than the first.
    """
    total, empty, problems = None, [], []
    for path in masks(folder):
        try:
            mask = read_mask(path)
        except InputError as error:
            problems.append(str(error))
            continue
        total = np.zeros(mask.shape, np.uint16) if total is None else total
        if mask.shape != total.shape:
            problems.append(
                f"{path}: expected {total.shape} (rows, columns), the size of the "
                f"other masks of this image, found {mask.shape}. Copy it again from "
                "the original download."
            )
            continue
        total += mask
        if not mask.any():
            empty.append(path.name)
    if problems:
        raise Problems(str(folder), problems)
    if total is None:
        raise InputError(
            f"{folder}: expected a mask for each object, found no PNG file. "
            "Copy the folder again from the original download."
        )
    return (total > 0).astype(np.uint8), int((total > 1).sum()), empty


def masks(folder: Path) -> list[Path]:
    """The mask files of a folder, by name."""
    files = folder.glob("*.png") if folder.is_dir() else []
    return sorted(path for path in files if not path.name.startswith("."))
