"""KiTS19's layout with small volumes made from a seed: bright balls in noise."""

from pathlib import Path

import nibabel
import numpy as np

# Axes as in KiTS19: slices first, and flipped; 4 mm slices.
AFFINE = np.array([[0, 0, -2.0, 9], [0, -1.5, 0, 8], [-4.0, 0, 0, 7], [0, 0, 0, 1]])
SHAPE = (9, 22, 26)


def write(root: Path, number: int = 5) -> Path:
    """Writes `number` cases of several sizes; returns the data set's folder."""
    random = np.random.default_rng(3)
    for case in range(number):
        shape = (SHAPE[0] + case % 3, *SHAPE[1:])
        label = _balls(shape, random)
        noise = random.normal(0, 20, shape)
        image = np.array([-60, 120, 250])[label] + noise
        save(root / f"case_{case:05d}", image.astype(np.int16), label)
    return root


def save(folder: Path, image: np.ndarray, label: np.ndarray, affine=AFFINE) -> None:
    """Writes one case."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("imaging", image), ("segmentation", label)):
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"{name}.nii.gz")


def _balls(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A label map: a kidney with a tumour in it, anywhere."""
    centre = [random.uniform(0.3, 0.7) * size for size in shape]
    distance_mm = np.sqrt(
        sum(
            ((np.arange(size) - middle) * mm).reshape(-1, *[1] * (2 - axis)) ** 2
            for axis, (size, middle, mm) in enumerate(
                zip(shape, centre, (4, 1.5, 2), strict=True)
            )
        )
    )
    return np.uint8(distance_mm < 13) + np.uint8(distance_mm < 7)
