"""A user's own NIfTI volumes go from two folders to a table, and keep their grid."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import own_page
import pytest

from data_io.datasets import folder
from data_io.errors import InputError
from data_io.files import nifti
from data_io.own_images import describe
from data_io.own_images import grids as own_grids
from data_io.prepare import cache
from data_io.prepare.interface import RawInterface
from data_io.prepare.preprocessing import Settings
from data_io.verification import volumes
from pipelines.cli import main
from pipelines.runs import predictions
from pipelines.runs import run as runs
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


def write_sets(place: Path, channels: int = 1) -> tuple[Path, Path]:
    """Seven volumes; the last has thicker slices, so that all are resampled."""
    for number in range(7):
        affine = AFFINE @ np.diag([1.2, 1, 1, 1]) if number == 6 else AFFINE
        image, label = volume(number)
        for channel in range(channels):
            name = f"v{number}_000{channel}.nii.gz"
            write(place / "ct" / name, image * (-1) ** channel, affine)
        write(place / "seg" / f"v{number}.nii.gz", label, affine)
    return place / "ct", place / "seg"


def test_derived_values_of_volumes(tmp_path):
    description = describe.describe(*write_sets(tmp_path), tmp_path / "work")
    record = folder.own_images.record(description.root)
    assert record.is_3d and record.channels == 1
    assert record.input_shape == (16, 32, 16)  # nearest to 14, 30 and 22; 16 at least
    assert record.spacing_mm == (3.0, 1.5, 2.0)
    assert "7 of 14 x 30 x 22" in str(description)
    assert "3 x 1.5 x 2 mm, the median; 1 of 7 volumes are resampled" in str(
        description
    )
    assert record.axes == (0, 1, 2)
    assert "left-right, back-front, foot-head" in str(description)
    place = folder.own_images.geometry(description.root, "v6")
    assert place.spacing_mm == pytest.approx((3.6, 1.5, 2.0))
    image, details = RawInterface(folder.own_images, description.root).load_image("v6")
    assert image.shape == (*SHAPE, 1)
    assert details["spacing"] == pytest.approx([3.6, 1.5, 2.0])


def write_alike(place: Path, affine, shape=SHAPE, number=6) -> tuple[Path, Path]:
    """Volumes of one voxel size."""
    for seed in range(number):
        image, label = volume(seed, shape)
        write(place / "ct" / f"v{seed}.nii.gz", image, affine)
        write(place / "seg" / f"v{seed}.nii.gz", label, affine)
    return place / "ct", place / "seg"


def test_common_voxel_size_is_kept_exactly(tmp_path):
    affine = np.diag([0.7123456, 0.703125, 5.0, 1.0]).astype(np.float32)
    description = describe.describe(*write_alike(tmp_path, affine), tmp_path / "work")
    spacing = folder.own_images.record(description.root).spacing_mm
    assert spacing == pytest.approx((0.7123456, 0.703125, 5.0), rel=1e-6)
    assert spacing == folder.own_images.geometry(description.root, "v1").spacing_mm
    assert "mm, the median; 0 of 6 volumes are resampled to it" in str(description)


def test_another_set_gets_the_voxel_size_of_the_network(tmp_path):
    like = folder.own_images.record(
        describe.describe(*write_sets(tmp_path), tmp_path / "work", "own-a").root
    )
    coarse = AFFINE @ np.diag([1, 2, 2, 1])
    other = write_alike(tmp_path / "other", coarse)
    description = describe.describe(*other, tmp_path / "work", "own-b", like=like)
    assert folder.own_images.record(description.root).spacing_mm == (3.0, 1.5, 2.0)
    assert "the network's; 6 of 6 volumes are resampled to it" in str(description)


# Slices first, the rest as it was: no mirror, another order.
SLICES_FIRST = AFFINE[:, [2, 1, 0, 3]]


def test_another_order_of_axes_in_one_folder_is_refused(tmp_path):
    images, labels = write_sets(tmp_path)
    image, label = volume(3)
    write(images / "v3_0000.nii.gz", image, SLICES_FIRST)
    write(labels / "v3.nii.gz", label, SLICES_FIRST)
    for _ in range(2):  # decoded, then remembered
        with pytest.raises(InputError) as caught:
            describe.describe(images, labels, tmp_path / "work")
        assert "1 problem." in str(caught.value)
        assert (
            "v3_0000.nii.gz: expected axes in the order left-right, back-front, "
            "foot-head, found foot-head, back-front, left-right. Where its header is "
            "wrong, correct it. Or reorder the axes of image and label map, for "
            "instance with nibabel's as_reoriented. Most volumes here have the "
            "expected order."
        ) in str(caught.value)


def test_another_order_of_axes_than_the_networks_is_refused(tmp_path):
    like = folder.own_images.record(
        describe.describe(*write_sets(tmp_path / "a"), tmp_path / "work").root
    )
    other = write_alike(tmp_path / "b", SLICES_FIRST, number=2)
    assert describe.describe(*other, tmp_path / "work")  # by itself it is good
    with pytest.raises(InputError) as caught:
        describe.describe(*other, tmp_path / "work", like=like)
    assert "2 problems" in str(caught.value)
    assert "order left-right, back-front, foot-head, found foot" in str(caught.value)
    assert "The network was trained on the expected order." in str(caught.value)
    assert "download" not in str(caught.value)
    # A header that doesn't say how its array lies is taken at its word.
    for path in [path for place in other for path in place.iterdir()]:
        silent = nibabel.load(path)
        silent = nibabel.Nifti1Image(np.asarray(silent.dataobj), None, silent.header)
        silent.set_sform(None, code=0)
        silent.set_qform(None, code=0)
        nibabel.save(silent, path)
    assert describe.describe(*other, tmp_path / "work", like=like)


def test_problems_of_voxel_sizes(tmp_path):
    images, labels = write_alike(tmp_path, AFFINE)
    thin = (1, *SHAPE[1:])
    for place, array in [(images, np.int16), (labels, np.uint8)]:
        flat = AFFINE @ np.diag([0.5, 1, 1, 1])
        write(place / "v4.nii.gz", np.ones(thin, array), flat)
        header = nibabel.Nifti1Header()
        header.set_sform(np.diag([0.0, 1, 1, 1]), code=1)
        empty = nibabel.Nifti1Image(np.ones(SHAPE, array), None, header)
        nibabel.save(empty, place / "v5.nii.gz")
    with pytest.raises(InputError) as caught:
        describe.describe(images, labels, tmp_path / "work")
    message = str(caught.value)
    thin = "expected a volume of one voxel of 3 x 1.5 x 2 mm at least, found 1 x 30 x"
    assert (
        f"ct/v4.nii.gz: {thin} 22 voxels of 1.5 x 1.5 x 2 mm. Take it out." in message
    )
    empty = "expected voxels above 0 mm, found 0 x 1 x 1. Correct the affine in its"
    assert f"ct/v5.nii.gz: {empty} header." in message


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        ((0, 0), np.nan, "voxels above 0 mm, found nan x 1.5 x 2"),
        ((0, 0), 0, "voxels above 0 mm, found 0 x 1.5 x 2"),
        (
            (1, 3),
            np.nan,
            "a finite affine, found 3 x 1.5 x 2 mm, ???, from (40, nan, 7)",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["ct", "seg"])
def test_a_file_with_a_wrong_affine_is_named(tmp_path, kind, at, value, expected):
    write_alike(tmp_path, AFFINE)
    path = tmp_path / kind / "v2.nii.gz"
    wrong = AFFINE.copy()
    wrong[at] = value
    header = nibabel.Nifti1Header()
    header.set_sform(wrong, code=1)
    voxels = np.asarray(nibabel.load(path).dataobj)
    nibabel.save(nibabel.Nifti1Image(voxels, None, header), path)
    with pytest.raises(InputError) as caught:
        describe.describe(tmp_path / "ct", tmp_path / "seg", tmp_path / "work")
    assert "1 problem." in str(caught.value)
    remedy = "Correct the affine in its header."
    assert f"{kind}/v2.nii.gz: expected {expected}. {remedy}" in str(caught.value)


def test_single_slices_at_several_angles_are_accepted(tmp_path):
    """Their thickness differs in the last bit of float32 from the median."""
    sizes = np.diag([5.0, 0.7, 0.7, 1.0])
    for number in range(9):
        cos, sin = np.cos(number / 20), np.sin(number / 20)
        turn = np.eye(4)
        turn[:2, :2] = [[cos, -sin], [sin, cos]]
        image = np.arange(480).reshape(1, 24, 20).astype(np.int16)
        for place, array in (("ct", image), ("seg", (image > 99).astype(np.uint8))):
            write(tmp_path / place / f"v{number}.nii.gz", array, turn @ sizes)
    description = describe.describe(
        tmp_path / "ct", tmp_path / "seg", tmp_path / "work"
    )
    files = (tmp_path / "ct").iterdir()
    thick = {nifti.geometry(path).spacing_mm[0] for path in files}
    assert len(thick) > 1 and min(thick) < np.median(list(thick))
    assert "0 of 9 volumes are resampled to it" in str(description)


def test_problems_of_volumes(tmp_path):
    images, labels = write_sets(tmp_path)
    write(images / "v0_0000.nii.gz", np.full(SHAPE, np.nan, np.float32))
    write(labels / "v1.nii.gz", volume(1, (14, 30, 21))[1])
    (images / "v2_0000.nii.gz").write_bytes(b"\x1f\x8b cut")
    write(labels / "v3.nii.gz", volume(3)[1] * np.float32(1.25))
    with pytest.raises(InputError) as caught:
        describe.describe(images, labels, tmp_path / "work")
    message = str(caught.value)
    assert "4 problems" in message
    missing = "expected numbers, found 9240 voxels that are NaN or infinite. Replace"
    what = "them by the value of what surrounds the body."
    assert f"v0_0000.nii.gz: {missing} {what}" in message
    assert "v2_0000.nii.gz: expected a whole NIfTI volume" in message
    assert "cut short or damaged. Copy it again (" in message
    size = "expected 14 x 30 x 22 voxels, as its image, found 14 x 30 x 21."
    assert f"v1.nii.gz: {size} Correct it, or take its case out." in message
    values = "expected the values 0 to 255, found 0, 1.25. Is this the label map?"
    assert f"v3.nii.gz: {values}" in message
    assert "download" not in message


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
        with pytest.raises(InputError, match=r"v1.nii.gz: expected the affine"):
            describe.describe(images, labels, tmp_path / "work")


def tiny(record) -> Protocol:
    overlap = tuple(size // 2 for size in record.input_shape)
    return Protocol(record.input_shape, filters=2, depth=2, epochs=8, overlap=overlap)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def whole(path: Path) -> list[dict[str, str]]:
    """The rows of `cases.csv` that are of whole images, not of a part of them."""
    return [row for row in rows(path) if row["region"] == "image"]


@pytest.mark.slow
def test_from_two_folders_to_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(protocol.PRESETS, "reduced", tiny)
    images, labels = write_sets(tmp_path, channels=2)
    given = ["--images", str(images), "--masks", str(labels), "--name", "ct"]
    assert main(["train", *given, "--loss", "DSC++", "--preset", "reduced"]) == 0
    (run,) = Path("results/own-ct/reduced/runs").iterdir()
    assert main(["predict", "--run", str(run)]) == 0
    assert main(["evaluate", "--run", str(run)]) == 0
    measured = whole(run / "cases.csv")
    assert {int(row["n_voxels"]) for row in measured} == {14 * 30 * 22}
    assert np.mean([float(row["dice"]) for row in measured]) > 0.5
    assert main(["tables"]) == 0
    means = {row["metric"]: row for row in rows(run.parents[1] / "table.csv")}
    tests = [float(row["nll"]) for row in measured if row["split"] == "test"]
    assert float(means["nll"]["mean"]) == pytest.approx(np.mean(tests), rel=1e-5)

    other = ["--images", "ct", "--masks", "seg", "--name", "elsewhere"]
    assert main(["evaluate", "--run", str(run), *other]) == 0
    there = {
        row["case"]: row["nll"] for row in whole(run / "other-sets/elsewhere/cases.csv")
    }
    assert len(there) == 7
    assert all(there[row["case"]] == row["nll"] for row in measured)

    one = ["--input", str(images / "v6_0000.nii.gz"), "--output", "out"]
    assert main(["predict", "--model", str(run), *one]) == 2
    assert "v6_0001.nii.gz: expected the images _0000, _0001" in capsys.readouterr().err
    Path("new").mkdir()
    for path in images.glob("v6_*"):
        path.rename(Path("new") / path.name)
    given = ["--input", "new", "--output", "out", "--pictures"]
    assert main(["predict", "--model", str(run), *given]) == 0
    kinds = ("", "_entropy", "_probabilities")
    names = {"v6_picture.png", "dscpp.sha256", *(f"v6{k}.nii.gz" for k in kinds)}
    assert {path.name for path in Path("out").iterdir()} == names
    written = nibabel.load("out/v6.nii.gz")
    given_image = nibabel.load("new/v6_0000.nii.gz")
    assert written.shape == SHAPE
    np.testing.assert_array_equal(written.affine, given_image.affine)
    softmax = nibabel.load("out/v6_probabilities.nii.gz").get_fdata()
    np.testing.assert_array_equal(np.asarray(written.dataobj), softmax.argmax(-1))
    record = json.loads((run / "run.json").read_text())
    assert record["preprocessing"]["spacing_mm"] == [3.0, 1.5, 2.0]
    assert record["preprocessing"]["modalities"] == ["0000", "0001"]
    assert record["settings"]["join"] == "gaussian"


def train_alike(place: Path) -> list[str]:
    """A run of volumes of one voxel size, in `run`; returns its command."""
    images, labels = write_alike(place, AFFINE)
    given = ["--images", str(images), "--masks", str(labels), "--loss", "CE"]
    command = ["train", *given, "--preset", "reduced", "--output", "run"]
    assert main([*command, "--epochs", "1"]) == 0
    return [*command, "--epochs", "1"]


@pytest.mark.slow
def test_another_set_is_predicted_at_the_voxel_size_of_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(protocol.PRESETS, "reduced", tiny)
    train_alike(tmp_path)
    coarse = AFFINE @ np.diag([1, 2, 1, 1])  # 3 mm in place of 1.5
    image, label = volume(9)
    write(tmp_path / "other" / "x.nii.gz", image, coarse)
    write(tmp_path / "truth" / "x.nii.gz", label, coarse)
    other = ["--images", "other", "--masks", "truth"]
    grids = []
    slabs = predictions.native_grid.slabs
    monkeypatch.setattr(
        predictions.native_grid,
        "slabs",
        lambda softmax, shape: grids.append(softmax.shape) or slabs(softmax, shape),
    )
    assert main(["evaluate", "--run", "run", *other]) == 0
    assert grids == [(14, 60, 22, 2)]
    (row,) = whole(Path("run/other-sets/other/cases.csv"))
    assert int(row["n_voxels"]) == 14 * 30 * 22
    write(tmp_path / "other" / "x.nii.gz", image, SLICES_FIRST)
    write(tmp_path / "truth" / "x.nii.gz", label, SLICES_FIRST)
    assert main(["evaluate", "--run", "run", *other, "--name", "b"]) == 2
    once = ["--input", "other/x.nii.gz", "--output", "out"]
    assert main(["predict", "--model", "run", *once]) == 2


@pytest.mark.slow
def test_older_run_keeps_its_training_grid(tmp_path, monkeypatch):
    """Runs of one voxel size once had none in their record, nor an order of axes.

    And their patches were joined as in the released code.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(protocol.PRESETS, "reduced", tiny)
    with monkeypatch.context() as before:
        nothing = dict.fromkeys(("spacing_mm", "axes", "directions"))
        before.setattr(own_grids, "usual", lambda facts: nothing)
        before.setattr(protocol, "is_own", lambda name: False)
        command = train_alike(tmp_path)
    kept = json.loads(Path("run/run.json").read_text())["preprocessing"]
    assert not {"spacing_mm", "axes", "directions"} & set(kept)
    assert main(command) == 0  # the same images, described anew
    assert main(["predict", "--run", "run"]) == 0
    assert main(["evaluate", "--run", "run"]) == 0
    record = json.loads(Path("run/run.json").read_text())
    assert record["preprocessing"] == kept
    assert record["settings"]["join"] == "miscnn"
    # Begun before, ended now.
    runs.Run.open(Path("run")).update(state="training")
    assert main(command) == 0
    other = write_alike(tmp_path / "other", AFFINE @ np.diag([1, 2, 1, 1]), number=1)
    given = ["--images", str(other[0]), "--masks", str(other[1])]
    assert main(["evaluate", "--run", "run", *given]) == 0


