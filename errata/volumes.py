"""Entries about volumes: resampling, patches, how they are joined and validated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from conformance.reference import reference
from data_io.datasets.kits19 import kits19
from data_io.files import nifti
from data_io.prepare.native_grid import resampled_shape
from data_io.prepare.patches import Grid, Join
from data_io.simulation import ct
from errata.images import highest_class, last_class_of_half
from errata.registry import Row, measured

PATCH, OVERLAP = (80, 160, 160), (40, 80, 80)
SPACING_MM = (6.44, 3.24, 3.24)  # of simulated volumes: twice the study's
REDRAWS = 25


@measured("pairwise-means", "constructed", "patches over 130x250x250 voxels")
def pairwise_means() -> Iterator[Row]:
    """Measure weights of overlapping patches, and the largest joining error."""
    shape = (130, 250, 250)
    joins: tuple[Join, ...] = ("miscnn", "mean")
    grids = [Grid(shape, PATCH, OVERLAP, join).axes() for join in joins]
    axes = [_tables(*three) for three in zip(*grids, shape, strict=True)]
    miscnn, mean = axes[0]
    index = int(np.argmax((miscnn > 0).sum(axis=0)))  # where most patches lie
    weights = (table[:, index] for table in (miscnn, mean))
    for number, pair in enumerate(zip(*weights, strict=True), 1):
        yield Row(f"weight of patch {number} at slice {index}, along the slices", *pair)
    same = [np.mean(np.abs(a - b).max(axis=0) < 1e-9) for a, b in axes]
    yield Row("share of voxels whose weights differ", 1 - np.prod(same), 0.0)
    yield Row("largest error of a joined probability", _largest(axes), 0.0)


def _tables(first: Any, second: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two joins' weights along an axis, (patches, size) each; 0 outside."""
    tables = np.zeros((2, len(first), size))
    for table, patches in zip(tables, (first, second), strict=True):
        for number, (part, weights) in enumerate(patches):
            table[number, part] = weights
    return tables[0], tables[1]


