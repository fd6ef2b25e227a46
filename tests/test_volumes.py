"""Volumes from their stored probabilities on, in pieces that are never the whole."""

import tracemalloc
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from data_io.datasets.kits19 import kits19
from data_io.errors import InputError
from data_io.files import hashing, nifti
from data_io.prepare import native_grid
from data_io.prepare.miscnn_compat import Resampling, Sample
from pipelines import cli
from pipelines.measure import histograms, metrics, regions, voxels
from pipelines.prediction import evaluate, export
from pipelines.reporting.figures import photographs
from pipelines.reporting.figures.photographs import Plane
from pipelines.reporting.published import Variant
from pipelines.runs import run as runs
from pipelines.training.task import Task

CASE = "case_00003"
SHAPE, SPACING_MM = (13, 20, 24), (5.0, 1.1, 0.7)
KITS19 = (3.22, 1.62, 1.62)
GRID = (20, 13, 10)


def affine_of(spacing_mm):
    """As KiTS19's: the axes of the file are those of the scanner, backwards."""
    affine = np.zeros((4, 4))
    affine[[0, 1, 2, 3], [2, 1, 0, 3]] = *(-mm for mm in spacing_mm[::-1]), 1
    return affine


def softmax_of(shape):
    random = np.random.default_rng(1)
    return random.dirichlet([0.3, 0.3, 0.3], shape).astype(np.float32)


def miscnn(softmax, shape):
    """The whole softmax at native resolution, as MIScnn brings it back."""
    sample = Sample("a", np.zeros((2, 2, 2, 1)), 1, 3, {"original_shape": shape})
    return Resampling(KITS19).postprocessing(sample, softmax, activation_output=True)


@pytest.fixture
def volume(tmp_path):
    """A case as KiTS19 distributes it, and a run that has predicted it."""
    random = np.random.default_rng(0)
    image = random.integers(-1024, 1500, SHAPE).astype(np.int16)
    label = random.integers(0, 3, SHAPE).astype(np.uint8)
    label[7] = 2  # the largest slice
    root = tmp_path / "data"
    (root / CASE).mkdir(parents=True)
    for name, array in ((kits19.IMAGE, image), (kits19.LABEL, label)):
        file = nibabel.Nifti1Image(array, affine_of(SPACING_MM))
        nibabel.save(file, root / CASE / name)
    run = runs.Run(
        tmp_path / "run",
        {
            "dataset": "kits19",
            "state": "predicted",
            "title": "KiTS19",
            "simulated": False,
            "preset": "reduced",
            "loss": "DSC",
            "preprocessing": {"spacing_mm": list(KITS19)},
            "split": {"training": [], "validation": [], "test": [CASE]},
        },
    )
    run.path("probabilities").mkdir(parents=True)
    np.save(run.path("probabilities") / f"{CASE}.npy", softmax_of(GRID))
    return SimpleNamespace(root=root, run=run, image=image, label=label)


@pytest.mark.parametrize("planes", [1, 4, 100])
def test_measures_by_slab_equal_those_of_the_whole(monkeypatch, volume, planes):
    monkeypatch.setattr(native_grid, "_VOXELS", planes * SHAPE[0] * SHAPE[1])
    rows, pairs = evaluate.measure(volume.run, kits19, volume.root, [("test", CASE)])
    whole = miscnn(softmax_of(GRID), SHAPE)
    near = regions.band(volume.label, regions.band_radius(3, SPACING_MM))
    masks = {"image": None, "band": near}
    assert [(row["target"], row["region"]) for row in rows] == [
        (target, region) for target in ("kidney", "kidney tumour") for region in masks
    ]
    assert not pairs
    for row in rows:
        target, mask = 1 + (row["target"] == "kidney tumour"), masks[row["region"]]
        # Where the rounding of float32 decides, a voxel may fall in the next bin.
        counts = histograms.count(whole[..., target], volume.label == target, mask=mask)
        assert np.abs(row.pop("counts") - counts).sum() <= 4
        expected = metrics.case_metrics(volume.label, whole, target, mask)
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-5), name


def test_measures_do_not_depend_on_the_number_of_cores(monkeypatch, volume):
    monkeypatch.setattr(native_grid, "_VOXELS", SHAPE[0] * SHAPE[1])
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(evaluate.pool, "threads", lambda cores=cores: cores)
        cases = [("test", CASE)]
        found.append(evaluate.measure(volume.run, kits19, volume.root, cases)[0])
    for rows in found[1:]:
        for row, first in zip(rows, found[0], strict=True):
            assert row.keys() == first.keys()
            for name, value in first.items():
                np.testing.assert_array_equal(row[name], value)  # to the last bit


