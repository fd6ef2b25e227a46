"""ISIC2018, task 1: 2,594 dermoscopic images with the outline of the lesion.

The archive has JPEG images and PNG masks of the same size, 0 and 255; a lesion may fill
the whole image (https://challenge.isic-archive.com/landing/2018/45). Other copies, the
authors' among them, have masks as JPEG, with greys. Table 1 of the paper has 2,596
images, 417 of them for validation: two more than there are; 415 is what is left.
"""

from pathlib import Path

from data_io.datasets.pairs import Pairs
from data_io.datasets.record import Record
from data_io.fetching import downloads


class Isic2018(Pairs):
    """The data set ISIC2018."""

    RECORD = Record(
        name="isic2018",
        title="ISIC2018",
        classes=("background", "lesion"),
        channels=3,
        input_shape=(512, 512),
        counts={"training": 1661, "validation": 415, "test": 518},
        source="https://challenge.isic-archive.com/data/#2018",
        licence="CC BY-NC 4.0",
        citation=(
            "N. Codella, V. Rotemberg, P. Tschandl and others, Skin lesion analysis "
            "toward melanoma detection 2018: a challenge hosted by the International "
            "Skin Imaging Collaboration, arXiv:1902.03368, 2019; P. Tschandl, C. "
            "Rosendahl and H. Kittler, The HAM10000 dataset, Scientific Data 5:180161, "
            "2018"
        ),
        access=(
            "Get the training data and ground truth of tasks 1 and 2 from "
            "https://challenge.isic-archive.com/data/#2018 (free, no account), "
            "ISIC2018_Task1-2_Training_Input.zip (10 GB) and "
            "ISIC2018_Task1_Training_GroundTruth.zip, and unpack both into one folder."
        ),
        layout="""\
  ISIC2018/
    ISIC2018_Task1-2_Training_Input/       ISIC_0000000.jpg ...
    ISIC2018_Task1_Training_GroundTruth/   ISIC_0000000_segmentation.png ...""",
        downloads=downloads.ISIC2018,
        grey_masks=True,
        any_mode=True,
    )
    DEFAULT = Path("data/ISIC2018")
    FOLDERS = (
        ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    )
    PATTERN = r"ISIC_\d{7}"
    EXAMPLE = "ISIC_0000000"
    ENDINGS = (".jpg", ".png")
    SUFFIX = "_segmentation"
    # Lie beside the images in the archives of the challenge, since 2017.
    COMPANIONS = r"ISIC_\d{7}_superpixels\.png"


isic2018 = Isic2018()
