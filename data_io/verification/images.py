"""What verification asks of images: facts of a file, and what is wrong."""

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets import is_own
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files.reading import (
    as_binary,
    as_rgb,
    decode,
    decoding,
    has_two_values,
    is_colour,
    one_channel,
    read_npy,
    union,
)
from data_io.verification.report import AGAIN, KEPT_VALUES, Finding, Say, shown

_CLEAR = "RGBA with transparent pixels"
GENERATED = "Delete the data set's folder; it is generated again."
Facts = dict[str, Any]


def facts(path: Path, role: str) -> Facts:
    """What a file holds, as JSON can keep it.

    Args:
        path: an image file, an array of floats (`.npy`) or a folder of masks.
        role: `image`, or another.

    Returns:
        `mode`, `shape` (rows, columns); of an image `pixels` and `turned`, hashes of
        what is decoded (`pixel_hash`, `turned_hash`), and `constant`, where all pixels
        are the same; of a mask of one channel of whole numbers `values` (`counted`);
        for an array of floats `range`. A folder of
        masks has the mode `masks`, the facts of their union, `overlap`, the number of
        pixels in several of them, and the names of those that are `empty`. What can be
        read as RGB has `rgb` (True). What `data_io.files.reading.as_binary` takes has
        `mask`: `values` of its one channel, 0 and at most one other, or [] where there
        are more; `foreground`, the share of such pixels in [0, 1]; `greys`, how many
        pixels were cut at half that are neither 0 nor 255.

    Raises:
        InputError: it can't be decoded; of a folder with all that is wrong in it.
    """
    if path.is_dir() and not path.suffix:  # named like a file, it is in a file's place
        pixels, overlap, empty = union(path)
        more: Facts = {"overlap": overlap, "empty": empty}
        return {**_facts("masks", pixels), "values": counted(pixels), **more}
    mode, pixels = decode(path) if path.suffix != ".npy" else _array(path)
    kept = _facts(mode, pixels)
    if role != "image" and pixels.ndim == 2 and pixels.dtype.kind != "f":
        kept["values"] = counted(pixels)
    if role == "image":
        if mode == "P":  # read as colours, whatever the indices
            mode, pixels = decode(path, colours=True)
            if not is_colour(mode, pixels):
                kept |= {"rgb": False, "mode": _CLEAR}
        kept |= copies(pixels[..., :3] if kept["mode"] == "RGB" else pixels)
    return kept


def copies(pixels: np.ndarray) -> Facts:
    """What tells an image or a volume from others, and from none; see `facts`.

    Args:
        pixels: (*spatial) or (*spatial, channels); a volume has channels.
    """
    constant = bool((pixels == pixels[(slice(1),) * min(pixels.ndim, 3)]).all())
    whole = pixel_hash(pixels)
    turned = turned_hash(pixels) if pixels.ndim < 4 else whole
    return {"pixels": whole, "turned": turned, "constant": constant}


def _facts(mode: str, pixels: np.ndarray) -> Facts:
    kept: Facts = {"mode": mode, "shape": list(pixels.shape[:2])}
    kept["rgb"] = mode == "P" or as_rgb(mode, pixels) is not None
    kept |= _mask(mode, pixels)
    if is_colour(mode, pixels):
        kept["mode"] = "RGB"
    elif mode == "RGBA":
        kept["mode"] = _CLEAR
    if pixels.dtype.kind == "f":
        kept["range"] = [float(pixels.min()), float(pixels.max())]
    return kept


def counted(pixels: np.ndarray) -> list[list[int]]:
    """Pairs of a value and its number of pixels, the lowest `KEPT_VALUES` of them."""
    values, numbers = np.unique(pixels, return_counts=True)
    pairs = zip(values.tolist(), numbers.tolist(), strict=True)
    return [[int(value), number] for value, number in pairs][:KEPT_VALUES]


def _mask(mode: str, pixels: np.ndarray) -> Facts:
    """`mask` with its `values` (0 and one other, else []), share and greys, or {}."""
    binary, grey = as_binary(mode, pixels), one_channel(mode, pixels)
    if binary is None or grey is None:
        return {}
    exact = has_two_values(grey)
    mask = {
        "values": sorted({int(grey.min()), int(grey.max())}) if exact else [],
        "foreground": float(binary.mean()),
        "greys": 0 if exact else int(((grey > 0) & (grey < 255)).sum()),
    }
    return {"mask": mask}


def pixel_hash(pixels: np.ndarray) -> str:
    """SHA-256 of what is shown, whatever the file's format and other content.

    Grey values that are stored as three equal channels are the same as one channel,
    and bits the same as 0 and 255.

    Args:
        pixels: (rows, columns) or (rows, columns, channels).
    """
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8) * 255
    head = f"{pixels.shape} {pixels.dtype.newbyteorder('=').str}"
    whole = hashlib.sha256(head.encode())
    whole.update(np.ascontiguousarray(pixels).data)
    return whole.hexdigest()


