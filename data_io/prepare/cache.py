"""Prepared samples on disk: made once per data set and setting, shared by all runs.

An entry is a folder per case, named by the case and by a hash of all that decides its
content: the settings of the preprocessing, the raw files and the versions of the
libraries that resize. It is written aside and renamed, so it is there whole or not at
all, and two processes that prepare the same case at once only do the work twice. A
missing or damaged entry is made again whenever it is asked for: the cache may be
deleted at any time, also while a run reads from it.
"""

import contextlib
import dataclasses
import errno
import functools
import importlib.metadata
import json
import math
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from typing_extensions import TypedDict

from data_io import bars
from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from data_io.files import schema
from data_io.files.hashing import case_hashes, data_hash, file_hash
from data_io.files.schema import digest
from data_io.files.writing import MAKING, folder_aside, writing
from data_io.prepare import native_grid
from data_io.prepare.interface import RawInterface
from data_io.prepare.miscnn_compat import Data_IO
from data_io.prepare.preprocessing import Settings, subfunctions

_FORMAT = 2
_LIBRARIES = ("batchgenerators", "miscnn", "scikit-image", "scipy")
_ARRAYS = {"image": "image.npy", "label": "label.npy"}
_TYPES = {"image": np.float32, "label": np.uint8}
_SHEET = "sample.json"
_STALE_SECONDS = 3600
_ATTEMPTS = 12  # one deletion can spoil several


class _File(TypedDict):
    shape: list[int]
    size: int
    mtime_ns: int
    sha256: str


class _Sheet(TypedDict):
    native_shape: list[int]
    turned: NotRequired[list[int]]
    files: dict[str, _File]


@dataclasses.dataclass(frozen=True)
class Cache:
    """The prepared cases of one data set at one setting.

    Attributes:
        dataset: the data set.
        root: its folder.
        settings: the preprocessing and augmentation asked for.
        folder: where the entries lie.
        content: SHA-256 of the raw files of each case.
    """

    dataset: Dataset
    root: Path
    settings: Settings
    folder: Path
    content: Mapping[str, str]

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases, in the order in which they were asked for."""
        return tuple(self.content)

    @property
    def data_hash(self) -> str:
        """SHA-256 of the raw content of all cases, whatever the settings and paths."""
        return data_hash(self.content)

    @property
    def key(self) -> str:
        """SHA-256 of settings, versions and raw content of all cases."""
        return digest([_recipe(self.dataset, self.settings), self.data_hash])

    def image(self, case: str) -> np.ndarray:
        """Read a prepared image: (*spatial, channels), float32, z-scored.

        The spatial shape is the network's input; of a volume it is the whole of it,
        resampled, axes in the order of its file.
        """
        return self._array(case, "image")

    def label(self, case: str) -> np.ndarray:
        """Read a prepared label map: (*spatial) as the image, uint8 class numbers."""
        return self._array(case, "label")

    def native_shape(self, case: str) -> tuple[int, ...]:
        """Spatial shape of the raw image or volume, in pixels or voxels."""
        _, sheet = self._entry(case)
        return tuple(sheet["native_shape"])

    def turned(self, case: str) -> tuple[int, ...]:
        """Axes along which a prepared volume runs against its file."""
        _, sheet = self._entry(case)
        return tuple(sheet.get("turned", ()))

    def _array(self, case: str, kind: str) -> np.ndarray:
        """Map an array of an entry, read-only; the map outlives the file's deletion.

        Not by `numpy.load`: it parses the file's header with `ast`, which until Python
        3.12 may fail in threads (cpython issue 106905), and samples are read in them.
        """
        name = _ARRAYS[kind]
        for _ in range(_ATTEMPTS):
            entry, sheet = self._entry(case)
            dtype, shape = np.dtype(_TYPES[kind]), tuple(sheet["files"][name]["shape"])
            offset = sheet["files"][name]["size"] - math.prod(shape) * dtype.itemsize
            try:
                return np.memmap(entry / name, dtype, "r", offset, shape)
            except (OSError, ValueError):
                continue  # deleted or cut between the two lines: make it again
        raise InputError(_restless(self.folder, case))

    def _entry(self, case: str) -> tuple[Path, dict[str, Any]]:
        """Find the entry of a case, making it where it is missing or damaged."""
        entry = self._path(case)
        for _ in range(_ATTEMPTS):
            sheet = _read_sheet(entry)
            if sheet is not None:
                return entry, sheet
            # Read anew: all that the cache remembers is too much to load for one case.
            now = case_hashes(self.dataset, self.root, [case], None)[case]
            if now != self.content[case]:
                raise InputError(
                    f"{self.dataset.RECORD.name}, case {case}: its raw files changed "
                    "while they were in use. Start again once they are at rest."
                )
            _write_entry(entry, self._preprocess(case))
        raise InputError(_restless(self.folder, case))

    def _path(self, case: str) -> Path:
        recipe = _recipe(self.dataset, self.settings)
        return self.folder / f"{case}-{digest([recipe, self.content[case]])[:16]}"

    @functools.cached_property
    def _source(self) -> Any:
        """MIScnn's Data_IO over the raw files."""
        return Data_IO(RawInterface(self.dataset, self.root), str(self.root))

    def _preprocess(self, case: str) -> dict[str, Any]:
        """Take one case through MIScnn's Data_IO and subfunctions; cast its arrays."""
        sample = self._source.sample_loader(case, load_seg=True)
        native_shape = sample.img_data.shape[:-1]
        # A volume that is stored mirrored is turned first.
        directions = sample.get_extended_data().get("directions")
        turned = native_grid.flipped_axes(directions, self.settings.directions)
        sample.img_data = np.flip(sample.img_data, turned)
        sample.seg_data = np.flip(sample.seg_data, turned)
        for step in subfunctions(self.settings):
            step.preprocessing(sample, training=True)
        return {
            "image": np.ascontiguousarray(sample.img_data, _TYPES["image"]),
            "label": np.ascontiguousarray(sample.seg_data[..., 0], _TYPES["label"]),
            "native_shape": native_shape,
            "turned": list(turned),
        }