def test_steep_oblique_volume_is_refused(tmp_path):
    """It was let through and read with its axes exchanged."""
    images, labels = write_alike(tmp_path, AFFINE)
    cos, sin = np.cos(np.radians(60)), np.sin(np.radians(60))
    turn = np.eye(4)
    turn[:2, :2] = [[cos, -sin], [sin, cos]]
    for place, array in zip((images, labels), volume(6), strict=True):
        write(place / "v6.nii.gz", array, turn @ AFFINE)
    with pytest.raises(InputError) as caught:
        describe.describe(images, labels, tmp_path / "work")
    assert "1 problem." in str(caught.value)
    found = "found back-front, left-right, foot-head."
    assert f"left-right, back-front, foot-head, {found}" in str(caught.value)
    assert "ct/v6.nii.gz: expected axes" in str(caught.value)


def test_steep_oblique_volume_gets_the_nearest_axes():
    near = {"directions": "RAS"}
    steep = {"directions": "ARS"}
    silent = {"directions": None}
    cases = {"a": near, "b": near, "steep": steep, "silent": silent}
    facts = {
        case: {"image": {"spacing_mm": (1, 1, 1), **image}}
        for case, image in cases.items()
    }
    assert own_grids.usual(facts)["axes"] == (0, 1, 2)
    found = [volumes.order(roles["image"]) for roles in facts.values()]
    assert found == [(0, 1, 2), (0, 1, 2), (1, 0, 2), None]


