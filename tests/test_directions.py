"""One volume, stored in one direction or the other, is the same to a network."""

import dataclasses
import types
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tiny_volumes

from data_io.datasets import folder
from data_io.datasets.kits19 import kits19
from data_io.own_images import describe
from data_io.prepare import cache, native_grid
from data_io.prepare.preprocessing import Settings
from data_io.verification import verify
from pipelines.prediction import new_images
from pipelines.training import predict
from pipelines.training.protocol import Protocol

SHAPE = (14, 30, 22)
LPS = np.diag([-3.0, -1.5, 2.0, 1.0])
LPS[:3, 3] = 40, 20, 7


@pytest.mark.parametrize(
    ("found", "wanted", "axes"),
    [
        ("RAS", "RAS", ()),
        ("LAS", "RAS", (0,)),
        ("LPI", "RAS", (0, 1, 2)),
        ("SPR", "IPR", (0,)),
        ("SAR", "RAS", ()),  # in another order: refused elsewhere
        (None, "RAS", ()),
        ("RAS", None, ()),
    ],
)
def test_axes_to_flip_by_hand(found, wanted, axes):
    assert native_grid.flipped_axes(found, wanted) == axes


def volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two boxes of one brightness, of which the left one alone is labelled."""
    random = np.random.default_rng(seed)
    image, label = random.normal(0, 9, SHAPE), np.zeros(SHAPE, np.uint8)
    start = random.integers(2, 6, 2)
    there = tuple(slice(s, s + n) for s, n in zip(start, (9, 7), strict=True))
    for first in (1, 8):
        image[(slice(first, first + 5), *there)] += 200
    label[(slice(8, 13), *there)] = 1
    return image.astype(np.int16), label


def save(path: Path, array: np.ndarray, flips=(), affine=LPS, coded=True) -> Path:
    """Stores an array turned along some axes, and an affine that says so."""
    turn = np.eye(4)
    for axis in flips:
        turn[axis, axis], turn[axis, 3] = -1, SHAPE[axis] - 1
    stored = nibabel.Nifti1Image(np.flip(array, flips), affine @ turn)
    if not coded:
        stored.set_sform(None, code=0)
        stored.set_qform(None, code=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(stored, path)
    return path


def sets(place: Path, flips=(), number=6, **options) -> tuple[Path, Path]:
    """Volumes of which the second is turned."""
    for seed in range(number):
        for name, array in zip(("ct", "seg"), volume(seed), strict=True):
            turned = flips if seed == 1 else ()
            save(place / name / f"v{seed}.nii.gz", array, turned, **options)
    return place / "ct", place / "seg"


def prepared(place: Path, sets_) -> tuple[str, cache.Cache]:
    description = describe.describe(*sets_, place / "work")
    settings = Settings.of(folder.own_images.record(description.root), (8, 16, 16))
    settings = dataclasses.replace(settings, spacing_mm=(3.3, 1.8, 2.1))
    cases = folder.own_images.cases(description.root)
    return str(description), cache.prepare(
        folder.own_images, description.root, cases, settings, place / "c"
    )


@pytest.mark.parametrize("flips", [(0,), (1, 2), (0, 1, 2)])
def test_a_folder_of_several_directions_is_turned_to_one(tmp_path, flips):
    _, expected = prepared(tmp_path / "a", sets(tmp_path / "a"))
    description, samples = prepared(tmp_path / "b", sets(tmp_path / "b", flips))
    assert (
        "1 of 6 volumes are mirrored on reading so that all run towards LPS"
        in description
    )
    assert samples.settings.directions == "LPS"
    assert samples.turned("v1") == flips and samples.turned("v0") == ()
    np.testing.assert_allclose(samples.image("v1"), expected.image("v1"), atol=1e-5)
    np.testing.assert_array_equal(samples.label("v1"), expected.label("v1"))
    assert expected.label("v1").any()


def left_half(model, image, protocol):
    """A network that knows left from right: by the array alone."""
    bright = image[..., 0] > 0.5
    bright[: bright.shape[0] // 2] = False
    return np.stack([~bright, bright], -1).astype(np.float32)


def trained(directions: str | None) -> new_images.Trained:
    model = types.SimpleNamespace(input_shape=(None, 8, 16, 16, 1))
    settings = Settings((8, 16, 16), directions=directions, axes=(0, 1, 2))
    protocol = Protocol((8, 16, 16), overlap=(4, 8, 8))
    return new_images.Trained(model, settings, protocol, ("background", "left"))


def predicted(tmp_path, monkeypatch, images: Path, directions="LPS") -> dict[str, Path]:
    monkeypatch.setattr(new_images, "open_model", lambda path: trained(directions))
    monkeypatch.setattr(new_images, "require_model", lambda path: None)
    monkeypatch.setattr(predict, "volume", left_half)
    output = tmp_path / f"out-{images.parent.name}-{directions}"
    written = new_images.predict_images(
        Path("run"), images, output, work=tmp_path / "work", volume_probabilities=True
    )
    return {path.name: path for path in written}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("flips", [(0,), (0, 1), (2,)])
def test_a_mirrored_copy_is_predicted_alike_and_on_its_own_grid(
    tmp_path, monkeypatch, flips
):
    images, labels = sets(tmp_path / "set", flips, number=2)
    for name, path in predicted(tmp_path, monkeypatch, images).items():
        image, prediction = nibabel.load(images / name), nibabel.load(path)
        np.testing.assert_array_equal(prediction.affine, image.affine)
        truth = np.asarray(nibabel.load(labels / name).dataobj)
        assert dice(np.asarray(prediction.dataobj), truth) > 0.95
        chances = path.with_name(name.replace(".nii", "_probabilities.nii"))
        foreground = nibabel.load(chances).get_fdata()[..., 1]
        assert dice((foreground > 0.5).astype(np.uint8), truth) > 0.95


def test_a_mirrored_copy_is_measured_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "volume", left_half)
    network, measured = trained("LPS"), {}
    for name, flips in (("a", ()), ("b", (0, 1))):
        given = sets(tmp_path / name, flips, number=2)
        found = describe.describe(*given, tmp_path / "work", like=network.record())
        ((rows, _),) = new_images._measure(network, found.root, name, [None])
        measured[name] = {
            row["case"]: row["dice"] for row in rows if row["region"] == "image"
        }
    assert measured["a"] == measured["b"]
    assert min(measured["a"].values()) > 0.95


def test_volumes_that_cannot_be_turned_are_reported(tmp_path, monkeypatch):
    silent = sets(tmp_path / "a", coded=False, number=1)
    like = trained("LPS").record()
    lines = str(describe.describe(*silent, tmp_path / "work", like=like))
    assert "1 of 1 headers do not say how their volume lies, such as v0: taken" in lines
    before = dataclasses.replace(like, directions=None)
    known = sets(tmp_path / "b", number=1)
    lines = str(describe.describe(*known, tmp_path / "work", like=before))
    assert "turned   none: towards what axes run was not noted in training" in lines


def test_older_run_reads_volumes_without_turning(tmp_path, monkeypatch):
    images, labels = sets(tmp_path / "set", (0,), number=2)
    prediction = predicted(tmp_path, monkeypatch, images, None)["v1.nii.gz"]
    label = np.asarray(nibabel.load(labels / "v1.nii.gz").dataobj)
    assert dice(np.asarray(nibabel.load(prediction).dataobj), label) < 0.5


def test_oblique_volume_gets_the_nearest_direction(tmp_path):
    cos, sin = np.cos(0.5), np.sin(0.5)  # 29 degrees
    turn = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    given = sets(tmp_path, (0,), affine=turn @ LPS)
    description = describe.describe(*given, tmp_path / "work")
    assert folder.own_images.record(description.root).directions == "LPS"
    assert "1 of 6 volumes are mirrored" in str(description)
    assert folder.own_images.geometry(description.root, "v1").directions == "RPS"


def test_a_mirrored_case_of_a_data_set_is_a_warning(tmp_path):
    root = tiny_volumes.write(tmp_path / "kits")
    assert "mirrored" not in " ".join(verify.audit(kits19, root).warnings)
    for name in (kits19.IMAGE, kits19.LABEL):
        path = root / "case_00001" / name
        stored = nibabel.load(path)
        affine = stored.affine @ np.diag([1, 1, -1, 1])
        array = np.asarray(stored.dataobj)
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
    report = verify.audit(kits19, root)
    assert not report.problems
    assert "1 of 5 volumes are stored mirrored, such as case_00001 (IPR" in " ".join(
        report.warnings
    )
