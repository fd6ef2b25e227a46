"""MIScnn's Data I/O interface over the raw files of a data set.

The data set modules import this one only when an interface is asked for, so that
finding and checking files needs no MIScnn.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.miscnn_compat import Abstract_IO

__all__ = ["RawInterface"]

Reader = Callable[[str], np.ndarray]
Details = Callable[[str], dict[str, Any]]


class RawInterface(Abstract_IO):
    """Samples named by case, read from the layout as distributed.

    Args:
        record: of the data set.
        cases: names of all its cases.
        image: case to image, uint8 (rows, columns, channels), or to volume, (slices,
            rows, columns, channels).
        label: case to label map, uint8 (rows, columns), class indices, or to
            (slices, rows, columns, 1).
        details: case to what MIScnn's subfunctions ask for: for volumes `spacing` in
            mm by axis, which its Resampling reads. None: nothing but the kind.
    """

    def __init__(
        self,
        record: Record,
        cases: Sequence[str],
        image: Reader,
        label: Reader,
        details: Details | None = None,
    ) -> None:
        super().__init__(record.channels, len(record.classes), record.is_3d)
        self.cases = list(cases)
        self.image = image
        self.label = label
        self.details = details

    def initialize(self, input_path: str | None = None) -> list[str]:
        """Returns the cases; the path is known already and not looked at."""
        return list(self.cases)

    def load_image(self, index: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the image, channels last, and MIScnn's details."""
        details = self.details(index) if self.details else {}
        return self.image(index), {"type": "image", **details}

    def load_segmentation(self, index: str) -> np.ndarray:
        """Returns the label map, uint8, class indices."""
        return self.label(index)

    def load_prediction(self, index: str, output_path: str | Path) -> np.ndarray:
        """Returns what `save_prediction` wrote.

        Raises:
            InputError: there is no prediction of this case.
        """
        path = self.prediction_path(index, output_path)
        if not path.is_file():
            raise InputError(
                f"{path}: expected the prediction of case {index}, found none. "
                "Predict first."
            )
        return np.load(path, allow_pickle=False)

    def save_prediction(self, sample: Any, output_path: str | Path) -> None:
        """Writes `sample.pred_data`, whatever its shape, without loss."""
        path = self.prediction_path(sample.index, output_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.asarray(sample.pred_data), allow_pickle=False)

    @staticmethod
    def prediction_path(index: str, output_path: str | Path) -> Path:
        """Where the prediction of a case is kept."""
        return Path(output_path) / f"{index}.npy"

    @staticmethod
    def check_file_termination(termination: str) -> bool:
        """True for the ending of a prediction file."""
        return termination == ".npy"