def _turned() -> np.ndarray:
    """A rotation by 20 and 12 degrees: oblique, each axis still nearest to its own."""
    (a, b), (c, d) = ((np.cos(t), np.sin(t)) for t in np.radians([20, 12]))
    about_z = np.array([[a, -b, 0], [b, a, 0], [0, 0, 1]])
    turn = np.eye(4)
    turn[:3, :3] = np.array([[1, 0, 0], [0, c, -d], [0, d, c]]) @ about_z
    return turn


def write_oblique(place: Path, numbers: Sequence[int], names: Sequence[str]) -> None:
    """Volumes of a patient who lay oblique; the last one has thicker slices."""
    for number in numbers:
        thick = AFFINE @ np.diag([1.2 if number == numbers[-1] else 1, 1, 1, 1])
        image, label = volume(number)
        label[:, 3] = 1 - label[:, 3]  # a wrong plane: else no temperature fits
        write(place / names[0] / f"v{number}_0000.nii.gz", image, _turned() @ thick)
        write(place / names[1] / f"v{number}.nii.gz", label, _turned() @ thick)


def align(source: Path, target: Path) -> None:
    """Copy volumes with the rotation taken out of their affines."""
    for path in source.iterdir():
        stored = nibabel.load(path)
        affine = np.linalg.inv(_turned()) @ stored.affine
        write(target / path.name, np.asarray(stored.dataobj), affine)


