"""Slab by slab is what MIScnn's resampling gives."""

import numpy as np
import pytest

from data_io.errors import InputError
from data_io.prepare.miscnn_compat import Resampling, Sample
from data_io.prepare.native_grid import resampled_shape
from data_io.prepare.resampling import SlabResampling

KITS19 = (3.22, 1.62, 1.62)
# Shape, voxel size, new voxel size: thick and thin slices, one slice, exact halves (at
# which labels tie), an axis that stays as it is, more columns than a slab.
GRIDS = (
    ((29, 37, 23), (5.0, 0.9, 0.8), KITS19),
    ((61, 20, 35), (0.5, 2.0, 0.7), KITS19),
    ((4, 18, 20), (3.22, 1.62, 0.81), KITS19),
    ((9, 8, 7), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0)),
    ((1, 8, 7), (5.0, 2.0, 2.0), (3.22, 1.0, 1.0)),
)


def resample(step, image, label, spacing_mm, training=True):
    details = {"spacing": np.array(spacing_mm)}
    sample = Sample("a", image[..., np.newaxis], 1, 3, details)
    if training:
        sample.add_segmentation(label[..., np.newaxis])
    step.preprocessing(sample, training=training)
    return sample


@pytest.mark.parametrize(("shape", "spacing_mm", "new_spacing_mm"), GRIDS)
@pytest.mark.parametrize("orders", [(3, 1), (1, 0), (3, 2)])
def test_equals_miscnn(shape, spacing_mm, new_spacing_mm, orders):
    random = np.random.default_rng(0)
    image = random.integers(-1000, 1500, shape).astype(np.int16)
    label = random.integers(0, 3, shape).astype(np.uint8)
    theirs = resample(
        Resampling(new_spacing_mm, *orders),
        image.astype(np.float64),
        label.astype(np.float64),
        spacing_mm,
    )
    ours = resample(SlabResampling(new_spacing_mm, *orders), image, label, spacing_mm)
    assert ours.img_data.shape == theirs.img_data.shape
    # Hounsfield units: a 10 billionth of one.
    np.testing.assert_allclose(ours.img_data, theirs.img_data, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(ours.seg_data, theirs.seg_data)
    assert (ours.img_data.dtype, ours.seg_data.dtype) == (np.float64, np.uint8)


def test_original_shape_is_recorded_without_a_label():
    image = np.zeros((4, 6, 8), np.float32)
    sample = resample(SlabResampling((2, 1, 1)), image, None, (4, 1, 2), training=False)
    assert sample.img_data.shape == (8, 6, 16, 1)
    assert sample.seg_data is None
    assert sample.extended["original_shape"] == (4, 6, 8)


def test_the_shape_is_rounded_down():
    # 10 x 1 / 3 = 3.33; 5 x 0.9 / 1 = 4.5; 4 x 2 / 1 = 8
    assert resampled_shape((10, 5, 4), (1, 0.9, 2), (3, 1, 1)) == (3, 4, 8)


def test_a_volume_thinner_than_a_voxel_is_refused():
    with pytest.raises(InputError, match=r"1\.5 x 8 x 8 mm"):
        resampled_shape((3, 8, 8), (0.5, 1, 1), KITS19)


def test_every_label_of_a_constant_map_stays():
    label = np.full((5, 6, 7), 2, np.uint8)
    sample = resample(SlabResampling(KITS19), label, label, (4, 2, 2))
    assert set(np.unique(sample.seg_data)) == {2}
    np.testing.assert_allclose(sample.img_data, 2, rtol=0, atol=1e-12)


def test_volume_of_the_target_voxel_size_is_unchanged():
    random = np.random.default_rng(0)
    image = random.integers(-1000, 1500, (5, 6, 7)).astype(np.int16)
    label = random.integers(0, 3, (5, 6, 7)).astype(np.uint8)
    for training in (True, False):
        sample = resample(
            SlabResampling(KITS19), image, label, (3.2200001, 1.62, 1.62), training
        )
        assert sample.img_data.dtype == np.int16
        np.testing.assert_array_equal(sample.img_data[..., 0], image)
    assert sample.extended["original_shape"] == (5, 6, 7)
    theirs = resample(Resampling(KITS19), image.astype(float), label, KITS19)
    np.testing.assert_allclose(theirs.img_data[..., 0], image, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(theirs.seg_data[..., 0], label)


def test_a_thin_sample_is_named():
    image = np.zeros((1, 6, 8), np.float32)
    with pytest.raises(InputError, match=r"^case a: expected a volume"):
        resample(SlabResampling(KITS19), image, None, (2, 2, 2), training=False)
