"""Label maps of odd volumes come back to the exact grid they started from."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from data_io.datasets.kits19 import kits19
from data_io.prepare import native_grid
from data_io.prepare.cache import prepare
from data_io.prepare.preprocessing import Settings
from pipelines.prediction import export

CASE = "case_00003"
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
    "1059 slices of 0.5 mm": ((1059, 20, 24), (0.5, 1.7, 1.9), kits_axes),
    "0.5 mm everywhere": ((101, 70, 83), (0.5, 0.5, 0.5), kits_axes),
    "5 mm everywhere": ((18, 20, 24), (5.0, 5.0, 5.0), kits_axes),
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


def inside(label, reach):
    """Where all voxels within reach, by axis, are of the same class."""
    size = [2 * n + 1 for n in reach]
    return minimum_filter(label, size) == maximum_filter(label, size)


def write(folder, label, affine, sform=True):
    """Writes a case as KiTS19 distributes it, the CT made of noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    image = random.integers(-200, 400, label.shape).astype(np.int16)
    for file, array in (("imaging", image), ("segmentation", label)):
        volume = nibabel.Nifti1Image(array, affine)
        if not sform:
            volume.set_qform(affine, code="scanner")
            volume.set_sform(None, code="unknown")
        nibabel.save(volume, folder / f"{file}.nii.gz")


def there_and_back(root, case, settings):
    """Prepares a case, takes its label map for the prediction, and writes that."""
    cache = prepare(kits19, root, [case], settings, root / "cache")
    softmax = np.eye(3, dtype=np.float32)[cache.label(case)]
    place = kits19.geometry(root, case)
    return softmax, export.write_labels(root / "returned", case, softmax, place)


def assert_same_grid(path, given):
    found = nibabel.load(path)
    assert found.shape == given.shape
    np.testing.assert_array_equal(found.affine, given.affine)
    np.testing.assert_array_equal(found.header.get_zooms(), given.header.get_zooms())
    assert found.get_data_dtype() == np.uint8
    return np.asarray(found.dataobj)


@pytest.mark.parametrize("name", VOLUMES)
def test_labels_survive_resampling_and_back(name, tmp_path, monkeypatch):
    shape, spacing_mm, axes = VOLUMES[name]
    label = draw(shape)
    write(tmp_path / CASE, label, axes(spacing_mm))
    # Several slabs, the last one thinner.
    monkeypatch.setattr(native_grid, "_VOXELS", 10 * shape[0] * shape[1])
    softmax, path = there_and_back(tmp_path, CASE, SETTINGS)
    extent = np.array(shape) * spacing_mm
    grid_mm = np.array(kits19.RECORD.spacing_mm)
    assert softmax.shape[:-1] == tuple(np.floor(extent / grid_mm + 1e-9))

    back = assert_same_grid(path, nibabel.load(tmp_path / CASE / kits19.LABEL))
    sure = inside(label, np.ceil(np.maximum(grid_mm / spacing_mm, 1)).astype(int) + 1)
    assert set(label[sure]) == {0, 1, 2}
    np.testing.assert_array_equal(back[sure], label[sure])
    for target in (1, 2):
        one, other = label == target, back == target
        assert overlap(one, other) > 0.85
        shift_mm = (centre(one) - centre(other)) * spacing_mm
        # Half a voxel of the coarser grid.
        limit = np.maximum(spacing_mm, grid_mm) / 2
        assert (np.abs(shift_mm) < limit).all()
        assert overlap(one, other[::-1]) < 0.8  # the map would tell a flip


@pytest.mark.parametrize("sform", [True, False])
@pytest.mark.parametrize("axes", [kits_axes, flipped, diagonal])
def test_labels_at_the_networks_voxel_size_are_unchanged(tmp_path, axes, sform):
    label = np.random.default_rng(1).integers(0, 3, (9, 11, 14)).astype(np.uint8)
    write(tmp_path / CASE, label, axes((5.0, 0.75, 1.25)), sform)
    settings = replace(SETTINGS, spacing_mm=kits19.geometry(tmp_path, CASE).spacing_mm)
    softmax, path = there_and_back(tmp_path, CASE, settings)
    assert softmax.shape[:-1] == label.shape
    back = assert_same_grid(path, nibabel.load(tmp_path / CASE / kits19.LABEL))
    np.testing.assert_array_equal(back, label)
