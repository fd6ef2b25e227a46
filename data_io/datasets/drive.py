"""DRIVE: 40 fundus photographs with vessels drawn by hand.

The raw layout is read as distributed. The split is fixed: the 20 test cases are the
authors' own, and of the 20 training cases the last four are the paper's validation
cases (inferred from the order of the released lists). Copies in the layout of the
authors' own (`<case>/imaging.png`, `<case>/segmentation.png`) are read too; their names
do not say the split, which has to be given.
"""

from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets import layout
from data_io.datasets.reading import read_image, read_mask
from data_io.datasets.record import Record
from data_io.errors import InputError

__all__ = [
    "RECORD", "cases", "check", "files", "interface", "locate", "record", "references",
    "regions", "remarks", "roles", "split",
]  # fmt: skip

LAYOUT = """\
  DRIVE/
    training/  images/21_training.tif ... 40_training.tif
               1st_manual/21_manual1.gif ... 40_manual1.gif
               mask/21_training_mask.gif ... 40_training_mask.gif
    test/      images/01_test.tif ... 20_test.tif
               1st_manual/01_manual1.gif ... 20_manual1.gif
               2nd_manual/01_manual2.gif ... 20_manual2.gif
               mask/01_test_mask.gif ... 20_test_mask.gif"""

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
        "J. Staal, M. D. Abramoff, M. Niemeijer, M. A. Viergever and B. van Ginneken, "
        "Ridge-based vessel segmentation in color images of the retina, IEEE "
        "Transactions on Medical Imaging 23(4):501-509, 2004"
    ),
    access=(
        "Get it from https://drive.grand-challenge.org (free, an account is needed) "
        "and unpack it. The test labels (test/1st_manual) must be in it; today's "
        "download is said to lack them."
    ),
    layout=LAYOUT,
)

DEFAULT = Path("data/DRIVE")
TRAINING = tuple(f"{number:02d}" for number in range(21, 41))
TEST = tuple(f"{number:02d}" for number in range(1, 21))
SECOND = "test/2nd_manual"
AGAIN = "Copy it again from the original download."
HINTS = {
    "test/1st_manual": (
        "The current official download has none. Without these labels no training can "
        "be evaluated, so none is begun. Get the distribution that has test/1st_manual "
        "and put that folder here."
    ),
    "": AGAIN,
}


def locate(data: Path | None) -> Path:
    """Finds the folder that holds `training` and `test`.

    Args:
        data: DRIVE's own folder or zip, or the folder that contains either; None for
            `data/DRIVE`.

    Raises:
        InputError: it is not there; says how to get it.
    """
    marks = ("training", "test", layout.PREPARED)
    return layout.locate(RECORD, data, DEFAULT, marks)


def is_prepared(root: Path) -> bool:
    """True for the layout of the authors' copies."""
    return not any((Path(root) / part).is_dir() for part in ("training", "test"))


def cases(root: Path) -> tuple[str, ...]:
    """Returns the ids of all cases: 21 to 40, then 01 to 20, or those of a copy."""
    return layout.prepared_cases(root) if is_prepared(root) else TRAINING + TEST


def record(root: Path) -> Record:
    """The record of the data set at `root`; for DRIVE always the same."""
    return RECORD


def split(root: Path) -> dict[str, tuple[str, ...]]:
    """Returns the cases of `training` (21-36), `validation` (37-40), `test` (01-20).

    {} for a copy whose names do not say it.
    """
    if is_prepared(root):
        return {}
    return {"training": TRAINING[:16], "validation": TRAINING[16:], "test": TEST}


