"""Label maps of odd volumes come back to the exact grid they started from."""

import nibabel
import numpy as np
import pytest

from data_io.cache import prepare
from data_io.datasets import kits19, nifti
from data_io.miscnn_compat import Sample
from data_io.preprocessing import Settings, subfunctions

SETTINGS = Settings.of(kits19.RECORD, (40, 80, 80))


def kits_axes(spacing_mm):
    """KiTS19's: slices towards the feet, rows to the back, columns to the left."""
    affine = np.zeros((4, 4))
    affine[[0, 1, 2], [2, 1, 0]] = [-size for size in reversed(spacing_mm)]
    affine[:, 3] = 12.5, -7.25, 30, 1
    return affine


def flipped(spacing_mm):
    """Every axis of KiTS19's the other way round."""
    return kits_axes(spacing_mm) * [-1, -1, -1, 1]


def diagonal(spacing_mm):
    """Array axes are those of the scanner, the second one against it."""
    return np.diag([spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])


VOLUMES = {
    "29 slices of 5 mm": ((29, 60, 74), (5.0, 0.98, 0.98), kits_axes),
    "1059 slices of 0.5 mm": ((1059, 14, 17), (0.5, 1.7, 1.9), kits_axes),
    "0.5 mm everywhere": ((101, 70, 83), (0.5, 0.5, 0.5), kits_axes),
    "5 mm everywhere": ((11, 12, 15), (5.0, 5.0, 5.0), kits_axes),
    "flipped": ((23, 44, 52), (3.0, 1.2, 1.2), flipped),
    "axes of the scanner": ((23, 44, 52), (3.0, 1.2, 1.4), diagonal),
}


def draw(shape):
    """A kidney with a tumour at one end, off the middle of every axis.

    No flip and no exchange of axes gives the same map.
    """
    label = np.zeros(shape, np.uint8)
    low, high = ([int(part * size) for size in shape] for part in (0.1, 0.75))
    label[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    cut = [int(0.4 * size) for size in shape]
    label[cut[0] :, : cut[1], : cut[2]] = np.where(
        label[cut[0] :, : cut[1], : cut[2]] > 0, 2, 0
    )
    return label


def overlap(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def centre(mask):
    return np.array([places.mean() for places in np.nonzero(mask)])


def to_native(cache, case, softmax):
    """MIScnn's way back from the resampled grid."""
    native = cache.native_shape(case)
    sample = Sample(case, cache.image(case), 1, 3, {"original_shape": native})
    for step in reversed(subfunctions(cache.settings)):
        softmax = step.postprocessing(sample, softmax, activation_output=True)
    return softmax


@pytest.mark.parametrize("name", VOLUMES)
def test_labels_survive_there_and_back(name, tmp_path):
    shape, spacing_mm, axes = VOLUMES[name]
    case, label = "case_00003", draw(shape)
    folder = tmp_path / case
    folder.mkdir()
    image = np.random.default_rng(0).integers(-200, 400, shape).astype(np.int16)
    for file, array in (("imaging", image), ("segmentation", label)):
        volume = nibabel.Nifti1Image(array, axes(spacing_mm))
        nibabel.save(volume, folder / f"{file}.nii.gz")

    cache = prepare(kits19, tmp_path, [case], SETTINGS, tmp_path / "cache")
    resampled = cache.label(case)
    extent = np.array(shape) * spacing_mm
    assert resampled.shape == tuple(np.floor(extent / kits19.RECORD.spacing_mm + 1e-9))
    softmax = np.eye(3, dtype=np.float32)[resampled]
    returned = to_native(cache, case, softmax).argmax(axis=-1).astype(np.uint8)
    nifti.write_like(
        tmp_path / "returned.nii.gz", returned, kits19.geometry(tmp_path, case)
    )

    given = nibabel.load(folder / "segmentation.nii.gz")
    found = nibabel.load(tmp_path / "returned.nii.gz")
    assert found.shape == given.shape == shape
    np.testing.assert_array_equal(found.affine, given.affine)
    np.testing.assert_array_equal(found.header.get_zooms(), given.header.get_zooms())
    back = np.asarray(found.dataobj)
    for target in (1, 2):
        one, other = label == target, back == target
        assert overlap(one, other) > 0.85
        shift_mm = (centre(one) - centre(other)) * spacing_mm
        # Half a voxel of the coarser grid.
        limit = np.maximum(spacing_mm, kits19.RECORD.spacing_mm) / 2
        assert (np.abs(shift_mm) < limit).all()
        assert overlap(one, other[::-1]) < 0.8  # the map would tell a flip
