"""What an image file holds is what is read of it, or it is refused."""

import ast
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import EpsImagePlugin, Image

from data_io.datasets import folder
from data_io.errors import InputError
from data_io.files import reading
from data_io.verification import images

SHAPE = (7, 10)
TYPES = ("bool", "u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
# What a channel more or planes apart are told by; "white" has 0 for white.
LAYOUTS: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {
    "grey": (SHAPE, {"photometric": "minisblack"}),
    "white": (SHAPE, {"photometric": "miniswhite"}),
    "rgb": ((*SHAPE, 3), {"photometric": "rgb"}),
    "planes": ((3, *SHAPE), {"photometric": "rgb", "planarconfig": "separate"}),
    "rgba": ((*SHAPE, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "rgbx": ((*SHAPE, 4), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "la": ((*SHAPE, 2), {"photometric": "minisblack", "extrasamples": [2]}),
    "five": ((*SHAPE, 5), {"photometric": "minisblack", "planarconfig": "contig"}),
}
STORED: list[dict[str, object]] = [
    {},
    {"compression": "zlib"},
    {"compression": "zlib", "predictor": True},
    {"tile": (16, 16)},
]


def drawn(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The lowest and the highest values of a type, and some between them."""
    random, dtype = np.random.default_rng(1), np.dtype(kind)
    if dtype.kind == "f":
        return random.normal(0, 1000, shape).astype(dtype)
    if dtype.kind == "b":
        return random.random(shape) > 0.5
    info = np.iinfo(dtype)
    found = random.integers(info.min, info.max, shape, dtype, endpoint=True)
    found.flat[:2] = info.min, info.max
    return found


def shown(array: np.ndarray, layout: str) -> np.ndarray:
    """The pixels as (rows, columns) or (rows, columns, channels), 0 black."""
    if layout == "planes":
        return np.moveaxis(array, 0, -1)
    if layout == "white":
        return ~array if array.dtype.kind in "bu" else -1 - array
    return array


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether values are equal as numbers; two types may hold the same bits."""
    equal = np.array_equal(found.astype(float), expected.astype(float))
    return found.shape == expected.shape and equal


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", TYPES)
def test_tiff_is_read_exactly_or_refused(tmp_path, kind, layout, order):
    shape, options = LAYOUTS[layout]
    path, array = tmp_path / "a.tif", drawn(kind, shape)
    read = 0
    for stored in STORED:
        try:
            tifffile.imwrite(path, array, byteorder=order, **options, **stored)
        except (ValueError, KeyError):
            continue  # There is no such file.
        try:
            mode, pixels = reading.decode(path)
        except InputError as error:
            assert "a.tif: expected" in str(error)
            continue
        read += 1
        assert same(pixels, shown(array, layout)), (mode, stored)
    usual = {"bool", "u1", "u2"} if layout == "grey" else {"u1"}
    if layout in ("grey", "rgb", "planes") and kind in usual:
        assert read >= 3


@pytest.mark.parametrize("kind", ["i2", "u4", "i4", "f4"])
def test_grey_of_more_than_8_bits_is_read_little_endian(tmp_path, kind):
    path, array = tmp_path / "a.tif", drawn(kind, SHAPE)
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib")
    assert same(folder.read_pixels(path)[..., 0], array.astype(np.float32))


def test_tiff_of_16_bits_in_planes_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    array = drawn("u2", (3, *SHAPE))
    tifffile.imwrite(path, array, photometric="rgb", planarconfig="separate")
    for read in (folder.read_pixels, folder.read_labels, reading.read_image):
        with pytest.raises(InputError, match=r"a\.tif: expected .* 16 bits a channel"):
            read(path)


def test_tiff_volume_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    array = drawn("u1", (16, 32, 48))
    tifffile.imwrite(path, array, tile=(16, 16, 16), volumetric=True)
    with pytest.raises(InputError, match="a volume of 16 planes"):
        reading.decode(path)


def png(path: Path, bits: int, colour: int, rows: np.ndarray) -> None:
    """Writes a PNG that Pillow can't write; rows of bytes, without a filter."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", SHAPE[1], SHAPE[0], bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_and_several_channels_is_refused(tmp_path, colour, channels):
    path = tmp_path / "a.png"
    rows = np.full((*SHAPE, channels), 65535, ">u2")  # opaque
    rows[..., : channels - (channels % 2 == 0)] = 300
    png(path, 16, colour, rows)
    for read in (folder.read_pixels, folder.read_labels, reading.read_image):
        with pytest.raises(InputError, match="expected 8 bits a colour channel"):
            read(path)


def test_a_png_of_16_bits_and_one_channel_keeps_them(tmp_path):
    array = drawn("u2", SHAPE)
    png(tmp_path / "a.png", 16, 0, array.astype(">u2"))
    assert same(folder.read_pixels(tmp_path / "a.png")[..., 0], array)


# A pixel that the file has, and a value that none has.
TRANSPARENT = {
    "L": (7, 250),
    "RGB": ((7, 0, 0), (7, 0, 1)),
    "P": (7, 250),
    "I;16": (7, 300),
}


def coloured(mode: str) -> Image.Image:
    numbers = np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint8).reshape(SHAPE)
    if mode == "RGB":
        return Image.fromarray(np.stack([numbers, numbers * 0, numbers * 0], -1))
    if mode == "I;16":
        return Image.fromarray(numbers.astype(np.uint16))
    found = Image.fromarray(numbers)
    if mode == "P":
        found = Image.frombytes("P", SHAPE[::-1], numbers.tobytes())
        found.putpalette([*range(256)] * 3)
    return found


@pytest.mark.parametrize("mode", TRANSPARENT)
def test_a_transparent_value_is_an_alpha_channel(tmp_path, mode):
    path = tmp_path / "a.png"
    coloured(mode).save(path)
    opaque = folder.read_pixels(path)
    there, absent = TRANSPARENT[mode]
    coloured(mode).save(path, transparency=absent)
    np.testing.assert_array_equal(folder.read_pixels(path), opaque)
    coloured(mode).save(path, transparency=there)
    with pytest.raises(InputError, match=r"found mode .* with transparent pixels"):
        folder.read_pixels(path)
    with pytest.raises(InputError):
        reading.read_image(path)
    assert not images.facts(path, "image")["rgb"]


def test_indices_are_labels_whether_or_not_one_is_transparent(tmp_path):
    path = tmp_path / "a.png"
    coloured("P").save(path, transparency=0)
    np.testing.assert_array_equal(folder.read_labels(path), np.array(coloured("P")))


def test_jpeg_named_png_is_read(tmp_path):
    named, other = tmp_path / "a.jpg", tmp_path / "b.png"
    coloured("RGB").save(named)
    other.write_bytes(named.read_bytes())
    np.testing.assert_array_equal(folder.read_pixels(named), folder.read_pixels(other))


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"
)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jpg", "x.gif", "x.bmp"])
def test_no_file_is_run_as_a_program(tmp_path, monkeypatch, name):
    ran = []

    def ghostscript(*arguments: object) -> None:
        ran.append(arguments)
        raise OSError("not here")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    path = tmp_path / name
    path.write_bytes(POSTSCRIPT)
    for read in (folder.read_pixels, folder.read_labels, reading.read_image):
        with pytest.raises(InputError, match=f"{name}: expected a whole"):
            read(path)
    assert not ran


@pytest.mark.parametrize("kind", ["PPM", "TGA", "WEBP", "ICO", "SGI", "PCX"])
def test_only_the_formats_of_the_data_sets_are_read(tmp_path, kind):
    memory = io.BytesIO()
    coloured("RGB").save(memory, kind)
    (tmp_path / "a.png").write_bytes(memory.getvalue())
    with pytest.raises(InputError, match=r"a\.png: expected a whole PNG image"):
        folder.read_pixels(tmp_path / "a.png")


OPENERS = ("Image.open", "nibabel.load", "nib.load", "imread", "imopen")
PACKAGES = ("benchmarks", "conformance", "data_io", "docs", "errata", "losses",
            "pipelines", "recipes")  # fmt: skip


def test_files_are_decoded_in_one_place_with_formats_named(project: Path):
    """A new `Image.open` elsewhere would try every format that Pillow knows."""
    found = {}
    for package in PACKAGES:
        for path in sorted((project / package).rglob("*.py")):
            text = path.read_text("utf-8")
            decodes = any(word in text for word in OPENERS)
            for call in ast.walk(ast.parse(text)) if decodes else ():
                name = opener(call)
                if name:
                    found[f"{path.relative_to(project)}: {name}"] = call
    bare = [
        place
        for place, call in found.items()
        if "Image.open" in place and not any(k.arg == "formats" for k in call.keywords)
    ]
    assert not bare
    others = {place for place in found if "Image.open" not in place}
    assert others == {"data_io/files/nifti.py: nibabel.load"}
    assert "data_io/files/reading.py: Image.open" in found


def opener(call: ast.AST) -> str:
    """The name of a call that decodes a file of any format; "" of any other."""
    if not isinstance(call, ast.Call):
        return ""
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    return name if last in OPENERS or name.removeprefix("PIL.") in OPENERS else ""


def test_mask_with_white_as_zero_is_refused(tmp_path):
    """What tifffile writes of booleans: Pillow reads it with its values exchanged."""
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.eye(16, dtype=bool))
    with pytest.raises(InputError, match="found 1 bit of which 0 is white"):
        reading.read_mask(path)
    tifffile.imwrite(path, np.eye(16, dtype=bool), photometric="minisblack")
    assert (reading.read_mask(path) > 0).sum() == 16


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_low_bit_depths_are_classes_in_label_maps_and_greys_in_images(tmp_path, bits):
    highest = 2**bits - 1
    numbers = np.arange(32).reshape(4, 8) % (highest + 1)
    packed = np.unpackbits(numbers.astype(np.uint8)[..., None], axis=-1)[..., -bits:]
    rows = np.packbits(packed.reshape(4, -1), axis=-1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", 8, 4, bits, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(body)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    np.testing.assert_array_equal(folder.read_labels(path), numbers)
    greys = folder.read_pixels(path)[..., 0]
    if bits > 1:
        np.testing.assert_array_equal(greys, numbers * (255 // highest))


def chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def test_masks_of_floats_are_read_where_they_are_whole_numbers(tmp_path):
    numbers = (np.arange(24).reshape(4, 6) % 3).astype(np.float32)
    path = tmp_path / "a.tif"
    Image.fromarray(numbers + np.float32(2e-4)).save(path)
    np.testing.assert_array_equal(folder.read_labels(path), numbers)
    Image.fromarray(numbers / 4).save(path)
    with pytest.raises(InputError, match=r"found 0\.25 among values from 0 to 0\.5"):
        folder.read_labels(path)


def test_a_large_image_is_read_or_too_large_but_not_damaged(tmp_path, monkeypatch):
    assert 2 * Image.MAX_IMAGE_PIXELS > 189_000_000
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(InputError, match=r"expected at most \d+ pixels") as caught:
        reading.decode(path)
    assert "damaged" not in str(caught.value)