def brief(record) -> Protocol:
    """As `tiny`; a training that is asked for more epochs ends by itself."""
    return dataclasses.replace(tiny(record), stopping_patience=5)


@pytest.fixture(scope="module")
def typed(tmp_path_factory) -> Path:
    """A folder where the commands of both pages were typed for oblique volumes.

    OTHER are the volumes of training, axis-aligned.
    """
    place = tmp_path_factory.mktemp("page")
    write_oblique(place, range(7), ("photos", "labels"))
    write_oblique(place, range(7, 13), ("NEW", "NEW-LABELS"))
    align(place / "photos", place / "OTHER")
    align(place / "labels", place / "OTHER-LABELS")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        pages = ("own_volumes.md", "own_images.md")
        own_page.type_all(patch, brief, "DSC++", pages)
        assert main(["predict", "--run", "RUN", "--nifti", "--pictures"]) == 0
    return place


def test_commands_of_own_volumes_page_run(typed, monkeypatch):
    monkeypatch.chdir(typed)
    for place in ("tables", "results/own-clinic-a/reduced", "comparison"):
        assert len(rows(Path(place) / "table.csv")) >= 5, place
    joined = {row["loss"] for row in rows(Path("comparison/table.csv"))}
    assert joined == {"DSC++", "DSC++ [epochs=20]"}
    kinds = (".nii.gz", "_picture.png", "_probabilities.nii.gz", "_entropy.nii.gz")
    assert all((Path("OUT") / f"v8{kind}").is_file() for kind in kinds)
    assert Path("SCALED/v8.nii.gz").is_file()


