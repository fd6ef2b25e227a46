"""A user's own NIfTI volumes go from two folders to a table, and keep their grid."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from data_io import own
from data_io.datasets import folder
from data_io.errors import InputError
from pipelines.cli import main
from pipelines.training import protocol
from pipelines.training.protocol import Protocol

# Axes of different length and voxel size, the first one flipped.
SHAPE = (14, 30, 22)
AFFINE = np.diag([-3.0, 1.5, 2.0, 1.0])
AFFINE[:3, 3] = [40.0, -20.0, 7.0]


def volume(seed: int, shape=SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """A bright box in noise, Hounsfield-like; int16, and its label, uint8."""
    random = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    start = random.integers(1, 5, 3)
    label[tuple(slice(s, s + n) for s, n in zip(start, (8, 14, 12), strict=True))] = 1
    image = np.where(label, 160, -60) + random.normal(0, 20, shape)
    return image.astype(np.int16), label


def write(path: Path, array: np.ndarray, affine=AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def write_sets(place: Path) -> tuple[Path, Path]:
    """Seven volumes; the last has thicker slices, so that all are resampled."""
    for number in range(7):
        affine = AFFINE @ np.diag([1.2, 1, 1, 1]) if number == 6 else AFFINE
        image, label = volume(number)
        write(place / "ct" / f"v{number}_0000.nii.gz", image, affine)
        write(place / "seg" / f"v{number}.nii.gz", label, affine)
    return place / "ct", place / "seg"


def test_what_is_derived(tmp_path):
    found = own.describe(*write_sets(tmp_path), tmp_path / "work")
    record = folder.record(found.root)
    assert record.is_3d and record.channels == 1
    assert record.input_shape == (16, 32, 16)  # nearest to 14, 30 and 22; 16 at least
    assert record.spacing_mm == (3.0, 1.5, 2.0)
    assert "7 of 14 x 30 x 22" in str(found)
    assert "resampled to 3 x 1.5 x 2 mm" in str(found)
    place = folder.geometry(found.root, "v6_0000")
    assert place.spacing_mm == pytest.approx((3.6, 1.5, 2.0))
    image, details = folder.interface(found.root).load_image("v6_0000")
    assert image.shape == (*SHAPE, 1)
    assert details["spacing"] == pytest.approx([3.6, 1.5, 2.0])


def test_problems_of_volumes(tmp_path):
    images, labels = write_sets(tmp_path)
    write(images / "v0_0000.nii.gz", np.full(SHAPE, np.nan, np.float32))
    write(labels / "v1.nii.gz", volume(1, (14, 30, 21))[1])
    (images / "v2_0000.nii.gz").write_bytes(b"\x1f\x8b cut")
    with pytest.raises(InputError) as caught:
        own.describe(images, labels, tmp_path / "work")
    found = str(caught.value)
    assert "3 problems" in found
    assert "v0_0000.nii.gz: expected finite numbers" in found
    assert "v2_0000.nii.gz: expected a whole NIfTI volume" in found
    assert "label map of 14 x 30 x 22, as its image is, found 14 x 30 x 21" in found


def test_a_label_map_on_another_grid_is_refused(tmp_path):
    images, labels = write_sets(tmp_path)
    path = labels / "v1.nii.gz"
    whole = nibabel.load(path)
    # Mirrored in the array and in the affine: the same place in mm, not by voxel.
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = SHAPE[0] - 1
    array = np.asarray(whole.dataobj)[::-1]
    nibabel.save(nibabel.Nifti1Image(array, whole.affine @ mirror), path)
    for _ in range(2):  # decoded, then remembered
        with pytest.raises(InputError, match="v1_0000: expected a label map with the"):
            own.describe(images, labels, tmp_path / "work")


def tiny(record) -> Protocol:
    overlap = tuple(size // 2 for size in record.input_shape)
    return Protocol(record.input_shape, filters=2, depth=2, epochs=8, overlap=overlap)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_from_two_folders_to_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(protocol.PRESETS, "reduced", tiny)
    images, labels = write_sets(tmp_path)
    given = ["--images", str(images), "--masks", str(labels), "--name", "ct"]
    assert main(["train", *given, "--loss", "DSC++", "--preset", "reduced"]) == 0
    (run,) = Path("results/own-ct/reduced/runs").iterdir()
    assert main(["predict", "--run", str(run)]) == 0
    assert main(["evaluate", "--run", str(run)]) == 0
    measured = rows(run / "cases.csv")
    assert {int(row["n_voxels"]) for row in measured} == {14 * 30 * 22}
    assert np.mean([float(row["dice"]) for row in measured]) > 0.5
    assert main(["tables"]) == 0
    means = {row["metric"]: row for row in rows(run.parents[1] / "table.csv")}
    tests = [float(row["nll"]) for row in measured if row["split"] == "test"]
    assert float(means["nll"]["mean"]) == pytest.approx(np.mean(tests), rel=1e-5)

    other = ["--images", "ct", "--masks", "seg", "--name", "elsewhere"]
    assert main(["evaluate", "--run", str(run), *other]) == 0
    there = {
        row["case"]: row["nll"] for row in rows(run / "other-sets/elsewhere/cases.csv")
    }
    assert len(there) == 7
    assert all(there[row["case"]] == row["nll"] for row in measured)

    one = ["--input", str(images / "v6_0000.nii.gz"), "--output", "out"]
    one += ["--probabilities"]
    assert main(["predict", "--model", str(run), *one]) == 0
    written = nibabel.load("out/v6_0000.nii.gz")
    given_image = nibabel.load(images / "v6_0000.nii.gz")
    assert written.shape == SHAPE
    np.testing.assert_array_equal(written.affine, given_image.affine)
    softmax = nibabel.load("out/v6_0000_probabilities.nii.gz").get_fdata()
    np.testing.assert_array_equal(np.asarray(written.dataobj), softmax.argmax(-1))
    record = json.loads((run / "run.json").read_text())
    assert record["preprocessing"]["spacing_mm"] == [3.0, 1.5, 2.0]
