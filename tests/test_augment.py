"""The augmentation gives what MIScnn's gives, from the same draws."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from data_io.prepare import augment
from data_io.prepare.miscnn_compat import Data_Augmentation
from data_io.prepare.preprocessing import Settings, augmentation

STEPS = ("mirror", "brightness", "elastic_deform", "rotations", "scaling")
FIELDS = {"elastic_alpha": (0.0, 300.0), "elastic_sigma": (3.0, 5.0)}


def sample(shape: tuple[int, ...], channels: int, classes: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    image = random.normal(size=(*shape, channels))
    image = gaussian_filter(image, (*[1.0] * len(shape), 0)).astype(np.float32)
    return image, random.integers(0, classes, shape, dtype=np.uint8)


def miscnns(
    image: Any, label: Any, classes: int, todo: Data_Augmentation, patch: Any, seed: int
) -> tuple[Any, Any, float]:
    """MIScnn's own way, and the number that would be drawn next."""
    todo.cropping, todo.cropping_patch_shape = patch is not None, patch
    np.random.seed(seed)  # noqa: NPY002
    one_hot = np.eye(classes, dtype=np.float32)[label]
    drawn = todo.run(image[np.newaxis].copy(), one_hot[np.newaxis])
    return drawn[0][0], drawn[1][0], float(np.random.random())  # noqa: NPY002


def ours(
    image: Any, label: Any, classes: int, todo: Data_Augmentation, patch: Any, seed: int
) -> tuple[Any, Any, float, augment.Plan]:
    random = np.random.RandomState(seed)
    plan = augment.plan(label.shape, image.shape[-1], patch, todo, random)
    drawn = augment.carry_out(plan, image, label, classes)
    return *drawn, random.random_sample(), plan


def compare(shape: Any, patch: Any, channels: int, classes: int, todo: Any, seed: int):
    image, label = sample(shape, channels, classes)
    expected = miscnns(image, label, classes, todo, patch, seed)
    found = ours(image, label, classes, todo, patch, seed)
    assert found[2] == expected[2]  # no draw more, none less
    assert found[0].dtype == found[1].dtype == np.float32
    assert found[0].flags.c_contiguous
    assert found[1].flags.c_contiguous
    np.testing.assert_array_equal(found[1], expected[1])
    return found[0], expected[0], found[3]


@given(st.integers(0, 2**32 - 1), st.sets(st.sampled_from(STEPS)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_images_are_miscnns_to_the_bit(seed, steps, wide):
    shape = (24, 40) if wide else (33, 17)
    todo = augmentation(Settings(shape, probability=0.7, **FIELDS))
    for step in STEPS:
        setattr(todo, step, step in steps)
    found, expected, _ = compare(shape, None, 3, 2, todo, seed)
    np.testing.assert_array_equal(found, expected)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(30, 26, 41), (12, 40, 17), (10, 9, 8)]),
    st.sets(st.sampled_from(STEPS)),
)
@settings(max_examples=60, deadline=None)
def test_patches_are_miscnns_to_interpolation_error(seed, shape, steps):
    patch = (12, 16, 8)
    todo = augmentation(Settings(patch, probability=0.7, **FIELDS))
    for step in STEPS:
        setattr(todo, step, step in steps)
    found, expected, plan = compare(shape, patch, 2, 3, todo, seed)
    error = 0 if plan.coordinates is None else 1e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=error)


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 2)])
@pytest.mark.parametrize("seed", range(8))
def test_mirroring_can_be_switched_off_by_axis(axes, seed):
    shape = (6, 8, 10)
    todo = augmentation(Settings(shape), axes)
    for name in STEPS[1:]:
        setattr(todo, name, False)
    found, expected, plan = compare(shape, None, 1, 2, todo, seed)
    np.testing.assert_array_equal(found, expected)
    assert not any(plan.mirrored[axis] for axis in set(range(3)) - set(axes))


def test_each_named_axis_is_mirrored():
    todo, random = augmentation(Settings((6, 8, 10)), (1, 2)), np.random.RandomState(0)
    plans = [augment.plan((6, 8, 10), 1, None, todo, random) for _ in range(40)]
    mirrored = np.mean([plan.mirrored for plan in plans], axis=0)
    assert mirrored[0] == 0 and (mirrored[1:] > 0.2).all()


def test_a_volume_without_augmentation_is_only_cropped():
    nothing = Data_Augmentation(
        scaling=False, rotations=False, brightness=False, contrast=False,
        gamma=False, gaussian_noise=False,
    )  # fmt: skip
    image, label = sample((9, 20, 14), 1, 3)
    expected = miscnns(image, label, 3, nothing, (8, 8, 16), 3)
    random = np.random.RandomState(3)
    plan = augment.plan(label.shape, 1, (8, 8, 16), None, random)
    drawn = augment.carry_out(plan, image, label, 3)
    np.testing.assert_array_equal(drawn[0], expected[0])
    np.testing.assert_array_equal(drawn[1], expected[1])


class Watched(np.ndarray):
    """Notes the largest piece that is read of it."""

    largest = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        Watched.largest = max(Watched.largest, np.asarray(found).size)
        return np.asarray(found)


def test_augmentation_reads_only_the_region_it_needs():
    shape, patch = (60, 200, 200), (8, 16, 16)
    image, label = sample(shape, 1, 2)
    todo = augmentation(Settings(patch, probability=1.0, **FIELDS))
    for seed in range(5):
        Watched.largest = 0
        random = np.random.RandomState(seed)
        plan = augment.plan(shape, 1, patch, todo, random)
        augment.carry_out(plan, image.view(Watched), label.view(Watched), 2)
        # A patch of 2,048 voxels, some thousand times less than the volume.
        assert 0 < Watched.largest < image.size / 10


def test_one_hot_by_hand():
    label = np.array([[0, 2], [255, 1]], np.uint8)
    found = augment.one_hot(label, 3)
    expected = [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_a_mirrored_patch_by_hand():
    """Eight voxels in a row, turned round, of which the first three are kept."""
    image = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1)
    label = np.array([0, 0, 0, 0, 0, 1, 1, 0], np.uint8).reshape(8, 1, 1)
    plan = augment.Plan((True, False, False), (2.0,), ((0, 3), (0, 1), (0, 1)))
    drawn, classes = augment.carry_out(plan, image, label, 2)
    assert drawn.ravel().tolist() == [14, 12, 10]
    assert classes.argmax(-1).ravel().tolist() == [0, 1, 1]
    plan = dataclasses.replace(plan, region=((-1, 2), (0, 1), (0, 1)), factors=())
    drawn, classes = augment.carry_out(plan, image, label, 2)
    assert drawn.ravel().tolist() == [0, 7, 6]
    assert classes.sum(-1).ravel().tolist() == [0, 1, 1]
