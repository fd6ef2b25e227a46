"""What can be downloaded without an account, from where, and how it is known.

Sizes and checksums are those that public sources state, named in `source`. Where none
states a checksum there is none here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Download:
    """One file on a server.

    Attributes:
        urls: its addresses, the one to try first and then others with the same file.
        path: where it belongs within the data set's folder, with forward slashes; of a
            zip, what is in it goes into that folder.
        size: bytes; exactly so many where `sha256` is stated, else about as many.
        sha256: as stated; None where no source does.
        source: who states size and checksum, "" for nobody.
    """

    urls: tuple[str, ...]
    path: str
    size: int
    sha256: str | None = None
    source: str = ""

    @property
    def is_archive(self) -> bool:
        """True for what is unpacked."""
        return self.path.endswith(".zip")


DSB2018 = (
    Download(
        urls=("https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",),
        path="stage1_train.zip",
        size=82_923_446,
        sha256="dcb6edc2690f137406638b2309581a71522c4dff19157d118453b448dcddcb68",
        source=(
            "two public manifests that agree: rajpatilrobotics/tessscope "
            "(data/manifests/bbbc-assets.json, with the size) and "
            "fsantibanezleal/CAOS_FrothSeg (real-adjacent-dataset-manifest.json)"
        ),
    ),
)

ISIC_HOSTS = (
    "https://isic-challenge-data.s3.amazonaws.com/2018/",
    "https://isic-archive.s3.amazonaws.com/challenges/2018/",
)
ISIC_SOURCE = (
    "constantinpape/torch-em (torch_em/data/datasets/medical/isic.py); the size from "
    "other public scripts that fetch the same address"
)
ISIC2018 = tuple(
    Download(tuple(host + name for host in ISIC_HOSTS), name, size, sha256, ISIC_SOURCE)
    for name, size, sha256 in (
        (
            "ISIC2018_Task1-2_Training_Input.zip",
            11_165_358_566,
            "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
        ),
        (
            "ISIC2018_Task1_Training_GroundTruth.zip",
            27_402_895,
            "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
        ),
    )
)

# The label maps are pinned to a commit of the challenge's repository, whose script
# (starter_code/get_imaging_v2.py) takes the images from the first host; its older
# script (get_imaging.py) from the second. Neither publishes a list of checksums; the
# first host states the SHA-256 of a file when it is asked for it.
KITS19_LABELS = (
    "https://raw.githubusercontent.com/neheller/kits19/"
    "456b293435b25303bbc7995f094f83a0afdff0eb/data/case_{:05d}/segmentation.nii.gz",
)
KITS19_IMAGES = (
    "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/"
    "65f1f295873a326230153c7e1de0c7dba10f0b29/images/case_{:05d}.nii.gz",
    "https://kits19.sfo2.digitaloceanspaces.com/master_{:05d}.nii.gz",
)
# About 20 GB in all, as the repository's README once said, and 0.15 MB a label map.
KITS19 = tuple(
    Download(
        urls=tuple(url.format(number) for url in urls),
        path=f"data/case_{number:05d}/{name}.nii.gz",
        size=size,
    )
    for number in range(210)
    for name, urls, size in (
        ("segmentation", KITS19_LABELS, 150_000),
        ("imaging", KITS19_IMAGES, 95_000_000),
    )
)
