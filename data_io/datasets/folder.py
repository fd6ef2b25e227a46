"""A user's own images: a folder of them, and a folder of label maps.

The folder of this data set holds no image. It holds two small files, which
`data_io.own_images.describe.describe` writes. `dataset.json` says where the images
are and what was found in them, `reading.json` how they are read (channels, label
values). The second is one of the files of every case, so that another reading is other
data.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NotRequired

import numpy as np
from typing_extensions import TypedDict

from data_io import datasets
from data_io.datasets.dataset import Dataset
from data_io.datasets.layout import ABOUT
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import nifti, schema
from data_io.files.hashing import read_json, while_unchanged
from data_io.files.names import plain
from data_io.files.reading import decode, described, is_colour, one_channel
from data_io.verification import images, volumes

READING = "reading.json"
_ROLE = re.compile(r"image(_\d{4})?|observer1")

# What all sets of one's own share; `OwnImages.record` has the facts of one.
_RECORD = Record(
    name="own",
    title="own data",
    classes=("background", "foreground"),
    channels=1,
    input_shape=(512, 512),
    counts={},
    source="the user's own",
    licence="the user's own",
    citation="none",
    access="Give --images FOLDER and --masks FOLDER.",
    layout="""\
  IMAGES/  a.png b.png ... (or tif, jpg, bmp; or NIfTI volumes a.nii.gz b.nii.gz ...;
           or several channels a case: a_0000.nii.gz a_0001.nii.gz ...)
  MASKS/   a.png b.png ... (or a_mask.png, ...; values 0 and one other, or 0, 1, 2, ...)
