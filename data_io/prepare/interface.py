"""MIScnn's Data I/O interface over the raw files of a data set.

A data set does not know it, so that finding and checking files needs no MIScnn.
"""

from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets.dataset import Dataset
from data_io.prepare.miscnn_compat import Abstract_IO


class ReadOnly(Abstract_IO):
    """An interface for samples that are known by case; predictions are the run's."""

    def load_prediction(self, index: str, output_path: str) -> np.ndarray:
        """Refuse: predictions are the run folder's."""
        raise NotImplementedError("predictions are not kept behind this interface")

    def save_prediction(self, sample: Any, output_path: str) -> None:
        """Refuse: predictions are the run folder's."""
        raise NotImplementedError("predictions are not kept behind this interface")

    @staticmethod
    def check_file_termination(termination: str) -> bool:
        """Claim no file type: samples are known by case, not by file."""
        return False


class RawInterface(ReadOnly):
    """Samples named by case, read from the layout as distributed."""

    def __init__(self, dataset: Dataset, root: Path) -> None:
        record = dataset.record(root)
        super().__init__(record.channels, len(record.classes), record.is_3d)
        self.dataset = dataset
        self.root = root

    def initialize(self, input_path: str | None = None) -> list[str]:
        """Return the cases; the path is known already and not looked at."""
        return list(self.dataset.cases(self.root))

    def load_image(self, index: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the image, channels last, and what MIScnn's subfunctions ask for.

        That is of volumes `spacing` in mm by axis, which its Resampling reads, and
        `directions`, see `data_io.files.nifti.Geometry`.
        """
        image = self.dataset.image(self.root, index)
        geometry = self.dataset.geometry(self.root, index)
        if geometry is None:
            return image, {"type": "image"}
        return image, {
            "type": "nifti",
            "affine": geometry.affine,
            "spacing": np.array(geometry.spacing_mm),
            "directions": geometry.directions,
        }

    def load_segmentation(self, index: str) -> np.ndarray:
        """Return observer 1's label map, uint8 class numbers; 0 where there is none.

        Of a volume it has a last axis of 1.
        """
        if "observer1" in self.dataset.roles(self.root, index):
            label = self.dataset.references(self.root, index)["observer1"]
        else:
            image = self.dataset.image(self.root, index)
            label = np.zeros(image.shape[:-1], np.uint8)
        return label[..., np.newaxis] if self.three_dim else label