def test_error_in_a_slab_is_raised(monkeypatch, volume):
    monkeypatch.setattr(native_grid, "_VOXELS", SHAPE[0] * SHAPE[1])
    softmax = softmax_of(GRID)
    softmax[:, :, -1] = np.nan
    np.save(volume.run.path("probabilities") / f"{CASE}.npy", softmax)
    with pytest.raises(InputError, match=r"case_00003\.npy: .* in \[0, 1\], found nan"):
        evaluate.measure(volume.run, kits19, volume.root, [("test", CASE)])


def test_probabilities_of_another_grid_are_refused(volume):
    np.save(volume.run.path("probabilities") / f"{CASE}.npy", softmax_of(SHAPE))
    with pytest.raises(
        InputError, match=r"expected shape \(20, 13, 10, 3\).*\(13, 20,"
    ):
        evaluate.measure(volume.run, kits19, volume.root, [("test", CASE)])


def test_without_a_voxel_size_the_grids_are_the_same(volume):
    del volume.run.record["preprocessing"]["spacing_mm"]
    softmax = softmax_of(SHAPE)
    np.save(volume.run.path("probabilities") / f"{CASE}.npy", softmax)
    rows, _ = evaluate.measure(volume.run, kits19, volume.root, [("test", CASE)])
    expected = metrics.case_metrics(volume.label, softmax, 1)
    assert {name: rows[0][name] for name in expected} == pytest.approx(expected)


def test_picture_shows_the_slice_with_most_foreground(monkeypatch, volume):
    drawn, read = [], photographs.Example.read

    def keep(*given, **more):
        drawn.append(read(*given, **more))
        return drawn[0]

    monkeypatch.setattr(photographs.Example, "read", keep)
    path = photographs.picture(volume.run, volume.root)
    (shown,) = drawn
    assert path == volume.run.path("pictures") / f"{CASE}.png"
    np.testing.assert_array_equal(shown.truth, np.ones(SHAPE[1:], bool))
    np.testing.assert_array_equal(shown.image, volume.image[7].clip(-79, 304))
    background = miscnn(softmax_of(GRID), SHAPE)[7, ..., 0]
    foreground = shown.probability(Variant("DSC"))
    np.testing.assert_allclose(foreground, 1 - background, rtol=0, atol=1e-6)


def test_picture_of_a_volume_is_drawn(volume):
    assert photographs.picture(volume.run, volume.root).stat().st_size > 1000


def test_the_picture_has_a_row_for_each_class(monkeypatch, volume):
    """It showed 1 - p(background) beside a binary truth, and named no class."""
    drawn = []
    monkeypatch.setattr(
        photographs.Sheet, "draw", lambda sheet, *_: drawn.append(sheet) or [None]
    )
    volume.label[7, :9] = 1
    file = nibabel.Nifti1Image(volume.label, affine_of(SPACING_MM))
    nibabel.save(file, volume.root / CASE / kits19.LABEL)
    photographs.picture(volume.run, volume.root)
    (sheet,) = drawn
    assert sheet.labels == ("kidney", "kidney tumour")
    chances = miscnn(softmax_of(GRID), SHAPE)[7]
    for number, (_, truth, heat) in enumerate(sheet.rows, 1):
        np.testing.assert_array_equal(
            truth.pixels[..., 0] > 0, volume.label[7] == number
        )
        np.testing.assert_allclose(heat.pixels, chances[..., number], atol=1e-6)
        assert heat.title == "DSC"
        assert heat.aspect == truth.aspect == pytest.approx(1.1 / 0.7)


