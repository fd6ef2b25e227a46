"""Patches of volumes: MIScnn's grid, padding and joining, and the draws of training."""

from __future__ import annotations

import importlib
import itertools
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_io.prepare.batches import Batches, CachedInterface
from data_io.prepare.miscnn_compat import Data_IO, Preprocessor
from data_io.prepare.patches import JOINS, Grid, predict
from data_io.prepare.preprocessing import Settings, augmentation

# After data_io.prepare.miscnn_compat, which lets MIScnn be imported without TensorFlow.
miscnn_patches = importlib.import_module("miscnn.utils.patch_operations")

# Shapes and patches with a last patch that is shifted, one that is not, volumes that
# are thinner than a patch, and patches without overlap.
GRIDS = [
    ((13, 9, 11), (6, 4, 5), (3, 2, 2)),
    ((12, 10, 8), (6, 4, 4), (3, 2, 2)),
    ((5, 9, 3), (6, 4, 5), (3, 2, 2)),
    ((6, 4, 5), (6, 4, 5), (3, 2, 2)),
    ((7, 11, 9), (4, 4, 4), (0, 1, 3)),
]


def volume(shape: tuple[int, ...], channels: int = 1) -> np.ndarray:
    random = np.random.default_rng(sum(shape))
    return random.random((*shape, channels), dtype=np.float32)


def network(patch: np.ndarray) -> np.ndarray:
    """Probabilities that depend on the place in the patch, as a network's do."""
    place = np.linspace(0.1, 0.9, patch[0, ..., 0].size).reshape(patch.shape[1:-1])
    p = 0.5 * patch[0, ..., 0] + 0.5 * place
    return np.stack([1 - p, p], axis=-1)[np.newaxis].astype(np.float32)


def places_of(grid: Grid) -> list[tuple[slice, ...]]:
    return list(
        itertools.product(*([part for part, _ in axis] for axis in grid.axes()))
    )


@pytest.mark.parametrize(("shape", "patch", "overlap"), GRIDS)
def test_patches_lie_where_miscnn_puts_them(
    shape: tuple, patch: tuple, overlap: tuple
) -> None:
    image, grid = volume(shape), Grid(shape, patch, overlap)
    expected = miscnn_patches.slice_matrix(image, patch, overlap, three_dim=True)
    places = places_of(grid)
    assert len(places) == len(expected)
    for place, part in zip(places, expected, strict=True):
        np.testing.assert_array_equal(image[place], part)


@pytest.mark.parametrize(("shape", "patch", "overlap"), GRIDS)
def test_joined_as_miscnn_does_it(shape: tuple, patch: tuple, overlap: tuple) -> None:
    """From the volume to joined probabilities, to the bit, by MIScnn's Preprocessor."""
    image = volume(shape)
    preprocessor = Preprocessor(
        Data_IO(_interface(image), ""),
        batch_size=1,
        analysis="patchwise-grid",
        patch_shape=patch,
    )
    preprocessor.patchwise_overlap = overlap
    batches = preprocessor.run(["a"], training=False)
    found = np.concatenate([network(batch[0]) for batch in batches])
    sample = preprocessor.cache["a"]
    expected = preprocessor.postprocessing(sample, found, activation_output=True)
    ours = predict(image, network, Grid(shape, patch, overlap))
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(("shape", "patch", "overlap"), GRIDS)
def test_joined_by_a_true_mean(shape: tuple, patch: tuple, overlap: tuple) -> None:
    image = volume(shape)
    total, number = np.zeros((*shape, 2)), np.zeros((*shape, 1))
    for place in places_of(Grid(shape, patch, overlap)):
        part = image[place][np.newaxis]
        padded, inside = miscnn_patches.pad_patch(part, patch, return_slicer=True)
        total[place] += miscnn_patches.crop_patch(network(padded), inside)[0]
        number[place] += 1
    ours = predict(image, network, Grid(shape, patch, overlap, "mean"))
    np.testing.assert_allclose(ours, total / number, rtol=0, atol=3e-7)


def test_pairwise_means_by_hand() -> None:
    # Patches of 4 over 9 voxels, overlap 2: at 0, 2, 4 and, shifted back, at 5.
    grid = Grid((9,), (4,), (2,))
    total = np.zeros((4, 9))
    for row, (place, weights) in zip(total, grid.axes()[0], strict=True):
        row[place] = weights
    expected = [
        [1, 1, 0.5, 0.5, 0, 0, 0, 0, 0],
        [0, 0, 0.5, 0.5, 0.5, 0.25, 0, 0, 0],
        [0, 0, 0, 0, 0.5, 0.25, 0.5, 0.5, 0],
        [0, 0, 0, 0, 0, 0.5, 0.5, 0.5, 1],
    ]
    np.testing.assert_array_equal(total, expected)


