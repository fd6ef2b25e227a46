"""CVC-ClinicDB: 612 frames of colonoscopy videos with the outline of the polyp.

The frames come from 29 sequences of 25 videos; which frame is of which sequence is said
on the data set's page (`SEQUENCES`). A split at random, as in the paper, puts
neighbours of most test frames into training. `BySequence` is the same data set,
split by sequence.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from data_io.datasets.pairs import Pairs
from data_io.datasets.record import Record

FIRST = (
    1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298, 318, 343, 364,
    384, 409, 429, 448, 467, 479, 504, 529, 547, 572, 592, 613,
)  # fmt: skip
SEQUENCES = tuple(range(start, end) for start, end in pairwise(FIRST))
"""The frames of sequences 1 to 29, by the table on the data set's own page.

That is `RECORD.source`; https://github.com/dataset-ninja/cvc-612 (ABSTRACT.md) repeats
the table. The frames bear it out: at each of the 28 beginnings after the first they
stop being alike (tests/test_pairs.py). Two more cuts, to another polyp, lie within
sequences 8 (frame 173) and 21 (frame 438): that makes the 31 of which challenge papers
speak. A sequence of the table stays whole, so that a split by sequence cuts neither.
"""


class CvcClinicDB(Pairs):
    """The data set CVC-ClinicDB."""

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
            "J. Bernal, F. J. Sánchez, G. Fernández-Esparrach, D. Gil, C. Rodríguez "
            "and F. Vilariño, WM-DOVA maps for accurate polyp highlighting in "
            "colonoscopy: Validation vs. saliency maps from physicians, Computerized "
            "Medical Imaging and Graphics 43:99-111, 2015"
        ),
        access=(
            "Get CVC-ClinicDB.rar from https://polyp.grand-challenge.org/CVCClinicDB/ "
            "(an account may be needed) and unpack it; the copy of "
            "https://www.kaggle.com/datasets/balraj98/cvcclinicdb (account) will do "
            "too."
        ),
        layout="""\
  CVC-ClinicDB/
    Original/       1.tif ... 612.tif
    Ground Truth/   1.tif ... 612.tif
  or both folders in TIF/ or in PNG/ (*.png)""",
        grey_masks=True,
        any_mode=True,
    )
    DEFAULT = Path("data/CVC-ClinicDB")
    FOLDERS = (
        ("Original", "Ground Truth"),
        ("TIF/Original", "TIF/Ground Truth"),
        ("PNG/Original", "PNG/Ground Truth"),
    )
    PATTERN = r"\d+"
    EXAMPLE = "1"
    ENDINGS = (".tif", ".tif")

    def check(self, root: Path) -> list[str]:
        """Compare the folder with the layout; frames are numbered from 1 to 612."""
        known = () if self.is_prepared(root) else self.cases(root)
        return super().check(root) + [
            f"{self.roles(root, case)['image'].relative_to(root)}: expected a frame "
            "from 1 to 612, found another number. Use the names as distributed."
            for case in known
            if not sequence(case)
        ]

    def groups(self, root: Path) -> dict[str, str]:
        """Return the sequence of each frame, such as `sequence 7`, by case.

        Returns:
            {} in the layout of the authors' copies, whose frames may be renumbered.
        """
        if self.is_prepared(root):
            return {}
        group_of = {case: sequence(case) for case in self.cases(root)}
        return group_of if all(group_of.values()) else {}


class BySequence(CvcClinicDB):
    """The same files, split by video sequence: no sequence lies in two parts.

    It is a data set of its own: what is measured on frames of unseen sequences is
    another quantity than the paper's, and the two never share a table.
    """

    RECORD = replace(
        CvcClinicDB.RECORD,
        name="cvc-clinicdb-sequence",
        title="CVC-ClinicDB by sequence",
        split_by="sequence",
    )


def sequence(case: str) -> str:
    """The sequence of a frame; "" where its number is none of the data set's."""
    numbered = enumerate(SEQUENCES, 1)
    return next((f"sequence {n}" for n, each in numbered if int(case) in each), "")


cvc_clinicdb = CvcClinicDB()
cvc_clinicdb_sequence = BySequence()
