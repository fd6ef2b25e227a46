"""Data sets of pairs: a folder of images, a folder of masks, a mask for each image.

BUS2017, ISIC2018 and CVC-ClinicDB are such. Copies of these sets differ in endings, in
how pixels are stored and in what else lies beside the images; all that is told apart
here. The layout of the authors' copies (`<case>/imaging.png`,
`<case>/segmentation.png`) is read too.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from data_io.datasets import layout
from data_io.datasets.dataset import AGAIN, Dataset
from data_io.files import archives

_Place = tuple[Path, str]


class Pairs(Dataset):
    """A data set of pairs.

    Attributes:
        FOLDERS: its folders of images and of masks in each known distribution, the
            likeliest first.
        PATTERN: regular expression of a case's id, which is an image's name without its
            ending.
        EXAMPLE: such an id, for messages.
        ENDINGS: of images and of masks, as distributed.
        SUFFIX: what a mask's name has after the id.
        COMPANIONS: regular expression of further images that belong to the
            distribution and are not used.
    """

    FOLDERS: ClassVar[tuple[tuple[str, str], ...]]
    PATTERN: ClassVar[str]
    EXAMPLE: ClassVar[str]
    ENDINGS: ClassVar[tuple[str, str]] = (".png", ".png")
    SUFFIX: ClassVar[str] = ""
    COMPANIONS: ClassVar[str] = r"(?!)"

    def __init_subclass__(cls) -> None:
        """The folders of images and of masks tell the data set's own."""
        cls.MARKS = (*(name for pair in cls.FOLDERS for name in pair), layout.PREPARED)

    def cases(self, root: Path) -> tuple[str, ...]:
        """Return the ids of the images and of the masks, in order."""
        places = self._places(root)
        if places is None:
            return layout.prepared_cases(root)
        ids = {case for folder in places for case, _ in self._pictures(*folder)}
        return layout.in_order(ids)

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Return `image` and `observer1`, whether or not they are there."""
        places = self._places(root)
        if places is None:
            return layout.prepared(root, case)
        (images, _), (masks, suffix) = places
        return {
            "image": layout.picture(images, case, self.ENDINGS[0]),
            "observer1": layout.picture(masks, case + suffix, self.ENDINGS[1]),
        }

    def check(self, root: Path) -> list[str]:
        """Compare the folder with the layout, without opening a file."""
        if not self.cases(root):
            return [f"{root}: expected images with masks, found none. {AGAIN}"]
        return super().check(root) + [
            f"{path.relative_to(root)}: {text}"
            for folder in self._places(root) or ()
            for path, text in (*self._twice(*folder), *self._unknown(*folder))
        ]

    def remarks(self, root: Path) -> list[str]:
        """Return what is unusual about the folder but stops nothing."""
        places = self._places(root) or ()
        extra = [path.name for folder in places for path in self._others(*folder)]
        return layout.ignored(self.RECORD.title, extra) + super().remarks(root)

    def _places(self, root: Path) -> tuple[_Place, _Place] | None:
        """Folders of images and masks, and what names there end in; None: neither."""
        for names in self.FOLDERS:
            images, masks = (Path(root) / name for name in names)
            if images.is_dir() or masks.is_dir():
                return (images, ""), (masks, self.SUFFIX)
        return None

    def _pictures(self, folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
        """The id and path of every file of a case in a folder, in order."""
        whole = re.compile(f"({self.PATTERN}){re.escape(suffix)}")
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = whole.fullmatch(path.stem)
            if match and path.suffix in layout.ENDINGS:
                yield match[1], path

    def _others(self, folder: Path, suffix: str) -> list[Path]:
        """What else lies in a folder, but for what operating systems put there."""
        known = {path for _, path in self._pictures(folder, suffix)}
        every = sorted(folder.iterdir()) if folder.is_dir() else []
        return [p for p in every if p not in known and not archives.is_litter(p.name)]

    def _twice(self, folder: Path, suffix: str) -> Iterator[tuple[Path, str]]:
        """Further files of one case; 7 and 007 are one number."""
        first: dict[str, Path] = {}
        for case, path in self._pictures(folder, suffix):
            other = first.setdefault(case.lstrip("0"), path)
            if other != path:
                text = f"expected one file of this case, found {other.name} too. "
                yield path, text + "Keep one of them."

    def _unknown(self, folder: Path, suffix: str) -> Iterator[tuple[Path, str]]:
        """Images that no known distribution has."""
        for path in self._others(folder, suffix):
            strange = not re.fullmatch(self.COMPANIONS, path.name)
            if strange and path.suffix in layout.ENDINGS:
                kind = self.EXAMPLE + suffix + path.suffix
                text = f"expected names such as {kind}, found another image. "
                yield path, text + "Take it out of the folder."
