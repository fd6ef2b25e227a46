"""Data sets of pairs: a folder of images, a folder of masks, a mask for each image.

BUS2017, ISIC2018 and CVC-ClinicDB are such. A module of one makes a `Pairs` and offers
its methods as its doors. Copies of these sets differ in endings, in how pixels are
stored and in what else lies beside the images; all that is told apart here. The layout
of the authors' copies (`<case>/imaging.png`, `<case>/segmentation.png`) is read too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets import layout
from data_io.datasets.reading import read_any_image, read_mask
from data_io.datasets.record import Record

__all__ = ["Pairs"]

AGAIN = "Copy it again from the original download."
MOST_NAMES = 5  # that a remark lists
_Place = tuple[Path, str]


@dataclass(frozen=True)
class Pairs:
    """The doors of a data set of pairs.

    Attributes:
        facts: the data set's record.
        default: where it is looked for when nothing was said.
        folders: its folders of images and of masks in each known distribution, the
            likeliest first.
        pattern: regular expression of a case's id, which is an image's name without its
            ending.
        example: such an id, for messages.
        endings: of images and of masks, as distributed.
        suffix: what a mask's name has after the id.
        companions: regular expression of further images that belong to the
            distribution and are not used.
    """

    facts: Record
    default: Path
    folders: tuple[tuple[str, str], ...]
    pattern: str
    example: str
    endings: tuple[str, str]
    suffix: str = ""
    companions: str = r"(?!)"

    def locate(self, data: Path | None) -> Path:
        """Finds the folder that holds the folders of images and of masks.

        Args:
            data: that folder, its zip, or the folder that contains either; or a folder
                with a folder for each case; None for the default place.

        Raises:
            InputError: it is not there; says how to get it.
        """
        marks = tuple(name for pair in self.folders for name in pair)
        marks += (layout.PREPARED,)
        return layout.locate(self.facts, data, self.default, marks, self.default.name)

    def record(self, root: Path) -> Record:
        """The record of the data set at `root`; always the same."""
        return self.facts

    def is_prepared(self, root: Path) -> bool:
        """True for the layout of the authors' copies, whose cases are renamed."""
        return self._places(root) is None

    def cases(self, root: Path) -> tuple[str, ...]:
        """Returns the ids of the images and of the masks, in order."""
        places = self._places(root)
        if places is None:
            return layout.prepared_cases(root)
        ids = {case for folder in places for case, _ in self._found(*folder)}
        return layout.in_order(ids)

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Returns what the files of a case are, whether or not they are there.

        Returns:
            Paths by role: `image`, `observer1`.
        """
        places = self._places(root)
        if places is None:
            return layout.prepared(root, case)
        (images, _), (masks, suffix) = places
        return {
            "image": layout.picture(images, case, self.endings[0]),
            "observer1": layout.picture(masks, case + suffix, self.endings[1]),
        }

    def files(self, root: Path, case: str) -> tuple[Path, ...]:
        """Returns every raw file of a case that is there."""
        return tuple(path for path in self.roles(root, case).values() if path.exists())

    def references(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Returns the mask of a case, uint8 (rows, columns), 0 or 1, as `observer1`.

        Raises:
            InputError: it can't be decoded, or is no mask.
        """
        return {"observer1": read_mask(self.roles(root, case)["observer1"], grey=True)}

    def regions(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Returns where to measure: bool (rows, columns), the whole image alone."""
        label = self.references(root, case)["observer1"]
        return {"image": np.ones(label.shape, bool)}

    def picture(self, root: Path, case: str) -> np.ndarray:
        """Returns the image of a case as RGB, uint8 (rows, columns, 3)."""
        return read_any_image(self.roles(root, case)["image"])

    def interface(self, root: Path) -> Any:
        """Returns MIScnn's Data I/O interface: RGB images and masks."""
        from data_io.datasets.interface import RawInterface

        return RawInterface(
            self.facts,
            self.cases(root),
            lambda case: self.picture(root, case),
            lambda case: self.references(root, case)["observer1"],
        )

    def check(self, root: Path) -> list[str]:
        """Compares the folder with the layout, without opening a file.

        Returns:
            One line for each problem: which file, expected, found, what to do.
        """
        ids = self.cases(root)
        if not ids:
            return [f"{root}: expected images with masks, found none. {AGAIN}"]
        expected = [path for case in ids for path in self.roles(root, case).values()]
        title = self.facts.title
        problems = layout.missing(title, Path(root), expected, {"": AGAIN})
        return problems + [
            f"{path.relative_to(root)}: {text}"
            for folder in self._places(root) or ()
            for path, text in (*self._twice(*folder), *self._unknown(*folder))
        ]

    def remarks(self, root: Path) -> list[str]:
        """Returns what is unusual about the folder but stops nothing."""
        lines, found = [], len(self.cases(root))
        places = self._places(root) or ()
        extra = [path.name for folder in places for path in self._others(*folder)]
        if extra:
            more = f" and {len(extra) - MOST_NAMES} more" * (len(extra) > MOST_NAMES)
            names = ", ".join(extra[:MOST_NAMES])
            lines.append(f"not part of {self.facts.title}, ignored: {names}{more}")
        if found != self.facts.cases:
            lines.append(
                f"{found} images, the paper's copy had {self.facts.cases}; the split "
                "is 80/20 and 80/20, its sizes are not those of Table 1"
            )
        return lines

    def _places(self, root: Path) -> tuple[_Place, _Place] | None:
        """The folders of images and of masks, each with what its names end in.

        None where there is neither: the layout of the authors' copies.
        """
        for names in self.folders:
            images, masks = (Path(root) / name for name in names)
            if images.is_dir() or masks.is_dir():
                return (images, ""), (masks, self.suffix)
        return None

    def _found(self, folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
        """The id and path of every file of a case in a folder, in order."""
        whole = re.compile(f"({self.pattern}){re.escape(suffix)}")
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = whole.fullmatch(path.stem)
            if match and path.suffix in layout.ENDINGS:
                yield match[1], path

    def _others(self, folder: Path, suffix: str) -> list[Path]:
        """What else lies in a folder, but for what operating systems put there."""
        known = {path for _, path in self._found(folder, suffix)}
        every = sorted(folder.iterdir()) if folder.is_dir() else []
        return [p for p in every if p not in known and not layout.is_litter(p.name)]

    def _twice(self, folder: Path, suffix: str) -> Iterator[tuple[Path, str]]:
        """Further files of one case; 7 and 007 are one number."""
        first: dict[str, Path] = {}
        for case, path in self._found(folder, suffix):
            other = first.setdefault(case.lstrip("0"), path)
            if other != path:
                text = f"expected one file of this case, found {other.name} too. "
                yield path, text + "Keep one of them."

    def _unknown(self, folder: Path, suffix: str) -> Iterator[tuple[Path, str]]:
        """Images that no known distribution has."""
        for path in self._others(folder, suffix):
            strange = not re.fullmatch(self.companions, path.name)
            if strange and path.suffix in layout.ENDINGS:
                kind = self.example + suffix + path.suffix
                text = f"expected names such as {kind}, found another image. "
                yield path, text + "Take it out of the folder."
