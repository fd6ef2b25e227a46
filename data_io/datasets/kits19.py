"""KiTS19: CT volumes of 210 patients with kidney tumours, in the layout as distributed.

Volumes keep the axes of their files: axis 0 runs through the slices, from head to foot.
Of the 210 labelled cases the paper leaves out six; the split of the other 204 is drawn
by seed. The label maps come with the repository of the challenge, the CT images have to
be downloaded by its script.
"""

import re
from functools import partial
from pathlib import Path

from data_io.datasets import layout
from data_io.datasets.dataset import AGAIN, Dataset
from data_io.datasets.record import Record
from data_io.fetching import downloads


class Kits19(Dataset):
    """The data set KiTS19."""

    RECORD = Record(
        name="kits19",
        title="KiTS19",
        classes=("background", "kidney", "kidney tumour"),
        channels=1,
        input_shape=(80, 160, 160),
        counts={"training": 130, "validation": 33, "test": 41},
        source="https://github.com/neheller/kits19",
        licence="CC BY-NC-SA 4.0",
        citation=(
            "N. Heller, N. Sathianathen, A. Kalapara and others, The KiTS19 challenge "
            "data: 300 kidney tumor cases with clinical context, CT semantic "
            "segmentations, and surgical outcomes, arXiv:1904.00445, 2019"
        ),
        access=(
            "Clone https://github.com/neheller/kits19 (free, no account), which has "
            "the label maps, and run `python -m starter_code.get_imaging` in it, which "
            "downloads the CT images beside them (some 30 GB)."
        ),
        layout="""\
  kits19/data/
    case_00000/  imaging.nii.gz  segmentation.nii.gz
    ...
    case_00209/  imaging.nii.gz  segmentation.nii.gz""",
        downloads=downloads.KITS19,
        # Both from the released code; the paper says neither.
        spacing_mm=(3.22, 1.62, 1.62),
        clip=(-79, 304),
    )
    DEFAULT = Path("data/kits19")
    MARKS = ("case_*",)
    # Slices, rows, columns. Not in the record: with it in their settings, runs of
    # before would be other runs.
    AXES = (2, 1, 0)
    # Towards feet, back and left, in every file as distributed.
    DIRECTIONS: str | None = "IPL"
    IMAGE, LABEL = "imaging.nii.gz", "segmentation.nii.gz"
    LABELLED = 210
    EXCLUDED = tuple(f"case_{n:05d}" for n in (15, 23, 37, 68, 125, 133))

    def locate(self, data: Path | None) -> Path:
        """Find the folder of the cases, also from that of the repository."""
        start = self.DEFAULT if data is None else Path(data)
        for folder in (start / "data", start / "kits19" / "data"):
            if any(folder.glob("case_*")):
                return folder
        return super().locate(data)

    def cases(self, root: Path) -> tuple[str, ...]:
        """Return the labelled cases there are, less those the paper leaves out."""
        labelled = [name for name in _folders(root) if int(name[-5:]) < self.LABELLED]
        return tuple(name for name in labelled if name not in self.EXCLUDED)

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        """Return `image` and `observer1`, whether or not they are there."""
        folder = Path(root) / case
        return {"image": folder / self.IMAGE, "observer1": folder / self.LABEL}

    def check(self, root: Path) -> list[str]:
        """Compare the folder with the layout, without opening a file."""
        files = [self.roles(root, case) for case in self.cases(root)]
        if not files:
            return [f"{root}: expected cases from case_00000 on, found none. {AGAIN}"]
        images, labels = ([paths[k] for paths in files] for k in ("image", "observer1"))
        missing = partial(layout.missing, self.RECORD.title, Path(root))
        problems = missing(labels, {"": AGAIN})
        if any(path.exists() for path in images):
            return problems + missing(images, {"": self.RECORD.access})
        return [
            f"expected {self.IMAGE} beside the label maps of {len(images)} cases, "
            f"found none. {self.RECORD.access} Without them PHANTOM=1 simulates "
            "images over these label maps.",
            *problems,
        ]

    def remarks(self, root: Path) -> list[str]:
        """Return what is unusual about the folder but stops nothing."""
        folders, cases = _folders(root), self.cases(root)
        lines = []
        if len(cases) != self.RECORD.cases:
            lines.append(
                f"{len(cases)} cases, not the paper's {self.RECORD.cases}: the split "
                "has other sizes than Table 1"
            )
        left_out = [case for case in folders if case in self.EXCLUDED]
        if left_out:
            lines.append(f"left out, as in the paper: {', '.join(left_out)}")
        others = len(folders) - len(cases) - len(left_out)
        if others:
            lines.append(
                f"{others} cases from case_{self.LABELLED:05d} on have no labels: not "
                "used"
            )
        return lines


def _folders(root: Path) -> list[str]:
    """The names of all folders of cases, in order."""
    names = (path.name for path in Path(root).iterdir() if path.is_dir())
    return sorted(name for name in names if re.fullmatch(r"case_\d{5}", name))


kits19 = Kits19()