""",
)


class _Described(TypedDict):
    format: Literal[1]
    name: str
    title: str
    classes: list[str]
    input_shape: list[int]
    spacing_mm: list[float] | None
    axes: NotRequired[list[int] | None]
    directions: NotRequired[str | None]
    modalities: NotRequired[list[str] | None]
    cases: dict[str, dict[str, str]]


_OF_RECORD = (
    "name", "title", "classes", "input_shape", "spacing_mm", "axes", "directions",
    "modalities",
)  # fmt: skip


class _Reading(TypedDict):
    channels: int
    values: list[int]


class OwnImages(Dataset):
    """A data set of own images; its root is the folder of the two small files."""

    RECORD = _RECORD

    def locate(self, data: Path | None) -> Path:
        """Find the description that `data_io.own_images.describe.describe` wrote.

        Raises:
            InputError: it is not there, of another version, or damaged.
        """
        if data is not None and (Path(data) / ABOUT).is_file():
            _check(Path(data))
            return Path(data)
        raise InputError(
            f"own data: expected a folder with {ABOUT}, as dscpp writes it, received "
            f"{data}. Name own images with --images FOLDER and --masks FOLDER; for a "
            "run that is there, in its `dscpp train` command, which notes where they "
            "are and trains nothing. Then give this command without --data."
        )

    def places(self, root: Path) -> set[Path]:
        """Return the folders in which images and label maps lie."""
        cases = _read(root)["cases"].values()
        return {Path(path).parent for files in cases for path in files.values()}

    def record(self, root: Path) -> Record:
        """Return the facts of the images described at `root`."""
        about, channels = schema.tuples(_read(root)), _read(root, READING)["channels"]
        facts = {name: about[name] for name in _OF_RECORD if name in about}
        return replace(self.RECORD, channels=channels, **facts)

    def cases(self, root: Path) -> tuple[str, ...]:
        """Return the ids of the images: their names without the ending."""
        return tuple(_read(root)["cases"])

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Return `image`, further channels (`image_0001`), a label map `observer1`."""
        cases = _read(root)["cases"]
        if case not in cases:
            raise InputError(f"{root}: expected one of its cases, received {case!r}.")
        return {role: Path(path) for role, path in cases[case].items()}

    def files(self, root: Path, case: str) -> tuple[Path, ...]:
        """Return how the case is read, then its raw files."""
        return (Path(root) / READING, *self.roles(root, case).values())

    def image(self, root: Path, case: str) -> np.ndarray:
        """Return an image with the channels of the set, uint8 or float32."""
        roles = self.roles(root, case).items()
        paths = [path for role, path in roles if role.startswith("image")]
        if len(paths) == 1:
            return _with_channels(paths[0], _read(root, READING)["channels"])
        return np.concatenate([_with_channels(path, 1) for path in paths], axis=-1)

    def picture(self, root: Path, case: str) -> np.ndarray:
        """Return an image, or its first file, to look at: uint8 RGB, whole range."""
        pixels = _with_channels(self.roles(root, case)["image"], 3)
        if pixels.dtype == np.uint8:
            return pixels
        low, high = float(pixels.min()), float(pixels.max())
        return np.asarray(255 * (pixels - low) / max(high - low, 1e-6), np.uint8)

    def references(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Return the label map of a case, uint8 class numbers, as `observer1`."""
        path = self.roles(root, case)["observer1"]
        return {"observer1": _classes(path, _read(root, READING)["values"])}

    def values(self, root: Path) -> list[int]:
        """Return the label value of each class, background first."""
        return list(_read(root, READING)["values"])

    def check(self, root: Path) -> list[str]:
        """Return a problem for each file that is gone since it was described."""
        return [
            f"{path}: expected a file, found none. Put it back; or, where it was "
            "moved, give the `dscpp train` command with --images and --masks of today."
            for path in self.expected(root)
            if not path.is_file()
        ]

    def remarks(self, root: Path) -> list[str]:
        """Return nothing: what is unusual is said when the images are described."""
        return []

    @staticmethod
    def look(path: Path, role: str) -> dict[str, Any]:
        """Return what there is to know of a file; see `Dataset.look`.

        A further channel (`image_0001`) is looked at as an image. What a volume holds
        is judged by `data_io.verification.volumes.judge`.

        Returns:
            `mode` and `shape`; of an image `channels` and what tells copies; of a label
            map `values`, and `jpeg`: whether they may be blurred. Of a volume all that
            `data_io.verification.volumes.facts` gives, and `channels`, which is 1.

        Raises:
            InputError: it can't be decoded; an image that is neither grey nor RGB, or
                has transparent pixels; a label map in colour.
        """
        role = "image" if role.startswith("image") else role
        if nifti.is_volume(path):
            return {**volumes.facts(path, role), "channels": 1}
        if role == "image":
            pixels = read_pixels(path)
            shape, channels = list(pixels.shape[:-1]), pixels.shape[-1]
            facts = {"mode": "image", "shape": shape, "channels": channels}
            return facts | images.copies(pixels)
        labels = read_labels(path)
        jpeg = path.suffix.lower() in (".jpg", ".jpeg")
        facts = {"mode": "labels", "shape": list(labels.shape), "jpeg": jpeg}
        return {**facts, "values": images.counted(labels)}

    def home(self, root: Path) -> Path:
        """Return the folder of the first image."""
        return Path(next(iter(_read(root)["cases"].values()))["image"]).parent


def _check(root: Path) -> None:
    """Refuse a description that dscpp would not have written.

    Raises:
        InputError: names the file and what is wrong with it.
    """
    fault = hint = ""
    try:
        about = schema.load(root / ABOUT, _Described)
        schema.load(root / READING, _Reading)
    except (OSError, ValueError) as error:
        fault = str(error)
        if isinstance(error, schema.Changed):
            hint = f" To keep a change of your own, such as new paths, {schema.UNSEAL}."
    else:
        if not datasets.is_own(about["name"]):
            fault = f"the name {about['name']!a}"
        for case, paths in about["cases"].items():
            plain(case, root / ABOUT, "case")
            whole = all(Path(path).is_absolute() for path in paths.values())
            named = all(map(_ROLE.fullmatch, paths)) and "image" in paths
            if not (whole and named):
                fault = f"other files of case {case}"
    if fault:
        raise InputError(
            f"{root / ABOUT}: expected a description that dscpp wrote, found {fault}. "
            "Name the images with --images FOLDER and --masks FOLDER, for a run in its "
            f"`dscpp train` command: it is written anew.{hint}"
        )


def read_pixels(path: Path) -> np.ndarray:
    """Read an image as it is, one channel or three.

    Args:
        path: grey (8 or 16 bits, or finite floats), one bit, palette or RGB. A palette
            is replaced by its colours; an alpha channel is left out where it is opaque.
            Or a NIfTI volume.

    Returns:
        (rows, columns, channels), or (*shape, 1): uint8, or float32 for what has more
        than 8 bits.

    Raises:
        InputError: not decodable, several pages, transparent pixels, another mode.
    """
    if nifti.is_volume(path):
        voxels = nifti.read(path)
        if not np.isfinite(voxels).all():
            raise InputError(
                f"{path}: expected finite numbers, found others (NaN or infinite). "
                "Replace them by the value of what surrounds the body."
            )
        return voxels[..., np.newaxis]
    mode, pixels = decode(path, colours=True)
    if is_colour(mode, pixels):
        return pixels[..., :3]
    if mode == "LA" and (pixels[..., 1] == 255).all():
        return pixels[..., :1]
    if pixels.ndim == 2 and np.isfinite(pixels).all():
        small = pixels.dtype.kind == "b" or pixels.dtype == np.uint8
        return pixels.astype(np.uint8 if small else np.float32)[..., np.newaxis]
    raise InputError(
        f"{path}: expected a grey or an RGB image, found {described(mode, pixels)}. "
        "Save it as grey or RGB, without transparency."
    )


def read_labels(path: Path) -> np.ndarray:
    """Read a label map as it is: whole numbers, of a palette the indices.

    Args:
        path: one channel, or colours that are all grey, either with an opaque alpha
            channel. Or a NIfTI volume.

    Returns:
        whole numbers or bool, (rows, columns) or (*shape).

    Raises:
        InputError: not decodable, or in colour.
    """
    if nifti.is_volume(path):
        return nifti.read_label(path)
    mode, pixels = decode(path)
    if pixels.ndim == 2 and pixels.dtype.kind == "f":
        return nifti.as_label(path, pixels)
    label = one_channel(mode, pixels)
    if label is None:
        raise InputError(
            f"{path}: expected a label map with one number a pixel, found "
            f"{described(mode, pixels)}. Save class numbers, not colours."
        )
    return label


def _with_channels(path: Path, channels: int) -> np.ndarray:
    """Read an image with so many channels; grey becomes colour, not the reverse."""
    pixels = read_pixels(path)
    if pixels.shape[-1] == channels:
        return pixels
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, channels, axis=-1)
    raise InputError(
        f"{path}: expected {channels} channel, found {pixels.shape[-1]}. "
        "Convert it to grey."
    )


def _classes(path: Path, values: list[int]) -> np.ndarray:
    """Read a label map and number its values: the first is class 0, and so on."""
    pixels = read_labels(path)
    label = np.zeros(pixels.shape, np.uint8)
    known = pixels == values[0]
    for number, value in enumerate(values[1:], 1):
        label[pixels == value] = number
        known |= pixels == value
    if not known.all():
        raise InputError(
            f"{path}: expected the values {', '.join(map(str, values))}, found "
            f"{pixels[~known].flat[0]} too. Correct the label map."
        )
    return label


def _read(root: Path, name: str = ABOUT) -> dict[str, Any]:
    """Read one of the two files, once while it is the same; {} where that fails."""
    return _parsed(Path(root) / name)


@while_unchanged(8)
def _parsed(path: Path) -> dict[str, Any]:
    return read_json(path) or {}


own_images = OwnImages()
