"""KiTS19: CT volumes of 210 patients with kidney tumours, in the layout as distributed.

Volumes keep the axes of their files: axis 0 runs through the slices, from head to foot.
Of the 210 labelled cases the paper leaves out six; the split of the other 204 is drawn
by seed. The label maps come with the repository of the challenge, the CT images have to
be downloaded by its script.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets import downloads, layout, nifti
from data_io.datasets.record import Record
from data_io.errors import InputError

__all__ = [
    "AXES", "DIRECTIONS", "RECORD", "cases", "check", "files", "geometry", "interface",
    "locate", "record", "references", "regions", "remarks", "roles",
]  # fmt: skip

LAYOUT = """\
  kits19/data/
    case_00000/  imaging.nii.gz  segmentation.nii.gz
    ...
    case_00209/  imaging.nii.gz  segmentation.nii.gz"""

RECORD = Record(
    name="kits19",
    title="KiTS19",
    classes=("background", "kidney", "kidney tumour"),
    channels=1,
    input_shape=(80, 160, 160),
    counts={"training": 130, "validation": 33, "test": 41},
    raw_shape=None,
    source="https://github.com/neheller/kits19",
    licence="CC BY-NC-SA 4.0",
    citation=(
        "N. Heller, N. Sathianathen, A. Kalapara and others, The KiTS19 challenge "
        "data: 300 kidney tumor cases with clinical context, CT semantic "
        "segmentations, and surgical outcomes, arXiv:1904.00445, 2019"
    ),
    access=(
        "Clone https://github.com/neheller/kits19 (free, no account), which has the "
        "label maps, and run `python -m starter_code.get_imaging` in it, which "
        "downloads the CT images beside them (some 30 GB)."
    ),
    layout=LAYOUT,
    downloads=downloads.KITS19,
    # Both from the released code; the paper says neither.
    spacing_mm=(3.22, 1.62, 1.62),
    clip=(-79, 304),
)

# Slices, rows, columns. Not in the record: with it in their settings, runs of before
# would be other runs.
AXES = (2, 1, 0)
DIRECTIONS = "IPL"  # towards feet, back and left, in every file as distributed
DEFAULT = Path("data/kits19")
IMAGE, LABEL = "imaging.nii.gz", "segmentation.nii.gz"
LABELLED = 210
EXCLUDED = tuple(f"case_{number:05d}" for number in (15, 23, 37, 68, 125, 133))
AGAIN = "Copy it again from the original download."


def locate(data: Path | None) -> Path:
    """Finds the folder that holds a folder for each case.

    Args:
        data: that folder, the repository's, the folder that contains either, or a zip;
            None for `data/kits19`.

    Raises:
        InputError: it is not there; says how to get it.
    """
    start = DEFAULT if data is None else Path(data)
    for folder in (start / "data", start / "kits19" / "data"):
        if any(folder.glob("case_*")):
            return folder
    return layout.locate(RECORD, data, DEFAULT, ("case_*",), "kits19")


def record(root: Path) -> Record:
    """The record of the data set at `root`; always the same."""
    return RECORD


def folders(root: Path) -> list[str]:
    """The names of all folders of cases, in order."""
    found = (path.name for path in Path(root).iterdir() if path.is_dir())
    return sorted(name for name in found if re.fullmatch(r"case_\d{5}", name))


def cases(root: Path) -> tuple[str, ...]:
    """Returns the labelled cases that are there, less those the paper leaves out."""
    labelled = [name for name in folders(root) if int(name[-5:]) < LABELLED]
    return tuple(name for name in labelled if name not in EXCLUDED)


def roles(root: Path, case: str) -> dict[str, Path]:
    """Returns what the files of a case are, whether or not they are there.

    Returns:
        Paths by role: `image`, `observer1`.

    Raises:
        InputError: there is no such case.
    """
    folder = Path(root) / case
    if not folder.is_dir():
        raise InputError(f"KiTS19: expected a case in {root}, received {case!r}.")
    return {"image": folder / IMAGE, "observer1": folder / LABEL}


def files(root: Path, case: str) -> tuple[Path, ...]:
    """Returns every raw file of a case that is there."""
    return tuple(path for path in roles(root, case).values() if path.exists())


def geometry(root: Path, case: str) -> nifti.Geometry:
    """Returns where the voxels of a case's image lie: affine, voxel size, header.

    Raises:
        InputError: the image is missing or damaged.
    """
    return nifti.geometry(roles(root, case)["image"])


def references(root: Path, case: str) -> dict[str, np.ndarray]:
    """Returns the label map of a case: 0 background, 1 kidney, 2 tumour.

    Returns:
        uint8 (slices, rows, columns), as `observer1`.

    Raises:
        InputError: it is missing or can't be decoded.
    """
    return {"observer1": nifti.read_label(roles(root, case)["observer1"])}


def regions(root: Path, case: str) -> dict[str, np.ndarray]:
    """Returns where to measure: bool (slices, rows, columns), the whole volume alone.

    It is one True seen from everywhere: read-only, and no memory.
    """
    shape = nifti.geometry(roles(root, case)["observer1"]).shape
    return {"image": np.broadcast_to(np.True_, shape)}


def interface(root: Path) -> Any:
    """Returns MIScnn's Data I/O interface: volumes, label maps and voxel sizes."""
    from data_io.datasets.interface import RawInterface

    return RawInterface(
        record(root),
        cases(root),
        lambda case: nifti.read(roles(root, case)["image"])[..., np.newaxis],
        lambda case: references(root, case)["observer1"][..., np.newaxis],
        lambda case: details(root, case),
    )


def details(root: Path, case: str) -> dict[str, Any]:
    """What MIScnn's subfunctions ask for, as its own NIfTI interface gives it."""
    found = geometry(root, case)
    spacing_mm = np.array(found.spacing_mm)
    return {"type": "nifti", "affine": found.affine, "spacing": spacing_mm}


def check(root: Path) -> list[str]:
    """Compares the folder with the layout, without opening a file.

    Returns:
        One line for each problem: which file, expected, found, what to do.
    """
    expected = [roles(root, case) for case in cases(root)]
    if not expected:
        return [f"{root}: expected cases from case_00000 on, found none. {AGAIN}"]
    images = [paths["image"] for paths in expected]
    problems = missing(root, [paths["observer1"] for paths in expected], AGAIN)
    if not any(path.exists() for path in images):
        return [
            f"expected {IMAGE} beside the label maps of {len(images)} cases, found "
            f"none. {RECORD.access} Without them PHANTOM=1 simulates images over these "
            "label maps.",
            *problems,
        ]
    return problems + missing(root, images, RECORD.access)


def missing(root: Path, paths: list[Path], hint: str) -> list[str]:
    """Says which files are not there."""
    absent = [path.relative_to(root) for path in paths if not path.exists()]
    return [f"{path}: expected a file, found none. {hint}" for path in absent]


def remarks(root: Path) -> list[str]:
    """Returns what is unusual about the folder but stops nothing."""
    here, found = folders(root), cases(root)
    lines = []
    if len(found) != RECORD.cases:
        lines.append(
            f"{len(found)} cases, not the paper's {RECORD.cases}: the split has other "
            "sizes than Table 1"
        )
    left_out = [case for case in here if case in EXCLUDED]
    if left_out:
        lines.append(f"left out, as in the paper: {', '.join(left_out)}")
    others = len(here) - len(found) - len(left_out)
    if others:
        lines.append(
            f"{others} cases from case_{LABELLED:05d} on have no labels: not used"
        )
    return lines
