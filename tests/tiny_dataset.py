"""A data set of three small cases behind MIScnn's interface, for tests.

Its files are arrays, so that none of the readers of images is needed.
"""

import threading
import types
from pathlib import Path

import numpy as np

from data_io.datasets.dataset import Dataset

CASES = ("a", "b", "c")
NATIVE = (20, 26)
INPUT = (16, 24)
_PARSER = threading.Lock()  # `numpy.load` uses Python's, which fails in threads


def write(root: Path) -> Dataset:
    """Writes the cases to `root` and returns the data set."""
    random = np.random.default_rng(7)
    root.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        image = random.integers(0, 256, (*NATIVE, 3), dtype=np.uint8)
        np.save(root / f"{case}-image.npy", image)
        np.save(root / f"{case}-label.npy", (image[..., 0] > 180).astype(np.uint8))
    return module()


class Tiny(Dataset):
    RECORD = types.SimpleNamespace(
        name="tiny", channels=3, classes=("background", "bright"), is_3d=False
    )

    def cases(self, root: Path) -> tuple[str, ...]:
        return CASES

    def roles(self, root: Path, case: str) -> dict[str, Path]:
        image, label = (
            Path(root) / f"{case}-{kind}.npy" for kind in ("image", "label")
        )
        return {"image": image, "observer1": label}

    def image(self, root: Path, case: str) -> np.ndarray:
        return _load(self.roles(root, case)["image"])

    def references(self, root: Path, case: str) -> dict[str, np.ndarray]:
        return {"observer1": _load(self.roles(root, case)["observer1"])}


def module() -> Dataset:
    """The data set; the same for every root."""
    return Tiny()


def _load(path: Path) -> np.ndarray:
    with _PARSER:
        return np.load(path)
