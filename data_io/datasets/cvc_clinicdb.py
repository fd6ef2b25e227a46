"""CVC-ClinicDB: 612 frames of colonoscopy videos with the outline of the polyp.

The frames come from 29 sequences of 25 videos; which frame is of which sequence is said
on the data set's page (`SEQUENCES`). A split at random, as in the paper, puts
neighbours of most test frames into training. `cvc_clinicdb_sequence` is the same data
set, split by sequence.
"""

from itertools import pairwise
from pathlib import Path

from data_io.datasets.pairs import Pairs
from data_io.datasets.record import Record

__all__ = [
    "DEFAULT", "RECORD", "SEQUENCES", "cases", "check", "files", "groups", "interface",
    "locate", "picture", "record", "references", "regions", "remarks", "roles",
]  # fmt: skip

LAYOUT = """\
  CVC-ClinicDB/
    Original/       1.tif ... 612.tif
    Ground Truth/   1.tif ... 612.tif
  or both folders in TIF/ or in PNG/ (*.png)"""

RECORD = Record(
    name="cvc-clinicdb",
    title="CVC-ClinicDB",
    classes=("background", "polyp"),
    channels=3,
    input_shape=(288, 384),
    counts={"training": 392, "validation": 98, "test": 122},
    raw_shape=(288, 384),
    source="https://polyp.grand-challenge.org/CVCClinicDB/",
    licence=(
        "For research and education only, not for commercial use. Images: Hospital "
        "Clinic, Barcelona; annotations: Computer Vision Center, Barcelona"
    ),
    citation=(
        "J. Bernal, F. J. Sánchez, G. Fernández-Esparrach, D. Gil, C. Rodríguez and F. "
        "Vilariño, WM-DOVA maps for accurate polyp highlighting in colonoscopy: "
        "Validation vs. saliency maps from physicians, Computerized Medical Imaging "
        "and Graphics 43:99-111, 2015"
    ),
    access=(
        "Get CVC-ClinicDB.rar from https://polyp.grand-challenge.org/CVCClinicDB/ (an "
        "account may be needed) and unpack it; the copy of "
        "https://www.kaggle.com/datasets/balraj98/cvcclinicdb (account) will do too."
    ),
    layout=LAYOUT,
    grey_masks=True,
    any_mode=True,
)

DEFAULT = Path("data/CVC-ClinicDB")

FIRST = (
    1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298, 318, 343, 364,
    384, 409, 429, 448, 467, 479, 504, 529, 547, 572, 592, 613,
)  # fmt: skip
SEQUENCES = tuple(range(start, end) for start, end in pairwise(FIRST))
"""The frames of sequences 1 to 29, by the table on the data set's own page.

That is `RECORD.source`; https://github.com/dataset-ninja/cvc-612 (ABSTRACT.md) repeats
the table. Challenge papers speak of 31 sequences for the same frames.
"""

_PAIRS = Pairs(
    RECORD,
    DEFAULT,
    folders=(
        ("Original", "Ground Truth"),
        ("TIF/Original", "TIF/Ground Truth"),
        ("PNG/Original", "PNG/Ground Truth"),
    ),
    pattern=r"\d+",
    example="1",
    endings=(".tif", ".tif"),
)

locate, record, cases, roles = _PAIRS.locate, _PAIRS.record, _PAIRS.cases, _PAIRS.roles
files, references, regions = _PAIRS.files, _PAIRS.references, _PAIRS.regions
interface, picture, remarks = _PAIRS.interface, _PAIRS.picture, _PAIRS.remarks


def check(root: Path) -> list[str]:
    """Compares the folder with the layout, without opening a file.

    Returns:
        One line for each problem: which file, expected, found, what to do.
    """
    known = () if _PAIRS.is_prepared(root) else cases(root)
    return _PAIRS.check(root) + [
        f"{roles(root, case)['image'].relative_to(root)}: expected a frame from 1 to "
        "612, found another number. Use the names as distributed."
        for case in known
        if not sequence(case)
    ]


def groups(root: Path) -> dict[str, str]:
    """Returns the sequence of each frame, such as `sequence 7`, by case.

    Returns:
        {} in the layout of the authors' copies, whose frames may be renumbered.
    """
    if _PAIRS.is_prepared(root):
        return {}
    found = {case: sequence(case) for case in cases(root)}
    return found if all(found.values()) else {}


def sequence(case: str) -> str:
    """The sequence of a frame; "" where its number is none of the data set's."""
    number = int(case)
    found = [n for n, frames in enumerate(SEQUENCES, 1) if number in frames]
    return f"sequence {found[0]}" if found else ""
