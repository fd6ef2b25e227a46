"""Resize, z-score and augmentation are the protocol's, in its order."""

import dataclasses
import json
import random
import sys

import numpy as np
import pytest

from data_io.prepare.miscnn_compat import Data_Augmentation, Preprocessor, Sample
from data_io.prepare.preprocessing import Settings, augmentation, subfunctions

SHAPE = (24, 32)
released = sys.modules[Data_Augmentation.__module__]


def draw(augment, image, label, seed=0):
    """One draw of MIScnn's augmentation, on a batch of one."""
    np.random.seed(seed)  # noqa: NPY002 (batchgenerators draws from it)
    random.seed(seed)
    drawn = augment.run(image[np.newaxis].copy(), label[np.newaxis].copy())
    return drawn[0][0], drawn[1][0]


@pytest.fixture
def picture():
    generator = np.random.default_rng(3)
    image = generator.normal(size=(*SHAPE, 3))
    label = (generator.random(SHAPE) > 0.8).astype(int)
    return image, np.eye(2)[label]


def test_z_score_over_image_and_channels_by_hand():
    # Values 1, 3, 5, 7 over both channels: mean 4, standard deviation sqrt(5).
    image = np.array([[[1, 7], [5, 3]]], np.uint8)
    sample = Sample("a", image, 2, 2, {})
    sample.add_segmentation(np.zeros((1, 2), np.uint8))
    for step in subfunctions(Settings((1, 2))):
        step.preprocessing(sample, training=True)
    expected = (image - 4.0 + 1e-6) / (np.sqrt(5.0) + 1e-6)
    np.testing.assert_allclose(sample.img_data, expected, rtol=0, atol=1e-12)


def test_8_bit_images_stay_8_bit_through_the_resize():
    image = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    sample = Sample("a", image, 3, 2, {})
    sample.add_segmentation(np.zeros((10, 14), np.uint8))
    subfunctions(Settings((12, 9)))[0].preprocessing(sample, training=True)
    assert sample.img_data.dtype == np.uint8
    assert sample.img_data.shape == (12, 9, 3)


def test_interpolation_orders_are_miscnns_defaults_or_as_set():
    step = subfunctions(Settings((8, 8)))[0]
    assert (step.order_img, step.order_seg) == (3, 1)
    step = subfunctions(Settings((8, 8), order_image=1, order_label=0))[0]
    assert (step.order_img, step.order_seg) == (1, 0)


def test_augmentation_is_the_protocols_list_in_order(picture, monkeypatch):
    seen = []
    compose = released.Compose

    def spy(transforms):
        seen.extend(transforms)
        return compose(transforms)

    monkeypatch.setattr(released, "Compose", spy)
    draw(augmentation(Settings(SHAPE)), *picture)
    mirror, brightness, warp = seen
    assert [type(step).__name__ for step in seen] == [
        "MirrorTransform",
        "BrightnessMultiplicativeTransform",
        "SpatialTransform",
    ]
    assert (mirror.axes, mirror.p_per_sample) == ((0, 1, 2), 1)
    assert tuple(brightness.multiplier_range) == (0.5, 2)
    assert (brightness.per_channel, brightness.p_per_sample) == (True, 0.15)
    assert (warp.alpha, warp.sigma) == ((0, 900), (9, 13))
    np.testing.assert_allclose(np.degrees(warp.angle_x), (-15, 15), rtol=1e-12)
    assert warp.scale == (0.85, 1.25)
    assert (warp.do_elastic_deform, warp.do_rotation, warp.do_scale) == (True,) * 3
    assert (warp.p_el_per_sample, warp.p_rot_per_sample) == (0.15, 0.15)
    assert warp.p_scale_per_sample == 0.15
    assert (warp.order_data, warp.order_seg) == (3, 0)
    assert (warp.border_mode_data, warp.border_cval_data) == ("constant", 0)
    assert (warp.border_mode_seg, warp.border_cval_seg) == ("constant", 0)
    assert (warp.patch_size, warp.random_crop) == (SHAPE, False)
    assert not warp.independent_scale_for_each_axis


def test_defaults_equal_the_released_code():
    ours = augmentation(Settings(SHAPE))
    theirs = released.Data_Augmentation
    names = [name for name in vars(theirs) if name.startswith("config_")]
    assert len(names) >= 12
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.cycles == 1
    assert ours.seg_augmentation
    assert not ours.infaug