def test_outputs_of_oblique_volumes_keep_their_affine(typed):
    written = {
        "photos": [*typed.glob("RUN/nifti/*.gz"), *typed.glob("RUN/pictures/*.gz")],
        "NEW": [*typed.glob("OUT/*.gz"), *typed.glob("SCALED/*.gz")],
    }
    assert len(written["photos"]) >= 3 * 2 and len(written["NEW"]) == 6 * (3 + 1)
    for source, paths in written.items():
        for path in paths:
            case = path.name.partition(".")[0].partition("_")[0]
            image = nibabel.load(typed / source / f"{case}_0000.nii.gz")
            assert abs(image.affine[0, 1]) > 0.3  # oblique
            np.testing.assert_array_equal(nibabel.load(path).affine, image.affine)


def test_oblique_set_gives_the_measures_of_its_axis_aligned_copy(typed):
    run = typed / "RUN"
    there = measures(run / "other-sets" / "clinic-b" / "cases.csv")
    oblique = measures(run / "cases.csv")
    assert len(oblique) >= 3 and min(row[0] for row in oblique.values()) > 0.1
    for case, row in oblique.items():
        assert row == pytest.approx(there[case], rel=1e-4), case
    prepared = [
        cached(typed / images, typed / labels, typed / "work")
        for images, labels in (("photos", "labels"), ("OTHER", "OTHER-LABELS"))
    ]
    for case in (f"v{number}" for number in range(7)):
        one, other = (cache_.image(case) for cache_ in prepared)
        np.testing.assert_allclose(one, other, atol=1e-4)
        one, other = (cache_.label(case) for cache_ in prepared)
        np.testing.assert_array_equal(one, other)


def measures(path: Path) -> dict[str, list[float]]:
    names = ("dice", "nll", "brier", "recall")
    return {row["case"]: [float(row[name]) for name in names] for row in whole(path)}


def cached(images: Path, labels: Path, work: Path) -> cache.Cache:
    """What a training sees."""
    root = describe.describe(images, labels, work).root
    settings = Settings.of(folder.own_images.record(root), (8, 16, 16))
    return cache.prepare(
        folder.own_images, root, folder.own_images.cases(root), settings, work / "c"
    )
