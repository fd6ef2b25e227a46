"""DRIVE: the layout as distributed, palettes, missing labels, folders and zips."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imitations import PALETTE, field_of_view, vessels, write_drive, write_palette
from PIL import Image

from data_io import datasets
from data_io.datasets.dataset import AGAIN
from data_io.datasets.drive import drive
from data_io.errors import InputError
from data_io.files.reading import decode
from data_io.prepare.interface import RawInterface
from pipelines import cli

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def imitation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("imitation"))


@pytest.fixture
def copy(imitation: Path, tmp_path: Path) -> Path:
    """An imitation that a test may damage."""
    return Path(shutil.copytree(imitation, tmp_path / "DRIVE"))


def zipped(folder: Path, path: Path, inside: str) -> Path:
    """Puts an imitation into a zip, under `inside`."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{inside}{file.relative_to(folder)}")
    return path


def test_names_and_by_name() -> None:
    assert {"drive", "dsb2018", "phantom"} <= set(datasets.NAMES)
    assert datasets.by_name("DRIVE") is drive
    with pytest.raises(InputError, match=r"nonesuch.*drive, bus2017"):
        datasets.by_name("nonesuch")


def test_record_is_the_papers() -> None:
    assert drive.RECORD.counts == {"training": 16, "validation": 4, "test": 20}
    assert drive.RECORD.cases == 40
    assert drive.RECORD.input_shape == (512, 512)
    assert drive.RECORD.raw_shape == (584, 565)  # rows first; not the camera's 768x584
    assert not drive.RECORD.simulated


def test_split_is_fixed_and_disjoint(imitation: Path) -> None:
    parts = drive.split(imitation)
    assert parts["training"] == tuple(str(n) for n in range(21, 37))
    assert parts["validation"] == ("37", "38", "39", "40")
    assert parts["test"][0] == "01"
    assert parts["test"][-1] == "20"
    assert len({case for part in parts.values() for case in part}) == 40


def test_roles_and_files(imitation: Path) -> None:
    names = [path.relative_to(imitation).as_posix() for path in
             drive.files(imitation, "01")]  # fmt: skip
    assert names == [
        "test/images/01_test.tif",
        "test/1st_manual/01_manual1.gif",
        "test/2nd_manual/01_manual2.gif",
        "test/mask/01_test_mask.gif",
    ]
    assert set(drive.roles(imitation, "21")) == {"image", "observer1", "field of view"}


def test_references_follow_the_palette_index_not_the_colour(imitation: Path) -> None:
    label = vessels(1) & field_of_view()
    found = drive.references(imitation, "01")
    assert {k: v.dtype for k, v in found.items()} == {
        "observer1": np.uint8,
        "observer2": np.uint8,
    }
    np.testing.assert_array_equal(found["observer1"], label)
    second = np.roll(label, 1, axis=1) & field_of_view()
    np.testing.assert_array_equal(found["observer2"], second)
    # The trap: as greys the background is the brighter of the two.
    path = drive.roles(imitation, "01")["observer2"]
    grey = np.asarray(Image.open(path).convert("L"))
    assert grey[second].max() < grey[~second].min()
    assert set(drive.references(imitation, "21")) == {"observer1"}


def test_a_palette_index_above_one_is_foreground(copy: Path) -> None:
    path = drive.roles(copy, "01")["observer2"]
    indices = 3 * vessels(7).astype(np.uint8)
    write_palette(path, indices, PALETTE + [0, 0, 0] * 2)
    np.testing.assert_array_equal(
        drive.references(copy, "01")["observer2"], indices > 0
    )


def test_regions(imitation: Path) -> None:
    found = drive.regions(imitation, "40")
    assert found["image"].dtype == found["field of view"].dtype == bool
    assert found["image"].all()
    np.testing.assert_array_equal(found["field of view"], field_of_view())


