"""CT phantoms: labels stay where they are, values are those of tissue, seeds repeat."""

import json
from pathlib import Path

import imitations
import nibabel
import numpy as np
import pytest

from data_io import datasets, splits
from data_io.datasets.kits19 import kits19
from data_io.datasets.kits19_simulated import kits19_simulated
from data_io.errors import InputError
from data_io.files import nifti
from data_io.simulation import ct
from pipelines import cli
from pipelines.workflow import reproduce

SPACING_MM = (5.0, 2.2, 2.4)
SHAPE = (34, 120, 140)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def label():
    return ct.draw_label(SHAPE, SPACING_MM, generator())


@pytest.fixture(scope="module")
def volume(label):
    return ct.simulate(label, SPACING_MM, generator(1))


def test_a_drawn_label_has_two_kidneys_and_a_tumour(label):
    assert set(np.unique(label)) == {0, 1, 2}
    left, right = label[..., :70], label[..., 70:]
    # An ellipsoid of 40-55 x 22-30 x 24-32 mm half axes: 88 to 221 ml.
    voxel_ml = np.prod(SPACING_MM) / 1000
    assert 80 < (left == 1).sum() * voxel_ml < 230
    assert (right > 0).any()
    assert (left == 2).any() != (right == 2).any()


def test_values_are_those_of_a_scanner(label, volume):
    assert (volume.shape, volume.dtype) == (SHAPE, np.int16)
    assert volume.min() >= -1024 and volume.max() <= 3071
    kidney, tumour = volume[label == 1], volume[label == 2]
    assert 120 < np.median(kidney) < 200
    assert 15 < np.median(kidney) - np.median(tumour) < 75
    assert 15 < kidney.std() < 70  # noise, texture and blurred edges
    background = volume[label == 0]
    assert (background < -900).any()  # air
    assert ((background > -140) & (background < -60)).mean() > 0.1  # fat
    assert (background > 280).any()  # bone


def test_brightness_alone_does_not_identify_a_kidney(label, volume):
    low, high = np.percentile(volume[label == 1], (5, 95))
    alike = (volume >= low) & (volume <= high)
    assert (alike & (label == 0)).sum() > (alike & (label > 0)).sum()


def test_the_same_seed_gives_the_same_volume(label, volume):
    again = ct.simulate(label, SPACING_MM, generator(1))
    np.testing.assert_array_equal(again, volume)
    assert (ct.simulate(label, SPACING_MM, generator(2)) != volume).mean() > 0.9


def test_an_edge_is_blurred_by_known_weights():
    # Half a plane of kidney at 100 in surroundings of 0, blurred by one pixel: the
    # normal distribution function at half a pixel beyond the edge.
    plane = np.zeros((9, 40), np.uint8)
    plane[:, 20:] = 1
    zero = np.zeros(plane.shape)
    found = ct.embed(plane, zero, zero, (100.0, 50.0), (1, 1))
    np.testing.assert_allclose(found[4, 18:22], [6.5, 31, 69, 93.5], atol=1.5)
    np.testing.assert_allclose(found[:, [0, 39]], [[0, 100]] * 9, atol=1e-3)


def test_map_without_kidneys_gives_a_body():
    found = ct.simulate(np.zeros((4, 40, 50), np.uint8), (5, 6, 6), generator())
    assert found.std() > 100


@pytest.fixture
def masks(tmp_path):
    """Label maps without images, as they come with the challenge's repository."""
    affine = np.array([[0, 0, -2.4, 1], [0, -2.2, 0, 2], [-5, 0, 0, 3], [0, 0, 0, 1.0]])
    for number in (0, 7, 15, 160):  # 15 is left out by the paper
        folder = tmp_path / "kits19" / f"case_{number:05d}"
        folder.mkdir(parents=True)
        shape = (8, 60 + number % 9, 70)
        label = ct.draw_label(shape, (5, 5, 5), generator(number))
        image = nibabel.Nifti1Image(label, affine)
        nibabel.save(image, folder / "segmentation.nii.gz")
    return tmp_path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(kits19_simulated, "FOLDER", tmp_path / "work")