def test_gaussian_weights_by_hand() -> None:
    # A standard deviation of 1/2 voxel: e^-(1.5^2 * 2) at the ends of a patch of 4.
    (first, left), (second, right) = Grid((6,), (4,), (2,), "gaussian").axes()[0]
    assert (first, second) == (slice(0, 4), slice(2, 6))
    near, far = np.exp(-(0.5**2) * 2), np.exp(-(1.5**2) * 2)
    share = near / (near + far)
    np.testing.assert_allclose(left, [1, 1, share, 1 - share], rtol=1e-6)
    np.testing.assert_allclose(right, [1 - share, share, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize(("shape", "patch", "overlap"), GRIDS)
def test_joining_exact_patches_gives_the_exact_volume(
    shape: tuple, patch: tuple, overlap: tuple, join: str
) -> None:
    label = np.random.default_rng(1).integers(0, 3, shape)
    image = label[..., np.newaxis].astype(np.float32)

    def exact(part: np.ndarray) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[part[..., 0].round().astype(int)]

    joined = predict(image, exact, Grid(shape, patch, overlap, join))
    np.testing.assert_array_equal(joined.argmax(-1), label)
    np.testing.assert_allclose(joined.max(-1), 1, atol=1e-6)


# --- training ------------------------------------------------------------------------

PATCH = (6, 8, 10)
SHAPES = {"a": (13, 9, 16), "thin": (4, 20, 12), "b": (9, 11, 12)}


def _interface(image: np.ndarray, label: np.ndarray | None = None) -> Any:
    cache = types.SimpleNamespace(
        cases=("a",),
        settings=Settings(PATCH),
        image=lambda case: image,
        label=lambda case: label,
        native_shape=lambda case: image.shape[:-1],
    )
    return CachedInterface(cache, classes=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three prepared volumes in memory-mapped files, as a cache gives them."""
    folder: Path = tmp_path_factory.mktemp("volumes")
    random = np.random.default_rng(0)
    for case, shape in SHAPES.items():
        np.save(folder / f"{case}-image.npy", volume(shape) + 1)
        np.save(
            folder / f"{case}-label.npy", random.integers(0, 3, shape).astype("uint8")
        )
    return types.SimpleNamespace(
        cases=tuple(SHAPES),
        settings=Settings(PATCH, probability=0.3),
        image=lambda case: np.load(folder / f"{case}-image.npy", mmap_mode="r"),
        label=lambda case: np.load(folder / f"{case}-label.npy", mmap_mode="r"),
        native_shape=lambda case: SHAPES[case],
    )


def test_without_augmentation_a_batch_is_a_piece_of_the_volume(cache: Any) -> None:
    batches = Batches(cache, cache.cases, classes=3)
    image, label = batches[0]
    assert image.shape == (1, *PATCH, 1)
    assert label.shape == (1, *PATCH, 3)
    assert image.dtype == label.dtype == np.float32
    whole = cache.image("a")[..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(whole, PATCH)
    (start,) = np.argwhere((windows == image[0, ..., 0]).all((3, 4, 5)))
    place = tuple(slice(s, s + n) for s, n in zip(start, PATCH, strict=True))
    np.testing.assert_array_equal(label[0].argmax(-1), cache.label("a")[place])
    assert (label[0].sum(-1) == 1).all()


def test_a_thin_volume_is_padded_with_0_and_no_class(cache: Any) -> None:
    image, label = Batches(cache, ("thin",), classes=3)[0]
    padding = image[0, ..., 0] == 0  # the values themselves are above 1
    assert padding.reshape(6, -1).all(1).tolist() == [True, *4 * [False], True]
    assert (label[0][padding] == 0).all()
    assert (label[0][~padding].sum(-1) == 1).all()


def test_patches_are_drawn_anew_each_epoch_and_only_by_seed(cache: Any) -> None:
    def drawn(seed: int, epoch: int, augment: bool) -> np.ndarray:
        batches = Batches(cache, cache.cases, classes=3, seed=seed, augment=augment)
        batches.epoch = epoch
        return batches[2][0]

    for augment in (False, True):
        first = drawn(0, 0, augment)
        np.testing.assert_array_equal(first, drawn(0, 0, augment))
        assert (first != drawn(0, 1, augment)).any()
        assert (first != drawn(1, 0, augment)).any()


@pytest.mark.parametrize("augment", [True, False])
def test_patches_are_those_of_miscnn(cache: Any, augment: bool) -> None:
    """The same draws through MIScnn's own Preprocessor, from whole copies in memory."""
    batches = Batches(cache, cache.cases, classes=3, seed=5, augment=augment)
    for batches.epoch, index in itertools.product(range(20), range(len(cache.cases))):
        case = batches.case(index)
        words = np.random.SeedSequence([5, batches.epoch, index]).generate_state(8)
        interface = _interface(np.array(cache.image(case)), np.array(cache.label(case)))
        preprocessor = Preprocessor(
            Data_IO(interface, ""),
            batch_size=1,
            data_aug=augmentation(cache.settings),
            analysis="patchwise-crop",
            patch_shape=PATCH,
        )
        image, label = batches[index]
        np.random.seed(words)  # noqa: NPY002
        (expected,) = preprocessor.run(["a"], training=True, validation=not augment)
        np.testing.assert_allclose(image, expected[0], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(label, expected[1])