def _largest(axes: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return half the sum of |difference of weights| at the worst voxel.

    This is the largest possible difference of joined values, with patches of 0 or 1.
    """
    distinct = [
        np.unique(np.concatenate(pair), axis=1).reshape(2, len(pair[0]), -1)
        for pair in axes
    ]
    products = [
        np.einsum("ai,bj,ck->abcijk", *(tables[form] for tables in distinct))
        for form in (0, 1)
    ]
    apart = np.abs(products[0] - products[1]).sum(axis=(0, 1, 2))
    return float(apart.max() / 2)


class _Volumes:
    """Simulated CT volumes with the interface of prepared samples.

    Attributes:
        settings: settings of the preprocessing: the patch.
        cases: names of the volumes.
    """

    def __init__(self, number: int, shape: tuple[int, ...], patch: Any) -> None:
        from data_io.prepare.preprocessing import Settings

        self.settings = Settings(patch)
        self.cases = tuple(f"volume-{n}" for n in range(number))
        self._arrays = {}
        for seed, case in enumerate(self.cases):
            random = np.random.default_rng(seed)
            label = ct.draw_label(shape, SPACING_MM, random)
            volume = np.clip(ct.simulate(label, SPACING_MM, random), -79, 304)
            image = (volume - volume.mean()) / volume.std()
            self._arrays[case] = image.astype(np.float32)[..., None], label

    def image(self, case: str) -> np.ndarray:
        """Return the z-scored volume, (*shape, 1) float32."""
        return self._arrays[case][0]

    def label(self, case: str) -> np.ndarray:
        """Return the label map, (*shape) uint8."""
        return self._arrays[case][1]


REDRAWN = f"fixed predictions of 6 simulated volumes, {REDRAWS} epochs"


@measured("redrawn-validation", "constructed", REDRAWN, slow=True)
def redrawn_validation() -> Iterator[Row]:
    """Compare the validation loss with redrawn and with fixed patches.

    Nothing is trained. The network is a fixed rule: the nearer the value to a kidney's,
    the higher p.
    """
    from data_io.prepare.batches import Batches

    volumes: Any = _Volumes(6, (32, 96, 96), (16, 48, 48))
    batches = Batches(volumes, volumes.cases, classes=3, seed=0)
    redrawn = _losses(batches, range(REDRAWS))
    kept = _losses(batches, [0] * 3)  # as with fixed_validation: always epoch 0's
    for name, values in redrawn.items():
        forms = values, kept[name]
        spread = (np.std(form, ddof=1) for form in forms)
        yield Row(f"standard deviation of val_loss over epochs, {name}", *spread)
        yield Row(f"mean val_loss, {name}", *map(np.mean, forms))


def _losses(batches: Any, epochs: Iterable[int]) -> dict[str, list[float]]:
    """Return the mean loss of a fixed network over the batches, by epoch."""
    losses: dict[str, list[float]] = {"CE": [], "DSC": [], "DSC++": []}
    for epoch in epochs:
        batches.epoch = epoch
        drawn = [batches[index] for index in range(len(batches))]
        for name, values in losses.items():
            drawn_losses = [reference(name, y, _rule(x)).value[0] for x, y in drawn]
            values.append(float(np.mean(drawn_losses)))
    return losses


def _rule(image: np.ndarray) -> np.ndarray:
    """Return probabilities of three classes from z-scored values only."""
    x = image[..., 0].astype(np.float64)
    logits = np.stack([1 - x, 2 * x - 3, x - 2.5], axis=-1)
    return np.asarray(softmax(logits, axis=-1))


@measured("padded-volumes", "constructed", "a simulated volume, clipped and z-scored")
def padding_value() -> Iterator[Row]:
    """Compare the padding of a thin volume in training and at prediction."""
    volumes = _Volumes(1, (32, 96, 96), (16, 48, 48))
    lowest = volumes.image(volumes.cases[0]).min()
    yield Row(
        "padding: 0 in training, the minimum at prediction", 0.0, lowest, unit="SD"
    )


@measured("integer-resampling", "constructed", "simulated CT, 3 mm to 3.3x4.1x4.1 mm")
def integer_resampling() -> Iterator[Row]:
    """Compare MIScnn's resampling of integers and of the same floats."""
    from data_io.prepare.miscnn_compat import Resampling, Sample
    from data_io.prepare.resampling import SlabResampling

    random = np.random.default_rng(0)
    shape, spacing = (20, 60, 60), (3.0, 3.0, 3.0)
    volume = ct.simulate(ct.draw_label(shape, spacing, random), spacing, random)
    resampled = []
    for step in (Resampling, SlabResampling):
        sample = Sample("x", volume[..., None], 1, 3, {"spacing": np.array(spacing)})
        step((3.3, 4.1, 4.1)).preprocessing(sample, training=False)
        resampled.append(np.asarray(sample.img_data, np.float64))
    apart = np.abs(resampled[0] - resampled[1])
    yield Row("largest difference of integers from floats", apart.max(), 0.0, unit="HU")
    yield Row("mean difference", apart.mean(), 0.0, unit="HU")


GRIDS = "grids of the KiTS19 label maps at hand"


@cache
def _grids(root: Path) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
    """Return shape and voxel size (mm) of each KiTS19 label map of the study."""
    geometries = {
        case: nifti.geometry(kits19.roles(root, case)["observer1"])
        for case in kits19.cases(root)
    }
    return {
        case: (geometry.shape, geometry.spacing_mm)
        for case, geometry in geometries.items()
    }


def _resampled(root: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each label map on the grid of the study."""
    spacing_mm = kits19.RECORD.spacing_mm or ()
    grids = _grids(root).items()
    return {case: resampled_shape(*grid, spacing_mm) for case, grid in grids}


@measured("unsaid-resampling", "data", GRIDS, "kits19")
def unsaid_resampling(root: Path) -> Iterator[Row]:
    """Measure what a patch of 80x160x160 covers, native and resampled."""
    spacings = np.array([spacing for _, spacing in _grids(root).values()])
    resampled = np.array(kits19.RECORD.spacing_mm) * PATCH
    native = np.median(spacings * PATCH, axis=0)
    names = ("slices", "rows", "columns")
    for name, *pair in zip(names, native, resampled, strict=True):
        what = f"patch along {name}: native voxels (paper), resampled (code)"
        yield Row(what, *pair, unit="mm, median")


@measured("padded-volumes", "data", GRIDS, "kits19")
def padded_volumes(root: Path) -> Iterator[Row]:
    """Count volumes smaller than a patch, which are padded without a class."""
    shapes = np.array(list(_resampled(root).values()))
    thin = (shapes[:, 0] < PATCH[0]).sum()
    filled = np.minimum(1, shapes / PATCH).prod(axis=1)
    small = filled[filled < 1]
    yield Row(f"volumes thinner than 80 slices, of {len(shapes)}", thin, None)
    what = f"volumes smaller than a patch on any axis, of {len(shapes)}"
    yield Row(what, small.size, None)
    padding = 100 * (1 - small.mean())
    yield Row("voxels of such a patch that are padding, mean", padding, None, unit="%")


@measured("label-resize", "data", "KiTS19 label maps of under 100 slices", "kits19")
def label_resize_of_kits19(root: Path) -> Iterator[Row]:
    """Compare how both versions resample labels of three classes."""
    counts, differ = np.zeros((2, 3), int), 0
    for case, shape in _resampled(root).items():
        if _grids(root)[case][0][0] >= 100:
            continue
        label = nifti.read_label(kits19.roles(root, case)["observer1"])
        old, new = (rule(label, shape) for rule in (last_class_of_half, highest_class))
        counts += [np.bincount(resized.ravel(), minlength=3) for resized in (old, new)]
        differ += int((old != new).sum())
    for value, name in enumerate(("background", "kidney", "tumour")):
        yield Row(f"{name} voxels", *counts[:, value])
    yield Row("voxels that differ", differ, 0)