def test_simulated_over_given_label_maps(masks):
    root = kits19_simulated.locate(masks)
    assert kits19_simulated.cases(root) == ("case_00000", "case_00007", "case_00160")
    given = masks / "kits19" / "case_00007" / "segmentation.nii.gz"
    written = root / "case_00007" / "segmentation.nii.gz"
    assert written.read_bytes() == given.read_bytes()
    image = nibabel.load(root / "case_00007" / "imaging.nii.gz")
    np.testing.assert_array_equal(image.affine, nibabel.load(given).affine)
    assert image.get_data_dtype() == np.int16
    assert b"phantom" in image.header["descrip"].item()
    assert not list((masks / "kits19").rglob("imaging*"))  # nothing is written there
    assert kits19_simulated.locate(root) == root
    about = json.loads((root / "dataset.json").read_text())
    assert about["simulated"] is True
    report = imitations.verify(kits19_simulated, root)
    assert "no patient" in "\n".join(report.warnings)


def test_interrupted_simulation_resumes(masks):
    root = kits19_simulated.locate(masks)
    first = (root / "case_00000" / "imaging.nii.gz").stat()
    lost = root / "case_00160" / "imaging.nii.gz"
    before = nifti.read(lost)
    lost.unlink()
    (root / "dataset.json").unlink()
    assert kits19_simulated.locate(masks) == root
    np.testing.assert_array_equal(nifti.read(lost), before)
    assert (root / "case_00000" / "imaging.nii.gz").stat() == first
    assert not list(root.glob(".making-*"))


def test_a_file_that_is_gone_is_named(masks):
    root = kits19_simulated.locate(masks)
    (root / "case_00007" / "imaging.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case_00007/imaging\.nii\.gz: expected"):
        imitations.verify(kits19_simulated, root)


def test_other_masks_are_another_set(masks):
    root = kits19_simulated.locate(masks)
    (masks / "kits19" / "case_00007" / "segmentation.nii.gz").unlink()
    other = kits19_simulated.locate(masks)
    assert other != root
    assert "case_00007" not in kits19_simulated.cases(other)
    for path in masks.rglob("kits19/*/segmentation.nii.gz"):
        path.unlink()
    with pytest.raises(InputError, match="expected label maps"):
        kits19_simulated.locate(masks)


def test_label_maps_are_drawn_where_none_are_given(monkeypatch):
    monkeypatch.setattr(kits19_simulated, "DRAWN", 2)
    root = kits19_simulated.locate(None)
    shapes = {kits19.geometry(root, case).shape for case in kits19.cases(root)}
    assert len(shapes) == 2
    label = kits19.references(root, "case_00001")["observer1"]
    assert set(np.unique(label)) == {0, 1, 2}


def test_drawn_cases_are_enough_for_a_split():
    sizes = splits.sizes(kits19_simulated.DRAWN, kits19_simulated.RECORD.counts, "")
    assert sizes == {"training": 9, "validation": 3, "test": 3}
    names = {f"case_{number:05d}" for number in range(kits19_simulated.DRAWN)}
    assert not names & set(kits19.EXCLUDED)


def test_every_table_row_is_marked_phantom():
    record = datasets.by_name("kits19-simulated").RECORD
    assert record.simulated
    assert all("phantom" in name for name in (record.title, *record.classes[1:]))
    assert datasets.simulated("kits19") == "kits19-simulated"
    assert datasets.simulated("drive") == "phantom"


def test_phantom_takes_label_maps_for_volumes_and_nothing_for_images(monkeypatch):
    asked = []

    def notice(experiments, data, *rest):
        (experiment,) = experiments
        asked.append((experiment.dataset, experiment.preset, data))
        return 0

    monkeypatch.setattr(reproduce, "reproduce", notice)
    for name in ("kits19", "drive"):
        given = ["reproduce", "--dataset", name, "--phantom", "--data", "there"]
        assert cli.main([*given, "--preset", "reduced"]) == 0
    assert asked == [
        ("kits19-simulated", "reduced", Path("there")),
        ("phantom", "reduced", None),
    ]
