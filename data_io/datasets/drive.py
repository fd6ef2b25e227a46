"""DRIVE: 40 fundus photographs with vessels drawn by hand.

The raw layout is read as distributed. The split is fixed: the 20 test cases are the
authors' own, and of the 20 training cases the last four are the paper's validation
cases (inferred from the order of the released lists). Copies in the layout of the
authors' own (`<case>/imaging.png`, `<case>/segmentation.png`) are read too; their names
do not say the split, which has to be given.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np

from data_io.datasets import layout
from data_io.datasets.dataset import AGAIN, Dataset
from data_io.datasets.record import Record
from data_io.files.reading import read_mask

_SECOND = "test/2nd_manual"


class Drive(Dataset):
    """The data set DRIVE."""

    RECORD = Record(
        name="drive",
        title="DRIVE",
        classes=("background", "vessel"),
        channels=3,
        input_shape=(512, 512),
        counts={"training": 16, "validation": 4, "test": 20},
        raw_shape=(584, 565),
        source="https://drive.grand-challenge.org",
        licence=(
            "Original page: research and education only, no redistribution. Later "
            "listings (MedSegBench, Scientific Data 2024) say CC BY 4.0. Keep to the "
            "stricter terms"
        ),
        citation=(
            "J. Staal, M. D. Abramoff, M. Niemeijer, M. A. Viergever and B. van "
            "Ginneken, Ridge-based vessel segmentation in color images of the retina, "
            "IEEE Transactions on Medical Imaging 23(4):501-509, 2004"
        ),
        access=(
            "Get it from https://drive.grand-challenge.org (free, an account is "
            "needed) and unpack it. The test labels (test/1st_manual) must be in it; "
            "today's download is said to lack them."
        ),
        layout="""\
  DRIVE/
    training/  images/21_training.tif ... 40_training.tif
               1st_manual/21_manual1.gif ... 40_manual1.gif
               mask/21_training_mask.gif ... 40_training_mask.gif
    test/      images/01_test.tif ... 20_test.tif
               1st_manual/01_manual1.gif ... 20_manual1.gif
               2nd_manual/01_manual2.gif ... 20_manual2.gif
               mask/01_test_mask.gif ... 20_test_mask.gif""",
    )
    DEFAULT = Path("data/DRIVE")
    MARKS = ("training", "test", layout.PREPARED)
    HINTS: ClassVar = {
        "test/1st_manual": (
            "The current official download has none. Without these labels no training "
            "can be evaluated, so none is begun. Get the distribution that has "
            "test/1st_manual and put that folder here."
        ),
        "": AGAIN,
    }
    TRAINING = tuple(f"{number:02d}" for number in range(21, 41))
    TEST = tuple(f"{number:02d}" for number in range(1, 21))

    def cases(self, root: Path) -> tuple[str, ...]:
        """Return the ids of all cases: 21 to 40, then 01 to 20, or those of a copy."""
        if self.is_prepared(root):
            return layout.prepared_cases(root)
        return self.TRAINING + self.TEST

    def split(self, root: Path) -> dict[str, tuple[str, ...]]:
        """Return the cases of `training` (21-36), `validation` (37-40), `test`.

        {} for a copy whose names do not say it.
        """
        if self.is_prepared(root):
            return {}
        first, last = self.TRAINING[:16], self.TRAINING[16:]
        return {"training": first, "validation": last, "test": self.TEST}

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Return `image`, `observer1`, `observer2` (of the test), `field of view`.

        Of a copy in the authors' layout the first two.
        """
        if self.is_prepared(root):
            return layout.prepared(root, case)
        part = "test" if case in self.TEST else "training"
        folder = Path(root) / part
        files = {
            "image": folder / "images" / f"{case}_{part}.tif",
            "observer1": folder / "1st_manual" / f"{case}_manual1.gif",
            "observer2": folder / "2nd_manual" / f"{case}_manual2.gif",
            "field of view": folder / "mask" / f"{case}_{part}_mask.gif",
        }
        if part == "training":
            del files["observer2"]
        return files

    def regions(self, root: Path, case: str) -> dict[str, np.ndarray]:
        """Return the whole image and, where its mask is there, the field of view."""
        roles = self.roles(root, case)
        if "field of view" not in roles:
            return super().regions(root, case)
        inside = read_mask(roles["field of view"]) > 0
        return {"image": np.ones_like(inside), "field of view": inside}

    def expected(self, root: Path) -> list[Path]:
        """Return every file of the data set, those of the test first."""
        ids = self.cases(root) if self.is_prepared(root) else self.TEST + self.TRAINING
        return [path for case in ids for path in self.roles(root, case).values()]

    def check(self, root: Path) -> list[str]:
        """Compare the folder with the layout, without opening a file.

        A copy without any label of the second observer lacks nothing.
        """
        wanted = self.expected(root)
        if self._lacks_second_observer(root):
            wanted = [path for path in wanted if path.parent != Path(root) / _SECOND]
        return layout.missing("DRIVE", Path(root), wanted, self.HINTS)

    def remarks(self, root: Path) -> list[str]:
        """Return what is unusual about the folder but stops nothing."""
        extra = layout.unexpected(Path(root), self.expected(root))
        names = [str(path.relative_to(root)) for path in extra]
        lines = layout.ignored("DRIVE", names)
        if self.is_prepared(root):
            lines.append(
                f"{len(self.cases(root))} cases in the layout of the authors' copies: "
                "measures in the field of view and against observer 2 are left out"
            )
        elif self._lacks_second_observer(root):
            lines.append(
                f"{_SECOND} is not there: measures against observer 2 are left out"
            )
        return lines

    def _lacks_second_observer(self, root: Path) -> bool:
        """True where no label of the second observer came with the data set."""
        if self.is_prepared(root):
            return True
        return not any(self.roles(root, c)["observer2"].exists() for c in self.TEST)


drive = Drive()