def test_pictures_and_maps_of_a_predicted_volume(monkeypatch, volume):
    drawn, draw = [], photographs.Sheet.draw

    def keep(sheet, *given):
        drawn.append(sheet)
        return draw(sheet, *given)

    monkeypatch.setattr(photographs.Sheet, "draw", keep)
    volume.run.record["settings"] = {"input_shape": [8, 8, 8]}
    (path,) = export.pictures(volume.run, volume.root)
    assert path == volume.run.path("pictures") / f"{CASE}_picture.png"
    names = {one.name for one in path.parent.iterdir()}
    maps = {f"{CASE}_probabilities.nii.gz", f"{CASE}_entropy.nii.gz"}
    assert names == {path.name, "dscpp.sha256", *maps}
    whole = miscnn(softmax_of(GRID), SHAPE)
    entropy = -(whole * np.log(whole)).sum(axis=-1) / np.log(3)
    found = nibabel.load(path.with_name(f"{CASE}_entropy.nii.gz"))
    assert found.shape == SHAPE and found.get_data_dtype() == np.float32
    np.testing.assert_allclose(found.get_fdata(), entropy, atol=1e-5)
    label = whole.argmax(axis=-1)
    index = (label > 0).sum(axis=(1, 2)).argmax()
    (sheet,) = drawn
    image, overlay, kidney, tumour, last = [p for row in sheet.rows for p in row if p]
    titles = [panel.title for panel in (overlay, kidney, tumour, last)]
    assert titles == ["prediction", "p(kidney)", "p(kidney tumour)", "entropy"]
    assert list(sheet.key) == ["kidney", "kidney tumour"]
    np.testing.assert_allclose(tumour.pixels, whole[index, ..., 2], atol=1e-6)
    np.testing.assert_allclose(last.pixels, entropy[index], atol=1e-5)
    first = np.array([0xE6, 0x9F, 0x00]) // 2
    inside = overlay.pixels[label[index] == 1].astype(int)
    assert (inside >= first).all() and (inside <= first + 0.3 * 255 + 1).all()
    assert image.aspect == last.aspect == pytest.approx(1.1 / 0.7)
    # Written again; but not over a picture that was edited.
    export.pictures(volume.run, volume.root)
    path.write_bytes(b"edited")
    with pytest.raises(InputError, match="expected no file, or one that dscpp wrote"):
        export.pictures(volume.run, volume.root)


def place(code, sizes):
    """A geometry whose axes run towards these directions."""
    along = {"L": (0, -1), "R": (0, 1), "P": (1, -1), "A": (1, 1), "I": (2, -1)}
    along["S"] = (2, 1)
    affine = np.zeros((4, 4))
    for axis, (letter, size) in enumerate(zip(code, sizes, strict=True)):
        affine[along[letter][0], axis] = along[letter][1] * size
    affine[3, 3] = 1
    header = nibabel.Nifti1Header()
    header["sform_code"] = 1
    return nifti.Geometry((4, 5, 6), affine, header)


@pytest.mark.parametrize(
    ("code", "sizes", "axis", "aspect", "turned", "flipped"),
    [
        ("IPL", (5, 1, 2), 0, 1 / 2, False, ()),  # KiTS19's: as it is stored
        ("RAS", (1, 2, 5), 2, 2 / 1, True, (0, 1)),  # axial: front at the top, R left
        ("LPS", (1, 2, 5), 2, 2 / 1, True, ()),
        ("LPS", (1, 5, 2), 1, 2 / 1, True, (0,)),  # coronal: head at the top
        ("RAS", (5, 1, 2), 0, 2 / 1, True, (0, 1)),  # sagittal: head up, front left
        ("SPL", (1, 1, 1.0000001), 0, 1, False, ()),  # rounding makes no axis large
    ],
)
def test_the_plane_of_highest_resolution(code, sizes, axis, aspect, turned, flipped):
    """It was always cut across axis 0, whatever its voxels."""
    target = np.zeros((4, 5, 6))
    target[2, 3, 4] = target[2, 3, 5] = target[2, 4, 4] = target[1, 3, 4] = 1
    plane = Plane.of(place(code, sizes), target)
    assert (plane.axis, plane.index) == (axis, (2, 3, 4)[axis])
    assert plane.aspect == pytest.approx(aspect)
    assert (plane.turned, plane.flipped) == (turned, flipped)
    volume = np.random.default_rng(0).random((4, 5, 6))
    expected = volume.take(plane.index, axis)
    expected = np.flip(expected.T if turned else expected, flipped)
    np.testing.assert_array_equal(plane.cut(volume), expected)


def test_plane_of_a_volume_without_target_or_orientation():
    silent = place("LPS", (1, 2, 5))
    silent.header["sform_code"] = 0
    plane = Plane.of(silent, np.zeros((4, 5, 6)))
    assert (plane.axis, plane.index, plane.aspect) == (2, 3, 1 / 2)
    assert not plane.turned and not plane.flipped


