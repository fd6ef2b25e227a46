"""Augmented samples that parallel trainings share.

A sample depends on the data, the settings, the seed, the epoch and the index, but not
on the loss: all losses of a seed draw the same. Where the environment variable
`VARIABLE` names a folder, the first training that warps a sample writes it there, and
the others read it: the same bits, in a tenth of the time. `dscpp study` and `dscpp
reproduce` set it when they make several runs at a time, and delete the folder at the
end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from data_io.prepare.cache import Cache

VARIABLE = "DSCPP_SAMPLES"
"""The environment variable that names the folder."""

FREE = 8 * 2**30
"""Bytes that are left free where the folder lies; beyond, no sample is added."""

_NO_CLASS = 255
_Item = tuple[np.ndarray, np.ndarray]


class Shared:
    """Samples of one order of draws.

    Args:
        folder: folder of the samples.
        *decides: all that a sample depends on besides epoch and index; equal for equal
            samples, with a complete `repr`.
        classes: number of classes, at most 255.
    """

    def __init__(self, folder: Path, *decides: object, classes: int) -> None:
        self.classes = classes
        key = hashlib.sha256(repr((decides, classes)).encode()).hexdigest()[:16]
        self._folder = folder / key

    @classmethod
    def here(cls, cache: Cache, *decides: object, classes: int) -> Shared | None:
        """Return the samples in the folder that `VARIABLE` names; None without one."""
        if not (name := os.environ.get(VARIABLE)):
            return None
        prepared = (cache.key, cache.settings.as_dict())
        return cls(Path(name), *prepared, *decides, classes=classes)

    def load(self, epoch: int, index: int) -> _Item | None:
        """Return a sample's image and one-hot label; None if it was not written."""
        from data_io.prepare import augment  # not above: --help needs none of it

        try:
            with self._path(epoch, index).open("rb") as file:
                image, numbers = (np.lib.format.read_array(file) for _ in range(2))
        except (OSError, ValueError, EOFError):
            return None
        return image, augment.one_hot(numbers, self.classes)

    def leave(self, epoch: int, index: int, item: _Item) -> None:
        """Write a sample if there is disk space; ignore failures."""
        image, label = item
        numbers = label.argmax(-1).astype(np.uint8)
        numbers[~label.any(-1)] = _NO_CLASS
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free < FREE + image.nbytes:
                return
            # What fails half-way lies there until the folder is deleted.
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                np.save(file, image)
                np.save(file, numbers)
            Path(file.name).replace(self._path(epoch, index))

    def _path(self, epoch: int, index: int) -> Path:
        return self._folder / f"{epoch}-{index}"
