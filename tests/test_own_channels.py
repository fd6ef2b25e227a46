"""Several files of a case are its channels: `case_0000`, `case_0001`, ..."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from data_io.datasets import folder
from data_io.errors import InputError
from data_io.own_images import channels, describe
from data_io.prepare import cache
from data_io.prepare.preprocessing import Settings

SHAPE = (6, 8, 7)
AFFINE = np.diag([3.0, 1.0, 1.5, 1.0])


def write(path: Path, array: np.ndarray, affine=AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases of two modalities, whose scales differ by far."""
    random = np.random.default_rng(0)
    for number in range(3):
        images = random.random((2, *SHAPE), np.float32)
        for modality, scale in enumerate((1, 1000)):
            name = f"n{number}_000{modality}.nii.gz"
            write(tmp_path / "mr" / name, images[modality] * scale)
        label = (images[0] > 0.5).astype(np.uint8)
        write(tmp_path / "seg" / f"n{number}.nii.gz", label)
    return tmp_path / "mr", tmp_path / "seg"


def refused(sets, tmp_path, **options) -> str:
    with pytest.raises(InputError) as caught:
        describe.describe(*sets, tmp_path / "work", **options)
    return str(caught.value)


def test_files_of_a_case_are_its_channels(sets, tmp_path):
    description = describe.describe(*sets, tmp_path / "work")
    record = folder.own_images.record(description.root)
    assert folder.own_images.cases(description.root) == ("n0", "n1", "n2")
    assert (record.channels, record.modalities) == (2, ("0000", "0001"))
    assert "2 channels (_0000, _0001)" in str(description)
    image = folder.own_images.image(description.root, "n1")
    for number in (0, 1):
        path = sets[0] / f"n1_000{number}.nii.gz"
        np.testing.assert_array_equal(image[..., number], nibabel.load(path).dataobj)
    names = [path.name for path in folder.own_images.files(description.root, "n1")]
    assert names[1:] == ["n1_0000.nii.gz", "n1_0001.nii.gz", "n1.nii.gz"]


def test_each_channel_has_its_own_z_score(sets, tmp_path):
    description = describe.describe(*sets, tmp_path / "work")
    settings = Settings.of(folder.own_images.record(description.root), SHAPE)
    assert Settings.from_dict(settings.as_dict()) == settings
    prepared = cache.prepare(
        folder.own_images,
        description.root,
        ["n0"],
        settings,
        tmp_path / "cache",
        progress=False,
    )
    image = prepared.image("n0")
    np.testing.assert_allclose(image.mean(axis=(0, 1, 2)), [0, 0], atol=1e-4)
    np.testing.assert_allclose(image.std(axis=(0, 1, 2)), [1, 1], atol=1e-4)


def test_a_missing_channel_is_named(sets, tmp_path):
    (sets[0] / "n1_0001.nii.gz").unlink()
    shutil.copy(sets[0] / "n0_0001.nii.gz", sets[0] / "n2_0002.nii.gz")
    problems = refused(sets, tmp_path)
    assert "2 problems" in problems
    expected = "expected the images _0000, _0001 of each case, as most cases have them"
    remedy = "found no such file among those given. Put it there, or take case n1 out."
    assert f"n1_0001.nii.gz: {expected}, {remedy}" in problems
    assert f"n2_0002.nii.gz: {expected}, found this one too. Take it out" in problems


def test_channels_on_other_grids_are_named(sets, tmp_path):
    write(sets[0] / "n0_0001.nii.gz", np.ones((6, 8, 9)) * np.arange(9))
    moved = AFFINE + np.array([[0, 0, 0, 5]] * 3 + [[0] * 4])
    write(sets[0] / "n1_0001.nii.gz", np.ones(SHAPE) * np.arange(7), moved)
    write(sets[0] / "n2_0001.nii.gz", np.ones(SHAPE))
    problems = refused(sets, tmp_path)
    assert "3 problems" in problems
    remedy = "Correct it, or take its case out."
    size = "expected 6 x 8 x 7 voxels, as its image, found 6 x 8 x 9."
    assert f"n0_0001.nii.gz: {size} {remedy}\n" in problems
    assert "n1_0001.nii.gz: expected the affine of its image, 3 x 1 x 1.5" in problems
    assert "to the image's, by nearest neighbour." in problems
    same = "expected an image of something, found the same value in all its voxels."
    assert f"n2_0001.nii.gz: {same} {remedy}" in problems
    assert "download" not in problems