def test_settings_reach_the_augmentation():
    settings = Settings(
        SHAPE,
        probability=0.5,
        brightness=(0.9, 1.1),
        elastic_alpha=(0, 100),
        elastic_sigma=(2, 3),
        rotation_degrees=90,
        scaling=(1, 2),
    )
    augment = augmentation(settings)
    assert augment.config_p_per_sample == 0.5
    assert augment.config_brightness_range == (0.9, 1.1)
    assert augment.config_elastic_deform_alpha == (0, 100)
    assert augment.config_elastic_deform_sigma == (2, 3)
    assert augment.config_rotations_angleX == (-np.pi / 2, np.pi / 2)
    assert augment.config_scaling_range == (1, 2)


def test_each_axis_is_mirrored_half_of_the_time(picture):
    image, label = picture
    augment = augmentation(Settings(SHAPE, probability=0.0))
    flips = {(False, False): 0, (True, False): 0, (False, True): 0, (True, True): 0}
    for seed in range(200):
        drawn, drawn_label = draw(augment, image, label, seed)
        for rows, columns in flips:
            axes = [axis for axis, flipped in enumerate((rows, columns)) if flipped]
            if np.array_equal(drawn, np.flip(image, axes).astype(np.float32)):
                assert np.array_equal(drawn_label, np.flip(label, axes))
                flips[rows, columns] += 1
    assert sum(flips.values()) == 200
    # 50 expected of each; five standard deviations (6.1) either way.
    assert all(20 <= count <= 80 for count in flips.values())


def test_brightness_is_a_factor_per_channel(picture):
    image, label = picture
    augment = augmentation(Settings(SHAPE, probability=1.0))
    augment.mirror = augment.elastic_deform = False
    augment.rotations = augment.scaling = False
    drawn, drawn_label = draw(augment, image, label)
    factors = [np.unique((drawn / image)[..., c].round(4)) for c in range(3)]
    assert all(len(factor) == 1 and 0.5 <= factor[0] <= 2 for factor in factors)
    assert len({float(factor[0]) for factor in factors}) == 3
    assert np.array_equal(drawn_label, label)


def test_pixels_from_outside_the_image_have_no_class(picture):
    image, label = picture
    augment = augmentation(Settings(SHAPE, probability=1.0, scaling=(1.25, 1.25)))
    augment.mirror = augment.elastic_deform = augment.rotations = False
    drawn, drawn_label = draw(augment, image, label)
    sums = drawn_label.sum(axis=-1)
    assert set(np.unique(sums)) == {0, 1}
    # Shrunk to 1 / 1.25 about the middle: the corners are outside, the middle inside.
    assert (drawn_label[0, 0] == 0).all()
    assert (drawn[0, 0] == 0).all()
    assert sums[6:18, 8:24].all()


def test_the_label_is_one_hot_before_it_is_augmented(picture, monkeypatch):
    shapes = []
    run = released.Data_Augmentation.run

    def spy(self, image, label):
        shapes.append((image.shape, label.shape))
        return run(self, image, label)

    class Source:
        def sample_loader(self, index, load_seg):
            sample = Sample(index, picture[0], 3, 2, {})
            sample.add_segmentation(picture[1].argmax(-1))
            return sample

    monkeypatch.setattr(released.Data_Augmentation, "run", spy)
    augment = augmentation(Settings(SHAPE))
    Preprocessor(Source(), 1, augment, analysis="fullimage").run(["a"])
    assert shapes == [((1, *SHAPE, 3), (1, *SHAPE, 2))]


def test_augmentation_does_not_change_what_is_cached():
    first = Settings((8, 8))
    assert first.prepared() == Settings((8, 8), probability=0.3).prepared()
    assert first.prepared() != Settings((8, 9)).prepared()
    assert first.prepared() != Settings((8, 8), order_image=1).prepared()


def test_settings_come_back_from_json():
    settings = Settings((8, 8, 8), spacing_mm=(3.0, 1.5, 0.7), axes=(2, 1, 0))
    read = Settings.from_dict(json.loads(json.dumps(settings.as_dict())))
    assert read == settings


def test_order_of_axes_does_not_change_the_cache():
    plain = Settings((8, 8, 8), spacing_mm=(3.0, 1.5, 0.7))
    ordered = dataclasses.replace(plain, axes=(2, 1, 0))
    assert "axes" not in plain.as_dict()  # as in runs of before
    assert ordered.as_dict() == {**plain.as_dict(), "axes": (2, 1, 0)}
    assert ordered.prepared() == plain.prepared()