def prepare(
    dataset: Dataset,
    root: Path,
    cases: Iterable[str],
    settings: Settings,
    folder: Path,
    progress: bool = True,
) -> Cache:
    """Preprocess what is not in the cache yet, through MIScnn.

    `folder` is the cache of all data sets, made where it is missing. Of the settings
    the augmentation's do not matter here.

    Raises:
        InputError: the folder cannot be written, or raw files change meanwhile.
    """
    folder = Path(folder)
    folder_of_set = folder / dataset.RECORD.name
    with writing(folder_of_set):
        folder_of_set.mkdir(parents=True, exist_ok=True)
    _sweep(folder_of_set)
    hashes = case_hashes(dataset, root, cases, folder)
    cache = Cache(dataset, Path(root), settings, folder_of_set, hashes)
    missing = [case for case in hashes if _read_sheet(cache._path(case)) is None]
    for case in bars.bar(missing, "preparing", unit="case", disable=not progress):
        cache._entry(case)
    return cache


def _write_entry(entry: Path, sample: dict[str, Any]) -> None:
    """Write an entry aside and rename it; one that is whole by then is kept."""
    try:
        with folder_aside(entry) as aside:
            _fill(aside, sample)
            if entry.exists() and _read_sheet(entry) is None:
                _discard(entry)
    except OSError as error:
        # The cache was deleted under our hands, or another process is deleting a
        # damaged entry, half gone by now: the caller tries again.
        again = error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)
        if not again and _read_sheet(entry) is None:
            with writing(entry.parent):
                raise


def _fill(aside: Path, sample: dict[str, Any]) -> None:
    """Write the arrays and the sheet by which they are known to be whole."""
    sheet: dict[str, Any] = {
        "native_shape": list(sample["native_shape"]),
        "turned": sample["turned"],
        "files": {},
    }
    for kind, name in _ARRAYS.items():
        np.save(aside / name, sample[kind])
        state = (aside / name).stat()
        sheet["files"][name] = {
            "shape": sample[kind].shape,
            "size": state.st_size,
            "mtime_ns": state.st_mtime_ns,
            "sha256": file_hash(aside / name),
        }
    text = json.dumps(schema.sealed(sheet), indent=1) + "\n"
    (aside / _SHEET).write_text(text, encoding="utf-8")


def _read_sheet(entry: Path) -> dict[str, Any] | None:
    """Read an entry's sheet; None where the entry is missing or damaged."""
    sheet: dict[str, Any] | None = schema.recall(entry / _SHEET, _Sheet)
    if sheet is None or set(sheet["files"]) != set(_ARRAYS.values()):
        return None
    whole = all(_is_whole(entry / name, file) for name, file in sheet["files"].items())
    return sheet if whole else None


def _is_whole(path: Path, expected: Mapping[str, Any]) -> bool:
    """Check size and time of change; the hash only where the time differs (a copy)."""
    try:
        state = path.stat()
        if state.st_size != expected["size"]:
            return False
        if state.st_mtime_ns == expected["mtime_ns"]:
            return True
        return file_hash(path) == expected["sha256"]
    except OSError:
        return False


def _discard(entry: Path) -> None:
    """Move a damaged entry away before deleting it, so that nobody meets half of it."""
    away = entry.parent / f"{MAKING}{uuid.uuid4().hex}"
    entry.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Delete what a killed process left half made an hour ago or more."""
    for path in folder.glob(f"{MAKING}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _recipe(dataset: Dataset, settings: Settings) -> list[Any]:
    """All that decides an entry's content, but for the raw files."""
    return [_FORMAT, dataset.RECORD.name, settings.prepared(), _versions()]


@functools.cache
def _versions() -> dict[str, str]:
    """Versions of the libraries that resize; looked up once, since it takes a while."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def _restless(folder: Path, case: str) -> str:
    return (
        f"cache: the entry of case {case} in {folder} vanished each time it was made. "
        "Stop what deletes it and start again."
    )