def turned_hash(pixels: np.ndarray) -> str:
    """A hash that is the same for an image, turned by 90 degrees or mirrored too.

    Of the eight ways to turn it, the one whose sums along rows and columns come first
    is hashed: to hash all takes eight times as long.

    Args:
        pixels: as for `pixel_hash`; of floats, whose sums depend on their order, it is
            the hash as it stands.
    """
    if pixels.dtype.kind == "f":
        return pixel_hash(pixels)
    flat = pixels if pixels.ndim == 2 else pixels.sum(axis=2, dtype=np.int64)
    sums = flat.sum(axis=1, dtype=np.int64), flat.sum(axis=0, dtype=np.int64)
    signs = {}
    for swap, *flips in itertools.product((0, 1), repeat=3):
        pairs = zip(sums[::-1] if swap else sums, flips, strict=True)
        ends = [(along[::-1] if flip else along).tolist() for along, flip in pairs]
        signs[(swap, *flips)] = ends
    first = min(signs.values())
    ways = [way for way, sign in signs.items() if sign == first]
    return min(pixel_hash(_turned(pixels, way)) for way in ways)


def _turned(pixels: np.ndarray, way: tuple[int, ...]) -> np.ndarray:
    swap, rows, columns = way
    axes_swapped = pixels.swapaxes(0, 1) if swap else pixels
    return axes_swapped[:: -1 if rows else 1, :: -1 if columns else 1]


def _array(path: Path) -> tuple[str, np.ndarray]:
    """Read a whole `.npy` file of finite floats."""
    try:
        with decoding(path):
            array = read_npy(path)
        if array.dtype.kind == "f" and array.size and np.isfinite(array).all():
            return "float", array
        fault = f"{array.dtype} of shape {array.shape}"
        if array.dtype.kind == "f":
            fault += f", {(~np.isfinite(array)).sum()} values NaN or infinite"
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        fault = str(error)
    raise InputError(
        f"{path}: expected a whole .npy file of finite floats, found: {fault}. "
        + GENERATED
    )


def judge(
    record: Record, role: str, say: Say, known: Facts, others: Mapping[str, Facts]
) -> list[Finding]:
    """Return the problems of a file: an image, `posterior`, or else a mask.

    `known` are its facts, `others` those of all files of the case, by role. Own images
    may have any channels, and their label maps any class numbers.
    """
    expected = record.raw_shape or others.get("image", known)["shape"]
    problems = []
    if list(expected) != known["shape"]:
        pair = "" if role == "image" else ", the size of its image"
        text = f"expected {shown(expected)}{pair}, found {shown(known['shape'])}."
        problems.append(say("shape", f"{text} {AGAIN}"))
    if role.startswith("image"):
        return problems or _judge_image(record, say, known)
    if role == "posterior":
        return problems + _judge_posterior(say, known)
    return problems + ([] if is_own(record.name) else _judge_mask(record, say, known))


def _judge_image(record: Record, say: Say, known: Facts) -> list[Finding]:
    """A problem where the image has not the record's channels, or nothing in it."""
    mode = "L" if record.channels == 1 else "RGB"
    fits = known["mode"] == mode or (record.any_mode and known["rgb"])
    if not (fits or is_own(record.name)):
        text = f"expected an {mode} image, found mode {known['mode']}. {AGAIN}"
        return [say("channels", text)]
    if known["constant"]:
        text = "expected an image of something, found the same value in all its pixels."
        return [say("constant", f"{text} {AGAIN}")]
    return []


def _judge_posterior(say: Say, known: Facts) -> list[Finding]:
    """A problem where probabilities are not probabilities."""
    low, high = known.get("range", (-1, -1))
    if 0 <= low <= high <= 1:
        return []
    text = f"expected probabilities in [0, 1], found {low:g} to {high:g}. {GENERATED}"
    return [say("values", text)]


def _judge_mask(record: Record, say: Say, known: Facts) -> list[Finding]:
    """A problem where a mask is not, or with `grey_masks` can't be made, binary.

    Binary: 0 and at most one other value; foreground alone is not.
    """
    if record.grey_masks and "mask" in known:
        return []
    if "values" not in known:
        text = f"expected a mask of one channel, found mode {known['mode']}. {AGAIN}"
        return [say("channels", text)]
    values = [value for value, _ in known["values"]]
    if len(values) <= 2 and values[0] == 0:
        return []
    some = ", ".join(str(value) for value in values[:8])
    more = ", ..." if len(values) > 8 else ""
    text = f"expected a binary mask, 0 and one other value, found the values {some}"
    return [say("values", f"{text}{more}. {AGAIN}")]
