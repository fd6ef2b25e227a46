"""What every data set offers, with what most of them share as defaults."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_io.datasets import layout
from data_io.datasets.record import Record
from data_io.files import nifti
from data_io.files.reading import masks, read_image, read_mask, union
from data_io.verification import images, volumes
from data_io.verification.report import AGAIN


class Dataset:
    """A data set: its facts, and how its raw files are found and read.

    A subclass gives `RECORD`, `MARKS`, `roles` and one of `cases` and `split`, and what
    differs from the defaults. `root` is always the folder that `locate` returned, and
    `case` one of `cases(root)`.

    Attributes:
        RECORD: the facts.
        DEFAULT: where the data set is looked for when nothing was said, and where
            `dscpp fetch` puts it; its name is that of the folder and of the zip.
        MARKS: subfolders of which at least one tells the data set's own folder, see
            `data_io.datasets.layout.locate`.
        HINTS: what to do where files are missing, see `layout.missing`.
        AXES: order of the axes that volumes must have, see `Record.axes`; of
            sets whose `RECORD.axes` must stay None, since runs of before noted none.
        DIRECTIONS: towards what the axes of volumes run as distributed; None where
            that is not laid down.
    """

    RECORD: Record
    DEFAULT: Path = Path()
    MARKS: ClassVar[tuple[str, ...]] = ()
    HINTS: ClassVar[Mapping[str, str]] = {"": AGAIN}
    AXES: tuple[int, int, int] | None = None
    DIRECTIONS: str | None = None

    def locate(self, data: Path | None) -> Path:
        """Find the data set's own folder.

        Args:
            data: that folder, its zip, or the folder that contains either; None for
                `DEFAULT`.

        Raises:
            InputError: it is not there; says how to get it.
        """
        return layout.locate(self.RECORD, data, self.DEFAULT, self.MARKS)

    def is_prepared(self, root: Path) -> bool:
        """True for the layout of the authors' copies, where it is one of `MARKS`."""
        raw = [mark for mark in self.MARKS if mark != layout.PREPARED]
        matches = (path for mark in raw for path in Path(root).glob(mark))
        return len(raw) < len(self.MARKS) and not any(p.is_dir() for p in matches)

    def record(self, root: Path) -> Record:
        """Return the facts of the copy at `root`; mostly `RECORD`."""
        return self.RECORD

    def split(self, root: Path) -> dict[str, tuple[str, ...]] | None:
        """Return the cases of `training`, `validation` and `test`.

        None where the split is drawn by seed; {} where it is fixed, but the names in
        this copy do not say it.
        """
        return None

    def cases(self, root: Path) -> tuple[str, ...]:
        """Return the ids of all cases."""
        return tuple(c for part in (self.split(root) or {}).values() for c in part)

    def groups(self, root: Path) -> dict[str, str]:
        """Return the group of each case, such as its patient; {} where unknown."""
        return {}

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Return what the files of a case are, whether or not they are there.

        Returns:
            Paths by role: `image`, `observer1` (its label map), further observers. A
            role may be a folder of masks of single objects.
        """
        raise NotImplementedError

    def files(self, root: Path, case: str) -> tuple[Path, ...]:
        """Return every raw file of a case that is there."""
        paths = [path for path in self.roles(root, case).values() if path.exists()]
        return tuple(f for p in paths for f in (masks(p) if p.is_dir() else [p]))

    def image(self, root: Path, case: str) -> np.ndarray:
        """Return the image of a case as the network's preprocessing takes it.

        Returns:
            uint8 (rows, columns, channels), or of a volume (slices, rows, columns, 1).

        Raises:
            InputError: it can't be decoded, or has other channels.
        """
        path = self.roles(root, case)["image"]
        if nifti.is_volume(path):
            return nifti.read(path)[..., np.newaxis]
        return read_image(path)

    def picture(self, root: Path, case: str) -> np.ndarray:
        """Return an image to look at: uint8 (rows, columns, 3)."""
        return self.image(root, case)

    def references(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Return the label maps of a case that are there, at native size.

        Returns:
            uint8 class numbers, (rows, columns) or (slices, rows, columns), by
            observer.

        Raises:
            InputError: one can't be decoded or is no label map, or none is there.
        """
        paths = self.roles(root, case).items()
        labels = {role: p for role, p in paths if role.startswith("observer")}
        existing = {role: path for role, path in labels.items() if path.exists()}
        references = {}
        for role, path in (existing or labels).items():
            if nifti.is_volume(path):
                references[role] = nifti.read_label(path)
            elif path.is_dir():
                references[role] = union(path)[0]
            else:
                references[role] = read_mask(path, grey=self.RECORD.grey_masks)
        return references

    def values(self, root: Path) -> list[int]:
        """Return the label value of each class, as `look` finds it, background first.

        Of two classes the second is any value that is not the first.
        """
        return list(range(len(self.RECORD.classes)))

    def regions(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Return where to measure: bool, of the label map's shape, by name.

        The whole `image` alone: one True seen from everywhere, read-only, no memory.
        """
        path = self.roles(root, case)["observer1"]
        if nifti.is_volume(path):
            shape = nifti.geometry(path).shape
        else:
            shape = self.references(root, case)["observer1"].shape
        return {"image": np.broadcast_to(np.True_, shape)}

    def geometry(self, root: Path, case: str) -> nifti.Geometry | None:
        """Return where the voxels of a case's volume lie; None for an image.

        Raises:
            InputError: the volume is missing or damaged.
        """
        path = self.roles(root, case)["image"]
        return nifti.geometry(path) if nifti.is_volume(path) else None

    @staticmethod
    def look(path: Path, role: str) -> dict[str, Any]:
        """Return what verification asks of a file, as JSON can keep it.

        `path` may be a folder of masks of single objects; for `role` see `roles`.

        Returns:
            Facts, see `data_io.verification.images.facts` and of volumes
            `data_io.verification.volumes.facts`.

        Raises:
            InputError: it can't be decoded.
        """
        facts = volumes.facts if nifti.is_volume(path) else images.facts
        return facts(path, role)

    def home(self, root: Path) -> Path:
        """Return the folder of the raw files, to which messages are relative."""
        return Path(root)

    def expected(self, root: Path) -> list[Path]:
        """Return every file of the data set, as distributed."""
        cases = self.cases(root)
        return [path for case in cases for path in self.roles(root, case).values()]

    def check(self, root: Path) -> list[str]:
        """Compare the folder with the layout, without opening a file.

        Returns:
            One line for each problem: which file, expected, found, what to do.
        """
        title, expected = self.RECORD.title, self.expected(root)
        return layout.missing(title, Path(root), expected, self.HINTS)

    def remarks(self, root: Path) -> list[str]:
        """Return what is unusual about the folder but stops nothing."""
        count = len(self.cases(root))
        if count == self.RECORD.cases:
            return []
        return [
            f"{count} cases, the whole data set has {self.RECORD.cases}; the split is "
            "80/20 and 80/20, so its sizes are others too"
        ]