def test_axes_in_another_order_are_named_once_per_case(sets, tmp_path):
    for path in (*sets[0].glob("n2*"), *sets[1].glob("n2*")):
        write(path, np.asarray(nibabel.load(path).dataobj), AFFINE[[2, 1, 0, 3]])
    problems = refused(sets, tmp_path)
    assert "1 problem." in problems and "n2_0000.nii.gz: expected axes" in problems


def test_network_of_two_channels_requires_two(sets, tmp_path):
    like = folder.own_images.record(describe.describe(*sets, tmp_path / "work").root)
    description = describe.describe(sets[0], None, tmp_path / "work", like=like)
    assert folder.own_images.cases(description.root) == ("n0", "n1", "n2")
    one = sets[0] / "n1_0000.nii.gz"
    expected = (
        "expected the images _0000, _0001 of each case, as the network takes them"
    )
    message = refused((one, None), tmp_path, like=like)
    given = "found no such file among those given."
    remedy = "Give the folder with it, or take case n1 out."
    assert f"n1_0001.nii.gz: {expected}, {given} {remedy}" in message
    shutil.copy(one, tmp_path / "plain.nii.gz")
    message = refused((tmp_path / "plain.nii.gz", None), tmp_path, like=like)
    remedy = "Put it there, or take case plain out."
    assert f"plain_0000.nii.gz: {expected}, {given} {remedy}" in message


FRAMES = {f"f_{number:04}": Path(f"f_{number:04}.png") for number in range(3)}
SCANS = {stem: Path(f"{stem}.nii.gz") for stem in ("a_0000", "b_0000")}


@pytest.mark.parametrize(
    ("files", "labels", "known", "cases"),
    [
        (FRAMES, ["f_0000_mask", "f_0001_mask"], None, list(FRAMES)),
        (FRAMES, ["f"], None, ["f"]),
        (FRAMES, None, None, list(FRAMES)),
        (FRAMES, None, ("0000",), ["f"]),
        (SCANS, ["a", "b"], None, ["a", "b"]),
        (SCANS, ["a_0000", "b_0000"], None, ["a_0000", "b_0000"]),
        (SCANS, None, None, ["a", "b"]),
        (SCANS | {"a_0001": Path("a_0001.nii")}, None, None, [*SCANS, "a_0001"]),
        ({"p_2019": Path("p_2019.png")}, ["p"], None, ["p_2019"]),
    ],
)
def test_number_in_a_file_name_is_a_channel_or_part_of_the_name(
    files, labels, known, cases
):
    assert list(channels.grouped(files, labels, known)) == cases


def test_one_network_channel_takes_one_file():
    groups = channels.grouped({**SCANS, "a_0001": Path("a_0001.nii")}, None, ("0000",))
    good, problems = channels.complete(groups, ("0000",), "the network takes them")
    assert list(good) == ["b"]
    (line,) = problems
    assert line.startswith("a_0001.nii: expected one image of case a, as the network")


def test_grey_pictures_of_a_case_are_channels(tmp_path):
    random = np.random.default_rng(1)
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        pixels = random.integers(0, 256, (9, 7), np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        label = np.eye(9, 7, dtype=np.uint8)
        Image.fromarray(label).save(tmp_path / "out" / f"{name}_seg.png")
    sets = tmp_path / "in", tmp_path / "out"
    root = describe.describe(*sets, tmp_path / "work").root
    assert folder.own_images.image(root, "b").shape == (9, 7, 2)
    assert folder.own_images.picture(root, "b").shape == (9, 7, 3)
    colours = np.repeat(pixels[..., None], 3, axis=-1)
    Image.fromarray(colours).save(tmp_path / "in" / "b_0001.png")
    assert "case b: expected grey images where several" in refused(sets, tmp_path)


def test_problems_are_the_same_in_each_process(sets, tmp_path):
    """Which of two files fitted a label map was decided by the order of hashes."""
    for number in range(3):
        for old, new in (("0000", "t1"), ("0001", "t2")):
            path = sets[0] / f"n{number}_{old}.nii.gz"
            path.rename(sets[0] / f"n{number}_{new}.nii.gz")
    code = "import sys; from data_io.own_images import describe; "
    code += "print(describe.match_names(sys.argv[1].split(), sys.argv[2].split()))"
    images = [path.name.removesuffix(".nii.gz") for path in sorted(sets[0].iterdir())]
    command = [sys.executable, "-c", code, " ".join(images), "n0 n1 n2"]
    outputs = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in "012"
    }  # fmt: skip
    assert outputs == {"{}\n"}
    message = refused(sets, tmp_path)
    assert "n1_t1.nii.gz: expected a label map n1_t1.* or" in message
