"""Hippocampus: 260 MR volumes of the Medical Segmentation Decathlon, task 4.

Each volume is a box around one hippocampus, about 35x51x35 voxels of 1 mm. Volumes keep
the axes of their files: axis 0 runs from left to right, axis 1 from back to front, axis
2 from foot to head. Their scales of intensity differ, which the z-score of each volume
evens out. Not in the paper; the split is drawn by seed. The names do not say which
volumes are of one person.
"""

from pathlib import Path

from data_io.datasets.dataset import Dataset
from data_io.datasets.record import Record


class Hippocampus(Dataset):
    """The data set Hippocampus."""

    RECORD = Record(
        name="hippocampus",
        title="Hippocampus",
        classes=("background", "anterior hippocampus", "posterior hippocampus"),
        channels=1,
        # Multiples of 16 nearest to the median size.
        input_shape=(32, 48, 32),
        counts={"training": 166, "validation": 42, "test": 52},
        source="http://medicaldecathlon.com",
        licence="CC BY-SA 4.0",
        citation=(
            "M. Antonelli, A. Reinke, S. Bakas and others, The Medical Segmentation "
            "Decathlon, Nature Communications 13:4128, 2022"
        ),
        access=(
            "Get Task04_Hippocampus.tar from http://medicaldecathlon.com (no account) "
            "and unpack it."
        ),
        layout="""\
  Task04_Hippocampus/
    imagesTr/  hippocampus_001.nii.gz ...
    labelsTr/  hippocampus_001.nii.gz ...""",
        axes=(0, 1, 2),
        directions="RAS",
    )
    DEFAULT = Path("data/Task04_Hippocampus")
    MARKS = ("imagesTr", "labelsTr")
    ENDING = ".nii.gz"

    def cases(self, root: Path) -> tuple[str, ...]:
        """Return the names without ending, of images and of label maps.

        The archive's hidden files, `._hippocampus_001.nii.gz`, are none of them.
        """
        pattern = f"hippocampus_*{self.ENDING}"
        paths = [path for part in self.MARKS for path in (root / part).glob(pattern)]
        return tuple(sorted({path.name.removesuffix(self.ENDING) for path in paths}))

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Return `image` and `observer1`, whether or not they are there."""
        image, label = (root / part / f"{case}{self.ENDING}" for part in self.MARKS)
        return {"image": image, "observer1": label}


hippocampus = Hippocampus()
