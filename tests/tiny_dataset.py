"""A data set of three small cases behind MIScnn's interface, for tests.

It has what `data_io.cache.prepare` asks of a data set module, and none of the readers
of the real ones.
"""

import threading
import types
from pathlib import Path

import numpy as np

from data_io.miscnn_compat import Abstract_IO

CASES = ("a", "b", "c")
NATIVE = (20, 26)
INPUT = (16, 24)
_PARSER = threading.Lock()  # `numpy.load` uses Python's, which fails in threads


def write(root: Path) -> types.SimpleNamespace:
    """Writes the cases to `root` and returns the data set's module."""
    random = np.random.default_rng(7)
    root.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        image = random.integers(0, 256, (*NATIVE, 3), dtype=np.uint8)
        np.save(root / f"{case}-image.npy", image)
        np.save(root / f"{case}-label.npy", (image[..., 0] > 180).astype(np.uint8))
    return module()


def module() -> types.SimpleNamespace:
    """The data set's module; the same for every root."""
    return types.SimpleNamespace(
        RECORD=types.SimpleNamespace(name="tiny"), interface=Interface, files=files
    )


def files(root: Path, case: str) -> tuple[Path, ...]:
    return tuple(Path(root) / f"{case}-{kind}.npy" for kind in ("image", "label"))


def _load(path: Path) -> np.ndarray:
    with _PARSER:
        return np.load(path)


class Interface(Abstract_IO):
    def __init__(self, root: Path) -> None:
        super().__init__(channels=3, classes=2, three_dim=False)
        self.root = Path(root)

    def initialize(self, input_path: str) -> list[str]:
        return list(CASES)

    def load_image(self, index: str) -> tuple[np.ndarray, dict]:
        return _load(self.root / f"{index}-image.npy"), {}

    def load_segmentation(self, index: str) -> np.ndarray:
        return _load(self.root / f"{index}-label.npy")

    def load_prediction(self, index: str, output_path: str) -> None:
        raise NotImplementedError

    def save_prediction(self, sample: object, output_path: str) -> None:
        raise NotImplementedError

    @staticmethod
    def check_file_termination(termination: str) -> bool:
        return False