@pytest.mark.parametrize("planes", [2, 100])
def test_nifti_files_lie_on_the_grid_of_the_image(monkeypatch, volume, planes):
    monkeypatch.setattr(native_grid, "_VOXELS", planes * SHAPE[0] * SHAPE[1])
    (path,) = export.volumes(volume.run, volume.root, with_probabilities=True)
    assert path == volume.run.path("nifti") / f"{CASE}.nii.gz"
    given = nibabel.load(volume.root / CASE / kits19.IMAGE)
    label = nibabel.load(path)
    chances = nibabel.load(path.with_name(f"{CASE}_probabilities.nii.gz"))
    whole = miscnn(softmax_of(GRID), SHAPE)
    for found, shape, dtype in (
        (label, SHAPE, np.uint8),
        (chances, (*SHAPE, 3), np.float32),
    ):
        assert (found.shape, found.get_data_dtype()) == (shape, dtype)
        np.testing.assert_array_equal(found.affine, given.affine)
        np.testing.assert_array_equal(
            found.header.get_zooms()[:3], given.header.get_zooms()
        )
    np.testing.assert_array_equal(np.asarray(label.dataobj), whole.argmax(axis=-1))
    np.testing.assert_allclose(np.asarray(chances.dataobj), whole, rtol=0, atol=3e-7)


def test_images_are_not_written_as_nifti(volume):
    volume.run.record["dataset"] = "drive"
    with pytest.raises(InputError, match="expected a run on volumes for --nifti"):
        export.volumes(volume.run, volume.root)


def test_a_threshold_leaves_the_rest_to_the_background():
    softmax = np.array([[0.6, 0.1, 0.3], [0.2, 0.45, 0.35], [0.5, 0.25, 0.25]])
    np.testing.assert_array_equal(export.labels(softmax), [0, 1, 0])
    np.testing.assert_array_equal(export.labels(softmax, 0.3), [2, 1, 0])
    np.testing.assert_array_equal(export.labels(softmax, 0.25), [2, 1, 1])


def test_the_command_writes_nifti_files(volume, tmp_path, capsys):
    task = Task.make("kits19", "DSC", preset="reduced")
    hashes = hashing.case_hashes(
        kits19, volume.root, [CASE], tmp_path / "work" / "cache"
    )
    volume.run.record.update(
        task.identity(),
        format=runs.FORMAT,
        state="evaluated",
        data_hash=hashing.data_hash(hashes),
    )
    runs.write_json(volume.run.path("run.json"), volume.run.record)
    folder, data = str(volume.run.folder), str(volume.root)
    typed = ["predict", "--run", folder, "--data", data, "--work", f"{tmp_path}/work"]
    assert cli.main([*typed, "--probabilities"]) == 2
    assert "expected --nifti too" in capsys.readouterr().err
    assert cli.main([*typed, "--nifti", "--probabilities"]) == 0
    assert sorted(path.name for path in volume.run.path("nifti").glob("*.gz")) == [
        f"{CASE}.nii.gz",
        f"{CASE}_probabilities.nii.gz",
    ]
    (volume.root / CASE / kits19.IMAGE).write_bytes(b"another image")
    assert cli.main([*typed, "--nifti"]) == 2
    assert "data_hash" in capsys.readouterr().err


def test_a_volume_is_measured_in_a_fraction_of_its_softmax(monkeypatch, volume):
    shape = (240, 120, 100)
    label = np.zeros(shape, np.uint8)
    for name in (kits19.IMAGE, kits19.LABEL):
        file = nibabel.Nifti1Image(label, affine_of(KITS19))
        nibabel.save(file, volume.root / CASE / name)
    softmax = np.full((*shape, 3), 1 / 3, np.float32)
    np.save(volume.run.path("probabilities") / f"{CASE}.npy", softmax)
    monkeypatch.setattr(native_grid, "_VOXELS", 2 * shape[0] * shape[1])
    monkeypatch.setattr(voxels, "_BLOCK", 2 * shape[0] * shape[1])
    tracemalloc.start()
    try:
        evaluate.measure(volume.run, kits19, volume.root, [("test", CASE)])
        export.volumes(volume.run, volume.root, with_probabilities=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Several copies of the label map, never the softmax (twelve times as large).
    assert peak < 0.5 * softmax.nbytes
