"""Hippocampus is read as distributed, and its patches lie in every volume."""

import imitations
import nibabel
import numpy as np
import pytest

from data_io import datasets
from data_io.datasets.hippocampus import hippocampus
from data_io.errors import InputError
from data_io.prepare.cache import prepare
from data_io.prepare.preprocessing import Settings
from pipelines.training import protocol

SHAPE = (31, 40, 24)  # the least along each axis of all volumes


def save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


@pytest.fixture
def root(tmp_path):
    """An imitation: true layout, made-up content, scales of two kinds."""
    random = np.random.default_rng(0)
    folder = tmp_path / "Task04_Hippocampus"
    for number in (1, 3, 4, 6):
        shape = (SHAPE[0] + number, *SHAPE[1:])
        image = random.uniform(0, 1, shape)
        label = np.digitize(image, (0.8, 0.9)).astype(np.uint8)
        image = np.uint8(200 * image) if number % 2 else np.float32(9e5 * image)
        name = f"hippocampus_{number:03d}.nii.gz"
        save(folder / "imagesTr" / name, image)
        save(folder / "labelsTr" / name, label)
        (folder / "imagesTr" / f"._{name}").write_bytes(b"of the archive")
    return folder


def test_folder_and_its_parent_are_accepted(root):
    assert datasets.by_name("hippocampus") is hippocampus
    assert hippocampus.locate(root) == hippocampus.locate(root.parent) == root
    with pytest.raises(InputError, match="medicaldecathlon"):
        hippocampus.locate(root / "imagesTr")


def test_complete_data_set_passes(root):
    report = imitations.verify(hippocampus, root)
    assert report.values["observer1"] == {0, 1, 2}
    assert report.decoded == 8
    assert report.warnings == [
        "4 cases, the whole data set has 260; the split is 80/20 and 80/20, so its "
        "sizes are others too"
    ]


def test_missing_files_and_other_directions_are_named(root):
    (root / "imagesTr" / "hippocampus_001.nii.gz").unlink()
    (root / "labelsTr" / "hippocampus_003.nii.gz").unlink()
    swapped = np.eye(4)[[2, 1, 0, 3]]
    for part in hippocampus.MARKS:
        save(
            root / part / "hippocampus_004.nii.gz",
            np.eye(40, dtype="u1")[None],
            swapped,
        )
    with pytest.raises(InputError) as caught:
        imitations.verify(hippocampus, root)
    message = str(caught.value)
    for name in ("imagesTr/hippocampus_001", "labelsTr/hippocampus_003"):
        assert f"{name}.nii.gz: expected a file, found none" in message
    assert "hippocampus_004" in message


def test_each_volume_is_z_scored_on_its_own_grid(root, tmp_path):
    settings = Settings.of(hippocampus.RECORD, (24, 32, 24))
    cases = hippocampus.cases(root)
    cache = prepare(hippocampus, root, cases, settings, tmp_path / "cache")
    for case in cases:
        image, label = cache.image(case), cache.label(case)
        assert image.shape == (*hippocampus.geometry(root, case).shape, 1)
        np.testing.assert_allclose([image.mean(), image.std()], [0, 1], atol=1e-4)
        expected = hippocampus.references(root, case)["observer1"]
        np.testing.assert_array_equal(label, expected)


def test_a_reduced_patch_lies_in_every_volume():
    reduced = protocol.preset("reduced", hippocampus.RECORD)
    assert all(np.less_equal(reduced.input_shape, SHAPE))
    assert not any(size % 2**reduced.depth for size in reduced.input_shape)
    assert reduced.overlap == (12, 16, 12)
    paper = protocol.preset("paper", hippocampus.RECORD)
    assert not any(size % 2**paper.depth for size in paper.input_shape)
