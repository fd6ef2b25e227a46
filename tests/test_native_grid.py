"""Back on the volume's own grid: slab by slab is what MIScnn gives for the whole."""

import numpy as np
import pytest

from data_io.errors import InputError
from data_io.prepare import native_grid
from data_io.prepare.miscnn_compat import Resampling, Sample

# The network's grid and the volume's own: finer, coarser, both, the same, one slice.
GRIDS = (
    ((7, 9, 11), (29, 37, 23)),
    ((23, 17, 12), (9, 8, 7)),
    ((14, 9, 13), (5, 37, 29)),
    ((6, 5, 4), (6, 5, 4)),
    ((1, 8, 5), (4, 5, 1)),
)


def softmax_of(shape, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return random.dirichlet([0.3] * classes, shape).astype(np.float32)


def whole(softmax, shape):
    """MIScnn's own way back."""
    sample = Sample("a", np.zeros((2, 2, 2, 1)), 1, 3, {"original_shape": shape})
    step = Resampling((3.22, 1.62, 1.62))
    return step.postprocessing(sample, softmax, activation_output=True)


@pytest.mark.parametrize(("grid", "shape"), GRIDS)
@pytest.mark.parametrize("planes", [1, 3, 100])
def test_slabs_equal_miscnns_whole_volume(monkeypatch, grid, shape, planes):
    monkeypatch.setattr(native_grid, "_VOXELS", planes * shape[0] * shape[1])
    softmax = softmax_of(grid)
    expected = whole(softmax, shape)
    found = np.full_like(expected, np.nan)
    for part, slab in native_grid.slabs(softmax, shape):
        assert slab.dtype == np.float32
        assert slab.shape[2] <= planes
        found[part] = slab
    assert found.shape == (*shape, 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_single_plane_equals_that_of_the_whole(axis):
    softmax = softmax_of((7, 9, 11))
    found = native_grid.plane(softmax, (29, 37, 23), 12, axis)
    expected = whole(softmax, (29, 37, 23)).take(12, axis)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7)


def test_the_same_grid_changes_no_bit():
    softmax = softmax_of((6, 5, 4))
    ((part, found),) = native_grid.slabs(softmax, (6, 5, 4))
    assert part == np.s_[:, :, 0:4]
    np.testing.assert_array_equal(found, softmax)


def test_two_voxels_to_four_by_hand():
    # Cells of half the size: centres at -1/4, 1/4, 3/4 and 5/4, the outer ones clipped.
    softmax = np.array([0.0, 1.0], np.float32).reshape(2, 1, 1, 1)
    found = native_grid.plane(softmax, (4, 1, 1), 0, 2)
    np.testing.assert_array_equal(found.ravel(), [0, 0.25, 0.75, 1])


def test_rounding_of_voxel_sizes_loses_no_voxel():
    shape, wanted = (512, 512, 1059), (0.7, 0.7, 0.5)
    near = (np.nextafter(0.7, 0), 0.699994, 0.5000049)
    assert native_grid.resampled_shape(shape, near, wanted) == shape
    # Further off it is another size: 512 x 0.6999 / 0.7 = 511.93
    assert native_grid.resampled_shape(shape, (0.6999, 0.7, 0.5), wanted)[0] == 511


def test_a_thin_volume_is_named():
    with pytest.raises(InputError, match=r"^case b7: expected a volume"):
        native_grid.resampled_shape((1, 8, 8), (2, 1, 1), (3, 1, 1), "case b7")