def roles(root: Path, case: str) -> dict[str, Path]:
    """Returns what each raw file of a case is, whether or not it is there.

    Args:
        root: folder from `locate`.
        case: `01` to `40`.

    Returns:
        Paths by role: `image`, `observer1`, `observer2` (test only), `field of view`;
        of a copy in the authors' layout the first two.

    Raises:
        InputError: there is no such case.
    """
    if is_prepared(root):
        return layout.prepared(root, case)
    if case not in TRAINING + TEST:
        raise InputError(f"DRIVE: expected a case from 01 to 40, received {case!r}.")
    part = "test" if case in TEST else "training"
    folder = Path(root) / part
    found = {
        "image": folder / "images" / f"{case}_{part}.tif",
        "observer1": folder / "1st_manual" / f"{case}_manual1.gif",
        "observer2": folder / "2nd_manual" / f"{case}_manual2.gif",
        "field of view": folder / "mask" / f"{case}_{part}_mask.gif",
    }
    if part == "training":
        del found["observer2"]
    return found


def files(root: Path, case: str) -> tuple[Path, ...]:
    """Returns every raw file of a case that is there."""
    return tuple(path for path in roles(root, case).values() if path.exists())


def references(root: Path, case: str) -> dict[str, np.ndarray]:
    """Returns the label maps of a case at native size.

    Returns:
        uint8 (584, 565), 0 or 1, by observer. A label that is not there is left out.

    Raises:
        InputError: a label can't be decoded.
    """
    labels = {k: v for k, v in roles(root, case).items() if k.startswith("observer")}
    return {k: read_mask(path) for k, path in labels.items() if path.exists()}


def regions(root: Path, case: str) -> dict[str, np.ndarray]:
    """Returns where to measure: the whole image, and inside the round field of view.

    Returns:
        bool (584, 565), by name of the region; the former alone for a copy without
        masks of the field of view.

    Raises:
        InputError: the mask is missing or can't be decoded.
    """
    if is_prepared(root):
        return {"image": np.ones(references(root, case)["observer1"].shape, bool)}
    inside = read_mask(roles(root, case)["field of view"]) > 0
    return {"image": np.ones_like(inside), "field of view": inside}


def interface(root: Path) -> Any:
    """Returns MIScnn's Data I/O interface: RGB images and observer 1's labels."""
    from data_io.datasets.interface import RawInterface

    return RawInterface(
        RECORD,
        cases(root),
        lambda case: read_image(roles(root, case)["image"]),
        lambda case: read_mask(roles(root, case)["observer1"]),
    )


def expected(root: Path) -> list[Path]:
    """Every file of the data set, as distributed."""
    ids = cases(root) if is_prepared(root) else TEST + TRAINING
    return [path for case in ids for path in roles(root, case).values()]


def lacks_second_observer(root: Path) -> bool:
    """True where no label of the second observer came with the data set."""
    if is_prepared(root):
        return True
    return not any(roles(root, case)["observer2"].exists() for case in TEST)


def check(root: Path) -> list[str]:
    """Compares the folder with the layout, without opening a file.

    Returns:
        One line for each problem: which file, expected, found, what to do.
    """
    wanted = expected(root)
    if lacks_second_observer(root):
        wanted = [path for path in wanted if path.parent != Path(root) / SECOND]
    problems = layout.missing("DRIVE", Path(root), wanted, HINTS)
    return problems + [
        f"{path.relative_to(root)}: expected the 40 cases 01 to 40, found another "
        "one. Take it out of the folder."
        for path in surplus(root)
        if is_another_case(path)
    ]


def surplus(root: Path) -> list[Path]:
    """Files that do not belong to DRIVE."""
    return layout.unexpected(Path(root), expected(root))


def is_another_case(path: Path) -> bool:
    """True for an image that would make a 41st case."""
    in_place = path.parent.name == "images" and path.suffix.lower() == ".tif"
    return in_place and not layout.is_litter(path.name)


def remarks(root: Path) -> list[str]:
    """Returns what is unusual about the folder but stops nothing."""
    extra = [
        str(path.relative_to(root))
        for path in surplus(root)
        if not is_another_case(path)
    ]
    lines = [f"not part of DRIVE, ignored: {', '.join(extra)}"] if extra else []
    if is_prepared(root):
        lines.append(
            f"{len(cases(root))} cases in the layout of the authors' copies: measures "
            "in the field of view and against observer 2 are left out"
        )
    elif lacks_second_observer(root):
        lines.append(f"{SECOND} is not there: measures against observer 2 are left out")
    return lines