@pytest.mark.parametrize("inside", ["", "DRIVE/", "download/DRIVE/"])
def test_locate_in_a_zip(
    imitation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    monkeypatch.chdir(tmp_path)
    archive = zipped(imitation, tmp_path / "DRIVE.zip", inside)
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("__MACOSX/._DRIVE", b"litter")
    root = drive.locate(archive)
    assert drive.check(root) == []
    assert drive.remarks(root) == []
    touched = root / "touched"
    touched.touch()
    assert drive.locate(tmp_path) == root  # the folder that contains the zip
    assert touched.exists()  # unpacked once
    assert [p.name for p in root.parents if p.name == ".work"]
    assert not list(Path(".work/data").glob(".unpacking*"))


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/outside.txt", "DRIVE/../../x", "C:\\x", "..\\x"]
)
def test_a_zip_that_points_outside_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with zipfile.ZipFile("DRIVE.zip", "w") as archive:
        archive.writestr("DRIVE/training/note.txt", "well")
        archive.writestr(name, "not well")
    with pytest.raises(InputError, match="Do not trust this file"):
        drive.locate(Path("DRIVE.zip"))
    assert not (tmp_path / "outside.txt").exists()
    assert not list((tmp_path / "here").rglob("note.txt"))


def test_a_link_in_a_zip_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    link = zipfile.ZipInfo("DRIVE/training")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile("DRIVE.zip", "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(InputError, match="Do not trust this file"):
        drive.locate(Path("DRIVE.zip"))


def test_a_damaged_zip(
    imitation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.zip"
    text.write_text("not a zip")
    with pytest.raises(InputError, match=r"text\.zip: expected a whole"):
        drive.locate(text)
    archive = zipped(imitation, tmp_path / "DRIVE.zip", "DRIVE/")
    content = bytearray(archive.read_bytes())
    content[1000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"DRIVE\.zip: expected a whole"):
        drive.locate(archive)
    assert list(Path(".work/data").iterdir()) == []  # nothing half unpacked


def test_zip_without_a_writable_folder(
    imitation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".work").touch()
    archive = zipped(imitation / "test" / "mask", tmp_path / "DRIVE.zip", "training/")
    with pytest.raises(InputError, match=r"expected to unpack it in \.work/data"):
        drive.locate(archive)


def test_locate_in_folders(
    imitation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drive.locate(imitation) == imitation
    assert drive.locate(imitation.parent) == imitation
    monkeypatch.chdir(tmp_path)
    shutil.copytree(imitation, "data/DRIVE")
    assert drive.locate(None) == Path("data/DRIVE")


def test_message_for_missing_data_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        drive.locate(None)
    text = str(caught.value)
    for part in (
        "data/DRIVE", "no such folder", "https://drive.grand-challenge.org", "account",
        "1st_manual/21_manual1.gif", "make demo",
    ):  # fmt: skip
        assert part in text
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="an empty folder"):
        drive.locate(tmp_path / "other")
    (tmp_path / "other" / "cats.txt").touch()
    with pytest.raises(InputError, match=r"a folder with cats\.txt"):
        drive.locate(tmp_path / "other")
    with pytest.raises(InputError, match="a file that is no zip"):
        drive.locate(tmp_path / "other" / "cats.txt")


def test_check_of_a_whole_set(imitation: Path) -> None:
    assert drive.check(imitation) == []
    assert drive.remarks(imitation) == []


def test_missing_test_labels_give_one_line(copy: Path) -> None:
    shutil.rmtree(copy / "test" / "1st_manual")
    (problem,) = drive.check(copy)
    for part in (
        "expected 20 files in test/1st_manual", "found 0",
        "current official download has none", "no training can be evaluated",
        "so none is begun",
    ):  # fmt: skip
        assert part in problem
    assert set(drive.references(copy, "01")) == {"observer2"}
    assert set(drive.references(copy, "21")) == {"observer1"}


def test_single_missing_test_label_is_not_blamed_on_the_download(copy: Path) -> None:
    (copy / "test" / "1st_manual" / "07_manual1.gif").unlink()
    (problem,) = drive.check(copy)
    assert problem.startswith("test/1st_manual/07_manual1.gif: expected a file")
    assert problem.endswith("(19 of 20 files of this kind are there). " + AGAIN)


def test_missing_second_observer_is_a_remark(copy: Path) -> None:
    one = drive.roles(copy, "03")["observer2"]
    one.unlink()
    (problem,) = drive.check(copy)
    assert problem.startswith("test/2nd_manual/03_manual2.gif: expected a file")
    assert "19 of 20" in problem
    shutil.rmtree(one.parent)
    assert drive.check(copy) == []
    assert "observer 2 are left out" in drive.remarks(copy)[0]


def test_extra_files_and_a_41st_case_are_remarks(copy: Path) -> None:
    for name in (".DS_Store", "test/Thumbs.db", "training/images/._21_training.tif"):
        (copy / name).touch()
    assert drive.check(copy) == []
    (remark,) = drive.remarks(copy)
    assert ".DS_Store" in remark
    assert "Thumbs.db" in remark
    shutil.copy(
        copy / "training/images/21_training.tif",
        copy / "training/images/41_training.tif",
    )
    assert drive.check(copy) == []
    assert "training/images/41_training.tif" in drive.remarks(copy)[0]


def test_interface(imitation: Path, tmp_path: Path) -> None:
    raw = RawInterface(drive, imitation)
    cases = raw.initialize(str(imitation))
    assert cases[0] == "21"
    assert cases[-1] == "20"
    assert len(cases) == 40
    assert (raw.channels, raw.classes, raw.three_dim) == (3, 2, False)
    image, details = raw.load_image("05")
    assert image.shape == (584, 565, 3)
    assert image.dtype == np.uint8
    assert details == {"type": "image"}
    label = raw.load_segmentation("05")
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, vessels(5) & field_of_view())
    # A vessel is 0.6 times as bright as its surroundings in the imitation.
    assert image[label > 0].mean() < 0.8 * image[(label == 0) & field_of_view()].mean()


def test_miscnn_draws_samples_through_the_interface(imitation: Path) -> None:
    from data_io.prepare.miscnn_compat import Data_IO

    source = Data_IO(RawInterface(drive, imitation), str(imitation))
    assert len(source.get_indiceslist()) == 40
    sample = source.sample_loader("40", load_seg=True)
    assert sample.img_data.shape == (584, 565, 3)
    assert sample.seg_data.shape == (584, 565, 1)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_truncated_file_is_an_error_or_complete(
    imitation: Path, data: st.DataObject
) -> None:
    role = data.draw(st.sampled_from(["image", "observer1", "observer2"]))
    path = drive.roles(imitation, "01")[role]
    content = path.read_bytes()
    size = data.draw(st.integers(0, len(content) - 1))
    part = imitation.parent / f"part{path.suffix}"
    part.write_bytes(content[:size])
    try:
        mode, pixels = decode(part)
    except InputError as error:
        assert str(error).startswith(f"{part}: expected a whole")
        return
    whole = decode(path)
    assert mode == whole[0]  # only what follows the pixels was cut
    np.testing.assert_array_equal(pixels, whole[1])


def test_finding_and_checking_need_no_framework() -> None:
    code = (
        "import sys, data_io.verification.verify; from data_io.datasets import drive; "
        "heavy = {'keras', 'tensorflow', 'torch', 'jax', 'miscnn'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_real_data_set_is_as_expected(drive_root: Path) -> None:
    assert drive.check(drive_root) == []
    label = drive.references(drive_root, "01")
    inside = drive.regions(drive_root, "01")["field of view"]
    assert 0.6 < inside.mean() < 0.75
    for observer in label.values():
        assert observer.shape == (584, 565)
        assert 0.07 < observer.mean() < 0.12
    first, second = label["observer1"], label["observer2"]
    dice = 2 * (first & second).sum() / (first.sum() + second.sum())
    assert 0.75 < dice < 0.9  # two people who looked at the same eye


def test_committed_runs_used_the_real_data_set(
    drive_root: Path, tmp_path: Path, project: Path
) -> None:
    """`dscpp train` on the same data trains nothing: split and content are the same."""
    run = tmp_path / "dscpp-s0"
    run.mkdir()
    kept = project / "results" / "drive" / "reduced" / "runs" / "dscpp-s0" / "run.json"
    shutil.copy(kept, run)
    command = ["train", "--dataset", "drive", "--data", str(drive_root)]
    command += ["--loss", "DSC++", "--preset", "reduced", "--output", str(run)]
    assert cli.main([*command, "--work", str(tmp_path / "work")]) == 0
    assert (run / "run.json").read_bytes() == kept.read_bytes()
