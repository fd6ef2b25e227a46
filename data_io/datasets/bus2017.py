"""BUS2017, dataset B: 163 breast ultrasound images with one lesion or more each.

Collected with a Siemens ACUSON Sequoia C512 at the UDIAT centre of the Parc Taulí,
Sabadell (Yap and others, 2018). The images are 760x570 pixels on average; they are
grey, and read as RGB, as in the study.
"""

from pathlib import Path

from data_io.datasets.pairs import Pairs
from data_io.datasets.record import Record


class Bus2017(Pairs):
    """The data set BUS2017."""

    RECORD = Record(
        name="bus2017",
        title="BUS2017",
        classes=("background", "lesion"),
        channels=3,
        input_shape=(128, 128),
        counts={"training": 104, "validation": 26, "test": 33},
        source="https://helward.mmu.ac.uk/STAFF/M.Yap/dataset.php",
        licence=(
            "For research, by a signed agreement with the owners; no redistribution"
        ),
        citation=(
            "M. H. Yap, G. Pons, J. Martí and others, Automated breast ultrasound "
            "lesions detection using convolutional neural networks, IEEE Journal of "
            "Biomedical and Health Informatics 22(4):1218-1226, 2018"
        ),
        access=(
            "Ask for it (dataset B) on "
            "https://helward.mmu.ac.uk/STAFF/M.Yap/dataset.php: an agreement has to be "
            "signed. Unpack BUS.zip."
        ),
        layout="""\
  BUS/
    original/  000001.png ... 000163.png
    GT/        000001.png ... 000163.png""",
        grey_masks=True,
        any_mode=True,
    )
    DEFAULT = Path("data/BUS")
    FOLDERS = (("original", "GT"),)
    PATTERN = r"\d+"
    EXAMPLE = "000001"


bus2017 = Bus2017()
